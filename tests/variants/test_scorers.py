"""Scores against goldens that follow from their formulas, and what must hold for all of them."""

from __future__ import annotations

import numpy as np
import pytest

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.variants.choice import choose_scorers, columns_of, scorer_names
from seq2exp.variants.scorers import SCORERS, combine_strands
from seq2exp.variants.units import TRANSFORMS, LabelUnit, undo_transform

REF, ALT = np.array([1.0, 2, 4, 1]), np.array([1.0, 3, 2, 1])
# Formulas of section 8 of the specification, written out for r = 1 2 4 1 and a = 1 3 2 1.
GOLDEN = {
    "diff_sum": 7 - 8,
    "diff_mean": 7 / 4 - 8 / 4,
    "log2_sum": np.log2(8 / 9),
    "sum_log2": np.log2(4 / 3) + np.log2(3 / 5),
    "sqrt_sum": np.sqrt(3) - np.sqrt(2) + np.sqrt(2) - 2,
    "sax": 2 - 4,
    "d1": 1 + 2,
    "log_d1": np.log2(4 / 3) + np.log2(5 / 3),
    "sqrt_d1": np.sqrt(3) - np.sqrt(2) + 2 - np.sqrt(2),
    "d2": np.sqrt(1 + 4),
    "log_d2": np.sqrt(np.log2(4 / 3) ** 2 + np.log2(5 / 3) ** 2),
    "sqrt_d2": np.sqrt((np.sqrt(3) - np.sqrt(2)) ** 2 + (2 - np.sqrt(2)) ** 2),
    "l2_log1p": np.sqrt(np.log(4 / 3) ** 2 + np.log(5 / 3) ** 2),
    "active_sum": 8,
    "active_mean": 2,
    "active_max": 4,
    "gene_lfc": np.log(1.751 / 2.001),
    "gene_active": 2,
    "log2fc": np.log2(7 / 8),
}
PRINTED = {
    "diff_sum": -1, "diff_mean": -0.25, "log2_sum": -0.169925, "sum_log2": -0.321928,
    "sqrt_sum": -0.267949, "sax": -2, "d1": 3, "log_d1": 1.152003, "sqrt_d1": 0.903624,
    "d2": 2.236068, "log_d2": 0.845798, "sqrt_d2": 0.666458, "l2_log1p": 0.586263,
    "jsd": 0.198387, "active_sum": 8, "active_mean": 2, "gene_lfc": -0.133460,
}  # fmt: skip
PROFILE = [scorer for scorer in SCORERS.values() if scorer.needs == "profile"]
DISTANCES = [name for name in SCORERS if "active" not in name]
TOTALS = np.array([[1.0], [7.5], [8.5], [9.0]])
TPM = LabelUnit("TPM", "log10p1")
EVERYTHING = ("expression", "fixed", "mask", "embedding", "profile", "exons", "totals")


def profile_score(name, ref, alt, inside=None):
    ref, alt = (np.asarray(x, dtype=np.float64 if np.ndim(x) else None) for x in (ref, alt))
    ref, alt = (x[None, :, None] if x.ndim == 1 else x for x in (ref, alt))
    inside = np.ones(ref.shape[:2], bool) if inside is None else inside
    more = [TOTALS.repeat(ref.shape[2], 1)] if SCORERS[name].also == "totals" else []
    return SCORERS[name].function(ref, alt, inside, *more)


def any_score(scorer, ref, alt):
    """Score arrays of shape (B, S, T), summed to what the scorer takes."""
    inside = np.ones(ref.shape[:2], bool)
    if scorer.needs == "profile":
        return profile_score(scorer.name, ref, alt, inside)
    if scorer.needs == "mask":
        return scorer.function(ref[..., 0], alt[..., 0], inside)
    return scorer.of_predictions(TPM)(ref[..., 0] / 10, alt[..., 0] / 10)


@pytest.mark.parametrize("name", GOLDEN)
def test_goldens_by_their_formulas(name):
    np.testing.assert_allclose(profile_score(name, REF, ALT), [[GOLDEN[name]]], rtol=1e-12)


@pytest.mark.parametrize("name", PRINTED)
def test_goldens_as_printed_in_the_specification(name):
    # gene_lfc is printed with one digit less: ln(1.751 / 2.001) = -0.133460.
    assert float(profile_score(name, REF, ALT)[0, 0]) == pytest.approx(PRINTED[name], abs=6e-7)


