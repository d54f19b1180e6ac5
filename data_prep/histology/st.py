"""The layout of Spatial Transcriptomics: a table of counts, a table of spots, and an image."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from data_prep.histology.config import CohortConfig, SectionConfig
from data_prep.histology.raw import (
    RawSection,
    as_counts,
    numbers,
    read_table,
    require_unique,
    require_unique_genes,
    whole_numbers,
)
from seq2exp.core.errors import FormatError, InputError, facts

__all__ = ["read_st"]

_SPOT_COLUMNS = (("pixel_x", "pixel_y"), ("px", "py"))
_NOT_GENES = ("__total_umi",)


def read_st(config: SectionConfig, cohort: CohortConfig, source: Path) -> RawSection:
    """Read the layout of Spatial Transcriptomics: rows of counts are named ``{x}x{y}``."""
    counts = read_table(source / config.table, index=True)
    spots = read_table(source / config.spots, index=False)
    pixels = next((pair for pair in _SPOT_COLUMNS if set(pair) <= set(spots)), None)
    if pixels is None or not {"x", "y"} <= set(spots):
        raise FormatError(
            facts(
                str(source / config.spots),
                found=f"columns {', '.join(map(str, spots.columns))}",
                expected="x, y and either pixel_x, pixel_y or px, py",
                fix="give the table of spots of this section",
            )
        )
    grid = {name: whole_numbers(spots[name], source / config.spots) for name in ("x", "y")}
    spots = spots.assign(_name=[f"{x}x{y}" for x, y in zip(grid["x"], grid["y"], strict=True)])
    require_unique(spots["_name"], source / config.spots)
    require_unique(pd.Series(counts.index.astype(str)), source / config.table)
    placed = spots.set_index("_name").reindex(counts.index.astype(str))
    missing = placed["x"].isna()
    if missing.any():
        raise InputError(
            facts(
                str(source / config.table),
                found="spots that the table of spots lacks",
                expected=f"rows of {source / config.spots}, named by their x and y",
                fix="give the tables of one section",
                count=int(missing.sum()),
                examples=list(placed.index[missing][:3]),
            )
        )
    header = _header(source / config.table)[-counts.shape[1] :]
    genes = [name for name in header if name not in _NOT_GENES]
    require_unique_genes(genes, source / config.table)
    places = {name: numbers(placed[name], source / config.spots) for name in pixels}
    known = {"x", "y", "new_x", "new_y", "selected", "spot", *pixels}
    labels = placed[
        [
            name
            for name in placed
            if str(name) not in known
            and not str(name).startswith("Unnamed:")
            and not pd.api.types.is_numeric_dtype(placed[name])
        ]
    ]
    return RawSection(
        config.name,
        config.patient,
        as_counts(counts[genes].to_numpy(), source / config.table),
        genes,
        [""] * len(genes),
        whole_numbers(placed["y"], source / config.spots),
        whole_numbers(placed["x"], source / config.spots),
        places[pixels[0]],
        places[pixels[1]],
        labels.reset_index(drop=True),
        source / config.image,
        config.um_per_px,
        cohort.spot_pitch_um,
        cohort.spot_diameter_um,
    )


def _header(path: Path) -> list[str]:
    """Return the names of the columns as the file has them; pandas numbers repeated ones."""
    first = pd.read_csv(path, sep="\t", header=None, nrows=1, dtype=str, keep_default_na=False)
    return [str(name) for name in first.iloc[0]]
