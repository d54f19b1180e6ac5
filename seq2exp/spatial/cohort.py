"""Read a cohort: sections as AnnData, patches memory-mapped.

Axes: N spots of a section, A its genes, G genes of a panel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from seq2exp.core.config import require_known
from seq2exp.core.errors import FormatError, facts
from seq2exp.core.files import sha256
from seq2exp.spatial import format as layout
from seq2exp.spatial.format import CohortManifest, SectionInfo
from seq2exp.spatial.panels import GenePanel
from seq2exp.spatial.recipes import FittedRecipe

__all__ = ["Section", "SpatialCohort"]


@dataclass(frozen=True, eq=False)
class Section:
    """One section of a cohort.

    Attributes
    ----------
    info : SectionInfo
    counts_NA : sparse matrix, shape (num_spots, num_genes)
        Raw counts.
    obs : DataFrame
        One row per spot; columns ``section, patient, array_row, array_col, total_counts`` and what
        else was known.
    var : DataFrame
        One row per gene; index = symbol, columns ``gene_id`` and ``chrom``.
    xy_N2 : float64 array, shape (num_spots, 2)
        Pixels of the image, x and y.
    root : Path
        The cohort folder.
    sha256 : str
        Of the file of patches; not compared when empty.
    """

    info: SectionInfo
    counts_NA: sparse.csr_matrix
    obs: pd.DataFrame
    var: pd.DataFrame
    xy_N2: NDArray[np.float64]
    root: Path
    sha256: str = ""

    def __len__(self) -> int:
        return len(self.obs)

    @property
    def name(self) -> str:
        """Name of the section."""
        return self.info.name

    @property
    def patient(self) -> str:
        """Whom it is of."""
        return self.info.patient

    @property
    def total_N(self) -> NDArray[np.float64]:
        """Sum of counts of every spot over all genes."""
        return self.obs["total_counts"].to_numpy(np.float64)

    @property
    def grid_N2(self) -> NDArray[np.int64]:
        """Row and column of every spot; of hexagonal arrays the column of the pair of columns."""
        row, column = (self.obs[name].to_numpy(np.int64) for name in ("array_row", "array_col"))
        return np.column_stack([row, column // 2 if self.info.grid == "hex" else column])

    @property
    def um_N2(self) -> NDArray[np.float64]:
        """Position of every spot in micrometres."""
        return self.xy_N2 * self.info.um_per_px

    @cached_property
    def patches(self) -> NDArray[np.uint8]:
        """Patches, memory-mapped, shape (num_spots, px, px, 3)."""
        path = layout.patches_path(self.root, self.name)
        try:
            found: NDArray[np.uint8] = np.load(path, mmap_mode="r")
        except (ValueError, EOFError) as error:
            raise _damaged(path, str(error), "a whole file of patches") from error
        if found.ndim != 4 or found.dtype != np.uint8 or len(found) != len(self):
            raise _damaged(
                path,
                f"{found.dtype} of shape {found.shape}",
                f"patches of {len(self)} spots, uint8",
            )
        return found

    @cached_property
    def whole_patches(self) -> NDArray[np.uint8]:
        """The patches, after their SHA-256 was compared: for readers of all of them.

        Raises
        ------
        FormatError
            They are not those that were written.
        """
        path = layout.patches_path(self.root, self.name)
        if self.sha256 and sha256(path) != self.sha256:
            raise _damaged(path, "another content", "the file that manifest.json lists")
        return self.patches

    @property
    def image_path(self) -> Path:
        """Where the image lies."""
        return self.root / self.info.image

    def labels(self, recipe: FittedRecipe, panel: GenePanel, *, training: bool) -> Any:  # noqa: ANN401
        """Return the labels of the panel, float64 array of shape (num_spots, num_genes).

        Parameters
        ----------
        recipe : FittedRecipe
        panel : GenePanel
        training : bool
            Smooth as the recipe says for training, or for evaluation.
        """
        smooth = recipe.recipe.smooth_train if training else recipe.recipe.smooth_eval
        grid = self.grid_N2 if smooth else None
        return recipe.labels(self.counts_NA, panel.columns(self.var), grid_N2=grid)


def _damaged(path: Path, found: str, expected: str) -> FormatError:
    return FormatError(
        facts(
            str(path),
            found=found,
            expected=expected,
            fix="restore the file, or prepare the cohort again",
        )
    )


class SpatialCohort:
    """A cohort folder, opened read-only; sections are read when they are asked for.

    Parameters
    ----------
    root : Path
        Folder that ``seq2exp spatial prepare`` wrote.
    verify_checksums : bool
        Compare the SHA-256 of every file at once. That they are there is always checked; tables
        of sections are compared when they are read, patches when all of a section are.

    Raises
    ------
    FormatError
        The folder is no cohort, or a file is missing or changed.
    """

    def __init__(self, root: Path, *, verify_checksums: bool = False) -> None:
        self.root = Path(root).absolute()
        self.manifest: CohortManifest = layout.read_manifest(self.root)
        self._sections: dict[str, Section] = {}
        for name, expected in self.manifest.files.items():
            path = self.root / name
            changed = path.is_file() and verify_checksums and sha256(path) != expected
            if not path.is_file() or changed:
                raise FormatError(
                    facts(
                        str(path),
                        found="another content" if changed else "no such file",
                        expected="the file that manifest.json lists",
                        fix="restore it, or prepare the cohort again",
                    )
                )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sections": {}}

    @property
    def names(self) -> list[str]:
        """Names of the sections."""
        return [section.name for section in self.manifest.sections]

    @property
    def patients(self) -> dict[str, str]:
        """Patient of every section."""
        return {section.name: section.patient for section in self.manifest.sections}

    def section(self, name: str) -> Section:
        """Return a section.

        Raises
        ------
        ConfigError
            No such section.
        FormatError
            Its file is damaged.
        """
        require_known("section", name, self.names, expected="a section of the cohort")
        if name not in self._sections:
            self._sections[name] = self._read(self.manifest.section(name))
        return self._sections[name]

    def sections(self, names: Sequence[str] | None = None) -> Iterator[Section]:
        """Yield sections, all by default."""
        for name in self.names if names is None else names:
            yield self.section(name)

    def _read(self, info: SectionInfo) -> Section:
        import anndata

        path = layout.section_path(self.root, info.name)
        expected = self._sha256(path)
        if expected and sha256(path) != expected:
            raise _damaged(path, "another content", "the file that manifest.json lists")
        try:
            data = anndata.read_h5ad(path)
        except (OSError, ValueError, KeyError) as error:
            raise _damaged(path, str(error), "a whole AnnData") from error
        return Section(
            info,
            sparse.csr_matrix(data.X),
            data.obs,
            data.var,
            np.asarray(data.obsm["spatial"], np.float64),
            self.root,
            self._sha256(layout.patches_path(self.root, info.name)),
        )

    def _sha256(self, path: Path) -> str:
        return self.manifest.files.get(path.relative_to(self.root).as_posix(), "")
