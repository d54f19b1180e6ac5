"""The pages say what the code does: settings, commands, files, configurations and links."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from seq2exp.cli.main import COMMANDS, _join_words, build_parser
from seq2exp.spatial.systems.registry import SYSTEMS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.glob("*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
# Pages whose command is not their file name, and pages about something else.
PAGE_OF_COMMAND = {
    "doctor": "install",
    "simulate": "simulator",
    "elements compare": "elements_compare",
    "elements check": "elements_check",
    "variants saturate": "variants_saturate",
    "variants background": "variant_scores",
    "variants calibrate": "variant_scores",
    "cohort train": "cohort",
    "cohort evaluate": "cohort",
    "cohort benchmark": "cohort",
    "spatial simulate": "simulator",
    "spatial prepare": "spatial_cohort",
    "spatial train": "spatial",
    "spatial inspect": "spatial_inspect",
    "spatial predict": "spatial_predictions",
    "spatial plot": "spatial_predictions",
    "spatial evaluate": "spatial",
    "spatial compare": "spatial_compare",
}


@pytest.fixture(scope="module")
def config_keys() -> ModuleType:
    spec = importlib.util.spec_from_file_location("config_keys", DOCS / "config_keys.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def settings_of(page: str) -> set[str]:
    rows = (DOCS / page).read_text().splitlines()
    return {row.split("|")[1].strip() for row in rows if row.startswith(("| `", "| **"))}


@pytest.mark.parametrize(
    "page",
    [
        *("baselines.md", "train.md", "prepare.md", "simulator.md", "enformer.md"),
        *("epinformer.md", "spatial.md", "spatial_compare.md"),
        *(f"spatial_{name}.md" for name in SYSTEMS),
    ],
)
def test_tables_of_settings_are_those_of_the_dataclasses(config_keys, page):
    text = (DOCS / page).read_text()
    assert config_keys.MARK.search(text), "the page has lost its mark"
    assert config_keys.updated(text) == text, "run: python docs/config_keys.py"


def test_a_missing_or_altered_setting_is_noticed(config_keys):
    text = (DOCS / "train.md").read_text()
    lost = "\n".join(line for line in text.splitlines() if "`optim.lr`" not in line) + "\n"
    altered = text.replace("| `model.d_model` | `64` |", "| `model.d_model` | `65` |")
    assert lost != text
    assert altered != text
    assert config_keys.updated(lost) == config_keys.updated(altered) == text


def test_settings_include_the_nested_ones():
    train, prepare = settings_of("train.md"), settings_of("prepare.md")
    assert {"`data.window_bp`", "`fit.seeds`", "`model.stem.width`", "`model.gate`"} <= train
    assert {"`tracks[].name`", "`expression.transform`", "`splits.buffer_bp`"} <= prepare


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    broken = [link for link in links if not (page.parent / link).exists()]
    assert not broken


def commands_in(page: Path) -> list[list[str]]:
    """Return the seq2exp commands of the code blocks, continuation lines joined."""
    found = []
    for block in BLOCK.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            words = line.strip().removeprefix("$ ")
            # Forms with {a,b} or [optional] parts describe commands, they are none.
            if words.startswith("seq2exp ") and not re.search(r"[\[\]{}]|\.\.\.", words):
                parts = [shlex.split(part, comments=True)[1:] for part in words.split("&&")]
                found += [_join_words(part) for part in parts]
    return [words for words in found if words]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_pages_are_understood(page):
    for words in commands_in(page):
        if words[0].startswith("-"):
            continue
        parser = build_parser(words[0])
        args, rest = parser.parse_known_args(words)
        free = ("prepare", "train", "simulate", "spatial simulate", "spatial prepare",
                "spatial train", "spatial compare", "cohort train", "cohort benchmark")  # fmt: skip
        assert not rest or words[0] in free, words
        for path in getattr(args, "config", None) or []:
            if str(path).startswith("configs/"):
                assert (ROOT / path).is_file(), words


def test_the_check_of_commands_sees_them():
    assert any("train" in words for words in commands_in(ROOT / "README.md"))
    assert commands_in(DOCS / "train.md")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_a_page_and_stands_in_the_readme(command):
    page = DOCS / f"{PAGE_OF_COMMAND.get(command, command)}.md"
    assert f"seq2exp {command}" in page.read_text()
    assert f"`{command}`" in (ROOT / "README.md").read_text()
