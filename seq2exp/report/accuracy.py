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
        ("model", _model(m)),
        ("assembly", card.assembly),
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
        rows += _versions(m)
        return page.section("data", "What was trained on what", facts_table(rows), missing)
    genes = m.dataset.genes
    for split, group in genes.groupby("split", sort=False):
        contigs = sorted(map(str, group["contig"].unique()))
        more = f" and {len(contigs) - 8} more" if len(contigs) > 8 else ""
        rows.append((f"{split} genes", f"{len(group):,} (contigs {', '.join(contigs[:8])}{more})"))
    rows.append(("dataset", f"{m.dataset.root.name} (checksum {m.dataset.manifest.checksum[:12]})"))
    rows += _versions(m)
    parts = [facts_table(rows)]
    if card.dataset_checksum and card.dataset_checksum != m.dataset.manifest.checksum:
        text = (
            "This is not the dataset of the training (checksum "
            f"{card.dataset_checksum[:12]}), though its layout is the same."
        )
        parts.append(page.note(text))
    return page.section("data", "What was trained on what", *parts)


def _model(m: Material) -> str:
    members = len(m.run.models)
    count = sum(int(parameter.numel()) for parameter in m.run.models[0].parameters())
    text = f"{m.run.card.model['name']}, {count:,} parameters"
    return f"{text} in each of {members} members, averaged" if members > 1 else text


def _versions(m: Material) -> list[tuple[str, str]]:
    """Seeds and versions, as the run recorded them."""
    machine = m.manifest.get("machine", {})
    seed, members = m.manifest.get("seed"), len(m.run.models)
    rows = []
    if seed is not None:
        seeds = ", ".join(str(seed + number) for number in range(members))
        rows.append(("seeds" if members > 1 else "seed", seeds))
    names = [("seq2exp", m.run.card.package_version or machine.get("seq2exp"))]
    names += [(name, machine.get(name)) for name in ("torch", "python")]
    text = ", ".join(f"{name} {value}" for name, value in names if value)
    rows.append(("versions", text))
    where = [machine.get("gpu") or machine.get("system")]
    if machine.get("commit"):
        where.append(f"commit {machine['commit'][:12]}")
    if any(where):
        rows.append(("trained on", ", ".join(str(part) for part in where if part)))
    return rows


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
    caption = f"{len(m.metrics)} epochs"
    kept = plots.kept_epoch(m.metrics)
    if kept is not None:
        caption += f"; the dashed line marks epoch {kept}, which was kept"
    if len(m.run.models) > 1:
        caption += f". The first of {len(m.run.models)} members"
    caption += "."
    return page.section(
        "training", "Training", page.figure(plots.plot_training(m.metrics), caption)
    )
