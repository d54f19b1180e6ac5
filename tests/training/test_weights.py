"""Files of weights: what is read, and what is refused with one line."""

from __future__ import annotations

import collections
import json
import random
import typing
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from seq2exp.core.errors import FormatError
from seq2exp.core.files import sha256
from seq2exp.training.weights import read_model_folder, read_pickled_tensors, read_tensors

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1.5])}


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "owned"))


class Touch:
    """Calls a class with one argument when it is unpickled: no method has to be looked up."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (exec, (f"open({str(self.path)!r}, 'w').write('owned')",))


class Settings:
    """Stands for a settings class that the reader's machine does not have."""

    def __init__(self):
        self.values = collections.defaultdict(dict, {"d_model": 128})
        self.kind = typing.Any


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"d_model": 3}))
    save_file(TENSORS, tmp_path / "model.safetensors")
    return tmp_path


def equal(found):
    return found.keys() == TENSORS.keys() and all(torch.equal(found[k], TENSORS[k]) for k in found)


def test_a_folder_or_one_file_of_safetensors(folder):
    for path in (folder, folder / "model.safetensors"):
        config, tensors = read_model_folder(path)
        assert config == {"d_model": 3}
        assert equal(tensors)
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    assert equal(read_model_folder(folder)[1])


@pytest.mark.parametrize("length", [56, 60, 128])
def test_a_header_that_begins_like_something_else_is_still_safetensors(tmp_path, length):
    """The first byte is the low byte of the header's length: 0x80 begins pickles, 0x3c pages."""
    body = b'{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
    body = body + b" " * (length - len(body))
    (tmp_path / "x.safetensors").write_bytes(len(body).to_bytes(8, "little") + body)
    assert read_tensors(tmp_path / "x.safetensors")["x"].numel() == 0


def sharded(folder, places):
    for name in set(places.values()):
        part = {key: TENSORS[key] for key, place in places.items() if place == name}
        save_file(part, folder / name)
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    return index


def test_parts_are_read_together(folder):
    sharded(folder, {"a.weight": "part-1.safetensors", "b": "part-2.safetensors"})
    assert equal(read_model_folder(folder)[1])


def test_parts_that_do_not_fit_the_index_are_refused(folder):
    index = sharded(folder, {"a.weight": "part-1.safetensors", "b": "part-2.safetensors"})
    save_file(TENSORS, folder / "part-2.safetensors")
    with pytest.raises(FormatError, match=r"part-2.*other tensors than the index.*a\.weight"):
        read_model_folder(folder)
    (folder / "part-2.safetensors").unlink()
    with pytest.raises(FormatError, match=r"part-2\.safetensors: found no such file"):
        read_model_folder(folder)
    for places in ({"a": "../../x.safetensors"}, {"a": "/etc/passwd"}, {"a": 3}, {}, None):
        index.write_text(json.dumps({"weight_map": places}))
        with pytest.raises(FormatError, match="no weight_map"):
            read_model_folder(folder)


@pytest.mark.parametrize("keep", [0, 7, 40, 0.5, 0.99])
def test_f35_truncated_safetensors_are_refused(folder, keep):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(FormatError, match=r"model\.safetensors: found no readable safetensors"):
        read_model_folder(folder)


def test_f35_a_changed_number_needs_a_checksum_to_be_seen(folder):
    path = folder / "model.safetensors"
    expected = sha256(path)
    read_model_folder(folder, checksums={"model.safetensors": expected})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    assert not equal(read_model_folder(folder)[1]), "safetensors notices nothing"
    with pytest.raises(FormatError, match="sha256"):
        read_model_folder(folder, checksums={"model.safetensors": expected})


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2]", "\x00\x01", "3", "[" * 100_000, '"' + "x" * 1_000_001 + '"']
)
def test_a_config_that_is_no_json_object_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(FormatError, match=r"config\.json") as caught:
        read_model_folder(folder)
    assert "\n" not in str(caught.value)


def test_missing_files_are_named(folder):
    (folder / "config.json").rename(folder / "x.json")
    with pytest.raises(FormatError, match=r"config\.json: found no such file"):
        read_model_folder(folder)
    with pytest.raises(FormatError, match="no such folder"):
        read_model_folder(folder / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FormatError, match=r"no weights, expected model\.safetensors"):
        read_model_folder(folder)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html><body>404</body></html>" * 3, "web page"),
    ],
)
def test_what_is_saved_in_place_of_a_file_is_called_by_its_name(folder, content, what):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(FormatError, match=what):
        read_model_folder(folder, allow_pickle=True)


