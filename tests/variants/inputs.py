"""Files of variants on the toy dataset, in every format, and made-up scores for them."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pysam

from seq2exp.core.sequence import decode
from seq2exp.dataset.store import Dataset
from seq2exp.variants.columns import ScoreColumn

COLUMNS = [
    ScoreColumn("expr_delta:cell_a", "expr_delta", "cell_a", "score", "y_a - y_r", "log10", True),
    ScoreColumn("expr_delta:cell_a:sd", "expr_delta", "cell_a", "sd", "y_a - y_r", "log10", True),
    ScoreColumn("expr_delta:b, c|d", "expr_delta", "b, c|d", "score", "y_a - y_r", "log10", True),
    ScoreColumn("mask_max", "mask_max", None, "score", 'max |m_a - m_r| of "W"', "1", False),
]
HEADER = {"version": "0.1", "model": "abc", "config": {"mask_bp": 501, "quote": 'a "b"'}}
NAMES = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"


def other(base):
    return "ACGT"[("ACGT".index(base) + 1) % 4]


def sequence(dataset: Dataset, contig: str) -> str:
    return decode(np.asarray(dataset.contig_codes(contig)))


def clean_rows(dataset: Dataset, *, size=40, seed=0) -> list[tuple[str, int, str, str]]:
    """SNVs, MNVs, insertions and deletions that fit the genome, in order; positions from 0."""
    random = np.random.default_rng(seed)
    rows = []
    for contig in dataset.manifest.contigs:
        text = sequence(dataset, contig)
        for position in np.sort(random.choice(np.arange(300, len(text) - 50), size, replace=False)):
            ref = text[position : position + int(random.choice([1, 1, 1, 2, 5]))]
            alt = [
                "".join(map(other, ref)),
                ref + "ACG",
                ref[:1] if len(ref) > 1 else other(ref),
                "".join(random.choice(list("ACGT"), 4)),
            ][random.integers(0, 4)]
            if alt != ref:
                rows.append((contig, int(position), ref, alt))
    return rows


def header(dataset: Dataset | None, *, samples=(), more="", rename=str) -> str:
    lengths = {} if dataset is None else dataset.manifest.contigs
    lines = "".join(f"##contig=<ID={rename(n)},length={size}>\n" for n, size in lengths.items())
    columns = "\t".join([NAMES, "FORMAT", *samples]) if samples else NAMES
    return f"##fileformat=VCFv4.2\n{more}{lines}{columns}\n"


def vcf_line(chrom, position, ref, alts, *, name=".", info=".", tail=""):
    """A record; the position counts from 1."""
    return f"{chrom}\t{position}\t{name}\t{ref}\t{alts}\t.\tPASS\t{info}{tail}\n"


def vcf_text(dataset: Dataset, rows) -> str:
    lines = [vcf_line(c, p + 1, r, a, name=f"v{i}") for i, (c, p, r, a) in enumerate(rows)]
    return header(dataset) + "".join(lines)


def put(path, text: str):
    """Write text in the format that the ending names: .gz is bgzip, .gzip is gzip."""
    if path.suffix == ".gz":
        with pysam.BGZFile(str(path), "wb") as out:
            out.write(text.encode())
    elif path.suffix == ".gzip":
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    elif path.suffix == ".bcf":
        plain = put(path.with_name("for_bcf.vcf"), text)
        with (
            pysam.VariantFile(str(plain)) as records,
            pysam.VariantFile(str(path), "wb", header=records.header) as out,
        ):
            for record in records:
                out.write(record)
        plain.unlink()
    else:
        path.write_bytes(text.encode())
    return path


def dirty_lines(dataset: Dataset) -> list[str]:
    """Records with every status that a line can have, in no order."""
    one, two = sequence(dataset, "chr1"), sequence(dataset, "chr2")
    at = 1000
    base, end = one[at], len(one)
    return [
        vcf_line("chr1", at + 1, base, other(base), name="ok", info="AF=0.5;DB"),
        vcf_line("1", at + 11, one[at + 10].lower(), other(one[at + 10]), name="alias;lower"),
        vcf_line("chr1", at + 1, base, other(base), name="again", info="DB"),
        vcf_line("chr1", 501, other(one[500]), one[500], name="swapped"),
        vcf_line("chr1", 601, other(one[600]), other(other(one[600])), name="mismatch"),
        vcf_line("chr1", 211, "A", "G", name="n"),
        vcf_line("chr1", 0, "A", "G", name="zero"),
        vcf_line("chr1", end, one[-1] + "A", one[-1], name="over"),
        vcf_line("chr1", end + 1000, "A", "G", name="beyond"),
        vcf_line("chrUn_1", 5, "A", "G", name="nowhere"),
        vcf_line("chr2", at + 1, two[at], f"{other(two[at])},*,<DEL>,{two[at]}AC", name="many"),
        vcf_line("chr2", at + 2, two[at + 1], f"{two[at + 1]}]chr1:50]", name="breakend"),
        vcf_line("chr2", at + 3, two[at + 2], ".", name="no_alt", info="END=5"),
        vcf_line("chr2", at + 3, two[at + 2], "<NON_REF>", name="block"),
        vcf_line("chr2", at + 4, two[at + 3], "R", name="iupac"),
        vcf_line("chr2", at + 5, two[at + 4 : at + 8], two[at + 4], name="del"),
        vcf_line("chr2", at + 5, two[at + 4 : at + 6], "".join(map(other, two[at + 4 : at + 6]))),
        vcf_line("chr2", at + 5, two[at + 4], two[at + 4] + "ACGT" * 400, name="too_long"),
        vcf_line("chr2", at + 6, two[at + 5], two[at + 5], name="same"),
    ]


def made_up(alleles: pd.DataFrame, dataset: Dataset, *, seed: int = 0) -> pd.DataFrame:
    """Scores as an engine would give them, but random; equal alleles tables give equal scores."""
    rows = []
    for row in alleles.itertuples():
        random = np.random.default_rng([seed, row.record, row.allele])
        status = "ok"
        if row.variant_type not in ("snv", "mnv", "ins", "del", "delins", "same"):
            status = "unsupported"
        elif row.ref_status == "no_contig":
            status = "no_gene"
        elif row.ref_status != "ok":
            status = "swapped" if row.ref_status == "swapped" else "ref_mismatch"
        elif abs(len(row.ref) - len(row.alt)) > 1000:
            status = "too_long"
        scored = status in ("ok", "swapped")
        genes = np.flatnonzero((dataset.genes["contig"] == row.contig).to_numpy())
        genes = genes[: random.integers(0, 4)] if scored else genes[:0]
        if scored and not len(genes):
            status = "no_gene"
        for gene in genes.tolist() or [-1]:
            info = dataset.genes.iloc[gene]
            values = random.normal(size=len(COLUMNS)).astype(np.float32)
            values[1] = abs(values[1]) * 1e-6
            if gene < 0:
                values[:] = np.nan
            elif random.random() < 0.2:
                values[2] = np.nan
            rows.append(
                {
                    "record": row.record,
                    "allele": row.allele,
                    "gene_row": gene,
                    "gene_id": info["gene_id"] if gene >= 0 else "",
                    "symbol": "a;b,c=d|e f" if gene == 0 else info["symbol"] if gene > 0 else "",
                    "gene_strand": info["strand"] if gene >= 0 else "",
                    "distance_to_tss": int(row.position - info["tss"]) if gene >= 0 else None,
                    "window_start": 0 if gene >= 0 else None,
                    "window_end": 1024 if gene >= 0 else None,
                    "status": status,
                    "score_status": "scored" if gene >= 0 else f"skipped:{status}",
                    "edge_status": "padded:3,0" if gene == 0 else "ok",
                    "indel_status": "none",
                    "num_members": 2 if gene >= 0 else 0,
                    "in_element": bool(random.random() < 0.5) if gene >= 0 else None,
                    "context": "reference" if gene >= 0 else "",
                    "num_haplotypes": 0,
                    **{c.name: v for c, v in zip(COLUMNS, values, strict=True)},
                }
            )
    frame = pd.DataFrame(rows)
    frame["allele"] = frame["allele"].astype(np.int32)
    for name in ("distance_to_tss", "window_start", "window_end"):
        frame[name] = frame[name].astype("Int64")
    frame["in_element"] = frame["in_element"].astype("boolean")
    return frame.astype({column.name: np.float32 for column in COLUMNS})


def parts_of(source, *, seed: int = 0):
    for shard in source.shards:
        yield made_up(source.read(shard), source.dataset, seed=seed)
