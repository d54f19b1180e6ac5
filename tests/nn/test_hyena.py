"""The Hyena operator against direct sums, and its filter against its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seq2exp.core.errors import InputError
from seq2exp.encoders import HyenaTrunk
from seq2exp.nn.hyena import HyenaBlock, HyenaOperator, ImplicitFilter, fft_length, long_conv


def make_operator(*, width=6, l_max=40):
    torch.manual_seed(0)
    return HyenaOperator(width, l_max=l_max, filter_width=8).double()


def filter_by_formula(operator, length):
    """Every number of the filter on its own, from the definitions."""
    implicit, l_max = operator.implicit_filter, operator.l_max
    rows = []
    for t in range(length):
        time, angle = t / (l_max - 1), 2 * math.pi * t / l_max
        slow, fast = 1e-4 * angle, angle
        x = torch.tensor([time, math.cos(slow), math.cos(fast), -math.sin(slow), -math.sin(fast)],
                         dtype=torch.float64)  # fmt: skip
        for layer in implicit.layers[:-1]:
            x = torch.sin(implicit.freq * (layer.weight @ x + layer.bias))
        x = implicit.layers[-1].weight @ x
        width = len(x)
        low, high = -math.log(0.01) / 1.5, -math.log(0.01) / 0.3
        rates = [low + (high - low) * d / (width - 1) for d in range(width)]
        decay = torch.tensor([math.exp(-time * rate) for rate in rates], dtype=torch.float64)
        rows.append(x * decay)
    return torch.stack(rows)


def operator_by_sums(operator, u):
    """Order-2 Hyena with torch's own short convolution and a double loop for the long one."""
    length, width = u.shape[1:]
    projected = operator.in_proj(u).transpose(1, 2)
    short = F.conv1d(
        projected, operator.short_weight[:, None], operator.short_bias, padding=2, groups=3 * width
    )[..., :length].transpose(1, 2)
    x0, x1, v = short.split(width, dim=-1)
    h, gated = filter_by_formula(operator, length), x1 * v
    y = [
        sum(h[k] * gated[:, t - k] for k in range(t + 1))
        + operator.implicit_filter.bias * gated[:, t]
        for t in range(length)
    ]
    return operator.out_proj(torch.stack(y, 1) * x0)


@pytest.mark.parametrize("length", [1, 2, 3, 17, 40])
def test_operator_equals_direct_sums_with_gradients(length):
    operator = make_operator()
    u = torch.randn(2, length, 6, dtype=torch.float64, requires_grad=True)
    ours, plain = operator(u), operator_by_sums(operator, u)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-10)
    seed, wanted = torch.randn_like(ours), [u, *operator.parameters()]
    for mine, theirs in zip(
        torch.autograd.grad(ours, wanted, seed),
        torch.autograd.grad(plain, wanted, seed),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9)


def test_the_filter_keeps_its_time_when_the_window_is_cropped():
    """Time is divided by l_max: a shorter filter is the start of the longer one."""
    implicit = ImplicitFilter(6, l_max=1000).double()
    torch.testing.assert_close(implicit(300)[:100], implicit(100), rtol=0, atol=1e-14)
    other = ImplicitFilter(6, l_max=100).double()
    other.load_state_dict(implicit.state_dict())
    assert not torch.allclose(other(100), implicit(100))


def test_the_shift_is_added_to_the_decay_and_reaches_the_filter_from_the_encoder():
    """filter = network * (decay + shift), so two shifts differ by shift times the network."""
    from seq2exp.encoders import build_encoder

    filters = {}
    for shift in (0.0, 0.05, 1.0):
        torch.manual_seed(0)
        settings = {"d_model": 6, "num_layers": 1, "filter_shift": shift}
        encoder = build_encoder("hyena", settings, window_bp=40, bin_size=1).double()
        (implicit,) = [m for m in encoder.modules() if isinstance(m, ImplicitFilter)]
        filters[shift] = implicit(20)
    network = filters[1.0] - filters[0.0]
    torch.testing.assert_close(filters[0.05] - filters[0.0], 0.05 * network, rtol=0, atol=1e-12)
    assert network.abs().max() > 1e-3


