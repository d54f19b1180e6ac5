"""First-order changes: exact for linear models, the derivative for others, NaN where N is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from scipy.stats import spearmanr

from seq2exp.interpret.target import columns_of
from seq2exp.models import Seq2Exp, Seq2ExpConfig
from seq2exp.models.baseline import Baseline, BaselineConfig
from seq2exp.models.output import ModelCall
from seq2exp.nn.sequence import reverse_complement
from seq2exp.nn.stem import StemConfig
from seq2exp.variants.gradient import mask_gradient, taylor

WINDOW, BIN = 512, 32
NUM_BINS = WINDOW // BIN


class Linear(torch.nn.Module):
    """Two outputs that are linear in the one-hot bases."""

    config = SimpleNamespace()

    def __init__(self):
        super().__init__()
        random = torch.Generator().manual_seed(5)
        weight = torch.randn(2, WINDOW, 4, generator=random, dtype=torch.float64)
        self.weight = torch.nn.Parameter(weight)

    def one_strand(self, call):
        x = call.codes_BL
        columns = x if x.ndim == 3 else columns_of(x, dtype=torch.float64)
        expression = torch.einsum("blc,klc->bk", columns, self.weight)
        return SimpleNamespace(expression_BK=expression, mean_BN=torch.ones(len(x), NUM_BINS))


def seq2exp(**changes):
    torch.manual_seed(2)
    config = Seq2ExpConfig(
        window_bp=WINDOW, bin_size=BIN, tracks=("a",), d_model=8, d_state=2, num_outputs=2,
        stem=StemConfig(channels=4, width=9), promoter_bp=64, readout_bp=64, **changes,
    )  # fmt: skip
    return Seq2Exp(config).double().eval()


def make_call(num_n=3):
    random = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 4, (1, WINDOW), generator=random, dtype=torch.uint8)
    codes[0, 40 : 40 + num_n] = 4
    signal = torch.rand(1, NUM_BINS, 1, generator=random, dtype=torch.float64)
    return ModelCall(codes, signal, None, None, None, None, force_promoter=True)


def substitutions(codes, places):
    rows = codes.repeat(3 * len(places), 1)
    for row in range(len(rows)):
        at = places[row // 3]
        rows[row, at] = (codes[0, at] + 1 + row % 3) % 4
    return rows


def test_a_linear_model_has_no_other_terms():
    model, call = Linear(), make_call()
    found = taylor(model, call)
    rows = substitutions(call.codes_BL, [0, 5, 300, WINDOW - 1])
    # Several bases at once: their sum, which is exact here too.
    rows = torch.cat([rows, rows[:1], call.codes_BL])
    rows[-2, 100:103] = (rows[-2, 100:103] + 1) % 4
    before = model.one_strand(call).expression_BK
    exact = model.one_strand(call._replace(codes_BL=rows)).expression_BK - before
    torch.testing.assert_close(found.change(rows), exact, rtol=0, atol=1e-12)
    assert (found.change(rows)[-1] == 0).all()
    assert found.through_mask == "true"
    # By hand: weight of the new base less that of the old one.
    was, new = int(call.codes_BL[0, 300]), int(rows[6, 300])
    by_hand = model.weight[:, 300, new] - model.weight[:, 300, was]
    torch.testing.assert_close(found.delta_KLC[:, 300, new], by_hand.detach())
    assert (found.delta_KLC[:, 300, was] == 0).all()


@pytest.mark.parametrize("mask", ["recomputed", "fixed"])
def test_changes_are_those_of_finite_differences(mask):
    model, call = seq2exp(), make_call()
    found = taylor(model, call, mask=mask)
    own = model.one_strand(call)
    held = call._replace(mask_BN=own.mask_BN) if mask == "fixed" else call
    columns = columns_of(call.codes_BL, dtype=torch.float64)
    step = 1e-5
    for at, new in ((3, 0), (100, 1), (250, 2), (260, 3), (500, 0)):
        towards = torch.zeros_like(columns)
        towards[0, at, new] += 1
        towards[0, at, int(call.codes_BL[0, at])] -= 1
        with torch.no_grad():
            ahead, behind = (
                model.one_strand(held._replace(codes_BL=columns + way * towards)).expression_BK[0]
                for way in (step, -step)
            )
        expected = (ahead - behind) / (2 * step)
        torch.testing.assert_close(found.delta_KLC[:, at, new], expected, rtol=1e-5, atol=1e-10)
    torch.testing.assert_close(found.value_K, own.expression_BK[0])
    assert found.delta_KLC[:, 256].abs().max() > 1e-8


def test_a_fixed_mask_leaves_out_what_goes_through_it():
    model, call = seq2exp(), make_call()
    free, fixed = taylor(model, call), taylor(model, call, mask="fixed")
    assert not torch.allclose(free.delta_KLC, fixed.delta_KLC, rtol=1e-3, equal_nan=True)
    alone = taylor(model, call, outputs=[1], mask="fixed")
    torch.testing.assert_close(alone.delta_KLC[0], fixed.delta_KLC[1], equal_nan=True)
    assert alone.delta_KLC.shape == (1, WINDOW, 4)


def test_pain_21_n_has_no_number_and_stops_nothing():
    model, call = seq2exp(), make_call(num_n=100)
    found = taylor(model, call)
    is_n = call.codes_BL[0] == 4
    assert found.delta_KLC[:, is_n].isnan().all()
    assert found.delta_KLC[:, ~is_n].isfinite().all()
    rows = call.codes_BL.repeat(4, 1)
    rows[0, 50] = 1
    rows[1, 300] = 4
    rows[2, 300] = (rows[2, 300] + 1) % 4
    changes = found.change(rows)
    assert changes[:2].isnan().all()
    assert changes[2].isfinite().all()
    assert (changes[3] == 0).all()
    everything = taylor(model, call._replace(codes_BL=torch.full_like(call.codes_BL, 4)))
    assert everything.delta_KLC.isnan().all()


@pytest.mark.parametrize("mask", ["recomputed", "fixed"])
def test_both_strands_are_the_mean_of_the_two(mask):
    model, call = seq2exp(), make_call()
    both = taylor(model, call, mask=mask, strands="both")
    own, other = taylor(model, call, mask=mask), taylor(model, call.mirrored(), mask=mask)
    expected = (own.delta_KLC + reverse_complement(other.delta_KLC)) / 2
    torch.testing.assert_close(both.delta_KLC, expected, equal_nan=True)
    mirrored = taylor(model, call.mirrored(), mask=mask, strands="both")
    flipped = reverse_complement(mirrored.delta_KLC)
    torch.testing.assert_close(both.delta_KLC, flipped, rtol=0, atol=1e-12, equal_nan=True)
    rows = substitutions(call.codes_BL, [10, 200])
    change = mirrored.change(reverse_complement(rows))
    torch.testing.assert_close(both.change(rows), change, rtol=0, atol=1e-12)


@pytest.mark.parametrize("encoder", ["conv", "bimamba"])
def test_order_of_substitutions_is_that_of_whole_passes(encoder):
    torch.manual_seed(0)
    params = {"d_model": 8, "num_layers": 2, "stem": {"channels": 16, "width": 9}}
    if encoder == "bimamba":
        params["embedding"] = "stem"
    config = BaselineConfig(
        encoder=encoder, encoder_params=params, window_bp=WINDOW, bin_size=BIN, readout_bp=64
    )
    model, call = Baseline(config).double().eval(), make_call()._replace(signal_BNT=None)
    found = taylor(model, call)
    rows = substitutions(call.codes_BL, list(range(150, 350, 4)))
    with torch.no_grad():
        exact = model(rows).expression_BK - model(call.codes_BL).expression_BK
    assert spearmanr(found.change(rows)[:, 0], exact[:, 0]).statistic > 0.6


@pytest.mark.parametrize(
    ("changes", "mask", "expected"),
    [
        ({}, "recomputed", "true"),
        ({"mask": "none"}, "recomputed", "true"),
        ({"mask": "hard"}, "recomputed", "straight_through"),
        ({"mask": "hard"}, "fixed", "true"),
        ({"test_mask": "topk"}, "recomputed", "none"),
        ({"test_mask": "topk"}, "fixed", "true"),
        ({"mask": "abc"}, "recomputed", "true"),
    ],
)
def test_the_result_says_what_it_knows_of_the_mask(changes, mask, expected):
    model = seq2exp(**changes)
    assert mask_gradient(model, mask=mask) == expected
    if "abc" not in changes.values():
        assert taylor(model, make_call(), mask=mask).through_mask == expected


def test_a_ranked_mask_passes_no_gradient_and_a_hard_one_that_of_its_mean():
    call = make_call()
    ranked, soft = seq2exp(test_mask="topk"), seq2exp()
    free, fixed = taylor(ranked, call), taylor(ranked, call, mask="fixed")
    torch.testing.assert_close(free.delta_KLC, fixed.delta_KLC, equal_nan=True)
    hard = seq2exp(mask="hard")
    assert not torch.allclose(
        taylor(hard, call).delta_KLC,
        taylor(hard, call, mask="fixed").delta_KLC,
        rtol=1e-3,
        equal_nan=True,
    )
    assert soft.config.mask == "soft"


def test_a_model_that_reads_no_bases_changes_nothing():
    model = seq2exp(use_sequence=False, mask="none")
    found = taylor(model, make_call())
    known = make_call().codes_BL[0] < 4
    assert (found.delta_KLC[:, known] == 0).all()


def test_weights_get_no_gradient():
    model = seq2exp()
    taylor(model, make_call())
    assert all(parameter.grad is None for parameter in model.parameters())
