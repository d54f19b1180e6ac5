"""A run without tracks: every command on it works, or refuses in one line what needs tracks."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import pytest

from seq2exp.cli.main import main
from seq2exp.interpret.attribution_files import load_gene, load_genes
from seq2exp.training.trainer import train
from tests.runs import tiny_config
from tests.toys import ToyPlan, toy_dataset

BARE = ToyPlan(tracks=())


@pytest.fixture(scope="module", params=["none stored", "none chosen"])
def place(request, tmp_path_factory):
    """A dataset that stores no track, or a run that was told to read none of those there are."""
    root = tmp_path_factory.mktemp("bare")
    plan, chosen = (BARE, None) if request.param == "none stored" else (ToyPlan(contacts=True), [])
    toy_dataset(root / "data", plan)
    data = {"tracks": chosen, "window_bp": 1024, "contacts": False}
    train(tiny_config(data=data), root / "data", root / "run")
    elements = ["elements", str(root / "run"), "--out", str(root / "map"), "--budget", "0.2",
                "--plots", "0"]  # fmt: skip
    assert main([*elements, "--min-length", "32"]) == 0
    return root


def refusal(capsys):
    """The only line that starts with error."""
    (line,) = [t for t in capsys.readouterr().err.splitlines() if t.startswith("error: ")]
    return line


def test_the_map_comes_from_the_sequence(place):
    summary = json.loads((place / "map" / "summary.json").read_text())
    assert summary["tracks"] == []
    assert summary["elements"]["distal"] > 0


def test_the_false_discovery_level_rests_on_shuffled_sequence(place, capsys):
    line = ["elements", str(place / "run"), "--fdr", "0.5", "--split", "test", "--null-draws", "1",
            "--plots", "0"]  # fmt: skip
    assert main([*line, "--out", str(place / "fdr")]) == 0
    summary = json.loads((place / "fdr" / "summary.json").read_text())
    assert summary["null"]["kind"] == "sequence"
    capsys.readouterr()
    # A null of tracks would be the map itself.
    assert main([*line, "--out", str(place / "no"), "--null", "shuffled"]) == 2
    assert "a model that reads none" in refusal(capsys)
    assert not (place / "no").exists()


def test_a_comparison_has_the_rivals_that_the_dataset_allows(place):
    """Signal and peaks come from the tracks of the dataset, whether the model reads them or not."""
    genes = pd.read_parquet(place / "data" / "genes.parquet")
    held_out = genes[genes["split"] == "test"]
    start = held_out["tss"].to_numpy() + 220
    bed = pd.DataFrame({"chrom": held_out["contig"], "start": start, "end": start + 60})
    bed.to_csv(place / "known.bed", sep="\t", header=False, index=False)
    rows = place / "compare.json"
    line = ["elements", "compare", str(place / "map"), "--with", str(place / "known.bed")]
    assert main([*line, "--distal-bp", "100", "--resamples", "20", "--json", str(rows)]) == 0
    names = {row["name"] for row in json.loads(rows.read_text())["rows"]}
    assert {"mask", "distance"} <= names
    stored = json.loads((place / "data" / "manifest.json").read_text())["tracks"]
    assert bool(stored) == any("signal" in name for name in names)


def test_deletions_and_swaps_are_made_in_the_sequence(place):
    line = ["elements", "check", str(place / "run"), "--elements", str(place / "map"),
            "--max-genes", "4", "--shuffles", "1", "--decoys", "1"]  # fmt: skip
    rows = place / "check.json"
    assert main([*line, "--out", str(place / "check"), "--json", str(rows)]) == 0
    assert json.loads(rows.read_text())["rows"]


@pytest.mark.parametrize("method", ["gradient_x_input", "integrated_gradients", "saturation"])
def test_bases_alone_are_explained(place, method):
    out = place / method
    line = ["attribute", str(place / "run"), "--gene", "chr3_g4", "--method", method, "--steps",
            "8", "--span", "12", "--out", str(out)]  # fmt: skip
    assert main(line) == 0
    assert len(load_genes(out)) == 1
    arrays = load_gene(out, "chr3_g4")
    assert np.abs(arrays["attribution"]).sum() > 0
    assert "tracks" not in arrays
    assert not (out / "tracks").exists()


def test_motifs_read_the_sequence_of_elements(place):
    counts = 97 * np.eye(4, dtype=int)[[2, 0, 3, 0, 2, 0]] + 1
    rows = [f"{base} [ {' '.join(map(str, counts[:, i]))} ]" for i, base in enumerate("ACGT")]
    (place / "m.jaspar").write_text("\n".join([">M1\tGATA", *rows]) + "\n")
    line = ["motifs", str(place / "map"), "--motifs", str(place / "m.jaspar"), "--data",
            str(place / "data"), "--p-value", "0.001", "--background", "shuffled"]  # fmt: skip
    assert main([*line, "--out", str(place / "motifs")]) == 0
    assert (place / "motifs" / "enrichment.tsv").is_file()


def test_priors_have_no_columns_of_tracks(place):
    assert main(["priors", str(place / "run"), "--out", str(place / "p.h5ad")]) == 0
    file = anndata.read_h5ad(place / "p.h5ad")
    columns = list(file.uns["seq2exp_elements"])
    assert "mask_mass_kb" in columns
    assert not [name for name in columns if "DNase" in name or "H3K27ac" in name]
    assert "tracks" in " ".join(str(note) for note in file.uns["seq2exp"]["notes"])


def test_the_report_says_that_there_are_none(place):
    out = place / "report.html"
    line = ["report", str(place / "run"), "--elements", str(place / "map"), "--out", str(out)]
    assert main([*line, "--loci", "2", "--pictures", "1"]) == 0
    assert "<td>tracks</td><td>none</td>" in out.read_text()
