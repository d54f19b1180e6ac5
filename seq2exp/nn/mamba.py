"""Bidirectional Mamba-1 blocks with tied projections, and gating by a mask inside the scan.

The block computes ``W_out (y_f + y_b) * SiLU(z)`` with one in-projection, one gate and one
out-projection: with tied projections this equals running the two directions one after the other
(specification: Su et al., arXiv 2502.13991, and Schiff et al., arXiv 2403.03234; the mathematics of
one direction is Gu and Dao, arXiv 2312.00752).

Shapes: B batch, L positions, S positions of a span, D model width, E inner width, N states,
R rank of the step size.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.nn.conv import depthwise_conv
from seq2exp.nn.norm import RMSNorm
from seq2exp.nn.scan import ScanInputs, bidirectional_scan, run_scan
from seq2exp.nn.scan.inputs import TILE

__all__ = [
    "BiMambaBlock",
    "BiMambaMixer",
    "MambaDirection",
    "MixerBlock",
    "dt_rank",
    "part_inputs",
    "project_in",
]

_STEP_MIN, _STEP_MAX, _STEP_FLOOR = 1e-3, 1e-1, 1e-4


def dt_rank(d_model: int) -> int:
    """Rank of the step-size projection, ``ceil(d_model / 16)``."""
    return math.ceil(d_model / 16)


class MambaDirection(nn.Module):
    """What one direction owns: convolution, x and step projections, decay rates, skip.

    Parameters
    ----------
    d_inner : int
        Inner width.
    d_state : int
        States per channel.
    d_conv : int
        Taps of the depthwise convolution.
    rank : int
        Rank of the step-size projection.
    reverse : bool
        Run from the right end to the left, with an anti-causal convolution.
    dt_min, dt_max : float
        The first step sizes are log-uniform between these. A state that decays at rate 1 remembers
        about ``1 / dt`` positions.
    """

    def __init__(
        self,
        d_inner: int,
        *,
        d_state: int,
        d_conv: int,
        rank: int,
        reverse: bool,
        dt_min: float = _STEP_MIN,
        dt_max: float = _STEP_MAX,
    ) -> None:
        super().__init__()
        self.d_state, self.rank, self.reverse = d_state, rank, reverse
        bound = 1 / math.sqrt(d_conv)
        self.conv_weight = nn.Parameter(torch.empty(d_inner, d_conv).uniform_(-bound, bound))
        self.conv_bias = nn.Parameter(torch.zeros(d_inner))
        self.x_proj = nn.Linear(d_inner, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, d_inner)
        states_EN = torch.arange(1, d_state + 1, dtype=torch.float32).repeat(d_inner, 1)
        self.A_log = nn.Parameter(states_EN.log())
        self.D = nn.Parameter(torch.ones(d_inner))
        self._init_step(dt_min, dt_max)

    def _init_step(self, dt_min: float, dt_max: float) -> None:
        """Weights uniform within rank**-0.5; bias = inverse softplus of a log-uniform step."""
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        low, high = math.log(dt_min), math.log(dt_max)
        step_E = torch.empty_like(self.dt_proj.bias).uniform_(low, high).exp()
        step_E = step_E.clamp(min=_STEP_FLOOR)
        with torch.no_grad():
            self.dt_proj.bias.copy_(step_E + torch.log(-torch.expm1(-step_E)))

    def forward(
        self,
        x_BLE: Tensor,
        mask_BL1: Tensor | None = None,
        *,
        z_BLE: Tensor | None = None,
        starts_BL: Tensor | None = None,
        backend: str = "auto",
    ) -> Tensor:
        """Convolution and selective scan of one direction, in the order of the input.

        Parameters
        ----------
        x_BLE : float tensor, shape (batch, length, inner width)
            Output of the in-projection, already multiplied by the mask where there is one.
        mask_BL1 : float tensor, shape (batch, length, 1), optional
            Multiplies the step size; 0 leaves the state as it was.
        z_BLE : float tensor, shape (batch, length, inner width), optional
            The result is multiplied by its silu.
        starts_BL : bool tensor, shape (batch, length), optional
            First positions of packed sequences; convolution and state stay inside of each.
        """
        inputs = self.scan_inputs(x_BLE, mask_BL1, z_BLE=z_BLE, starts_BL=starts_BL)
        return run_scan(inputs, backend=backend)[0]

    def scan_inputs(
        self,
        x_BLE: Tensor,
        mask_BL1: Tensor | None = None,
        *,
        z_BLE: Tensor | None = None,
        starts_BL: Tensor | None = None,
    ) -> ScanInputs:
        """Everything up to the scan: convolution and projections; arguments as for `forward`."""
        x_BLE = depthwise_conv(
            x_BLE,
            self.conv_weight,
            self.conv_bias,
            reverse=self.reverse,
            silu=True,
            starts_BL=starts_BL,
        )
        rank_BLR, B_BLN, C_BLN = self.x_proj(x_BLE).split(
            (self.rank, self.d_state, self.d_state), dim=-1
        )
        # The scan adds the bias and takes the softplus in float32: steps are small numbers that
        # multiply a long sum, so they never stay in half precision.
        wide = torch.promote_types(self.A_log.dtype, torch.float32)
        return ScanInputs.make(
            x_BLE,
            F.linear(rank_BLR, self.dt_proj.weight),
            -torch.exp(self.A_log.to(wide)),
            B_BLN,
            C_BLN,
            D_E=self.D,
            z_BLE=z_BLE,
            delta_bias_E=self.dt_proj.bias,
            delta_softplus=True,
            step_mask_BL=None if mask_BL1 is None else mask_BL1[..., 0],
            starts_BL=starts_BL,
            reverse=self.reverse,
        )

    def flops_per_position(self) -> int:
        """Count the operations of convolution, projections and scan at one position.

        The scan counts ``9 E N``, as in the count of Gu and Dao's code: decay, injection, state,
        output.
        """
        d_inner, num_taps = self.conv_weight.shape
        products = d_inner * (self.rank + 2 * self.d_state) + self.rank * d_inner
        return 2 * num_taps * d_inner + 2 * products + 9 * d_inner * self.d_state

    def kept_per_position(self) -> int:
        """Count the numbers kept at one position beyond the input ``x_BLE``.

        With the compiled loops: the convolved input and the step size before its softplus (2 E),
        the output of the x projection (R + 2 N), and the states that the scan stores, one per tile.
        Plain torch keeps 2 E more.
        """
        d_inner = self.conv_weight.shape[0]
        return 2 * d_inner + self.rank + 2 * self.d_state + d_inner * self.d_state // TILE


class BiMambaMixer(nn.Module):
    """Two directions that share the in-projection, the gate and the out-projection.

    Parameters
    ----------
    d_model : int
        Width of the residual stream.
    d_state, d_conv, expand : int
        States per channel, convolution taps, inner width over model width.
    init_depth : int
        The out-projection starts smaller by ``sqrt(init_depth)``: the number of blocks of the
        net. The published models were started with 64 whatever their depth.
    out_gain : float
        The out-projection starts with this times its usual size; small values start the block near
        the identity.
    dt_min, dt_max : float
        See `MambaDirection`.
    backend : str
        Backend of the selective scan.
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
        dt_min: float = _STEP_MIN,
        dt_max: float = _STEP_MAX,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        d_inner = expand * d_model
        self.backend = backend
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=False)
        direction = partial(
            MambaDirection,
            d_inner,
            d_state=d_state,
            d_conv=d_conv,
            rank=dt_rank(d_model),
            dt_min=dt_min,
            dt_max=dt_max,
        )
        self.fwd, self.rev = direction(reverse=False), direction(reverse=True)
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
            Half-open run of positions that is returned. The forward direction then stops at its
            end, the backward direction at its start, and gate and out-projection run inside of it.
        starts_BL : bool tensor, shape (batch, length), optional
            First positions of packed sequences, which do not see each other.
        """
        first, stop = (0, u_BLD.shape[1]) if span is None else span
        x_BLE, z_BSE = project_in(self.in_proj, u_BLD, (first, stop))
        mask_BL1 = None
        if mask_BL is not None:
            mask_BL1 = mask_BL[..., None]
            x_BLE = x_BLE * mask_BL1.to(x_BLE.dtype)
        forward, backward = (
            part_inputs(direction, x_BLE, mask_BL1, starts_BL, seen)
            for direction, seen in ((self.fwd, (0, stop)), (self.rev, (first, x_BLE.shape[1])))
        )
        y_BSE, back_BSE = bidirectional_scan(forward, backward, backend=self.backend)
        y_BSE = y_BSE[:, first:] + back_BSE[:, : stop - first]
        out: Tensor = self.out_proj(y_BSE * F.silu(z_BSE))
        return out

    def flops_per_position(self) -> int:
        """Count the operations at one position; the projections are shared by both directions."""
        shared = 2 * (self.in_proj.weight.numel() + self.out_proj.weight.numel())
        return shared + self.fwd.flops_per_position() + self.rev.flops_per_position()

    def kept_per_position(self) -> int:
        """Count the numbers kept at one position.

        Input (D), in-projection (2 E), sum of the directions, silu of the gate and their product
        (3 E), and what each direction keeps.
        """
        d_inner, d_model = self.out_proj.in_features, self.out_proj.out_features
        shared = d_model + 5 * d_inner
        return shared + self.fwd.kept_per_position() + self.rev.kept_per_position()


def part_inputs(
    direction: MambaDirection,
    x_BLE: Tensor,
    mask_BL1: Tensor | None,
    starts_BL: Tensor | None,
    seen: tuple[int, int],
) -> ScanInputs:
    """Make the inputs of the scan over the positions that a direction has to see.

    Parameters
    ----------
    direction : MambaDirection
    x_BLE, mask_BL1, starts_BL
        As for `MambaDirection.forward`, of the whole sequence.
    seen : tuple of int
        Half-open run of positions.
    """
    where = slice(*seen)
    return direction.scan_inputs(
        x_BLE[:, where],
        None if mask_BL1 is None else mask_BL1[:, where],
        starts_BL=None if starts_BL is None else starts_BL[:, where],
    )


def project_in(in_proj: nn.Linear, u_BLD: Tensor, span: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Project to the input of the convolution at every position and to the gate inside of a span.

    Returns
    -------
    x_BLE : tensor, shape (batch, length, inner width)
    z_BSE : tensor, shape (batch, positions of the span, inner width)
    """
    if span == (0, u_BLD.shape[1]):
        x_BLE, z_BLE = in_proj(u_BLD).chunk(2, dim=-1)
        return x_BLE, z_BLE
    x_weight_ED, z_weight_ED = in_proj.weight.chunk(2)
    return F.linear(u_BLD, x_weight_ED), F.linear(u_BLD[:, slice(*span)], z_weight_ED)


