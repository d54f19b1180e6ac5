"""A model whose mask is a known function of the tracks, so that every output can be recomputed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from seq2exp.dataset.samples import GeneSamples, SampleConfig
from seq2exp.dataset.store import Dataset
from seq2exp.models.masking import central_span, force_mask
from seq2exp.models.seq2exp import Seq2ExpOutput
from seq2exp.training.checkpoint import ModelCard
from seq2exp.training.run import TrainedRun

PROMOTER_BP = 256


class TrackMask(nn.Module):
    """Beta(1 + gain * DNase, 2): its mean rises with the first track."""

    def __init__(self, config: SampleConfig, *, gain: float = 1.0, num_outputs: int = 2) -> None:
        super().__init__()
        self.config = SimpleNamespace(promoter_bp=PROMOTER_BP)
        self.gain = gain
        self.num_outputs = num_outputs
        num_bins = config.window_bp // config.bin_size
        self.span = central_span(num_bins, bin_size=config.bin_size, central_bp=PROMOTER_BP)

    def forward(self, codes_BL, signal_BNT, features_BF, *, blacklist_BN=None, **_):
        alpha_BN = 1 + self.gain * signal_BNT[..., 0]
        beta_BN = torch.full_like(alpha_BN, 2.0)
        mean_BN = alpha_BN / (alpha_BN + beta_BN)
        mask_BN, _ = force_mask(mean_BN, blacklist_BN=blacklist_BN, promoter=self.span)
        batch = len(codes_BL)
        return Seq2ExpOutput(
            expression_BK=mask_BN.mean(1, keepdim=True).expand(batch, self.num_outputs),
            mask_BN=mask_BN,
            mean_BN=mean_BN,
            alpha_BN=alpha_BN,
            beta_BN=beta_BN,
            track_loss_B=torch.zeros(batch),
            kl_B=torch.zeros(batch),
            embedding_BD=mask_BN[:, :4],
        )


def fake_run(
    dataset: Dataset,
    *,
    folder: Path = Path("run"),
    config: SampleConfig | None = None,
    gains: tuple[float, ...] = (1.0,),
) -> TrainedRun:
    """Return a run of one member per gain that reads windows of 1,024 bases in bins of 32."""
    config = config or SampleConfig(window_bp=1024, bin_size=32)
    samples = GeneSamples(dataset, config, [0])
    card = ModelCard(
        model={"name": "fake"},
        data=config,
        tracks=samples.track_names,
        features=samples.feature_names,
        samples=samples.sample_names,
        assembly=dataset.manifest.assembly,
        expression_unit="TPM",
        expression_transform="log10p1",
        dataset_checksum=dataset.manifest.checksum,
        train_contigs=["chr1"],
        dataset_bin_size=dataset.manifest.bin_size,
    )
    models = [TrackMask(config, gain=gain) for gain in gains]
    return TrainedRun(folder, models, card)
