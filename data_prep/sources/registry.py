"""The registry of public files and the recipes that list them, read from ``registry.yaml``.

An address is written down only where some public source gives it; ``found`` names that source and
``standing`` says how far it was checked. Nothing here opens an address.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from seq2exp.core.config import bind, load_yaml, require_known
from seq2exp.core.errors import ConfigError, facts

__all__ = ["Recipe", "Registry", "SourceEntry", "load_registry"]

SHIPPED = Path(__file__).with_name("registry.yaml")
_HOLDER = "{each}"
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,199}\Z")
_HEX = {"sha256": re.compile(r"^([0-9a-f]{64})?\Z"), "md5": re.compile(r"^([0-9a-f]{32})?\Z")}
# Names that the folder of a recipe needs for itself.
_OURS = re.compile(r"^fetch\.lock\.json\Z|\.part\Z|\.part\.json\Z")


@dataclass(frozen=True)
class SourceEntry:
    """One public file."""

    name: str
    """Name in the folder: letters, digits and ``. _ + -``."""
    urls: list[str]
    """Addresses of the same bytes, tried in order; https only."""
    about: str
    """What it is and what it is for."""
    found: str
    """The public source that gives the address."""
    standing: Literal["code", "content", "unverified"] = "unverified"
    """content: the bytes were seen and hashed in a public repository. code: the address stands in
    public code, nobody opened it here. unverified: put together from a pattern or from memory."""
    assembly: str = ""
    """Assembly of its coordinates; empty where it has none."""
    licence: str = "not researched; read the publisher's terms before use"
    """Terms of use."""
    size: int = 0
    """Bytes, where published; else 0."""
    sha256: str = ""
    """Checksum, where published."""
    md5: str = ""
    """Checksum, where published as MD5."""
    each: list[str] = field(default_factory=list)
    """Words that stand one after the other in the place of ``{each}`` in name and addresses."""
    unpack: Literal["", "bgzip", "zip", "tar"] = ""
    """What is made of it once it is whole: gzip to bgzip, or the members of an archive."""
    unpack_to: str = ""
    """Name of what is made: a file for bgzip, a folder for archives."""

    def __post_init__(self) -> None:
        bare = self.name.replace(_HOLDER, "1")
        addresses = [urlsplit(url.replace(_HOLDER, "1")) for url in self.urls]
        checks = {
            "name": (self.name, bool(_NAME.match(bare)) and not _OURS.search(bare),
                     "a plain file name of letters, digits and . _ + -"),
            "urls": (self.urls, bool(addresses) and all(_fine(part) for part in addresses),
                     "https addresses with a host and without user names"),
            "size": (self.size, self.size >= 0, "0 or more bytes"),
            "sha256": (self.sha256, bool(_HEX["sha256"].match(self.sha256)), "64 hex digits"),
            "md5": (self.md5, bool(_HEX["md5"].match(self.md5)), "32 hex digits"),
            "unpack_to": (self.unpack_to, self._product_is_fine(),
                          "a plain name other than that of the file, together with unpack"),
            "each": (self.each, bool(self.each) == (_HOLDER in self.name),
                     "words if, and only if, the name has {each}"),
        }  # fmt: skip
        for key, (value, holds, expected) in checks.items():
            if not holds:
                raise ConfigError(
                    facts(
                        f"file {self.name}: {key}", found=repr(value), expected=expected,
                        fix="mend the registry",
                    )
                )  # fmt: skip

    def _product_is_fine(self) -> bool:
        if not self.unpack:
            return not self.unpack_to
        fine = bool(_NAME.match(self.unpack_to)) and not _OURS.search(self.unpack_to)
        return fine and self.unpack_to != self.name

    def expanded(self) -> list[SourceEntry]:
        """Return one entry per word of ``each``, or itself."""
        if not self.each:
            return [self]
        return [
            replace(
                self,
                name=self.name.replace(_HOLDER, word),
                urls=[url.replace(_HOLDER, word) for url in self.urls],
                each=[],
            )
            for word in self.each
        ]


def _fine(address: Any) -> bool:  # noqa: ANN401 - SplitResult
    return address.scheme == "https" and bool(address.hostname) and "@" not in address.netloc


@dataclass(frozen=True)
class Recipe:
    """Files that belong together."""

    name: str
    """Name, as the command takes it."""
    about: str
    """What the files are for."""
    files: list[str]
    """Entries of the registry, in the order of their download."""
    disk: str = ""
    """What is known of their size."""
    then: list[str] = field(default_factory=list)
    """Commands that go on with the files."""


@dataclass(frozen=True)
class Registry:
    """All files and recipes."""

    files: dict[str, SourceEntry]
    recipes: dict[str, Recipe]

    def recipe(self, name: str) -> Recipe:
        """Return a recipe.

        Raises
        ------
        ConfigError
            There is none of that name (with the nearest one).
        """
        require_known("recipe", name, list(self.recipes), expected="a recipe of `fetch --list`")
        return self.recipes[name]

    def entries(self, recipe: Recipe, *, only: Sequence[str] = ()) -> list[SourceEntry]:
        """Return the files of a recipe, one entry per file.

        Parameters
        ----------
        recipe : Recipe
        only : sequence of str
            Patterns such as ``*chr22*``; all files when empty.

        Raises
        ------
        ConfigError
            A pattern fits no file.
        """
        found = [entry for name in recipe.files for entry in self.files[name].expanded()]
        for pattern in only:
            if not any(fnmatch.fnmatchcase(entry.name, pattern) for entry in found):
                raise ConfigError(
                    facts(
                        f"--only {pattern}", found=f"no file of {recipe.name} that fits",
                        expected=f"one of {len(found)} names, such as {found[0].name}",
                        fix="look at `seq2exp fetch --list`",
                    )
                )  # fmt: skip
        fits = [e for e in found if any(fnmatch.fnmatchcase(e.name, part) for part in only)]
        return fits if only else found


def load_registry(paths: Sequence[Path] = ()) -> Registry:
    """Read the shipped registry, and those of the user, which add to it.

    Parameters
    ----------
    paths : sequence of Path
        YAML files of the same form: ``files`` and ``recipes``.

    Raises
    ------
    ConfigError
        A file is no such YAML, names something twice, or lists a file that nobody describes.
    """
    files: dict[str, SourceEntry] = {}
    recipes: dict[str, Recipe] = {}
    if paths:
        # Read and bound once per process.
        shipped = _shipped()
        files, recipes = dict(shipped.files), dict(shipped.recipes)
    for path in paths or (SHIPPED,):
        value = load_yaml(path)
        unknown = sorted(set(value) - {"files", "recipes"})
        if unknown:
            raise _wrong(path, f"the keys {', '.join(unknown)}", "files and recipes")
        for name, given in _section(value, "files", path).items():
            _add(files, name, bind(SourceEntry, {"name": name, **given}, where=str(path)), path)
        for name, given in _section(value, "recipes", path).items():
            _add(recipes, name, bind(Recipe, {"name": name, **given}, where=str(path)), path)
        for recipe in recipes.values():
            _check(recipe, files, path)
    return Registry(files, recipes)


@functools.cache
def _shipped() -> Registry:
    return load_registry()


def _check(recipe: Recipe, files: Mapping[str, SourceEntry], path: Path) -> None:
    missing = [name for name in recipe.files if name not in files]
    if missing or not recipe.files:
        raise _wrong(path, f"recipe {recipe.name} with {missing or 'no'} files", "described files")
    entries = [entry for name in recipe.files for entry in files[name].expanded()]
    names = [entry.name for entry in entries]
    names += [entry.unpack_to for entry in entries if entry.unpack_to]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise _wrong(path, f"recipe {recipe.name} with {', '.join(twice)} twice", "each name once")


def _section(value: Mapping[str, Any], key: str, path: Path) -> dict[str, dict[str, Any]]:
    found = value.get(key, {})
    if not isinstance(found, dict) or not all(isinstance(item, dict) for item in found.values()):
        raise _wrong(path, f"{key} that are no mapping of names to settings", f"`{key}: {{...}}`")
    return {str(name): item for name, item in found.items()}


def _add(known: dict[str, Any], name: str, value: object, path: Path) -> None:
    if name in known:
        raise _wrong(path, f"{name!r}, which is known already", "new names")
    known[name] = value


def _wrong(path: Path, found: str, expected: str) -> ConfigError:
    return ConfigError(facts(str(path), found=found, expected=expected, fix="mend the registry"))
