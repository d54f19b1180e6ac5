"""The convolutions of EPInformer, layer by layer as published."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError
from seq2exp.nn.element_net import ElementNet

SMALL = {"length": 112, "stem_channels": 6, "tower_channels": (5, 4), "head_channels": 3}


def make(seed=0, **options):
    torch.manual_seed(seed)
    net = ElementNet(64, **(SMALL | options)).double()
    with torch.no_grad():
        for name, buffer in net.named_buffers():
            if "running" in name:
                buffer += torch.rand_like(buffer)
    return net


def plain(net, codes):
    """As published: ELU before the max pool, batch norm of torch."""

    def norm(layer, x):
        if not hasattr(layer, "running_mean"):
            return x
        return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)

    bases = F.one_hot(codes.long(), 5)[..., :4].double().mT
    x = F.elu(F.conv1d(F.pad(bases, (3, 4)), net.stem.weight, net.stem.bias))
    for conv, layer, pointwise in zip(net.convs, net.norms, net.pointwise, strict=True):
        x = F.max_pool1d(F.elu(norm(layer, conv(x))), 2)
        x = F.elu(pointwise(x)) + x
    for conv, layer in zip(net.dilated, net.dilated_norms, strict=True):
        x = F.elu(norm(layer, conv(x)))
    return F.elu(net.positions(x)).flatten(1)


@pytest.mark.parametrize("norm", ["all", "tower", "none"])
def test_net_equals_the_published_order(norm):
    net = make(norm=norm).eval()
    codes = torch.randint(0, 5, (3, 112), dtype=torch.uint8)
    ours, theirs = net(codes), plain(net, codes)
    assert ours.shape == (3, 64)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    wanted, seed = list(net.parameters()), torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, wanted, seed),
        torch.autograd.grad(theirs, wanted, seed),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_lengths_of_the_published_element():
    """2,000 / 2**4 = 125; each dilated convolution takes twice its dilation: 4, 8 and 12."""
    assert ElementNet(64).lengths() == (125, 121, 113, 101)
    assert ElementNet(64).positions.in_features == 101
    assert make().lengths() == (28, 24, 16, 4)


def test_shapes_on_the_way():
    with torch.device("meta"):
        net = ElementNet(128)
        seen = []
        for conv in (*net.convs, *net.dilated):
            conv.register_forward_hook(lambda *args: seen.append(args[2].shape[1:]))
        assert net(torch.zeros(2, 2000, dtype=torch.uint8, device="meta")).shape == (2, 128)
    assert [tuple(shape) for shape in seen] == [
        (128, 2000), (64, 1000), (64, 500), (128, 250), (64, 121), (64, 113), (64, 101), (32, 101),
    ]  # fmt: skip


def test_weights_multiply_the_bases():
    net, codes = make().eval(), torch.randint(0, 4, (2, 112), dtype=torch.uint8)
    weight = torch.ones(2, 112, dtype=torch.float64)
    weight[:, 30:50] = 0
    as_n = codes.clone()
    as_n[:, 30:50] = 4
    torch.testing.assert_close(net(codes, weight), net(as_n), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 110}, "element_bp"),
        ({"length": 96}, "at least 100"),
        ({"out_dim": 48}, "multiple of 32"),
        ({"out_dim": 0}, "multiple of 32"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ElementNet(**({"out_dim": 64} | SMALL | options))


def test_flops_are_those_of_the_convolutions():
    from torch.utils.flop_counter import FlopCounterMode

    net = make().eval().float()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 112, dtype=torch.uint8))
    assert net.flops() == counter.get_total_flops()
