"""Random VCFs on the toy genome, and a slow reader to compare with."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pysam

from data_prep.build import prepare
from data_prep.config import DonorConfig, GenotypeConfig
from seq2exp.dataset.store import Dataset
from tests.data_prep import raw

SAMPLES = ("HG1", "HG2", "HG3", "HG4", "HG5")
HEADER = """##fileformat=VCFv4.2
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
##FORMAT=<ID=DS,Number=1,Type=Float,Description="Dosage">
##FORMAT=<ID=PS,Number=1,Type=Integer,Description="Phase set">
"""


def header(samples=SAMPLES, *, contigs=raw.SIZES, more=""):
    lines = "".join(f"##contig=<ID={name},length={size}>\n" for name, size in contigs.items())
    columns = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *samples]
    return HEADER + more + lines + "\t".join(columns) + "\n"


def line(contig, position, ref, alt, calls, *, form="GT", name=".", filters="PASS"):
    """One record; the position counts from 1, as in the file."""
    fixed = [contig, str(position), name, ref, alt, ".", filters, ".", form]
    return "\t".join([*fixed, *calls]) + "\n"


def write_vcf(path: Path, text: str) -> Path:
    """Write text in the format that the suffix names: .vcf, .gz (bgzip), .gzip, .bcf."""
    if path.suffix == ".vcf":
        path.write_bytes(text.encode())
    elif path.suffix == ".gzip":
        with gzip.GzipFile(path, "wb", mtime=0) as handle:
            handle.write(text.encode())
    elif path.suffix == ".gz":
        with pysam.BGZFile(str(path), "wb") as handle:
            handle.write(text.encode())
    else:
        plain = write_vcf(path.with_suffix(".vcf"), text)
        with (
            pysam.VariantFile(str(plain)) as records,
            pysam.VariantFile(str(path), "wb", header=records.header) as out,
        ):
            for record in records:
                out.write(record)
        plain.unlink()
    return path


def genome() -> dict[str, str]:
    """The toy sequences as they are stored: upper case, IUPAC letters as N."""
    return {
        name: "".join(base if base in "ACGT" else "N" for base in text.upper())
        for name, text in raw.sequences().items()
    }


def random_records(seed: int, *, size: int = 50) -> list[str]:
    """Records of SNVs, MNVs, insertions, deletions and several ALTs, with calls of every kind."""
    random = np.random.default_rng(seed)
    records = []
    for contig, sequence in genome().items():
        for position in np.sort(random.integers(60, len(sequence) - 60, size)):
            ref = sequence[position : position + int(random.choice([1, 1, 1, 2, 5, 12]))]
            alts = {_random_allele(ref, random) for _ in range(int(random.choice([1, 1, 2, 11])))}
            alts = sorted(alts - {ref})
            if not alts:
                continue
            calls, form = _random_calls(len(alts), random)
            name = f"rs{position}" if random.random() < 0.5 else "."
            records.append(
                line(contig, position + 1, ref, ",".join(alts), calls, form=form, name=name)
            )
    return records


def _random_allele(ref, random):
    kind = random.integers(0, 4)
    letters = "".join(random.choice(list("ACGT"), int(random.integers(1, 7))))
    return (
        random.choice(list("ACGT")) + ref[1:],
        ref[0] + letters + ref[1:],
        ref[: int(random.integers(1, len(ref) + 1))],
        letters,
    )[kind]


def _random_calls(num_alts, random):
    form = str(random.choice(["GT", "GT", "GT:DS", "GT:PS", "DS:GT"]))
    usual = random.random() < 0.5
    calls = []
    for _ in SAMPLES:
        first, second = (str(random.integers(0, num_alts + 1)) for _ in range(2))
        mark = "|" if usual or random.random() < 0.5 else "/"
        text = first + mark + second
        if not usual:
            text = str(random.choice([text, text, f"./{second}", f"{first}|.", "./.", ".", first]))
        other = {"GT:DS": "0.5", "GT:PS": str(random.choice([".", "7", "300000"])), "DS:GT": "1"}
        if form == "DS:GT":
            text = f"1:{text}"
        elif form != "GT" and random.random() < 0.8:
            text += f":{other[form]}"
        calls.append(text)
    return calls, form


def slow_normalise(position, ref, alt, sequence):
    """Tan et al. 2015, one base at a time."""
    changed = True
    while changed:
        changed = False
        if ref and alt and ref[-1] == alt[-1]:
            ref, alt, changed = ref[:-1], alt[:-1], True
        if not ref or not alt:
            position -= 1
            ref, alt, changed = sequence[position] + ref, sequence[position] + alt, True
    while len(ref) > 1 and len(alt) > 1 and ref[0] == alt[0]:
        position, ref, alt = position + 1, ref[1:], alt[1:]
    return position, ref, alt


def slow_calls(words, keys, allele):
    """Alleles, phase and phase set of one record for one ALT, as the specification says."""
    rows = []
    for word in words:
        values = dict(zip(keys, word.split(":"), strict=False))
        text = values.get("GT", ".")
        parts = text.replace("|", "/").split("/")
        pair = [2 if part == "." else int(int(part) == allele) for part in parts] * 2
        pair = pair[:2]
        differ = len(parts) == 2 and pair[0] != pair[1]
        sets = values.get("PS", ".")
        phase_set = int(sets) if differ and "|" in text and sets != "." else 0
        rows.append((pair, differ and "/" in text, phase_set))
    return rows


def slow_read(text: str, chosen=SAMPLES):
    """Return, for each contig, sorted (position, ref, alt, calls); copies of a variant left out."""
    sequences = genome()
    found: dict[str, list] = {}
    samples = text.split("#CHROM")[1].splitlines()[0].split("\t")[9:]
    for row in text.splitlines():
        if row.startswith("#"):
            continue
        contig, position, _, ref, alts, _, _, _, form, *words = row.split("\t")
        words = [words[samples.index(name)] for name in chosen]
        for number, alt in enumerate(alts.split(","), start=1):
            allele = slow_normalise(int(position) - 1, ref, alt, sequences[contig])
            calls = slow_calls(words, form.split(":"), number)
            rows = found.setdefault(contig, [])
            if allele not in [other[:3] for other in rows]:
                rows.append((*allele, calls))
    return {contig: sorted(rows, key=lambda row: row[0]) for contig, rows in found.items()}


def build(folder: Path, text: str | None = None, *, name: str = "v.vcf", out: str = "out", **keys):
    """Prepare the toy inputs with genotypes; keys of other sections may be given too."""
    source = folder / "in"
    if not (source / "genome.fa").exists():
        raw.write_raw(source)
    if text is not None:
        write_vcf(source / name, text)
    workers = keys.pop("workers", 0)
    contigs = keys.pop("contigs", [*raw.SIZES])
    donors = keys.pop("donors", None)
    donors = DonorConfig(**donors) if isinstance(donors, dict) else donors
    base = dataclasses.replace(raw.toy_config(), tracks=[])
    if "splits" in keys:
        base = dataclasses.replace(base, splits=keys.pop("splits"))
    genotypes = GenotypeConfig(**{"vcf": [name], **keys})
    config = dataclasses.replace(base, contigs=contigs, genotypes=genotypes, donors=donors)
    prepare(config, source=source, out=folder / out, workers=workers, progress=False)
    return Dataset(folder / out, verify_checksums=True)
