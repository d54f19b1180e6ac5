"""Seq2Exp: expression of a gene and the mask of its regulatory elements from one window.

A generator network and the tracks give a Beta distribution per bin; a mask drawn from it gates the
predictor network; the KL to a sparse prior is the information bottleneck. Method: Su et al.,
"Learning to Discover Regulatory Elements for Gene Expression Prediction", arXiv 2502.13991.

Shapes: B batch, L base pairs, N bins (L / bin_size), M mask bins, T tracks, F scalar features,
R candidate elements, D model width, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor

from seq2exp.core.errors import ConfigError, facts
from seq2exp.encoders.first_block import first_block
from seq2exp.encoders.rerun import Embedded, StemRerun, in_parts
from seq2exp.models.config import Seq2ExpConfig
from seq2exp.models.element_masks import mask_of_elements
from seq2exp.models.masking import draw_mask, force_mask, top_bins
from seq2exp.models.networks import Seq2ExpNetworks
from seq2exp.models.output import (
    ModelCall,
    Seq2ExpOutput,
    expect_binary,
    expect_inputs,
    expect_shape,
    mean_with_mirrored,
)
from seq2exp.models.rerun import Shared, keep_reference
from seq2exp.nn.posterior import MaskPosterior, matched_posterior
from seq2exp.nn.sequence import flip_bins

__all__ = ["Seq2Exp", "Seq2ExpConfig", "Seq2ExpOutput"]


class Seq2Exp(Seq2ExpNetworks):
    """Predicts expression through a learned mask of regulatory elements.

    Parameters
    ----------
    config : Seq2ExpConfig
        See its fields.
    """

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

    def one_strand(self, call: ModelCall) -> Seq2ExpOutput:
        """Predict windows as they are given, never sampled, whatever `rc_average` says."""
        self._check(call)
        return self._forward_one(call, sample=False)

    def _forward_one(self, call: ModelCall, *, sample: bool) -> Seq2ExpOutput:
        return self._forward_read(call, *self._read(call), sample=sample)

    def share(self, call: ModelCall) -> Shared | None:
        """Share one window among its edits (see `seq2exp.models.rerun`): what the stem scans.

        Generator and predictor run in full, because an edit changes the mask of every bin. An edit
        that the mask of the window itself hides from everything needs no pass under that mask.
        """
        if self.stem is None:
            return None
        config, bases = self.config, StemRerun(self.stem, call.codes_BL, self.config.bin_size)
        first = None
        if self.generator is not None:
            seen_1ND = self._seen_by_generator(self._read_tracks(call))
            first = first_block(self.generator, self._embed(bases.as_it_is, seen_1ND))

        def edited(call: ModelCall, changed_BN: Tensor) -> Seq2ExpOutput:
            self._check(call)
            outputs = []
            for rows in in_parts(changed_BN):
                part = call.rows(rows)
                embedded = bases(part.codes_BL, changed_BN[rows])
                tracks_BND = self._read_tracks(part)
                generate = None
                if first is not None:
                    generate = partial(first, changed_BN=changed_BN[rows], reads=bases.margins)
                outputs.append(
                    self._forward_read(
                        part, embedded, tracks_BND, sample=False, first_block=generate
                    )
                )
            return Seq2ExpOutput.joined(outputs)

        reference = self.one_strand(call)
        if config.gate != "multiply":
            bases.hold(reference.mask_BN)
        return keep_reference(edited, call, reference, hides=self._hides)

    def _hides(self, changed_BN: Tensor, mask_1N: Tensor) -> Tensor:
        """Tell which rows differ only in bins that nothing reads under a mask, bool, (batch,)."""
        seen_1N = mask_1N != 0
        if self.config.gate == "multiply":
            seen_1N = torch.ones_like(seen_1N)
        elif self.readout.reads is not None:
            seen_1N = seen_1N.clone()
            seen_1N[:, slice(*self.readout.reads)] = True
        elif self.readout.weighting == "plain":
            seen_1N = torch.ones_like(seen_1N)
        return ~(changed_BN & seen_1N).any(1)

    def _forward_read(
        self,
        call: ModelCall,
        bases: Embedded | None,
        tracks_BND: Tensor | None,
        *,
        sample: bool,
        first_block: Callable[[Tensor], Tensor] | None = None,
    ) -> Seq2ExpOutput:
        """Make the mask and the prediction of windows whose bases and tracks are embedded."""
        generated_BND = evidence_BM = q_BM = None
        if call.mask_BN is None:
            generated_BND = self._generate(bases, tracks_BND, first_block)
            evidence_BM = self._evidence(generated_BND, call.signal_BNT)
        if evidence_BM is not None:
            q_BM = matched_posterior(self.config.posterior, evidence_BM)
        drawn_BN = self._draw(call, q_BM, sample=sample)
        mask_BN = free_BN = None
        if drawn_BN is not None:
            mask_BN, free_BN = self._force(call, drawn_BN)
        hidden_BND = self._predict(bases, tracks_BND, mask_BN)
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
            tracks_BNU=self._tracks(generated_BND),
        )

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

    def _kl(self, q_BM: MaskPosterior, free_BN: Tensor | None) -> Tensor:
        kl_BM = self.prior.kl(q_BM)
        if free_BN is None or not self.config.kl_excludes_forced:
            return kl_BM.mean(1)
        free_BM = self._to_mask_bins(free_BN[..., None]).any(2)[..., 0].to(kl_BM.dtype)
        return (kl_BM * free_BM).sum(1) / free_BM.sum(1).clamp(min=1)

    def _check(self, call: ModelCall) -> None:
        """Refuse tensors of the wrong shape."""
        config, batch = self.config, len(call.codes_BL)
        expect_inputs(call, config, num_tracks=len(config.tracks))
        for name in ("blacklist_BN", "valid_BN", "mask_BN"):
            values_BN = getattr(call, name)
            if values_BN is not None:
                expect_shape(name, values_BN, (batch, config.num_bins))
        if call.elements_BR2 is not None:
            expect_shape("elements", call.elements_BR2, (batch, None, 2))
        if call.mask_BN is not None and config.gate == "pack":
            expect_binary("mask_BN", call.mask_BN)
