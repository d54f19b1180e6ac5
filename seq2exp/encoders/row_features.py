"""The three numbers beside the sequence of every promoter and element of EPInformer.

Shapes: B batch, N bins, T tracks, M rows of the batch, F features; 2 start and end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seq2exp.core.errors import ConfigError, facts
from seq2exp.nn.elements import span_centres, span_means, undo_transform
from seq2exp.nn.tracks import TrackTransform

__all__ = ["NUM_FEATURES", "RowFeatures", "activity_tracks"]

NUM_FEATURES = 3
_CONTACT = "contact"
_ACCESSIBILITY, _ACETYLATION = ("dnase", "atac"), ("h3k27ac",)


def activity_tracks(
    tracks: Sequence[str], *, accessibility: str | None = None, acetylation: str | None = None
) -> tuple[str, ...]:
    """Choose the tracks whose geometric mean is the activity of an element.

    Accessibility and H3K27ac where both are there, else the first track; never the contacts.

    Parameters
    ----------
    tracks : sequence of str
        Names of the tracks.
    accessibility, acetylation : str, optional
        The tracks to take; else the first with DNase or ATAC, and with H3K27ac, in its name.

    Raises
    ------
    ConfigError
        A track that is asked for is not there.
    """
    signals = [name for name in tracks if name != _CONTACT]
    chosen = [
        _find(signals, words, asked=asked)
        for words, asked in ((_ACCESSIBILITY, accessibility), (_ACETYLATION, acetylation))
    ]
    both = tuple(name for name in chosen if name is not None)
    return both if len(both) == 2 else tuple(signals[:1])


def _find(names: list[str], words: tuple[str, ...], *, asked: str | None) -> str | None:
    if asked is not None and asked not in names:
        raise ConfigError(
            facts(
                "track of the activity",
                found=repr(asked),
                expected="one of " + (", ".join(names) or "no tracks at all"),
                fix="change epinformer.accessibility or epinformer.acetylation",
            )
        )
    found = (name for name in names if any(word in name.lower() for word in words))
    return asked or next(found, None)


@dataclass(frozen=True)
class RowFeatures:
    """Distance, contact and activity of the rows of a batch.

    Parameters
    ----------
    tracks : tuple of str
        Tracks of the signal; one named "contact" holds the contact with the TSS.
    activity : tuple of str
        The tracks that make the activity, one or two.
    transforms : tuple of str
        Transform that each track was stored with; empty for none.
    tss : int
        Base of the TSS in the window.
    bin_size : int
        Base pairs per bin of the signal.
    is_signed : bool
        Give the distance its sign, negative before the TSS.
    """

    tracks: tuple[str, ...]
    activity: tuple[str, ...]
    transforms: tuple[TrackTransform, ...]
    tss: int
    bin_size: int
    is_signed: bool

    def __call__(
        self,
        signal_BNT: Tensor | None,
        mask_BN: Tensor | None,
        window_M: Tensor,
        spans_M2: Tensor,
    ) -> Tensor:
        """Distance in kb, ``log10(1 + contact)`` and activity, float64, shape (rows, 3).

        Parameters
        ----------
        signal_BNT : float tensor, shape (batch, bins, tracks), optional
            As stored; NaN counts as 0. Without it contact and activity are 0.
        mask_BN : float tensor, shape (batch, bins), optional
            Multiplies contact and activity of each bin.
        window_M : int64 tensor, shape (rows,)
            Window of each row.
        spans_M2 : int64 tensor, shape (rows, 2)
            Start and end in that window.
        """
        centre_M = span_centres(spans_M2)
        distance_M = (centre_M - self.tss).double() / 1000
        if not self.is_signed:
            distance_M = distance_M.abs()
        contact_M = activity_M = torch.zeros_like(distance_M)
        if signal_BNT is not None and _CONTACT in self.tracks:
            contact_M = self._contact(signal_BNT, mask_BN, window_M, centre_M)
        if signal_BNT is not None and self.activity:
            activity_M = self._activity(signal_BNT, mask_BN, window_M, spans_M2)
        return torch.stack([distance_M, contact_M, activity_M], dim=1)

    def _contact(
        self, signal_BNT: Tensor, mask_BN: Tensor | None, window_M: Tensor, centre_M: Tensor
    ) -> Tensor:
        contact_BN = signal_BNT[..., self.tracks.index(_CONTACT)].double()
        contact_BN = torch.nan_to_num(contact_BN, nan=0.0).clamp(min=0)
        if mask_BN is not None:
            contact_BN = contact_BN * mask_BN
        bin_M = torch.div(centre_M, self.bin_size, rounding_mode="floor")
        last = contact_BN.shape[1] - 1
        is_inside_M = (bin_M >= 0) & (bin_M <= last)
        return torch.log10(1 + contact_BN[window_M, bin_M.clamp(0, last)]) * is_inside_M

    def _activity(
        self, signal_BNT: Tensor, mask_BN: Tensor | None, window_M: Tensor, spans_M2: Tensor
    ) -> Tensor:
        raw = []
        for name in self.activity:
            column = self.tracks.index(name)
            transform = self.transforms[column] if self.transforms else "none"
            raw.append(undo_transform(signal_BNT[..., column].double(), transform))
        raw_BNT = torch.nan_to_num(torch.stack(raw, dim=-1), nan=0.0).clamp(min=0)
        if mask_BN is not None:
            raw_BNT = raw_BNT * mask_BN[..., None]
        means_MT = span_means(raw_BNT, window_M, spans_M2, bin_size=self.bin_size)
        if len(self.activity) == 1:
            return means_MT[:, 0]
        product_M = means_MT[:, 0] * means_MT[:, 1]
        # The slope of a root is infinite at 0, which a mask makes.
        is_positive_M = product_M > 0
        return torch.where(is_positive_M, product_M, 1.0).sqrt() * is_positive_M
