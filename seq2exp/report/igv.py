"""Where igv.js comes from: a file that is installed or given, never the network.

The Python package ``igv-reports`` holds no igv.js: its pages take the script from a content network
when they are made or opened (version 1.17.0). ``igv-notebook``, of the same authors, ships it.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from seq2exp.core.errors import InputError, facts

__all__ = ["MISSING", "IgvScript", "find_igv"]

MISSING = (
    "The genome browser is left out because igv.js is not installed: "
    'pip install "seq2exp[report]" adds it, or give the file with --igv.'
)
"""Sentence of a report without the browser."""

_PACKAGE = "igv_notebook"
# The newer build first; the second is what older releases of the package hold.
_FILES = ("js/igv.iife.js", "js/igv.min.js")
_VERSION = re.compile(r"version\s*:\s*[\"'](\d+\.\d+\.\d+)[\"']|_version\s*=\s*\"(\d+\.\d+\.\d+)\"")


@dataclass(frozen=True)
class IgvScript:
    """igv.js as text.

    Attributes
    ----------
    text : str
        A classic script (no module) that defines ``igv``.
    version : str
        Empty where the script does not say it.
    """

    text: str
    version: str


def find_igv(path: Path | None = None) -> IgvScript | None:
    """Return igv.js, or None when it is not installed.

    Parameters
    ----------
    path : Path, optional
        ``dist/igv.min.js`` of the npm package ``igv``; that of igv-notebook when not given. The
        package is not imported: its script is read, so that it needs no notebook.

    Raises
    ------
    InputError
        The given file is missing or no such script.
    """
    if path is not None:
        return _read(Path(path))
    try:
        spec = importlib.util.find_spec(_PACKAGE)
    except (ImportError, ValueError):
        # sys.modules holds None for a package that was made unavailable.
        return None
    folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    places = [folder / name for folder in folders for name in _FILES]
    return next((_read(place) for place in places if place.is_file()), None)


def _read(path: Path) -> IgvScript:
    found: object = "no such file"
    if path.is_file():
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        # A module cannot be run from a text that the page carries.
        module = re.search(r"\bexport\s*(\{|default\b)", text[-2000:])
        if "createBrowser" in text and not module:
            # What follows it would ask for a file that is not there.
            text = re.sub(r"\n//# sourceMappingURL=\S*\s*$", "\n", text)
            version = _VERSION.search(text)
            number = next((v for v in version.groups() if v), "") if version else ""
            return IgvScript(text, number)
        found = "an ES module" if module else "a file without createBrowser"
    raise InputError(
        facts(
            str(path),
            found=found,
            expected="igv.min.js as a classic script",
            fix="give dist/igv.min.js of the npm package igv, or leave --igv out",
        )
    )
