"""`seq2exp spatial inspect` and `spatial plot`, as a user types them."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from seq2exp.cli.main import main
from seq2exp.core.config import dump_yaml
from tests.spatial.fakes import write_section

SECTIONS = {"A1": "A", "B1": "B", "C1": "C"}


def call(*words):
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A cohort, a run of ridge, one of nsl, and predictions."""
    folder = tmp_path_factory.mktemp("users")
    for seed, (name, patient) in enumerate(SECTIONS.items()):
        write_section(folder / "raw", name, patient, seed=seed)
    config = {
        "name": "small",
        "sections": [{"name": name, "table": f"{name}.h5ad"} for name in SECTIONS],
        "patch": {"um": 160.0, "px": 32},
    }
    dump_yaml(config, folder / "cohort.yaml")
    panel = {"kind": "heg", "num_genes": 12}
    dump_yaml({"system": {"name": "ridge", "alpha": 10.0}, "panel": panel}, folder / "ridge.yaml")
    fit = {"max_epochs": 2, "lr": 0.01, "batch_size": 32}
    dump_yaml({"system": {"name": "nsl"}, "panel": panel, "fit": fit}, folder / "nsl.yaml")
    cohort = folder / "cohort"
    assert call("spatial", "prepare", "--quiet", "--config", folder / "cohort.yaml", "--source",
                folder / "raw", "--out", cohort) == 0  # fmt: skip
    for name in ("ridge", "nsl"):
        assert call("spatial", "train", "--quiet", "--config", folder / f"{name}.yaml", "--data",
                    cohort, "--out", folder / name) == 0  # fmt: skip
    assert call("spatial", "predict", folder / "ridge", "--data", cohort, "--quiet", "--out",
                folder / "predicted") == 0  # fmt: skip
    return folder


# A cohort -------------------------------------------------------------------------------------


def test_a_cohort_is_described_and_drawn(place, tmp_path, capsys):
    out, rows = tmp_path / "pictures", tmp_path / "rows.json"
    assert call("spatial", "inspect", place / "cohort", "--out", out, "--json", rows, "--quiet",
                "--section", "B1") == 0  # fmt: skip
    text = capsys.readouterr().out
    assert "patients: 3, sections: 3, spots: 126" in text
    line = next(line for line in text.splitlines() if line.startswith("B1"))
    assert line.split()[:5] == ["B1", "B", "42", "0", "30"]
    assert not any(line.startswith("A1") for line in text.splitlines())
    assert "note: fewer than 50 spots in A1, B1, C1" in text
    assert [path.name for path in out.iterdir()] == ["B1.png"]
    counts = anndata.read_h5ad(place / "cohort" / "sections" / "B1.h5ad").obs["total_counts"]
    found = {(row["name"], row["metric"]): row for row in json.loads(rows.read_text())["rows"]}
    assert found["B1", "median_counts"]["value"] == np.median(counts)
    assert found["A1", "genes"]["value"] == 30


def test_a_section_without_its_image_is_left_out(place, tmp_path, caplog):
    import shutil

    cohort = tmp_path / "cohort"
    shutil.copytree(place / "cohort", cohort)
    manifest = json.loads((cohort / "manifest.json").read_text())
    manifest["sections"][0]["image"] = "images/gone.png"
    (cohort / "manifest.json").write_text(json.dumps(manifest))
    assert call("spatial", "inspect", cohort, "--out", tmp_path / "out", "--quiet") == 0
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == ["B1", "C1"]


# A run ----------------------------------------------------------------------------------------


def test_a_run_is_described_by_its_folds(place, tmp_path, capsys):
    rows = tmp_path / "rows.json"
    assert call("spatial", "inspect", place / "ridge", "--json", rows) == 0
    text = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    genes = pd.read_csv(place / "ridge" / "folds" / "B" / "genes.tsv", sep="\t")
    assert lines["B"][1:6] == ["42", "42", "42", "-", "-"]
    assert lines["B"][7] == f"{genes['pearson'].mean():.3f}"
    assert lines["B"][9] == f"{np.sqrt(genes['mse']).mean():.3f}"
    assert lines["final"][3] == "0"
    assert "leaky" not in text
    found = {(row["name"], row["metric"]): row for row in json.loads(rows.read_text())["rows"]}
    assert found["B", "heldout_pearson"]["value"] == pytest.approx(genes["pearson"].mean())
    assert found["final", "heldout_pearson"]["value"] is None


def test_stain_learning_gives_its_weights_and_maps(place, tmp_path, capsys):
    out = tmp_path / "nsl"
    assert call("spatial", "inspect", place / "nsl", "--out", out, "--genes", "G3,g5", "--section",
                "C1") == 0  # fmt: skip
    text = capsys.readouterr().out
    assert next(line for line in text.splitlines() if line.startswith("A ")).split()[4] == "2"
    assert sorted(path.name for path in out.iterdir()) == [
        "C1_G3.png", "C1_G5.png", "stains.tsv", "weights.tsv"]  # fmt: skip
    weights = pd.read_csv(out / "weights.tsv", sep="\t")
    numbers = [c for c in weights if c.split("_")[0] in ("unmix", "shift", "read", "level")]
    assert (len(weights), len(numbers)) == (12, 11)
    assert len(pd.read_csv(out / "stains.tsv", sep="\t")) == 24


