"""The EPInformer encoder: rows, features, empty slots, and work that is left out."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.encoders import build_encoder
from seq2exp.encoders.row_features import activity_tracks
from seq2exp.nn.sequence import one_hot
from tests.memory import kept_bytes

TINY = {"out_dim": 32, "num_layers": 2, "num_heads": 2, "max_elements": 5, "element_bp": 112,
        "max_distance_bp": 400, "stem_channels": 6, "tower_channels": [5, 4]}  # fmt: skip
TRACKS = ("H3K4me3", "DNase", "H3K27ac", "contact")
WINDOW, BIN, TSS = 1000, 10, 500
ELEMENTS = [(120, 180), (300, 420), (580, 700), (610, 811), (-1, -1), (520, 560), (0, 30)]


def make(seed=0, tracks=TRACKS, **options):
    torch.manual_seed(seed)
    encoder = build_encoder(
        "epinformer", TINY | options, tracks=tracks, window_bp=WINDOW, bin_size=BIN
    ).double()
    with torch.no_grad():
        for name, buffer in encoder.named_buffers():
            if "running" in name:
                buffer += 0.3 * torch.rand_like(buffer)
    return encoder


def batch(num=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 4, (num, WINDOW), generator=generator, dtype=torch.uint8)
    signal = torch.rand(num, WINDOW // BIN, len(TRACKS), generator=generator) * 3
    return codes, signal, torch.tensor([ELEMENTS] * num, dtype=torch.int32)


def both(one, other, codes, signal, elements, **options):
    """Outputs and gradients of two encoders with equal weights are equal."""
    other.load_state_dict(one.state_dict())
    results = []
    for encoder in (one, other):
        out = encoder(codes, signal, elements_BR2=elements, **options)
        results.append([out, *torch.autograd.grad(out.square().sum(), list(encoder.parameters()))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


# Sizes ----------------------------------------------------------------------------------------


def test_parameters_of_the_published_comparison():
    """447,341 with the head on 64 + 9 scalars: 73 -> 128 -> 128 -> 1 with ReLU between."""
    encoder = build_encoder("epinformer", {}, window_bp=200_000, bin_size=100)
    head = nn.Sequential(nn.Linear(73, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(),
                         nn.Linear(128, 1))  # fmt: skip
    count = sum(p.numel() for part in (encoder, head) for p in part.parameters())
    assert count == 447_341
    assert encoder.flops(200_000) / 1e12 == pytest.approx(0.0338, abs=5e-5)


def test_the_output_is_one_position():
    encoder = make().eval()
    codes, signal, elements = batch()
    out = encoder(codes, signal, elements_BR2=elements)
    assert out.shape == (2, 1, 32)
    assert torch.equal(out, encoder(codes, signal, elements_BR2=elements, span=(0, 1)))
    assert encoder.pools
    assert encoder.takes_tracks


# Rows -----------------------------------------------------------------------------------------


def rows_of(encoder, *args, **options):
    """Sequences that reach the net, in order of windows and slots."""
    seen = []
    hook = encoder.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder(*args, **options)
    hook.remove()
    return torch.cat(seen)


def test_rows_are_the_promoter_and_the_elements_in_reach():
    """(520, 560) lies within 56 bases of the TSS, (0, 30) more than 400 from it."""
    encoder = make(shortcuts="never", max_elements=7).eval()
    codes, signal, elements = batch(1)
    rows = rows_of(encoder, codes, signal, elements_BR2=elements)
    assert len(rows) == 5
    assert torch.equal(rows[0], codes[0, TSS - 56 : TSS + 56])
    assert torch.equal(rows[1][26:86], codes[0, 120:180])
    assert (rows[1][:26] == 4).all()
    assert (rows[1][86:] == 4).all()
    assert torch.equal(rows[2], codes[0, 304:416])
    assert torch.equal(rows[4], codes[0, 654:766])


def test_elements_cross_the_edge_of_the_window():
    encoder = make(max_distance_bp=600, shortcuts="never").eval()
    codes, signal, _ = batch(1)
    elements = torch.tensor([[[-40, 40], [960, 1030]]], dtype=torch.int32)
    rows = rows_of(encoder, codes, signal, elements_BR2=elements)
    assert torch.equal(rows[1][56:96], codes[0, :40])
    assert (rows[1][:56] == 4).all()
    assert torch.equal(rows[2][21:61], codes[0, 960:])
    assert (rows[2][61:] == 4).all()


def test_rows_and_windows_shorter_than_an_element():
    encoder = build_encoder("epinformer", TINY | {"norm": "none"}, window_bp=50, bin_size=10)
    codes = torch.randint(0, 4, (1, 50), dtype=torch.uint8)
    rows = rows_of(encoder, codes, elements_BR2=torch.zeros(1, 0, 2, dtype=torch.int32))
    assert torch.equal(rows[0][31:81], codes[0])
    assert (rows[0][:31] == 4).all()


# Features -------------------------------------------------------------------------------------


def features_of(encoder, signal, elements, mask=None):
    """Features of the given elements of window 0, from the layer that reads them."""
    seen = []
    hook = encoder.mix.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    codes = batch(1)[0]
    pairs = torch.tensor([elements], dtype=torch.int32)
    encoder.eval()(codes, signal, mask, elements_BR2=pairs)
    hook.remove()
    return seen[0][:, 32:]


def by_hand(signal, start, end):
    centre = (start + end) // 2
    tracks = torch.nan_to_num(signal[0]).double().repeat_interleave(BIN, dim=0)
    means = tracks[start:end].mean(0)
    return [abs(centre - TSS) / 1000, math.log10(1 + float(tracks[centre, 3])),
            math.sqrt(float(means[1] * means[2]))]  # fmt: skip


def test_features_are_distance_contact_and_activity():
    """Geometric mean of accessibility and H3K27ac; the promoter row has zeros."""
    signal = batch(1)[1]
    signal[0, 15, 3] = torch.nan
    signal[0, 60, 1] = torch.nan
    wanted = [[0.0, 0.0, 0.0], by_hand(signal, 123, 185), by_hand(signal, 580, 811)]
    ours = features_of(make(), signal, [(123, 185), (580, 811)])
    torch.testing.assert_close(ours, torch.tensor(wanted, dtype=torch.float64))
    assert wanted[1][1] == 0


def test_the_stored_transform_is_undone():
    raw = batch(1)[1]
    stored = raw.clone()
    stored[..., 1], stored[..., 2] = raw[..., 1].log1p(), raw[..., 2].arcsinh()
    transforms = ["none", "log1p", "arcsinh", "none"]
    ours = features_of(make(stored_transforms=transforms), stored, [(120, 180)])
    torch.testing.assert_close(ours, features_of(make(), raw, [(120, 180)]), rtol=0, atol=1e-6)


def test_the_distance_may_have_a_sign():
    signal = batch(1)[1]
    ours = features_of(make(signed_distance=True), signal, [(120, 180), (580, 700)])
    assert ours[1:, 0].tolist() == [-0.35, 0.14]


def test_without_tracks_the_features_are_zero():
    ours = features_of(make(tracks=()), None, [(120, 180)])
    assert ours[1].tolist() == [0.35, 0.0, 0.0]


@pytest.mark.parametrize(
    ("tracks", "options", "expected"),
    [
        (TRACKS, {}, ("DNase", "H3K27ac")),
        (("K562 ATAC-seq", "k562_h3k27ac"), {}, ("K562 ATAC-seq", "k562_h3k27ac")),
        (("contact", "H3K4me3", "DNase"), {}, ("H3K4me3",)),
        (("contact",), {}, ()),
        (("a", "b"), {"accessibility": "b", "acetylation": "a"}, ("b", "a")),
    ],
)
def test_the_tracks_of_the_activity(tracks, options, expected):
    assert activity_tracks(tracks, **options) == expected


def test_one_track_gives_its_mean():
    encoder, signal = make(tracks=("H3K4me3",)), batch(1)[1][..., :1]
    wanted = signal[0, :, 0].repeat_interleave(BIN)[120:180].mean()
    ours = features_of(encoder, signal, [(120, 180)])
    assert ours[1, 2].item() == pytest.approx(wanted.item())


# Invariances ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_order_of_elements_and_empty_slots_do_not_matter(mode):
    codes, signal, elements = batch()
    padding = torch.full((2, 9, 2), -1, dtype=torch.int32)
    padding[:, ::2] = torch.tensor([7, 3], dtype=torch.int32)
    others = [elements[:, [6, 3, 1, 0, 4, 5, 2]], torch.cat([padding, elements, padding], 1)]
    for norm in ("all", "none"):
        fresh = getattr(make(norm=norm), mode)()
        results = []
        for given in (elements, *others):
            encoder = copy.deepcopy(fresh)
            out = encoder(codes, signal, elements_BR2=given)
            gradients = torch.autograd.grad(out.square().sum(), list(encoder.parameters()))
            results.append([out, *gradients, *encoder.buffers()])
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_batch_statistics_are_those_of_the_filled_rows():
    """Two windows with 4 and 1 elements: 7 sequences, whatever the padding."""
    encoder = make(shortcuts="never").train()
    codes, signal, elements = batch()
    elements[1, 1:] = -1
    rows = rows_of(encoder, codes, signal, elements_BR2=elements)
    assert len(rows) == 7
    first = encoder.net.norms[0]
    before = torch.zeros_like(first.running_mean)
    first.running_mean.copy_(before)
    encoder(codes, signal, elements_BR2=elements)
    again = copy.deepcopy(encoder.net)
    again.norms[0].running_mean.copy_(before)
    again(rows)
    torch.testing.assert_close(first.running_mean, again.norms[0].running_mean)


def test_windows_do_not_depend_on_each_other_in_evaluation():
    encoder = make().eval()
    codes, signal, elements = batch(3)
    elements[1, :4] = -1
    alone = [
        encoder(codes[i : i + 1], signal[i : i + 1], elements_BR2=elements[i : i + 1])
        for i in range(3)
    ]
    together = encoder(codes, signal, elements_BR2=elements)
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-12)


def test_only_elements_and_promoter_are_read():
    encoder = make().eval()
    codes, signal, elements = batch(1)
    out, other = encoder(codes, signal, elements_BR2=elements), codes.clone()
    unread = torch.ones(WINDOW, dtype=torch.bool)
    for start, end in [(444, 556), *ELEMENTS[:4]]:
        unread[start:end] = False
    other[0, unread] = (other[0, unread] + 1) % 4
    assert torch.equal(out, encoder(other, signal, elements_BR2=elements))
    other[0, 150] = (other[0, 150] + 1) % 4
    assert not torch.equal(out, encoder(other, signal, elements_BR2=elements))
    assert encoder.receptive_field(WINDOW) == 2 * (400 + 56)
    assert encoder.receptive_field(100) == 100


def test_an_element_of_n_is_an_empty_slot():
    encoder = make().eval()
    codes, signal, elements = batch(1)
    codes[0, 120:180] = 4
    without = elements.clone()
    without[0, 0] = -1
    torch.testing.assert_close(
        encoder(codes, signal, elements_BR2=elements),
        encoder(codes, signal, elements_BR2=without),
        rtol=0,
        atol=1e-13,
    )


def test_masks_hide_bases_signal_and_whole_elements():
    encoder = make().eval()
    codes, signal, elements = batch(1)
    mask = torch.ones(1, WINDOW // BIN, dtype=torch.float64)
    mask[:, 12:18] = 0
    mask[:, 60:65] = 0
    other, moved = codes.clone(), signal.clone()
    for start, end in ((120, 180), (600, 650)):
        other[:, start:end] = (other[:, start:end] + 1) % 4
        moved[:, start // BIN : end // BIN] += 1
    without = elements.clone()
    without[0, 0] = -1
    out = encoder(codes, signal, mask, elements_BR2=elements)
    torch.testing.assert_close(
        out, encoder(other, moved, mask, elements_BR2=without), rtol=0, atol=1e-13
    )
    ones = torch.ones_like(mask)
    torch.testing.assert_close(
        encoder(codes, signal, ones, elements_BR2=elements),
        encoder(codes, signal, elements_BR2=elements),
        rtol=0,
        atol=1e-12,
    )


def test_the_gradient_reaches_the_mask_and_is_finite():
    """Also where the activity is 0, at which a root has no slope."""
    encoder = make().eval()
    codes, signal, elements = batch(1)
    signal[:, 10:20, 1] = 0
    mask = torch.full((1, WINDOW // BIN), 0.5, dtype=torch.float64, requires_grad=True)
    out = encoder(codes, signal, mask, elements_BR2=elements)
    (gradient,) = torch.autograd.grad(out.sum(), mask)
    assert torch.isfinite(gradient).all()
    assert (gradient[0, 30:42] != 0).all()
    assert not gradient[0, 85:].any()


# Work that is left out (R8) -------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["all", "tower", "none"])
def test_shortcuts_equal_the_plain_path_in_evaluation(norm):
    codes, signal, elements = batch(3)
    codes[2] = codes[0]
    one, other = make(norm=norm).eval(), make(seed=1, norm=norm, shortcuts="never").eval()
    both(one, other, codes, signal, elements)


@pytest.mark.parametrize(
    "options",
    [{"norm": "none"}, {"norm_statistics": "running"}, {}, {"norm": "none", "chunk_rows": 3}],
)
def test_shortcuts_equal_the_plain_path_in_training(options):
    codes, signal, elements = batch(2)
    codes[1] = codes[0]
    one, other = make(**options).train(), make(seed=1, shortcuts="never", **options).train()
    both(one, other, codes, signal, elements)


def test_each_distinct_sequence_is_encoded_once():
    codes, signal, elements = batch(3)
    codes[2] = codes[0]
    elements[1, 1:] = -1
    encoder = make(norm="none")
    assert len(rows_of(encoder, codes, signal, elements_BR2=elements)) == 5 + 2
    plain = make(norm="none", shortcuts="never")
    assert len(rows_of(plain, codes, signal, elements_BR2=elements)) == 5 + 2 + 5
    counted = make().train()
    assert len(rows_of(counted, codes, signal, elements_BR2=elements)) == 5 + 2 + 5


def test_only_the_promoter_row_passes_the_last_network():
    encoder, shapes = make().eval(), []
    encoder.blocks[-1].network.register_forward_hook(lambda *args: shapes.append(args[2].shape))
    codes, signal, elements = batch()
    encoder(codes, signal, elements_BR2=elements)
    assert shapes == [(2, 1, 32)]


@pytest.mark.parametrize("options", [{}, {"norm": "none", "chunk_rows": 3}])
def test_recompute_equals_the_plain_run(options):
    codes, signal, elements = batch()
    one, other = make(**options).train(), make(recompute=True, **options).train()
    both(one, other, codes, signal, elements)
    for a, b in zip(one.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


# Bad input ------------------------------------------------------------------------------------


def test_no_windows_and_no_elements():
    encoder = make().eval()
    codes, signal, elements = batch(1)
    assert encoder(codes[:0], signal[:0], elements_BR2=elements[:0]).shape == (0, 1, 32)
    torch.testing.assert_close(
        encoder(codes, signal, elements_BR2=elements[:, :0]),
        encoder(codes, signal, elements_BR2=torch.full_like(elements, -1)),
        rtol=0,
        atol=1e-13,
    )


def test_a_training_promoter_of_n_is_an_error():
    encoder = make()
    codes, signal, elements = batch(3)
    codes[1:, TSS - 56 : TSS + 56] = 4
    with pytest.raises(InputError, match=r"only N.*2 in all"):
        encoder.train()(codes, signal, elements_BR2=elements)
    assert torch.isfinite(encoder.eval()(codes, signal, elements_BR2=elements)).all()


def test_wrong_tensors_are_refused():
    encoder = make().eval()
    codes, signal, elements = batch(1)
    with pytest.raises(InputError, match="bases"):
        encoder(codes[:, :-1], signal, elements_BR2=elements)
    with pytest.raises(InputError, match="signal"):
        encoder(codes, signal[..., :2], elements_BR2=elements)
    with pytest.raises(InputError, match="elements"):
        encoder(codes, signal, elements_BR2=elements[0])
    with pytest.raises(InputError, match="mask"):
        encoder(codes, signal, torch.ones(1, 3), elements_BR2=elements)
    with pytest.raises(InputError, match="span"):
        encoder(codes, signal, elements_BR2=elements, span=(3, 6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"element_bp": 98}, "element_bp"),
        ({"out_dim": 40}, "out_dim"),
        ({"num_heads": 3}, "num_heads"),
        ({"tower_channels": []}, "tower_channels"),
        ({"max_elements": 0}, "max_elements"),
        ({"stored_transforms": ["log1p"]}, "one for each"),
        ({"accessibility": "ATAC"}, "DNase"),
        ({"norm": "layer"}, "norm"),
    ],
)
def test_a_wrong_configuration_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)


# Cost -----------------------------------------------------------------------------------------


def test_flops_are_those_of_all_filled_slots():
    from torch.utils.flop_counter import FlopCounterMode

    encoder = make(max_elements=4).eval()
    codes, signal, elements = batch(1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(codes, signal, elements_BR2=elements[:, :4])
    # The counter does not see the logits of the star, which are sums of products.
    assert encoder.flops(WINDOW) == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert encoder.flops(WINDOW) > counter.get_total_flops()


@pytest.mark.parametrize("norm", ["all", "tower", "none"])
def test_activation_bytes_are_what_autograd_keeps(norm):
    encoder = make(norm=norm, max_elements=4, shortcuts="never").float().train()
    codes, signal, elements = batch(1)
    measured = kept_bytes(encoder, lambda: encoder(codes, signal, elements_BR2=elements[:, :4]))
    assert encoder.activation_bytes(WINDOW) == pytest.approx(measured, rel=0.2)


# Columns in place of codes --------------------------------------------------------------------


def test_one_hot_columns_give_what_codes_give_and_exact_gradients():
    encoder = make().double().eval()
    codes, signal, elements = batch()
    codes[0, 3:9] = 4
    columns = one_hot(codes, dtype=torch.float64).requires_grad_()
    signal = signal.double()
    out = encoder(columns, signal, elements_BR2=elements)
    torch.testing.assert_close(out, encoder(codes, signal, elements_BR2=elements))
    (gradient,) = torch.autograd.grad(out.sum(), columns)
    assert gradient.abs().max() > 1e-6
    for place in (WINDOW // 2, WINDOW // 2 + 5):
        moved = []
        for step in (1e-6, -1e-6):
            shifted = columns.detach().clone()
            shifted[1, place, 2] += step
            moved.append(encoder(shifted, signal, elements_BR2=elements).sum())
        found = (moved[0] - moved[1]) / 2e-6
        torch.testing.assert_close(gradient[1, place, 2], found, rtol=1e-5, atol=1e-8)
