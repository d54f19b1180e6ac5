"""Files of weights as others publish them, and files that do not fit."""

from __future__ import annotations

import hashlib
import re

import pytest
import torch
from safetensors.torch import save_file

from seq2exp.core.errors import FormatError
from seq2exp.spatial.images.densenet import DenseNet, DenseNetConfig
from seq2exp.spatial.images.registry import make_encoder
from seq2exp.spatial.images.resnet import ResNet, ResNetConfig
from seq2exp.spatial.images.vit import VisionTransformer, VitConfig
from seq2exp.spatial.images.weights import hash_weights, load_weights

RESNET = ResNetConfig((1, 1, 1, 1), width=4)
VIT = VitConfig(patch_px=8, width=12, depth=2, num_heads=3, img_px=32)


def random_state(encoder, seed=7):
    """Weights that no start would give."""
    random = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(tensor.shape, generator=random) + 0.5
        if tensor.is_floating_point()
        else torch.tensor(3)
        for name, tensor in encoder.state_dict().items()
    }


def loads(encoder, state, expected, path):
    torch.save(state, path)
    found = load_weights(encoder, path)
    assert found == encoder.weight_hash == hashlib.sha256(path.read_bytes()).hexdigest()
    own = encoder.state_dict()
    assert own.keys() == expected.keys()
    assert all(torch.equal(own[name], expected[name]) for name in own)


def test_safetensors_and_pickles_load_by_name(tmp_path):
    state = random_state(make_encoder("tinycnn"))
    save_file(state, tmp_path / "a.safetensors")
    encoder = make_encoder("tinycnn", tmp_path / "a.safetensors")
    assert encoder.pretrained
    assert all(torch.equal(encoder.state_dict()[name], state[name]) for name in state)
    loads(make_encoder("tinycnn"), state, state, tmp_path / "a.pt")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {f"module.{name}": value for name, value in s.items()},
        lambda s: {"state_dict": {f"model.resnet.{name}": value for name, value in s.items()}},
        lambda s: {"state_dict": {f"backbone.{name}": value for name, value in s.items()}},
        lambda s: s | {"fc.weight": torch.rand(1000, 32), "fc.bias": torch.rand(1000)},
        lambda s: {"state_dict": {f"model.{n}": v for n, v in s.items()}
                   | {"model.fc.1.weight": torch.rand(2, 2)}},
    ],
    ids=["plain", "state_dict", "module", "ciga", "backbone", "classifier", "both"],
)  # fmt: skip
def test_wrappers_of_training_code_and_classifiers(tmp_path, wrap):
    encoder = ResNet(RESNET)
    state = random_state(encoder)
    loads(encoder, wrap(state), state, tmp_path / "w.pt")


def test_files_without_the_counters_of_batch_norms(tmp_path):
    encoder = ResNet(RESNET)
    state = random_state(encoder)
    old = {name: value for name, value in state.items() if "num_batches" not in name}
    expected = {n: v if n in old else torch.tensor(0) for n, v in state.items()}
    loads(encoder, old, expected, tmp_path / "w.pt")


def test_densenet_files_of_old(tmp_path):
    """They call norm1 norm.1 and conv2 conv.2."""
    encoder = DenseNet(DenseNetConfig(blocks=(2, 1), growth=4, width=6))
    state = random_state(encoder)
    old = {re.sub(r"(norm|conv)([12])\.", r"\1.\2.", n) if "denselayer" in n else n: value
           for n, value in state.items()}  # fmt: skip
    assert "features.denseblock1.denselayer2.conv.2.weight" in old
    old |= {"classifier.weight": torch.rand(5, 5)}
    loads(encoder, old, state, tmp_path / "w.pt")


def torchvision_names(state):
    names = {"cls_token": "class_token", "pos_embed": "encoder.pos_embedding"}
    parts = [
        ("patch_embed.proj.", "conv_proj."), (r"^norm\.", "encoder.ln."),
        (r"blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."), (r"\.norm([12])\.", r".ln_\1."),
        (r"attn\.qkv\.", "self_attention.in_proj_"), (r"attn\.proj\.", "self_attention.out_proj."),
        (r"mlp\.fc1\.", "mlp.0."), (r"mlp\.fc2\.", "mlp.3."),
    ]  # fmt: skip
    found = {}
    for name, value in state.items():
        other = names.get(name, name)
        for ours, theirs in parts:
            other = re.sub(ours, theirs, other)
        found[other] = value
    return found


