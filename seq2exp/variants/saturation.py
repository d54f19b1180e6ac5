"""What every substitution of a region does to a gene: arrays, collected from scores of variants.

Shapes: P bases of the region in genome direction, C the four bases A C G T of the plus strand, K
labels, V records.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import FormatError, facts
from seq2exp.core.sequence import ALPHABET, N_CODE, NUM_BASES
from seq2exp.dataset.store import Dataset
from seq2exp.variants.columns import ScoreColumn
from seq2exp.variants.mutants import DELETION, INSERTION, SUBSTITUTION, Mutants
from seq2exp.variants.regions import Region

__all__ = ["Collector", "Saturation", "load_saturation", "save_saturation"]

SCHEMA = "saturation-1"
_EFFECT, _MASK = "expr_delta", "mask_delta"
_ARRAYS = ("codes_P", "delta_PCK", "spread_PCK", "mask_PC", "deletion_PK", "insertion_PK",
           "element_P")  # fmt: skip
_TEXTS = ("gene_id", "symbol", "strand", "unit", "inserted")


@dataclass(frozen=True, eq=False)
class Saturation:
    """Effects of all single mutations of a region on the predicted expression of one gene.

    Attributes
    ----------
    region : Region
    gene_id, symbol, strand : str
    tss : int
        0-based.
    labels : tuple of str
    unit : str
        Of the effects.
    inserted : str
        Bases that were inserted; empty for none.
    codes_P : uint8 array, shape (length,)
        Bases that are there: A0 C1 G2 T3 N4.
    delta_PCK : float32 array, shape (length, 4, labels)
        Prediction with the base in its place minus prediction of the reference, mean over members.
        0 for the base that is there, NaN at N and outside of the window of the gene.
    spread_PCK : float32 array
        Standard deviation of the members' own differences; NaN where there is one member only.
    mask_PC : float32 array
        Change of the mask around the base, summed over bins; NaN for models without a mask.
    deletion_PK, insertion_PK : float32 arrays
        Likewise with the base deleted, or with bases inserted before it; NaN where not asked for.
    element_P : int8 array
        1 in an element of the gene, 0 in none, -1 where that is not known.
    """

    region: Region
    gene_id: str
    symbol: str
    strand: str
    tss: int
    labels: tuple[str, ...]
    unit: str
    inserted: str
    codes_P: NDArray[np.uint8]
    delta_PCK: NDArray[np.float32]
    spread_PCK: NDArray[np.float32]
    mask_PC: NDArray[np.float32]
    deletion_PK: NDArray[np.float32]
    insertion_PK: NDArray[np.float32]
    element_P: NDArray[np.int8]

    @property
    def mean_PK(self) -> NDArray[np.float32]:
        """Mean effect of the three substitutions, shape (length, labels)."""
        mean: NDArray[np.float32] = self.delta_PCK.sum(axis=1) / np.float32(NUM_BASES - 1)
        return mean

    @property
    def importance_PK(self) -> NDArray[np.float32]:
        """What the base that is there adds over the mean of the other three."""
        # + 0 makes 0 of -0.
        importance: NDArray[np.float32] = -self.mean_PK + np.float32(0)
        return importance

    @property
    def largest_PK(self) -> NDArray[np.float32]:
        """Largest absolute effect of the three substitutions."""
        largest: NDArray[np.float32] = np.abs(self.delta_PCK).max(axis=1)
        return largest

    @property
    def name(self) -> str:
        """Symbol of the gene, or its id where it has none."""
        return self.symbol or self.gene_id

    def strongest(self, label: int) -> tuple[int, int, float] | None:
        """Return place, base and effect of the strongest substitution; None where none is scored.

        Parameters
        ----------
        label : int
            Number of the label.
        """
        size_PC = np.abs(self.delta_PCK[:, :, label])
        known = np.flatnonzero(self.codes_P < N_CODE)
        size_PC[known, self.codes_P[known]] = np.nan
        if np.isnan(size_PC).all():
            return None
        place, base = np.unravel_index(int(np.nanargmax(size_PC)), size_PC.shape)
        return int(place), int(base), float(self.delta_PCK[place, base, label])


class Collector:
    """Puts scores of mutants where they belong, part by part.

    Parameters
    ----------
    mutants : Mutants
    regions : sequence of (Region, list of int)
        Regions of the mutants, and the rows of their genes.
    dataset : Dataset
    columns : sequence of ScoreColumn
        Of the scores.
    inserted : str
        Bases that were inserted.
    """

    def __init__(
        self,
        mutants: Mutants,
        regions: Sequence[tuple[Region, list[int]]],
        dataset: Dataset,
        columns: Sequence[ScoreColumn],
        *,
        inserted: str = "",
    ) -> None:
        self.mutants, self.regions, self.dataset = mutants, list(regions), dataset
        self.inserted = inserted
        effects = [c for c in columns if c.scorer == _EFFECT]
        self.names = [c.name for c in effects if c.kind == "score"]
        self.spreads = [c.name for c in effects if c.kind == "sd"]
        self.labels = tuple(str(c.sample) for c in effects if c.kind == "score")
        self.unit = effects[0].unit
        self.masks = [c.name for c in columns if c.scorer == _MASK and c.kind == "score"]
        self.found: dict[tuple[int, int], Saturation] = {}
        for number, (region, genes) in enumerate(self.regions):
            for gene in genes:
                self.found[number, gene] = self._empty(region, gene)

    def _empty(self, region: Region, gene: int) -> Saturation:
        contig, tss, strand = self.dataset.sites[gene]
        identity = self.dataset.genes.iloc[gene]
        size, num = len(region), len(self.labels)

        def missing(*shape: int) -> NDArray[np.float32]:
            return np.full(shape, np.nan, dtype=np.float32)

        codes = np.array(self.dataset.contig_codes(contig)[region.start : region.end])
        symbol = identity["symbol"]
        return Saturation(
            region,
            str(identity["gene_id"]),
            "" if pd.isna(symbol) else str(symbol),
            strand,
            tss,
            self.labels,
            self.unit,
            self.inserted,
            codes,
            delta_PCK=missing(size, NUM_BASES, num),
            spread_PCK=missing(size, NUM_BASES, num),
            mask_PC=missing(size, NUM_BASES),
            deletion_PK=missing(size, num),
            insertion_PK=missing(size, num),
            element_P=np.full(size, -1, dtype=np.int8),
        )

    def add(self, scores: pd.DataFrame) -> None:
        """Take the scores of some records.

        Parameters
        ----------
        scores : DataFrame
            As `seq2exp.variants.engine.Engine.score` gives them.
        """
        known = scores["score_status"].str.startswith("scored") & (scores["gene_row"] >= 0)
        scored = scores[known]
        record = scored["record"].to_numpy()
        keys = [self.mutants.region_V[record], scored["gene_row"].to_numpy()]
        for key, rows in scored.groupby(keys, sort=False):
            region, gene = np.array(key, dtype=np.int64).tolist()
            self._put(self.found[region, gene], rows)

    def _put(self, one: Saturation, rows: pd.DataFrame) -> None:
        record = rows["record"].to_numpy()
        place, kind = self.mutants.place_V[record], self.mutants.kind_V[record]
        values = rows[self.names].to_numpy(np.float32)
        for which, effects in ((DELETION, one.deletion_PK), (INSERTION, one.insertion_PK)):
            effects[place[kind == which]] = values[kind == which]
        here = kind == SUBSTITUTION
        place = place[here]
        there = one.codes_P[place].astype(np.int64)
        # The alleles of a record are the other three bases in order.
        base = rows["allele"].to_numpy()[here] - 1
        base = base + (base >= there)
        one.delta_PCK[place, base] = values[here]
        one.delta_PCK[place, there] = 0
        if self.spreads:
            one.spread_PCK[place, base] = rows[self.spreads].to_numpy(np.float32)[here]
            one.spread_PCK[place, there] = 0
        if self.masks:
            one.mask_PC[place, base] = rows[self.masks[0]].to_numpy(np.float32)[here]
            one.mask_PC[place, there] = 0
        inside = rows["in_element"].astype("Int8").fillna(-1).to_numpy(np.int8)
        one.element_P[place] = inside[here]

    def results(self) -> Iterator[Saturation]:
        """Yield what was collected, by region, then gene, where anything was scored."""
        for one in self.found.values():
            if not np.isnan(one.delta_PCK).all():
                yield one


def save_saturation(one: Saturation, path: Path, about: Mapping[str, str]) -> None:
    """Write the arrays of a region and gene; equal values give equal bytes.

    Parameters
    ----------
    one : Saturation
    path : Path
    about : mapping of str to str
        What else to say: the model, the dataset, the version.
    """
    region = one.region
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "contig": region.contig,
        "positions": np.arange(region.start, region.end, dtype=np.int64),
        "bases": ALPHABET,
        "labels": np.array(one.labels, dtype=np.str_),
        "tss": np.int64(one.tss),
        **{name: getattr(one, name) for name in _TEXTS},
        **{name.rpartition("_")[0]: getattr(one, name) for name in _ARRAYS},
        "mean": one.mean_PK,
        "largest": one.largest_PK,
        "importance": one.importance_PK,
        **about,
    }
    np.savez_compressed(path, **content)


def load_saturation(path: Path) -> Saturation:
    """Read what `save_saturation` wrote.

    Raises
    ------
    FormatError
        The file is missing, damaged or of another kind.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            positions = file["positions"]
            if str(file["schema"]) != SCHEMA or (file["codes"] > N_CODE).any():
                raise ValueError(f"schema {file['schema']}")
            region = Region(str(file["contig"]), int(positions[0]), int(positions[-1]) + 1)
            values: dict[str, Any] = {name: str(file[name]) for name in _TEXTS}
            values |= {name: file[name.rpartition("_")[0]] for name in _ARRAYS}
            labels = tuple(file["labels"].tolist())
            return Saturation(region=region, tss=int(file["tss"]), labels=labels, **values)
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FormatError(
            facts(
                str(path),
                found=str(error),
                expected="arrays that `seq2exp variants saturate` wrote",
                fix="run it again",
            )
        ) from error
