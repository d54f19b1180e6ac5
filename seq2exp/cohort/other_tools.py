"""Predictions that another tool made, brought before the same judge.

Shapes: G genes, D donors.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, Seq2ExpWarning, facts

__all__ = ["fit_predictions"]


def fit_predictions(
    table: pd.DataFrame,
    name: str,
    *,
    genes: Sequence[str],
    donors: Sequence[str],
    tested_GD: NDArray[np.bool_],
    taken: Collection[str] = (),
) -> pd.DataFrame:
    """Return predictions of another tool for known genes and donors.

    Gene ids with a version are matched without it where the dataset has none. A tested cell without
    a prediction counts against the tool, so it must be known that names match.

    Parameters
    ----------
    table : DataFrame
        gene_id, donor, value.
    name : str
        Of the tool.
    genes, donors : sequences of str
        Of the dataset.
    tested_GD : bool array, shape (num_genes, num_donors)
    taken : collection of str
        Names of models and baselines of the benchmark.

    Raises
    ------
    InputError
        The name is taken, a value stands twice or is no number, or nothing tested is predicted.

    Warns
    -----
    Seq2ExpWarning
        Part of what is tested is not predicted.
    """
    if name in taken:
        raise InputError(
            facts(
                f"predictions {name}", found="a name that a model or baseline has",
                expected="another name", fix=f"give --predictions other_{name}=FILE",
            )
        )  # fmt: skip
    known = {str(gene) for gene in genes}
    plain = {str(gene).split(".")[0]: str(gene) for gene in genes}
    ids = table["gene_id"].astype(str)
    ids = ids.where(ids.isin(known), ids.str.split(".").str[0].map(plain))
    table = table.assign(gene_id=ids, donor=table["donor"].astype(str))
    values = pd.to_numeric(table["value"], errors="coerce")
    wrong = (values.isna() & table["value"].notna()) | np.isinf(values)
    twice = table.duplicated(["gene_id", "donor"]) & table["gene_id"].notna()
    for bad, found, expected in (
        (wrong, "values that are no finite number", "numbers; nothing where there is none"),
        (twice, "a gene and donor twice", "each once"),
    ):
        if bad.any():
            rows = table[bad]
            raise InputError(
                facts(
                    f"predictions {name}", found=found, expected=expected, fix="mend the table",
                    count=int(bad.sum()),
                    examples=[f"{r.gene_id} {r.donor}" for r in rows.head(3).itertuples()],
                )
            )  # fmt: skip
    row = pd.Index([str(gene) for gene in genes]).get_indexer(pd.Index(table["gene_id"]))
    column = pd.Index(list(donors)).get_indexer(pd.Index(table["donor"]))
    inside = (row >= 0) & (column >= 0) & values.notna().to_numpy()
    predicted = np.zeros(tested_GD.shape, dtype=bool)
    predicted[row[inside], column[inside]] = True
    num, wanted = int((predicted & tested_GD).sum()), int(tested_GD.sum())
    if num == 0:
        raise InputError(
            facts(
                f"predictions {name}",
                found=f"genes {', '.join(table['gene_id'].dropna().unique()[:2]) or 'unknown'}, "
                f"donors {', '.join(table['donor'].unique()[:2])}: none is tested",
                expected=f"such as {genes[0]} and {donors[0]}",
                fix="use the names of the dataset, and predict what split.json tests",
            )
        )
    if num < wanted:
        warnings.warn(
            f"predictions {name}: {num:,} of {wanted:,} tested values are predicted; genes without "
            "a prediction count as 0",
            Seq2ExpWarning,
            stacklevel=2,
        )
    return table.assign(value=values)[inside]