def test_vision_transformers_of_torchvision(tmp_path):
    encoder = VisionTransformer(VIT)
    state = random_state(encoder)
    theirs = torchvision_names(state)
    assert "encoder.layers.encoder_layer_1.self_attention.in_proj_weight" in theirs
    assert "encoder.layers.encoder_layer_0.mlp.3.bias" in theirs
    loads(encoder, theirs | {"heads.head.weight": torch.rand(2, 12)}, state, tmp_path / "w.pt")


def test_half_precision_is_widened(tmp_path):
    encoder = ResNet(RESNET)
    state = {name: value.half() if value.is_floating_point() else value
             for name, value in random_state(encoder).items()}  # fmt: skip
    torch.save(state, tmp_path / "w.pt")
    load_weights(encoder, tmp_path / "w.pt")
    assert encoder.conv1.weight.dtype == torch.float32
    assert torch.equal(encoder.conv1.weight, state["conv1.weight"].float())


# Refusals ------------------------------------------------------------------------------------


def refused(tmp_path, encoder, state, text):
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(FormatError, match=text):
        load_weights(encoder, tmp_path / "w.pt")
    own = encoder.state_dict()
    assert all(torch.equal(own[name], before[name]) for name in before)


def test_what_is_missing_unexpected_or_misshapen_is_counted(tmp_path):
    encoder = ResNet(RESNET)
    state = random_state(encoder)
    state["layer9.weight"] = state.pop("conv1.weight")
    state["bn1.weight"] = torch.rand(7)
    refused(
        tmp_path, encoder, state,
        r"w\.pt: found tensors 1 missing, 1 unexpected, 1 of another shape, expected the \d+ "
        r"tensors of ResNet.*3 in all; first: missing conv1\.weight, unexpected layer9\.weight, "
        r"bn1\.weight \(7,\) instead of \(4,\)",
    )  # fmt: skip


def test_another_architecture_is_refused(tmp_path):
    refused(tmp_path, ResNet(RESNET), random_state(VisionTransformer(VIT)), r"\d+ missing")


def test_nan_is_refused(tmp_path):
    encoder = ResNet(RESNET)
    state = random_state(encoder)
    state["layer1.0.bn1.weight"][2] = float("nan")
    refused(tmp_path, encoder, state, r"1 not finite.*layer1\.0\.bn1\.weight with NaN")


def test_scaled_branches_point_to_the_encoder_that_has_them(tmp_path):
    scaled = VisionTransformer(VitConfig(8, 12, 2, 3, 32, layer_scale=1.0))
    refused(tmp_path, VisionTransformer(VIT), random_state(scaled), r"encoders that end in _ls")


def test_two_encoders_in_a_file_are_refused(tmp_path):
    encoder = ResNet(RESNET)
    state = random_state(encoder)
    both = state | {f"module.{name}": value for name, value in state.items()}
    refused(tmp_path, encoder, both, r"two tensors that mean conv1\.weight")


def test_damaged_and_missing_files(tmp_path):
    with pytest.raises(FormatError, match="nothing is downloaded"):
        make_encoder("resnet18", tmp_path / "none.pt")
    save_file(random_state(make_encoder("tinycnn")), tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(content[:-50])
    with pytest.raises(FormatError, match="damaged or cut off"):
        make_encoder("tinycnn", tmp_path / "a.safetensors")


class Trap:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of the file ran')",))


def test_a_pickle_runs_no_code(tmp_path):
    torch.save({"conv1.weight": Trap()}, tmp_path / "w.pt")
    with pytest.raises(FormatError, match=r"w\.pt"):
        load_weights(ResNet(RESNET), tmp_path / "w.pt")


def test_the_hash_of_weights_without_a_file_follows_every_number():
    encoder = ResNet(RESNET)
    first = hash_weights(encoder)
    assert hash_weights(encoder) == first
    with torch.no_grad():
        encoder.layer4[0].bn2.running_var[1] += 1e-3
    assert hash_weights(encoder) != first
