"""Features of patches that another program computed, matched to spots by their ids.

A file per section: HDF5 with the data sets ``features`` (or ``embeddings``, ``feats``) and
``row_ids`` (or ``barcodes``, ``barcode``); or NAME.npy beside NAME.txt with one id per line. An id
is the name of a spot in the cohort (``C4_15x12``), that name without the section (``15x12``), or
what a column ``barcode`` of the spots says. Axes: N spots, R rows of a file, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.spatial.cohort import Section

__all__ = ["read_embeddings"]

_FEATURES = ("features", "embeddings", "feats")
_IDS = ("row_ids", "barcodes", "barcode")


def read_embeddings(path: Path, section: Section) -> NDArray[np.float32]:
    """Return the features of the spots of a section, in the order of its spots.

    Parameters
    ----------
    path : Path
        .npy (with a .txt of ids beside it), .h5 or .hdf5.
    section : Section
        Rows of the file that it has no spot for are left out.

    Returns
    -------
    float32 array, shape (num_spots, num_features)

    Raises
    ------
    InputError
        Spots are without a row, or ids occur twice.
    FormatError
        The file is damaged, has no ids, or holds no finite numbers of shape (rows, features).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            facts(str(path), found="no such file", expected="features", fix="check the path")
        )
    values_RD, ids = _read_hdf5(path) if path.suffix in (".h5", ".hdf5") else _read_npy(path)
    _require_table(values_RD, len(ids), path)
    row_of = {name: row for row, name in enumerate(ids)}
    if len(row_of) < len(ids):
        repeated = sorted({name for name in ids if ids.count(name) > 1})
        raise InputError(
            facts(
                str(path),
                found="ids that occur more than once",
                expected="one row per spot",
                fix="drop the duplicates",
                count=len(repeated),
                examples=repeated,
            )
        )
    rows = _rows(row_of, section, path)
    found = values_RD[rows].astype(np.float32)
    if not np.isfinite(found).all():
        wrong = np.flatnonzero(~np.isfinite(found).all(axis=1))
        raise FormatError(
            facts(
                str(path),
                found="features that are NaN or infinite",
                expected="numbers",
                fix="compute them again",
                count=len(wrong),
                examples=[str(section.obs.index[row]) for row in wrong[:3]],
            )
        )
    return found


def _rows(row_of: Mapping[str, int], section: Section, path: Path) -> list[int]:
    """Return the row of every spot, by the kind of id that finds most of them."""
    full = [str(name) for name in section.obs.index]
    kinds = [full, [name.removeprefix(f"{section.name}_") for name in full]]
    if "barcode" in section.obs:
        kinds.append([str(name) for name in section.obs["barcode"]])
    names = max(kinds, key=lambda kind: sum(name in row_of for name in kind))
    missing = [name for name in names if name not in row_of]
    if missing:
        raise InputError(
            facts(
                str(path),
                found=f"no row for {len(missing)} of the {len(names)} spots of {section.name}; "
                f"the first id is {next(iter(row_of), 'missing')}",
                expected="ids of its spots",
                fix="give the features of this section, with the ids of the cohort",
                count=len(missing),
                examples=missing,
            )
        )
    return [row_of[name] for name in names]


def _read_npy(path: Path) -> tuple[NDArray[Any], list[str]]:
    names = path.with_suffix(".txt")
    if not names.is_file():
        raise FormatError(
            facts(
                str(path),
                found=f"no {names.name} beside it",
                expected="the id of every row, one per line",
                fix="write the ids, or give HDF5 with features and row_ids",
            )
        )
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path, error) from error
    return values, names.read_text(encoding="utf-8").split()


def _read_hdf5(path: Path) -> tuple[NDArray[Any], list[str]]:
    import h5py

    try:
        with h5py.File(path, "r") as handle:
            found = [
                next((name for name in names if name in handle), None)
                for names in (_FEATURES, _IDS)
            ]
            if None in found:
                raise FormatError(
                    facts(
                        str(path),
                        found=f"data sets {', '.join(handle)}",
                        expected=f"one of {', '.join(_FEATURES)} and one of {', '.join(_IDS)}",
                        fix="name the data sets so",
                    )
                )
            values = np.asarray(handle[str(found[0])])
            ids = np.asarray(handle[str(found[1])]).ravel()
    except OSError as error:
        raise _damaged(path, error) from error
    return values, [one.decode() if isinstance(one, bytes) else str(one) for one in ids]


def _require_table(values: NDArray[Any], num_ids: int, path: Path) -> None:
    if values.ndim != 2 or len(values) != num_ids or values.dtype.kind not in "fiu":
        raise FormatError(
            facts(
                str(path),
                found=f"{values.dtype} of shape {values.shape} and {num_ids} ids",
                expected="numbers, one row per id and one column per feature",
                fix="write the features as a table of spots",
            )
        )


def _damaged(path: Path, error: Exception) -> FormatError:
    return FormatError(
        facts(str(path), found=str(error), expected="a whole file", fix="restore the file")
    )
