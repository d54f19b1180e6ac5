"""From the posterior of every bin to the mask the predictor sees: drawing, choosing, forcing.

Shapes: B batch, N bins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from seq2exp.nn.posterior import MaskPosterior

__all__ = [
    "BINARY_MODES",
    "ELEMENT_MODES",
    "LEARNED_MODES",
    "GateKind",
    "MaskMode",
    "central_span",
    "draw_mask",
    "force_mask",
    "top_bins",
]

MaskMode = Literal["soft", "hard", "retrain", "peaks", "abc", "none"]
GateKind = Literal["multiply", "delta", "pack"]
LEARNED_MODES = ("soft", "hard")
"""Modes with a posterior that is trained."""
ELEMENT_MODES = ("peaks", "abc")
"""Modes that read candidate elements."""
BINARY_MODES = ("hard", "retrain", *ELEMENT_MODES)
"""Modes whose mask holds nothing but 0 and 1."""


def central_span(num_bins: int, *, bin_size: int, central_bp: int) -> tuple[int, int]:
    """Bins that overlap the central `central_bp` of a window, as a half-open span of bins.

    The centre lies at base ``num_bins * bin_size / 2``. The span mirrors onto itself, so it is the
    same for a window and its reverse complement. It is empty for 0 bp and never leaves the window.

    >>> central_span(128, bin_size=16, central_bp=200)
    (57, 71)
    >>> central_span(10, bin_size=1, central_bp=4)
    (3, 7)
    """
    if central_bp <= 0:
        return num_bins // 2, num_bins // 2
    # In half bases, so that odd lengths stay exact.
    outside = num_bins * bin_size - central_bp
    skipped = max(0, outside // (2 * bin_size))
    return skipped, num_bins - skipped


def _soft(q: MaskPosterior, *, sample: bool) -> Tensor:
    return q.rsample() if sample else q.mean()


def _hard(q: MaskPosterior, *, sample: bool) -> Tensor:
    """0 or 1 with the gradient of the soft mask (straight-through)."""
    soft_BN = _soft(q, sample=sample)
    kept_BN = soft_BN >= 0.5 if sample else q.kept()
    # The bracket is exactly 0, so the value is exactly 0 or 1.
    return kept_BN.to(soft_BN.dtype) + (soft_BN - soft_BN.detach())


_MODES: dict[str, Callable[..., Tensor]] = {"soft": _soft, "hard": _hard}


def draw_mask(mode: MaskMode, q: MaskPosterior, *, sample: bool) -> Tensor:
    """Make the mask of a learned mode before anything is forced, shape (batch, bins).

    Parameters
    ----------
    mode : str
        "soft": the sample, or the mean. "hard": 1 where the sample, or the mean, is at least 0.5
        (of a Beta: where alpha >= beta); its gradient is that of the soft mask.
    q : MaskPosterior
        Distribution of every bin.
    sample : bool
        Draw from `q` (training) instead of taking its mean (test).
    """
    return _MODES[mode](q, sample=sample)


def top_bins(score_BN: Tensor, *, count: int) -> Tensor:
    """Set the `count` highest bins of each row to 1 and the others to 0; of equal ones the left.

    >>> top_bins(torch.tensor([[0.2, 0.5, 0.5, 0.5]]), count=2)
    tensor([[0., 1., 1., 0.]])
    """
    order_BN = torch.sort(score_BN, dim=1, descending=True, stable=True).indices
    return torch.zeros_like(score_BN).scatter(1, order_BN[:, :count], 1.0)


def force_mask(
    mask_BN: Tensor,
    *,
    blacklist_BN: Tensor | None = None,
    valid_BN: Tensor | None = None,
    promoter: tuple[int, int] = (0, 0),
) -> tuple[Tensor, Tensor]:
    """Set blacklisted and padded bins to 0, then the promoter to 1, so that the promoter wins.

    Parameters
    ----------
    mask_BN : float tensor, shape (batch, bins)
    blacklist_BN : bool tensor, shape (batch, bins), optional
        True where the mask must be 0.
    valid_BN : bool tensor, shape (batch, bins), optional
        False where the bin lies outside the contig.
    promoter : tuple of int
        Half-open span of bins.

    Returns
    -------
    mask_BN : float tensor, shape (batch, bins)
    free_BN : bool tensor, shape (batch, bins)
        True where nothing was forced.
    """
    free_BN = torch.ones_like(mask_BN, dtype=torch.bool)
    if blacklist_BN is not None:
        free_BN = free_BN & ~blacklist_BN
    if valid_BN is not None:
        free_BN = free_BN & valid_BN
    mask_BN = torch.where(free_BN, mask_BN, 0.0)
    bins_N = torch.arange(mask_BN.shape[1], device=mask_BN.device)
    promoter_N = (bins_N >= promoter[0]) & (bins_N < promoter[1])
    return torch.where(promoter_N, 1.0, mask_BN), free_BN & ~promoter_N
