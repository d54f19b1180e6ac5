"""Seq2Exp: expression of a gene and the mask of its regulatory elements from one window.

A generator network and the tracks give a Beta distribution per bin; a mask drawn from it gates the
predictor network; the KL to a sparse prior is the information bottleneck. Method: Su et al.,
"Learning to Discover Regulatory Elements for Gene Expression Prediction", arXiv 2502.13991.

Shapes: B batch, L base pairs, N bins (L / bin_size), M mask bins, T tracks, F scalar features,
R candidate elements, D model width, K outputs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from seq2exp.core.config import bind
from seq2exp.core.errors import ConfigError, facts
from seq2exp.encoders.rerun import refresh
from seq2exp.models.config import CONTACT, Seq2ExpConfig
from seq2exp.models.contributions import ElementSum
from seq2exp.models.element_masks import mask_of_elements
from seq2exp.models.masking import draw_mask, force_mask, top_bins
from seq2exp.models.output import (
    ModelCall,
    Seq2ExpOutput,
    expect_bases,
    expect_binary,
    expect_shape,
    mean_with_mirrored,
)
from seq2exp.models.packing import run_packed
from seq2exp.models.parts import (
    make_head,
    make_readout,
    make_stem,
    make_track_beta,
    make_track_embedding,
    make_trunk,
)
from seq2exp.models.rerun import Shared
from seq2exp.models.scaling import ColumnMoments
from seq2exp.models.track_head import TrackHead
from seq2exp.nn.beta import BetaParameters, BetaPrior, fuse, sequence_beta
from seq2exp.nn.posterior import MaskPosterior, matched_posterior
from seq2exp.nn.sequence import flip_bins
from seq2exp.nn.stem_layer import StemScan
from seq2exp.nn.tracks import apply_transform

__all__ = ["Seq2Exp", "Seq2ExpConfig", "Seq2ExpOutput"]


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
        members = nn.ModuleList(Seq2Exp(settings) for _ in range(self.config.mask_members))
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

    def train(self, mode: bool = True) -> Seq2Exp:  # noqa: FBT001, FBT002 - torch's signature
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

    def forward(
        self,
        codes_BL: Tensor,
        signal_BNT: Tensor | None = None,
        features_BF: Tensor | None = None,
        *,
        blacklist_BN: Tensor | None = None,
        valid_BN: Tensor | None = None,
        elements_BR2: Tensor | None = None,
        mask_BN: Tensor | None = None,
        sample: bool | None = None,
        force_promoter: bool = True,
    ) -> Seq2ExpOutput:
        """Predict expression and the mask of windows that run along transcription.

        Parameters
        ----------
        codes_BL : uint8 tensor, shape (batch, window_bp)
            Bases A0 C1 G2 T3 N4; or one-hot columns A C G T, float, shape (batch, window_bp, 4),
            for gradients with respect to the bases.
        signal_BNT : float tensor, shape (batch, bins, tracks), optional
            Raw signal per bin; NaN where a track is missing.
        features_BF : float tensor, shape (batch, features), optional
            Raw scalar features; NaN where one is missing.
        blacklist_BN : bool tensor, shape (batch, bins), optional
            Bins whose mask is 0.
        valid_BN : bool tensor, shape (batch, bins), optional
            False for bins outside the contig.
        elements_BR2 : int tensor, shape (batch, elements, 2), optional
            Candidate elements, nearest to the TSS first: half-open base pairs from the first base
            of the window; rows that are left over are -1. Read by mask: peaks and abc.
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
            codes_BL,
            signal_BNT,
            features_BF,
            blacklist_BN,
            valid_BN,
            mask_BN,
            force_promoter,
            elements_BR2,
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
        elements_BR2: Tensor | None = None,
        mask_BN: Tensor | None = None,
        force_promoter: bool = True,
    ) -> Seq2ExpOutput:
        """Average the predictions of the windows and of their reverse complements, never sampled.

        The arguments are those of `forward`. Masks come back in the order of the given window.
        """
        call = ModelCall(
            codes_BL,
            signal_BNT,
            features_BF,
            blacklist_BN,
            valid_BN,
            mask_BN,
            force_promoter,
            elements_BR2,
        )
        self._check(call)
        return mean_with_mirrored(
            self._forward_one(call, sample=False), self._forward_one(call.mirrored(), sample=False)
        )

    def _forward_one(self, call: ModelCall, *, sample: bool) -> Seq2ExpOutput:
        return self._forward_read(call, *self._read(call), sample=sample)

    def share(self, call: ModelCall) -> Shared | None:
        """Share one window among its edits (see `seq2exp.models.rerun`): what the stem scans.

        Generator and predictor run in full, because an edit changes the mask of every bin.
        """
        if self.stem is None:
            return None
        stem, size = self.stem, self.config.bin_size
        scanned = stem.scan_bases(call.codes_BL)
        before, after = (-(-margin // size) for margin in stem.margins())

        def edited(call: ModelCall, changed_BN: Tensor) -> Seq2ExpOutput:
            self._check(call)
            fresh = refresh(
                lambda codes, _: stem.scan_bases(codes),
                scanned,
                call.codes_BL,
                None,
                changed_BN,
                bin_size=size,
                reads=(before, after),
            )
            return self._forward_read(call, fresh, self._read_tracks(call), sample=False)

        return edited

    def _forward_read(
        self,
        call: ModelCall,
        scanned: StemScan | None,
        tracks_BND: Tensor | None,
        *,
        sample: bool,
    ) -> Seq2ExpOutput:
        """Make the mask and the prediction of windows whose bases and tracks are embedded."""
        generated_BND = evidence_BM = q_BM = None
        if call.mask_BN is None:
            generated_BND = self._generate(scanned, tracks_BND)
            evidence_BM = self._evidence(generated_BND, call.signal_BNT)
        if evidence_BM is not None:
            q_BM = matched_posterior(self.config.posterior, evidence_BM)
        drawn_BN = self._draw(call, q_BM, sample=sample)
        mask_BN = free_BN = None
        if drawn_BN is not None:
            mask_BN, free_BN = self._force(call, drawn_BN)
        hidden_BND = self._predict(scanned, tracks_BND, mask_BN)
        pooled_BD = self.readout(hidden_BND, mask_BN, first=self.span[0] if self.span else 0)
        if self.element_sum is not None:
            contact_BN = self._contact(call)
            summed_BV = self.element_sum(hidden_BND, mask_BN, contact_BN)
            pooled_BD = torch.cat([pooled_BD, summed_BV], dim=-1)
        features_BF = call.features_BF if self.config.num_features else None
        ones_BN = self._ones(call)
        return Seq2ExpOutput(
            expression_BK=self.head(pooled_BD, features_BF),
            mask_BN=ones_BN if mask_BN is None else mask_BN,
            mean_BN=drawn_BN if drawn_BN is not None and q_BM is None else self._mean(call, q_BM),
            alpha_BN=None if evidence_BM is None else self._to_bins(evidence_BM.alpha_BN),
            beta_BN=None if evidence_BM is None else self._to_bins(evidence_BM.beta_BN),
            kl_B=ones_BN.new_zeros(len(ones_BN)) if q_BM is None else self._kl(q_BM, free_BN),
            track_loss_B=self._track_loss(call, generated_BND),
            embedding_BD=pooled_BD,
        )

    def _contact(self, call: ModelCall) -> Tensor:
        """Contact with the TSS over its training mean; ones without a contact track."""
        if call.signal_BNT is None or CONTACT not in self.config.tracks:
            return self._ones(call)
        column = self.config.tracks.index(CONTACT)
        contact_BN = call.signal_BNT[..., column].to(self.track_unit_T)
        return torch.nan_to_num(contact_BN, nan=0.0).clamp(min=0) / self.track_unit_T[column]

    def _read(self, call: ModelCall) -> tuple[StemScan | None, Tensor | None]:
        """Scan the bases with the stem and embed the tracks."""
        scanned = None if self.stem is None else self.stem.scan_bases(call.codes_BL)
        return scanned, self._read_tracks(call)

    def _read_tracks(self, call: ModelCall) -> Tensor | None:
        if self.track_embedding is None or call.signal_BNT is None:
            return None
        tracks_BND: Tensor = self.track_embedding(call.signal_BNT)
        return tracks_BND

    def mean_mask(self, codes_BL: Tensor, signal_BNT: Tensor | None = None) -> Tensor:
        """Mean of the posterior before anything is forced; the predictor does not run.

        Parameters
        ----------
        codes_BL : uint8 tensor, shape (batch, window_bp)
        signal_BNT : float tensor, shape (batch, bins, tracks), optional
            As for `forward`.

        Returns
        -------
        float tensor, shape (batch, bins)

        Raises
        ------
        ConfigError
            The model has no posterior.
        """
        call = ModelCall(codes_BL, signal_BNT, None, None, None, None, force_promoter=True)
        mean_BN = self._mean_mask(call)
        if self.training or not self.config.rc_average:
            return mean_BN
        return (mean_BN + flip_bins(self._mean_mask(call.mirrored()))) / 2

    def _mean_mask(self, call: ModelCall) -> Tensor:
        evidence_BM = self._evidence(self._generate(*self._read(call)), call.signal_BNT)
        if evidence_BM is None:
            raise ConfigError(
                facts(
                    "model.mask",
                    found=self.config.mask,
                    expected="a mask that is learned",
                    fix="use a model with mask: soft or hard",
                )
            )
        return self._to_bins(matched_posterior(self.config.posterior, evidence_BM).mean())

    def frozen_mask(
        self,
        codes_BL: Tensor,
        signal_BNT: Tensor | None = None,
        *,
        blacklist_BN: Tensor | None = None,
        valid_BN: Tensor | None = None,
    ) -> Tensor:
        """Mask that the frozen mask model of `mask: retrain` chooses, float, shape (batch, bins).

        Given back as `mask_BN`, it makes `forward` do what it does without, but for the mask model.

        Parameters
        ----------
        codes_BL, signal_BNT, blacklist_BN, valid_BN
            As for `forward`.
        """
        return self._from_mask_model(
            ModelCall(codes_BL, signal_BNT, None, blacklist_BN, valid_BN, None, force_promoter=True)
        )

    def _mean(self, call: ModelCall, q_BM: MaskPosterior | None) -> Tensor:
        return self._ones(call) if q_BM is None else self._to_bins(q_BM.mean())

    def _ones(self, call: ModelCall) -> Tensor:
        shape = (len(call.codes_BL), self.config.num_bins)
        return torch.ones(shape, device=call.codes_BL.device, dtype=self.prior.alpha.dtype)

    def _draw(self, call: ModelCall, q_BM: MaskPosterior | None, *, sample: bool) -> Tensor | None:
        """Mask of the mode before anything is forced; None where nothing is masked."""
        config = self.config
        if call.mask_BN is not None:
            return call.mask_BN.to(self.prior.alpha.dtype)
        if config.reads_elements:
            return mask_of_elements(config, call.elements_BR2).to(self.prior.alpha.dtype)
        if self.mask_model is not None:
            return self._from_mask_model(call)
        if q_BM is None:
            return None
        if config.test_mask == "topk" and not sample:
            return top_bins(self._to_bins(q_BM.mean()), count=config.budget_bins)
        return self._to_bins(draw_mask(config.mask, q_BM, sample=sample))

    @torch.no_grad()
    def _from_mask_model(self, call: ModelCall) -> Tensor:
        """Highest bins of the frozen mean mask: the promoter first, what is forced to 0 last."""
        members = cast("list[Seq2Exp]", self.mask_model)
        means = [member.mean_mask(call.codes_BL, call.signal_BNT) for member in members]
        mean_BN = torch.stack(means).mean(0)
        # Forced on a copy of ones: 1 where a bin may be chosen at all.
        allowed_BN, free_BN = self._force(call, torch.ones_like(mean_BN))
        score_BN = torch.where(free_BN, mean_BN, torch.where(allowed_BN > 0, torch.inf, -torch.inf))
        return top_bins(score_BN, count=self.config.budget_bins).to(self.prior.alpha.dtype)

    def _force(self, call: ModelCall, drawn_BN: Tensor) -> tuple[Tensor, Tensor]:
        """Mask after forcing, and the bins that were free."""
        return force_mask(
            drawn_BN,
            blacklist_BN=call.blacklist_BN,
            valid_BN=call.valid_BN if self.config.gate_padding else None,
            promoter=self.promoter if call.force_promoter else (0, 0),
        )

    def _generate(self, scanned: StemScan | None, tracks_BND: Tensor | None) -> Tensor | None:
        """Hidden states of the generator; None without one."""
        if self.generator is None:
            return None
        seen_BND = tracks_BND if self.config.generator_sees_tracks else None
        hidden_BND: Tensor = self.generator(self._embed(scanned, seen_BND))
        return hidden_BND

    def _track_loss(self, call: ModelCall, generated_BND: Tensor | None) -> Tensor:
        if self.track_head is None or generated_BND is None or call.signal_BNT is None:
            return self.prior.alpha.new_zeros(len(call.codes_BL))
        loss_B: Tensor = self.track_head(generated_BND, call.signal_BNT, call.valid_BN)
        return loss_B

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
        if self.position_ND is not None:
            total_BND = total_BND + self.position_ND
        dropped_BND: Tensor = self.embedding_dropout(total_BND)
        return dropped_BND

    def _predict(
        self, scanned: StemScan | None, tracks_BND: Tensor | None, mask_BN: Tensor | None
    ) -> Tensor:
        """Hidden states of the predictor, shape (batch, bins that are read, width)."""
        tracks_BND = tracks_BND if self.config.use_tracks else None
        if mask_BN is not None and self.config.gate != "multiply":
            embedded_BND = self._embed(scanned, tracks_BND, mask_BN)
            if self.config.gate == "pack":
                reach = self.pack_reach
                return run_packed(self.predictor, embedded_BND, mask_BN, reach=reach)
            hidden_BND: Tensor = self.predictor(embedded_BND, mask_BN, span=self.span)
            return hidden_BND
        embedded_BND = self._embed(scanned, tracks_BND)
        if mask_BN is not None:
            embedded_BND = embedded_BND * mask_BN[..., None].to(embedded_BND.dtype)
        hidden_BND = self.predictor(embedded_BND, span=self.span)
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

    def _kl(self, q_BM: MaskPosterior, free_BN: Tensor | None) -> Tensor:
        kl_BM = self.prior.kl(q_BM)
        if free_BN is None or not self.config.kl_excludes_forced:
            return kl_BM.mean(1)
        free_BM = self._to_mask_bins(free_BN[..., None]).any(2)[..., 0].to(kl_BM.dtype)
        return (kl_BM * free_BM).sum(1) / free_BM.sum(1).clamp(min=1)

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
        num_tracks = len(config.tracks)
        raw, embedded = ColumnMoments(num_tracks), ColumnMoments(num_tracks)
        features = ColumnMoments(config.num_features)
        for signal_BNT, features_BF in batches:
            if signal_BNT is not None and num_tracks:
                raw.update(signal_BNT.clamp(min=0))
                embedded.update(apply_transform(signal_BNT, config.track_transform))
            if features_BF is not None and config.num_features:
                features.update(features_BF)
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

    def _check(self, call: ModelCall) -> None:
        """Refuse tensors of the wrong shape."""
        config = self.config
        expect_bases(call.codes_BL, window_bp=config.window_bp)
        batch = len(call.codes_BL)
        if config.tracks:
            expect_shape("signal", call.signal_BNT, (batch, config.num_bins, len(config.tracks)))
        if config.num_features:
            expect_shape("features", call.features_BF, (batch, config.num_features))
        for name in ("blacklist_BN", "valid_BN", "mask_BN"):
            values_BN = getattr(call, name)
            if values_BN is not None:
                expect_shape(name, values_BN, (batch, config.num_bins))
        if call.elements_BR2 is not None:
            expect_shape("elements", call.elements_BR2, (batch, None, 2))
        if call.mask_BN is not None and config.gate == "pack":
            expect_binary("mask_BN", call.mask_BN)
