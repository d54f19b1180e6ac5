"""Read the genotypes of a dataset: variants of a contig, alleles of donors, memory-mapped.

Shapes: D donors asked for, P ploidy, H haplotypes of the store (all donors x P), M variants,
K blocks.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.dataset import format as layout
from seq2exp.dataset import format_genotypes as places
from seq2exp.dataset.format_genotypes import BLOCK, GenotypeInfo, unpack_rows
from seq2exp.variation.policies import MISSING
from seq2exp.variation.table import Variants

if TYPE_CHECKING:
    from seq2exp.variation.packed import PackedHaplotypes

__all__ = ["Genotypes", "read_donor_expression", "read_donors"]

_PLANES = {"alleles": True, "missing": True, "unphased": False, "phase_set": False}


class Genotypes:
    """The genotypes of a prepared dataset, opened read-only.

    Files are opened when they are first needed, in each process anew, so the reader can be sent to
    worker processes.

    Parameters
    ----------
    root : Path
        Dataset folder.

    Raises
    ------
    FormatError
        The folder is no dataset.
    InputError
        It holds no genotypes.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root).absolute()
        info = layout.read_manifest(self.root).genotypes
        if info is None:
            raise InputError(
                facts(
                    f"dataset {self.root.name}",
                    found="no genotypes",
                    expected="a dataset that was prepared with them",
                    fix="add the section genotypes to the data configuration and prepare it again",
                )
            )
        self.info: GenotypeInfo = info
        self._open: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_open": {}}
        state.pop("_number", None)
        return state

    @property
    def donors(self) -> list[str]:
        """Donors in array order."""
        return self.info.donors

    @property
    def ploidy(self) -> int:
        """Haplotypes per donor: 1 or 2."""
        return self.info.ploidy

    @property
    def contigs(self) -> dict[str, int]:
        """Number of variants of each contig that has any."""
        return self.info.contigs

    def donor_rows(self, names: list[str]) -> NDArray[np.int64]:
        """Return the numbers of donors given by name.

        Raises
        ------
        InputError
            A name is not among the donors.
        """
        unknown = [name for name in names if name not in self._number]
        if unknown:
            raise InputError(
                facts(
                    f"dataset {self.root.name}",
                    found="no donors of these names",
                    expected=f"some of the {len(self.donors)} donors, such as {self.donors[0]}",
                    fix="read donors.parquet, or genotypes/donors_left_out.tsv for those left out",
                    count=len(unknown),
                    examples=unknown,
                )
            )
        return np.array([self._number[name] for name in names], dtype=np.int64)

    @cached_property
    def _number(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.donors)}

    def variants(self, contig: str) -> Variants:
        """Return the variants of a contig, memory-mapped; none where the contig has none."""
        held = self._open.get(contig)
        if held is None:
            held = self._open[contig] = _read_variants(self.root, contig, self.contigs)
        variants: Variants = held[0]
        return variants

    def table(self, contig: str) -> pd.DataFrame:
        """Return id, REF, ALT, source record, filter and counts of a contig's variants."""
        if contig not in self.contigs:
            return pd.DataFrame(columns=list(places.VARIANT_COLUMNS))
        return layout.read_table(places.variants_path(self.root, contig))

    def span(self, contig: str, start: int, end: int) -> tuple[int, int]:
        """Return the range of variants that an interval needs.

        All variants whose REF touches ``[start, end)``, and those before them back to one that no
        earlier REF reaches, so that which of overlapping variants apply does not depend on where
        the interval begins.

        Parameters
        ----------
        contig : str
        start, end : int
            0-based half-open; may lie outside the contig.

        Returns
        -------
        first, last : int
            Half-open range of variant numbers.
        """
        position_M = self.variants(contig).position_M
        reach_M = self._open[contig][1]
        first = int(np.searchsorted(reach_M, start, side="right"))
        last = int(np.searchsorted(position_M, end, side="left"))
        if first >= last:
            return first, first
        while first and reach_M[first - 1] > position_M[first]:
            first -= 1
        return first, last

    def sites(self, contig: str, first: int, last: int) -> NDArray[np.int64]:
        """Return where the file had each variant, 0-based: one position for all ALTs of a record.

        Normalising may move ALTs of one record apart; what is decided for a call must be the same
        for all of them.

        Returns
        -------
        int64 array, shape (last - first,)
        """
        key = f"{contig} site"
        if key not in self._open:
            path = places.genotype_path(self.root, contig, "site")
            stored = contig in self.contigs and path.is_file()
            self._open[key] = _load(path, (self.contigs[contig],)) if stored else None
        sites: NDArray[np.int64] | None = self._open[key]
        return (self.variants(contig).position_M if sites is None else sites)[first:last]

    def alleles(
        self, contig: str, first: int, last: int, donors: NDArray[np.int64] | None = None
    ) -> NDArray[np.uint8]:
        """Return the alleles of haplotypes: 0 REF, 1 ALT, 2 missing.

        Parameters
        ----------
        contig : str
        first, last : int
            Half-open range of variant numbers, as :meth:`span` returns.
        donors : int array, optional
            Numbers of donors, in any order; all when None.

        Returns
        -------
        uint8 array, shape (D, P, last - first)
        """
        rows = self._haplotype_rows(donors)
        alleles = self._bits(contig, "alleles", first, last, rows)
        missing = self._bits(contig, "missing", first, last, rows)
        if alleles is None:
            num = len(self.donors) * self.ploidy if rows is None else len(rows)
            alleles = np.zeros((num, last - first), dtype=np.uint8)
        if missing is not None:
            alleles[missing != 0] = MISSING
        return alleles.reshape(len(alleles) // self.ploidy, self.ploidy, last - first)

    def unphased(
        self, contig: str, first: int, last: int, donors: NDArray[np.int64] | None = None
    ) -> NDArray[np.bool_] | None:
        """Return which calls differ between the haplotypes without a known phase.

        Returns
        -------
        bool array, shape (D, last - first), or None when the contig has no such call
        """
        bits = self._bits(contig, "unphased", first, last, donors)
        return None if bits is None else bits.view(np.bool_)

    def phase_sets(
        self, contig: str, first: int, last: int, donors: NDArray[np.int64] | None = None
    ) -> NDArray[np.int32] | None:
        """Return the phase set of phased heterozygous calls, 0 where none is stated.

        Returns
        -------
        int32 array, shape (D, last - first), or None when the contig states none
        """
        plane = self._plane(contig, "phase_set")
        if plane is None:
            return None
        chosen = slice(None) if donors is None else donors
        pieces = [
            plane[block, chosen, max(first - block * BLOCK, 0) : last - block * BLOCK]
            for block in range(first // BLOCK, places.num_blocks(last))
        ]
        size = len(self.donors) if donors is None else len(donors)
        empty = np.empty((size, 0), dtype=np.int32)
        return np.ascontiguousarray(np.concatenate([empty, *pieces], axis=1))

    def dosage(
        self, contig: str, first: int, last: int, donors: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Return the number of ALT alleles per donor, 0 to the ploidy; NaN where one is missing.

        Returns
        -------
        float32 array, shape (D, last - first)
        """
        alleles = self.alleles(contig, first, last, donors)
        total: NDArray[np.float32] = alleles.sum(axis=1, dtype=np.float32)
        total[(alleles == MISSING).any(axis=1)] = np.nan
        return total

    def packed(
        self,
        contig: str,
        reference_codes: NDArray[np.uint8],
        *,
        keep_M: NDArray[np.bool_] | None = None,
    ) -> PackedHaplotypes | None:
        """Return the fast builder of a contig's haplotypes, or None where it does not apply.

        It takes phased calls as they are and alleles that were not called as REF. Calls whose phase
        is not known need a policy, so a contig that has any gives None, and so does one on which
        nobody carries an ALT.

        Parameters
        ----------
        contig : str
        reference_codes : uint8 array
            Codes of the whole contig.
        keep_M : bool array, optional
            Variants to use; all when None.
        """
        from seq2exp.variation.packed import PackedHaplotypes

        alleles = self._plane(contig, "alleles")
        phase = [self._plane(contig, name) for name in ("unphased", "phase_set")]
        if alleles is None or any(plane is not None for plane in phase):
            return None
        variants = self.variants(contig)
        missing = self._plane(contig, "missing")
        reach_M = self._open[contig][1]
        return PackedHaplotypes(
            reference_codes, variants, reach_M, alleles, missing_KRW=missing, keep_M=keep_M
        )

    def _haplotype_rows(self, donors: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        if donors is None:
            return None
        chosen = np.asarray(donors, dtype=np.int64)
        if self.ploidy == 1:
            return chosen
        return (chosen[:, None] * self.ploidy + np.arange(self.ploidy)).ravel()

    def _bits(
        self, contig: str, name: str, first: int, last: int, rows: NDArray[np.int64] | None
    ) -> NDArray[np.uint8] | None:
        plane = self._plane(contig, name)
        return None if plane is None else unpack_rows(plane, first, last, rows)

    def _plane(self, contig: str, name: str) -> NDArray[Any] | None:
        key = f"{contig} {name}"
        if key not in self._open:
            path = places.genotype_path(self.root, contig, name)
            plane = None
            if contig in self.contigs and path.is_file():
                per_donor = self.ploidy if _PLANES[name] else 1
                width = BLOCK if name == "phase_set" else places.BLOCK_BYTES
                blocks = places.num_blocks(self.contigs[contig])
                plane = _load(path, (blocks, per_donor * len(self.donors), width))
            self._open[key] = plane
        found: NDArray[Any] | None = self._open[key]
        return found


def read_donors(root: Path) -> pd.DataFrame:
    """Return the donor table: one row per donor in array order, texts, empty where unknown.

    A dataset without genotypes has no row.

    Raises
    ------
    FormatError
        The table is damaged, or names other donors than the manifest.
    """
    path = places.donors_path(root)
    info = layout.read_manifest(root).genotypes
    if info is None:
        return pd.DataFrame(columns=list(places.DONOR_COLUMNS), dtype=str)
    frame = layout.read_table(path)
    if list(frame.columns) != [*places.DONOR_COLUMNS] or list(frame["donor"]) != info.donors:
        raise _unfit(path, "donors that differ from those of the manifest")
    return frame


def read_donor_expression(root: Path) -> pd.DataFrame | None:
    """Return expression as it was given, genes in the rows, one column per donor, or None.

    Raises
    ------
    FormatError
        The table is damaged, or names other donors than the manifest.
    """
    path = places.donor_expression_path(root)
    if not path.is_file():
        return None
    info = layout.read_manifest(root).genotypes
    frame = layout.read_table(path)
    known = [] if info is None else info.donors
    if list(frame.columns) != ["gene_id", *known]:
        raise _unfit(path, "columns that differ from the donors of the manifest")
    return frame.set_index("gene_id")


def _read_variants(
    root: Path, contig: str, contigs: dict[str, int]
) -> tuple[Variants, NDArray[np.int64]]:
    if contig not in contigs:
        return Variants.from_alleles(()), np.empty(0, dtype=np.int64)
    size = contigs[contig]
    path = places.genotype_path(root, contig, "alt_offset")
    offset = _load(path, (size + 1,))
    variants = Variants(
        _load(places.genotype_path(root, contig, "position"), (size,)),
        _load(places.genotype_path(root, contig, "ref_length"), (size,)),
        offset,
        _load(places.genotype_path(root, contig, "alt_codes"), (int(offset[-1]),)),
    )
    return variants, _load(places.genotype_path(root, contig, "reach"), (size,))


def _load(path: Path, shape: tuple[int, ...]) -> NDArray[Any]:
    # A plain view of the map: slices of np.memmap cost several microseconds each.
    array = np.asarray(layout.load_array(path))
    if array.shape != shape:
        raise _unfit(path, f"shape {array.shape} where the manifest asks for {shape}")
    return array


def _unfit(path: Path, found: str) -> FormatError:
    return FormatError(
        facts(
            str(path),
            found=found,
            expected="files of one dataset",
            fix="restore them from one copy or prepare the dataset again",
        )
    )
