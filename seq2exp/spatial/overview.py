"""What a cohort holds, and what in it would make results hard to believe."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.spatial.cohort import SpatialCohort

__all__ = ["cohort_table", "cohort_warnings", "common_genes", "spread_rows"]

_FEW_PATIENTS = 3
_FEW_SPOTS = 50
_COARSER = 1.5
_DEEPER = 3.0
_SHARED = 0.8
_LOST = 0.2


def cohort_table(cohort: SpatialCohort) -> pd.DataFrame:
    """Return one row per section.

    Returns
    -------
    DataFrame
        section, patient, spots, left_out, genes, median_counts, median_genes (with a count, per
        spot), um_per_px, saturation_on and saturation_off (mean colour saturation on the spots and
        off them; NaN where it was not measured).
    """
    rows = []
    for section in cohort.sections():
        info = section.info
        rows.append(
            {
                "section": info.name,
                "patient": info.patient,
                "spots": len(section),
                "left_out": sum(info.left_out.values()),
                "genes": section.counts_NA.shape[1],
                "median_counts": float(np.median(section.total_N)),
                "median_genes": float(np.median(section.counts_NA.getnnz(axis=1))),
                "um_per_px": info.um_per_px,
                "saturation_on": info.notes.get("saturation_on_spots", float("nan")),
                "saturation_off": info.notes.get("saturation_off_spots", float("nan")),
            }
        )
    return pd.DataFrame(rows)


def common_genes(cohort: SpatialCohort) -> int:
    """Return how many genes every section that has any has, by id."""
    ids = [set(section.var["gene_id"].astype(str)) for section in cohort.sections()]
    measured = [each for each in ids if each]
    return len(set.intersection(*measured)) if measured else 0


def cohort_warnings(cohort: SpatialCohort, table: pd.DataFrame) -> list[str]:
    """Return what to think of before believing results of this cohort, one sentence each.

    Parameters
    ----------
    cohort : SpatialCohort
    table : DataFrame
        Of :func:`cohort_table`.
    """
    found = []
    num_patients = int(table["patient"].nunique())
    if num_patients == 1:
        found.append(
            "1 patient: only sections or blocks can be held out, and nothing is learnt about other "
            "patients"
        )
    elif num_patients < _FEW_PATIENTS:
        found.append(
            f"{num_patients} patients: each fold learns from {num_patients - 1}, and intervals "
            "over patients mean little"
        )
    found += _by_section(table)
    found += _resolution(cohort, table)
    depth = table.loc[table["genes"] > 0, "median_counts"]
    if len(depth) and depth.max() > _DEEPER * depth.min():
        found.append(
            f"median counts from {depth.min():,.0f} to {depth.max():,.0f}: sections differ in depth"
        )
    shared, genes = common_genes(cohort), table.loc[table["genes"] > 0, "genes"]
    if len(genes) and shared < _SHARED * genes.median():
        found.append(
            f"{shared:,} genes in every section, of {genes.median():,.0f} in the median "
            "one: are genes named in the same way?"
        )
    return found


def _by_section(table: pd.DataFrame) -> list[str]:
    found = []
    few = table[table["spots"] < _FEW_SPOTS]
    if len(few):
        found.append(
            f"fewer than {_FEW_SPOTS} spots in {_named(few)}: correlations across them are noise"
        )
    lost = table[table["left_out"] > _LOST * (table["spots"] + table["left_out"])]
    if len(lost):
        found.append(f"more than {_LOST:.0%} of the spots left out in {_named(lost)}")
    pale = table[table["saturation_on"] <= table["saturation_off"]]
    if len(pale):
        found.append(
            f"spots no more coloured than the glass in {_named(pale)}: look whether they lie on "
            "the tissue"
        )
    return found


def _resolution(cohort: SpatialCohort, table: pd.DataFrame) -> list[str]:
    found = []
    fine, coarse = float(table["um_per_px"].min()), float(table["um_per_px"].max())
    if coarse > _COARSER * fine:
        found.append(
            f"from {fine:.2f} to {coarse:.2f} um per pixel: patches show the same tissue, but "
            "sections differ in detail, and a system may tell them apart by it"
        )
    patch = cohort.manifest.patch
    enlarged = table[table["um_per_px"] * patch.px > 1.05 * patch.um]
    if len(enlarged):
        native = patch.um / float(enlarged["um_per_px"].max())
        found.append(
            f"patches of {native:.0f} pixels enlarged to {patch.px} in {_named(enlarged)}: they "
            "hold no more detail than the image"
        )
    return found


def _named(table: pd.DataFrame) -> str:
    names = list(table["section"])
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def spread_rows(num_spots: int, num_shown: int) -> NDArray[np.int64]:
    """Return spots spread evenly over a section, in their order, the first among them."""
    count = min(num_spots, num_shown)
    return np.unique(np.linspace(0, num_spots - 1, count).round().astype(np.int64))
