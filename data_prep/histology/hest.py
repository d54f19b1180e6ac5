"""A section of HEST-1k (Jaume et al. 2024), or one of its form.

::

    ROOT/st/<id>.h5ad       counts in X; array_row, array_col in obs; obsm["spatial"] pixels of the
                            slide, x first
    ROOT/patches/<id>.h5    img [spots, px, px, 3], barcode, coords (upper left corners); attributes
                            of img: pixel_size (micrometres per pixel of the slide), downsample
    ROOT/metadata/<id>.json pixel_size_um_estimated, inter_spot_dist, spot_diameter, patient

Patches come from the slide where one is given as image, and otherwise from the file of patches,
whose attributes say how much tissue a patch shows. Spots without a stored patch are left out.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.histology.config import CohortConfig, SectionConfig
from data_prep.histology.h5ad import gene_names, load_h5ad
from data_prep.histology.raw import (
    UNREADABLE,
    RawSection,
    as_counts,
    grid_of,
    require_unique,
    whole_numbers,
)
from data_prep.histology.stored import StoredPatches
from seq2exp.core.errors import FormatError, InputError, Seq2ExpWarning, facts

__all__ = ["read_hest"]

# What HEST-1k says of all its patches, for files without attributes.
_TYPICAL_UM_PER_PX = 0.5
_CONTROLS = ("NegControl", "BLANK_", "antisense_", "UnassignedCodeword", "DeprecatedCodeword")


def read_hest(config: SectionConfig, cohort: CohortConfig, source: Path) -> RawSection:
    """Read a section of HEST-1k.

    Parameters
    ----------
    config : SectionConfig
        ``table`` names the AnnData; ``patches`` the file of patches, when it is not at its place
        beside; ``image`` the slide, if patches are to be cut from it.
    cohort : CohortConfig
    source : Path

    Raises
    ------
    InputError
        There are neither patches nor a slide, or they are of another section or resolution.
    FormatError
        A file is damaged, or columns are missing.
    """
    del cohort
    path = source / config.table
    data = load_h5ad(path)
    about = _metadata(path)
    genes, gene_ids, columns = _genes(data, path)
    um_per_px = config.um_per_px or _positive(about, "pixel_size_um_estimated")
    xy_N2 = np.asarray(data.obsm["spatial"], np.float64)[:, :2]
    barcodes = pd.Series(data.obs_names.astype(str))
    patches, left_out = None, {}
    kept = np.arange(data.n_obs)
    if config.image:
        if "in_tissue" in data.obs:
            kept = np.flatnonzero(data.obs["in_tissue"].astype(bool))
            left_out = {"off the tissue": int(data.n_obs - kept.size)}
    else:
        patches, kept, stated = _patches(config, source, barcodes, xy_N2, um_per_px)
        um_per_px = um_per_px or stated
        left_out = {"no stored patch": int(data.n_obs - kept.size)}
    patient = config.patient or str(about.get("patient") or "")
    if patient in ("", "nan"):
        raise InputError(
            facts(
                f"section {config.name}",
                found="no patient in its metadata",
                expected="one: sections of a patient must not be on both sides of a split",
                fix="add patient to the configuration of the section",
            )
        )
    row, col = (whole_numbers(data.obs[name], path)[kept] for name in ("array_row", "array_col"))
    return RawSection(
        name=config.name,
        patient=patient,
        counts=as_counts(data.X, path)[kept][:, columns],
        genes=genes,
        gene_ids=gene_ids,
        array_row=row,
        array_col=col,
        x=xy_N2[kept, 0],
        y=xy_N2[kept, 1],
        labels=pd.DataFrame({"barcode": barcodes.iloc[kept].to_numpy()}),
        image=source / config.image if config.image else None,
        um_per_px=um_per_px,
        spot_pitch_um=_positive(about, "inter_spot_dist"),
        spot_diameter_um=_positive(about, "spot_diameter"),
        grid=grid_of(row, col),
        patches=patches,
        size=_size(about),
        left_out=left_out,
    )


def _metadata(table: Path) -> dict[str, Any]:
    path = table.parent.parent / "metadata" / f"{table.stem}.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise FormatError(
            facts(str(path), found=str(error), expected="JSON", fix="restore the file")
        ) from error
    return found if isinstance(found, dict) else {}


def _positive(about: dict[str, Any], key: str) -> float | None:
    try:
        value = float(about.get(key) or 0)
    except (TypeError, ValueError):
        return None
    return value if np.isfinite(value) and value > 0 else None


def _size(about: dict[str, Any]) -> tuple[int, int]:
    width, height = (_positive(about, f"fullres_px_{side}") or 0 for side in ("width", "height"))
    return int(width), int(height)


def _genes(data: Any, path: Path) -> tuple[list[str], list[str], NDArray[np.int64]]:  # noqa: ANN401
    """Return names and ids of the genes and their columns; probes that are no genes are none."""
    names = pd.Series([str(name) for name in data.var_names])
    chosen = ~names.str.startswith(_CONTROLS).to_numpy()
    if "feature_types" in data.var:
        chosen &= (data.var["feature_types"].astype(str) == "Gene Expression").to_numpy()
    genes, ids = gene_names(data.var, path)
    columns = np.flatnonzero(chosen)
    return [genes[i] for i in columns], [ids[i] for i in columns], columns


# Patches --------------------------------------------------------------------------------------


def _patches(
    config: SectionConfig,
    source: Path,
    barcodes: pd.Series,
    xy_N2: NDArray[np.float64],
    um_per_px: float | None,
) -> tuple[StoredPatches, NDArray[np.int64], float | None]:
    """Return the stored patches, the spots that have one, and the pixels that they state."""
    table = source / config.table
    path = table.parent.parent / "patches" / f"{table.stem}.h5"
    path = source / config.patches if config.patches else path
    if not path.is_file():
        raise InputError(
            facts(
                f"section {config.name}, {path}",
                found="no such file",
                expected="the patches of this section",
                fix="give patches, or the slide as image",
            )
        )
    try:
        with h5py.File(path) as file:
            shape, kind = file["img"].shape, file["img"].dtype
            corner_P2 = np.asarray(file["coords"], np.float64) if "coords" in file else None
            known = [_text(name) for name in np.asarray(file["barcode"]).ravel()]
            about = _attributes(file["img"])
    except UNREADABLE as error:
        raise FormatError(
            facts(
                str(path),
                found=str(error),
                expected="HDF5 with img and barcode",
                fix="restore the file",
            )
        ) from error
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3 or kind != np.uint8:
        raise FormatError(
            facts(
                str(path),
                found=f"img of shape {shape} and type {kind}",
                expected="square patches, RGB in 8 bits",
                fix="write the patches again",
            )
        )
    rows = pd.Series(known)
    require_unique(rows, path)
    place = pd.Index(rows).get_indexer(pd.Index(barcodes))
    kept = np.flatnonzero(place >= 0)
    if len(known) != shape[0] or kept.size == 0:
        raise InputError(
            facts(
                str(path),
                found=f"{shape[0]} patches of {len(known)} barcodes, {kept.size} of them spots",
                expected=f"patches of the spots of {table.name}",
                fix="give the patches of this section",
                count=int(kept.size),
                examples=known[:3],
            )
        )
    field = _field(path, shape[1], about, um_per_px)
    if corner_P2 is not None and um_per_px:
        _require_same_places(corner_P2[place[kept]], xy_N2[kept], field / um_per_px, path)
    patches = StoredPatches(path, place[kept].astype(np.int64), int(shape[1]), field)
    return patches, kept, _positive(about, "pixel_size")


def _text(value: Any) -> str:  # noqa: ANN401
    return value.decode() if isinstance(value, bytes) else str(value)


def _attributes(img: h5py.Dataset) -> dict[str, float]:
    return {
        str(key): float(np.ravel(value)[0])
        for key, value in img.attrs.items()
        if np.ravel(value).dtype.kind in "fiu"
    }


def _field(path: Path, px: int, known: dict[str, float], um_per_px: float | None) -> float:
    """Return the side of a patch in micrometres.

    Raises
    ------
    InputError
        The patches were cut from an image of another resolution than that of the spots.
    """
    size = known.get("pixel_size")
    if size and um_per_px and not 0.98 < size / um_per_px < 1.02:
        raise InputError(
            facts(
                str(path),
                found=f"patches cut at {size:.4g} micrometres per pixel of the slide",
                expected=f"{um_per_px:.4g}, as the metadata say",
                fix="give the patches of this slide, or correct um_per_px",
            )
        )
    size = size or um_per_px
    shrunk = known.get("downsample", known.get("factor"))
    if size and shrunk:
        return px * shrunk * size
    warnings.warn(
        facts(
            str(path),
            found="patches that do not say their resolution",
            expected="attributes pixel_size and downsample of img",
            fix=f"{_TYPICAL_UM_PER_PX} micrometres per pixel were taken, as in HEST-1k",
        ),
        Seq2ExpWarning,
        stacklevel=4,
    )
    return px * _TYPICAL_UM_PER_PX


def _require_same_places(
    corner_N2: NDArray[np.float64], xy_N2: NDArray[np.float64], side: float, path: Path
) -> None:
    """Refuse patches whose corners are not those of their spots; some releases exchange axes."""
    centre_N2 = corner_N2 + side / 2
    off = min(
        float(np.median(np.abs(other - xy_N2).max(axis=1)))
        for other in (centre_N2, centre_N2[:, ::-1], corner_N2, corner_N2[:, ::-1])
    )
    if off > 2 + 0.02 * side:
        raise InputError(
            facts(
                str(path),
                found=f"patches {off:.0f} pixels off their spots",
                expected="patches around the spots",
                fix="give the patches of this section, at the resolution of its spots",
            )
        )
