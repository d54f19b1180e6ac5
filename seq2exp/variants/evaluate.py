"""How well scores find known effects, beside controls, with intervals over genes.

The unit is a pair of a variant and a gene. Genes are resampled, or groups of neighbouring ones,
because pairs of one gene, and genes that share variants, are not independent. All scores see the
same resamples, so differences are paired.

Effects have a sign, distances and tracks have none. So there are two kinds of metrics: ``pearson``,
``spearman``, ``sign_agreement`` and ``sign_balanced`` compare signed scores with signed effects.
Most variants that do something destroy something, so that a score which is always negative has
many signs right; ``sign_balanced``, the mean over both directions, gives it one half, and
correlations belong beside controls with a minus before them. ``abs_spearman``
(rank correlation of their absolute values), ``auprc`` and ``linked_accuracy`` look at sizes alone,
where every control can take part.

Shapes: P pairs, G genes, R resamples, J pairs of a causal and a linked variant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.elements.precision import Ranking
from seq2exp.training.metrics import METRICS, Resamples, Row, interval, resample_counts
from seq2exp.variants.linkage import LinkedPairs

__all__ = ["SIGNED", "UNSIGNED", "EffectConfig", "EffectJudge"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SIGNED = ("pearson", "spearman", "sign_agreement", "sign_balanced")
"""Metrics of scores with a sign."""

UNSIGNED = ("abs_spearman", "auprc")
"""Metrics of the size of a score."""

# Counts of pairs held at once.
_CHUNK = 4_000_000


@dataclass(frozen=True)
class EffectConfig:
    """What counts as causal, and how intervals are made."""

    causal: float = 0.05
    """Smallest absolute effect of a causal variant, in the unit of the effects."""
    negligible: float = 1e-4
    """Smaller absolute effects are none."""
    num_resamples: int = 1000
    """Bootstrap resamples of genes."""
    seed: int = 0
    """Of the resamples."""


class EffectJudge:
    """Judges scores of variants by their true effects.

    Parameters
    ----------
    gene_P : array of labels, shape (num_pairs,)
        Gene of each pair.
    effect_P : float array, shape (num_pairs,)
        True effect of the variant on the gene.
    config : EffectConfig, optional
    group_P : array of labels, shape (num_pairs,), optional
        Groups of genes that are resampled together; every gene alone when not given.
    split : str, optional
        Written into the rows.

    Raises
    ------
    InputError
        There are no pairs, the arrays differ in length, or an effect is missing.
    """

    def __init__(
        self,
        gene_P: ArrayLike,
        effect_P: ArrayLike,
        config: EffectConfig | None = None,
        *,
        group_P: ArrayLike | None = None,
        split: str | None = None,
    ) -> None:
        self.config, self.split = config or EffectConfig(), split
        self.effect_P = np.asarray(effect_P, np.float64)
        self.gene_P = _numbered(gene_P)
        self.group_P = self.gene_P if group_P is None else _numbered(group_P)
        sizes = [self.effect_P.size, self.gene_P.size, self.group_P.size]
        if len(set(sizes)) > 1 or not self.effect_P.size:
            raise InputError(
                facts(
                    "effects",
                    found=f"{sizes[0]} effects, {sizes[1]} genes, {sizes[2]} groups",
                    expected="one of each per pair of a variant and a gene, and at least one pair",
                    fix="take all from one table",
                )
            )
        _require_finite("effects", self.effect_P)
        self._resampled: tuple[tuple[bytes, bool], list[Resamples]] | None = None
        random = np.random.default_rng(self.config.seed)
        self.counts_RG = resample_counts(
            random, self.config.num_resamples, int(self.group_P.max()) + 1
        )

    @property
    def causal_P(self) -> Bools:
        """Pairs whose absolute effect is at least that of a causal variant."""
        found: Bools = np.abs(self.effect_P) >= self.config.causal
        return found

    @property
    def idle_P(self) -> Bools:
        """Pairs without an effect."""
        found: Bools = np.abs(self.effect_P) < self.config.negligible
        return found

    def draws(
        self, metric: str, score_P: ArrayLike, where_P: Bools | None = None
    ) -> tuple[float, Floats]:
        """Return a metric of one score, and its resamples.

        Parameters
        ----------
        metric : str
            One of ``SIGNED`` or ``UNSIGNED``. ``sign_agreement`` is the share of causal pairs with
            the right sign, a score of 0 counting one half; ``sign_balanced`` the mean of that of
            pairs with more and of pairs with less; ``auprc`` the average precision of causal pairs
            among them and those without effect.
        score_P : float array
        where_P : bool array, optional
            Pairs that are judged; all when not given.

        Returns
        -------
        float, and float64 array of shape (num_resamples,)
            NaN where undefined.
        """
        score_P = np.asarray(score_P, np.float64)
        _require_finite("scores", score_P)
        kept_P = np.ones(score_P.size, np.bool_) if where_P is None else np.asarray(where_P)
        if metric == "sign_agreement":
            kept_P = kept_P & self.causal_P
            same_P = np.sign(score_P) * np.sign(self.effect_P)
            return self._share(kept_P, (same_P + 1) / 2)
        if metric == "sign_balanced":
            up_P = self.effect_P > 0
            up, down = (
                self.draws("sign_agreement", score_P, kept_P & part_P) for part_P in (up_P, ~up_P)
            )
            return (up[0] + down[0]) / 2, (up[1] + down[1]) / 2
        if metric == "auprc":
            kept_P = kept_P & (self.causal_P | self.idle_P)
            return self._auprc(np.abs(score_P), kept_P)
        if metric == "abs_spearman":
            return self._correlation("spearman", np.abs(self.effect_P), np.abs(score_P), kept_P)
        if metric in SIGNED:
            return self._correlation(metric, self.effect_P, score_P, kept_P)
        raise InputError(
            facts(
                "metric", found=metric, expected=f"one of {(*SIGNED, *UNSIGNED)}", fix="use one"
            )
        )  # fmt: skip

    def linked_draws(self, score_P: ArrayLike, pairs: LinkedPairs) -> tuple[float, Floats]:
        """Return how often a causal variant has the larger score than one linked with it.

        Ties count one half. Causal variants count alike, however many are linked with them.

        Parameters
        ----------
        score_P : float array
        pairs : LinkedPairs
            Numbers of pairs of variant and gene, both of the same gene.
        """
        size_P = np.abs(np.asarray(score_P, np.float64))
        _require_finite("scores", size_P)
        won_J = (np.sign(size_P[pairs.causal] - size_P[pairs.linked]) + 1) / 2
        causal, place = np.unique(pairs.causal, return_inverse=True)
        mean = np.bincount(place, weights=won_J) / np.maximum(np.bincount(place), 1)
        share_P, kept_P = np.zeros(size_P.size), np.zeros(size_P.size, np.bool_)
        share_P[causal], kept_P[causal] = mean, True
        return self._share(kept_P, share_P)

    def rows(
        self,
        scores: Mapping[str, ArrayLike],
        metrics: Sequence[str],
        *,
        reference: str | None = None,
        where_P: Bools | None = None,
        stratum: str | None = None,
    ) -> list[Row]:
        """Return metrics of several scores, and by how much one of them is better than the others.

        Parameters
        ----------
        scores : mapping of name to float array, shape (num_pairs,)
        metrics : sequence of str
            As in `draws`.
        reference : str, optional
            Name of a score; rows called ``REFERENCE - NAME`` have paired differences.
        where_P : bool array, optional
            Pairs that are judged.
        stratum : str, optional
            Written into the rows.

        Returns
        -------
        list of dict
            name, metric, split, stratum, num_causal, num_genes, value, low, high, n (pairs).
        """
        found = []
        for metric in metrics:
            drawn = {name: self.draws(metric, score, where_P) for name, score in scores.items()}
            used_P = self._used(metric, where_P)
            found += self._rows(metric, drawn, used_P, reference=reference, stratum=stratum)
        return found

    def linked_rows(
        self,
        scores: Mapping[str, ArrayLike],
        pairs: LinkedPairs,
        *,
        reference: str | None = None,
        stratum: str | None = None,
    ) -> list[Row]:
        """Return ``linked_accuracy`` of several scores, as `rows`; n counts causal variants."""
        drawn = {name: self.linked_draws(score, pairs) for name, score in scores.items()}
        used_P = np.zeros(self.effect_P.size, np.bool_)
        used_P[pairs.causal] = True
        return self._rows("linked_accuracy", drawn, used_P, reference=reference, stratum=stratum)

    def _rows(
        self,
        metric: str,
        drawn: Mapping[str, tuple[float, Floats]],
        used_P: Bools,
        *,
        reference: str | None,
        stratum: str | None,
    ) -> list[Row]:
        more = {
            "stratum": stratum,
            "num_causal": int((used_P & self.causal_P).sum()),
            "num_genes": int(np.unique(self.gene_P[used_P]).size),
        }
        n = int(used_P.sum())
        found = [
            interval(value, draws, n=n).row(name, metric, split=self.split, **more)
            for name, (value, draws) in drawn.items()
        ]
        for name, (value, draws) in drawn.items():
            if reference is not None and name != reference:
                best, best_draws = drawn[reference]
                better = interval(best - value, best_draws - draws, n=n)
                found.append(better.row(f"{reference} - {name}", metric, split=self.split, **more))
        return found

    def _used(self, metric: str, where_P: Bools | None) -> Bools:
        kept_P = np.ones(self.effect_P.size, np.bool_) if where_P is None else where_P
        if metric in ("sign_agreement", "sign_balanced"):
            return kept_P & self.causal_P
        return kept_P & (self.causal_P | self.idle_P) if metric == "auprc" else kept_P

    def _share(self, kept_P: Bools, value_P: Floats) -> tuple[float, Floats]:
        """Mean of values of some pairs, as a ratio of sums over groups."""
        group, num = self.group_P[kept_P], self.counts_RG.shape[1]
        pairs = np.bincount(group, minlength=num).astype(np.float64)
        total = np.bincount(group, weights=value_P[kept_P], minlength=num)
        bottom = self.counts_RG @ pairs
        draws = np.divide(
            self.counts_RG @ total, bottom, out=np.full(bottom.size, np.nan), where=bottom > 0
        )
        return (float(total.sum() / pairs.sum()) if group.size else math.nan), draws

    def _auprc(self, size_P: Floats, kept_P: Bools) -> tuple[float, Floats]:
        label_P = self.causal_P[kept_P]
        if not label_P.any():
            return self._undefined()
        num = self.counts_RG.shape[1]
        ranking = Ranking(label_P, size_P[kept_P], self.group_P[kept_P], num_genes=num)
        return ranking.average_precision(), ranking.average_precisions(self.counts_RG)

    def _correlation(
        self, metric: str, effect_P: Floats, score_P: Floats, kept_P: Bools
    ) -> tuple[float, Floats]:
        effect, score, group = effect_P[kept_P], score_P[kept_P], self.group_P[kept_P]
        if effect.size < 2:
            return self._undefined()
        key = (kept_P.tobytes(), effect_P is self.effect_P)
        if self._resampled is None or self._resampled[0] != key:
            # Ranks of the effects are the same for all scores.
            step = max(_CHUNK // effect.size, 1)
            starts = range(0, len(self.counts_RG), step)
            counts = [self.counts_RG[first : first + step, group] for first in starts]
            self._resampled = (key, [Resamples(part, effect) for part in counts])
        draws = [part.metric(metric, score) for part in self._resampled[1]]
        return METRICS[metric](effect, score), np.concatenate(draws)

    def _undefined(self) -> tuple[float, Floats]:
        return math.nan, np.full(len(self.counts_RG), np.nan)


def _numbered(labels: ArrayLike) -> NDArray[np.int64]:
    codes, _ = pd.factorize(np.asarray(labels), use_na_sentinel=False)
    return codes.astype(np.int64)


def _require_finite(what: str, values: Floats) -> None:
    missing = int((~np.isfinite(values)).sum())
    if missing:
        raise InputError(
            facts(
                what,
                found="missing values",
                expected="a number for every pair of a variant and a gene",
                fix="leave out pairs that a score lacks, for all scores alike",
                count=missing,
            )
        )
