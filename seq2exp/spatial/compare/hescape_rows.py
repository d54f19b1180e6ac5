"""Numbers of the suite of HESCAPE as rows: recall with chance, probes, and paired differences.

Recall is that of patients, each weighing the same (or of the sections of a single one); intervals
resample patients, and spots within them. Values of probes are resampled over patients only, so a
single patient gives none. Several trainings of an arm are averaged by patient before that.

Names of rows: an arm; ``ARM: shuffled pairs``, its recall with expression exchanged within
sections; ``ENCODER: frozen``, what a ridge reads from the features before the towers; ``ARM -
frozen`` and ``ARM - any``, differences from that and from the arm with negatives from any section.

Axes: U units (patients, or sections), R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.spatial.batch_effects import SECTION_METRICS
from seq2exp.spatial.compare.alignment import FROZEN, IMAGE, SHUFFLED_PAIRS, TRUE_PAIRS
from seq2exp.spatial.compare.entries import Judged
from seq2exp.spatial.compare.hescape_config import Arm
from seq2exp.spatial.compare.rows import SEED_SD
from seq2exp.training.metrics import Estimate, Row

__all__ = ["RIDGE", "SHUFFLED", "alignment_rows", "over_units", "recall_interval", "recall_name"]

Floats = NDArray[np.float64]
RIDGE, SHUFFLED = "ridge pearson", "shuffled pairs"
_GALLERY = ["pairs", "scope", "direction", "size", "k"]
Found = Mapping[Arm, Sequence[Judged]]


def recall_name(k: int | str, size: int | str, scope: str) -> str:
    """Return the name of a recall in the rows."""
    where = "the section" if size == "section" else f"{size}, {scope} sections"
    return f"recall@{k} of {where}"


def alignment_rows(
    found: Found, *, split: str, num_resamples: int = 1000, seed: int = 0
) -> list[Row]:
    """Return all rows, each with ``direction``, ``gallery`` and ``chance`` (or None).

    Parameters
    ----------
    found : mapping of Arm to sequence of Judged
        By arm, what each of its trainings gave.
    split : str
    num_resamples, seed : int
        Of the bootstrap.
    """
    rows: list[Row] = []
    frozen: dict[str, list[Row]] = {}
    for arm, trainings in found.items():
        rows += _recall_rows(arm, trainings, split, num_resamples, seed)
        probes = [each.tables["probes"] for each in trainings]
        rows += _probe_rows(arm.name, IMAGE, probes, split, num_resamples, seed)
        name = f"{arm.encoder}: {FROZEN}"
        frozen[name] = list(_probe_rows(name, FROZEN, probes[:1], split, num_resamples, seed))
        rows += _gain(arm, probes, split, num_resamples, seed)
    for each in frozen.values():
        rows += each
    for arm in found:
        other = Arm(arm.encoder, arm.gene, arm.objective, "any")
        if arm.negatives != "any" and other in found:
            rows += _differences(arm, found[arm], found[other], split, num_resamples, seed)
    return rows


# Recall -----------------------------------------------------------------------------------------


def recall_interval(
    hits_U: Floats, queries_U: Floats, *, num_resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Return the mean recall of units with its 95 % interval over units and spots within them.

    Parameters
    ----------
    hits_U, queries_U : float arrays, shape (num_units,)
        Spots that were found, and asked for.
    num_resamples, seed : int

    Returns
    -------
    Estimate
        ``n`` is the number of spots asked for.
    """
    random = np.random.default_rng(seed)
    num_units = len(queries_U)
    share_U = hits_U / queries_U
    times_RU = random.multinomial(num_units, np.full(num_units, 1 / num_units), num_resamples)
    drawn_RU = random.binomial(queries_U.astype(int), share_U, (num_resamples, num_units))
    draws = (times_RU * drawn_RU / queries_U).sum(axis=1) / num_units
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(float(share_U.mean()), float(low), float(high), int(queries_U.sum()))


def _recall_table(trainings: Sequence[Judged]) -> pd.DataFrame:
    """Return counts by gallery and unit, hits averaged over trainings; one more column each."""
    parts = []
    for number, judged in enumerate(trainings):
        table = judged.tables["recall"]
        weighed = table.assign(
            chance=table["chance"] * table["queries"], gallery=table["gallery"] * table["queries"]
        )
        keys = [*_GALLERY, "unit"]
        summed = weighed.groupby(keys, sort=False)[["hits", "queries", "chance", "gallery"]].sum()
        for name in ("chance", "gallery"):
            summed[name] /= summed["queries"]
        parts.append(summed.reset_index().assign(training=number))
    return pd.concat(parts, ignore_index=True)


