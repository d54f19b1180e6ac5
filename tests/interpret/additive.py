"""A model whose every deletion can be worked out by hand: a weighted count of A and of a track."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from torch import nn

from seq2exp.dataset.samples import SampleConfig
from seq2exp.models.output import Seq2ExpOutput
from seq2exp.training.run import TrainedRun
from tests.elements.fakes import fake_run

PROMOTER_BP = 128
CONFIG = SampleConfig(window_bp=1024, bin_size=32, contacts=True)
NUM_BINS = 32


class Additive(nn.Module):
    """expression_k = (k + 1) * sum over bins of mask * w * (number of A + gain * first track)."""

    def __init__(self, *, gain: float = 0.0, masked: bool = True) -> None:
        super().__init__()
        self.config = SimpleNamespace(promoter_bp=PROMOTER_BP, mask="soft" if masked else "none")
        self.gain = gain
        self.seen: list[int] = []

    def forward(self, codes_BL, signal_BNT, features_BF, *, mask_BN=None, **_):
        self.seen.append(len(codes_BL))
        batch = len(codes_BL)
        counts_BN = (codes_BL == 0).view(batch, NUM_BINS, -1).sum(2).double()
        tracks_BN = torch.nan_to_num(signal_BNT[..., 0].double())
        mean_BN = place_weights().flip(0).expand(batch, -1) / NUM_BINS
        used_BN = torch.ones_like(mean_BN) if mask_BN is None else mask_BN
        value_B = (used_BN * place_weights() * (counts_BN + self.gain * tracks_BN)).sum(1)
        return Seq2ExpOutput(
            expression_BK=value_B[:, None] * torch.tensor([1.0, 2.0]),
            mask_BN=used_BN,
            mean_BN=mean_BN,
            alpha_BN=None,
            beta_BN=None,
            kl_B=torch.zeros(batch),
            track_loss_B=torch.zeros(batch),
            embedding_BD=counts_BN[:, :4],
        )


def place_weights() -> torch.Tensor:
    return torch.arange(1, NUM_BINS + 1).double()


def additive_run(dataset, **changes) -> TrainedRun:
    run = fake_run(dataset, folder=Path("run"), config=CONFIG)
    run.models = [Additive(**changes)]
    return run


def elements_at(dataset, rows, spans) -> pd.DataFrame:
    """Called elements at bases of the windows, in model direction."""
    from seq2exp.dataset.samples import gene_window

    found = []
    for row in rows:
        window = gene_window(dataset, row, CONFIG)
        gene = dataset.genes.iloc[row]
        for span in spans:
            start, end = window.genome_interval(*span)
            found.append(
                {
                    "chrom": gene["contig"],
                    "start": start,
                    "end": end,
                    "name": f"{gene['gene_id']}|{span[0]}-{span[1]}",
                    "gene_id": gene["gene_id"],
                    "element_class": "distal",
                }
            )
    return pd.DataFrame(found)


def weighted_count(codes: np.ndarray, span: tuple[int, int]) -> float:
    """Sum of place weight over the A of a span, in model direction."""
    return float(sum(at // 32 + 1 for at in range(*span) if codes[at] == 0))
