"""Transformer over bins: rotary positions, fused attention, gated MLP; and its encoder.

Ours: no published weights. Attention over 4,096 bins of 128 bp spans 524,288 bp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from seq2exp.encoders.registry import register_encoder, register_trunk
from seq2exp.encoders.stack import BlockTrunk, require_positive
from seq2exp.encoders.window import StemEncoder, WindowConfig
from seq2exp.nn.attention import AttentionBlock, Norm, make_norm

__all__ = ["TransformerConfig", "TransformerEncoder", "TransformerTrunk"]

_INIT_STD = 0.02


@register_trunk("transformer")
class TransformerTrunk(BlockTrunk):
    """Pre-norm attention blocks with rotary positions.

    With a span, the last block asks the queries of the span only. A mask enters the attention as
    ``log m`` on the keys: 0 hides a position from all others.

    Parameters
    ----------
    d_model : int
        Width of the hidden states.
    num_layers : int
        Blocks.
    num_heads : int
        Heads; divides half the width.
    d_inner : int, optional
        Inner width of the gated MLP; 8/3 of the width, rounded up to a multiple of 8, when left
        out, which gives it the size of a plain MLP of four times the width.
    norm : str
        "rms" or "layer".
    dropout : float
        Dropout on the outputs of attention and MLP.
    recompute : bool
        Keep only the input of each block and run the block again in the backward pass.
    final_norm : bool
        Normalise the output.
    """

    def __init__(
        self,
        d_model: int,
        *,
        num_layers: int,
        num_heads: int = 8,
        d_inner: int | None = None,
        norm: Norm = "rms",
        dropout: float = 0.0,
        recompute: bool = False,
        final_norm: bool = True,
    ) -> None:
        inner = -(-8 * d_model // 24) * 8 if d_inner is None else d_inner
        require_positive("transformer", d_model=d_model, d_inner=inner)
        blocks = [
            AttentionBlock(d_model, num_heads=num_heads, d_inner=inner, norm=norm, dropout=dropout)
            for _ in range(num_layers)
        ]
        last = make_norm(norm, d_model) if final_norm else None
        super().__init__(d_model, blocks=blocks, recompute=recompute, norm=last)
        self._init_weights(num_layers)

    def _init_weights(self, num_layers: int) -> None:
        """Draw normal weights, smaller with the depth where the residual stream is added to."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim == 2:
                    nn.init.normal_(parameter, std=_INIT_STD)
                    if name.endswith(("out_proj.weight", "fc2.weight")):
                        parameter.div_(math.sqrt(2 * num_layers))


@dataclass(frozen=True)
class TransformerConfig(WindowConfig):
    """Transformer over the bins of a convolutional stem."""

    d_model: int = 256
    """Width of the hidden states."""
    num_layers: int = 6
    """Blocks."""
    num_heads: int = 8
    """Heads of the attention; divides half of d_model."""
    d_inner: int | None = None
    """Inner width of the gated MLP; 8/3 of d_model when left out."""
    norm: Norm = "rms"
    """rms or layer."""


@register_encoder("transformer", TransformerConfig)
class TransformerEncoder(StemEncoder):
    """Stem to bins, then `TransformerTrunk`.

    Parameters
    ----------
    config : TransformerConfig
        See its fields.
    tracks : tuple of str
        Tracks that are read.
    window_bp, bin_size : int
        Window and bins of the data.
    """

    def __init__(
        self, config: TransformerConfig, *, tracks: tuple[str, ...], window_bp: int, bin_size: int
    ) -> None:
        trunk = TransformerTrunk(
            num_heads=config.num_heads,
            d_inner=config.d_inner,
            norm=config.norm,
            **config.trunk_keywords(),
        )
        super().__init__(config, trunk, tracks=tracks, window_bp=window_bp, bin_size=bin_size)
