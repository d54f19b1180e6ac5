"""Typed configuration from YAML: strict where PyYAML is not.

Binding to dataclasses is done by jsonargparse. Around it stand the checks it and PyYAML leave
out: duplicate keys, size, depth and alias limits, and unknown keys with their nearest match.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from seq2exp.core.errors import ConfigError, facts

__all__ = [
    "bind",
    "differences",
    "dump_yaml",
    "load_config",
    "load_yaml",
    "merge",
    "nearest",
    "parse_overrides",
    "require_known",
    "to_dict",
]

T = TypeVar("T")

# What jsonargparse says of a word that is none of a Literal.
_CHOICE = re.compile(r'key "([^"]+)":\s+Expected a typing\.Literal\[(.+?)\]\. Got value: (.*)')
MAX_BYTES = 1_000_000
MAX_DEPTH = 50


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader without aliases, duplicate keys, or deep nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are refused", problem_mark=event.start_mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key.value!r} stands twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML document that is a mapping.

    Raises
    ------
    ConfigError
        The file is missing, larger than 1 MB, not YAML, uses aliases or Python tags, nests
        deeper than 50 levels, or names a key twice.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(
            facts(str(path), found="no such file", expected="a YAML file", fix="check the path")
        )
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(
            facts(
                str(path),
                found=f"{path.stat().st_size} bytes",
                expected=f"at most {MAX_BYTES}",
                fix="give a configuration, not data",
            )
        )
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(
            facts(str(path), found=str(error), expected="plain YAML", fix="mend the file")
        ) from None
    if not isinstance(value, dict):
        raise ConfigError(
            facts(
                str(path),
                found=type(value).__name__,
                expected="a mapping of keys to values",
                fix="write `key: value` lines",
            )
        )
    return value


def parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """Turn ``["--optim.lr", "3e-4", "--seed=1"]`` into nested keys; values are read as YAML.

    Raises
    ------
    ConfigError
        A flag has no value, or something stands that is no flag.
    """
    result: dict[str, Any] = {}
    items = list(arguments)
    while items:
        flag = items.pop(0)
        if not flag.startswith("--"):
            raise ConfigError(
                facts("command line", found=flag, expected="--key value", fix="name the key")
            )
        key, separator, text = flag[2:].partition("=")
        if not separator:
            if not items or items[0].startswith("--"):
                raise ConfigError(
                    facts("command line", found=f"--{key} alone", expected="a value", fix="add it")
                )
            text = items.pop(0)
        _set_nested(result, key.split("."), _flag_value(key, text))
    return result


def _flag_value(key: str, text: str) -> Any:  # noqa: ANN401
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(
            facts(
                f"--{key}",
                found=f"{text[:40]!r} ({error})",
                expected="a YAML value such as 3, 1e-4, text or [a, b]",
                fix="mend or quote the value",
            )
        ) from None


def load_config(
    cls: type[T], paths: Sequence[Path], *, overrides: Mapping[str, Any] | None = None
) -> T:
    """Read YAML layers and flags into a dataclass; later layers win, flags win over files.

    Parameters
    ----------
    cls : type
        Configuration dataclass.
    paths : sequence of Path
        YAML files, each overriding the ones before.
    overrides : mapping, optional
        Nested values from the command line (see :func:`parse_overrides`).

    Raises
    ------
    ConfigError
        A file cannot be read, a key is unknown, or a value has the wrong type.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        layer = load_yaml(path)
        _refuse_unknown(cls, layer, where=str(path))
        merged = merge(merged, layer)
    if overrides:
        _refuse_unknown(cls, overrides, where="command line")
        merged = merge(merged, overrides)
    layers = [*map(str, paths), *(["command line"] if overrides else [])]
    return bind(cls, merged, where=" + ".join(layers) or "command line")


