"""Which variants are scored together, gene by gene.

Shapes: I items (pairs of a group and a gene), M members of all items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.dataset.genotypes import Genotypes
from seq2exp.variants.engine import Engine
from seq2exp.variants.judge import judge
from seq2exp.variants.source import VariantSource

__all__ = [
    "ALL",
    "GROUPS",
    "MOST_ALLELES",
    "MOST_TOGETHER",
    "JointConfig",
    "JointItems",
    "find_items",
]

GROUPS, ALL = "input", "all"
"""Words for the groups that the input names, and for all variants of a window."""
MOST_ALLELES = 1_000_000
"""Alleles of groups that are held at once."""
MOST_TOGETHER = 1000
"""Variants of a group in one window."""
SHARD_SIZE = 64

_COLUMNS = ("chrom", "contig", "position", "id", "ref", "alt", "gene", "norm_position", "norm_ref",
            "norm_alt", "variant_type", "ref_status")  # fmt: skip


@dataclass(frozen=True)
class JointConfig:
    """Which variants are scored together, and what is done where they cannot stand together."""

    which: tuple[str, ...]
    """``input``: the groups that the input names. ``all``: all variants of a window. Otherwise
    samples: what each of their haplotypes carries in a window."""
    overlap: Literal["skip", "first"] = "skip"
    """Groups with variants that cannot stand together: not scored, or the first ones apply. The
    haplotypes of samples always take the first, as all haplotypes do."""

    def __post_init__(self) -> None:
        if not self.which or len(set(self.which)) < len(self.which):
            raise ConfigError(
                facts("--haplotype", found=", ".join(self.which) or "nothing",
                      expected="input, all or samples, each once", fix="name each once")
            )  # fmt: skip

    @property
    def samples(self) -> tuple[str, ...]:
        """Names of samples."""
        return tuple(name for name in self.which if name not in (GROUPS, ALL))


@dataclass(frozen=True)
class _Shard:
    first_record: int
    num_records: int


@dataclass(frozen=True, eq=False)
class JointItems:
    """Groups by gene, in shards of items; what `seq2exp.variants.parts.Source` asks for.

    Attributes
    ----------
    table : DataFrame
        I rows: group, gene_row (-1 without a gene), group_size (0 for haplotypes of samples), donor
        and copy (-1 where the group is of the input), first and last (half-open range of members).
    members_M : int64 array
        Rows of `alleles`.
    alleles : DataFrame
        Alleles of the input that belong to a group.
    shard_size : int
    """

    table: pd.DataFrame
    members_M: NDArray[np.int64]
    alleles: pd.DataFrame
    shard_size: int

    @property
    def shards(self) -> list[_Shard]:
        """Neighbouring items."""
        size = len(self.table)
        return [
            _Shard(first, min(self.shard_size, size - first))
            for first in range(0, size, self.shard_size)
        ]

    def read(self, shard: _Shard) -> pd.DataFrame:
        """Return the items of a shard."""
        first, last = shard.first_record, shard.first_record + shard.num_records
        items = self.table.iloc[first:last].reset_index(drop=True)
        return items.assign(record=np.arange(first, last), allele=np.int32(1))


def find_items(
    config: JointConfig,
    source: VariantSource,
    engine: Engine,
    genotypes: Genotypes | None,
) -> JointItems:
    """Read the whole input once and return what is scored together.

    Parameters
    ----------
    config : JointConfig
    source : VariantSource
    engine : Engine
        Its windows and settings.
    genotypes : Genotypes or None
        Of the samples that are named.

    Raises
    ------
    InputError
        There is no group, the groups have too many alleles, or a name is no sample.
    """
    found: list[tuple[int, int, str, int, int, int, list[int]]] = []
    alleles = _members(config, source)
    judged = judge(
        alleles, engine.dataset, policy=engine.config.ref_policy, max_indel=engine.config.max_indel
    )
    contigs, wanted = alleles["contig"].tolist(), alleles["gene"].tolist()
    genes = [
        engine.genes_holding(contig, case.span, wanted=name) if contig else []
        for contig, case, name in zip(contigs, judged, wanted, strict=True)
    ]
    for number, (name, rows) in enumerate(_groups(config, alleles)):
        by_gene: dict[int, list[int]] = {}
        for row in rows:
            for gene in genes[row]:
                by_gene.setdefault(gene, []).append(row)
        if not by_gene and name != ALL:
            by_gene[-1] = list(rows)
        found += [(gene, number, name, len(rows), -1, -1, here) for gene, here in by_gene.items()]
    found += _of_samples(config, engine, genotypes, number=len(found))
    if not found:
        raise InputError(
            facts(
                "--haplotype " + ", ".join(config.which),
                found="no group of variants in the window of a gene",
                expected="names in a column haplotype of the table or in INFO/HAP of the VCF for "
                "input; variants in a window for all and for samples",
                fix="name the groups, or choose another word for --haplotype",
            )
        )
    # Gene by gene, so that the reference of each is run once; what has no gene comes last.
    found.sort(key=lambda item: (item[0] < 0, item[0], item[1], item[5]))
    ends = np.cumsum([len(item[-1]) for item in found])
    columns = ["gene_row", "number", "group", "group_size", "donor", "copy"]
    table = pd.DataFrame([item[:-1] for item in found], columns=columns).drop(columns="number")
    table["first"], table["last"] = np.concatenate([[0], ends[:-1]]), ends
    members = np.array([row for item in found for row in item[-1]], dtype=np.int64)
    return JointItems(table, members, alleles, SHARD_SIZE)


def _members(config: JointConfig, source: VariantSource) -> pd.DataFrame:
    """Return the alleles of the input that belong to a group."""
    parts: list[pd.DataFrame] = []
    num = 0
    wanted = GROUPS in config.which or ALL in config.which
    for shard in source.shards if wanted else []:
        table = source.read(shard)
        if ALL not in config.which:
            table = table[table["haplotype"] != ""]
        num += len(table)
        if num > MOST_ALLELES:
            raise InputError(
                facts(
                    f"--haplotype {ALL if ALL in config.which else GROUPS}",
                    found=f"more than {MOST_ALLELES:,} alleles in groups",
                    expected="fewer, as groups reach over the whole input",
                    fix="divide the input by contig",
                )
            )
        parts.append(table[[*_COLUMNS, "haplotype"]])
    if not parts:
        return pd.DataFrame(columns=[*_COLUMNS, "haplotype"])
    return pd.concat(parts, ignore_index=True)


def _groups(config: JointConfig, alleles: pd.DataFrame) -> Iterator[tuple[str, Sequence[int]]]:
    """Yield groups of the input and the rows of their alleles, by the first of them."""
    if GROUPS in config.which:
        rows: dict[str, list[int]] = {}
        for row, text in enumerate(alleles["haplotype"].tolist()):
            for name in dict.fromkeys(text.split("|")) if text else ():
                if name:
                    rows.setdefault(name, []).append(row)
        yield from rows.items()
    if ALL in config.which:
        yield ALL, range(len(alleles))


def _of_samples(
    config: JointConfig, engine: Engine, genotypes: Genotypes | None, *, number: int
) -> list[tuple[int, int, str, int, int, int, list[int]]]:
    """Return an item for each haplotype of a sample and gene whose window has any variant."""
    if not config.samples or genotypes is None:
        return []
    found: list[tuple[int, int, str, int, int, int, list[int]]] = []
    for donor, name in zip(
        genotypes.donor_rows(list(config.samples)).tolist(), config.samples, strict=True
    ):
        for gene, window in engine.index.windows.items():
            first, last = genotypes.span(window.contig, window.clipped_start, window.clipped_end)
            if first == last:
                continue
            for copy in range(genotypes.ploidy):
                label = f"{name}|{copy + 1}" if genotypes.ploidy > 1 else name
                found.append((gene, number + donor, label, 0, donor, copy, []))
    return found
