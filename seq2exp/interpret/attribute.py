"""From a run to a folder of attributions: which genes, which regions, which files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.core.files import (
    atomic_directory,
    refuse_existing,
    require_space,
    safe_name,
)
from seq2exp.core.sequence import N_CODE
from seq2exp.dataset.edges import usable_rows
from seq2exp.dataset.samples import gene_window
from seq2exp.dataset.store import Dataset
from seq2exp.elements.folder import called_elements
from seq2exp.interpret.attribution import AttributionConfig, Regions, attributions
from seq2exp.interpret.attribution_files import completeness_rows, load_gene, write_attributions
from seq2exp.interpret.logo import save_logo
from seq2exp.interpret.modisco import (
    MAX_SEQLETS,
    RegionArrays,
    region_arrays,
    require_modisco,
    run_modisco,
    write_modisco_inputs,
)
from seq2exp.interpret.motif_files import read_motifs
from seq2exp.interpret.seqlets import SeqletConfig, call_seqlets, write_seqlets
from seq2exp.interpret.target import output_of
from seq2exp.training.run import TrainedRun, open_run

__all__ = ["Extras", "attribute_run"]

logger = logging.getLogger(__name__)
_LOGO_BP = 120
# Relative completeness error from which contributions are no decomposition.
_LARGE_ERROR = 0.1


@dataclass(frozen=True)
class Extras:
    """What is made beside the attributions."""

    gene_bigwigs: bool = False
    """One bigWig per gene."""
    num_logos: int = 3
    """Logos of the first genes, each at the strongest stretch."""
    seqlets: SeqletConfig | None = None
    """Call seqlets against shuffled windows."""
    modisco_bp: int = 0
    """Width of the regions written for TF-MoDISco; 0 writes none."""
    tfmodisco: bool = False
    """Run TF-MoDISco on them."""
    max_seqlets: int = MAX_SEQLETS
    """Most seqlets per sign that TF-MoDISco clusters."""
    known_motifs: Path | None = None
    """Motif file that its patterns are compared with."""


def attribute_run(
    run_folder: Path,
    out: Path,
    *,
    config: AttributionConfig,
    data: Path | None = None,
    genes: Sequence[str] = (),
    splits: Sequence[str] = (),
    elements: Path | None = None,
    sample: str | None = None,
    extras: Extras | None = None,
    progress: bool = False,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Write the attributions of chosen genes; the folder appears whole or not at all.

    Parameters
    ----------
    run_folder : Path
        Folder of a finished run.
    out : Path
        Folder to write.
    config : AttributionConfig
    data : Path, optional
        Dataset; the one of the training when not given.
    genes : sequence of str
        Ids or symbols.
    splits : sequence of str
        Splits whose genes are taken; with `elements`, of those of the map.
    elements : Path, optional
        Folder of `seq2exp elements`: its genes when none are named. Its elements are the regions of
        saturation, of seqlets and of what is written for TF-MoDISco.
    sample : str, optional
        Label to explain; the mean of all when not given.
    extras : Extras, optional
    progress : bool
        Show progress.
    overwrite : bool
        Replace an existing folder.

    Returns
    -------
    DataFrame
        The table of genes, see `seq2exp.interpret.attribution_files`.

    Raises
    ------
    InputError
        No gene, an unknown gene or label, windows of N only, an existing `out`, or elements of
        another assembly or of other genes.
    ConfigError
        The dataset or the method does not fit the run.
    """
    extras = extras or Extras()
    refuse_existing(Path(out), overwrite=overwrite)
    if extras.tfmodisco:
        require_modisco()
    known = [] if extras.known_motifs is None else read_motifs(extras.known_motifs)
    run = open_run(run_folder)
    dataset = run.open_dataset(data)
    output = output_of(run, sample)
    called = None if elements is None else _called(elements, dataset)
    rows = _known_windows(run, dataset, _rows(run, dataset, genes, splits, called))
    regions = None if called is None else _regions(called, dataset, rows)
    require_space(out, 40 * run.card.data.window_bp * len(rows))
    with atomic_directory(Path(out), overwrite=overwrite) as partial:
        stream = attributions(
            run, dataset, rows, config, output=output, regions=regions, progress=progress
        )
        origin = {
            "run": str(run.folder),
            "dataset": str(dataset.root),
            "dataset_checksum": dataset.manifest.checksum,
            "model_sha256": run.card.weights_sha256,
            "unit": f"{run.card.expression_unit}, {run.card.expression_transform}",
            "sample": sample or "mean of " + ", ".join(run.card.samples),
            "num_members": len(run.models),
            "tracks": list(run.card.tracks),
            "bin_size": run.card.data.bin_size,
            "attribution": config.to_dict(),
        }
        table = write_attributions(
            stream, partial, run, dataset, gene_bigwigs=extras.gene_bigwigs, extra=origin
        )
        _write_logos(table, partial, extras.num_logos)
        if extras.modisco_bp:
            arrays = _modisco_arrays(table, partial, called, width=extras.modisco_bp)
            write_modisco_inputs(arrays, partial / "modisco")
            if extras.tfmodisco:
                run_modisco(
                    arrays, partial / "modisco", max_seqlets=extras.max_seqlets, known=known
                )
        if extras.seqlets is not None:
            found = call_seqlets(
                run, dataset, rows, partial, config,
                seqlets=extras.seqlets, output=output, regions=regions, progress=progress,
            )  # fmt: skip
            write_seqlets(found, partial)
    _warn_of_error(table, config)
    return table


