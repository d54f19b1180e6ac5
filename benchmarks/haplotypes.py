"""Windows of 200 kb for both haplotypes of a donor: ours, `bcftools consensus`, GenVarLoader.

Two cohorts: 300 phased Europeans on the one real megabase of chromosome 20 (63 Mb with N), and 500
simulated donors on 10 Mb, with as many variants per base as people have (neutral spectrum, 15 %
insertions and deletions). Everybody makes the same windows around a TSS, half of them reverse
complemented, for donors drawn anew in each block; blocks of the paths take turns in one process.

- ``bits``: `PackedHaplotypes`, from memory-mapped bits to base codes; one window per call, and
  ``bits_batch`` 16 of them.
- ``policies``: the general path, which can also do without phase: alleles of the donor unpacked,
  `resolve`, `build`.
- ``genvarloader``, ``genvarloader_batch``: a dataset that it wrote from the same VCF and the same
  windows, one window per index and 16; one window per index is what a loader of samples does.
- ``bcftools``: one call per haplotype with the sequence of the window on its input, which is how
  published pipelines make personal sequences. Its sequence is not read from a file.

CPU time of one thread each, since the machine is shared; of child processes for bcftools. The
planes are written here in the layout of the dataset (`seq2exp.dataset.format_genotypes`) and mapped
from disk.

Sequences are compared: ours with those cut out of what bcftools makes of a wider region, and, where
all variants are single bases, with those of GenVarLoader (with indels it does not anchor the TSS).

    pip install --target /tmp/gvl genvarloader
    PYTHONPATH=.:/tmp/gvl python benchmarks/haplotypes.py [--quick]
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"
os.environ["GVL_NUM_THREADS"] = "1"
os.environ["POLARS_MAX_THREADS"] = "1"

import importlib.util
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pysam
from common import circumstances, summary, wait_for_quiet, write_result

from seq2exp.core.intervals import Window, tss_window
from seq2exp.core.sequence import decode, encode, reverse_complement
from seq2exp.dataset.format_genotypes import BLOCK, num_blocks, pack_rows, unpack_rows
from seq2exp.variation.alleles import normalise_all
from seq2exp.variation.haplotypes import build, needed_interval
from seq2exp.variation.packed import PackedHaplotypes
from seq2exp.variation.policies import GenotypePolicy, resolve
from seq2exp.variation.table import Variants

LENGTH = 200_000
BATCH = 16
REAL = Path(__file__).parents[2] / "shared" / "data"
TARGETS = {"bcftools": 100.0, "genvarloader": 1.0, "genvarloader_batch": 1.0}
HAVE_GVL = importlib.util.find_spec("genvarloader") is not None


@dataclass
class Cohort:
    """One contig: files for the others, memory maps for us."""

    name: str
    contig: str
    fasta: Path
    vcf: Path
    codes: np.ndarray
    variants: Variants
    reach: np.ndarray
    plane: np.ndarray
    donors: list[str]
    first_tss: int
    last_tss: int


def planes_of(alleles_HM: np.ndarray, path: Path) -> np.ndarray:
    """Write alleles as a dataset does, and map them."""
    num = alleles_HM.shape[1]
    blocks = [pack_rows(alleles_HM[:, k * BLOCK : (k + 1) * BLOCK]) for k in range(num_blocks(num))]
    np.save(path, np.stack(blocks))
    return np.asarray(np.load(path, mmap_mode="r"))


def mapped(folder: Path, **arrays: np.ndarray) -> list[np.ndarray]:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    # Plain views of the maps, as the reader of a dataset holds them.
    return [np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in arrays]


def cohort_of(folder: Path, name: str, contig: str, fasta: Path, vcf: Path) -> Cohort:
    """Read FASTA and VCF into memory maps."""
    with pysam.FastaFile(str(fasta)) as handle:
        codes = encode(handle.fetch(contig))
    positions, refs, alts, rows = [], [], [], []
    with pysam.VariantFile(str(vcf)) as handle:
        donors = list(handle.header.samples)
        for record in handle:
            positions.append(record.pos - 1)
            refs.append(record.ref)
            alts.append(record.alts[0])
            text = str(record).rstrip("\n").split("\t", 9)[9]
            rows.append(np.frombuffer(text.encode(), np.uint8)[::2] - ord("0"))
    found = normalise_all(np.array(positions), refs, alts, reference_codes=codes)
    order = np.argsort(found.position_M, kind="stable")
    assert not found.changed_M.any(), "the others would need bcftools norm first"
    table = Variants.from_alleles(
        [(int(found.position_M[i]), found.refs[i], found.alts[i]) for i in order]
    )
    alleles = np.array(rows, np.uint8)[order].T
    plane = planes_of(np.ascontiguousarray(alleles), folder / "alleles.npy")
    codes_G, position, ref_length, alt_offset, alt_codes, reach = mapped(
        folder, codes=codes, position=table.position_M, ref_length=table.ref_length_M,
        alt_offset=table.alt_offset_M1, alt_codes=table.alt_codes_C,
        reach=np.maximum.accumulate(table.end_M),
    )  # fmt: skip
    variants = Variants(position, ref_length, alt_offset, alt_codes)
    first, last = int(position[0]) + LENGTH // 2, int(position[-1]) - LENGTH // 2
    return Cohort(
        name, contig, fasta, vcf, codes_G, variants, reach, plane, donors, first, last
    )  # fmt: skip


def real_cohort(folder: Path) -> Cohort:
    """Normalise the VCF as GenVarLoader asks for, and unpack the FASTA."""
    source, fasta, vcf = REAL / "human_chr20_b37", folder / "r.fa", folder / "r.vcf.gz"
    with pysam.FastaFile(str(source / "chr20_b37.fa.gz")) as handle:
        fasta.write_text(f">20\n{handle.fetch('20')}\n")
    pysam.faidx(str(fasta))
    run(f"bcftools norm -f {fasta} -m -any {source}/eur300_phased.vcf.gz | bcftools sort"
        f" -Oz -o {vcf}")  # fmt: skip
    run(f"bcftools index -t {vcf}")
    return cohort_of(folder, "chr20_eur300", "20", fasta, vcf)


def simulated_cohort(folder: Path, *, length: int, num_donors: int) -> Cohort:
    """Write a VCF of donors whose alleles follow the neutral spectrum."""
    random = np.random.default_rng(0)
    codes = random.integers(0, 4, length).astype(np.uint8)
    num_haplotypes = 2 * num_donors
    # Watterson: theta per base times the sum of 1 / i.
    counts = np.arange(1, num_haplotypes)
    num = int(0.0008 * length * (1 / counts).sum())
    position = np.sort(random.choice(length - 1000, num, replace=False)) + 500
    kind = random.random(num)
    sizes = random.geometric(0.35, num)
    spectrum = random.choice(counts, num, p=(1 / counts) / (1 / counts).sum())
    fasta, text = folder / "s.fa", folder / "s.vcf"
    fasta.write_text(f">s\n{decode(codes)}\n")
    pysam.faidx(str(fasta))
    reference = decode(codes)
    with text.open("w") as out:
        out.write(f"##fileformat=VCFv4.2\n##contig=<ID=s,length={length}>\n")
        out.write('##FORMAT=<ID=GT,Number=1,Type=String,Description="call">\n')
        names = "\t".join(f"donor{i:04d}" for i in range(num_donors))
        out.write(f"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t{names}\n")
        line = np.full((num_donors, 4), ord("|"), np.uint8)
        line[:, 3] = ord("\t")
        for at, what, size, count in zip(position, kind, sizes, spectrum, strict=True):
            base = reference[at]
            if what < 0.85:
                ref, alt = base, "ACGT"[("ACGT".index(base) + 1 + int(size) % 3) % 4]
            elif what < 0.925:
                ref, alt = reference[at : at + size + 1], base
            else:
                ref, alt = base, base + reference[at + 300 : at + 300 + size]
            if len(ref) != len(alt):
                moved = normalise_all(np.array([at]), [ref], [alt], reference_codes=codes)
                if moved.changed_M[0]:
                    # Would have to be sorted anew: a substitution instead.
                    ref, alt = base, "ACGT"[("ACGT".index(base) + 1) % 4]
            carried = np.zeros(num_haplotypes, np.uint8)
            carried[random.choice(num_haplotypes, count, replace=False)] = 1
            line[:, 0], line[:, 2] = carried[::2] + ord("0"), carried[1::2] + ord("0")
            calls = line.tobytes()[:-1].decode()
            out.write(f"s\t{at + 1}\t.\t{ref}\t{alt}\t.\tPASS\t.\tGT\t{calls}\n")
    vcf = folder / "s.vcf.gz"
    run(f"bcftools view -Oz -o {vcf} {text} && bcftools index -t {vcf}")
    text.unlink()
    return cohort_of(folder, f"simulated_{num_donors}", "s", fasta, vcf)


def run(command: str) -> str:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], check=True, capture_output=True, text=True
    )
    return done.stdout


class Paths:
    """Every way to the haplotypes of a window; windows and donors by number."""

    def __init__(self, cohort: Cohort, folder: Path, *, num_windows: int) -> None:
        random = np.random.default_rng(1)
        self.cohort = cohort
        tss = random.integers(cohort.first_tss, cohort.last_tss, num_windows)
        self.tss = [int(value) for value in tss]
        self.windows = [
            tss_window(
                cohort.contig, value, "+-"[i % 2], length=LENGTH, contig_length=len(cohort.codes)
            )
            for i, value in enumerate(self.tss)
        ]
        self.packed = PackedHaplotypes(cohort.codes, cohort.variants, cohort.reach, cohort.plane)
        self.buffer = np.empty((BATCH, 2, LENGTH), np.uint8)
        self.folder = folder
        self.gvl = None
        if HAVE_GVL:
            self.gvl = self.open_gvl(cohort.vcf)

    def open_gvl(self, vcf: Path) -> Any:
        import genoray
        import genvarloader as gvl
        import polars as pl
        from loguru import logger

        logger.remove()
        bed = pl.DataFrame(
            {
                "chrom": [self.cohort.contig] * len(self.windows),
                "chromStart": [window.start for window in self.windows],
                "chromEnd": [window.end for window in self.windows],
                "strand": [window.strand for window in self.windows],
            }
        )
        path = self.folder / f"{vcf.name}.gvl"
        if not path.exists():
            gvl.write(path, bed, variants=genoray.VCF(vcf))
        dataset = gvl.Dataset.open(path, reference=self.cohort.fasta)
        return dataset.with_seqs("haplotypes").with_len(LENGTH)

    def bits(self, window: int, donor: int) -> np.ndarray:
        rows = np.array([[2 * donor, 2 * donor + 1]])
        found = self.packed.build(
            rows, [self.windows[window]], [self.tss[window]], out_BPL=self.buffer[:1]
        )
        return found[0].codes_HL

    def bits_batch(self, windows: np.ndarray, donors: np.ndarray) -> np.ndarray:
        self.packed.build(
            2 * donors[:, None] + np.arange(2), [self.windows[i] for i in windows],
            [self.tss[i] for i in windows], out_BPL=self.buffer,
        )  # fmt: skip
        return self.buffer

    def policies(self, window: int, donor: int) -> np.ndarray:
        place, variants = self.windows[window], self.cohort.variants
        start, end, first, last = needed_interval(place, variants, span=self.span)
        rows = np.array([2 * donor, 2 * donor + 1])
        alleles = unpack_rows(self.cohort.plane, first, last, rows)
        part = variants.between(first, last)
        actions, _ = resolve(alleles[None], part, GenotypePolicy())
        found = build(
            self.cohort.codes, part, actions[0], place, self.tss[window], known=(start, end),
            out_HL=self.buffer[0],
        )  # fmt: skip
        return found.codes_HL

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the variants of an interval, as the reader of a dataset does."""
        first = int(np.searchsorted(self.cohort.reach, start, side="right"))
        last = int(np.searchsorted(self.cohort.variants.position_M, end))
        while 0 < first < last and (
            self.cohort.reach[first - 1] > self.cohort.variants.position_M[first]
        ):
            first -= 1
        return first, last

    def genvarloader(self, window: int, donor: int) -> np.ndarray:
        found: np.ndarray = self.gvl[window, donor]
        return found

    def genvarloader_batch(self, windows: np.ndarray, donors: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.gvl[windows, donors]
        return found

    def bcftools(self, window: int, donor: int) -> list[np.ndarray]:
        place, cohort = self.windows[window], self.cohort
        return [
            consensus(cohort, place.start, place.end, cohort.donors[donor], which) for which in "12"
        ]


def consensus(cohort: Cohort, start: int, end: int, donor: str, which: str) -> np.ndarray:
    """Return what bcftools makes of a region, whose sequence it gets from us."""
    text = f">{cohort.contig}:{start + 1}-{end}\n{decode(cohort.codes[start:end])}\n"
    done = subprocess.run(
        ["bcftools", "consensus", "-s", donor, "-H", which, str(cohort.vcf)],
        input=text, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return encode(done.stdout.partition("\n")[2].replace("\n", ""))


def check_bcftools(paths: Paths, *, num: int) -> dict[str, int]:
    """Compare windows with what bcftools makes of a region that is longer on both sides."""
    random = np.random.default_rng(2)
    compared = indels = 0
    for _ in range(num):
        window = int(random.integers(len(paths.windows)))
        donor = int(random.integers(len(paths.cohort.donors)))
        place, tss = paths.windows[window], paths.tss[window]
        start, end = place.start - 5000, place.end + 5000
        wide = Window(place.contig, start, end, "+", place.contig_length)
        rows = np.array([[2 * donor, 2 * donor + 1]])
        around = paths.packed.build(rows, [wide], [tss])[0]
        ours = paths.bits(window, donor)
        general = paths.policies(window, donor).copy()
        assert np.array_equal(paths.bits(window, donor), general)
        for h, which in enumerate("12"):
            theirs = consensus(paths.cohort, start, end, paths.cohort.donors[donor], which)
            at = tss - start + gained_before_tss(around, h, start)
            expected = theirs[at - (tss - place.start) :][:LENGTH]
            if place.reverse:
                expected = reverse_complement(expected)
            assert np.array_equal(ours[h], expected)
            compared += 1
            indels += len(theirs) != end - start
    return {"windows_equal_to_bcftools": compared, "of_which_changed_length": indels}


def gained_before_tss(around: Any, h: int, start: int) -> int:
    """Return how many bases variants added (or took away) between a position and the TSS."""
    places = around.reference_map()[h]
    # As far left as the window shows; a deletion brings bases from before the position.
    first = int(np.flatnonzero(places >= start)[0])
    return int(places[first]) - start - first


def check_genvarloader(paths: Paths, folder: Path, *, num: int) -> dict[str, int]:
    """Compare windows with single-base variants only."""
    vcf = folder / "snps.vcf.gz"
    if not vcf.exists():
        run(f"bcftools view -v snps -Oz -o {vcf} {paths.cohort.vcf} && bcftools index -t {vcf}")
    theirs = paths.open_gvl(vcf)
    cohort = paths.cohort
    ours = PackedHaplotypes(
        cohort.codes, cohort.variants, cohort.reach, cohort.plane,
        keep_M=cohort.variants.is_snv_M,
    )  # fmt: skip
    random = np.random.default_rng(3)
    for _ in range(num):
        window = int(random.integers(len(paths.windows)))
        donor = int(random.integers(len(cohort.donors)))
        rows = np.array([[2 * donor, 2 * donor + 1]])
        found = ours.build(rows, [paths.windows[window]], [paths.tss[window]])[0]
        for h in range(2):
            letters = encode(theirs[window, donor][h].tobytes())
            assert np.array_equal(found.codes_HL[h], letters)
    return {"snv_windows_equal_to_genvarloader": 2 * num}


def measure(paths: Paths, *, seconds: float) -> dict[str, list[float]]:
    """Time a block of each path in turn; milliseconds for both haplotypes of a window."""
    random = np.random.default_rng(4)
    single: dict[str, Callable[[int, int], object]] = {
        "bits": paths.bits, "policies": paths.policies
    }  # fmt: skip
    batch: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {"bits_batch": paths.bits_batch}
    if HAVE_GVL:
        single["genvarloader"] = paths.genvarloader
        batch["genvarloader_batch"] = paths.genvarloader_batch
    times: dict[str, list[float]] = {name: [] for name in (*single, *batch, "bcftools")}
    stop = time.monotonic() + seconds
    names = list(times)
    turn = 0
    while time.monotonic() < stop or turn < 3:
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            windows = random.integers(0, len(paths.windows), 4 * BATCH)
            donors = random.integers(0, len(paths.cohort.donors), 4 * BATCH)
            if name == "bcftools":
                start = children()
                paths.bcftools(int(windows[0]), int(donors[0]))
                times[name].append(1000 * (children() - start))
                continue
            start = time.process_time()
            if name in single:
                for i, j in zip(windows.tolist(), donors.tolist(), strict=True):
                    single[name](i, j)
            else:
                for part in range(0, len(windows), BATCH):
                    batch[name](windows[part : part + BATCH], donors[part : part + BATCH])
            times[name].append(1000 * (time.process_time() - start) / len(windows))
        turn += 1
    return {name: values[1:] for name, values in times.items()}


def children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory_by_windows(paths: Paths) -> dict[str, float]:
    """Return own resident memory in MB after ever more windows of ever other donors."""
    random = np.random.default_rng(5)
    readings, done = {}, 0
    for goal in (100, 1000, 10_000):
        while done < goal:
            windows = random.integers(0, len(paths.windows), BATCH)
            donors = random.integers(0, len(paths.cohort.donors), BATCH)
            paths.bits_batch(windows, donors)
            paths.policies(int(windows[0]), int(donors[0]))
            done += BATCH + 1
        readings[str(goal)] = own_memory()
    return readings


def own_memory() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    return round(int(values["RssAnon"].split()[0]) / 1024, 1)


def ratios(times: dict[str, list[float]]) -> dict[str, float]:
    """Return by how much each of the others is slower than ours of its kind, block by block."""
    pairs = {"bcftools": "bits", "genvarloader": "bits", "genvarloader_batch": "bits_batch"}
    found = {}
    for other, ours in pairs.items():
        if times.get(other):
            size = min(len(times[other]), len(times[ours]))
            quotients = np.array(times[other][:size]) / np.array(times[ours][:size])
            found[other] = float(np.median(quotients))
            found[f"{other}_to_policies"] = float(
                np.median(np.array(times[other][:size]) / np.array(times["policies"][:size]))
            )
    return found


def of_cohort(cohort: Cohort, folder: Path, *, quick: bool, seconds: float) -> dict[str, Any]:
    paths = Paths(cohort, folder, num_windows=40 if quick else 200)
    agreement = check_bcftools(paths, num=3 if quick else 25)
    if HAVE_GVL:
        agreement |= check_genvarloader(paths, folder, num=3 if quick else 25)
    paths.bits_batch(np.zeros(BATCH, np.int64), np.zeros(BATCH, np.int64))
    memory = memory_by_windows(paths)
    idle = wait_for_quiet(0 if quick else 60)
    times = measure(paths, seconds=seconds)
    milliseconds = summary(times)
    return {
        "donors": len(cohort.donors),
        "variants": len(cohort.variants),
        "milliseconds_per_window_of_two_haplotypes": milliseconds,
        "windows_per_second": {
            name: round(1000 / values["median"], 1) for name, values in milliseconds.items()
        },
        "median_ratio_to_ours": ratios(times),
        "results_agree": agreement,
        "own_memory_mb_after_windows": memory,
        "idle_share_before": idle,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="small, seconds; writes no result")
    parser.add_argument("--seconds", type=float, default=90, help="of each cohort")
    options = parser.parse_args()
    seconds = min(options.seconds, 8) if options.quick else options.seconds
    length, num_donors = (2_000_000, 60) if options.quick else (10_000_000, 500)
    found = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for kind in ("real", "simulated"):
            folder = root / kind
            folder.mkdir()
            if kind == "simulated":
                cohort = simulated_cohort(folder, length=length, num_donors=num_donors)
            elif (REAL / "human_chr20_b37").is_dir():
                cohort = real_cohort(folder)
            else:
                continue
            found[cohort.name] = of_cohort(cohort, folder, quick=options.quick, seconds=seconds)
    result = {
        "what": f"windows of {LENGTH} bases, both haplotypes of a donor, CPU time of one thread; "
        f"batches of {BATCH} windows",
        **found,
        "target_ratio": TARGETS,
        "bcftools": run("bcftools --version").split("\n", 1)[0],
        **circumstances("numpy", "numba", "pysam", *(["genvarloader"] * HAVE_GVL)),
    }
    write_result("haplotypes", result, quick=options.quick)


if __name__ == "__main__":
    main()
