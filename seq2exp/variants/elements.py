"""Whether a variant lies in a regulatory element of a gene.

Shapes: E members, N bins of the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.variants.gradient_passes import GradientPasses
from seq2exp.variants.passes import GenePasses, Predicted

__all__ = ["ElementBins"]

_BUDGET = 0.05


class ElementBins:
    """Bins of a gene's window that its reference mask calls elements.

    The mask is the mean over the members in the view that is moved least. The forced promoter is an
    element; excluded bins are none.

    Parameters
    ----------
    passes : GenePasses or GradientPasses
    predicted : Predicted
        Of the reference.
    threshold : float or None
        Smallest mask of an element; when None, the highest 5 % of the free bins are elements, ties
        with the last of them left out.
    """

    def __init__(
        self,
        passes: GenePasses | GradientPasses,
        predicted: Predicted,
        *,
        threshold: float | None,
    ) -> None:
        view = min(passes.views, key=lambda one: abs(one.view.shift))
        self.start, self.bin_size = view.window.start, passes.bin_size
        self.called_N: NDArray[np.bool_] | None = None
        if predicted.mask_ESN is None:
            return
        members: Sequence[Any] = passes.members
        mine = [number for number, member in enumerate(members) if member.view is view]
        mean_N = predicted.mask_ESN[mine, 0].mean(axis=0, dtype=np.float64)
        free_N = view.sample.valid & ~view.sample.blacklist
        promoter_N = np.zeros(len(mean_N), dtype=np.bool_)
        promoter_N[slice(*passes.promoter)] = True
        if view.window.reverse:
            free_N, promoter_N = free_N[::-1], promoter_N[::-1]
        free_N = free_N & ~promoter_N
        level = threshold
        if level is None:
            ordered = np.sort(mean_N[free_N])[::-1]
            count = int(_BUDGET * ordered.size)
            level = np.nextafter(ordered[count], np.inf) if count < ordered.size else np.inf
        self.called_N = promoter_N | (free_N & (mean_N >= level))

    def holds(self, span: tuple[int, int]) -> bool | None:
        """Tell whether a change touches an element; None for models without a mask.

        Parameters
        ----------
        span : (int, int)
            Changed bases, 0-based half-open; empty for an insertion before the first.
        """
        if self.called_N is None:
            return None
        start, end = span if span[0] < span[1] else (span[0] - 1, span[0] + 1)
        first = max((start - self.start) // self.bin_size, 0)
        last = (end - 1 - self.start) // self.bin_size + 1
        return bool(self.called_N[first : max(last, 0)].any())
