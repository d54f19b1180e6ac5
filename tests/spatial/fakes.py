"""Small cohorts, made with the real preparation from drawn images and counts."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from PIL import Image
from scipy import sparse

from data_prep.histology.build import prepare_cohort
from data_prep.histology.config import CohortConfig, PatchConfig, SectionConfig
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.config import EncoderConfig
from seq2exp.spatial.features import PatchFeatures, cohort_features

PITCH = 40
GENES = 30


def write_section(
    folder: Path, name: str, patient: str, *, rows: int = 6, cols: int = 7, seed: int = 0
) -> SectionConfig:
    """Write a section whose first ten genes follow the redness of its patches."""
    random = np.random.default_rng(seed)
    height, width = (rows + 3) * PITCH, (cols + 3) * PITCH
    pixels = np.full((height, width, 3), 240, np.uint8)
    row, col = (part.ravel() for part in np.meshgrid(range(rows), range(cols), indexing="ij"))
    x, y = (col + 2) * PITCH + 0.5, (row + 2) * PITCH + 0.5
    redness = random.random(row.size)
    for spot in range(row.size):
        top, left = int(y[spot]) - PITCH // 2, int(x[spot]) - PITCH // 2
        noise = random.integers(0, 30, (PITCH, PITCH, 3))
        colour = np.array([120 + 100 * redness[spot], 60, 140])
        pixels[top : top + PITCH, left : left + PITCH] = np.clip(colour + noise, 0, 255)
    rate = np.full((row.size, GENES), 20.0)
    rate[:, :10] *= np.exp(2 * (redness[:, None] - 0.5))
    depth = random.uniform(0.5, 2, row.size)[:, None]
    counts = sparse.csr_matrix(random.poisson(rate * depth).astype(np.int32))
    data = anndata.AnnData(
        X=counts,
        obs=pd.DataFrame(
            {"array_row": row, "array_col": col, "patient": patient},
            index=[f"{name}_{i}" for i in range(row.size)],
        ),
        var=pd.DataFrame(index=[f"G{i}" for i in range(GENES)]),
    )
    data.obsm["spatial"] = np.column_stack([x, y])
    data.uns["image"] = {
        "file": f"{name}.png",
        "um_per_px": 5.0,
        "spot_pitch_px": float(PITCH),
        "spot_diameter_px": PITCH / 2,
    }
    folder.mkdir(parents=True, exist_ok=True)
    data.write_h5ad(folder / f"{name}.h5ad")
    Image.fromarray(pixels).save(folder / f"{name}.png")
    return SectionConfig(name, table=f"{name}.h5ad")


def small_cohort(folder: Path, sections: dict[str, str] | None = None) -> SpatialCohort:
    """Return a cohort of small sections; by default two patients with two sections each."""
    sections = sections or {"A1": "A", "A2": "A", "B1": "B", "B2": "B"}
    configs = [
        write_section(folder / "raw", name, patient, seed=seed)
        for seed, (name, patient) in enumerate(sections.items())
    ]
    config = CohortConfig("small", configs, patch=PatchConfig(um=160.0, px=32))
    prepare_cohort(config, folder / "raw", folder / "cohort")
    return SpatialCohort(folder / "cohort")


def colour_features(cohort: SpatialCohort) -> PatchFeatures:
    """Return the colour statistics of the patches of a cohort."""
    return cohort_features(cohort, EncoderConfig())
