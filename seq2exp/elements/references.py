"""What element maps are compared with: peaks, cCREs, links, CRISPRi tables, the simulated truth.

Every file becomes a :class:`Reference`: intervals on the contigs of the dataset, with or without a
gene, known to act or not. Rows that cannot be used are counted, and the count is a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from seq2exp.core.errors import (
    InputError,
    facts,
)
from seq2exp.core.genes import AMBIGUOUS, UNKNOWN, GeneNames
from seq2exp.core.intervals import merge
from seq2exp.dataset.store import Dataset
from seq2exp.elements.intervals import on_contigs, read_intervals, warn_left_out
from seq2exp.elements.links import bedpe_links
from seq2exp.elements.tables import (
    Table,
    check_assembly,
    intervals_of,
    read_table,
)
from seq2exp.elements.tested import (
    KINDS,
    TESTED,
    Kind,
    ReadConfig,
    acting,
    chosen_rows,
    column_numbers,
)
from seq2exp.elements.truth import Truth, read_simulated_truth

__all__ = ["KINDS", "Kind", "ReadConfig", "Reference", "kind_of", "read_reference"]

_COLUMNS = ["chrom", "start", "end", "gene_id", "causal", "kind"]


@dataclass(frozen=True, eq=False)
class Reference:
    """A file that elements are compared with.

    Attributes
    ----------
    name : str
        For tables and pictures.
    path : Path
    kind : str
        One of :data:`KINDS` but auto.
    truth : Truth
        Intervals on the contigs of the dataset.
    notes : dict
        Counts of rows: read, used, and left out for each reason.
    """

    name: str
    path: Path
    kind: str
    truth: Truth
    notes: dict[str, int] = field(default_factory=dict)

    @property
    def per_gene(self) -> bool:
        """True when elements name their gene."""
        return self.truth.per_gene

    @property
    def lists_negatives(self) -> bool:
        """True when some pairs are known not to act."""
        return self.per_gene and not bool(self.truth.elements["causal"].all())

    @property
    def covers_bins(self) -> bool:
        """True when what is not listed counts as not acting: not so for what was tested."""
        return self.kind != "crispri"


def kind_of(path: Path) -> str:
    """Return the kind of a file by its name and, for tables, its header.

    Raises
    ------
    InputError, FormatError
        As :func:`seq2exp.elements.tables.read_table`.
    """
    path = Path(path)
    if path.is_dir() or path.name.startswith("effects.tsv"):
        return "simulated"
    name = path.name.lower().removesuffix(".gz").removesuffix(".bgz")
    for kind, suffixes in (
        ("narrowpeak", (".narrowpeak",)),
        ("bedpe", (".bedpe",)),
        ("bed", (".bed", ".broadpeak", ".bed3", ".bed6", ".bed9", ".gappedpeak")),
    ):
        if name.endswith(suffixes):
            return kind
    return "table"


def read_reference(
    path: Path,
    dataset: Dataset,
    *,
    config: ReadConfig | None = None,
    samples: Sequence[str] = (),
) -> Reference:
    """Read any of the known files.

    Parameters
    ----------
    path : Path
    dataset : Dataset
        Names its contigs and genes; positions must fit its contigs.
    config : ReadConfig, optional
    samples : sequence of str
        Cell types of the model; those of a simulation that count, unless `config.cell` names one.

    Raises
    ------
    InputError
        The file is missing or empty, or shares no contig or no gene with the dataset.
    AssemblyError
        It states another assembly, or has positions beyond a contig.
    FormatError
        It is damaged, columns are missing, or a line holds no interval.
    """
    path, config = Path(path), config or ReadConfig()
    kind = kind_of(path) if config.kind == "auto" else config.kind
    if kind == "simulated":
        return _simulated(path, dataset, config, tuple(samples))
    notes: dict[str, int] = {}
    if kind == "bedpe":
        frame = bedpe_links(path, dataset, notes)
    elif kind in ("bed", "narrowpeak") and not _is_table(path):
        frame = read_intervals(path, dataset, narrowpeak=kind == "narrowpeak").assign(causal=True)
    else:
        table = read_table(path)
        check_assembly(table.assembly, dataset.manifest.assembly, path)
        found = _table_kind(table) if kind == "table" else kind
        kind, frame = found, _table_frame(table, found, config, notes)
    notes = {"rows": len(frame) + sum(notes.values()), **notes}
    frame = on_contigs(frame, dataset, path, notes)
    if kind in ("bed", "narrowpeak"):
        frame = _merged(frame, notes)
    else:
        frame = _of_genes(frame, dataset, path, notes)
    notes["used"] = len(frame)
    warn_left_out(path, notes)
    return Reference(path.name, path, kind, Truth(frame[_COLUMNS], path.name), notes)


def _is_table(path: Path) -> bool:
    return path.name.lower().endswith((".parquet", ".pq", ".csv", ".csv.gz"))


def _table_kind(table: Table) -> str:
    roles = set(table.frame)
    if not roles & {"gene_id", "symbol"}:
        return "bed"
    return "crispri" if roles & set(TESTED) else "links"


def _table_frame(
    table: Table, kind: str, config: ReadConfig, notes: dict[str, int]
) -> pd.DataFrame:
    """Return intervals, names of genes and what they do."""
    table = chosen_rows(table, config, notes)
    start, end = intervals_of(table)
    frame = pd.DataFrame(
        {
            "chrom": table.frame["chrom"].astype(str).to_numpy(),
            "start": start,
            "end": end,
            "causal": True,
        },
        index=table.frame.index,
    )
    if kind in ("bed", "narrowpeak"):
        return frame
    if not {"gene_id", "symbol"} & set(table.frame):
        table.require("gene_id", "symbol")
    for role in ("gene_id", "symbol"):
        frame[role] = table.frame.get(role)
    if kind == "crispri":
        frame["causal"] = acting(table, config)
        unknown = frame["causal"].isna()
        notes["without a test"] = int(unknown.sum())
        frame = frame[~unknown]
    elif config.min_score is not None:
        table.require("score")
        frame["causal"] = column_numbers(table, "score") >= config.min_score
    return frame


def _merged(frame: pd.DataFrame, notes: dict[str, int]) -> pd.DataFrame:
    """Join overlapping intervals."""
    parts = []
    for contig, here in frame.groupby("chrom", sort=True):
        starts, ends = merge(here["start"].to_numpy(np.int64), here["end"].to_numpy(np.int64))
        parts.append(pd.DataFrame({"chrom": contig, "start": starts, "end": ends}))
    joined = pd.concat(parts, ignore_index=True)
    notes["joined because they overlap or touch"] = len(frame) - len(joined)
    return joined.assign(gene_id=None, causal=True, kind="element")


def _of_genes(
    frame: pd.DataFrame, dataset: Dataset, path: Path, notes: dict[str, int]
) -> pd.DataFrame:
    """Name genes as the dataset does, and give each pair one row: positive if any of its is."""
    rows = GeneNames(dataset.genes).rows(frame["gene_id"], frame["symbol"])
    notes["of genes the dataset lacks"] = int((rows == UNKNOWN).sum())
    notes["of symbols that several genes have"] = int((rows == AMBIGUOUS).sum())
    if not (rows >= 0).any():
        theirs = pd.concat([frame["gene_id"], frame["symbol"]]).dropna().unique()[:3]
        raise InputError(
            facts(
                str(path),
                found=f"genes such as {', '.join(map(str, theirs))}",
                expected="ids or symbols of the dataset, such as "
                + ", ".join(map(str, dataset.genes["gene_id"].head(3))),
                fix="use a file of the same organism and gene ids",
                count=0,
            )
        )
    names = dataset.genes["gene_id"].to_numpy()
    contigs = dataset.genes["contig"].to_numpy()
    kept = frame[rows >= 0].assign(gene_id=names[rows[rows >= 0]])
    elsewhere = kept["chrom"].to_numpy() != contigs[rows[rows >= 0]]
    notes["on another contig than their gene"] = int(elsewhere.sum())
    kept = kept[~elsewhere]
    kept["causal"] = kept["causal"].astype(bool)
    keys = ["chrom", "start", "end", "gene_id"]
    pairs: pd.DataFrame = kept.groupby(keys, sort=True, as_index=False).agg(
        causal=("causal", "any")
    )
    notes["the same pair again"] = len(kept) - len(pairs)
    return pairs.assign(kind="element")


def _simulated(
    path: Path, dataset: Dataset, config: ReadConfig, samples: tuple[str, ...]
) -> Reference:
    folder = path if path.is_dir() else path.parent
    cells = (config.cell,) if config.cell else samples
    truth = read_simulated_truth(folder, cells=cells or None)
    known = set(dataset.genes["gene_id"])
    frame = truth.elements[truth.elements["gene_id"].isin(known)]
    if frame.empty:
        raise InputError(
            facts(
                str(path),
                found="genes that the dataset lacks",
                expected="the simulation that the dataset was prepared from",
                fix="check the path",
                count=0,
            )
        )
    notes = {"rows": len(truth.elements), "used": len(frame)}
    return Reference(truth.name, path, "simulated", Truth(frame, truth.name), notes)
