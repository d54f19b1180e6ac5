"""Donors: which of them every table has, who they are, what they express."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.annotation import strip_version
from data_prep.donor_config import DonorConfig, DonorExpressionConfig
from data_prep.expression import refuse_bad_ids
from data_prep.texttable import (
    MISSING_CELLS,
    find_column,
    read_header,
    read_numbers,
    read_text_table,
    refuse_repeated_columns,
)
from seq2exp.core.errors import InputError, Seq2ExpWarning, facts
from seq2exp.dataset.format_genotypes import DONOR_COLUMNS

__all__ = [
    "AssayColumns",
    "align_donor_expression",
    "choose_donors",
    "choose_samples",
    "find_assays",
    "read_donor_expression",
    "read_donors",
]

_SEX = {"1": "male", "2": "female", "m": "male", "f": "female", "male": "male", "female": "female"}
_NOBODY = (*MISSING_CELLS, "0", "-9")
_NOT_NEGATIVE = re.compile(r"^(tpm|rpkm|fpkm|cpm|nx|counts?|reads?)$", re.IGNORECASE)


def read_donors(path: Path, config: DonorConfig) -> pd.DataFrame:
    """Return the donor table: the columns ``DONOR_COLUMNS``, texts, empty where unknown.

    Raises
    ------
    InputError
        Missing file or column, a donor twice or without a name, or a sex that is none.
    FormatError
        The file is damaged.
    """
    table = read_text_table(path, what="a table of donors")
    names = [str(name) for name in table.columns]
    columns = {}
    for key in DONOR_COLUMNS:
        wanted = getattr(config, key)
        if wanted:
            place = find_column(wanted, names, path, key=f"donors.{key}")
            columns[key] = table.iloc[:, place].str.strip()
        else:
            columns[key] = pd.Series("", index=table.index)
    # An SDRF has a row per file of reads: rows that say the same of a donor are one.
    frame = pd.DataFrame(columns).drop_duplicates(ignore_index=True)
    donors = frame["donor"]
    twice = sorted(set(donors[donors.duplicated()]))
    if twice or (donors == "").any():
        raise InputError(
            facts(
                str(path),
                found="donors used twice" if twice else "rows without a donor",
                expected="one row per donor, or rows that say the same",
                fix="remove or merge the rows",
                count=len(twice) or int((donors == "").sum()),
                examples=twice,
            )
        )
    for key in ("population", "family"):
        frame[key] = frame[key].mask(frame[key].isin(MISSING_CELLS), "")
    for key in ("father", "mother"):
        frame[key] = frame[key].mask(frame[key].isin(_NOBODY), "")
    return frame.assign(sex=_sexes(frame["sex"], path))


def _sexes(given: pd.Series, path: Path) -> pd.Series:
    unknown = given.str.lower().isin([*map(str.lower, _NOBODY), "unknown", "other", "u"])
    found = given.str.lower().map(_SEX).mask(unknown, "")
    if found.isna().any():
        raise InputError(
            facts(
                f"{path} column of donors.sex",
                found="values that are no sex",
                expected="male and female, M and F, 1 and 2, or NA",
                fix="mend them, or leave donors.sex empty",
                count=int(found.isna().sum()),
                examples=sorted(set(given[found.isna()])),
            )
        )
    return found


def choose_samples(
    files: Sequence[tuple[str, Sequence[str]]], include: Sequence[str], exclude: Sequence[str]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the donors of the genotypes, and who is left out and why.

    Parameters
    ----------
    files : sequence of (str, sequence of str)
        Name and samples of every file; the order of the first file counts.
    include, exclude : sequences of str
        Donors; all are included when the first is empty.

    Raises
    ------
    InputError
        A name is in no file, or nobody is left.
    """
    everyone = list(dict.fromkeys(name for _, samples in files for name in samples))
    for key, chosen in (("include", include), ("exclude", exclude)):
        unknown = sorted(set(chosen) - set(everyone))
        if unknown:
            raise InputError(
                facts(
                    f"genotypes.{key}",
                    found="names that are no sample of the files",
                    expected=f"some of the {len(everyone)} samples, such as {everyone[0]}",
                    fix="correct the names, or give the file that lists them",
                    count=len(unknown),
                    examples=unknown,
                )
            )
    left_out: dict[str, str] = {}
    wanted = set(include) or set(everyone)
    for name in everyone:
        absent = [file for file, samples in files if name not in set(samples)]
        if name in exclude or name not in wanted:
            left_out[name] = "excluded by the configuration"
        elif absent:
            left_out[name] = f"no sample of {absent[0]}"
    donors = [name for name in everyone if name not in left_out]
    partly = [name for name, reason in left_out.items() if reason.startswith("no sample")]
    if partly and donors:
        warnings.warn(
            facts(
                "genotypes",
                found="donors that not every file has",
                expected="the same donors in all files",
                fix="nothing, if they are not needed; they are listed in "
                "genotypes/donors_left_out.tsv of the dataset",
                count=len(partly),
                examples=partly,
            ),
            Seq2ExpWarning,
            stacklevel=2,
        )
    if not donors:
        raise InputError(
            facts(
                "genotypes",
                found="no donor that all files have and the configuration includes",
                expected="at least one",
                fix="check genotypes.include and exclude, and that the files are of one cohort",
            )
        )
    return donors, list(left_out.items())


