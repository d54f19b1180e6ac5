"""One section as it was published: counts, spots, and where its image lies.

Readers fill :class:`RawSection`; what they cannot know they leave to the checks.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from data_prep.histology.config import CohortConfig, SectionConfig
from seq2exp.core.errors import FormatError, InputError, facts

__all__ = ["RawSection", "as_counts", "read_section", "section_files"]

Floats = NDArray[np.float64]
_SPOT_COLUMNS = (("pixel_x", "pixel_y"), ("px", "py"))
_NOT_GENES = ("__total_umi",)
# What anndata raises for files that are damaged, or HDF5 of something else.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError)
_MOST = np.iinfo(np.int32).max


@dataclass(frozen=True, eq=False)
class RawSection:
    """A section before any check.

    Attributes
    ----------
    name, patient : str
    counts : sparse matrix, shape (num_spots, num_genes)
    genes : list of str
        Names of the columns, as the file has them.
    gene_ids : list of str
        Ensembl ids where the file has them, otherwise empty texts.
    array_row, array_col : int64 arrays, shape (num_spots,)
        Place on the array of spots; rows follow y, columns follow x.
    x, y : float64 arrays, shape (num_spots,)
        Pixels of the image.
    labels : DataFrame
        Further columns of the spots, such as a pathologist's.
    image : Path
    um_per_px : float or None
    spot_pitch_um, spot_diameter_um : float or None
    grid : str
        square or hex.
    """

    name: str
    patient: str
    counts: sparse.csr_matrix
    genes: list[str]
    gene_ids: list[str]
    array_row: NDArray[np.int64]
    array_col: NDArray[np.int64]
    x: Floats
    y: Floats
    labels: pd.DataFrame
    image: Path
    um_per_px: float | None = None
    spot_pitch_um: float | None = None
    spot_diameter_um: float | None = None
    grid: str = "square"


def section_files(config: SectionConfig, source: Path) -> list[Path]:
    """Return the files that a section names."""
    return [source / name for name in (config.table, config.spots, config.image) if name]


def read_section(config: SectionConfig, cohort: CohortConfig, source: Path) -> RawSection:
    """Read a section in the layout its configuration names.

    Raises
    ------
    InputError
        A file is missing, or spots and counts do not meet.
    FormatError
        A file is damaged, or columns are missing.
    """
    for path in section_files(config, source):
        if not path.is_file():
            raise InputError(
                facts(
                    f"section {config.name}, {path}",
                    found="no such file",
                    expected="a file",
                    fix="check the path and --source",
                )
            )
    reader = {"st": _read_st, "h5ad": _read_h5ad}[config.layout]
    return reader(config, cohort, source)


def _read_st(config: SectionConfig, cohort: CohortConfig, source: Path) -> RawSection:
    """Read the layout of Spatial Transcriptomics: rows of counts are named ``{x}x{y}``."""
    counts = _table(source / config.table, index=True)
    spots = _table(source / config.spots, index=False)
    pixels = next((pair for pair in _SPOT_COLUMNS if set(pair) <= set(spots)), None)
    if pixels is None or not {"x", "y"} <= set(spots):
        raise FormatError(
            facts(
                str(source / config.spots),
                found=f"columns {', '.join(map(str, spots.columns))}",
                expected="x, y and either pixel_x, pixel_y or px, py",
                fix="give the table of spots of this section",
            )
        )
    grid = {name: _whole(spots[name], source / config.spots) for name in ("x", "y")}
    spots = spots.assign(_name=[f"{x}x{y}" for x, y in zip(grid["x"], grid["y"], strict=True)])
    _require_unique(spots["_name"], source / config.spots)
    _require_unique(pd.Series(counts.index.astype(str)), source / config.table)
    placed = spots.set_index("_name").reindex(counts.index.astype(str))
    missing = placed["x"].isna()
    if missing.any():
        raise InputError(
            facts(
                str(source / config.table),
                found="spots that the table of spots lacks",
                expected=f"rows of {source / config.spots}, named by their x and y",
                fix="give the tables of one section",
                count=int(missing.sum()),
                examples=list(placed.index[missing][:3]),
            )
        )
    header = _header(source / config.table)[-counts.shape[1] :]
    genes = [name for name in header if name not in _NOT_GENES]
    _require_unique_genes(genes, source / config.table)
    places = {name: _numbers(placed[name], source / config.spots) for name in pixels}
    known = {"x", "y", "new_x", "new_y", "selected", "spot", *pixels}
    labels = placed[
        [
            name
            for name in placed
            if str(name) not in known
            and not str(name).startswith("Unnamed:")
            and not pd.api.types.is_numeric_dtype(placed[name])
        ]
    ]
    return RawSection(
        config.name,
        config.patient,
        as_counts(counts[genes].to_numpy(), source / config.table),
        genes,
        [""] * len(genes),
        _whole(placed["y"], source / config.spots),
        _whole(placed["x"], source / config.spots),
        places[pixels[0]],
        places[pixels[1]],
        labels.reset_index(drop=True),
        source / config.image,
        config.um_per_px,
        cohort.spot_pitch_um,
        cohort.spot_diameter_um,
    )


def _read_h5ad(config: SectionConfig, cohort: CohortConfig, source: Path) -> RawSection:
    """Read an AnnData with counts in ``layers["counts"]`` or X and pixels in obsm["spatial"]."""
    import anndata

    path = source / config.table
    try:
        data = anndata.read_h5ad(path)
    except _UNREADABLE as error:
        raise FormatError(
            facts(str(path), found=str(error), expected="a whole AnnData", fix="restore the file")
        ) from error
    missing = [name for name in ("array_row", "array_col") if name not in data.obs]
    spatial = np.asarray(data.obsm["spatial"]) if "spatial" in data.obsm else np.empty((0, 0))
    if spatial.ndim != 2 or spatial.shape[1] < 2 or spatial.dtype.kind not in "fiu":
        missing.append('obsm["spatial"] with columns x and y')
    if data.X is None and "counts" not in data.layers:
        missing.append("counts")
    if missing:
        raise FormatError(
            facts(
                str(path),
                found=f"no {', '.join(missing)}",
                expected="counts, array_row and array_col of the spots, and their pixels (x, y)",
                fix="add them; docs/spatial/cohort.md describes the layout",
                count=len(missing),
            )
        )
    _require_unique(pd.Series(data.obs_names), path)
    _require_unique_genes([str(name) for name in data.var_names], path)
    about = dict(data.uns.get("image", {}))
    image = config.image or str(about.get("file", ""))
    patient = config.patient or _single(data.obs, "patient", path)
    if not image or not patient:
        raise InputError(
            facts(
                f"section {config.name}",
                found=f"no {'image' if not image else 'patient'} in {path}",
                expected="one",
                fix="add it to the configuration of the section",
            )
        )
    place = source / image if config.image else path.parent / image
    um_per_px = config.um_per_px or _number(about, "um_per_px")
    counts = data.layers.get("counts", data.X)
    ids = data.var["gene_id"].astype(str) if "gene_id" in data.var else [""] * data.n_vars
    own = {"section", "patient", "array_row", "array_col", "total_counts", "in_tissue", "barcode"}
    kept = data.obs["in_tissue"].astype(bool) if "in_tissue" in data.obs else None
    if kept is not None and not kept.all():
        data, counts = data[kept.to_numpy()], counts[kept.to_numpy()]
    pitch, diameter = (_number(about, f"spot_{name}_px") for name in ("pitch", "diameter"))
    scale = um_per_px or float("nan")
    return RawSection(
        config.name,
        patient,
        as_counts(counts, path),
        [str(name) for name in data.var_names],
        list(ids),
        _whole(data.obs["array_row"], path),
        _whole(data.obs["array_col"], path),
        np.asarray(data.obsm["spatial"], np.float64)[:, 0],
        np.asarray(data.obsm["spatial"], np.float64)[:, 1],
        data.obs[[name for name in data.obs if name not in own]]
        .assign(barcode=data.obs_names.astype(str))
        .reset_index(drop=True),
        place,
        um_per_px,
        pitch * scale if pitch else None,
        diameter * scale if diameter else None,
        str(about.get("grid", "square")),
    )


def _number(about: dict[str, object], key: str) -> float | None:
    value = about.get(key)
    return float(value) if isinstance(value, int | float | np.number) else None


def _single(obs: pd.DataFrame, column: str, path: Path) -> str:
    """Return the one value of a column of the spots."""
    if column not in obs:
        return ""
    values = obs[column].astype(str).unique()
    if len(values) > 1:
        raise InputError(
            facts(
                str(path),
                found=f"{column} {', '.join(values[:4])}",
                expected="one per section",
                fix="write one file per section",
                count=len(values),
            )
        )
    return str(values[0])


def _table(path: Path, *, index: bool) -> pd.DataFrame:
    try:
        return pd.read_csv(path, sep="\t", index_col=0 if index else None)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise FormatError(
            facts(str(path), found=str(error), expected="a table with tabs", fix="restore the file")
        ) from error


def _require_unique(names: pd.Series, path: Path) -> None:
    repeated = names[names.duplicated()]
    if len(repeated):
        raise InputError(
            facts(
                str(path),
                found="spots listed twice",
                expected="every spot once",
                fix="drop the duplicates",
                count=len(repeated),
                examples=list(repeated[:3]),
            )
        )


def _require_unique_genes(genes: list[str], path: Path) -> None:
    names = pd.Series(genes, dtype=object)
    repeated = list(dict.fromkeys(names[names.duplicated()]))
    if repeated:
        raise InputError(
            facts(
                str(path),
                found="genes with more than one column",
                expected="one column per gene",
                fix="add up the columns of a gene, or name them apart",
                count=len(repeated),
                examples=repeated,
            )
        )


def _header(path: Path) -> list[str]:
    """Return the names of the columns as the file has them; pandas numbers repeated ones."""
    first = pd.read_csv(path, sep="\t", header=None, nrows=1, dtype=str, keep_default_na=False)
    return [str(name) for name in first.iloc[0]]


def _numbers(column: pd.Series, path: Path) -> Floats:
    found = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    if not np.isfinite(found).all():
        raise _no_place(column[~np.isfinite(found)], path, "numbers")
    return found


def _whole(column: pd.Series, path: Path) -> NDArray[np.int64]:
    found = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    wrong = ~np.isfinite(found) | (found != np.floor(found))
    if wrong.any():
        raise _no_place(column[wrong], path, "whole numbers")
    return found.astype(np.int64)


def _no_place(values: pd.Series, path: Path, expected: str) -> FormatError:
    return FormatError(
        facts(
            str(path),
            found=f"values of {values.name} that are no {expected}",
            expected=expected,
            fix="correct the places of these spots, or drop them",
            count=len(values),
            examples=[repr(value) for value in values[:3]],
        )
    )


def as_counts(values: Any, path: Path) -> sparse.csr_matrix:  # noqa: ANN401
    """Return counts as a sparse matrix of integers.

    Raises
    ------
    FormatError
        Values that are no counts.
    """
    if getattr(values, "dtype", None) is None or values.dtype.kind not in "fiub":
        raise FormatError(
            facts(str(path), found="texts", expected="counts", fix="give the raw counts")
        )
    matrix = sparse.csr_matrix(values)
    data = matrix.data
    wrong = ~np.isfinite(data) | (data < 0) | (data != np.floor(data)) | (data > _MOST)
    if wrong.any():
        raise FormatError(
            facts(
                str(path),
                found="values that are no counts",
                expected="whole numbers, 0 or more",
                fix="give raw counts, not normalised ones",
                count=int(wrong.sum()),
                examples=[f"{value:g}" for value in data[wrong][:3]],
            )
        )
    return sparse.csr_matrix(
        (data.astype(np.int32), matrix.indices, matrix.indptr), shape=matrix.shape
    )
