"""Bidirectional Mamba-1 where the two directions cannot share all their products.

`seq2exp.nn.mamba.BiMambaMixer` needs one in-projection, one gate and one out-projection because
``W (y_f + y_b) * SiLU(z)`` is linear in the sum. With the element-wise product of the two outputs
("ew_multiply"), or with projections that are not tied, each direction has its own (Schiff et al.,
arXiv 2403.03234).

Shapes: B batch, L positions, S positions of a span, D model width, E inner width.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.nn.mamba import BiMambaMixer, part_inputs, project_in
from seq2exp.nn.scan import run_scan

__all__ = ["Strategy", "TwoPassMixer"]

Strategy = Literal["add", "ew_multiply"]


class TwoPassMixer(BiMambaMixer):
    """Two whole Mamba-1 passes whose outputs are added or multiplied.

    Parameters
    ----------
    strategy : str
        "add" or "ew_multiply".
    tied : bool
        Let both directions use one in-projection and one out-projection (the products are still
        made twice, except for the in-projection and the gate).
    **mixer
        Arguments of `BiMambaMixer`.
    """

    def __init__(
        self,
        d_model: int,
        *,
        strategy: Strategy,
        tied: bool,
        **mixer: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(d_model, **mixer)
        self.strategy = strategy
        self.in_proj_rev: nn.Linear | None = None
        self.out_proj_rev: nn.Linear | None = None
        if not tied:
            other = BiMambaMixer(d_model, **mixer)
            self.in_proj_rev, self.out_proj_rev = other.in_proj, other.out_proj

    def forward(
        self,
        u_BLD: Tensor,
        mask_BL: Tensor | None = None,
        *,
        span: tuple[int, int] | None = None,
        starts_BL: Tensor | None = None,
    ) -> Tensor:
        """Mix along the sequence; the arguments are those of `BiMambaMixer.forward`."""
        first, stop = (0, u_BLD.shape[1]) if span is None else span
        mask_BL1 = None if mask_BL is None else mask_BL[..., None]
        x_BLE, gate_BSE = self._project(self.in_proj, u_BLD, mask_BL1, (first, stop))
        inputs = part_inputs(self.fwd, x_BLE, mask_BL1, starts_BL, (0, stop))
        y_BSE = run_scan(inputs, backend=self.backend)[0][:, first:]
        forward_BSD = self.out_proj(y_BSE * gate_BSE)
        if self.in_proj_rev is not None:
            x_BLE, gate_BSE = self._project(self.in_proj_rev, u_BLD, mask_BL1, (first, stop))
        inputs = part_inputs(self.rev, x_BLE, mask_BL1, starts_BL, (first, x_BLE.shape[1]))
        y_BSE = run_scan(inputs, backend=self.backend)[0]
        out_proj = self.out_proj if self.out_proj_rev is None else self.out_proj_rev
        backward_BSD = out_proj(y_BSE[:, : stop - first] * gate_BSE)
        if self.strategy == "add":
            out_BSD: Tensor = forward_BSD + backward_BSD
        else:
            out_BSD = forward_BSD * backward_BSD
        return out_BSD

    @staticmethod
    def _project(
        in_proj: nn.Linear, u_BLD: Tensor, mask_BL1: Tensor | None, span: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return the input of the convolution, and the gate inside of the span."""
        x_BLE, z_BSE = project_in(in_proj, u_BLD, span)
        if mask_BL1 is not None:
            x_BLE = x_BLE * mask_BL1.to(x_BLE.dtype)
        return x_BLE, F.silu(z_BSE)

    def flops_per_position(self) -> int:
        """Count the operations at one position: a second out-projection, and what is not tied."""
        more = 2 * self.out_proj.weight.numel()
        if self.in_proj_rev is not None:
            more += 2 * self.in_proj_rev.weight.numel()
        return super().flops_per_position() + more

    def kept_per_position(self) -> int:
        """Count the numbers kept at one position.

        Each direction keeps its scan and its product with the gate, where `BiMambaMixer` keeps
        those of the sum (2 E more); the product of the outputs keeps both (2 D); an own
        in-projection keeps its output and its gate (3 E).
        """
        d_inner, d_model = self.out_proj.in_features, self.out_proj.out_features
        more = 2 * d_inner
        if self.strategy == "ew_multiply":
            more += 2 * d_model
        if self.in_proj_rev is not None:
            more += 3 * d_inner
        return super().kept_per_position() + more
