"""Bidirectional Mamba-1 blocks against two separate passes written from the formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError
from seq2exp.encoders import BiMambaTrunk, build_trunk
from seq2exp.nn.mamba import BiMambaBlock, BiMambaMixer, dt_rank


def one_direction(mixer, direction, u):
    """A whole causal Mamba-1 with its own projections and gate, token by token."""
    x, z = F.linear(u, mixer.in_proj.weight).chunk(2, dim=-1)
    num_taps = direction.conv_weight.shape[1]
    padded = F.pad(x, (0, 0, num_taps - 1, 0))
    x = sum(padded[:, k : k + x.shape[1]] * direction.conv_weight[:, k] for k in range(num_taps))
    x = F.silu(x + direction.conv_bias)
    low, B, C = F.linear(x, direction.x_proj.weight).split(
        (direction.rank, direction.d_state, direction.d_state), dim=-1
    )
    delta = F.softplus(F.linear(low, direction.dt_proj.weight, direction.dt_proj.bias))
    A = -direction.A_log.exp()
    state, rows = torch.zeros(u.shape[0], *A.shape, dtype=u.dtype), []
    for t in range(u.shape[1]):
        decay = torch.exp(delta[:, t, :, None] * A)
        state = decay * state + (delta[:, t] * x[:, t])[..., None] * B[:, t, None]
        rows.append((state * C[:, t, None]).sum(-1) + direction.D * x[:, t])
    return F.linear(torch.stack(rows, 1) * F.silu(z), mixer.out_proj.weight)


def two_passes(block, r):
    u = r / (r.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * block.norm.weight
    forward = one_direction(block.mixer, block.mixer.fwd, u)
    backward = one_direction(block.mixer, block.mixer.rev, u.flip(1)).flip(1)
    return r + forward + backward


def make_block(seed=0, **options):
    torch.manual_seed(seed)
    block = BiMambaBlock(12, d_state=5, **options).double()
    with torch.no_grad():
        # Fresh values of D, norms and biases are trivial; move them so that a wrong use shows.
        for parameter in block.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return block


@pytest.mark.parametrize("length", [1, 3, 20])
def test_block_equals_two_passes_with_gradients(length):
    block = make_block()
    x = torch.randn(2, length, 12, dtype=torch.float64, requires_grad=True)
    ours, plain = block(x), two_passes(block, x)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-10)
    seed = torch.randn_like(ours)
    wanted = [x, *block.parameters()]
    for mine, theirs in zip(
        torch.autograd.grad(ours, wanted, seed),
        torch.autograd.grad(plain, wanted, seed),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


def test_exchanged_directions_on_the_reversed_input_reverse_the_output():
    block, exchanged = make_block(), make_block()
    for mine, theirs in (("fwd", "rev"), ("rev", "fwd")):
        getattr(exchanged.mixer, mine).load_state_dict(getattr(block.mixer, theirs).state_dict())
    x = torch.randn(2, 15, 12, dtype=torch.float64)
    torch.testing.assert_close(exchanged(x.flip(1)).flip(1), block(x), rtol=0, atol=1e-12)
    assert not torch.allclose(block(x.flip(1)).flip(1), block(x))


def test_mask_of_ones_is_no_mask():
    block = make_block()
    x = torch.randn(2, 9, 12, dtype=torch.float64)
    assert torch.equal(block(x, torch.ones(2, 9, dtype=torch.float64)), block(x))


def test_gradient_reaches_the_mask():
    block = make_block()
    x = torch.randn(1, 6, 12, dtype=torch.float64)
    mask = torch.rand(1, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: block(x, m), mask)


def test_masked_positions_reach_no_other_position():
    torch.manual_seed(0)
    encoder = BiMambaTrunk(12, num_layers=3).double()
    x = torch.randn(2, 30, 12, dtype=torch.float64)
    mask = (torch.rand(2, 30) < 0.5).double()
    changed = torch.where(mask[..., None] == 1, x, torch.randn_like(x) * 100)
    kept = mask.bool()
    assert torch.equal(encoder(x, mask)[kept], encoder(changed, mask)[kept])
    assert not torch.equal(encoder(x)[kept], encoder(changed)[kept])


def test_binary_mask_equals_packing_with_three_rows_of_each_gap():
    """Conv width 4: three masked rows of each gap (as zeros) keep the kept rows apart."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(5)
    encoder = BiMambaTrunk(12, num_layers=3).double()
    gaps = torch.randint(0, 11, (12,), generator=generator).tolist()
    mask = torch.cat([torch.cat([torch.zeros(gap), torch.ones(2)]) for gap in gaps]).double()
    rows = torch.cat(
        [torch.cat([torch.arange(gap) < 3, torch.ones(2, dtype=torch.bool)]) for gap in gaps]
    )
    x = torch.randn(1, len(mask), 12, dtype=torch.float64, requires_grad=True)
    kept = mask.bool()
    whole = encoder(x, mask[None])[:, kept]
    packed = encoder(x[:, rows], mask[None, rows])[:, kept[rows]]
    torch.testing.assert_close(whole, packed, rtol=0, atol=1e-12)
    seed = torch.randn_like(whole)
    wanted = [x, *encoder.parameters()]
    for mine, theirs in zip(
        torch.autograd.grad(whole, wanted, seed),
        torch.autograd.grad(packed, wanted, seed),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)
    tight = encoder(x[:, kept], mask[None, kept])
    assert not torch.allclose(whole, tight, atol=1e-3), "dropping whole gaps is not exact"


