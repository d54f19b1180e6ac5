"""Shapes, names, parameter counts, and numbers of blocks written a second time by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError
from seq2exp.spatial.colour import colour_stats
from seq2exp.spatial.images.compute import patches_to_tensor, resized
from seq2exp.spatial.images.densenet import DenseNet, DenseNetConfig
from seq2exp.spatial.images.encoder import IMAGENET_MEAN, IMAGENET_STD
from seq2exp.spatial.images.registry import ENCODERS, make_encoder
from seq2exp.spatial.images.resnet import RESNETS, ResNet, ResNetConfig
from seq2exp.spatial.images.vit import VITS, VisionTransformer, VitConfig

# Without classifiers. torchvision 0.28 and timm 1.0.31 give the same.
PARAMETERS = {
    "resnet18": 11_176_512,
    "resnet50": 23_508_032,
    "densenet121": 6_953_856,
    "vit_s16": 21_665_664,
    "vit_b16": 85_798_656,
    "vit_b32": 87_455_232,
    "vit_l16": 303_301_632,
    "vit_l16_ls": 303_350_784,
}
DIM = {"resnet18": 512, "resnet50": 2048, "densenet121": 1024, "vit_s16": 384, "vit_b16": 768,
       "vit_b32": 768, "vit_l16": 1024, "vit_l16_ls": 1024}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_and_widths_of_the_published_encoders(name):
    with torch.device("meta"):
        encoder = ENCODERS[name]()
    assert sum(parameter.numel() for parameter in encoder.parameters()) == PARAMETERS[name]
    assert encoder.dim == encoder.token_dim == DIM[name]


def shapes(encoder):
    return {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}


def norm_names(place, channels):
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{place}.{part}": (channels,) for part in parts} | {f"{place}.num_batches_tracked": ()}


def torchvision_resnet(blocks, *, bottleneck):
    """Names and shapes of a ResNet of torchvision, from the tables of He et al."""
    found = {"conv1.weight": (64, 3, 7, 7)} | norm_names("bn1", 64)
    before = 64
    for stage, count in enumerate(blocks, start=1):
        inner = 64 * 2 ** (stage - 1)
        out = 4 * inner if bottleneck else inner
        for block in range(count):
            place = f"layer{stage}.{block}"
            sizes = [(inner, before, 1), (inner, inner, 3), (out, inner, 1)]
            sizes = sizes if bottleneck else [(inner, before, 3), (out, inner, 3)]
            for index, (to, of, kernel) in enumerate(sizes, start=1):
                found[f"{place}.conv{index}.weight"] = (to, of, kernel, kernel)
                found |= norm_names(f"{place}.bn{index}", to)
            if block == 0 and (stage > 1 or before != out):
                found[f"{place}.downsample.0.weight"] = (out, before, 1, 1)
                found |= norm_names(f"{place}.downsample.1", out)
            before = out
    return found


@pytest.mark.parametrize("name", RESNETS)
def test_names_of_resnets(name):
    config = RESNETS[name]
    with torch.device("meta"):
        found = shapes(ResNet(config))
    assert found == torchvision_resnet(config.blocks, bottleneck=config.bottleneck)


def test_names_of_densenet121():
    """Huang et al., table 1: growth 32, layers 6, 12, 24, 16, halved between the blocks."""
    expected = {"features.conv0.weight": (64, 3, 7, 7)} | norm_names("features.norm0", 64)
    channels = 64
    for block, count in enumerate((6, 12, 24, 16), start=1):
        for layer in range(1, count + 1):
            place = f"features.denseblock{block}.denselayer{layer}"
            expected |= norm_names(f"{place}.norm1", channels) | norm_names(f"{place}.norm2", 128)
            expected[f"{place}.conv1.weight"] = (128, channels, 1, 1)
            expected[f"{place}.conv2.weight"] = (32, 128, 3, 3)
            channels += 32
        if block < 4:
            expected |= norm_names(f"features.transition{block}.norm", channels)
            expected[f"features.transition{block}.conv.weight"] = (channels // 2, channels, 1, 1)
            channels //= 2
    expected |= norm_names("features.norm5", 1024)
    with torch.device("meta"):
        assert shapes(DenseNet()) == expected


@pytest.mark.parametrize("name", ["vit_s16", "vit_b32", "vit_l16_ls"])
def test_names_of_vision_transformers(name):
    config = VITS[name]
    width, side = config.width, config.patch_px
    expected = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, (224 // side) ** 2 + 1, width),
        "patch_embed.proj.weight": (width, 3, side, side),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for block in range(config.depth):
        lines = {"norm1": (), "attn.qkv": (3, 1), "attn.proj": (1, 1), "norm2": (),
                 "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}  # fmt: skip
        for part, size in lines.items():
            weight = tuple(factor * width for factor in size) or (width,)
            expected[f"blocks.{block}.{part}.weight"] = weight
            expected[f"blocks.{block}.{part}.bias"] = weight[:1]
        if name.endswith("_ls"):
            expected |= {f"blocks.{block}.ls{part}.gamma": (width,) for part in (1, 2)}
    with torch.device("meta"):
        assert shapes(VisionTransformer(config)) == expected


# Numbers -------------------------------------------------------------------------------------


def perturbed(encoder, seed=0):
    """Give every weight and statistic a value, so that no part is the identity."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in encoder.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=random) + 0.5)
            elif tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=random) * 0.2)
    return encoder.eval()


