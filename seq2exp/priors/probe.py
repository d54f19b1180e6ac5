"""What an embedding tells of genes that its model never trained on, beside its controls.

Shapes: G genes, D embedding width, K targets, M embeddings, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.dataset.store import Dataset
from seq2exp.priors.prior import GenePrior
from seq2exp.training.metrics import bootstrap_draws, interval, r2

__all__ = ["PROBES", "probe", "probe_rows", "specificity"]

PROBES = ("ridge_r2", "knn_r2")
_NEIGHBOURS = 10
_PENALTIES = np.logspace(-2, 4, 13)
_FEWEST = 20
"""Genes below which a probe says nothing."""


def probe(
    embeddings: Mapping[str, GenePrior],
    target_GK: NDArray[np.floating],
    *,
    split: str,
    target: str = "expression",
    num_resamples: int = 1000,
) -> list[dict[str, Any]]:
    """Predict targets of held-out genes from embeddings, fitted on the model's training genes.

    Parameters
    ----------
    embeddings : mapping
        From name to prior, all of the same genes; the first is compared with the others.
    target_GK : float array, shape (num_genes, num_targets)
        NaN where unknown.
    split : str
        Genes that are predicted: those of this split of the sequence model.
    target : str
        Name of the target, for the rows.
    num_resamples : int
        Bootstrap over genes, the same resamples for every embedding.

    Returns
    -------
    list of dict
        name, metric, split, target, value, low, high, n. ``ridge_r2``: ridge on the whitened
        embedding, the penalty chosen by cross-validation within the training genes. ``knn_r2``:
        mean of the ten nearest training genes by Euclidean distance in z. ``..._difference``: the
        first embedding minus this one. R2 is against the mean of the held-out genes and averaged
        over targets. Empty where fewer than 20 genes are on either side.
    """
    first = next(iter(embeddings.values()))
    values_GK = np.asarray(target_GK, np.float64)
    usable = first.present & np.isfinite(values_GK).all(axis=1)
    train, held = usable & (first.split == "train"), usable & (first.split == split)
    if min(train.sum(), held.sum()) < _FEWEST or not values_GK.shape[1]:
        return []
    rows = []
    for metric in PROBES:
        guess = _ridge if metric == "ridge_r2" else _nearest
        predicted = np.stack([guess(p, values_GK, train, held) for p in embeddings.values()])
        rows += _score(
            list(embeddings),
            values_GK[held],
            predicted,
            metric=metric,
            split=split,
            target=target,
            num_resamples=num_resamples,
        )
    return rows


def _ridge(
    prior: GenePrior, target_GK: NDArray[np.float64], train: NDArray[np.bool_], held: NDArray[Any]
) -> NDArray[np.float64]:
    from sklearn.linear_model import RidgeCV

    z_GD = prior.transform(train).z
    fitted = RidgeCV(alphas=_PENALTIES).fit(z_GD[train], target_GK[train])
    return np.asarray(fitted.predict(z_GD[held]), np.float64).reshape(int(held.sum()), -1)


def _nearest(
    prior: GenePrior, target_GK: NDArray[np.float64], train: NDArray[np.bool_], held: NDArray[Any]
) -> NDArray[np.float64]:
    from sklearn.neighbors import KNeighborsRegressor

    model = KNeighborsRegressor(min(_NEIGHBOURS, int(train.sum())))
    model.fit(prior.z[train], target_GK[train])
    return np.asarray(model.predict(prior.z[held]), np.float64).reshape(int(held.sum()), -1)


def _score(
    names: list[str],
    observed_GK: NDArray[np.float64],
    predicted_MGK: NDArray[np.float64],
    *,
    metric: str,
    split: str,
    target: str,
    num_resamples: int,
) -> list[dict[str, Any]]:
    draws = bootstrap_draws(observed_GK, predicted_MGK, ("r2",), num_resamples=num_resamples)
    draws_RM = draws["r2"].mean(axis=2)
    value_M = [
        float(np.mean([r2(observed_GK[:, k], guess[:, k]) for k in range(guess.shape[1])]))
        for guess in predicted_MGK
    ]
    rows = []
    for m, name in enumerate(names):
        found = {metric: (value_M[m], draws_RM[:, m])}
        if m:
            found[f"{metric}_difference"] = (
                value_M[0] - value_M[m],
                draws_RM[:, 0] - draws_RM[:, m],
            )
        for label, (value, draw) in found.items():
            one = interval(value, draw, n=len(observed_GK))
            rows.append(one.row(name, label, split=split, target=target))
    return rows


def specificity(labels_GK: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return each label minus the mean of the others: how specific a gene is for a sample."""
    labels = np.asarray(labels_GK, np.float64)
    others = labels.shape[1] - 1
    if others < 1:
        return np.empty((len(labels), 0))
    specific_GK: NDArray[np.float64] = (
        labels - (labels.sum(axis=1, keepdims=True) - labels) / others
    )
    return specific_GK


def probe_rows(
    prior: GenePrior, dataset: Dataset, *, seed: int = 0, num_resamples: int = 1000
) -> list[dict[str, Any]]:
    """Probe a prior of a dataset and its controls: level and specificity, valid and test genes.

    The level that shuffled and nuisance may know is the expression that the model predicts. The
    targets are the labels of the samples that the model predicts, and the specificity of these
    samples among all of the dataset.
    """
    known = dataset.manifest.expression.samples
    columns = [known.index(name) for name in prior.expr_names if name in known]
    embeddings = {"prior": prior}
    for kind in ("shuffled", "random", "nuisance"):
        embeddings[kind] = prior.control(kind, seed)
    targets = {"expression": dataset.expression[:, columns].astype(np.float64)}
    specific = specificity(dataset.expression)
    if specific.shape[1]:
        targets["specificity"] = specific[:, columns]
    return [
        row
        for split in ("valid", "test")
        for name, values in targets.items()
        for row in probe(embeddings, values, split=split, target=name, num_resamples=num_resamples)
    ]
