"""Linear baselines against the formulas and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import ElasticNet, ElasticNetCV, Ridge

from seq2exp.cohort.linear import LINEAR_MODELS, LinearConfig, assign_folds, fit_gene
from seq2exp.cohort.linear_design import make_design
from seq2exp.cohort.linear_genes import fit_genes
from seq2exp.cohort.linear_paths import NetPlan, Parts, choose_net, net_path
from seq2exp.core.errors import ConfigError, InputError
from tests.cohort.people import common, dosages, phenotype, standardised

EXACT = {"tolerance": 1e-11, "patience": 0}


@pytest.fixture(scope="module")
def gene():
    random = np.random.default_rng(5)
    dosage = common(dosages(random, 150, 60))
    return dosage, phenotype(random, dosage, 0.4, causal=3) + 7.0


def split(num, train=120):
    return np.arange(num) < train


def plan_of(l1_ratio=0.5, **changes):
    values = {"num_alphas": 30, "alpha_ratio": 1e-3, "tolerance": 1e-11, "max_sweeps": 100_000,
              "patience": 0} | changes  # fmt: skip
    return NetPlan(l1_ratio=l1_ratio, **values)


def fit(gene, name, train=None, **settings):
    dosage, y = gene
    train = split(len(y)) if train is None else train
    return fit_gene(dosage, y, train_D=train, config=LinearConfig(models=[name], **settings))[name]


# Elastic net ----------------------------------------------------------------------------------


@pytest.mark.parametrize("l1_ratio", [0.2, 0.5, 1.0])
def test_the_elastic_net_path_is_that_of_scikit_learn(gene, l1_ratio):
    dosage, y = gene
    z = np.ascontiguousarray(standardised(dosage))
    parts = Parts(z, y, [], np.arange(len(y)))
    moments = parts.moments()[1]
    top = np.abs(z.T @ (y - y.mean())).max() / (len(y) * l1_ratio)
    alpha = np.geomspace(top, top * 1e-3, 12)
    ours, solved = net_path(moments, np.ones(z.shape[1]), alpha, plan=plan_of(l1_ratio))
    assert solved
    for a, weights in zip(alpha, ours, strict=True):
        model = ElasticNet(alpha=a, l1_ratio=l1_ratio, tol=1e-11, max_iter=200_000).fit(z, y)
        assert np.abs(model.coef_ - weights).max() < 1e-5
    assert np.abs(ours[0]).max() < 1e-12
    assert np.count_nonzero(ours[-1]) > 10


def test_the_optimality_conditions_hold_without_scikit_learn(gene):
    """|Z'r|/n - (1 - rho) alpha w is at most rho alpha, and equals it, signed, where w is not 0."""
    dosage, y = gene
    z = standardised(dosage)
    moments = Parts(z, y, [], np.arange(len(y))).moments()[1]
    alpha, rho = 0.05, 0.5
    weights = net_path(moments, np.ones(z.shape[1]), np.array([alpha]), plan=plan_of())[0][0]
    pull = z.T @ (y - y.mean() - z @ weights) / len(y) - (1 - rho) * alpha * weights
    used = weights != 0
    assert used.any()
    np.testing.assert_allclose(pull[used], rho * alpha * np.sign(weights[used]), atol=1e-6)
    assert np.abs(pull).max() <= rho * alpha + 1e-6


def test_the_path_goes_on_from_a_solution(gene):
    dosage, y = gene
    z = standardised(dosage)
    moments = Parts(z, y, [], np.arange(len(y))).moments()[1]
    copies, alpha = np.ones(z.shape[1]), np.geomspace(0.3, 0.003, 8)
    whole = net_path(moments, copies, alpha, plan=plan_of())[0]
    first = net_path(moments, copies, alpha[:5], plan=plan_of())[0]
    rest = net_path(moments, copies, alpha[5:], plan=plan_of(), start=(first[-1], alpha[4]))[0]
    np.testing.assert_allclose(np.vstack([first, rest]), whole, atol=1e-6)


