"""All single mutations of some regions as records of a VCF, which are then scored like any other.

A known base has a record with its three substitutions, and where asked for one with the base
deleted and one with bases inserted before it.

Shapes: V records, P bases of a region.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.sequence import ALPHABET, N_CODE, NUM_BASES, decode
from seq2exp.dataset.store import Dataset
from seq2exp.interpret.saturation import substitutions
from seq2exp.variants.regions import Region

__all__ = ["DELETION", "INSERTION", "SUBSTITUTION", "Mutants", "drawn_bases", "make_mutants"]

SUBSTITUTION, DELETION, INSERTION = range(3)
_NUM_OTHERS = NUM_BASES - 1


@dataclass(frozen=True, eq=False)
class Mutants:
    """Records of a VCF, and what each of them mutates.

    Attributes
    ----------
    text : str
        The VCF, sorted.
    region_V, place_V : int64 arrays
        Region, and base of it, counted from its first.
    kind_V : uint8 array
        ``SUBSTITUTION``, ``DELETION`` or ``INSERTION``.
    """

    text: str
    region_V: NDArray[np.int64]
    place_V: NDArray[np.int64]
    kind_V: NDArray[np.uint8]

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.kind_V)


def drawn_bases(num: int, *, seed: int) -> str:
    """Return bases to insert, drawn evenly from the four.

    Parameters
    ----------
    num : int
    seed : int
    """
    return decode(np.random.default_rng(seed).integers(0, NUM_BASES, num).astype(np.uint8))


def make_mutants(
    regions: Sequence[Region], dataset: Dataset, *, deletions: bool = False, inserted: str = ""
) -> Mutants:
    """Write down all mutations of regions; N is left as it is.

    Parameters
    ----------
    regions : sequence of Region
        Sorted as the contigs of the dataset; none overlap.
    dataset : Dataset
    deletions : bool
        Also delete each base.
    inserted : str
        Also insert these bases before each base; nothing where empty.
    """
    contigs = list(dict.fromkeys(region.contig for region in regions))
    lengths = dataset.manifest.contigs
    lines = ["##fileformat=VCFv4.3"]
    lines += [f"##contig=<ID={name},length={lengths[name]}>" for name in contigs]
    lines.append("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO")
    records: list[tuple[int, int, int, int, int, str]] = []
    for number, region in enumerate(regions):
        order = contigs.index(region.contig)
        codes = dataset.contig_codes(region.contig)
        for place, kind, position, ref, alts in _of_region(region, codes, deletions, inserted):
            words = f"{region.contig}\t{position + 1}\t.\t{ref}\t{alts}\t.\t.\t."
            records.append((order, position, number, place, kind, words))
    # A deletion is written from the base before it, which may be in another region.
    records.sort(key=lambda record: record[:5])
    table = np.array([record[2:5] for record in records], dtype=np.int64).reshape(-1, 3)
    lines += [record[5] for record in records]
    return Mutants("\n".join(lines) + "\n", table[:, 0], table[:, 1], table[:, 2].astype(np.uint8))


def _of_region(
    region: Region,
    codes: NDArray[np.uint8],
    deletions: bool,  # noqa: FBT001
    inserted: str,
) -> list[tuple[int, int, int, str, str]]:
    """Place, kind, 0-based position, REF and ALT of every record."""
    here_P = np.asarray(codes[region.start : region.end])
    place_M, base_M = substitutions(here_P)
    found = []
    for place, others in zip(
        place_M[::_NUM_OTHERS].tolist(), base_M.reshape(-1, _NUM_OTHERS).tolist(), strict=True
    ):
        position, ref = region.start + place, ALPHABET[here_P[place]]
        alts = ",".join(ALPHABET[base] for base in others)
        found.append((place, SUBSTITUTION, position, ref, alts))
        before = _base(codes, position - 1)
        if deletions and before:
            found.append((place, DELETION, position - 1, before + ref, before))
        elif deletions and (after := _base(codes, position + 1)):
            found.append((place, DELETION, position, ref + after, after))
        if inserted and before:
            found.append((place, INSERTION, position - 1, before, before + inserted))
        elif inserted:
            found.append((place, INSERTION, position, ref, inserted + ref))
    return found


def _base(codes: NDArray[np.uint8], position: int) -> str:
    """Return a known base; nothing for N and beyond the ends."""
    if not 0 <= position < len(codes) or codes[position] >= N_CODE:
        return ""
    return ALPHABET[codes[position]]
