"""Configuration of a Seq2Exp model.

Constants of the published settings: Su et al., arXiv 2502.13991.
"""

from __future__ import annotations

import difflib
import itertools
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from seq2exp.core.errors import ConfigError, facts
from seq2exp.models.heads import HeadActivation, ReadoutKind, band_edges
from seq2exp.models.masking import (
    BINARY_MODES,
    ELEMENT_MODES,
    LEARNED_MODES,
    GateKind,
    MaskMode,
    central_span,
)
from seq2exp.nn.beta import PUBLISHED_TRACK_BETAS, PUBLISHED_TRACK_WEIGHTS
from seq2exp.nn.posterior import PosteriorKind
from seq2exp.nn.stem import StemConfig
from seq2exp.nn.tracks import TrackTransform

__all__ = ["CONTACT", "Seq2ExpConfig"]

CONTACT = "contact"
"""Name of the contact profile among the tracks; the sequence of a bin does not decide it."""


def _found(config: Seq2ExpConfig, name: str) -> object:
    key, _, inner = name.partition(".")
    value = config.budget if key == "mask_budget" else getattr(config, key)
    return value.get(inner) if isinstance(value, dict) and inner else value


def _equal(found: object, wanted: object) -> bool:
    """Compare as YAML would hold them, in which a tuple is a list."""
    return found == (list(wanted) if isinstance(wanted, tuple) else wanted) or found == wanted


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
    """Width of the hidden states."""
    d_state: int = 16
    """States per channel of the scan, in Mamba trunks."""
    d_conv: int = 4
    """Taps of the convolution in each block, in Mamba trunks."""
    expand: int = 2
    """Inner width over model width, in Mamba trunks."""
    trunk: str = "bimamba"
    """Registry name of both networks: bimamba, mamba, hyena, transformer or conv."""
    trunk_params: dict[str, Any] = field(default_factory=dict)
    """Settings of the trunk that have no key here, such as num_heads of the transformer
    (docs/encoders.md)."""
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
    embedding_dropout: float = 0.0
    """Dropout on the embedded bins, before the first block."""
    final_norm: bool = True
    """Normalise the hidden states after the last block. Without it the read-out sees their size,
    such as the number of motifs in a bin."""
    out_proj_gain: float = 1.0
    """Size of the out-projections at the start, over the usual one; below 1 the blocks start near
    the identity."""
    dt_min: float = 1e-3
    """Smallest step size of the scan at the start."""
    dt_max: float = 1e-1
    """Largest step size of the scan at the start; a state remembers about 1 / step bins."""

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
    """soft: sample in training, mean at test. hard: 0 or 1, straight-through. retrain: the highest
    bins of a frozen mask model (mask_from of the run). peaks: bins that a candidate element
    (data.elements) overlaps. abc: the nearest distal elements, trimmed. none: no mask."""
    gate: GateKind = "delta"
    """delta: the mask gates convolution and step size inside every predictor block, so that 0
    hides a bin. pack: the same on the rows that matter only, for masks of 0 and 1. multiply: the
    mask scales the embedding once (published)."""
    test_mask: Literal["mean", "topk"] = "mean"
    """Mask of a soft model at test. mean: the mean of the posterior. topk: 1 in the mask_budget
    highest bins, 0 elsewhere."""
    mask_budget: float | None = None
    """Share of the bins that retrain and topk keep; for retrain 0.1 when not given, and the
    promoter is part of it; for topk prior_mean, chosen before anything is forced."""
    abc_distance_bp: tuple[int, int] = (1000, 100_000)
    """abc keeps elements whose middle is farther from the TSS than the first and not farther than
    the second."""
    abc_max_elements: int = 60
    """Of these, abc keeps so many, nearest first."""
    abc_element_bp: int = 2000
    """abc trims longer elements to this length around their middle."""
    mask_model: dict[str, Any] = field(default_factory=dict)
    """Settings of the frozen mask model of retrain. Filled in by training."""
    mask_members: int = 1
    """Members of the frozen mask model, whose means are averaged. Filled in by training."""
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
    posterior: PosteriorKind = "beta"
    """Family of the mask's distribution; those other than beta are matched to the fused Beta.
    kumaraswamy: equal spread of log z. logistic_normal: equal mean and spread of logit z."""
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
    """Central base pairs that are pooled; without effect on bands."""
    readout_width: int = 16
    """Channels per bin of the flatten read-out."""
    readout_edges: tuple[int, ...] = ()
    """Edges of the bands of the bands read-out, in base pairs from the TSS, negative upstream,
    ascending. When empty: 0, and 128, 256, 512, ... to both sides up to the ends of the window."""
    element_channels: int = 0
    """Channels of contributions that are summed over the distal bins, each times mask and contact,
    and given to the head beside the read-out; 0 leaves the sum out."""
    readout_weighting: Literal["mask", "plain"] = "mask"
    """mask: bins count in their band with their mask, so that a bin with mask 0 stays invisible.
    plain: all bins count alike."""
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
    track_loss_weight: float = 0.0
    """Weight of an auxiliary loss: the generator, which then reads the sequence alone, predicts the
    transformed and standardised tracks of its own bin, contacts aside. 0 turns it off."""
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
            "readout_edges": (
                self._edges_fit,
                f"at least two ascending edges within +-{self.window_bp // 2} bp",
            ),
            "feature_hidden": (self.feature_hidden >= 0, "at least 0"),
            "head_layers": (self.head_layers >= 0, "at least 0"),
            "feature_clip": (self.feature_clip is None or self.feature_clip > 0, "above 0"),
            "out_proj_gain": (self.out_proj_gain > 0, "a positive value"),
            "dt_min": (0 < self.dt_min <= self.dt_max, "above 0 and at most dt_max"),
            "track_loss_weight": (
                self.track_loss_weight == 0 or (self.track_loss_weight > 0 and self._can_guess),
                "0, or above 0 with tracks, use_sequence, a generator and no generator_sees_tracks",
            ),
            "promoter_bp": (self.promoter_bp >= 0, "at least 0"),
            "prior_mean": (0 < self.prior_mean < 1, "a value between 0 and 1"),
            "prior_scale": (self.prior_scale > 0, "a positive value"),
            "beta_min": (self.beta_min >= 0, "at least 0"),
            "use_sequence": (
                self.use_sequence or (self.use_tracks and bool(self.tracks)),
                "true, or tracks and use_tracks: true (the predictor must read something)",
            ),
            "mask_from_generator": (
                not self.learns_mask or self.mask_from_generator or self.has_track_mask,
                "true, or tracks and mask_from_tracks: true, or a mask that is not learned",
            ),
            "generator_sees_tracks": (
                not self.has_generator or self.use_sequence or self.generator_sees_tracks,
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
        checks |= self._mask_checks()
        for name in ("dropout", "embedding_dropout", "head_dropout", "head_input_dropout"):
            checks[name] = (0 <= getattr(self, name) < 1, "0 <= value < 1")
        for name, (holds, expected) in checks.items():
            if not holds:
                raise ConfigError(
                    facts(
                        f"model.{name}",
                        found=_found(self, name),
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

    def _mask_checks(self) -> dict[str, tuple[bool, str]]:
        first, second = self.abc_distance_bp
        low, high = central_span(self.num_bins, bin_size=self.bin_size, central_bp=self.promoter_bp)
        retrain = self.mask == "retrain"
        frozen = {"window_bp": self.window_bp, "bin_size": self.bin_size, "tracks": self.tracks}
        return {
            "gate": (
                self.gate != "pack" or self.mask in (*BINARY_MODES, "none"),
                "delta or multiply, or a mask of 0 and 1 (" + ", ".join(BINARY_MODES) + ")",
            ),
            "test_mask": (
                self.test_mask == "mean" or self.mask == "soft",
                "mean, or mask: soft",
            ),
            "abc_distance_bp": (0 <= first < second, "two ascending distances"),
            "abc_max_elements": (self.abc_max_elements >= 1, "at least 1"),
            "abc_element_bp": (self.abc_element_bp >= 1, "at least 1"),
            "mask_model": (
                retrain == bool(self.mask_model)
                and (not retrain or self.mask_model.get("mask", "soft") in LEARNED_MODES),
                "a model that learns its mask, for mask: retrain only (train with mask_from: RUN)",
            ),
            "mask_budget": (
                0 < self.budget <= 1 and (not retrain or self.budget_bins >= high - low),
                f"at most 1, and for retrain at least the promoter, {high - low} of the bins",
            ),
            "mask_members": (self.mask_members >= 1, "at least 1"),
        } | {
            f"mask_model.{name}": (
                not self.mask_model or _equal(self.mask_model.get(name), value),
                f"{value}, as in the model itself",
            )
            for name, value in frozen.items()
        }

    @property
    def num_bins(self) -> int:
        """Positions of the networks."""
        return self.window_bp // self.bin_size

    def central_bins(self, central_bp: int) -> tuple[int, int]:
        """Half-open span of the bins that overlap the central base pairs of the window."""
        return central_span(self.num_bins, bin_size=self.bin_size, central_bp=central_bp)

    @property
    def learns_mask(self) -> bool:
        """Whether the mask has a posterior."""
        return self.mask in LEARNED_MODES

    @property
    def reads_elements(self) -> bool:
        """Whether the mask is made of candidate elements."""
        return self.mask in ELEMENT_MODES

    @property
    def budget(self) -> float:
        """Share of the bins that retrain and topk keep."""
        usual = 0.1 if self.mask == "retrain" else self.prior_mean
        return usual if self.mask_budget is None else self.mask_budget

    @property
    def budget_bins(self) -> int:
        """Bins that retrain and topk keep, rounded down."""
        # A share such as 0.29 of 100 must not lose a bin to its binary form.
        return math.floor(self.budget * self.num_bins + 1e-9)

    @property
    def has_track_mask(self) -> bool:
        """Whether the tracks shape the mask."""
        return self.learns_mask and self.mask_from_tracks and bool(self.tracks)

    @property
    def has_generator(self) -> bool:
        """Whether a network shapes the mask."""
        return self.learns_mask and self.mask_from_generator

    @property
    def _edges_fit(self) -> bool:
        edges, half = self.readout_edges, self.window_bp // 2
        ascending = all(a < b for a, b in itertools.pairwise(edges))
        return not edges or (
            len(edges) > 1 and ascending and -half <= edges[0] and edges[-1] <= half
        )

    @property
    def _can_guess(self) -> bool:
        sequence_alone = self.use_sequence and not self.generator_sees_tracks
        return self.has_generator and sequence_alone and bool(self.target_tracks)

    @property
    def target_tracks(self) -> tuple[int, ...]:
        """Positions of the tracks that the auxiliary loss predicts: all but the contacts."""
        return tuple(i for i, name in enumerate(self.tracks) if name != CONTACT)

    @property
    def bands(self) -> tuple[int, ...]:
        """Edges of the bands read-out in base pairs from the TSS."""
        return self.readout_edges or band_edges(self.window_bp)

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
