from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from seq2exp.core.errors import InputError
from seq2exp.spatial.batch_effects import (
    batch_effect_rows,
    between_share,
    contrastive_gain,
    section_silhouette,
)
from seq2exp.spatial.probes import (
    ALPHAS,
    Probe,
    logistic_probe,
    ridge_fit,
    ridge_probe,
    ridge_transfer,
    spot_groups,
)
from tests.spatial.pairs import batch_effect_pairs

PAIRS = batch_effect_pairs(1.0, num_slides=6, num_spots=60)
PATIENT = PAIRS.section // 2


def test_ridge_is_that_of_scikit_learn():
    weights, intercept = ridge_fit(PAIRS.feat, PAIRS.y, alpha=7.0)
    model = Ridge(alpha=7.0).fit(PAIRS.feat, PAIRS.y)
    assert np.allclose(weights, model.coef_.T)
    assert np.allclose(intercept, model.intercept_)


def test_ridge_finds_what_is_there_and_nothing_in_noise():
    found = ridge_probe(PAIRS.feat, PAIRS.y, patient_S=PATIENT, section_S=PAIRS.section)
    assert found.groups == "patient"
    assert set(found.by_group) == {0, 1, 2}
    assert found.value > 0.4
    random = np.random.default_rng(0).normal(size=PAIRS.feat.shape)
    null = ridge_probe(random, PAIRS.y, patient_S=PATIENT, section_S=PAIRS.section)
    assert abs(null.value) < 0.05


def test_a_ridge_of_some_spots_is_read_on_others():
    known, new = PATIENT < 2, PATIENT == 2
    groups = (PATIENT[known], PAIRS.section[known])
    views = (PAIRS.feat[known], PAIRS.y[known], PAIRS.feat[new], PAIRS.y[new])
    unit = PAIRS.section[new]
    found = ridge_transfer(*views, fit_groups=groups, unit_S=unit, section_S=unit, alphas=(30.0,))
    model = make_pipeline(StandardScaler(), Ridge(alpha=30.0)).fit(*views[:2])
    guess = model.predict(views[2])
    for section in (4, 5):
        rows = unit == section
        r = [np.corrcoef(guess[rows, g], views[3][rows, g])[0, 1] for g in range(60)]
        assert found.by_group[section] == pytest.approx(np.mean(r))
    assert found.value == pytest.approx(np.mean(list(found.by_group.values())))
    several = ridge_transfer(*views, fit_groups=groups, unit_S=unit, section_S=unit)
    assert several.settings["alpha"] in ALPHAS
    assert several.value > 0.4


def test_a_patient_is_never_on_both_sides():
    """Features of a patient mean nothing in another: only leakage could use them."""
    random = np.random.default_rng(0)
    u = random.normal(size=(len(PAIRS), 4))
    own = (np.eye(3)[PATIENT][:, :, None] * u[:, None]).reshape(len(PAIRS), 12)
    y = np.einsum("sd,sdg->sg", u, random.normal(size=(3, 4, 10))[PATIENT])
    origin = {"section_S": PAIRS.section}
    assert abs(ridge_probe(own, y, patient_S=PATIENT, **origin).value) < 0.05
    # With sections held out instead, the other section of the patient gives it away.
    one = np.zeros(len(PAIRS), np.int64)
    assert ridge_probe(own, y, patient_S=one, **origin).value > 0.9
    naming = np.eye(6)[PAIRS.section]
    labels = np.array(["a", "b", "a", "b", "b", "a"])[PAIRS.section]
    groups = spot_groups(PATIENT, PAIRS.section)
    assert logistic_probe(naming, labels, groups=groups).value < 0.7
    assert logistic_probe(naming, labels).value == 1


def test_the_penalty_of_a_held_out_patient_does_not_hang_on_its_labels():
    """Large labels that run against those of the others would ask for another penalty."""
    pairs = batch_effect_pairs(0.0, num_slides=6, num_spots=60)
    patient = pairs.section // 2
    origin = {"patient_S": patient, "section_S": pairs.section, "alphas": (1.0, 1e4)}
    turned = pairs.y.copy()
    turned[patient == 1] *= -20
    chosen, found = (
        ridge_probe(pairs.feat, y, **origin).settings["alpha"] for y in (pairs.y, turned)
    )
    assert chosen == {0: 1e4, 1: 1e4, 2: 1e4}
    assert found == {0: 1.0, 1: 1e4, 2: 1.0}


