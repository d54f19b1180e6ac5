"""Bidirectional Mamba-1 where the two directions cannot share all their products.

`seq2exp.nn.mamba.BiMambaMixer` needs one in-projection, one gate and one out-projection because
``W (y_f + y_b) * SiLU(z)`` is linear in the sum. With the element-wise product of the two outputs
("ew_multiply"), or with projections that are not tied, each direction has its own (Schiff et al.,
arXiv 2403.03234).

Shapes: B batch, L positions, D model width, E inner width.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.nn.mamba import BiMambaMixer

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

    def forward(self, u_BLD: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """Mix along the sequence; `mask_BL` gates the convolution input and the step size."""
        mask_BL1 = None if mask_BL is None else mask_BL[..., None]
        x_BLE, gate_BLE = self._project(self.in_proj, u_BLD, mask_BL1)
        forward_BLD = self.out_proj(self.fwd(x_BLE, mask_BL1, backend=self.backend) * gate_BLE)
        if self.in_proj_rev is not None:
            x_BLE, gate_BLE = self._project(self.in_proj_rev, u_BLD, mask_BL1)
        out_proj = self.out_proj if self.out_proj_rev is None else self.out_proj_rev
        backward_BLD = out_proj(self.rev(x_BLE, mask_BL1, backend=self.backend) * gate_BLE)
        if self.strategy == "add":
            out_BLD: Tensor = forward_BLD + backward_BLD
        else:
            out_BLD = forward_BLD * backward_BLD
        return out_BLD

    @staticmethod
    def _project(
        in_proj: nn.Linear, u_BLD: Tensor, mask_BL1: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the input of the convolution and the gate."""
        x_BLE, z_BLE = in_proj(u_BLD).chunk(2, dim=-1)
        if mask_BL1 is not None:
            x_BLE = x_BLE * mask_BL1.to(x_BLE.dtype)
        return x_BLE, F.silu(z_BLE)
