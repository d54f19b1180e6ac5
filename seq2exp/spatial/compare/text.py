"""A comparison as Markdown: the main numbers, what they cost, and what may be concluded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seq2exp.spatial.compare.config import encoder_label
from seq2exp.spatial.compare.costs import SystemCost
from seq2exp.spatial.compare.rows import SEED_SD
from seq2exp.spatial.compare.systems import Comparison
from seq2exp.spatial.evaluation import DEPTH, MEAN, SHUFFLED
from seq2exp.training.metrics import Row

__all__ = [
    "cell",
    "comparison_text",
    "cost_table",
    "failed_list",
    "markdown_table",
    "of_patients",
]

_FEW_PATIENTS = 6
_NARROW = (
    "With so few units they are too narrow: of 2, 4 and 8 units they hold the truth in about 60, "
    "80 and 90 % of cases, not 95."
)
_METRICS = {"pearson": "Pearson", "pearson_partial": "depth-partial Pearson", "mse": "MSE"}
_Found = Mapping[tuple[str, str], Row]


def comparison_text(found: Comparison) -> str:
    """Return the page ``table.md``."""
    config, cohort = found.config, found.cohort
    cells = {(row["name"], row["metric"]): row for row in found.rows}
    names = [cost.name for cost in found.costs]
    leaky = " (leaky)" if cohort["leaky"] else ""
    encoder = encoder_label(config.encoder)
    protocol = (
        f"Folds by {config.folds.kind}{leaky}; labels `{config.recipe}`; {_panel(found)}; features "
        f"`{encoder}`. Correlations across the spots of a section, means over genes, "
        "sections, patients; in brackets 95 % intervals, resampled over "
        f"{_units(cohort['num_patients'])} and genes. Differences are paired by section and gene."
    )
    lines = [f"# Systems on {cohort['name']}", "", protocol, ""]
    if names:
        lines += [*_main_table(cells, names, config.reference), "", *cost_table(found.costs)]
    lines += failed_list(found.failed)
    lines += ["", "## What may be concluded", ""]
    lines += [f"- {line}" for line in _conclusions(found, cells, names)]
    return "\n".join(lines) + "\n"


def _panel(found: Comparison) -> str:
    panel = found.config.panel
    size = len(panel.genes) if panel.kind == "list" else panel.num_genes
    return f"{size} genes (`{panel.kind}`), chosen on the fitting sections of each fold"


def _units(num_patients: int) -> str:
    return "patients" if num_patients > 1 else "the sections of the one patient"


def _main_table(cells: _Found, names: Sequence[str], reference: str) -> list[str]:
    compared = reference in names and len(names) > 1
    seeds = any(metric == f"pearson {SEED_SD}" for _, metric in cells)
    header = ["system", *_METRICS.values()]
    header += [f"Pearson minus {reference}"] if compared else []
    header += ["Pearson minus depth", "shuffled patches"]
    header += ["sd of seeds (Pearson)"] if seeds else []
    rows = []
    for name in names:
        line = [name, *(cell(cells.get((name, metric))) for metric in _METRICS)]
        line += [cell(cells.get((f"{name} - {reference}", "pearson")))] if compared else []
        line.append(cell(cells.get((f"{name} - {DEPTH}", "pearson"))))
        line.append(cell(cells.get((f"{name}: {SHUFFLED}", "pearson"))))
        line += [cell(cells.get((name, f"pearson {SEED_SD}")))] if seeds else []
        rows.append(line)
        rows += [
            [f"*{control}*", *(cell(cells.get((control, metric))) for metric in _METRICS)]
            for control, metric in cells
            if metric == "pearson"
            and control.startswith(f"{name}: ")
            and control != f"{name}: {SHUFFLED}"
        ]
    rows.append([f"*{DEPTH} of the spot*", cell(cells[DEPTH, "pearson"]), "0 by construction", ""])
    rows.append([f"*{MEAN}*", "0", "0", cell(cells[MEAN, "mse"])])
    return markdown_table(header, rows)


def failed_list(failed: Mapping[str, str]) -> list[str]:
    """Return the section about trainings that failed, by name; nothing where none did."""
    if not failed:
        return []
    return ["", "## Failed", "", *(f"- `{key}`: {error}" for key, error in failed.items())]


def cost_table(costs: Sequence[SystemCost]) -> list[str]:
    """Return the section about time, parameters and memory."""
    header = ["system", "fitting (s)", "predicting (s)", "parameters", "peak memory (MB)"]
    rows = [
        [
            cost.name,
            f"{cost.fit_seconds:.1f}",
            f"{cost.predict_seconds:.2f}",
            f"{cost.num_parameters:,.0f}",
            "n/a" if cost.peak_mb is None else f"{cost.peak_mb:,.0f}",
        ]
        for cost in costs
    ]
    text = (
        "Fitting: all folds and the final system, one training. Predicting: the held-out spots of "
        "all folds. Both without the features. Parameters of one fold. Memory of the whole process."
    )
    return ["## Cost", "", text, "", *markdown_table(header, rows)]


def _conclusions(found: Comparison, cells: _Found, names: Sequence[str]) -> list[str]:
    cohort, config = found.cohort, found.config
    lines = of_patients(cohort)
    if names:
        few = int(cohort["num_patients"]) < _FEW_PATIENTS
        whose = "; for the patients judged, no others" if few else ""
        lines += _verdict(cells, names, config.reference, whose)
        lines += _verdict(cells, names, DEPTH, whose)
        lines += _images(cells, names)
    if config.num_seeds == 1:
        lines.append(
            "One training of each system: how much another seed would change is not in the "
            "intervals."
        )
    else:
        lines.append(
            f"{config.num_seeds} trainings of each system that has a seed, averaged; their spread "
            "is not in the intervals."
        )
    lines.append(
        "The intervals are not corrected for the number of systems. Depth uses the counts that are "
        "to be predicted: a measure, no rival."
    )
    lines += [note[0].upper() + note[1:] + "." for note in found.notes]
    return lines


def of_patients(cohort: Mapping[str, object]) -> list[str]:
    """Return what the number of patients allows.

    Parameters
    ----------
    cohort : mapping
        num_patients, num_sections, num_spots, leaky.
    """
    number = int(str(cohort["num_patients"]))
    sections = int(str(cohort["num_sections"]))
    held_out = (
        f"{_count(number, 'patient')}, {_count(sections, 'section')}, {cohort['num_spots']} spots, "
        "each predicted by a system that was not fitted on it."
    )
    lines = [held_out]
    if number == 1:
        lines.append(
            "All sections are of one patient: intervals resample its sections and speak of that "
            f"patient only. {_NARROW}"
        )
    elif number < _FEW_PATIENTS:
        lines.append(
            f"{number} patients give a bootstrap few distinct draws: the intervals say little "
            "of other patients, and an order of systems may be another with other patients. "
            f"{_NARROW}"
        )
    if cohort["leaky"]:
        lines.append(
            "Leaky: sections of a held-out patient were fitted on. Nothing follows for a new "
            "patient."
        )
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _verdict(cells: _Found, names: Sequence[str], other: str, whose: str) -> list[str]:
    """Return which systems correlate better or worse than another, by the paired interval."""
    better: list[str] = []
    worse: list[str] = []
    unclear: list[str] = []
    for name in names:
        row = cells.get((f"{name} - {other}", "pearson"))
        if row is None or row["low"] is None:
            continue
        chosen = better if row["low"] > 0 else worse if row["high"] < 0 else unclear
        chosen.append(name)
    if not (better or worse or unclear):
        return []
    parts = [
        f"{label}: {', '.join(group)}"
        for label, group in (("above", better), ("below", worse), ("not told apart", unclear))
        if group
    ]
    return [f"Against {other} (Pearson, interval of the difference{whose}): {'; '.join(parts)}."]


def _images(cells: _Found, names: Sequence[str]) -> list[str]:
    blind = []
    for name in names:
        row = cells.get((f"{name} - {SHUFFLED}", "pearson"))
        if row is not None and (row["low"] is None or row["low"] <= 0):
            blind.append(name)
    if not blind:
        return ["Every system loses its correlation when patches are exchanged: it reads them."]
    return [f"Not shown to read the patches (shuffled ones do as well): {', '.join(blind)}."]


def cell(row: Row | None) -> str:
    """Return ``value [low, high]`` of a row; a dash where there is none."""
    if row is None or row["value"] is None:
        return "-"
    if row["low"] is None:
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table; rows may be shorter than the header."""
    full = [[*row, *[""] * (len(header) - len(row))] for row in rows]
    body = ["| " + " | ".join(row) + " |" for row in full]
    return ["| " + " | ".join(header) + " |", "|" + "---|" * len(header), *body]
