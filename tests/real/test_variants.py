"""The phased Europeans on chromosome 20, scored with a trained model by the command."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pysam
import pytest

from seq2exp.cli.main import main
from tests.variation.slow import needs_bcftools

ROOT = Path(__file__).parents[2]
DATA = (
    Path(os.environ.get("SEQ2EXP_REAL_DATA", ROOT.parent / "shared" / "data")) / "human_chr20_b37"
)
VCF = DATA / "eur300_phased.vcf.gz"

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}"),
    needs_bcftools,
]


def run(*words) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A dataset of the megabase, and a run that saw a few of its genes once."""
    root = tmp_path_factory.mktemp("chr20")
    config = ROOT / "configs/data/human_chr20_b37.yaml"
    assert run("prepare", "--config", config, "--source", DATA, "--out", root / "data") == 0
    line = ["train", "--config", ROOT / "configs/train/debug.yaml", "--data", root / "data"]
    flags = ["--fit.max_epochs", 1, "--fit.threads", 1, "--data.window_bp", 16384]
    assert run(*line, "--out", root / "run", *flags, "--data.bin_size", 128) == 0
    return root / "run"


@pytest.mark.filterwarnings("ignore::seq2exp.core.errors.Seq2ExpWarning")
def test_every_record_comes_back_with_a_status_and_the_counts_add_up(trained, tmp_path):
    outs = [tmp_path / name for name in ("out.vcf.gz", "out.tsv.gz", "out.parquet")]
    line = ["variants", trained, "--vcf", VCF, "--json", tmp_path / "counts.json"]
    assert run(*line, *(word for out in outs for word in ("--out", out))) == 0

    view = subprocess.run(["bcftools", "view", outs[0]], check=True, capture_output=True, text=True)
    assert "[W" not in view.stderr
    assert "[E" not in view.stderr
    records = [text for text in view.stdout.splitlines() if not text.startswith("#")]
    with pysam.VariantFile(str(VCF)) as given:
        wanted = [(r.chrom, r.pos, r.id, r.ref, r.alts) for r in given]
    with pysam.VariantFile(str(outs[0])) as written:
        found = list(written)
        columns = [key for key in written.header.info if key.startswith("S2E_EXPR_DELTA_")]
    assert [(r.chrom, r.pos, r.id, r.ref, r.alts) for r in found] == wanted
    assert len(records) == len(wanted)

    table = pd.read_parquet(outs[2])
    rows = json.loads((tmp_path / "counts.json").read_text())["rows"]
    counts = {(row["name"], row["metric"]): row["value"] for row in rows}
    alleles = sum(len(alts) for *_, alts in wanted)
    assert counts["variants", "records"] == len(wanted)
    assert counts["variants", "alleles"] == alleles
    assert table[["record", "allele"]].drop_duplicates().shape[0] == alleles
    assert counts["ref_status", "ok"] == alleles
    by_status = Counter(table["status"])
    assert {m: v for (n, m), v in counts.items() if n == "status"} == dict(by_status)
    assert counts["variants", "pairs"] == by_status["ok"]

    # Every class is there, and no row is 0 without saying so.
    has_score = table["score_status"].str.startswith("scored")
    scored, name = table[has_score], "expr_delta:K-562"
    assert set(scored["variant_type"]) >= {"snv", "ins", "del"}
    assert scored[name].notna().all()
    assert (scored["mask_max"] > 0).mean() > 0.9
    zero = (scored.filter(regex="^expr_delta(_fixed)?:[^:]+$") == 0).all(axis=1)
    assert (zero == (scored["score_status"] == "scored:below_resolution")).all()
    near = scored["distance_to_tss"].abs() < 500
    assert (scored.loc[near, name] != 0).mean() > 0.5
    skipped = table[~has_score]
    assert skipped[name].isna().all()

    # The VCF says of each allele what the table says of its strongest gene.
    assert columns
    strongest = table.assign(size=scored[name].abs()).sort_values("size", ascending=False)
    strongest = strongest.drop_duplicates(["record", "allele"]).sort_values(["record", "allele"])
    values = [v for r in found for v in r.info["S2E_EXPR_DELTA_K_562"]]
    told = np.array([np.nan if v is None else v for v in values], dtype=np.float32)
    np.testing.assert_array_equal(told, strongest[name].to_numpy(np.float32))
    statuses = [s for r in found for s in r.info["S2E_STATUS"]]
    assert statuses == strongest["status"].tolist()
    text = pd.read_csv(outs[1], sep="\t", comment="#", low_memory=False)
    assert len(text) == len(table)


@pytest.mark.filterwarnings("ignore::seq2exp.core.errors.Seq2ExpWarning")
def test_the_gradient_scores_the_same_records(trained, tmp_path):
    out = tmp_path / "out.parquet"
    assert run("variants", trained, "--vcf", VCF, "--out", out, "--method", "gradient") == 0
    table = pd.read_parquet(out)
    assert set(table.loc[table["variant_type"] == "ins", "status"]) <= {"unsupported", "no_gene"}
    scored = table[table["score_status"].str.startswith("scored")]
    assert set(scored["variant_type"]) <= {"snv", "mnv"}
    assert len(scored) > 1000
