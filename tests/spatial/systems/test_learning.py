"""Systems on simulated tissue, judged on a section they have not seen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV
from torch import nn

from seq2exp.spatial.batch import SystemInfo
from seq2exp.spatial.colour import colour_stats
from seq2exp.spatial.metrics import columns_pearson
from seq2exp.spatial.systems.nsl import MeanDensityRidge, Nsl, NslConfig
from seq2exp.spatial.systems.stnet import StNet, StNetConfig
from seq2exp.spatial.systems.tri_encoders import tribranch_preset
from seq2exp.spatial.systems.triplex import TriBranch
from tests.spatial.branchtoys import TinyCnn, fit
from tests.spatial.tissue_batches import joined, scaled, simulated_tissue

pytest.importorskip("anndata")


def score(truth, guess):
    """Mean over genes of the correlation across spots."""
    return float(np.nan_to_num(columns_pearson(truth.double().numpy(), guess.double().numpy()))
                 .mean())  # fmt: skip


def predicted(system, batch):
    with torch.no_grad():
        return system.eval().predict(batch)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Three sections to train on, one to test on; training labels standardised."""
    tissue = simulated_tissue(tmp_path_factory.mktemp("tissue"), seed=0)
    names = list(tissue.batches)
    train, test = joined(tissue, names[:3]), joined(tissue, names[3:])
    known, hidden = scaled(train, train), scaled(test, train)
    y = (train.y - train.y.mean(dim=0)) / train.y.std(dim=0)
    return dataclasses.replace(known, y=y), hidden, (train.feat[:, :3], test.feat[:, :3])


@pytest.fixture(scope="module")
def floor(parts):
    """Ridge on the mean colour of the patch."""
    train, test, colour = parts
    ridge = RidgeCV(np.logspace(-6, 3, 20)).fit(colour[0].double(), train.y.double())
    return score(test.y, torch.from_numpy(ridge.predict(colour[1].double())))


def test_three_branches_learn_more_than_mean_colour(parts, floor):
    train, test, _ = parts
    torch.manual_seed(0)
    info = SystemInfo(num_genes=60, feat_dim=train.feat.shape[1], patch_px=32)
    model = TriBranch(tribranch_preset("tiny"), info, encoder=TinyCnn())
    fit(model, train, steps=80, lr=3e-3, size=64)
    found = score(test.y, predicted(model, test))
    assert found > floor + 0.1
    # Features of other spots do not serve.
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    wrong = dataclasses.replace(
        test, img=test.img[order], nbr=test.nbr[order], nbr_mask=test.nbr_mask[order],
        sections={name: (feat[order], grid) for name, (feat, grid) in test.sections.items()},
    )  # fmt: skip
    assert abs(score(test.y, predicted(model, wrong))) < 0.2


def test_a_linear_read_out_of_good_features_does_too(parts, floor):
    train, test, _ = parts
    torch.manual_seed(0)
    model = StNet(StNetConfig(), SystemInfo(num_genes=60, feat_dim=train.feat.shape[1]))
    fit(model, train, steps=300, lr=1e-2, decay=0.1)
    assert score(test.y, predicted(model, test)) > floor + 0.1


def test_a_network_of_its_own_learns_from_patches(parts):
    train, test, _ = parts
    torch.manual_seed(0)
    model = StNet(StNetConfig(), SystemInfo(num_genes=60), encoder=TinyCnn())
    fit(model, train, steps=150, lr=3e-3, size=64)
    assert score(test.y, predicted(model, test)) > 0.4


def test_eleven_colours_learn_what_colour_holds(parts, floor):
    train, test, _ = parts
    config = NslConfig(pixels_per_step=128)
    info = SystemInfo(num_genes=60, patch_px=32)
    model = Nsl(config, info)
    model.fit_labels(train.y)
    fit(model, train, steps=100, lr=2e-2, size=100)
    control = MeanDensityRidge(config, info)
    control.fit(control.mean_density(train), train.y)
    plain = score(test.y, control.predict(test))
    assert plain == pytest.approx(floor, abs=0.1)
    assert score(test.y, predicted(model, test)) > plain - 0.05


# The dial of the prior ------------------------------------------------------------------------


class Prior(nn.Module):
    """Tokens of genes that are not learnt."""

    def __init__(self, z):
        super().__init__()
        self.dim = z.shape[1]
        self.register_buffer("z", torch.tensor(z, dtype=torch.float32))

    def forward(self):
        return self.z


def hidden_gene_score(tissue, z, seen, hidden):
    names = list(tissue.batches)
    train, test = joined(tissue, names[:3]), joined(tissue, names[3:])
    mean, sd = train.feat.mean(dim=0), train.feat.std(dim=0) + 1e-6
    train = dataclasses.replace(
        train, feat=(train.feat - mean) / sd, y=(train.y - train.y.mean(dim=0))[:, seen]
    )
    test = dataclasses.replace(test, feat=((test.feat - mean) / sd).clamp(-4, 4))
    torch.manual_seed(0)
    info = SystemInfo(num_genes=len(seen), feat_dim=train.feat.shape[1])
    model = StNet(StNetConfig(gene_rank=8), info, gene_tokens=Prior(z[seen]))
    fit(model, train, steps=150, size=100, decay=0.1)
    model.gene_tokens = Prior(z[hidden])
    return score(test.y[:, hidden], predicted(model, test))


def test_the_prior_tells_hidden_genes_as_much_as_the_dial_says(tmp_path):
    seen, hidden = np.arange(60), np.arange(60, 80)
    own, shuffled = {}, {}
    for rho in (0.0, 0.5, 1.0):
        folder = tmp_path / str(rho)
        tissue = simulated_tissue(
            folder,
            tiles=False,
            seed=0,
            prior_share=rho,
            noise=0.05,
            batch_effect=0.0,
            num_genes=80,
            depth=20_000.0,
        )
        for name, batch in tissue.batches.items():
            patches = (batch.img * 255).round().byte().permute(0, 2, 3, 1).numpy()
            feat = torch.tensor(np.stack([colour_stats(patch) for patch in patches]))
            tissue.batches[name] = dataclasses.replace(batch, feat=feat)
        z = tissue.truth.z_GZ
        own[rho] = hidden_gene_score(tissue, z, seen, hidden)
        orders = [np.random.default_rng(seed).permutation(80) for seed in (1, 2)]
        shuffled[rho] = np.mean(
            [hidden_gene_score(tissue, z[order], seen, hidden) for order in orders]
        )
    assert own[1.0] > 0.8
    assert own[1.0] > own[0.5] + 0.1
    assert own[0.5] > own[0.0] + 0.3
    assert abs(own[0.0]) < 0.2
    assert all(abs(value) < 0.15 for value in shuffled.values())
