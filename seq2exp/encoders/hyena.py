"""HyenaDNA (Nguyen et al., arXiv 2306.15794) over bases or bins, and its encoder."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from seq2exp.core.errors import ConfigError, facts
from seq2exp.encoders.registry import register_encoder, register_trunk
from seq2exp.encoders.stack import BlockTrunk, require_positive
from seq2exp.encoders.window import CharConfig, CharEncoder
from seq2exp.nn.hyena import HyenaBlock, WideLayerNorm

__all__ = ["HyenaConfig", "HyenaEncoder", "HyenaTrunk"]

_INIT_STD = 0.02
_SPECIAL_TOKENS = 2


@register_trunk("hyena")
class HyenaTrunk(BlockTrunk):
    """Hyena operators of order 2 and MLPs: a position sees itself and what lies left of it.

    With a span, nothing right of its end is computed; the filter keeps its time scale, `l_max`. A
    mask multiplies what a position gives to both convolutions: 0 hides it.

    Parameters
    ----------
    d_model : int
        Width of the hidden states.
    num_layers : int
        Blocks.
    l_max : int
        Longest sequence; the filter's time runs from 0 to 1 over it. For bins, give the number of
        positions of the window.
    d_inner : int, optional
        Width of the hidden layer of the MLPs; four times the width when left out.
    filter_width : int
        Width of the filter network.
    filter_shift : float
        Added to the decay of the filters.
    dropout : float
        Dropout on the outputs of operator and MLP.
    recompute : bool
        Keep only the input of each block and run the block again in the backward pass.
    final_norm : bool
        Normalise the output.
    """

    causal = True

    def __init__(
        self,
        d_model: int,
        *,
        num_layers: int,
        l_max: int = 200_002,
        d_inner: int | None = None,
        filter_width: int = 64,
        filter_shift: float = 0.0,
        dropout: float = 0.0,
        recompute: bool = False,
        final_norm: bool = True,
    ) -> None:
        inner = 4 * d_model if d_inner is None else d_inner
        require_positive(
            "hyena", d_model=d_model, d_inner=inner, l_max=l_max, filter_width=filter_width
        )
        blocks = [
            HyenaBlock(
                d_model,
                l_max=l_max,
                d_inner=inner,
                filter_width=filter_width,
                filter_shift=filter_shift,
                dropout=dropout,
            )
            for _ in range(num_layers)
        ]
        norm = WideLayerNorm(d_model) if final_norm else None
        super().__init__(d_model, blocks=blocks, recompute=recompute, norm=norm)
        self._init_weights(num_layers)

    def _init_weights(self, num_layers: int) -> None:
        """Draw normal weights, smaller where the residual stream is added to; zero the biases."""
        with torch.no_grad():
            for name, module in self.named_modules():
                if not isinstance(module, nn.Linear):
                    continue
                nn.init.normal_(module.weight, std=_INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
                if name.endswith(("out_proj", "fc2")):
                    module.weight /= math.sqrt(2 * num_layers)


@dataclass(frozen=True)
class HyenaConfig(CharConfig):
    """HyenaDNA; the defaults are the published comparison's."""

    embedding_dropout: float = 0.1
    """Dropout on the embedded bases, before the first block."""
    l_max: int | None = None
    """Longest sequence, which scales the time of the filters; when left out, the bins of the window
    and two special tokens, as published."""
    d_inner: int | None = None
    """Width of the hidden layer of the MLPs; four times d_model when left out."""
    filter_width: int = 64
    """Width of the filter networks."""
    filter_shift: float = 0.0
    """Added to the decay of the filters; 0.05 in the stand-alone HyenaDNA and its port to
    transformers, 0 in the code of its training."""


@register_encoder("hyena", HyenaConfig)
class HyenaEncoder(CharEncoder):
    """Table, one-hot or stem, then `HyenaTrunk`.

    Parameters
    ----------
    config : HyenaConfig
        See its fields.
    tracks : tuple of str
        Tracks that are read; none with the table.
    window_bp, bin_size : int
        Window and bins of the data.
    """

    def __init__(
        self, config: HyenaConfig, *, tracks: tuple[str, ...], window_bp: int, bin_size: int
    ) -> None:
        num_bins = window_bp // bin_size
        l_max = num_bins + _SPECIAL_TOKENS if config.l_max is None else config.l_max
        if l_max < num_bins:
            raise ConfigError(
                facts(
                    "encoder 'hyena', l_max",
                    found=f"{l_max} for a window of {num_bins} bins",
                    expected="at least the number of bins",
                    fix="leave l_max out, or use a shorter window",
                )
            )
        trunk = HyenaTrunk(
            l_max=l_max,
            d_inner=config.d_inner,
            filter_width=config.filter_width,
            filter_shift=config.filter_shift,
            **config.trunk_keywords(),
        )
        super().__init__(config, trunk, tracks=tracks, window_bp=window_bp, bin_size=bin_size)
