"""All outputs of one run, written together from the same numbers, or none."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.core.files import atomic_file, refuse_existing
from seq2exp.core.progress import track
from seq2exp.variants.columns import ScoreColumn
from seq2exp.variants.result import in_step
from seq2exp.variants.source import VariantSource
from seq2exp.variants.summary import Summary
from seq2exp.variants.write_table import ParquetWriter, TsvWriter
from seq2exp.variants.write_vcf import VcfWriter

__all__ = ["FORMATS", "check_outputs", "write_outputs"]

logger = logging.getLogger(__name__)

FORMATS = (".vcf", ".vcf.gz", ".tsv", ".tsv.gz", ".parquet")
_INDICES = (".tbi", ".csi")
_Writer = VcfWriter | TsvWriter | ParquetWriter


def check_outputs(
    outs: Sequence[Path], *, inputs: Iterable[Path] = (), overwrite: bool = False
) -> None:
    """Raise before any work when an output cannot be written.

    Parameters
    ----------
    outs : sequence of Path
        The ending names the format, one of ``FORMATS``.
    inputs : iterable of Path
        Files that must not be written over.
    overwrite : bool
        Existing outputs may be replaced.

    Raises
    ------
    ConfigError
        Another ending, the same path twice, or an input.
    InputError
        The path exists already, or its folder cannot be written to.
    """
    if not outs:
        raise ConfigError(
            facts("--out", found="none", expected=f"a file ending in {', '.join(FORMATS)}",
                  fix="give --out")
        )  # fmt: skip
    read = {path.resolve(): path for path in inputs}
    seen: set[Path] = set()
    for out in outs:
        ending = _ending(out)
        place = out.resolve()
        if place in read or place in seen:
            raise ConfigError(
                facts(
                    f"--out {out}",
                    found="a file that is read" if place in read else "the same file twice",
                    expected="a file of its own for every output",
                    fix="choose another --out",
                )
            )
        seen.add(place)
        if out.is_dir():
            raise InputError(
                facts(f"--out {out}", found="a folder", expected=f"a {ending} file",
                      fix="name a file in it")
            )  # fmt: skip
        refuse_existing(out, overwrite=overwrite)
        _try_folder(out)


def _ending(out: Path) -> str:
    name = out.name.lower()
    found = [ending for ending in FORMATS if name.endswith(ending) and len(name) > len(ending)]
    if not found:
        bcf = name.endswith(".bcf")
        raise ConfigError(
            facts(
                f"--out {out}",
                found="BCF, which is not written" if bcf else f"the name {out.name}",
                expected=f"a name ending in {', '.join(FORMATS)}",
                fix="write .vcf.gz and convert it with `bcftools view -Ob`"
                if bcf
                else "choose one of these endings",
            )
        )
    return max(found, key=len)


def _try_folder(out: Path) -> None:
    """Write and remove a small file where the output, or its folder, will be made."""
    folder = out.absolute().parent
    while not folder.exists():
        folder = folder.parent
    probe = folder / f".{uuid.uuid4().hex[:12]}.probe"
    try:
        probe.touch()
    except OSError as error:
        raise InputError(
            facts(
                f"--out {out}",
                found=f"{folder}, where nothing can be written ({os.strerror(error.errno or 0)})",
                expected="a folder that may be written to",
                fix="choose another place, or change its permissions",
            )
        ) from error
    finally:
        if probe.exists():
            probe.unlink()


def write_outputs(
    outs: Sequence[Path],
    source: VariantSource,
    parts: Iterable[pd.DataFrame],
    columns: Sequence[ScoreColumn],
    header: Mapping[str, Any],
    *,
    long: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> Summary:
    """Write every output from the input and its scores, read in step; all appear, or none.

    Parameters
    ----------
    outs : sequence of Path
        The ending names the format, one of ``FORMATS``. A ``.vcf.gz`` gets an index if its records
        are in order.
    source : VariantSource
    parts : iterable of DataFrame
        Tables of scores in the order of the input; see `seq2exp.variants.result.in_step`.
    columns : sequence of ScoreColumn
    header : mapping
        Metadata for all headers; nothing that depends on the time, so that bytes do not.
    long : bool
        Tables with one row per allele, gene, scorer and sample; a VCF is the same either way.
    overwrite : bool
        Replace existing outputs.
    progress : bool

    Returns
    -------
    Summary
        Counts of all statuses.

    Raises
    ------
    FormatError
        Scores and input do not fit together.
    ConfigError, InputError
        An output cannot be written; see `check_outputs`.
    """
    check_outputs(outs, inputs=[source.path, source.text.text], overwrite=overwrite)
    summary = Summary()
    with ExitStack() as stack:
        writers: list[tuple[Path, _Writer]] = []
        for out in outs:
            partial = stack.enter_context(atomic_file(out, overwrite=overwrite))
            stack.enter_context(_without_leftovers(partial))
            writer = _open_writer(out, partial, source, columns, header, long=long)
            stack.callback(writer.close)
            writers.append((out, writer))
        steps = in_step(source, parts, columns)
        for part in track(steps, total=source.num_shards, label="writing", enabled=progress):
            summary.add(part.alleles, part.scores)
            for _, writer in writers:
                writer.write(part)
        for _, writer in writers:
            writer.close()
        for out, writer in writers:
            _place_index(out, writer)
    return summary


def _open_writer(
    out: Path,
    partial: Path,
    source: VariantSource,
    columns: Sequence[ScoreColumn],
    header: Mapping[str, Any],
    *,
    long: bool,
) -> _Writer:
    ending = _ending(out)
    blocked = ending.endswith(".gz")
    if ending.startswith(".vcf"):
        return VcfWriter(partial, source, columns, header, blocked=blocked)
    if ending.startswith(".tsv"):
        return TsvWriter(partial, columns, header, blocked=blocked, long=long)
    return ParquetWriter(partial, columns, header, long=long)


@contextmanager
def _without_leftovers(partial: Path) -> Iterator[None]:
    """Remove an index that was made for a file that did not become an output."""
    try:
        yield
    finally:
        for ending in _INDICES:
            partial.with_name(partial.name + ending).unlink(missing_ok=True)


def _final(path: Path) -> str:
    """Return the name that a file gets when it is whole; a partial one tells users nothing."""
    return path.name.partition(".partial.")[2] or path.name


def _place_index(out: Path, writer: _Writer) -> None:
    """Put the index of a VCF beside it, and remove that of the file it replaces.

    It comes first: a killed run then leaves an index without a file, which a rerun replaces.
    """
    if not isinstance(writer, VcfWriter):
        return
    made = writer.index()
    if made is None and writer.blocked:
        logger.info("%s: not indexed, its records are out of order (`bcftools sort`)", _final(out))
    for ending in _INDICES:
        place = out.absolute().with_name(out.name + ending)
        if made is not None and made.name.endswith(ending):
            made.replace(place)
        else:
            place.unlink(missing_ok=True)
