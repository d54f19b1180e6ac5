"""A store of SpatialData, unpacked into an AnnData and an image that other readers take.

What belongs together is found by what the store says: the table annotates shapes or points (region,
instance key); coordinates go from these to the pixels of the image through the transformations of
the store. Nothing needs a name unless there are several tables or images.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_prep.histology.config import CohortConfig, SectionConfig
from data_prep.histology.raw import UNREADABLE
from seq2exp.core.errors import ConfigError, FormatError, InputError, facts
from seq2exp.core.files import safe_name

__all__ = ["unpacked"]


@contextmanager
def unpacked(config: CohortConfig, source: Path) -> Iterator[CohortConfig]:
    """Give a configuration whose stores are replaced by files, until the block ends.

    Raises
    ------
    ConfigError
        The library is not installed, or images were to stay where they are.
    InputError, FormatError
        There is no such store, it is damaged, or what belongs together cannot be told.
    """
    if not any(section.layout == "spatialdata" for section in config.sections):
        yield config
        return
    if config.images == "reference":
        raise ConfigError(
            facts(
                "images",
                found="reference, with sections of layout spatialdata",
                expected="copy: their images are no files of their own",
                fix="set images: copy",
            )
        )
    with tempfile.TemporaryDirectory(prefix="seq2exp_") as scratch:
        sections = [
            _unpack(section, source, Path(scratch)) if section.layout == "spatialdata" else section
            for section in config.sections
        ]
        yield dataclasses.replace(config, sections=sections)


def _unpack(section: SectionConfig, source: Path, scratch: Path) -> SectionConfig:
    path = source / section.table
    if not path.exists():
        raise InputError(
            facts(
                f"section {section.name}, {path}",
                found="no such store",
                expected="a .zarr store of SpatialData",
                fix="check the path and --source",
            )
        )
    store = _read(path)
    table, key, region = _table(store, section, path)
    name = _only(store.images, section.image, "image", section, path)
    shapes = _element(store, region, section, path)
    data = table.copy()
    data.obsm["spatial"] = _pixels(store, shapes, store.images[name], data.obs[key])
    if section.patient:
        data.obs["patient"] = section.patient
    stem = safe_name(section.name)
    _as_picture(store.images[name], path, name).save(scratch / f"{stem}.tif")
    data.uns = {"image": {"file": f"{stem}.tif"}}
    data.write_h5ad(scratch / f"{stem}.h5ad")
    return dataclasses.replace(
        section, layout="h5ad", table=str(scratch / f"{stem}.h5ad"), image=""
    )


def _read(path: Path) -> Any:  # noqa: ANN401
    try:
        import spatialdata
    except ImportError as error:
        raise ConfigError(
            facts(
                "layout spatialdata",
                found=f"no library ({error})",
                expected="the extra spatialdata",
                fix="pip install 'seq2exp[spatialdata]'",
            )
        ) from error
    try:
        return spatialdata.read_zarr(path)
    except UNREADABLE as error:
        raise FormatError(
            facts(
                str(path),
                found=str(error),
                expected="a whole store of SpatialData",
                fix="restore it",
            )
        ) from error


def _only(elements: Any, asked: str, what: str, section: SectionConfig, path: Path) -> str:  # noqa: ANN401
    names = [str(name) for name in elements]
    if asked in names or (not asked and len(names) == 1):
        return asked or names[0]
    raise InputError(
        facts(
            f"section {section.name}, {path}",
            found=f"{what}s {', '.join(names) or 'none'}" + (f", not {asked}" if asked else ""),
            expected=f"one {what}, or its name",
            fix=f"name it: {'image' if what == 'image' else 'spots'}",
        )
    )


def _table(store: Any, section: SectionConfig, path: Path) -> tuple[Any, str, str]:  # noqa: ANN401
    """Return the table, the column that names spots, and what it annotates."""
    table = store.tables[_only(store.tables, section.spots, "table", section, path)]
    about = dict(table.uns.get("spatialdata_attrs", {}))
    regions = about.get("region")
    regions = [regions] if isinstance(regions, str) else list(regions or [])
    if len(regions) != 1 or "instance_key" not in about:
        raise InputError(
            facts(
                f"section {section.name}, {path}",
                found=f"a table of {len(regions)} regions",
                expected="a table that annotates the spots of one section",
                fix="write a store, or a table, per section",
            )
        )
    return table, str(about["instance_key"]), regions[0]


def _element(store: Any, region: str, section: SectionConfig, path: Path) -> Any:  # noqa: ANN401
    for elements in (store.shapes, store.points):
        if region in elements:
            return elements[region]
    raise InputError(
        facts(
            f"section {section.name}, {path}",
            found=f"no shapes or points named {region}",
            expected="the places of the spots that the table annotates",
            fix="write them into the store",
        )
    )


def _pixels(store: Any, shapes: Any, image: Any, names: Any) -> NDArray[np.float64]:  # noqa: ANN401
    """Return pixels of the image, x and y, of the spots of a table."""
    from spatialdata.transformations import get_transformation_between_coordinate_systems

    if hasattr(shapes, "geometry"):
        centres = shapes.loc[names].geometry.centroid
        xy_N2 = np.column_stack([centres.x, centres.y])
    else:
        frame = shapes.compute().loc[names]
        xy_N2 = frame[["x", "y"]].to_numpy(np.float64)
    way = get_transformation_between_coordinate_systems(store, shapes, image)
    matrix = way.to_affine_matrix(input_axes=("x", "y"), output_axes=("x", "y"))
    return np.asarray(xy_N2 @ matrix[:2, :2].T + matrix[:2, 2], np.float64)


def _as_picture(image: Any, path: Path, name: str) -> Image.Image:  # noqa: ANN401
    """Return the full resolution of an image as RGB."""
    full = image["scale0"]["image"] if hasattr(image, "keys") and "scale0" in image else image
    values = np.moveaxis(np.asarray(full.transpose("c", "y", "x")), 0, -1)
    if values.ndim != 3 or values.shape[-1] not in (3, 4) or values.dtype != np.uint8:
        raise FormatError(
            facts(
                f"{path}, image {name}",
                found=f"{values.dtype} of shape {values.shape}",
                expected="8-bit RGB of an H&E stain",
                fix="name another image",
            )
        )
    return Image.fromarray(np.ascontiguousarray(values[..., :3]))
