"""What frozen embeddings know: expression by ridge, labels by logistic regression.

Folds keep a patient's spots together, or a section's where there is one patient, which is then
said. The penalty is chosen inside the training part by the same rule.

Axes: S spots, D features, G genes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.spatial.metrics import columns_pearson

__all__ = [
    "ALPHAS",
    "Groups",
    "Probe",
    "logistic_probe",
    "ridge_fit",
    "ridge_probe",
    "ridge_transfer",
    "spot_groups",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
ALPHAS = (1.0, 10.0, 100.0, 1000.0, 10000.0)
"""Penalties that a ridge chooses from."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Which spots stay together in folds.

    Attributes
    ----------
    code_S : int64 array, shape (num_spots,)
    kind : str
        patient, or section where there is one patient.
    """

    code_S: Integers
    kind: str


@dataclass(frozen=True)
class Probe:
    """Result of a probe.

    Attributes
    ----------
    value : float
        Mean over groups.
    by_group : dict of int to float
        Held-out value of each patient (or section).
    groups : str
        What was held out at a time: patient, section, or spots.
    chance : float
        What guessing gives.
    settings : dict
        What the folds chose.
    """

    value: float
    by_group: dict[int, float]
    groups: str
    chance: float
    settings: dict[str, Any]


def spot_groups(patient_S: Integers, section_S: Integers) -> Groups:
    """Return patients, or sections where there is one patient.

    Raises
    ------
    InputError
        There is a single section.
    """
    for kind, code_S in (("patient", patient_S), ("section", section_S)):
        if len(np.unique(code_S)) > 1:
            return Groups(np.asarray(code_S, np.int64), kind)
    raise InputError(
        facts("probe", found="one section", expected="at least two", fix="give more sections")
    )


def ridge_fit(x_SD: Floats, y_SG: Floats, *, alpha: float) -> tuple[Floats, Floats]:
    """Return weights, shape (features, genes), and intercepts of a ridge on centred columns.

    The features are taken as they are: standardise them before where their scales differ.
    """
    centre_D, centre_G = x_SD.mean(axis=0), y_SG.mean(axis=0)
    x, y = x_SD - centre_D, y_SG - centre_G
    weights_DG = np.linalg.solve(x.T @ x + alpha * np.eye(x.shape[1]), x.T @ y)
    return weights_DG, centre_G - centre_D @ weights_DG


def ridge_probe(
    features_SD: NDArray[np.floating],
    labels_SG: NDArray[np.floating],
    *,
    patient_S: Integers,
    section_S: Integers,
    alphas: Sequence[float] = ALPHAS,
    centred: bool = False,
) -> Probe:
    """Return the Pearson correlation of ridge predictions, by held-out group.

    Correlations are taken within a section for each gene, undefined ones as 0, and averaged over
    genes, sections and groups.

    Parameters
    ----------
    features_SD : float array, shape (num_spots, num_features)
    labels_SG : float array, shape (num_spots, num_genes)
        Without missing values.
    patient_S, section_S : int64 arrays, shape (num_spots,)
    alphas : sequence of float
        Penalties on standardised features.
    centred : bool
        Fit on labels less their mean in each section.
    """
    x, y = np.asarray(features_SD, np.float64), np.asarray(labels_SG, np.float64)
    _require_finite(x, y)
    groups = spot_groups(patient_S, section_S)
    target = _centred(y, section_S) if centred else y
    predicted, chosen = np.zeros_like(y), {}
    for group in np.unique(groups.code_S):
        held = groups.code_S == group
        alpha = _best_alpha(x[~held], target[~held], groups.code_S[~held], section_S[~held], alphas)
        predicted[held] = _predict(x[~held], target[~held], x[held], alpha)
        chosen[int(group)] = alpha
    by_group = {
        int(group): _score(y, predicted, section_S, groups.code_S == group)
        for group in np.unique(groups.code_S)
    }
    value = float(np.mean(list(by_group.values())))
    return Probe(value, by_group, groups.kind, 0.0, {"alpha": chosen})


def ridge_transfer(
    known_SD: NDArray[np.floating],
    known_SG: NDArray[np.floating],
    new_SD: NDArray[np.floating],
    new_SG: NDArray[np.floating],
    *,
    fit_groups: tuple[Integers, Integers],
    unit_S: Integers,
    section_S: Integers,
    alphas: Sequence[float] = ALPHAS,
) -> Probe:
    """Return the Pearson correlation of a ridge that was fitted on some spots and read on others.

    As in :func:`ridge_probe`, with one cut: what made the features may have seen the spots of the
    fit, and not the others.

    Parameters
    ----------
    known_SD, known_SG : float arrays
        Features and labels of the spots of the fit.
    new_SD, new_SG : float arrays
        Those of the others.
    fit_groups : pair of int64 arrays
        Patient and section of the spots of the fit, to choose the penalty by.
    unit_S : int64 array
        Patient, or section, of the others: values are given for each.
    section_S : int64 array
        Section of the others.
    alphas : sequence of float
        Penalties on standardised features.
    """
    x, y, new, truth = (
        np.asarray(each, np.float64) for each in (known_SD, known_SG, new_SD, new_SG)
    )
    _require_finite(x, y, new, truth)
    alpha = _best_alpha(x, y, *fit_groups, alphas)
    predicted = _predict(x, y, new, alpha)
    by_group = {
        int(unit): _score(truth, predicted, section_S, unit_S == unit) for unit in np.unique(unit_S)
    }
    value = float(np.mean(list(by_group.values())))
    return Probe(value, by_group, "unit", 0.0, {"alpha": alpha})


def _best_alpha(
    x: Floats, y: Floats, code_S: Integers, section_S: Integers, alphas: Sequence[float]
) -> float:
    """Choose by leaving groups out, or sections, or every fifth spot where nothing else is left."""
    if len(alphas) == 1:
        return float(alphas[0])
    for folds_S in (code_S, section_S, np.arange(len(x)) * 5 // len(x)):
        names = np.unique(folds_S)
        if len(names) > 1:
            break
    totals = np.zeros(len(alphas))
    for name in names:
        held = folds_S == name
        for place, alpha in enumerate(alphas):
            guess = np.zeros_like(y)
            guess[held] = _predict(x[~held], y[~held], x[held], alpha)
            totals[place] += _score(y, guess, section_S, held)
    return float(alphas[int(totals.argmax())])


def _predict(x: Floats, y: Floats, new: Floats, alpha: float) -> Floats:
    mean, width = x.mean(axis=0), x.std(axis=0)
    width = np.where(width > 1e-12, width, 1.0)
    weights, intercept = ridge_fit((x - mean) / width, y, alpha=alpha)
    predicted: Floats = (new - mean) / width @ weights + intercept
    return predicted


def _score(y: Floats, predicted: Floats, section_S: Integers, held: NDArray[np.bool_]) -> float:
    values = []
    for section in np.unique(section_S[held]):
        rows = held & (section_S == section)
        values.append(np.nan_to_num(columns_pearson(y[rows], predicted[rows])).mean())
    return float(np.mean(values))


def _centred(y: Floats, section_S: Integers) -> Floats:
    result = y.copy()
    for section in np.unique(section_S):
        result[section_S == section] -= y[section_S == section].mean(axis=0)
    return result


def logistic_probe(
    features_SD: NDArray[np.floating],
    labels_S: NDArray[Any],
    *,
    groups: Groups | None = None,
    num_folds: int = 5,
    seed: int = 0,
) -> Probe:
    """Return the balanced accuracy of a logistic regression on frozen features.

    Parameters
    ----------
    features_SD : float array, shape (num_spots, num_features)
    labels_S : array, shape (num_spots,)
        Any labels.
    groups : Groups, optional
        Held out whole, in so many folds; without them spots are, stratified by label (as for the
        identity of the section, which no other section can teach).
    num_folds : int
    seed : int

    Raises
    ------
    InputError
        A single label, or fewer groups than two.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import GroupKFold, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, labels_S = np.asarray(features_SD, np.float64), np.asarray(labels_S)
    _require_finite(x)
    names, code_S = np.unique(labels_S, return_inverse=True)
    least = int(np.bincount(code_S).min())
    folds = min(num_folds, len(np.unique(groups.code_S)) if groups else least)
    if len(names) < 2 or folds < 2:
        raise InputError(
            facts(
                "logistic probe",
                found=f"{len(names)} labels, {folds} folds",
                expected="two labels, in two groups or twice each",
                fix="give more spots or sections",
            )
        )
    if groups is None:
        cut = StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, code_S)
    else:
        cut = GroupKFold(folds).split(x, code_S, groups.code_S)
    guess_S = np.full(len(x), -1)
    for train, test in cut:
        if len(np.unique(code_S[train])) < 2:
            guess_S[test] = code_S[train][0]
            continue
        model = make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=300, class_weight="balanced")
        )
        guess_S[test] = model.fit(x[train], code_S[train]).predict(x[test])
    value = float(balanced_accuracy_score(code_S, guess_S))
    code = groups.code_S if groups else np.zeros(len(x), np.int64)
    by_group = {
        int(group): float((guess_S == code_S)[code == group].mean()) for group in np.unique(code)
    }
    kind = groups.kind if groups else "spots"
    return Probe(value, by_group, kind, 1 / len(names), {"labels": len(names), "folds": folds})


def _require_finite(*values: Floats) -> None:
    if not all(np.isfinite(each).all() for each in values):
        raise InputError(
            facts(
                "probe",
                found="values that are no number",
                expected="features and labels of all spots",
                fix="drop spots and genes that were not measured",
            )
        )
