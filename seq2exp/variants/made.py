"""Of which work an output was made: its header says so."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

__all__ = ["WORK", "made_of", "work_named"]

WORK = "work"
"""Key in the header of every output: the fingerprint of all that its bytes depend on."""

_LINE = re.compile(rf'##(?:seq2exp_variants=<ID={WORK},Value="|{WORK}=)([0-9a-f]{{16}})')


def made_of(outs: Sequence[Path], mark: str) -> bool:
    """Return whether all outputs are there and were made of one work.

    Parameters
    ----------
    outs : sequence of Path
    mark : str
        Fingerprint of its identity.
    """
    return all(work_named(Path(out)) == mark for out in outs)


def work_named(path: Path) -> str:
    """Return the work that an output names; nothing where it is missing or of something else.

    Parameters
    ----------
    path : Path
        VCF, TSV or Parquet, by its ending.
    """
    if not path.is_file():
        return ""
    name = path.name.lower()
    try:
        if name.endswith(".parquet"):
            return _of_parquet(path)
        with gzip.open(path, "rt") if name.endswith(".gz") else path.open() as text:
            for line in text:
                found = _LINE.match(line)
                if found or not line.startswith("##"):
                    return found[1] if found else ""
    except (OSError, EOFError, ValueError, zlib.error):
        # Damaged, or no such text: not ours, so it is not touched.
        return ""
    return ""


def _of_parquet(path: Path) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        notes = pq.read_schema(path).metadata or {}
        return str(json.loads(notes[b"seq2exp.variants"])[WORK])
    except (pa.ArrowException, LookupError, TypeError):
        return ""
