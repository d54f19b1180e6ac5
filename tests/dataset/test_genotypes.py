"""The reader of genotypes against slow plain reading of what was written."""

from __future__ import annotations

import multiprocessing
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from seq2exp.cli.inspect import describe
from seq2exp.core.errors import FormatError, InputError
from seq2exp.core.intervals import tss_window
from seq2exp.dataset import format as layout
from seq2exp.dataset import format_genotypes as places
from seq2exp.dataset.format_genotypes import BLOCK, GenotypeInfo, pack_rows, unpack_rows
from seq2exp.dataset.genotypes import Genotypes
from seq2exp.dataset.store import Dataset
from seq2exp.variation.haplotypes import build, needed_interval
from seq2exp.variation.policies import GenotypePolicy, resolve
from seq2exp.variation.table import Variants
from tests.toys import ToyPlan, add_genotypes, toy_dataset, write_toy_genotypes

DONORS, PLOIDY, SIZE = 5, 2, 2 * BLOCK + 77


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A contig of more variants than two blocks hold, and the arrays that were written."""
    random = np.random.default_rng(3)
    root = tmp_path_factory.mktemp("long") / "d"
    toy_dataset(root, ToyPlan(contigs=(("chr1", "train", 40),)))
    position_M = np.arange(SIZE, dtype=np.int64) * 2 + 10
    variants = Variants(
        position_M,
        np.ones(SIZE, np.int32),
        np.arange(SIZE + 1, dtype=np.int64),
        np.zeros(SIZE, np.uint8),
    )
    alleles = random.integers(0, 2, (DONORS * PLOIDY, SIZE)).astype(np.uint8)
    missing = (random.random(alleles.shape) < 0.05).astype(np.uint8)
    alleles[missing == 1] = 0
    write_toy_genotypes(root, "chr1", variants, alleles, missing=missing)
    unphased = random.integers(0, 2, (DONORS, SIZE))
    blocks = range(0, SIZE, BLOCK)
    np.save(
        places.genotype_path(root, "chr1", "unphased"),
        np.stack([pack_rows(unphased[:, at : at + BLOCK]) for at in blocks]),
    )
    sets = np.zeros((DONORS, 3 * BLOCK), np.int32)
    sets[:, :SIZE] = random.integers(0, 9, (DONORS, SIZE))
    np.save(
        places.genotype_path(root, "chr1", "phase_set"),
        np.ascontiguousarray(sets.reshape(DONORS, 3, BLOCK).transpose(1, 0, 2)),
    )
    names = [f"D{number}" for number in range(DONORS)]
    columns = dict.fromkeys(places.DONOR_COLUMNS, "")
    layout.write_table(pd.DataFrame({**columns, "donor": names}), places.donors_path(root))
    info = GenotypeInfo(PLOIDY, names, {"chr1": SIZE})
    layout.finish_manifest(root, replace(layout.read_manifest(root), genotypes=info))
    alleles[missing == 1] = 2
    return root, alleles.reshape(DONORS, PLOIDY, SIZE), unphased.astype(bool), sets[:, :SIZE]


@pytest.mark.parametrize(
    ("first", "last"),
    [(0, SIZE), (0, 1), (7, 8), (8, 16), (BLOCK - 1, BLOCK + 1), (BLOCK, 2 * BLOCK), (5, 5),
     (BLOCK - 3, 2 * BLOCK + 9), (SIZE - 1, SIZE), (SIZE, SIZE)],
)  # fmt: skip
@pytest.mark.parametrize("donors", [None, [3], [4, 0, 2], []])
def test_every_range_and_choice_of_donors_is_what_was_written(long, first, last, donors):
    root, alleles, unphased, sets = long
    chosen = None if donors is None else np.array(donors, dtype=np.int64)
    rows = slice(None) if donors is None else donors
    reader = Genotypes(root)
    found = reader.alleles("chr1", first, last, chosen)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, alleles[rows, :, first:last])
    np.testing.assert_array_equal(
        reader.unphased("chr1", first, last, chosen), unphased[rows, first:last]
    )
    np.testing.assert_array_equal(
        reader.phase_sets("chr1", first, last, chosen), sets[rows, first:last]
    )
    expected = alleles[rows, :, first:last].sum(axis=1).astype(float)
    expected[(alleles[rows, :, first:last] == 2).any(axis=1)] = np.nan
    dosage = reader.dosage("chr1", first, last, chosen)
    assert dosage.dtype == np.float32
    np.testing.assert_array_equal(dosage, expected)


def test_bits_are_written_first_variant_highest():
    packed = pack_rows(np.array([[1, 0, 0, 0, 0, 0, 0, 0, 0, 1]]), width=3)
    assert packed.tolist() == [[128, 64, 0]]
    full = pack_rows(np.ones((1, BLOCK)))
    assert full.shape == (1, places.BLOCK_BYTES)
    assert unpack_rows(full[None], 3, 9).tolist() == [[1] * 6]


def slow_span(variants, start, end):
    """All variants that touch the interval, then back while an earlier one overlaps the first."""
    ends = variants.position_M + variants.ref_length_M
    touching = [i for i in range(len(variants)) if variants.position_M[i] < end and ends[i] > start]
    if not touching:
        return None
    # A range has no holes: what lies between two that touch comes too.
    first, last = touching[0], int((variants.position_M < end).sum())
    while any(ends[j] > variants.position_M[first] for j in range(first)):
        first -= 1
    return first, last


def test_span_reaches_back_to_where_no_earlier_ref_overlaps(tmp_path):
    random = np.random.default_rng(0)
    root = toy_dataset(tmp_path / "d", ToyPlan(contigs=(("chr1", "train", 2),)))
    position = np.sort(random.integers(5, 900, 120))
    rows = [(int(p), "A" * int(random.choice([1, 1, 1, 2, 9, 40])), "C") for p in position]
    variants = Variants.from_alleles(rows)
    write_toy_genotypes(root, "chr1", variants, np.zeros((2, len(rows)), np.uint8))
    columns = dict.fromkeys(places.DONOR_COLUMNS, "")
    layout.write_table(pd.DataFrame({**columns, "donor": ["a"]}), places.donors_path(root))
    info = GenotypeInfo(2, ["a"], {"chr1": len(rows)})
    layout.finish_manifest(root, replace(layout.read_manifest(root), genotypes=info))
    reader = Genotypes(root)
    for start in range(-20, 1000, 7):
        for size in (1, 13, 200):
            first, last = reader.span("chr1", start, start + size)
            expected = slow_span(variants, start, start + size)
            if expected is None:
                assert first == last
            else:
                assert (first, last) == expected
    # A plane without a bit is not written, and reads as zeros.
    assert not places.genotype_path(root, "chr1", "alleles").exists()
    assert reader.alleles("chr1", 0, 9).tolist() == [[[0] * 9] * 2]
    assert reader.unphased("chr1", 0, 9) is None
    assert reader.phase_sets("chr1", 0, 9) is None


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = toy_dataset(tmp_path_factory.mktemp("toy") / "d")
    return add_genotypes(root, donors=7)


def in_child(dataset, rows, queue):
    queue.put(dataset.genotypes.alleles("chr1", 3, 40, rows))


def test_a_reader_is_sent_to_a_spawned_worker_without_its_handles(toy):
    dataset = Dataset(toy)
    rows = np.array([6, 1])
    here = dataset.genotypes.alleles("chr1", 3, 40, rows)
    assert dataset.genotypes._open
    assert not pickle.loads(pickle.dumps(dataset)).genotypes._open
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=in_child, args=(dataset, rows, queue))
    child.start()
    found = queue.get(timeout=120)
    child.join()
    np.testing.assert_array_equal(found, here)


def test_haploid_dosage_is_zero_or_one(tmp_path):
    root = add_genotypes(toy_dataset(tmp_path / "d"), donors=6, ploidy=1)
    dosage = Dataset(root).genotypes.dosage("chr1", 0, 300)
    assert set(np.unique(dosage[np.isfinite(dosage)])) == {0, 1}
    assert Dataset(root).genotypes.alleles("chr1", 0, 300).shape == (6, 1, 300)


def test_tables_of_donors_follow_the_arrays(toy):
    dataset = Dataset(toy)
    assert list(dataset.donors["donor"]) == dataset.genotypes.donors
    assert list(dataset.donor_expression.columns) == dataset.genotypes.donors
    assert list(dataset.donor_expression.index) == list(dataset.genes["gene_id"])
    assert dataset.genotypes.donor_rows(["D003", "D000"]).tolist() == [3, 0]
    with pytest.raises(InputError, match=r"no donors of these names.*1 in all; first: nobody"):
        dataset.genotypes.donor_rows(["D003", "nobody"])
    text = describe(toy)
    assert "genotypes 1,097 variants x 7 donors, diploid: chr1 599, chr2 199, chr3 299" in text
    assert "population: A 4, B 3" in text


def test_a_contig_without_variants_is_empty(toy):
    reader = Dataset(toy).genotypes
    assert reader.span("chrM", 0, 1000) == (0, 0)
    assert reader.alleles("chrM", 0, 0).shape == (7, 2, 0)
    assert len(reader.table("chrM")) == 0
    assert len(reader.table("chr2")) == 199


def test_a_dataset_without_genotypes_still_opens_and_is_version_1(tmp_path):
    root = toy_dataset(tmp_path / "d")
    text = layout.manifest_path(root).read_text()
    assert '"format_version": 1' in text
    assert "genotypes" not in text
    dataset = Dataset(root)
    assert dataset.genotypes is None
    assert len(dataset.donors) == 0
    assert dataset.donor_expression is None
    assert "genotypes none" in describe(root)
    with pytest.raises(InputError, match=r"no genotypes.*section genotypes"):
        Genotypes(root)
    assert layout.read_manifest(add_genotypes(root)).format_version == 2


@pytest.mark.parametrize("name", ["position", "alt_codes", "reach", "alleles", "missing"])
def test_f27_arrays_that_do_not_fit_the_manifest(tmp_path, name):
    root = add_genotypes(toy_dataset(tmp_path / "d"))
    path = places.genotype_path(root, "chr1", name)
    np.save(path, np.load(path)[:-1])
    layout.finish_manifest(root, layout.read_manifest(root))
    with pytest.raises(FormatError, match=f"{name}.npy: found shape"):
        Dataset(root).genotypes.alleles("chr1", *Dataset(root).genotypes.span("chr1", 0, 99))


def test_f27_donors_of_another_dataset(tmp_path):
    root = add_genotypes(toy_dataset(tmp_path / "d"))
    frame = layout.read_table(places.donors_path(root))
    layout.write_table(frame.iloc[::-1], places.donors_path(root))
    table = layout.read_table(places.donor_expression_path(root))
    layout.write_table(table.drop(columns="D003"), places.donor_expression_path(root))
    layout.finish_manifest(root, layout.read_manifest(root))
    for name in ("donors", "donor_expression"):
        with pytest.raises(FormatError, match="that differ from"):
            getattr(Dataset(root), name)


def test_the_fast_builder_gives_the_haplotypes_of_the_general_one(tmp_path, long):
    root = add_genotypes(toy_dataset(tmp_path / "d"))
    dataset = Dataset(root)
    reader = dataset.genotypes
    length = dataset.manifest.contigs["chr1"]
    codes = np.load(layout.sequence_path(root, "chr1"), mmap_mode="r")
    fast = reader.packed("chr1", codes)
    for tss, strand in ((40, "+"), (length // 2, "-"), (length - 30, "+")):
        window = tss_window("chr1", tss, strand, length=600, contig_length=length)
        span = partial(reader.span, "chr1")
        start, end, first, last = needed_interval(window, reader.variants("chr1"), span=span)
        part = reader.variants("chr1").between(first, last)
        donors = np.array([7, 0, 11])
        actions, _ = resolve(reader.alleles("chr1", first, last, donors), part, GenotypePolicy())
        rows = 2 * donors[:, None] + np.arange(2)
        found = fast.build(rows, [window] * 3, [tss] * 3)
        for b in range(3):
            expected = build(codes, part, actions[b], window, tss, known=(start, end))
            assert np.array_equal(found[b].codes_HL, expected.codes_HL)
            assert np.array_equal(found[b].reference_map(), expected.reference_map())
    assert reader.packed("chrM", codes) is None
    # Calls without phase need a policy.
    root, *_ = long
    assert Genotypes(root).packed("chr1", codes) is None
