"""Scores of predicted tracks: one number for each variant and track from two profiles.

Every function takes ``ref_BST``, ``alt_BST`` and ``inside_BS`` and returns ``score_BT``. A bin
counts where ``inside`` is true and neither allele is NaN, for both alleles alike; a score without
such a bin is NaN. ALT must lie on the bins of REF (`seq2exp.variants.align`). Negative values count
as 0 under logarithms, square roots and in shares of a sum. All arithmetic is in float64.

Formulas: centre and gene masks of AlphaGenome (google-deepmind/alphagenome_research), SUM to D2 of
baskerville (calico/baskerville), log2 fold change, IES and IPS of kundajelab/variant-scorer.

Shapes: B variants, S bins, T tracks, R elements of the reference.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seq2exp.core.errors import InputError, facts

__all__ = [
    "active",
    "diff_mean",
    "diff_sum",
    "distance",
    "gene_active",
    "gene_lfc",
    "ies",
    "ips",
    "jsd",
    "log2_sum",
    "log2fc",
    "sax",
    "sum_of",
]

Floats = NDArray[np.float64]
Function = Callable[[Floats], Floats]
ProfileFunction = Callable[[ArrayLike, ArrayLike, ArrayLike], Floats]

_GENE_PSEUDOCOUNT = 1e-3


def diff_sum(ref_BST: ArrayLike, alt_BST: ArrayLike, inside_BS: ArrayLike) -> Floats:
    """Return ``sum a - sum r``."""
    ref, alt, count_BT = _kept(ref_BST, alt_BST, inside_BS)
    return _known(alt.sum(1) - ref.sum(1), count_BT)


def diff_mean(ref_BST: ArrayLike, alt_BST: ArrayLike, inside_BS: ArrayLike) -> Floats:
    """Return ``mean a - mean r``."""
    ref, alt, count_BT = _kept(ref_BST, alt_BST, inside_BS)
    return _known(_mean(alt, count_BT) - _mean(ref, count_BT), count_BT)


def log2_sum(ref_BST: ArrayLike, alt_BST: ArrayLike, inside_BS: ArrayLike) -> Floats:
    """Return ``log2(1 + sum a) - log2(1 + sum r)``."""
    ref, alt, count_BT = _kept(ref_BST, alt_BST, inside_BS)
    return _known(_log2p1(alt.sum(1)) - _log2p1(ref.sum(1)), count_BT)


def sum_of(function: Function) -> ProfileFunction:
    """Return the score ``sum (f(a) - f(r))``."""

    def score(ref_BST: ArrayLike, alt_BST: ArrayLike, inside_BS: ArrayLike) -> Floats:
        ref, alt, count_BT = _kept(ref_BST, alt_BST, inside_BS)
        return _known((function(alt) - function(ref)).sum(1), count_BT)

    return score


def sax(ref_BST: ArrayLike, alt_BST: ArrayLike, inside_BS: ArrayLike) -> Floats:
    """Return ``a - r`` of the bin where its size is largest; of equal ones the first."""
    ref, alt, count_BT = _kept(ref_BST, alt_BST, inside_BS)
    change = alt - ref
    if change.shape[1] == 0:
        return _known(change.sum(1), count_BT)
    place = np.abs(change).argmax(1)[:, None]
    return _known(np.take_along_axis(change, place, 1)[:, 0], count_BT)


def distance(function: Function, *, power: int) -> ProfileFunction:
    """Return the score ``(sum abs(f(a) - f(r))^power)^(1/power)`` with power 1 or 2."""

    def score(ref_BST: ArrayLike, alt_BST: ArrayLike, inside_BS: ArrayLike) -> Floats:
        ref, alt, count_BT = _kept(ref_BST, alt_BST, inside_BS)
        change = np.abs(function(alt) - function(ref))
        total = change.sum(1) if power == 1 else np.sqrt((change**2).sum(1))
        return _known(total, count_BT)

    return score


def jsd(ref_BST: ArrayLike, alt_BST: ArrayLike, inside_BS: ArrayLike) -> Floats:
    """Return the Jensen-Shannon distance (not divergence), base 2, between 0 and 1.

    Of the shares that bins have in their sum. Two profiles without any signal are equal, 0; one
    with and one without have no distance, NaN.
    """
    ref, alt, count_BT = _kept(ref_BST, alt_BST, inside_BS)
    ref, alt = _positive(ref), _positive(alt)
    share_ref, share_alt = _share(ref), _share(alt)
    middle = (share_ref + share_alt) / 2
    both = (_relative_entropy(share_ref, middle) + _relative_entropy(share_alt, middle)) / 2
    found = np.sqrt(np.maximum(both, 0.0))
    one_empty = (ref.sum(1) > 0) != (alt.sum(1) > 0)
    return _known(np.where(one_empty, np.nan, found), count_BT)


def active(what: str) -> ProfileFunction:
    """Return the score ``max(agg a, agg r)``, agg one of ``sum``, ``mean`` and ``max``."""

    def score(ref_BST: ArrayLike, alt_BST: ArrayLike, inside_BS: ArrayLike) -> Floats:
        ref, alt, count_BT = _kept(
            ref_BST, alt_BST, inside_BS, fill=0 if what != "max" else -np.inf
        )
        if what == "max":
            largest = np.maximum(alt, ref).max(1, initial=-np.inf)
        else:
            largest = np.maximum(alt.sum(1), ref.sum(1))
            largest = largest / np.maximum(count_BT, 1) if what == "mean" else largest
        return _known(largest, count_BT)

    return score


def gene_lfc(ref_BST: ArrayLike, alt_BST: ArrayLike, inside_BS: ArrayLike) -> Floats:
    """Return ``ln(mean a + 0.001) - ln(mean r + 0.001)``; ``inside`` are the exons of the gene."""
    ref, alt, count_BT = _kept(ref_BST, alt_BST, inside_BS)
    logs = [np.log(_positive(_mean(x, count_BT)) + _GENE_PSEUDOCOUNT) for x in (alt, ref)]
    return _known(logs[0] - logs[1], count_BT)


def gene_active(ref_BST: ArrayLike, alt_BST: ArrayLike, inside_BS: ArrayLike) -> Floats:
    """Return ``max(mean a, mean r)``; ``inside`` are the exons of the gene."""
    return active("mean")(ref_BST, alt_BST, inside_BS)


def log2fc(ref_BST: ArrayLike, alt_BST: ArrayLike, inside_BS: ArrayLike) -> Floats:
    """Return ``log2(sum a / sum r)``: 0 if both sums are 0, NaN if one is."""
    ref, alt, count_BT = _kept(ref_BST, alt_BST, inside_BS)
    total_ref, total_alt = _positive(ref).sum(1), _positive(alt).sum(1)
    there = (total_ref > 0) & (total_alt > 0)
    logs = [np.log2(np.where(there, total, 1.0)) for total in (total_alt, total_ref)]
    one_empty = (total_ref > 0) != (total_alt > 0)
    return _known(np.where(one_empty, np.nan, logs[0] - logs[1]), count_BT)


def ies(ref_BST: ArrayLike, alt_BST: ArrayLike, inside_BS: ArrayLike) -> Floats:
    """Return ``abs(log2fc) x jsd``, the integrative effect size."""
    size = np.abs(log2fc(ref_BST, alt_BST, inside_BS))
    return np.asarray(size * jsd(ref_BST, alt_BST, inside_BS))


def ips(
    ref_BST: ArrayLike, alt_BST: ArrayLike, inside_BS: ArrayLike, reference_RT: ArrayLike
) -> Floats:
    """Return ``log2fc x jsd x AAQ``, the integrative prioritisation score.

    AAQ is the share of elements of the reference whose total is at most that of the allele with
    the larger one, and at least ``1 / R``.

    Parameters
    ----------
    ref_BST, alt_BST, inside_BS : arrays
        As for the other scores.
    reference_RT : float array, shape (elements, tracks)
        Predicted totals of elements of the reference.

    Raises
    ------
    InputError
        There are none, or those of other tracks.
    """
    stronger_BT = active("sum")(ref_BST, alt_BST, inside_BS)
    totals = np.sort(np.asarray(reference_RT, dtype=np.float64), axis=0)
    if totals.ndim != 2 or totals.shape[1] != stronger_BT.shape[1] or not len(totals):
        raise InputError(
            facts("totals of elements of the reference", found=f"shape {totals.shape}",
                  expected=f"elements x {stronger_BT.shape[1]} tracks, at least one element",
                  fix="predict elements of the reference with the same model")
        )  # fmt: skip
    rank_BT = np.stack(
        [np.searchsorted(totals[:, t], stronger_BT[:, t], "right") for t in range(totals.shape[1])],
        axis=1,
    )
    quantile_BT = np.maximum(rank_BT, 1) / len(totals)
    change = log2fc(ref_BST, alt_BST, inside_BS) * jsd(ref_BST, alt_BST, inside_BS)
    return np.asarray(change * quantile_BT)


def _kept(
    ref_BST: ArrayLike, alt_BST: ArrayLike, inside_BS: ArrayLike, *, fill: float = 0.0
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return both profiles with ``fill`` in the bins that do not count, and how many count."""
    ref, alt = np.asarray(ref_BST, np.float64), np.asarray(alt_BST, np.float64)
    kept = np.asarray(inside_BS, np.bool_)[..., None] & ~np.isnan(ref) & ~np.isnan(alt)
    return np.where(kept, ref, fill), np.where(kept, alt, fill), kept.sum(1)


def _known(score_BT: Floats, count_BT: NDArray[np.int64]) -> Floats:
    return np.where(count_BT > 0, score_BT, np.nan)


def _mean(values: Floats, count_BT: NDArray[np.int64]) -> Floats:
    return np.asarray(values.sum(1) / np.maximum(count_BT, 1))


def _positive(values: Floats) -> Floats:
    return np.maximum(values, 0.0)


def _share(values: Floats) -> Floats:
    total = values.sum(1, keepdims=True)
    return np.asarray(values / np.where(total > 0, total, 1.0))


def _relative_entropy(share: Floats, other: Floats) -> Floats:
    """Sum of ``p log2(p / q)``; bins without p add nothing."""
    there = share > 0
    ratio = np.where(there, share, 1.0) / np.where(there, other, 1.0)
    return np.asarray((share * np.log2(ratio)).sum(1))


def _log2p1(values: Floats) -> Floats:
    return np.log2(1 + _positive(values))
