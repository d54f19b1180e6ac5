"""Tensors from files of others: safetensors, Hugging Face folders and, if asked for, pickles.

Nothing here runs code from a file or fetches one. A pickle is read only where the caller says
so, by torch's reader that knows tensors and plain containers; every other class in it becomes an
empty stand-in, so that the settings objects in a Lightning checkpoint do not have to be imported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from seq2exp.core.errors import FormatError, facts
from seq2exp.core.files import read_json, sha256

__all__ = ["read_model_folder", "read_pickled_tensors", "read_tensors"]

_SAFE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "weights.ckpt")
_MAX_CONFIG_BYTES = 1_000_000
_MAX_HEADER_BYTES = 100_000_000
_STARTS = {
    b"PK\x03\x04": "a pickle (torch.save), which can run code when it is opened",
    b"\x80": "a pickle, which can run code when it is opened",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
    b"<": "a web page",
}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def read_model_folder(
    path: Path, *, allow_pickle: bool = False, checksums: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the configuration and the weights of a published model.

    Parameters
    ----------
    path : Path
        A folder with config.json and model.safetensors, the parts that
        model.safetensors.index.json names, or one other safetensors file; or a single
        safetensors file with config.json beside it.
    allow_pickle : bool
        Where there are no safetensors, read pytorch_model.bin or weights.ckpt, tensors only.
    checksums : mapping, optional
        SHA-256 by file name, for the files that are to be verified. Safetensors themselves have no
        checksum: a changed number is not noticed without one.

    Returns
    -------
    config : dict
        What config.json holds.
    tensors : dict of str to tensor
        By their published names, on the CPU.

    Raises
    ------
    FormatError
        A file is missing, damaged, altered, or not what its name says.
    """
    path = Path(path)
    if path.is_file():
        folder, files = path.parent, [path]
    else:
        folder, files = path, _weight_files(path, allow_pickle=allow_pickle)
    config = _read_config(folder / "config.json")
    for name, expected in (checksums or {}).items():
        _verify(folder / name, expected)
    if len(files) == 1 and files[0].name != _INDEX:
        return config, read_tensors(files[0], allow_pickle=allow_pickle)
    return config, _read_parts(files[0])


