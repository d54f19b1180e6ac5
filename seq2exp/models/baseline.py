"""A sequence encoder with a read-out and a head: the models that Seq2Exp is compared with.

The common head of the published comparison: mean over the central 2,000 positions beside the scalar
features, two hidden layers of 128 (Su et al., arXiv 2502.13991, appendix).

Shapes: B batch, L base pairs, N bins, S bins that are read, T tracks, F scalar features,
R candidate elements, D width of the encoder, K outputs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from seq2exp.core.errors import ConfigError, facts
from seq2exp.encoders import build_encoder
from seq2exp.encoders.enformer import EnformerEncoder
from seq2exp.encoders.rerun import EnformerRerun, WindowRerun
from seq2exp.encoders.window import WindowEncoder
from seq2exp.models.heads import ExpressionHead, HeadActivation, Readout, ReadoutKind, band_weights
from seq2exp.models.masking import central_span
from seq2exp.models.output import (
    ModelCall,
    Seq2ExpOutput,
    expect_inputs,
    expect_shape,
    mean_with_mirrored,
)
from seq2exp.models.rerun import Shared, keep_reference
from seq2exp.models.scaling import input_moments
from seq2exp.nn.tracks import TrackScaling

__all__ = ["Baseline", "BaselineConfig"]

# Read-outs that look at the whole window.
_WHOLE = ("context", "bands")


@dataclass(frozen=True)
class BaselineConfig:
    """An encoder of the registry, what it reads, and the head on top of it."""

    encoder: str = "conv"
    """Registry name of the encoder."""
    encoder_params: dict[str, Any] = field(default_factory=dict)
    """Values of the encoder's own configuration (docs/encoders.md)."""
    tracks: tuple[str, ...] = ()
    """Track names, in the order of the signal."""
    num_features: int = 0
    """Scalar features per gene that the head reads; 0 ignores them."""
    num_outputs: int = 1
    """Predicted values per gene (biosamples)."""
    window_bp: int = 16384
    """Length of the window, even, centred on the TSS."""
    bin_size: int = 128
    """Base pairs per bin of the signal; the encoder must work on the same bins."""
    use_tracks: bool = False
    """Let the encoder read the tracks; one that cannot refuses them."""
    scale_tracks: bool = True
    """Centre and scale the tracks with the moments of the training windows, after the encoder's
    own transform (encoder_params.track_transform); no effect on encoders that do not embed them."""
    readout: ReadoutKind = "mean"
    """How the states around the TSS are pooled; encoders that pool themselves ignore it."""
    readout_bp: int = 2000
    """Central base pairs that are pooled; without effect on bands."""
    readout_width: int = 16
    """Channels per bin of the flatten read-out."""
    readout_edges: tuple[int, ...] = ()
    """Edges of the bands of the bands read-out, in base pairs from the TSS."""
    head_hidden: int = 128
    """Width of the hidden layers of the head."""
    head_layers: int = 2
    """Hidden layers of the head."""
    head_activation: HeadActivation = "relu"
    """relu or gelu."""
    head_dropout: float = 0.0
    """Dropout after every hidden layer of the head."""
    head_input_dropout: float = 0.0
    """Dropout on the pooled states that the head reads."""
    head_skip: bool = False
    """Add a linear map of what the head reads, which starts at zero, to its output."""
    scale_features: bool = True
    """Centre and scale the scalar features with the moments of the training genes."""
    feature_clip: float | None = None
    """Largest size of a scaled feature; larger ones are clipped."""
    feature_hidden: int = 0
    """Width of two hidden layers of the head that see the scalar features only; 0 for none."""
    rc_average: bool = False
    """At test, average over the window and its reverse complement."""

    # What the training step asks of every model: no information bottleneck, no auxiliary loss.
    kl_weight = 0.0
    track_loss_weight = 0.0

    def __post_init__(self) -> None:
        checks = {
            "window_bp": (
                self.window_bp > 0 and self.window_bp % self.bin_size == 0,
                f"a positive multiple of bin_size {self.bin_size}",
            ),
            "readout_bp": (self.readout_bp > 0, "at least 1"),
            "head_layers": (self.head_layers >= 0, "at least 0"),
            "use_tracks": (not self.use_tracks or bool(self.tracks), "false without tracks"),
        }
        for name, (holds, expected) in checks.items():
            if not holds:
                raise ConfigError(
                    facts(
                        f"model.{name}",
                        found=getattr(self, name),
                        expected=expected,
                        fix="change this key of the model section",
                    )
                )

    @property
    def num_bins(self) -> int:
        """Bins of the window."""
        return self.window_bp // self.bin_size


