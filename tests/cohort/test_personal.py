"""Haplotypes of people, against sequences edited by hand and tracks averaged base by base."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from seq2exp.cohort.personal import PersonalGenes, stack_haplotypes
from seq2exp.core.errors import InputError
from seq2exp.core.sequence import encode, reverse_complement
from seq2exp.dataset.samples import GeneSamples, SampleConfig, gene_window
from seq2exp.dataset.store import Dataset
from seq2exp.variation.policies import GenotypePolicy

WINDOW = 2048


def bases_by_hand(dataset, gene, donor, side):
    """Return (base code, reference position or anchor) from both contig ends of one haplotype.

    Simulated variants keep a base apart, so there is nothing to resolve.
    """
    contig, tss, strand = dataset.sites[gene]
    genotypes, codes = dataset.genotypes, dataset.contig_codes(contig)
    variants = genotypes.variants(contig)
    alleles = genotypes.alleles(contig, 0, len(variants), np.array([donor]))[0, side]
    low, high = max(tss - 2 * WINDOW, 0), min(tss + 2 * WINDOW, len(codes))
    rows, cursor = [], low
    for index in np.flatnonzero(alleles == 1):
        start, end = int(variants.position_M[index]), int(variants.end_M[index])
        if start < low or end > high:
            continue
        rows += [(int(codes[p]), p) for p in range(cursor, start)]
        alt = encode(variants.alt(index)).tolist()
        length = end - start
        rows += [(base, start + min(i, length - 1)) for i, base in enumerate(alt)]
        cursor = end
    rows += [(int(codes[p]), p) for p in range(cursor, high)]
    # The TSS is at WINDOW // 2 along transcription on either strand.
    place = next((i for i, (_, p) in enumerate(rows) if p == tss), None)
    if place is None:  # the TSS itself is deleted: a case of tests/variation
        return [], strand
    left = WINDOW // 2 if strand == "+" else WINDOW - 1 - WINDOW // 2
    return rows[place - left : place - left + WINDOW], strand


def carriers(dataset):
    """Yield genes with people whose haplotypes have an insertion or deletion in the window."""
    for gene, (contig, tss, _) in enumerate(dataset.sites):
        first, last = dataset.genotypes.span(contig, tss - 900, tss + 900)
        part = dataset.genotypes.variants(contig).between(first, last)
        alleles = dataset.genotypes.alleles(contig, first, last)
        indel = np.flatnonzero(part.alt_length_M != part.ref_length_M)
        found = np.argwhere(alleles[:, :, indel].any(axis=2) & (4000 < tss < 140_000))
        if len(found):
            yield gene, found[0], found[-1]


def test_sequences_and_tracks_follow_the_variants(people, cohort):
    dataset = cohort.dataset
    tried = 0
    for gene, *cases in carriers(dataset):
        compared = False
        for donor, side in cases:
            made = cohort.personal.haplotypes(gene, np.array([donor]))
            rows, strand = bases_by_hand(dataset, gene, donor, side)
            if len(rows) < WINDOW:
                continue
            expected = np.array([base for base, _ in rows], dtype=np.uint8)
            where = np.array([p for _, p in rows])
            if strand == "-":
                expected, where = reverse_complement(expected), where[::-1]
            row = made.row_DP[0, side]
            assert (made.codes_UL[row] == expected).all()
            stored = dataset.contig_tracks(dataset.sites[gene][0])
            values = stored[where // dataset.manifest.bin_size].astype(np.float64)
            bins = np.nanmean(values.reshape(-1, 64, values.shape[1]), axis=1)
            assert np.allclose(made.signal_UNT[row], bins, atol=2e-2, rtol=1e-3, equal_nan=True)
            compared = True
        tried += compared
    assert tried > 10


def test_the_reference_is_what_models_without_people_see(cohort):
    dataset, config = cohort.dataset, SampleConfig(window_bp=WINDOW, bin_size=64)
    samples = GeneSamples(dataset, config, np.arange(len(dataset.genes)))
    for gene in range(0, len(dataset.genes), 7):
        made = cohort.personal.haplotypes(gene, np.arange(5))
        assert (made.codes_UL[made.reference] == samples[gene].codes).all()
        assert np.allclose(
            made.signal_UNT[made.reference], samples[gene].signal, equal_nan=True, atol=1e-3
        )


def test_each_distinct_haplotype_comes_once(cohort):
    made = cohort.personal.haplotypes(3, np.arange(40))
    assert len(np.unique(made.codes_UL, axis=0)) == len(made) < 40
    assert made.row_DP.shape == (40, 2)
    alone = cohort.personal.haplotypes(3, np.array([17]))
    for side in (0, 1):
        whole = made.codes_UL[made.row_DP[17, side]]
        assert (alone.codes_UL[alone.row_DP[0, side]] == whole).all()


def test_the_order_of_people_changes_nothing(cohort):
    forward = cohort.personal.haplotypes(5, np.array([3, 9, 30]))
    back = cohort.personal.haplotypes(5, np.array([30, 9, 3]))
    ours = forward.codes_UL[forward.row_DP]
    assert (ours == back.codes_UL[back.row_DP][::-1]).all()


def test_a_shift_moves_the_window_of_everybody(cohort):
    gene = 4
    still = cohort.personal.haplotypes(gene, np.array([0]))
    moved = cohort.personal.haplotypes(gene, np.array([0]), shift=10)
    reverse = gene_window(cohort.dataset, gene, cohort.personal.config).reverse
    a, b = still.codes_UL[still.reference], moved.codes_UL[moved.reference]
    assert (a[10:] == b[:-10]).all() if not reverse else (a[:-10] == b[10:]).all()


def test_nobody_leaves_the_reference(cohort):
    made = cohort.personal.haplotypes(2, np.empty(0, dtype=np.int64))
    assert len(made) == 1
    assert made.reference == 0
    assert made.row_DP.shape == (0, 2)


def test_unphased_people_need_a_policy_and_become_one_hot(people, monkeypatch):
    dataset = Dataset(people)
    real = dataset.genotypes.alleles

    def heterozygous(contig, first, last, donors=None):
        return real(contig, first, last, donors) != 0

    gene, contig = 3, dataset.sites[3][0]
    config = SampleConfig(window_bp=WINDOW, bin_size=64)
    monkeypatch.setattr(
        dataset.genotypes,
        "unphased",
        lambda *where: heterozygous(*where).sum(axis=1) == 1,
    )
    train = np.arange(20)
    strict = PersonalGenes(dataset, config, GenotypePolicy(), train=train)
    with pytest.raises(InputError, match=contig):
        strict.haplotypes(gene, np.arange(20))
    mixed = PersonalGenes(dataset, config, GenotypePolicy(phase="iupac"), train=train)
    batch = stack_haplotypes([mixed.haplotypes(gene, np.arange(20))])
    assert batch.codes_BL.ndim == 3
    totals = batch.codes_BL.sum(dim=2)
    assert ((totals == 1) | (totals == 0)).all()
    assert (batch.codes_BL == 0.5).any()


def test_personal_genes_go_to_worker_processes(cohort):
    copy = pickle.loads(pickle.dumps(cohort.personal))
    a, b = (one.haplotypes(6, np.arange(4)) for one in (cohort.personal, copy))
    assert (a.codes_UL == b.codes_UL).all()


def test_a_dataset_without_donors_is_refused(toy):
    with pytest.raises(InputError, match="no genotypes"):
        PersonalGenes(Dataset(toy), SampleConfig(), GenotypePolicy(), train=np.arange(2))


def test_the_overlap_rule_of_the_policy_reaches_the_sequences(cohort, monkeypatch):
    import seq2exp.cohort.personal as module

    seen = []
    real = module.build

    def spy(*args, **options):
        seen.append(options["overlap"])
        return real(*args, **options)

    monkeypatch.setattr(module, "build", spy)
    for rule in ("first", "longest"):
        personal = PersonalGenes(
            cohort.dataset, cohort.config.data, GenotypePolicy(overlap=rule), train=np.arange(20)
        )
        personal.haplotypes(3, np.arange(3))
    assert seen == ["first", "longest"]