def bind(cls: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Return ``cls(**values)`` with nested dataclasses and types checked.

    Raises
    ------
    ConfigError
        Unknown key (with the nearest known one), wrong type, or a cross-field check failed.
    """
    from jsonargparse import ArgumentParser

    _refuse_unknown(cls, values, where=where)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "config")
    try:
        parsed = parser.parse_object({"config": dict(values)}, defaults=True)
        built = parser.instantiate(parsed).config
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - jsonargparse raises several kinds
        cause = error.__cause__ if isinstance(error.__cause__, ConfigError) else None
        text = str(cause or error).replace("config.", "", 1)
        if not cause and (choice := _CHOICE.search(text)):
            key, known, word = choice.groups()
            options = [option.strip("'") for option in known.split(", ")]
            raise ConfigError(
                facts(
                    f"{where}: {key}",
                    found=repr(word),
                    expected=f"one of {', '.join(options)}",
                    fix=nearest(word, options),
                )
            ) from None
        raise ConfigError(
            facts(
                where,
                found=text,
                expected=f"values of the types that {cls.__name__} documents",
                fix="mend the value; quote texts such as 'NO', 'on' or '1e5'",
            )
        ) from None
    return typing.cast("T", built)


def to_dict(config: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a configuration dataclass as plain nested values that YAML and JSON can hold."""
    return typing.cast("dict[str, Any]", _plain(dataclasses.asdict(config)))


def dump_yaml(value: Any, path: Path) -> None:  # noqa: ANN401
    """Write a configuration (dataclass or mapping) as YAML, keys in their declared order."""
    from seq2exp.core.files import atomic_file

    plain = value if isinstance(value, Mapping) else to_dict(value)
    with atomic_file(Path(path), overwrite=True) as partial:
        partial.write_text(yaml.safe_dump(plain, sort_keys=False, width=100), encoding="utf-8")


def require_known(what: str, word: str, known: Sequence[str], *, expected: str) -> None:
    """Raise ConfigError, with the nearest known word, unless `word` is one of `known`."""
    if word not in known:
        raise ConfigError(facts(what, found=word, expected=expected, fix=nearest(word, known)))


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:  # noqa: ANN401
    """Return a line per value that two nested mappings do not share: ``key.key old -> new``.

    Parameters
    ----------
    old, new : mapping or plain value
    prefix : str
        Put before every key, with its dot.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in sorted({*old, *new})
            for line in differences(old.get(key), new.get(key), f"{prefix}{key}.")
        ]
    return [] if old == new else [f"{prefix.rstrip('.')} {old!r} -> {new!r}"]


def nearest(word: str, known: Sequence[str]) -> str:
    """Return ``"; did you mean 'x'?"`` or the known words, for a message about a wrong one."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else "use one of " + ", ".join(known)


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def merge(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values in which those of ``layer`` win, key by key."""
    result = dict(base)
    for key, value in layer.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return result


def _set_nested(target: dict[str, Any], keys: list[str], value: Any) -> None:  # noqa: ANN401
    for key in keys[:-1]:
        target = target.setdefault(key, {})
        if not isinstance(target, dict):
            raise ConfigError(
                facts(
                    f"--{'.'.join(keys)}",
                    found=f"a value for --{key} too",
                    expected="one or the other",
                    fix=f"leave --{key} out",
                )
            )
    target[keys[-1]] = value


def _refuse_unknown(cls: type, values: Mapping[str, Any], *, where: str, prefix: str = "") -> None:
    hints = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    for key, value in values.items():
        if key not in known:
            raise ConfigError(
                facts(
                    where,
                    found=f"unknown key {prefix + str(key)!r}",
                    expected=f"a key of {cls.__name__}",
                    fix=nearest(str(key), known),
                )
            )
        inner = _dataclass_of(hints[key])
        if inner is not None and isinstance(value, Mapping):
            _refuse_unknown(inner, value, where=where, prefix=f"{prefix}{key}.")
        item = _dataclass_item(hints[key])
        if item is not None and isinstance(value, list):
            for position, entry in enumerate(value):
                if isinstance(entry, Mapping):
                    _refuse_unknown(item, entry, where=where, prefix=f"{prefix}{key}[{position}].")


def _dataclass_of(hint: Any) -> type | None:  # noqa: ANN401
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    found = (option for option in options if dataclasses.is_dataclass(option))
    return typing.cast("type | None", next(found, None))


def _dataclass_item(hint: Any) -> type | None:  # noqa: ANN401
    if typing.get_origin(hint) in (list, tuple):
        return _dataclass_of(typing.get_args(hint)[0])
    return None
