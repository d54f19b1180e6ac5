"""Published models from files, end to end: folders of encoders, checkpoints of Seq2Exp."""

from __future__ import annotations

import json
import socket

import pytest
import torch
from safetensors.torch import save_file

from seq2exp.core.errors import FormatError, InputError
from seq2exp.models.config import Seq2ExpConfig
from seq2exp.models.published import PUBLISHED_FEATURES, build_published
from seq2exp.models.seq2exp import Seq2Exp
from seq2exp.training.checkpoint import load_model
from seq2exp.training.pretrained import convert_seq2exp_checkpoint, load_caduceus, load_hyenadna
from tests import published_names as names

SMALL = {"window_bp": 2048}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)


# Encoders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["ph", "ps"])
def test_a_caduceus_folder(tmp_path, variant):
    encoder = names.caduceus(variant=variant, swap_halves=variant == "ps")
    tensors = names.published(encoder, twice=False)
    (tmp_path / "config.json").write_text(json.dumps(names.config_json(encoder)))
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for path in (tmp_path, tmp_path / "model.safetensors"):
        assert torch.equal(load_caduceus(path)(names.CODES), encoder(names.CODES))
    (tmp_path / "model.safetensors").unlink()
    half = sorted(tensors)[: len(tensors) // 2]
    places = {}
    for part, keys in (("a.safetensors", half), ("b.safetensors", sorted(tensors.keys() - half))):
        save_file({key: tensors[key] for key in keys}, tmp_path / part)
        places |= dict.fromkeys(keys, part)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    loaded = load_caduceus(tmp_path, recompute=True)
    assert loaded.config.recompute
    assert torch.equal(loaded(names.CODES), encoder(names.CODES))
    with pytest.raises(FormatError, match="sha256"):
        load_caduceus(tmp_path, checksums={"a.safetensors": "0" * 64})
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(FormatError, match=r"b\.safetensors: found no such file"):
        load_caduceus(tmp_path)


def test_a_hyenadna_folder_of_the_first_release(tmp_path):
    """Its weights are a Lightning checkpoint: read only when asked, tensors only."""
    encoder = names.hyena()
    (tmp_path / "config.json").write_text(json.dumps(names.hyena_config()))
    content = {"state_dict": names.hyena_published(encoder, layer=".layer"), "loops": Settings()}
    torch.save(content, tmp_path / "weights.ckpt")
    with pytest.raises(FormatError, match=r"weights\.ckpt.*allow_pickle=True"):
        load_hyenadna(tmp_path)
    loaded = load_hyenadna(tmp_path, allow_pickle=True)
    assert torch.equal(loaded(names.CODES), encoder(names.CODES))


def test_the_weights_of_one_family_are_not_those_of_the_other(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(names.hyena_port_config()))
    save_file(names.published(names.caduceus(), head=False), tmp_path / "model.safetensors")
    with pytest.raises(FormatError, match=f"{tmp_path}.*unexpected caduceus"):
        load_hyenadna(tmp_path)
    with pytest.raises(FormatError, match="model_type: hyenadna, expected caduceus"):
        load_caduceus(tmp_path)


# Seq2Exp ------------------------------------------------------------------------------------------


class Settings:
    """Stands for the settings object of another machine's libraries."""


def moved(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def seq2exp(**changes):
    torch.manual_seed(0)
    sizes = {"window_bp": 2048, "d_model": 16, "head_hidden": 16, "generator_layers": 1,
             "predictor_layers": 2, "num_features": 9}  # fmt: skip
    return moved(Seq2Exp(Seq2ExpConfig.published_soft(**(sizes | changes))))


def hard():
    model = seq2exp(
        mask="hard",
        gate="delta",
        generator_sees_tracks=True,
        position_embedding=True,
        beta_min=0.0,
        prior_scale_factor=1.0,
        prior_mean=0.45,
        prior_scale=0.1,
        predictor_layers=1,
    )
    model.predictor.load_state_dict(model.generator.state_dict())
    return model


def published(model, prefix="model."):
    tensors = {
        "seq_input_layer.weight": model.stem.proj.weight,
        "seq_input_layer.bias": model.stem.proj.bias,
        "signal_input_layer.weight": model.track_embedding.proj.weight,
        "signal_input_layer.bias": model.track_embedding.proj.bias,
        "mask_output.weight": model.mask_head.weight,
        "mask_output.bias": model.mask_head.bias,
        "prior_weights": model.track_beta.log_weights_T,
        "signal_betas": model.track_beta.betas_T,
    }
    if model.position_ND is not None:
        tensors["pos_emb"] = model.position_ND[None]
    linears = [part for part in model.head.layers if isinstance(part, torch.nn.Linear)]
    for at, linear in zip((0, 2, 4), linears, strict=True):
        tensors[f"pToExpr.{at}.weight"] = linear.weight
        tensors[f"pToExpr.{at}.bias"] = linear.bias
    for theirs, trunk in (("generator", model.generator), ("encoder", model.predictor)):
        for i, layer in enumerate(trunk.layers):
            tensors |= names.mamba_names(layer.mixer, f"{theirs}.backbone.layers.{i}.mixer")
            tensors[f"{theirs}.backbone.layers.{i}.norm.weight"] = layer.norm.weight
        tensors[f"{theirs}.backbone.norm_f.weight"] = trunk.norm_f.weight
    return {prefix + name: tensor.detach().clone() for name, tensor in tensors.items()}


def checkpoint(path, tensors):
    torch.save({"epoch": 3, "state_dict": tensors, "hyper_parameters": Settings()}, path)
    return path


def inputs(model):
    generator = torch.Generator().manual_seed(5)
    codes = torch.randint(0, 5, (2, 2048), generator=generator, dtype=torch.uint8)
    signal = torch.rand(2, 2048, len(model.config.tracks), generator=generator) * 3
    return codes, signal, torch.randn(2, 9, generator=generator)


@pytest.mark.parametrize("prefix", ["model.", ""])
def test_a_soft_checkpoint_becomes_a_model_folder(tmp_path, prefix):
    model = seq2exp()
    path = checkpoint(tmp_path / "soft.ckpt", published(model, prefix))
    card = convert_seq2exp_checkpoint(path, tmp_path / "out", sample="K562", **SMALL)
    loaded, again = load_model(tmp_path / "out")
    assert card.features == list(PUBLISHED_FEATURES)
    assert again.model == card.model
    assert (again.tracks, again.samples) == (["H3K27ac", "DNase", "contact"], ["K562"])
    assert again.data.tracks == ["H3K27ac", "DNase"]
    assert again.data.contacts
    assert (again.data.window_bp, again.data.bin_size, again.data.strand) == (2048, 1, "plus")
    assert loaded.config == model.config
    mine, theirs = loaded(*inputs(model)), model(*inputs(model))
    assert torch.equal(mine.expression_BK, theirs.expression_BK)
    assert torch.equal(mine.mask_BN, theirs.mask_BN)
    with pytest.raises(InputError, match="an existing output"):
        convert_seq2exp_checkpoint(path, tmp_path / "out", sample="K562", **SMALL)


def test_a_hard_checkpoint_has_its_own_settings(tmp_path):
    model = hard()
    path = checkpoint(tmp_path / "hard.ckpt", published(model))
    convert_seq2exp_checkpoint(path, tmp_path / "out", sample="K562")
    loaded, _ = load_model(tmp_path / "out")
    assert loaded.config == model.config
    assert torch.equal(loaded(*inputs(model)).mask_BN, model(*inputs(model)).mask_BN)
    for mine, theirs in zip(loaded.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_published_sizes_of_the_soft_checkpoint():
    """Trainable parameters 1,114,243, and 6 frozen ones."""
    tensors = published(moved(Seq2Exp(Seq2ExpConfig.published_soft())))
    assert tensors["model.generator.backbone.layers.0.mixer.mamba_fwd.conv1d.weight"].shape == (
        256, 1, 4)  # fmt: skip
    # Per block 9 names per direction and the norm; a last norm per net; 14 around both nets.
    assert len(tensors) == 2 * (4 * 19 + 1) + 14
    model = build_published(tensors, where="x")
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    frozen = sum(one.numel() for one in model.parameters() if not one.requires_grad)
    assert (trained, frozen) == (1_114_243, 6)


def test_one_shared_network_and_positions_belong_together():
    """Without its table a hard checkpoint would pass for a soft one."""
    tensors = published(hard())
    lost = {name: one for name, one in tensors.items() if name != "model.pos_emb"}
    with pytest.raises(FormatError, match="one network for both roles and no pos_emb"):
        build_published(lost, where="x", **SMALL)
    key = "model.encoder.backbone.norm_f.weight"
    with pytest.raises(FormatError, match="two networks and pos_emb"):
        build_published(tensors | {key: tensors[key] + 1}, where="x")


@pytest.mark.parametrize("make", [seq2exp, hard])
def test_one_missing_tensor_of_seq2exp_is_refused(make):
    model = make()
    tensors = published(model)
    for name in tensors:
        rest = {key: one for key, one in tensors.items() if key != name}
        tied = "in_proj" in name or "out_proj" in name
        if tied:
            other = {"mamba_fwd": "mamba_rev", "mamba_rev": "mamba_fwd"}
            direction = "mamba_fwd" if "mamba_fwd" in name else "mamba_rev"
            del rest[name.replace(direction, other[direction])]
        changes = {} if make is hard else SMALL
        with pytest.raises(FormatError, match=r"missing|found no |and pos_emb|no pos_emb"):
            build_published(rest, where="x", **changes)


def test_other_tensors_are_refused():
    tensors = published(seq2exp())
    with pytest.raises(FormatError, match=r"unexpected model\.extra"):
        build_published(tensors | {"model.extra": torch.ones(1)}, where="x", **SMALL)
    key = "model.encoder.backbone.layers.0.mixer.mamba_rev.out_proj.weight"
    with pytest.raises(FormatError, match=r"different values in .*mamba_fwd\.out_proj"):
        build_published(tensors | {key: tensors[key] + 1}, where="x", **SMALL)
    with pytest.raises(FormatError, match="found 3 tracks, expected 2: a, b"):
        build_published(tensors, tracks=("a", "b"), where="x", **SMALL)
    retrain = {name: one for name, one in tensors.items() if not name.startswith("model.generator")}
    with pytest.raises(FormatError, match=r"no generator\.layers.*peaks, abc and retrain"):
        build_published(retrain, where="x", **SMALL)
    nan = {name: one * torch.nan for name, one in tensors.items() if "pToExpr.4" in name}
    with pytest.raises(FormatError, match="holds NaN"):
        build_published(tensors | nan, where="x", **SMALL)


def test_wrong_names_of_features_are_refused(tmp_path):
    path = checkpoint(tmp_path / "x.ckpt", published(seq2exp()))
    with pytest.raises(FormatError, match="9 scalar features, expected 2: a, b"):
        convert_seq2exp_checkpoint(
            path, tmp_path / "out", sample="K562", features=("a", "b"), **SMALL
        )
    assert not (tmp_path / "out").exists()


def test_f32_an_evil_checkpoint_of_seq2exp_runs_nothing(tmp_path):
    from tests.training.test_weights import Evil, Touch

    mark = tmp_path / "mark"
    for evil in (Evil, Touch):
        content = {"state_dict": {**published(seq2exp()), "model.x": evil(mark)}}
        torch.save(content, tmp_path / "x.ckpt")
        with pytest.raises(FormatError):
            convert_seq2exp_checkpoint(tmp_path / "x.ckpt", tmp_path / "out", sample="K562")
        assert not mark.exists()