def norm(state, place, x):
    names = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(state[f"{place}.{name}"] for name in names), training=False)


def by_hand_resnet(encoder, x, *, bottleneck):
    state = encoder.state_dict()
    x = F.relu(norm(state, "bn1", F.conv2d(x, state["conv1.weight"], stride=2, padding=3)))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage in (1, 2, 3, 4):
        place, stride = f"layer{stage}.0", 1 if stage == 1 else 2
        same = x
        if f"{place}.downsample.0.weight" in state:
            same = F.conv2d(x, state[f"{place}.downsample.0.weight"], stride=stride)
            same = norm(state, f"{place}.downsample.1", same)
        if bottleneck:
            x = F.relu(norm(state, f"{place}.bn1", F.conv2d(x, state[f"{place}.conv1.weight"])))
            x = F.conv2d(x, state[f"{place}.conv2.weight"], stride=stride, padding=1)
            x = F.relu(norm(state, f"{place}.bn2", x))
            x = norm(state, f"{place}.bn3", F.conv2d(x, state[f"{place}.conv3.weight"]))
        else:
            x = F.conv2d(x, state[f"{place}.conv1.weight"], stride=stride, padding=1)
            x = F.relu(norm(state, f"{place}.bn1", x))
            x = F.conv2d(x, state[f"{place}.conv2.weight"], padding=1)
            x = norm(state, f"{place}.bn2", x)
        x = F.relu(x + same)
    return x


def normalised(x):
    mean, std = (torch.tensor(part).view(1, 3, 1, 1) for part in (IMAGENET_MEAN, IMAGENET_STD))
    return (x - mean) / std


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_resnet_by_hand(bottleneck):
    encoder = perturbed(ResNet(ResNetConfig((1, 1, 1, 1), bottleneck=bottleneck, width=8)))
    x = torch.rand(2, 3, 64, 48)
    expected = by_hand_resnet(encoder, normalised(x), bottleneck=bottleneck)
    with torch.no_grad():
        tokens, pooled = encoder.tokens(x), encoder.pool(x)
    assert expected.shape[2:] == (2, 2)
    torch.testing.assert_close(pooled, expected.mean(dim=(2, 3)))
    # Places row by row.
    for place, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        torch.testing.assert_close(tokens[:, place], expected[:, :, row, column])


def test_a_densenet_by_hand():
    encoder = perturbed(DenseNet(DenseNetConfig(blocks=(2, 1), growth=4, bottleneck=2, width=6)))
    state = {name.removeprefix("features."): value for name, value in encoder.state_dict().items()}
    x = torch.rand(2, 3, 64, 64)
    hidden = F.conv2d(normalised(x), state["conv0.weight"], stride=2, padding=3)
    hidden = F.max_pool2d(F.relu(norm(state, "norm0", hidden)), 3, 2, 1)
    for place in ("denseblock1.denselayer1", "denseblock1.denselayer2", "transition1",
                  "denseblock2.denselayer1"):  # fmt: skip
        if place == "transition1":
            hidden = F.relu(norm(state, "transition1.norm", hidden))
            hidden = F.avg_pool2d(F.conv2d(hidden, state["transition1.conv.weight"]), 2)
            continue
        new = F.conv2d(
            F.relu(norm(state, f"{place}.norm1", hidden)), state[f"{place}.conv1.weight"]
        )
        new = F.relu(norm(state, f"{place}.norm2", new))
        hidden = torch.cat([hidden, F.conv2d(new, state[f"{place}.conv2.weight"], padding=1)], 1)
    expected = F.relu(norm(state, "norm5", hidden))
    with torch.no_grad():
        torch.testing.assert_close(encoder.pool(x), expected.mean(dim=(2, 3)))
        torch.testing.assert_close(encoder.tokens(x), expected.flatten(2).transpose(1, 2))


SMALL_VIT = VitConfig(patch_px=8, width=12, depth=2, num_heads=3, img_px=32, layer_scale=0.5)