def test_sections_take_the_place_of_a_single_patient():
    one = np.zeros(len(PAIRS), np.int64)
    found = ridge_probe(PAIRS.feat, PAIRS.y, patient_S=one, section_S=PAIRS.section)
    assert (found.groups, len(found.by_group)) == ("section", 6)
    with pytest.raises(InputError, match="one section"):
        spot_groups(one, one)


def test_labels_are_read_and_chance_is_said():
    found = logistic_probe(PAIRS.feat, PAIRS.section)
    assert found.chance == pytest.approx(1 / 6)
    assert found.value > 0.9
    random = np.random.default_rng(0).normal(size=(len(PAIRS), 8))
    assert logistic_probe(random, PAIRS.section).value == pytest.approx(1 / 6, abs=0.07)
    with pytest.raises(InputError, match="1 labels"):
        logistic_probe(PAIRS.feat, np.zeros(len(PAIRS)))
    with pytest.raises(InputError, match="no number"):
        logistic_probe(PAIRS.feat * np.nan, PAIRS.section)


def test_shares_and_silhouettes_by_hand():
    section = np.array([0, 0, 1, 1])
    assert between_share(np.array([[1.0], [1.0], [3.0], [3.0]]), section) == 1
    assert between_share(np.array([[1.0], [3.0], [1.0], [3.0]]), section) == 0
    # Means 1 and 3 around 2, each spot 1 beside its mean: 4 of 8 squares.
    assert between_share(np.array([[0.0], [2.0], [2.0], [4.0]]), section) == pytest.approx(0.5)
    apart = np.array([[0.0], [0.1], [9.0], [9.1]])
    assert section_silhouette(apart, section) > 0.9
    assert np.isnan(section_silhouette(apart, np.zeros(4, int)))


def test_gains_are_paired_by_patient():
    def probe(values, groups="patient"):
        return Probe(float(np.mean(list(values.values()))), values, groups, 0.0, {})

    gain = contrastive_gain(probe({0: 0.5, 1: 0.4}), probe({0: 0.4, 1: 0.1}))
    assert gain.value == pytest.approx(0.2)
    assert (gain.low, gain.high, gain.n) == (pytest.approx(0.1), pytest.approx(0.3), 2)
    single = contrastive_gain(probe({4: 0.5}), probe({4: 0.6}))
    assert single.n == 1
    assert np.isnan(single.low)
    with pytest.raises(InputError, match="other folds"):
        contrastive_gain(probe({0: 1.0}), probe({0: 1.0}, "section"))


def test_the_report_tells_sections_from_signal():
    random = np.random.default_rng(0)
    z = random.normal(size=(len(PAIRS), 6))
    colour = 4 * random.normal(size=(6, 6))[PAIRS.section]
    views = {
        "signal": (z, z + 0.3 * random.normal(size=z.shape)),
        "sections": (colour + z, colour + random.normal(size=z.shape)),
    }
    labels = z @ random.normal(size=(6, 20))
    found = {}
    for name, (image, gene) in views.items():
        rows = batch_effect_rows(
            image, gene, frozen_SD=PAIRS.feat, labels_SG=labels, section_S=PAIRS.section,
            patient_S=PATIENT, spot_S=PAIRS.spot, size=30,
        )  # fmt: skip
        assert {"name", "metric", "split", "chance", "value", "low", "high", "n"} == set(rows[0])
        found[name] = {(row["name"], row["metric"]): row for row in rows}
    signal, sections = found["signal"], found["sections"]
    image = ("image", "section accuracy")
    assert signal[image]["chance"] == pytest.approx(1 / 6)
    assert signal[image]["value"] < 0.3 < 0.9 < sections[image]["value"]
    share = ("genes", "variance between sections")
    assert signal[share]["value"] < 0.1 < 0.5 < sections[share]["value"]
    within, across = (
        ("image->gene", f"recall@5 of 30, {scope} sections") for scope in ("within", "across")
    )
    assert signal[within]["value"] > 0.8
    assert sections[across]["value"] > 2 * sections[within]["value"]
    gain = ("image - frozen", "ridge pearson, patients resampled")
    assert signal[gain]["low"] > 0.2
    assert signal[gain]["n"] == 3
