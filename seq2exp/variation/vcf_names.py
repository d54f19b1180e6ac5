"""Contig names of a VCF as those of the genome."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from seq2exp.core.contigs import canonical

__all__ = ["ContigNames"]

# PLINK and some cohorts number the sex chromosomes and the mitochondrion.
_NUMBERED = {"23": "X", "24": "Y", "26": "MT"}


@dataclass(frozen=True)
class ContigNames:
    """The contigs of a genome, found under any alias.

    Attributes
    ----------
    genome : collection of str
        All contigs of the FASTA.
    kept : collection of str
        Those that the dataset stores.
    """

    genome: Collection[str]
    kept: Collection[str]
    _index: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        index = {canonical(name): name for name in self.genome}
        index |= {name: name for name in self.genome}
        for number, letter in _NUMBERED.items():
            if number not in index and letter in index:
                index[number] = index[letter]
        object.__setattr__(self, "_index", index)

    def known(self, name: str) -> str | None:
        """Return the name that the genome has for a contig, or None."""
        return self._index.get(name) or self._index.get(canonical(name))

    def stored(self, name: str) -> str | None:
        """Return the name that the dataset has for a contig, or None when it does not store it."""
        found = self.known(name)
        return found if found is not None and found in self.kept else None