def read_tensors(path: Path, *, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Read the tensors of one file, by its content and not by its name.

    Parameters
    ----------
    path : Path
        Safetensors; with `allow_pickle` also a pickle that is not named .safetensors.
    allow_pickle : bool
        Read a pickle, tensors only.

    Raises
    ------
    FormatError
        The file is missing, damaged, or a pickle that was not asked for.
    """
    path = Path(path)
    _require_file(path)
    with path.open("rb") as handle:
        start = handle.read(32)
    what = None if _is_safe(start) else _named(start)
    pickled = what is not None and what.startswith("a pickle")
    if pickled and allow_pickle and path.suffix != ".safetensors":
        return read_pickled_tensors(path)
    if what is not None:
        raise FormatError(
            facts(
                str(path),
                found=what,
                expected="safetensors",
                fix="get the safetensors version, or read it with allow_pickle=True (tensors only)"
                if pickled and path.suffix != ".safetensors"
                else "get the file again from its source",
            )
        )
    try:
        return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise FormatError(
            facts(
                str(path),
                found=f"no readable safetensors ({error})",
                expected="a whole safetensors file",
                fix="copy it again; it is damaged or cut off",
            )
        ) from None


def _is_safe(start: bytes) -> bool:
    """Whether a file begins like safetensors: the length of a JSON object, then that object."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _MAX_HEADER_BYTES


def _named(start: bytes) -> str | None:
    return next((text for magic, text in _STARTS.items() if start.startswith(magic)), None)


def read_pickled_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file that torch.save wrote; objects of other classes stay empty.

    The tensors are those of the state_dict where there is one (Lightning), else of the whole.

    Raises
    ------
    FormatError
        The file is missing, damaged, no mapping of names to tensors, or it needs code to be read.
    """
    path = Path(path)
    _require_file(path)
    value = _unpickled(path)
    state = value.get("state_dict", value) if isinstance(value, dict) else value
    if not isinstance(state, dict):
        raise _unreadable(path, f"a {type(state).__name__}", expected="names and tensors")
    strange = [
        str(name)
        for name, tensor in state.items()
        if not (isinstance(name, str) and _is_plain(tensor))
    ]
    if strange or not state:
        found = f"{len(strange)} entries that are no tensors, such as {', '.join(strange[:3])}"
        raise _unreadable(path, found if strange else "nothing", expected="names and tensors")
    return {name: tensor.detach() for name, tensor in state.items()}


def _unpickled(path: Path) -> Any:  # noqa: ANN401
    """Return what torch's restricted reader makes of a file; unknown classes stay empty."""
    try:
        try:
            unknown = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        except ValueError:
            # The format before torch 1.6; it holds only what the reader knows, or is refused.
            unknown = []
        with torch.serialization.safe_globals([(_stand_in(name), name) for name in unknown]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises many kinds for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "weights_only" in reason:  # torch says how to run what is in the file
            reason = "it is damaged, or holds code, which is never run"
        raise _unreadable(path, reason, expected="a whole file of tensors") from None


def _stand_in(name: str) -> type:
    """Return a class that takes any arguments and any state, and holds nothing."""
    if name == "collections.defaultdict":
        return type("Mapping", (), {"__new__": lambda cls, *args: {}})
    body = {
        "__new__": lambda cls, *args: object.__new__(cls),
        "__init__": lambda self, *args: None,
        "__setstate__": lambda self, state: None,
    }
    return type("StandIn", (), body)


def _is_plain(value: object) -> bool:
    """Whether a value is a dense tensor with numbers in memory."""
    return (
        type(value) in (Tensor, torch.nn.Parameter)
        and isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )


def _unreadable(path: Path, found: str, *, expected: str) -> FormatError:
    return FormatError(
        facts(
            str(path),
            found=f"no readable tensors ({found})",
            expected=expected,
            fix="get the file again, or its safetensors version",
        )
    )


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise FormatError(
            facts(
                str(path),
                found="no such file",
                expected="a file of weights",
                fix="check the path; nothing is downloaded",
            )
        )


def _verify(path: Path, expected: str) -> None:
    _require_file(path)
    found = sha256(path)
    if found != expected.lower():
        raise FormatError(
            facts(
                str(path),
                found=f"sha256 {found[:12]}...",
                expected=f"{expected[:12]}...",
                fix="the file was damaged or changed; get it again",
            )
        )


def _read_config(path: Path) -> dict[str, Any]:
    _require_file(path)
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise _no_config(path, f"{path.stat().st_size} bytes")
    try:
        config = read_json(path)
    except RecursionError:
        raise _no_config(path, "too many levels") from None
    if not isinstance(config, dict):
        raise _no_config(path, f"a {type(config).__name__}")
    return config


def _no_config(path: Path, found: str) -> FormatError:
    return FormatError(
        facts(
            str(path),
            found=found,
            expected="a small JSON object with the sizes of the model",
            fix="get the config.json that was published with the weights",
        )
    )


def _weight_files(folder: Path, *, allow_pickle: bool) -> list[Path]:
    """Return the file of a folder that holds the weights, or the index of its parts."""
    for name in (_SAFE, _INDEX):
        if (folder / name).is_file():
            return [folder / name]
    others = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if len(others) == 1:
        return others
    pickled = [folder / name for name in _PICKLED if (folder / name).is_file()]
    if pickled and allow_pickle:
        return pickled[:1]
    found = [path.name for path in [*others, *pickled]]
    raise FormatError(
        facts(
            str(folder),
            found=", ".join(found) or ("no weights" if folder.is_dir() else "no such folder"),
            expected=f"{_SAFE} or {_INDEX}",
            fix="read the pickle with allow_pickle=True (tensors only)"
            if pickled
            else "give the folder of the model, or one safetensors file",
        )
    )


def _read_parts(index: Path) -> dict[str, Tensor]:
    """Read the tensors of all files that an index names, each from the file it is said to be in."""
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if (
        not isinstance(places, dict)
        or not places
        or not all(
            isinstance(name, str) and _PLAIN_NAME.fullmatch(name) for name in places.values()
        )
    ):
        raise FormatError(
            facts(
                str(index),
                found="no weight_map of tensor names to file names",
                expected="names of files in the same folder",
                fix="get the index again",
            )
        )
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        part = read_tensors(index.parent / name)
        wanted = {key for key, place in places.items() if place == name}
        wrong = sorted(wanted ^ part.keys())
        if wrong:
            raise FormatError(
                facts(
                    str(index.parent / name),
                    found="other tensors than the index says",
                    expected=f"the {len(wanted)} that {index.name} names",
                    fix="get all parts and the index of one version",
                    count=len(wrong),
                    examples=wrong,
                )
            )
        tensors |= part
    return tensors
