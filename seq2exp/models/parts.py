"""The parts of a Seq2Exp model around its two networks, each made from the configuration."""

from __future__ import annotations

from typing import Any

from torch import nn

from seq2exp.encoders import build_trunk
from seq2exp.models.config import Seq2ExpConfig
from seq2exp.models.heads import ExpressionHead, Readout, band_weights
from seq2exp.nn.beta import TrackBeta
from seq2exp.nn.kmers import KmerStem
from seq2exp.nn.stem import ConvStem, LinearStem, build_stem
from seq2exp.nn.tracks import TrackEmbedding

__all__ = [
    "make_head",
    "make_readout",
    "make_stem",
    "make_track_beta",
    "make_track_embedding",
    "make_trunk",
]


def make_stem(config: Seq2ExpConfig) -> LinearStem | ConvStem | KmerStem:
    """Make what embeds the bases of a bin."""
    return build_stem(
        config.d_model,
        bin_size=config.bin_size,
        config=config.stem,
        tss=config.window_bp // 2,
    )


def make_track_embedding(config: Seq2ExpConfig) -> TrackEmbedding | None:
    """Make the embedding of the tracks; None where no network reads them."""
    wanted = config.use_tracks or (config.has_generator and config.generator_sees_tracks)
    if not (wanted and config.tracks):
        return None
    return TrackEmbedding(
        len(config.tracks),
        config.d_model,
        transform=config.track_transform,
        learn_missing=config.learn_missing_tracks,
    )


def make_readout(config: Seq2ExpConfig) -> Readout:
    """Make what pools the states around the TSS."""
    bands = band_weights(config.bands, num_bins=config.num_bins, bin_size=config.bin_size)
    return Readout(
        config.d_model,
        kind=config.readout,
        span=config.central_bins(config.readout_bp),
        width=config.readout_width,
        bands=bands,
        weighting=config.readout_weighting,
    )


def make_head(config: Seq2ExpConfig, *, pooled_dim: int) -> ExpressionHead:
    """Make the layers from the pooled state, `pooled_dim` wide, to expression."""
    return ExpressionHead(
        pooled_dim,
        num_features=config.num_features,
        num_outputs=config.num_outputs,
        hidden=config.head_hidden,
        num_layers=config.head_layers,
        activation=config.head_activation,
        dropout=config.head_dropout,
        input_dropout=config.head_input_dropout,
        skip=config.head_skip,
        rising=config.element_channels,
        feature_clip=config.feature_clip,
        feature_hidden=config.feature_hidden,
    )


def make_track_beta(config: Seq2ExpConfig) -> TrackBeta:
    """Make the Beta that the tracks give."""
    betas, weights = config.track_beta_values()
    return TrackBeta(
        config.tracks,
        betas=betas,
        weights=weights,
        beta_min=config.beta_min,
        scale_factor=config.prior_scale_factor,
        learn=config.learn_track_beta,
    )


def make_trunk(config: Seq2ExpConfig, num_layers: int) -> nn.Module:
    """Make the generator or the predictor; keys of the Mamba trunks go to those only."""
    params: dict[str, Any] = {
        "d_model": config.d_model,
        "num_layers": num_layers,
        "dropout": config.dropout,
        "recompute": config.recompute,
        "final_norm": config.final_norm,
    }
    if config.trunk in ("bimamba", "mamba"):
        params |= {
            "d_state": config.d_state,
            "d_conv": config.d_conv,
            "expand": config.expand,
            "init_depth": config.init_depth,
            "dt_min": config.dt_min,
            "dt_max": config.dt_max,
            "out_gain": config.out_proj_gain,
        }
    if config.trunk == "hyena":
        params["l_max"] = config.num_bins
    return build_trunk(config.trunk, params | config.trunk_params)
