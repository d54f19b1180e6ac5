"""Caduceus against independent recipes of the published paths, its symmetries and its counts."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.encoders import build_encoder
from seq2exp.encoders.caduceus import Caduceus, CaduceusConfig
from seq2exp.nn.norm import RMSNorm
from seq2exp.nn.rcps import exchanged, flip_strand, join_strands, read_strands, split_strands
from seq2exp.nn.sequence import one_hot, reverse_complement
from seq2exp.nn.tokens import complement_ids, token_ids
from tests.encoders.measure import kept_bytes


def make(seed=0, *, tracks=(), **changes):
    torch.manual_seed(seed)
    config = CaduceusConfig(**({"d_model": 8, "num_layers": 3, "d_state": 4} | changes))
    encoder = Caduceus(config, tracks=tracks, window_bp=24, bin_size=1).double()
    with torch.no_grad():
        # Fresh norms, skips and biases are trivial; move them so that a wrong use shows.
        for parameter in encoder.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return encoder


def window(length=17, batch=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 5, (batch, length), generator=generator, dtype=torch.uint8)


def signal_of(codes, num_tracks=2, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((*codes.shape, num_tracks), generator=generator, dtype=torch.float64)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


# The published recipes on [p, q], with hidden states and residual kept apart ---------------------


def both_flipped(x):
    return x.flip(dims=[-2, -1])


def add_norm(norm, hidden, residual):
    total = hidden if residual is None else hidden + residual
    root = (total.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    return total / root * norm.weight, total


def halves(x):
    return (None, None) if x is None else x.chunk(2, dim=-1)


def mixed(layer, x):
    p, q = halves(x)
    return torch.cat([layer.mixer(p), both_flipped(layer.mixer(both_flipped(q)))], dim=-1)


def unfused_block(layer, hidden, residual):
    """Norm each half on its own strand, then the mixer on each half."""
    (p, q), (rp, rq) = halves(hidden), halves(residual)
    np_, rp = add_norm(layer.norm, p, rp)
    nq, rq = add_norm(layer.norm, both_flipped(q), None if rq is None else both_flipped(rq))
    normed = torch.cat([np_, both_flipped(nq)], dim=-1)
    return mixed(layer, normed), torch.cat([rp, both_flipped(rq)], dim=-1)


def fused_block(layer, hidden, residual):
    """As the fused path: the second half is taken as forward, the first as reverse complement."""
    (p, q), (rp, rq) = halves(hidden), halves(residual)
    nq, rq = add_norm(layer.norm, q, rq)
    np_, rp = add_norm(layer.norm, both_flipped(p), None if rp is None else both_flipped(rp))
    normed = torch.cat([nq, both_flipped(np_)], dim=-1)
    return mixed(layer, normed), torch.cat([rq, both_flipped(rp)], dim=-1)


def recipe(encoder, x, *, block, final_norm=True):
    hidden, residual = x, None
    for layer in encoder.trunk.layers:
        hidden, residual = block(layer, hidden, residual)
    total = hidden if residual is None else hidden + residual
    if not final_norm:
        return total
    (p, q) = halves(total)
    p, _ = add_norm(encoder.trunk.norm_f, p, None)
    q, _ = add_norm(encoder.trunk.norm_f, both_flipped(q), None)
    return torch.cat([p, both_flipped(q)], dim=-1)


def doubled_embedding(encoder, codes):
    """[E(x), flip(E(rc(x)))] from the table's rows."""
    ids = codes.long() + 7
    complement = torch.tensor([0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 11])
    table = encoder.table.weight
    return torch.cat([table[ids], both_flipped(table[complement[ids.flip(1)]])], dim=-1)


