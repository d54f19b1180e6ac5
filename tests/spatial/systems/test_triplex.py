from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from seq2exp.core.config import bind, to_dict
from seq2exp.core.errors import ConfigError
from seq2exp.spatial.batch import SpatialSystem, SystemInfo
from seq2exp.spatial.heads import GeneQueryHead
from seq2exp.spatial.systems.tri_encoders import (
    TRIBRANCH_PRESETS,
    TriBranchConfig,
    spatial_blocks,
    tribranch_preset,
)
from seq2exp.spatial.systems.triplex import BranchPredictions, TriBranch, branch_loss
from tests.spatial.branchtoys import (
    FEAT,
    GENES,
    TOKEN,
    TinyCnn,
    batch_of,
    fit,
    rows,
    section,
    without_gradient,
)

INFO = SystemInfo(num_genes=GENES, feat_dim=FEAT, token_dim=TOKEN, patch_px=32)
TINY = tribranch_preset("tiny")


@pytest.fixture
def batch():
    return batch_of({3: section(1, 9, 3), 5: section(2, 7, 4, origin=(2, -4))})


def system(seed=0, *, info=INFO, config=TINY, perturbed=True, **more):
    torch.manual_seed(seed)
    made = TriBranch(config, info, **more)
    if perturbed:
        nn.init.normal_(made.neighbours.blocks[0].attention.bias)
    return made


@pytest.mark.parametrize("trained", [True, False])
def test_a_spot_is_predicted_the_same_in_any_batch(batch, trained):
    model = system(encoder=TinyCnn() if trained else None).eval()
    assert isinstance(model, SpatialSystem)
    assert model.requires == {"img" if trained else "tokens", "nbr", "nbr_mask", "sections"}
    whole = model.predict(batch)
    assert torch.equal(whole, model.predict(batch))
    assert whole.shape == (16, GENES)
    assert whole.std(dim=0).min() > 1e-3
    order = torch.randperm(16)
    torch.testing.assert_close(model.predict(rows(batch, order)), whole[order])
    single = torch.cat([model.predict(rows(batch, torch.tensor([spot]))) for spot in range(16)])
    torch.testing.assert_close(single, whole)
    # Sections that were encoded before give the same.
    encoded = model.encode_sections(batch.sections)
    torch.testing.assert_close(model.predict(rows(batch, order), encoded=encoded), whole[order])


def test_permuting_the_spots_of_a_section_permutes_predictions(batch):
    model = system().eval()
    first = rows(batch, torch.arange(9))
    whole = model.predict(first)
    order = torch.randperm(9)
    feat, grid = batch.sections[3]
    # Row i of the section is now what was row order[i].
    moved = dataclasses.replace(
        rows(batch, order), spot=torch.arange(9), sections={3: (feat[order], grid[order])}
    )
    torch.testing.assert_close(model.predict(moved), whole[order])
    # The batch does read the section.
    other = dataclasses.replace(first, sections={3: (feat[order], grid)})
    assert not torch.allclose(model.predict(other), whole)


def test_sections_of_other_sizes_do_not_disturb_each_other(batch):
    model = system().eval()
    together = model.predict(batch)
    for name in (3, 5):
        chosen = (batch.section == name).nonzero()[:, 0]
        alone = dataclasses.replace(rows(batch, chosen), sections={name: batch.sections[name]})
        torch.testing.assert_close(model.predict(alone), together[chosen])


def test_what_a_hidden_tile_shows_changes_nothing(batch):
    model = system().eval()
    changed = torch.where(batch.nbr_mask[..., None], batch.nbr, batch.nbr + 100)
    other = dataclasses.replace(batch, nbr=changed)
    before, after = model(batch), model(other)
    for name in ("fused_BG", "target_BG", "neighbour_BG", "global_BG"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name))
    open_ = dataclasses.replace(other, nbr_mask=torch.ones_like(batch.nbr_mask))
    assert not torch.allclose(model(open_).neighbour_BG, before.neighbour_BG)


def test_a_spot_without_any_tile_has_a_finite_prediction_and_gradient(batch):
    model = system()
    alone = dataclasses.replace(batch, nbr_mask=torch.zeros_like(batch.nbr_mask))
    model.loss(alone, 0)["total"].backward()
    assert all(value.grad is None or value.grad.isfinite().all() for value in model.parameters())
    assert model.eval().predict(alone).isfinite().all()