def test_a_column_that_the_screening_left_out_wrongly_comes_in():
    """b hardly pulls at first, because a, which it resembles, acts the other way; it belongs."""
    random = np.random.default_rng(0)
    a, c = random.normal(size=(2, 400))
    z = standardised(np.column_stack([a, 0.9 * a + 0.44 * random.normal(size=400), c]))
    y = z[:, 0] + z[:, 2]
    y = y - (z[:, 1] @ y / 400) * z[:, 1]
    moments = Parts(z, y, [], np.arange(400)).moments()[1]
    alpha = 0.05
    assert abs(moments.xy_P[1]) / 400 < 1e-9
    # Zeros said to be the solution of almost the same penalty: only what pulls comes in at first.
    start = (np.zeros(3), alpha * 1.0001)
    found = net_path(moments, np.ones(3), np.array([alpha]), plan=plan_of(), start=start)[0][0]
    model = ElasticNet(alpha=alpha, l1_ratio=0.5, tol=1e-11, max_iter=200_000).fit(z, y)
    assert np.abs(model.coef_).min() > 0.2
    np.testing.assert_allclose(found, model.coef_, atol=1e-6)


def test_a_path_that_runs_out_of_sweeps_says_so(gene):
    dosage, y = gene
    z = standardised(dosage)
    moments = Parts(z, y, [], np.arange(len(y))).moments()[1]
    alpha = np.array([0.001])
    assert not net_path(moments, np.ones(z.shape[1]), alpha, plan=plan_of(max_sweeps=2))[1]
    assert fit(gene, "lasso", max_sweeps=1, tolerance=1e-9).status == "not_converged"


def test_choice_and_weights_are_those_of_elastic_net_cv_with_the_same_folds(gene):
    dosage, y = gene
    train = split(len(y))
    folds = assign_folds(train, num_folds=5, seed=3)[train]
    ours = fit(gene, "enet", seed=3, num_alphas=40, min_maf=0.0, **EXACT)
    z = standardised(dosage[train])
    cuts = [(np.flatnonzero(folds != k), np.flatnonzero(folds == k)) for k in range(5)]
    theirs = ElasticNetCV(l1_ratio=0.5, alphas=40, cv=cuts, tol=1e-9, max_iter=100_000)
    theirs.fit(z, y[train])
    assert ours.penalty == pytest.approx(theirs.alpha_, rel=1e-9)
    test = (dosage[~train] - dosage[train].mean(axis=0)) / dosage[train].std(axis=0)
    np.testing.assert_allclose(ours.predict(dosage[~train]), theirs.predict(test), atol=1e-4)
    assert ours.status == "ok"


def test_patience_ends_the_path_after_the_best_penalty(gene):
    dosage, y = gene
    parts = Parts(standardised(dosage), y, np.array_split(np.arange(len(y)), 5), np.arange(len(y)))
    copies = np.ones(dosage.shape[1])
    full = choose_net(parts, copies, plan=plan_of(num_alphas=60, tolerance=1e-6))
    short = choose_net(parts, copies, plan=plan_of(num_alphas=60, tolerance=1e-6, patience=7))
    assert short.penalty == full.penalty
    best = int(np.argmin(full.error_A))
    assert short.error_A.size == best + 8 < full.error_A.size == 60
    np.testing.assert_array_equal(short.error_A, full.error_A[: best + 8])


def test_equal_variants_share_one_column_and_split_its_weight(gene):
    """Also with the alleles swapped (2 - dosage); the solution is that of all columns."""
    dosage, y = gene
    wide = np.column_stack([dosage[:, :20], 2 - dosage[:, :5], dosage[:, :5]])
    design = make_design(wide, min_maf=0.0)
    assert design.columns_NP.shape[1] == 20
    assert design.copies_P.tolist() == [3.0] * 5 + [1.0] * 15
    z = standardised(wide)
    moments = Parts(design.columns_NP, y, [], np.arange(len(y))).moments()[1]
    weights = net_path(moments, design.copies_P, np.array([0.05]), plan=plan_of())[0][0]
    model = ElasticNet(alpha=0.05, l1_ratio=0.5, tol=1e-11, max_iter=200_000).fit(z, y)
    ours = design.spread(weights) * design.scale_K
    np.testing.assert_allclose(ours, model.coef_, atol=1e-6)
    assert ours[0] == pytest.approx(-ours[20]) == pytest.approx(ours[25])
    np.testing.assert_allclose(design.standardise(wide), design.columns_NP, atol=1e-12)


# Ridge, BLUP, top1 ----------------------------------------------------------------------------