def by_hand_vit(state, x, config):
    """The transformer with matrices written out, one head at a time."""
    width, side = config.width, config.patch_px
    squares = F.unfold(x, side, stride=side).transpose(1, 2)
    weight = state["patch_embed.proj.weight"].reshape(width, -1)
    hidden = squares @ weight.T + state["patch_embed.proj.bias"]
    hidden = torch.cat([state["cls_token"].expand(len(x), 1, width), hidden], dim=1)
    hidden = hidden + state["pos_embed"]

    def layer_norm(place, value):
        centred = value - value.mean(-1, keepdim=True)
        scale = (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
        return centred / scale * state[f"{place}.weight"] + state[f"{place}.bias"]

    def linear(place, value):
        return value @ state[f"{place}.weight"].T + state[f"{place}.bias"]

    for block in range(config.depth):
        place = f"blocks.{block}"
        parts = linear(f"{place}.attn.qkv", layer_norm(f"{place}.norm1", hidden))
        heads, size = [], width // config.num_heads
        for head in range(config.num_heads):
            q, k, v = (
                parts[..., start + head * size : start + (head + 1) * size]
                for start in (0, width, 2 * width)
            )
            heads.append((q @ k.transpose(1, 2) / size**0.5).softmax(-1) @ v)
        hidden = hidden + state[f"{place}.ls1.gamma"] * linear(
            f"{place}.attn.proj", torch.cat(heads, -1)
        )
        inner = linear(f"{place}.mlp.fc1", layer_norm(f"{place}.norm2", hidden))
        inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
        hidden = hidden + state[f"{place}.ls2.gamma"] * linear(f"{place}.mlp.fc2", inner)
    return layer_norm("norm", hidden)


def test_a_vision_transformer_by_hand():
    encoder = perturbed(VisionTransformer(SMALL_VIT))
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = by_hand_vit(encoder.state_dict(), normalised(x), SMALL_VIT)
        torch.testing.assert_close(encoder.pool(x), expected[:, 0])
        torch.testing.assert_close(encoder.tokens(x), expected[:, 1:])


def test_positions_of_another_grid_are_resampled():
    """A table that is linear in row and column stays so away from the border."""
    encoder = VisionTransformer(VitConfig(patch_px=8, width=2, depth=0, num_heads=1, img_px=128))
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    with torch.no_grad():
        encoder.pos_embed[0, 1:] = torch.stack([rows.flatten(), columns.flatten()], dim=-1)
        encoder.pos_embed[0, 0] = 99
        same, wide = encoder.positions(16, 16), encoder.positions(16, 32)[0]
    assert same is encoder.pos_embed
    assert wide[0].tolist() == [99, 99]
    table = wide[1:].reshape(16, 32, 2)
    # Centre j of 32 lies at (j + 1/2) / 2 - 1/2 of 16.
    expected = (torch.arange(32) + 0.5) / 2 - 0.5
    torch.testing.assert_close(table[8, 6:26, 1], expected[6:26], atol=1e-3, rtol=0)
    torch.testing.assert_close(table[3:13, 9, 0], torch.arange(3.0, 13), atol=1e-3, rtol=0)
    assert encoder(torch.rand(1, 3, 64, 200)).shape == (1, 2)


# What all share ------------------------------------------------------------------------------

SMALL = {
    "tinycnn": lambda: make_encoder("tinycnn"),
    "resnet": lambda: perturbed(ResNet(ResNetConfig((1, 1, 1, 1), width=4))),
    "densenet": lambda: perturbed(DenseNet(DenseNetConfig(blocks=(2, 1), growth=4, width=6))),
    "vit": lambda: perturbed(VisionTransformer(SMALL_VIT)),
    "colour_stats": lambda: make_encoder("colour_stats"),
}


@pytest.mark.parametrize("name", SMALL)
def test_batches_do_not_matter(name):
    encoder = SMALL[name]().eval()
    x = torch.rand(5, 3, 32, 32)
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        pooled = encoder.pool(x)
        assert pooled.shape == (5, encoder.dim)
        torch.testing.assert_close(torch.cat([encoder.pool(one[None]) for one in x]), pooled)
        torch.testing.assert_close(encoder.pool(x[order]), pooled[order])
        assert torch.equal(encoder.pool(x), pooled)
        assert torch.equal(encoder(x), pooled)
        if encoder.token_dim:
            tokens = encoder.tokens(x)
            assert tokens.shape[::2] == (5, encoder.token_dim)
            torch.testing.assert_close(tokens, encoder.both(x)[0])


@pytest.mark.parametrize("name", ["tinycnn", "resnet", "densenet", "vit"])
def test_gradients_reach_every_parameter(name):
    encoder = SMALL[name]()
    encoder._frozen = False
    encoder.requires_grad_(True).train()
    tokens, pooled = encoder.both(torch.rand(4, 3, 64, 64))
    weight = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0))
    ((tokens * weight).sum() + pooled.pow(2).sum()).backward()
    dead = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_a_frozen_encoder_stays_as_it_is_in_training():
    """Also its batch norms: in a system that trains, `train()` reaches it."""
    encoder = ResNet(ResNetConfig((1, 1, 1, 1), width=4))
    system = torch.nn.Sequential(encoder.freeze()).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    x = torch.rand(4, 3, 32, 32)
    first = system(x)
    assert not first.requires_grad
    assert torch.equal(system(x), first)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert not encoder.training


