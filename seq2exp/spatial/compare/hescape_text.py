"""The suite of HESCAPE as Markdown: recall beside chance, what is the section, what is read."""

from __future__ import annotations

from collections.abc import Sequence

from seq2exp.spatial.batch_effects import SECTION_METRICS
from seq2exp.spatial.compare.alignment import FROZEN
from seq2exp.spatial.compare.hescape import HescapeResult
from seq2exp.spatial.compare.hescape_rows import RIDGE, SHUFFLED, recall_name
from seq2exp.spatial.compare.text import cell, cost_table, failed_list, markdown_table, of_patients
from seq2exp.training.metrics import Row

__all__ = ["hescape_text", "shown_recall"]

_DIRECTIONS = ("image->gene", "gene->image")


def shown_recall(found: HescapeResult) -> list[Row]:
    """Return the rows of the recall that tables and picture show, in both directions.

    Within sections, of the first gallery size that a section has and the k nearest to 5.
    """
    k = min(found.config.ks, key=lambda each: (abs(each - 5), each))
    for size in found.config.sizes:
        metric = recall_name(k, size, "within")
        rows = [row for row in found.rows if row["metric"] == metric and " - " not in row["name"]]
        if rows:
            return rows
    return []


def hescape_text(found: HescapeResult) -> str:
    """Return the page ``table.md``."""
    config, cohort = found.config, found.cohort
    leaky = " (leaky)" if cohort["leaky"] else ""
    unit = "patients" if cohort["num_patients"] > 1 else "sections of the one patient"
    about = (
        f"Folds by {config.folds.kind}{leaky}; labels `{config.recipe}`; {config.panel.num_genes} "
        f"genes (`{config.panel.kind}`), chosen on the fitting sections of each fold. Everything "
        "is measured on held-out spots. Recall: share of spots whose own partner is among the k "
        f"nearest of a gallery of N, ties counted against; mean over {unit}, in brackets 95 % "
        f"intervals over {unit} and spots."
    )
    lines = [f"# HESCAPE towers on {cohort['name']}", "", about, ""]
    if found.arms:
        lines += [*_recall_table(found), "", *_section_table(found), ""]
        lines += [*_negatives_table(found), "", *_column_table(found)]
        lines += cost_table(found.costs)
    lines += failed_list(found.failed)
    lines += ["", "## What may be concluded", ""]
    lines += [f"- {line}" for line in _conclusions(found)]
    return "\n".join(lines) + "\n"


def _cells(found: HescapeResult) -> dict[tuple[str, str, str | None], Row]:
    return {(row["name"], row["metric"], row.get("direction")): row for row in found.rows}


def _recall_table(found: HescapeResult) -> list[str]:
    shown, cells = shown_recall(found), _cells(found)
    if not shown:
        return ["No section has as many held-out spots as a gallery."]
    metric = shown[0]["metric"]
    across = metric.replace("within", "across")
    some_across = any(key[1] == across and across != metric for key in cells)
    chance = (
        f"{metric.split(',')[0]}: chance {shown[0]['chance']:.3f} (N = {shown[0]['gallery']:.0f}), "
        f"galleries within a section{'; across: of all sections of a patient' * some_across}. "
        f"{SHUFFLED.capitalize()}: expression exchanged within sections, mean of ten times. Ridge "
        "on the frozen image embedding, and minus that on the features before the towers: Pearson "
        "across spots, fitted where the towers were."
    )
    header = ["image", "genes", "loss", "negatives", *_DIRECTIONS]
    header += [f"{direction}, across" for direction in _DIRECTIONS] if some_across else []
    header += [f"{SHUFFLED}, {_DIRECTIONS[0]}", "ridge", "ridge minus frozen"]
    rows = []
    for arm in found.arms:
        line = [arm.encoder, arm.gene, arm.objective, arm.negatives]
        line += [cell(cells.get((arm.name, metric, way))) for way in _DIRECTIONS]
        if some_across:
            line += [cell(cells.get((arm.name, across, way))) for way in _DIRECTIONS]
        line.append(cell(cells.get((f"{arm.name}: {SHUFFLED}", metric, _DIRECTIONS[0]))))
        line.append(cell(cells.get((arm.name, RIDGE, None))))
        line.append(cell(cells.get((f"{arm.name} - {FROZEN}", RIDGE, None))))
        rows.append(line)
    for encoder in dict.fromkeys(arm.encoder for arm in found.arms):
        row = cells.get((f"{encoder}: {FROZEN}", RIDGE, None))
        blank = [""] * (len(header) - 6)
        rows.append([f"*{encoder}, frozen*", "", "", "", *blank, cell(row)])
    return [chance, "", *markdown_table(header, rows)]


