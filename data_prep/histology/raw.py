"""One section as it was published, and what readers of all layouts share.

Readers fill :class:`RawSection`; what they cannot know they leave to the checks.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from data_prep.histology.stored import StoredPatches
from seq2exp.core.errors import FormatError, InputError, facts

__all__ = [
    "UNREADABLE",
    "RawSection",
    "as_counts",
    "grid_of",
    "numbers",
    "read_table",
    "require_unique",
    "require_unique_genes",
    "whole_numbers",
]

Floats = NDArray[np.float64]
# What readers of HDF5 and of compressed text raise for files that are damaged or of another kind.
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    RuntimeError,
    zlib.error,
)
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
    image : Path or None
        None where patches were cut before.
    um_per_px : float or None
    spot_pitch_um, spot_diameter_um : float or None
    grid : str
        square or hex.
    patches : StoredPatches or None
    size : (int, int)
        Width and height of the image that is not there; 0 where not known.
    left_out : dict of str to int
        Spots that the reader left out, by reason.
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
    image: Path | None
    um_per_px: float | None = None
    spot_pitch_um: float | None = None
    spot_diameter_um: float | None = None
    grid: str = "square"
    patches: StoredPatches | None = None
    size: tuple[int, int] = (0, 0)
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def has_counts(self) -> bool:
        """Whether genes were measured; a bare image has none."""
        return bool(self.genes)


def read_table(path: Path, *, index: bool) -> pd.DataFrame:
    """Read a table with tabs; its first column names the rows where ``index`` is set.

    Raises
    ------
    FormatError
    """
    try:
        return pd.read_csv(path, sep="\t", index_col=0 if index else None)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise FormatError(
            facts(str(path), found=str(error), expected="a table with tabs", fix="restore the file")
        ) from error


def require_unique(names: pd.Series, path: Path) -> None:
    """Refuse spots that are listed twice.

    Raises
    ------
    InputError
    """
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


def require_unique_genes(genes: list[str], path: Path) -> None:
    """Refuse genes with more than one column.

    Raises
    ------
    InputError
    """
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


def numbers(column: pd.Series, path: Path) -> Floats:
    """Return a column as finite numbers.

    Raises
    ------
    FormatError
        Names the first values that are none.
    """
    found = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    if not np.isfinite(found).all():
        raise _no_place(column[~np.isfinite(found)], path, "numbers")
    return found


def whole_numbers(column: pd.Series, path: Path) -> NDArray[np.int64]:
    """Return a column as whole numbers.

    Raises
    ------
    FormatError
        Names the first values that are none.
    """
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


def grid_of(row: NDArray[np.int64], col: NDArray[np.int64]) -> str:
    """Return hex where rows and columns are both even or both odd, as of Visium, or square."""
    odd = (row + col) % 2
    return "hex" if odd.size >= 10 and (odd == odd[0]).all() else "square"
