"""The columns p, q and quantile of tables of scores, from draws, counts and a background.

A column of scores ``X`` has its own as ``X:p``, ``X:q``, ``X:quantile`` and ``X:signed_quantile``
(`seq2exp.variants.choice.columns_of`); those that are not among the columns are not computed.

Shapes: R rows, K draws, V columns of scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from seq2exp.variants.background import Background
from seq2exp.variants.columns import ScoreColumn
from seq2exp.variants.nulls import QValues, empirical_p

__all__ = ["QCounts", "p_columns", "quantile_columns"]

Columns = dict[str, NDArray[np.float32]]


def p_columns(columns: Sequence[ScoreColumn], score_RV: ArrayLike, draws_RKV: ArrayLike) -> Columns:
    """Return p-values of scores, by name of their columns.

    Parameters
    ----------
    columns : sequence of ScoreColumn
        All of a table.
    score_RV : float array
        Those of kind ``score``, in their order.
    draws_RKV : float array
        Scores of the same changes in shuffled surroundings; NaN for a draw without a score.
    """
    score, draws = np.asarray(score_RV, np.float64), np.asarray(draws_RKV, np.float64)
    return {
        f"{column.name}:p": empirical_p(
            score[:, place], draws[:, :, place], signed=column.signed
        ).astype(np.float32)
        for place, column in enumerate(_of(columns, "score"))
    }


class QCounts:
    """False-discovery rates of tables that come in parts: first all are counted, then filled in.

    Parameters
    ----------
    columns : sequence of ScoreColumn
    """

    def __init__(self, columns: Sequence[ScoreColumn]) -> None:
        self._counts = {column.name: QValues() for column in _of(columns, "p")}

    def add(self, table: pd.DataFrame) -> None:
        """Count the p-values of a part; rows in any order, every row once."""
        for name, counts in self._counts.items():
            counts.add(table[name].to_numpy(np.float32))

    def columns(self, table: pd.DataFrame) -> Columns:
        """Return the q-values of a part that was counted."""
        return {
            f"{name.removesuffix(':p')}:q": counts.q(table[name].to_numpy(np.float32)).astype(
                np.float32
            )
            for name, counts in self._counts.items()
        }


def quantile_columns(
    columns: Sequence[ScoreColumn], table: pd.DataFrame, background: Background
) -> Columns:
    """Return the places of scores among those of common variants.

    Parameters
    ----------
    columns : sequence of ScoreColumn
        All of a table; those of kind ``quantile`` are computed.
    table : DataFrame
        Scores, ``variant_type`` and ``distance_to_tss``.
    background : Background
        Of the same model.

    Raises
    ------
    InputError
        The background lacks a score.
    """
    kinds = table["variant_type"].astype(str).tolist()
    found: Columns = {}
    for column in _of(columns, "quantile"):
        name = column.name.rpartition(":")[0]
        values = background.quantiles(
            name, table[name], variant_type=kinds, distance=table["distance_to_tss"],
            signed=column.signed,
        )  # fmt: skip
        found[column.name] = values.astype(np.float32)
    return found


def _of(columns: Sequence[ScoreColumn], kind: str) -> list[ScoreColumn]:
    return [column for column in columns if column.kind == kind]
