"""Mask-budget curves: how well a run predicts when only its best bins are open.

A bin that is kept has mask 1 and every other learned bin has mask 0; promoters stay open and
excluded bins closed, as the model forces them. The bins are ranked over all genes together, as in
calling, so a gene may keep none. The same number of bins is open for every way of ranking them.
Nothing is trained: a model that learned with a soft mask has not seen masks of 0 and 1, so errors
compare rankings at one budget; across budgets the correlation is the safer reading.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.dataset.samples import Batch, gene_window
from seq2exp.dataset.store import Dataset
from seq2exp.elements.compare import genes_of
from seq2exp.elements.judging import Row, rows_text
from seq2exp.elements.masks import FREE, GeneMasks
from seq2exp.elements.rivals import Rivals
from seq2exp.elements.scored import MODEL
from seq2exp.training.metrics import METRICS, bootstrap_draws, interval
from seq2exp.training.module import forward_batch
from seq2exp.training.predict import iterate
from seq2exp.training.run import TrainedRun

__all__ = [
    "OPEN",
    "OWN",
    "PROMOTER_ONLY",
    "RANDOM",
    "BudgetConfig",
    "BudgetCurve",
    "budget_curve",
]

RANDOM = "random"
PROMOTER_ONLY = "promoter only"
"""Every learned bin closed."""
OPEN = "all bins open"
OWN = "own mask"
"""The mask the model makes itself."""
_REFERENCES = (PROMOTER_ONLY, OPEN, OWN)
_METRICS = ("mse", "pearson")
_SIGN = {"mse": -1.0, "pearson": 1.0}

Float = NDArray[np.float64]


@dataclass(frozen=True)
class BudgetConfig:
    """What is kept open, and for which genes."""

    split: str = "test"
    """Split whose genes are predicted, or all."""
    budgets: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2)
    """Shares of the learned bins of all these genes."""
    num_resamples: int = 1000
    """Bootstrap resamples of genes."""
    seed: int = 0
    """Seed of the resamples, of the random ranking and of ties."""

    def __post_init__(self) -> None:
        if not self.budgets or not all(0 < value < 1 for value in self.budgets):
            raise ConfigError(
                facts(
                    "budgets",
                    found=self.budgets,
                    expected="values between 0 and 1",
                    fix="change them",
                )
            )


@dataclass(frozen=True, eq=False)
class BudgetCurve:
    """Prediction error by budget.

    Attributes
    ----------
    rows : list of dict
        Metrics ``curve_mse@<budget>`` and ``curve_pearson@<budget>``, means over the label
        samples, for every ranking; without a budget for the three references. Rows named ``mask -
        <rival>`` are paired differences, positive when the mask is better.
    methods : list of str
        Rankings, the mask first.
    budgets : list of float
    info : dict
        Genes, learned bins, bins kept at each budget.
    """

    rows: list[Row]
    methods: list[str]
    budgets: list[float]
    info: dict[str, Any]

    @property
    def text(self) -> str:
        """The numbers as tables for the terminal."""
        title = f"Prediction of {self.info['genes']} genes with the best bins open"
        parts = []
        for metric in _METRICS:
            label = f"curve_{metric}"
            metrics = [f"{label}@{budget:g}" for budget in self.budgets]
            rows = [row for row in self.rows if row["name"] not in _REFERENCES]
            parts.append(rows_text(title, rows, metrics))
            rows = [row for row in self.rows if row["name"] in _REFERENCES]
            parts.append(rows_text("For reference", rows, [label]))
        return "\n\n".join(parts)


def budget_curve(
    run: TrainedRun,
    dataset: Dataset,
    masks: GeneMasks,
    *,
    rivals: Mapping[str, str],
    config: BudgetConfig | None = None,
    batch_size: int = 16,
    workers: int = 0,
    progress: bool = False,
) -> BudgetCurve:
    """Predict with the best bins open, for every ranking and budget.

    Parameters
    ----------
    run : TrainedRun
        Of which the masks are.
    dataset : Dataset
    masks : GeneMasks
    rivals : mapping of role to name
        Scores of :class:`~seq2exp.elements.rivals.Rivals` that rank bins beside the mask.
    config : BudgetConfig, optional
    batch_size, workers, progress
        As in :func:`seq2exp.training.predict.predict`.

    Raises
    ------
    ConfigError
        The model takes no mask, or reads other windows than the masks have.
    InputError
        No gene of the split has a label.
    """
    config = config or BudgetConfig()
    _require_fit(run, masks)
    genes, observed = _labelled(run, dataset, masks, config.split)
    ranks, num_free = _ranks(masks, dataset, genes, list(rivals.values()), config.seed)
    kept = {budget: int(np.floor(budget * num_free)) for budget in config.budgets}
    plan = [(name, budget) for name in ranks for budget in config.budgets]
    models = [*plan, (PROMOTER_ONLY, 0.0), (OPEN, 1.0), (OWN, None)]
    predicted = _predict(
        run, dataset, masks, genes, ranks, kept | {0.0: 0, 1.0: num_free}, models,
        options={"batch_size": batch_size, "workers": workers, "progress": progress},
    )  # fmt: skip
    rows = _rows(observed, predicted, models, config)
    info = {
        "genes": int(genes.size),
        "samples": list(run.card.samples),
        "learned_bins": num_free,
        "kept_bins": {f"{budget:g}": count for budget, count in kept.items()},
        "split": config.split,
    }
    return BudgetCurve(rows, list(ranks), list(config.budgets), info)


def _require_fit(run: TrainedRun, masks: GeneMasks) -> None:
    data = run.card.data
    theirs = (masks.num_bins, masks.bin_size)
    ours = (data.window_bp // data.bin_size, data.bin_size)
    takes = all("mask_BN" in inspect.signature(m.forward).parameters for m in run.models)
    if theirs != ours or not takes:
        raise ConfigError(
            facts(
                f"run {run.folder}",
                found="a model that takes no mask" if not takes else f"{ours} (bins, bases each)",
                expected="a model that can be given a mask" if not takes else f"{theirs}",
                fix="give the run that the element map was made of",
            )
        )


def _labelled(
    run: TrainedRun, dataset: Dataset, masks: GeneMasks, split: str
) -> tuple[NDArray[np.int64], Float]:
    """Return the rows of the masks whose genes have a label, and the labels."""
    genes = genes_of(masks, split)
    known = dataset.manifest.expression.samples
    missing = [name for name in run.card.samples if name not in known]
    columns = [known.index(name) for name in run.card.samples if name in known]
    rows = masks.genes["row"].to_numpy(np.int64)[genes]
    observed = np.asarray(dataset.expression)[rows][:, columns].astype(np.float64)
    labelled = np.isfinite(observed).any(axis=1)
    if missing or labelled.sum() < 3:
        raise InputError(
            facts(
                f"dataset {dataset.root}",
                found=f"{int(labelled.sum())} labelled genes of split {split}"
                + (f", no label {', '.join(missing)}" if missing else ""),
                expected="three or more, with the labels of the run",
                fix="choose another split",
            )
        )
    return genes[labelled], observed[labelled]


def _ranks(
    masks: GeneMasks, dataset: Dataset, genes: NDArray[np.int64], rivals: list[str], seed: int
) -> tuple[dict[str, NDArray[np.int64]], int]:
    """Return the place of every learned bin among those of all genes, best first.

    Forced bins come after the last. Ties are broken at random, the same for every ranking.
    """
    source = Rivals(masks, dataset)
    free = np.asarray(masks.forced[genes]) == FREE
    random = np.random.default_rng(seed)
    scores = {MODEL: np.asarray(masks.mask[genes], dtype=np.float64)}
    scores |= {name: np.zeros(free.shape) for name in dict.fromkeys(rivals)}
    for number, gene in enumerate(genes.tolist()):
        found = source.scores(gene) | source.parts(gene)
        for name in scores.keys() - {MODEL}:
            scores[name][number] = found[name]
    scores[RANDOM] = random.random(free.shape)
    noise = random.random(int(free.sum()))
    ranks = {}
    for name, values in scores.items():
        order = np.lexsort((noise, -values[free]))
        place = np.empty(order.size, dtype=np.int64)
        place[order] = np.arange(order.size)
        ranks[name] = np.full(free.shape, order.size, dtype=np.int64)
        ranks[name][free] = place
    return ranks, int(free.sum())


def _predict(
    run: TrainedRun,
    dataset: Dataset,
    masks: GeneMasks,
    genes: NDArray[np.int64],
    ranks: Mapping[str, NDArray[np.int64]],
    kept: Mapping[float, int],
    models: list[tuple[str, float | None]],
    *,
    options: Mapping[str, Any],
) -> Float:
    """Return predictions, shape (rankings and budgets, genes, label samples)."""
    rows = masks.genes["row"].to_numpy(np.int64)[genes]
    place = {int(row): number for number, row in enumerate(rows)}
    flip = np.array([gene_window(dataset, int(row), run.card.data).reverse for row in rows])
    found = np.full((len(models), genes.size, len(run.card.samples)), np.nan)

    def forward(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        here = np.array([place[int(row)] for row in batch.index_B.tolist()])
        outputs = []
        for name, budget in models:
            if budget is None:
                outputs.append(forward_batch(model, batch).expression_BK)
                continue
            rank_BN = ranks[name if name in ranks else MODEL][here]
            mask_BN = (rank_BN < kept[budget]).astype(np.float32)
            mask_BN[flip[here]] = mask_BN[flip[here], ::-1]
            given = torch.from_numpy(mask_BN).to(batch.codes_BL.device)
            outputs.append(forward_batch(model, batch, mask_BN=given).expression_BK)
        return torch.stack(outputs).float()

    for batch, members in iterate(run, dataset, rows, forward=forward, **options):
        here = [place[int(row)] for row in batch.index_B.tolist()]
        found[:, here] = torch.stack(members).mean(dim=0).cpu().numpy()
    return found


def _rows(
    observed: Float,
    predicted: Float,
    models: list[tuple[str, float | None]],
    config: BudgetConfig,
) -> list[Row]:
    """Return metrics with intervals, and the paired differences at every budget."""
    draws = bootstrap_draws(
        observed, predicted, _METRICS, num_resamples=config.num_resamples, seed=config.seed
    )
    values = {metric: _values(observed, predicted, metric) for metric in _METRICS}
    rows = []
    for metric in _METRICS:
        mean = _mean(draws[metric])
        for number, (name, budget) in enumerate(models):
            label = f"curve_{metric}" + (f"@{budget:g}" if name not in _REFERENCES else "")
            estimate = interval(values[metric][number], mean[:, number], n=len(observed))
            rows.append(estimate.row(name, label, split=config.split))
            if name in (MODEL, *_REFERENCES):
                continue
            own = models.index((MODEL, budget))
            sign = _SIGN[metric]
            value = sign * (values[metric][own] - values[metric][number])
            gap = sign * (mean[:, own] - mean[:, number])
            estimate = interval(value, gap, n=len(observed))
            rows.append(estimate.row(f"{MODEL} - {name}", label, split=config.split))
    return rows


def _mean(draws: Float) -> Float:
    """Return the mean over label samples of those that are defined."""
    defined = np.isfinite(draws)
    total = np.where(defined, draws, 0.0).sum(axis=-1)
    count = defined.sum(axis=-1)
    mean: Float = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


def _values(observed: Float, predicted: Float, metric: str) -> Float:
    found = np.full((len(predicted), observed.shape[1]), np.nan)
    for label in range(observed.shape[1]):
        known = np.isfinite(observed[:, label])
        if known.sum() < 2:
            continue
        for number, guess in enumerate(predicted[:, known, label]):
            found[number, label] = METRICS[metric](observed[known, label], guess)
    return _mean(found)
