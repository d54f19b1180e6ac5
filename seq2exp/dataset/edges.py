"""Genes near contig ends: their windows are padded with N, or the genes are left out."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.dataset.samples import SampleConfig, gene_window
from seq2exp.dataset.store import Dataset

__all__ = ["padded_bases", "usable_rows"]

logger = logging.getLogger(__name__)


def padded_bases(
    dataset: Dataset, rows: NDArray[np.int64], config: SampleConfig
) -> NDArray[np.int64]:
    """Count the bases of each gene's window that lie beyond its contig, without any shift.

    Parameters
    ----------
    dataset : Dataset
    rows : int64 array, shape (num_genes,)
        Rows of the gene table.
    config : SampleConfig

    Returns
    -------
    int64 array, shape (num_genes,)
    """
    windows = [gene_window(dataset, int(row), config) for row in rows]
    return np.array([w.pad_left + w.pad_right for w in windows], dtype=np.int64)


def usable_rows(
    dataset: Dataset, rows: NDArray[np.int64], config: SampleConfig, *, what: str
) -> NDArray[np.int64]:
    """Return the genes that ``config.edge`` keeps, and say how many windows leave their contig.

    Parameters
    ----------
    dataset : Dataset
    rows : int64 array, shape (num_genes,)
        Rows of the gene table.
    config : SampleConfig
    what : str
        Whose genes they are, for people.

    Raises
    ------
    InputError
        There were genes and none is left.
    """
    padded = padded_bases(dataset, rows, config)
    outside = padded > 0
    if not outside.any():
        return rows
    counts = f"{what}: {outside.sum():,} of {rows.size:,} windows reach beyond a contig end; "
    if config.edge == "pad":
        logger.info("%s%s bases are padded with N", counts, f"{padded.sum():,}")
        return rows
    logger.info("%stheir genes are left out", counts)
    if outside.all():
        raise InputError(
            facts(
                what,
                found=f"no window of {config.window_bp:,} bases inside its contig",
                expected="at least one with data.edge: skip",
                fix="use a smaller data.window_bp, or data.edge: pad",
                count=int(rows.size),
            )
        )
    return rows[~outside]
