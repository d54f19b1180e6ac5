"""One pass over all rows of an input, before anything is scored.

Shapes: S shards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import FormatError, facts
from seq2exp.variants.rows import RowError
from seq2exp.variants.texts import VariantText

__all__ = ["Survey", "survey"]

_EXAMPLES = 3


@dataclass
class Survey:
    """What a pass over the input has found.

    Attributes
    ----------
    shard_size : int
        Records per shard.
    num_records, num_alleles : int
    sorted : bool
        Each contig in one piece and positions that never fall.
    contigs : dict of str to int
        Records by contig as written.
    start_S : int64 array
        Offset of the first record of every shard.
    alleles_S : int64 array
        Alleles of every shard.
    notes : list of str
        What is odd but does no harm.
    """

    shard_size: int
    num_records: int
    num_alleles: int
    sorted: bool
    contigs: dict[str, int]
    start_S: NDArray[np.int64]
    alleles_S: NDArray[np.int64]
    notes: list[str] = field(default_factory=list)


def survey(text: VariantText, *, shard_size: int) -> Survey:
    """Read every row once: count, check that it is one, and note where shards begin.

    Raises
    ------
    FormatError
        Lines are no rows.
    """
    contigs: Counter[str] = Counter()
    starts, alleles = [], []
    bad: list[str] = []
    num_bad = num_records = falls = repeats = 0
    last: tuple[str, int, str, str] | None = None
    with text.open() as handle:
        for at, line in text.lines(handle, text.start, text.size):
            try:
                row = text.row(line)
            except RowError as error:
                num_bad += 1
                if len(bad) < _EXAMPLES:
                    bad.append(f"row {num_records + num_bad}: {error}")
                continue
            if num_records % shard_size == 0:
                starts.append(at)
                alleles.append(0)
            num_records += 1
            alleles[-1] += row.alts.count(",") + 1
            if last is not None:
                if last[0] != row.chrom:
                    falls += row.chrom in contigs
                elif row.position < last[1]:
                    falls += 1
                elif last == (row.chrom, row.position, row.ref, row.alts):
                    repeats += 1
            contigs[row.chrom] += 1
            last = row.chrom, row.position, row.ref, row.alts
        windows = handle.read(text.start, 1 << 16).split(b"\n")[0].endswith(b"\r")
    if num_bad:
        raise FormatError(_no_rows(text, num_bad, bad))
    return Survey(
        shard_size,
        num_records,
        sum(alleles),
        falls == 0,
        dict(contigs),
        np.array(starts, dtype=np.int64),
        np.array(alleles, dtype=np.int64),
        list(_notes(falls, repeats, windows=windows)),
    )


def _notes(falls: int, repeats: int, *, windows: bool) -> Iterable[str]:
    if falls:
        yield (
            f"{falls:,} records are out of order: they are scored and written in the order of the "
            "input, and a VCF of them cannot be indexed (`bcftools sort` orders it)"
        )
    if repeats:
        yield f"{repeats:,} records repeat the one before them: each is scored and written"
    if windows:
        yield "lines end as on Windows (CR LF): they are written with LF"


def _no_rows(text: VariantText, count: int, examples: list[str]) -> str:
    vcf = text.columns is None
    return facts(
        str(text.path),
        found="lines that are no records",
        expected="a record: CHROM, POS, ID, REF, ALT, QUAL, FILTER, INFO, tabs between them"
        if vcf
        else "chromosome, position, REF and ALT in one word, such as chr1:100:A>G"
        if str(text.path) == "--variant"
        else "rows with as many columns as the first line, whole numbers as positions, and "
        "variants such as chr1:100:A>G",
        fix="the file is damaged or was cut: restore it" if vcf else "mend these rows",
        count=count,
        examples=examples,
    )
