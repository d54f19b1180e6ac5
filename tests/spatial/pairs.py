"""Synthetic pairs of patch features and expression, from the specs of mclSTExp and HESCAPE."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from seq2exp.spatial.batch import SpotBatch, SystemInfo
from seq2exp.spatial.samplers import SpotSampler
from seq2exp.spatial.trainer import parameter_groups


@dataclass(frozen=True)
class Pairs:
    feat: np.ndarray
    y: np.ndarray
    section: np.ndarray
    patient: np.ndarray
    grid: np.ndarray

    def __len__(self):
        return len(self.feat)

    @property
    def spot(self):
        """Row in the section."""
        found = np.zeros(len(self), np.int64)
        for section in np.unique(self.section):
            rows = self.section == section
            found[rows] = np.arange(rows.sum())
        return found

    def info(self) -> SystemInfo:
        rows, columns = (self.grid.max(0) + 1).tolist()
        return SystemInfo(
            self.y.shape[1], feat_dim=self.feat.shape[1], grid_rows=rows, grid_cols=columns
        )

    def batch(self, rows=None) -> SpotBatch:
        rows = np.arange(len(self)) if rows is None else np.asarray(rows)
        y = torch.from_numpy(self.y[rows]).float()
        return SpotBatch(
            section=torch.from_numpy(self.section[rows]),
            patient=torch.from_numpy(self.patient[rows]),
            spot=torch.from_numpy(self.spot[rows]),
            grid=torch.from_numpy(self.grid[rows]),
            xy_um=torch.from_numpy(self.grid[rows]).float() * 200,
            total=torch.ones(len(rows)),
            y=y,
            gene_mask=torch.isfinite(y),
            feat=torch.from_numpy(self.feat[rows]).float(),
        )

    def take(self, rows) -> Pairs:
        parts = (self.feat, self.y, self.section, self.patient, self.grid)
        return Pairs(*(part[rows] for part in parts))


def latent_pairs(*, image_noise: float, gene_noise: float, num: int = 4000, seed: int = 0) -> Pairs:
    """Section 6 of the mclSTExp spec: weak is noise 3 and 1, strong is .3 and .3."""
    random = np.random.default_rng(seed)
    z = random.normal(size=(num, 16))
    a, b = random.normal(size=(16, 256)) / 4, random.normal(size=(16, 200)) / 4
    image = np.tanh(z @ a) + image_noise * random.normal(size=(num, 256))
    genes = 1 + 0.5 * np.tanh(z @ b) + gene_noise * random.normal(size=(num, 200))
    section = np.arange(num) * 4 // num
    grid = random.integers(0, 35, (num, 2))
    return Pairs(image, np.maximum(0, genes), section, section // 2, grid)


def batch_effect_pairs(
    effect: float, *, num_slides: int = 16, num_spots: int = 250, seed: int = 0
) -> Pairs:
    """Section 7 of the HESCAPE spec: offsets of the slides, independent in the two views."""
    random = np.random.default_rng(seed)
    num = num_slides * num_spots
    slide = np.arange(num) // num_spots
    z = random.normal(size=(num, 8))
    a, b = random.normal(size=(8, 64)) / 8**0.5, random.normal(size=(8, 60)) / 8**0.5
    offsets = [effect * random.normal(size=(num_slides, width)) for width in (64, 60)]
    image = z @ a + offsets[0][slide] + random.normal(size=(num, 64))
    genes = z @ b + offsets[1][slide] + random.normal(size=(num, 60))
    place = np.arange(num) % num_spots
    grid = np.stack([place // 16, place % 16], axis=1)
    return Pairs(image, genes, slide, slide, grid)


def train(
    system, pairs: Pairs, *, steps: int, lr: float = 1e-3, batch_size: int = 128, seed: int = 0,
    weight_decay: float = 0.0,
) -> list[float]:  # fmt: skip
    """Adam; returns the losses."""
    sampler = SpotSampler(
        pairs.section, batch_size=batch_size, negatives=system.config.negatives, seed=seed
    )
    groups = parameter_groups(system, weight_decay=weight_decay)
    optimiser = torch.optim.AdamW(groups, lr=lr)
    whole = pairs.batch()
    names = ("section", "patient", "spot", "grid", "xy_um", "total", "y", "gene_mask", "feat")
    system.train()
    torch.manual_seed(seed)
    losses: list[float] = []
    while True:
        for rows in sampler:
            index = torch.tensor(rows)
            batch = SpotBatch(**{name: getattr(whole, name)[index] for name in names})
            loss = system.loss(batch, len(losses))["total"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            system.after_step()
            losses.append(float(loss.detach()))
            if len(losses) == steps:
                system.eval()
                return losses
        sampler.set_epoch(sampler.epoch + 1)