@pytest.mark.parametrize("donors", [40, 140])
def test_blup_is_the_gblup_formula(gene, donors):
    """More variants than donors, and fewer: g = K (K + (1 - h2)/h2 I)^-1 (y - mu)."""
    dosage, y = gene
    train = split(len(y), donors)
    fitted = fit(gene, "blup", train=train, min_maf=0.0)
    z = standardised(dosage[train])
    used = dosage[train].std(axis=0) > 0
    z = z[:, used]
    kinship = z @ z.T / z.shape[1]
    h2, rest = fitted.penalty, y[train] - y[train].mean()
    g = kinship @ np.linalg.solve(kinship + (1 - h2) / h2 * np.eye(donors), rest)
    np.testing.assert_allclose(fitted.predict(dosage[train]), y[train].mean() + g, atol=1e-8)
    assert fitted.num_variants == used.sum()
    assert 0.01 < h2 < 1


def test_ridge_is_chosen_by_the_folds_and_solved_as_scikit_learn_does(gene):
    dosage, y = gene
    train = split(len(y))
    grid = [0.01, 0.1, 0.3, 0.6]
    fitted = fit(gene, "ridge_cv", ridge_h2=grid, min_maf=0.0, seed=2)
    z, folds = standardised(dosage[train]), assign_folds(train, num_folds=5, seed=2)[train]
    num = z.shape[1]
    error = []
    for h2 in grid:
        model = Ridge(alpha=num * (1 - h2) / h2)
        parts = [
            np.mean((model.fit(z[folds != k], y[train][folds != k]).predict(z[folds == k])
                     - y[train][folds == k]) ** 2)
            for k in range(5)
        ]  # fmt: skip
        error.append(np.mean(parts))
    best = grid[int(np.argmin(error))]
    assert fitted.penalty == best
    model = Ridge(alpha=num * (1 - best) / best).fit(z, y[train])
    np.testing.assert_allclose(fitted.predict(dosage[train]), model.predict(z), atol=1e-9)


def test_top1_finds_the_planted_variant():
    random = np.random.default_rng(1)
    dosage = dosages(random, 200, 40, switch=0.3)
    y = 3 - 1.5 * dosage[:, 17] + 0.3 * random.normal(size=200)
    fitted = fit((dosage, y), "top1", train=np.ones(200, bool))
    assert fitted.variant_K.tolist() == [17]
    slope, start = np.polyfit(dosage[:, 17], y, 1)
    assert fitted.weights_K[0] == pytest.approx(slope)
    assert fitted.intercept == pytest.approx(start)


# What is fitted on whom -----------------------------------------------------------------------


@pytest.mark.parametrize("name", LINEAR_MODELS)
def test_test_donors_change_no_fitted_number(gene, name):
    dosage, y = gene
    train = split(len(y))
    first = fit(gene, name)
    changed = dosage.copy()
    changed[~train] = 2 - changed[~train]
    second = fit((changed, np.where(train, y, 99.0)), name)
    for field in ("intercept", "penalty", "num_variants", "status", "num_donors"):
        np.testing.assert_equal(getattr(second, field), getattr(first, field))
    np.testing.assert_array_equal(second.weights_K, first.weights_K)
    np.testing.assert_array_equal(second.variant_K, first.variant_K)


def test_validation_donors_choose_the_penalty_and_nothing_else(gene):
    dosage, y = gene
    train, valid = split(len(y), 100), (np.arange(len(y)) >= 100) & (np.arange(len(y)) < 130)
    config = LinearConfig(models=["enet", "ridge_cv"], choose_on="valid", num_alphas=20, **EXACT)
    fits = fit_gene(dosage, y, train_D=train, valid_D=valid, config=config)
    z = standardised(dosage[train])
    others = (dosage[valid] - dosage[train].mean(axis=0)) / dosage[train].std(axis=0)
    top = np.abs(z.T @ (y[train] - y[train].mean())).max() / 50
    errors = {}
    for alpha in np.geomspace(top, top * 1e-3, 20):
        model = ElasticNet(alpha=alpha, l1_ratio=0.5, tol=1e-9, max_iter=100_000)
        errors[alpha] = np.mean((model.fit(z, y[train]).predict(others) - y[valid]) ** 2)
    assert fits["enet"].penalty == pytest.approx(min(errors, key=errors.get), rel=1e-9)
    assert fits["ridge_cv"].num_donors == 100
    with pytest.raises(InputError, match="2 donors that train and validate"):
        fit_gene(dosage, y, train_D=train, valid_D=np.arange(len(y)) < 2, config=config)


def test_missing_calls_take_the_training_mean(gene):
    dosage, y = gene
    train = split(len(y))
    holes = dosage.copy()
    holes[:10, 3] = np.nan
    mean = np.nanmean(holes[train, 3])
    filled = holes.copy()
    filled[:10, 3] = mean
    first, second = fit((holes, y), "blup"), fit((filled, y), "blup")
    np.testing.assert_allclose(first.predict(holes), second.predict(filled), atol=1e-6)
    alone = np.full((1, dosage.shape[1]), np.nan)
    assert first.predict(alone)[0] == pytest.approx(y[train].mean())


