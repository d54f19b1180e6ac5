"""Joint scores: several variants on one haplotype, the sum of each alone, and what is left.

``joint`` compares the haplotype with all variants of a group to the reference, ``sum`` adds the
scores of each variant alone, ``epistasis`` is joint minus sum. All three average over members,
strands and shifts as the scores of single variants do. Masks and tracks are compared in one stretch
for the whole group: from half the usual width before its first variant to as much behind its last.

Shapes: C comparisons, V columns of scores, S signed ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.dataset.genotypes import Genotypes
from seq2exp.variants.carriers import Carriers
from seq2exp.variants.columns import ScoreColumn
from seq2exp.variants.engine import Engine
from seq2exp.variants.genes import window_holds
from seq2exp.variants.joint_groups import ALL, MOST_TOGETHER, JointConfig, JointItems
from seq2exp.variants.judge import Judged, changed_span, judge
from seq2exp.variants.pairs import BELOW, edge_status
from seq2exp.variation.alleles import Allele
from seq2exp.variation.overlaps import applied
from seq2exp.variation.table import Variants

__all__ = ["JointScorer", "joint_columns"]

_PARTS = {
    "joint": "all variants of the group together",
    "sum": "sum over its variants, each alone",
    "epistasis": "joint - sum",
}


def joint_columns(columns: Sequence[ScoreColumn]) -> list[ScoreColumn]:
    """Return the columns of a table of joint scores: three for every signed score.

    Parameters
    ----------
    columns : sequence of ScoreColumn
        Of single variants.
    """
    return [
        replace(column, name=f"{column.name}:{part}", formula=f"{words}; {column.formula}")
        for column in columns
        if column.kind == "score" and column.signed
        for part, words in _PARTS.items()
    ]


@dataclass(frozen=True)
class _Group:
    """What is compared for an item; nothing where it is not scored."""

    names: list[str]
    status: str = "ok"
    reason: str = ""
    cases: tuple[Judged, ...] = ()
    width: int = 1
    left_out: int = 0

    @property
    def moves(self) -> bool:
        """Whether a variant moves bases: then each is compared in the views for such."""
        return any(case.moves for case in self.cases)


class JointScorer:
    """Scores items of `JointItems`.

    Parameters
    ----------
    engine : Engine
    items : JointItems
    config : JointConfig
    genotypes : Genotypes or None
        Of the samples that are named.
    """

    def __init__(
        self,
        engine: Engine,
        items: JointItems,
        config: JointConfig,
        genotypes: Genotypes | None = None,
    ) -> None:
        self.engine, self.items, self.config = engine, items, config
        self.judged = judge(
            items.alleles,
            engine.dataset,
            policy=engine.config.ref_policy,
            max_indel=engine.config.max_indel,
        )
        self.names = _names(items.alleles)
        self.carriers: Carriers | None = None
        if genotypes is not None:
            # Whoever is named here need not be among the carriers of single variants.
            plain = replace(engine.config, carriers=())
            self.carriers = Carriers(engine.dataset, genotypes, engine.index.windows, plain)
        self._ids: dict[str, list[str]] = {}
        self.signed = [
            number
            for number, column in enumerate(engine.scoring.computed)
            if column.kind == "score" and column.signed
        ]
        self.is_expression_S = engine.scoring.is_expression_V[self.signed]

    def __call__(self, items: pd.DataFrame) -> pd.DataFrame:
        """Return one row per item.

        Parameters
        ----------
        items : DataFrame
            Of `JointItems.read`.
        """
        groups = [self._group(row) for row in items.itertuples(index=False)]
        values = np.full((len(items), len(self.signed), 3), np.nan)
        deleted = np.zeros(len(items), dtype=np.bool_)
        genes = items["gene_row"].to_numpy()
        for gene in np.unique(genes[genes >= 0]).tolist():
            rows = [int(row) for row in np.flatnonzero(genes == gene) if groups[row].cases]
            for moved in (False, True):
                here = [row for row in rows if groups[row].moves == moved]
                for row, found, gone in self._scores(gene, here, groups, moved=moved):
                    values[row, :, 0], values[row, :, 1] = found[0], found[1:].sum(axis=0)
                    deleted[row] = gone
        values[:, :, 2] = values[:, :, 0] - values[:, :, 1]
        return self._table(items, groups, values, deleted)

    def _scores(
        self, gene: int, rows: Sequence[int], groups: Sequence[_Group], *, moved: bool
    ) -> list[tuple[int, NDArray[np.float64], bool]]:
        """Return the scores of a group together, then of its variants alone, for every row."""
        if not rows:
            return []
        scores, size = self.engine.gene(gene, moved=moved), self.engine.config.batch_size
        cases = [case for row in rows for case in groups[row].cases]
        widths = [groups[row].width for row in rows for _ in groups[row].cases]
        found = [
            scores.score(cases[first : first + size], widths[first : first + size])
            for first in range(0, len(cases), size)
        ]
        values_CS = np.concatenate([values for values, _ in found])[:, self.signed]
        deleted_C = np.concatenate([gone for _, gone in found])
        ends = np.cumsum([len(groups[row].cases) for row in rows])[:-1]
        parts = np.split(values_CS.astype(np.float64), ends)
        gone = [bool(part.any()) for part in np.split(deleted_C, ends)]
        return list(zip(rows, parts, gone, strict=True))

    def _group(self, item: Any) -> _Group:  # noqa: ANN401  a named tuple of pandas
        if item.donor >= 0:
            return self._haplotype(item.gene_row, item.donor, item.copy)
        rows = self.items.members_M[item.first : item.last].tolist()
        cases, names = [self.judged[row] for row in rows], [self.names[row] for row in rows]
        if item.gene_row < 0:
            return _Group(names, "no_gene", "no_gene")
        reasons = [_reason(case) for case in cases]
        kept = [number for number, (_, reason) in enumerate(reasons) if not reason]
        if len(kept) < len(cases) and item.group != ALL:
            status, reason = next(pair for pair in reasons if pair[1])
            return _Group(names, status, reason)
        return self._together(
            item.gene_row,
            [cases[number] for number in kept],
            [names[number] for number in kept],
            left_out=len(cases) - len(kept),
        )

    def _together(
        self, gene: int, cases: Sequence[Judged], names: list[str], *, left_out: int
    ) -> _Group:
        """Return the group of alleles that can be scored, as far as they can stand together."""
        if len(cases) > MOST_TOGETHER:
            return _Group(names, reason=f"more_than_{MOST_TOGETHER}", left_out=left_out)
        order = sorted(range(len(cases)), key=lambda number: _first(cases[number]))
        cases, names = [cases[number] for number in order], [names[number] for number in order]
        stands = [True] * len(cases)
        changing = [number for number, case in enumerate(cases) if case.after]
        if changing:
            variants = Variants.from_alleles([cases[number].after[0] for number in changing])
            contig = self.engine.dataset.sites[gene][0]
            ones = np.ones((1, len(changing)), dtype=np.uint8)
            kept = applied(self.engine.dataset.contig_codes(contig), variants, ones)[0]
            for number, here in zip(changing, kept.tolist(), strict=True):
                stands[number] = bool(here)
        if not all(stands) and self.config.overlap == "skip":
            return _Group(names, reason="overlap", left_out=left_out)
        cases = [case for case, here in zip(cases, stands, strict=True) if here]
        names = [name for name, here in zip(names, stands, strict=True) if here]
        put = tuple(allele for case in cases for allele in case.after)
        return self._compared(gene, put, cases, names, left_out + stands.count(False))

    def _compared(
        self,
        gene: int,
        put: tuple[Allele, ...],
        cases: Sequence[Judged],
        names: list[str],
        left_out: int,
    ) -> _Group:
        edge = edge_status(self.engine.index.windows[gene])
        if edge != "ok" and self.engine.skip_edges:
            return _Group(names, "edge", "edge", left_out=left_out)
        if not cases:
            return _Group(names, reason="no_variant", left_out=left_out)
        starts = [case.span[0] for case in cases]
        first, last = min(starts), max(starts)
        place = ((first + last) // 2, (first + last) // 2 + 1)
        joint = Judged("ok", "", (), put, 1, place)
        alone = [replace(case, span=place) for case in cases]
        width = self.engine.config.mask_bp + last - first
        return _Group(names, cases=(joint, *alone), width=width, left_out=left_out)

    def _haplotype(self, gene: int, donor: int, copy: int) -> _Group:
        """Return what one haplotype of a sample carries in the window of a gene."""
        if self.carriers is None:
            raise ValueError
        window = self.engine.index.windows[gene]
        here = self.carriers.carried(gene, np.array([donor]))
        haplotype = int(here.haplotype_H[copy])
        ids = self._ids_of(window.contig)
        names: list[str] = []
        cases: list[Judged] = []
        for number in np.flatnonzero(here.applied_UM[haplotype]).tolist():
            allele = here.alleles[number]
            span = changed_span(*allele)
            if window_holds(window, span):
                cases.append(Judged("ok", "", (), (allele,), 1, span))
                names.append(_name(ids[here.first + number], window.contig, *allele))
        carried = np.flatnonzero(here.carried_HM[copy]).tolist()
        inside = [window_holds(window, changed_span(*here.alleles[number])) for number in carried]
        left_out = sum(inside) - len(cases)
        if len(cases) > MOST_TOGETHER:
            return _Group(names, reason=f"more_than_{MOST_TOGETHER}", left_out=left_out)
        # What its deletions bring in from beyond the window stands there too.
        return self._compared(gene, here.put(haplotype), cases, names, left_out)

    def _ids_of(self, contig: str) -> list[str]:
        """Return the ids of all variants of a contig; those of the last one are kept."""
        if contig not in self._ids and self.carriers is not None:
            self._ids = {contig: self.carriers.genotypes.table(contig)["id"].astype(str).tolist()}
        return self._ids[contig]

    def _table(
        self,
        items: pd.DataFrame,
        groups: Sequence[_Group],
        values_ISP: NDArray[np.float64],
        deleted_I: NDArray[np.bool_],
    ) -> pd.DataFrame:
        genes, sites = self.engine.dataset.genes, self.engine.dataset.sites
        rows = items["gene_row"].to_numpy()
        known = rows >= 0
        spoiled = np.asarray(np.isnan(values_ISP[:, :, 0]).all(axis=1))
        expression = values_ISP[:, self.is_expression_S, 0]
        unseen = [expression.shape[1] > 0 and not np.nan_to_num(row).any() for row in expression]
        size = [
            item or len(group.names) + group.left_out
            for item, group in zip(items["group_size"].tolist(), groups, strict=True)
        ]
        members = [self.engine.members_in(moved=group.moves) for group in groups]
        texts = {name: genes[name].astype(str).to_numpy() for name in ("gene_id", "symbol")}
        table: dict[str, Any] = {
            "record": items["record"].to_numpy(),
            "allele": items["allele"].to_numpy(),
            "gene_row": rows,
            "haplotype": items["group"].to_numpy(),
            **{name: np.where(known, values[rows], "") for name, values in texts.items()},
            "gene_strand": [sites[row][2] if row >= 0 else "" for row in rows.tolist()],
            "variants": [",".join(group.names) for group in groups],
            "num_variants": np.array([len(group.names) for group in groups], dtype=np.int32),
            "num_left_out": np.array([group.left_out for group in groups], dtype=np.int32),
            "group_size": np.array(size, dtype=np.int32),
            "status": [group.status for group in groups],
            "score_status": [
                _score_status(group, spoiled=bad, unseen=zero)
                for group, bad, zero in zip(groups, spoiled.tolist(), unseen, strict=True)
            ],
            "edge_status": [
                edge_status(self.engine.index.windows[row]) if row >= 0 else ""
                for row in rows.tolist()
            ],
            "tss_deleted": deleted_I,
            "num_members": np.where(spoiled, 0, members).astype(np.int32),
        }
        names = [column.name for column in joint_columns(self.engine.scoring.computed)]
        scores = values_ISP.reshape(len(items), -1).astype(np.float32)
        return pd.concat([pd.DataFrame(table), pd.DataFrame(scores, columns=names)], axis=1)


def _first(case: Judged) -> int:
    """Return where an allele stands, for an order that keeps that of the input at one place."""
    return case.after[0].position if case.after else case.span[0]


def _reason(case: Judged) -> tuple[str, str]:
    """Return status and reason of an allele that cannot be put beside others; no reason if it can.

    Where REF is not what the genome says, it is not known what joint and single scores share.
    """
    if not case.scored:
        return case.status, case.reason
    if case.status != "ok":
        return case.status, case.status
    return "ok", ""


def _score_status(group: _Group, *, spoiled: bool, unseen: bool) -> str:
    if group.reason:
        return f"skipped:{group.reason}"
    if spoiled:
        return "failed:not_finite"
    return BELOW if unseen and group.cases[0].after else "scored"


def _names(alleles: pd.DataFrame) -> list[str]:
    columns = ("id", "chrom", "position", "ref", "alt")
    rows = zip(*(alleles[name].tolist() for name in columns), strict=True)
    return [_name(*row) for row in rows]


def _name(label: str, chrom: str, position: int, ref: str, alt: str) -> str:
    """Return the id of an allele, or its place and bases where it has none."""
    return f"{chrom}:{position + 1}:{ref}>{alt}" if label in (".", "") else label
