from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from seq2exp.core.config import dump_yaml, load_yaml
from seq2exp.core.errors import ConfigError, FormatError
from seq2exp.core.files import sha256
from seq2exp.training.checkpoint import load_model


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished / "model", tmp_path / "model")


def rewrite(folder, change):
    """Change the weights and record the new checksum, as someone who means it would."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")
    values = load_yaml(folder / "config.yaml")
    values["weights_sha256"] = sha256(folder / "model.safetensors")
    dump_yaml(values, folder / "config.yaml")


def test_a_loaded_model_has_the_saved_weights_and_is_in_evaluation_mode(finished):
    model, card = load_model(finished / "model")
    saved = load_file(finished / "model" / "model.safetensors")
    assert not model.training
    assert set(saved) == set(model.state_dict())
    assert all(torch.equal(saved[k], v) for k, v in model.state_dict().items())
    assert card.tracks == ["DNase", "H3K27ac"]
    assert card.train_contigs == ["chr1"]


def test_a_flipped_byte_is_found(folder):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(FormatError, match="sha256"):
        load_model(folder)


def test_truncated_weights_are_found(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    values = load_yaml(folder / "config.yaml")
    dump_yaml({**values, "weights_sha256": sha256(path)}, folder / "config.yaml")
    with pytest.raises(FormatError, match="safetensors"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("mask_head.weight"), "missing mask_head.weight"),
        (lambda state: state.update(extra=torch.zeros(1)), "unexpected extra"),
        (
            lambda state: state.update({"mask_head.weight": torch.zeros(3, 3)}),
            r"mask_head.weight \(3, 3\) instead of \(2, 8\)",
        ),
        (
            lambda state: state.update({"mask_head.weight": torch.full((2, 8), float("nan"))}),
            "mask_head.weight holds NaN",
        ),
    ],
)
def test_weights_of_another_architecture_are_named(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(FormatError, match=message):
        load_model(folder)


def test_a_newer_layout_and_an_unknown_model_are_refused(folder):
    values = load_yaml(folder / "config.yaml")
    dump_yaml({**values, "model_format": 99}, folder / "config.yaml")
    with pytest.raises(ConfigError, match="update seq2exp"):
        load_model(folder)
    values["model"]["name"] = "seq2exq"
    dump_yaml(values, folder / "config.yaml")
    with pytest.raises(ConfigError, match="seq2exp"):
        load_model(folder)


def test_missing_weights_are_named(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FormatError, match=r"model\.safetensors: found no such file"):
        load_model(folder)
