"""Mamba-1 blocks that read from left to right only (Gu and Dao, arXiv 2312.00752).

Shapes: B batch, L positions, S positions of a span, D model width, E inner width.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.nn.mamba import MambaDirection, MixerBlock, dt_rank, project_in

__all__ = ["MambaBlock", "MambaMixer"]


class MambaMixer(nn.Module):
    """In-projection, causal convolution and scan, gate, out-projection.

    Parameters
    ----------
    d_model : int
        Width of the residual stream.
    d_state, d_conv, expand : int
        States per channel, convolution taps, inner width over model width.
    init_depth : int
        The out-projection starts smaller by ``sqrt(init_depth)``: the number of blocks of the net.
    out_gain : float
        The out-projection starts with this times its usual size.
    backend : str
        Backend of the selective scan.
    **step
        dt_min, dt_max: see `seq2exp.nn.mamba.MambaDirection`.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        init_depth: int = 1,
        out_gain: float = 1.0,
        backend: str = "auto",
        **step: float,
    ) -> None:
        super().__init__()
        d_inner = expand * d_model
        self.backend = backend
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=False)
        self.fwd = MambaDirection(
            d_inner,
            d_state=d_state,
            d_conv=d_conv,
            rank=dt_rank(d_model),
            reverse=False,
            **step,
        )
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)
        with torch.no_grad():
            self.out_proj.weight *= out_gain / math.sqrt(init_depth)

    def forward(
        self,
        u_BLD: Tensor,
        mask_BL: Tensor | None = None,
        *,
        span: tuple[int, int] | None = None,
        starts_BL: Tensor | None = None,
    ) -> Tensor:
        """Mix along the sequence; `mask_BL` gates the convolution input and the step size.

        Parameters
        ----------
        span : tuple of int, optional
            Half-open run of positions that is returned; what lies right of it is not computed.
        starts_BL : bool tensor, shape (batch, length), optional
            First positions of packed sequences, which do not see each other.
        """
        first, stop = (0, u_BLD.shape[1]) if span is None else span
        u_BLD = u_BLD[:, :stop]
        x_BLE, z_BSE = project_in(self.in_proj, u_BLD, (first, stop))
        mask_BL1 = None
        if mask_BL is not None:
            mask_BL1 = mask_BL[:, :stop, None]
            x_BLE = x_BLE * mask_BL1.to(x_BLE.dtype)
        y_BSE = self.fwd(
            x_BLE,
            mask_BL1,
            z_BLE=z_BSE if first == 0 else None,
            starts_BL=None if starts_BL is None else starts_BL[:, :stop],
            backend=self.backend,
        )[:, first:]
        if first:
            y_BSE = y_BSE * F.silu(z_BSE)
        out_BSD: Tensor = self.out_proj(y_BSE)
        return out_BSD

    def flops_per_position(self) -> int:
        """Count the operations at one position."""
        shared = 2 * (self.in_proj.weight.numel() + self.out_proj.weight.numel())
        return shared + self.fwd.flops_per_position()

    def kept_per_position(self) -> int:
        """Count the numbers kept at one position.

        Input (D), in-projection (2 E), gated output of the scan (E), and what the direction keeps.
        """
        d_inner, d_model = self.out_proj.in_features, self.out_proj.out_features
        return d_model + 3 * d_inner + self.fwd.kept_per_position()


class MambaBlock(MixerBlock):
    """Pre-norm residual block around `MambaMixer`.

    Parameters
    ----------
    dropout : float
        Dropout on the output of the mixer.
    **mixer
        Arguments of `MambaMixer`.
    """

    def __init__(self, d_model: int, *, dropout: float = 0.0, **mixer: Any) -> None:  # noqa: ANN401
        super().__init__(d_model, MambaMixer(d_model, **mixer), dropout=dropout)

    def reads(self, span: tuple[int, int], num_positions: int) -> tuple[int, int]:
        """Positions of the input that those of `span` read: none right of it."""
        del num_positions
        return 0, span[1]
