"""Write the tables of settings into the pages that hold them, from the configuration dataclasses.

    python docs/config_keys.py          rewrite the tables
    python docs/config_keys.py --check  say which page is out of date

A page marks the place with ``<!-- keys NAME -->`` and ``<!-- end -->``. ``tests/test_docs.py``
fails when a table differs from its dataclass, so no setting can be forgotten.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
import typing
from collections.abc import Mapping
from pathlib import Path

from data_prep.config import DataConfig
from data_prep.histology.config import CohortConfig
from data_prep.simulate import SimulationConfig
from data_prep.simulate.spatial import SpatialSimulationConfig
from seq2exp.cohort.benchmark_config import BenchmarkConfig
from seq2exp.cohort.config import CohortConfig as PeopleConfig
from seq2exp.encoders.enformer import EnformerConfig
from seq2exp.encoders.epinformer import EPInformerConfig
from seq2exp.models.baseline import BaselineConfig
from seq2exp.models.config import Seq2ExpConfig
from seq2exp.spatial.compare.config import CompareConfig
from seq2exp.spatial.compare.hescape_config import HescapeSuiteConfig
from seq2exp.spatial.config import SpatialConfig
from seq2exp.spatial.systems.registry import SYSTEMS
from seq2exp.training.config import TrainConfig

DOCS = Path(__file__).parent
MARK = re.compile(r"(<!-- keys (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
CONFIGS: Mapping[str, type] = {
    "train": TrainConfig,
    "model": Seq2ExpConfig,
    "prepare": DataConfig,
    "simulate": SimulationConfig,
    "enformer": EnformerConfig,
    "epinformer": EPInformerConfig,
    "baseline": BaselineConfig,
    "tissue": SpatialSimulationConfig,
    "cohort": CohortConfig,
    "spatial": SpatialConfig,
    "people": PeopleConfig,
    "people_benchmark": BenchmarkConfig,
    "compare": CompareConfig,
    "suite": HescapeSuiteConfig,
    **SYSTEMS,
}
# The dataset and the data section decide these.
FILLED_IN = ("tracks", "num_features", "num_outputs", "window_bp", "bin_size")


def table(name: str) -> str:
    """Return the Markdown table of a configuration: key, default, meaning; nested keys dotted."""
    config, prefix = CONFIGS[name], "model." if name in ("model", "baseline") else ""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    return "\n".join(lines + _rows(config, prefix)) + "\n"


def updated(text: str) -> str:
    """Return a page with every table made anew."""
    return MARK.sub(lambda match: match[1] + table(match[2]) + match[3], text)


def _rows(config: type, prefix: str) -> list[str]:
    hints, texts, rows = typing.get_type_hints(config), _docstrings(config), []
    for field in dataclasses.fields(config):
        inner, is_list = _nested(hints[field.name])
        meaning = texts[field.name]
        if prefix == "model." and field.name in FILLED_IN:
            meaning += " Filled in from the dataset and the data section."
        choices = [str(c) for c in _choices(hints[field.name])]
        if not all(choice in meaning for choice in choices):
            meaning += f" One of {', '.join(choices)}."
        if inner is None:
            rows.append(f"| `{prefix}{field.name}` | {_default(field)} | {_cell(meaning)} |")
            continue
        name = f"{prefix}{field.name}" + ("[]" if is_list else "")
        rows.append(f"| **{name}** | | {_cell(meaning)} |")
        rows += _rows(inner, f"{name}.")
    return rows


def _docstrings(config: type) -> dict[str, str]:
    """Return the text below each field, those of its bases included."""
    bases = [base for base in config.__mro__[:0:-1] if dataclasses.is_dataclass(base)]
    found = {name: text for base in bases for name, text in _docstrings(base).items()}
    tree = ast.parse(textwrap.dedent(inspect.getsource(config)))
    body = typing.cast("ast.ClassDef", tree.body[0]).body
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            value = text.value if isinstance(text, ast.Expr) else None
            words = value.value if isinstance(value, ast.Constant) else ""
            found[field.target.id] = " ".join(str(words).split())
    return found


def _nested(hint: object) -> tuple[type | None, bool]:
    """Return the dataclass inside a type, and whether there is a list of it."""
    for option in (hint, *typing.get_args(hint)):
        if isinstance(option, type) and dataclasses.is_dataclass(option):
            return option, typing.get_origin(hint) is list
    return None, False


def _choices(hint: object) -> tuple[object, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()


def _default(field: dataclasses.Field[object]) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "required"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        value = list(value)
    return '`""`' if value == "" else f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def main() -> int:
    """Rewrite or check every page; return 1 when a checked page is out of date."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    old = 0
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if updated(text) != text:
            old += 1
            print(f"{path}: {'out of date' if options.check else 'tables written'}")  # noqa: T201
            if not options.check:
                path.write_text(updated(text), encoding="utf-8")
    return int(options.check and old > 0)


if __name__ == "__main__":
    raise SystemExit(main())
