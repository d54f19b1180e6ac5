"""Saturation mutagenesis: the predicted effect of every substitution in a stretch, one by one.

Nothing is approximated: each substitution is one pass. The share of a base is its value minus the
mean over the four bases in its place. Such shares ignore that bases act together, so they do not
sum to ``f(x) - f(x')``, with x' a quarter of each base in the whole stretch; by how much they miss
it is their completeness error.

Whole windows of one gene are explained here. Stretches of the genome for all their genes, labels
and members, which continue when killed, are the work of :mod:`seq2exp.variants.saturate`.

Shapes: L base pairs of the window, P of the stretch, C the four bases A C G T, M substitutions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2exp.core.sequence import N_CODE, NUM_BASES
from seq2exp.interpret.target import Target, columns_of

__all__ = ["Mutagenesis", "saturate", "substitutions"]


@dataclass(frozen=True, eq=False)
class Mutagenesis:
    """Effects of all substitutions of a stretch, in model direction and in the unit of the labels.

    Attributes
    ----------
    start : int
        First base of the stretch, counted from the first of the window.
    codes_P : uint8 array, shape (length,)
        Bases that are there.
    delta_PC : float32 array, shape (length, 4)
        f with the base in its place minus f as it is; 0 for the base that is there, and at N.
    value : float
        f as it is.
    baseline_value : float
        f with a quarter of each base in all places of the stretch.
    """

    start: int
    codes_P: NDArray[np.uint8]
    delta_PC: NDArray[np.float32]
    value: float
    baseline_value: float

    @property
    def share_P(self) -> NDArray[np.float32]:
        """Value of the base that is there over the mean of the four, shape (length,)."""
        share: NDArray[np.float32] = -self.delta_PC.mean(axis=1)
        return share

    @property
    def hypothetical_PC(self) -> NDArray[np.float32]:
        """Effects with the mean of each row taken off, shape (length, 4)."""
        rows: NDArray[np.float32] = self.delta_PC - self.delta_PC.mean(axis=1, keepdims=True)
        return rows

    @property
    def difference(self) -> float:
        """``f(x) - f(x')``."""
        return self.value - self.baseline_value

    @property
    def error(self) -> float:
        """Sum of the shares minus the difference."""
        return float(self.share_P.astype(np.float64).sum()) - self.difference


@torch.no_grad()
def saturate(target: Target, *, start: int, end: int, batch_size: int = 32) -> Mutagenesis:
    """Predict every substitution of a stretch of a gene's window.

    Parameters
    ----------
    target : Target
    start, end : int
        Half-open stretch in bases from the first of the window, in model direction.
    batch_size : int
        Substitutions per pass; changes speed, not numbers beyond rounding.
    """
    codes_1L, signal_1NT = target.batch.codes_BL, target.batch.signal_BNT
    codes_P = codes_1L[0, start:end].cpu().numpy()
    place_M, base_M = substitutions(codes_P)
    value = float(target(codes_1L, signal_1NT)[0])
    delta_PC = np.zeros((end - start, NUM_BASES), dtype=np.float32)
    pieces = np.array_split(np.arange(place_M.size), max(1, -(-place_M.size // batch_size)))
    for piece in pieces:
        if piece.size:
            mutants_ML = codes_1L.repeat(piece.size, 1)
            at_M = torch.from_numpy(place_M[piece] + start).to(codes_1L.device)
            to_M = torch.from_numpy(base_M[piece]).to(codes_1L.device, torch.uint8)
            mutants_ML[torch.arange(piece.size, device=at_M.device), at_M] = to_M
            found_M = target(mutants_ML, signal_1NT.expand(piece.size, -1, -1))
            delta_PC[place_M[piece], base_M[piece]] = (found_M.double() - value).cpu().numpy()
    baseline = float(target(_without_bases(target, start, end), signal_1NT)[0])
    return Mutagenesis(start, codes_P, delta_PC, value, baseline)


def substitutions(
    codes_P: NDArray[np.uint8],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return places and new bases of all substitutions: three per known base, by place, then base.

    Parameters
    ----------
    codes_P : uint8 array, shape (length,)
        Bases that are there.
    """
    place, base = np.divmod(np.arange(codes_P.size * NUM_BASES), NUM_BASES)
    there = codes_P[place]
    new = (there != base) & (there < N_CODE)
    return place[new], base[new]


def _without_bases(target: Target, start: int, end: int) -> Tensor:
    dtype = next(target.models[0].parameters()).dtype
    columns_1LC = columns_of(target.batch.codes_BL, dtype=dtype).clone()
    known_1P1 = (target.batch.codes_BL[:, start:end, None] < N_CODE).to(dtype)
    columns_1LC[:, start:end] = known_1P1 / NUM_BASES
    return columns_1LC
