"""Title lines of the report: what was found, in a few sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seq2exp.report.material import Material
from seq2exp.report.rows import MASK, MODEL, find_row, interval, number, rivals

__all__ = ["genes_of", "headline", "subtitle"]


def subtitle(m: Material) -> str:
    """Name model, assembly and versions."""
    card = m.run.card
    return (
        f"{card.model['name']}, {len(m.run.models)} member(s); assembly {card.assembly}; "
        f"seq2exp {card.package_version}; model {card.weights_sha256[:12]}"
    )


def headline(m: Material) -> list[str]:
    """Say in a few sentences what the run showed."""
    sentences = []
    own = find_row(m.evaluation, MODEL, "pearson")
    if own and own["value"] is not None:
        sentences.append(
            f"On {own['n']:,} {genes_of(own['split'])}, predicted and observed expression "
            f"correlate at r = {number(own)}."
        )
    sentences += _best_control(m.evaluation)
    found = find_row(m.comparison, MASK, "auprc")
    if found and m.comparison:
        parts = []
        for role, name in rivals(m.comparison).items():
            row = find_row(m.comparison, f"{MASK} - {name}", "auprc")
            if row and row["value"] is not None:
                verdict = "better than" if (row["low"] or 0) > 0 else "not better than"
                if (row["high"] or 0) < 0:
                    verdict = "worse than"
                parts.append(f"{verdict} {role} ({row['value']:+.3f} {interval(row)})")
        rate = m.comparison["inputs"]["base_rate"]
        sentences.append(
            f"The mask finds true distal elements with an AUPRC of {number(found)} where chance "
            f"gives {rate:.3f}: " + ", ".join(parts) + "."
        )
    if m.summary and not found:
        sentences.append(
            f"{m.summary['elements'].get('distal', 0):,} distal elements were called for "
            f"{m.summary['genes']:,} genes."
        )
    return sentences or ["The run is trained; it has not been evaluated yet."]


def _best_control(evaluation: Mapping[str, Any] | None) -> list[str]:
    """Say whether the model beats the control with the smallest error, judged by pairs."""
    rows = [
        row
        for row in (evaluation or {}).get("rows", [])
        if row["metric"] == "mse" and row["name"] != MODEL and row.get("sample") is None
    ]
    known = [row for row in rows if row["value"] is not None]
    if not known:
        return []
    name = min(known, key=lambda row: row["value"])["name"]
    paired = find_row(evaluation, name, "mse_difference")
    if not paired or paired["value"] is None:
        return []
    better = (paired["low"] or 0) > 0
    worse = (paired["high"] or 0) < 0
    verdict = "better than" if better else "worse than" if worse else "not shown to be better than"
    sentence = (
        f"The model is {verdict} its strongest control, {name}: squared error of the control "
        f"minus that of the model {paired['value']:+.3f} {interval(paired)}."
    )
    return [sentence]


def genes_of(split: str) -> str:
    """Name the genes of a split for a reader."""
    if split == "train":
        return "genes the model was trained on"
    return f"{split} genes the model was not trained on"
