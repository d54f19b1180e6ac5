"""Does `seq2exp variants` hold its memory while its input grows to ten million variants?

    python benchmarks/variant_scale.py RUN WORK [--records 1000000 10000000] [--quick]

Substitutions of the genome of a finished run (that of `seq2exp demo`), outside of the windows of
its genes but for a few, are written to a VCF and put through the whole command: survey, scoring,
parts, merge, VCF and Parquet with their index. Most end as ``no_gene``, since passes of the model
are what `variant_scoring.py` measures: what is left is what the size of an input can spoil.
Peak memory is that of the command with its children, as the kernel counted it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pysam
from common import circumstances, write_result

from seq2exp.dataset.samples import gene_window
from seq2exp.dataset.store import Dataset
from seq2exp.training.run import open_run

BASES = np.frombuffer(b"ACGT", dtype="S1").astype(str)
INFO = '##INFO=<ID=AF,Number=A,Type=Float,Description="Frequency">'
NUM_INSIDE, CHUNK = 500, 200_000


def write_vcf(run: Path, path: Path, *, records: int) -> None:
    """Write so many substitutions in the order of the genome."""
    trained = open_run(run)
    dataset = trained.open_dataset()
    random = np.random.default_rng(0)
    lengths = dataset.manifest.contigs
    config = trained.sample_config(dataset)
    places = {contig: inside_and_outside(dataset, config, contig) for contig in lengths}
    total = sum(len(outside) for _, outside in places.values())
    with pysam.BGZFile(str(path), "w") as file:
        head = ["##fileformat=VCFv4.2", INFO]
        head += [f"##contig=<ID={contig},length={length}>" for contig, length in lengths.items()]
        head += ["#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"]
        file.write("\n".join(head).encode())
        for contig, (inside, outside) in places.items():
            few = random.choice(inside, NUM_INSIDE * len(outside) // total)
            many = random.integers(0, len(outside) * 3, records * len(outside) // total)
            position = np.concatenate([few, outside[many // 3]])
            codes = np.asarray(dataset.contig_codes(contig))[position]
            alt = (codes + 1 + np.concatenate([few % 3, many % 3])) % 4
            order = np.argsort(position, kind="stable")
            for rows in np.array_split(order, len(order) // CHUNK + 1):
                file.write(lines(contig, position[rows], BASES[codes[rows]], BASES[alt[rows]]))


def inside_and_outside(dataset: Dataset, config: Any, contig: str) -> tuple[Any, Any]:
    """Known bases in and out of the windows of genes."""
    covered = np.zeros(dataset.manifest.contigs[contig], dtype=np.bool_)
    for row, site in enumerate(dataset.sites):
        if site[0] == contig:
            window = gene_window(dataset, row, config)
            covered[max(window.start, 0) : window.end] = True
    known = np.asarray(dataset.contig_codes(contig)) < 4
    return np.flatnonzero(covered & known), np.flatnonzero(~covered & known)


def lines(contig: str, position: Any, ref: Any, alt: Any) -> bytes:
    rows = zip((position + 1).tolist(), ref.tolist(), alt.tolist(), strict=True)
    return "".join(f"{contig}\t{p}\t.\t{r}\t{a}\t.\tPASS\tAF=0.1\n" for p, r, a in rows).encode()


def measure(run: Path, vcf: Path, outs: list[Path]) -> dict[str, Any]:
    """Run the command; return seconds and peak memory."""
    command = [sys.executable, "-m", "seq2exp", "variants", str(run), "--vcf", str(vcf), "--quiet"]
    for out in outs:
        command += ["--out", str(out)]
    start = time.monotonic()
    process = subprocess.Popen([*command, "--overwrite"])
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"seq2exp variants ended with {process.returncode}")
    return {"seconds": time.monotonic() - start, "peak_megabytes": used.ru_maxrss / 1024}


def one(run: Path, work: Path, *, records: int) -> dict[str, Any]:
    """Return what one size of input takes."""
    vcf = work / f"{records}.vcf.gz"
    if not vcf.is_file():
        write_vcf(run, vcf, records=records)
    outs = [work / f"{records}.out.vcf.gz", work / f"{records}.out.parquet"]
    found = measure(run, vcf, outs)
    table = pq.ParquetFile(outs[1])
    states: dict[str, int] = {}
    for batch in table.iter_batches(columns=["status"]):
        for name, count in zip(
            *np.unique(batch["status"].to_numpy(zero_copy_only=False), return_counts=True),
            strict=True,
        ):
            states[str(name)] = states.get(str(name), 0) + int(count)
    with pysam.VariantFile(str(outs[0])) as file:
        written = sum(1 for _ in file)
    return {
        "records": records, "records_written": written, "rows": table.metadata.num_rows,
        "rows_by_status": states, **found, "records_per_second": written / found["seconds"],
        "input_megabytes": vcf.stat().st_size / 1e6,
        "output_megabytes": [out.stat().st_size / 1e6 for out in outs],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--records", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--quick", action="store_true", help="20,000 records, not written")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    before = circumstances("torch", "pyarrow", "pysam")
    sizes = [20_000] if options.quick else options.records
    found = [one(options.run, options.work, records=size) for size in sizes]
    growth = found[-1]["peak_megabytes"] / found[0]["peak_megabytes"]
    result = {"sizes": found, "growth_of_memory": growth, **before}
    write_result("variant_scale", result, quick=options.quick)


if __name__ == "__main__":
    main()
