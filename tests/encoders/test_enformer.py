"""The Enformer encoder: sizes, inputs, spans, cost, and runs that keep less."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.encoders import build_encoder
from seq2exp.encoders.enformer import enformer_one_hot
from tests.memory import kept_bytes

TINY = {"dim": 24, "depth": 2, "num_heads": 2, "key_dim": 4, "num_halvings": 3,
        "channel_multiple": 4}  # fmt: skip
WINDOW = 96


def make(seed=0, window_bp=WINDOW, **options):
    """A tiny Enformer in float64 whose blocks and norms do something."""
    torch.manual_seed(seed)
    encoder = build_encoder("enformer", TINY | options, window_bp=window_bp, bin_size=8).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for name, buffer in encoder.named_buffers():
            if "running" in name:
                buffer += 0.3 * torch.rand_like(buffer)
    return encoder


def without_dropout(encoder):
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return encoder


def windows(num=2, length=WINDOW, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 5, (num, length), generator=generator, dtype=torch.uint8)


# Sizes ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published():
    with torch.device("meta"):
        return build_encoder("enformer", {"crop_bins": 896}, window_bp=196_608, bin_size=128).eval()


def test_parameters_of_the_published_model(published):
    """229.8 M, and 251.2 M with both track heads on the 3,072 channels."""
    trunk = sum(p.numel() for p in published.parameters())
    heads = (3072 + 1) * (5313 + 1643)
    assert round(trunk / 1e6, 1) == 229.8
    assert round((trunk + heads) / 1e6, 1) == 251.2


def test_shapes_of_the_published_model(published):
    codes = torch.zeros(1, 196_608, dtype=torch.uint8, device="meta")
    seen = []
    published.blocks[0].register_forward_hook(lambda *args: seen.append(args[2].shape))
    assert published(codes).shape == (1, 896, 3072)
    assert seen == [(1, 1536, 1536)]
    assert published(codes, span=(767, 770)).shape == (1, 3, 3072)
    assert published.out_dim == 3072


def test_cost_of_the_published_model(published):
    """3.26 TFLOP as published (heads apart), less half of the pools' products and the rows of the
    last block that the crop drops: their queries, relative logits, mixing and network."""
    pools = sum(
        (196_608 >> i) * channels**2
        for i, channels in enumerate((768, 768, 896, 1024, 1152, 1280, 1536))
    )
    rows = 1536 - 896
    unread = 2 * rows * (1536 * 3072 * 2 + 1536 * (512 + 1536) + 1536 * (512 + 1536) + 192 * 512)
    unread += 2 * 512 * (1536 * (2 * 1536 - 1) - 896 * (1536 + 896 - 1))
    whole = published.flops(196_608) + pools + unread
    assert whole / 1e12 == pytest.approx(3.26, abs=0.01)


def test_the_centre_of_the_window_is_bin_448_of_the_crop(published):
    start, stop = published._cropped(1536)
    assert (start, stop) == (320, 1216)
    assert 98_304 // 128 - start == 448


# Inputs ---------------------------------------------------------------------------------------


def test_ids_are_the_documented_one_hot():
    ids = torch.tensor([[0, 1, 2, 3, 4, -1]])
    wanted = torch.cat([torch.eye(4), torch.zeros(1, 4), torch.full((1, 4), 0.25)])
    assert torch.equal(enformer_one_hot(ids)[0], wanted)
    assert torch.equal(enformer_one_hot(ids.to(torch.uint8))[0], wanted)
    assert torch.equal(enformer_one_hot(ids.to(torch.int8))[0], wanted)


def test_every_base_of_the_window_reaches_every_bin():
    encoder = make().eval()
    codes = windows(1)
    first, last = codes.clone(), codes.clone()
    first[0, 0], last[0, -1] = (codes[0, 0] + 1) % 4, (codes[0, -1] + 1) % 4
    before = encoder(codes)
    for changed in (first, last):
        assert ((encoder(changed) - before).abs().amax(2) > 1e-12).all()
    assert encoder.receptive_field(WINDOW) == WINDOW


def test_a_mask_of_zero_hides_the_bases_of_its_bins():
    encoder, codes = make().eval(), windows(1)
    mask = torch.ones(1, 12, dtype=torch.float64)
    mask[:, 4:6] = 0
    other = codes.clone()
    other[:, 32:48] = (other[:, 32:48] + 1) % 4
    assert torch.equal(encoder(codes, mask_BN=mask), encoder(other, mask_BN=mask))
    as_n = codes.clone()
    as_n[:, 32:48] = 4
    torch.testing.assert_close(encoder(codes, mask_BN=mask), encoder(as_n), rtol=0, atol=1e-13)
    half = mask.clone().fill_(0.5).requires_grad_()
    (gradient,) = torch.autograd.grad(encoder(codes, mask_BN=half).sum(), half)
    assert gradient.abs().min() > 0


def test_outputs_do_not_depend_on_the_batch():
    encoder, codes = make().eval(), windows(3)
    alone = torch.cat([encoder(row[None]) for row in codes])
    torch.testing.assert_close(encoder(codes), alone, rtol=0, atol=1e-12)


def test_windows_of_n_and_no_windows_at_all():
    encoder = make().eval()
    assert torch.isfinite(encoder(torch.full((1, WINDOW), 4, dtype=torch.uint8))).all()
    assert encoder(windows(0)).shape == (0, 12, 48)
    assert encoder(windows(1, 8)).shape == (1, 1, 48)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 20}, "multiple of 6"),
        ({"channel_multiple": 7}, "channel_multiple"),
        ({"channel_multiple": 24}, "at most half"),
        ({"depth": 0}, "depth"),
        ({"num_halvings": 1}, "num_halvings"),
        ({"crop_bins": 5}, "crop_bins"),
        ({"crop_bins": 14}, "crop_bins"),
        ({"crop_bins": 0}, "crop_bins"),
        ({"position_bins": 11}, "position_bins"),
        ({"dims": 3}, "did you mean 'dim'"),
    ],
)
def test_a_wrong_configuration_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build_encoder("enformer", TINY | options, window_bp=WINDOW, bin_size=8)


@pytest.mark.parametrize(
    "data",
    [
        {"tracks": ("DNase",), "window_bp": 96, "bin_size": 8},
        {"window_bp": 96, "bin_size": 16},
        {"window_bp": 100, "bin_size": 8},
        {"window_bp": 0, "bin_size": 8},
    ],
)
def test_data_that_cannot_be_read_are_refused(data):
    with pytest.raises(ConfigError):
        build_encoder("enformer", TINY, **data)


def test_wrong_tensors_are_refused():
    encoder, codes = make(crop_bins=6).eval(), windows(1)
    with pytest.raises(InputError, match="multiple of 8"):
        encoder(codes[:, :-1])
    with pytest.raises(InputError, match="at least 6 bins"):
        encoder(codes[:, :40])
    with pytest.raises(InputError, match="multiple of 8"):
        encoder(codes[:, :0])
    with pytest.raises(InputError, match="tracks"):
        encoder(codes, torch.zeros(1, 12, 2))
    with pytest.raises(InputError, match="mask"):
        encoder(codes, mask_BN=torch.ones(1, 11))
    for span in ((0, 13), (3, 3), (-1, 2)):
        with pytest.raises(InputError, match="span"):
            encoder(codes, span=span)


# Spans (R7) -----------------------------------------------------------------------------------


def run(encoder, codes, *, select=slice(None), **options):
    """Output and gradients of all parameters, after a run that starts from the same buffers."""
    encoder = copy.deepcopy(encoder)
    out = encoder(codes, **options)[:, select]
    seed = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return out, torch.autograd.grad(out, list(encoder.parameters()), seed), encoder


def same(one, other):
    torch.testing.assert_close(one[0], other[0], rtol=0, atol=1e-12)
    for a, b in zip(one[1], other[1], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("span", [(5, 8), (0, 2), (11, 12)])
def test_a_span_equals_the_plain_path_in_evaluation(span):
    encoder, codes = make(shortcuts="exact").eval(), windows()
    plain = make(shortcuts="never").eval()
    same(run(encoder, codes, span=span), run(plain, codes, select=slice(*span)))


def test_a_crop_is_the_middle_of_all_bins():
    encoder, codes = make(crop_bins=4).eval(), windows()
    assert encoder(codes).shape == (2, 4, 48)
    same(run(encoder, codes), run(make().eval(), codes, select=slice(4, 8)))
    same(run(encoder, codes, span=(2, 5)), run(make().eval(), codes, select=slice(2, 5)))


def test_a_span_equals_the_plain_path_in_training():
    """Batch norm of the final layer sees the crop, whatever is read of it."""
    codes = windows()
    encoder = without_dropout(make(crop_bins=6)).train()
    plain = without_dropout(make(crop_bins=6, shortcuts="never")).train()
    ours, theirs = run(encoder, codes, span=(5, 7)), run(plain, codes, select=slice(2, 4))
    same(ours, theirs)
    for a, b in zip(ours[2].buffers(), theirs[2].buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_always_lets_batch_norm_see_the_span_only():
    codes = windows()
    exact, always = (
        without_dropout(make(shortcuts=word)).train()(codes, span=(5, 7))
        for word in ("exact", "always")
    )
    assert (exact - always).abs().max() > 1e-3
    frozen, plain = (
        without_dropout(make(shortcuts=word, norm_statistics="running")).train()
        for word in ("always", "never")
    )
    same(run(frozen, codes, span=(5, 7)), run(plain, codes, select=slice(5, 7)))


def test_work_for_unread_bins_is_left_out():
    encoder, codes = make().eval(), windows()
    shapes = []
    encoder.blocks[-1].project_in.register_forward_hook(lambda *args: shapes.append(args[2].shape))
    encoder(codes, span=(5, 8))
    assert shapes == [(2, 3, 48)]


# Running again --------------------------------------------------------------------------------


def test_recompute_equals_the_plain_run_dropout_included():
    codes = windows()
    results = []
    for recompute in (False, True):
        encoder = make(recompute=recompute).train()
        torch.manual_seed(3)
        results.append(run(encoder, codes, span=(4, 8)))
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))
    for a, b in zip(results[0][2].buffers(), results[1][2].buffers(), strict=True):
        assert torch.equal(a, b)


def test_running_statistics_do_not_move_in_training():
    encoder = make(norm_statistics="running").train()
    before = [buffer.clone() for buffer in encoder.buffers()]
    encoder(windows())
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.buffers(), strict=True))


# Positions ------------------------------------------------------------------------------------


def test_positions_of_a_longer_window_are_kept_in_a_shorter_one():
    encoder = make(position_bins=12)
    whole, part = encoder.positions(12), encoder.positions(4)
    assert torch.equal(part, whole[8:15])
    assert not torch.allclose(part, make().positions(4))
    with pytest.raises(InputError, match="13 bins"):
        encoder.positions(13)


def test_gamma_scale_reaches_the_output():
    codes = windows()
    one, other = (make(gamma_scale=word).eval()(codes) for word in ("distances", "features"))
    assert (one - other).abs().max() > 1e-3


def test_stored_gammas_replace_the_computed_ones():
    encoder, codes = make(tf_gamma=True).eval(), windows()
    assert "tf_gammas" in encoder.state_dict()
    torch.testing.assert_close(encoder(codes), make().eval()(codes), rtol=0, atol=1e-6)
    with torch.no_grad():
        encoder.tf_gammas[:] = torch.rand_like(encoder.tf_gammas)
    assert (encoder(codes) - make().eval()(codes)).abs().max() > 1e-3
    assert "tf_gammas" not in make().state_dict()


# Cost -----------------------------------------------------------------------------------------


def test_flops_are_those_of_products_and_convolutions():
    from torch.utils.flop_counter import FlopCounterMode

    encoder = make(crop_bins=4).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(windows(1))
    assert encoder.flops(WINDOW) == counter.get_total_flops()


@pytest.mark.parametrize("options", [{}, {"dropout": 0.0, "attention_dropout": 0.0}])
def test_activation_bytes_are_what_autograd_keeps(options):
    encoder = make(window_bp=512, crop_bins=32, **options).float().train()
    measured = kept_bytes(encoder, lambda: encoder(windows(2, 512))) / 2
    assert encoder.activation_bytes(512) == pytest.approx(measured, rel=0.1)


def test_recompute_keeps_the_inputs_and_one_piece(published):
    """One activation of the stem is 196,608 x 768 numbers, 604 MB; four of them are live there."""
    small = build_encoder("enformer", TINY | {"recompute": True}, window_bp=512, bin_size=8)
    assert small.activation_bytes(512) < make(window_bp=512).activation_bytes(512) / 2
    with torch.device("meta"):
        large = build_encoder(
            "enformer", {"crop_bins": 896, "recompute": True}, window_bp=196_608, bin_size=128
        )
    assert large.activation_bytes(196_608) < 0.5 * published.activation_bytes(196_608)
    assert large.activation_bytes(196_608) > 4 * 196_608 * 768 * 4
