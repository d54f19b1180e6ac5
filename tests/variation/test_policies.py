"""Calls without phase, without alleles, haploid, rare, long or of the wrong kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.core.intervals import Window
from seq2exp.core.sequence import encode
from seq2exp.variation.haplotypes import build
from seq2exp.variation.iupac import decode, one_hot
from seq2exp.variation.policies import (
    MISSING,
    GenotypeCounts,
    GenotypePolicy,
    allele_frequency,
    resolve,
)
from seq2exp.variation.table import Variants

R = "AACCGGTTACGTTGCAAGTCCATGCATTGCAGGATC"
ROWS = [(3, "C", "A"), (6, "T", "TCC"), (11, "TTG", "T"), (16, "AA", "GC"), (20, "C", "T")]
TABLE = Variants.from_alleles(ROWS)
DONORS = ["ann", "bob", "cat"]


def calls(*rows):
    """Return alleles and the unphased mask of rows of genotypes such as `0|1 0/1`."""
    alleles, unphased = [], []
    for row in rows:
        words = row.split()
        pairs = [word.replace("|", "/").split("/") for word in words]
        alleles.append([[MISSING if a == "." else int(a) for a in pair] for pair in pairs])
        unphased.append(
            ["/" in w and set(p) == {"0", "1"} for w, p in zip(words, pairs, strict=True)]
        )
    return np.array(alleles, np.uint8).transpose(0, 2, 1), np.array(unphased)


def sequences(actions, table=TABLE):
    actions = actions.reshape(-1, actions.shape[-1])
    built = build(encode(R), table, actions, Window("c", 0, 36, "+", 36), 24)
    return [decode(row) for row in built.codes_HL]


MIXED = ("0|1 0/0 0/1 1|1 1/0", "1/0 0/1 0|0 0|0 0/1", "0|1 1|0 0|0 1/1 0|0")


def test_plain_calls_are_not_copied():
    alleles, unphased = calls("0|1 1|1 0|0 1|0 0|1")
    for given in (None, unphased):
        actions, counts = resolve(alleles, TABLE, GenotypePolicy(), unphased_DM=given)
        assert np.shares_memory(actions, alleles)
        assert (counts.calls, counts.heterozygous, counts.unphased) == (5, 3, 0)
    assert counts.unphased_share == 0


def test_a_mixed_file_is_refused_with_count_and_first_donor():
    alleles, unphased = calls(*MIXED)
    with pytest.raises(InputError, match=r"5 in all; first: ann at c:12, ann at c:21, bob at c:4"):
        resolve(alleles, TABLE, GenotypePolicy(), unphased_DM=unphased, donors=DONORS, contig="c")


@pytest.mark.parametrize("phase", ["iupac", "average"])
def test_codes_stand_for_both_alleles_and_indels_are_left_out(phase):
    alleles, unphased = calls(*MIXED)
    before = alleles.copy()
    actions, counts = resolve(alleles, TABLE, GenotypePolicy(phase=phase), unphased_DM=unphased)
    assert np.array_equal(alleles, before)
    assert actions[0].tolist() == [[0, 0, 0, 1, 3], [1, 0, 0, 1, 3]]
    assert actions[1].tolist() == [[3, 0, 0, 0, 3], [3, 0, 0, 0, 3]]
    assert np.array_equal(actions[2], alleles[2])
    assert (counts.unphased, counts.unphased_indels_left_out, counts.heterozygous) == (5, 2, 8)
    assert counts.unphased_share == 5 / 8
    text = sequences(actions)[2]
    assert text == R[:3] + "M" + R[4:20] + "Y" + R[21:]
    # What a model sees is the mean of the two sequences that are possible at this base.
    ref, alt = one_hot(encode(R[20])), one_hot(encode("T"))
    assert np.array_equal(one_hot(np.array([6], np.uint8)), (ref + alt) / 2)


def test_two_alternatives_of_an_unphased_call_never_show_the_reference():
    """1/2 becomes 1/0 and 0/1 when the record is split; the donor has no REF."""
    table = Variants.from_alleles([(3, "C", "A"), (3, "C", "G"), (8, "A", "T")])
    alleles = np.array([[[1, 0, 0], [0, 1, 1]]], np.uint8)
    policy = GenotypePolicy(phase="iupac")
    actions, _ = resolve(alleles, table, policy, unphased_DM=np.ones((1, 3), bool))
    expected = R[:3] + "R" + R[4:8] + "W" + R[9:]
    assert sequences(actions, table) == [expected, expected]
    for overlap in ("longest", "error"):
        built = build(
            encode(R), table, actions[0], Window("c", 0, 36, "-", 36), 24, overlap=overlap
        )
        assert decode(built.codes_HL[0, ::-1]) == expected.translate(
            str.maketrans("ACGTRW", "TGCAYW")
        )


def test_chance_deals_the_same_whoever_is_read_and_wherever_it_begins():
    random = np.random.default_rng(0)
    num = 400
    table = Variants.from_alleles([(i, "A", "C") for i in range(num)])
    names = [f"donor_{i}" for i in range(30)]
    alleles = np.zeros((30, 2, num), np.uint8)
    alleles[:, 0] = random.random((30, num)) < 0.5
    alleles[:, 1] = 1 - alleles[:, 0]
    unphased = np.ones((30, num), bool)
    policy = GenotypePolicy(phase="random", seed=3)

    def dealt(rows, first, last, policy=policy, contig="c"):
        return resolve(
            alleles[rows, :, first:last], table.between(first, last), policy, contig=contig,
            unphased_DM=unphased[rows, first:last], donors=[names[i] for i in rows],
        )[0]  # fmt: skip

    everybody = np.arange(30)
    whole = dealt(everybody, 0, num)
    assert (np.sort(whole, axis=1) == np.sort(alleles, axis=1)).all()
    for rows, first, last in ([5, 3], 0, num), ([29], 17, 18), (everybody[::-1], 100, 300):
        assert np.array_equal(dealt(rows, first, last), whole[rows, :, first:last])
    turned = (whole != alleles).any(axis=1)
    # 12,000 fair coins: within 4 standard deviations; and so are those of a donor or a site.
    assert abs(turned.mean() - 0.5) < 4 * 0.5 / np.sqrt(turned.size)
    assert abs(turned.mean(axis=1) - 0.5).max() < 4.5 * 0.5 / np.sqrt(num)
    assert abs(turned.mean(axis=0) - 0.5).max() < 4.5 * 0.5 / np.sqrt(30)
    for other in (
        dealt(everybody, 0, num, replace(policy, seed=4)),
        dealt(everybody, 0, num, contig="d"),
    ):
        assert 0.4 < (other != whole).any(axis=1).mean() < 0.6


def test_alleles_of_one_record_fall_together():
    """1/2 of a record whose alleles went to different places: a site each, or one of both."""
    rows = [(2 * i, "A", "C") for i in range(100)]
    table = Variants.from_alleles([x for p, r, a in rows for x in ((p, r, a), (p + 1, r, a))])
    alleles = np.tile(np.array([[1, 0], [0, 1]], np.uint8), (1, 100))[None]
    site = np.repeat(np.arange(100), 2)
    policy = GenotypePolicy(phase="random")
    unphased = np.ones((1, 200), bool)
    actions, _ = resolve(alleles, table, policy, unphased_DM=unphased, site_M=site)
    assert (actions[0, 0, ::2] != actions[0, 0, 1::2]).all()
    assert 20 < actions[0, 0, ::2].sum() < 80
    apart, _ = resolve(alleles, table, policy, unphased_DM=unphased)
    assert (apart[0, 0, ::2] == apart[0, 0, 1::2]).any()


def test_phase_sets_are_honoured():
    table = Variants.from_alleles([(i, "A", "C") for i in range(8)])
    alleles = np.array([[[0, 1, 0, 1, 1, 0, 1, 0], [1, 0, 1, 0, 0, 1, 1, 0]]], np.uint8)
    sets = np.array([[5, 5, 5, 9, 9, 0, 7, 0]], np.int32)
    policy = GenotypePolicy()
    one_set, counts = resolve(
        alleles, table, policy, phase_set_DM=np.where(alleles[:, 0] != 5, 5, 0).astype(np.int32)
    )
    assert np.array_equal(one_set, alleles)
    assert counts.other_phase_set == 0
    with pytest.raises(InputError, match="3 in all"):
        resolve(alleles, table, policy, phase_set_DM=sets)
    codes, counts = resolve(alleles, table, replace(policy, phase="iupac"), phase_set_DM=sets)
    assert codes[0, 0].tolist() == [0, 1, 0, 3, 3, 3, 1, 0]
    assert (counts.other_phase_set, counts.heterozygous) == (3, 6)
    assert counts.unphased_share == 0.5
    seen = set()
    for seed in range(40):
        random = replace(policy, phase="random", seed=seed)
        dealt, _ = resolve(alleles, table, random, phase_set_DM=sets)
        assert np.array_equal(dealt[:, :, [0, 1, 2, 6, 7]], alleles[:, :, [0, 1, 2, 6, 7]])
        turned = (dealt != alleles)[0, 0]
        assert turned[3] == turned[4]
        seen.add((turned[3], turned[5]))
    assert len(seen) == 4
    # A homozygous call says nothing of phase, nor does a set of another donor.
    other = np.where(alleles[:, 0] == alleles[:, 1], 99, 0).astype(np.int32)
    assert np.array_equal(resolve(alleles, table, policy, phase_set_DM=other)[0], alleles)


def test_missing_alleles():
    alleles, unphased = calls("0|1 .|. .|. ./. .|1", "./1 ./1 0|. .|0 1|.")
    frequency = np.array([0.2, 0.7, 0.5, 0.9, np.nan])
    ref, counts = resolve(alleles, TABLE, GenotypePolicy(), unphased_DM=unphased)
    assert ref[0].tolist() == [[0, 0, 0, 0, 0], [1, 0, 0, 0, 1]]
    assert ref[1].tolist() == [[0, 0, 0, 0, 1], [1, 1, 0, 0, 0]]
    assert (counts.missing_alleles, counts.heterozygous) == (12, 1)
    n, _ = resolve(alleles, TABLE, GenotypePolicy(missing="n"))
    assert n[0].tolist() == [[0, 2, 2, 2, 2], [1, 2, 2, 2, 1]]
    # N over what is in doubt: no base for an insertion, not the anchor of a deletion.
    assert sequences(n)[0] == R[:12] + "NN" + R[14:16] + "NN" + R[18:20] + "N" + R[21:]
    major, _ = resolve(alleles, TABLE, GenotypePolicy(missing="major"), frequency_M=frequency)
    assert major[0].tolist() == [[0, 1, 0, 1, 0], [1, 1, 0, 1, 1]]
    assert major[1].tolist() == [[0, 1, 0, 1, 1], [1, 1, 0, 0, 0]]
    with pytest.raises(InputError, match=r"12 in all; first: ann at c:7"):
        resolve(alleles, TABLE, GenotypePolicy(missing="error"), donors=["ann", "bob"], contig="c")
    assert alleles.max() == MISSING


def test_a_half_call_is_not_taken_for_the_reference():
    alleles, unphased = calls("./1 ./1 ./1 ./1 ./1")
    actions, counts = resolve(
        alleles, TABLE, GenotypePolicy(missing="n"), unphased_DM=np.ones_like(unphased)
    )
    assert actions[0].tolist() == [[2] * 5, [1] * 5]
    assert counts.heterozygous == counts.unphased == 0


def test_one_haplotype_has_no_phase():
    alleles = np.array([[[0, 1, 2, 1, 0]]], np.uint8)
    actions, counts = resolve(alleles, TABLE, GenotypePolicy(), unphased_DM=np.ones((1, 5), bool))
    assert actions.tolist() == [[[0, 1, 0, 1, 0]]]
    assert (counts.heterozygous, counts.missing_alleles) == (0, 1)
    assert len(sequences(actions)) == 1


@pytest.mark.parametrize(
    ("variants", "max_indel", "used"),
    [
        ("all", 1000, [0, 1, 2, 3, 4]),
        ("snps", 1000, [0, 4]),
        ("indels", 1000, [1, 2]),
        ("all", 1, [0, 3, 4]),
        ("all", 2, [0, 1, 2, 3, 4]),
        ("indels", 0, []),
    ],
)
def test_kinds_and_lengths(variants, max_indel, used):
    alleles = np.full((2, 2, 5), 1, np.uint8)
    alleles[1, 1] = MISSING
    policy = GenotypePolicy(variants=variants, max_indel=max_indel, missing="n")
    actions, counts = resolve(alleles, TABLE, policy)
    expected = np.zeros((2, 2, 5), np.uint8)
    expected[:, :, used] = 1
    expected[1, 1, used] = 2
    assert np.array_equal(actions, expected)
    assert counts.calls == 2 * len(used)
    assert counts.missing_alleles == len(used)
    assert counts.filtered_kind + counts.filtered_length == 5 - len(used)


def test_what_is_left_out_need_not_be_phased():
    alleles, unphased = calls("0|1 0/1 0/1 1|1 1|0")
    actions, _ = resolve(alleles, TABLE, GenotypePolicy(variants="snps"), unphased_DM=unphased)
    assert actions[0].tolist() == [[0, 0, 0, 0, 1], [1, 0, 0, 0, 0]]


def test_rare_variants_become_the_major_allele():
    alleles, _ = calls("0|1 0|1 1|. 1|1 1|0", "0|0 1|1 0|0 1|1 1|1")
    frequency = np.array([0.04, 0.97, 0.3, 0.5, np.nan])
    policy = GenotypePolicy(min_maf=0.05, missing="n")
    actions, counts = resolve(alleles, TABLE, policy, frequency_M=frequency)
    assert actions[0].tolist() == [[0, 1, 1, 1, 0], [0, 1, 2, 1, 0]]
    assert actions[1].tolist() == [[0, 1, 0, 1, 0], [0, 1, 0, 1, 0]]
    assert (counts.filtered_frequency, counts.calls) == (3, 4)
    # Too frequent as well: the major allele is ALT from one half on, not only where REF is rare.
    middle, _ = resolve(
        alleles, TABLE, GenotypePolicy(max_maf=0.2), frequency_M=np.full(len(TABLE), 0.6)
    )
    assert (middle == 1).all()
    rare, counts = resolve(alleles, TABLE, GenotypePolicy(max_maf=0.05), frequency_M=frequency)
    assert rare[0].tolist() == [[0, 0, 0, 0, 1], [1, 1, 0, 0, 0]]
    assert counts.filtered_frequency == 2


def test_frequencies_are_those_of_the_donors_asked_for():
    alleles, _ = calls("0|1 .|. 1|1 0|. 0|0", "1|1 .|. 0|0 1|1 0|0", "1|1 1|1 1|1 1|1 1|1")
    found = allele_frequency(alleles, np.array([0, 1]))
    assert found.tolist()[2:] == [0.5, 2 / 3, 0.0]
    assert found[0] == 0.75
    assert np.isnan(found[1])
    assert np.array_equal(found, allele_frequency(alleles[:2]), equal_nan=True)


def test_counts_add_up():
    one = GenotypeCounts(calls=3, heterozygous=1, unphased=1, first_unphased="a")
    two = GenotypeCounts(calls=4, heterozygous=1, first_unphased="b")
    assert one + two == GenotypeCounts(calls=7, heterozygous=2, unphased=1)
    assert (one + two).first_unphased == "a"
    assert np.isnan(GenotypeCounts().unphased_share)


def test_wrong_settings_and_shapes_are_refused():
    for wrong in ({"min_maf": 0.4, "max_maf": 0.3}, {"max_maf": 0.6}, {"max_indel": -1}):
        with pytest.raises(ConfigError):
            GenotypePolicy(**wrong)
    alleles, unphased = calls("0|1 0|1 0|1 1|1 1|0")
    with pytest.raises(InputError, match="frequencies"):
        resolve(alleles, TABLE, GenotypePolicy(missing="major"))
    for wrong in (alleles[:, :, :3], alleles + 2, np.zeros((1, 3, 5), np.uint8)):
        with pytest.raises(InputError, match="0 REF, 1 ALT"):
            resolve(wrong, TABLE, GenotypePolicy())
    with pytest.raises(InputError):
        resolve(alleles, TABLE, GenotypePolicy(), unphased_DM=unphased[:, :2])
