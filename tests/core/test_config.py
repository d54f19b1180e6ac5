from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from seq2exp.core.config import dump_yaml, load_config, load_yaml, parse_overrides
from seq2exp.core.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    name: str = "x"
    betas: tuple[float, float] = (0.9, 0.95)

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ConfigError("inner.rate must not be negative")


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    parts: list[Inner] = field(default_factory=list)
    count: int = 1
    limit: int | None = None


def write(tmp_path, text, name="c.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def load(tmp_path, text, *flags):
    return load_config(Outer, [write(tmp_path, text)], overrides=parse_overrides(flags))


def test_numbers_that_yaml_reads_as_text_are_numbers_where_one_is_declared(tmp_path):
    assert load(tmp_path, "inner: {rate: 1e-4}").inner.rate == 1e-4


def test_later_layers_and_flags_win_and_leave_the_rest(tmp_path):
    first = write(tmp_path, "inner: {rate: 1, name: a}\ncount: 2", "a.yaml")
    second = write(tmp_path, "inner: {rate: 2}", "b.yaml")
    config = load_config(Outer, [first, second], overrides=parse_overrides(["--count", "3"]))
    assert config == Outer(Inner(rate=2.0, name="a"), count=3)


def test_a_list_of_sections_is_bound(tmp_path):
    assert load(tmp_path, "parts: [{name: a}, {rate: 2}]").parts == [Inner(name="a"), Inner(rate=2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inner: {ratee: 1}", r"unknown key 'inner.ratee'.*did you mean 'rate'"),
        ("parts: [{nam: 1}]", r"unknown key 'parts\[0\].nam'.*did you mean 'name'"),
        ("inner: {rate: abc}", "rate"),
        ("inner: {name: NO}", "quote"),
        ("count: true", "count"),
        ("count: 2.5", "count"),
        ("inner: {betas: [1]}", "betas"),
        ("inner: {rate: -1}", "must not be negative"),
        ("count: 1\ncount: 2", r"'count' stands twice"),
        ("a: &x [1]\nb: *x", "aliases are refused"),
        ("a: !!python/object/apply:os.system ['true']", "plain YAML"),
        ("[1, 2]", "expected a mapping"),
        ("a: " + "[" * 60 + "]" * 60, "nested deeper"),
        ("a: [", "plain YAML"),
    ],
)
def test_wrong_yaml_is_refused_with_its_reason(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


def test_missing_and_oversized_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="at most 1000000"):
        load_yaml(write(tmp_path, "a: " + "x" * 1_000_001))


def test_flags_are_named_when_wrong(tmp_path):
    with pytest.raises(ConfigError, match=r"command line: found unknown key 'cuont'.*'count'"):
        load(tmp_path, "{}", "--cuont", "1")
    with pytest.raises(ConfigError, match="--overwrite alone"):
        parse_overrides(["--overwrite", "--count", "3"])
    with pytest.raises(ConfigError, match="--count alone"):
        parse_overrides(["--count"])
    with pytest.raises(ConfigError, match="--key value"):
        parse_overrides(["count", "1"])


def test_a_dumped_configuration_loads_to_the_same(tmp_path):
    config = Outer(Inner(rate=1e-5, name="NO"), [Inner()], count=4, limit=None)
    dump_yaml(config, tmp_path / "out.yaml")
    assert load_config(Outer, [tmp_path / "out.yaml"]) == config
