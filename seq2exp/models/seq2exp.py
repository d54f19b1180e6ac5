"""Seq2Exp: expression of a gene and the mask of its regulatory elements from one window.

A generator network and the tracks give a Beta distribution per bin; a mask drawn from it gates the
predictor network; the KL to a sparse prior is the information bottleneck. Method: Su et al.,
"Learning to Discover Regulatory Elements for Gene Expression Prediction", arXiv 2502.13991.

Shapes: B batch, L base pairs, N bins (L / bin_size), M mask bins, T tracks, F scalar features,
D model width, K outputs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seq2exp.core.errors import ConfigError, facts
from seq2exp.encoders import build_encoder
from seq2exp.models.heads import ExpressionHead, Readout, ReadoutKind
from seq2exp.models.masking import MaskMode, central_span, draw_mask, force_mask
from seq2exp.models.output import ModelCall, Seq2ExpOutput, expect_shape, mean_with_mirrored
from seq2exp.models.scaling import ColumnMoments
from seq2exp.nn.beta import (
    PUBLISHED_TRACK_BETAS,
    PUBLISHED_TRACK_WEIGHTS,
    BetaParameters,
    BetaPrior,
    TrackBeta,
    fuse,
    sequence_beta,
)
from seq2exp.nn.stem import StemConfig, StemScan, TrackEmbedding, TrackTransform, build_stem

__all__ = ["Seq2Exp", "Seq2ExpConfig", "Seq2ExpOutput"]


@dataclass(frozen=True)
class Seq2ExpConfig:
    """Everything that shapes a Seq2Exp model; the defaults suit windows of some 10 kb in bins."""

    tracks: tuple[str, ...] = ()
    """Track names, in the order of the signal."""
    num_features: int = 0
    """Scalar features per gene that the head reads; 0 ignores them."""
    num_outputs: int = 1
    """Predicted values per gene (biosamples)."""
    window_bp: int = 16384
    """Length of the window, even, centred on the TSS."""
    bin_size: int = 128
    """Base pairs per position of the networks and of the mask; 1 is the published setting."""
    mask_bin_size: int | None = None
    """Base pairs that share one mask value; a multiple of bin_size, which is the default."""

    d_model: int = 64
    """Width of the residual stream."""
    d_state: int = 16
    """States per channel of the scan."""
    d_conv: int = 4
    """Taps of the convolution in each block."""
    expand: int = 2
    """Inner width over model width."""
    encoder: str = "bimamba"
    """Registry name of both networks."""
    generator_layers: int = 2
    """Blocks of the network that makes the mask."""
    predictor_layers: int = 2
    """Blocks of the network that predicts expression."""
    init_depth: int | None = None
    """Depth that scales the out-projections at the start; the real depth, or 64 for parity."""
    recompute: bool = False
    """Keep only the input of each block and run it again in the backward pass (less memory)."""
    stem: StemConfig = field(default_factory=StemConfig)
    """Convolutions that embed the bases of a bin."""
    position_embedding: bool = False
    """Add a learned vector per bin of the window."""
    dropout: float = 0.0
    """Dropout on the output of every block."""

    use_sequence: bool = True
    """Let both networks read the DNA."""
    use_tracks: bool = True
    """Let the predictor read the tracks."""
    generator_sees_tracks: bool = False
    """Let the generator read the tracks too."""
    track_transform: TrackTransform = "log1p"
    """Transform of the raw signal before it is embedded."""
    scale_tracks: bool = True
    """Centre and scale the embedded tracks with the moments of the training windows."""
    learn_missing_tracks: bool = False
    """Give every missing track a learned embedding; else it adds nothing."""

    mask: MaskMode = "soft"
    """soft: sample in training, mean at test. hard: 0 or 1, straight-through. none: no mask."""
    gate: Literal["multiply", "delta"] = "delta"
    """delta: the mask gates convolution and step size inside every predictor block, so that 0
    hides a bin. multiply: the mask scales the embedding once (published)."""
    gate_padding: bool = True
    """Set the mask to 0 in bins outside the contig."""
    mask_from_generator: bool = True
    """Let the generator shape the mask."""
    mask_from_tracks: bool = True
    """Let the tracks shape the mask."""
    track_beta_scale: Literal["raw", "mean"] = "mean"
    """Unit of the signal in the track Beta: as it is (published), or over its training mean."""
    track_betas: dict[str, float] = field(default_factory=dict)
    """Second Beta parameter by track name; published values, else 1, where left out."""
    track_weights: dict[str, float] = field(default_factory=dict)
    """Relative weight by track name; published values, else 1, where left out."""
    learn_track_beta: bool = False
    """Train the betas and weights of the tracks."""
    fusion: Literal["sum", "product"] = "sum"
    """How the Betas of generator and tracks are combined."""
    beta_min: float = 1.0
    """Added to the parameters of the Betas (c)."""
    prior_scale_factor: float = 10.0
    """Strength of the track Beta (k)."""
    prior_mean: float = 0.1
    """Mean of the sparse prior."""
    prior_scale: float = 10.0
    """First parameter of the sparse prior."""
    kl_weight: float = 0.01
    """Weight of the KL in the loss."""
    kl_excludes_forced: bool = False
    """Leave bins whose mask is forced out of the KL."""
    promoter_bp: int = 2000
    """Central base pairs whose mask is always 1."""

    readout: ReadoutKind = "mean"
    """How the states around the TSS are pooled."""
    readout_bp: int = 2000
    """Central base pairs that are pooled."""
    readout_width: int = 16
    """Channels per bin of the flatten read-out."""
    head_hidden: int = 128
    """Width of the two hidden layers of the head."""
    head_dropout: float = 0.0
    """Dropout in the head."""
    scale_features: bool = True
    """Centre and scale the scalar features with the moments of the training genes."""
    rc_average: bool = False
    """At test, average over the window and its reverse complement."""

    def __post_init__(self) -> None:
        mask_bin = self.mask_bin_size or self.bin_size
        checks = {
            "tracks": (len(set(self.tracks)) == len(self.tracks), "names that differ"),
            "bin_size": (self.bin_size > 0, "at least 1"),
            "window_bp": (
                self.window_bp > 0 and self.window_bp % 2 == 0 and self.window_bp % mask_bin == 0,
                f"an even multiple of {mask_bin} bp (mask_bin_size, else bin_size)",
            ),
            "mask_bin_size": (mask_bin % self.bin_size == 0, f"a multiple of {self.bin_size}"),
            "readout_bp": (self.readout_bp > 0, "at least 1"),
            "promoter_bp": (self.promoter_bp >= 0, "at least 0"),
            "prior_mean": (0 < self.prior_mean < 1, "a value between 0 and 1"),
            "prior_scale": (self.prior_scale > 0, "a positive value"),
            "beta_min": (self.beta_min >= 0, "at least 0"),
            "use_sequence": (
                self.use_sequence or (self.use_tracks and bool(self.tracks)),
                "true, or tracks and use_tracks: true (the predictor must read something)",
            ),
            "mask_from_generator": (
                self.mask == "none" or self.mask_from_generator or self._track_mask,
                "true, or tracks and mask_from_tracks: true, or mask: none",
            ),
            "generator_sees_tracks": (
                not self._has_generator or self.use_sequence or self.generator_sees_tracks,
                "true when use_sequence is false (the generator must read something)",
            ),
            "track_betas": (
                all(value > 0 for value in self.track_betas.values()),
                "positive values",
            ),
            "track_weights": (
                all(value > 0 for value in self.track_weights.values()),
                "positive values (leave a track out of `tracks` to drop it)",
            ),
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
        for name in [*self.track_betas, *self.track_weights]:
            if name not in self.tracks:
                near = difflib.get_close_matches(name, self.tracks, n=1)
                raise ConfigError(
                    facts(
                        f"model.track_betas or track_weights: {name}",
                        found="no such track",
                        expected="one of " + (", ".join(self.tracks) or "no tracks"),
                        fix=f"use {near[0]!r}" if near else "name a track of the model",
                    )
                )

    @property
    def num_bins(self) -> int:
        """Positions of the networks."""
        return self.window_bp // self.bin_size

    @property
    def _track_mask(self) -> bool:
        return self.mask != "none" and self.mask_from_tracks and bool(self.tracks)

    @property
    def _has_generator(self) -> bool:
        return self.mask != "none" and self.mask_from_generator

    def track_beta_values(self) -> tuple[list[float], list[float]]:
        """Second Beta parameters and weights of the tracks, in their order, found by name."""
        betas = PUBLISHED_TRACK_BETAS | self.track_betas
        weights = PUBLISHED_TRACK_WEIGHTS | self.track_weights
        return (
            [betas.get(name, 1.0) for name in self.tracks],
            [weights.get(name, 1.0) for name in self.tracks],
        )

    @classmethod
    def published_soft(cls, **changes: Any) -> Seq2ExpConfig:  # noqa: ANN401
        """Return the published soft settings (base level, 200 kb); `changes` override them."""
        settings: dict[str, Any] = {
            "tracks": ("H3K27ac", "DNase", "contact"),
            "num_features": 9,
            "window_bp": 200_000,
            "bin_size": 1,
            "d_model": 128,
            "generator_layers": 4,
            "predictor_layers": 4,
            "init_depth": 64,
            "track_transform": "none",
            "scale_tracks": False,
            "scale_features": False,
            "gate": "multiply",
            "gate_padding": False,
            "track_beta_scale": "raw",
        }
        return cls(**(settings | changes))


class Seq2Exp(nn.Module):
    """Predicts expression through a learned mask of regulatory elements.

    Parameters
    ----------
    config : Seq2ExpConfig
        See its fields.
    """

    track_unit_T: Tensor

    def __init__(self, config: Seq2ExpConfig) -> None:
        super().__init__()
        self.config = config
        num_bins = config.num_bins
        self.promoter = central_span(
            num_bins, bin_size=config.bin_size, central_bp=config.promoter_bp
        )
        self.stem = (
            build_stem(config.d_model, bin_size=config.bin_size, config=config.stem)
            if config.use_sequence
            else None
        )
        reads_tracks = config.use_tracks or (config._has_generator and config.generator_sees_tracks)
        self.track_embedding = (
            TrackEmbedding(
                len(config.tracks),
                config.d_model,
                transform=config.track_transform,
                learn_missing=config.learn_missing_tracks,
            )
            if reads_tracks and config.tracks
            else None
        )
        self.position_ND = (
            nn.Parameter(torch.zeros(num_bins, config.d_model))
            if config.position_embedding
            else None
        )
        self.generator = self._encoder(config.generator_layers) if config._has_generator else None
        self.mask_head = nn.Linear(config.d_model, 2) if config._has_generator else None
        self.track_beta = self._track_beta() if config._track_mask else None
        self.register_buffer("track_unit_T", torch.ones(len(config.tracks)))
        self.prior = BetaPrior(mean=config.prior_mean, scale=config.prior_scale)
        self.predictor = self._encoder(config.predictor_layers)
        self.readout = Readout(
            config.d_model,
            kind=config.readout,
            span=central_span(num_bins, bin_size=config.bin_size, central_bp=config.readout_bp),
            width=config.readout_width,
        )
        self.head = ExpressionHead(
            self.readout.out_dim,
            num_features=config.num_features,
            num_outputs=config.num_outputs,
            hidden=config.head_hidden,
            dropout=config.head_dropout,
        )
        for name, module in self.named_modules():
            # The bias of a step projection holds the first step sizes.
            free = isinstance(module, nn.Linear) and not name.endswith("dt_proj")
            if free and module.bias is not None:
                nn.init.zeros_(module.bias)

    def _encoder(self, num_layers: int) -> nn.Module:
        config = self.config
        params = {
            "d_model": config.d_model,
            "num_layers": num_layers,
            "d_state": config.d_state,
            "d_conv": config.d_conv,
            "expand": config.expand,
            "init_depth": config.init_depth,
            "dropout": config.dropout,
            "recompute": config.recompute,
        }
        return build_encoder(config.encoder, params)

    def _track_beta(self) -> TrackBeta:
        betas, weights = self.config.track_beta_values()
        return TrackBeta(
            self.config.tracks,
            betas=betas,
            weights=weights,
            beta_min=self.config.beta_min,
            scale_factor=self.config.prior_scale_factor,
            learn=self.config.learn_track_beta,
        )

    def forward(
        self,
        codes_BL: Tensor,
        signal_BNT: Tensor | None = None,
        features_BF: Tensor | None = None,
        *,
        blacklist_BN: Tensor | None = None,
        valid_BN: Tensor | None = None,
        mask_BN: Tensor | None = None,
        sample: bool | None = None,
        force_promoter: bool = True,
    ) -> Seq2ExpOutput:
        """Predict expression and the mask of windows that run along transcription.

        Parameters
        ----------
        codes_BL : uint8 tensor, shape (batch, window_bp)
            Bases A0 C1 G2 T3 N4.
        signal_BNT : float tensor, shape (batch, bins, tracks), optional
            Raw signal per bin; NaN where a track is missing.
        features_BF : float tensor, shape (batch, features), optional
            Raw scalar features; NaN where one is missing.
        blacklist_BN : bool tensor, shape (batch, bins), optional
            Bins whose mask is 0.
        valid_BN : bool tensor, shape (batch, bins), optional
            False for bins outside the contig.
        mask_BN : float tensor, shape (batch, bins), optional
            Use this mask in place of a learned one; it is forced like any other. The generator
            does not run.
        sample : bool, optional
            Draw the mask instead of taking its mean; as in training when left out.
        force_promoter : bool
            Set the mask of the central `promoter_bp` to 1.

        Raises
        ------
        InputError
            A tensor that does not have the shape the configuration asks for.
        """
        call = ModelCall(
            codes_BL, signal_BNT, features_BF, blacklist_BN, valid_BN, mask_BN, force_promoter
        )
        self._check(call)
        out = self._forward_one(call, sample=self.training if sample is None else sample)
        if self.training or not self.config.rc_average:
            return out
        return mean_with_mirrored(out, self._forward_one(call.mirrored(), sample=False))

    def forward_rc_averaged(
        self,
        codes_BL: Tensor,
        signal_BNT: Tensor | None = None,
        features_BF: Tensor | None = None,
        *,
        blacklist_BN: Tensor | None = None,
        valid_BN: Tensor | None = None,
        mask_BN: Tensor | None = None,
        force_promoter: bool = True,
    ) -> Seq2ExpOutput:
        """Average the predictions of the windows and of their reverse complements, never sampled.

        The arguments are those of `forward`. Masks come back in the order of the given window.
        """
        call = ModelCall(
            codes_BL, signal_BNT, features_BF, blacklist_BN, valid_BN, mask_BN, force_promoter
        )
        self._check(call)
        return mean_with_mirrored(
            self._forward_one(call, sample=False), self._forward_one(call.mirrored(), sample=False)
        )

    def _forward_one(self, call: ModelCall, *, sample: bool) -> Seq2ExpOutput:
        scanned = None if self.stem is None else self.stem.scan_bases(call.codes_BL)
        signal_BNT = call.signal_BNT if self.config.tracks else None
        tracks_BND = None
        if self.track_embedding is not None and signal_BNT is not None:
            tracks_BND = self.track_embedding(signal_BNT)
        q_BM = None
        if call.mask_BN is None:
            q_BM = self._posterior(scanned, tracks_BND, signal_BNT)
        mask_BN, free_BN = self._mask(call, q_BM, sample=sample)
        pooled_BD = self.readout(self._predict(scanned, tracks_BND, mask_BN), mask_BN)
        features_BF = call.features_BF if self.config.num_features else None
        ones_BN = self._ones(call)
        return Seq2ExpOutput(
            expression_BK=self.head(pooled_BD, features_BF),
            mask_BN=ones_BN if mask_BN is None else mask_BN,
            mean_BN=self._mean(call, q_BM),
            alpha_BN=None if q_BM is None else self._to_bins(q_BM.alpha_BN),
            beta_BN=None if q_BM is None else self._to_bins(q_BM.beta_BN),
            kl_B=ones_BN.new_zeros(len(ones_BN)) if q_BM is None else self._kl(q_BM, free_BN),
            embedding_BD=pooled_BD,
        )

    def _mean(self, call: ModelCall, q_BM: BetaParameters | None) -> Tensor:
        if q_BM is not None:
            return self._to_bins(q_BM.mean())
        return self._ones(call) if call.mask_BN is None else call.mask_BN

    def _ones(self, call: ModelCall) -> Tensor:
        shape = (len(call.codes_BL), self.config.num_bins)
        return torch.ones(shape, device=call.codes_BL.device, dtype=self.prior.alpha.dtype)

    def _mask(
        self, call: ModelCall, q_BM: BetaParameters | None, *, sample: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Mask after forcing and the bins that were free; None where nothing is masked."""
        if call.mask_BN is not None:
            drawn_BN = call.mask_BN.to(self.prior.alpha.dtype)
        elif q_BM is not None:
            drawn_BN = self._to_bins(draw_mask(self.config.mask, q_BM, sample=sample))
        else:
            return None, None
        return force_mask(
            drawn_BN,
            blacklist_BN=call.blacklist_BN,
            valid_BN=call.valid_BN if self.config.gate_padding else None,
            promoter=self.promoter if call.force_promoter else (0, 0),
        )

    def _posterior(
        self,
        scanned: StemScan | None,
        tracks_BND: Tensor | None,
        signal_BNT: Tensor | None,
    ) -> BetaParameters | None:
        """Beta of every mask bin, from generator and tracks; None without a learned mask."""
        if self.config.mask == "none":
            return None
        from_generator = from_tracks = None
        if self.generator is not None and self.mask_head is not None:
            seen = tracks_BND if self.config.generator_sees_tracks else None
            hidden_BND = self.generator(self._embed(scanned, seen))
            hidden_BMD = self._to_mask_bins(hidden_BND).mean(2)
            from_generator = sequence_beta(
                self.mask_head(hidden_BMD), beta_min=self.config.beta_min
            )
        if self.track_beta is not None and signal_BNT is not None:
            unit_BNT = signal_BNT.to(self.track_unit_T).clamp(min=0) / self.track_unit_T
            from_tracks = self.track_beta(self._to_mask_bins(unit_BNT).nanmean(2))
        return fuse(from_generator, from_tracks, fusion=self.config.fusion)

    def _embed(
        self,
        scanned: StemScan | None,
        tracks_BND: Tensor | None,
        mask_BN: Tensor | None = None,
    ) -> Tensor:
        parts = []
        if self.stem is not None:
            parts.append(self.stem(scanned, mask_BN))
        if tracks_BND is not None:
            parts.append(tracks_BND)
        total_BND: Tensor = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        return total_BND if self.position_ND is None else total_BND + self.position_ND

    def _predict(
        self, scanned: StemScan | None, tracks_BND: Tensor | None, mask_BN: Tensor | None
    ) -> Tensor:
        """Hidden states of the predictor, shape (batch, bins, width)."""
        tracks_BND = tracks_BND if self.config.use_tracks else None
        if mask_BN is not None and self.config.gate == "delta":
            hidden_BND: Tensor = self.predictor(self._embed(scanned, tracks_BND, mask_BN), mask_BN)
            return hidden_BND
        embedded_BND = self._embed(scanned, tracks_BND)
        if mask_BN is not None:
            embedded_BND = embedded_BND * mask_BN[..., None].to(embedded_BND.dtype)
        hidden_BND = self.predictor(embedded_BND)
        return hidden_BND

    def _to_mask_bins(self, values: Tensor) -> Tensor:
        """Group bins by mask bin: (batch, mask bins, bins per mask bin, columns)."""
        batch, num_bins, num_columns = values.shape
        per_mask = (self.config.mask_bin_size or self.config.bin_size) // self.config.bin_size
        return values.reshape(batch, num_bins // per_mask, per_mask, num_columns)

    def _to_bins(self, values_BM: Tensor) -> Tensor:
        """Repeat one value per mask bin to the bins it covers."""
        per_mask = self.config.num_bins // values_BM.shape[1]
        return values_BM.repeat_interleave(per_mask, dim=1) if per_mask > 1 else values_BM

    def _kl(self, q_BM: BetaParameters, free_BN: Tensor | None) -> Tensor:
        kl_BM = self.prior.kl(q_BM)
        if free_BN is None or not self.config.kl_excludes_forced:
            return kl_BM.mean(1)
        free_BM = self._to_mask_bins(free_BN[..., None]).any(2)[..., 0].to(kl_BM.dtype)
        return (kl_BM * free_BM).sum(1) / free_BM.sum(1).clamp(min=1)

    @torch.no_grad()
    def fit_scaling(self, batches: Iterable[tuple[Tensor | None, Tensor | None]]) -> None:
        """Set the buffers that scale tracks and features from training windows.

        Honours `scale_tracks`, `scale_features` and `track_beta_scale`.

        Parameters
        ----------
        batches : iterable of (signal_BNT, features_BF)
            Raw signals and features of training genes; either may be None.
        """
        config = self.config
        num_tracks = len(config.tracks)
        raw, embedded = ColumnMoments(num_tracks), ColumnMoments(num_tracks)
        features = ColumnMoments(config.num_features)
        for signal_BNT, features_BF in batches:
            if signal_BNT is not None and num_tracks:
                raw.update(signal_BNT.clamp(min=0))
                if self.track_embedding is not None:
                    embedded.update(self.track_embedding.apply_transform(signal_BNT))
            if features_BF is not None and config.num_features:
                features.update(features_BF)
        if config.track_beta_scale == "mean":
            mean_T = raw.mean()
            self.track_unit_T.copy_(torch.where(mean_T > 0, mean_T, 1.0))
        if config.scale_tracks and self.track_embedding is not None:
            self.track_embedding.set_scaling(embedded.mean(), embedded.std())
        if config.scale_features:
            self.head.feature_mean_F.copy_(features.mean())
            self.head.feature_std_F.copy_(features.std())

    @torch.no_grad()
    def set_output_scaling(self, mean_K: Tensor, std_K: Tensor) -> None:
        """Let the head start from the moments of the training labels, float, shape (outputs,)."""
        self.head.output_mean_K.copy_(torch.nan_to_num(mean_K))
        usable_K = torch.isfinite(std_K) & (std_K > 0)
        self.head.output_std_K.copy_(torch.where(usable_K, std_K, 1.0))

    def _check(self, call: ModelCall) -> None:
        """Refuse tensors of the wrong shape."""
        config = self.config
        expect_shape("codes", call.codes_BL, (None, config.window_bp))
        batch = len(call.codes_BL)
        if config.tracks:
            expect_shape("signal", call.signal_BNT, (batch, config.num_bins, len(config.tracks)))
        if config.num_features:
            expect_shape("features", call.features_BF, (batch, config.num_features))
        for name in ("blacklist_BN", "valid_BN", "mask_BN"):
            values_BN = getattr(call, name)
            if values_BN is not None:
                expect_shape(name, values_BN, (batch, config.num_bins))
