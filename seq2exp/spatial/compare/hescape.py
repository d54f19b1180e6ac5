"""The suite of HESCAPE (Gindra et al. 2025, arXiv 2508.01490): which towers align, at what cost.

::

    OUT/table.tsv, table.json      rows of name, metric, split, value, low, high, n, and direction,
                                   gallery (N) and chance
    OUT/costs.tsv, OUT/table.md
    OUT/embeddings/<arm>.h5ad      held-out spots; obsm["image"], obsm["genes"]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from seq2exp.core.config import require_known
from seq2exp.core.files import atomic_file, file_lock
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.compare.alignment import GENES, IMAGE, judge_alignment
from seq2exp.spatial.compare.config import open_bank, plain_protocol
from seq2exp.spatial.compare.costs import SystemCost, cohort_facts, system_costs
from seq2exp.spatial.compare.entries import Entry, Outcome, claim_folder, run_entries
from seq2exp.spatial.compare.hescape_config import Arm, HescapeSuiteConfig, arms
from seq2exp.spatial.compare.hescape_rows import alignment_rows
from seq2exp.spatial.compare.rows import failed_rows
from seq2exp.spatial.config import SpatialConfig
from seq2exp.spatial.folds import make_folds
from seq2exp.spatial.run import fold_labels
from seq2exp.training.metrics import Row

__all__ = ["HescapeResult", "compare_hescape"]


@dataclass(frozen=True, eq=False)
class HescapeResult:
    """What the suite gave.

    Attributes
    ----------
    config : HescapeSuiteConfig
    arms : list of Arm
        Those that were judged.
    rows : list of dict
    costs : list of SystemCost
    failed : dict of str to str
        By training, why it failed.
    cohort : dict
        As :func:`seq2exp.spatial.compare.costs.cohort_facts` gives it.
    """

    config: HescapeSuiteConfig
    arms: list[Arm]
    rows: list[Row]
    costs: list[SystemCost]
    failed: dict[str, str]
    cohort: dict[str, Any]


def compare_hescape(
    config: HescapeSuiteConfig,
    *,
    data: Path,
    out: Path,
    features: Callable[[SpatialConfig], Any],
) -> HescapeResult:
    """Train and judge every arm; runs that stand are kept.

    Parameters
    ----------
    config : HescapeSuiteConfig
    data : Path
        Cohort folder.
    out : Path
        Folder of the suite; one of another protocol or cohort is refused.
    features : callable
        From the configuration of a run to the features of all spots, as ``train_run`` takes them.

    Raises
    ------
    InputError, ConfigError, FormatError
        What cannot be used, and why; an arm that fails while it trains does not raise.
    """
    cohort, out = SpatialCohort(data), Path(out)
    folds = make_folds(cohort, config.folds)
    known = sorted({str(key) for section in cohort.sections() for key in section.obs})
    for column in config.probe_columns:
        require_known("probe_columns", column, known, expected="a column of obs of a section")
    facts = cohort_facts(cohort, folds)
    if facts["leaky"]:
        # A run also predicts what it holds out, from a bank that then is of the same patient.
        config = dataclasses.replace(config, system=open_bank(config.system))
    every = arms(config)
    entries = [
        Entry(arm.name, seed, arm.config(config, seed))
        for arm in every
        for seed in range(config.num_seeds)
    ]
    about: dict[str, Any] = {
        "sizes": list(config.sizes),
        "ks": list(config.ks),
        "columns": list(config.probe_columns),
        "seed": config.bootstrap_seed,
    }
    fold_labels(config, cohort, folds)  # what the protocol cannot give is no fault of an arm
    judge = partial(judge_alignment, cohort=cohort, **about)
    with file_lock(out / ".lock", what=f"comparison {out}"):
        claim_folder(out, cohort, {"kind": "hescape", **plain_protocol(config)}, entries)
        outcomes = run_entries(
            entries, data=data, out=out, features=features, judge=judge, about=about
        )
        _write_embeddings(outcomes, out / "embeddings")
    found = {
        arm: [each.judged for each in outcomes if each.entry.name == arm.name and each.judged]
        for arm in every
    }
    good = {arm: trainings for arm, trainings in found.items() if trainings}
    split = "test (leaky)" if facts["leaky"] else "test"
    rows = alignment_rows(
        good, split=split, num_resamples=config.num_resamples, seed=config.bootstrap_seed
    )
    rows += failed_rows([arm.name for arm in every], outcomes, split=split)
    return HescapeResult(
        config,
        list(good),
        rows,
        system_costs([arm.name for arm in good], outcomes),
        {each.entry.key: each.error for each in outcomes if each.judged is None},
        facts,
    )


def _write_embeddings(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Write an AnnData of held-out spots per training, without expression."""
    import anndata

    for each in outcomes:
        if each.judged is None:
            continue
        table = each.judged.tables["embeddings"]
        obs = table[["fold", "section", "patient", "spot"]].copy()
        obs.index = pd.Index(obs["section"] + "_" + obs["spot"].astype(str))
        views = {
            view: table.filter(regex=f"^{view}_[0-9]+$").to_numpy("float32")
            for view in (IMAGE, GENES)
        }
        with atomic_file(folder / f"{each.entry.key}.h5ad", overwrite=True) as partial_path:
            anndata.AnnData(obs=obs, obsm=views).write_h5ad(partial_path)
