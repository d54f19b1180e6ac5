"""Attributions from gradients: gradient x input and integrated gradients.

Both give every base and every track bin its share of ``f(x) - f(x')``, x' being a baseline. The
shares of integrated gradients sum to it up to the error of the integral (Sundararajan, Taly and
Yan, ICML 2017); gradient x input is one step of that integral, at x. What is left over is the
completeness error, and comes with every result.

One-hot rows lie on a simplex, on which a gradient is known only up to a constant per position:
`hypothetical` rows are therefore centred (Majdandzic, Rajesh and Koo, Genome Biology 2023). With
the uniform baseline (a quarter of each base), centred gradient times input is exactly the share of
the base, ``(x - 1/4) . g = g[base] - mean(g)``.

Shapes: L base pairs, C the four bases A C G T, N bins, T tracks, S steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from seq2exp.core.dinucleotides import shuffle_dinucleotides
from seq2exp.core.sequence import N_CODE
from seq2exp.interpret.target import Target, columns_of

__all__ = [
    "Baseline",
    "Shares",
    "base_baselines",
    "centred",
    "gradient_x_input",
    "integrated_gradients",
    "real_input",
    "track_shares",
]

Baseline = Literal["uniform", "shuffled", "n", "zero"]
"""Of bases. uniform: a quarter of each. shuffled: dinucleotide shuffles. n, zero: no base at all;
the two are one, because N is the zero row."""


@dataclass(frozen=True, eq=False)
class Shares:
    """What each input contributes, in model direction and in the unit of the labels.

    Attributes
    ----------
    share : float tensor, shape (length,) for bases, (bins, tracks) for tracks
        Contribution of the base, or of the signal of the bin.
    hypothetical_LC : float tensor, shape (length, 4), or None
        What each base would contribute in its place, centred; None for tracks.
    value : float
        f(x).
    baseline_value : float
        f(x'), the mean over baselines.
    """

    share: Tensor
    hypothetical_LC: Tensor | None
    value: float
    baseline_value: float

    @property
    def difference(self) -> float:
        """``f(x) - f(x')``, to which the shares should sum."""
        return self.value - self.baseline_value

    @property
    def error(self) -> float:
        """Completeness error: sum of the shares minus the difference."""
        return float(self.share.double().sum()) - self.difference


def real_input(target: Target) -> tuple[Tensor, Tensor]:
    """One-hot columns and signal of the gene, shapes (1, length, 4) and (1, bins, tracks)."""
    signal_BNT = target.batch.signal_BNT
    dtype = next(target.models[0].parameters()).dtype
    return columns_of(target.batch.codes_BL, dtype=dtype), signal_BNT


def base_baselines(
    target: Target, kind: Baseline, *, num_shuffles: int, random: np.random.Generator
) -> Tensor:
    """Rows that stand for no information, shape (baselines, length, 4); N stays N in all of them.

    Parameters
    ----------
    target : Target
    kind : str
        See `Baseline`.
    num_shuffles : int
        How many shuffles; one baseline for the other kinds.
    random : numpy Generator
        Draws the shuffles.
    """
    x_1LC, _ = real_input(target)
    if kind == "shuffled":
        codes = target.batch.codes_BL[0].cpu().numpy()
        drawn = [shuffle_dinucleotides(codes, random) for _ in range(num_shuffles)]
        shuffled = torch.from_numpy(np.stack(drawn)).to(x_1LC.device)
        return columns_of(shuffled, dtype=x_1LC.dtype)
    if kind == "uniform":
        known_1L = target.batch.codes_BL < N_CODE
        return (known_1L[..., None] / 4).to(x_1LC.dtype).expand_as(x_1LC)
    return torch.zeros_like(x_1LC)


def centred(rows_LC: Tensor, codes_L: Tensor) -> Tensor:
    """Take the mean off every row, and set rows of N to 0, shape (length, 4)."""
    known_L1 = (codes_L < N_CODE)[:, None]
    return torch.where(known_L1, rows_LC - rows_LC.mean(1, keepdim=True), 0.0)


def gradient_x_input(target: Target, baselines: Tensor) -> Shares:
    """``(x - x') . gradient at x`` of every base; the signal is as it is.

    Parameters
    ----------
    target : Target
    baselines : float tensor, shape (baselines, length, 4)
        From `base_baselines`; the mean of them counts.
    """
    x_1LC, signal_BNT = real_input(target)
    leaf = x_1LC.clone().requires_grad_()
    value = target(leaf, signal_BNT)
    grad_1LC = _gradient(value, leaf)
    share_L = _product(x_1LC - baselines.mean(0, keepdim=True), grad_1LC)[0].sum(-1)
    return Shares(
        share_L,
        centred(grad_1LC[0], target.batch.codes_BL[0]),
        float(value.detach()[0]),
        _mean_value(target, baselines, signal_BNT),
    )


def integrated_gradients(
    target: Target, baselines: Tensor, *, steps: int = 64, batch_size: int = 16
) -> Shares:
    """Integral of the gradient on the straight line from each baseline to the bases.

    Parameters
    ----------
    target : Target
    baselines : float tensor, shape (baselines, length, 4)
        The shares are the mean over them.
    steps : int
        Points of the Gauss-Legendre rule per baseline.
    batch_size : int
        Points per pass; changes speed, not numbers beyond rounding.
    """
    x_1LC, signal_BNT = real_input(target)
    share_L = x_1LC.new_zeros(x_1LC.shape[1])
    mean_LC = torch.zeros_like(x_1LC[0])
    for baseline_LC in baselines:
        grad_LC = torch.zeros_like(mean_LC)
        for place_S, weight_S in _points(steps, batch_size, like=x_1LC):
            path_SLC = torch.lerp(baseline_LC[None], x_1LC, place_S[:, None, None]).requires_grad_()
            value_S = target(path_SLC, signal_BNT.expand(len(place_S), -1, -1))
            grad_LC += torch.einsum("s,slc->lc", weight_S, _gradient(value_S, path_SLC))
        share_L += _product(x_1LC[0] - baseline_LC, grad_LC).sum(-1) / len(baselines)
        mean_LC += grad_LC / len(baselines)
    with torch.no_grad():
        value = float(target(x_1LC, signal_BNT)[0])
    return Shares(
        share_L,
        centred(mean_LC, target.batch.codes_BL[0]),
        value,
        _mean_value(target, baselines, signal_BNT),
    )


def track_shares(target: Target, *, steps: int | None, batch_size: int = 16) -> Shares:
    """Contribution of every track bin against no signal (0); the bases are as they are.

    Parameters
    ----------
    target : Target
    steps : int, optional
        Points of the integral; the gradient at the signal alone when not given.
    batch_size : int
        Points per pass.
    """
    x_1LC, signal_1NT = real_input(target)
    grad_NT = torch.zeros_like(signal_1NT[0])
    points = _points(steps, batch_size, like=signal_1NT) if steps else [_at_the_signal(signal_1NT)]
    for place_S, weight_S in points:
        # NaN says that there are no data, in the baseline too.
        path_SNT = (signal_1NT * place_S[:, None, None]).requires_grad_()
        value_S = target(x_1LC.expand(len(place_S), -1, -1), path_SNT)
        grad_SNT = torch.nan_to_num(_gradient(value_S, path_SNT))
        grad_NT += torch.einsum("s,snt->nt", weight_S, grad_SNT)
    with torch.no_grad():
        value = float(target(x_1LC, signal_1NT)[0])
        baseline = float(target(x_1LC, signal_1NT * 0)[0])
    return Shares(_product(torch.nan_to_num(signal_1NT[0]), grad_NT), None, value, baseline)


def _at_the_signal(like: Tensor) -> tuple[Tensor, Tensor]:
    one = torch.ones(1, dtype=like.dtype, device=like.device)
    return one, one


def _points(steps: int, batch_size: int, *, like: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Places on [0, 1] and weights of the Gauss-Legendre rule, in batches."""
    place, weight = np.polynomial.legendre.leggauss(steps)
    place_S = torch.as_tensor((place + 1) / 2, dtype=like.dtype, device=like.device)
    weight_S = torch.as_tensor(weight / 2, dtype=like.dtype, device=like.device)
    size = max(1, batch_size)
    return list(zip(torch.split(place_S, size), torch.split(weight_S, size), strict=True))


def _gradient(value_S: Tensor, inputs: Tensor) -> Tensor:
    """Gradient of each value by its own row of inputs; 0 where the models do not read them."""
    if not value_S.requires_grad:
        return torch.zeros_like(inputs)
    (gradient,) = torch.autograd.grad(value_S.sum(), inputs, materialize_grads=True)
    return gradient


def _product(change: Tensor, gradient: Tensor) -> Tensor:
    """Multiply; where nothing changes the share is 0, whatever the gradient (sqrt at 0: inf)."""
    return torch.where(change == 0, 0.0, change * gradient)


@torch.no_grad()
def _mean_value(target: Target, baselines: Tensor, signal_BNT: Tensor) -> float:
    values = [float(target(one[None], signal_BNT)[0]) for one in baselines]
    return float(np.mean(values))
