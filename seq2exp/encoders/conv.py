"""Dilated residual convolutions over bins, and their encoder.

The stack is that of Basenji (Kelley et al., Genome Research 28:739, 2018) in a pre-norm form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from seq2exp.core.errors import ConfigError, facts
from seq2exp.encoders.registry import register_encoder, register_trunk
from seq2exp.encoders.stack import BlockTrunk, require_positive
from seq2exp.encoders.window import StemEncoder, WindowConfig
from seq2exp.nn.dilated import DilatedBlock
from seq2exp.nn.norm import RMSNorm

__all__ = ["ConvConfig", "ConvEncoder", "ConvTrunk"]


@register_trunk("conv")
class ConvTrunk(BlockTrunk):
    """Convolutions whose dilation grows by a factor from block to block.

    An output position reads ``1 + (width - 1) * sum of dilations`` positions, without holes. With a
    span only these are computed. A mask multiplies the input of every convolution, so that 0 hides
    a position.

    Parameters
    ----------
    d_model : int
        Width of the hidden states.
    num_layers : int
        Blocks.
    width : int
        Taps of every convolution, odd.
    growth : int
        Factor between the dilations of two blocks, at most `width`; 1 for none.
    cycle : int, optional
        Blocks after which the dilation starts at 1 again; never when left out.
    expand : int
        Channels of the convolution over the model width.
    dropout : float
        Dropout on the output of every block.
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
        width: int = 3,
        growth: int = 2,
        cycle: int | None = None,
        expand: int = 1,
        dropout: float = 0.0,
        recompute: bool = False,
        final_norm: bool = True,
    ) -> None:
        period = max(num_layers, 1) if cycle is None else cycle
        require_positive("conv", d_model=d_model, expand=expand, growth=growth, cycle=period)
        if growth > width:
            raise ConfigError(
                facts(
                    "conv, growth",
                    found=f"{growth} for {width} taps",
                    expected="at most the number of taps, so that no position is skipped",
                    fix=f"use growth {width} or more taps",
                )
            )
        blocks = [
            DilatedBlock(
                d_model,
                d_inner=expand * d_model,
                width=width,
                dilation=growth ** (i % period),
                out_gain=1 / math.sqrt(num_layers),
                dropout=dropout,
            )
            for i in range(num_layers)
        ]
        norm = RMSNorm(d_model) if final_norm else None
        super().__init__(d_model, blocks=blocks, recompute=recompute, norm=norm)


@dataclass(frozen=True)
class ConvConfig(WindowConfig):
    """Dilated convolutions over the bins of a convolutional stem."""

    d_model: int = 128
    """Width of the hidden states."""
    num_layers: int = 8
    """Blocks."""
    width: int = 3
    """Taps of every dilated convolution, odd."""
    growth: int = 2
    """Factor between the dilations of two blocks, at most width."""
    cycle: int | None = None
    """Blocks after which the dilation starts at 1 again; never when left out."""
    expand: int = 1
    """Channels of the convolutions over d_model."""


@register_encoder("conv", ConvConfig)
class ConvEncoder(StemEncoder):
    """Stem to bins, then `ConvTrunk`.

    Parameters
    ----------
    config : ConvConfig
        See its fields.
    tracks : tuple of str
        Tracks that are read.
    window_bp, bin_size : int
        Window and bins of the data.
    """

    def __init__(
        self, config: ConvConfig, *, tracks: tuple[str, ...], window_bp: int, bin_size: int
    ) -> None:
        trunk = ConvTrunk(
            width=config.width,
            growth=config.growth,
            cycle=config.cycle,
            expand=config.expand,
            **config.trunk_keywords(),
        )
        super().__init__(config, trunk, tracks=tracks, window_bp=window_bp, bin_size=bin_size)
