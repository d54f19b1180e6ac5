"""Controls keep what they promise and nothing else; statistics come from training genes only."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from seq2exp.core.errors import InputError
from seq2exp.priors.algebra import fit_whitening, joint_embedding, random_like
from seq2exp.priors.prior import GenePrior
from tests.priors.makers import make_prior

NUM = 60


def levels(seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, 1.0, NUM)


def sections(num_spots: int = 40, seed: int = 3) -> np.ndarray:
    """Two groups of genes that follow two hidden rates, and noise."""
    random = np.random.default_rng(seed)
    rates = random.normal(size=(num_spots, 2))
    group = np.arange(NUM) % 2
    return rates[:, group] * 2 + random.normal(size=(num_spots, NUM)) + 5


def same_genes(control: GenePrior, prior: GenePrior) -> bool:
    names = ("gene_id", "symbol", "split", "contig", "tss", "strand")
    return all((getattr(control, name) == getattr(prior, name)).all() for name in names)


def donors(control: GenePrior, prior: GenePrior) -> np.ndarray:
    return np.array([np.flatnonzero((prior.z == row).all(1))[0] for row in control.z])


# shuffled -------------------------------------------------------------------------------------


def test_shuffled_rows_stay_within_deciles_and_no_gene_keeps_its_own():
    prior, level = make_prior(), levels()
    control = prior.control("shuffled", 0, train=level)
    donor = donors(control, prior)
    present = prior.present
    # 59 genes in ranks: decile of rank r is floor(10 r / 59), computed here on its own.
    decile = np.full(NUM, -1)
    decile[present] = (rankdata(level[present]) - 1) * 10 // present.sum()
    np.testing.assert_array_equal(decile[donor], decile)
    assert (donor[present] != np.flatnonzero(present)).all()
    assert sorted(donor) == list(range(NUM))
    np.testing.assert_array_equal(control.expr, prior.expr[donor])
    np.testing.assert_array_equal(control.reg, prior.reg[donor])
    assert same_genes(control, prior)
    assert control.meta["control"] == "shuffled"


def test_shuffled_takes_means_of_a_matrix_or_a_frame_and_predicted_levels_otherwise():
    prior, counts = make_prior(), sections() + np.arange(NUM)
    by_mean = prior.control("shuffled", 1, train=counts.mean(axis=0))
    by_matrix = prior.control("shuffled", 1, train=counts)
    order = np.random.default_rng(0).permutation(NUM)
    frame = pd.DataFrame(counts, columns=prior.gene_id).iloc[:, order]
    by_frame = prior.control("shuffled", 1, train=frame)
    by_series = prior.control("shuffled", 1, train=frame.mean())
    for other in (by_matrix, by_frame, by_series):
        np.testing.assert_array_equal(other.z, by_mean.z)
    predicted = prior.control("shuffled", 1)
    same = prior.control("shuffled", 1, train=prior.expr.mean(axis=1, dtype=np.float64))
    np.testing.assert_array_equal(predicted.z, same.z)
    assert predicted.meta["control_levels"] == "predicted by the sequence model"
    assert same.meta["control_levels"] == "mean of the training sections"


def test_genes_of_unknown_level_are_shuffled_among_themselves():
    prior, level = make_prior(), levels()
    unknown = np.arange(NUM) % 4 == 0
    level[unknown] = np.nan
    donor = donors(prior.control("shuffled", 0, train=level), prior)
    np.testing.assert_array_equal(unknown[donor], unknown)


# random ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [6, 80], ids=["fewer dimensions than genes", "more"])
def test_random_has_the_mean_covariance_and_spectrum_of_the_prior(width):
    prior = make_prior(width=width)
    control = prior.control("random", 0)
    real, drawn = prior.z[prior.present], control.z[prior.present]
    scale = np.abs(np.cov(real.T)).max()
    np.testing.assert_allclose(drawn.mean(0), real.mean(0), atol=1e-5 * scale)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(real.T), atol=1e-5 * scale)
    assert not control.z[~prior.present].any()
    assert same_genes(control, prior)
    # Nothing of the genes is left: distances between them have nothing to do with the real ones.
    if width == 6:
        first, second = (np.linalg.norm(z[:, None] - z[None], axis=2) for z in (real, drawn))
        upper = np.triu_indices(len(real), 1)
        assert abs(np.corrcoef(first[upper], second[upper])[0, 1]) < 0.15


def test_random_columns_are_gaussian_at_large():
    z = np.random.default_rng(0).uniform(-1, 1, (4000, 2))
    drawn = random_like(z, np.random.default_rng(1))
    kurtosis = ((drawn - drawn.mean(0)) ** 4).mean(0) / drawn.var(0) ** 2
    np.testing.assert_allclose(kurtosis, 3, atol=0.35)  # 1.8 for the uniform


@pytest.mark.parametrize("kind", ["shuffled", "random"])
def test_seeds_repeat_and_differ(kind):
    prior = make_prior()
    first = prior.control(kind, 1, train=levels())
    np.testing.assert_array_equal(first.z, prior.control(kind, 1, train=levels()).z)
    assert (first.z != prior.control(kind, 2, train=levels()).z).any()


# nuisance and coexp -----------------------------------------------------------------------------


def test_nuisance_is_length_gc_and_level_and_nothing_of_the_model():
    prior, level = make_prior(), levels()
    control = prior.control("nuisance", 0, train=level)
    other = make_prior(seed=0, z=make_prior(seed=9).z).control("nuisance", 0, train=level)
    np.testing.assert_array_equal(control.z, other.z)
    raw = np.stack([level, np.log10(1 + prior.reg[:, 1].astype(float)), prior.reg[:, 0]], axis=1)
    kept = raw[prior.present]
    expected = (kept - kept.mean(0)) / kept.std(0)
    np.testing.assert_allclose(control.z[prior.present], expected, atol=1e-5)
    assert control.meta["control_columns"] == "mean_expression, gene_length_bp, gc"
    assert control.expr.shape == control.reg.shape == (NUM, 0)


def test_nuisance_without_lengths_says_what_it_has():
    prior = make_prior(reg=np.zeros((NUM, 0), np.float32), reg_names=())
    control = prior.control("nuisance", 0, train=levels())
    assert control.z.shape == (NUM, 1)
    assert control.meta["control_columns"] == "mean_expression"


def test_coexpression_finds_genes_that_go_together():
    prior, counts = make_prior(), sections()
    control = prior.control("coexp", 0, train=counts)
    kept = control.present
    z = control.z[kept]
    correlation = np.corrcoef(counts[:, kept].T)
    # All components are kept here, so inner products are the correlations themselves.
    np.testing.assert_allclose(z @ z.T, correlation, atol=1e-3)
    assert control.meta["control"] == "coexp"


def test_coexpression_leaves_out_genes_that_never_vary():
    counts = sections()
    counts[:, 10] = 2.0
    counts[0, 11] = np.nan
    control = make_prior().control("coexp", 0, train=counts)
    assert not control.present[[3, 10, 11]].any()
    assert control.present.sum() == NUM - 3
    assert not control.z[10].any()


@pytest.mark.parametrize(
    ("kind", "train", "part"),
    [
        ("shufled", None, "did you mean 'shuffled'?"),
        ("coexp", None, "no expression matrix"),
        ("coexp", levels(), "means of genes"),
        ("coexp", np.ones((5, NUM)), "0 genes that vary over 5 spots"),
        ("shuffled", np.ones(NUM - 1), "shape (59,)"),
        ("nuisance", np.full(NUM, np.nan), "without a known value"),
        ("nuisance", pd.Series([1.0], index=["elsewhere"]), "without a known value"),
    ],
)
def test_what_a_control_cannot_be_made_of_is_named(kind, train, part):
    with pytest.raises(InputError) as error:
        make_prior().control(kind, 0, train=train)
    assert part in str(error.value)


def test_levels_are_needed_where_nothing_is_predicted():
    prior = make_prior(expr=np.zeros((NUM, 0), np.float32), expr_names=())
    for kind in ("shuffled", "nuisance"):
        with pytest.raises(InputError, match="without predicted expression"):
            prior.control(kind, 0)
    prior.control("random", 0)


# transform --------------------------------------------------------------------------------------


def train_ids(prior: GenePrior) -> list[str]:
    return prior.gene_id[prior.split == "train"].tolist()


def test_whitened_training_genes_have_mean_0_and_unit_covariance():
    prior = make_prior()
    white = prior.transform(train_ids(prior))
    train = white.z[(prior.split == "train") & prior.present].astype(float)
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(train.T), np.eye(6), atol=1e-4)
    assert not white.z[~prior.present].any()
    # Distances are those of Mahalanobis under the covariance of the training genes.
    source = prior.z[(prior.split == "train") & prior.present].astype(float)
    inverse = np.linalg.inv(np.cov(source.T))
    step = prior.z[11].astype(float) - prior.z[20]
    found = ((white.z[11].astype(float) - white.z[20]) ** 2).sum()
    np.testing.assert_allclose(found, step @ inverse @ step, rtol=1e-4)


def test_transform_reads_present_training_genes_only():
    prior = make_prior()
    z = prior.z.copy()
    z[prior.split == "test"] *= 100
    z[3] = 0
    changed = make_prior(z=z)
    train = prior.split == "train"
    first, second = prior.transform(train), changed.transform(train_ids(prior))
    np.testing.assert_array_equal(first.z[train], second.z[train])
    assert (first.z[~train] != second.z[~train]).any()
    z = prior.z.copy()
    z[0] += 1
    assert (make_prior(z=z).transform(train).z[2] != first.z[2]).any()


def test_at_most_64_dimensions_and_none_of_rounding():
    wide = make_prior(num=200, width=100)
    assert wide.transform(wide.split == "train").z.shape == (200, 64)
    z = make_prior().z.copy()
    z[:, 5] = z[:, 4]
    flat = make_prior(z=z)
    assert flat.transform(flat.split == "train").z.shape == (60, 5)


def test_signs_do_not_depend_on_the_library():
    z = make_prior().z[10:].astype(float)
    axes = fit_whitening(z).axes_DK
    assert (np.take_along_axis(axes, np.abs(axes).argmax(0)[None], axis=0) > 0).all()


@pytest.mark.parametrize(
    ("genes", "part"),
    [
        (["NOBODY"], "not in the prior"),
        ([], "0 with a prior"),
        (["ENSG00000000003", "ENSG00000000001"], "1 with a prior"),
        (np.ones(3, bool), "shape (3,)"),
    ],
)
def test_wrong_training_genes_are_named(genes, part):
    with pytest.raises(InputError) as error:
        make_prior().transform(genes)
    assert part in str(error.value)


# mean of seeds ------------------------------------------------------------------------------------


def seeds() -> list[GenePrior]:
    first, second = make_prior(), make_prior(seed=1, width=4)
    meta = second.meta | {"model_sha256": "bb"}
    quality = second.quality.copy()
    quality[1], quality[2] = 0.9, 0.3
    present = second.present.copy()
    present[8] = False
    slots = {name: getattr(second, name).copy() for name in ("z", "expr", "reg")}
    for values in slots.values():
        values[8] = 0
    return [first, make_prior(meta=meta, quality=quality, present=present, **slots)]


def test_seeds_average_expression_and_keep_every_embedding():
    first, second = seeds()
    joint = GenePrior.mean([first, second])
    rows = np.arange(NUM) != 8
    np.testing.assert_allclose(joint.expr[rows], (first.expr + second.expr)[rows] / 2, rtol=1e-6)
    np.testing.assert_allclose(joint.reg[rows], (first.reg + second.reg)[rows] / 2, rtol=1e-6)
    assert joint.z.shape == (NUM, 6 + 4)
    assert np.flatnonzero(~joint.present).tolist() == [3, 8]
    assert joint.quality[1] == pytest.approx(0.7)  # mean of 0.5 and 0.9
    assert joint.quality[2] == pytest.approx(0.3)  # known by one seed
    assert np.isnan(joint.quality[4])
    assert joint.meta["members"] == 2
    assert joint.meta["model_sha256"] not in ("aa", "bb")
    assert GenePrior.mean([first]) is first


def test_inner_products_of_the_joint_embedding_are_the_mean_of_the_seeds():
    random = np.random.default_rng(0)
    members = [random.normal(size=(30, 5)), 100 * random.normal(size=(30, 9))]
    train = np.arange(30) < 20
    joint = joint_embedding(members, train).astype(float)
    grams = [z @ z.T / z[train].var(axis=0).sum() for z in members]
    np.testing.assert_allclose(joint @ joint.T, np.mean(grams, axis=0), atol=1e-5)
    np.testing.assert_allclose(joint[train].var(axis=0).sum(), 1, rtol=1e-5)
    # A rotation of one seed, which is as good a network, changes nothing that is used.
    turn, _ = np.linalg.qr(random.normal(size=(5, 5)))
    turned = joint_embedding([members[0] @ turn, members[1]], train).astype(float)
    np.testing.assert_allclose(turned @ turned.T, joint @ joint.T, atol=1e-5)


def test_the_scale_of_seeds_comes_from_training_genes():
    random = np.random.default_rng(0)
    members = [random.normal(size=(30, 5)) for _ in range(2)]
    train = np.arange(30) < 20
    changed = [members[0].copy(), members[1]]
    changed[0][25] *= 1000
    first, second = joint_embedding(members, train), joint_embedding(changed, train)
    np.testing.assert_array_equal(first[:20], second[:20])


def test_seeds_of_something_else_are_refused():
    prior = make_prior()
    with pytest.raises(InputError, match="no prior"):
        GenePrior.mean([])
    for changes, part in [
        ({"gene_id": prior.gene_id[::-1]}, "other genes"),
        ({"expr_names": ("blood", "muscle")}, "other outputs"),
        ({"meta": prior.meta | {"assembly": "hg19"}}, "other assemblies"),
        ({"meta": prior.meta | {"dataset_checksum": "e"}}, "other datasets"),
        ({"meta": prior.meta | {"layer": "head"}}, "other layers"),
        ({"split": prior.split[::-1]}, "other splits"),
    ]:
        with pytest.raises(InputError, match=part):
            GenePrior.mean([prior, make_prior(**changes)])
