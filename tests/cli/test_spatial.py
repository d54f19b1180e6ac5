"""`seq2exp spatial ...` from files to numbers, as a user types it."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import pytest

from seq2exp.cli.main import main
from seq2exp.core.config import dump_yaml
from tests.spatial.fakes import GENES, write_section


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spatial")
    sections = {"A1": "A", "B1": "B", "C1": "C"}
    for seed, (name, patient) in enumerate(sections.items()):
        write_section(folder / "raw", name, patient, seed=seed)
    config = {
        "name": "small",
        "sections": [{"name": name, "table": f"{name}.h5ad"} for name in sections],
        "patch": {"um": 160.0, "px": 32},
    }
    dump_yaml(config, folder / "cohort.yaml")
    settings = {
        "system": {"name": "ridge", "alpha": 10.0},
        "panel": {"kind": "heg", "num_genes": 20},
    }
    dump_yaml(settings, folder / "ridge.yaml")
    return folder


@pytest.fixture(scope="module")
def run(raw):
    line = ["spatial", "prepare", "--quiet", "--config", raw / "cohort.yaml", "--source",
            raw / "raw", "--out", raw / "cohort"]  # fmt: skip
    assert main(list(map(str, line))) == 0
    line = ["spatial", "train", "--quiet", "--config", raw / "ridge.yaml", "--data",
            raw / "cohort", "--out", raw / "run"]  # fmt: skip
    assert main(list(map(str, line))) == 0
    return raw / "run"


def test_numbers_are_printed_and_written(run, capsys):
    out, table = run.parent / "rows.json", run.parent / "genes.tsv"
    line = ["spatial", "evaluate", run, "--json", out, "--out", table, "--resamples", "100"]
    assert main(list(map(str, line))) == 0
    text = capsys.readouterr().out
    assert "shuffled patches" in text
    assert "folds by patient" in text
    assert "leaky" not in text
    rows = json.loads(out.read_text())["rows"]
    keys = {"name", "metric", "split", "value", "low", "high", "n"}
    assert all(set(row) == keys for row in rows)
    found = next(row for row in rows if (row["name"], row["metric"]) == ("model", "pearson"))
    assert f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]" in text
    # Four tables of three sections and twenty genes, and the header.
    assert len(table.read_text().splitlines()) == 1 + 4 * 3 * 20


def test_predictions_open_as_anndata(run):
    out = run.parent / "predicted"
    line = ["spatial", "predict", run, "--data", run.parent / "cohort", "--out", out, "--quiet"]
    assert main(list(map(str, line))) == 0
    data = anndata.read_h5ad(out / "B1.h5ad")
    assert data.shape == (42, 20)
    assert data.obsm["spatial"].shape == (42, 2)
    assert data.uns["seq2exp"]["system"] == "ridge"
    assert data.layers["observed"].shape == data.X.shape
    # Fitted on this section too, so the planted genes must be there.
    planted = [gene for gene in data.var_names if int(gene[1:]) < 10]
    part = data[:, planted]
    r = [
        np.corrcoef(part.X[:, i], part.layers["observed"][:, i])[0, 1] for i in range(len(planted))
    ]
    assert np.mean(r) > 0.5
    assert GENES == 30


def compare_line(run, out, *more):
    cohort = run.parent / "cohort"
    systems = "--systems.stnet.fit.max_epochs"
    return list(map(str, ["spatial", "compare", "--quiet", "--data", cohort, "--out", out, systems,
                          "2", "--panel.kind", "heg", "--panel.num_genes", "20",
                          "--num_resamples", "100", *more]))  # fmt: skip


def test_systems_are_compared_in_one_table(run, tmp_path, capsys):
    out, numbers = tmp_path / "out", tmp_path / "numbers.json"
    files = f"fast={run.parent / 'ridge.yaml'}"
    line = compare_line(run, out, "--systems", "ridge,stnet", "--config-of", files, "--seeds", "2",
                        "--json", numbers)  # fmt: skip
    assert main(line) == 0
    text = capsys.readouterr().out
    assert text.strip() == (out / "table.md").read_text().strip()
    for part in ("| stnet |", "| fast |", "3 patients, 3 sections, 126 spots", "sd of seeds"):
        assert part in text
    content = json.loads((out / "table.json").read_text())
    keys = {"name", "metric", "split", "value", "low", "high", "n"}
    assert all(set(row) == keys for row in content["rows"])
    assert json.loads(numbers.read_text())["rows"] == content["rows"]
    assert content["inputs"]["systems"]["stnet"]["fit"]["max_epochs"] == 2
    assert content["inputs"]["protocol"]["panel"]["num_genes"] == 20
    table = pd.read_csv(out / "table.tsv", sep="\t")
    assert list(table.columns) == ["name", "metric", "split", "value", "low", "high", "n"]
    assert len(table) == len(content["rows"])
    assert (out / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    # The two ridges differ in their settings only.
    assert "fast - ridge" in set(table["name"])


def test_a_system_that_fails_is_in_the_table_and_in_the_exit_code(run, tmp_path, capsys):
    out = tmp_path / "out"
    line = compare_line(run, out, "--systems", "stnet", "--systems.stnet.fit.lr", "1e30")
    assert main(line) == 2
    captured = capsys.readouterr()
    assert "error: systems: found stnet-0: system StNet" in captured.err
    assert "## Failed" in captured.out
    assert "| ridge |" in (out / "table.md").read_text()
    assert json.loads((out / "table.json").read_text())["inputs"]["failed"].keys() == {"stnet-0"}


def test_the_suite_of_hescape_is_run_by_name(run, tmp_path, capsys):
    out = tmp_path / "out"
    cohort = run.parent / "cohort"
    line = ["spatial", "compare", "--suite", "hescape", "--quiet", "--data", cohort, "--out", out,
            "--genes", "[linear]", "--objectives", "[siglip]", "--negatives", "[any]",
            "--fit.max_epochs", "2", "--panel.num_genes", "20", "--sizes", "[16, section]",
            "--system.retrieval.k", "5"]  # fmt: skip
    assert main(list(map(str, line))) == 0
    text = capsys.readouterr().out
    assert "recall@5 of 16: chance 0.312 (N = 16)" in text
    assert "| colour_stats | linear | siglip | any |" in text
    table = pd.read_csv(out / "table.tsv", sep="\t")
    assert {"direction", "gallery", "chance"} < set(table.columns)
    assert (out / "comparison.png").is_file()
    assert (out / "embeddings" / "colour_stats.linear.siglip.any-0.h5ad").is_file()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["spatial", "compare", "--data", "COHORT", "--out", "X", "--systems", "rigde"],
         "did you mean 'ridge'"),
        (["spatial", "compare", "--data", "COHORT", "--out", "X", "--config-of", "mine=CONFIG"],
         "is not that of the comparison"),
        (["spatial", "compare", "--data", "COHORT", "--out", "X", "--encoder.name", "resnet19"],
         "did you mean 'resnet18'"),
        (["spatial", "compare", "--data", "COHORT", "--out", "X", "--suite", "hescape", "--systems",
          "ridge"], "found --systems or --config-of"),
        (["spatial", "compare", "--data", "NONE", "--out", "X"], "expected a cohort folder"),
        (["spatial", "train", "--config", "CONFIG", "--data", "NONE", "--out", "X"],
         "expected a cohort folder"),
        (["spatial", "evaluate", "NONE"], "no spatial run"),
        (["spatial", "train", "--config", "CONFIG", "--data", "COHORT", "--out", "X",
          "--system.name", "rige"], "did you mean 'ridge'"),
        (["spatial", "train", "--config", "CONFIG", "--data", "COHORT", "--out", "X",
          "--panel.num_genes", "99"], "ask for fewer genes"),
        (["spatial", "compare", "--data", "COHORT", "--out", "X", "--panel.num_genes", "99"],
         "ask for fewer genes"),
        (["spatial", "compare", "--data", "COHORT", "--out", "X", "--panel.num_genes", "99",
          "--suite", "hescape"], "ask for fewer genes"),
        (["spatial", "compare", "--data", "COHORT", "--out", "RUN", "--panel.num_genes", "9"],
         "a folder of other things"),
        (["spatial", "train", "--config", "CONFIG", "--data", "RUN", "--out", "X"],
         "the manifest of a cohort, not of a run"),
        (["spatial", "train", "--config", "CONFIG", "--data", "COHORT", "--out", "X",
          "--folds.seed", "-1"], "folds.seed: found -1"),
        (["spatial", "train", "--config", "CONFIG", "--data", "COHORT", "--out", "X",
          "--fit.seed", "-1"], "fit.seed: found -1"),
        (["spatial", "train", "--config", "CONFIG", "--data", "COHORT", "--out", "X",
          "--encoder.px", "99999"], "px of 0 to 4,096"),
        (["spatial", "train", "--config", "CONFIG", "--data", "COHORT", "--out", "COHORT"],
         "which is read"),
        (["spatial", "predict", "RUN", "--data", "COHORT", "--out", "AROUND", "--overwrite"],
         "a folder around"),
        (["spatial", "train", "--config", "CONFIG", "--data", "COHORT", "--out", "X",
          "--encoder.name", "resnet19"], "did you mean 'resnet18'"),
        (["spatial", "predict", "RUN", "--data", "COHORT", "--out", "COHORT"], "which is read"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(run, tmp_path, capsys, line, message):
    places = {
        "CONFIG": run.parent / "ridge.yaml",
        "NONE": tmp_path / "none",
        "X": tmp_path / "x",
        "COHORT": run.parent / "cohort",
        "RUN": run,
        "AROUND": run.parent,
    }
    words = [str(places.get(word, word)) for word in [*line, "--quiet"]]
    words = [word.replace("mine=CONFIG", f"mine={places['CONFIG']}") for word in words]
    assert main(words) == 2
    text = capsys.readouterr().err.strip()
    assert message in text
    assert len(text.splitlines()) == 1
    assert text.startswith("error: ")
    assert not (tmp_path / "x").exists()
    assert (run.parent / "cohort" / "manifest.json").is_file()


# Images without counts -------------------------------------------------------------------------


def failed(capsys, line):
    assert main(list(map(str, line))) == 2
    return capsys.readouterr().err


def write_new(folder):
    """Write an image as that of section A1, and where its spots are."""
    data = anndata.read_h5ad(folder / "raw" / "A1.h5ad")
    (folder / "new.png").write_bytes((folder / "raw" / "A1.png").read_bytes())
    spots = pd.DataFrame(data.obsm["spatial"], columns=["x", "y"])
    spots.to_csv(folder / "new.tsv", sep="\t", index=False)
    return folder / "new.png", folder / "new.tsv"


def test_an_image_is_predicted_as_the_section_it_is_of(run):
    """Its own counts are not needed: predictions equal those of the cohort that has them."""
    image, spots = write_new(run.parent)
    out, known = run.parent / "of_image", run.parent / "of_cohort"
    line = ["spatial", "predict", run, "--image", image, "--spots", spots, "--um-per-px", "5",
            "--out", out, "--quiet"]  # fmt: skip
    assert main(list(map(str, line))) == 0
    line = ["spatial", "predict", run, "--data", run.parent / "cohort", "--out", known, "--quiet"]
    assert main(list(map(str, line))) == 0
    data, expected = (anndata.read_h5ad(path) for path in (out / "new.h5ad", known / "A1.h5ad"))
    np.testing.assert_allclose(data.X, expected.X, atol=1e-5)
    np.testing.assert_array_equal(data.obsm["spatial"], expected.obsm["spatial"])
    assert np.isnan(data.layers["observed"]).all()
    assert data.uns["image"]["file"] == str(image)
    assert sorted(path.name for path in out.iterdir()) == ["new.h5ad"]


def test_a_grid_over_the_tissue_of_an_image(run):
    """Spots stand 200 micrometres apart; the tissue is 6 x 7 of their squares."""
    image, _ = write_new(run.parent)
    line = ["spatial", "predict", run, "--image", image, "--um-per-px", "5", "--quiet", "--out"]
    for words, least, most in (([], 150, 200), (["--grid-um", "200"], 30, 60)):
        out = run.parent / f"grid{len(words)}"
        assert main(list(map(str, [*line, out, *words]))) == 0
        data = anndata.read_h5ad(out / "new.h5ad")
        assert least < data.n_obs < most
        assert np.isfinite(data.X).all()


def test_a_cohort_of_images_is_predicted_and_not_trained_on(run, capsys):
    write_new(run.parent)
    config = {
        "name": "bare",
        "sections": [{"name": "new", "layout": "image", "image": "new.png", "grid_um": 200,
                      "um_per_px": 5.0}],
        "patch": {"um": 160.0, "px": 32},
    }  # fmt: skip
    folder = run.parent
    dump_yaml(config, folder / "bare.yaml")
    line = ["spatial", "prepare", "--quiet", "--config", folder / "bare.yaml", "--out"]
    assert main(list(map(str, [*line, folder / "bare"]))) == 0
    words = ["--data", folder / "bare", "--out", folder / "bare_out", "--quiet"]
    assert main(list(map(str, ["spatial", "predict", run, *words]))) == 0
    assert (folder / "bare_out" / "new.h5ad").is_file()
    capsys.readouterr()
    line = ["spatial", "train", "--quiet", "--config", folder / "ridge.yaml", "--data",
            folder / "bare", "--out", folder / "bare_run"]  # fmt: skip
    assert "sections without counts" in failed(capsys, line)
    line = ["spatial", "evaluate", run, "--data", folder / "bare"]
    assert "sections without counts" in failed(capsys, line)


def test_f19_patches_of_another_size_are_refused(run, capsys):
    """Trained on 160 micrometres, asked to read 100."""
    folder = run.parent
    write_new(folder)
    line = ["spatial", "prepare", "--quiet", "--config", folder / "cohort.yaml", "--source",
            folder / "raw", "--out", folder / "narrow", "--patch.um", "100"]  # fmt: skip
    assert main(list(map(str, line))) == 0
    line = ["spatial", "predict", run, "--data", folder / "narrow", "--out", folder / "x"]
    message = failed(capsys, line)
    assert "patches of 100 um in 32 px" in message
    assert "160 um in 32 px" in message


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--image", "new.png"], "no size of a pixel"),
        (["--image", "gone.png", "--um-per-px", "5"], "no such file"),
        (["--image", "new.png", "--um-per-px", "5", "--grid-um", "0"], "grid_um"),
        (["--data", "cohort", "--grid-um", "100"], "--grid-um with --data"),
    ],
)
def test_images_that_cannot_be_predicted(run, capsys, monkeypatch, words, text):
    write_new(run.parent)
    monkeypatch.chdir(run.parent)
    assert text in failed(capsys, ["spatial", "predict", run, *words, "--out", "not_there"])
    assert not (run.parent / "not_there").exists()