def test_rare_variants_and_indels_are_left_out_by_the_training_donors(gene):
    dosage, y = gene
    train = split(len(y))
    more = np.column_stack([dosage, np.zeros(len(y)), np.zeros(len(y))])
    more[:11, -2] = 1  # 11 of 240 training alleles: below 0.05
    more[:12, -1] = 1  # 12 of 240: 0.05, kept
    more[130:, -2] = 2  # common in test donors only
    assert make_design(more[train], min_maf=0.05).variant_K.tolist()[-1] == more.shape[1] - 1
    assert more.shape[1] - 2 not in make_design(more[train], min_maf=0.05).variant_K
    snp = np.arange(more.shape[1]) < 10
    config = LinearConfig(models=["blup"])
    assert fit_gene(more, y, train_D=train, snp_M=snp, config=config)["blup"].num_variants == 10
    config = LinearConfig(models=["blup"], include_indels=True)
    assert fit_gene(more, y, train_D=train, snp_M=snp, config=config)["blup"].num_variants > 10


def test_haploid_dosages_have_their_own_frequency():
    """40 of 150 strains: 0.27 of haploid alleles."""
    dosage = np.zeros((150, 1))
    dosage[:4] = 1
    assert make_design(dosage, min_maf=0.02, ploidy=1).num_variants == 1
    assert make_design(dosage, min_maf=0.02, ploidy=2).num_variants == 0


def test_folds_are_even_and_belong_to_training_donors():
    train = np.arange(23) % 4 != 0
    folds = assign_folds(train, num_folds=5, seed=1)
    assert (folds[~train] == -1).all()
    assert sorted(np.bincount(folds[train])) == [3, 3, 3, 4, 4]
    assert not np.array_equal(folds, assign_folds(train, num_folds=5, seed=2))


# Many genes -----------------------------------------------------------------------------------


def genes_of(num=6, donors=90):
    random = np.random.default_rng(9)
    data = {f"g{k}": common(dosages(random, donors, 30 + 10 * k)) for k in range(num)}
    y = np.array([phenotype(random, d, 0.5, causal=2) for d in data.values()])
    return data, y


def test_threads_and_order_change_nothing():
    data, y = genes_of()
    train = np.arange(y.shape[1]) < 70
    names = list(data)
    config = LinearConfig(num_alphas=20)
    one = fit_genes(names, data.get, y, train=train, config=config, workers=1)
    seen = []
    two = fit_genes(
        names, data.get, y, train=train, config=config, workers=3, on_gene=seen.append,
        keep_fits=True,
    )  # fmt: skip
    back = fit_genes(names[::-1], data.get, y[::-1], train=train, config=config, workers=2)
    assert seen == names
    for name in LINEAR_MODELS:
        np.testing.assert_array_equal(one.predictions[name], two.predictions[name])
        np.testing.assert_array_equal(one.predictions[name], back.predictions[name][::-1])
    assert len(one.table) == len(two.fits) == len(names) * len(LINEAR_MODELS)
    fitted = two.fits["g2", "enet"]
    np.testing.assert_array_equal(fitted.predict(data["g2"]), two.predictions["enet"][2])
    assert np.isfinite(one.predictions["enet"]).all(), "test donors are predicted too"


def test_training_donors_may_differ_by_gene():
    data, y = genes_of(3)
    train = np.ones(y.shape, bool)
    train[1, :30] = False
    config = LinearConfig(models=["mean"])
    results = fit_genes(list(data), data.get, y, train=train, config=config)
    assert results.table["num_donors"].tolist() == [90, 60, 90]
    assert results.predictions["mean"][1, 0] == pytest.approx(y[1, 30:].mean())


def test_planted_expression_is_found_on_new_donors():
    """Elastic net near the root of the heritability, BLUP below it: three causal variants act."""
    random = np.random.default_rng(3)
    data = {f"g{k}": common(dosages(random, 500, 80)) for k in range(20)}
    y = np.array([phenotype(random, d, 0.5, causal=3) for d in data.values()])
    train = np.arange(500) < 400
    config = LinearConfig(models=["enet", "blup", "mean"])
    results = fit_genes(list(data), data.get, y, train=train, config=config)

    def accuracy(name):
        guess = results.predictions[name][:, ~train]
        return np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(guess, y[:, ~train], strict=True)])

    assert 0.45 < accuracy("blup") < accuracy("enet")
    assert 0.6 < accuracy("enet") < np.sqrt(0.5) + 0.05


