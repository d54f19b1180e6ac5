"""How much of an alignment is the section: the batch-effect report of HESCAPE.

Axes: S spots, D features, G genes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.spatial.probes import ALPHAS, Probe, logistic_probe, ridge_probe
from seq2exp.spatial.recall import recall_table
from seq2exp.training.metrics import Estimate, Row

__all__ = [
    "SECTION_METRICS",
    "batch_effect_rows",
    "between_share",
    "contrastive_gain",
    "section_rows",
    "section_silhouette",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
SECTION_METRICS = ("section accuracy", "section silhouette", "variance between sections")
"""What :func:`section_rows` measures."""
_MOST_SPOTS = 2000


def between_share(embedding_SD: NDArray[np.floating], section_S: Integers) -> float:
    """Return the share of the variance that lies between the means of sections, 0 to 1."""
    values = np.asarray(embedding_SD, np.float64)
    centred = values - values.mean(axis=0)
    total = (centred**2).sum()
    means = np.zeros_like(centred)
    for section in np.unique(section_S):
        rows = section_S == section
        means[rows] = centred[rows].mean(axis=0)
    return float((means**2).sum() / total) if total > 0 else 0.0


def section_silhouette(
    embedding_SD: NDArray[np.floating], section_S: Integers, *, seed: int = 0
) -> float:
    """Return the silhouette of the sections (-1 to 1; 0: they overlap), of 2,000 spots at most."""
    from sklearn.metrics import silhouette_score

    values = np.asarray(embedding_SD, np.float64)
    rows = np.random.default_rng(seed).permutation(len(values))[:_MOST_SPOTS]
    if not 1 < len(np.unique(section_S[rows])) < len(rows):
        return float("nan")
    return float(silhouette_score(values[rows], section_S[rows]))


def contrastive_gain(
    contrastive: Probe, frozen: Probe, *, num_resamples: int = 1000, seed: int = 0
) -> Estimate:
    """Return how much better ridge reads expression from the aligned than from the frozen features.

    Patients (or sections, of a single patient) are resampled in pairs; a single one gives no
    interval. ``n`` is their number.

    Raises
    ------
    InputError
        The two held out other groups.
    """
    if contrastive.groups != frozen.groups or set(contrastive.by_group) != set(frozen.by_group):
        raise InputError(
            facts(
                "contrastive gain",
                found="probes with other folds",
                expected="the same patients held out",
                fix="probe the same spots",
            )
        )
    names = sorted(contrastive.by_group)
    gain = np.array([contrastive.by_group[name] - frozen.by_group[name] for name in names])
    if len(gain) < 2:
        return Estimate(float(gain.mean()), float("nan"), float("nan"), len(gain))
    random = np.random.default_rng(seed)
    draws = gain[random.integers(0, len(gain), (num_resamples, len(gain)))].mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(float(gain.mean()), float(low), float(high), len(gain))


def section_rows(
    image_SD: NDArray[np.floating],
    gene_SD: NDArray[np.floating],
    *,
    section_S: Integers,
    split: str = "held-out spots",
    seed: int = 0,
) -> list[Row]:
    """Return how well both embeddings tell sections apart, as rows with ``chance``.

    Parameters
    ----------
    image_SD, gene_SD : float arrays, shape (num_spots, width)
    section_S : int64 array, shape (num_spots,)
        Of two sections at least.
    split : str
        Which spots these are.
    seed : int
    """
    rows: list[Row] = []
    for name, values in (("image", _unit(image_SD)), ("genes", _unit(gene_SD))):
        n = len(values)
        probe = logistic_probe(values, section_S, seed=seed)
        accuracy = Estimate(probe.value, n=n)
        rows.append(accuracy.row(name, SECTION_METRICS[0], split=split, chance=probe.chance))
        others = (
            section_silhouette(values, section_S, seed=seed),
            between_share(values, section_S),
        )
        for metric, value in zip(SECTION_METRICS[1:], others, strict=True):
            rows.append(Estimate(value, n=n).row(name, metric, split=split, chance=None))
    return rows


def batch_effect_rows(
    image_SD: NDArray[np.floating],
    gene_SD: NDArray[np.floating],
    *,
    frozen_SD: NDArray[np.floating],
    labels_SG: NDArray[np.floating],
    section_S: Integers,
    patient_S: Integers,
    spot_S: Integers,
    size: int = 64,
    alphas: Sequence[float] = ALPHAS,
    seed: int = 0,
) -> list[Row]:
    """Return the report as rows of name, metric, split, chance, value, low, high and n.

    Parameters
    ----------
    image_SD, gene_SD : float arrays, shape (num_spots, width)
        Embeddings of both towers, of held-out spots.
    frozen_SD : float array, shape (num_spots, num_features)
        What the image tower reads.
    labels_SG : float array, shape (num_spots, num_genes)
    section_S, patient_S, spot_S : int64 arrays, shape (num_spots,)
    size : int
        Spots of a gallery.
    alphas : sequence of float
        Penalties of the ridge.
    seed : int
    """
    rows = section_rows(image_SD, gene_SD, section_S=section_S, seed=seed)

    def add(
        name: str, metric: str, value: float | Estimate, n: int, chance: float | None = None
    ) -> None:
        found = value if isinstance(value, Estimate) else Estimate(value, n=n)
        rows.append(found.row(name, metric, split="held-out spots", chance=chance))

    table = recall_table(
        image_SD, gene_SD, section_S=section_S, spot_S=spot_S, sizes=(size,), ks=(5,), seed=seed
    )
    for row in table.to_dict("records"):
        metric = f"recall@5 of {size}, {row['scope']} sections"
        add(str(row["direction"]), metric, row["recall"], row["num_queries"], row["chance"])
    probes = [
        ridge_probe(x, labels_SG, patient_S=patient_S, section_S=section_S, alphas=alphas)
        for x in (_unit(image_SD), frozen_SD)
    ]
    for name, probe in zip(("image", "frozen"), probes, strict=True):
        add(name, f"ridge pearson, {probe.groups}s held out", probe.value, len(probe.by_group), 0.0)
    gain = contrastive_gain(*probes, seed=seed)
    kind = probes[0].groups
    drawn = f"{kind}s resampled" if gain.n > 1 else f"n = 1 {kind}"
    add("image - frozen", f"ridge pearson, {drawn}", gain, gain.n, 0.0)
    return rows


def _unit(values_SD: NDArray[np.floating]) -> Floats:
    values = np.asarray(values_SD, np.float64)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit: Floats = values / np.where(length > 0, length, 1.0)
    return unit
