"""Scores of one shard of variants as a file that is either whole or made again.

A part is a Parquet file with page checksums; what it holds, counted, stands in its footer, and
the SHA-256 of the file beside it. A file that does not have that checksum does not count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from seq2exp.core.errors import FormatError, facts
from seq2exp.core.shards import finish_shard, partial_path, read_shard

__all__ = [
    "Counts",
    "PartInfo",
    "PartStore",
    "Shard",
    "Source",
    "add_counts",
    "check_part",
    "count_statuses",
]

_KEY = b"seq2exp_part"
_PER_ALLELE = ("ref_status", "variant_type")
_PER_ROW = ("status", "score_status")
# Columns whose type must not depend on what happens to be missing in a shard.
_TYPES = {
    "record": "int64",
    "allele": "int32",
    "gene_row": "int64",
    "distance_to_tss": "Int64",
    "window_start": "Int64",
    "window_end": "Int64",
    "num_members": "int32",
    "num_haplotypes": "int32",
    "in_element": "boolean",
}

Counts = dict[str, dict[str, int]]


class Shard(Protocol):
    """Neighbouring records of an input."""

    @property
    def first_record(self) -> int:
        """Number of the first one in the whole input, from 0."""

    @property
    def num_records(self) -> int:
        """How many."""


class Source(Protocol):
    """Variants to score, in shards that hold every record once, in order.

    It can be pickled, and opens its file in the process that reads.
    """

    @property
    def shards(self) -> Sequence[Shard]:
        """Where the input is cut."""

    def read(self, shard: Any, /) -> pd.DataFrame:  # noqa: ANN401
        """Return the alleles of a shard (`seq2exp.variants.columns.ALLELE_COLUMNS`)."""


@dataclass(frozen=True)
class PartInfo:
    """What a part holds.

    Attributes
    ----------
    number : int
        Which shard of the source, from 0.
    first_record, num_records, num_alleles, num_rows : int
    counts : dict
        Of `count_statuses`.
    """

    number: int
    first_record: int
    num_records: int
    num_alleles: int
    num_rows: int
    counts: Counts


@dataclass(frozen=True)
class PartStore:
    """Parts in a work folder.

    Attributes
    ----------
    folder : Path
    mark : str
        Fingerprint of all that the scores depend on; parts with another one are not ours.
    """

    folder: Path
    mark: str

    def path(self, number: int) -> Path:
        """Return the file of a part."""
        return self.folder / "parts" / f"part_{number:06d}.parquet"

    def exists(self, number: int) -> bool:
        """Return whether a part has its file and its checksum, whole or not."""
        path = self.path(number)
        return path.is_file() and path.with_name(path.name + ".json").is_file()

    def missing(self, shards: Sequence[Shard]) -> list[int]:
        """Return the numbers of shards without a part, whole or not."""
        return [number for number in range(len(shards)) if not self.exists(number)]

    def find(self, number: int, shard: Shard) -> PartInfo | None:
        """Return what a part holds; None where it is missing, damaged or of another shard."""
        found = self._open(number, shard)
        return None if found is None else found[0]

    def write(
        self, number: int, alleles: pd.DataFrame, scores: pd.DataFrame, *, shard: Shard
    ) -> PartInfo:
        """Check the scores of a shard and write them.

        Raises
        ------
        RuntimeError
            What was read or scored breaks the contract (`check_part`): a mistake of the program.
        OSError
            The disk is full, or refuses.
        """
        check_part(alleles, scores, shard=shard)
        info = PartInfo(
            number=number,
            first_record=shard.first_record,
            num_records=shard.num_records,
            num_alleles=len(alleles),
            num_rows=len(scores),
            counts=count_statuses(alleles, scores),
        )
        table = _typed(scores)
        about = json.dumps({"mark": self.mark, **asdict(info)})
        table = table.replace_schema_metadata({**table.schema.metadata, _KEY: about.encode()})
        target = self.path(number)
        partial = partial_path(target, unique=True)
        try:
            pq.write_table(table, partial, write_page_checksum=True)
            finish_shard(partial, target, {"number": number}, sync=True)
        finally:
            partial.unlink(missing_ok=True)
        return info

    def read(self, number: int, shard: Shard) -> tuple[PartInfo, pd.DataFrame]:
        """Return what a part holds, and its scores.

        Raises
        ------
        FormatError
            It is missing, damaged, or of another shard or work.
        """
        found = self._open(number, shard)
        if found is None:
            raise FormatError(
                facts(
                    str(self.path(number)),
                    found="no whole part",
                    expected=f"scores of {shard.num_records} records "
                    f"from number {shard.first_record + 1}",
                    fix="run the same command again, it scores this part once more",
                )
            )
        return found[0], found[1].read().to_pandas()

    def _open(self, number: int, shard: Shard) -> tuple[PartInfo, pq.ParquetFile] | None:
        content = read_shard(self.path(number))
        if content is None:
            return None
        try:
            file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
            about = json.loads(file.schema_arrow.metadata[_KEY])
            mark, info = about.pop("mark"), PartInfo(**about)
        except (pa.ArrowException, ValueError, LookupError, TypeError):
            # Whole, as its checksum says, but not of this version.
            return None
        ours = (info.number, info.first_record, info.num_records, mark)
        wanted = (number, shard.first_record, shard.num_records, self.mark)
        return (info, file) if ours == wanted else None


def _typed(scores: pd.DataFrame) -> pa.Table:
    """Return scores with the same types whichever values are missing."""
    types = {name: kind for name, kind in _TYPES.items() if name in scores}
    frame = scores.astype(types)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    fields = [
        pa.field(field.name, pa.string()) if pa.types.is_null(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields, metadata=table.schema.metadata))


def check_part(alleles: pd.DataFrame, scores: pd.DataFrame, *, shard: Shard) -> None:
    """Raise unless every allele of a shard has its rows, in order, and nothing else is there.

    Parameters
    ----------
    alleles, scores : DataFrame
    shard : Shard

    Raises
    ------
    RuntimeError
        Records are missing or foreign, an allele has no row or two of one gene, rows of a gene
        stand beside one without, or the order is not by record, allele, distance and gene.
    """
    place = f"shard of {shard.num_records} records from number {shard.first_record + 1}"
    end = shard.first_record + shard.num_records
    records = np.unique(alleles["record"].to_numpy())
    if not np.array_equal(records, np.arange(shard.first_record, end)):
        raise _mistake(place, f"alleles of {records.size} records", "those of all, and no others")
    wanted, got = _keys(alleles), _keys(scores)
    if np.any(np.diff(wanted) <= 0):
        raise _mistake(place, "alleles twice or out of order", "each once, in order")
    rows = np.unique(got)
    if not np.array_equal(rows, wanted):
        lost, foreign = np.setdiff1d(wanted, rows), np.setdiff1d(rows, wanted)
        raise _mistake(
            place,
            f"{lost.size} alleles without scores and {foreign.size} scored that are none",
            "a row or more per allele",
            examples=[f"record {key >> 31} allele {key & _LOW}" for key in [*lost, *foreign]],
        )
    gene = scores["gene_row"].to_numpy()
    if "distance_to_tss" in scores:
        signed = scores["distance_to_tss"].astype("Float64").to_numpy(float, na_value=np.inf)
        distance = np.abs(signed)
    else:
        distance = np.zeros(gene.size)
    if not np.array_equal(np.lexsort((gene, distance, got)), np.arange(got.size)):
        raise _mistake(place, "rows out of order", "record, allele, distance and gene ascending")
    num_rows = np.bincount(np.searchsorted(wanted, got), minlength=wanted.size)
    alone = num_rows[np.searchsorted(wanted, got[gene < 0])]
    if np.any(alone > 1) or pd.DataFrame({"k": got, "g": gene}).duplicated().any():
        raise _mistake(place, "several rows of an allele and gene", "one, or one without a gene")


_LOW = (1 << 31) - 1


def _keys(table: pd.DataFrame) -> NDArray[np.int64]:
    """Return one number per row that sorts by record and allele."""
    record, allele = (table[name].to_numpy(np.int64) for name in ("record", "allele"))
    keys: NDArray[np.int64] = np.left_shift(record, 31) + allele
    return keys


def _mistake(
    place: str, found: str, expected: str, examples: Sequence[object] = ()
) -> RuntimeError:
    fix = "report this with the command and the records; no part was written"
    return RuntimeError(facts(place, found=found, expected=expected, fix=fix, examples=examples))


def count_statuses(alleles: pd.DataFrame, scores: pd.DataFrame) -> Counts:
    """Return how often each status occurs.

    Parameters
    ----------
    alleles, scores : DataFrame

    Returns
    -------
    dict of dict
        ``alleles`` (``all``, and ``scored``: with a row that is); of alleles ``ref_status`` and
        ``variant_type``; of rows ``status`` and ``score_status``. Only columns that are there.
    """
    done = scores.loc[scores["score_status"].str.startswith("scored"), ["record", "allele"]]
    counts: Counts = {"alleles": {"all": len(alleles), "scored": len(done.drop_duplicates())}}
    for table, names in ((alleles, _PER_ALLELE), (scores, _PER_ROW)):
        for name in names:
            if name in table:
                found = table[name].value_counts().sort_index()
                counts[name] = {str(key): int(number) for key, number in found.items()}
    return counts


def add_counts(total: Counts, more: Mapping[str, Mapping[str, int]]) -> None:
    """Add the counts of a part to a total, in place."""
    for name, numbers in more.items():
        group = total.setdefault(name, {})
        for key, number in numbers.items():
            group[key] = group.get(key, 0) + number
