"""Judge two towers on held-out spots: recall, what frozen embeddings know, how much is the section.

Units are patients, or the sections of a single patient. A gallery never holds spots of two folds,
whose towers differ, nor of two patients.

Axes: S spots, D width of the embeddings, G genes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.measure import measured
from seq2exp.spatial.batch_effects import section_rows
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.compare.entries import Judged
from seq2exp.spatial.data import SpotTable
from seq2exp.spatial.fitting import TrainedModule
from seq2exp.spatial.probes import Groups, logistic_probe, ridge_transfer, spot_groups
from seq2exp.spatial.recall import GallerySize, recall_table
from seq2exp.spatial.run import SpatialRun
from seq2exp.spatial.towers import Alignment

__all__ = ["FROZEN", "GENES", "IMAGE", "SHUFFLED_PAIRS", "TRUE_PAIRS", "judge_alignment"]

Integers = NDArray[np.int64]
TRUE_PAIRS, SHUFFLED_PAIRS = "true", "shuffled"
IMAGE, GENES, FROZEN = "image", "genes", "frozen"
_NUM_BLOCKS, _NUM_EXCHANGES = 4, 10
_HELD_OUT = "held-out spots"


@dataclass(frozen=True, eq=False)
class _Held:
    """Held-out spots of a fold: embeddings, and what belongs to them in the same order."""

    fold: str
    views: Alignment
    table: SpotTable
    units: list[str]
    unit_S: Integers


def judge_alignment(
    run: SpatialRun,
    features: Any,  # noqa: ANN401
    *,
    cohort: SpatialCohort,
    sizes: Sequence[GallerySize],
    ks: Sequence[int],
    columns: Sequence[str] = (),
    seed: int = 0,
) -> Judged:
    """Return what the towers of a run give on the held-out spots of every fold.

    Parameters
    ----------
    run : SpatialRun
        Of system hescape.
    features : mapping
        Features of all spots, as ``train_run`` takes them.
    cohort : SpatialCohort
    sizes, ks, seed
        As in :func:`seq2exp.spatial.recall.recall_table`.
    columns : sequence of str
        Columns of ``obs`` to read from the embeddings.

    Returns
    -------
    Judged
        ``recall``: unit, pairs (true, or shuffled: the mean of ten exchanges within sections),
        scope, direction, size, k, hits, queries, chance, gallery; ``probes``: fold, unit, view
        (image, genes, frozen), metric, value, chance, n, split; ``embeddings``: fold, section,
        patient, spot, and both embeddings.
    """
    recall: list[dict[str, Any]] = []
    probes: list[dict[str, Any]] = []
    embeddings, num_parameters, seconds = [], [], 0.0
    fitted = {name: run.fold(name) for name in run.fold_names}
    # One section has nothing to be told from: then all spots are asked, the fitted ones too.
    whole = any(len(each.fold.test) < 2 for each in fitted.values())
    for name, each in fitted.items():
        fold, system = each.fold, each.system
        if not isinstance(system, TrainedModule):
            continue
        fitting, test = (
            _sorted(each.table(cohort, spots, features=features, training=training))
            for spots, training in ((fold.fitting, True), (fold.test, False))
        )
        with measured() as cost:
            held = _held(name, system, test)
        seconds += cost.seconds
        num_parameters.append(system.num_parameters)
        recall += _recall_rows(held, sizes, ks, seed)
        probes += _ridge_rows(held, system, fitting)
        views = system.align(fitting.joined(test)) if whole else held.views
        probes += _section_rows(held, views, "all spots" if whole else _HELD_OUT, seed)
        probes += _column_rows(held, cohort, columns, seed)
        embeddings.append(_embedding_frame(held))
    return Judged(
        {
            "recall": pd.DataFrame(recall),
            "probes": pd.DataFrame(probes),
            "embeddings": pd.concat(embeddings, ignore_index=True),
        },
        {"predict_seconds": seconds, "num_parameters": float(np.mean(num_parameters))},
    )


def _sorted(table: SpotTable) -> SpotTable:
    """Return the spots in the order of alignments: by section, then row."""
    return table.take(np.lexsort((table.row_N, table.section_N)))


def _held(fold: str, system: TrainedModule, table: SpotTable) -> _Held:
    several = len(table.patients) > 1
    units, unit_S = (
        (table.patients, table.patient_N) if several else (table.sections, table.section_N)
    )
    return _Held(fold, system.align(table), table, units, unit_S)


# Recall -----------------------------------------------------------------------------------------


def _recall_rows(
    held: _Held, sizes: Sequence[GallerySize], ks: Sequence[int], seed: int
) -> Iterator[dict[str, Any]]:
    views, section_S = held.views, held.table.section_N
    scopes = (("within", section_S), ("across", held.table.patient_N))
    for (scope, code_S), size in itertools.product(scopes, sizes):
        for code in np.unique(code_S):
            rows = np.flatnonzero(code_S == code)
            if scope == "across" and len(np.unique(section_S[rows])) < 2:
                continue
            options: dict[str, Any] = {
                "section_S": section_S[rows],
                "spot_S": held.table.row_N[rows],
                "sizes": (size,),
                "ks": ks,
                "seed": seed,
            }
            image_SD, gene_SD = views.image_SD[rows], views.gene_SD[rows]
            true = recall_table(image_SD, gene_SD, **options)
            exchanged = [
                recall_table(
                    image_SD, gene_SD[_exchanged(section_S[rows], (seed, draw))], **options
                )
                for draw in range(_NUM_EXCHANGES)
            ]
            if true.empty:
                continue
            chance = true.assign(recall=np.mean([each["recall"] for each in exchanged], axis=0))
            unit = held.units[int(held.unit_S[rows[0]])]
            for pairs, table in ((TRUE_PAIRS, true), (SHUFFLED_PAIRS, chance)):
                for row in table[table["scope"] == scope].to_dict("records"):
                    yield {
                        "unit": unit,
                        "pairs": pairs,
                        "scope": scope,
                        "direction": row["direction"],
                        "size": str(size),
                        "k": row["k"],
                        "hits": row["recall"] * row["num_queries"],
                        "queries": row["num_queries"],
                        "chance": row["chance"],
                        "gallery": row["size"],
                    }


def _exchanged(section_S: Integers, seed: tuple[int, int]) -> Integers:
    """Return spots permuted within sections: expression that belongs to another patch."""
    random, order = np.random.default_rng(seed), np.arange(len(section_S))
    for section in np.unique(section_S):
        rows = np.flatnonzero(section_S == section)
        order[rows] = random.permutation(rows)
    return order


# Probes -----------------------------------------------------------------------------------------


def _ridge_rows(held: _Held, system: TrainedModule, fitting: SpotTable) -> Iterator[dict[str, Any]]:
    """Expression by ridge, fitted where the towers were, judged on the held-out units."""
    test = held.table
    known_G = np.isfinite(fitting.y_NG).all(axis=0) & np.isfinite(test.y_NG).all(axis=0)
    pairs = {IMAGE: (system.align(fitting).image_SD, held.views.image_SD)}
    if fitting.feat_ND is not None and test.feat_ND is not None:
        pairs[FROZEN] = (fitting.feat_ND, test.feat_ND)
    for view, (known, new) in pairs.items():
        probe = ridge_transfer(
            known,
            fitting.y_NG[:, known_G],
            new,
            test.y_NG[:, known_G],
            fit_groups=(fitting.patient_N, fitting.section_N),
            unit_S=held.unit_S,
            section_S=test.section_N,
        )
        for unit, value in probe.by_group.items():
            yield _probe_row(held, held.units[unit], view, "ridge pearson", value, 0.0, len(new))


def _section_rows(held: _Held, views: Alignment, split: str, seed: int) -> Iterator[dict[str, Any]]:
    """How much of the embeddings is the section."""
    for row in section_rows(
        views.image_SD, views.gene_SD, section_S=views.section_S, split=split, seed=seed
    ):
        numbers = (row["value"], row["chance"], row["n"], split)
        yield _probe_row(held, "", row["name"], row["metric"], *numbers)


def _column_rows(
    held: _Held, cohort: SpatialCohort, columns: Sequence[str], seed: int
) -> Iterator[dict[str, Any]]:
    """Read columns of ``obs`` from held-out embeddings, where two labels stand often enough."""
    for column in columns:
        label_S = _labels(cohort, held.table, column)
        rows = np.flatnonzero(label_S != "")
        names, counts = np.unique(label_S[rows], return_counts=True)
        common = names[counts >= 2 * _NUM_BLOCKS]
        rows = rows[np.isin(label_S[rows], common)]
        if len(common) < 2:
            continue
        groups = _groups(held.table, rows)
        views = {IMAGE: held.views.image_SD, FROZEN: held.table.feat_ND}
        for view, values in views.items():
            if values is None:
                continue
            probe = logistic_probe(values[rows], label_S[rows], groups=groups, seed=seed)
            metric = f"accuracy of {column}, {groups.kind}s held out"
            yield _probe_row(held, "", view, metric, probe.value, probe.chance, len(rows))


def _labels(cohort: SpatialCohort, table: SpotTable, column: str) -> NDArray[np.str_]:
    found = np.full(len(table), "", dtype=object)
    for name, places in table.by_section():
        obs = cohort.section(name).obs
        if column in obs:
            values = obs[column].iloc[table.row_N[places]]
            found[places] = values.astype(object).where(values.notna(), "").astype(str)
    return found.astype(str)


def _groups(table: SpotTable, rows: Integers) -> Groups:
    """Return what is held out together: patients, sections, or blocks of a single section."""
    if len(np.unique(table.section_N[rows])) > 1:
        return spot_groups(table.patient_N[rows], table.section_N[rows])
    grid = table.grid_N2[rows]
    along = grid[:, int(np.argmax(np.ptp(grid, axis=0)))]
    code = np.empty(len(rows), np.int64)
    code[np.argsort(along, kind="stable")] = np.arange(len(rows)) * _NUM_BLOCKS // len(rows)
    return Groups(code, "block")


def _probe_row(
    held: _Held,
    unit: str,
    view: str,
    metric: str,
    value: float | None,
    chance: float | None,
    n: int,
    split: str = _HELD_OUT,
) -> dict[str, Any]:
    return {
        "fold": held.fold,
        "unit": unit,
        "view": view,
        "metric": metric,
        "value": np.nan if value is None else value,
        "chance": np.nan if chance is None else chance,
        "n": n,
        "split": split,
    }


def _embedding_frame(held: _Held) -> pd.DataFrame:
    table, views = held.table, held.views
    about = pd.DataFrame(
        {
            "fold": held.fold,
            "section": np.asarray(table.sections)[table.section_N],
            "patient": np.asarray(table.patients)[table.patient_N],
            "spot": table.row_N,
        }
    )
    parts = [
        pd.DataFrame(values, columns=[f"{view}_{i}" for i in range(values.shape[1])])
        for view, values in ((IMAGE, views.image_SD), (GENES, views.gene_SD))
    ]
    return pd.concat([about, *parts], axis=1)
