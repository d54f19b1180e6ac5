"""All genes of the dataset as one table, and the held-out genes the model predicts best and worst.

Residual = predicted - observed, in the transformed unit of the labels.
"""

from __future__ import annotations

import math
from collections.abc import Container
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from seq2exp.report import page
from seq2exp.report.material import Material

__all__ = [
    "MAX_SAMPLES",
    "extreme_genes",
    "extremes_section",
    "gene_address",
    "gene_frame",
    "genes_section",
    "table_document",
]

MAX_SAMPLES = 6
"""Samples whose observed and predicted values have columns of their own."""
_SHOWN = 10


def gene_frame(m: Material) -> pd.DataFrame:
    """Return one row per gene of the dataset, in its order.

    Returns
    -------
    DataFrame
        gene_id, symbol, contig, tss, strand, split; then per sample ``observed:S``,
        ``predicted:S`` and ``residual:S``; then ``distal_elements`` (NaN for genes that are not in
        the map), ``mask_mean`` (mean learned mask).
    """
    if m.dataset is None:
        return pd.DataFrame()
    genes = m.dataset.genes
    frame = genes[["gene_id", "symbol", "contig", "tss", "strand", "split"]].copy()
    frame["gene_id"] = frame["gene_id"].astype(str)
    frame["symbol"] = frame["symbol"].fillna("").astype(str)
    known = list(m.dataset.manifest.expression.samples)
    predictions = None if m.predictions is None else m.predictions.set_index("gene_id")
    for sample in m.run.card.samples[:MAX_SAMPLES]:
        if sample in known:
            frame[f"observed:{sample}"] = m.dataset.expression[:, known.index(sample)]
        else:
            frame[f"observed:{sample}"] = np.nan
        column = f"predicted:{sample}"
        found = predictions is not None and column in predictions
        values = predictions[column].reindex(frame["gene_id"]) if found else None  # type: ignore[index]
        frame[column] = np.nan if values is None else values.to_numpy(np.float64)
        frame[f"residual:{sample}"] = frame[column] - frame[f"observed:{sample}"]
    _add_map(m, frame)
    return frame


def _add_map(m: Material, frame: pd.DataFrame) -> None:
    if m.masks is None or m.elements is None:
        return
    distal = m.elements[m.elements["element_class"] == "distal"]["gene_id"].value_counts()
    mapped = m.masks.genes["gene_id"].astype(str)
    counts = distal.reindex(mapped).fillna(0)
    counts.index = pd.Index(mapped)
    frame["distal_elements"] = counts.reindex(frame["gene_id"]).to_numpy(np.float64)
    means = np.full(len(mapped), np.nan)
    for rows in m.masks.chunks():
        # Forced bins are no evidence, so they are no part of the mean.
        free = np.asarray(m.masks.forced[rows]) == 0
        total = np.where(free, np.asarray(m.masks.mask[rows], dtype=np.float64), 0).sum(axis=1)
        count = free.sum(axis=1)
        means[rows] = np.divide(total, count, out=np.full(len(rows), np.nan), where=count > 0)
    frame["mask_mean"] = pd.Series(means, index=mapped).reindex(frame["gene_id"]).to_numpy()


