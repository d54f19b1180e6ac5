"""The evaluation as plain text: one line per model, and which controls are not beaten."""

from __future__ import annotations

from collections.abc import Sequence

from seq2exp.baselines.controls import FittedControl
from seq2exp.baselines.scoring import MODEL, Row
from seq2exp.training.metrics import HIGHER_IS_BETTER

__all__ = ["align", "best_of", "heading", "interval_text", "number_text", "render", "verdict"]

_COLUMNS = ("mse", "mae", "r2", "pearson", "spearman")
_WITH_INTERVAL = ("mse", "pearson")


def render(
    rows: Sequence[Row], controls: Sequence[FittedControl], *, notes: Sequence[str], split: str
) -> str:
    """Return the table, the verdict, what is not applicable, and the notes.

    Parameters
    ----------
    rows : sequence of dict
        As :func:`seq2exp.baselines.scoring.score` returns them.
    controls : sequence of FittedControl
    notes : sequence of str
    split : str
    """
    overall = {(row["name"], row["metric"]): row for row in rows if row["sample"] is None}
    samples = list(dict.fromkeys(row["sample"] for row in rows if row["sample"] is not None))
    names = list(dict.fromkeys(name for name, metric in overall if metric == "mse"))
    num_genes = overall[(names[0], "mse")]["n"]
    lines = [
        heading(split, num_genes=num_genes, num_samples=len(samples)),
        "",
        *_table(overall, names),
        "",
        "* best of its column. The last column is MSE of the control minus MSE of the model on the",
        "same genes: above 0, the model is better.",
        "",
        verdict(rows),
    ]
    absent = [f"  {control.name}: {control.reason}" for control in controls if control.reason]
    if absent:
        lines += ["", "Not applicable:", *absent]
    if samples:
        lines += ["", *_per_sample(rows, samples, names)]
    if notes:
        lines += ["", *(f"Note: {note}." for note in notes)]
    return "\n".join(lines) + "\n"


def heading(split: str, *, num_genes: int, num_samples: int) -> str:
    """Return the line above a table: which genes, and over what the intervals are."""
    over = f", averaged over {num_samples} samples" if num_samples > 1 else ""
    return (
        f"Split {split}: {num_genes} genes; metrics across genes{over}; 95 % intervals over genes"
    )


def verdict(rows: Sequence[Row]) -> str:
    """Return one sentence: which controls the model beats, judged by the paired MSE interval."""
    paired = [row for row in rows if row["metric"] == "mse_difference" and row["sample"] is None]
    if not paired:
        return "No control to compare with."
    open_ = [row for row in paired if row["low"] is None or row["low"] <= 0]
    if not open_:
        return (
            f"The model beats all {len(paired)} controls (interval of the MSE difference above 0)."
        )
    better = [row["name"] for row in open_ if row["high"] is not None and row["high"] < 0]
    unclear = [row["name"] for row in open_ if row["name"] not in better]
    text = f"The model does not beat {len(open_)} of {len(paired)} controls."
    if better:
        text += f" Better than the model: {', '.join(better)}."
    if unclear:
        text += f" No clear difference: {', '.join(unclear)}."
    return text


def _table(overall: dict[tuple[str, str], Row], names: list[str]) -> list[str]:
    best = {metric: best_of(overall, names, metric) for metric in _COLUMNS}
    header = ["", "MSE", "MAE", "R2", "Pearson", "Spearman", "mask", "MSE difference"]
    body = []
    for name in names:
        cells = [name]
        for metric in _COLUMNS:
            row = overall[(name, metric)]
            text = interval_text(row) if metric in _WITH_INTERVAL else number_text(row["value"])
            cells.append(text + ("*" if name == best[metric] else " "))
        ratio = overall.get((name, "mask_ratio"))
        cells.append(number_text(ratio["value"]) if ratio else "")
        paired = overall.get((name, "mse_difference"))
        cells.append(interval_text(paired) if paired else "")
        body.append(cells)
    return align([header, *body])


def _per_sample(rows: Sequence[Row], samples: list[str], names: list[str]) -> list[str]:
    """Return model and best control by sample (by MSE, over the samples shown)."""
    found = {(row["name"], row["metric"], row["sample"]): row for row in rows}
    table = [["sample", "n", "model Pearson", "model MSE", "best control", "its MSE"]]
    for sample in samples[:20]:
        others = [name for name in names if name != MODEL]
        best = min(others, key=lambda name: _error(found[(name, "mse", sample)]), default="")
        ours = found[(MODEL, "mse", sample)]
        table.append(
            [
                sample,
                str(ours["n"]),
                interval_text(found[(MODEL, "pearson", sample)]),
                interval_text(ours),
                best,
                number_text(found[(best, "mse", sample)]["value"]) if best else "",
            ]
        )
    lines = align(table)
    if len(samples) > len(table) - 1:
        lines.append(f"... and {len(samples) - len(table) + 1} more samples in the JSON file")
    return lines


def best_of(overall: dict[tuple[str, str], Row], names: list[str], metric: str) -> str:
    """Return the name that is best in a metric; empty where nobody has a value."""
    known = [name for name in names if overall[(name, metric)]["value"] is not None]
    sign = -1.0 if HIGHER_IS_BETTER[metric] else 1.0
    return min(known, key=lambda name: sign * overall[(name, metric)]["value"], default="")


def _error(row: Row) -> float:
    return float("inf") if row["value"] is None else float(row["value"])


def number_text(value: float | None) -> str:
    """Return three decimals, or n/a."""
    return "n/a" if value is None else f"{value:.3f}"


def interval_text(row: Row) -> str:
    """Return ``value [low, high]``, or n/a."""
    if row["value"] is None:
        return "n/a"
    return f"{row['value']:.3f} [{number_text(row['low'])}, {number_text(row['high'])}]"


def align(table: list[list[str]]) -> list[str]:
    """Return the lines of a table: names to the left, numbers to the right."""
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]
