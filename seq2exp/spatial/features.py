"""Features of the patches of a cohort: from an encoder through the cache, or given as files.

Axes: N spots of a section, T places of a patch, K = 25 tiles around a spot, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import ConfigError, FormatError, facts
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.config import UNTRAINABLE, EncoderConfig
from seq2exp.spatial.devices import pick_device
from seq2exp.spatial.images.cache import FeatureCache
from seq2exp.spatial.images.embeddings import read_embeddings
from seq2exp.spatial.images.encoder import Encoder
from seq2exp.spatial.images.registry import make_encoder

__all__ = ["GivenFeatures", "PatchFeatures", "cohort_features", "configured_encoder"]

Floats = NDArray[np.floating]


class PatchFeatures(Protocol):
    """Features by section; nothing is computed before it is asked for."""

    @property
    def dim(self) -> int:
        """Features of a patch."""

    @property
    def token_dim(self) -> int:
        """Features of a place; 0 without places."""

    def feat(self, section: str) -> Floats:
        """Return the features of the patches of a section, shape (num_spots, dim)."""

    def tokens(self, section: str) -> Floats:
        """Return the features of all places, shape (num_spots, places, token_dim)."""

    def nbr(self, section: str) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the features of the tiles around, and which tiles are there.

        Shapes (num_spots, 25, dim) and (num_spots, 25).
        """


class GivenFeatures:
    """Features of whole patches that are there already.

    Parameters
    ----------
    values : mapping of str to float array, shape (num_spots, dim)
        By section.
    """

    token_dim = 0

    def __init__(self, values: Mapping[str, Floats]) -> None:
        self.values = values

    @property
    def dim(self) -> int:
        """Features of a patch."""
        return int(next(iter(self.values.values())).shape[1])

    def feat(self, section: str) -> Floats:
        """Return the features of the patches of a section, shape (num_spots, dim)."""
        return self.values[section]

    def tokens(self, section: str) -> Floats:
        """Refuse: features of whole patches have no places.

        Raises
        ------
        ConfigError
        """
        raise self._whole_patches_only("places of a patch", section)

    def nbr(self, section: str) -> tuple[Floats, NDArray[np.bool_]]:
        """Refuse: the tiles around a spot were not embedded.

        Raises
        ------
        ConfigError
        """
        raise self._whole_patches_only("tiles around a spot", section)

    def _whole_patches_only(self, what: str, section: str) -> ConfigError:
        return ConfigError(
            facts(
                f"features of section {section}",
                found="one vector per patch",
                expected=f"features of the {what}",
                fix="choose an encoder with its weights in place of embeddings",
            )
        )


class _CachedFeatures:
    """Features of an encoder; those of whole patches are read once and kept."""

    def __init__(self, cache: FeatureCache) -> None:
        self.cache = cache
        self._feat: dict[str, Floats] = {}

    @property
    def dim(self) -> int:
        return self.cache.encoder.dim

    @property
    def token_dim(self) -> int:
        return self.cache.encoder.token_dim

    def feat(self, section: str) -> Floats:
        if section not in self._feat:
            self._feat[section] = self.cache.feat(section)
        return self._feat[section]

    def tokens(self, section: str) -> Floats:
        return self.cache.tokens(section)

    def nbr(self, section: str) -> tuple[Floats, NDArray[np.bool_]]:
        return self.cache.nbr(section)


class _Centred:
    """Features without the mean of their section; places of a patch stay as they are."""

    def __init__(self, features: PatchFeatures) -> None:
        self.features = features
        self._means: dict[str, Floats] = {}

    @property
    def dim(self) -> int:
        return self.features.dim

    @property
    def token_dim(self) -> int:
        return self.features.token_dim

    def _mean(self, section: str) -> Floats:
        if section not in self._means:
            values_ND = self.features.feat(section)
            self._means[section] = values_ND.mean(axis=0, dtype=np.float64).astype(np.float32)
        return self._means[section]

    def feat(self, section: str) -> Floats:
        return self.features.feat(section) - self._mean(section)

    def tokens(self, section: str) -> Floats:
        return self.features.tokens(section)

    def nbr(self, section: str) -> tuple[Floats, NDArray[np.bool_]]:
        nbr_NKD, mask_NK = self.features.nbr(section)
        return (nbr_NKD - self._mean(section)) * mask_NK[..., None], mask_NK


def configured_encoder(config: EncoderConfig, *, freeze: bool = True) -> Encoder:
    """Return the encoder that a configuration names.

    Parameters
    ----------
    config : EncoderConfig
    freeze : bool
        Keep its weights as they are.

    Raises
    ------
    ConfigError
        No such encoder, or weights for one that has none.
    FormatError
        The weights do not fit.
    """
    weights = Path(config.weights) if config.weights else None
    encoder = make_encoder(config.name, weights, freeze=freeze, mean=config.mean, std=config.std)
    encoder.px = config.px
    return encoder


def cohort_features(
    cohort: SpatialCohort, config: EncoderConfig, *, progress: bool = False
) -> PatchFeatures:
    """Return the features of the patches of a cohort; those computed are kept in its folder.

    Parameters
    ----------
    cohort : SpatialCohort
    config : EncoderConfig
    progress : bool
        Report what is computed.

    Raises
    ------
    ConfigError
        No such encoder.
    InputError, FormatError
        Files of embeddings that are missing, damaged or of other spots.
    """
    found: PatchFeatures
    if config.embeddings:
        paths = {name: Path(config.embeddings.format(section=name)) for name in cohort.names}
        given = {name: read_embeddings(path, cohort.section(name)) for name, path in paths.items()}
        widths = {name: int(values.shape[1]) for name, values in given.items()}
        first = next(iter(widths))
        other = next((name for name in widths if widths[name] != widths[first]), None)
        if other is not None:
            raise FormatError(
                facts(
                    str(paths[other]),
                    found=f"{widths[other]} features",
                    expected=f"{widths[first]}, as in {paths[first]}",
                    fix="compute both with the same program",
                )
            )
        found = GivenFeatures(given)
    else:
        device = pick_device("cpu" if config.name in UNTRAINABLE else "auto")
        cache = FeatureCache(cohort, configured_encoder(config), device=device, progress=progress)
        found = _CachedFeatures(cache)
    return _Centred(found) if config.center == "section" else found