def extreme_genes(m: Material, frame: pd.DataFrame, *, number: int = _SHOWN) -> pd.DataFrame:
    """Return the genes with the largest and the smallest absolute residual.

    Parameters
    ----------
    m : Material
    frame : DataFrame
        Of :func:`gene_frame`.
    number : int
        Genes of each kind; fewer where fewer than twice as many are predicted.

    Returns
    -------
    DataFrame
        Rows of the frame with ``kind`` (worst, best) and ``size``, the mean absolute residual over
        samples. Only genes of the evaluated split, so that a model is not praised for what it was
        trained on.
    """
    columns = [name for name in frame if str(name).startswith("residual:")]
    split = (m.evaluation or {}).get("inputs", {}).get("split", "test")
    nothing = frame.iloc[:0].assign(kind="", size=0.0)
    if not columns or frame.empty:
        return nothing
    size = frame[columns].abs().mean(axis=1)
    usable = np.flatnonzero((frame["split"] == split).to_numpy() & size.notna().to_numpy())
    order = usable[np.argsort(size.to_numpy()[usable], kind="stable")]
    count = min(number, len(order) // 2)
    if not count:
        return nothing
    worst = frame.iloc[order[::-1][:count]].assign(kind="worst")
    best = frame.iloc[order[:count]].assign(kind="best")
    found = pd.concat([worst, best])
    return found.assign(size=size.loc[found.index])


def extremes_section(m: Material, extremes: pd.DataFrame, *, paged: Container[str]) -> str:
    """Table of the worst and the best genes; ids link to locus pages that exist."""
    title = "Best and worst genes"
    if extremes.empty:
        text = (
            "Residuals need predictions of held-out genes: run `seq2exp evaluate`, or give "
            "--predictions."
        )
        return page.section("extremes", title, page.note(text))
    sample = m.run.card.samples[0]
    many = len(m.run.card.samples) > 1
    header = ["gene", "observed", "predicted", "residual"]
    if many:
        header.append("mean |residual|")
    if "distal_elements" in extremes:
        header.append("distal elements")
    columns = []
    for kind, name in (("worst", "Largest residuals"), ("best", "Smallest residuals")):
        rows = [
            _extreme_row(row, sample, many=many, paged=paged)
            for row in extremes[extremes["kind"] == kind].to_dict("records")
        ]
        columns.append(f"<h3>{name}</h3>{page.table(header, rows)}")
    unit = f"{m.run.card.expression_unit}, {m.run.card.expression_transform} transformed"
    split = str(extremes["split"].iloc[0])
    text = (
        f"Genes of the {split} split; residual = predicted minus observed ({unit}), sample "
        f"{sample}."
    )
    if many:
        text += f" Ordered by the mean absolute residual over {len(m.run.card.samples)} samples."
    return page.section("extremes", title, page.note(text), page.pair(*columns))


def _extreme_row(
    row: dict[Any, Any], sample: str, *, many: bool, paged: Container[str]
) -> list[str]:
    gene = str(row["gene_id"])
    name = page.escape(row["symbol"] or gene)
    cells = [f'<a href="{gene_address(gene)}">{name}</a>' if gene in paged else name]
    cells += [_number(row[f"{kind}:{sample}"]) for kind in ("observed", "predicted")]
    cells.append(_number(row[f"residual:{sample}"], sign="+"))
    if many:
        cells.append(_number(row["size"]))
    if "distal_elements" in row:
        count = row["distal_elements"]
        cells.append("-" if math.isnan(count) else f"{count:.0f}")
    return cells


def gene_address(gene: str) -> str:
    """Return the address of a gene's locus page inside the report."""
    return page.escape(f"#gene={quote(gene, safe='')}")


def _number(value: float, *, sign: str = "") -> str:
    if math.isnan(value):
        return "-"
    # Adding zero turns a negative zero into zero.
    return f"{round(value, 3) + 0.0:{sign}.3f}".replace("-", "&minus;")


def genes_section(m: Material, frame: pd.DataFrame) -> str:
    """Place of the gene table; the script of the page fills it."""
    title = "All genes"
    if frame.empty:
        return page.section("genes", title, page.note("The gene table needs the dataset."))
    predicted = [name for name in frame if str(name).startswith("predicted:")]
    count = int(frame[predicted].notna().any(axis=1).sum()) if predicted else 0
    notes = []
    if count < len(frame):
        notes.append(
            f"Predictions are known for {count:,} of {len(frame):,} genes. `seq2exp predict` "
            "makes them for all; give its file with --predictions."
        )
    unknown = _unknown_predictions(m, frame)
    if unknown:
        notes.append(f"{unknown:,} predicted genes are not in this dataset and are left out.")
    left_out = len(m.run.card.samples) - MAX_SAMPLES
    if left_out > 0:
        notes.append(f"Columns of {left_out} more samples are left out.")
    return page.section(
        "genes",
        title,
        '<div id="gene-table"><noscript><p class="note">The table needs JavaScript, which is '
        "part of this page.</p></noscript></div>",
        f'<p class="note print">The table of {len(frame):,} genes is not printed: the page on the '
        "screen searches it and saves it as CSV.</p>",
        *(page.note(text) for text in notes),
    )


def _unknown_predictions(m: Material, frame: pd.DataFrame) -> int:
    if m.predictions is None:
        return 0
    return int((~m.predictions["gene_id"].astype(str).isin(frame["gene_id"])).sum())


def table_document(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the table by columns, for the script; texts that repeat are numbered."""
    # Held-out genes first: they are the ones with a prediction that says something.
    place = {"test": 0, "valid": 1, "train": 2}
    order = frame["split"].astype(str).map(place).fillna(len(place)).argsort(kind="stable")
    frame = frame.iloc[order]
    samples = {str(name).split(":", 1)[1] for name in frame if ":" in str(name)}
    columns = [_column(str(name), frame[name]) for name in frame]
    for column in columns:
        # The name of the only sample would repeat in every title.
        kind, _, sample = column["name"].partition(":")
        column["title"] = _TITLES.get(kind, kind) + (f" {sample}" if len(samples) > 1 else "")
    return {"columns": columns}


_TITLES = {"gene_id": "gene", "tss": "TSS", "distal_elements": "distal elements",
           "mask_mean": "mean mask"}  # fmt: skip
_REPEATED = ("contig", "strand", "split")


def _column(name: str, values: pd.Series) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name}
    if name in _REPEATED:
        codes, levels = pd.factorize(values.astype(str))
        return column | {"kind": "text", "values": codes.tolist(), "levels": levels.tolist()}
    if name == "tss":
        return column | {"kind": "position", "values": values.astype(int).tolist()}
    if name in ("gene_id", "symbol"):
        return column | {"kind": "text", "values": values.astype(str).tolist()}
    numbers = [None if not math.isfinite(v) else round(float(v), 4) for v in values]
    if name == "distal_elements":
        return column | {"kind": "int", "values": [None if v is None else int(v) for v in numbers]}
    kind = "signed" if name.startswith("residual") else "float"
    return column | {"kind": kind, "values": numbers}
