"""`seq2exp COMMAND`: parse, run, and turn errors into one line and an exit code.

Exit codes: 0 success, 2 user data or configuration, 1 a bug of ours, 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import itertools
import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import seq2exp
from seq2exp.core.errors import ConfigError, InputError, Seq2ExpError, Seq2ExpWarning, facts

__all__ = ["COMMANDS", "build_parser", "main"]

COMMANDS = {
    "doctor": "what this machine can run, and why not the rest",
    "demo": "the whole engine on simulated data, a few minutes on two CPU cores",
    "simulate": "a genome with known regulatory truth, written as ordinary files",
    "fetch": "public files of a recipe into a folder, checked; continues",
    "prepare": "raw files -> dataset directory",
    "inspect": "print what a dataset holds",
    "train": "dataset -> trained run; continues a killed one",
    "evaluate": "metrics of a run beside its controls, with intervals",
    "compare": "several runs side by side on the same genes, with paired differences",
    "predict": "expression of every gene of a dataset",
    "elements": "regulatory-element maps: BED, bigWig, BEDPE, plots",
    "elements compare": "an element map against peaks, links, CRISPRi tables or a truth",
    "elements check": "delete, keep alone and swap called elements: what the model itself uses",
    "variants": "scores of variants: VCF in, VCF out; continues a killed run",
    "variants saturate": "every substitution of a region: arrays, bigWig, logos; continues",
    "variants background": "scores of common variants, among which others get quantiles",
    "variants calibrate": "p-values of scored variants against uniform ones: table, picture",
    "priors": "what a run knows of every gene, for models without sequence",
    "attribute": "what each base and track bin contributes to a prediction",
    "motifs": "enrichment of a motif file in elements, with matched background and FDR",
    "report": "one HTML page about a run",
    "cohort train": "a model trained on people: their haplotypes and expression; continues",
    "cohort evaluate": "a run on held-out people and genes, beside linear baselines",
    "cohort benchmark": "models of personal expression beside linear baselines; continues",
    "spatial simulate": "simulated tissue with known gene programmes",
    "spatial prepare": "tissue images, spots and counts -> cohort folder",
    "spatial inspect": "what a cohort holds or a spatial run learnt, with pictures",
    "spatial train": "cohort -> a system fitted on every fold; continues a killed run",
    "spatial predict": "predicted expression of every spot, as AnnData",
    "spatial plot": "genes over tissue: observed, predicted, difference",
    "spatial evaluate": "accuracy on held-out tissue beside controls, with intervals",
    "spatial compare": "all systems under one protocol in one table; continues a killed one",
}

_OUTPUTS = ("out", "json", "log_file")

logger = logging.getLogger("seq2exp")


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; with ``only`` the arguments of a single command are filled in."""
    parser = _Parser(
        prog="seq2exp", description="From DNA and epigenomic tracks to gene expression."
    )
    parser.add_argument("--version", action="version", version=f"seq2exp {seq2exp.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        sub = subparsers.add_parser(name, help=summary, description=summary)
        if only in (None, name):
            module = _module(name)
            sub.description = (module.__doc__ or summary).split("\n\n")[0]
            module.add_arguments(sub)
            _common(sub)
    return parser


def _module(command: str) -> ModuleType:
    return importlib.import_module("seq2exp.cli." + command.replace(" ", "_"))


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are a line and not pages of options; an option is never shortened."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  those of argparse
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        self._given: list[str] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # noqa: ANN401
        """Keep the words for `error`, which is told less."""
        self._given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Say in one line what is wrong, the nearest option, and where the options stand."""
        named = [word.partition("=")[0] for word in self._given if re.match("--[a-z]", word)]
        near = {word: self._nearest(word) for word in named}
        hint = "".join(f"{word}: did you mean {name}? " for word, name in near.items() if name)
        self.exit(2, f"error: {self.prog}: {message}. Fix: {hint}see `{self.prog} --help`\n")

    def refuse_flags(self, rest: list[str]) -> None:
        """Refuse flags that are nearly an option; a setting would have a dot or a value."""
        for word, after in itertools.pairwise([*rest, "--"]):
            if after.startswith("--") and re.fullmatch("--[a-z-]+", word) and self._nearest(word):
                self.error(f"unrecognized arguments: {word}")

    def _nearest(self, word: str) -> str:
        """Return the option that an unknown one may be meant to be; empty for a known one."""
        known = [name for name in self._option_string_actions if name.startswith("--")]
        return "" if word in known else next(iter(get_close_matches(word, known, n=1)), "")


def _join_numbers(argv: list[str]) -> list[str]:
    """Bind a list that begins with a minus, such as `-5,0,5`, to the option before it."""
    joined: list[str] = []
    for word in argv:
        if re.fullmatch(r"-\d+(,-?\d+)+", word) and joined and joined[-1].startswith("--"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _join_words(argv: list[str]) -> list[str]:
    """Make one word of a command of two, such as `elements compare`."""
    for at, pair in enumerate(itertools.pairwise(argv)):
        if " ".join(pair) in COMMANDS:
            return [*argv[:at], " ".join(pair), *argv[at + 2 :]]
        if pair[0] in COMMANDS:
            break
    return argv


def _part_of_command(argv: list[str]) -> int | None:
    """Answer half a command of two words, such as `cohort` or `cohort --help`; else None."""
    first = argv[0] if argv else ""
    whole = {name: text for name, text in COMMANDS.items() if name.startswith(f"{first} ")}
    if first in COMMANDS or not whole or " ".join(argv[:2]) in COMMANDS:
        return None
    help_wanted = argv[1:2] in (["-h"], ["--help"])
    if not help_wanted:
        words = " ".join(argv[:2])
        print(f"error: found {words!r}, expected one of these commands:", file=sys.stderr)
    width = max(map(len, whole))
    for name, text in whole.items():
        print(f"  {name.ljust(width)}  {text}", file=sys.stdout if help_wanted else sys.stderr)
    return 0 if help_wanted else 2


def _common(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("messages")
    group.add_argument("--log-file", type=Path, metavar="FILE", help="also write the log here")
    group.add_argument("--quiet", action="store_true", help="show warnings and errors only")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    answered = _part_of_command(given)
    if answered is not None:
        return answered
    argv = _join_numbers(_join_words(given))
    only = next((word for word in argv if word in COMMANDS), None)
    parser = build_parser(only)
    args, rest = parser.parse_known_args(argv)
    module = _module(args.command)
    if rest:
        # The parser of the command knows the options.
        actions = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        of_command: _Parser = actions.choices[args.command]
        if not getattr(module, "TAKES_OVERRIDES", False):
            of_command.error(f"unrecognized arguments: {' '.join(rest)}")
        of_command.refuse_flags(rest)
    args.overrides = rest
    try:
        _set_up_logging(args)
        _spare_inputs(args)
        module.run(args)
    except Seq2ExpError as error:
        return _user_error(error, show=args.debug)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output left; closing stdout quietly is what Unix tools do.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _user_error(_full_disk(error) or _plain(error), show=args.debug)
    return 0


def _spare_inputs(args: argparse.Namespace) -> None:
    """Refuse an output that is what a command reads; to replace one, also a folder around it."""
    out = getattr(args, "out", None)
    if not isinstance(out, Path) or not out.exists():
        return
    target = out.resolve()
    for name, value in vars(args).items():
        for path in value if isinstance(value, list) else [value]:
            if name in _OUTPUTS or not isinstance(path, Path) or not path.exists():
                continue
            place = path.resolve()
            around = getattr(args, "overwrite", False) and target in place.parents
            if place == target or around:
                raise ConfigError(
                    facts(
                        f"--out {out}",
                        found=f"{'a folder around ' if around else ''}{path}, which is read",
                        expected="a place beside what is read",
                        fix="choose another --out",
                    )
                )


def _plain(error: OSError) -> Exception:
    """Say which path of an operating system's complaint is in the way, and of what kind."""
    known = {
        errno.ENOENT: ("no such file", "a file that is there"),
        errno.EEXIST: ("a file", "a folder"),
        errno.ENOTDIR: ("a file in this path", "folders"),
        errno.EISDIR: ("a folder", "a file"),
        errno.EACCES: ("no permission", "a place that may be read, or written"),
        errno.EPERM: ("no permission", "a place that may be read, or written"),
        errno.EROFS: ("a read-only disk", "a place that may be written"),
    }
    if error.errno not in known or not error.filename:
        return error
    found, expected = known[error.errno]
    place = str(error.filename2 or error.filename)
    return InputError(facts(place, found=found, expected=expected, fix="give another path"))


def _full_disk(error: OSError) -> InputError | None:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return None
    return InputError(
        facts(
            str(error.filename or "output"),
            found=f"a full disk or a limit on file sizes ({os.strerror(error.errno)})",
            expected="room to write",
            fix="free space, then run the same command again",
        )
    )


def _user_error(error: Exception, *, show: bool) -> int:
    if show:
        logger.exception("traceback")
    notes = " ".join(getattr(error, "__notes__", []))
    # A preflight reports several problems at once, one per line.
    message = f"{error}{' ' + notes if notes else ''}"
    print("\n".join(f"error: {line}" for line in message.splitlines()), file=sys.stderr)
    return 2


def _set_up_logging(args: argparse.Namespace) -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if args.log_file:
        args.log_file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(args.log_file))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(message)s"))
    for name in ("seq2exp", "data_prep"):
        target = logging.getLogger(name)
        target.handlers = handlers
        target.propagate = False
        target.setLevel(logging.WARNING if args.quiet else logging.INFO)
    # Library chatter is not for the user of a command; our own warnings are.
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", Seq2ExpWarning)
    warnings.showwarning = _show_warning


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    logger.warning("warning: %s", message)


if __name__ == "__main__":
    sys.exit(main())
