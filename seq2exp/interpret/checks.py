"""Causal checks of called elements: deletion, sufficiency and swap, gene by gene.

Shapes: S sites, R rounds (shuffles), M members, K outputs, N bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.core.progress import track
from seq2exp.dataset.samples import GeneSamples
from seq2exp.dataset.store import Dataset
from seq2exp.elements.truth import Truth
from seq2exp.interpret.deletion import DeletionConfig, Destroyer, background
from seq2exp.interpret.edits import GeneWindow, open_window
from seq2exp.interpret.rerun import GeneRunner
from seq2exp.interpret.site_table import Plan, Site, SiteTable
from seq2exp.interpret.sites import OK, decoys, place
from seq2exp.interpret.swap import Donors, swap_elements
from seq2exp.training.run import TrainedRun

__all__ = ["CheckConfig", "Checked", "check_elements"]

Float = NDArray[np.float64]
# Bases of all windows of a forward pass.
_BASES = 1 << 21


@dataclass(frozen=True)
class CheckConfig:
    """What is checked, and how."""

    deletion: DeletionConfig = field(default_factory=DeletionConfig)
    """What deletion means."""
    decoys: int = 2
    """Matched stretches per element that were not called."""
    sufficiency: bool = True
    """Ask what each element gives to a window of which only the promoter is left."""
    swap: bool = True
    """Put elements in the places of elements of other genes."""
    swap_tolerance_bp: int = 500
    """Largest difference between the distances of two elements that are swapped."""
    promoter_bp: int = 2000
    """Central base pairs that are never destroyed, for models without a promoter of their own."""
    batch_size: int | None = None
    """Windows per forward pass; when not given, as many as hold two million bases together."""

    def __post_init__(self) -> None:
        for name, least in (("decoys", 0), ("promoter_bp", 1), ("batch_size", 1)):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise ConfigError(
                    facts(
                        f"check.{name}",
                        found=getattr(self, name),
                        expected=f"at least {least}",
                        fix=f"raise {name}",
                    )
                )


@dataclass(frozen=True, eq=False)
class Checked:
    """What the checks found.

    Attributes
    ----------
    sites : DataFrame
        One row per element, decoy and candidate; docs/elements_check.md lists the columns.
    swaps : DataFrame
        One row per swapped element.
    samples : list of str
        Outputs of the run.
    genes : int64 array
        Rows of the gene table that were checked.
    """

    sites: pd.DataFrame
    swaps: pd.DataFrame
    samples: list[str]
    genes: NDArray[np.int64]


def check_elements(
    run: TrainedRun,
    dataset: Dataset,
    elements: pd.DataFrame,
    rows: NDArray[np.int64],
    *,
    config: CheckConfig | None = None,
    truth: Truth | None = None,
    progress: bool = False,
) -> Checked:
    """Test the called elements of genes against what the model itself does without them.

    Parameters
    ----------
    run : TrainedRun
    dataset : Dataset
        Must fit the run.
    elements : DataFrame
        Called elements (:func:`seq2exp.elements.folder.called_elements`).
    rows : int64 array
        Rows of the gene table.
    config : CheckConfig, optional
    truth : Truth, optional
        Its candidate elements are deleted as well.
    progress : bool

    Raises
    ------
    ConfigError
        The dataset does not fit the run, or the run has no mask that could be set to 0.
    InputError
        No element can be tested.
    """
    config = config or CheckConfig()
    run.check_dataset(dataset)
    _require_mask(run, config)
    samples = GeneSamples(dataset, run.sample_config(dataset), [])
    check = _Check(run, samples, config, truth=truth)
    by_gene = {str(name): part for name, part in elements.groupby("gene_id", sort=False)}
    plans = [check.plan(int(row), by_gene) for row in rows]
    donors = Donors(plans, samples, check.open_gene, tolerance_bp=config.swap_tolerance_bp)
    frames, swaps = [], []
    with run.evaluating() as device, torch.no_grad():
        for plan in track(plans, total=len(plans), label="check", enabled=progress):
            found, swapped = check.run_gene(plan, donors if config.swap else None, device)
            frames.append(found)
            swaps.append(swapped)
    sites = pd.concat(frames, ignore_index=True)
    tested = (sites["kind"] == "element") & (sites["status"] == OK)
    if not tested.any():
        raise InputError(
            facts(
                "elements to check",
                found=f"no element that can be tested ({_count(sites['status'])})",
                expected="elements inside the windows and outside of promoters",
                fix="use the elements of this run, or other genes",
            )
        )
    return Checked(sites, pd.concat(swaps, ignore_index=True), run.card.samples, rows)


def _count(values: pd.Series) -> str:
    return ", ".join(f"{number} {name}" for name, number in values.value_counts().items())


def _require_mask(run: TrainedRun, config: CheckConfig) -> None:
    if config.deletion.method != "mask":
        return
    modes = {getattr(getattr(model, "config", None), "mask", "none") for model in run.models}
    if "none" in modes:
        raise ConfigError(
            facts(
                f"run {run.folder}",
                found="a model without a mask",
                expected="a mask for --method mask to close",
                fix="use --method shuffle or n",
            )
        )


class _Check:
    def __init__(
        self,
        run: TrainedRun,
        samples: GeneSamples,
        config: CheckConfig,
        *,
        truth: Truth | None,
    ) -> None:
        self.run, self.samples, self.config, self.truth = run, samples, config, truth
        own = getattr(getattr(run.models[0], "config", None), "promoter_bp", 0)
        self.promoter_bp = int(own) or config.promoter_bp

    def open_gene(self, row: int) -> GeneWindow:
        """Read the window of a gene."""
        return open_window(self.samples, row, promoter_bp=self.promoter_bp)

    def plan(self, row: int, by_gene: dict[str, pd.DataFrame]) -> Plan:
        """Choose what is tested in the window of a gene."""
        gene = self.open_gene(row)
        table = self.samples.dataset.genes
        gene_id, contig = str(table["gene_id"].iloc[row]), str(table["contig"].iloc[row])
        called = by_gene.get(gene_id, pd.DataFrame(columns=["element_class"]))
        distal = called[called["element_class"] != "promoter"]
        sites = [_site("element", record, gene, contig) for record in distal.to_dict("records")]
        good = [site for site in sites if site.status == OK]
        drawn = decoys(
            gene,
            [site.span for site in good],
            per_site=self.config.decoys,
            taken=[site.span for site in sites if site.status != OK],
            seed=self.config.deletion.seed,
        )
        for site, spans in zip(good, drawn, strict=True):
            sites += [
                Site("decoy", f"{site.name}|decoy{n}", span, of=site.name)
                for n, span in enumerate(spans, start=1)
            ]
        if self.truth is not None:
            sites += _candidates(self.truth, gene, gene_id, contig)
        return Plan(row, sites)

    def run_gene(
        self, plan: Plan, donors: Donors | None, device: str
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the rows of a gene's sites, and of its swaps."""
        gene = self.open_gene(plan.row)
        batch_size = self.config.batch_size or max(1, _BASES // gene.length)
        runner = GeneRunner(self.run.models, gene, device=device, batch_size=batch_size)
        tested = plan.tested
        called = gene.bin_mask([site.span for site in tested if site.kind == "element"])
        background_T = background(gene, called)
        table = SiteTable(plan, runner, self.run.card.samples, self.samples.dataset)
        delta_SRK, member_sd_SK = self._deletions(runner, tested, background_T)
        table.fill("delta", tested, delta_SRK)
        table.fill_members(tested, member_sd_SK)
        if self.config.sufficiency:
            wanted = [site for site in tested if site.kind != "candidate"]
            table.fill("gain", wanted, self._gains(runner, wanted, background_T))
        swaps = pd.DataFrame()
        if donors is not None:
            destroyer = self._destroyer(gene, background_T, self.config.deletion.of_sequence)
            swaps = swap_elements(runner, destroyer, donors, table)
        return table.frame(), swaps

    def _destroyer(
        self, gene: GeneWindow, background_T: NDArray[np.float32], config: DeletionConfig
    ) -> Destroyer:
        return Destroyer(gene, self.samples, config, background_T=background_T)

    def _deletions(
        self, runner: GeneRunner, sites: list[Site], background_T: NDArray[np.float32]
    ) -> tuple[Float, Float]:
        """Return changes by deletion per site and round, and their deviation over members."""
        config = self.config.deletion
        destroyer = self._destroyer(runner.gene, background_T, config)
        edits = (edit for site in sites for edit in destroyer.destroy([site.span]))
        reference_MK = runner.expression_MK
        if config.method == "mask":
            reference_MK = runner.closed_reference()
        found = runner.predict(edits) - reference_MK
        delta_SRMK = found.reshape(len(sites), config.rounds, *reference_MK.shape)
        return delta_SRMK.mean(axis=2), delta_SRMK.mean(axis=1).std(axis=1)

    def _gains(
        self, runner: GeneRunner, sites: list[Site], background_T: NDArray[np.float32]
    ) -> Float:
        """Return what each site adds to a window of which only the promoter is left, per round."""
        gene, config = runner.gene, self.config.deletion.in_place
        destroyer = self._destroyer(gene, background_T, config)
        bare = destroyer.destroy(gene.outside(gene.promoter))
        gains = []
        for edit in bare:
            alone_MK = runner.predict([edit], base=edit)[0]
            kept = (destroyer.put_back(edit, site.span) for site in sites)
            gains.append((runner.predict(kept, base=edit) - alone_MK).mean(axis=1))
        gains_SRK: Float = np.stack(gains, axis=1)
        return gains_SRK


def _site(kind: str, record: Mapping[Any, Any], gene: GeneWindow, contig: str) -> Site:
    span, status = place(gene, int(record["start"]), int(record["end"]))
    if str(record["chrom"]) != contig:
        status = "outside"
    return Site(kind, str(record["name"]), span, status, causal=record.get("causal"))


def _candidates(truth: Truth, gene: GeneWindow, gene_id: str, contig: str) -> list[Site]:
    """Candidate elements that the truth names for this gene, causal or not."""
    found = truth.of_gene(gene_id, contig)
    found = found[found["gene_id"].notna() & (found["kind"] != "promoter")]
    sites = []
    for record in found.to_dict("records"):
        name = f"{gene_id}|{record['kind']}|{record['start']}-{record['end']}"
        sites.append(_site("candidate", {**record, "name": name}, gene, contig))
    return sites
