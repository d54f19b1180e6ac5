"""Acceptance tests of the HESCAPE spec that the shared tests do not hold."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seq2exp.spatial.batch_effects import between_share
from seq2exp.spatial.contrastive_losses import info_nce, siglip
from seq2exp.spatial.genes import GeneInputs
from seq2exp.spatial.metrics import columns_pearson
from seq2exp.spatial.probes import ridge_fit
from seq2exp.spatial.recall import recall_table
from seq2exp.spatial.systems.hescape import Hescape, HescapeConfig
from tests.spatial.pairs import Pairs, batch_effect_pairs, train

LINEAR = HescapeConfig(
    width=8, image_head="linear", gene="linear", gene_width=8, dropout=0.0, temperature=0.1
)


def aligned(effect, negatives, *, seed=0, steps=400):
    """Linear towers on the generator; ridge of centred expression on held-out slides."""
    pairs = batch_effect_pairs(effect, seed=seed)
    known = pairs.section < 12
    torch.manual_seed(seed)
    system = Hescape(replace(LINEAR, negatives=negatives), pairs.info())
    losses = train(system, pairs.take(known), steps=steps, lr=3e-3, seed=seed)
    z = system.embed(pairs.batch()).double().numpy()
    y = pairs.y.copy()
    for slide in range(16):
        y[pairs.section == slide] -= y[pairs.section == slide].mean(axis=0)
    weights, intercept = ridge_fit(z[known], y[known], alpha=1.0)
    parts = [(y[rows], z[rows] @ weights + intercept)
             for rows in (pairs.section == slide for slide in range(12, 16))]  # fmt: skip
    pearson = np.mean([columns_pearson(*part).mean() for part in parts])
    return pearson, between_share(z, pairs.section), losses


@pytest.fixture(scope="module")
def measured():
    return {
        (effect, negatives): [aligned(effect, negatives, seed=seed) for seed in range(seeds)]
        for effect, seeds in ((0, 1), (1, 2), (3, 1))
        for negatives in ("any", "within_slide")
    }


def test_negatives_within_the_slide_repair_what_batch_effects_break(measured):
    pearson = {key: np.mean([run[0] for run in runs]) for key, runs in measured.items()}
    share = {key: np.mean([run[1] for run in runs]) for key, runs in measured.items()}
    assert abs(pearson[0, "within_slide"] - pearson[0, "any"]) < 0.02
    assert pearson[0, "any"] > 0.57
    assert pearson[1, "within_slide"] - pearson[1, "any"] > 0.03
    assert pearson[3, "within_slide"] > pearson[3, "any"] + 0.02
    assert share[0, "any"] < 0.02
    for effect in (1, 3):
        assert share[effect, "within_slide"] < share[effect, "any"] / 2


def test_the_loss_leaves_ln_b_on_the_generator(measured):
    for runs in measured.values():
        for _, _, losses in runs:
            assert np.mean(losses[-20:]) < 0.9 * math.log(128)


def test_recall_is_that_of_the_embeddings_whatever_the_batches():
    pairs = batch_effect_pairs(1.0, num_slides=4, num_spots=100)
    torch.manual_seed(0)
    system = Hescape(LINEAR, pairs.info())
    train(system, pairs, steps=60, lr=3e-3)

    def recall(order, size):
        parts = [pairs.batch(order[at : at + size]) for at in range(0, 400, size)]
        with torch.no_grad():
            views = [
                torch.cat([view(part) for part in parts]).numpy()
                for view in (system.encode_image, system.encode_genes)
            ]
        return recall_table(*views, section_S=pairs.section[order], spot_S=pairs.spot[order])

    whole = recall(np.arange(400), 400)
    pieces = recall(np.random.default_rng(0).permutation(400), 7)
    assert whole.equals(pieces)
    assert (whole["recall"] > 2 * whole["chance"])[whole["k"] == 5].all()


@pytest.mark.parametrize("tower", ["image.head", "project"])
@pytest.mark.parametrize("objective", ["clip", "siglip"])
def test_the_length_of_a_tower_s_output_carries_nothing(tower, objective):
    pairs = batch_effect_pairs(0.0, num_slides=2, num_spots=40)
    torch.manual_seed(0)
    system = Hescape(replace(LINEAR, objective=objective), pairs.info()).train()
    batch = pairs.batch()
    system.loss(batch, 0)
    system.eval()
    before = system.loss(batch, 0)["total"].detach()
    with torch.no_grad():
        for each in system.get_submodule(tower).parameters():
            each.mul_(10.0)
    assert torch.allclose(system.loss(batch, 0)["total"], before, atol=1e-4)


def test_the_scale_ends_in_its_bounds_however_hard_it_is_driven():
    pairs = batch_effect_pairs(0.0, num_slides=2, num_spots=60)
    torch.manual_seed(0)
    system = Hescape(LINEAR, pairs.info())
    train(system, pairs, steps=80, lr=0.3, batch_size=8)
    assert 0 <= system.scale.log_scale.item() <= math.log(100) + 1e-6
    for driven, kept in ((9.0, math.log(100)), (-3.0, 0.0), (2.0, 2.0)):
        system.scale.log_scale.data.fill_(driven)
        system.after_step()
        assert system.scale.log_scale.item() == pytest.approx(kept)


@pytest.mark.parametrize(("objective", "formula"), [("clip", info_nce), ("siglip", siglip)])
def test_the_objective_is_the_one_that_was_asked_for(objective, formula):
    pairs = batch_effect_pairs(0.0, num_slides=2, num_spots=16)
    torch.manual_seed(0)
    system = Hescape(replace(LINEAR, objective=objective, temperature=0.2), pairs.info())
    batch = pairs.batch()
    system.loss(batch, 0)
    system.eval()
    views = system.encode_image(batch), system.encode_genes(batch)
    more = {"bias": system.bias} if objective == "siglip" else {}
    expected = formula(*views, scale=system.scale().item(), **more)
    assert torch.allclose(system.loss(batch, 0)["total"], expected, atol=1e-6)


def test_evaluation_is_deterministic_and_chance_is_said():
    pairs = batch_effect_pairs(0.0, num_slides=2, num_spots=32)
    torch.manual_seed(0)
    system = Hescape(HescapeConfig(width=8), pairs.info())
    parts = system.loss(pairs.batch(), 0)
    assert parts["ln_b"].item() == pytest.approx(math.log(64))
    system.eval()
    assert torch.equal(system.encode_image(pairs.batch()), system.encode_image(pairs.batch()))
    other = Hescape(HescapeConfig(width=8, objective="siglip"), pairs.info())
    guess = other.loss(pairs.batch(), 0)["ln_b"].item()
    # The least loss of one logit for all pairs, of which 64 in 64^2 are true.
    logits = torch.linspace(-8, 0, 2001, dtype=torch.float64)
    least = (-F.logsigmoid(logits) - 63 * F.logsigmoid(-logits)).min().item()
    assert guess == pytest.approx(least, abs=1e-4)


def prior_pairs(seed=0):
    """Genes whose loadings are their prior, in two halves of a panel."""
    random = np.random.default_rng(seed)
    num, genes = 1500, 200
    u, z = random.normal(size=(num, 8)), random.normal(size=(genes, 8))
    image = u @ random.normal(size=(8, 64)) / 8**0.5 + 0.3 * random.normal(size=(num, 64))
    y = u @ z.T / 8**0.5 + 0.3 * random.normal(size=(num, genes))
    section = np.arange(num) * 3 // num
    place = np.arange(num) % 500
    grid = np.stack([place // 25, place % 25], axis=1)
    inputs = GeneInputs(tuple(f"g{i}" for i in range(genes)), {"z": z.astype(np.float32)})
    return Pairs(image, y, section, section, grid), inputs


@pytest.mark.parametrize("gene", ["priorpool", "tokens"])
def test_the_true_prior_carries_alignment_to_genes_never_seen(gene):
    pairs, inputs = prior_pairs()
    order = np.random.default_rng(1).permutation(200)
    shuffled = replace(inputs, features={"z": inputs.features["z"][order]})
    known, new = pairs.take(pairs.section < 2), pairs.take(pairs.section == 2)
    seen, hidden = inputs.gene_id[:100], inputs.gene_id[100:]
    recall = {}
    for arm, source in (("seq", inputs), ("shuffled", shuffled)):
        torch.manual_seed(0)
        config = HescapeConfig(width=16, gene=gene, gene_width=32, dropout=0.0)
        half = replace(known, y=known.y[:, :100])
        system = Hescape(config, half.info(), genes=source.take(seen))
        train(system, half, steps=150, lr=3e-3)
        own = replace(new, y=new.y[:, :100])
        other = replace(new, y=new.y[:, 100:])
        for panel, data in (("seen", own), ("hidden", other)):
            if panel == "hidden":
                system.use_genes(source.take(hidden), [replace(known, y=known.y[:, 100:]).batch()])
            with torch.no_grad():
                views = [
                    f(data.batch()).numpy() for f in (system.encode_image, system.encode_genes)
                ]
            table = recall_table(
                *views, section_S=data.section, spot_S=data.spot, sizes=(64,), ks=(5,)
            )
            recall[arm, panel] = table["recall"].mean()
    chance = 5 / 64
    assert recall["seq", "seen"] > 5 * chance
    assert recall["seq", "hidden"] > 3 * chance
    # Seen genes can be learned whatever their prior.
    assert recall["shuffled", "seen"] > 2 * chance
    assert recall["shuffled", "hidden"] < 2 * chance
