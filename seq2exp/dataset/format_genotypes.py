"""Genotypes of donors inside a dataset: names of files, what the manifest says, and how bits lie.

Shapes: D donors, P ploidy, H haplotypes (D x P, donor-major), M variants of a contig,
K blocks of :data:`BLOCK` variants, W bytes of a block's row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.files import safe_name

__all__ = [
    "BLOCK",
    "BLOCK_BYTES",
    "DONOR_COLUMNS",
    "VARIANT_ARRAYS",
    "VARIANT_COLUMNS",
    "GenotypeInfo",
    "donor_expression_path",
    "donors_path",
    "genotype_path",
    "left_out_path",
    "num_blocks",
    "pack_rows",
    "rejects_path",
    "unpack_rows",
    "variants_path",
]

BLOCK = 8192
"""Variants per block of a bit plane."""
BLOCK_BYTES = BLOCK // 8
DONOR_COLUMNS = ("donor", "population", "sex", "family", "father", "mother")
VARIANT_ARRAYS = ("position", "ref_length", "alt_offset", "alt_codes", "reach", "site")
"""Flat arrays of a contig's variants, by name of file; ``site`` only where it says anything."""
VARIANT_COLUMNS = (
    "id",
    "position",
    "ref",
    "alt",
    "file",
    "record",
    "allele",
    "filter",
    "ac",
    "an",
    "status",
)


@dataclass(frozen=True)
class GenotypeInfo:
    """The genotypes of a dataset, as the manifest describes them."""

    ploidy: int
    """Haplotypes per donor: 1 where every call is haploid, else 2."""
    donors: list[str] = field(default_factory=list)
    """Donors in array order."""
    contigs: dict[str, int] = field(default_factory=dict)
    """Variants of each contig that has any."""
    counts: dict[str, int] = field(default_factory=dict)
    """Records and calls by what was found and what was done with them."""
    expression_unit: str = ""
    """Unit of donor_expression.parquet; empty where there is none or it was not stated."""


def donors_path(root: Path) -> Path:
    """Return the path of the donor table."""
    return root / "donors.parquet"


def donor_expression_path(root: Path) -> Path:
    """Return the path of the donors' expression: gene_id, then one float32 column per donor."""
    return root / "donor_expression.parquet"


def genotype_path(root: Path, contig: str, name: str) -> Path:
    """Return the path of one array of a contig: one of :data:`VARIANT_ARRAYS` or a plane of calls.

    Planes are ``alleles`` and ``missing`` (uint8 bits, K x H x 1024), ``unphased`` (uint8 bits,
    K x D x 1024) and ``phase_set`` (int32, K x D x 8192).
    """
    return root / "genotypes" / safe_name(contig) / f"{name}.npy"


def variants_path(root: Path, contig: str) -> Path:
    """Return the path of the table of a contig's variants."""
    return root / "genotypes" / safe_name(contig) / "variants.parquet"


def rejects_path(root: Path) -> Path:
    """Return where records that were left out are listed; not there when there are none."""
    return root / "genotypes" / "rejects.tsv"


def left_out_path(root: Path) -> Path:
    """Return where donors that not every table has are listed; not there when there are none."""
    return root / "genotypes" / "donors_left_out.tsv"


def num_blocks(num_variants: int) -> int:
    """Return how many blocks hold that many variants."""
    return -(-num_variants // BLOCK)


def pack_rows(values_RM: NDArray[Any], *, width: int = BLOCK_BYTES) -> NDArray[np.uint8]:
    """Return rows of booleans as bits, first variant in the highest bit, padded with zeros.

    Parameters
    ----------
    values_RM : array, shape (rows, at most 8 * width)
        Zero is false.
    width : int
        Bytes per packed row.

    Returns
    -------
    uint8 array, shape (rows, width)
    """
    bits = np.packbits(np.asarray(values_RM) != 0, axis=1)
    packed = np.zeros((bits.shape[0], width), dtype=np.uint8)
    packed[:, : bits.shape[1]] = bits
    return packed


def unpack_rows(
    bits_KRW: NDArray[np.uint8], first: int, last: int, rows: NDArray[np.int64] | None = None
) -> NDArray[np.uint8]:
    """Return variants ``first`` to ``last - 1`` of rows of a plane as 0 and 1.

    Parameters
    ----------
    bits_KRW : uint8 array, shape (blocks, rows, BLOCK_BYTES)
        May be memory-mapped; only the bytes of these variants and rows are touched.
    first, last : int
    rows : int array, optional
        All rows when None.

    Returns
    -------
    uint8 array, shape (rows, last - first)
    """
    num_rows = bits_KRW.shape[1] if rows is None else len(rows)
    out = np.empty((num_rows, max(last - first, 0)), dtype=np.uint8)
    chosen = slice(None) if rows is None else rows
    at = first
    while at < last:
        block, inside = divmod(at, BLOCK)
        stop = min(last - block * BLOCK, BLOCK)
        begin = inside // 8
        bits = np.unpackbits(bits_KRW[block, chosen, begin : -(-stop // 8)], axis=1)
        skip = inside - 8 * begin
        out[:, at - first : at - first + stop - inside] = bits[:, skip : skip + stop - inside]
        at += stop - inside
    return out
