"""What a spatial run learnt: its folds, the pass that was kept, and accuracy on held-out tissue."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from seq2exp.core.files import read_json, safe_name
from seq2exp.spatial.fitting import FittedSystem, TrainedModule
from seq2exp.spatial.heldout import heldout_genes, read_heldout
from seq2exp.spatial.run import SpatialRun
from seq2exp.spatial.run_folder import require_intact
from seq2exp.spatial.systems.nsl import Nsl

__all__ = ["fold_table", "nsl_of"]


def fold_table(run: SpatialRun) -> pd.DataFrame:
    """Return one row per fold, and one for the system on all spots.

    Returns
    -------
    DataFrame
        fold, leaky, train, valid, test (spots), passes, best_pass (from 1; 0 for systems that are
        solved), valid_pearson (of that pass), heldout_pearson, heldout_pearson_partial and
        heldout_rmse (means over genes; NaN where the run has none).
    """
    return pd.DataFrame([_row(run, name) for name in [*run.fold_names, "final"]])


def _row(run: SpatialRun, name: str) -> dict[str, Any]:
    final = name == "final"
    place = run.folder / ("final" if final else f"folds/{safe_name(name)}")
    require_intact(place)
    about = read_json(place / "fold.json")
    spots = {
        part: sum(len(rows) for rows in about[part].values()) for part in ("train", "valid", "test")
    }
    metrics = place / "metrics.json"
    history: list[dict[str, float]] = read_json(metrics) if metrics.is_file() else []
    scores = [row["valid_pearson"] for row in history]
    best = int(np.argmax(scores)) if scores else -1
    accuracy = dict.fromkeys(
        ("heldout_pearson", "heldout_pearson_partial", "heldout_rmse"), float("nan")
    )
    rows = None if final else read_heldout(run.folder, [name])
    if rows is not None:
        genes = heldout_genes(rows, list(dict.fromkeys(rows["gene_id"])))
        accuracy = {key: float(genes[key].mean()) for key in accuracy}
    return {
        "fold": name,
        "leaky": bool(about["leaky"]),
        **spots,
        "passes": len(history),
        "best_pass": best + 1,
        "valid_pearson": scores[best] if scores else float("nan"),
        **accuracy,
    }


def nsl_of(system: FittedSystem) -> Nsl | None:
    """Return the network of a system where it is that of neural stain learning."""
    found = isinstance(system, TrainedModule) and isinstance(system.module, Nsl)
    return system.module if found else None  # type: ignore[attr-defined]
