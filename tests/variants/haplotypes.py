"""Phased VCFs on the toy genome, and models whose haplotype scores are known by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from data_prep.variants.genotype_folder import genotype_folder
from seq2exp.core.sequence import decode, encode
from seq2exp.dataset.genotypes import Genotypes
from seq2exp.dataset.store import Dataset
from seq2exp.nn.sequence import one_hot
from seq2exp.variants.source import open_source
from tests.variants import inputs
from tests.variants.engines import WINDOW, Additive

GENE = 4
"""A gene of the plus strand, far from the ends of its contig."""

Call = tuple[int, str, str, Sequence[str]]


def vcf_of(
    dataset: Dataset,
    path: Path,
    calls: Sequence[Call],
    *,
    samples: Sequence[str] = ("A", "B", "C"),
    infos: Sequence[str] = (),
) -> Path:
    """Write calls (0-based position, REF, ALTs, one genotype per sample) of the contig of GENE."""
    contig = dataset.sites[GENE][0]
    lines = [
        inputs.vcf_line(
            contig, position + 1, ref, alts, name=f"v{number}",
            info=infos[number] if infos else ".", tail="\t" + "\t".join(["GT", *genotypes]),
        )
        for number, (position, ref, alts, genotypes) in enumerate(calls)
    ]  # fmt: skip
    return inputs.put(path, inputs.header(dataset, samples=samples) + "".join(lines))


def opened(dataset: Dataset, vcf: Path, **settings):
    """The alleles of a VCF, and its genotypes."""
    source = open_source(vcf, dataset=dataset, max_mismatch=1)
    folder = vcf.with_name(vcf.name + ".genotypes")
    genotype_folder(vcf, folder, dataset=dataset.root, **settings)
    return source.read(source.shard(0)), Genotypes(folder)


def letters(dataset: Dataset, offset: int, length: int = 1) -> tuple[int, str]:
    """Position and bases of the genome some bases behind the TSS of GENE."""
    contig, tss, _ = dataset.sites[GENE]
    return tss + offset, decode(dataset.contig_codes(contig)[tss + offset : tss + offset + length])


def other(base: str, step: int = 1) -> str:
    return "ACGT"[("ACGT".index(base) + step) % 4]


def snv(dataset: Dataset, offset: int, genotypes: Sequence[str]) -> Call:
    position, ref = letters(dataset, offset)
    return position, ref, other(ref), genotypes


class Both(Additive):
    """1 where one base stands at one place from the TSS and another at another, else 0."""

    def __init__(self, *sites: tuple[int, str]) -> None:
        super().__init__()
        self.sites = [(WINDOW // 2 + offset, int(encode(base)[0])) for offset, base in sites]

    def one_strand(self, call):
        output = super().one_strand(call)
        columns_BLC = one_hot(call.codes_BL, dtype=torch.float64)
        value_B = torch.ones(len(columns_BLC), dtype=torch.float64)
        for index, code in self.sites:
            value_B = value_B * columns_BLC[:, index, code]
        output.expression_BK[:] = value_B[:, None]
        return output
