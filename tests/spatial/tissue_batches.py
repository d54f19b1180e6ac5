"""A simulated cohort as batches, with features that cost nothing to compute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from data_prep.histology.build import prepare_cohort
from data_prep.simulate.spatial import SpatialSimulationConfig, simulate_cohort
from seq2exp.spatial.batch import SpotBatch
from seq2exp.spatial.cohort import SpatialCohort


def quick_features(patches):
    """Mean and deviation of colours, and how rough grey is at three scales."""
    colour = patches.astype(np.float32) / 255
    grey = colour.mean(axis=-1)
    parts = [colour.mean(axis=(1, 2)), colour.std(axis=(1, 2))]
    for side in (1, 2, 4):
        count, height, width = grey.shape
        block = grey.reshape(count, height // side, side, width // side, side).mean(axis=(2, 4))
        parts.append(np.abs(np.diff(block, axis=2)).mean(axis=(1, 2))[:, None])
        parts.append(block.std(axis=(1, 2))[:, None])
    return np.concatenate(parts, axis=1)


def tiles_around(image, xy, px, side=5):
    """Return tiles of the window around each spot, and which lie on the image."""
    half = side // 2
    steps = [(row * px, column * px) for row in range(-half, half + 1)
             for column in range(-half, half + 1)]  # fmt: skip
    tiles, there = [], []
    for x, y in xy.astype(int):
        for down, right in steps:
            top, left = y + down - px // 2, x + right - px // 2
            fits = 0 <= top <= image.shape[0] - px and 0 <= left <= image.shape[1] - px
            there.append(fits)
            tiles.append(image[top : top + px, left : left + px] if fits else image[:px, :px])
    shape = (len(xy), side * side)
    return np.stack(tiles), np.array(there).reshape(shape)


@dataclass
class Tissue:
    """Batch of every section by name, and the truth of the simulation."""

    truth: object
    batches: dict[str, SpotBatch]
    log_counts: dict[str, np.ndarray]


def simulated_tissue(folder, *, tiles=True, **settings):
    """Simulate, prepare and read a cohort; without tiles they are zero and there."""
    truth = simulate_cohort(SpatialSimulationConfig(**settings), folder / "raw")
    prepare_cohort(truth.cohort, folder / "raw", folder / "cohort")
    cohort = SpatialCohort(folder / "cohort")
    batches, labels = {}, {}
    patients = sorted(set(cohort.patients.values()))
    for number, section in enumerate(cohort.sections()):
        counts = section.counts_NA.toarray()
        y = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
        feat = torch.tensor(quick_features(section.patches))
        grid = torch.tensor(section.grid_N2)
        count = len(section)
        nbr, there = torch.zeros(count, 25, feat.shape[1]), np.ones((count, 25), dtype=bool)
        if tiles:
            image = np.asarray(Image.open(section.image_path))
            around, there = tiles_around(image, section.xy_N2, cohort.manifest.patch.px)
            nbr = torch.tensor(quick_features(around)).unflatten(0, there.shape)
        img = torch.tensor(np.asarray(section.patches)).permute(0, 3, 1, 2).float() / 255
        batches[section.name] = SpotBatch(
            section=torch.full((count,), number),
            patient=torch.full((count,), patients.index(section.patient)),
            spot=torch.arange(count),
            grid=grid,
            xy_um=torch.tensor(section.um_N2).float(),
            total=torch.tensor(section.total_N).float(),
            y=torch.tensor(y).float(),
            img=img,
            feat=feat,
            nbr=nbr,
            nbr_mask=torch.tensor(there),
            sections={number: (feat, grid)},
        )
        labels[section.name] = y
    return Tissue(truth, batches, labels)


def joined(tissue, names):
    """Return the spots of some sections as one batch, features scaled by those sections."""
    parts = [tissue.batches[name] for name in names]
    values = {}
    for key in ("section", "patient", "spot", "grid", "xy_um", "total", "y", "img", "feat", "nbr",
                "nbr_mask"):  # fmt: skip
        values[key] = torch.cat([getattr(part, key) for part in parts])
    sections = {name: value for part in parts for name, value in part.sections.items()}
    return SpotBatch(**values, sections=sections)


def scaled(batch, train):
    """Return a batch with features standardised by those of the training spots."""
    mean, sd = train.feat.mean(dim=0), train.feat.std(dim=0)
    values = dict(vars(batch))
    values["feat"] = (batch.feat - mean) / sd
    values["nbr"] = (batch.nbr - mean) / sd
    values["sections"] = {
        name: ((feat - mean) / sd, grid) for name, (feat, grid) in batch.sections.items()
    }
    return SpotBatch(**values)
