"""What goes into a model and what comes out of it, on both strands.

Shapes: B batch, L base pairs, N bins, T tracks, F scalar features, R elements, D read-out
width, K outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from seq2exp.core.errors import InputError, facts
from seq2exp.nn.sequence import flip_bins, reverse_complement

__all__ = [
    "ModelCall",
    "Seq2ExpOutput",
    "expect_binary",
    "expect_inputs",
    "expect_shape",
    "mean_with_mirrored",
]


@dataclass(frozen=True)
class Seq2ExpOutput:
    """What one forward pass gives; bins run along the oriented window.

    Attributes
    ----------
    expression_BK : float tensor, shape (batch, outputs)
        Prediction in the unit of the labels.
    mask_BN : float tensor, shape (batch, bins)
        Mask the predictor saw, after forcing.
    mean_BN : float tensor, shape (batch, bins)
        Mean of the posterior before forcing; the mask before forcing where it is given or not
        learned; ones with mask: none.
    alpha_BN, beta_BN : float tensor, shape (batch, bins), or None
        Parameters of the fused Beta, to which every posterior is matched; None without a learned
        mask.
    kl_B : float tensor, shape (batch,)
        KL to the prior, mean over bins, in nats; zeros without a learned mask.
    track_loss_B : float tensor, shape (batch,)
        Mean squared error of the tracks that the generator predicts; zeros without
        `track_loss_weight`, and under a given mask.
    embedding_BD : float tensor, shape (batch, width of the read-out)
        Pooled predictor state.
    tracks_BNU : float tensor, shape (batch, bins, predicted tracks), or None
        Raw signal that the generator predicts from the bases; None in training, under a given mask
        and without `track_loss_weight`.
    """

    expression_BK: Tensor
    mask_BN: Tensor
    mean_BN: Tensor
    alpha_BN: Tensor | None
    beta_BN: Tensor | None
    kl_B: Tensor
    track_loss_B: Tensor
    embedding_BD: Tensor
    tracks_BNU: Tensor | None = None

    def rows(self, index: Tensor) -> Seq2ExpOutput:
        """Return copies of some rows."""
        chosen: dict[str, Any] = {k: v if v is None else v[index] for k, v in vars(self).items()}
        return Seq2ExpOutput(**chosen)

    def put(self, index: Tensor, other: Seq2ExpOutput) -> None:
        """Write the rows of another output in place of some."""
        for name, values in vars(self).items():
            if values is not None:
                values[index] = getattr(other, name)

    def under_its_mask(self) -> Seq2ExpOutput:
        """Return what the same windows give when their mask is given and not made."""
        zeros_B = torch.zeros_like(self.kl_B)
        return replace(
            self,
            mean_BN=self.mask_BN,
            alpha_BN=None,
            beta_BN=None,
            kl_B=zeros_B,
            track_loss_B=zeros_B,
            tracks_BNU=None,
        )

    @staticmethod
    def joined(outputs: Sequence[Seq2ExpOutput]) -> Seq2ExpOutput:
        """Put the rows of several outputs one after the other."""
        if len(outputs) == 1:
            return outputs[0]
        joined: dict[str, Any] = {}
        for item in fields(Seq2ExpOutput):
            parts = [getattr(output, item.name) for output in outputs]
            joined[item.name] = None if parts[0] is None else torch.cat(parts)
        return Seq2ExpOutput(**joined)


class ModelCall(NamedTuple):
    """The tensors of one forward pass."""

    codes_BL: Tensor
    signal_BNT: Tensor | None
    features_BF: Tensor | None
    blacklist_BN: Tensor | None
    valid_BN: Tensor | None
    mask_BN: Tensor | None
    force_promoter: bool
    elements_BR2: Tensor | None = None

    def rows(self, index: Tensor | slice) -> ModelCall:
        """Return some of the windows."""
        chosen: dict[str, Any] = {
            name: values[index] if isinstance(values, Tensor) else values
            for name, values in self._asdict().items()
        }
        return ModelCall(**chosen)

    def mirrored(self) -> ModelCall:
        """Give the same windows as seen from the other strand."""

        def flip(values: Tensor | None) -> Tensor | None:
            return None if values is None else flip_bins(values)

        return self._replace(
            codes_BL=reverse_complement(self.codes_BL),
            signal_BNT=flip(self.signal_BNT),
            blacklist_BN=flip(self.blacklist_BN),
            valid_BN=flip(self.valid_BN),
            mask_BN=flip(self.mask_BN),
            elements_BR2=self._mirrored_elements(),
        )

    def _mirrored_elements(self) -> Tensor | None:
        if self.elements_BR2 is None:
            return None
        there_BR1 = self.elements_BR2[..., 1:] > self.elements_BR2[..., :1]
        flipped_BR2 = self.codes_BL.shape[1] - self.elements_BR2.flip(-1)
        return torch.where(there_BR1, flipped_BR2, self.elements_BR2)


def mean_with_mirrored(out: Seq2ExpOutput, other: Seq2ExpOutput) -> Seq2ExpOutput:
    """Average two outputs, the second of which comes from the mirrored window."""
    averaged: dict[str, Any] = {}
    for item in fields(Seq2ExpOutput):
        mine, theirs = getattr(out, item.name), getattr(other, item.name)
        if mine is not None:
            theirs = flip_bins(theirs) if "_BN" in item.name else theirs
            averaged[item.name] = (mine + theirs) / 2
    return replace(out, **averaged)


def expect_shape(name: str, tensor: Tensor | None, shape: tuple[int | None, ...]) -> None:
    """Raise InputError unless a tensor is there and has the shape; None fits every size."""
    found = None if tensor is None else tuple(tensor.shape)
    fits = found is not None and len(found) == len(shape)
    if (
        found is None
        or not fits
        or any(w not in (None, f) for f, w in zip(found, shape, strict=True))
    ):
        names = ["any" if n is None else str(n) for n in shape]
        wanted = "(" + ", ".join(["batch" if shape[0] is None else names[0], *names[1:]]) + ")"
        raise InputError(
            facts(
                f"model input {name}",
                found="nothing" if found is None else f"shape {found}",
                expected=f"shape {wanted}",
                fix="prepare the batch with the window, bins, tracks and features of the model",
            )
        )


class InputSizes(Protocol):
    """What a configuration says of the inputs."""

    @property
    def window_bp(self) -> int:
        """Bases of a window."""

    @property
    def num_bins(self) -> int:
        """Bins of a window."""

    @property
    def num_features(self) -> int:
        """Scalar features of a gene."""


def expect_inputs(call: ModelCall, config: InputSizes, *, num_tracks: int) -> None:
    """Raise InputError unless bases, tracks and features have the shapes of a configuration.

    Parameters
    ----------
    call : ModelCall
        Its bases are codes, or one-hot columns.
    config : InputSizes
    num_tracks : int
        0 where tracks are not read; then they are not looked at.
    """
    batch = len(call.codes_BL)
    columns = (4,) if call.codes_BL.ndim == 3 else ()
    expect_shape("codes", call.codes_BL, (None, config.window_bp, *columns))
    if num_tracks:
        expect_shape("signal", call.signal_BNT, (batch, config.num_bins, num_tracks))
    if config.num_features:
        expect_shape("features", call.features_BF, (batch, config.num_features))


def expect_binary(name: str, tensor: Tensor) -> None:
    """Raise InputError unless a tensor holds nothing but 0 and 1."""
    between = (tensor != 0) & (tensor != 1)
    if between.any():
        raise InputError(
            facts(
                f"model input {name}",
                found=f"values such as {tensor[between][0].item():.4g}",
                expected="0 and 1 only, which gate: pack needs",
                fix="round the mask, or use a model with gate: delta",
                count=int(between.sum()),
            )
        )
