"""A stack of bidirectional Mamba-1 blocks."""

from __future__ import annotations

from typing import Any

from seq2exp.encoders.mamba import MambaConfig, MambaEncoder
from seq2exp.encoders.registry import register_encoder, register_trunk
from seq2exp.encoders.stack import BlockTrunk
from seq2exp.nn.mamba import BiMambaBlock
from seq2exp.nn.norm import RMSNorm

__all__ = ["BiMambaEncoder", "BiMambaTrunk"]


@register_trunk("bimamba")
class BiMambaTrunk(BlockTrunk):
    """Bidirectional Mamba-1 with tied projections (the net of Seq2Exp and of Caduceus-Ph).

    With a span, the two scans of the last block stop where nobody reads on, and its gate,
    out-projection and the final norm run inside of the span. Values and gradients are those of the
    whole output; the random numbers of dropout are not.

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

    supports_packing = True

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
        blocks = (
            BiMambaBlock(d_model, dropout=dropout, init_depth=init_depth or num_layers, **mixer)
            for _ in range(num_layers)
        )
        norm = RMSNorm(d_model) if final_norm else None
        super().__init__(d_model, blocks=blocks, recompute=recompute, norm=norm)
        self.pack_reach = int(mixer.get("d_conv", 4)) - 1


@register_encoder("bimamba", MambaConfig)
class BiMambaEncoder(MambaEncoder):
    """Table, one-hot or stem, then `BiMambaTrunk`: Caduceus-Ph, also on bins above one base."""

    trunk_class = BiMambaTrunk
