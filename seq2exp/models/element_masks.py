"""Masks from candidate elements: bins that an element overlaps.

Shapes: B batch, R elements, N bins.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seq2exp.core.errors import InputError, facts
from seq2exp.models.config import Seq2ExpConfig

__all__ = ["abc_elements", "element_bins", "mask_of_elements"]


def element_bins(elements_BR2: Tensor, *, num_bins: int, bin_size: int) -> Tensor:
    """Return which bins share a base with an element, bool, shape (batch, bins).

    Parameters
    ----------
    elements_BR2 : int tensor, shape (batch, elements, 2)
        Half-open base pairs from the first base of the window; parts outside it do not count, nor
        do rows without a base, such as the padding (-1, -1).
    num_bins, bin_size : int
        Bins of the window and their base pairs.
    """
    start_BR, end_BR = elements_BR2.unbind(-1)
    first_BR = start_BR.div(bin_size, rounding_mode="floor").clamp(0, num_bins)
    last_BR = (-(-end_BR).div(bin_size, rounding_mode="floor")).clamp(0, num_bins)
    nothing_BR = (end_BR <= start_BR) | (last_BR <= first_BR)
    first_BR, last_BR = (
        torch.where(nothing_BR, num_bins, x).sort(dim=1).values.contiguous()
        for x in (first_BR, last_BR)
    )
    bins_BN = torch.arange(num_bins, device=start_BR.device, dtype=first_BR.dtype)
    bins_BN = bins_BN.expand(len(first_BR), -1).contiguous()
    begun_BN = torch.searchsorted(first_BR, bins_BN, right=True)
    return begun_BN > torch.searchsorted(last_BR, bins_BN, right=True)


def abc_elements(
    elements_BR2: Tensor,
    *,
    window_bp: int,
    nearest_bp: int,
    farthest_bp: int,
    max_elements: int,
    max_length_bp: int,
) -> Tensor:
    """Choose and trim the elements of the activity-by-contact mask of the published code.

    Distances are from the middle of the window to the middle of the element, so that a window and
    its reverse complement choose the same.

    Parameters
    ----------
    elements_BR2 : int tensor, shape (batch, elements, 2)
        As for `element_bins`, nearest to the TSS first.
    window_bp : int
        Base pairs of the window.
    nearest_bp, farthest_bp : int
        Kept are elements with ``nearest_bp < distance <= farthest_bp``.
    max_elements : int
        Of these the first so many.
    max_length_bp : int
        Longer elements lose the same number of bases on both sides until they fit.

    Returns
    -------
    int tensor, shape (batch, elements, 2)
        (-1, -1) where an element is not kept.
    """
    start_BR, end_BR = elements_BR2.unbind(-1)
    # Twice the distance, which is a whole number.
    distance_BR = (start_BR + end_BR - window_bp).abs()
    fits_BR = (end_BR > start_BR) & (distance_BR > 2 * nearest_bp)
    fits_BR = fits_BR & (distance_BR <= 2 * farthest_bp)
    fits_BR = fits_BR & (fits_BR.cumsum(1) <= max_elements)
    cut_BR = (end_BR - start_BR - max_length_bp + 1).clamp(min=0) // 2
    trimmed_BR2 = torch.stack((start_BR + cut_BR, end_BR - cut_BR), dim=-1)
    return torch.where(fits_BR[..., None], trimmed_BR2, -1)


def mask_of_elements(config: Seq2ExpConfig, elements_BR2: Tensor | None) -> Tensor:
    """Return the bins of the modes peaks (all elements) and abc, bool, shape (batch, bins).

    Parameters
    ----------
    config : Seq2ExpConfig
        Of a model whose mask is made of elements.
    elements_BR2 : int tensor, shape (batch, elements, 2)
        As for `element_bins`.

    Raises
    ------
    InputError
        No set of elements came with the batch.
    """
    if elements_BR2 is None or elements_BR2.shape[1] == 0:
        raise InputError(
            facts(
                "model input elements",
                found="no candidate elements",
                expected=f"a set of elements, which mask: {config.mask} reads",
                fix="name a set of the dataset in data.elements",
            )
        )
    if config.mask == "abc":
        elements_BR2 = abc_elements(
            elements_BR2,
            window_bp=config.window_bp,
            nearest_bp=config.abc_distance_bp[0],
            farthest_bp=config.abc_distance_bp[1],
            max_elements=config.abc_max_elements,
            max_length_bp=config.abc_element_bp,
        )
    return element_bins(elements_BR2, num_bins=config.num_bins, bin_size=config.bin_size)