class Baseline(nn.Module):
    """Predicts expression from the hidden states of one encoder around the TSS; it has no mask.

    Parameters
    ----------
    config : BaselineConfig
        See its fields.

    Raises
    ------
    ConfigError
        The encoder does not exist, or cannot read this window, these bins or the tracks.
    """

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        self.config = config
        self.tracks = config.tracks if config.use_tracks else ()
        encoder: Any = build_encoder(
            config.encoder,
            config.encoder_params,
            tracks=self.tracks,
            window_bp=config.window_bp,
            bin_size=config.bin_size,
        )
        self.encoder = encoder
        self._require_bins()
        self.takes_elements = getattr(encoder, "takes_elements", False)
        # Both strands of an equivariant encoder go through one head.
        self.equivariant = self.encoder.rc == "equivariant"
        out_dim: int = encoder.out_dim
        width = out_dim // 2 if self.equivariant else out_dim
        self.span = self._span()
        self.readout = self._readout(width)
        self.head = ExpressionHead(
            width if self.readout is None else self.readout.out_dim,
            num_features=config.num_features,
            num_outputs=config.num_outputs,
            hidden=config.head_hidden,
            num_layers=config.head_layers,
            activation=config.head_activation,
            dropout=config.head_dropout,
            input_dropout=config.head_input_dropout,
            skip=config.head_skip,
            feature_clip=config.feature_clip,
            feature_hidden=config.feature_hidden,
        )

    def _require_bins(self) -> None:
        if self.encoder.bin_size != self.config.bin_size:
            raise ConfigError(
                facts(
                    f"encoder {self.config.encoder!r}",
                    found=f"bins of {self.config.bin_size} bp",
                    expected=f"bins of {self.encoder.bin_size} bp",
                    fix=f"set data.bin_size to {self.encoder.bin_size}",
                )
            )

    def _span(self) -> tuple[int, int] | None:
        """Bins that the read-out looks at; None where it looks at everything the encoder gives."""
        config = self.config
        if config.readout in _WHOLE or getattr(self.encoder, "pools", False):
            return None
        cropped = getattr(self.encoder, "crop_bins", 0)
        return central_span(
            config.num_bins - 2 * cropped, bin_size=config.bin_size, central_bp=config.readout_bp
        )

    def _readout(self, width: int) -> Readout | None:
        config = self.config
        if getattr(self.encoder, "pools", False):
            return None
        bands = None
        if config.readout == "bands":
            half = config.window_bp // 2
            edges = config.readout_edges or (-half, 0, half)
            bands = band_weights(edges, num_bins=config.num_bins, bin_size=config.bin_size)
        num_read = config.num_bins if self.span is None else self.span[1] - self.span[0]
        central = (0, num_read)
        if config.readout == "context":
            central = central_span(
                config.num_bins, bin_size=config.bin_size, central_bp=config.readout_bp
            )
        return Readout(
            width, kind=config.readout, span=central, width=config.readout_width, bands=bands
        )

    def forward(
        self,
        codes_BL: Tensor,
        signal_BNT: Tensor | None = None,
        features_BF: Tensor | None = None,
        *,
        blacklist_BN: Tensor | None = None,
        valid_BN: Tensor | None = None,
        elements_BR2: Tensor | None = None,
    ) -> Seq2ExpOutput:
        """Predict expression of windows that run along transcription.

        Parameters
        ----------
        codes_BL : uint8 tensor, shape (batch, window_bp)
            Bases A0 C1 G2 T3 N4; or one-hot columns A C G T, float, shape (batch, window_bp, 4),
            for gradients with respect to the bases.
        signal_BNT : float tensor, shape (batch, bins, tracks), optional
            Raw signal per bin; NaN where a track is missing.
        features_BF : float tensor, shape (batch, features), optional
            Raw scalar features; NaN where one is missing.
        blacklist_BN, valid_BN : bool tensor, shape (batch, bins), optional
            Without effect: there is no mask.
        elements_BR2 : int tensor, shape (batch, elements, 2), optional
            Candidate elements as half-open base pairs of the window, -1 where there is none; for
            encoders that read them.

        Raises
        ------
        InputError
            A tensor that does not have the shape the configuration asks for.
        """
        call = ModelCall(
            codes_BL,
            signal_BNT,
            features_BF,
            blacklist_BN,
            valid_BN,
            None,
            force_promoter=True,
            elements_BR2=elements_BR2,
        )
        self._check(call)
        out = self._forward_one(call)
        if self.training or not self.config.rc_average:
            return out
        return mean_with_mirrored(out, self._forward_one(call.mirrored()))

    def one_strand(self, call: ModelCall) -> Seq2ExpOutput:
        """Predict windows as they are given, whatever `rc_average` says."""
        self._check(call)
        return self._forward_one(call)

    def _forward_one(self, call: ModelCall) -> Seq2ExpOutput:
        signal_BNT = call.signal_BNT if self.tracks else None
        more = {"elements_BR2": call.elements_BR2} if self.takes_elements else {}
        hidden_BSD: Tensor = self.encoder(call.codes_BL, signal_BNT, span=self.span, **more)
        return self._output(call, hidden_BSD)

    def share(self, call: ModelCall) -> Shared | None:
        """Share one window among its edits (see `seq2exp.models.rerun`).

        Encoders with an embedding of bins share it, and those with a trunk of finite reach what an
        edit cannot reach; None for others.
        """
        rerun: WindowRerun | EnformerRerun
        if isinstance(self.encoder, WindowEncoder):
            signal_BNT = call.signal_BNT if self.tracks else None
            rerun = WindowRerun(self.encoder, call.codes_BL, signal_BNT, span=self.span)
        elif isinstance(self.encoder, EnformerEncoder):
            rerun = EnformerRerun(self.encoder, call.codes_BL, span=self.span)
        else:
            return None

        def edited(call: ModelCall, changed_BN: Tensor) -> Seq2ExpOutput:
            self._check(call)
            signal_BNT = call.signal_BNT if self.tracks else None
            return self._output(call, rerun(call.codes_BL, signal_BNT, changed_BN))

        if isinstance(rerun, EnformerRerun):
            # Its tower is most of a pass, and was run just now.
            unchanged_1N = torch.zeros_like(call.codes_BL[:, :: self.config.bin_size]).bool()
            return keep_reference(edited, call, edited(call, unchanged_1N))
        return keep_reference(edited, call, self.one_strand(call))

    def _output(self, call: ModelCall, hidden_BSD: Tensor) -> Seq2ExpOutput:
        """Pool the hidden states and predict."""
        features_BF = call.features_BF if self.config.num_features else None
        strands = [hidden_BSD]
        if self.equivariant:
            forward_BSD, other_BSD = hidden_BSD.chunk(2, dim=-1)
            strands = [forward_BSD, other_BSD.flip(1, 2)]
        pooled = [self._pool(strand_BSD) for strand_BSD in strands]
        expression = [self.head(pooled_BD, features_BF) for pooled_BD in pooled]
        ones_BN = expression[0].new_ones((len(call.codes_BL), self.config.num_bins))
        zeros_B = ones_BN.new_zeros(len(ones_BN))
        return Seq2ExpOutput(
            expression_BK=torch.stack(expression).mean(0),
            mask_BN=ones_BN,
            mean_BN=ones_BN,
            alpha_BN=None,
            beta_BN=None,
            kl_B=zeros_B,
            track_loss_B=zeros_B,
            embedding_BD=torch.stack(pooled).mean(0),
        )

    def _pool(self, hidden_BSD: Tensor) -> Tensor:
        pooled_BD: Tensor = hidden_BSD[:, 0] if self.readout is None else self.readout(hidden_BSD)
        return pooled_BD

    def _check(self, call: ModelCall) -> None:
        expect_inputs(call, self.config, num_tracks=len(self.tracks))
        if self.takes_elements:
            expect_shape("elements", call.elements_BR2, (len(call.codes_BL), None, 2))

    def flops(self) -> int:
        """Count the floating-point operations of a forward pass of one window, in the encoder."""
        return int(self.encoder.flops(self.config.window_bp))

    @torch.no_grad()
    def fit_scaling(self, batches: Iterable[tuple[Tensor | None, Tensor | None]]) -> None:
        """Set the buffers that scale tracks and features from training windows.

        Parameters
        ----------
        batches : iterable of (signal_BNT, features_BF)
            Raw signals and features of training genes; either may be None.
        """
        scalings = [module for module in self.encoder.modules() if isinstance(module, TrackScaling)]
        scales = self.config.scale_tracks and bool(scalings)
        moments = input_moments(
            batches,
            num_tracks=len(self.tracks) if scales else 0,
            num_features=self.config.num_features,
            transform=scalings[0].transform if scales else "none",
        )
        if scales:
            self.encoder.set_track_scaling(moments.embedded.mean(), moments.embedded.std())
        if self.config.scale_features and self.config.num_features:
            self.head.set_feature_scaling(moments.features.mean(), moments.features.std())

    def set_output_scaling(self, mean_K: Tensor, std_K: Tensor) -> None:
        """Let the head start from the moments of the training labels, float, shape (outputs,)."""
        self.head.set_output_scaling(mean_K, std_K)