# Pickles ------------------------------------------------------------------------------------------


def test_a_pickle_is_read_only_when_asked_for(folder):
    (folder / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "weights.ckpt"):
        torch.save(TENSORS, folder / name)
        with pytest.raises(FormatError, match=f"{name}.*allow_pickle=True"):
            read_model_folder(folder)
        with pytest.raises(FormatError, match="can run code"):
            read_tensors(folder / name)
        assert equal(read_model_folder(folder, allow_pickle=True)[1])
        (folder / name).unlink()


@pytest.mark.parametrize("zipped", [True, False])
def test_f32_a_pickle_named_safetensors_is_refused_even_then(folder, zipped):
    path = folder / "model.safetensors"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=zipped)
    for allow_pickle in (False, True):
        with pytest.raises(FormatError, match="a pickle"):
            read_model_folder(folder, allow_pickle=allow_pickle)


@pytest.mark.parametrize("zipped", [True, False])
def test_both_formats_of_torch_and_the_state_of_a_lightning_file(tmp_path, zipped):
    path = tmp_path / "x.ckpt"
    for value in (TENSORS, {"epoch": 3, "state_dict": collections.OrderedDict(TENSORS)}):
        torch.save(value, path, _use_new_zipfile_serialization=zipped)
        assert equal(read_pickled_tensors(path))


def test_settings_objects_of_unknown_classes_are_left_out(tmp_path):
    path = tmp_path / "x.ckpt"
    content = {"state_dict": TENSORS, "hyper_parameters": Settings(), "at": Path("x"), "s": {1, 2}}
    torch.save(content, path)
    assert torch.serialization.get_unsafe_globals_in_checkpoint(path), "torch knows them all"
    known = set(torch.serialization.get_safe_globals())
    assert equal(read_pickled_tensors(path))
    assert set(torch.serialization.get_safe_globals()) == known, "the stand-ins outlive the call"


@pytest.mark.parametrize("evil", [Evil, Touch])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("key", ["state_dict", "hyper_parameters"])
def test_f32_an_evil_pickle_runs_nothing(tmp_path, evil, zipped, key):
    path, mark = tmp_path / "pytorch_model.bin", tmp_path / "mark"
    content = {"state_dict": dict(TENSORS)}
    content.setdefault(key, {})["x"] = evil(mark)
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    torch.load(path, weights_only=False)
    assert mark.read_text() == "owned", "the file is harmless"
    mark.unlink()
    try:
        assert equal(read_pickled_tensors(path)), "beside the state it may stay empty"
        assert key != "state_dict"
    except FormatError as error:
        assert "\n" not in str(error)  # noqa: PT017
    assert not mark.exists()


def test_pickles_of_something_else_are_refused(tmp_path):
    path = tmp_path / "x.bin"
    for value, what in (
        ([1, 2], "a list"),
        ({}, "nothing"),
        ({"a": torch.ones(2), "b": 3}, "no tensors, such as b"),
        ({"a": torch.eye(2).to_sparse()}, "no tensors, such as a"),
        ({"a": torch.ones(2, device="meta")}, "no tensors, such as a"),
    ):
        torch.save(value, path)
        with pytest.raises(FormatError, match=what):
            read_pickled_tensors(path)
    torch.save(TENSORS, path)
    whole = path.read_bytes()
    for cut in (20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(FormatError, match=r"x\.bin: found no readable tensors"):
            read_pickled_tensors(path)
    path.write_bytes(save(TENSORS))
    assert equal(read_tensors(path, allow_pickle=True)), "what it is decides, not its name"


@pytest.mark.parametrize("kind", ["safetensors", "zip", "old pickle"])
@pytest.mark.filterwarnings("ignore")
def test_f44_changed_bytes_end_in_our_error_or_in_tensors(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "safetensors":
        save_file(TENSORS, path)
    else:
        torch.save({"state_dict": TENSORS}, path, _use_new_zipfile_serialization=kind == "zip")
    whole, dice, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(100):
        content = bytearray(whole)
        for _ in range(dice.choice((1, 2, 8))):
            at = dice.randrange(len(content))
            content[at : at + dice.randrange(2)] = dice.randbytes(dice.randrange(3))
        path.write_bytes(content)
        try:
            read_tensors(path, allow_pickle=True)
        except FormatError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017
    assert refused > 20
