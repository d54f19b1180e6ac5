from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from seq2exp.models.contributions import ElementSum
from seq2exp.models.heads import ExpressionHead
from seq2exp.models.registry import build_model

PARAMS = {
    "tracks": ["DNase", "contact"], "window_bp": 512, "bin_size": 32, "d_model": 8, "d_state": 4,
    "generator_layers": 1, "predictor_layers": 1, "promoter_bp": 64, "readout_bp": 64,
    "element_channels": 3, "stem": {"kmer": 3, "channels": 8}, "final_norm": False,
}  # fmt: skip


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 4, (2, 512), generator=generator, dtype=torch.uint8)
    return codes, torch.rand(2, 16, 2, generator=generator)


def test_the_sum_equals_its_formula():
    torch.manual_seed(0)
    layer = ElementSum(4, channels=2, promoter=(3, 5)).double()
    hidden, mask = torch.randn(1, 8, 4).double(), torch.rand(1, 8).double()
    contact = torch.rand(1, 8).double()
    total = [0.0, 0.0]
    for place in (0, 1, 2, 5, 6, 7):
        raw = layer.activity(hidden[0, place]).float() - 3.0
        for channel in range(2):
            size = F.softplus(raw[channel]).item()
            total[channel] += size * mask[0, place].item() * contact[0, place].item()
    expected = torch.tensor([[math.log1p(value) for value in total]]).double()
    torch.testing.assert_close(layer(hidden, mask, contact), expected, rtol=1e-5, atol=1e-7)


def test_more_mask_never_lowers_the_sum_and_none_gives_zero():
    layer = ElementSum(4, channels=2, promoter=(0, 0))
    hidden, ones = torch.randn(1, 8, 4), torch.ones(1, 8)
    low, high = layer(hidden, 0.3 * ones, ones), layer(hidden, 0.6 * ones, ones)
    assert (high > low).all()
    assert layer(hidden, 0 * ones, ones).abs().sum() == 0


def test_a_bin_with_mask_zero_is_invisible_through_the_sum():
    torch.manual_seed(0)
    model = build_model("seq2exp", PARAMS).eval()
    codes, signal = batch()
    mask = torch.ones(2, 16)
    mask[:, 2] = 0
    changed_codes, changed_signal = codes.clone(), signal.clone()
    changed_codes[:, 64:96] = 3 - changed_codes[:, 64:96]
    changed_signal[:, 2] += 5
    before = model(codes, signal, mask_BN=mask).expression_BK
    after = model(changed_codes, changed_signal, mask_BN=mask).expression_BK
    assert torch.equal(before, after)
    mask[:, 2] = 1
    assert not torch.equal(
        model(codes, signal, mask_BN=mask).expression_BK,
        model(changed_codes, changed_signal, mask_BN=mask).expression_BK,
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_elements_begin_by_raising_expression(seed):
    """The linear part of the head starts with weight 1/channels on the sums, for any seed."""
    torch.manual_seed(seed)
    head = ExpressionHead(6, num_features=2, num_outputs=1, hidden=4, rising=3)
    assert head.skip.weight[0].tolist() == pytest.approx([0, 0, 0, 1 / 3, 1 / 3, 1 / 3, 0, 0])


def test_without_contact_every_bin_counts_alike():
    params = {**PARAMS, "tracks": ["DNase"]}
    model = build_model("seq2exp", params).eval()
    codes, signal = batch()
    out = model(codes, signal[..., :1])
    assert torch.isfinite(out.expression_BK).all()
