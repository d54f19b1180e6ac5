"""Small engines for tests: known scores, tables of alleles, a genome turned around."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from torch import nn

from seq2exp.core.sequence import N_CODE
from seq2exp.dataset import format as layout
from seq2exp.dataset.samples import SampleConfig
from seq2exp.dataset.store import Dataset
from seq2exp.models import Seq2Exp, Seq2ExpConfig
from seq2exp.models.output import Seq2ExpOutput
from seq2exp.nn.sequence import one_hot
from seq2exp.nn.stem import StemConfig
from seq2exp.training.run import TrainedRun
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.engine import open_engine
from seq2exp.variation.alleles import CLASSES, STATUSES, normalise_all
from tests.elements.fakes import fake_run

WINDOW, BIN = 1024, 32


class Additive(nn.Module):
    """y_k = (k + 1) x sum over bases of weight[index from the TSS, base]; everything in float64."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.weight_LC = nn.Parameter(torch.randn(WINDOW, 4, generator=random).double())
        self.config = SimpleNamespace(mask="none", rc_average=False)

    def one_strand(self, call):
        columns_BLC = one_hot(call.codes_BL, dtype=torch.float64)
        total_B = (columns_BLC * self.weight_LC).sum((1, 2))
        ones_BN = total_B.new_ones((len(total_B), WINDOW // BIN))
        return Seq2ExpOutput(
            expression_BK=torch.stack([total_B, 2 * total_B], 1),
            mask_BN=ones_BN, mean_BN=ones_BN, alpha_BN=None, beta_BN=None,
            kl_B=total_B * 0, track_loss_B=total_B * 0, embedding_BD=total_B[:, None],
        )  # fmt: skip

    def value(self, codes: np.ndarray) -> float:
        """The first output for one window, added up base by base."""
        weight = self.weight_LC.detach().numpy()
        return float(sum(weight[i, c] for i, c in enumerate(codes) if c < N_CODE))


def seq2exp(dataset: Dataset, *, seed: int = 0, **changes) -> Seq2Exp:
    """An untrained model with large weights, so that every base matters."""
    torch.manual_seed(seed)
    card = fake_run(dataset).card
    settings = {
        "window_bp": WINDOW, "bin_size": BIN, "tracks": tuple(card.tracks), "num_outputs": 2,
        "num_features": len(card.features), "d_model": 8, "d_state": 2, "promoter_bp": 128,
        "readout_bp": 128, "stem": StemConfig(channels=4, width=9),
    } | changes  # fmt: skip
    model = Seq2Exp(Seq2ExpConfig(**settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model.eval()


def run_of(dataset: Dataset, *models: nn.Module, strand: str = "gene", **sample) -> TrainedRun:
    """A run of these models."""
    config = SampleConfig(window_bp=WINDOW, bin_size=BIN, strand=strand, **sample)
    run = fake_run(dataset, config=config)
    return TrainedRun(run.folder, list(models), run.card)


def table_of(dataset: Dataset, alleles: Iterable[tuple[str, int, str, str]]) -> pd.DataFrame:
    """A table of alleles (contig, 0-based position, REF, ALT), each a record of its own."""
    rows = list(alleles)
    parts = []
    for number, (contig, position, ref, alt) in enumerate(rows):
        codes = dataset.contig_codes(contig) if contig in dataset.manifest.contigs else None
        found = normalise_all(np.array([position]), [ref], [alt], reference_codes=codes)
        parts.append(
            {
                "record": number, "allele": 1, "chrom": contig,
                "contig": contig if codes is not None else None,
                "position": position, "id": ".", "ref": ref, "alt": alt, "gene": "",
                "haplotype": "", "norm_position": int(found.position_M[0]),
                "norm_ref": found.refs[0], "norm_alt": found.alts[0],
                "variant_type": CLASSES[found.class_M[0]],
                "ref_status": STATUSES[found.status_M[0]],
                "was_normalised": bool(found.changed_M[0]),
            }
        )  # fmt: skip
    return pd.DataFrame(parts)


@contextmanager
def engine_of(dataset: Dataset, models: Sequence[nn.Module], *, strand: str = "gene", **settings):
    """An engine of these models; without shifts, where none are named."""
    settings = {"shifts": (0,), **settings}
    with open_engine(
        run_of(dataset, *models, strand=strand), dataset, ScoreConfig(**settings)
    ) as e:
        yield e


def turned_around(dataset: Dataset, root: Path) -> Dataset:
    """The same genome and genes read from the other strand; tracks are left as they are."""
    shutil.copytree(dataset.root, root)
    lengths = dataset.manifest.contigs
    for contig in lengths:
        codes = np.asarray(dataset.contig_codes(contig))
        turned = np.where(codes < N_CODE, 3 - codes, codes)[::-1].astype(np.uint8)
        np.save(layout.sequence_path(root, contig), turned)
    genes = dataset.genes.copy()
    genes["tss"] = [
        lengths[contig] - 1 - tss for contig, tss in zip(genes["contig"], genes["tss"], strict=True)
    ]
    genes["strand"] = genes["strand"].map({"+": "-", "-": "+"})
    layout.write_table(genes, layout.genes_path(root))
    layout.finish_manifest(root, dataset.manifest)
    return Dataset(root)
