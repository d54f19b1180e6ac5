"""Ids of genes that sections know by symbol only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from data_prep.annotation import read_annotation
from data_prep.config import AnnotationConfig
from data_prep.histology.config import GeneTableConfig
from seq2exp.core.errors import FormatError, facts
from seq2exp.core.genes import strip_version

__all__ = ["GeneTable", "read_gene_table"]


@dataclass(frozen=True)
class GeneTable:
    """What is known of genes by symbol.

    Attributes
    ----------
    ids : mapping of str to str
        Ensembl id by symbol; empty without a GTF. A symbol that several genes have is left out.
    contigs : mapping of str to str
        Contig by Ensembl id.
    synonyms : mapping of str to str
        Current symbol by old one.
    """

    ids: Mapping[str, str] = field(default_factory=dict)
    contigs: Mapping[str, str] = field(default_factory=dict)
    synonyms: Mapping[str, str] = field(default_factory=dict)

    def describe(self, symbols: Sequence[str], given: Sequence[str]) -> pd.DataFrame:
        """Return the gene table of a section.

        Parameters
        ----------
        symbols : sequence of str
        given : sequence of str
            Ensembl ids the section has itself; empty where it has none.

        Returns
        -------
        DataFrame
            index = symbol; gene_id (the symbol where no id is known) and chrom. Columns stay in
            the section's order; a second gene of the same id keeps its symbol as id.
        """
        found, seen = [], set()
        for symbol, own in zip(symbols, given, strict=True):
            gene = strip_version(own) if own else self.ids.get(symbol, "")
            gene = gene or self.ids.get(self.synonyms.get(symbol, ""), "")
            if not gene or gene in seen:
                gene = symbol
            seen.add(gene)
            found.append(gene)
        chrom = [self.contigs.get(gene, "") for gene in found]
        return pd.DataFrame({"gene_id": found, "chrom": chrom}, index=pd.Index(list(symbols)))


def read_gene_table(config: GeneTableConfig, source: Path) -> GeneTable:
    """Read the GTF and the synonyms that a configuration names.

    Raises
    ------
    InputError, FormatError
        A file is missing or damaged, or columns are.
    """
    synonyms: dict[str, str] = {}
    if config.synonyms:
        path = source / config.synonyms
        frame = pd.read_csv(path, sep="\t", dtype=str)
        if not {"symbol", "current"} <= set(frame):
            raise FormatError(
                facts(
                    str(path),
                    found=f"columns {', '.join(map(str, frame))}",
                    expected="symbol and current",
                    fix="name the columns",
                )
            )
        synonyms = dict(zip(frame["symbol"], frame["current"], strict=True))
    if not config.gtf:
        return GeneTable(synonyms=synonyms)
    genes = read_annotation(source / config.gtf, AnnotationConfig(gtf=config.gtf)).genes
    by_symbol = genes.groupby("symbol")["gene_id"].agg(["first", "size"])
    # A symbol that several genes have names none of them.
    unique = by_symbol.loc[by_symbol["size"] == 1, "first"]
    contigs = dict(zip(genes["gene_id"], genes["contig"], strict=True))
    ids = {str(symbol): str(gene) for symbol, gene in unique.items()}
    return GeneTable(ids, contigs, synonyms)
