"""Genotypes and expression of simulated donors as the files that cohorts come in.

With ``traps`` they have the habits of public files that a reader must cope with.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pysam

from data_prep.simulate.write import write_table

if TYPE_CHECKING:
    from data_prep.simulate.donors import Cohort

__all__ = ["write_expression", "write_genotypes"]

# Donors are written "a|b"; index 2 a + b.
_CALLS = np.array([b"\t0|0", b"\t0|1", b"\t1|0", b"\t1|1"])
_TRAPPED_CALL = ":0.98"
_EVERY = 97


def write_genotypes(cohort: Cohort, lengths: Mapping[str, int], path: Path, *, traps: bool) -> None:
    """Write a phased VCF, bgzipped with an index; with ``traps`` plain gzip without one.

    Parameters
    ----------
    cohort : Cohort
    lengths : mapping of str to int
        Contig lengths.
    path : Path
        Ending in .vcf.gz.
    traps : bool
        Contigs without ``chr``, an undeclared FORMAT field, and a single dot for some genotypes.
    """
    names = {chrom: chrom.removeprefix("chr") if traps else chrom for chrom in lengths}
    text = "".join(_header(cohort, lengths, names)) + "".join(_records(cohort, names, traps=traps))
    if traps:
        path.write_bytes(gzip.compress(text.encode(), compresslevel=5, mtime=0))
        return
    with pysam.BGZFile(str(path), "wb", None) as handle:
        handle.write(text.encode())
    pysam.tabix_index(str(path), preset="vcf", force=True)


def _header(cohort: Cohort, lengths: Mapping[str, int], names: Mapping[str, str]) -> Iterator[str]:
    yield "##fileformat=VCFv4.3\n##source=seq2exp simulate\n"
    for chrom, length in lengths.items():
        yield f"##contig=<ID={names[chrom]},length={length}>\n"
    yield '##INFO=<ID=AC,Number=A,Type=Integer,Description="Alternative alleles in the file">\n'
    yield '##INFO=<ID=AN,Number=1,Type=Integer,Description="Alleles in the file">\n'
    yield '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
    donors = "\t".join(cohort.donors["donor"])
    yield f"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t{donors}\n"


def _records(cohort: Cohort, names: Mapping[str, str], *, traps: bool) -> Iterator[str]:
    for chrom, found in cohort.variants.items():
        alleles = cohort.alleles[chrom]
        index = 2 * alleles[0::2].astype(np.int8) + alleles[1::2]
        counts, total = alleles.sum(axis=0), len(alleles)
        for number, allele in enumerate(found.alleles):
            calls = _CALLS[index[:, number]]
            fields = "GT:PP" if traps else "GT"
            listed = calls.tolist()
            text = _trapped(listed, number) if traps else b"".join(listed).decode()
            name = f"{chrom}_{allele.position + 1}_{allele.ref}_{allele.alt}"
            yield (
                f"{names[chrom]}\t{allele.position + 1}\t{name}\t{allele.ref}\t{allele.alt}\t.\t"
                f"PASS\tAC={counts[number]};AN={total}\t{fields}{text}\n"
            )


def _trapped(calls: list[bytes], number: int) -> str:
    """Return genotypes with a field that no header line declares, some of them a single dot."""
    return "".join(
        "\t." if (row + number) % _EVERY == 0 else call.decode() + _TRAPPED_CALL
        for row, call in enumerate(calls)
    )


def write_expression(cohort: Cohort, gene_id: pd.Series, path: Path, *, traps: bool) -> None:
    """Write gene_id and one TPM-like column per donor; with ``traps`` as public tables do.

    Then ids carry versions, a second column repeats them, columns are assay names with suffixes,
    one donor has two assays, and an annotation column follows the donors.
    """
    values = np.exp(cohort.observed_GD).round(5)
    donors = cohort.donors["donor"].tolist()
    if not traps:
        table = pd.DataFrame(values, columns=donors)
        table.insert(0, "gene_id", gene_id.to_numpy())
        write_table(table, path)
        return
    table = pd.DataFrame(values, columns=[f"{donor}.1.M_111124_1" for donor in donors])
    table[f"{donors[0]}.2.M_120208_2"] = values[:, 0]
    versioned = [f"{name}.{1 + row % 7}" for row, name in enumerate(gene_id)]
    table.insert(0, "TargetID", versioned)
    table.insert(1, "Gene_Symbol", versioned)
    table["gene_type"] = "protein_coding"
    write_table(table, path)
