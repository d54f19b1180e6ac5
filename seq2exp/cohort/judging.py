"""From predictions of models, baselines and other tools to the numbers of a benchmark.

Shapes: G genes of the dataset, D donors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.cohort.benchmark_config import BenchmarkConfig
from seq2exp.cohort.report_table import BenchmarkData, benchmark_split, tertiles
from seq2exp.cohort.train import Cohort
from seq2exp.core.errors import InputError, facts
from seq2exp.dataset.format import read_table
from seq2exp.training.metrics import Row

__all__ = ["SPLITS", "judge", "read_predictions"]

SPLITS = ("A", "B", "C", "C_new")
"""Tests, as :meth:`seq2exp.cohort.splits.CohortSplit.mask` names them."""
Floats = NDArray[np.float64]


def judge(
    cohort: Cohort,
    tables: Mapping[str, pd.DataFrame],
    h2: pd.DataFrame,
    config: BenchmarkConfig,
) -> tuple[list[Row], pd.DataFrame]:
    """Return the rows of all splits and the table per gene.

    Parameters
    ----------
    cohort : Cohort
    tables : mapping of str to DataFrame
        gene_id, donor, value; of models also level, with a donor ``reference``.
    h2 : DataFrame
        Index gene_id; h2 and se.
    config : BenchmarkConfig
    """
    genes = cohort.dataset.genes["gene_id"].astype(str).tolist()
    donors = list(cohort.targets.split.donors)
    across = {
        name: _reference_levels(table, genes) for name, table in tables.items() if "level" in table
    }
    h2 = h2.reindex(genes)
    data = BenchmarkData(
        genes=genes,
        donors=donors,
        corrected_GD=cohort.targets.corrected_GD,
        predictions={name: _wide(table, genes, donors) for name, table in tables.items()},
        raw_GD=cohort.targets.raw_GD,
        across_genes=across,
        h2_G=h2["h2"].to_numpy(),
        h2_se_G=h2["se"].to_numpy(),
        groups_G=_blocks(cohort, config.block_bp or config.cohort.data.window_bp),
        strata={
            "h2": tertiles(h2["h2"].to_numpy()),
            "expression": tertiles(cohort.targets.mean_G),
        },
        populations_D=cohort.dataset.donors["population"].astype(str).tolist(),
    )
    rows: list[Row] = []
    per_gene = []
    for split in SPLITS:
        cells = cohort.cells(split)
        if cells.any():
            found, table = benchmark_split(data, cells, split=split, plan=config.plan)
            rows += found
            per_gene.append(table)
    return rows, pd.concat(per_gene, ignore_index=True)


def _blocks(cohort: Cohort, length: int) -> list[str]:
    """Return the block of the genome in which each gene begins."""
    return [f"{contig}:{tss // length}" for contig, tss, _ in cohort.dataset.sites]


def _wide(table: pd.DataFrame, genes: list[str], donors: list[str]) -> Floats:
    """Return values in the order of genes and donors, NaN where there is none."""
    wide = table.pivot_table(index="gene_id", columns="donor", values="value", observed=True)
    found: Floats = wide.reindex(index=genes, columns=donors).to_numpy(dtype=np.float64)
    return found


def _reference_levels(table: pd.DataFrame, genes: list[str]) -> Floats:
    reference = table[table["donor"] == "reference"].set_index("gene_id")["level"]
    found: Floats = reference.reindex(genes).to_numpy(dtype=np.float64)[:, None]
    return found


def read_predictions(path: Path) -> pd.DataFrame:
    """Read predictions of another tool: gene_id, donor, value.

    Raises
    ------
    InputError
        The file is missing or has other columns.
    """
    if not Path(path).is_file():
        raise InputError(
            facts(str(path), found="no such file", expected="predictions", fix="check the path")
        )
    if Path(path).suffix == ".parquet":
        frame = read_table(path)
    else:
        frame = pd.read_csv(path, sep=None, engine="python", dtype={"donor": str})
    found, frame = frame, frame.rename(columns={"gene": "gene_id"})
    if not {"gene_id", "donor", "value"} <= set(frame.columns):
        raise InputError(
            facts(
                str(path),
                found=f"columns {', '.join(map(str, found.columns[:6]))}",
                expected="gene (or gene_id), donor, value",
                fix="rename them",
            )
        )
    return frame[["gene_id", "donor", "value"]]
