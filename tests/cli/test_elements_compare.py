"""`seq2exp elements compare` through the command line, on a run that was really trained."""

from __future__ import annotations

import json
import warnings

import pandas as pd
import pytest

from seq2exp.cli.main import main
from seq2exp.core.config import dump_yaml
from seq2exp.core.errors import Seq2ExpWarning
from seq2exp.dataset.store import Dataset
from tests.runs import tiny_config
from tests.toys import ToyPlan, toy_dataset

KEYS = {"reference", "name", "metric", "split", "value", "low", "high", "n"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A dataset, a run on it, and its element map."""
    import dataclasses

    root = tmp_path_factory.mktemp("compare")
    data = toy_dataset(root / "toy", ToyPlan(contacts=True))
    dump_yaml(dataclasses.asdict(tiny_config()), root / "train.yaml")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Seq2ExpWarning)
        for line in (
            ["train", "--config", root / "train.yaml", "--data", data, "--out", root / "run",
             "--fit.max_epochs", "1"],
            ["elements", root / "run", "--out", root / "map", "--plots", "0", "--budget", "0.3",
             "--min-length", "32"],
        ):  # fmt: skip
            assert main([*map(str, line), "--quiet"]) == 0
    return root


def crispri(dataset, path):
    """Write an element on both sides of every test gene; that downstream acts."""
    rows = []
    for gene in dataset.genes[dataset.genes["split"] == "test"].itertuples():
        for side, effect in ((1, -0.4), (-1, 0.1)):
            middle = gene.tss + side * (1 if gene.strand == "+" else -1) * 150
            if 50 < middle < dataset.manifest.contigs[gene.contig] - 50:
                row = (gene.contig, middle - 40, middle + 40, gene.symbol, effect, effect < 0)
                rows.append(row)
    names = ["chrom", "chromStart", "chromEnd", "measuredGeneSymbol", "EffectSize", "Significant"]
    pd.DataFrame(rows, columns=names).to_csv(path, sep="\t", index=False)
    return path


def bed(dataset, path):
    genes = dataset.genes
    lines = [f"{g.contig}\t{g.tss + 80}\t{g.tss + 200}" for g in genes.itertuples()]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_everything_is_written_and_says_the_same(world, tmp_path, capsys):
    dataset = Dataset(world / "toy")
    files = crispri(dataset, tmp_path / "c.tsv"), bed(dataset, tmp_path / "p.bed")
    line = ["elements", "compare", str(world / "map"), "--distal-bp", "64", "--budget-curve"]
    line += ["--with", str(files[0]), "--with", str(files[1]), "--resamples", "20"]
    line += ["--out", str(tmp_path / "out"), "--json", str(tmp_path / "rows.json")]
    assert main(line) == 0
    printed = capsys.readouterr().out
    for text in ("Pairs of c.tsv", "Elements against p.bed", "enrichment", "curve_mse@0.05"):
        assert text in printed
    found = json.loads((tmp_path / "rows.json").read_text())
    stored = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert found["command"] == stored["command"] == "elements compare"
    assert found["rows"] == stored["rows"]
    assert all(set(row) == KEYS for row in found["rows"])
    table = pd.read_csv(tmp_path / "out" / "rows.tsv", sep="\t")
    assert len(table) == len(found["rows"])
    metrics = {(row["reference"], row["metric"]) for row in found["rows"] if row["name"] == "mask"}
    assert {("c.tsv", "pair_auprc"), ("p.bed", "auprc"), ("p.bed", "auprc@0.05"),
            (None, "curve_mse@0.01")} <= metrics  # fmt: skip
    assert "auprc" not in {metric for name, metric in metrics if name == "c.tsv"}
    details = stored["inputs"]["files"]
    assert [each["kind"] for each in details] == ["crispri", "bed"]
    pairs = pd.read_csv(tmp_path / "out" / "c.tsv.pairs.tsv", sep="\t")
    assert len(pairs) == details[0]["pairs"]["pairs"]
    plots = {path.name for path in (tmp_path / "out" / "plots").iterdir()}
    for name in ("c.tsv.pairs_precision_recall", "c.tsv.pairs_by_distance", "p.bed.enrichment",
                 "p.bed.precision_recall", "p.bed.by_distance", "budget_curve"):  # fmt: skip
        assert {f"{name}.png", f"{name}.svg"} <= plots
    assert main(line) == 2
    assert "out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["elements", "compare", "MAP"], "--with: found no file"),
        (["elements", "compare", "NOWHERE", "--with", "BED"], "no element map"),
        (["elements", "compare", "MAP", "--with", "NOWHERE"], "no such file"),
        (["elements", "compare", "MAP", "--with", "BED", "--split", "excluded"], "'excluded'"),
        (["elements", "compare", "MAP", "--with", "FAR"], "beyond the end of chr1"),
        (["elements", "compare", "MAP", "--with", "BED", "--kind", "narrowpeak"], "3 columns"),
        (["elements", "compare", "MAP", "--with", "BED", "--alpha", "2"], "alpha"),
        (["elements", "compare", "MAP", "--budget-curve", "--run", "OTHER"], "other weights"),
        (["elements", "compare", "MAP", "--with", "PROMOTERS"], "no element in the windows"),
    ],
)
def test_bad_input_is_one_line(world, tmp_path, capsys, line, message):
    dataset = Dataset(world / "toy")
    (tmp_path / "far.bed").write_text("chr1\t5\t99000000\n")
    rows = [f"{g.contig}\t{g.tss - 2}\t{g.tss + 2}" for g in dataset.genes.itertuples()]
    (tmp_path / "tss.bed").write_text("\n".join(rows[:1]) + "\n")
    other = tmp_path / "other"
    if "OTHER" in line:
        import shutil

        shutil.copytree(world / "map", tmp_path / "map")
        summary = json.loads((tmp_path / "map" / "summary.json").read_text())
        (tmp_path / "map" / "summary.json").write_text(
            json.dumps({**summary, "model_sha256": "0" * 64})
        )
        other = world / "run"
    words = {
        "MAP": str(tmp_path / "map" if "OTHER" in line else world / "map"),
        "NOWHERE": str(tmp_path / "nowhere.tsv"),
        "BED": str(bed(dataset, tmp_path / "p.bed")),
        "FAR": str(tmp_path / "far.bed"),
        "PROMOTERS": str(tmp_path / "tss.bed"),
        "OTHER": str(other),
    }
    out = tmp_path / "out"
    assert main([*(words.get(word, word) for word in line), "--out", str(out), "--quiet"]) == 2
    errors = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not out.exists()