@pytest.mark.parametrize("num_layers", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(("swap", "block"), [(False, unfused_block), (True, fused_block)])
def test_both_norm_paths_of_the_published_code(num_layers, swap, block):
    encoder = make(variant="ps", embedding="table", num_layers=num_layers, swap_halves=swap)
    codes = window()
    theirs = recipe(encoder, doubled_embedding(encoder, codes), block=block)
    torch.testing.assert_close(encoder(codes), theirs, rtol=0, atol=1e-12)


def test_swapped_is_the_unfused_block_on_swapped_halves_block_by_block():
    encoder = make(variant="ps", embedding="table", swap_halves=True)
    x = doubled_embedding(encoder, window())
    for layer in encoder.trunk.layers:
        q, p = halves(x)
        hidden, residual = unfused_block(layer, torch.cat([p, q], dim=-1), None)
        strands = exchanged(*split_strands(x), swap_halves=True)
        ours = join_strands(*(layer(strand) for strand in strands))
        torch.testing.assert_close(ours, hidden + residual, rtol=0, atol=1e-12)
        x = ours


def test_the_two_norm_paths_differ_but_for_no_blocks():
    codes = window()
    for num_layers in (0, 1, 2, 3):
        plain = make(variant="ps", embedding="table", num_layers=num_layers)
        swapped = make(variant="ps", embedding="table", num_layers=num_layers, swap_halves=True)
        assert swapped.load_state_dict(plain.state_dict())
        difference = (plain(codes) - swapped(codes)).abs().max()
        assert (difference > 0.1) == (num_layers > 0)


# Symmetry ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("embedding", ["linear", "table"])
@pytest.mark.parametrize("strategy", ["add", "ew_multiply"])
def test_ps_is_equivariant_to_the_last_bit(swap, embedding, strategy):
    encoder = make(
        variant="ps", swap_halves=swap, embedding=embedding, bidirectional_strategy=strategy
    )
    assert encoder.rc == "equivariant"
    for length in (1, 2, 17):
        codes = window(length)
        assert torch.equal(encoder(reverse_complement(codes)), flip_strand(encoder(codes)))


def test_ps_with_tracks_and_mask_is_equivariant():
    encoder = make(variant="ps", tracks=("a", "b"))
    codes = window()
    signal, mask = signal_of(codes), signal_of(codes)[..., 0]
    signal[0, 3, 1] = torch.nan
    out = encoder(codes, signal, mask)
    assert torch.isfinite(out).all()
    mirrored = encoder(reverse_complement(codes), signal.flip(1), mask.flip(1))
    assert torch.equal(mirrored, flip_strand(out))
    assert not torch.equal(encoder(codes, signal.flip(1), mask), out)


def test_ph_is_not_equivariant():
    encoder = make()
    codes = window()
    assert encoder.rc == "none"
    assert not torch.allclose(encoder(reverse_complement(codes)), flip_strand(encoder(codes)))


@pytest.mark.parametrize("swap", [False, True])
def test_a_head_on_both_strands_does_not_see_the_strand(swap):
    encoder = make(variant="ps", swap_halves=swap)
    head = nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    codes = window(18)

    def read(hidden):
        return head(hidden.mean(1))

    def one_strand(hidden):
        return read(hidden[..., :8])

    for span in (None, (5, 13)):
        out = encoder(codes, span=span)
        mirrored = encoder(reverse_complement(codes), span=span)
        torch.testing.assert_close(
            read_strands(out, read), read_strands(mirrored, read), rtol=0, atol=1e-12
        )
        assert not torch.allclose(one_strand(out), one_strand(mirrored))
    # By hand: pool each half on its own strand, the same head, average.
    p, q = encoder(codes).chunk(2, dim=-1)
    both = (head(p.mean(1)) + head(q.flip(dims=[1, 2]).mean(1))) / 2
    torch.testing.assert_close(read_strands(encoder(codes), read), both, rtol=0, atol=1e-12)


# Token table and language-model head --------------------------------------------------------------


@pytest.mark.parametrize("variant", ["ph", "ps"])
def test_one_hot_goes_through_the_rows_of_the_table_bit_for_bit(variant):
    encoder = make(variant=variant, embedding="table")
    codes = torch.tensor([[0, 1, 2, 3, 4, 4, 0, 3]], dtype=torch.uint8)
    assert token_ids(codes).tolist() == [[7, 8, 9, 10, 11, 11, 7, 10]]
    from_codes = encoder.table(codes)
    assert torch.equal(from_codes, encoder.table.tokens(token_ids(codes)))
    assert torch.equal(from_codes[0], encoder.table.weight[[7, 8, 9, 10, 11, 11, 7, 10]])
    onehot = one_hot(codes, dtype=torch.float64)
    assert torch.equal(encoder.table(onehot), from_codes)
    assert torch.equal(encoder(onehot), encoder(codes))


def test_gradients_reach_one_hot_bases():
    encoder = make(variant="ps", embedding="table", num_layers=1)
    bases = one_hot(window(4, 1), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(encoder, bases)


def test_logits_of_both_variants():
    """Ph: W h. PS: W p + W[complement] flip_C(q), and equivariant."""
    ph, ps = (make(variant=v, embedding="table") for v in ("ph", "ps"))
    codes = window()
    torch.testing.assert_close(ph.token_logits(codes), ph(codes) @ ph.table.weight.T)
    assert ph.token_logits(codes).shape == (2, 17, 16)
    p, q = ps(codes).chunk(2, dim=-1)
    swapped = [0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 11, 12, 13, 14, 15]
    assert complement_ids().tolist() == swapped
    table = ps.table.weight
    by_hand = p @ table.T + q.flip(-1) @ table[swapped].T
    torch.testing.assert_close(ps.token_logits(codes), by_hand, rtol=0, atol=1e-12)
    mirrored = ps.token_logits(reverse_complement(codes))
    torch.testing.assert_close(mirrored, by_hand.flip(1)[..., swapped], rtol=0, atol=1e-12)


def test_logits_need_a_table():
    with pytest.raises(ConfigError, match="embedding: table"):
        make().token_logits(window())


# Options ------------------------------------------------------------------------------------------


def one_direction(mixer, direction, u, in_weight, out_weight):
    """A whole causal Mamba-1 with its own projections and gate, token by token."""
    x, z = F.linear(u, in_weight).chunk(2, dim=-1)
    num_taps = direction.conv_weight.shape[1]
    padded = F.pad(x, (0, 0, num_taps - 1, 0))
    x = sum(padded[:, k : k + x.shape[1]] * direction.conv_weight[:, k] for k in range(num_taps))
    x = F.silu(x + direction.conv_bias)
    low, B, C = F.linear(x, direction.x_proj.weight).split(
        (direction.rank, direction.d_state, direction.d_state), dim=-1
    )
    delta = F.softplus(F.linear(low, direction.dt_proj.weight, direction.dt_proj.bias))
    state, rows = torch.zeros(*u.shape[:1], *direction.A_log.shape, dtype=u.dtype), []
    for t in range(u.shape[1]):
        decay = torch.exp(delta[:, t, :, None] * -direction.A_log.exp())
        state = decay * state + (delta[:, t] * x[:, t])[..., None] * B[:, t, None]
        rows.append((state * C[:, t, None]).sum(-1) + direction.D * x[:, t])
    return F.linear(torch.stack(rows, 1) * F.silu(z), out_weight)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("strategy", ["add", "ew_multiply"])
def test_strategies_equal_two_separate_passes(strategy, tied):
    encoder = make(bidirectional_strategy=strategy, tie_projections=tied, num_layers=1)
    layer = encoder.trunk.layers[0]
    mixer = layer.mixer
    u = torch.randn(2, 9, 8, dtype=torch.float64)
    in_rev = mixer.in_proj.weight if tied else mixer.in_proj_rev.weight
    out_rev = mixer.out_proj.weight if tied else mixer.out_proj_rev.weight
    forward = one_direction(mixer, mixer.fwd, u, mixer.in_proj.weight, mixer.out_proj.weight)
    backward = one_direction(mixer, mixer.rev, u.flip(1), in_rev, out_rev).flip(1)
    theirs = forward + backward if strategy == "add" else forward * backward
    torch.testing.assert_close(mixer(u), theirs, rtol=0, atol=1e-10)
    mask = torch.rand(2, 9, dtype=torch.float64)
    assert torch.equal(mixer(u, torch.ones_like(mask)), mixer(u))
    assert not torch.allclose(mixer(u, mask), mixer(u))


def test_own_projections_start_alike():
    torch.manual_seed(0)
    config = CaduceusConfig(tie_projections=False, num_layers=4)
    mixer = Caduceus(config, tracks=(), window_bp=8, bin_size=1).trunk.layers[0].mixer
    # Kaiming-uniform with a = sqrt 5, over sqrt(depth): the bound is 1 / sqrt(256) / 2.
    for proj in (mixer.out_proj, mixer.out_proj_rev):
        assert 0.99 / 32 < proj.weight.abs().max() <= 1 / 32
    assert not torch.equal(mixer.in_proj.weight, mixer.in_proj_rev.weight)


@pytest.mark.parametrize("variant", ["ph", "ps"])
def test_recomputed_blocks_give_the_same_gradients(variant):
    plain, again = make(variant=variant), make(variant=variant, recompute=True)
    codes = window()
    for encoder in (plain, again):
        encoder(codes).square().sum().backward()
    for mine, theirs in zip(plain.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"variant": "ps"},
        {"variant": "ps", "swap_halves": True},
        {"variant": "ps", "num_layers": 0},
        {"bidirectional_strategy": "ew_multiply"},
        {"tie_projections": False, "variant": "ps", "swap_halves": True, "num_layers": 2},
    ],
    ids=str,
)
def test_a_span_gives_the_rows_of_the_whole_output_and_their_gradients(changes):
    encoder = make(**changes)
    codes = window()
    for first, stop in ((0, 17), (4, 9), (16, 17)):
        whole, part = encoder(codes)[:, first:stop], encoder(codes, span=(first, stop))
        torch.testing.assert_close(part, whole, rtol=0, atol=1e-12)
        seed = torch.randn_like(whole)
        wanted = list(encoder.parameters())
        for mine, theirs in zip(
            torch.autograd.grad(part, wanted, seed),
            torch.autograd.grad(whole, wanted, seed),
            strict=True,
        ):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


