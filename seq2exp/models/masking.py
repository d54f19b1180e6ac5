"""From the Beta of every bin to the mask the predictor sees: drawing, forcing, central bins.

Shapes: B batch, N bins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from seq2exp.nn.beta import BetaParameters

__all__ = ["MaskMode", "central_span", "draw_mask", "force_mask"]

MaskMode = Literal["soft", "hard", "none"]


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


def _soft(q: BetaParameters, *, sample: bool) -> Tensor:
    return q.rsample() if sample else q.mean()


def _hard(q: BetaParameters, *, sample: bool) -> Tensor:
    """0 or 1 with the gradient of the soft mask (straight-through)."""
    soft_BN = _soft(q, sample=sample)
    kept_BN = soft_BN >= 0.5 if sample else q.alpha_BN >= q.beta_BN
    # The bracket is exactly 0, so the value is exactly 0 or 1.
    return kept_BN.to(soft_BN.dtype) + (soft_BN - soft_BN.detach())


_MODES: dict[str, Callable[..., Tensor]] = {"soft": _soft, "hard": _hard}


def draw_mask(mode: MaskMode, q: BetaParameters, *, sample: bool) -> Tensor:
    """Make the mask of one mode before anything is forced, shape (batch, bins).

    Parameters
    ----------
    mode : str
        "soft": the sample, or the mean. "hard": 1 where the sample is at least 0.5, or where
        alpha >= beta; its gradient is that of the soft mask.
    q : BetaParameters
        Distribution of every bin.
    sample : bool
        Draw from `q` (training) instead of taking its mean (test).
    """
    return _MODES[mode](q, sample=sample)


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
