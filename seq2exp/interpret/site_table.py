"""The sites of one gene and the table of what was measured at them.

Shapes: S sites, R rounds (shuffles), M members, K outputs, N bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.dataset.store import Dataset
from seq2exp.interpret.edits import Span
from seq2exp.interpret.rerun import GeneRunner
from seq2exp.interpret.sites import OK

__all__ = ["Plan", "Site", "SiteTable"]

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Site:
    """A stretch of one gene's window that is tested, or why it is not."""

    kind: str
    """element, decoy, or candidate of a truth."""
    name: str
    span: Span
    status: str = OK
    of: str = ""
    """Name of the element that a decoy is matched to."""
    causal: bool | None = None
    """What the truth says of a candidate."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What is tested in the window of one gene; the window itself is opened when it is needed."""

    row: int
    """Row of the gene table."""
    sites: list[Site]

    @property
    def tested(self) -> list[Site]:
        """Sites that can be tested."""
        return [site for site in self.sites if site.status == OK]


class SiteTable:
    """One row per site of a gene, filled measurement by measurement.

    Parameters
    ----------
    plan : Plan
    runner : GeneRunner
        Gives the prediction and the mask of the window as it is.
    samples : list of str
        Outputs of the run.
    dataset : Dataset
    """

    def __init__(
        self, plan: Plan, runner: GeneRunner, samples: list[str], dataset: Dataset
    ) -> None:
        self.plan, self.runner, self.samples = plan, runner, samples
        self.gene = dataset.genes.iloc[plan.row]
        self.row_of = {site: number for number, site in enumerate(plan.sites)}
        self.columns: dict[str, Float] = {}

    def fill(self, name: str, sites: Sequence[Site], values_SRK: Float) -> None:
        """Set the mean over rounds, and its spread, in columns ``name:sample``."""
        for k, sample in enumerate(self.samples):
            self._set(f"{name}:{sample}", sites, values_SRK[:, :, k].mean(axis=1))
        if values_SRK.shape[1] > 1:
            for k, sample in enumerate(self.samples):
                self._set(f"{name}_sd:{sample}", sites, values_SRK[:, :, k].std(axis=1))

    def fill_members(self, sites: Sequence[Site], sd_SK: Float) -> None:
        """Set the deviation of the deletion's effect over members, where there are several."""
        if len(self.runner.models) > 1:
            for k, sample in enumerate(self.samples):
                self._set(f"delta_member_sd:{sample}", sites, sd_SK[:, k])

    def _set(self, column: str, sites: Sequence[Site], values: Float) -> None:
        whole = self.columns.setdefault(column, np.full(len(self.plan.sites), np.nan))
        whole[[self.row_of[site] for site in sites]] = values

    def frame(self) -> pd.DataFrame:
        """Return the table; docs/elements_check.md describes its columns."""
        frame = self.places()
        for k, sample in enumerate(self.samples):
            frame[f"reference:{sample}"] = self.runner.expression_MK[:, k].mean()
        for column, values in self.columns.items():
            frame[column] = values
        deltas = frame[[f"delta:{sample}" for sample in self.samples]]
        frame["delta"] = deltas.mean(axis=1)
        frame["effect"] = deltas.abs().mean(axis=1)
        gains = [f"gain:{sample}" for sample in self.samples if f"gain:{sample}" in frame]
        frame["gain"] = frame[gains].mean(axis=1) if gains else np.nan
        return frame

    def places(self) -> pd.DataFrame:
        """Return identity, place and mask of every site."""
        sites, gene = self.plan.sites, self.runner.gene
        where = [gene.window.genome_interval(*site.span) for site in sites]
        masks = [self._mask(site) for site in sites]
        frame = pd.DataFrame(
            {
                "gene_id": str(self.gene["gene_id"]),
                "symbol": str(self.gene["symbol"]),
                "split": str(self.gene["split"]),
                "kind": [site.kind for site in sites],
                "name": [site.name for site in sites],
                "of": [site.of for site in sites],
                "status": [site.status for site in sites],
                "causal": pd.array([site.causal for site in sites], dtype="boolean"),
                "chrom": str(self.gene["contig"]),
                "start": np.array([start for start, _ in where], dtype=np.int64),
                "end": np.array([end for _, end in where], dtype=np.int64),
                "strand": str(self.gene["strand"]),
                "distance": np.array([self._distance(site) for site in sites], dtype=np.int64),
                "mask_mean": np.array([mean for mean, _ in masks]),
                "mask_max": np.array([largest for _, largest in masks]),
            }
        )
        return frame

    def _mask(self, site: Site) -> tuple[float, float]:
        mask_MN = self.runner.mask_MN
        if mask_MN is None or site.status != OK:
            return np.nan, np.nan
        values = mask_MN.mean(axis=0)[self.runner.gene.bins(site.span)]
        return float(values.mean()), float(values.max())

    def _distance(self, site: Site) -> int:
        """Signed bases from the TSS to the nearest base along transcription."""
        gene = self.runner.gene
        start, stop = site.span
        found = max(start - gene.tss, 0) - max(gene.tss - (stop - 1), 0)
        backwards = str(self.gene["strand"]) == "-" and not gene.window.reverse
        return -found if backwards else found
