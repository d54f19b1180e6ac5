"""What a system sees of some spots, and what every system can do.

Axes of the names below: B spots of a batch, T tokens of a patch, D features, K = 25 tiles of the
5 x 5 window around a spot, G genes of the panel, N spots of a whole section, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from seq2exp.core.errors import ConfigError, facts

__all__ = ["NEEDS", "SpatialSystem", "SpotBatch", "SystemInfo", "require_fields"]

NEEDS: Mapping[str, str] = {
    "img": "prepare the cohort with patches",
    "tokens": "choose an image encoder that gives tokens",
    "feat": "choose an image encoder",
    "nbr": "compute features of the 5 x 5 tiles around the spots; the cohort must hold images",
    "maps": "compute edge and nuclei maps",
    "y": "give sections with counts",
    "counts": "give sections with counts",
    "sections": "give whole sections",
}
"""Fields that a system may require, and how to get them."""


@dataclass(frozen=True, eq=False)
class SpotBatch:
    """Some spots; what is missing is None.

    Attributes
    ----------
    section, patient, spot : int64 tensors, shape (B,)
        Number of the section and of the patient in the cohort, row of the spot in its section.
    grid : int64 tensor, shape (B, 2)
        Row and column on the array of spots.
    xy_um : float32 tensor, shape (B, 2)
        Position in micrometres.
    total : float32 tensor, shape (B,)
        Sum of the counts over all genes.
    y : float32 tensor, shape (B, G)
        Labels under the recipe; NaN where a gene was not measured.
    gene_mask : bool tensor, shape (B, G)
        Measured genes.
    counts : float32 tensor, shape (B, G)
        Raw counts of the panel.
    size_factor : float32 tensor, shape (B,)
        What the recipe divides counts by; 1 without one.
    img : float32 tensor, shape (B, 3, H, W)
        RGB between 0 and 1; encoders apply their own mean and deviation.
    tokens, feat : float32 tensors, shapes (B, T, D) and (B, D)
        Features of the patch, from the cache.
    nbr, nbr_mask : float32 (B, K, D) and bool (B, K) tensors
        Features of the tiles around the spot, row by row; False outside the image.
    maps : mapping of str to float32 tensor, shape (B, 1, H, W)
        Boundary maps between 0 and 1.
    sections : mapping of int to (feat (N, D), grid (N, 2))
        All spots of the sections that occur in the batch.
    """

    section: Tensor
    patient: Tensor
    spot: Tensor
    grid: Tensor
    xy_um: Tensor
    total: Tensor
    y: Tensor | None = None
    gene_mask: Tensor | None = None
    counts: Tensor | None = None
    size_factor: Tensor | None = None
    img: Tensor | None = None
    tokens: Tensor | None = None
    feat: Tensor | None = None
    nbr: Tensor | None = None
    nbr_mask: Tensor | None = None
    maps: Mapping[str, Tensor] | None = None
    sections: Mapping[int, tuple[Tensor, Tensor]] | None = None

    def __len__(self) -> int:
        return len(self.section)

    def to(self, device: torch.device | str) -> SpotBatch:
        """Return the batch on a device."""

        def move(value: Any) -> Any:  # noqa: ANN401
            if isinstance(value, Tensor):
                return value.to(device)
            if isinstance(value, Mapping):
                return {key: move(item) for key, item in value.items()}
            if isinstance(value, tuple):
                return tuple(map(move, value))
            return value

        return replace(self, **{part.name: move(getattr(self, part.name)) for part in fields(self)})


@dataclass(frozen=True)
class SystemInfo:
    """What the data say to a system before it is built."""

    num_genes: int
    """Genes of the panel."""
    feat_dim: int = 0
    """Features of a pooled patch; 0 without an encoder."""
    token_dim: int = 0
    """Features of a token."""
    patch_px: int = 224
    """Side of a patch."""
    grid_rows: int = 0
    """Largest row of a spot plus one."""
    grid_cols: int = 0
    """Largest column of a spot plus one."""


@runtime_checkable
class SpatialSystem(Protocol):
    """What ``train``, ``predict`` and ``evaluate`` ask of a system that learns by gradients.

    A system is a ``torch.nn.Module``. In eval mode predictions are deterministic, and that of a
    spot does not depend on which other spots are in its batch.
    """

    requires: frozenset[str]
    """Fields of :class:`SpotBatch` that must be there."""

    def loss(self, batch: SpotBatch, step: int) -> dict[str, Tensor]:
        """Return ``total`` and its parts, scalars."""

    def predict(self, batch: SpotBatch) -> Tensor:
        """Return predicted labels, shape (B, G)."""


def require_fields(needed: frozenset[str], batch: SpotBatch, *, system: str) -> None:
    """Refuse a batch that lacks what a system requires.

    Raises
    ------
    ConfigError
        Names the fields and how to get them.
    """
    missing = sorted(name for name in needed if getattr(batch, name) is None)
    if missing:
        raise ConfigError(
            facts(
                f"system {system}",
                found=f"no {', '.join(missing)}",
                expected="what the system reads",
                fix="; ".join(NEEDS[name] for name in missing if name in NEEDS),
                count=len(missing),
            )
        )