def test_another_bias_in_the_state_changes_predictions_after_eval(batch):
    model = system().eval()
    before = model.predict(batch)
    state = model.state_dict()
    state["neighbours.blocks.0.attention.bias"] = torch.randn(2, 25)
    model.load_state_dict(state)
    assert not torch.allclose(model.predict(batch), before)


@pytest.mark.parametrize("trained", [True, False])
def test_one_step_reaches_every_parameter(batch, trained):
    model = system(encoder=TinyCnn() if trained else None)
    parts = model.loss(batch, 0)
    parts["total"].backward()
    assert without_gradient(model) == []
    names = {"total", "fused", "target", "neighbour", "global"}
    assert parts.keys() == names
    branches = sum(parts[name] for name in names - {"total"})
    torch.testing.assert_close(parts["total"], branches)


def test_the_loss_is_the_published_one():
    """y = 0, fused 1, every branch 2: 1 + 3 (.7 x 4 + .3 x 1) = 10.3."""
    fused = torch.ones(1, 1, requires_grad=True)
    two = torch.full((1, 1), 2.0)
    found = BranchPredictions(fused, two, two, two)
    loss = branch_loss(found, torch.zeros(1, 1), weight=0.3, detach=False)["total"]
    assert loss.item() == pytest.approx(10.3)
    loss.backward()
    # 2 from the labels, and the branches pull: 3 x .3 x 2 (1 - 2).
    assert fused.grad.item() == pytest.approx(2 - 1.8)
    fused.grad = None
    loss = branch_loss(found, torch.zeros(1, 1), weight=0.3, detach=True)["total"]
    assert loss.item() == pytest.approx(10.3)
    loss.backward()
    assert fused.grad.item() == pytest.approx(2)


def test_missing_labels_have_no_say(batch):
    model = system().eval()
    truth = batch.y.clone()
    truth[:, 2] = float("nan")
    truth[4] = float("nan")
    loss = model.loss(dataclasses.replace(batch, y=truth), 0)["total"]
    loss.backward()
    for head in model.heads.values():
        assert head.weight.grad[2].abs().sum() == 0
        assert head.weight.grad[1].abs().sum() > 0
    kept = [spot for spot in range(16) if spot != 4]
    part = rows(dataclasses.replace(batch, y=truth), torch.tensor(kept))
    torch.testing.assert_close(model.loss(part, 0)["total"], loss)


def test_negative_predictions_are_raised_outside_training_only(batch):
    plain, clipped = (
        system(config=dataclasses.replace(TINY, clip_at_zero=flag)).eval() for flag in (False, True)
    )
    torch.testing.assert_close(clipped.predict(batch), plain.predict(batch).clamp(min=0))
    assert (plain.predict(batch) < 0).any()
    torch.testing.assert_close(clipped.loss(batch, 0)["total"], plain.loss(batch, 0)["total"])
    # A gene far below zero is still pulled up.
    with torch.no_grad():
        clipped.heads["fused"].bias.fill_(-50)
    clipped.loss(batch, 0)["fused"].backward()
    assert (clipped.heads["fused"].bias.grad < -1).all()


def test_large_sections_attend_within_blocks(batch):
    limited = system(config=dataclasses.replace(TINY, max_global_spots=4)).eval()
    whole = system().eval()
    assert not torch.allclose(limited.predict(batch), whole.predict(batch))
    assert whole.notes(batch.sections) == []
    assert [note.split(",")[0] for note in limited.notes(batch.sections)] == [
        "section 3: 9 spots",
        "section 5: 7 spots",
    ]
    # 9 spots in 3 x 3 halve to 4 and 5, and 5 to 2 and 3.
    assert "within 3 spatial blocks" in limited.notes(batch.sections)[0]
    # A block knows others by the positions of its border only: far features do not reach in.
    feat, grid = section(4, 32, 16)
    encoder = limited.whole
    before = encoder(feat, grid)
    feat = feat.clone()
    feat[(grid[:, 1] == 15)] += 10
    changed = (encoder(feat, grid) - before).abs().amax(dim=1) > 1e-6
    assert not changed[grid[:, 1] < 10].any()
    assert changed[grid[:, 1] == 15].all()