def test_norm_eps_reaches_every_norm():
    encoder = make(norm_eps=0.5)
    norms = [part for part in encoder.modules() if isinstance(part, RMSNorm)]
    assert len(norms) == 4
    assert {norm.eps for norm in norms} == {0.5}


def test_the_mask_scales_the_input_of_the_linear_embedding():
    """Published: the 4 or 7 input channels are multiplied, the bias stays."""
    encoder = make(tracks=("a",), num_layers=0)
    codes, mask = window(), signal_of(window())[..., 0]
    signal = signal_of(codes, 1)
    inputs = torch.cat([one_hot(codes, dtype=torch.float64), signal], dim=-1) * mask[..., None]
    hidden = inputs @ encoder.linear.proj.weight.T + encoder.linear.proj.bias
    root = (hidden.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    theirs = hidden / root * encoder.trunk.norm_f.weight
    torch.testing.assert_close(encoder(codes, signal, mask), theirs, rtol=0, atol=1e-12)


def test_both_directions_reach_every_position():
    """Changing one base at either end changes the output at the other."""
    encoder = make()
    codes = window(30, 1)
    for at, seen in ((0, 29), (29, 0)):
        changed = codes.clone()
        changed[0, at] = (codes[0, at] + 1) % 4
        assert not torch.equal(encoder(codes)[0, seen], encoder(changed)[0, seen])


# Counts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_tracks", "expected"), [(0, 574_209), (3, 574_593)])
def test_published_counts_of_the_baselines(num_tracks, expected):
    """Encoder plus the common head Linear(137, 128), Linear(128, 128), Linear(128, 1): 34,305."""
    tracks = ("H3K27ac", "DNase", "contact")[:num_tracks]
    encoder = build_encoder("caduceus", {}, tracks=tracks, window_bp=200_000, bin_size=1)
    head = nn.Sequential(nn.Linear(137, 128), nn.Linear(128, 128), nn.Linear(128, 1))
    assert count(head) == 34_305
    assert count(encoder) + count(head) == expected


@pytest.mark.parametrize("variant", ["ph", "ps"])
def test_published_counts_of_the_pretrained_trunk(variant):
    """16 blocks of width 256 and the final norm: 7,721,216; the padded table has 16 x 256 more."""
    params = {"variant": variant, "d_model": 256, "num_layers": 16, "embedding": "table"}
    with torch.device("meta"):
        encoder = build_encoder("caduceus", params, window_bp=131_072, bin_size=1)
    assert count(encoder.trunk) == 7_721_216
    assert count(encoder) == 7_725_312
    assert encoder.out_dim == (512 if variant == "ps" else 256)


def test_operations_of_the_published_sizes():
    """Specification 10, per token and direction: products 221,184 at 128 and 851,968 at 256, conv
    2,048 and 4,096; the projections in (131,072) and out (65,536) run once per block here."""
    length = 200_000
    ph = build_encoder("caduceus", {}, window_bp=length, bin_size=1)
    scan = 9 * 256 * 16
    per_token = 2 * (221_184 + 2_048 + scan) - (131_072 + 65_536)
    assert ph.flops(length) == length * (4 * per_token + 2 * 4 * 128)
    ps = build_encoder("caduceus", {"variant": "ps"}, window_bp=length, bin_size=1)
    assert ps.flops(length) == 2 * ph.flops(length)
    own = build_encoder("caduceus", {"tie_projections": False}, window_bp=length, bin_size=1)
    assert own.flops(length) == length * (4 * 2 * (221_184 + 2_048 + scan) + 2 * 4 * 128)
    assert ph.receptive_field(length) == length


@pytest.mark.parametrize(
    "changes",
    [
        {"num_layers": 2},
        {"variant": "ps", "num_layers": 2},
        {"embedding": "table", "num_layers": 1},
        {"bidirectional_strategy": "ew_multiply", "num_layers": 2},
        {"tie_projections": False, "num_layers": 2},
    ],
    ids=str,
)
def test_kept_bytes_are_those_that_autograd_keeps(changes):
    """Counted by the hooks of autograd: every storage once, parameters left out."""
    torch.manual_seed(0)
    config = CaduceusConfig(**({"d_model": 32, "recompute": False} | changes))
    encoder = Caduceus(config, tracks=(), window_bp=512, bin_size=1)
    kept = kept_bytes(encoder, window(512, 1))
    assert encoder.activation_bytes(512) == pytest.approx(kept, rel=0.2)


def test_only_one_block_of_one_strand_is_live_when_blocks_run_again():
    """Per strand: inputs of 3 blocks and of the norm with its roots, and 4 columns; one block."""
    ph, ps = (make(variant=variant, recompute=True) for variant in ("ph", "ps"))
    kept = ph.trunk.layers[0].kept_numbers(100)
    strand = 100 * (3 * 8 + 8 + 1 + 4)
    assert ph.activation_bytes(100) == 4 * (strand + kept - 800)
    assert ps.activation_bytes(100) == 4 * (2 * strand + kept - 800)
    assert make(variant="ps").activation_bytes(100) == 2 * make().activation_bytes(100)


# Bad use ------------------------------------------------------------------------------------------


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match=r"swap_halves.*variant: ph"):
        CaduceusConfig(swap_halves=True)
    with pytest.raises(ConfigError, match="norm_eps"):
        CaduceusConfig(norm_eps=0)
    with pytest.raises(ConfigError, match="d_model"):
        CaduceusConfig(d_model=0)
    with pytest.raises(ConfigError, match="bins of 128 bp"):
        build_encoder("caduceus", {}, window_bp=256, bin_size=128)
    with pytest.raises(ConfigError, match="tracks DNase"):
        build_encoder(
            "caduceus", {"embedding": "table"}, tracks=("DNase",), window_bp=256, bin_size=1
        )


