"""Drawing and forcing the mask, and which bins are central."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seq2exp.models.masking import central_span, draw_mask, force_mask
from seq2exp.nn.beta import BetaParameters


@given(
    num_bins=st.integers(1, 400),
    bin_size=st.sampled_from([1, 16, 128]),
    central_bp=st.integers(1, 5000),
)
def test_central_span_is_every_bin_that_overlaps_the_centre(num_bins, bin_size, central_bp):
    low, high = central_span(num_bins, bin_size=bin_size, central_bp=central_bp)
    # In half bases, where the centre of the window is num_bins * bin_size.
    left = num_bins * bin_size - central_bp
    right = num_bins * bin_size + central_bp
    overlapping = [
        i for i in range(num_bins) if 2 * bin_size * (i + 1) > left and 2 * bin_size * i < right
    ]
    assert list(range(low, high)) == overlapping
    assert low == num_bins - high, "mirrors onto itself"


def test_central_span_published_and_empty():
    assert central_span(200_000, bin_size=1, central_bp=2000) == (99_000, 101_000)
    assert central_span(10, bin_size=16, central_bp=0) == (5, 5)


def test_blacklist_then_padding_then_promoter():
    mask = torch.full((1, 8), 0.3)
    blacklist = torch.tensor([[0, 1, 0, 1, 0, 0, 0, 0]]).bool()
    valid = torch.tensor([[0, 1, 1, 1, 0, 1, 1, 0]]).bool()
    forced, free = force_mask(mask, blacklist_BN=blacklist, valid_BN=valid, promoter=(3, 5))
    torch.testing.assert_close(forced, torch.tensor([[0, 0, 0.3, 1, 1, 0.3, 0.3, 0]]))
    assert free.int().tolist() == [[0, 0, 1, 0, 0, 1, 1, 0]]


def test_forced_bins_get_no_gradient():
    mask = torch.full((1, 4), 0.3, requires_grad=True)
    forced, _ = force_mask(
        mask, blacklist_BN=torch.tensor([[True, False, False, False]]), promoter=(1, 2)
    )
    forced.sum().backward()
    assert mask.grad.tolist() == [[0, 0, 1, 1]]


def test_soft_draws_or_takes_the_mean():
    torch.manual_seed(0)
    q = BetaParameters(torch.full((1, 5), 2.0), torch.full((1, 5), 6.0))
    assert draw_mask("soft", q, sample=False).tolist() == [[0.25] * 5]
    first, second = (draw_mask("soft", q, sample=True) for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("sample", [True, False])
def test_hard_is_exactly_binary_with_the_soft_gradient(sample):
    torch.manual_seed(0)
    alpha = (torch.rand(1, 100_000) * 3 + 0.01).requires_grad_()
    beta = torch.rand(1, 100_000) * 3 + 0.01
    torch.manual_seed(1)
    hard = draw_mask("hard", BetaParameters(alpha, beta), sample=sample)
    assert set(hard.detach().unique().tolist()) == {0.0, 1.0}
    if not sample:
        assert torch.equal(hard.detach().bool(), alpha >= beta)
    torch.manual_seed(1)
    soft = draw_mask("soft", BetaParameters(alpha, beta), sample=sample)
    (hard_grad,) = torch.autograd.grad(hard.sum(), alpha)
    (soft_grad,) = torch.autograd.grad(soft.sum(), alpha)
    assert torch.equal(hard_grad, soft_grad)
