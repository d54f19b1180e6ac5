"""Counts of what became of all alleles: one line at the end, and whether too many do not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from seq2exp.core.errors import InputError, facts
from seq2exp.variants.columns import UNKNOWN_ID
from seq2exp.variation.alleles import SEQUENCE_CLASSES, STATUSES

__all__ = ["Summary"]

_WRONG = ("mismatch", "no_contig", "out_of_bounds")


@dataclass
class Summary:
    """Sums over all shards that were added.

    Attributes
    ----------
    num_records, num_alleles : int
    num_pairs : int
        Pairs of an allele and a gene that have a score.
    ref_status, variant_type : Counter
        Alleles.
    status : Counter
        Rows of the table of scores: pairs of allele and gene, and alleles without one.
    """

    num_records: int = 0
    num_alleles: int = 0
    num_pairs: int = 0
    ref_status: Counter[str] = field(default_factory=Counter)
    variant_type: Counter[str] = field(default_factory=Counter)
    status: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(
        cls, num_records: int, num_alleles: int, counts: Mapping[str, Mapping[str, int]]
    ) -> Summary:
        """Return the counts that were kept with the parts of a run.

        Parameters
        ----------
        num_records, num_alleles : int
        counts : mapping
            `seq2exp.variants.parts.count_statuses`, added up.
        """
        of = {name: Counter(values) for name, values in counts.items()}
        none: Counter[str] = Counter()
        return cls(
            num_records,
            num_alleles,
            sum(n for name, n in of.get("score_status", none).items() if name.startswith("scored")),
            of.get("ref_status", none),
            of.get("variant_type", none),
            of.get("status", none),
        )

    def add(self, alleles: pd.DataFrame, scores: pd.DataFrame) -> None:
        """Add some records: their table of alleles and their table of scores."""
        self.num_records += int(alleles["record"].nunique())
        self.num_alleles += len(alleles)
        self.num_pairs += int(scores["score_status"].str.startswith("scored").sum())
        self.ref_status.update(alleles["ref_status"].tolist())
        self.variant_type.update(alleles["variant_type"].tolist())
        self.status.update(scores["status"].tolist())

    @property
    def mismatch_share(self) -> float:
        """Alleles whose REF, contig or position does not fit the genome, as a share of all.

        An id that was not found does not count: it says nothing about the genome.
        """
        return sum(self.ref_status[name] for name in _WRONG) / max(self.num_alleles, 1)

    def line(self) -> str:
        """Return all counts in one line."""
        others = {k: n for k, n in self.variant_type.items() if k not in SEQUENCE_CLASSES}
        unknown = self.ref_status[UNKNOWN_ID]
        if unknown:
            # An id that was not found has no alleles.
            others = dict(Counter(others) - Counter(missing_alt=unknown))
        unsupported = f"unsupported {sum(others.values()):,}"
        if others:
            unsupported += f" ({_counts(others, sorted(others))})"
        return (
            f"{self.num_records:,} records, {self.num_alleles:,} alleles, "
            f"{self.num_pairs:,} scored pairs of allele and gene; "
            f"REF: {_counts(self.ref_status, STATUSES)}; "
            + (f"unknown ids {unknown:,}; " if unknown else "")
            + f"{unsupported}; "
            f"rows: {_counts(self.status, sorted(self.status))}"
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return all counts as the rows of ``--json``."""
        plain = {"records": self.num_records, "alleles": self.num_alleles, "pairs": self.num_pairs}
        groups = {
            "variants": plain,
            "ref_status": {name: self.ref_status[name] for name in (*STATUSES, UNKNOWN_ID)},
            "variant_type": dict(sorted(self.variant_type.items())),
            "status": dict(sorted(self.status.items())),
        }
        return [
            {
                "name": group,
                "metric": name,
                "split": "",
                "value": count,
                "low": None,
                "high": None,
                "n": self.num_alleles,
            }
            for group, counts in groups.items()
            for name, count in counts.items()
        ]

    def refuse_mismatch(self, max_mismatch: float, *, what: str) -> None:
        """Raise when more alleles than allowed do not fit the genome; outputs are kept.

        Parameters
        ----------
        max_mismatch : float
            Largest share.
        what : str
            The input, for the message.

        Raises
        ------
        InputError
            More than ``max_mismatch`` do not fit.
        """
        if self.mismatch_share <= max_mismatch:
            return
        raise InputError(
            facts(
                what,
                found=f"{self.mismatch_share:.1%} of {self.num_alleles:,} alleles that do not fit "
                f"the genome ({_counts(self.ref_status, _WRONG)})",
                expected=f"at most {max_mismatch:.1%}",
                fix="use variants of the assembly of the dataset; the output was written, with the "
                "status of every row, and --max-mismatch sets the limit",
            )
        )


def _counts(counts: Counter[str] | dict[str, int], names: Iterable[str]) -> str:
    return ", ".join(f"{name} {counts.get(name, 0):,}" for name in names)
