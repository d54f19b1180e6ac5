"""How well each gene was predicted on tissue that a fold had not seen, kept with the run.

::

    RUN/folds/<name>/genes.tsv    one row per held-out section and gene: columns of gene_table, fold

A prediction carries these numbers, so that its reader knows which genes to believe.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seq2exp.core.errors import FormatError, facts
from seq2exp.core.files import safe_name
from seq2exp.spatial.data import SpotTable
from seq2exp.spatial.evaluation import Predict, section_tables
from seq2exp.spatial.metrics import CORRELATIONS

__all__ = ["FILE", "heldout_genes", "read_heldout", "write_heldout"]

FILE = "genes.tsv"
_COLUMNS = ("patient", "section", "gene_id", "num_spots", "pearson", "pearson_partial", "mse")


def write_heldout(
    predict: Predict, test: SpotTable, *, genes: Sequence[str], fold: str, folder: Path
) -> None:
    """Judge the system of a fold on its held-out spots and write ``genes.tsv``.

    Parameters
    ----------
    predict : callable
        From spots to labels, shape (num_spots, num_genes).
    test : SpotTable
        The held-out spots.
    genes : sequence of str
        Ids of the panel.
    fold : str
        Name.
    folder : Path
        Of the fold.
    """
    predicted = np.asarray(predict(test), np.float64)
    table = section_tables(test, predicted, genes).assign(fold=fold)
    table.to_csv(folder / FILE, sep="\t", index=False)


def read_heldout(folder: Path, folds: Sequence[str]) -> pd.DataFrame | None:
    """Return the rows of all folds of a run.

    Parameters
    ----------
    folder : Path
        Of the run.
    folds : sequence of str
        Their names.

    Returns
    -------
    DataFrame or None
        None where a fold has no ``genes.tsv``, as runs of older versions.

    Raises
    ------
    FormatError
        A file lacks columns.
    """
    parts = []
    for name in folds:
        path = Path(folder) / "folds" / safe_name(name) / FILE
        if not path.is_file():
            return None
        part = pd.read_csv(path, sep="\t", dtype={"patient": str, "section": str, "gene_id": str})
        missing = [column for column in _COLUMNS if column not in part]
        if missing:
            raise FormatError(
                facts(
                    str(path),
                    found=f"no column {', '.join(missing)}",
                    expected="what `seq2exp spatial train` wrote",
                    fix="train again",
                )
            )
        parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else None


def heldout_genes(rows: pd.DataFrame | None, gene_ids: Sequence[str]) -> pd.DataFrame:
    """Return what was held out said of each gene, in the order of ``gene_ids``.

    Sections of a patient are averaged first, then patients, as in ``spatial evaluate``; a gene that
    is constant in the truth or the prediction of a section has correlation 0 there.

    Parameters
    ----------
    rows : DataFrame or None
        Of :func:`read_heldout`.
    gene_ids : sequence of str

    Returns
    -------
    DataFrame
        heldout_pearson, heldout_pearson_partial, heldout_rmse (NaN for genes of no fold's panel)
        and heldout_sections, how many sections they are of.
    """
    names = ["heldout_pearson", "heldout_pearson_partial", "heldout_rmse"]
    if rows is None:
        empty: dict[str, Any] = dict.fromkeys(names, np.nan)
        return pd.DataFrame({**empty, "heldout_sections": 0}, index=pd.Index(list(gene_ids)))
    metrics = ["pearson", "pearson_partial", "mse"]
    known = rows.fillna({name: 0.0 for name in metrics if name in CORRELATIONS})
    genes = known.groupby(["gene_id", "patient"])[metrics].mean().groupby("gene_id").mean()
    genes["mse"] = np.sqrt(genes["mse"])
    found = genes.set_axis(names, axis=1).reindex(list(gene_ids))
    sections = known.groupby("gene_id")["section"].nunique().reindex(list(gene_ids))
    found["heldout_sections"] = sections.fillna(0).astype(np.int64)
    return found
