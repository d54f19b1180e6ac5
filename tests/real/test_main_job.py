"""The main job on real files, by the commands a user types: small settings, real formats.

Numbers of these runs mean nothing; that every file is right and opens elsewhere does.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyBigWig
import pysam
import pytest

from seq2exp.cli.main import main
from seq2exp.dataset.store import Dataset

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SEQ2EXP_REAL_DATA", ROOT.parent / "shared" / "data"))

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}"),
    pytest.mark.filterwarnings("ignore::seq2exp.core.errors.Seq2ExpWarning"),
]

# Six yeast contigs keep every split and stay quick.
SETS = {
    "yeast_R64": ["--contigs", "[I, II, III, VI, IX, Mito]"],
    "human_chr22_hg38": [],
    "human_chr1_b37": [],
    "human_chr20_b37": [],
}


def call(*arguments):
    assert main([str(argument) for argument in arguments]) == 0


@pytest.fixture(scope="module", params=SETS)
def job(request, tmp_path_factory):
    """Prepare, train, evaluate, predict and map one real set."""
    name, out = request.param, tmp_path_factory.mktemp(request.param)
    call("prepare", "--config", ROOT / "configs/data" / f"{name}.yaml", "--source", DATA / name,
         "--out", out / "dataset", "--workers", 0, *SETS[name])  # fmt: skip
    call("train", "--config", ROOT / "configs/train/debug.yaml", "--data", out / "dataset", "--out",
         out / "run", "--fit.max_epochs", 1, "--fit.threads", 1)  # fmt: skip
    call("evaluate", out / "run", "--json", out / "evaluation.json", "--resamples", 50)
    call("predict", out / "run", "--split", "all", "--out", out / "predictions.parquet")
    call("elements", out / "run", "--out", out / "elements", "--plots", 1)
    return out


def test_every_gene_is_predicted_once_with_a_finite_number(job):
    table = pd.read_parquet(job / "predictions.parquet")
    genes = Dataset(job / "dataset").genes
    assert table["gene_id"].tolist() == genes["gene_id"].tolist()
    predicted = table.filter(regex="^predicted:")
    assert predicted.shape[1] >= 1
    assert np.isfinite(predicted.to_numpy()).all()


def test_the_table_of_numbers_holds_model_and_controls(job):
    document = json.loads((job / "evaluation.json").read_text())
    rows = pd.DataFrame(document["rows"])
    assert {"name", "metric", "split", "value", "low", "high", "n"} <= set(rows)
    assert {"model", "mean", "kmer_ridge"} <= set(rows["name"])
    mse = rows[(rows["metric"] == "mse") & (rows["name"] == "model")]["value"].iloc[0]
    assert 0 < mse < 100


def test_the_mask_opens_in_pybigwig_and_fits_the_genome(job):
    contigs = Dataset(job / "dataset").manifest.contigs
    with pyBigWig.open(str(job / "elements" / "mask.bw")) as handle:
        assert handle.chroms() == contigs
        summary = handle.header()
        assert 0 <= summary["minVal"] <= summary["maxVal"] <= 1
        assert summary["nBasesCovered"] > 0


def test_elements_open_as_sorted_bed_and_lie_inside_the_contigs(job):
    contigs = Dataset(job / "dataset").manifest.contigs
    genes = set(Dataset(job / "dataset").genes["gene_id"])
    path = job / "elements" / "elements.bed.gz"
    table = pd.read_csv(path, sep="\t", header=None, dtype={0: str})
    for contig, rows in table.groupby(0):
        assert rows[1].is_monotonic_increasing
        assert (rows[1] >= 0).all()
        assert (rows[2] <= contigs[contig]).all()
    assert (table[2] > table[1]).all()
    assert table[4].between(0, 1000).all()
    assert set(table[5]) <= {"+", "-", "."}
    with pysam.TabixFile(str(path)) as handle:
        first = next(handle.fetch(table[0].iloc[0]))
    assert any(field in genes for field in first.split("\t"))
    pairs = pd.read_csv(job / "elements" / "links.bedpe.gz", sep="\t", header=None)
    assert (pairs[2] > pairs[1]).all()
    assert (pairs[5] > pairs[4]).all()


def test_pictures_were_drawn(job):
    pictures = list((job / "elements" / "plots").glob("locus_*.png"))
    assert pictures
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in pictures)
