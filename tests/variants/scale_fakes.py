"""A file of alleles, a scorer and a writer for tests of parts, processes and resume."""

from __future__ import annotations

import os
import signal
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from seq2exp.variants.scale import Identity, Job

NUM_RECORDS, PER_SHARD = 50, 7  # 8 shards, the last one of a single record


@dataclass(frozen=True)
class FileShard:
    """Lines of a text file from a byte offset."""

    first_record: int
    num_records: int
    offset: int


@dataclass(frozen=True)
class FileSource:
    """Alleles in a text file: record, allele, status of REF."""

    path: Path
    shards: tuple[FileShard, ...]

    def read(self, shard):
        rows = []
        with self.path.open() as handle:  # in the process that reads
            handle.seek(shard.offset)
            while (line := handle.readline()) and (
                int(line.split()[0]) < shard.first_record + shard.num_records
            ):
                rows.append(line.split())
        table = pd.DataFrame(rows, columns=["record", "allele", "ref_status", "variant_type"])
        return table.astype({"record": "int64", "allele": "int32"})


def write_source(path, num_records=NUM_RECORDS, per_shard=PER_SHARD):
    """Every fifth record has two ALTs, every seventh none; every eleventh does not fit."""
    shards, offset, text = [], 0, []
    for record in range(num_records):
        if record % per_shard == 0:
            shards.append(FileShard(record, min(per_shard, num_records - record), offset))
        alleles = [1, 2] if record % 5 == 0 else [0] if record % 7 == 0 else [1]
        status = "mismatch" if record % 11 == 0 else "ok"
        for allele in alleles:
            line = f"{record} {allele} {status} {'snv' if allele else 'missing_alt'}\n"
            text.append(line)
            offset += len(line)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(text))
    return FileSource(path, tuple(shards))


def score(alleles):
    """Zero to two genes per allele, numbers that follow from record and allele."""
    record = alleles["record"].to_numpy()
    bad = (alleles["ref_status"] != "ok") | (alleles["allele"] == 0)
    genes = np.where(bad, 0, record % 3)
    rows = alleles.loc[np.repeat(alleles.index, np.maximum(genes, 1)), ["record", "allele"]]
    rows = rows.reset_index(drop=True)
    number = rows.groupby(["record", "allele"]).cumcount().to_numpy()
    none = np.repeat(genes == 0, np.maximum(genes, 1))
    rows["gene_row"] = np.where(none, -1, number + 10)
    rows["symbol"] = np.where(none, "", "G" + pd.Series(number).astype(str))
    distance = pd.Series((number + 1) * np.where(number % 2, -5, 5), dtype="Int64")
    rows["distance_to_tss"] = distance.mask(none)
    skipped = np.repeat(bad.to_numpy(), np.maximum(genes, 1))
    rows["status"] = np.where(skipped, "ref_mismatch", np.where(none, "no_gene", "ok"))
    rows["score_status"] = np.where(none, "skipped:none", "scored")
    rows["in_element"] = pd.array(np.where(none, None, number == 0), dtype="boolean")
    value = np.sin(rows["record"] * 3 + rows["allele"] + number).astype("float32")
    rows["expr_delta:K562"] = value.where(~none)
    return rows


@dataclass
class Fake:
    """Makes a scorer; can be slow, count its calls on disk, or be killed once at a record."""

    folder: Path
    seconds: float = 0.0
    kill_at: int | None = None

    def __call__(self, worker):
        (self.folder / f"made_{worker}_{os.getpid()}").touch()
        return self.run

    def run(self, alleles):
        first = int(alleles["record"].iloc[0])
        time.sleep(self.seconds)
        killed = self.folder / "killed"
        if self.kill_at is not None and first >= self.kill_at and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        (self.folder / f"scored_{first:06d}_{uuid.uuid4().hex}").touch()
        return score(alleles)


def scored(folder):
    """First records of the shards that were scored, twice where twice."""
    return sorted(int(path.name.split("_")[1]) for path in folder.glob("scored_*"))


def write(parts, targets):
    """Text for .tsv and .vcf (which gets an index), Parquet for .parquet; a part at a time."""
    writers = {}
    for path, target in targets.items():
        writers[path] = None if target.suffix == ".parquet" else target.open("w")
    for scores in parts:
        for path, target in targets.items():
            if target.suffix != ".parquet":
                scores.to_csv(writers[path], sep="\t", header=False, index=False)
                continue
            table = pa.Table.from_pandas(scores, preserve_index=False)
            writers[path] = writers[path] or pq.ParquetWriter(target, table.schema)
            writers[path].write_table(table)
    for path, target in targets.items():
        writers[path].close()
        if target.suffix == ".vcf":
            target.with_name(target.name + ".tbi").write_text(f"{target.stat().st_size}\n")


@dataclass
class Setting:
    """A source, a scorer and a job in a folder."""

    folder: Path
    outputs: tuple[str, ...] = ("out.vcf", "sub/out.parquet")
    config: dict = field(default_factory=lambda: {"batch_size": 4, "scorers": ["expr_delta"]})
    scorer: dict = field(default_factory=dict)

    def __post_init__(self):
        self.notes = self.folder / "notes"
        self.notes.mkdir(parents=True, exist_ok=True)
        self.source = write_source(self.folder / "in.txt")
        self.paths = [self.folder / "out" / name for name in self.outputs]

    def fake(self, **options):
        return Fake(self.notes, **(self.scorer | options))

    def identity(self, **changes):
        values = {"input_sha256": "i", "model_sha256": "m", "dataset_checksum": "d"}
        return Identity(**(values | {"config": self.config} | changes))

    def job(self, **options):
        return Job(self.paths, options.pop("identity", self.identity()), **options)

    def visible(self):
        """Every file that a user sees, with its content."""
        out = self.folder / "out"
        return {
            path.relative_to(out).as_posix(): path.read_bytes()
            for path in sorted(out.rglob("*"))
            if path.is_file() and not path.relative_to(out).as_posix().startswith((".", "sub/."))
        }

    def hidden(self):
        out = self.folder / "out"
        return sorted(p.name for p in out.rglob(".*") if not p.name.endswith(".lock"))
