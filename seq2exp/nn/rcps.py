"""Reverse-complement equivariance by running one network on both strands (RCPS).

A window is carried as two streams: `plus` of the window as given, and `minus` of its reverse
complement, each in its own reading order. The published form keeps both in one tensor of 2D
channels, ``[plus, flip(minus)]``, flip over length and channels; that is the form of the output
here too. Reverse complementing the input exchanges the streams, so the output is flipped over
length and channels, whatever the network (Schiff et al., arXiv 2403.03234; Zhou et al., PMLR 165).

Shapes: B batch, N positions, D width of one strand, Q = 2D, V rows of the token table, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, facts
from seq2exp.nn.norm import RMSNorm

__all__ = [
    "exchanged",
    "flip_strand",
    "join_strands",
    "ph_logits",
    "ps_logits",
    "read_strands",
    "require_rms_norm",
    "split_strands",
]


def flip_strand(hidden_BND: Tensor) -> Tensor:
    """Flip over length and channels: the other strand's view of the same hidden states."""
    return hidden_BND.flip(1, 2)


def join_strands(plus_BND: Tensor, minus_BND: Tensor) -> Tensor:
    """Put both strands into one tensor ``[plus, flip(minus)]``, shape (batch, positions, 2D)."""
    return torch.cat([plus_BND, flip_strand(minus_BND)], dim=-1)


def split_strands(hidden_BNQ: Tensor) -> tuple[Tensor, Tensor]:
    """Undo `join_strands`: the strands, each in its own reading order."""
    plus_BND, flipped_BND = hidden_BNQ.chunk(2, dim=-1)
    return plus_BND, flip_strand(flipped_BND)


def exchanged(plus_BND: Tensor, minus_BND: Tensor, *, swap_halves: bool) -> tuple[Tensor, Tensor]:
    """Return what a block reads on each strand.

    The published code has two norm paths that are different functions of the same weights. The
    unfused one runs a block on each strand. The fused one exchanges the two halves of the 2D
    channels of hidden states and residual before each block (not before the final norm): with
    ``[p, q] -> [q, p]``, ``p = plus`` and ``q = flip(minus)``, each strand takes the flipped
    stream of the other. Both are equivariant, so no test of symmetry tells them apart.

    Parameters
    ----------
    plus_BND, minus_BND : float tensor, shape (batch, positions, width)
        Both strands, each in its own reading order.
    swap_halves : bool
        True for weights that were trained by the fused path.
    """
    if swap_halves:
        return flip_strand(minus_BND), flip_strand(plus_BND)
    return plus_BND, minus_BND


def require_rms_norm(module: nn.Module) -> None:
    """Refuse every norm but RMSNorm.

    Raises
    ------
    ConfigError
        Another norm: in the published fused path LayerNorm silently loses the equivariance
        (kuleshov-group/caduceus issue 63), and none was ever trained or tested with RCPS.
    """
    others = sorted(
        {
            type(part).__name__
            for part in module.modules()
            if "norm" in type(part).__name__.lower() and not isinstance(part, RMSNorm)
        }
    )
    if others:
        raise ConfigError(
            facts(
                "reverse-complement equivariant blocks",
                found=", ".join(others),
                expected="RMSNorm",
                fix="use rms_norm: true, or variant: ph",
            )
        )


def read_strands(hidden_BNQ: Tensor, read: Callable[[Tensor], Tensor]) -> Tensor:
    """Average of one head over both strands: the same for a window and its reverse complement.

    Parameters
    ----------
    hidden_BNQ : float tensor, shape (batch, positions, 2D)
        Equivariant hidden states, of the whole window or of a span that mirrors onto itself.
    read : callable
        Pooling and head, from shape (batch, positions, D) to (batch, outputs).
    """
    plus_BND, minus_BND = split_strands(hidden_BNQ)
    return (read(plus_BND) + read(minus_BND)) / 2


def ph_logits(hidden_BND: Tensor, table_VD: Tensor) -> Tensor:
    """Token logits of the language-model head that is tied to the token table, ``W h``."""
    return F.linear(hidden_BND, table_VD)


def ps_logits(hidden_BNQ: Tensor, table_VD: Tensor, complement_V: Tensor) -> Tensor:
    """Token logits from both strands, ``W p + W[complement] flip_C(q)``, shape (batch, N, V).

    Parameters
    ----------
    hidden_BNQ : float tensor, shape (batch, positions, 2D)
        Equivariant hidden states, halves p and q.
    table_VD : float tensor, shape (rows, D)
        The token table, to which the head is tied.
    complement_V : int tensor, shape (rows,)
        Id of the complement of each token.
    """
    plus_BND, flipped_BND = hidden_BNQ.chunk(2, dim=-1)
    return F.linear(plus_BND, table_VD) + F.linear(flipped_BND.flip(-1), table_VD[complement_V])
