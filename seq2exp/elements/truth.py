"""Intervals that count as true elements, and those of a simulation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import FormatError, InputError, facts

__all__ = ["Truth", "read_simulated_truth"]

_EFFECT_COLUMNS = ("gene_id", "chrom", "start", "end", "kind")


@dataclass(frozen=True, eq=False)
class Truth:
    """Intervals that count as true elements.

    Attributes
    ----------
    elements : DataFrame
        chrom, start, end, gene_id, causal, kind. With ``gene_id`` an element is true for that gene
        only; where ``gene_id`` is missing (None) it is true for every gene. Rows with ``causal``
        False are candidates known to do nothing.
    name : str
        What the truth is, for tables and pictures.
    """

    elements: pd.DataFrame
    name: str
    _by_gene: dict[str, NDArray[np.int64]] = field(init=False, repr=False)
    _by_contig: dict[str, NDArray[np.int64]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        frame = self.elements.reset_index(drop=True)
        object.__setattr__(self, "elements", frame)
        groups = frame.groupby("gene_id", dropna=True).indices
        free = np.flatnonzero(frame["gene_id"].isna())
        contigs = frame.iloc[free].groupby("chrom").indices
        object.__setattr__(self, "_by_gene", {str(k): v for k, v in groups.items()})
        object.__setattr__(self, "_by_contig", {str(k): free[v] for k, v in contigs.items()})

    @property
    def per_gene(self) -> bool:
        """True when elements name their gene."""
        return bool(self._by_gene)

    def of_gene(self, gene_id: str, contig: str) -> pd.DataFrame:
        """Return the rows that concern a gene: its own, and those of its contig for every gene."""
        none = np.empty(0, dtype=np.int64)
        rows = [self._by_gene.get(gene_id, none), self._by_contig.get(contig, none)]
        found = self.elements.iloc[np.concatenate(rows)]
        return found[found["chrom"] == contig]


def read_simulated_truth(folder: Path, *, cells: tuple[str, ...] | None = None) -> Truth:
    """Read ``truth/effects.tsv.gz`` of ``seq2exp simulate`` (docs/simulator.md).

    Parameters
    ----------
    folder : Path
        The simulation or its ``truth`` folder.
    cells : tuple of str, optional
        Cell types; an element is causal for a gene where it is causal in any of them. All by
        default.

    Raises
    ------
    InputError
        There is no such file, or no such cell type.
    FormatError
        A column is missing.
    """
    folder = Path(folder)
    places = [folder / "truth" / "effects.tsv.gz", folder / "effects.tsv.gz"]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise InputError(
            facts(
                str(folder),
                found="no truth/effects.tsv.gz",
                expected="a folder that `seq2exp simulate` wrote",
                fix="check the path",
            )
        )
    frame = pd.read_csv(path, sep="\t")
    known = [name.removeprefix("causal_") for name in map(str, frame) if name.startswith("causal_")]
    missing = [name for name in _EFFECT_COLUMNS if name not in frame]
    if missing or not known:
        raise FormatError(
            facts(
                str(path),
                found=f"no column {', '.join(missing) or 'causal_<cell>'}",
                expected="the columns of docs/simulator.md",
                fix="simulate again",
            )
        )
    wanted = list(cells or known)
    unknown = [cell for cell in wanted if cell not in known]
    if unknown:
        raise InputError(
            facts(
                f"cell type {', '.join(unknown)}",
                found="no such column in the truth",
                expected=f"some of {', '.join(known)}",
                fix="choose one of them",
            )
        )
    frame["causal"] = frame[[f"causal_{cell}" for cell in wanted]].any(axis=1)
    columns = ["chrom", "start", "end", "gene_id", "causal", "kind"]
    return Truth(frame[columns], f"simulated truth ({', '.join(wanted)})")
