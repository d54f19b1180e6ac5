"""Batches of invented sections, and a network small enough for tests."""

from __future__ import annotations

import torch
from torch import nn

from seq2exp.spatial.batch import SpotBatch

FEAT, TOKEN, GENES = 12, 10, 5


class TinyCnn(nn.Module):
    """Two convolutions: 8 x 8 tokens of 32-pixel patches."""

    dim = 24
    token_dim = 24

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 12, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(12, self.dim, 3, stride=2, padding=1),
            nn.ReLU(),
        )

    def tokens(self, img):
        return self.net(img - 0.5).flatten(2).transpose(1, 2)

    def pool(self, img):
        return self.tokens(img).mean(dim=1)


def section(seed, num_spots, num_columns, *, origin=(0, 0)):
    """Return features and grid of a section."""
    random = torch.Generator().manual_seed(seed)
    place = torch.arange(num_spots)
    grid = torch.stack([place // num_columns, place % num_columns], dim=1) + torch.tensor(origin)
    return torch.randn(num_spots, FEAT, generator=random), grid


def batch_of(sections, *, seed=0, px=32, genes=GENES):
    """Return all spots of some sections as one batch with every field."""
    random = torch.Generator().manual_seed(seed)
    number = torch.cat([torch.full((len(grid),), name) for name, (_, grid) in sections.items()])
    spot = torch.cat([torch.arange(len(grid)) for _, grid in sections.values()])
    total = len(number)

    def draw(*shape):
        return torch.randn(*shape, generator=random)

    mask = torch.rand(total, 25, generator=random) > 0.3
    mask[:, 12] = True
    return SpotBatch(
        section=number,
        patient=number,
        spot=spot,
        grid=torch.cat([grid for _, grid in sections.values()]),
        xy_um=draw(total, 2),
        total=torch.ones(total),
        y=draw(total, genes),
        img=torch.rand(total, 3, px, px, generator=random),
        tokens=draw(total, 6, TOKEN),
        feat=draw(total, FEAT),
        nbr=draw(total, 25, FEAT),
        nbr_mask=mask,
        sections=dict(sections),
    )


def rows(batch, index):
    """Return some spots of a batch; whole sections stay."""
    names = ("section", "patient", "spot", "grid", "xy_um", "total", "y", "img", "tokens", "feat",
             "nbr", "nbr_mask")  # fmt: skip
    chosen = {name: getattr(batch, name) for name in names}
    return SpotBatch(
        **{name: None if value is None else value[index] for name, value in chosen.items()},
        sections=batch.sections,
    )


def fit(system, batch, *, steps, lr=1e-2, size=None, seed=0, decay=0.0):
    """Train with Adam on random parts of a batch."""
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(system.parameters(), lr, weight_decay=decay)
    system.train()
    for step in range(steps):
        part = batch
        if size is not None:
            part = rows(batch, torch.randperm(len(batch), generator=random)[:size])
        optimizer.zero_grad()
        system.loss(part, step)["total"].backward()
        optimizer.step()
    return system.eval()


def without_gradient(system):
    """Return the parameters that no gradient reached, or only zeros."""
    return [
        name
        for name, value in system.named_parameters()
        if value.grad is None or not value.grad.abs().sum() > 0
    ]
