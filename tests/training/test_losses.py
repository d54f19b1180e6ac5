from __future__ import annotations

import math

import pytest
import torch

from seq2exp.training.losses import masked_loss

NAN = float("nan")


def test_smooth_l1_is_quadratic_below_one_and_linear_above():
    predicted = torch.tensor([[0.5, 3.0]])
    observed = torch.tensor([[0.0, 0.0]])
    expected = (0.5 * 0.5**2 + (3.0 - 0.5)) / 2
    assert masked_loss(predicted, observed).item() == pytest.approx(expected)
    assert masked_loss(predicted, observed, kind="mse").item() == pytest.approx((0.25 + 9) / 2)


def test_unknown_labels_count_neither_in_value_nor_in_gradient():
    predicted = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    observed = torch.tensor([[0.0, NAN], [NAN, NAN]])
    loss = masked_loss(predicted, observed, kind="mse")
    loss.backward()
    assert loss.item() == 1.0
    assert predicted.grad.tolist() == [[2.0, 0.0], [0.0, 0.0]]


def test_a_batch_without_labels_gives_zero_and_no_nan_gradient():
    predicted = torch.ones(2, 1, requires_grad=True)
    loss = masked_loss(predicted, torch.full((2, 1), NAN))
    loss.backward()
    assert loss.item() == 0
    assert predicted.grad.tolist() == [[0.0], [0.0]]


def test_low_precision_predictions_are_compared_in_full_precision():
    predicted = torch.tensor([[1.0]], dtype=torch.bfloat16)
    loss = masked_loss(predicted, torch.tensor([[1.001]]), kind="mse")
    assert loss.dtype == torch.float32
    assert math.isclose(loss.item(), 1e-6, rel_tol=1e-2)