def test_an_encoder_that_learns_trains_its_batch_norms():
    encoder = ResNet(ResNetConfig((1, 1, 1, 1), width=4)).train()
    encoder(torch.rand(4, 3, 32, 32)).sum().backward()
    assert encoder.bn1.num_batches_tracked == 1


def test_make_encoder_freezes_unless_told_otherwise_and_leaves_the_generator():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    frozen, free = make_encoder("tinycnn"), make_encoder("tinycnn", freeze=False)
    assert torch.equal(torch.rand(3), expected)
    assert not any(p.requires_grad for p in frozen.parameters())
    assert all(p.requires_grad for p in free.parameters())
    assert frozen.weight_hash == free.weight_hash  # the same seed, the same weights
    assert make_encoder("tinycnn", seed=1).weight_hash != free.weight_hash
    assert (frozen.name, frozen.pretrained) == ("tinycnn", False)


def test_mean_and_deviation_are_those_of_imagenet_or_as_given():
    assert make_encoder("tinycnn").mean == IMAGENET_MEAN
    encoder = make_encoder("tinycnn", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert (encoder.mean, encoder.std) == ((0.5,) * 3, (0.25,) * 3)
    x = torch.rand(1, 3, 32, 32)
    expected = encoder.encode((x - 0.5) / 0.25)[1]
    assert torch.equal(encoder.pool(x), expected)
    assert not any("shift" in name or "scale" in name for name in encoder.state_dict())
    with pytest.raises(ConfigError, match="deviations above 0"):
        make_encoder("tinycnn", std=(1.0, 1.0, 0.0))


def test_colour_stats_are_those_of_the_stored_bytes():
    patches = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    encoder = make_encoder("colour_stats")
    x = torch.from_numpy(patches).permute(0, 3, 1, 2).float() / 255
    np.testing.assert_array_equal(encoder.pool(x), [colour_stats(patch) for patch in patches])
    assert (encoder.dim, encoder.token_dim) == (137, 0)
    with pytest.raises(ConfigError, match="found features of whole patches only"):
        encoder.tokens(x)
    assert encoder.pool(x[:0]).shape == (0, 137)


@pytest.mark.parametrize(
    ("name", "shape", "text"),
    [
        ("resnet", (1, 3, 16, 16), "at least 32 pixels"),
        ("vit", (1, 3, 30, 32), "multiples of 8"),
        ("tinycnn", (1, 1, 32, 32), r"patches of shape \(1, 1, 32, 32\)"),
        ("tinycnn", (3, 32, 32), r"expected \(batch, 3, height, width\)"),
    ],
)
def test_patches_that_do_not_fit_are_refused(name, shape, text):
    with pytest.raises(ConfigError, match=text):
        SMALL[name]().pool(torch.zeros(shape))


def test_unknown_encoders_and_sizes_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'resnet18'"):
        make_encoder("resnet-18")
    with pytest.raises(ConfigError, match="expected none: it has nothing to learn"):
        make_encoder("colour_stats", "weights.pt")
    with pytest.raises(ConfigError, match="whole numbers of channels per head"):
        VitConfig(width=10, num_heads=3)


def test_patches_are_brought_to_the_side_of_the_encoder():
    """Blocks of two by two pixels become one; the encoder's own side does the same."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    large = blocks.repeat(4, axis=1).repeat(4, axis=2)
    small = resized(large, 8)
    # A pixel of the small patch also sees a little of its neighbours.
    middle = np.abs(small.astype(int) - blocks).mean()
    assert middle < np.abs(blocks.astype(int) - np.roll(blocks, 1, axis=1)).mean() / 2
    grey = np.full((2, 32, 32, 3), 77, np.uint8)
    assert (resized(grey, 8) == 77).all()
    assert resized(large, 32) is large
    encoder = make_encoder("tinycnn")
    before = encoder.pool(patches_to_tensor(small))
    encoder.px = 8
    torch.testing.assert_close(encoder.pool(patches_to_tensor(large)), before, rtol=0.02, atol=0.02)