# Degenerate input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda d, y: (d[:, :0], y), "no_variants"),
        (lambda d, y: (np.zeros_like(d), y), "no_variants"),
        (lambda d, y: (np.full_like(d, np.nan), y), "no_variants"),
        (lambda d, y: (d, np.full_like(y, 3.3)), "constant_expression"),
        (lambda d, y: (d, np.full_like(y, np.nan)), "no_expression"),
        (lambda d, y: (d, np.where(np.arange(len(y)) < 1, y, np.nan)), "too_few_donors"),
        (lambda d, y: (d, np.where(np.arange(len(y)) < 2, y, np.nan)), "too_few_donors"),
    ],
)
def test_what_cannot_be_fitted_predicts_the_mean_and_says_why(gene, change, status):
    dosage, y = change(*gene)
    fits = fit_gene(dosage, y, train_D=split(len(y)), config=LinearConfig())
    for name, fitted in fits.items():
        expected = "constant" if name == "mean" and status != "no_expression" else status
        assert fitted.status == expected, name
        known = y[split(len(y)) & np.isfinite(y)]
        mean = known.mean() if known.size else np.nan
        np.testing.assert_allclose(fitted.predict(dosage), np.full(len(y), mean))


def test_where_no_variant_enters_nothing_is_predicted():
    """Two folds whose labels have opposite slopes: the largest penalty, no variant, is best."""
    dosage = np.tile([0.0, 1.0, 2.0], 20)[:, None]
    y = np.where(np.arange(60) < 30, 1.0, -1.0) * dosage[:, 0] + 0.01 * dosage[:, 0]
    config = LinearConfig(models=["enet", "lasso"], num_folds=2)
    folds = (np.arange(60) >= 30).astype(int)
    fits = fit_gene(dosage, y, train_D=np.ones(60, bool), config=config, folds_D=folds)
    for fitted in fits.values():
        assert fitted.status == "none_selected"
        assert fitted.num_used == 0
        assert np.ptp(fitted.predict(dosage)) == 0


def test_a_gene_that_nobody_trains_on_has_no_prediction(gene):
    dosage, y = gene
    fits = fit_gene(dosage, y, train_D=np.zeros(len(y), bool), config=LinearConfig())
    assert {fitted.status for fitted in fits.values()} == {"no_training_donors"}
    assert np.isnan(fits["enet"].predict(dosage)).all()


def test_one_donor_and_no_signal(gene):
    alone = fit_gene(gene[0][:1], gene[1][:1], train_D=np.ones(1, bool), config=LinearConfig())
    assert {fitted.status for fitted in alone.values()} == {"constant", "too_few_donors"}
    random = np.random.default_rng(0)
    dosage = common(dosages(random, 100, 30))
    noise = random.normal(size=100)
    fits = fit_gene(dosage, noise, train_D=np.ones(100, bool), config=LinearConfig())
    assert fits["enet"].status in ("ok", "none_selected")
    assert fits["blup"].status in ("ok", "h2_floor")
    assert fits["blup"].num_used > 0, "a floor keeps the prediction defined"


@pytest.mark.parametrize(
    ("value", "words"), [(-1.0, "found -1.0"), (3.0, "0 to 2"), (np.inf, "found inf")]
)
def test_impossible_dosages_are_refused_with_the_gene(gene, value, words):
    dosage, y = gene[0].copy(), gene[1]
    dosage[4, 2] = value
    with pytest.raises(InputError, match=words) as error:
        fit_genes(["gx"], lambda _: dosage, y[None], train=split(len(y)), config=LinearConfig())
    assert error.value.__notes__ == ["gene gx"]


def test_shapes_and_settings_are_checked(gene):
    dosage, y = gene
    with pytest.raises(InputError, match="align them by donor"):
        fit_gene(dosage[:-1], y, train_D=split(len(y)), config=LinearConfig())
    with pytest.raises(InputError, match="one row per gene"):
        fit_genes(["a", "b"], lambda _: dosage, y[None], train=split(len(y)), config=LinearConfig())
    with pytest.raises(ConfigError, match="did you mean 'enet'"):
        LinearConfig(models=["enett"])
    for wrong in ({"l1_ratio": 0.0}, {"num_folds": 1}, {"ridge_h2": [1.0]}, {"min_maf": 0.5}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            LinearConfig(**wrong)
