"""Every pain of users that the design answers, P1 to P31, has a test named after it."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
NUMBERS = [f"{number:02d}" for number in range(1, 32)]
PREFIX = "test_pain_"


def named(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith(PREFIX):
            yield node.name


@functools.cache
def all_named() -> tuple[str, ...]:
    return tuple(name for path in TESTS.rglob("test_*.py") for name in named(path.read_text()))


@pytest.mark.parametrize("number", NUMBERS)
def test_every_pain_has_a_test(number):
    assert any(name.startswith(f"{PREFIX}{number}_") for name in all_named())


def test_no_test_is_of_a_pain_that_is_not_in_the_list_and_no_name_is_used_twice():
    names = all_named()
    assert {name[len(PREFIX) :].split("_")[0] for name in names} == set(NUMBERS)
    assert len(set(names)) == len(names)


def test_names_are_read_as_they_are_written():
    source = "def test_pain_07_x(): ...\ndef pain_08(): ...\ndef test_painted(): ...\n"
    assert list(named(source)) == ["test_pain_07_x"]
