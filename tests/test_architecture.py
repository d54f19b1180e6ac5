"""Imports go only where docs/architecture.md says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"


def allowed() -> dict[str, set[str]]:
    """Return, for each room of the table, the rooms it may import, itself included."""
    rows = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return {
        row[1].strip(" `"): {row[1].strip(" `"), *filter(None, row[3].replace(" ", "").split(","))}
        for row in rows
    }


def folder(room: str) -> Path:
    return ROOT / "data_prep" if room == "data_prep" else ROOT / "seq2exp" / room


def imported_modules(source: str) -> set[str]:
    """Return the dotted names that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(module: str) -> str | None:
    """Return the room of a module of ours; None for other packages and for the version."""
    parts = module.split(".")
    if parts[0] == "data_prep":
        return "data_prep"
    if parts[0] != "seq2exp" or len(parts) < 2 or parts[1] == "__version__":
        return None
    return parts[1]


def imports_of(room: str) -> set[str]:
    sources = folder(room).rglob("*.py")
    return set().union(*(imported_modules(path.read_text()) for path in sources))


def test_the_table_names_every_room_once():
    rooms = {path.parent.name for path in (ROOT / "seq2exp").glob("*/__init__.py")}
    assert set(allowed()) == rooms | {"data_prep"}


@pytest.mark.parametrize("room", sorted(allowed()))
def test_a_room_imports_only_what_its_row_names(room):
    used = {room_of(module) for module in imports_of(room)} - {None}
    assert used <= allowed()[room]


def test_the_arrows_have_no_cycle():
    todo = {room: names - {room} for room, names in allowed().items()}
    while todo:
        free = {room for room, names in todo.items() if not names & todo.keys()}
        assert free, f"a cycle among {sorted(todo)}"
        todo = {room: names for room, names in todo.items() if room not in free}


@pytest.mark.parametrize("room", ["dataset", "spatial"])
def test_data_prep_knows_only_the_format(room):
    modules = {name for name in imports_of("data_prep") if name.startswith(f"seq2exp.{room}")}
    assert modules
    assert all(name.startswith(f"seq2exp.{room}.format") for name in modules)


@pytest.mark.parametrize("room", ["nn", "encoders", "models"])
def test_layers_and_models_open_no_files(room):
    modules = {name for name in imports_of(room) if name.startswith("seq2exp.core")}
    assert all(name.startswith(("seq2exp.core.errors", "seq2exp.core.config")) for name in modules)
    assert not {"pathlib.Path", "pandas", "numpy.load"} & imports_of(room)


def test_a_forbidden_import_is_seen():
    source = (
        "def f():\n    from seq2exp.training.run import open_run\n    import seq2exp.cli.main\n"
    )
    assert {room_of(module) for module in imported_modules(source)} == {"training", "cli"}
