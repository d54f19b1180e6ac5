"""Errors a user can act on: each says what was found, what was expected, how many, and the fix."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AssemblyError",
    "ConfigError",
    "FormatError",
    "InputError",
    "Seq2ExpError",
    "Seq2ExpWarning",
    "facts",
]


class Seq2ExpError(ValueError):
    """Base of every error that the user, not the programmer, has to mend (exit code 2)."""


class InputError(Seq2ExpError):
    """User data is missing, malformed or contradicts itself."""


class AssemblyError(InputError):
    """Two inputs come from different genome assemblies."""


class FormatError(Seq2ExpError):
    """A file is damaged, truncated, or not of the format its name promises."""


class ConfigError(Seq2ExpError):
    """A configuration key or value is wrong, or two parts do not fit together."""


class Seq2ExpWarning(UserWarning):
    """Something the user asked for was changed or left out; carries the count."""


def facts(
    what: str,
    *,
    found: object,
    expected: object,
    fix: str,
    count: int | None = None,
    examples: Sequence[object] = (),
) -> str:
    """Build a one-line message that states the four facts of a user error.

    Parameters
    ----------
    what : str
        File, key or record the message is about.
    found, expected : object
        What is there, and what should be there.
    fix : str
        What the user can do about it.
    count : int, optional
        How many cases there are.
    examples : sequence, optional
        Cases; the first three are shown.

    Returns
    -------
    str
        The message, without a line break.
    """
    parts = [f"{what}: found {found}, expected {expected}"]
    if count is not None:
        parts.append(f"{count} in all")
    if examples:
        shown = ", ".join(str(example) for example in examples[:3])
        parts.append(f"first: {shown}")
    message = "; ".join(parts) + f". Fix: {fix}"
    return " ".join(message.split())
