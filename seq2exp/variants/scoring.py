"""From predictions of both alleles to the columns of scores of a run.

Shapes: C comparisons, V columns; further letters as in :mod:`seq2exp.variants.arrays`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.interpret.target import output_of
from seq2exp.models.registry import has_mask
from seq2exp.training.run import TrainedRun
from seq2exp.variants.arrays import Compared, Pair
from seq2exp.variants.choice import choose_scorers, columns_of
from seq2exp.variants.columns import ScoreColumn
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.ensemble import ensemble
from seq2exp.variants.scorers import Scorer
from seq2exp.variants.units import LabelUnit

__all__ = ["Scoring", "make_scoring"]


@dataclass(frozen=True)
class Scoring:
    """Which scores are computed, in the order of their columns; V counts those computed here.

    Attributes
    ----------
    columns : list of ScoreColumn
    scorers : list of Scorer
    samples : list of int
        Outputs of the model that are scored.
    label : LabelUnit
    how : dict of str to str
        Key of ``seq2exp.variants.ensemble.ENSEMBLES`` for every kind of arrays.
    with_sd : bool
        A column of the spread follows every score.
    """

    columns: list[ScoreColumn]
    scorers: list[Scorer]
    samples: list[int]
    label: LabelUnit
    how: dict[str, str]
    with_sd: bool

    @property
    def computed(self) -> list[ScoreColumn]:
        """Columns that `score` gives: scores and their spread."""
        return [column for column in self.columns if column.kind in ("score", "sd")]

    @property
    def is_score_V(self) -> NDArray[np.bool_]:
        """Which of them are scores."""
        return np.array([column.kind == "score" for column in self.computed], dtype=np.bool_)

    @property
    def is_expression_V(self) -> NDArray[np.bool_]:
        """Which of them are scores of predicted expression."""
        names = {scorer.name for scorer in self.scorers if scorer.needs == "expression"}
        found = [c.kind == "score" and c.scorer in names for c in self.computed]
        return np.array(found, dtype=np.bool_)

    @property
    def fixed(self) -> bool:
        """Whether predictions under the mask of the reference are needed."""
        return any(scorer.also == "fixed" for scorer in self.scorers)

    def score(self, compared: Compared, sign_C: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the scores of comparisons, shape (C, V).

        Parameters
        ----------
        compared : Compared
        sign_C : int array
            -1 where the comparison runs from ALT to REF: it turns signed scores around.
        """
        parts: list[NDArray[np.float64]] = []
        for scorer in self.scorers:
            before, after = self._arrays(scorer, compared)
            function: Any = scorer.function
            inside = None
            if scorer.needs == "expression":
                function = scorer.of_predictions(self.label)
            elif scorer.needs in ("mask", "profile"):
                inside = np.ones(before.shape[:3], dtype=np.bool_)
            how = self.how[scorer.needs]
            found = ensemble(function, before, after, inside_M=inside, how=how)
            score = _as_columns(found.score)
            if scorer.signed:
                # + 0 makes 0 of -0.
                score = score * sign_C[:, None] + 0.0
            sd = _as_columns(found.sd)
            for column in range(score.shape[1]):
                parts.append(score[:, column])
                if self.with_sd:
                    parts.append(sd[:, column])
        # Linear values of far too high predictions are beyond float32: no number, not infinity.
        with np.errstate(over="ignore"):
            scores = np.stack(parts, axis=1).astype(np.float32)
        return np.where(np.isfinite(scores), scores, np.float32(np.nan))

    def _arrays(self, scorer: Scorer, compared: Compared) -> Pair:
        if scorer.needs == "expression":
            pair = compared.fixed_ECK if scorer.also == "fixed" else compared.expression_ECK
            before, after = _there(pair)
            return before[..., self.samples], after[..., self.samples]
        if scorer.needs == "mask":
            return _there(compared.mask_ECW)
        if scorer.needs == "profile":
            return _there(compared.tracks_ECWT)
        return compared.embedding_ECD


def _there(pair: Pair | None) -> Pair:
    """Narrow the type: scores that need what is not there are refused before."""
    if pair is None:
        raise ValueError
    return pair


def _as_columns(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[:, None] if values.ndim == 1 else values


def make_scoring(
    run: TrainedRun, config: ScoreConfig, *, num_members: int, with_quantile: bool = False
) -> Scoring:
    """Choose the scores that were asked for and that the models can give.

    Parameters
    ----------
    run : TrainedRun
    config : ScoreConfig
    num_members : int
        Members of the run times views; of several the spread is given.
    with_quantile : bool
        Columns of quantiles.

    Raises
    ------
    ConfigError
        A score or a label that the models do not have.
    """
    label = _label_unit(run)
    names = list(config.scorers) or None
    scorers = choose_scorers(names, offers=_offers(run, config), label=label)
    chosen = _samples(run, config)
    how = _how(config, num_members // len(run.models))
    columns: list[ScoreColumn] = []
    with_sd = num_members > 1
    for scorer in scorers:
        profile = scorer.needs == "profile"
        columns += columns_of(
            [scorer],
            _track_names(run) if profile else [run.card.samples[k] for k in chosen],
            label=LabelUnit("signal") if profile else label,
            ensemble=how[scorer.needs],
            with_sd=with_sd,
            with_p=config.null_draws > 0,
            with_quantile=with_quantile,
            with_haplotypes=config.context != "reference",
        )
    return Scoring(columns, scorers, chosen, label, how, with_sd)


def _how(config: ScoreConfig, num_views: int) -> dict[str, str]:
    """Return how members are averaged, by what is compared.

    States of different members have no axes in common, and bins of shifted windows are other bases,
    as are those of the other strand, by one: there each member is scored first.
    """
    of_bins = config.ensemble if num_views == 1 else "score"
    return {
        "expression": config.ensemble,
        "mask": of_bins,
        "profile": of_bins,
        "embedding": "score",
    }


def _label_unit(run: TrainedRun) -> LabelUnit:
    """Return the unit of predictions; the outputs of a cohort run are no expression."""
    if run.card.samples == ["level", "difference"]:
        return LabelUnit("log-scaled expression", "none")
    return LabelUnit(run.card.expression_unit, run.card.expression_transform)


def _offers(run: TrainedRun, config: ScoreConfig) -> set[str]:
    masked = all(has_mask(model) for model in run.models)
    if config.method == "gradient":
        return {"expression", "fixed"} if masked else {"expression"}
    offers = {"expression", "embedding"}
    if masked:
        offers |= {"mask", "fixed"}
    if _track_names(run):
        offers.add("profile")
    return offers


def _track_names(run: TrainedRun) -> list[str]:
    """Return the tracks that the generator predicts."""
    model: Any = run.models[0]
    if getattr(model, "track_head", None) is None:
        return []
    return [run.card.tracks[index] for index in model.config.target_tracks]


def _samples(run: TrainedRun, config: ScoreConfig) -> list[int]:
    if not config.samples:
        return list(range(len(run.card.samples)))
    found = [output_of(run, name) for name in config.samples]
    return [index for index in found if index is not None]
