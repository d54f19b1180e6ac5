"""Published Enformer names: a synthetic state dict there and back, and everything that is wrong."""

from __future__ import annotations

import pytest
import torch

from seq2exp.core.errors import FormatError
from seq2exp.encoders import build_encoder
from seq2exp.encoders.enformer_weights import enformer_key, load_enformer

TINY = {"dim": 24, "depth": 2, "num_heads": 2, "key_dim": 4, "num_halvings": 3,
        "channel_multiple": 4}  # fmt: skip
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def make(**options):
    return build_encoder("enformer", TINY | options, window_bp=96, bin_size=8).double().eval()


def published_shapes():
    """Names and shapes of ``Enformer.state_dict()`` of enformer-pytorch 0.8.10 for the tiny sizes.

    Channels: stem 12, tower 12 and 24, dim 24; keys 2 x 4, values and position features 12.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(prefix, channels):
        shapes.update({f"{prefix}.{part}": (channels,) for part in NORM})
        shapes[f"{prefix}.num_batches_tracked"] = ()

    def conv(prefix, channels, inputs, *taps):
        shapes[f"{prefix}.weight"] = (channels, inputs, *taps)
        shapes[f"{prefix}.bias"] = (channels,)

    conv("stem.0", 12, 4, 15)
    norm("stem.1.fn.0", 12)
    conv("stem.1.fn.2", 12, 12, 1)
    shapes["stem.2.to_attn_logits.weight"] = (12, 12, 1, 1)
    for i, (inputs, channels) in enumerate([(12, 12), (12, 24)]):
        norm(f"conv_tower.{i}.0.0", inputs)
        conv(f"conv_tower.{i}.0.2", channels, inputs, 5)
        norm(f"conv_tower.{i}.1.fn.0", channels)
        conv(f"conv_tower.{i}.1.fn.2", channels, channels, 1)
        shapes[f"conv_tower.{i}.2.to_attn_logits.weight"] = (channels, channels, 1, 1)
    for i in range(2):
        attention, network = f"transformer.{i}.0.fn", f"transformer.{i}.1.fn"
        for prefix in (f"{attention}.0", f"{network}.0"):
            shapes[f"{prefix}.weight"] = shapes[f"{prefix}.bias"] = (24,)
        for part, shape in (("to_q", (8, 24)), ("to_k", (8, 24)), ("to_v", (24, 24))):
            shapes[f"{attention}.1.{part}.weight"] = shape
        shapes[f"{attention}.1.to_rel_k.weight"] = (8, 12)
        conv(f"{attention}.1.to_out", 24, 24)
        shapes[f"{attention}.1.rel_content_bias"] = (1, 2, 1, 4)
        shapes[f"{attention}.1.rel_pos_bias"] = (1, 2, 1, 4)
        conv(f"{network}.1", 48, 24)
        conv(f"{network}.4", 24, 48)
    norm("final_pointwise.1.0", 24)
    conv("final_pointwise.1.2", 48, 24, 1)
    for name, tracks in (("human", 5), ("mouse", 3)):
        conv(f"_heads.{name}.0", tracks, 48)
    return shapes


def published_tensors(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = published_shapes()
    tensors = {name: torch.rand(shapes[name], generator=generator) + 0.1 for name in shapes}
    for name, tensor in tensors.items():
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(7)
        elif "running" not in name:
            tensors[name] = (tensor - 0.6) * 0.3
    return tensors


TRUNK = {"stem": "1", "conv_tower": "2", "transformer": "4", "final_pointwise": "6"}


def as_trunk(name):
    part, _, rest = name.partition(".")
    return f"_trunk.{TRUNK[part]}.{rest}"


def test_every_published_name_has_a_weight_of_ours_and_only_one():
    names = [name for name in published_shapes() if not name.startswith("_heads")]
    keys = [enformer_key(name) for name in names]
    assert sorted(keys) == sorted(make().state_dict())
    assert keys == [enformer_key(as_trunk(name)) for name in names]
    assert keys == [enformer_key(f"enformer.{name}") for name in names]
    assert enformer_key("_heads.human.0.weight") is None
    assert enformer_key("elsewhere.weight") == "elsewhere.weight"


def test_weights_arrive_where_they_belong():
    encoder, tensors = make(), published_tensors()
    unused = load_enformer(encoder, tensors)
    assert unused == tuple(name for name in tensors if name.startswith("_heads"))
    own = encoder.state_dict()
    for name, tensor in tensors.items():
        if name not in unused:
            assert torch.equal(own[enformer_key(name)].flatten(), tensor.double().flatten()), name
    # The parts that trade places easily, by what they are for.
    block = encoder.blocks[1]
    bias = tensors["transformer.1.0.fn.1.rel_pos_bias"]
    assert torch.equal(block.attention.position_bias[:, 0], bias[0, :, 0].double())
    assert torch.equal(block.project_out.bias, tensors["transformer.1.1.fn.4.bias"].double())


def test_both_registrations_give_the_same_model():
    one, other, both = make(), make(), make()
    tensors = published_tensors()
    trunk = {as_trunk(k): v for k, v in tensors.items() if not k.startswith("_heads")}
    load_enformer(one, tensors)
    load_enformer(other, trunk)
    load_enformer(both, tensors | trunk)
    codes = torch.randint(0, 5, (1, 96), dtype=torch.uint8)
    assert torch.equal(one(codes), other(codes))
    assert torch.equal(one(codes), both(codes))


def refused(tensors, message, encoder=None):
    """Loading raises, and leaves every weight as it was."""
    encoder = encoder or make()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with pytest.raises(FormatError, match=message):
        load_enformer(encoder, tensors)
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


def test_a_missing_weight_is_named():
    tensors = published_tensors()
    del tensors["conv_tower.1.2.to_attn_logits.weight"]
    refused(tensors, r"weights missing.*1 in all; first: tower\.1\.pool\.weight")


def test_an_unexpected_weight_is_named():
    tensors = published_tensors() | {"transformer.2.0.fn.0.weight": torch.zeros(24)}
    refused(tensors, r"weights unexpected.*blocks\.2\.norm_attention\.weight")
    refused(published_tensors() | {"lora.a": torch.zeros(1)}, r"unexpected.*lora\.a")


def test_a_weight_of_another_shape_is_named_with_both():
    tensors = published_tensors()
    tensors["stem.0.weight"] = torch.zeros(12, 4, 11)
    refused(tensors, r"stem\.conv\.weight \(12, 4, 11\) instead of \(12, 4, 15\)")
    tensors["stem.0.weight"] = torch.zeros(12, 15, 4)
    refused(tensors, "of another shape")


def test_two_registrations_that_differ_are_refused():
    tensors = published_tensors()
    refused(tensors | {"_trunk.1.0.bias": torch.zeros(12)}, r"different values.*_trunk\.1\.0\.bias")


def test_counts_of_batches_may_be_missing():
    tensors = {k: v for k, v in published_tensors().items() if not k.endswith("tracked")}
    load_enformer(make(), tensors)


def test_gammas_are_loaded_where_they_are_asked_for():
    """12 bins, so 23 distances; 12 features of a distance, so 2 gamma features."""
    gammas = torch.rand(1, 23, 2)
    encoder, plain = make(tf_gamma=True), make()
    load_enformer(encoder, published_tensors() | {"tf_gammas": gammas})
    assert torch.equal(encoder.tf_gammas, gammas[0].double())
    assert "tf_gammas" in load_enformer(plain, published_tensors() | {"tf_gammas": gammas})
    refused(published_tensors(), "missing.*tf_gammas", make(tf_gamma=True))
    wrong = published_tensors() | {"tf_gammas": torch.rand(21, 2)}
    refused(wrong, r"tf_gammas \(21, 2\) instead of \(23, 2\)", make(tf_gamma=True))
