"""Contact of every gene with the bins around its TSS: a power law times gene-specific noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.simulate.config import SimulationConfig

__all__ = ["ContactTable", "contact_table", "pairs_within_reach", "power_law"]


def power_law(distance: NDArray[np.floating], config: SimulationConfig) -> NDArray[np.float64]:
    """Return ``(max(d, d0) / d0) ** -exponent``: 1 up to d0, then a power law.

    Parameters
    ----------
    distance : float array
        bp, any sign.
    config : SimulationConfig
    """
    scaled = np.maximum(np.abs(distance), config.contact_distance) / config.contact_distance
    return np.asarray(scaled**-config.contact_exponent, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class ContactTable:
    """Contacts per gene and bin of the genome grid.

    Parameters
    ----------
    first_bin : int64 array, shape (G,)
        Grid index of column 0 (may be negative near a contig's start).
    true, observed : float64 arrays, shape (G, B)
        What expression follows, and what contacts.tsv.gz shows.
    bin_size : int
        bp.
    """

    first_bin: NDArray[np.int64]
    true: NDArray[np.float64]
    observed: NDArray[np.float64]
    bin_size: int


def contact_table(
    genes: pd.DataFrame, config: SimulationConfig, rng: np.random.Generator
) -> ContactTable:
    """Return true and observed contacts in a window of twice the reach around every TSS.

    The distance of a bin is that of its centre from the TSS.
    """
    size = config.contact_bin
    half = -(-2 * config.reach // size)
    tss = genes["tss"].to_numpy(dtype=np.int64)
    first = tss // size - half
    grid = first[:, None] + np.arange(2 * half + 1)
    distance = (grid + 0.5) * size - tss[:, None]
    noise = rng.normal(0.0, config.contact_sd, grid.shape)
    error = rng.normal(0.0, config.contact_error, grid.shape)
    true = power_law(distance, config) * np.exp(noise)
    return ContactTable(first, true, true * np.exp(error), size)


def pairs_within_reach(
    genes: pd.DataFrame, elements: pd.DataFrame, contacts: ContactTable, reach: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return gene rows, element rows and true contacts of pairs at most ``reach`` bp apart.

    The distance is from the TSS to the element's centre, ``(start + end) // 2``.
    """
    centre = ((elements["start"] + elements["end"]) // 2).to_numpy()
    gene_rows, element_rows = [], []
    for chrom, part in genes.groupby("chrom", sort=False):
        here = np.flatnonzero((elements["chrom"] == chrom).to_numpy())
        order = here[np.argsort(centre[here], kind="stable")]
        tss = part["tss"].to_numpy()
        low = np.searchsorted(centre[order], tss - reach, side="left")
        high = np.searchsorted(centre[order], tss + reach, side="right")
        for row, first, last in zip(part.index, low, high, strict=True):
            gene_rows.append(np.full(last - first, row, dtype=np.int64))
            element_rows.append(order[first:last])
    genes_J = np.concatenate(gene_rows) if gene_rows else np.zeros(0, np.int64)
    elements_J = np.concatenate(element_rows) if element_rows else np.zeros(0, np.int64)
    column = centre[elements_J] // contacts.bin_size - contacts.first_bin[genes_J]
    return genes_J, elements_J.astype(np.int64), contacts.true[genes_J, column]