def test_js_is_the_distance_and_not_half_the_symmetric_divergence():
    """What baskerville calls JS is (KL(p, q) + KL(q, p)) / 2 with a pseudocount: 0.0531 here."""
    from scipy.spatial.distance import jensenshannon

    found = profile_score("jsd", REF, ALT)[0, 0]
    assert found == pytest.approx(jensenshannon(REF, ALT, base=2), abs=1e-12)
    p, q = ((x + np.percentile(REF, 25)) / (x + np.percentile(REF, 25)).sum() for x in (REF, ALT))
    symmetric = ((p * np.log(p / q)).sum() + (q * np.log(q / p)).sum()) / 2
    assert symmetric == pytest.approx(0.0531, abs=5e-5)
    assert abs(found - symmetric) > 0.1
    assert profile_score("jsd", [1.0, 0], [0.0, 1])[0, 0] == 1


@pytest.mark.parametrize("shifts", [1, 3])
def test_log_and_js_scores_are_not_zero_nor_refused_with_shifts(shifts):
    """logJS of baskerville is 0 with one shift and JS raises with three."""
    from seq2exp.variants.ensemble import ensemble

    ref, alt = (np.repeat(x[None, None, :, None], shifts, 0) for x in (REF, ALT))
    inside = np.ones((shifts, 1, 4), bool)
    for name in ("jsd", "log_d1", "log2_sum"):
        found = ensemble(SCORERS[name].function, ref, alt, inside_M=inside)
        np.testing.assert_array_equal(found.score, profile_score(name, REF, ALT))
        assert found.score[0, 0] != 0


def test_ips_multiplies_by_the_place_among_elements():
    """The stronger allele has 8: above 1 and 7.5 of four elements, so AAQ is a half."""
    plain = profile_score("log2fc", REF, ALT) * profile_score("jsd", REF, ALT)
    np.testing.assert_allclose(profile_score("ips", REF, ALT), plain / 2)
    np.testing.assert_allclose(profile_score("ies", REF, ALT), np.abs(plain))
    floor = SCORERS["ips"].function(
        REF[None, :, None], ALT[None, :, None], np.ones((1, 4), bool), np.full((5, 1), 1e6)
    )
    np.testing.assert_allclose(floor, plain / 5)
    with pytest.raises(InputError, match="elements x 1 tracks"):
        SCORERS["ips"].function(
            REF[None, :, None], ALT[None, :, None], np.ones((1, 4), bool), np.ones((5, 2))
        )


@pytest.mark.parametrize("scorer", SCORERS.values(), ids=lambda scorer: scorer.name)
def test_equal_alleles_give_exactly_zero_and_swapping_flips_the_sign_of_signed_scores(scorer):
    random = np.random.default_rng(5)
    ref, alt = random.gamma(1.0, 3.0, (2, 6, 9, 3))
    ref[0], alt[0, :, 0] = 0, 0
    forward, back = any_score(scorer, ref, alt), any_score(scorer, alt, ref)
    np.testing.assert_array_equal(back, -forward if scorer.signed else forward)
    assert forward.dtype == np.float64
    assert (np.abs(forward[1:]) > 0).all()
    assert scorer.signed or np.nanmin(forward) >= 0
    if "active" not in scorer.name:
        for x in (ref, alt):
            np.testing.assert_array_equal(any_score(scorer, x, x.copy()), np.zeros_like(forward))


@pytest.mark.parametrize("scorer", PROFILE, ids=lambda scorer: scorer.name)
def test_bins_outside_or_unknown_in_one_allele_are_left_out_of_both(scorer):
    random = np.random.default_rng(6)
    ref, alt = random.gamma(1.0, 3.0, (2, 3, 8, 2))
    inside = random.random((3, 8)) < 0.7
    inside[:, :2] = True
    alt[0, 0, 0], ref[1, 1, 1] = np.nan, np.nan
    found = profile_score(scorer.name, ref, alt, inside)
    for b in range(3):
        for t in range(2):
            kept = inside[b] & ~np.isnan(ref[b, :, t]) & ~np.isnan(alt[b, :, t])
            short = [x[b : b + 1, kept, t : t + 1] for x in (ref, alt)]
            alone = profile_score(scorer.name, *short)
            assert found[b, t] == pytest.approx(alone[0, 0], abs=1e-12)
    nothing = profile_score(scorer.name, ref, alt, np.zeros((3, 8), bool))
    assert np.isnan(nothing).all(), "a silent zero"


