"""The command and its inputs, good and bad, on a real model of the toy dataset."""

from __future__ import annotations

import dataclasses
import json

import pandas as pd
import pytest

from seq2exp.cli.main import main
from seq2exp.core.errors import InputError
from seq2exp.core.files import read_json
from seq2exp.dataset.format import read_table
from seq2exp.elements.calling import CallConfig
from seq2exp.elements.export import export_elements
from seq2exp.elements.folder import called_elements
from seq2exp.interpret.sites import choose_genes
from tests.elements.test_real_model import write_run


@pytest.fixture(scope="module")
def run_folder(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("check") / "run"
    write_run(folder, dataset)
    return folder


@pytest.fixture(scope="module")
def mapped(run_folder, dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("check") / "elements"
    export_elements(
        run_folder, out, data=dataset.root, config=CallConfig(budget=0.2, min_length_bp=32)
    )
    return out


def command(run_folder, mapped, out, *more):
    line = ["elements", "check", run_folder, "--elements", mapped, "--out", out, *more]
    return main([str(word) for word in line])


@pytest.mark.parametrize("method", ["shuffle", "true-deletion"])
def test_the_command_writes_tables_numbers_and_pictures(run_folder, mapped, tmp_path, method):
    out, numbers = tmp_path / "out", tmp_path / "n.json"
    more = ("--max-genes", 4, "--shuffles", 2, "--method", method, "--json", numbers)
    assert command(run_folder, mapped, out, *more) == 0
    sites = read_table(out / "sites.parquet")
    text = pd.read_csv(out / "sites.tsv.gz", sep="\t")
    assert list(text) == list(sites)
    assert len(text) == len(sites)
    assert set(sites["split"]) == {"test"}
    tested = sites[sites["status"] == "ok"]
    assert tested[["delta:cell_a", "effect", "gain", "mask_mean"]].notna().all().all()
    for name in ("check.png", "check.svg"):
        assert (out / "plots" / name).stat().st_size > 1000
    rows = json.loads(numbers.read_text())["rows"]
    assert rows == read_json(out / "check.json")["rows"]
    assert {"mask, per gene", "elements", "decoys"} <= {row["name"] for row in rows}
    assert len(pd.read_csv(out / "genes.tsv", sep="\t")) == sites["gene_id"].nunique() == 4
    # An existing folder is kept, and the error says so.
    assert command(run_folder, mapped, out) == 2


def test_equal_seeds_give_equal_bytes(run_folder, mapped, tmp_path):
    for name in ("one", "two"):
        assert command(run_folder, mapped, tmp_path / name, "--max-genes", 2, "--shuffles", 2) == 0
    first, second = ((tmp_path / n / "sites.parquet").read_bytes() for n in ("one", "two"))
    assert first == second


def test_genes_are_chosen_by_name_split_and_number(mapped, dataset):
    elements = called_elements(mapped).elements
    some = choose_genes(elements, dataset, split="test", max_genes=3)
    assert some.size == 3
    assert (dataset.genes["split"].iloc[some] == "test").all()
    assert (some == choose_genes(elements, dataset, split="test", max_genes=3)).all()
    by_symbol = choose_genes(elements, dataset, split="test", genes=["CHR1G2", "chr1_g2"])
    assert dataset.genes["gene_id"].iloc[by_symbol].tolist() == ["chr1_g2"]
    with pytest.raises(InputError, match=r"--genes: .*chr1-g2 \(nearest: CHR1G2, chr1_g2\)"):
        choose_genes(elements, dataset, split="test", genes=["chr1-g2"])
    with pytest.raises(InputError, match="without a called distal element"):
        choose_genes(elements.iloc[:0], dataset, split="test")


def test_a_run_for_other_tracks_is_refused(run_folder, mapped, dataset, tmp_path, capsys):
    from seq2exp.dataset import format as layout
    from tests.toys import ToyPlan, toy_dataset

    other = toy_dataset(tmp_path / "other", ToyPlan(tracks=("DNase",), contacts=True))
    manifest = layout.read_manifest(other)
    assert dataclasses.asdict(manifest)["assembly"] == "toy1"
    assert command(run_folder, mapped, tmp_path / "out", "--data", other) == 2
    assert "no track H3K27ac" in capsys.readouterr().err