# Genes over tissue ----------------------------------------------------------------------------


def test_genes_are_drawn(place, tmp_path, capsys):
    out = tmp_path / "plots"
    assert call("spatial", "plot", place / "predicted", "--genes", "G3", "--top", "2", "--out",
                out, "--quiet") == 0  # fmt: skip
    text = capsys.readouterr().out
    assert "by correlation on held-out tissue" in text
    var = anndata.read_h5ad(place / "predicted" / "A1.h5ad").var
    best = list(var["heldout_pearson"].sort_values(ascending=False).index[:2])
    assert {path.stem for path in out.iterdir()} == {"G3", *best}
    # Three sections as rows, four columns; twice as high as one section alone at least.
    tall = Image.open(out / "G3.png").size
    assert call("spatial", "plot", place / "predicted" / "B1.h5ad", "--genes", "G3", "--out",
                tmp_path / "one", "--quiet") == 0  # fmt: skip
    one = Image.open(tmp_path / "one" / "G3.png").size
    assert one[0] == tall[0]
    assert tall[1] > 2 * one[1]


def test_what_is_drawn_is_said(place, monkeypatch, tmp_path):
    """Held-out predictions where there are, with the accuracy of the gene."""
    from seq2exp.report import gene_map

    drawn = []
    plot = gene_map.plot_gene

    def spy(*words, **settings):
        drawn.append((words, settings))
        return plot(*words, **settings)

    monkeypatch.setattr(gene_map, "plot_gene", spy)
    line = ["spatial", "plot", place / "predicted", "--genes", "G3", "--quiet", "--out"]
    assert call(*line, tmp_path / "a", "--section", "B1") == 0
    ((name, (row,)), settings) = drawn[0]
    data = anndata.read_h5ad(place / "predicted" / "B1.h5ad")
    place_of = list(data.var_names).index("G3")
    assert (name, row.section, row.how) == ("G3", "B1", "held out")
    np.testing.assert_allclose(row.predicted_N, data.layers["heldout"][:, place_of])
    np.testing.assert_allclose(row.observed_N, data.layers["observed"][:, place_of])
    np.testing.assert_allclose(row.sd_N, data.layers["fold_sd"][:, place_of])
    assert settings["unit"] == "ln(counts per 10,000 + 1)"
    assert settings["spread"] == "sd across the fold systems"
    row = data.var.loc["G3"]
    said = f"on {row['heldout_sections']} held-out sections: r = {row['heldout_pearson']:.2f}"
    assert said in settings["note"]
    # The same file without what was held out, and without counts.
    del data.layers["heldout"], data.layers["fold_sd"], data.uns["spatial"]
    data.layers["observed"][:] = np.nan
    data.var["heldout_pearson"] = np.nan
    data.write_h5ad(tmp_path / "bare.h5ad")
    line[2] = tmp_path / "bare.h5ad"
    assert call(*line, tmp_path / "b") == 0
    ((_, (row,)), settings) = drawn[1]
    assert row.how == "fitted on this section"
    np.testing.assert_allclose(row.predicted_N, data.X[:, place_of])
    assert row.observed_N is None
    assert row.sd_N is None
    assert "not known" in settings["note"]
    assert row.tissue.pixels_HW3.min() == 255


def test_many_sections_take_several_pages(place, tmp_path, monkeypatch):
    monkeypatch.setattr("seq2exp.cli.spatial_plot._ROWS", 2)
    assert call("spatial", "plot", place / "predicted", "--genes", "G3", "--out",
                tmp_path / "out", "--quiet") == 0  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["G3_1.png", "G3_2.png"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["inspect", "NONE"], "expected a cohort folder"),
        (["inspect", "COHORT", "--section", "B2"], "did you mean 'B1'"),
        (["inspect", "COHORT", "--genes", "G3"], "expected a run of nsl"),
        (["inspect", "RIDGE", "--out", "NONE"], "expected nsl, whose weights can be read"),
        (["inspect", "NSL", "--out", "NONE", "--genes", "GG3"], "no GG3 (near: G3"),
        (["inspect", "COHORT", "--out", "COHORT"], "which is read"),
        (["plot", "PREDICTED", "--genes", "GG3", "--out", "NONE"], "no GG3 (near: G3"),
        (["plot", "PREDICTED", "--top", "0", "--out", "NONE"], "expected >= 1"),
        (["plot", "PREDICTED", "--section", "D1", "--out", "NONE"], "a section of the prediction"),
        (["plot", "NONE", "--out", "X"], "spatial predict"),
    ],
)
def test_bad_input_is_one_line(place, tmp_path, capsys, line, message):
    places = {
        "NONE": tmp_path / "none",
        "X": tmp_path / "x",
        "COHORT": place / "cohort",
        "RIDGE": place / "ridge",
        "NSL": place / "nsl",
        "PREDICTED": place / "predicted",
    }
    assert call("spatial", *(places.get(word, word) for word in line), "--quiet") == 2
    text = capsys.readouterr().err.strip()
    assert message in text
    assert len(text.splitlines()) == 1
    assert not (tmp_path / "none").exists()