def test_only_rms_norm_is_equivariant():
    encoder = make(variant="ps")
    encoder.trunk.layers[1].norm = nn.LayerNorm(8).double()
    with pytest.raises(ConfigError, match="found LayerNorm, expected RMSNorm"):
        encoder(window())


def test_wrong_tensors_are_refused():
    with pytest.raises(InputError, match="found shape"):
        make()(window(), signal_of(window()))
    with pytest.raises(InputError, match="found none"):
        make(tracks=("a", "b"))(window())
    with pytest.raises(InputError, match=r"mask .*found shape \(2, 16\), expected shape \(2, 17\)"):
        make()(window(), None, torch.ones(2, 16))
    with pytest.raises(InputError, match=r"bases 3 to 18 of 17"):
        make()(window(), span=(3, 18))
    with pytest.raises(InputError, match="at least one base"):
        make()(window(0))


@pytest.mark.parametrize("variant", ["ph", "ps"])
def test_windows_of_one_base_or_of_n_alone_and_empty_batches(variant):
    encoder = make(variant=variant)
    assert torch.isfinite(encoder(window(1))).all()
    assert torch.isfinite(encoder(torch.full((1, 9), 4, dtype=torch.uint8))).all()
    assert encoder(window(9, 0)).shape == (0, 9, encoder.out_dim)


@pytest.mark.parametrize("variant", ["ph", "ps"])
def test_the_batch_does_not_change_a_window(variant):
    encoder = make(variant=variant)
    codes = window(17, 5)
    whole = encoder(codes)
    for i in range(5):
        torch.testing.assert_close(encoder(codes[i : i + 1])[0], whole[i], rtol=0, atol=1e-12)
