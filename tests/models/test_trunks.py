"""Every trunk as generator and predictor: gradients, hiding, and only what is read is computed."""

from __future__ import annotations

import pytest
import torch

from seq2exp.core.errors import ConfigError
from seq2exp.encoders import trunk_names
from seq2exp.models import Seq2Exp, Seq2ExpConfig

WINDOW, BIN = 512, 16
SMALL = {"transformer": {"num_heads": 2}, "hyena": {"filter_width": 8}}


def make(trunk, **settings):
    torch.manual_seed(0)
    values = {
        "tracks": ("DNase",),
        "window_bp": WINDOW,
        "bin_size": BIN,
        "d_model": 8,
        "d_state": 2,
        "promoter_bp": 64,
        "readout_bp": 128,
        "head_hidden": 8,
        "head_activation": "gelu",
        "trunk": trunk,
        "trunk_params": SMALL.get(trunk, {}),
    }
    return Seq2Exp(Seq2ExpConfig(**(values | settings))).double()


def batch(num_genes=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 4, (num_genes, WINDOW), generator=generator, dtype=torch.uint8)
    return codes, torch.rand(num_genes, WINDOW // BIN, 1, generator=generator).double()


@pytest.mark.parametrize("trunk", trunk_names())
@pytest.mark.parametrize("gate", ["delta", "multiply"])
def test_the_prediction_reaches_the_mask_head_through_every_trunk(trunk, gate):
    model = make(trunk, gate=gate).train()
    model(*batch()).expression_BK.sum().backward()
    assert model.mask_head.weight.grad.abs().max() > 0


@pytest.mark.parametrize("trunk", trunk_names())
def test_a_masked_bin_is_invisible_under_delta(trunk):
    model = make(trunk, readout="bands").eval()
    codes, signal = batch()
    mask = torch.ones(2, WINDOW // BIN)
    mask[:, 3] = 0
    changed, louder = codes.clone(), signal.clone()
    changed[:, 3 * BIN : 4 * BIN] = 3 - changed[:, 3 * BIN : 4 * BIN]
    louder[:, 3] += 5
    before = model(codes, signal, mask_BN=mask).expression_BK
    torch.testing.assert_close(
        model(changed, louder, mask_BN=mask).expression_BK, before, rtol=0, atol=1e-12
    )
    mask[:, 3] = 1
    assert not torch.allclose(
        model(changed, louder, mask_BN=mask).expression_BK,
        model(codes, signal, mask_BN=mask).expression_BK,
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize("trunk", trunk_names())
@pytest.mark.parametrize("readout", ["mean", "split", "max", "attention", "flatten"])
def test_what_nobody_reads_is_left_out_and_changes_nothing(trunk, readout):
    found, grads = [], []
    for whole in (False, True):
        model = make(trunk, readout=readout, predictor_layers=2).eval()
        assert model.span == (12, 20)
        if whole:
            model.span = None
        loss = model(*batch()).expression_BK.square().sum()
        loss.backward()
        found.append(loss.detach())
        grads.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)
    for name, grad in grads[0].items():
        if grad is None:
            assert grads[1][name] is None
        else:
            torch.testing.assert_close(grad, grads[1][name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("settings", [{"readout": "bands"}, {"element_channels": 2}])
def test_readouts_of_the_whole_window_get_it(settings):
    assert make("bimamba", **settings).span is None


def test_a_setting_that_a_trunk_lacks_is_refused():
    with pytest.raises(ConfigError, match=r"trunk 'conv': found .*num_heads"):
        make("conv", trunk_params={"num_heads": 2})
