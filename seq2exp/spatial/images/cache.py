"""Features of patches, computed once and kept on disk.

::

    ROOT/<encoder>-<start of the weight hash>/<section>.<part>.safetensors

One file per section and part: ``feat``, ``tokens`` or ``nbr``. Its header holds the key (a hash of
all that the numbers follow from), the ids of the rows, and a checksum; a file that differs in any
of them, or is cut off, is computed again. Files appear whole or not at all, so a stopped run goes
on with the next section.

Axes: N spots, T places of a patch, K = 25 tiles, D features.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from seq2exp.core.config import require_known
from seq2exp.core.errors import ConfigError, FormatError, Seq2ExpWarning, facts
from seq2exp.core.files import atomic_file, require_space, safe_name
from seq2exp.spatial.cohort import Section, SpatialCohort
from seq2exp.spatial.config import UNTRAINABLE
from seq2exp.spatial.images.compute import encode_patches
from seq2exp.spatial.images.encoder import Encoder
from seq2exp.spatial.images.tiles import NUM_TILES, open_section_image, tile_centres, tiles_of

__all__ = ["FeatureCache", "FeatureConfig", "Part"]

logger = logging.getLogger(__name__)

Part = Literal["feat", "tokens", "nbr"]
Arrays = dict[str, NDArray[Any]]
_LAYOUT = 1
# Encoders that are used without a file of weights.
_NO_FILE = (*UNTRAINABLE, "tinycnn")
_LARGEST_HALF = 65504.0


@dataclass(frozen=True)
class FeatureConfig:
    """How features are computed and kept."""

    batch_size: int = 32
    """Patches that go through the encoder at once."""
    dtype: Literal["float32", "float16"] = "float32"
    """Numbers on disk; float16 halves the files. They are float32 in use."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(
                facts(
                    "batch_size",
                    found=self.batch_size,
                    expected="1 or more",
                    fix="set batch_size to 32",
                )
            )