@pytest.mark.parametrize("limit", [0, 1, 5, 100])
def test_blocks_are_a_partition_that_order_does_not_change(limit):
    grid = torch.cartesian_prod(torch.arange(-3, 5), torch.arange(4))
    parts = spatial_blocks(grid, limit)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(32))
    assert all(len(part) <= (limit or 32) for part in parts)
    order = torch.randperm(32)
    moved = spatial_blocks(grid[order], limit)
    sets = [{frozenset(ids[part].tolist()) for part in found}
            for ids, found in ((torch.arange(32), parts), (order, moved))]  # fmt: skip
    assert sets[0] == sets[1]


def test_saved_weights_predict_the_same(batch, tmp_path):
    from safetensors.torch import load_file, save_file

    model = fit(system(), batch, steps=3)
    save_file(model.state_dict(), tmp_path / "x.safetensors")
    other = system(seed=9)
    other.load_state_dict(load_file(tmp_path / "x.safetensors"), strict=True)
    assert torch.equal(other.eval().predict(batch), model.predict(batch))


class Tokens(nn.Module):
    dim = 6

    def __init__(self, genes):
        super().__init__()
        self.table = nn.Parameter(torch.randn(genes, self.dim))

    def forward(self):
        return self.table


def test_genes_may_come_as_tokens(batch):
    model = system(gene_tokens=Tokens(GENES))
    assert all(isinstance(head, GeneQueryHead) for head in model.heads.values())
    model.loss(batch, 0)["total"].backward()
    assert without_gradient(model) == []
    model.eval()
    before = model.predict(batch)
    # Genes are known by their tokens: exchanged tokens exchange predictions.
    with torch.no_grad():
        model.gene_tokens.table.copy_(model.gene_tokens.table.flip(0))
    torch.testing.assert_close(model.predict(batch), before.flip(1))


def test_features_of_the_models_width_are_not_projected(batch):
    same = dataclasses.replace(INFO, feat_dim=64, token_dim=64)
    assert isinstance(system(info=same).target_in, nn.Identity)
    assert isinstance(system().target_in, nn.Linear)
    with pytest.raises(ConfigError, match="no width of feat"):
        system(info=dataclasses.replace(INFO, feat_dim=0))


def test_what_is_missing_is_named(batch):
    with pytest.raises(ConfigError, match=r"no nbr.*5 x 5 tiles"):
        system().predict(dataclasses.replace(batch, nbr=None))
    with pytest.raises(ConfigError, match="no y"):
        system().loss(dataclasses.replace(batch, y=None), 0)


def test_presets_are_the_published_sets():
    found = {name: (p.depths, p.heads, p.mlp_ratios, p.dropouts)
             for name, p in TRIBRANCH_PRESETS.items()}  # fmt: skip
    assert TRIBRANCH_PRESETS["her2_old"] == TriBranchConfig()
    assert found["her2_old"] == ((1, 5, 4), (4, 8, 4), (4, 4, 4), (0.4, 0.3, 0.3))
    assert found["her2_new"] == ((1, 3, 3), (4, 16, 16), (4, 4, 1), (0.2, 0.1, 0.3))
    assert found["skin_old"] == ((2, 2, 4), (8, 16, 16), (4, 1, 1), (0.1, 0.1, 0.3))
    for name, preset in TRIBRANCH_PRESETS.items():
        made = TriBranch(preset, dataclasses.replace(INFO, feat_dim=512, token_dim=512))
        depths = (len(made.fusion.blocks), len(made.whole.blocks), len(made.neighbours.blocks))
        assert depths == preset.depths, name
    with pytest.raises(ConfigError, match="her2_old"):
        tribranch_preset("her2_odl")


def test_configurations_are_typed_and_checked():
    assert bind(TriBranchConfig, to_dict(TINY), where="x") == TINY
    with pytest.raises(ConfigError, match="dropout"):
        bind(TriBranchConfig, {"dropout1": 0.4}, where="x")
    for wrong in ({"dropouts": (0.4, 1.0, 0.3)}, {"depths": (0, 1, 1)}, {"distill": 1.5},
                  {"neighbour_side": 4}):  # fmt: skip
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            TriBranchConfig(**wrong)
