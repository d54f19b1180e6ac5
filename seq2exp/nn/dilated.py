"""Residual blocks of dilated convolutions, whose reach doubles from block to block.

Shapes: B batch, L positions, S positions of a span, D width, F inner width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, facts
from seq2exp.nn.norm import RMSNorm

__all__ = ["DilatedBlock"]


class DilatedBlock(nn.Module):
    """Pre-norm dilated convolution, GELU and a projection, added to the residual stream.

    Parameters
    ----------
    d_model : int
        Width of the residual stream.
    d_inner : int
        Output channels of the convolution.
    width : int
        Taps, odd.
    dilation : int
        Positions from one tap to the next.
    out_gain : float
        The projection starts with this times its usual size.
    dropout : float
        Dropout on the output of the projection.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_inner: int,
        width: int,
        dilation: int,
        out_gain: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width < 1 or width % 2 == 0:
            raise ConfigError(
                facts(
                    "width",
                    found=f"{width} taps",
                    expected="an odd number",
                    fix="use an odd number so that the taps are centred",
                )
            )
        self.reach = (width - 1) // 2 * dilation
        self.norm = RMSNorm(d_model)
        self.conv = nn.Conv1d(d_model, d_inner, width, dilation=dilation)
        self.out_proj = nn.Linear(d_inner, d_model)
        self.dropout = nn.Dropout(dropout)
        with torch.no_grad():
            self.out_proj.weight *= out_gain
            nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        residual_BLD: Tensor,
        mask_BL: Tensor | None = None,
        *,
        span: tuple[int, int] | None = None,
    ) -> Tensor:
        """Return the residual stream after the block, shape (batch, positions of span, width).

        Positions outside of the input count as zero, so a span needs all that it reads.

        Parameters
        ----------
        mask_BL : float tensor, shape (batch, length), optional
            Multiplies what a position gives to the convolution.
        span : tuple of int, optional
            Half-open run of positions that is returned.
        """
        length = residual_BLD.shape[1]
        first, stop = (0, length) if span is None else span
        left, right = self.reads((first, stop), length)
        u_BLD = self.norm(residual_BLD[:, left:right])
        if mask_BL is not None:
            u_BLD = u_BLD * mask_BL[:, left:right, None].to(u_BLD.dtype)
        outside = (self.reach - (first - left), self.reach - (right - stop))
        hidden_BFS = self.conv(F.pad(u_BLD.transpose(1, 2), outside))
        mixed_BSD = self.out_proj(F.gelu(hidden_BFS).transpose(1, 2))
        out_BSD: Tensor = residual_BLD[:, first:stop] + self.dropout(mixed_BSD)
        return out_BSD

    def reads(self, span: tuple[int, int], num_positions: int) -> tuple[int, int]:
        """Positions of the input that those of `span` read."""
        return max(0, span[0] - self.reach), min(num_positions, span[1] + self.reach)

    def flops(self, num_positions: int) -> int:
        """Count the floating-point operations of a forward pass."""
        return 2 * num_positions * (self.conv.weight.numel() + self.out_proj.weight.numel())

    def kept_numbers(self, num_positions: int) -> int:
        """Count the numbers that a forward pass keeps for its backward, the input included.

        The input and its root mean square, the padded input of the convolution, and its output
        before and after the GELU.
        """
        d_model, d_inner = self.conv.in_channels, self.conv.out_channels
        dropped = d_model if self.dropout.p else 0
        padded = d_model * (num_positions + 2 * self.reach)
        return padded + num_positions * (d_model + 1 + 2 * d_inner + dropped)
