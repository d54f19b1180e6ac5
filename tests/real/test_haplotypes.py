"""Haplotypes of the phased Europeans on chromosome 20 against bcftools consensus."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pysam
import pytest

from seq2exp.core.intervals import Window, tss_window
from seq2exp.core.sequence import decode, encode, reverse_complement
from seq2exp.variation.alleles import SEQUENCE_CLASSES, STATUSES, normalise_all
from seq2exp.variation.haplotypes import build, needed_interval
from seq2exp.variation.policies import GenotypePolicy, resolve
from seq2exp.variation.table import Variants
from tests.variation.slow import consensus, needs_bcftools

DATA = (
    Path(os.environ.get("SEQ2EXP_REAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
    / "human_chr20_b37"
)
VCF = DATA / "eur300_phased.vcf.gz"
START, END = 1_000_000, 2_000_000
LENGTH = 200_000

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}"),
    needs_bcftools,
]


@pytest.fixture(scope="module")
def cohort():
    """Return codes of the contig, variants, alleles, donors."""
    with pysam.FastaFile(str(DATA / "chr20_b37.fa.gz")) as fasta:
        codes = encode(fasta.fetch("20"))
    with pysam.VariantFile(str(VCF)) as handle:
        donors = list(handle.header.samples)
        records = list(handle)
    found = normalise_all(
        np.array([record.pos - 1 for record in records]),
        [record.ref for record in records],
        [record.alts[0] for record in records],
        reference_codes=codes,
    )
    assert all(len(record.alts) == 1 for record in records)
    assert (found.status_M == STATUSES.index("ok")).all()
    assert (found.class_M < len(SEQUENCE_CLASSES)).all()
    alleles = np.array(
        [[sample.allele_indices for sample in record.samples.values()] for record in records],
        dtype=np.uint8,
    ).transpose(1, 2, 0)
    assert all(sample.phased for record in records for sample in record.samples.values())
    # Normalising may move one before another; those at one position stay as they were.
    order = np.argsort(found.position_M, kind="stable")
    rows = [(int(found.position_M[i]), found.refs[i], found.alts[i]) for i in order]
    return codes, Variants.from_alleles(rows), alleles[:, :, order], donors


@pytest.fixture(scope="module")
def region(cohort, tmp_path_factory):
    path = tmp_path_factory.mktemp("chr20") / "region.fa"
    path.write_text(f">20:{START + 1}-{END}\n{decode(cohort[0][START:END])}\n")
    return path


def compare(cohort, region, rows, random):
    """Compare whole haplotypes of donors, and windows cut out of them."""
    codes, table, alleles, donors = cohort
    whole = Window("20", START - 50_000, END + 50_000, "+", len(codes))
    middle = (START + END) // 2
    num_windows = num_dropped = 0
    for row in rows:
        actions, _ = resolve(alleles[row : row + 1], table, GenotypePolicy(), donors=[donors[row]])
        built = build(codes, table, actions[0], whole, middle)
        places = built.reference_map()
        num_dropped += int(built.num_overlap_dropped_H.sum())
        for h in range(2):
            # Around the region there is nothing but N, and in it none.
            expected = encode(next(iter(consensus(region, VCF, donors[row], str(h + 1)).values())))
            inside = np.flatnonzero(built.codes_HL[h] < 4)
            begin, end = int(inside[0]), int(inside[-1]) + 1
            assert np.array_equal(built.codes_HL[h, begin:end], expected)
            for _ in range(3):
                tss, strand = int(random.integers(START, END)), "+-"[random.integers(2)]
                window = tss_window("20", tss, strand, length=LENGTH, contig_length=len(codes))
                low, high, first, last = needed_interval(window, table)
                found = build(
                    codes, table.between(first, last), actions[0, h : h + 1, first:last], window,
                    tss, known=(low, high),
                )  # fmt: skip
                at = np.flatnonzero(places[h] == tss)
                if at.size == 0:
                    assert found.tss_deleted_H[0]
                    continue
                around = np.full(LENGTH, 4, np.uint8)
                source = np.arange(LENGTH) + int(at[0]) - begin - (tss - window.start)
                real = (source >= 0) & (source < len(expected))
                around[real] = expected[source[real]]
                around = reverse_complement(around) if strand == "-" else around
                assert np.array_equal(found.codes_HL[0], around)
                num_windows += 1
    return num_windows, num_dropped


def test_some_donors_equal_bcftools_consensus(cohort, region):
    num, _ = compare(cohort, region, [0, 150, 299], np.random.default_rng(0))
    assert num >= 17


@pytest.mark.slow
def test_all_donors_equal_bcftools_consensus(cohort, region):
    num, _ = compare(cohort, region, range(300), np.random.default_rng(1))
    assert num > 1700