def _section_table(found: HescapeResult) -> list[str]:
    """Return how much of both embeddings is the section."""
    cells = _cells(found)
    rows = [row for row in found.rows if "section accuracy" in row["metric"]]
    chance = min(row["chance"] for row in rows)
    spots = rows[0]["metric"].partition("(")[2].rstrip(")")
    text = (
        f"Of {spots}: balanced accuracy of a logistic regression that tells the section (chance "
        f"{chance:.2f}), silhouette of the sections, share of the variance between them; means "
        "over folds."
    )
    columns = [f"{view} {metric}" for metric in SECTION_METRICS for view in ("image", "genes")]
    lines = [
        [arm.name, *(cell(cells.get((arm.name, f"{each} ({spots})", None))) for each in columns)]
        for arm in found.arms
    ]
    return [
        "## The section in the embeddings",
        "",
        text,
        "",
        *markdown_table(["", *columns], lines),
    ]


def _negatives_table(found: HescapeResult) -> list[str]:
    """Return what negatives of the same section change."""
    shown, cells = shown_recall(found), _cells(found)
    arms = [arm for arm in found.arms if (f"{arm.name} - any", RIDGE, None) in cells]
    if not arms or not shown:
        return []
    metric = shown[0]["metric"]
    header = ["", *(f"{metric}, {way}" for way in _DIRECTIONS), "ridge"]
    rows = [
        [
            arm.name,
            *(cell(cells.get((f"{arm.name} - any", metric, way))) for way in _DIRECTIONS),
            cell(cells.get((f"{arm.name} - any", RIDGE, None))),
        ]
        for arm in arms
    ]
    text = "Minus the same arm with negatives from any section, paired."
    return ["## Negatives of the same section", "", text, "", *markdown_table(header, rows)]


def _column_table(found: HescapeResult) -> list[str]:
    """Return what a logistic regression reads of the columns that were asked for."""
    rows = [row for row in found.rows if "accuracy of " in row["metric"]]
    if not rows:
        return []
    lines = [
        [row["name"], row["metric"], cell(row), f"{row['chance']:.3f}", str(row["n"])]
        for row in rows
    ]
    table = markdown_table(["", "balanced accuracy", "value", "chance", "spots"], lines)
    return ["## Labels read from the embeddings", "", *table, ""]


def _conclusions(found: HescapeResult) -> list[str]:
    lines = of_patients(found.cohort)
    number = found.cohort["num_patients"]
    if number == 1:
        lines.append("n = 1 donor: no interval over donors anywhere.")
    rows = shown_recall(found)
    above, at = _against_chance([row for row in rows if SHUFFLED not in row["name"]])
    if above or at:
        parts = ["above chance in both directions: " + ", ".join(above)] if above else []
        parts += ["not above chance: " + ", ".join(at)] if at else []
        lines.append(f"{rows[0]['metric']} (interval), {'; '.join(parts)}.")
    off, _ = _against_chance([row for row in rows if SHUFFLED in row["name"]], any_way=True)
    if off:
        lines.append(f"Shuffled pairs lie above chance, which they must not: {', '.join(off)}.")
    elif rows:
        lines.append("Shuffled pairs are at chance in every arm.")
    lines.append(
        "In galleries across sections it is enough to know the section; galleries of other sizes "
        "have another chance, so compare within a column only. The number of arms is not "
        "corrected for."
    )
    return lines


def _against_chance(rows: Sequence[Row], *, any_way: bool = False) -> tuple[list[str], list[str]]:
    """Return names whose interval lies above chance in both directions (or in any), and others."""
    above: list[str] = []
    rest: list[str] = []
    for name in dict.fromkeys(row["name"] for row in rows):
        beats = [row["low"] > row["chance"] for row in rows if row["name"] == name]
        (above if (any(beats) if any_way else all(beats)) else rest).append(name)
    return above, rest
