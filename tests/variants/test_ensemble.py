"""One score from several members."""

from __future__ import annotations

import numpy as np
import pytest

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.variants.ensemble import ensemble, mean_profile
from seq2exp.variants.scorers import SCORERS
from seq2exp.variants.units import LabelUnit

REF = np.array([[[1.0]], [[3.0]]])
ALT = np.array([[[2.0]], [[3.0]]])


def test_predictions_are_averaged_before_scoring_unless_told_otherwise():
    """log10(1 + x): means 2 and 2.5 give 10^2.5 - 10^2, means of scores (90 + 0) / 2."""
    sed = SCORERS["sed"].of_predictions(LabelUnit("TPM", "log10p1"))
    together, apart = ensemble(sed, REF, ALT), ensemble(sed, REF, ALT, how="score")
    assert together.score[0, 0] == pytest.approx(10**2.5 - 10**2)
    assert apart.score[0, 0] == pytest.approx(45)
    for found in (together, apart):
        assert found.sd[0, 0] == pytest.approx(90 / np.sqrt(2))
        assert found.num_members[0, 0] == 2


def test_members_that_agree_have_no_spread_and_one_alone_has_none():
    ref, alt = np.repeat(REF[:1] / 3, 5, 0), np.repeat(ALT[:1] / 7, 5, 0)
    delta = SCORERS["expr_delta"].function
    for how in ("pred", "score"):
        assert ensemble(delta, ref, alt, how=how).sd[0, 0] == 0
        alone = ensemble(delta, ref[:1], alt[:1], how=how)
        assert np.isnan(alone.sd[0, 0])
        assert alone.num_members[0, 0] == 1
        np.testing.assert_array_equal(alone.score, delta(ref[0], alt[0]))


def test_a_member_without_a_score_is_counted():
    ref, alt = REF.copy(), ALT.copy()
    alt[1] = np.nan
    delta = SCORERS["expr_delta"].function
    apart = ensemble(delta, ref, alt, how="score")
    assert (apart.score[0, 0], apart.num_members[0, 0]) == (1, 1)
    assert np.isnan(apart.sd[0, 0])
    assert np.isnan(ensemble(delta, ref, alt).score[0, 0])
    nobody = ensemble(delta, ref * np.nan, alt, how="score")
    assert np.isnan(nobody.score).all()


def test_predictions_beyond_all_numbers_are_no_score():
    """10^400 TPM: infinite, for one of two members."""
    sed = SCORERS["sed"].of_predictions(LabelUnit("TPM", "log10p1"))
    ref, alt = np.array([[[0.0]], [[0.0]]]), np.array([[[400.0]], [[1.0]]])
    found = ensemble(sed, ref, alt, how="score")
    assert found.score[0, 0] == pytest.approx(9)
    assert found.num_members[0, 0] == 1
    far = ensemble(sed, ref, np.array([[[250.0]], [[1.0]]]), how="score")
    assert far.sd[0, 0] == np.inf


def test_bins_count_where_all_members_have_them():
    ref, alt = np.zeros((2, 1, 3)), np.array([[[1.0, 2, 4]], [[1.0, 2, 4]]])
    inside = np.array([[[True, True, False]], [[True, False, True]]])
    delta = SCORERS["mask_delta"].function
    assert ensemble(delta, ref, alt, inside_M=inside).score[0] == 1
    assert ensemble(delta, ref, alt, inside_M=inside, how="score").score[0] == (3 + 5) / 2


def test_ensembles_that_mean_nothing_are_refused():
    delta = SCORERS["expr_delta"].function
    with pytest.raises(ConfigError, match="did you mean 'score'"):
        ensemble(delta, REF, ALT, how="scores")
    with pytest.raises(InputError, match="found 2 REF, 1 ALT"):
        ensemble(delta, REF, ALT[:1])
    with pytest.raises(InputError, match="at least one"):
        ensemble(delta, REF[:0], ALT[:0])


def test_shapes_are_averaged_as_logits():
    """The mean of logits 0, 2 and 0, 0 is 0, 1: shares 1 : e, not the mean of the two shares."""
    logits = np.array([[0.0, 2.0], [0.0, 0.0]])[:, None, :, None]
    found = mean_profile(logits, np.array([100.0, 300.0])[:, None, None])
    share = np.e / (1 + np.e)
    np.testing.assert_allclose(found[0, :, 0], [200 * (1 - share), 200 * share])
    far = mean_profile(logits + 1e6, np.array([100.0, 300.0])[:, None, None])
    np.testing.assert_allclose(far, found)
