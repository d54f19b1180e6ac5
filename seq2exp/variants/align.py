"""Predictions for ALT on the bins of REF: without this, scores of positions mean nothing.

A window around the variant keeps its left or its right end when ALT is longer or shorter: one flank
stays where it is, the other moves. With ``s`` the index of the last base that REF and ALT share or
lay side by side, ``index(v) + min(n_r, n_a) - 1``, REF takes from a left-anchored ALT (rule of
google-deepmind/alphagenome_research, variant_scoring.py, for left-aligned variants)

- up to ``s``: the same index; after an insertion, at ``s`` the largest of ``s .. s + ins``
- after ``s + del``: what lies ``ins - del`` further on
- the bases that were deleted, and the last ``ins`` of the window: nothing, NaN. What is NaN in ALT
  is left out of REF too by every score.

From a right-anchored ALT it is the same seen from the other end. It is also what
:func:`seq2exp.variation.coordinates.masks_to_reference` does for windows around a TSS, at either
end of the window.

With bins of b bases only ``(ins or del) // b`` whole bins can be moved. What remains is up to the
two ways of anchoring: score both and average them, or `stitch` them.

Shapes: S bins of the window in genome direction, further axes after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seq2exp.core.errors import InputError, facts

__all__ = ["Indel", "align_alt", "stitch"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Indel:
    """Where two alleles of a window differ, in bases of REF counted from its left end.

    Attributes
    ----------
    index : int
        First base of REF of the normalised variant.
    ref_length, alt_length : int
        Bases of the alleles.
    """

    index: int
    ref_length: int
    alt_length: int

    @property
    def last(self) -> int:
        """The last base that stands in both alleles, ``s``."""
        return self.index + min(self.ref_length, self.alt_length) - 1

    @property
    def inserted(self) -> int:
        """Bases that only ALT has."""
        return max(0, self.alt_length - self.ref_length)

    @property
    def deleted(self) -> int:
        """Bases that only REF has."""
        return max(0, self.ref_length - self.alt_length)

    def is_binned(self, bin_size: int) -> bool:
        """Whether whole bins cannot make up for the change of length (``indel_binned``)."""
        return (self.inserted + self.deleted) % bin_size != 0


def align_alt(
    alt_S: ArrayLike, indel: Indel, *, bin_size: int = 1, anchored: str = "left"
) -> Floats:
    """Return predictions for ALT on the bins of REF, NaN where ALT has none.

    Parameters
    ----------
    alt_S : float array, shape (S, ...)
        In genome direction.
    indel : Indel
        The variant; of equal lengths nothing is moved.
    bin_size : int
    anchored : str
        ``left`` or ``right``: the end of the window at which REF and ALT are equal.

    Raises
    ------
    InputError
        The variant is not inside the window, or has no base that stands in both alleles.
    """
    alt = np.asarray(alt_S, np.float64)
    size, place = len(alt), indel.last // bin_size
    if anchored not in ("left", "right") or min(indel.ref_length, indel.alt_length) < 1:
        raise InputError(
            facts("variant to align", found=f"{indel}, anchored {anchored}",
                  expected="alleles of at least one base, anchored left or right",
                  fix="normalise the variant")
        )  # fmt: skip
    if not (indel.index >= 0 and indel.index + indel.ref_length <= size * bin_size):
        raise InputError(
            facts("variant to align", found=f"bases {indel.index} to {indel.last}",
                  expected=f"inside of a window of {size * bin_size}", fix="choose a longer window")
        )  # fmt: skip
    more, less = indel.inserted // bin_size, indel.deleted // bin_size
    # Where each bin of REF stands in ALT.
    there = np.arange(size)
    there[place + 1 :] += more - less
    if anchored == "right":
        there -= more - less
    known = (there >= 0) & (there < size)
    known[place + 1 : place + 1 + less] = False
    aligned = np.full(alt.shape, np.nan)
    aligned[known] = alt[there[known]]
    if more:
        first = there[place]
        pooled = alt[max(first, 0) : max(first + more + 1, 0)]
        # Bases that were pushed out of the window cannot be the largest; none left, none known.
        aligned[place] = pooled.max(0) if len(pooled) else np.nan
    return aligned


def stitch(left_S: ArrayLike, right_S: ArrayLike, indel: Indel, *, bin_size: int = 1) -> Floats:
    """Return ALT on the bins of REF, each flank from the window in which it did not move.

    Unlike either way alone it loses nothing at the ends of the window, and each flank stands on the
    very bins of REF whatever the bin (calico/baskerville).

    Parameters
    ----------
    left_S, right_S : float arrays, shape (S, ...)
        Predictions for ALT in the windows that keep their left and their right end, in genome
        direction, not aligned.
    indel : Indel
    bin_size : int
    """
    before = align_alt(left_S, indel, bin_size=bin_size, anchored="left")
    after = align_alt(right_S, indel, bin_size=bin_size, anchored="right")
    here = indel.last // bin_size
    before[here + 1 :] = after[here + 1 :]
    return before
