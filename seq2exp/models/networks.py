"""The networks of Seq2Exp, and what each makes of a window.

What is drawn and forced between them is in :mod:`seq2exp.models.seq2exp`.

Shapes: B batch, L base pairs, N bins (L / bin_size), M mask bins, T tracks, F scalar features,
D model width, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from seq2exp.core.config import bind
from seq2exp.core.errors import ConfigError, facts
from seq2exp.encoders.rerun import Embedded
from seq2exp.models.config import CONTACT, Seq2ExpConfig
from seq2exp.models.contributions import ElementSum
from seq2exp.models.output import ModelCall
from seq2exp.models.packing import run_packed
from seq2exp.models.parts import (
    make_head,
    make_readout,
    make_stem,
    make_track_beta,
    make_track_embedding,
    make_trunk,
)
from seq2exp.models.scaling import input_moments
from seq2exp.models.track_head import TrackHead
from seq2exp.nn.beta import BetaParameters, BetaPrior, fuse, sequence_beta

__all__ = ["Seq2ExpNetworks"]


class Seq2ExpNetworks(nn.Module):
    """Stem, generator, predictor and head of a Seq2Exp model, without the mask between them.

    Parameters
    ----------
    config : Seq2ExpConfig
        See its fields.
    """

    track_unit_T: Tensor

    def __init__(self, config: Seq2ExpConfig) -> None:
        super().__init__()
        self.config = config
        self.promoter = config.central_bins(config.promoter_bp)
        self.stem = make_stem(config) if config.use_sequence else None
        self.track_embedding = make_track_embedding(config)
        self.position_ND = (
            nn.Parameter(torch.zeros(config.num_bins, config.d_model))
            if config.position_embedding
            else None
        )
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.generator = (
            make_trunk(config, config.generator_layers) if config.has_generator else None
        )
        self.mask_head = nn.Linear(config.d_model, 2) if config.has_generator else None
        self.track_head = (
            TrackHead(config.d_model, tracks=config.target_tracks, transform=config.track_transform)
            if config.track_loss_weight
            else None
        )
        self.track_beta = make_track_beta(config) if config.has_track_mask else None
        self.register_buffer("track_unit_T", torch.ones(len(config.tracks)))
        self.prior = BetaPrior(mean=config.prior_mean, scale=config.prior_scale)
        self.predictor = make_trunk(config, config.predictor_layers)
        self.readout = make_readout(config)
        self.element_sum = (
            ElementSum(config.d_model, channels=config.element_channels, promoter=self.promoter)
            if config.element_channels
            else None
        )
        # What nobody reads is not computed.
        reads_all = self.element_sum is not None or config.gate == "pack"
        self.span = None if reads_all else self.readout.reads
        self.head = make_head(config, pooled_dim=self.readout.out_dim + config.element_channels)
        self._zero_biases()
        self.mask_model = self._mask_model() if config.mask == "retrain" else None
        self.pack_reach = self._pack_reach() if config.gate == "pack" else 0

    def _mask_model(self) -> nn.ModuleList:
        """Members of the frozen mask model; their weights come from its run, or with our own."""
        settings: Seq2ExpConfig = bind(
            Seq2ExpConfig, self.config.mask_model, where="model.mask_model"
        )
        members = nn.ModuleList(type(self)(settings) for _ in range(self.config.mask_members))
        return members.requires_grad_(requires_grad=False).eval()

    def _pack_reach(self) -> int:
        reach = getattr(self.predictor, "pack_reach", None)
        if reach is None or not self.predictor.supports_gate:
            raise ConfigError(
                facts(
                    "model.gate",
                    found=f"pack with trunk {self.config.trunk}",
                    expected="a trunk whose mixing a mask of 0 closes, and whose convolutions are "
                    "short",
                    fix="use gate: delta or multiply, or trunk: bimamba",
                )
            )
        return int(reach)

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - torch's signature
        """Set the mode of all but the frozen mask model, which never trains."""
        super().train(mode)
        if self.mask_model is not None:
            self.mask_model.eval()
        return self

    def _zero_biases(self) -> None:
        for name, module in self.named_modules():
            # The bias of a step projection holds the first step sizes.
            free = isinstance(module, nn.Linear) and not name.endswith("dt_proj")
            if free and module.bias is not None:
                nn.init.zeros_(module.bias)

    def _read(self, call: ModelCall) -> tuple[Embedded | None, Tensor | None]:
        """Scan the bases with the stem, to be embedded under any mask, and embed the tracks."""
        bases = None
        if self.stem is not None:
            bases = partial(self.stem, self.stem.scan_bases(call.codes_BL))
        return bases, self._read_tracks(call)

    def _read_tracks(self, call: ModelCall) -> Tensor | None:
        if self.track_embedding is None or call.signal_BNT is None:
            return None
        tracks_BND: Tensor = self.track_embedding(call.signal_BNT)
        return tracks_BND

    def _generate(
        self,
        bases: Embedded | None,
        tracks_BND: Tensor | None,
        first_block: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor | None:
        """Hidden states of the generator; None without one.

        What runs the first block may be given, for windows that share most of it.
        """
        if self.generator is None:
            return None
        hidden_BND = self._embed(bases, self._seen_by_generator(tracks_BND))
        if first_block is not None:
            shared_BND: Tensor = self.generator(first_block(hidden_BND), done=1)
            return shared_BND
        generated_BND: Tensor = self.generator(hidden_BND)
        return generated_BND

    def _seen_by_generator(self, tracks_BND: Tensor | None) -> Tensor | None:
        return tracks_BND if self.config.generator_sees_tracks else None

    def _track_loss(self, call: ModelCall, generated_BND: Tensor | None) -> Tensor:
        if self.track_head is None or generated_BND is None or call.signal_BNT is None:
            return self.prior.alpha.new_zeros(len(call.codes_BL))
        loss_B: Tensor = self.track_head(generated_BND, call.signal_BNT, call.valid_BN)
        return loss_B

    def _tracks(self, generated_BND: Tensor | None) -> Tensor | None:
        """Raw signal that the generator predicts; None in training, or where it predicts none."""
        if self.training or self.track_head is None or generated_BND is None:
            return None
        return self.track_head.predict(generated_BND)

    def _evidence(
        self, generated_BND: Tensor | None, signal_BNT: Tensor | None
    ) -> BetaParameters | None:
        """Beta of every mask bin, from generator and tracks; None without a learned mask."""
        if not self.config.learns_mask:
            return None
        from_generator = from_tracks = None
        if generated_BND is not None and self.mask_head is not None:
            hidden_BMD = self._to_mask_bins(generated_BND).mean(2)
            from_generator = sequence_beta(
                self.mask_head(hidden_BMD), beta_min=self.config.beta_min
            )
        if self.track_beta is not None and signal_BNT is not None:
            unit_BNT = signal_BNT.to(self.track_unit_T).clamp(min=0) / self.track_unit_T
            from_tracks = self.track_beta(self._to_mask_bins(unit_BNT).nanmean(2))
        return fuse(from_generator, from_tracks, fusion=self.config.fusion)

    def _embed(
        self,
        bases: Embedded | None,
        tracks_BND: Tensor | None,
        mask_BN: Tensor | None = None,
    ) -> Tensor:
        parts = []
        if bases is not None:
            parts.append(bases(mask_BN))
        if tracks_BND is not None:
            parts.append(tracks_BND)
        total_BND: Tensor = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        if self.position_ND is not None:
            total_BND = total_BND + self.position_ND
        dropped_BND: Tensor = self.embedding_dropout(total_BND)
        return dropped_BND

    def _predict(
        self, bases: Embedded | None, tracks_BND: Tensor | None, mask_BN: Tensor | None
    ) -> Tensor:
        """Hidden states of the predictor, shape (batch, bins that are read, width)."""
        tracks_BND = tracks_BND if self.config.use_tracks else None
        if mask_BN is not None and self.config.gate != "multiply":
            embedded_BND = self._embed(bases, tracks_BND, mask_BN)
            if self.config.gate == "pack":
                reach = self.pack_reach
                return run_packed(self.predictor, embedded_BND, mask_BN, reach=reach)
            hidden_BND: Tensor = self.predictor(embedded_BND, mask_BN, span=self.span)
            return hidden_BND
        embedded_BND = self._embed(bases, tracks_BND)
        if mask_BN is not None:
            embedded_BND = embedded_BND * mask_BN[..., None].to(embedded_BND.dtype)
        hidden_BND = self.predictor(embedded_BND, span=self.span)
        return hidden_BND

    def _contact(self, call: ModelCall) -> Tensor:
        """Contact with the TSS over its training mean; ones without a contact track."""
        if call.signal_BNT is None or CONTACT not in self.config.tracks:
            return self._ones(call)
        column = self.config.tracks.index(CONTACT)
        contact_BN = call.signal_BNT[..., column].to(self.track_unit_T)
        return torch.nan_to_num(contact_BN, nan=0.0).clamp(min=0) / self.track_unit_T[column]

    def _ones(self, call: ModelCall) -> Tensor:
        shape = (len(call.codes_BL), self.config.num_bins)
        return torch.ones(shape, device=call.codes_BL.device, dtype=self.prior.alpha.dtype)

    def _to_mask_bins(self, values: Tensor) -> Tensor:
        """Group bins by mask bin: (batch, mask bins, bins per mask bin, columns)."""
        batch, num_bins, num_columns = values.shape
        per_mask = (self.config.mask_bin_size or self.config.bin_size) // self.config.bin_size
        return values.reshape(batch, num_bins // per_mask, per_mask, num_columns)

    def _to_bins(self, values_BM: Tensor) -> Tensor:
        """Repeat one value per mask bin to the bins it covers."""
        per_mask = self.config.num_bins // values_BM.shape[1]
        return values_BM.repeat_interleave(per_mask, dim=1) if per_mask > 1 else values_BM

    def flops(self) -> int:
        """Count the floating-point operations of a forward pass of one window, in the networks."""
        networks: list[Any] = [net for net in (self.generator, self.predictor) if net is not None]
        return sum(int(net.flops(self.config.num_bins)) for net in networks)

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
        raw, embedded, features = input_moments(
            batches,
            num_tracks=len(config.tracks),
            num_features=config.num_features,
            transform=config.track_transform,
        )
        if config.track_beta_scale == "mean":
            mean_T = raw.mean()
            self.track_unit_T.copy_(torch.where(mean_T > 0, mean_T, 1.0))
        if config.scale_tracks and self.track_embedding is not None:
            self.track_embedding.set_scaling(embedded.mean(), embedded.std())
        if self.track_head is not None:
            chosen = self.track_head.tracks
            self.track_head.scaling.set_scaling(embedded.mean()[chosen], embedded.std()[chosen])
        if config.scale_features:
            self.head.set_feature_scaling(features.mean(), features.std())

    def set_output_scaling(self, mean_K: Tensor, std_K: Tensor) -> None:
        """Let the head start from the moments of the training labels, float, shape (outputs,)."""
        self.head.set_output_scaling(mean_K, std_K)
