"""Accuracy across donors: every field of a table small enough to compute by hand; invariances."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from seq2exp.cohort.inference import (
    direction_row,
    draw_weights,
    fraction_of_h2,
    paired_rows,
    permutation_null,
    summary_rows,
)
from seq2exp.cohort.metrics import (
    across_donors,
    across_genes_targets,
    bh_q_values,
    prediction_table,
    summarise,
    weighted_median,
)
from seq2exp.core.errors import InputError

GENES = ["a", "b", "c"]
OBSERVED = np.array([[1.0, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]])
PREDICTED = np.array([[2.0, 4, 6, 8], [4, 3, 1, 2], [5, 5, 5, 5]])


def one_value(table, name, column="pearson"):
    return float(summarise(table, column=column)[name][0])


def test_three_genes_of_four_people_by_hand():
    """Gene a: r 1, slope 1/2. Gene b: sums of products -4 over sqrt(5 * 5), r -0.8; its p by
    Student's t with 2 degrees of freedom, t = 0.8 sqrt(2 / 0.36) = 1.8856, p = 1 - t / sqrt(2 +
    t^2) = 0.2. Gene c: constant."""
    table = across_donors(OBSERVED, PREDICTED, genes=GENES)
    assert table["gene"].tolist() == GENES
    assert table["n"].tolist() == [4, 4, 4]
    assert table["num_missing"].tolist() == [0, 0, 0]
    assert table["status"].tolist() == ["ok", "ok", "constant_prediction"]
    np.testing.assert_allclose(table["pearson"], [1.0, -0.8, np.nan])
    np.testing.assert_allclose(table["spearman"], [1.0, -0.8, np.nan])
    np.testing.assert_allclose(table["slope"], [0.5, -0.8, np.nan])
    np.testing.assert_allclose(table["p"], [0.0, 0.2, np.nan], atol=1e-12)
    # Two tests: 0 * 2 / 1 and 0.2 * 2 / 2.
    np.testing.assert_allclose(table["q"], [0.0, 0.2, np.nan], atol=1e-12)
    expected = {
        "mean": (1 - 0.8 + 0) / 3,
        "median": 0.0,
        "mean_abs": 1.8 / 3,
        "share_above_0.2": 1 / 3,
        "share_below_-0.2": 1 / 3,
        "mean_defined": 0.2 / 2,
        "sign_flip_fraction": 0.0,
        "num_undefined": 1.0,
        "num_significant": 1.0,
    }
    for column in ("pearson", "spearman"):
        found = {name: float(v[0]) for name, v in summarise(table, column=column).items()}
        assert found == pytest.approx(expected), column
    # At q < 0.25 both defined genes are significant and one is negative.
    assert float(summarise(table, max_q=0.25)["sign_flip_fraction"][0]) == 0.5


def test_against_scipy_with_missing_values():
    random = np.random.default_rng(0)
    observed, predicted = random.normal(size=(2, 12, 30))
    predicted += 0.5 * observed
    observed[random.random(observed.shape) < 0.2] = np.nan
    predicted[3, :5] = np.nan
    observed[5] = np.round(observed[5])
    table = across_donors(observed, predicted, genes=[str(k) for k in range(12)])
    for row, y, x in zip(table.itertuples(), observed, predicted, strict=True):
        use = np.isfinite(y) & np.isfinite(x)
        r = stats.pearsonr(y[use], x[use])
        assert row.pearson == pytest.approx(r.statistic)
        assert row.p == pytest.approx(r.pvalue)
        assert row.spearman == pytest.approx(stats.spearmanr(y[use], x[use]).statistic)
        assert row.slope == pytest.approx(np.polyfit(x[use], y[use], 1)[0])
        assert row.n == use.sum()
    assert table["num_missing"].tolist()[3] == np.isfinite(observed[3, :5]).sum()
    np.testing.assert_allclose(table["q"], stats.false_discovery_control(table["p"]))


def test_every_reason_for_no_correlation():
    observed = np.array([[np.nan] * 4, [1, 2, np.nan, np.nan], [3, 3, 3, 3], [1, 2, 3, 4.0],
                         [1, 2, 3, 4], [1, 2, 3, 4]])  # fmt: skip
    predicted = np.array([[1.0, 2, 3, 4]] * 6)
    predicted[3] = np.nan
    predicted[4] = [2, 2 + 1e-9, 2, 2]
    predicted[5, :2] = np.nan
    table = across_donors(observed, predicted, genes=list("abcdef"))
    assert table["status"].tolist() == [
        "no_expression", "too_few_donors", "constant_expression", "no_prediction",
        "constant_prediction", "no_prediction",
    ]  # fmt: skip
    assert table[["pearson", "spearman", "p", "q", "slope"]].isna().all(axis=None)
    # The three unscorable genes are in no mean; the other three count as 0.
    assert one_value(table, "mean") == 0
    assert one_value(table, "num_undefined") == 3
    assert np.isnan(one_value(table, "mean_defined"))
    assert np.isnan(one_value(table, "sign_flip_fraction"))
    rows = summary_rows("m", table, draw_weights(6, num_resamples=10, seed=0), split="A")
    found = {row["metric"]: row for row in rows}
    assert found["pearson_num_unscorable"]["value"] == 3
    assert found["pearson_mean"]["n"] == 3
    assert found["pearson_sign_flip_fraction"]["value"] is None


def test_negated_predictions_flip_the_signs():
    random = np.random.default_rng(1)
    observed = random.normal(size=(200, 60))
    predicted = random.choice([-1, 1, 1], size=(200, 1)) * observed + random.normal(
        size=observed.shape
    )
    names = [str(k) for k in range(200)]
    one, two = (across_donors(observed, s * predicted, genes=names) for s in (1, -1))
    flips = one_value(one, "sign_flip_fraction")
    assert 0.2 < flips < 0.5
    assert one_value(two, "sign_flip_fraction") == pytest.approx(1 - flips)
    assert one_value(two, "mean") == pytest.approx(-one_value(one, "mean"))
    assert one_value(two, "share_below_-0.2") == one_value(one, "share_above_0.2")


def test_scale_shift_and_order_of_donors_change_nothing():
    random = np.random.default_rng(2)
    observed, predicted = random.normal(size=(2, 20, 15))
    names, order = [str(k) for k in range(20)], random.permutation(15)
    first = across_donors(observed, predicted, genes=names)
    second = across_donors(3 + 2 * observed[:, order], 5 * predicted[:, order] - 9, genes=names)
    for column in ("pearson", "spearman", "p", "q"):
        np.testing.assert_allclose(first[column], second[column], atol=1e-9)


def test_q_values_leave_undefined_out():
    p = np.array([0.01, np.nan, 0.04, 0.03])
    np.testing.assert_allclose(bh_q_values(p), [0.03, np.nan, 0.04, 0.04])
    assert np.isnan(bh_q_values([np.nan])).all()


def test_the_weighted_median_is_the_median_of_the_repeated_values():
    random = np.random.default_rng(3)
    values = random.normal(size=9)
    weights = random.integers(0, 4, size=(50, 9)).astype(float)
    weights[0] = 0
    found = weighted_median(weights, values)
    assert np.isnan(found[0])
    for row, value in zip(weights[1:], found[1:], strict=True):
        assert value == pytest.approx(np.median(np.repeat(values, row.astype(int))))


def test_long_tables_are_aligned_and_checked():
    table = pd.DataFrame({"gene": ["a", "b", "x"], "donor": ["q", "p", "p"], "value": [1.0, 2, 3]})
    found = prediction_table(table, genes=["b", "a"], donors=["p", "q"])
    np.testing.assert_array_equal(found, [[2, np.nan], [np.nan, 1]])
    double = pd.concat([table, table.iloc[:1]])
    with pytest.raises(InputError, match="1 repeated pairs, first a/q"):
        prediction_table(double, genes=["a"], donors=["q"])
    with pytest.raises(InputError, match="ids are written alike"):
        prediction_table(table, genes=["A"], donors=["q"])
    with pytest.raises(InputError, match="gene, donor, value"):
        prediction_table(table.rename(columns={"gene": "id"}), genes=["a"], donors=["q"])
    with pytest.raises(InputError, match="1 infinite"):
        prediction_table(table.replace(1.0, np.inf), genes=["a"], donors=["q"])


def test_targets_across_genes():
    observed = np.array([[1.0, 2, 6], [np.nan, 4, 4], [np.nan] * 3])
    reference = np.array([[10.0], [20], [30]])
    found = across_genes_targets(observed, reference)
    np.testing.assert_array_equal(found["mean"][0], [3, 4, np.nan])
    np.testing.assert_array_equal(found["median"][0], [2, 4, np.nan])
    np.testing.assert_array_equal(found["mean"][1], [10, 20, np.nan])
    use = np.array([[True, True, False]] * 3)
    assert across_genes_targets(observed, reference, use_GD=use)["mean"][0][0] == 1.5


# Intervals, null, differences -------------------------------------------------------------------


def test_bootstrap_intervals_cover_the_mean_over_new_genes():
    """150 data sets of 60 genes: the interval of the mean holds the truth in about 95 % of them."""
    random = np.random.default_rng(4)
    inside = 0
    for seed in range(150):
        truth = random.beta(2, 5, size=60)
        table = pd.DataFrame({"gene": range(60), "pearson": truth, "q": 0.0, "status": "ok"})
        weights = draw_weights(60, num_resamples=300, seed=seed)
        row = summary_rows("m", table, weights, split="A")[0]
        inside += row["low"] <= 2 / 7 <= row["high"]
    assert 0.89 <= inside / 150 <= 0.99


def test_groups_of_genes_are_drawn_together_and_widen_the_interval():
    weights = draw_weights(6, num_resamples=50, seed=1, groups=["p", "p", "p", "q", "q", "r"])
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 4]).all()
    assert not (weights[:, 0] == weights[:, 3]).all()
    assert (weights[:, [0, 3, 5]].sum(axis=1) == 3).all()
    random = np.random.default_rng(5)
    r = np.repeat(random.normal(size=40) * 0.2, 5)
    table = pd.DataFrame({"gene": range(200), "pearson": r, "q": 1.0, "status": "ok"})
    widths = []
    for groups in (None, np.repeat(np.arange(40), 5)):
        drawn = draw_weights(200, num_resamples=500, seed=0, groups=groups)
        row = summary_rows("m", table, drawn, split="A")[0]
        widths.append(row["high"] - row["low"])
    assert 1.7 < widths[1] / widths[0] < 2.8, "five equal genes are one: sqrt(5)"
    with pytest.raises(InputError, match="one label per gene"):
        draw_weights(3, num_resamples=2, seed=0, groups=["a"])


def test_fraction_of_heritability_by_hand():
    """sign(r) r^2: 0.25, -0.04, undefined 0; the gene without h2 is in neither sum."""
    r, h2 = np.array([0.5, -0.2, np.nan, 0.9]), np.array([0.4, 0.2, -0.1, np.nan])
    row = fraction_of_h2(r, h2, np.ones((5, 4)), name="m", split="A")
    assert row["value"] == pytest.approx((0.25 - 0.04) / 0.5)
    assert row["low"] == row["high"] == pytest.approx(row["value"])
    assert row["n"] == 3
    none = fraction_of_h2(r, -np.abs(h2), np.ones((5, 4)), name="m", split="A")
    assert none["value"] is None


def test_differences_are_paired_and_signed():
    table = across_donors(OBSERVED, PREDICTED, genes=GENES)
    other = across_donors(OBSERVED, PREDICTED[[1, 1, 2]], genes=GENES)
    weights = draw_weights(3, num_resamples=200, seed=0)
    rows = {row["metric"]: row for row in paired_rows("b", table, other, weights, split="A")}
    # r(model) - r(baseline): 1.8, 0, and 0 - 0 where both are undefined.
    assert rows["pearson_difference"]["value"] == pytest.approx(0.6)
    assert rows["pearson_difference"]["low"] == 0
    assert rows["pearson_share_better"]["value"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert rows["pearson_difference_p"]["value"] == 1.0, "one gene moves: either sign is as likely"
    back = paired_rows("b", other, table, weights, split="A")[0]
    assert back["value"] == pytest.approx(-0.6)
    with pytest.raises(InputError, match="same genes"):
        paired_rows("b", table, other[::-1], weights, split="A")


def test_sign_flip_p_of_paired_differences_is_that_of_all_flips():
    difference = np.array([0.3, 0.1, 0.2, 0.15, -0.05])
    flips = np.array(np.meshgrid(*[[-1, 1]] * 5)).reshape(5, -1).T
    exact = np.mean(np.abs(flips @ difference) >= difference.sum() - 1e-12)
    table = pd.DataFrame({"gene": range(5), "pearson": difference, "status": "ok"})
    zero = table.assign(pearson=0.0)
    rows = paired_rows("b", table, zero, np.ones((1, 5)), split="A")
    assert rows[-1]["value"] == pytest.approx(exact, abs=0.015)


def null_of(observed, predicted, **more):
    table = across_donors(observed, predicted, genes=[str(k) for k in range(len(observed))])
    return permutation_null(observed, predicted, table, **more), table


def test_the_permutation_null_is_centred_and_as_wide_as_theory_says():
    """r of shuffled donors has variance 1 / (n - 1); p of unrelated predictions is uniform."""
    random = np.random.default_rng(6)
    observed, predicted = random.normal(size=(2, 300, 26))
    null, table = null_of(observed, predicted, num_permutations=400, seed=1)
    assert abs(null.mean_B.mean()) < 0.005
    assert 0.7 < null.mean_B.std() / np.sqrt(1 / (25 * 300)) < 1.6
    assert np.median(null.mean_abs_B) == pytest.approx(np.sqrt(2 / np.pi / 25), rel=0.05)
    for level in (0.1, 0.5):
        assert abs((null.p_G <= level).mean() - level) < 0.1
    np.testing.assert_allclose(null.p_G, table["p"], atol=0.12)
    related, strong = null_of(observed, observed + predicted, num_permutations=400)
    assert (related.p_G < 0.05).mean() > 0.9
    assert related.rows("m", strong, split="A")[-1]["value"] == pytest.approx(1 / 401)


def test_the_p_of_the_mean_is_uniform_over_worlds_without_effect():
    """Genes share noise, so that a null of independent genes would reject far too often."""
    random = np.random.default_rng(7)
    p = []
    for seed in range(120):
        shared = random.normal(size=(2, 1, 20))
        observed, predicted = random.normal(size=(2, 15, 20)) + 1.5 * shared
        null, table = null_of(observed, predicted, num_permutations=99, seed=seed)
        p.append(null.rows("m", table, split="A")[-1]["value"])
    assert 0.005 <= np.mean(np.array(p) <= 0.05) <= 0.12
    assert 0.35 <= np.mean(np.array(p) <= 0.5) <= 0.65


def test_shuffles_within_populations_keep_what_lies_between_them():
    """Prediction and expression differ between populations only: shuffled within, r stays."""
    random = np.random.default_rng(8)
    population = np.repeat(["x", "y"], 30)
    base = np.where(population == "x", 0.0, 3.0)
    observed, predicted = base + random.normal(size=(2, 10, 60))
    within, table = null_of(observed, predicted, num_permutations=200, strata_D=list(population))
    free, _ = null_of(observed, predicted, num_permutations=200)
    seen = table["pearson"].mean()
    assert seen > 0.6
    assert abs(within.mean_B.mean() - seen) < 0.1
    assert abs(free.mean_B.mean()) < 0.05


def test_missing_donors_and_chunks_do_not_matter_to_the_null(monkeypatch):
    random = np.random.default_rng(9)
    observed, predicted = random.normal(size=(2, 8, 20))
    observed[2, :6] = np.nan
    observed[3] = 1.0
    null, _ = null_of(observed, predicted, num_permutations=60, seed=3)
    assert np.isnan(null.p_G[3])
    assert np.isfinite(np.delete(null.p_G, 3)).all()
    monkeypatch.setattr("seq2exp.cohort.inference._CHUNK", 200)
    parts, _ = null_of(observed, predicted, num_permutations=60, seed=3)
    np.testing.assert_allclose(parts.mean_B, null.mean_B)
    np.testing.assert_array_equal(parts.p_G, null.p_G)
    alone, _ = null_of(np.delete(observed, 3, axis=0), np.delete(predicted, 3, axis=0),
                       num_permutations=60, seed=3)  # fmt: skip
    np.testing.assert_allclose(alone.p_G, np.delete(null.p_G, 3))


def test_one_gene_and_no_gene():
    table = across_donors(OBSERVED[:1], PREDICTED[:1], genes=["a"])
    rows = summary_rows("m", table, draw_weights(1, num_resamples=5, seed=0), split="A")
    assert rows[0]["value"] == rows[0]["low"] == rows[0]["high"] == 1.0
    none = across_donors(np.full((1, 4), np.nan), PREDICTED[:1], genes=["a"])
    rows = summary_rows("m", none, draw_weights(1, num_resamples=5, seed=0), split="A")
    assert rows[0]["value"] is None
    assert rows[0]["n"] == 0
    with pytest.raises(InputError, match="align them"):
        across_donors(OBSERVED, PREDICTED[:, :3], genes=GENES)


def test_genes_of_one_block_get_one_sign():
    """Eight equal differences in two blocks are two tosses, not eight."""
    table = pd.DataFrame({"gene": range(8), "pearson": 0.2, "status": "ok"})
    zero, blocks = table.assign(pearson=0.0), [0, 0, 0, 0, 1, 1, 1, 1]
    weights = np.ones((1, 8))
    apart = paired_rows("b", table, zero, weights, split="A")[-1]["value"]
    together = paired_rows("b", table, zero, weights, split="A", groups=blocks)[-1]["value"]
    assert apart == pytest.approx(2 / 2**8, abs=0.003)
    assert together == pytest.approx(0.5, abs=0.02)
    assert direction_row("m", table, split="A")["value"] == pytest.approx(apart, abs=0.003)
    row = direction_row("m", table, split="A", groups=blocks)
    assert row["metric"] == "pearson_mean_p"
    assert row["value"] == pytest.approx(0.5, abs=0.02)


def test_a_model_that_does_not_know_the_direction_is_told_apart():
    """Real effects, random signs, alike within a block: shuffled donors find it sure, signs not."""
    random = np.random.default_rng(8)
    shuffled, signs = [], []
    for _ in range(150):
        # Ten blocks of four genes; in each the sign is one toss.
        sign = np.repeat(random.choice([-1.0, 1.0], size=10), 4)[:, None]
        observed = random.normal(size=(40, 25))
        guess = sign * observed + random.normal(size=observed.shape)
        table = across_donors(observed, guess, genes=[str(k) for k in range(40)])
        null = permutation_null(observed, guess, table, num_permutations=100)
        rows = {row["metric"]: row["value"] for row in null.rows("m", table, split="A")}
        shuffled.append(rows["null_pearson_mean_p"])
        blocks = np.repeat(np.arange(10), 4)
        signs.append(direction_row("m", table, split="A", groups=blocks)["value"])
    assert np.mean(np.array(shuffled) < 0.05) > 0.3
    assert 0.005 < np.mean(np.array(signs) < 0.05) < 0.11


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_few_donors_do_not_raise_the_corrected_share_of_h2(share):
    """18 donors, h2 of 0.1 on average; the prediction has `share` of the genetic deviation."""
    random = np.random.default_rng(9)
    h2 = random.beta(1, 9, size=6000)
    rho = share * np.sqrt(h2)[:, None]
    guess, noise = random.normal(size=(2, 6000, 18))
    observed = rho * guess + np.sqrt(1 - rho**2) * noise
    table = across_donors(observed, guess, genes=[str(k) for k in range(6000)])
    weights = np.ones((1, 6000))
    plain, corrected = (
        fraction_of_h2(table["pearson"], h2, weights, name="m", split="A", num_G=num)
        for num in (None, table["n"])
    )
    assert corrected["metric"] == "fraction_of_h2_corrected"
    assert corrected["value"] == pytest.approx(share**2, abs=0.12)
    if share:
        assert plain["value"] > share**2 + 0.2