def choose_donors(
    donors: Sequence[str], tables: Iterable[tuple[str, Sequence[str]]]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the donors that the genotypes and every table have, and who is left out and why.

    Parameters
    ----------
    donors : sequence of str
        Donors of the genotypes.
    tables : iterable of (str, sequence of str)
        Name and donors of every table.

    Raises
    ------
    InputError
        Nobody is in all of them.
    """
    kept = list(donors)
    left_out: list[tuple[str, str]] = []
    for what, names in tables:
        there, genotyped = set(names), set(donors)
        shared = [name for name in kept if name in there]
        if not shared:
            raise InputError(
                facts(
                    what,
                    found=f"donors such as {', '.join([*names][:3]) or 'none'}",
                    expected=f"some of those with genotypes, such as {', '.join(kept[:3])}",
                    fix="use one naming of donors; for names of assays see "
                    "donors.expression.cut_names_at and map",
                    count=0,
                )
            )
        without = [name for name in donors if name not in there]
        others = [name for name in names if name not in genotyped]
        left_out += [(name, f"not in {Path(what).name}") for name in without]
        left_out += [(name, "no genotypes") for name in others]
        if without or others:
            warnings.warn(
                facts(
                    what,
                    found=f"{len(names) - len(others)} of {len(names)} donors with genotypes, and "
                    f"{len(without)} donors with genotypes but not here",
                    expected="the same donors in all tables",
                    fix="nothing, if the others are not needed; they are listed in "
                    "genotypes/donors_left_out.tsv of the dataset",
                    count=len(without) + len(others),
                    examples=[*without[:2], *others[:2]],
                ),
                Seq2ExpWarning,
                stacklevel=2,
            )
        kept = shared
    return kept, list(dict(left_out).items())


@dataclass(frozen=True)
class AssayColumns:
    """The columns of an expression table, by donor."""

    gene: int
    """Number of the column of gene ids."""
    columns: dict[str, list[int]]
    """Numbers of the columns of each donor, in file order."""
    unmapped: int
    """Columns that the map does not name."""


def find_assays(path: Path, config: DonorExpressionConfig, *, mapping: Path | None) -> AssayColumns:
    """Return which column of an expression table is of which donor.

    Parameters
    ----------
    path : Path
    config : DonorExpressionConfig
    mapping : Path or None
        The table that ``config.map`` names.

    Raises
    ------
    InputError
        Missing file or column, columns used twice, or a column of two donors.
    """
    names = read_header(path, what="a table of donors' expression")
    refuse_repeated_columns(names, path)
    gene = find_column(config.gene_column, names, path, key="donors.expression.gene_column")
    ignored = {name.lower() for name in config.ignore}
    donor_of = None if mapping is None else _assay_map(mapping, config)
    columns: dict[str, list[int]] = {}
    unmapped = 0
    for place, name in enumerate(names):
        if place == gene or name.lower() in ignored:
            continue
        cut = name.split(config.cut_names_at, 1)[0] if config.cut_names_at else name
        if donor_of is None:
            donor = cut
        elif name in donor_of or cut in donor_of:
            donor = donor_of[name if name in donor_of else cut]
        else:
            unmapped += 1
            continue
        columns.setdefault(donor, []).append(place)
    return AssayColumns(gene, columns, unmapped)


def _assay_map(path: Path, config: DonorExpressionConfig) -> dict[str, str]:
    table = read_text_table(path, what="a table of assays and their donors")
    names = [str(name) for name in table.columns]
    key = "donors.expression.map"
    assays = table.iloc[:, find_column(config.map_column, names, path, key=f"{key}_column")]
    donors = table.iloc[:, find_column(config.map_donor, names, path, key=f"{key}_donor")]
    found: dict[str, str] = {}
    clash = set()
    for assay, donor in zip(assays.str.strip(), donors.str.strip(), strict=True):
        # An SDRF has a row per file, so an assay may stand in several.
        if found.setdefault(assay, donor) != donor:
            clash.add(assay)
    if clash:
        raise InputError(
            facts(
                str(path),
                found="assays of two donors",
                expected="one donor for each assay",
                fix="correct the rows",
                count=len(clash),
                examples=sorted(clash),
            )
        )
    return {assay: donor for assay, donor in found.items() if assay and donor}


def read_donor_expression(
    path: Path, config: DonorExpressionConfig, assays: AssayColumns, donors: Sequence[str]
) -> pd.DataFrame:
    """Return the expression of donors as the file gives it.

    Parameters
    ----------
    path : Path
    config : DonorExpressionConfig
    assays : AssayColumns
    donors : sequence of str
        All of them have a column.

    Returns
    -------
    DataFrame
        ``gene_id`` (without version) and one float64 column per donor.

    Raises
    ------
    InputError
        Several columns of a donor (unless ``config.replicates`` says what to do), a gene twice,
        cells that are no numbers, or negative values where the unit forbids them.
    """
    several = {name: assays.columns[name] for name in donors if len(assays.columns[name]) > 1}
    if several:
        _report_replicates(path, config, several)
    used = {
        name: assays.columns[name][: 1 if config.replicates == "first" else None] for name in donors
    }
    ids, values = read_numbers(path, [c for name in donors for c in used[name]], assays.gene)
    ids = strip_version(ids)
    refuse_bad_ids(ids, path)
    _refuse_negative(path, config, ids, values)
    if config.per_million:
        values = _per_million(path, values)
    columns = {
        name: values[places[0]] if len(places) == 1 else values[places].mean(axis=1)
        for name, places in used.items()
    }
    return pd.DataFrame({"gene_id": ids, **columns})


def _refuse_negative(
    path: Path, config: DonorExpressionConfig, ids: pd.Series, values: pd.DataFrame
) -> None:
    negative = (values.to_numpy() < 0).sum()
    if negative and _NOT_NEGATIVE.match(config.unit):
        below = (values < 0).any(axis=1)
        raise InputError(
            facts(
                str(path),
                found=f"negative values in {config.unit}",
                expected="numbers >= 0",
                fix="correct donors.expression.unit, for example log2(TPM + 1), or the values",
                count=int(negative),
                examples=list(ids[below][:3]),
            )
        )


def _per_million(path: Path, values: pd.DataFrame) -> pd.DataFrame:
    """Divide every assay by its sum over all genes of the file and multiply by a million."""
    sums = values.sum(axis=0)
    empty = [str(place) for place, total in sums.items() if not total > 0]
    if empty:
        names = read_header(path, what="a table of donors' expression")
        raise InputError(
            facts(
                str(path),
                found="columns whose sum is 0",
                expected="some expression in each, to divide by with per_million",
                fix="remove the columns",
                count=len(empty),
                examples=[names[int(place)] for place in empty],
            )
        )
    return values / sums * 1e6


def _report_replicates(
    path: Path, config: DonorExpressionConfig, several: dict[str, list[int]]
) -> None:
    message = facts(
        str(path),
        found="donors with several columns",
        expected="one column per donor",
        fix="choose donors.expression.replicates: first or mean, or name the columns with map"
        if config.replicates == "error"
        else f"nothing: replicates: {config.replicates}",
        count=len(several),
        examples=[f"{name} {len(places)} columns" for name, places in several.items()],
    )
    if config.replicates == "error":
        raise InputError(message)
    warnings.warn(message, Seq2ExpWarning, stacklevel=3)


def align_donor_expression(
    table: pd.DataFrame, genes: pd.DataFrame, *, what: str
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the rows of known genes in the order of the gene table.

    Parameters
    ----------
    table : DataFrame
        ``gene_id`` and donors.
    genes : DataFrame
        Gene table.
    what : str
        The file, for messages.

    Returns
    -------
    DataFrame
        ``gene_id`` and one float32 column per donor.
    dict
        Genes that are measured, that have no row in the gene table, that are the same in all donors
        or have no value at all, and cells without a value.

    Raises
    ------
    InputError
        No gene is shared.
    """
    known = table["gene_id"].isin(genes["gene_id"])
    if not known.any():
        raise InputError(
            facts(
                what,
                found=f"gene ids such as {', '.join(table['gene_id'][:3])}",
                expected=f"at least one of the genes, such as {', '.join(genes['gene_id'][:3])}",
                fix="use the same kind of id in the GTF and the table of donors",
                count=0,
            )
        )
    if not known.all():
        warnings.warn(
            facts(
                what,
                found=f"{int(known.sum())} of {len(known)} measured genes in the gene table",
                expected="all of them",
                fix="nothing, if the others are of other contigs or biotypes",
                count=int((~known).sum()),
                examples=list(table["gene_id"][~known][:3]),
            ),
            Seq2ExpWarning,
            stacklevel=2,
        )
    measured = genes["gene_id"][genes["gene_id"].isin(table["gene_id"])]
    frame = table.set_index("gene_id").loc[measured].astype("float32")
    values = frame.to_numpy()
    missing = np.isnan(values)
    filled = np.where(missing, np.float32(0), values)
    high = np.where(missing, -np.inf, filled).max(axis=1)
    low = np.where(missing, np.inf, filled).min(axis=1)
    counts = {
        "genes_measured": len(frame),
        "genes_without_annotation": int((~known).sum()),
        "genes_constant": int((high == low).sum()),
        "genes_without_values": int(missing.all(axis=1).sum()),
        "expression_missing": int(missing.sum()),
    }
    if counts["genes_constant"] or counts["genes_without_values"]:
        warnings.warn(
            facts(
                what,
                found="genes that are the same in all donors, or have no value",
                expected="differences between donors",
                fix="nothing: they are stored; a correlation is undefined for them",
                count=counts["genes_constant"] + counts["genes_without_values"],
                examples=list(frame.index[(high == low) | missing.all(axis=1)][:3]),
            ),
            Seq2ExpWarning,
            stacklevel=2,
        )
    return frame.reset_index(), counts
