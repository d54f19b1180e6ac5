"""Download the public files of a recipe into a folder, checked; run again to continue.

docs/fetch.md describes the registry of addresses, checksums and the lock file.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from seq2exp.cli import options

if TYPE_CHECKING:
    from data_prep.sources import Recipe, Registry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="recipe, such as geuvadis")
    parser.add_argument("folder", metavar="OUT", nargs="?", type=Path, help="folder of the files")
    parser.add_argument(
        "--list", action="store_true", help="show all recipes, or the files of NAME; no network"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN",
        help="files that fit, such as '*chr22*'; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--registry", action="append", default=[], type=Path, metavar="YAML",
        help="files and recipes of your own, beside the shipped ones; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=options.counted, default=60, metavar="S",
        help="longest silence of a server, seconds (%(default)s)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from data_prep.sources import fetch, load_registry
    from data_prep.sources.web import Limits
    from seq2exp.core.errors import ConfigError, facts

    registry = load_registry(args.registry)
    if args.list:
        names = [args.name] if args.name else []
        print(_files(registry, registry.recipe(names[0])) if names else _recipes(registry))
        return
    if not args.name or args.folder is None:
        raise ConfigError(
            facts(
                "fetch", found="no recipe or no folder", expected="NAME and OUT, or --list",
                fix="for example `seq2exp fetch geuvadis data/geuvadis`",
            )
        )  # fmt: skip
    recipe = registry.recipe(args.name)
    done = fetch(
        registry.entries(recipe, only=args.only),
        args.folder,
        limits=Limits(timeout_s=args.timeout),
        progress=not args.quiet,
    )
    made = f", made {', '.join(done.made)}" if done.made else ""
    print(
        f"{args.folder}: downloaded {len(done.new)}, already there and right {len(done.kept)}"
        f"{made}; {done.num_bytes / 1e9:.2f} GB; checksums in fetch.lock.json"
    )
    for line in recipe.then:
        print(f"next: {line.replace('OUT', str(args.folder), 1)}")


def _recipes(registry: Registry) -> str:
    width = max(map(len, registry.recipes))
    lines = [f"{name:{width}}  {recipe.about}" for name, recipe in registry.recipes.items()]
    return "\n".join([*lines, "", "Files and their sources: seq2exp fetch NAME --list"])


def _files(registry: Registry, recipe: Recipe) -> str:
    lines = [f"{recipe.name}: {recipe.about}"]
    if recipe.disk:
        lines.append(f"disk: {recipe.disk}")
    for name in recipe.files:
        entry = registry.files[name]
        count = len(entry.expanded())
        size = f"{entry.size:,} bytes" if entry.size else "not published"
        check = "sha256" if entry.sha256 else "md5" if entry.md5 else "noted at the first download"
        lines += [
            "",
            f"{entry.name}{f' ({count} files)' if count > 1 else ''}",
            f"  {entry.about}",
            *(f"  address: {url}" for url in entry.urls),
            f"  address found in: {entry.found} ({entry.standing})",
            f"  assembly: {entry.assembly or 'none'}; size: {size}; checksum: {check}",
            f"  licence: {entry.licence}",
        ]
        if entry.unpack:
            lines.append(f"  made of it: {entry.unpack_to} ({entry.unpack})")
    return "\n".join(lines)
