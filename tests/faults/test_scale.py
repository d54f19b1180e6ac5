"""F38: positions that need more than 31 bits, many genes, long files of variants."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pysam
import pytest

from data_prep.annotation import read_annotation
from data_prep.config import AnnotationConfig, GenotypeConfig
from data_prep.variants.records import Line, split_alleles
from data_prep.windows import bed_intervals
from seq2exp.core.intervals import tss_window
from seq2exp.variation.table import Variants
from tests.data_prep import raw
from tests.data_prep.variants import vcfs

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


def test_f38_variants_beyond_31_bits():
    codes = np.broadcast_to(np.uint8(0), (SIZE,))
    line = Line(0, "c", FAR, ".", "A", ["C", "AGG"], ".", b"GT", b"0|1")
    found = split_alleles([line], [""], codes, GenotypeConfig(["x"]))
    assert found.reason_A == ["", ""]
    # The insertion behind a run of A stays where nothing is equal to its last base.
    assert found.position_A.tolist() == [FAR, FAR]
    variants = Variants.from_alleles([(FAR, "A", "C"), (SIZE - 9, "A", "G")])
    assert variants.end_M.tolist() == [FAR + 1, SIZE - 8]


CHILD = """
import resource, sys, warnings
from pathlib import Path
from tests.data_prep.variants import vcfs
warnings.simplefilter("ignore")
dataset = vcfs.build(Path(sys.argv[1]), None, name="v.gz", out=sys.argv[2])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(sum(dataset.genotypes.contigs.values()), peak)
"""


def peak_kilobytes(folder, copies):
    """Prepare all 12 changes of one or two bases at 1,500 positions for many donors."""
    donors = 200
    sequence = vcfs.genome()["chr1"]
    rows = []
    for at in range(60, 1560):
        first, second = ["ACGT".replace(base, "") for base in sequence[at : at + 2]]
        rows += [(at, sequence[at], alt) for alt in first]
        rows += [(at, sequence[at : at + 2], a + b) for a in first for b in second]
    calls = "\t".join(["0|1:0.99", "1|1:0.5"] * (donors // 2))
    names = [f"D{i}" for i in range(donors)]
    (folder / "in").mkdir(parents=True)
    with pysam.BGZFile(str(folder / "in" / "v.gz"), "wb") as handle:
        handle.write(vcfs.header(names).encode())
        for at, ref, alt in rows[:: len(rows) // copies]:
            head = f"chr1\t{at + 1}\t.\t{ref}\t{alt}\t.\tPASS\t.\tGT:PP\t"
            handle.write((head + calls + "\n").encode())
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), "out"],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    size, kilobytes = (int(word) for word in done.stdout.split())
    return size, kilobytes


def test_f38_a_long_vcf_takes_no_more_memory_than_a_short_one(tmp_path):
    """32 MB of text against 16: neither the text nor the calls are held."""
    few, small = peak_kilobytes(tmp_path / "few", 9000)
    many, large = peak_kilobytes(tmp_path / "many", 18_000)
    assert (few, many) == (9000, 18_000)
    assert large - small < 12_000
