"""One score from several members: replicates of a model, strands and shifts of the window.

Shapes: M members, B variants, S bins, T tracks; further axes as the score has them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seq2exp.core.config import nearest
from seq2exp.core.errors import ConfigError, InputError, facts

__all__ = ["ENSEMBLES", "Ensembled", "ensemble", "mean_profile"]

Floats = NDArray[np.float64]

ENSEMBLES = {
    "pred": "predictions averaged over members, then scored",
    "score": "each member scored, then averaged",
}
"""Ways to make one score of several members."""


@dataclass(frozen=True, eq=False)
class Ensembled:
    """A score of several members.

    Attributes
    ----------
    score : float64 array
    sd : float64 array
        Standard deviation of the members' own scores (divided by members - 1), whichever way
        ``score`` was made; NaN where fewer than two members have one.
    num_members : int64 array
        Members that have a score of their own.
    """

    score: Floats
    sd: Floats
    num_members: NDArray[np.int64]


def ensemble(
    function: Callable[..., Floats],
    ref_M: ArrayLike,
    alt_M: ArrayLike,
    *,
    inside_M: ArrayLike | None = None,
    how: str = "pred",
) -> Ensembled:
    """Score several members together.

    Parameters
    ----------
    function : callable
        Of ``ref, alt`` or ``ref, alt, inside``, as :attr:`seq2exp.variants.scorers.Scorer.function`
        or what ``of_predictions`` returns.
    ref_M, alt_M : float arrays, members first
        Predictions in one common order of bins, strands and labels.
    inside_M : bool array, members first, optional
        Bins that count. Averaged predictions are scored where all members have the bin.
    how : str
        Key of ``ENSEMBLES``. A score of averages needs the prediction of every member: it is NaN
        where one is. An average of scores is that of the members that have one.

    Raises
    ------
    ConfigError
        The way is unknown.
    InputError
        There is no member, or not one ALT for each REF.
    """
    if how not in ENSEMBLES:
        raise ConfigError(
            facts("--ensemble", found=how, expected="a known way",
                  fix=nearest(how, list(ENSEMBLES)))
        )  # fmt: skip
    ref, alt = np.asarray(ref_M, np.float64), np.asarray(alt_M, np.float64)
    inside = None if inside_M is None else np.asarray(inside_M, np.bool_)
    counts = {len(part) for part in (ref, alt, inside) if part is not None}
    if len(counts) != 1 or counts == {0}:
        raise InputError(
            facts("members of an ensemble", found=f"{len(ref)} REF, {len(alt)} ALT",
                  expected="at least one, the same for both", fix="predict both with all members")
        )  # fmt: skip
    own_M = np.stack(
        [
            function(ref[m], alt[m], *([] if inside is None else [inside[m]]))
            for m in range(len(ref))
        ]
    )
    known_M = np.isfinite(own_M)
    num = known_M.sum(0)
    # Around the first member, so that equal scores have no spread at all.
    first = np.take_along_axis(np.where(known_M, own_M, 0.0), known_M.argmax(0)[None], 0)[0]
    away_M = np.where(known_M, own_M, first) - first
    middle = away_M.sum(0) / np.maximum(num, 1)
    # Linear values of far too high predictions: their spread is infinite, which is no error here.
    with np.errstate(over="ignore"):
        squares = np.where(known_M, (away_M - middle) ** 2, 0.0).sum(0)
    sd = np.where(num > 1, np.sqrt(squares / np.maximum(num - 1, 1)), np.nan)
    if how == "score":
        score = np.where(num > 0, first + middle, np.nan)
    else:
        more: list[Any] = [] if inside is None else [inside.all(0)]
        score = function(ref.mean(0), alt.mean(0), *more)
    return Ensembled(np.asarray(score), np.asarray(sd), np.asarray(num))


def mean_profile(logits_MBST: ArrayLike, totals_MBT: ArrayLike) -> Floats:
    """Return profiles of models that predict a shape and a total, averaged over members.

    Shapes are averaged as logits, as they are learned: ``softmax_S(mean_M logits) x mean_M total``.

    Parameters
    ----------
    logits_MBST : float array
        Unnormalised log-probabilities over bins.
    totals_MBT : float array
        Predicted counts, not their logarithms.

    Returns
    -------
    float64 array, shape (B, S, T)
    """
    logits_BST = np.asarray(logits_MBST, np.float64).mean(0)
    raised = np.exp(logits_BST - logits_BST.max(1, keepdims=True))
    totals_BT = np.asarray(totals_MBT, np.float64).mean(0)
    return np.asarray(raised / raised.sum(1, keepdims=True) * totals_BT[:, None])