class MixerBlock(nn.Module):
    """Pre-norm residual block around a Mamba mixer.

    Parameters
    ----------
    d_model : int
        Width of the residual stream.
    mixer : Module
        `BiMambaMixer`, `MambaMixer` or one with the same methods.
    dropout : float
        Dropout on the output of the mixer.
    """

    def __init__(self, d_model: int, mixer: nn.Module, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = RMSNorm(d_model)
        self.mixer: Any = mixer
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        residual_BLD: Tensor,
        mask_BL: Tensor | None = None,
        *,
        span: tuple[int, int] | None = None,
        starts_BL: Tensor | None = None,
    ) -> Tensor:
        """Return the residual stream after the block, shape (batch, positions of span, width).

        The arguments are those of the mixer.
        """
        mixed_BSD: Tensor = self.mixer(
            self.norm(residual_BLD), mask_BL, span=span, starts_BL=starts_BL
        )
        kept_BSD = residual_BLD if span is None else residual_BLD[:, slice(*span)]
        out_BSD: Tensor = kept_BSD + self.dropout(mixed_BSD)
        return out_BSD

    def flops(self, num_positions: int) -> int:
        """Count the floating-point operations of a forward pass."""
        per_position: int = self.mixer.flops_per_position()
        return num_positions * per_position

    def kept_numbers(self, num_positions: int) -> int:
        """Count the numbers that a forward pass keeps for its backward, the input included."""
        width = len(self.norm.weight)
        dropped = width if self.dropout.p else 0
        per_position: int = self.mixer.kept_per_position() + width + 1 + dropped
        return num_positions * per_position


class BiMambaBlock(MixerBlock):
    """Pre-norm residual block around `BiMambaMixer`.

    Parameters
    ----------
    dropout : float
        Dropout on the output of the mixer.
    **mixer
        Arguments of `BiMambaMixer`.
    """

    def __init__(self, d_model: int, *, dropout: float = 0.0, **mixer: Any) -> None:  # noqa: ANN401
        super().__init__(d_model, BiMambaMixer(d_model, **mixer), dropout=dropout)

    def reads(self, span: tuple[int, int], num_positions: int) -> tuple[int, int]:
        """Positions of the input that those of `span` read: all."""
        del span
        return 0, num_positions
