"""Write what the causal checks found.

::

    OUT/sites.parquet, sites.tsv.gz    one row per element, decoy and candidate
    OUT/swaps.parquet                  one row per swapped element
    OUT/genes.tsv                      one row per gene
    OUT/check.json                     settings, counts, numbers with intervals
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from seq2exp.core.files import write_json
from seq2exp.dataset.format import write_table
from seq2exp.interpret.agreement import per_gene
from seq2exp.interpret.checks import CheckConfig, Checked

__all__ = ["check_text", "write_check"]

_FORMAT = 1


def write_check(
    checked: Checked,
    rows: list[dict[str, Any]],
    folder: Path,
    *,
    config: CheckConfig,
    origin: dict[str, Any],
) -> dict[str, Any]:
    """Write tables and summary into an existing folder and return the summary.

    Parameters
    ----------
    checked : Checked
    rows : list of dict
        From :func:`seq2exp.interpret.agreement.agreement_rows` and, with a truth,
        :func:`seq2exp.interpret.check_truth.truth_rows`.
    folder : Path
    config : CheckConfig
    origin : dict
        Run, dataset and elements, for the summary.
    """
    folder = Path(folder)
    write_table(checked.sites, folder / "sites.parquet")
    checked.sites.to_csv(folder / "sites.tsv.gz", sep="\t", index=False, float_format="%.6g")
    if not checked.swaps.empty:
        write_table(checked.swaps, folder / "swaps.parquet")
    genes = per_gene(checked.sites)
    genes.to_csv(folder / "genes.tsv", sep="\t", index=False, float_format="%.6g")
    status = (checked.sites["kind"] + ", " + checked.sites["status"]).value_counts()
    summary = {
        "format": _FORMAT,
        "settings": asdict(config),
        "samples": checked.samples,
        "genes": int(checked.genes.size),
        "sites": {str(name): int(count) for name, count in status.items()},
        "swaps": len(checked.swaps),
        "rows": rows,
        **origin,
    }
    write_json(summary, folder / "check.json")
    return summary


def check_text(rows: list[dict[str, Any]]) -> str:
    """Return the numbers as a table for the terminal."""
    names = [f"{row['name']}: {row['metric']}" for row in rows]
    width = max(map(len, names))
    return "\n".join(
        f"{name:<{width}}  {_cell(row)}" for name, row in zip(names, rows, strict=True)
    )


def _cell(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return "NA"
    if row["low"] is None:
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]  n = {row['n']}"