def test_the_decay_ends_between_a_thousandth_and_a_hundred_millionth():
    """At time 1 the slowest channel keeps 0.01**(1 / 1.5), the fastest 0.01**(1 / 0.3)."""
    implicit = ImplicitFilter(3, l_max=11).double()
    with torch.no_grad():
        implicit.layers[-1].weight.zero_()
        implicit.layers[-1].weight[:, 0] = 1
        for layer in implicit.layers[:-1]:
            layer.weight.zero_()
            layer.bias.fill_(math.pi / 20)  # sin(10 * pi / 20) = 1
    expected = [0.01 ** (1 / 1.5), 0.01 ** ((1 / 1.5 + 1 / 0.3) / 2), 0.01 ** (1 / 0.3)]
    torch.testing.assert_close(implicit(11)[-1], torch.tensor(expected).double())
    torch.testing.assert_close(implicit(11)[0], torch.ones(3).double())


def test_long_convolution_does_not_wrap_around():
    v = torch.zeros(1, 8, 1, dtype=torch.float64)
    v[0, 6] = 1
    h = torch.arange(1.0, 9.0, dtype=torch.float64)[:, None]
    y = long_conv(v, h, torch.tensor([10.0]).double())
    expected = torch.tensor([0, 0, 0, 0, 0, 0, 11.0, 2.0]).double()
    torch.testing.assert_close(y[0, :, 0], expected, rtol=0, atol=1e-12)


def test_fft_length_is_the_next_with_small_factors():
    def smooth(n):
        for p in (2, 3, 5):
            while n % p == 0:
                n //= p
        return n == 1

    for n in [*range(1, 200), 12_347, 400_004]:
        size = fft_length(n)
        assert size >= n
        assert smooth(size)
        assert not any(smooth(m) for m in range(n, size))


def test_half_precision_keeps_the_filter_in_float32():
    """In bfloat16, times of neighbouring positions are the same number."""
    implicit = ImplicitFilter(6, l_max=5000)
    exact = implicit(400)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(implicit(400), exact)
    low = implicit.bfloat16()(400)
    assert low.dtype == torch.float32
    assert (low.diff(dim=0).abs().sum(1) > 0).all()


def test_residuals_stay_in_float32_in_half_precision():
    block = HyenaBlock(8, l_max=20, d_inner=16).bfloat16()
    assert block(torch.randn(1, 5, 8).bfloat16()).dtype == torch.float32
    assert HyenaTrunk(8, num_layers=1).bfloat16()(torch.randn(1, 5, 8).bfloat16()).dtype == (
        torch.bfloat16
    )


def test_sequences_beyond_l_max_are_refused():
    with pytest.raises(InputError, match="l_max = 40"):
        make_operator()(torch.zeros(1, 41, 6, dtype=torch.float64))


def test_initial_values():
    """Normal 0.02; what is added to the residual stream divided by sqrt(2 * layers); no biases."""
    torch.manual_seed(0)
    trunk = HyenaTrunk(128, num_layers=4)
    for name, module in trunk.named_modules():
        if isinstance(module, nn.Linear) and module.weight.numel() > 1000:
            small = name.endswith(("out_proj", "fc2"))
            wanted = 0.02 / math.sqrt(8) if small else 0.02
            assert module.weight.std().item() == pytest.approx(wanted, rel=0.1)
            assert module.bias is None or not module.bias.any()
    implicit = trunk.layers[0].mixer.implicit_filter
    assert implicit.freq.eq(10).all()
    assert implicit.bias.std().item() == pytest.approx(1, rel=0.3)


def test_published_parameter_count_of_a_block():
    """Norms 512, MLP 131,712, projections 49,536 + 16,512, short 1,536, filter 17,088."""
    block = HyenaBlock(128, l_max=200_002, d_inner=512)
    assert sum(p.numel() for p in block.parameters()) == 216_896
    assert sum(p.numel() for p in block.mixer.implicit_filter.parameters()) == 17_088


def test_filter_parameters_carry_the_word_that_spares_them_weight_decay():
    names = [name for name, _ in HyenaTrunk(8, num_layers=1).named_parameters()]
    spared = [n for n in names if any(p.startswith("implicit_filter") for p in n.split("."))]
    assert len(spared) == 2 + 3 * 2 + 1


def test_gradients_of_the_long_convolution_are_those_of_finite_differences():
    torch.manual_seed(0)
    shapes = ((2, 7, 3), (7, 3), (3,))
    inputs = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    assert torch.autograd.gradcheck(long_conv, inputs)
    empty = torch.randn(0, 7, 3, dtype=torch.float64, requires_grad=True)
    grads = torch.autograd.grad(long_conv(empty, *inputs[1:]).sum(), [empty, *inputs[1:]])
    assert not any(grad.any() for grad in grads)
