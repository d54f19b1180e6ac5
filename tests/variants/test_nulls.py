"""p-values, q-values and their calibration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from seq2exp.core.errors import InputError
from seq2exp.interpret.enrichment import benjamini_hochberg
from seq2exp.variants.calibration import calibration_table, expected_share, quantile_band
from seq2exp.variants.contexts import shuffled_flanks, variant_random, with_flanks
from seq2exp.variants.nulls import QValues, empirical_p, p_left, p_right, p_two_sided

BACKGROUND = np.arange(4.0)


@pytest.mark.parametrize(
    ("score", "right", "two_sided"), [(3.0, 0.4, 0.8), (5.0, 0.2, 0.4), (1.5, 0.6, 1.0)]
)
def test_goldens_for_a_background_of_0_1_2_3(score, right, two_sided):
    """(1 + draws that reach it) / 5; 1.5 lies in the middle, twice 3 / 5 is cut at 1."""
    assert p_right(score, BACKGROUND)[0] == pytest.approx(right)
    assert p_two_sided(score, BACKGROUND)[0] == pytest.approx(two_sided)
    assert empirical_p(score, BACKGROUND, signed=True)[0] == pytest.approx(two_sided)
    assert empirical_p(score, BACKGROUND, signed=False)[0] == pytest.approx(right)


def test_p_values_by_counting_never_above_one_and_missing_where_nothing_is_known():
    random = np.random.default_rng(0)
    draws = random.integers(-4, 5, (50, 20)).astype(float)
    score = random.integers(-4, 5, 50).astype(float)
    draws[3, :7], draws[4], score[5] = np.nan, np.nan, np.nan
    right, left, both = (f(score, draws) for f in (p_right, p_left, p_two_sided))
    for i in range(50):
        known = [x for x in draws[i] if x == x]
        if not known or score[i] != score[i]:
            assert np.isnan([right[i], left[i], both[i]]).all()
            continue
        by_hand = [(1 + sum(x >= score[i] for x in known)) / (len(known) + 1),
                   (1 + sum(x <= score[i] for x in known)) / (len(known) + 1)]  # fmt: skip
        assert [right[i], left[i]] == pytest.approx(by_hand)
        assert both[i] == pytest.approx(min(1, 2 * min(by_hand)))
    assert np.nanmax(both) <= 1
    assert np.nanmin(both) > 0
    np.testing.assert_array_equal(p_two_sided(-score, -draws), both)


def test_q_values_in_parts_are_those_of_all_together():
    random = np.random.default_rng(1)
    p = random.integers(1, 101, 3_000) / 100
    p[::17], p[:200] = np.nan, 0.01
    parts = np.array_split(random.permutation(p), 7)
    counted = QValues()
    for part in parts:
        counted.add(part)
    np.testing.assert_allclose(counted.q(p), benjamini_hochberg(p), rtol=1e-12)
    with pytest.raises(InputError, match="p-values that were not counted"):
        counted.q([0.015])
    assert np.isnan(QValues().q([np.nan])).all()
    with pytest.raises(InputError, match="add all of them first"):
        QValues().q([0.5])


MOTIF = np.array([0, 1, 0, 2, 0, 0, 3, 1], dtype=np.uint8)


def scores_of_random_alleles(*, signed, with_motif=False, num=250, draws=49):
    """A model that adds up words of four bases, and a motif, for random substitutions."""
    random = np.random.default_rng(9)
    # Longer words than the shuffle keeps, so that the surroundings matter.
    weight = random.normal(size=(4,) * 4)

    def predict(codes):
        def word(size):
            return [codes[..., i : codes.shape[-1] - size + 1 + i] for i in range(size)]

        there = np.all([w == m for w, m in zip(word(8), MOTIF, strict=True)], axis=0)
        return weight[tuple(word(4))].sum(-1) + 30 * there.sum(-1)

    p = []
    for place in range(num):
        genome = random.integers(0, 4, 300).astype(np.uint8)
        if with_motif:
            genome[116:124] = MOTIF
        mine = variant_random(0, "chr1", place, "A", "G")
        flanks = shuffled_flanks(genome, 120, 121, random=mine, num=draws, flank=60)
        mutant = genome.copy()
        mutant[120] = (mutant[120] + 1) % 4
        refs, alts = (with_flanks(codes, np.arange(300), flanks) for codes in (genome, mutant))
        score, null = predict(mutant) - predict(genome), predict(alts) - predict(refs)
        if not signed:
            score, null = abs(score), np.abs(null)
        p.append(empirical_p(score, null, signed=signed)[0])
    return np.array(p)


@pytest.mark.parametrize("signed", [True, False])
def test_p_is_uniform_for_random_alleles_in_random_dna_and_small_for_a_motif(signed):
    step = 0.04 if signed else 0.02
    p = scores_of_random_alleles(signed=signed)
    assert kstest(p, "uniform").pvalue > 0.01
    table = calibration_table(p, step=step)
    inside = (table["observed"] >= table["null_low"]) & (table["observed"] <= table["null_high"])
    assert inside.all(), table
    broken = scores_of_random_alleles(signed=signed, with_motif=True, num=40)
    # A shuffle makes the motif again about once in a thousand draws.
    assert (broken <= 3.001 * step).all()
    assert np.median(broken) == step


def test_levels_count_p_values_that_were_stored_as_float32():
    """float32 of 0.1 is 0.1 + 1.5e-9: a p-value of 0.1 is not above the level 0.1."""
    p = (np.repeat(np.arange(1, 51), 3) * 0.02).astype(np.float32)
    table = calibration_table(p, levels=(0.1, 0.2, 0.5), step=0.02)
    np.testing.assert_allclose(table["observed"], [0.1, 0.2, 0.5])
    np.testing.assert_allclose(table["expected"], [0.1, 0.2, 0.5])


def test_the_table_of_calibration_counts():
    p = np.array([0.01, 0.01, 0.02, 0.05, 0.3, 0.7, 0.9, np.nan, 1.0, 0.2])
    table = calibration_table(p, levels=(0.01, 0.05, 0.5), step=0.01)
    np.testing.assert_allclose(table["observed"], [2 / 9, 4 / 9, 6 / 9])
    np.testing.assert_allclose(table["expected"], [0.01, 0.05, 0.5])
    assert set(table["n"]) == {9}
    # Wilson's interval for 2 of 9, by its formula.
    z, n, s = 1.959964, 9, 2 / 9
    half = z * np.sqrt(s * (1 - s) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    middle = (s + z * z / (2 * n)) / (1 + z * z / n)
    assert table["low"][0] == pytest.approx(middle - half)
    assert table["high"][0] == pytest.approx(middle + half)
    with pytest.raises(InputError, match="outside of 0 to 1"):
        calibration_table([1.2])
    with pytest.raises(InputError, match="found none"):
        calibration_table([np.nan])
    with pytest.raises(InputError, match="2 groups"):
        calibration_table([0.5], groups=["a", "b"])


def test_what_can_be_below_a_level_depends_on_the_number_of_draws():
    assert expected_share(0.05, 0.02) == pytest.approx(0.04)
    assert expected_share(0.001, 0.01) == 0
    assert expected_share(0.3, 0.1) == pytest.approx(0.3)
    assert expected_share(0.3) == 0.3


def test_variants_of_one_gene_are_not_independent():
    """Ten genes whose hundred variants share one p: the interval over genes is wide."""
    p = np.repeat(np.linspace(0.05, 0.95, 10), 100)
    genes = np.repeat(np.arange(10), 100)
    alone = calibration_table(p, levels=(0.5,))
    together = calibration_table(p, levels=(0.5,), groups=genes)
    assert (alone["high"] - alone["low"])[0] < 0.07
    assert (together["high"] - together["low"])[0] > 0.4
    assert together["observed"][0] == alone["observed"][0] == 0.5
    again = calibration_table(p, levels=(0.5,), groups=genes)
    assert again.equals(together)


def test_the_band_of_sorted_p_values_holds_95_percent_of_them():
    expected, low, high = quantile_band(50)
    draws = np.sort(np.random.default_rng(0).random((4_000, 50)), axis=1)
    np.testing.assert_allclose(draws.mean(0), expected, atol=0.005)
    inside = ((draws >= low) & (draws <= high)).mean(0)
    np.testing.assert_allclose(inside, 0.95, atol=0.02)
