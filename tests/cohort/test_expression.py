"""Processing of expression: formulas, and that test donors change no fitted number."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.decomposition import PCA, FactorAnalysis

from seq2exp.cohort.expression import (
    ExpressionConfig,
    factor_associations,
    fit_expression,
    process_expression,
)
from seq2exp.cohort.factors import fit_factors
from seq2exp.core.errors import ConfigError, InputError, Seq2ExpWarning

PLAIN = {"factors": "none", "max_zero_share": 1.0}


def cohort(genes=60, donors=40, seed=0, factors=2):
    """Expression with hidden factors; the covariate `batch` moves every gene."""
    random = np.random.default_rng(seed)
    hidden = random.normal(size=(donors, factors))
    load = random.normal(size=(genes, factors))
    batch = random.normal(size=donors)
    logs = random.normal(2, 1, (genes, 1)) + 0.5 * load @ hidden.T
    logs = logs + 0.4 * random.normal(size=(genes, 1)) * batch
    logs = logs + 0.3 * random.normal(size=(genes, donors))
    names = [f"d{k}" for k in range(donors)]
    values = pd.DataFrame(np.exp(logs), index=[f"g{k}" for k in range(genes)], columns=names)
    table = pd.DataFrame(
        {"batch": batch, "sex": np.where(np.arange(donors) % 2, "F", "M")}, index=names
    )
    return values, table, hidden


def train_of(values, share=0.7):
    return list(values.columns[: int(share * values.shape[1])])


def numbers(thing):
    """Every array and number inside a fitted object."""
    if dataclasses.is_dataclass(thing):
        return [x for f in dataclasses.fields(thing) for x in numbers(getattr(thing, f.name))]
    if isinstance(thing, pd.DataFrame):
        return [thing[column].to_numpy() for column in thing]
    if isinstance(thing, tuple):
        return [x for item in thing for x in numbers(item)]
    return [np.asarray(thing)]


# Formulas -----------------------------------------------------------------------------------------


def test_tpm_logarithm_and_z_scores_by_hand():
    """Columns are brought to a million; ln(1e6 * 3/4 + 0.01); deviation of two donors is half their
    distance."""
    values = pd.DataFrame({"p": [3.0, 1], "q": [1.0, 1], "t": [0.0, 5]}, index=["a", "b"])
    config = ExpressionConfig(unit="rpkm", scale="zscore", corrected_unit="scaled", **PLAIN)
    with pytest.warns(Seq2ExpWarning, match="column sum of 2 genes"):
        made = process_expression(values, train=["p", "q"], config=config)
    logs = np.log(1e6 * np.array([[0.75, 0.5, 0], [0.25, 0.5, 1]]) + 0.01)
    np.testing.assert_allclose(made.raw, logs)
    np.testing.assert_allclose(made.corrected[["p", "q"]], [[1, -1], [-1, 1]])
    half = (logs[0, 0] - logs[0, 1]) / 2
    assert made.corrected.loc["a", "t"] == pytest.approx((logs[0, 2] - logs[0, :2].mean()) / half)


def test_units_and_logarithms():
    values = pd.DataFrame({"p": [3.0, 1], "q": [1.0, 2]}, index=["a", "b"])
    two = process_expression(
        values, train=["p", "q"], config=ExpressionConfig(transform="log2", pseudocount=1, **PLAIN)
    )
    np.testing.assert_allclose(two.raw, [[2, 1], [1, np.log2(3)]])
    ratios = values - 2
    log = ExpressionConfig(unit="log", transform="none", **PLAIN)
    made = process_expression(ratios, train=["p", "q"], config=log)
    np.testing.assert_allclose(made.raw, ratios)
    np.testing.assert_allclose(made.corrected, ratios, atol=1e-12, err_msg="back in its unit")
    assert values.loc["a", "p"] == 3.0, "input untouched"


def test_normal_scores_are_fitted_and_interpolated():
    """Blom scores of ranks 1..4 are the quantiles of (r - 3/8) / 4.25; ties share their mean."""
    train = ["p", "q", "r", "s"]
    values = pd.DataFrame(
        [[1.0, 2, 3, 4, 2.5, 99], [5, 7, 7, 9, 6, -0.0]], columns=[*train, "mid", "out"]
    )
    config = ExpressionConfig(
        unit="log", transform="none", scale="inverse_normal", corrected_unit="scaled", **PLAIN
    )
    made = process_expression(values, train=train, config=config).corrected.to_numpy()
    score = norm.ppf((np.arange(1, 5) - 0.375) / 4.25)
    np.testing.assert_allclose(made[0], [*score, 0.0, score[3]], atol=1e-12)
    np.testing.assert_allclose(
        made[1], [score[0], 0, 0, score[3], score[0] / 2, score[0]], atol=1e-12
    )


def test_filters_are_counted_on_fitting_donors_and_rows_are_kept():
    values = pd.DataFrame(
        [[0.0, 0, 1, 5, 9], [0.01, 0.02, 0.01, 0.03, 9], [2, 2, 2, 2, 9], [1, 2, 3, 4, 5],
         [np.nan] * 4 + [1], [0, 1, 2, 3, 0]],
        index=list("abcdef"), columns=list("pqrst"),
    )  # fmt: skip
    config = ExpressionConfig(factors="none", min_mean=0.1)
    made = process_expression(values, train=list("pqrs"), config=config)
    genes = made.fitted.genes.set_index("gene_id")["status"]
    assert genes.to_dict() == {
        "a": "too_many_zeros", "b": "low_mean", "c": "constant_expression", "d": "kept",
        "e": "no_expression", "f": "kept",
    }  # fmt: skip
    assert made.raw.index.tolist() == list("abcdef")
    assert made.raw.loc[["a", "b", "e"]].isna().all(axis=None)
    assert made.raw.loc["c"].notna().all(), "constant genes still have a level"
    assert made.corrected.loc[["a", "b", "c", "e"]].isna().all(axis=None)
    assert "2 of 6 genes kept" in made.notes[0]
    assert "4 training donors only" in made.notes[1]


def test_covariates_are_taken_out_with_training_coefficients():
    values, table, _ = cohort(factors=1)
    train = train_of(values)
    config = ExpressionConfig(factors="none", scale="none")
    made = process_expression(values, train=train, config=config, covariates=table)
    design = np.column_stack([np.ones(40), table["batch"], table["sex"] == "M"])
    logs, fit = np.log(values.to_numpy() + 0.01), np.arange(40) < len(train)
    slope = np.linalg.lstsq(design[fit], logs[:, fit].T, rcond=None)[0]
    expected = logs - (design @ slope).T + logs[:, fit].mean(axis=1, keepdims=True)
    np.testing.assert_allclose(made.corrected, expected, atol=1e-9)
    assert made.fitted.covariates.names == ("batch", "sex=M")
    unseen = table.assign(sex=table["sex"].where(np.arange(40) < 30, "other"))
    fitted = fit_expression(values, train=train[:20], config=config, covariates=unseen)
    _, corrected, _ = fitted.apply(values, covariates=unseen)
    assert corrected.notna().all(axis=None)
    with pytest.raises(InputError, match="1 donors without row"):
        process_expression(values, train=train, config=config, covariates=table.iloc[1:])


def test_principal_components_are_those_of_scikit_learn_and_are_projected():
    values, _, hidden = cohort(genes=200)
    train = train_of(values)
    config = ExpressionConfig(num_factors=2, corrected_unit="scaled")
    made = process_expression(values, train=train, config=config)
    logs = np.log(values + 0.01)
    scaled = logs.sub(logs[train].mean(axis=1), axis=0).div(logs[train].std(axis=1, ddof=0), axis=0)
    model = PCA(2).fit(scaled[train].T)
    scores = model.transform(scaled.T)
    np.testing.assert_allclose(np.abs(made.scores), np.abs(scores), atol=1e-8)
    np.testing.assert_allclose(
        made.corrected, scaled.T.sub(scores @ model.components_).T, atol=1e-8
    )
    test = np.column_stack([np.ones(12), made.scores.iloc[28:]])
    left = hidden[28:] - test @ np.linalg.lstsq(test, hidden[28:], rcond=None)[0]
    assert (left**2).sum() < 0.1 * (hidden[28:] ** 2).sum(), "factors of test donors are found"


def test_factor_analysis_is_the_maximum_likelihood_of_scikit_learn():
    values, _, _ = cohort(genes=30, donors=400)
    logs = np.log(values.to_numpy())
    x = (logs - logs.mean(axis=1, keepdims=True)).T
    ours = fit_factors(x, kind="factor_analysis", num_factors=2)
    theirs = FactorAnalysis(2, tol=1e-8, max_iter=5000, svd_method="lapack").fit(x)
    np.testing.assert_allclose(ours.noise_G, theirs.noise_variance_, rtol=0.03)
    common = ours.loadings_GF @ ours.loadings_GF.T
    np.testing.assert_allclose(common, theirs.components_.T @ theirs.components_, atol=0.01)
    np.testing.assert_allclose(
        ours.remove(x), x - theirs.transform(x) @ theirs.components_, atol=0.03
    )
    holes = np.where(np.random.default_rng(0).random(x.shape) < 0.05, np.nan, x)
    filled = ours.scores(holes)
    assert np.abs(filled - ours.scores(x)).max() < 1.0
    assert np.corrcoef(filled[:, 0], ours.scores(x)[:, 0])[0, 1] > 0.98


def test_associations_name_the_factor_that_is_sex():
    scores = pd.DataFrame({"factor1": [1.0, 1, -1, -1], "factor2": [1.0, -1, 1, -1]},
                          index=list("pqrs"))  # fmt: skip
    donors = pd.DataFrame({"sex": list("FFMM"), "site": list("xxxx")}, index=list("pqrs"))
    found = factor_associations(scores, donors)
    assert found["sex"].tolist() == [1.0, 0.0]
    assert found["site"].isna().all()


# Leakage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factors", ["pca", "factor_analysis", "none"])
@pytest.mark.parametrize("scale", ["zscore", "inverse_normal"])
def test_test_donors_change_no_fitted_number(factors, scale):
    values, table, _ = cohort()
    train = train_of(values)
    config = ExpressionConfig(
        factors=factors, scale=scale, num_factors=3, corrected_unit="scaled", min_mean=0.5
    )
    first = process_expression(values, train=train, config=config, covariates=table)
    other, changed = values.copy(), table.copy()
    test = [name for name in values if name not in train]
    other[test] = np.random.default_rng(1).permutation(other[test].to_numpy().ravel()).reshape(
        other[test].shape
    ) * 1e3  # fmt: skip
    other.loc["g3", test] = np.nan
    changed.loc[test, "batch"] = 1e6
    second = process_expression(other, train=train, config=config, covariates=changed)
    pairs = list(zip(numbers(first.fitted), numbers(second.fitted), strict=True))
    assert len(pairs) > 10
    for one, two in pairs:
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(first.corrected[train], second.corrected[train])
    np.testing.assert_array_equal(first.raw[train], second.raw[train])
    assert not np.array_equal(first.corrected[test], second.corrected[test], equal_nan=True)


def test_fitting_on_all_donors_is_flagged_and_does_leak():
    values, _, _ = cohort()
    train = train_of(values)
    config = ExpressionConfig(num_factors=2, fit_on="all")
    first = process_expression(values, train=train, config=config)
    assert "ALL donors" in first.notes[1]
    other = values.copy()
    other[values.columns[-1]] *= np.linspace(0.1, 9, len(values))
    second = process_expression(other, train=train, config=config)
    assert not np.array_equal(first.corrected[train], second.corrected[train])


def test_donors_are_processed_one_by_one():
    values, table, _ = cohort()
    config = ExpressionConfig(num_factors=2)
    fitted = fit_expression(values, train=train_of(values), config=config, covariates=table)
    raw, corrected, scores = fitted.apply(values, covariates=table)
    alone = fitted.apply(values[["d35"]], covariates=table)
    np.testing.assert_allclose(alone[0], raw[["d35"]])
    np.testing.assert_allclose(alone[1], corrected[["d35"]])
    np.testing.assert_allclose(alone[2], scores.loc[["d35"]])


# Bad input ----------------------------------------------------------------------------------------


def scaled_row(values, factor):
    return values.mul(np.where(values.index == "g2", factor, 1.0), axis=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.rename(index={"g1": "g0"}), "genes of the expression table.*g0"),
        (lambda v: v.rename(columns={"d1": "d0"}), "donors of the expression table.*d0"),
        (lambda v: scaled_row(v, -1), "g2 in d0: found -.*28 in all"),
        (lambda v: scaled_row(v, np.inf), "g2 in d0: found inf"),
        (lambda v: v.drop(columns="d3"), "1 of 28 without expression.*d3"),
        (lambda v: v * 0, "at least one gene kept"),
    ],
)
def test_f17_bad_expression_is_refused(change, words):
    values, _, _ = cohort()
    with pytest.raises(InputError, match=words):
        process_expression(change(values), train=train_of(values), config=ExpressionConfig())


def test_one_donor_and_too_many_factors():
    values, _, _ = cohort()
    with pytest.raises(InputError, match=r"found 10 with 5 fitting donors.*at most 3"):
        process_expression(values, train=list(values.columns[:5]), config=ExpressionConfig())
    with pytest.raises(InputError, match="constant_expression': 60"):
        process_expression(values[["d0"]], train=["d0"], config=ExpressionConfig(factors="none"))
    with pytest.raises(InputError, match="all 0 or missing"):
        process_expression(
            values.assign(d2=0.0), train=train_of(values), config=ExpressionConfig(unit="rpkm")
        )


def test_settings_that_do_not_fit_together():
    for wrong in (
        {"unit": "log"},
        {"pseudocount": 0.0},
        {"num_factors": 0},
        {"scale": "inverse_normal"},
        {"max_zero_share": 0.0},
    ):
        with pytest.raises(ConfigError, match=r"expression\."):
            ExpressionConfig(**wrong)
