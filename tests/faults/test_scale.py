"""F38: positions that need more than 31 bits, and many genes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from data_prep.annotation import read_annotation
from data_prep.config import AnnotationConfig
from data_prep.windows import bed_intervals
from seq2exp.core.intervals import tss_window
from tests.data_prep import raw

FAR = 2**31 + 12_345
SIZE = 2**32


@pytest.mark.parametrize("strand", ["+", "-"])
def test_f38_windows_beyond_31_bits(strand):
    window = tss_window("c", FAR, strand, length=1000, contig_length=SIZE)
    assert window.length == 1000
    assert (window.pad_left, window.pad_right) == (0, 0)
    # Base 500 of the window, as the model reads it, is the TSS.
    assert window.genome_interval(500, 501) == (FAR, FAR + 1)


def test_f38_windows_beyond_31_bits_end_with_their_contig():
    window = tss_window("c", SIZE - 10, "+", length=1000, contig_length=SIZE)
    assert (window.clipped_end, window.pad_right) == (SIZE, 490)


def test_f38_regions_and_genes_beyond_31_bits(tmp_path):
    (tmp_path / "r.bed").write_text(f"c\t{FAR}\t{FAR + 10}\n")
    starts, ends = bed_intervals(tmp_path / "r.bed", {"c": SIZE})["c"]
    assert (starts.tolist(), ends.tolist()) == ([FAR], [FAR + 10])
    line = raw.gtf_line("c", "gene", FAR + 1, FAR + 200, "-", gene_id="g")
    path = raw.write_gtf(tmp_path / "g.gtf", [line])
    genes = read_annotation(path, AnnotationConfig(gtf="g.gtf")).genes
    assert genes["tss"].tolist() == [FAR + 199]
    assert genes["tss"].dtype == np.int64


@pytest.mark.slow
def test_f38_a_hundred_thousand_genes_in_bounded_memory(tmp_path):
    """Four lines per gene, like a whole-genome annotation; the reader stays below 1.5 GB."""
    lines = []
    for number in range(100_000):
        start, name = 1 + 30_000 * (number % 50_000), f"g{number}"
        contig = f"chr{number // 50_000}"
        more = {"gene_id": name, "transcript_id": f"t{number}"}
        lines.append(raw.gtf_line(contig, "gene", start, start + 900, "+", gene_id=name))
        lines.append(raw.gtf_line(contig, "transcript", start, start + 900, "+", **more))
        lines.append(raw.gtf_line(contig, "exon", start, start + 300, "+", **more))
        lines.append(raw.gtf_line(contig, "exon", start + 500, start + 900, "+", **more))
    path = raw.write_gtf(tmp_path / "g.gtf", lines)
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from data_prep.annotation import read_annotation\n"
        "from data_prep.config import AnnotationConfig\n"
        "genes = read_annotation(Path(sys.argv[1]), AnnotationConfig(gtf='g.gtf')).genes\n"
        "print(len(genes), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    count, kilobytes = (int(word) for word in done.stdout.split())
    assert count == 100_000
    assert kilobytes < 1_500_000
