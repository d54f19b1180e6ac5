from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from seq2exp.training.module import parameter_groups
from seq2exp.training.optimizer import TableAdamW

LR, BETAS, EPS, DECAY = 0.1, (0.8, 0.9), 1e-8, 0.5


def words_and_layer():
    torch.manual_seed(0)
    return nn.ModuleDict({"words": nn.Embedding(6, 3), "out": nn.Linear(3, 1)})


def loss_of(model, words):
    return model["out"](model["words"](torch.tensor(words)).sum(0)).square().sum()


def optimizer_of(model, **options):
    return TableAdamW(parameter_groups(model, DECAY, **options), lr=LR, betas=BETAS, eps=EPS)


def take_step(model, optimizer, words):
    optimizer.zero_grad()
    loss_of(model, words).backward()
    optimizer.step()


def test_two_steps_of_a_table_follow_the_formula():
    table = nn.Embedding(4, 2)
    start = table.weight.detach().clone()
    grads = [torch.tensor([[1.0, -2.0], [0, 0], [3.0, 0], [0, 0.5]]), torch.ones(4, 2)]
    optimizer = optimizer_of(nn.Sequential(table))
    for grad in grads:
        table.weight.grad = grad
        optimizer.step()
    # By hand: moments of two steps, the second as the mean over the four rows of each column.
    m1 = 0.2 * grads[0]
    v1 = 0.1 * (grads[0] ** 2).mean(0)
    w1 = start * (1 - LR * DECAY) - LR * (m1 / 0.2) / ((v1 / 0.1).sqrt() + EPS)
    m2, v2 = 0.8 * m1 + 0.2 * grads[1], 0.9 * v1 + 0.1
    w2 = w1 * (1 - LR * DECAY) - LR * (m2 / (1 - 0.8**2)) / ((v2 / (1 - 0.9**2)).sqrt() + EPS)
    torch.testing.assert_close(table.weight.detach(), w2)


def test_rows_move_in_proportion_to_their_gradients_and_not_so_in_plain_adam():
    moved = {}
    for moment in ("column", "element"):
        model = nn.Sequential(nn.Embedding(2, 1))
        before = model[0].weight.detach().clone()
        optimizer = TableAdamW(
            parameter_groups(model, 0.0, embedding_moment=moment), lr=LR, betas=BETAS
        )
        model[0].weight.grad = torch.tensor([[8.0], [0.5]])
        optimizer.step()
        moved[moment] = ((model[0].weight.detach() - before)[:, 0] / -LR).tolist()
    assert moved["column"][0] / moved["column"][1] == pytest.approx(16, rel=1e-4)
    assert moved["element"] == pytest.approx([1, 1], rel=1e-4)


@pytest.mark.parametrize("moment", ["column", "element"])
def test_everything_else_is_adamw(moment):
    """Other weights, and under `element` tables too, take the very steps of torch's AdamW."""
    ours, theirs = words_and_layer(), words_and_layer()
    if moment == "column":
        for model in (ours, theirs):
            model["words"].weight.requires_grad_(False)
    first = optimizer_of(ours, embedding_moment=moment)
    groups = [
        {key: value for key, value in group.items() if key != "shared_moment"}
        for group in parameter_groups(theirs, DECAY)
    ]
    second = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS)
    for words in ([0, 1], [1, 2], [3]):
        for model, optimizer in ((ours, first), (theirs, second)):
            take_step(model, optimizer, words)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_restored_optimizer_goes_on_exactly():
    whole = words_and_layer()
    optimizer = optimizer_of(whole)
    for words in ([0, 1], [2]):
        take_step(whole, optimizer, words)
    restored = copy.deepcopy(whole)
    other = optimizer_of(restored)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for model, stepper in ((whole, optimizer), (restored, other)):
        take_step(model, stepper, [1, 4, 4])
    for a, b in zip(whole.parameters(), restored.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_closure_runs_with_gradients_and_its_loss_comes_back():
    model = words_and_layer()
    optimizer = optimizer_of(model)
    before = model["words"].weight.detach().clone()

    def closure():
        loss = loss_of(model, [0, 5])
        loss.backward()
        return loss

    assert optimizer.step(closure).item() > 0
    changed = (model["words"].weight.detach() - before * (1 - LR * DECAY)).abs().sum(1) > 1e-6
    assert changed.tolist() == [True, False, False, False, False, True]
