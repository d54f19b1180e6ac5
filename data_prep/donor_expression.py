"""Expression of donors: which column is of whom, the values as given, the genes they belong to."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.annotation import strip_version
from data_prep.donor_config import DonorExpressionConfig
from data_prep.expression import refuse_bad_ids
from data_prep.texttable import (
    find_column,
    read_header,
    read_numbers,
    read_text_table,
    refuse_repeated_columns,
)
from seq2exp.core.errors import InputError, Seq2ExpWarning, facts

__all__ = ["AssayColumns", "align_donor_expression", "find_assays", "read_donor_expression"]

_NOT_NEGATIVE = re.compile(r"^(tpm|rpkm|fpkm|cpm|nx|counts?|reads?)$", re.IGNORECASE)


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
