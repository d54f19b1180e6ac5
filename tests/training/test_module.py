from __future__ import annotations

import pytest
import torch
from torch import nn

from seq2exp.dataset.samples import Batch
from seq2exp.models.registry import build_model
from seq2exp.training.config import OptimConfig
from seq2exp.training.module import (
    ExpressionModule,
    forward_batch,
    learning_rate,
    parameter_groups,
)
from tests.runs import MODEL


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 1e-5), (2_500, 2.55e-4), (5_000, 5e-4), (27_500, 3e-4), (50_000, 1e-4)],
)
def test_schedule_follows_the_published_values(step, expected):
    # Linear 1e-5 -> 5e-4 over 5,000 steps; cosine to 1e-4: half way it is the mean, 3e-4.
    assert learning_rate(step, 50_000, OptimConfig()) == pytest.approx(expected)


def test_schedule_stays_at_the_end_value_and_works_without_warm_up():
    config = OptimConfig(warmup_fraction=0.0)
    assert learning_rate(0, 10, config) == config.lr
    assert learning_rate(99, 10, config) == pytest.approx(config.final_lr)


def test_decay_spares_biases_norms_and_the_state_matrix():
    params = {k: v for k, v in MODEL.items() if k != "name"}
    model = build_model(
        "seq2exp", {**params, "tracks": ["DNase"], "window_bp": 512, "bin_size": 32}
    )
    decayed, spared = (
        {id(p) for p in group["params"]} for group in parameter_groups(model, weight_decay=0.1)
    )
    by_name = dict(model.named_parameters())
    trainable = {name for name, p in by_name.items() if p.requires_grad}
    assert len(decayed) + len(spared) == len({id(by_name[name]) for name in trainable})
    states = [name for name in trainable if "A_log" in name]
    assert states
    assert all(id(by_name[name]) in spared for name in states)
    assert all(id(by_name[name]) in spared for name in trainable if name.endswith("bias"))
    assert all(id(by_name[n]) in decayed for n in trainable if n.endswith("proj.weight"))


def test_groups_of_a_plain_layer():
    first, second = parameter_groups(nn.Linear(2, 3), weight_decay=0.1)
    assert [tuple(p.shape) for p in first["params"]] == [(3, 2)]
    assert [tuple(p.shape) for p in second["params"]] == [(3,)]
    assert (first["weight_decay"], second["weight_decay"]) == (0.1, 0.0)
    assert isinstance(first["params"][0], torch.Tensor)


def auxiliary_model(weight, **changes):
    params = {k: v for k, v in MODEL.items() if k != "name"}
    params |= {"tracks": ["DNase"], "window_bp": 512, "bin_size": 32, "track_loss_weight": weight}
    torch.manual_seed(0)
    return build_model("seq2exp", params | changes)


def batch_of(model, genes=4):
    generator = torch.Generator().manual_seed(1)
    config = model.config
    shape = (genes, config.num_bins)
    return Batch(
        codes_BL=torch.randint(
            0, 4, (genes, config.window_bp), generator=generator, dtype=torch.uint8
        ),
        signal_BNT=torch.rand(*shape, 1, generator=generator),
        features_BF=torch.zeros(genes, 0),
        expression_BK=torch.rand(genes, 1, generator=generator),
        blacklist_BN=torch.zeros(shape, dtype=torch.bool),
        valid_BN=torch.ones(shape, dtype=torch.bool),
        index_B=torch.arange(genes),
        elements_BR2=torch.full((genes, 0, 2), -1, dtype=torch.int32),
    )


def test_total_loss_holds_the_weighted_track_loss():
    """total(weight) = prediction + kl_weight KL + weight mean(track_loss_B)."""
    totals = {}
    for weight in (1.0, 3.0):
        model = auxiliary_model(weight)
        batch = batch_of(model)
        module = ExpressionModule(model, OptimConfig(), total_steps=10)
        module.on_train_epoch_start()
        torch.manual_seed(0)
        totals[weight] = module.training_step(batch, 0).item()
        torch.manual_seed(0)
        aux = forward_batch(model, batch).track_loss_B.mean().item()
        assert module._sums["train_track_loss"] == pytest.approx(aux * len(batch))
    assert aux > 0.1
    assert totals[3.0] - totals[1.0] == pytest.approx(2 * aux, rel=1e-5)


def test_history_names_the_track_loss_only_where_there_is_one():
    module = ExpressionModule(auxiliary_model(0.0), OptimConfig(), total_steps=10)
    module.on_train_epoch_start()
    module.training_step(batch_of(module.model), 0)
    assert "train_track_loss" not in module._sums


def test_lookup_tables_may_decay_on_their_own():
    model = nn.Sequential(nn.Embedding(4, 2), nn.Linear(2, 3))
    groups = parameter_groups(model, 0.1, embedding_decay=3.0)
    assert [(tuple(p.shape), g["weight_decay"]) for g in groups for p in g["params"]] == [
        ((3, 2), 0.1),
        ((4, 2), 3.0),
        ((3,), 0.0),
    ]
    plain = parameter_groups(model, 0.1)
    assert [group["weight_decay"] for group in plain] == [0.1, 0.1, 0.0]
