"""The one function that makes a simulated data set on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.simulate.base_effects import base_effects, merge_over_genes
from data_prep.simulate.build import Draft, build_world, stream
from data_prep.simulate.config import SimulationConfig
from data_prep.simulate.donors import simulate_donors, write_donors
from data_prep.simulate.motifs import CELL_TYPES, PRIMARY, TF_LEVELS, meme_text
from data_prep.simulate.readme import readme_text
from data_prep.simulate.sites import site_table
from data_prep.simulate.tracks import element_heights, simulate_tracks
from data_prep.simulate.truth import cell_columns, element_effects, element_table
from data_prep.simulate.world import State, World, evaluate
from data_prep.simulate.write import (
    write_annotation,
    write_bed,
    write_contacts,
    write_genome,
    write_sparse_bigwig,
    write_table,
    write_track,
)
from seq2exp.core.files import atomic_directory, refuse_existing, require_space
from seq2exp.core.progress import track

__all__ = ["SimulationSummary", "observed_expression", "simulate"]

_BYTES_PER_BASE = 5


@dataclass(frozen=True)
class SimulationSummary:
    """What was written.

    Parameters
    ----------
    out : Path
        The folder.
    num_contigs, num_bases, num_genes : int
    num_elements : dict of int
        Distal elements and promoters per kind.
    num_causal_pairs : int
        Gene-element pairs (distal) called causal in the primary cell type.
    variance : dict of float
        Shares of the variance of log expression across genes in the primary cell type:
        promoter, distal, noise (they sum to about 1; the covariance is the rest).
    """

    out: Path
    num_contigs: int
    num_bases: int
    num_genes: int
    num_elements: dict[str, int]
    num_causal_pairs: int
    variance: dict[str, float]

    def __str__(self) -> str:
        """Return one line to read."""
        elements = ", ".join(f"{number:,} {kind}s" for kind, number in self.num_elements.items())
        shares = ", ".join(f"{name} {share:.2f}" for name, share in self.variance.items())
        return (
            f"{self.out}: {self.num_contigs} contigs, {self.num_bases:,} bases, "
            f"{self.num_genes:,} genes, {elements}; {self.num_causal_pairs:,} causal pairs of gene "
            f"and element; variance of log expression: {shares}; files: {self.out / 'README.md'}"
        )


def simulate(
    config: SimulationConfig, out: Path, *, progress: bool = False, overwrite: bool = False
) -> SimulationSummary:
    """Write a complete simulated data set with its truth.

    Parameters
    ----------
    config : SimulationConfig
    out : Path
        Folder to make. It appears only when everything is written.
    progress : bool
        Report each step.
    overwrite : bool
        Replace an existing folder.

    Returns
    -------
    SimulationSummary

    Raises
    ------
    InputError
        ``out`` exists, or the disk is too full.
    """
    out = Path(out)
    refuse_existing(out, overwrite=overwrite)
    require_space(out, _BYTES_PER_BASE * config.num_contigs * config.max_contig_length)
    with atomic_directory(out, overwrite=overwrite) as folder:
        return _Writer(config, folder, out).run(progress=progress)


def observed_expression(state: State, config: SimulationConfig) -> NDArray[np.float64]:
    """Return log expression with noise: a part per gene and a part per gene and cell type.

    Returns
    -------
    float64 array, shape (G, C)
        Natural log.
    """
    rng = stream(config, "expression")
    shared = rng.normal(0.0, config.gene_noise, (len(state.expression), 1))
    own = rng.normal(0.0, config.cell_noise, state.expression.shape)
    return state.expression + shared + own


class _Writer:
    """Runs the steps in order; each step writes its files into the unfinished folder."""

    def __init__(self, config: SimulationConfig, folder: Path, out: Path) -> None:
        self.config, self.folder, self.out = config, folder, out
        self.truth = folder / "truth"

    def run(self, *, progress: bool) -> SimulationSummary:
        (self.folder / "tracks").mkdir()
        self.truth.mkdir()
        steps: list[Callable[[], None]] = [
            self._world,
            self._plain_files,
            self._expression,
            self._tracks,
            self._tables,
            self._base_effects,
        ]
        if self.config.donors.num_donors:
            steps.append(self._donors)
        for step in track(steps, total=len(steps), label="simulate", enabled=progress):
            step()
        summary = self._summary()
        text = readme_text(self.config, summary.num_genes, summary.num_elements)
        (self.folder / "README.md").write_text(text)
        return summary

    def _world(self) -> None:
        self.draft: Draft = build_world(self.config)
        self.world: World = self.draft.world
        self.state: State = evaluate(self.world)

    def _plain_files(self) -> None:
        write_genome(self.world.genome, self.folder)
        write_annotation(self.draft, self.folder / "genes.gtf.gz")
        write_contacts(self.draft.contacts, self.world, self.folder / "contacts.tsv.gz")
        write_bed(self.draft.repeats, self.truth / "repeats.bed.gz")
        (self.truth / "motifs.meme").write_text(meme_text())
        (self.truth / "config.json").write_text(json.dumps(asdict(self.config), indent=2) + "\n")
        levels = pd.DataFrame.from_dict(TF_LEVELS, orient="index", columns=list(CELL_TYPES))
        write_table(levels.rename_axis("tf").reset_index(), self.truth / "tf_levels.tsv")

    def _expression(self) -> None:
        self.observed = observed_expression(self.state, self.config)
        gene_id = self.world.genes["gene_id"]
        table = pd.DataFrame(np.round(np.exp(self.observed), 4), columns=list(CELL_TYPES))
        table.insert(0, "gene_id", gene_id)
        write_table(table, self.folder / "expression.tsv")
        genes = self.world.genes.copy()
        genes[cell_columns("strength")] = self.state.strength
        genes["responsiveness"] = self.state.response
        genes[cell_columns("distal_sum")] = self.state.input_sum
        genes[cell_columns("log_expression")] = self.state.expression
        write_table(genes, self.truth / "genes.tsv")

    def _tracks(self) -> None:
        rng = stream(self.config, "tracks")
        heights = element_heights(self.world, self.state, rng)
        tracks = simulate_tracks(self.world, heights, self.config, rng)
        for assay, signal in tracks.items():
            path = self.folder / "tracks" / f"{PRIMARY}.{assay}.bw"
            write_track(signal, self.world, path, bin_size=self.config.track_bin)

    def _tables(self) -> None:
        elements = element_table(self.world, self.state)
        self.kinds = elements["kind"].value_counts().to_dict()
        write_table(elements, self.truth / "elements.tsv")
        effects = element_effects(self.world, self.state)
        write_table(effects, self.truth / "effects.tsv.gz")
        distal = effects[effects["kind"] != "promoter"]
        self.num_causal = int(distal[f"causal_{PRIMARY}"].sum())
        strongest = effects.groupby("element_id")[f"effect_{PRIMARY}"].min()
        bed = elements[["chrom", "start", "end", "element_id"]].copy()
        bed["score"] = _bed_score(bed["element_id"].map(strongest).fillna(0.0))
        bed[["strand", "kind", "subkind", "gene_id"]] = elements[
            ["strand", "kind", "subkind", "gene_id"]
        ]
        write_bed(bed, self.truth / "elements.bed")
        for cell in CELL_TYPES:
            self._causal_bed(effects, cell)
        sites = site_table(self.world)
        sites[["score", "occupancy"]] = sites[["score", "occupancy"]].round(4)
        # BED order: name and score before strand, then what is ours.
        columns = ["chrom", "start", "end", "tf", "score", "strand", "occupancy", "element_id"]
        write_bed(sites[columns], self.truth / "sites.bed.gz")

    def _causal_bed(self, effects: pd.DataFrame, cell: str) -> None:
        causal = effects[effects[f"causal_{cell}"]]
        bed = causal[["chrom", "start", "end", "element_id"]].copy()
        bed["score"] = _bed_score(causal[f"effect_{cell}"])
        bed["strand"] = "."
        bed[["gene_id", "kind", "distance"]] = causal[["gene_id", "kind", "distance"]]
        bed["effect"] = causal[f"effect_{cell}"].round(6)
        write_bed(bed, self.truth / f"causal_{cell}.bed")

    def _base_effects(self) -> None:
        effects = base_effects(self.world, self.state)
        effects.to_parquet(self.truth / "base_effects.parquet", index=False)
        merged = merge_over_genes(self.world, effects)
        for column, cell in enumerate(CELL_TYPES):
            values = {
                chrom: (position[value[:, column] > 0], value[value[:, column] > 0, column])
                for chrom, (position, value) in merged.items()
            }
            write_sparse_bigwig(values, self.world, self.truth / f"base_effects.{cell}.bw")

    def _donors(self) -> None:
        cohort = simulate_donors(self.world, self.state, self.config)
        write_donors(cohort, self.world, self.state, self.config, self.folder)

    def _summary(self) -> SimulationSummary:
        cell = CELL_TYPES.index(PRIMARY)
        parts = {
            "promoter": self.state.strength[:, cell],
            "distal": (self.state.expression - self.state.strength)[:, cell],
            "noise": (self.observed - self.state.expression)[:, cell],
        }
        total = float(np.var(self.observed[:, cell]))
        return SimulationSummary(
            out=self.out,
            num_contigs=len(self.world.genome),
            num_bases=sum(len(codes) for codes in self.world.genome.values()),
            num_genes=len(self.world.genes),
            num_elements={str(kind): int(count) for kind, count in sorted(self.kinds.items())},
            num_causal_pairs=self.num_causal,
            variance={name: float(np.var(part)) / total for name, part in parts.items()},
        )


def _bed_score(effect: pd.Series) -> pd.Series:
    """Return 0 to 1000: 1000 times the share of expression that is lost."""
    lost = 1.0 - np.exp(np.minimum(effect.to_numpy(dtype=np.float64), 0.0))
    return pd.Series((lost * 1000).round().astype(int), index=effect.index)