def _warn_of_error(table: pd.DataFrame, config: AttributionConfig) -> None:
    """Say so where contributions are far from what they should sum to."""
    errors = {(row["name"], row["metric"]): row["value"] for row in completeness_rows(table)}
    error = errors.get(("bases", "relative_error"))
    if error is None or error <= _LARGE_ERROR:
        return
    fixes = {
        "gradient_x_input": "use --method integrated_gradients, which holds for every layer",
        "integrated_gradients": "use more --steps",
    }
    message = facts(
        f"--method {config.method}",
        found=f"contributions of bases that miss f(x) - f(baseline) by {error:.0%} of it",
        expected=f"at most {_LARGE_ERROR:.0%} for a decomposition of the prediction",
        fix=fixes.get(config.method, "read them as effects of single bases, which need not add up"),
    )
    logger.warning("warning: %s", message)


def _called(folder: Path, dataset: Dataset) -> pd.DataFrame:
    found = called_elements(folder)
    found.check_dataset(dataset)
    return found.elements


def _rows(
    run: TrainedRun,
    dataset: Dataset,
    genes: Sequence[str],
    splits: Sequence[str],
    called: pd.DataFrame | None,
) -> NDArray[np.int64]:
    if genes:
        rows = dataset.find_genes(genes, what="--gene")
    else:
        everything = np.arange(len(dataset.genes), dtype=np.int64)
        rows = dataset.gene_rows(tuple(splits)) if splits else everything
        if called is not None:
            own = dataset.genes["gene_id"].iloc[rows].isin(called["gene_id"].unique())
            rows = rows[own.to_numpy()]
    if rows.size == 0:
        raise InputError(
            facts(
                f"dataset {dataset.root}",
                found="no gene that was asked for",
                expected="at least one",
                fix="choose other --gene, --split or --elements",
            )
        )
    return usable_rows(dataset, rows, run.card.data, what="genes to explain")


def _known_windows(run: TrainedRun, dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leave genes out whose windows hold no known base, and say so."""
    windows = [gene_window(dataset, int(row), run.card.data) for row in rows]
    known = np.array([(dataset.codes(window) < N_CODE).any() for window in windows])
    lost = dataset.genes["gene_id"].iloc[rows[~known]].tolist()
    if lost:
        message = facts(
            "windows",
            found="only N",
            expected="known bases to attribute to",
            fix="these genes are left out" if known.any() else "choose other genes",
            count=len(lost),
            examples=lost,
        )
        if not known.any():
            raise InputError(message)
        logger.warning("warning: %s", message)
    kept: NDArray[np.int64] = rows[known]
    return kept


def _regions(called: pd.DataFrame, dataset: Dataset, rows: NDArray[np.int64]) -> dict[int, Regions]:
    by_gene = dict(tuple(called.groupby("gene_id")[["start", "end"]]))
    names = dataset.genes["gene_id"]
    return {
        int(row): [tuple(pair) for pair in by_gene[names.iloc[row]].to_numpy().tolist()]
        if names.iloc[row] in by_gene
        else []
        for row in rows
    }


def _modisco_arrays(
    table: pd.DataFrame, folder: Path, called: pd.DataFrame | None, *, width: int
) -> RegionArrays:
    """Regions around the summits of elements, or around the TSS without elements."""
    if called is None:
        centres = table[["gene_id", "tss"]].rename(columns={"tss": "centre"})
    else:
        centres = called[["gene_id", "summit"]].rename(columns={"summit": "centre"})
        centres = centres[centres["gene_id"].isin(table["gene_id"])]
    return region_arrays(folder, table, centres, width=width)


def _write_logos(table: pd.DataFrame, folder: Path, count: int) -> None:
    """Draw the stretch of each gene whose attributions are largest."""
    for gene in table.head(count).itertuples():
        arrays = load_gene(folder, str(gene.gene_id))
        share = arrays["attribution"]
        size = min(_LOGO_BP, int(arrays["covered"].sum()) or _LOGO_BP, share.size)
        sums = np.convolve(np.abs(share), np.ones(size), mode="valid")
        first = int(sums.argmax())
        here = slice(first, first + size)
        heights = np.zeros((size, 4), dtype=np.float32)
        codes = arrays["codes"][here]
        known = np.flatnonzero(codes < N_CODE)
        heights[known, codes[known]] = share[here][known]
        start = int(arrays["start"]) + first
        name = safe_name(str(gene.gene_id))
        title = f"{gene.symbol}, {gene.contig}:{start:,}-{start + size:,}, plus strand"
        save_logo(
            folder / "logos" / name, heights, title=title, ylabel="attribution, label unit",
            xlabel=f"position on {gene.contig}, bp", start=start,
        )  # fmt: skip
