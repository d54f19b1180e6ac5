"""The phased Europeans on chromosome 20 through reader and writers, with made-up scores."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pysam
import pytest

from seq2exp.core.files import atomic_directory
from seq2exp.core.sequence import encode
from seq2exp.dataset import format as layout
from seq2exp.dataset.format import Manifest
from seq2exp.dataset.store import Dataset
from seq2exp.variants.outputs import write_outputs
from seq2exp.variants.source import open_source
from tests.variants import inputs
from tests.variation.slow import needs_bcftools

DATA = (
    Path(os.environ.get("SEQ2EXP_REAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
    / "human_chr20_b37"
)
VCF = DATA / "eur300_phased.vcf.gz"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}"),
    needs_bcftools,
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """The sequence and three genes, without tracks."""
    root = tmp_path_factory.mktemp("chr20") / "dataset"
    with pysam.FastaFile(str(DATA / "chr20_b37.fa.gz")) as fasta:
        codes = encode(fasta.fetch("20"))
    genes = pd.DataFrame(
        {"gene_id": ["a", "b", "c"], "symbol": ["A", "B", "C"], "contig": "chr20",
         "tss": [1_200_000, 1_400_000, 1_700_000], "strand": "+", "biotype": "x", "split": "train"}
    )  # fmt: skip
    with atomic_directory(root) as partial:
        (partial / "sequence").mkdir()
        np.save(layout.sequence_path(partial, "chr20"), codes)
        layout.write_table(genes, layout.genes_path(partial))
        layout.finish_manifest(partial, Manifest("GRCh37", {"chr20": len(codes)}, 128))
    return Dataset(root)


def bcftools(*words) -> list[str]:
    done = subprocess.run(["bcftools", *words], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def test_every_record_comes_back_with_its_genotypes(dataset, tmp_path):
    source = open_source(VCF, dataset=dataset)
    outs = [tmp_path / name for name in ("o.vcf.gz", "o.tsv.gz", "o.parquet")]
    summary = write_outputs(outs, source, inputs.parts_of(source), inputs.COLUMNS, inputs.HEADER)
    assert summary.num_records == source.num_records == 7_568
    assert dict(summary.ref_status) == {"ok": 7_568}
    assert summary.mismatch_share == 0
    # Names differ between file and dataset, and stay as the file has them.
    assert source.contigs == {"20": 7_568}
    assert (tmp_path / "o.vcf.gz.tbi").is_file()
    fields = "%CHROM\t%POS\t%ID\t%REF\t%ALT\t%QUAL\t%FILTER[\t%GT]\n"
    assert bcftools("query", "-f", fields, outs[0]) == bcftools("query", "-f", fields, VCF)
    info = "%INFO/AC\t%INFO/AN\t%INFO/CM\n"
    assert bcftools("query", "-f", info, outs[0]) == bcftools("query", "-f", info, VCF)
    assert len(bcftools("view", "-H", "-G", "-r", "20:1200000-1300000", outs[0])) == len(
        bcftools("view", "-H", "-G", "-r", "20:1200000-1300000", VCF)
    )
    table = pq.read_table(outs[2]).to_pandas()
    words = bcftools("query", "-f", "%S2E_STATUS\t%S2E_EXPR_DELTA_CELL_A\n", outs[0])
    best = table.assign(size=table["expr_delta:cell_a"].abs().fillna(-1))
    best = best.loc[best.groupby("record")["size"].idxmax()]
    for line, status, score in zip(words, best["status"], best["expr_delta:cell_a"], strict=True):
        text = line.split("\t")[1]
        assert line.split("\t")[0] == status
        # bcftools prints six digits.
        assert (text == ".") == np.isnan(score)
        assert text == "." or float(text) == pytest.approx(score, rel=1e-5)


def test_indels_of_the_cohort_are_normalised_as_bcftools_does(dataset, tmp_path):
    with pysam.FastaFile(str(DATA / "chr20_b37.fa.gz")) as fasta:
        (tmp_path / "g.fa").write_text(f">20\n{fasta.fetch('20')}\n")
    pysam.faidx(str(tmp_path / "g.fa"))
    source = open_source(VCF, dataset=dataset)
    table = pd.concat([source.read(shard) for shard in source.shards])
    assert (table["variant_type"] == "snv").sum() < len(table) - 100
    sites = tmp_path / "sites.vcf.gz"
    bcftools("view", "-G", "-Oz", "-o", sites, VCF)
    lines = bcftools("norm", "-f", tmp_path / "g.fa", sites)
    theirs = sorted(
        (int(p) - 1, r, a) for _, p, _, r, a, *_ in (x.split("\t") for x in lines if x[0] != "#")
    )
    ours = zip(*(table[f"norm_{name}"] for name in ("position", "ref", "alt")), strict=True)
    assert sorted(ours) == theirs
