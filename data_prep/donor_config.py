"""What ``configs/data/*.yaml`` may say of donors: genotypes, who they are, what they express."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from seq2exp.core.errors import ConfigError, facts

__all__ = ["DonorConfig", "DonorExpressionConfig", "GenotypeConfig"]


# What a million divided by the sum of a column makes of a unit.
PER_MILLION = {"rpkm": "TPM", "fpkm": "TPM", "tpm": "TPM", "counts": "CPM", "reads": "CPM"}


def _require(section: str, checks: dict[str, tuple[object, bool, str]]) -> None:
    for key, (value, holds, expected) in checks.items():
        if not holds:
            raise ConfigError(
                facts(f"{section}.{key}", found=repr(value), expected=expected, fix="change it")
            )


@dataclass(frozen=True)
class GenotypeConfig:
    """Genotypes of donors."""

    vcf: list[str]
    """VCF or BCF files, plain, gzip or bgzip; indexes are not needed. ``{contig}`` in a name stands
    for a contig under any of its aliases: one file per contig."""
    include: list[str] = field(default_factory=list)
    """Donors to keep, and files that name one per line; all when empty."""
    exclude: list[str] = field(default_factory=list)
    """Donors to leave out, and files that name one per line."""
    on_unsupported: Literal["error", "skip"] = "error"
    """What to do with alleles that are no sequences (symbolic, breakends, ``*``, ``.``, letters
    other than ACGT), an ALT equal to its REF, records of more than two haplotypes or without GT,
    and copies of a variant with other genotypes: error, or skip and list in
    genotypes/rejects.tsv."""
    ref_mismatch: Literal["error", "skip"] = "error"
    """What to do with variants whose REF is not what the genome says: error, or skip and list."""
    max_mismatch: float = 0.01
    """Largest fraction of such variants that may be skipped; genome bases N do not count."""
    max_indel: int = 1000
    """Longer insertions and deletions are left out, listed and counted."""

    def __post_init__(self) -> None:
        _require(
            "genotypes",
            {
                "vcf": (self.vcf, bool(self.vcf) and all(self.vcf), "at least one file"),
                "max_mismatch": (self.max_mismatch, 0 <= self.max_mismatch <= 1, "0 to 1"),
                "max_indel": (self.max_indel, self.max_indel >= 0, ">= 0"),
            },
        )


@dataclass(frozen=True)
class DonorExpressionConfig:
    """Expression of donors: one row per gene, one column per donor or assay."""

    path: str
    """TSV or CSV (by suffix), plain or gzip, with a header. Columns are chosen by the names of the
    donors; others are left out."""
    gene_column: str = "gene_id"
    """Column that holds the gene ids; Ensembl versions do not count, nor does upper or lower case
    in its name."""
    unit: str = ""
    """Unit of the values. TPM, RPKM, FPKM, CPM, NX, counts and reads must not be negative."""
    per_million: bool = False
    """Divide each column by its sum over all rows of the file and multiply by a million, before
    genes that the dataset does not hold are left out: makes TPM of RPKM and FPKM, CPM of counts.
    The unit that is stored changes accordingly."""
    ignore: list[str] = field(default_factory=lambda: ["symbol", "chrom"])
    """Columns that are no donors, so that they are not listed as donors without genotypes."""
    cut_names_at: str = ""
    """Column names end before the first of this text: ``.`` makes HG00096 of HG00096.1.M_1."""
    map: str = ""
    """Table, such as an SDRF, that says which column is of which donor; columns that it does not
    name are left out. It is looked at before and after names are cut."""
    map_column: str = ""
    """Column of that table with the names of columns."""
    map_donor: str = ""
    """Column of that table with the names of donors."""
    replicates: Literal["error", "first", "mean"] = "error"
    """What to do with several columns of one donor: error, take the first, or their mean."""

    def __post_init__(self) -> None:
        given = [bool(value) for value in (self.map, self.map_column, self.map_donor)]
        _require(
            "donors.expression",
            {
                "path": (self.path, bool(self.path), "a file"),
                "map": (self.map, all(given) or not any(given), "map, map_column and map_donor"),
                "per_million": (
                    self.unit or "no unit",
                    not self.per_million or self.unit.lower() in PER_MILLION,
                    f"donors.expression.unit {', '.join(PER_MILLION)} with per_million",
                ),
            },
        )

    @property
    def stored_unit(self) -> str:
        """Unit of what the dataset holds."""
        return PER_MILLION[self.unit.lower()] if self.per_million else self.unit


@dataclass(frozen=True)
class DonorConfig:
    """Who the donors are. Donors that not every table has are left out and listed."""

    path: str = ""
    """Table with a row per donor, TSV or CSV (by suffix); none when empty."""
    donor: str = "donor"
    """Its column with the names that the genotypes use."""
    population: str = ""
    """Column of the population; none when empty."""
    sex: str = ""
    """Column of the sex: male and female, M and F, or 1 and 2; none when empty."""
    family: str = ""
    """Column of the family; none when empty."""
    father: str = ""
    """Column with the name of the father; none when empty."""
    mother: str = ""
    """Column with the name of the mother; none when empty."""
    expression: DonorExpressionConfig | None = None
    """Expression of the donors; may be left out."""

    def __post_init__(self) -> None:
        columns = (self.population, self.sex, self.family, self.father, self.mother)
        given = bool(self.path) or not any(columns)
        _require("donors", {"path": (self.path, given, "a table, since its columns are named")})
