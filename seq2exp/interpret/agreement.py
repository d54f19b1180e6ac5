"""Does the mask agree with the model's own use? Numbers over sites, with intervals over genes.

Genes are resampled, never sites, because the sites of a gene are not independent; all numbers see
the same resamples.

Shapes: S sites, G genes, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.interpret.checks import Checked
from seq2exp.interpret.sites import OK
from seq2exp.training.metrics import Resamples, interval, resample_counts

__all__ = [
    "GeneBootstrap",
    "add_p_values",
    "agreement_rows",
    "empirical_p",
    "per_gene",
    "weighted_auroc",
]

Float = NDArray[np.float64]
_MIN_DECOYS = 50
_MAX_BANDS = 5
_MIN_SITES = 5
_LEVEL = 0.05
# Resamples times sites held at once.
_CHUNK = 4_000_000


class GeneBootstrap:
    """Resamples of genes and the rows that numbers become.

    Parameters
    ----------
    gene : sequence of str, shape (num_sites,)
        Gene of every site of the table.
    split : str
        Written into the rows.
    num_resamples, seed : int
    """

    def __init__(
        self, gene: pd.Series, *, split: str, num_resamples: int = 1000, seed: int = 0
    ) -> None:
        self.code, names = pd.factorize(gene)
        self.num_genes, self.split = len(names), split
        random = np.random.default_rng(seed)
        self.counts_RG = resample_counts(random, num_resamples, self.num_genes)

    def draws(self, keep: NDArray[np.bool_], function: Callable[[Float], Float]) -> Float:
        """Return a number per resample; `function` gets the counts of the kept sites, (R, S)."""
        code = self.code[keep]
        step = max(1, _CHUNK // max(code.size, 1))
        parts = [
            function(self.counts_RG[first : first + step][:, code])
            for first in range(0, len(self.counts_RG), step)
        ]
        return np.concatenate(parts)

    def row(
        self,
        name: str,
        metric: str,
        keep: NDArray[np.bool_],
        function: Callable[[Float], Float],
    ) -> dict[str, Any]:
        """Return the row of a number of the kept sites."""
        once = np.ones((1, int(keep.sum())))
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(function(once)[0]) if keep.any() else np.nan
            draws = self.draws(keep, function) if keep.any() else np.empty(0)
        return self.finish(name, metric, value, draws, keep)

    def finish(
        self, name: str, metric: str, value: float, draws: Float, keep: NDArray[np.bool_]
    ) -> dict[str, Any]:
        """Return a row; numbers that are undefined are None."""
        found = interval(value, draws, n=int(np.unique(self.code[keep]).size))
        return found.row(name, metric, split=self.split)


def _mean_of(values: Float) -> Callable[[Float], Float]:
    def mean(counts_RS: Float) -> Float:
        found: Float = counts_RS @ values / counts_RS.sum(axis=1)
        return found

    return mean


def _spearman_of(first: Float, second: Float) -> Callable[[Float], Float]:
    return lambda counts_RS: Resamples(counts_RS, first).metric("spearman", second)


def weighted_auroc(label: NDArray[np.bool_], score: Float, counts_RS: Float) -> Float:
    """Return how often a positive outranks a negative, ties one half, for weighted sites.

    Parameters
    ----------
    label : bool array, shape (num_sites,)
    score : float array, shape (num_sites,)
    counts_RS : float array, shape (num_resamples, num_sites)

    Returns
    -------
    float array, shape (num_resamples,)
        NaN where a resample lacks either kind.
    """
    order = np.argsort(score, kind="stable")
    ordered, positive = score[order], label[order]
    new = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    counts = counts_RS[:, order]
    positives = np.add.reduceat(counts * positive, new, axis=1)
    negatives = np.add.reduceat(counts * ~positive, new, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives / 2
    total = positives.sum(axis=1) * negatives.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Float = (positives * below).sum(axis=1) / total
    return np.where(total > 0, found, np.nan)


def empirical_p(
    score: Float, distance: NDArray[np.int64], null: Float, null_distance: NDArray[np.int64]
) -> Float:
    """Return how often matched decoys reach a score: ``(1 + #{null >= score}) / (1 + n)``.

    Matched are the decoys of all genes in the same band of distance; bands are quantiles of the
    decoys' distances, at most five, of at least fifty decoys each where there are so many.

    Parameters
    ----------
    score, null : float arrays
        Of elements and of decoys.
    distance, null_distance : int arrays
        Signed distances from the TSS.
    """
    if null.size == 0:
        return np.full(score.size, np.nan)
    num_bands = int(np.clip(null.size // _MIN_DECOYS, 1, _MAX_BANDS))
    edges = np.quantile(np.abs(null_distance), np.linspace(0, 1, num_bands + 1)[1:-1])
    band, null_band = np.digitize(np.abs(distance), edges), np.digitize(abs(null_distance), edges)
    found = np.full(score.size, np.nan)
    for number in range(num_bands):
        pool = np.sort(null[null_band == number])
        mine = band == number
        reached = pool.size - np.searchsorted(pool, score[mine], side="left")
        found[mine] = (1 + reached) / (1 + pool.size)
    return found


def add_p_values(sites: pd.DataFrame) -> None:
    """Add ``p`` (of the effect) and ``gain_p`` to the elements of a table of sites."""
    ok = (sites["status"] == OK).to_numpy()
    element, decoy = (ok & (sites["kind"] == kind).to_numpy() for kind in ("element", "decoy"))
    distance = sites["distance"].to_numpy()
    for column, name in (("effect", "p"), ("gain", "gain_p")):
        values = sites[column].abs().to_numpy(np.float64)
        sites[name] = np.nan
        if np.isfinite(values[element]).all():
            found = empirical_p(values[element], distance[element], values[decoy], distance[decoy])
            sites.loc[element, name] = found


def agreement_rows(checked: Checked, *, split: str, seed: int = 0) -> list[dict[str, Any]]:
    """Return the numbers of the report.

    Returns
    -------
    list of dict
        name, metric, split, value, low, high, n (genes); docs/elements_check.md lists them. The
        rows of the mask are None for models without one.
    """
    sites = checked.sites
    if "p" not in sites:
        add_p_values(sites)
    boot = GeneBootstrap(sites["gene_id"], split=split, seed=seed)
    ok = (sites["status"] == OK).to_numpy()
    element = ok & (sites["kind"] == "element").to_numpy()
    decoy = ok & (sites["kind"] == "decoy").to_numpy()
    both = element | decoy
    effect = sites["effect"].to_numpy(np.float64)
    rows = _mask_rows(boot, sites, element, both)
    rows += [
        boot.row("elements", "mean effect", element, _mean_of(effect[element])),
        boot.row("decoys", "mean effect", decoy, _mean_of(effect[decoy])),
    ]
    if decoy.any():
        beyond = (sites["p"].to_numpy(np.float64) <= _LEVEL)[element].astype(np.float64)
        label, score = element[both], effect[both]
        rows += [
            boot.row("elements", f"share with p <= {_LEVEL}", element, _mean_of(beyond)),
            boot.row(
                "elements over decoys", "auroc", both, lambda c: weighted_auroc(label, score, c)
            ),
        ]
    rows += _gain_rows(boot, sites, element, decoy)
    return rows + _swap_rows(checked, split=split, seed=seed)


def _mask_rows(
    boot: GeneBootstrap,
    sites: pd.DataFrame,
    element: NDArray[np.bool_],
    both: NDArray[np.bool_],
) -> list[dict[str, Any]]:
    mask, effect = sites["mask_mean"].to_numpy(np.float64), sites["effect"].to_numpy(np.float64)
    known = np.isfinite(mask)
    rows = []
    for name, keep in (("mask, elements and decoys", both), ("mask, elements", element)):
        keep = keep & known
        rows.append(boot.row(name, "spearman", keep, _spearman_of(mask[keep], effect[keep])))
    table = per_gene(sites)
    found = table.set_index("gene_id")["spearman"]
    first = ~sites["gene_id"].duplicated().to_numpy()
    value = sites["gene_id"].map(found).to_numpy(np.float64)
    keep = first & np.isfinite(value)
    rows.append(boot.row("mask, per gene", "mean spearman", keep, _mean_of(value[keep])))
    return rows


def _gain_rows(
    boot: GeneBootstrap,
    sites: pd.DataFrame,
    element: NDArray[np.bool_],
    decoy: NDArray[np.bool_],
) -> list[dict[str, Any]]:
    gain, delta = sites["gain"].to_numpy(np.float64), sites["delta"].to_numpy(np.float64)
    element, decoy = element & np.isfinite(gain), decoy & np.isfinite(gain)
    if not element.any():
        return []
    rows = [
        boot.row("elements", "mean gain alone", element, _mean_of(gain[element])),
        boot.row("decoys", "mean gain alone", decoy, _mean_of(gain[decoy])),
        boot.row(
            "gain alone and loss by deletion",
            "spearman",
            element,
            _spearman_of(gain[element], -delta[element]),
        ),
    ]
    if decoy.any():
        beyond = (sites["gain_p"].to_numpy(np.float64) <= _LEVEL)[element].astype(np.float64)
        rows.append(
            boot.row("elements", f"share with gain p <= {_LEVEL}", element, _mean_of(beyond))
        )
    return rows


def _swap_rows(checked: Checked, *, split: str, seed: int) -> list[dict[str, Any]]:
    """Compare transplanted effects with those of the element at home and of the place."""
    swaps = checked.swaps
    if swaps.empty:
        return []
    loss = -checked.sites[checked.sites["kind"] == "element"].set_index("name")["delta"]
    loss = loss[~loss.index.duplicated()]
    there = [f"effect_there:{sample}" for sample in checked.samples]
    effect = swaps[there].mean(axis=1).to_numpy(np.float64)
    sequence = swaps["donor"].map(loss).to_numpy(np.float64)
    place = swaps["name"].map(loss).to_numpy(np.float64)
    boot = GeneBootstrap(swaps["gene_id"], split=split, seed=seed)
    every = np.ones(len(swaps), dtype=np.bool_)
    follows = {"sequence": _spearman_of(effect, sequence), "place": _spearman_of(effect, place)}
    rows = [
        boot.row(f"swap, effect and that of the {name}", "spearman", every, function)
        for name, function in follows.items()
    ]

    def difference(counts_RS: Float) -> Float:
        return follows["sequence"](counts_RS) - follows["place"](counts_RS)

    return [*rows, boot.row("swap, sequence - place", "spearman", every, difference)]


def _strongest(element: pd.DataFrame) -> str:
    if element.empty:
        return ""
    return str(element["name"].iloc[int(element["effect"].to_numpy().argmax())])


def per_gene(sites: pd.DataFrame) -> pd.DataFrame:
    """Return one row per gene: sites, effects, and the rank correlation of mask and effect.

    ``spearman`` is over the elements and decoys of the gene, NaN with fewer than five of them or
    without a mask.
    """
    ok = sites[(sites["status"] == OK) & sites["kind"].isin(["element", "decoy"])]
    rows = []
    for gene_id, part in ok.groupby("gene_id", sort=False):
        element = part[part["kind"] == "element"]
        known = part[part["mask_mean"].notna()]
        spearman = np.nan
        if len(known) >= _MIN_SITES:
            first, second = (known[name].to_numpy(np.float64) for name in ("mask_mean", "effect"))
            spearman = float(_spearman_of(first, second)(np.ones((1, len(known))))[0])
        rows.append(
            {
                "gene_id": gene_id,
                "symbol": part["symbol"].iloc[0],
                "elements": len(element),
                "decoys": len(part) - len(element),
                "strongest": _strongest(element),
                "largest_loss": -element["delta"].min() if len(element) else np.nan,
                "mean_effect": element["effect"].mean(),
                "mean_effect_decoys": part.loc[part["kind"] == "decoy", "effect"].mean(),
                "elements_p05": int((element["p"] <= _LEVEL).sum()) if "p" in element else 0,
                "spearman": spearman,
            }
        )
    return pd.DataFrame(rows)
