from __future__ import annotations

import json

import pytest

from seq2exp.cli.main import main
from seq2exp.dataset.store import Dataset
from seq2exp.elements.folder import open_elements
from tests.elements.test_real_model import write_run
from tests.toys import ToyPlan, toy_dataset


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("cli_elements")
    write_run(root / "run", Dataset(toy_dataset(root / "toy")))
    return root / "run"


def failure(line, capsys):
    assert main([str(word) for word in line]) == 2
    text = capsys.readouterr().err.strip()
    assert text.startswith("error: ")
    assert "Traceback" not in text
    return text


@pytest.mark.filterwarnings("ignore::seq2exp.core.errors.Seq2ExpWarning")
def test_a_level_is_stated_and_written(run, tmp_path, capsys):
    out, rows = tmp_path / "map", tmp_path / "rows.json"
    line = ["elements", run, "--out", out, "--fdr", "0.9", "--null", "mean", "--null-draws", "1",
            "--null-seed", "4", "--split", "test", "--plots", "0", "--min-length", "32",
            "--json", rows]  # fmt: skip
    assert main([str(word) for word in line]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["calling"]["fdr"] == 0.9
    assert summary["null"] == {"kind": "mean", "seed": 4, "draws": 1}
    stated = [row for row in json.loads(rows.read_text())["rows"] if row["metric"] == "fdr_stated"]
    if summary["threshold"] is not None:
        assert [row["split"] for row in stated] == ["test"]
        assert stated[0]["value"] == summary["fdr"]["by_split"]["test"]["fdr"]
        assert "fdr_stated" in capsys.readouterr().out


def test_two_settings_for_one_threshold_are_refused(run, tmp_path, capsys):
    line = ["elements", run, "--out", tmp_path / "map", "--fdr", "0.1"]
    for more in (["--budget", "0.05"], ["--threshold", "0.5"]):
        assert "one of threshold, budget and fdr" in failure([*line, *more], capsys)
    assert not (tmp_path / "map").exists()


def test_a_level_that_is_none_and_draws_that_are_none(run, tmp_path, capsys):
    line = ["elements", run, "--out", tmp_path / "map"]
    assert "elements.fdr" in failure([*line, "--fdr", "1.5"], capsys)
    assert "null_draws" in failure([*line, "--fdr", "0.1", "--null-draws", "0"], capsys)
    assert "no such folder" in failure([*line, "--replicates", tmp_path / "no"], capsys)
    assert not (tmp_path / "map").exists()


def test_a_level_out_of_reach_is_a_warning_and_an_empty_map(run, tmp_path, capsys):
    """Fresh weights see no difference between evidence and none."""
    line = ["elements", run, "--out", tmp_path / "map", "--fdr", "0.0001", "--plots", "1",
            "--null", "median", "--null-draws", "1"]  # fmt: skip
    assert main([str(word) for word in line]) == 0
    assert "at best" in capsys.readouterr().err
    summary = json.loads((tmp_path / "map" / "summary.json").read_text())
    assert summary["threshold"] is None
    assert "distal" not in summary["elements"]


def test_a_run_without_tracks_shuffles_its_sequence_only(tmp_path, capsys):
    data = Dataset(toy_dataset(tmp_path / "toy", ToyPlan(tracks=())))
    write_run(tmp_path / "run", data, tracks=(), num_features=2)
    line = ["elements", tmp_path / "run", "--out", tmp_path / "map", "--fdr", "0.5"]
    assert "--null sequence" in failure([*line, "--null", "shuffled"], capsys)


def test_masks_that_are_not_learned_have_no_level(tmp_path, capsys):
    data = Dataset(toy_dataset(tmp_path / "toy"))
    write_run(tmp_path / "run", data, mask="none")
    line = ["elements", tmp_path / "run", "--out", tmp_path / "map", "--fdr", "0.5"]
    assert "mask: none" in failure(line, capsys)


def test_a_level_from_labels(run, tmp_path, capsys):
    """Labels of one training gene; every element gets a q-value that is in the curve."""
    genes = Dataset(run.parent / "toy").genes
    gene = genes[genes["split"] == "train"].iloc[0]
    table = tmp_path / "links.tsv"
    start = int(gene["tss"]) + 300
    table.write_text(
        "chr\tstart\tend\tTargetGene\tABC.Score\n"
        f"{gene['contig']}\t{start}\t{start + 60}\t{gene['gene_id']}\t0.2\n"
    )
    line = ["elements", run, "--out", tmp_path / "map", "--threshold", "0.01", "--labels", table,
            "--plots", "0", "--min-length", "1"]  # fmt: skip
    assert main([str(word) for word in line]) == 0
    summary = json.loads((tmp_path / "map" / "summary.json").read_text())
    assert summary["null"] is None
    assert summary["fdr"]["labelled_genes"] == 1
    assert "fdr_stated" in capsys.readouterr().out
    elements = open_elements(tmp_path / "map").elements
    distal = elements[elements["element_class"] == "distal"]
    rates = {*summary["fdr"]["curve"]["fdr"], 1.0}
    assert all(any(abs(q - rate) < 1e-6 for rate in rates) for q in distal["q_value"])
    again = [*line[:3], tmp_path / "other", *line[4:]]
    assert "a null and labels" in failure([*again, "--null", "mean"], capsys)
    assert main([str(word) for word in [*again, "--label-split", "test"]]) == 2
    text = capsys.readouterr().err
    assert "error: labels" in text
    assert "no mapped gene of test" in text
    # Before any mask is made.
    assert "predict" not in text