def _recall_rows(
    arm: Arm, trainings: Sequence[Judged], split: str, num_resamples: int, seed: int
) -> Iterator[Row]:
    table = _recall_table(trainings)
    for key, part in table.groupby(_GALLERY, sort=False):
        pairs, scope, direction, size, k = map(str, key)
        name = arm.name if pairs == TRUE_PAIRS else f"{arm.name}: {SHUFFLED}"
        more = {
            "direction": direction,
            "gallery": float(np.average(part["gallery"], weights=part["queries"])),
            "chance": float(np.average(part["chance"], weights=part["queries"])),
        }
        units = part.groupby("unit", sort=False)[["hits", "queries"]].mean()
        hits_U, queries_U = (units[name].to_numpy(np.float64) for name in ("hits", "queries"))
        metric = recall_name(k, size, scope)
        found = recall_interval(hits_U, queries_U, num_resamples=num_resamples, seed=seed)
        yield found.row(name, metric, split=split, **more)
        if len(trainings) > 1 and pairs != SHUFFLED_PAIRS:
            shares = (part["hits"] / part["queries"]).groupby(part["training"]).mean()
            spread = Estimate(float(shares.std(ddof=1)), n=len(shares))
            yield spread.row(name, f"{metric} {SEED_SD}", split=split, **more)


# Probes -----------------------------------------------------------------------------------------


def over_units(values_U: Floats, *, num_resamples: int = 1000, seed: int = 0) -> Estimate:
    """Return a mean over units with its 95 % interval over them; none for a single unit.

    Parameters
    ----------
    values_U : float array, shape (num_units,)
    num_resamples, seed : int
    """
    number = len(values_U)
    if number < 2:
        return Estimate(float(values_U.mean()), n=number)
    random = np.random.default_rng(seed)
    draws = values_U[random.integers(0, number, (num_resamples, number))].mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(float(values_U.mean()), float(low), float(high), number)


def _probe_rows(
    name: str, view: str, probes: Sequence[pd.DataFrame], split: str, num_resamples: int, seed: int
) -> Iterator[Row]:
    """Return what was read from a view; where one section is known from another, from both."""
    values = _ridge(probes, view)
    if values is not None:
        found = over_units(values.to_numpy(), num_resamples=num_resamples, seed=seed)
        yield found.row(name, RIDGE, split=split, direction=None, gallery=None, chance=0.0)
    joined = pd.concat(probes, ignore_index=True)
    rest = joined[(joined["metric"] != RIDGE) & joined["value"].notna()]
    wanted = rest[rest["view"] == FROZEN] if view == FROZEN else rest[rest["view"] != FROZEN]
    for (side, metric, spots), part in wanted.groupby(["view", "metric", "split"], sort=False):
        chance = part["chance"].mean()
        label = str(metric) if side == FROZEN else f"{side} {metric}"
        yield Estimate(float(part["value"].mean()), n=int(part["n"].sum())).row(
            name,
            f"{label} ({spots})" if metric in SECTION_METRICS else label,
            split=split,
            direction=None,
            gallery=None,
            chance=None if np.isnan(chance) else float(chance),
        )


def _ridge(probes: Sequence[pd.DataFrame], view: str) -> pd.Series | None:
    """Return the value of every unit, the mean over trainings and folds."""
    table = pd.concat(probes, ignore_index=True)
    part = table[(table["metric"] == RIDGE) & (table["view"] == view)]
    return None if part.empty else part.groupby("unit", sort=True)["value"].mean()


def _gain(
    arm: Arm, probes: Sequence[pd.DataFrame], split: str, num_resamples: int, seed: int
) -> Iterator[Row]:
    ours, frozen = _ridge(probes, IMAGE), _ridge(probes, FROZEN)
    if ours is not None and frozen is not None:
        yield _paired(ours, frozen, f"{arm.name} - {FROZEN}", RIDGE, split, num_resamples, seed)


def _differences(
    arm: Arm,
    ours: Sequence[Judged],
    other: Sequence[Judged],
    split: str,
    num_resamples: int,
    seed: int,
) -> Iterator[Row]:
    """Return this arm minus the one with other negatives, paired by unit."""
    name = f"{arm.name} - any"
    tables = [_recall_table(each) for each in (ours, other)]
    shares = []
    for table in tables:
        true = table[table["pairs"] == TRUE_PAIRS]
        share = true.assign(share=true["hits"] / true["queries"])
        shares.append(share.groupby([*_GALLERY[1:], "unit"], sort=False)["share"].mean())
    for key, part in (shares[0] - shares[1]).groupby(_GALLERY[1:], sort=False):
        scope, direction, size, k = map(str, key)
        found = over_units(part.to_numpy(), num_resamples=num_resamples, seed=seed)
        metric = recall_name(k, size, scope)
        yield found.row(name, metric, split=split, direction=direction, gallery=None, chance=None)
    ridges = [_ridge([each.tables["probes"] for each in both], IMAGE) for both in (ours, other)]
    if ridges[0] is not None and ridges[1] is not None:
        yield _paired(ridges[0], ridges[1], name, RIDGE, split, num_resamples, seed)


def _paired(
    first: pd.Series,
    second: pd.Series,
    name: str,
    metric: str,
    split: str,
    num_resamples: int,
    seed: int,
) -> Row:
    found = over_units((first - second).to_numpy(), num_resamples=num_resamples, seed=seed)
    return found.row(name, metric, split=split, direction=None, gallery=None, chance=None)