def test_no_score_passes_through_float16():
    """Values above 65,504, and differences of one part in ten thousand."""
    ref, alt = np.full(4, 60_000.0), np.full(4, 60_006.0)
    assert profile_score("diff_sum", ref, alt)[0, 0] == 24
    assert profile_score("active_sum", ref, alt)[0, 0] == 240_024
    half = np.array([1.0, 1.001], dtype=np.float16)
    assert profile_score("diff_sum", half, half * 2).dtype == np.float64
    assert SCORERS["expr_delta"].function([[70_000.0]], [[70_001.0]])[0, 0] == 1


def test_expression_scores_in_the_unit_of_labels_and_linear():
    """log10(1 + x): 99 against 999 TPM is 2 against 3."""
    ref, alt = np.array([[2.0, 0.0]]), np.array([[3.0, -0.5]])
    of = {name: SCORERS[name].of_predictions(TPM)(ref, alt) for name in ("expr_delta", "sed")}
    np.testing.assert_allclose(of["expr_delta"], [[1.0, -0.5]])
    # A prediction below that of no expression counts as no expression.
    np.testing.assert_allclose(of["sed"], [[900.0, 0.0]])
    found = SCORERS["log_sed"].of_predictions(TPM)(ref, alt)
    np.testing.assert_allclose(found, [[np.log2(1000 / 100), 0.0]])
    assert np.isnan(SCORERS["sed"].of_predictions(TPM)([[np.nan]], [[1.0]])[0, 0])


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_undoing_is_the_inverse_of_what_prepare_does(transform):
    import pandas as pd

    from data_prep.expression import transform_expression

    values = np.array([0.0, 0.5, 10, 12_345])
    table = pd.DataFrame({"gene_id": list("abcd"), "K562": values})
    stored = transform_expression(table, transform)["K562"].to_numpy()
    np.testing.assert_allclose(undo_transform(stored, transform), values, rtol=1e-12)
    assert undo_transform([-1.0], transform)[0] == 0


def test_every_transform_of_a_dataset_can_be_undone():
    from typing import get_args, get_type_hints

    from data_prep.config import ExpressionConfig

    assert set(get_args(get_type_hints(ExpressionConfig)["transform"])) == set(TRANSFORMS)
    with pytest.raises(ConfigError, match="found asinh, expected one of none, log1p"):
        undo_transform([1.0], "asinh")


def test_masks_of_alleles():
    ref, alt = np.array([[0.1, 0.5, np.nan, 0.2]]), np.array([[0.4, 0.1, 0.9, 0.2]])
    inside = np.array([[True, True, True, False]])
    scores = [SCORERS[f"mask_{x}"].function(ref, alt, inside)[0] for x in ("delta", "max", "l2")]
    np.testing.assert_allclose(scores, [0.3 - 0.4, 0.4, 0.5])
    assert np.isnan(SCORERS["mask_max"].function(ref, alt, ~inside & (np.arange(4) == 2))).all()


def test_distances_of_states():
    """3-4-5, and a right angle."""
    ref, alt = np.array([[0.0, 0], [1, 0], [2, 0]]), np.array([[3.0, 4], [0, 2], [8, 0]])
    np.testing.assert_allclose(SCORERS["embed_l2"].function(ref, alt), [5, np.sqrt(5), 6])
    np.testing.assert_allclose(SCORERS["embed_cos"].function(ref, alt), [np.nan, 1, 0], atol=1e-15)
    assert SCORERS["embed_cos"].function(ref[:1], ref[:1])[0] == 0


def test_strands_add_for_signed_scores_and_as_squares_for_distances():
    assert combine_strands(SCORERS["diff_sum"], 3.0, -1.0) == 2
    assert combine_strands(SCORERS["d2"], 3.0, 4.0) == 5
    assert combine_strands(SCORERS["d1"], 3.0, 4.0) == 7
    with pytest.raises(InputError, match="score jsd of two strands"):
        combine_strands(SCORERS["jsd"], 0.1, 0.2)
    signed = [scorer for scorer in SCORERS.values() if scorer.signed and scorer.per_sample]
    assert {scorer.strands for scorer in signed} == {"sum"}


