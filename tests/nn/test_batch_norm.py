"""Batch norm that is run again: gradients of the plain run, statistics that move once."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from seq2exp.nn.batch_norm import BatchNorm, run_again_in_backward


def make_net(**options):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(3, 4, 3), BatchNorm(4, **options), nn.Dropout(0.3)).double()


def state(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def assert_same(one, other):
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_the_second_run_changes_nothing(statistics):
    plain = make_net(statistics=statistics)
    again = copy.deepcopy(plain)
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    gradients = []
    for net, run in ((plain, plain), (again, lambda x: run_again_in_backward(again, x))):
        torch.manual_seed(1)
        leaf = x.clone().requires_grad_()
        out = run(leaf)
        gradients.append(torch.autograd.grad(out.square().sum(), [leaf, *net.parameters()]))
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)
    assert_same(state(plain), state(again))
    assert int(again[1].num_batches_tracked) == (1 if statistics == "batch" else 0)
    assert not again[1].is_replay


def test_statistics_of_the_batch_are_those_of_torch():
    ours, theirs = BatchNorm(4), nn.BatchNorm1d(4)
    x = torch.randn(3, 4, 5)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=0, atol=0)


def test_running_statistics_stay_and_do_not_join_the_batch():
    norm = BatchNorm(4, statistics="running").train()
    with torch.no_grad():
        norm.running_mean += torch.randn(4)
        norm.running_var *= 2
    before, x = state(norm), torch.randn(3, 4, 5)
    together = norm(x)
    alone = torch.cat([norm(row[None]) for row in x])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    assert_same(before, state(norm))


def test_without_gradients_the_module_simply_runs():
    net = make_net().eval()
    x = torch.randn(1, 3, 8, dtype=torch.float64)
    with torch.no_grad():
        out = run_again_in_backward(net, x)
    assert torch.equal(out, net(x).detach())
    assert not out.requires_grad
