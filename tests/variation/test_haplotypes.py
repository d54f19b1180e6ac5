"""Haplotypes against the golden cases, a slow builder of texts, and bcftools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2exp.core.errors import InputError
from seq2exp.core.intervals import Window, tss_window
from seq2exp.core.sequence import encode
from seq2exp.variation.haplotypes import build, needed_interval, unique_haplotypes
from seq2exp.variation.iupac import decode
from seq2exp.variation.table import Variants
from tests.variation.slow import (
    consensus,
    cut,
    drops,
    edit,
    needs_bcftools,
    opposite,
    place_of_tss,
    random_reference,
    random_rows,
    write_vcf,
)

R = "AACCGGTTACGTTGCAAGTCCATGCATTGCAGGATC"
TSS = 16
# Variants, the window in plus direction, the first positions of its map.
GOLDEN = [
    ([], "ACGTTGCAAGTCCATG", range(8, 24)),
    ([(10, "G", "T")], "ACTTTGCAAGTCCATG", range(8, 24)),
    ([(11, "TTG", "T")], "TTACGTCAAGTCCATG", [6, 7, 8, 9, 10, 11, *range(14, 24)]),
    ([(11, "T", "TAAC")], "TAACTGCAAGTCCATG", [11, -1, -1, -1, *range(12, 24)]),
    ([(19, "CCA", "C")], "ACGTTGCAAGTCTGCA", [*range(8, 20), 22, 23, 24, 25]),
    ([(19, "C", "CGG")], "ACGTTGCAAGTCGGCA", [*range(8, 20), -1, -1, 20, 21]),
    (
        [(11, "TTG", "T"), (19, "C", "CGG"), (22, "T", "A")],
        "TTACGTCAAGTCGGCA",
        [6, 7, 8, 9, 10, 11, *range(14, 20), -1, -1, 20, 21],
    ),
]


def one(rows, window, tss, *, actions=None, reference=R, **options):
    """Build one haplotype that carries every row."""
    table = Variants.from_alleles(rows)
    actions = np.array([actions or [1] * len(rows)], np.uint8).reshape(1, len(rows))
    return build(encode(reference), table, actions, window, tss, **options)


def text(haplotypes, number=0):
    return decode(haplotypes.codes_HL[number])


@pytest.mark.parametrize(("rows", "expected", "places"), GOLDEN)
def test_golden_cases(rows, expected, places):
    plus = one(rows, Window("c", 8, 24, "+", 36), TSS)
    assert text(plus) == expected
    assert plus.reference_map()[0].tolist() == list(places)
    assert plus.tss_index == 8
    # The same genomic window read from the other strand.
    minus = one(rows, Window("c", 8, 24, "-", 36), TSS)
    assert text(minus) == opposite(expected)
    assert minus.reference_map()[0].tolist() == list(places)[::-1]
    assert minus.tss_index == 7
    for found, base in ((plus, "A"), (minus, "T")):
        assert text(found)[found.tss_index] == base
        assert found.anchor_H.tolist() == [TSS]
        assert found.num_overlap_dropped_H.tolist() == [0]
        assert found.pad_left_H.tolist() == found.pad_right_H.tolist() == [0]
    # Windows as training takes them have the TSS at the same index on both strands.
    for strand in "+-":
        found = one(rows, tss_window("c", TSS, strand, length=16, contig_length=36), TSS)
        assert found.tss_index == 8
        assert found.reference_map()[0, 8] == TSS


def test_a_variant_pushed_out_of_the_window_does_not_count():
    rows = GOLDEN[-1][0]
    assert one(rows, Window("c", 8, 24, "+", 36), TSS).num_applied_H.tolist() == [2]
    assert one(rows, Window("c", 7, 25, "+", 36), TSS).num_applied_H.tolist() == [3]


@st.composite
def cases(draw):
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    reference = random_reference(random, draw(st.integers(12, 90)))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(reference) - 1))
        reference = reference[:at] + "NN" + reference[at + 2 :]
    rows = random_rows(random, reference, draw(st.integers(0, 30)))
    num = draw(st.integers(1, 4))
    actions = (random.random((num, len(rows))) < draw(st.floats(0, 1))).astype(np.uint8)
    if draw(st.booleans()):
        actions *= random.integers(1, 3, actions.shape, dtype=np.uint8)
        single = [len(ref) == len(alt) == 1 and ref != "N" for _, ref, alt in rows]
        codes = random.random(actions.shape) < 0.2
        # Two alternatives of one unphased call are one code, which is tested by hand.
        first = [i == 0 or rows[i - 1][0] != row[0] for i, row in enumerate(rows)]
        actions[codes & (actions > 0) & np.array(single, bool) & np.array(first, bool)] = 3
        actions[:, ~np.array(first, bool)] %= 3
    tss = draw(st.integers(0, len(reference) - 1))
    length = draw(st.integers(1, 40))
    start = tss - draw(st.integers(0, length - 1))
    strand = draw(st.sampled_from("+-"))
    return reference, rows, actions, Window("c", start, start + length, strand, len(reference)), tss


@settings(max_examples=600, deadline=None)
@given(cases(), st.sampled_from(["first", "longest"]))
def test_any_haplotype_equals_the_slow_builder(case, overlap):
    reference, rows, actions, window, tss = case
    codes = encode(reference)
    table = Variants.from_alleles(rows)
    given_actions = actions.copy()
    found = build(codes, table, actions, window, tss, overlap=overlap)
    places = found.reference_map()
    assert found.codes_HL.shape == (len(actions), window.length)
    assert np.array_equal(actions, given_actions)
    for h, carried in enumerate(actions.tolist()):
        edited = edit(reference, rows, carried, overlap)
        expected, numbers = cut(edited, tss, window.start, window.length, window.strand)
        assert text(found, h) == expected
        assert places[h].tolist() == numbers
        deleted = tss not in edited.places
        assert found.tss_deleted_H[h] == deleted
        if not deleted:
            assert places[h, found.tss_index] == tss == found.anchor_H[h]
        first = place_of_tss(edited, tss, window.strand) - (tss - window.start)
        last = first + window.length
        assert found.pad_left_H[h] == min(max(-first, 0), window.length)
        assert found.pad_right_H[h] == min(max(last - len(edited.letters), 0), window.length)
    # Only what touches the window and a little around it is needed, and it says so.
    start, end, low, high = needed_interval(window, table, overlap=overlap)
    part = build(
        codes, table.between(low, high), actions[:, low:high], window, tss,
        overlap=overlap, known=(start, end),
    )  # fmt: skip
    assert np.array_equal(part.codes_HL, found.codes_HL)
    assert np.array_equal(part.facts_HF[:, 1:], found.facts_HF[:, 1:])


@settings(max_examples=100, deadline=None)
@given(cases())
def test_buffers_batches_and_threads_change_nothing(case):
    reference, rows, actions, window, tss = case
    table = Variants.from_alleles(rows)
    plain = build(encode(reference), table, actions, window, tss)
    buffer = np.full((len(actions) + 2, window.length), 77, np.uint8)
    reused = build(encode(reference), table, actions, window, tss, out_HL=buffer)
    assert np.shares_memory(reused.codes_HL, buffer)
    assert (buffer[len(actions) :] == 77).all()
    shared = build(encode(reference), table, actions, window, tss, threads=3)
    for other in (reused, shared):
        assert np.array_equal(other.codes_HL, plain.codes_HL)
        assert np.array_equal(other.reference_map(), plain.reference_map())
        assert np.array_equal(other.facts_HF, plain.facts_HF)
    for h in range(len(actions)):
        single = build(encode(reference), table, actions[h : h + 1], window, tss)
        assert np.array_equal(single.codes_HL[0], plain.codes_HL[h])


# The rule for records that touch, as bcftools 1.16 was seen to follow it.
TOUCHING = [
    ([(11, "T", "A"), (11, "T", "TCC")], "AACCGGTTACGACCTGCAAGTCCATGCATTGCAGGATC", 0),
    ([(11, "T", "TCC"), (11, "T", "A")], "AACCGGTTACGTCCTGCAAGTCCATGCATTGCAGGATC", 1),
    ([(11, "T", "TCC"), (11, "T", "TAA")], "AACCGGTTACGTCCTGCAAGTCCATGCATTGCAGGATC", 1),
    ([(11, "T", "A"), (11, "TTG", "T")], "AACCGGTTACGACAAGTCCATGCATTGCAGGATC", 0),
    ([(11, "TTG", "T"), (11, "T", "A")], "AACCGGTTACGTCAAGTCCATGCATTGCAGGATC", 1),
    ([(11, "TTG", "T"), (12, "T", "A")], "AACCGGTTACGTCAAGTCCATGCATTGCAGGATC", 1),
    ([(11, "TTG", "T"), (13, "G", "A")], "AACCGGTTACGTCAAGTCCATGCATTGCAGGATC", 1),
    ([(11, "TTG", "T"), (13, "G", "GAAA")], "AACCGGTTACGTAAACAAGTCCATGCATTGCAGGATC", 0),
    ([(11, "TTG", "T"), (14, "C", "A")], "AACCGGTTACGTAAAGTCCATGCATTGCAGGATC", 0),
    ([(11, "TTG", "T"), (13, "GCA", "G")], "AACCGGTTACGTAGTCCATGCATTGCAGGATC", 0),
    ([(11, "T", "TCC"), (12, "T", "TAA")], "AACCGGTTACGTCCTAAGCAAGTCCATGCATTGCAGGATC", 0),
    ([(11, "TT", "CC"), (12, "T", "A")], "AACCGGTTACGCCGCAAGTCCATGCATTGCAGGATC", 1),
    ([(11, "TT", "CC"), (12, "T", "TAAA")], "AACCGGTTACGCCAAAGCAAGTCCATGCATTGCAGGATC", 0),
    ([(11, "TT", "CC"), (13, "GC", "TT")], "AACCGGTTACGCCTTAAGTCCATGCATTGCAGGATC", 0),
    ([(11, "TTG", "C"), (13, "G", "GAA")], "AACCGGTTACGCAACAAGTCCATGCATTGCAGGATC", 0),
    ([(11, "TT", "CCC"), (12, "T", "TAA")], "AACCGGTTACGCCCGCAAGTCCATGCATTGCAGGATC", 1),
    ([(11, "T", "A"), (11, "T", "C")], "AACCGGTTACGATGCAAGTCCATGCATTGCAGGATC", 1),
    ([(11, "T", "TAA"), (11, "TTG", "T")], "AACCGGTTACGTAATGCAAGTCCATGCATTGCAGGATC", 1),
    ([(11, "T", "A"), (11, "TTG", "T"), (13, "G", "GCC")],
     "AACCGGTTACGACCCAAGTCCATGCATTGCAGGATC", 0),
    ([(11, "TTG", "T"), (13, "G", "GAAA"), (13, "GCA", "G")],
     "AACCGGTTACGTAAACAAGTCCATGCATTGCAGGATC", 1),
    ([(0, "AAC", "C"), (2, "C", "CTT")], "CTTCGGTTACGTTGCAAGTCCATGCATTGCAGGATC", 0),
    ([(0, "A", "GGA"), (0, "A", "ATT")], "GGAACCGGTTACGTTGCAAGTCCATGCATTGCAGGATC", 1),
    ([(0, "A", "GGA"), (1, "A", "T")], "GGATCCGGTTACGTTGCAAGTCCATGCATTGCAGGATC", 0),
    ([(35, "C", "CAA")], R + "AA", 0),
    ([(34, "TC", "T"), (35, "C", "A")], R[:-1], 1),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "expected", "dropped"), TOUCHING)
def test_records_that_touch(rows, expected, dropped):
    # A window beyond the contig on both sides shows all of it.
    window, tss = Window("c", -40, 100, "+", 36), 20
    found = one(rows, window, tss)
    assert text(found).strip("N") == expected
    assert len(drops(rows, [1] * len(rows))) == dropped
    assert found.num_overlap_dropped_H.tolist() == [dropped]
    assert found.num_applied_H.tolist() == [len(rows) - dropped]
    if dropped:
        with pytest.raises(InputError, match="overlap on one haplotype"):
            one(rows, window, tss, overlap="error")
    else:
        assert text(one(rows, window, tss, overlap="error")).strip("N") == expected


@needs_bcftools
def test_bcftools_follows_the_rule_for_records_that_touch(tmp_path):
    contigs = {f"c{i}": 36 for i in range(len(TOUCHING))}
    fasta = tmp_path / "r.fa"
    fasta.write_text("".join(f">{name}\n{R}\n" for name in contigs))
    records = [
        (name, *row, ["1|1"])
        for name, (rows, _, _) in zip(contigs, TOUCHING, strict=True)
        for row in rows
    ]
    vcf = write_vcf(tmp_path / "r.vcf.gz", contigs, records, ["s"])
    found = consensus(fasta, vcf, "s", "1")
    assert list(found.values()) == [expected for _, expected, _ in TOUCHING]


def test_the_longest_goes_first():
    window, tss = Window("c", -40, 100, "+", 36), 20
    rows = [(11, "T", "A"), (11, "TTGC", "T"), (13, "G", "C"), (13, "GCAAG", "G"), (18, "T", "C")]
    # The deletion at 13 has the longest allele; the one at 11 reaches over its anchor.
    found = one(rows, window, tss, overlap="longest")
    assert text(found).strip("N") == R[:11] + "ATCT"[:2] + "C" + "CCCATGCATTGCAGGATC"
    assert found.num_overlap_dropped_H.tolist() == [1]
    # Of equally long ones the first.
    rows = [(11, "TT", "AC"), (12, "TG", "CA")]
    assert text(one(rows, window, tss, overlap="longest")).strip("N") == R[:11] + "AC" + R[13:]


def test_the_rule_has_to_be_known():
    with pytest.raises(InputError, match="one of"):
        one([], Window("c", 8, 24, "+", 36), TSS, overlap="last")


@pytest.mark.parametrize(
    ("rows", "strand", "anchor", "base"),
    [
        ([(14, "CAAG", "C")], "+", 18, "T"),
        ([(14, "CAAG", "C")], "-", 14, "C"),
        # A second deletion behind or before takes more away.
        ([(14, "CAAG", "C"), (17, "GTC", "G")], "+", 20, "C"),
        ([(11, "TTGC", "T"), (14, "CAAG", "C")], "-", 11, "T"),
        # Bases that were inserted are no bases of the reference.
        ([(14, "CAAG", "C"), (17, "G", "GAAAA")], "+", 18, "T"),
        # Two bases stand for the first two of four; the TSS is the third.
        ([(14, "CAAG", "TT")], "+", 18, "T"),
        ([(14, "CAAG", "TT")], "-", 15, "T"),
        ([(14, "CAAG", "TTC")], "+", 16, "C"),
        ([(15, "AAGT", "GG")], "-", 16, "G"),
    ],
)
def test_a_deleted_tss_is_replaced_by_the_next_base_downstream(rows, strand, anchor, base):
    window = tss_window("c", TSS, strand, length=16, contig_length=36)
    found = one(rows, window, TSS)
    assert found.anchor_H.tolist() == [anchor]
    assert found.tss_deleted_H.tolist() == [anchor != TSS]
    assert found.reference_map()[0, found.tss_index] == anchor
    assert text(found)[found.tss_index] == (opposite(base) if strand == "-" else base)
    # Read on the plus strand, the gene still has its direction.
    plain = Window("c", 8, 24, "+", 36)
    assert one(rows, plain, TSS, gene_strand=strand).anchor_H.tolist() == [anchor]


def test_nothing_downstream_of_a_deleted_tss_remains():
    rows = [(29, "CAGGATC"[:1] + R[30:], R[29])]
    found = one(rows, Window("c", 28, 38, "+", 36), 33)
    assert text(found) == R[25:30] + "NNNNN"
    assert found.anchor_H.tolist() == [36]
    assert found.pad_right_H.tolist() == [5]


@pytest.mark.parametrize("strand", ["+", "-"])
def test_ends_of_the_contig_are_padded_and_the_tss_stays(strand):
    length = 20
    for tss in (0, 1, 5, 30, 35):
        window = tss_window("c", tss, strand, length=length, contig_length=36)
        for rows in (
            [],
            [(2, "C", "CTT")],
            [(2, "CGG", "C")],
            [(33, "A", "ATT")],
            [(32, "GA", "G")],
        ):
            found = one(rows, window, tss)
            edited = edit(R, rows, [1] * len(rows))
            expected, numbers = cut(edited, tss, window.start, length, strand)
            assert text(found) == expected
            pads = expected if strand == "+" else expected[::-1]
            assert found.pad_left_H[0] == len(pads) - len(pads.lstrip("N"))
            assert found.pad_right_H[0] == len(pads) - len(pads.rstrip("N"))
            assert found.tss_index == length // 2
            assert numbers[length // 2] == tss


def test_a_long_deletion_near_the_far_end_brings_reference_in():
    random = np.random.default_rng(1)
    reference = random_reference(random, 60_000)
    rows = [(30_000, reference[30_000:35_001], reference[30_000])]
    window = tss_window("c", 26_000, "+", length=10_000, contig_length=60_000)
    found = one(rows, window, 26_000, reference=reference)
    assert text(found) == reference[21_000:30_001] + reference[35_001:36_000]
    assert found.span_H2.tolist() == [[21_000, 36_000]]
    assert needed_interval(window, Variants.from_alleles(rows))[1] >= 36_000
    with pytest.raises(InputError, match="needed_interval"):
        one(rows, window, 26_000, reference=reference, known=(21_000, 35_500))


def test_a_deletion_that_begins_before_the_window_is_seen():
    rows = [(4, R[4:12], R[4]), (12, "T", "A")]
    table = Variants.from_alleles(rows)
    window = Window("c", 8, 24, "+", 36)
    assert needed_interval(window, table)[2:] == (0, 2)
    expected, _ = cut(edit(R, rows, [1, 1]), TSS, 8, 16, "+")
    assert text(one(rows, window, TSS)) == expected


def test_moving_the_window_moves_the_sequence():
    random = np.random.default_rng(2)
    reference = random_reference(random, 400)
    rows = random_rows(random, reference, 60)
    for strand in "+-":
        wide = text(one(rows, Window("c", 100, 300, strand, 400), 200, reference=reference))
        for shift in (-7, -1, 0, 1, 30):
            moved = Window("c", 150 + shift, 250 + shift, strand, 400)
            begin = 50 + shift if strand == "+" else 50 - shift
            found = text(one(rows, moved, 200, reference=reference))
            assert found == wide[begin : begin + 100]


def test_each_distinct_haplotype_is_run_once():
    random = np.random.default_rng(3)
    kinds = (random.random((5, 40)) < 0.3).astype(np.uint8)
    which = np.array([3, 3, 0, 4, 0, 3, 1])
    first, inverse = unique_haplotypes(kinds[which])
    assert first.tolist() == [0, 2, 3, 6]
    assert inverse.tolist() == [0, 0, 1, 2, 1, 0, 3]
    assert np.array_equal(kinds[which][first][inverse], kinds[which])
    for shape in ((3, 0), (0, 4), (0, 0)):
        first, inverse = unique_haplotypes(np.zeros(shape, np.uint8))
        assert inverse.tolist() == [0] * shape[0]
        assert first.tolist() == [0] * min(1, shape[0])


def test_what_does_not_fit_is_refused():
    window = Window("c", 8, 24, "+", 36)
    codes, table = encode(R), Variants.from_alleles([(10, "G", "T"), (11, "TTG", "T")])
    act = np.ones((2, 2), np.uint8)
    with pytest.raises(InputError, match="TSS 30"):
        build(codes, table, act, window, 30)
    with pytest.raises(InputError, match="35 bases"):
        build(codes[:35], table, act, window, TSS)
    with pytest.raises(InputError, match="haplotypes x 2"):
        build(codes, table, act[:, :1], window, TSS)
    with pytest.raises(InputError, match="unknown action"):
        build(codes, table, act * 5, window, TSS)
    with pytest.raises(InputError, match="position 11: found an insertion or deletion as a code"):
        build(codes, table, act * 3, window, TSS)
    for buffer in (
        np.empty((1, 16), np.uint8),
        np.empty((2, 16)),
        np.empty((2, 32), np.uint8)[:, ::2],
    ):
        with pytest.raises(InputError, match="buffer"):
            build(codes, table, act, window, TSS, out_HL=buffer)
    late = Variants.from_alleles([(35, "CG", "C")])
    for overlap in ("first", "longest"):
        with pytest.raises(InputError, match="leaves the contig"):
            build(codes, late, act[:, :1], window, TSS, overlap=overlap)


def test_memory_maps_and_other_views_give_the_same(tmp_path):
    np.save(tmp_path / "codes.npy", encode(R))
    rows = GOLDEN[-1][0]
    table = Variants.from_alleles(rows)
    window = Window("c", 8, 24, "+", 36)
    plain = build(encode(R), table, np.ones((2, 3), np.uint8), window, TSS)
    mapped = np.load(tmp_path / "codes.npy", mmap_mode="r")
    actions = np.asfortranarray(np.ones((2, 3), np.uint8))
    assert np.array_equal(build(mapped, table, actions, window, TSS).codes_HL, plain.codes_HL)
    nobody = build(encode(R), table, np.ones((0, 3), np.uint8), window, TSS)
    assert nobody.codes_HL.shape == nobody.reference_map().shape == (0, 16)


# bcftools consensus ---------------------------------------------------------------------------


def compare_with_bcftools(folder, *, seed, num_contigs, num_samples, windows_each, snps=False):
    """Cut windows out of whole consensus contigs, and count those that were compared."""
    random = np.random.default_rng(seed)
    references = {f"c{i}": random_reference(random, 2000) for i in range(num_contigs)}
    rows = {name: random_rows(random, text, 300) for name, text in references.items()}
    if snps:
        rows = {
            name: [row for row in found if len(row[1]) == len(row[2]) == 1]
            for name, found in rows.items()
        }
    carried = {
        name: (random.random((2 * num_samples, len(found))) < 0.4).astype(np.uint8)
        for name, found in rows.items()
    }
    samples = [f"s{i}" for i in range(num_samples)]
    records = [
        (name, *row, [f"{a}|{b}" for a, b in carried[name][:, i].reshape(-1, 2)])
        for name, found in rows.items()
        for i, row in enumerate(found)
    ]
    fasta = folder / "r.fa"
    fasta.write_text("".join(f">{name}\n{text}\n" for name, text in references.items()))
    lengths = {name: len(text) for name, text in references.items()}
    vcf = write_vcf(folder / "r.vcf.gz", lengths, records, samples)
    compared = 0
    for h in range(2 * num_samples):
        contigs = consensus(fasta, vcf, samples[h // 2], str(h % 2 + 1))
        for name, reference in references.items():
            carries = carried[name][h : h + 1]
            edited = edit(reference, rows[name], carries[0].tolist())
            assert "".join(edited.letters) == contigs[name]
            codes, table = encode(reference), Variants.from_alleles(rows[name])
            for _ in range(windows_each):
                tss, length = int(random.integers(2000)), int(random.integers(2, 600))
                strand = "+-"[random.integers(2)]
                window = tss_window("c", tss, strand, length=length, contig_length=2000)
                first = place_of_tss(edited, tss, strand) - (tss - window.start)
                padded = "N" * length + contigs[name] + "N" * length
                expected = padded[length + first : 2 * length + first]
                found = text(build(codes, table, carries, window, tss))
                assert found == (opposite(expected) if strand == "-" else expected)
                compared += 1
    return compared


@needs_bcftools
@pytest.mark.parametrize("snps", [False, True])
def test_windows_equal_bcftools_consensus(tmp_path, snps):
    num = compare_with_bcftools(
        tmp_path, seed=5, num_contigs=4, num_samples=3, windows_each=10, snps=snps
    )
    assert num == 240


@pytest.mark.slow
@needs_bcftools
def test_ten_thousand_windows_equal_bcftools_consensus(tmp_path):
    num = compare_with_bcftools(tmp_path, seed=6, num_contigs=25, num_samples=10, windows_each=20)
    assert num == 10_000