def test_names_of_scores_and_their_nearest_match():
    assert scorer_names("sed, log_sed,sed") == ["sed", "log_sed"]
    with pytest.raises(ConfigError, match=r"found log_sde.*did you mean 'log_sed'"):
        scorer_names("sed,log_sde")
    with pytest.raises(ConfigError, match="found no name"):
        scorer_names(" , ")


def test_what_is_scored_follows_from_the_model():
    offers = ["expression", "fixed", "mask", "embedding"]
    names = [scorer.name for scorer in choose_scorers(offers=offers, label=TPM)]
    assert names == ["expr_delta", "expr_delta_fixed", "sed", "log_sed", "mask_delta", "mask_max",
                     "embed_l2"]  # fmt: skip
    plain = choose_scorers(offers=["expression"], label=LabelUnit("z-score", "none"))
    assert [scorer.name for scorer in plain] == ["expr_delta"]
    assert len(choose_scorers(list(SCORERS), offers=EVERYTHING, label=TPM)) == len(SCORERS)
    for name, text in (("mask_delta", "a model without a mask"),
                       ("expr_delta_fixed", "a mask that could be held fixed"),
                       ("jsd", "predicts no tracks")):  # fmt: skip
        with pytest.raises(ConfigError, match=f"score {name}: found .*{text}"):
            choose_scorers([name], offers=["expression"], label=TPM)


@pytest.mark.parametrize(
    "label", [LabelUnit("TPM", "asinh"), LabelUnit("log2 TPM"), LabelUnit("lnTPM")]
)
def test_linear_scores_are_refused_by_name_where_the_unit_is_not_known(label):
    assert [s.name for s in choose_scorers(offers=["expression"], label=label)] == ["expr_delta"]
    for name in ("sed", "log_sed"):
        with pytest.raises(ConfigError, match=f"score {name}: .*cannot be made linear"):
            choose_scorers([name], offers=["expression"], label=label)
    assert LabelUnit("biological counts").is_linear


def test_pain_23_every_column_says_its_formula_its_unit_and_how_members_were_averaged():
    """decima#36, borzoi#62: effects of another scale, and no word on which statistic it is."""
    scorers = choose_scorers(list(SCORERS), offers=EVERYTHING, label=TPM)
    columns = columns_of(scorers, ["K562", "liver"], label=TPM, ensemble="score", with_sd=True,
                         with_p=True, with_quantile=True)  # fmt: skip
    of = {column.name: column for column in columns}
    assert of["expr_delta:K562"].unit == "log10(1 + TPM)"
    assert of["sed:liver"].unit == "TPM"
    assert of["expr_delta:K562"].formula == (
        "y_a - y_r; the mask follows each allele; each member scored, then averaged"
    )
    assert [name for name in of if name.startswith("mask_delta")] == [
        "mask_delta", "mask_delta:sd", "mask_delta:p", "mask_delta:q", "mask_delta:quantile",
        "mask_delta:signed_quantile"]  # fmt: skip
    assert "mask_max:signed_quantile" not in of
    assert of["mask_delta:p"].formula.endswith("two-sided, min(1, 2 min(left, right))")
    assert of["mask_max:p"].formula.endswith("right tail")
    for column in columns:
        assert column.formula
        assert column.unit
        assert "{" not in column.unit + column.formula
        assert '"' not in column.formula + column.unit
    assert len({(s.formula, s.unit, s.window) for s in SCORERS.values()}) == len(SCORERS)


def test_columns_follow_scores_then_labels_and_never_share_a_name():
    scorers = [SCORERS["expr_delta"], SCORERS["mask_delta"]]
    names = [column.name for column in columns_of(scorers, ["a", "b"], label=TPM)]
    assert names == ["expr_delta:a", "expr_delta:b", "mask_delta"]
    with pytest.raises(ConfigError, match="names that occur twice"):
        columns_of(scorers, ["a", "a:sd"], label=TPM, with_sd=True)
    with pytest.raises(ConfigError, match="did you mean 'pred'"):
        columns_of(scorers, ["a"], label=TPM, ensemble="preds")
