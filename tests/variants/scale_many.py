"""Very many made-up variants, scored by a formula: what parts and merge cost beside a model.

``python -m tests.variants.scale_many FOLDER RECORDS`` prints as JSON the seconds, the bytes, the
largest resident memory after the first tenth of the parts and at the end, and most open files.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from seq2exp.core.measure import _peak
from seq2exp.variants.scale import Identity, Job, score_in_parts

PER_SHARD = 4096


@dataclass(frozen=True)
class Range:
    """Records from a number on."""

    first_record: int
    num_records: int


@dataclass(frozen=True)
class Numbers:
    """Alleles that follow from their number."""

    num_records: int

    @property
    def shards(self):
        return [
            Range(first, min(PER_SHARD, self.num_records - first))
            for first in range(0, self.num_records, PER_SHARD)
        ]

    def read(self, shard):
        record = np.arange(shard.first_record, shard.first_record + shard.num_records)
        return pd.DataFrame({"record": record, "allele": np.int32(1), "ref_status": "ok"})


class Seen:
    """Memory and open files so far."""

    def __init__(self, num_parts):
        self.num_parts, self.calls = num_parts, 0
        self.early, self.files = 0, 0

    def look(self):
        self.calls += 1
        if self.calls <= max(1, self.num_parts // 10):
            self.early = _peak() or 0
        self.files = max(self.files, len([*Path("/proc/self/fd").iterdir()]))


def scorer(seen):
    def score(alleles):
        seen.look()
        rows = alleles.loc[np.repeat(alleles.index, 2), ["record", "allele"]]
        rows = rows.reset_index(drop=True)
        gene = np.tile([1, 2], len(alleles))
        value = np.sin(rows["record"].to_numpy() * gene).astype(np.float32)
        return rows.assign(
            gene_row=gene, distance_to_tss=pd.array(gene * 100, dtype="Int64"), status="ok",
            score_status="scored", **{"expr_delta:K562": value, "mask_delta": value * 2},
        )  # fmt: skip

    return score


def writer(seen):
    def write(parts, targets):
        (target,) = targets.values()
        file = None
        for scores in parts:
            seen.look()
            table = pa.Table.from_pandas(scores, preserve_index=False)
            file = file or pq.ParquetWriter(target, table.schema)
            file.write_table(table)
        file.close()

    return write


def main(folder, num_records):
    source = Numbers(num_records)
    seen = Seen(len(source.shards))
    begun = time.monotonic()
    outcome = score_in_parts(
        source,
        lambda worker: scorer(seen),
        writer(seen),
        Job([folder / "out.parquet"], Identity("i", "m", "d", {})),
        progress=True,
    )
    return {
        "seconds": time.monotonic() - begun, "bytes": (folder / "out.parquet").stat().st_size,
        "rows": outcome.num_rows, "early": seen.early, "peak": _peak(), "files": seen.files,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]))))