def test_initial_values():
    torch.manual_seed(0)
    mixer = BiMambaMixer(64, init_depth=4)
    for direction in (mixer.fwd, mixer.rev):
        states = torch.arange(1.0, 17.0).expand(128, 16)
        torch.testing.assert_close(direction.A_log.exp(), states)
        assert direction.D.eq(1).all()
        step = F.softplus(direction.dt_proj.bias)
        assert step.min() >= 1e-3 - 1e-6
        assert step.max() <= 1e-1 + 1e-6
        # Log-uniform: the median lies at the geometric mean of the ends, not at their mean.
        assert 0.005 < step.median() < 0.02
    # Kaiming-uniform with a = sqrt 5 has the bound 1 / sqrt(fan in); divided by sqrt(depth).
    bound = 1 / math.sqrt(128) / math.sqrt(4)
    assert mixer.out_proj.weight.abs().max() <= bound
    assert mixer.out_proj.weight.abs().max() > 0.99 * bound


def test_encoder_uses_its_real_depth_unless_told():
    torch.manual_seed(0)
    real = BiMambaTrunk(64, num_layers=4).layers[0].mixer.out_proj.weight.std()
    torch.manual_seed(0)
    parity = BiMambaTrunk(64, num_layers=4, init_depth=64).layers[0].mixer.out_proj.weight.std()
    torch.testing.assert_close(real / parity, torch.tensor(4.0))


def test_dt_rank():
    assert [dt_rank(d) for d in (12, 16, 64, 128, 256)] == [1, 1, 4, 8, 16]


def test_recomputed_blocks_give_the_same_gradients():
    torch.manual_seed(0)
    plain = BiMambaTrunk(12, num_layers=2).double()
    again = BiMambaTrunk(12, num_layers=2, recompute=True).double()
    again.load_state_dict(plain.state_dict())
    x = torch.randn(2, 9, 12, dtype=torch.float64)
    mask = torch.rand(2, 9, dtype=torch.float64)
    grads = []
    for encoder in (plain, again):
        encoder(x, mask).square().sum().backward()
        grads.append([p.grad for p in encoder.parameters()])
    for mine, theirs in zip(*grads, strict=True):
        assert torch.equal(mine, theirs)


def test_published_parameter_counts():
    """Specification 3.7: direction 116,480; tied pair 134,656; with norm 134,784; net 539,264."""
    mixer = BiMambaMixer(128)

    def count(module):
        return sum(p.numel() for p in module.parameters())

    shared = count(mixer.in_proj) + count(mixer.out_proj)
    assert count(mixer.fwd) + shared == 116_480
    assert count(mixer) == 134_656
    assert count(BiMambaBlock(128)) == 134_784
    assert count(BiMambaTrunk(128, num_layers=4)) == 539_264


def test_unknown_encoder_names_the_nearest():
    with pytest.raises(ConfigError, match="use 'bimamba'"):
        build_trunk("bimanba", {"d_model": 8, "num_layers": 1})


def test_first_steps_lie_between_the_given_bounds():
    torch.manual_seed(0)
    for low, high in ((1e-3, 1e-1), (0.02, 0.5), (0.3, 0.3)):
        mixer = BiMambaMixer(32, dt_min=low, dt_max=high)
        steps = F.softplus(torch.cat([mixer.fwd.dt_proj.bias, mixer.rev.dt_proj.bias]))
        assert steps.min() >= low * 0.999
        assert steps.max() <= high * 1.001
        # Log-uniform: the mean of the logarithm is that of the two ends.
        middle = (math.log(low) + math.log(high)) / 2
        assert steps.log().mean().item() == pytest.approx(middle, abs=0.5)


def test_out_gain_scales_what_a_fresh_block_adds():
    x = torch.randn(2, 9, 12, generator=torch.Generator().manual_seed(3))
    added = []
    for gain in (1.0, 0.25):
        torch.manual_seed(0)
        block = BiMambaBlock(12, out_gain=gain)
        added.append(block(x) - x)
    torch.testing.assert_close(added[1], 0.25 * added[0])


def test_without_the_final_norm_the_output_is_the_residual_stream():
    torch.manual_seed(0)
    x = torch.randn(2, 9, 12)
    bare = BiMambaTrunk(12, num_layers=0, final_norm=False)
    assert torch.equal(bare(x), x)
    assert not list(bare.parameters())
    encoder = BiMambaTrunk(12, num_layers=2, final_norm=False)
    torch.testing.assert_close(encoder(x), encoder.layers[1](encoder.layers[0](x)))
    normed = BiMambaTrunk(12, num_layers=2)
    normed.layers.load_state_dict(encoder.layers.state_dict())
    root = encoder(x).square().mean(-1, keepdim=True).add(1e-5).sqrt()
    torch.testing.assert_close(normed(x), encoder(x) / root)


@pytest.mark.parametrize("masked", [False, True])
def test_compiled_block_equals_the_float64_one_with_gradients(masked):
    """Inner width 32 in float32: convolution, norm and scan run in compiled loops."""
    torch.manual_seed(1)
    block = BiMambaBlock(16, d_state=5)
    exact = BiMambaBlock(16, d_state=5).double()
    exact.load_state_dict(block.state_dict())
    x = torch.randn(2, 70, 16)
    mask = torch.rand(2, 70) if masked else None
    wide = x.double().requires_grad_()
    x.requires_grad_()
    ours = block(x, mask)
    theirs = exact(wide, None if mask is None else mask.double())
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    found = torch.autograd.grad(ours.square().sum(), [x, *block.parameters()])
    expected = torch.autograd.grad(theirs.square().sum(), [wide, *exact.parameters()])
    for mine, other in zip(found, expected, strict=True):
        assert (mine - other).abs().max() <= 1e-5 * max(1.0, other.abs().max().item())
