"""Acceptance tests of the mclSTExp spec that the shared tests do not hold."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from seq2exp.core.errors import ConfigError
from seq2exp.spatial.batch import SystemInfo
from seq2exp.spatial.contrastive_losses import info_nce
from seq2exp.spatial.metrics import columns_pearson
from seq2exp.spatial.retrieval import RetrievalConfig
from seq2exp.spatial.systems.mclstexp import MclSTExp, MclSTExpConfig, SpotTower
from tests.spatial.pairs import latent_pairs, train


def parameters(module):
    return sum(each.numel() for each in module.parameters())


def test_the_loss_starts_at_ln_b_and_leaves_it_on_the_weak_generator():
    pairs = latent_pairs(image_noise=3.0, gene_noise=1.0)
    known, new = pairs.take(pairs.section < 3), pairs.take(pairs.section == 3)
    torch.manual_seed(0)
    system = MclSTExp(MclSTExpConfig(retrieval=RetrievalConfig(k=200)), pairs.info())
    system.train()
    batch = known.batch(np.random.default_rng(0).permutation(len(known))[:128])
    views = system.encode_image(batch), system.encode_genes(batch)
    start = info_nce(*views, scale=1.0).item()
    assert abs(start - math.log(128)) < 0.5
    losses = train(system, known, steps=300)
    assert np.mean(losses[-20:]) < 0.9 * math.log(128)
    # Above what the spec measured for ridge on the same features (.088); patients share a bank.
    bank = system.fit_reference([known.batch()])
    found = bank.query(
        system.encode_image(new.batch()), system.retrieval, patient_B=torch.full((len(new),), -1)
    )
    assert columns_pearson(new.y, found.mean_BG.double().numpy()).mean() > 0.09


def test_the_compatible_spot_encoder_has_the_published_size():
    info = SystemInfo(785, feat_dim=1024, grid_rows=40, grid_cols=40)
    tower = SpotTower(MclSTExpConfig(reference_compat=True), info)
    blocks = parameters(tower.blocks)
    # Two blocks: queries, keys, values; output; two linear maps; two norms.
    per_block = 785 * 1536 + (512 * 785 + 785) + 2 * (785 * 785 + 785) + 4 * 785
    assert blocks == 2 * per_block
    assert blocks == pytest.approx(5.7e6, rel=0.01)
    # Tables are as large as the array, not 65,536 rows.
    assert parameters(tower) - blocks == (40 + 40) * 785
    # In all: the published 116.1 million are 102.9 of tables, 5.7 of blocks, and the image tower.
    plain = SpotTower(MclSTExpConfig(), info)
    assert max(each.shape[0] for each in plain.parameters()) <= 785
    assert parameters(plain) == 2 * (2 * (785 * 785 + 785) + 2 * 785)


def test_positions_off_the_tables_are_refused_in_compatible_mode_only():
    pairs = latent_pairs(image_noise=1.0, gene_noise=1.0, num=40)
    far = replace(pairs, grid=pairs.grid + 100)
    system = MclSTExp(MclSTExpConfig(width=8, reference_compat=True), pairs.info())
    with pytest.raises(ConfigError, match="position tables"):
        system.encode_genes(far.batch())
    plain = MclSTExp(MclSTExpConfig(width=8), pairs.info())
    assert torch.isfinite(plain.encode_genes(far.batch())).all()


def test_compatible_mode_is_plain_products_without_temperature():
    pairs = latent_pairs(image_noise=1.0, gene_noise=1.0, num=32)
    torch.manual_seed(0)
    system = MclSTExp(MclSTExpConfig(width=16, reference_compat=True), pairs.info())
    assert system.scale is None
    assert (system.retrieval.unit, system.retrieval.exclude) == (False, "section")
    batch = pairs.batch()
    logits = system.encode_genes(batch) @ system.encode_image(batch).T
    own = torch.arange(32)
    expected = (
        torch.nn.functional.cross_entropy(logits, own)
        + torch.nn.functional.cross_entropy(logits.T, own)
    ) / 2
    assert torch.allclose(system.loss(batch, 0)["total"], expected, atol=1e-5)
    with pytest.raises(ConfigError, match="reference_compat"):
        MclSTExpConfig(reference_compat=True, context="neighbours")


def test_positions_shift_expression_by_little():
    pairs = latent_pairs(image_noise=1.0, gene_noise=1.0, num=64)
    for position in ("sinusoidal", "mlp"):
        torch.manual_seed(0)
        tower = SpotTower(MclSTExpConfig(position=position), pairs.info())
        shift = tower._position(pairs.batch())
        assert 0.01 < shift.std().item() < 0.03
    assert SpotTower(MclSTExpConfig(position="none"), pairs.info())._position(pairs.batch()) == 0


def test_spots_of_like_expression_are_no_negatives_where_masked():
    pairs = latent_pairs(image_noise=1.0, gene_noise=0.3, num=16)
    twins = replace(pairs, y=np.repeat(pairs.y[:8], 2, axis=0))
    torch.manual_seed(0)
    system = MclSTExp(MclSTExpConfig(width=8, false_negatives="mask"), twins.info())
    batch = twins.batch()
    alike = system._alike(system.labels_of(batch))
    expected = torch.block_diag(*[torch.ones(2, 2)] * 8).bool()
    assert torch.equal(alike, expected)
    plain = MclSTExp(MclSTExpConfig(width=8), twins.info())
    plain.load_state_dict(system.state_dict())
    assert system.loss(batch, 0)["total"] < plain.loss(batch, 0)["total"]


def test_neighbours_of_another_section_do_not_matter():
    pairs = latent_pairs(image_noise=1.0, gene_noise=1.0, num=80)
    torch.manual_seed(0)
    system = MclSTExp(MclSTExpConfig(width=8, context="neighbours"), pairs.info())
    system.train().loss(pairs.batch(), 0)
    system.eval()
    both = system.encode_genes(pairs.batch())
    rows = np.flatnonzero(pairs.section == 1)
    assert torch.allclose(system.encode_genes(pairs.batch(rows)), both[rows], atol=1e-5)
    lonely = torch.cat([system.encode_genes(pairs.batch([row])) for row in rows])
    assert not torch.allclose(lonely, both[rows], atol=1e-3)
