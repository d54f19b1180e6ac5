"""Causal Mamba-1 over bases or bins, and its encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from seq2exp.encoders.registry import register_encoder, register_trunk
from seq2exp.encoders.stack import BlockTrunk, require_positive
from seq2exp.encoders.window import CharConfig, CharEncoder
from seq2exp.nn.causal_mamba import MambaBlock
from seq2exp.nn.norm import RMSNorm

__all__ = ["MambaConfig", "MambaEncoder", "MambaTrunk"]


@register_trunk("mamba")
class MambaTrunk(BlockTrunk):
    """One-direction Mamba-1: a position sees itself and what lies left of it.

    With a span, nothing right of its end is computed. A mask gates convolution and step size: 0
    hides a position.

    Parameters
    ----------
    d_model : int
        Width of the hidden states.
    num_layers : int
        Blocks.
    init_depth : int, optional
        Depth that scales the out-projections at the start; the real depth when left out.
    dropout : float
        Dropout on the output of every mixer.
    recompute : bool
        Keep only the input of each block and run the block again in the backward pass.
    final_norm : bool
        Normalise the output.
    **mixer
        d_state, d_conv, expand, out_gain, dt_min, dt_max, backend: see
        `seq2exp.nn.causal_mamba.MambaMixer`.
    """

    causal = True
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
        require_positive("mamba", d_model=d_model)
        blocks = (
            MambaBlock(d_model, dropout=dropout, init_depth=init_depth or num_layers, **mixer)
            for _ in range(num_layers)
        )
        norm = RMSNorm(d_model) if final_norm else None
        super().__init__(d_model, blocks=blocks, recompute=recompute, norm=norm)


@dataclass(frozen=True)
class MambaConfig(CharConfig):
    """Causal Mamba-1; the defaults are the published comparison's."""

    d_state: int = 16
    """States per channel of the scan."""
    d_conv: int = 4
    """Taps of the convolution in each block."""
    expand: int = 2
    """Inner width over d_model."""
    init_depth: int | None = None
    """Depth that scales the out-projections at the start; the real depth when left out."""
    dt_min: float = 1e-3
    """Smallest step size of the scan at the start."""
    dt_max: float = 1e-1
    """Largest step size of the scan at the start."""
    backend: str = "auto"
    """Backend of the selective scan."""

    def mixer_keywords(self) -> dict[str, Any]:
        """Keywords of the Mamba trunks beside those that every trunk takes."""
        names = ("d_state", "d_conv", "expand", "init_depth", "dt_min", "dt_max", "backend")
        return {name: getattr(self, name) for name in names}


@register_encoder("mamba", MambaConfig)
class MambaEncoder(CharEncoder):
    """Table, one-hot or stem, then `MambaTrunk`.

    Parameters
    ----------
    config : MambaConfig
        See its fields.
    tracks : tuple of str
        Tracks that are read; none with the table.
    window_bp, bin_size : int
        Window and bins of the data.
    """

    trunk_class: Callable[..., BlockTrunk] = MambaTrunk

    def __init__(
        self, config: MambaConfig, *, tracks: tuple[str, ...], window_bp: int, bin_size: int
    ) -> None:
        trunk = type(self).trunk_class(**config.mixer_keywords(), **config.trunk_keywords())
        super().__init__(config, trunk, tracks=tracks, window_bp=window_bp, bin_size=bin_size)
