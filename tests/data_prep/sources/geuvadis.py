"""Small files with the habits of those of Geuvadis, as public code tells of them.

22 autosomes and X, genes of GENCODE 12 with versions, VCFs in plain gzip without ##contig lines and
without ``chr``, undeclared FORMAT fields, structural and "-" alleles, dots for missing calls, assay
names with suffixes and replicates, a table of samples with a row per file of reads.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

VCF = "GEUVADIS.chr{}.PH1PH2_465.IMPFRQFILT_BIALLELIC_PH.annotv2.genotypes.vcf.gz"
LENGTH = 24_000
TSS = (5_000, 12_000, 19_000)  # 0-based; the strands are + - +
POPULATIONS = ("British", "Finnish", "Tuscan", "Utah")
HEADER = """##fileformat=VCFv4.1
##INFO=<ID=GERP,Number=.,Type=Float,Description="GERP score">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
##FORMAT=<ID=GL,Number=.,Type=Float,Description="Genotype Likelihoods">
"""


@dataclass
class Files:
    """What was written, and what should come out of it."""

    folder: Path
    people: list[str]  # the 421
    others: list[str]  # genotyped, but not among them
    population: dict[str, str]
    genes: list[str]  # of the autosomes, without versions
    alleles: dict[str, np.ndarray] = field(default_factory=dict)  # contig -> people x 2 x variants
    positions: dict[str, list[int]] = field(default_factory=dict)
    tpm: dict[str, np.ndarray] = field(default_factory=dict)


def packed(path: Path, text: str) -> None:
    path.write_bytes(gzip.compress(text.encode(), compresslevel=1, mtime=0))


def write(folder: Path, *, num_europeans: int = 32, num_yoruba: int = 9, seed: int = 0) -> Files:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    people = [f"HG{96 + i:05d}" for i in range(num_europeans)]
    people += [f"NA{18486 + i}" for i in range(num_yoruba)]
    others = ["HG00405", "NA12829", "NA07346"]
    population = {name: POPULATIONS[i % 4] for i, name in enumerate([*people, *others])}
    population |= {name: "Yoruba" for name in people if name.startswith("NA184")}
    made = Files(folder, people, others, population, [])
    # The published list ends without a line break.
    (folder / "geuvadis_421.txt").write_text("\n".join(people))
    genome = {f"chr{n}": rng.integers(0, 4, LENGTH) for n in [*range(1, 23), "X"]}
    fasta = "".join(_record(name, codes) for name, codes in genome.items())
    packed(folder / "hg19.fa.gz", fasta + ">chr6_apd_hap1\nNNNNACGT\n")
    ids = _genes(made, [*genome])
    for number in range(1, 23):
        _vcf(made, number, genome[f"chr{number}"], rng)
    _expression(made, ids, rng)
    return made


def _record(name: str, codes: np.ndarray) -> str:
    text = "".join(np.array(list("ACGT"))[codes])
    lines = [text[i : i + 50] for i in range(0, len(text), 50)]
    # Repeats are in lower case.
    lines[::7] = [line.lower() for line in lines[::7]]
    return f">{name}\n" + "\n".join(lines) + "\n"


def _genes(made: Files, contigs: list[str]) -> list[tuple[str, str, int]]:
    """Write the annotation; return id with version, contig and TSS from 1 of every gene."""
    lines = ["##description: evidence-based annotation of the human genome (GRCh37), version 12"]
    found = []
    for contig in contigs:
        for place, tss in enumerate(TSS):
            number = len(found) + 1
            name = f"ENSG{number:011d}.{1 + number % 9}"
            strand = "-+"[place % 2 == 0]
            start, end = (tss + 1, tss + 900) if strand == "+" else (tss - 898, tss + 1)
            more = (
                f'gene_id "{name}"; transcript_id "{name}"; gene_type "protein_coding"; '
                f'gene_status "KNOWN"; gene_name "G{number}"; level 2;'
            )
            lines.append(f"{contig}\tHAVANA\tgene\t{start}\t{end}\t.\t{strand}\t.\t{more}")
            exon = more.replace(f'transcript_id "{name}"', f'transcript_id "ENST{number:011d}.1"')
            lines.append(f"{contig}\tHAVANA\texon\t{start}\t{end}\t.\t{strand}\t.\t{exon}")
            found.append((name, contig, tss + 1))
            if contig != "chrX":
                made.genes.append(name.split(".")[0])
    packed(made.folder / "gencode.v12.annotation.gtf.gz", "\n".join(lines) + "\n")
    return found


def _vcf(made: Files, number: int, codes: np.ndarray, rng: np.random.Generator) -> None:
    samples = [*made.others[:2], *made.people, *made.others[2:]]
    order = [samples.index(name) for name in made.people]
    columns = "\t".join(
        ["#CHROM POS ID REF ALT QUAL FILTER INFO FORMAT".replace(" ", "\t"), *samples]
    )
    rows, kept, positions = [], [], []
    for place in range(300, LENGTH - 300, 211):
        ref = "ACGT"[codes[place]]
        alt = "ACGT"[(codes[place] + 1 + place % 3) % 4]
        frequency = 0.05 + 0.9 * rng.random()
        calls = (rng.random((len(samples), 2)) < frequency).astype(int)
        kind = len(rows) % 40
        if kind == 7:
            alt = "<DEL>"
        elif kind == 17:
            ref, alt = "-", "A"
        elif kind == 27:
            # The genome has another base: one of a few hundred.
            ref = "ACGT"[(codes[place] + 3) % 4] if place < 7000 and number == 3 else ref
            alt = "ACGT"[codes[place]] if place < 7000 and number == 3 else alt
        words = [f"{a}|{b}:0.01,-2,-3:PASS:0.9" for a, b in calls]
        usable = ref in ("-", "ACGT"[codes[place]]) and alt in "ACGT"
        if kind == 30:
            words[order[0]] = "."
            calls[order[0]] = 2
        text = "\t".join([str(number), str(place + 1), f"rs{number}{place}", ref, alt, "100",
                          "PASS", "GERP=1;AF=0.1", "GT:GL:BD:PP", *words])  # fmt: skip
        rows.append(text)
        if usable:
            kept.append(calls[order])
            positions.append(place if ref != "-" else _anchor(codes, place, "ACGT".index(alt)))
    made.alleles[f"chr{number}"] = np.stack(kept, axis=-1)
    made.positions[f"chr{number}"] = positions
    text = HEADER + columns + "\n" + "\n".join(rows) + "\n"
    packed(made.folder / VCF.format(number), text)


def _anchor(codes: np.ndarray, place: int, base: int) -> int:
    """Return where an insertion before a place is written: as far left as possible, less one."""
    while codes[place - 1] == base:
        place -= 1
    return place - 1


def _expression(made: Files, ids: list[tuple[str, str, int]], rng: np.random.Generator) -> None:
    # NA12829 was sequenced but is not among the 421; HG00405 has no RNA.
    measured = [*made.people, "NA12829", "NA99999"]
    assays = {name: f"{name}.{1 + i % 7}.M_111124_{1 + i % 8}" for i, name in enumerate(measured)}
    replicates = [f"{name}.7.M_120219_3" for name in measured[::4]]
    columns = [*assays.values(), *replicates]
    values = np.exp(
        rng.normal(1, 1.5, (len(ids), 1)) + rng.normal(0, 0.3, (len(ids), len(columns)))
    )
    values[3, rng.permutation(len(columns))[: len(columns) * 2 // 3]] = 0  # too many zeros
    values = values.round(6)
    share = values / values.sum(axis=0) * 1e6
    for row, (name, contig, _) in enumerate(ids):
        if contig != "chrX":
            made.tpm[name.split(".")[0]] = share[row, : len(made.people)]
    lines = ["\t".join(["TargetID", "Gene_Symbol", "Chr", "Coord", *columns])]
    for (name, contig, tss), row in zip(ids, values, strict=True):
        numbers = [f"{value:.6f}" for value in row]
        lines.append("\t".join([name, name, contig.removeprefix("chr"), str(tss), *numbers]))
    packed(made.folder / "GD660.GeneQuantRPKM.txt.gz", "\n".join(lines) + "\n")
    names = ["Source Name", "Comment[ENA_SAMPLE]", "Characteristics[Organism]",
             "Characteristics[ancestry category]", "Protocol REF", "Protocol REF", "Extract Name",
             "Assay Name", "Comment[ENA_RUN]", "Scan Name"]  # fmt: skip
    table = ["\t".join(names)]
    for i, name in enumerate(measured):
        where = made.population.get(name, "Utah")
        for mate in (1, 2):
            cells = [name, f"ERS{i}", "Homo sapiens", where, "P1", "P2", f"{name} extract",
                     assays[name], f"ERR{i}", f"{assays[name]}_{mate}.fastq.gz"]  # fmt: skip
            table.append("\t".join(cells))
    (made.folder / "E-GEUV-1.sdrf.txt").write_text("\n".join(table) + "\n")
