"""Sections of the report about data, accuracy and training."""

from __future__ import annotations

from seq2exp.report import page, plots
from seq2exp.report.headline import genes_of
from seq2exp.report.material import Material
from seq2exp.report.rows import MODEL, cell, facts_table, find_row

__all__ = ["data_section", "metrics_section", "training_section"]

_METRICS = ("pearson", "spearman", "mse", "mae", "r2")


def data_section(m: Material) -> str:
    """Say what was trained on what."""
    card = m.run.card
    rows = [
        ("window", f"{card.data.window_bp:,} bp around the TSS, {card.data.bin_size} bp bins"),
        ("tracks", ", ".join(card.tracks) or "none"),
        ("predicted samples", ", ".join(card.samples)),
        ("unit", f"{card.expression_unit or 'unknown'}, {card.expression_transform} transformed"),
        ("training contigs", ", ".join(card.train_contigs)),
    ]
    if m.dataset is None:
        missing = page.note(
            "The dataset is not where the run was trained; its counts are left out."
        )
        return page.section("data", "What was trained on what", facts_table(rows), missing)
    genes = m.dataset.genes
    for split, group in genes.groupby("split", sort=False):
        where = ", ".join(sorted(map(str, group["contig"].unique()))[:8])
        rows.append((f"{split} genes", f"{len(group):,} (contigs {where})"))
    rows.append(("dataset", f"{m.dataset.root.name} (checksum {m.dataset.manifest.checksum[:12]})"))
    return page.section("data", "What was trained on what", facts_table(rows))


def metrics_section(m: Material) -> str:
    """Table and pictures of the model beside its controls."""
    if not m.evaluation:
        text = "Not evaluated yet: run `seq2exp evaluate` to compare the model with its controls."
        return page.section("accuracy", "Accuracy beside controls", page.note(text))
    rows = [row for row in m.evaluation["rows"] if row.get("sample") is None]
    metrics = [name for name in _METRICS if any(row["metric"] == name for row in rows)]
    names = list(dict.fromkeys(row["name"] for row in rows if row["metric"] in metrics))
    body = [
        [page.escape(name), *(cell(find_row(m.evaluation, name, metric)) for metric in metrics)]
        for name in names
    ]
    own = [number for number, name in enumerate(names) if name == MODEL]
    parts = [
        (
            f"<p>Metrics across {page.escape(genes_of(rows[0]['split']))}. Ranges are 95 % "
            "bootstrap intervals over genes. "
            "A control that does as well as the model explains it.</p>"
        ),
        page.table(["", *metrics], body, own=own),
    ]
    notes = m.evaluation.get("inputs", {}).get("notes", [])
    parts += [page.note(str(text)) for text in notes]
    metric = "pearson" if "pearson" in metrics else metrics[0]
    picture = plots.plot_metric([row for row in rows if row["name"] in names], metric)
    parts.append(page.figure(picture, f"{metric} across genes, model and controls"))
    parts += _scatter(m)
    return page.section("accuracy", "Accuracy beside controls", *parts)


def _scatter(m: Material) -> list[str]:
    if m.predictions is None:
        return []
    sample = m.run.card.samples[0]
    columns = [f"observed:{sample}", f"predicted:{sample}"]
    if any(column not in m.predictions for column in columns):
        return []
    split = (m.evaluation or {}).get("inputs", {}).get("split", "test")
    shown = m.predictions[m.predictions["split"] == split].dropna(subset=columns)
    if shown.empty:
        return []
    unit = f"{m.run.card.expression_unit}, {m.run.card.expression_transform}".strip(", ")
    picture = plots.plot_scatter(
        shown[columns[0]], shown[columns[1]], unit=unit or "expression", title=sample
    )
    text = f"Each point is one {split} gene; the line is perfect agreement."
    return [page.figure(picture, text, kind="png")]


def training_section(m: Material) -> str:
    """Loss and metrics by epoch."""
    if m.metrics is None or m.metrics.empty:
        return page.section("training", "Training", page.note("There is no metrics.csv."))
    last = len(m.metrics)
    caption = f"{last} epochs; the vertical line marks the epoch that was kept."
    return page.section(
        "training", "Training", page.figure(plots.plot_training(m.metrics), caption)
    )
