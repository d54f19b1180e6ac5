"""Models whose attributions are known in closed form."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from seq2exp.dataset.store import Dataset
from seq2exp.nn.sequence import one_hot
from seq2exp.training.run import TrainedRun
from tests.elements.fakes import fake_run

WINDOW, BINS, TRACKS = 1024, 32, 2


class Additive(nn.Module):
    """f = sum of base weights + sum of signal weights; its shares are weights themselves."""

    def __init__(self, seed: int = 0, *, power: int = 1) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.weight_LC = nn.Parameter(torch.randn(WINDOW, 4, generator=random).double() / 32)
        self.signal_NT = nn.Parameter(torch.randn(BINS, TRACKS, generator=random).double())
        self.power = power
        self.config = SimpleNamespace(mask="none", promoter_bp=0)

    def forward(self, bases, signal_BNT, features_BF, **_):
        columns_BLC = one_hot(bases, dtype=self.weight_LC.dtype)
        total_B = (columns_BLC * self.weight_LC).sum((1, 2))
        total_B = total_B + (torch.nan_to_num(signal_BNT.double()) * self.signal_NT).sum((1, 2))
        expression_BK = torch.stack([total_B**self.power, 2 * total_B**self.power], dim=1)
        return SimpleNamespace(expression_BK=expression_BK)


class Word(nn.Module):
    """f = number of copies of GATA on the strand that is read."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1).double())
        self.config = SimpleNamespace(mask="none", promoter_bp=0)

    def forward(self, bases, signal_BNT, features_BF, **_):
        columns_BLC = one_hot(bases, dtype=torch.float64)
        parts = [columns_BLC[:, i : WINDOW - 3 + i, base] for i, base in enumerate((2, 0, 3, 0))]
        count_B = self.gain * (parts[0] * parts[1] * parts[2] * parts[3]).sum(1)
        return SimpleNamespace(expression_BK=count_B[:, None].expand(-1, 2))


def run_of(dataset: Dataset, *models: nn.Module) -> TrainedRun:
    """Return a run of these models that reads windows of 1,024 bases in bins of 32."""
    run = fake_run(dataset)
    return TrainedRun(run.folder, list(models), run.card)


class Rectified(nn.Module):
    """One hidden layer of `nn.ReLU`: nonlinear, and covered by the rules of DeepLIFT."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.act = nn.Linear(4 * WINDOW, 8).double(), nn.ReLU()
        self.second = nn.Linear(8, 2).double()
        self.config = SimpleNamespace(mask="none", promoter_bp=0)

    def forward(self, bases, signal_BNT, features_BF, **_):
        columns_BLC = one_hot(bases, dtype=self.first.weight.dtype)
        hidden_BD = self.act(self.first(columns_BLC.flatten(1)) * 10)
        return SimpleNamespace(expression_BK=self.second(hidden_BD))