class FeatureCache:
    """Features of the sections of a cohort under one encoder.

    Parameters
    ----------
    cohort : SpatialCohort
    encoder : Encoder
        Used in evaluation mode, without gradients; its own mode is put back.
    root : Path, optional
        Folder of the cache; ``features`` in the cohort's folder when not given.
    config : FeatureConfig, optional
    device : str or torch.device
        Where the encoder computes.
    progress : bool
        Report what is computed when it is first asked for.
    """

    def __init__(
        self,
        cohort: SpatialCohort,
        encoder: Encoder,
        *,
        root: Path | None = None,
        config: FeatureConfig | None = None,
        device: torch.device | str = "cpu",
        progress: bool = False,
    ) -> None:
        self.cohort, self.encoder, self.device = cohort, encoder, torch.device(device)
        self.progress = progress
        self.config = config or FeatureConfig()
        folder = f"{safe_name(encoder.name)}-{encoder.weight_hash[:12]}"
        self.folder = (Path(root) if root is not None else cohort.root / "features") / folder

    def feat(self, section: str) -> NDArray[np.float32]:
        """Return the features of the patches of a section, shape (num_spots, dim)."""
        return _single(self._whole(section, "feat")["feat"])

    def tokens(self, section: str) -> NDArray[np.floating]:
        """Return the features of all places, shape (num_spots, places, token_dim).

        Memory-mapped, and of the type on disk.

        Raises
        ------
        ConfigError
            The encoder has none.
        """
        self._whole(section, "tokens")
        return _mapped(self.path(section, "tokens"), "tokens")

    def nbr(self, section: str) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
        """Return the features of the tiles around every spot, and which tiles are there.

        Returns
        -------
        nbr_NKD : float array, shape (num_spots, 25, dim)
            Zero where there is no tile; memory-mapped, and of the type on disk.
        mask_NK : bool array, shape (num_spots, 25)
        """
        mask_NK = self._whole(section, "nbr")["mask"].astype(bool)
        return _mapped(self.path(section, "nbr"), "nbr"), mask_NK

    def build(
        self,
        parts: Sequence[Part] = ("feat",),
        *,
        sections: Sequence[str] | None = None,
        progress: bool = False,
    ) -> list[Path]:
        """Compute what is not there yet.

        Parameters
        ----------
        parts : sequence of str
            Of ``feat``, ``tokens`` and ``nbr``.
        sections : sequence of str, optional
            All by default.
        progress : bool
            Report progress.

        Returns
        -------
        list of Path
            The files that were computed; none where all were there.
        """
        for part in parts:
            require_known("part", part, list(get_args(Part)), expected="a kind of features")
        if "tokens" in parts and not self.encoder.token_dim:
            raise ConfigError(
                facts(
                    f"encoder {self.encoder.name}",
                    found="no places",
                    expected="an encoder with tokens",
                    fix="leave tokens out, or choose another encoder",
                )
            )
        names = list(self.cohort.names if sections is None else sections)
        todo = [
            (name, part)
            for name in names
            for part in parts
            if self._read(self.cohort.section(name), part) is None
        ]
        if todo:
            self._warn_if_random()
        for name, part in todo:
            self._compute(self.cohort.section(name), part, progress=progress)
        return [self.path(name, part) for name, part in todo]

    def path(self, section: str, part: Part) -> Path:
        """Return where the file of a section lies."""
        return self.folder / f"{safe_name(section)}.{part}.safetensors"

    def key(self, section: str, part: Part) -> str:
        """Return the hash of all that the features of a section follow from."""
        info, patch = self.cohort.manifest.section(section), self.cohort.manifest.patch
        known = {
            "layout": _LAYOUT,
            "part": part,
            "dtype": self.config.dtype,
            "encoder": self.encoder.name,
            "weights": self.encoder.weight_hash,
            "mean": self.encoder.mean,
            "std": self.encoder.std,
            "encoder_px": self.encoder.px,
            "px": patch.px,
            "um": patch.um,
            "stain": patch.stain,
            "image": info.image_sha256,
            "um_per_px": info.um_per_px,
        }
        if patch.stain != "none":
            # Colours are brought to those of the first section.
            known["reference"] = self.cohort.manifest.sections[0].image_sha256
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def _whole(self, name: str, part: Part) -> Arrays:
        self.build([part], sections=[name], progress=self.progress)
        found = self._read(self.cohort.section(name), part)
        if found is None:
            raise FormatError(
                facts(
                    str(self.path(name, part)),
                    found="another content than was just written",
                    expected="whole features",
                    fix="check the disk, and that no other program writes there",
                )
            )
        return found

    def _read(self, section: Section, part: Part) -> Arrays | None:
        """Return what a file holds; None where it is absent, stale or damaged."""
        path = self.path(section.name, part)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as handle:
                about = json.loads((handle.metadata() or {}).get("about", "{}"))
                expected = self._header(section, part)
                changed = [key for key, value in expected.items() if about.get(key) != value]
                if changed:
                    logger.info("%s: computed again, %s changed", path, ", ".join(changed))
                    return None
                arrays = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            logger.warning("%s: computed again, it is damaged (%s)", path, error)
            return None
        if about.get("checksum") != _checksum(arrays):
            logger.warning("%s: computed again, its checksum is wrong", path)
            return None
        return arrays

    def _header(self, section: Section, part: Part) -> dict[str, str]:
        # Rows are spots at places: the same names at other places are other rows.
        ids = json.dumps(list(map(str, section.obs.index)))
        places = hashlib.sha256(np.ascontiguousarray(section.xy_N2).tobytes()).hexdigest()
        return {"key": self.key(section.name, part), "rows": ids, "places": places}

    def _compute(self, section: Section, part: Part, *, progress: bool) -> None:
        num_rows = len(section) * (NUM_TILES if part == "nbr" else 1)
        require_space(self.folder, num_rows * self.encoder.dim * 4)
        label = f"{self.encoder.name} {part} of {section.name}"
        if part == "nbr":
            self._write(section, part, self._tiles(section, label, progress=progress))
            return
        patches = (section.whole_patches[row] for row in range(len(section)))
        found = self._encode(patches, len(section), part, label=label, progress=progress)
        self._write(section, part, {part: found})

    def _tiles(self, section: Section, label: str, *, progress: bool) -> Arrays:
        patch = self.cohort.manifest.patch
        image = open_section_image(self.cohort, section.name)
        _, mask_NK = tile_centres(section, um=patch.um)
        tiles = (pixels for _, _, pixels in tiles_of(section, image, um=patch.um, px=patch.px))
        nbr_NKD = np.zeros((len(section), NUM_TILES, self.encoder.dim), np.float32)
        nbr_NKD[mask_NK] = self._encode(
            tiles, int(mask_NK.sum()), "feat", label=label, progress=progress
        )
        return {"nbr": nbr_NKD, "mask": mask_NK.astype(np.uint8)}

    def _encode(
        self,
        patches: Iterable[NDArray[np.uint8]],
        num_patches: int,
        part: Literal["feat", "tokens"],
        *,
        label: str,
        progress: bool,
    ) -> NDArray[np.float32]:
        return encode_patches(
            self.encoder,
            patches,
            num_patches=num_patches,
            part=part,
            batch_size=self.config.batch_size,
            device=self.device,
            label=label,
            progress=progress,
        )

    def _write(self, section: Section, part: Part, arrays: Arrays) -> None:
        if self.config.dtype == "float16":
            largest = max(float(np.abs(arrays[part]).max(initial=0)), 0.0)
            if largest > _LARGEST_HALF:
                raise ConfigError(
                    facts(
                        f"{part} of {section.name}",
                        found=f"a feature of {largest:g}",
                        expected=f"at most {_LARGEST_HALF:g} in float16",
                        fix="set dtype to float32",
                    )
                )
            arrays = arrays | {part: arrays[part].astype(np.float16)}
        header = self._header(section, part) | {"checksum": _checksum(arrays)}
        # One entry: safetensors writes several in any order, and equal features are equal files.
        about = {"about": json.dumps(header, sort_keys=True)}
        with atomic_file(self.path(section.name, part), overwrite=True) as partial:
            save_file(arrays, partial, metadata=about)

    def _warn_if_random(self) -> None:
        if self.encoder.pretrained or self.encoder.name in _NO_FILE:
            return
        warnings.warn(
            facts(
                f"encoder {self.encoder.name}",
                found="random weights",
                expected="weights of a file, to learn from its features",
                fix="give the file of weights; random ones serve as a control only",
            ),
            Seq2ExpWarning,
            stacklevel=3,
        )


def _mapped(path: Path, name: str) -> NDArray[np.floating]:
    """Return an array of a safetensors file that was checked, without reading it."""
    with path.open("rb") as handle:
        size = int.from_bytes(handle.read(8), "little")
        entry = json.loads(handle.read(size))[name]
    dtype = {"F32": np.float32, "F16": np.float16}[entry["dtype"]]
    first = 8 + size + entry["data_offsets"][0]
    return np.memmap(path, dtype, "r", offset=first, shape=tuple(entry["shape"]))


def _single(values: NDArray[Any]) -> NDArray[np.float32]:
    return values.astype(np.float32, copy=False)


def _checksum(arrays: Mapping[str, NDArray[Any]]) -> str:
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(name.encode(), total)
        total = zlib.crc32(np.ascontiguousarray(arrays[name]).data, total)
    return f"{total:08x}"
