from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from seq2exp.spatial.losses import distill, mse, mse_per_gene, pearson, pearson_per_gene

NAN = math.nan


def test_labels_that_are_missing_are_left_out_of_value_and_gradient():
    guess = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    truth = torch.tensor([[0.0, NAN], [1.0, 2.0]])
    # Errors 1, 2, 2 over three labels.
    loss = mse(guess, truth)
    assert loss.item() == pytest.approx((1 + 4 + 4) / 3)
    loss.backward()
    torch.testing.assert_close(guess.grad, torch.tensor([[2 / 3, 0.0], [4 / 3, 4 / 3]]))
    torch.testing.assert_close(mse_per_gene(guess, truth), torch.tensor([2.5, 4.0]))


def test_nothing_to_learn_from_is_zero_with_a_gradient_of_zero():
    guess = torch.ones(2, 2, requires_grad=True)
    truth = torch.full((2, 2), NAN)
    for loss in (mse(guess, truth), distill(guess, guess * 2, truth, weight=0.3, detach=False)):
        assert loss.item() == 0
        loss.backward()
        assert guess.grad.abs().sum() == 0


def test_pearson_is_one_minus_r_per_gene_over_the_labels_there_are():
    random = np.random.default_rng(0)
    guess, truth = random.normal(size=(2, 30, 4))
    truth[::3, 2] = NAN
    found, constant = pearson_per_gene(torch.tensor(guess), torch.tensor(truth))
    for gene in range(4):
        known = np.isfinite(truth[:, gene])
        r = np.corrcoef(guess[known, gene], truth[known, gene])[0, 1]
        assert found[gene].item() == pytest.approx(1 - r)
    assert not constant.any()
    # Scale and level of a prediction do not matter.
    moved = pearson(torch.tensor(3 * guess - 7), torch.tensor(truth))
    assert moved.item() == pytest.approx(found.mean().item())


@pytest.mark.parametrize("side", ["truth", "prediction", "one spot"])
def test_a_constant_gene_costs_one_and_gives_no_gradient(side):
    torch.manual_seed(0)
    guess, truth = torch.randn(6, 2), torch.randn(6, 2)
    if side == "truth":
        truth[:, 1] = 0.1
    elif side == "prediction":
        guess[:, 1] = 0.3
    else:
        truth[1:, 1] = NAN
    guess.requires_grad_()
    loss, constant = pearson_per_gene(guess, truth)
    assert loss[1].item() == 1
    assert constant.tolist() == [False, True]
    loss.sum().backward()
    assert guess.grad.isfinite().all()
    assert guess.grad[:, 1].abs().sum() == 0
    assert guess.grad[:, 0].abs().sum() > 0


def test_the_gradient_of_pearson_is_that_of_finite_differences():
    torch.manual_seed(0)
    guess = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    truth = torch.randn(5, 3, dtype=torch.float64)
    truth[0, 1] = NAN
    assert torch.autograd.gradcheck(lambda value: pearson(value, truth), (guess,))


def test_distillation_weighs_truth_and_teacher():
    # .7 x (2 - 0)^2 + .3 x (2 - 1)^2
    student, teacher = torch.tensor([[2.0]]), torch.tensor([[1.0]], requires_grad=True)
    truth = torch.zeros(1, 1)
    loss = distill(student, teacher, truth, weight=0.3, detach=False)
    assert loss.item() == pytest.approx(0.7 * 4 + 0.3)
    loss.backward()
    # d/dteacher of .3 (teacher - student)^2
    assert teacher.grad.item() == pytest.approx(-0.6)
    assert not distill(student, teacher, truth, weight=0.3, detach=True).requires_grad
