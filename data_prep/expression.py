"""Label tables: gene x sample, joined to the genes by id without version."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.annotation import strip_version
from data_prep.config import ExpressionConfig
from data_prep.texttable import MISSING_CELLS, read_text_table, refuse_repeated_columns
from seq2exp.core.config import nearest
from seq2exp.core.errors import InputError, Seq2ExpWarning, facts

__all__ = ["align_expression", "read_expression", "refuse_bad_ids", "transform_expression"]


def read_expression(path: Path, config: ExpressionConfig) -> pd.DataFrame:
    """Return the chosen samples of a label table, untransformed.

    Parameters
    ----------
    path : Path
        CSV when the name ends in ``.csv`` or ``.csv.gz``, else tab-separated; with a header.
        Empty cells, ``NA`` and ``NaN`` are missing labels.
    config : ExpressionConfig

    Returns
    -------
    DataFrame
        ``gene_id`` (without version) and one float64 column per sample.

    Raises
    ------
    InputError
        Missing file or column, text or infinity where a number should be, a gene or a column
        twice, or negative values under a logarithm.
    FormatError
        The file is damaged or has no regular columns.
    """
    frame = read_text_table(Path(path))
    refuse_repeated_columns(list(frame.columns), path)
    for name in (config.gene_column, *config.columns):
        if name not in frame.columns:
            raise InputError(
                facts(
                    str(path),
                    found=f"no column {name!r}",
                    expected="the columns that expression.gene_column and .columns name",
                    fix=nearest(name, [str(column) for column in frame.columns[:200]]),
                )
            )
    ids = strip_version(frame[config.gene_column].fillna("").astype(str).str.strip())
    refuse_bad_ids(ids, path)
    columns = config.columns or [
        name for name in frame.columns if name not in {config.gene_column, *config.ignore}
    ]
    if not columns:
        raise InputError(
            facts(str(path), found="no sample column", expected="at least one", fix="check ignore")
        )
    values = {name: _numbers(frame[name], path, config) for name in columns}
    return pd.DataFrame({"gene_id": ids, **values})


def refuse_bad_ids(ids: pd.Series, path: Path) -> None:
    """Raise when a gene id is empty or stands twice."""
    twice = sorted(set(ids[ids.duplicated()]))
    if (ids == "").any() or twice:
        raise InputError(
            facts(
                str(path),
                found="empty gene ids" if (ids == "").any() else "genes used twice",
                expected="one row per gene (versions do not count)",
                fix="remove or merge the rows",
                count=int((ids == "").sum()) or len(twice),
                examples=twice,
            )
        )


def _numbers(column: pd.Series, path: Path, config: ExpressionConfig) -> pd.Series:
    text = column.str.strip()
    empty = text.isin(MISSING_CELLS)
    values = pd.to_numeric(text.mask(empty), errors="coerce").astype("float64")
    wrong = (values.isna() & ~empty) | np.isinf(values)
    negative = values < (0 if config.transform != "none" else -np.inf)
    for mask, what, fix in (
        (wrong, "cells that are no finite number", "mend the cells, or add the column to ignore"),
        (negative, f"negative values under {config.transform}", "use transform: none"),
    ):
        if mask.any():
            raise InputError(
                facts(
                    f"{path} column {column.name}",
                    found=what,
                    expected="finite numbers" + (" >= 0" if mask is negative else ""),
                    fix=fix,
                    count=int(mask.sum()),
                    examples=[repr(value) for value in text[mask][:3]],
                )
            )
    return values


def transform_expression(table: pd.DataFrame, transform: str) -> pd.DataFrame:
    """Apply ``none``, ``log1p``, ``log2p1`` (log2(x + 1)) or ``log10p1`` to every sample."""
    bases = {"none": None, "log1p": 1.0, "log2p1": np.log(2.0), "log10p1": np.log(10.0)}
    base = bases[transform]
    if base is None:
        return table
    samples = table.columns.drop("gene_id")
    return table.assign(**{name: np.log1p(table[name]) / base for name in samples})


def align_expression(
    table: pd.DataFrame, genes: pd.DataFrame, *, what: str
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return one row per gene, in the order of the gene table; NaN where there is no label.

    Parameters
    ----------
    table : DataFrame
        ``gene_id`` and samples.
    genes : DataFrame
        Gene table.
    what : str
        The label file, for messages.

    Returns
    -------
    DataFrame
        ``gene_id`` and one float32 column per sample.
    dict
        How many genes have labels, and how many labels have no gene.

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
                fix="use the same kind of id in the GTF and the label table",
                count=0,
            )
        )
    if not known.all():
        warnings.warn(
            facts(
                what,
                found=f"{int(known.sum())} of {len(known)} labelled genes in the gene table",
                expected="all of them",
                fix="nothing, if the others are of other contigs or biotypes",
                count=int((~known).sum()),
                examples=list(table["gene_id"][~known][:3]),
            ),
            Seq2ExpWarning,
            stacklevel=2,
        )
    aligned = table.set_index("gene_id").reindex(genes["gene_id"]).astype("float32")
    labelled = int(aligned.notna().any(axis=1).sum())
    counts = {"genes_with_label": labelled, "labels_without_gene": int((~known).sum())}
    return aligned.reset_index(), counts
