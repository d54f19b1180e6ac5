"""A stack of bidirectional Mamba-1 blocks.

Shapes: B batch, N positions, D width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seq2exp.encoders.registry import register_trunk
from seq2exp.nn.mamba import BiMambaBlock
from seq2exp.nn.norm import RMSNorm

__all__ = ["BiMambaTrunk"]


@register_trunk("bimamba")
class BiMambaTrunk(nn.Module):
    """Bidirectional Mamba-1 with tied projections (the net of Seq2Exp and of Caduceus-Ph).

    Parameters
    ----------
    d_model : int
        Width of the hidden states.
    num_layers : int
        Blocks; 0 leaves only the final norm.
    init_depth : int, optional
        Depth that scales the out-projections at the start; the real depth when left out.
    dropout : float
        Dropout on the output of every mixer.
    recompute : bool
        Keep only the input of each block and run the block again in the backward pass.
    final_norm : bool
        Normalise the output. Without it the size of the hidden states, such as the number of motifs
        in a bin, reaches what reads them.
    **mixer
        d_state, d_conv, expand, out_gain, dt_min, dt_max, backend: see
        `seq2exp.nn.mamba.BiMambaMixer`.
    """

    causal = False
    supports_gate = True

    def __init__(
        self,
        d_model: int,
        *,
        num_layers: int,
        init_depth: int | None = None,
        dropout: float = 0.0,
        recompute: bool = False,
        final_norm: bool = True,
        **mixer: Any,  # noqa: ANN401
    ) -> None:
        super().__init__()
        self.out_dim = d_model
        self.pack_reach = int(mixer.get("d_conv", 4)) - 1
        self.recompute = recompute
        self.layers = nn.ModuleList(
            BiMambaBlock(d_model, dropout=dropout, init_depth=init_depth or num_layers, **mixer)
            for _ in range(num_layers)
        )
        self.norm_f = RMSNorm(d_model) if final_norm else nn.Identity()

    def forward(self, hidden_BND: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """Hidden states of every position; `mask_BN` gates every block from inside."""
        for layer in self.layers:
            if self.recompute and self.training:
                hidden_BND = checkpoint(layer, hidden_BND, mask_BN, use_reentrant=False)
            else:
                hidden_BND = layer(hidden_BND, mask_BN)
        out_BND: Tensor = self.norm_f(hidden_BND)
        return out_BND
