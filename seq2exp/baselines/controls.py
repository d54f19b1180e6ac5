"""Fitted controls: what simple models make of the genes, tracks and words the model had.

Every control is fitted on the training split; what it may choose (penalty, extent, block weights)
is chosen on the validation split. No other gene is read before :meth:`FittedControl.predict`.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.baselines.features import (
    GeneFeatures,
    KmerSpan,
    ScalarSpan,
    TrackSpan,
    codon_spans,
    kmer_spans,
    track_spans,
)
from seq2exp.baselines.ridge import COARSE_ALPHAS, RELATIVE_ALPHAS, Ridge, block_weights, fit_ridge
from seq2exp.core.config import require_known
from seq2exp.core.errors import ConfigError, facts
from seq2exp.core.progress import track
from seq2exp.dataset.datamodule import labelled_rows
from seq2exp.dataset.samples import SampleConfig
from seq2exp.dataset.store import Dataset

__all__ = [
    "CONTROLS",
    "Control",
    "ControlData",
    "FittedControl",
    "fit_controls",
    "require_controls",
    "usual_controls",
]

Span = KmerSpan | TrackSpan | ScalarSpan | None
Matrix = NDArray[np.float64]

_TRACK_WEIGHTS = (0.25, 0.5, 1.0, 2.0)
_OTHER_WEIGHTS = (0.5, 1.0, 2.0, 4.0)
# Blocks in the order in which their settings are reconsidered together.
_ORDER = ("codons", "scalars", "kmers", "tracks")


@dataclass(frozen=True)
class Control:
    """A control that is fitted when a run is evaluated.

    Attributes
    ----------
    name : str
        Name in tables and files.
    title : str
        What it reads, for people.
    blocks : tuple of str
        Feature blocks: scalars, promoter, tracks, kmers, codons.
    kind : str
        mean, ridge or mlp.
    extra : bool
        Fitted only when asked for by name.
    """

    name: str
    title: str
    blocks: tuple[str, ...] = ()
    kind: str = "ridge"
    extra: bool = False


CONTROLS: tuple[Control, ...] = (
    Control("mean", "mean of the training genes", kind="mean"),
    Control("promoter_signal", "ridge: track signal at the promoter", ("promoter",)),
    Control("scalar_ridge", "ridge: scalar features", ("scalars",)),
    Control("scalar_mlp", "small neural network: scalar features", ("scalars",), kind="mlp"),
    Control("track_ridge", "ridge: track bins around the TSS", ("tracks",)),
    Control("kmer_ridge", "ridge: stranded 5-mers around the TSS", ("kmers",)),
    Control("track_kmer_ridge", "ridge: tracks + 5-mers", ("tracks", "kmers")),
    Control("all_ridge", "ridge: tracks + 5-mers + scalars", ("tracks", "kmers", "scalars")),
    # Where the TSS is a start codon (yeast), codon usage is known to follow expression.
    Control(
        "codon_ridge",
        "ridge: tracks + 5-mers + scalars + 3-mers from the TSS on by reading phase",
        ("tracks", "kmers", "scalars", "codons"),
        extra=True,
    ),
)


@dataclass(frozen=True)
class FittedControl:
    """A control after fitting, or the reason why there is none.

    Attributes
    ----------
    name, title : str
    settings : dict
        What was chosen on the validation split.
    reason : str
        Why the control is not applicable; empty when it is.
    predictor : callable, optional
        From rows of the gene table to predictions, shape (num_genes, num_labels).
    """

    name: str
    title: str
    settings: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    predictor: Callable[[NDArray[np.int64]], Matrix] | None = None

    def predict(self, rows: NDArray[np.int64]) -> Matrix:
        """Return predictions in the unit of the labels, shape (num_genes, num_labels).

        Raises
        ------
        ConfigError
            The control is not applicable.
        """
        if self.predictor is None:
            raise ConfigError(
                facts(
                    f"control {self.name}",
                    found=f"not applicable: {self.reason}",
                    expected="a fitted control",
                    fix="leave it out",
                )
            )
        return self.predictor(rows)


@dataclass(frozen=True)
class Part:
    """One block of a design: what is read, and its weight against the other blocks."""

    block: str
    span: Span = None
    weight: float = 1.0


Design = tuple[Part, ...]


class ControlData:
    """The training and validation genes as controls see them; features are made once.

    Parameters
    ----------
    dataset : Dataset
    config : SampleConfig
        What the model was given: window, tracks, features.
    samples : sequence of str
        Labels to predict, names of the dataset.

    Raises
    ------
    InputError
        The training or validation split has no labelled gene.
    """

    def __init__(self, dataset: Dataset, config: SampleConfig, samples: Sequence[str]) -> None:
        self.features = GeneFeatures(dataset, config)
        self.rows = {split: labelled_rows(dataset, split, config) for split in ("train", "valid")}
        columns = [dataset.manifest.expression.samples.index(name) for name in samples]
        self.labels = {
            split: dataset.expression[rows][:, columns].astype(np.float64)
            for split, rows in self.rows.items()
        }
        self.bin_size = dataset.manifest.bin_size
        self.mean = np.nanmean(self.labels["train"], axis=0)
        with warnings.catch_warnings():
            # A label without validation genes has no say in the choices.
            warnings.simplefilter("ignore", RuntimeWarning)
            self._baseline = np.nanmean((self.labels["valid"] - self.mean) ** 2, axis=0)
        self._matrices: dict[tuple[str, Span, str], NDArray[np.float32]] = {}
        self.scores: dict[Design, float] = {}

    def read(self, part: Part, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the columns of a part for any genes."""
        if isinstance(part.span, KmerSpan):
            return self.features.kmers(rows, part.span)
        if isinstance(part.span, TrackSpan):
            return self.features.track_bins(rows, part.span)
        if part.block == "promoter":
            return self.features.promoter(rows)
        scalars = self.features.scalars(rows)
        if isinstance(part.span, ScalarSpan) and part.span.products:
            return self._with_products(scalars)
        return scalars

    def _with_products(self, scalars: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scalars, standardised by the training genes, with their squares and products."""
        train = self.features.scalars(self.rows["train"])
        with warnings.catch_warnings():
            # A column without a known value stays NaN and is left out by the ridge.
            warnings.simplefilter("ignore", RuntimeWarning)
            mean, spread = np.nanmean(train, axis=0), np.nanstd(train, axis=0)
        x = (scalars - mean) / np.where(spread > 0, spread, 1.0)
        first, second = np.triu_indices(x.shape[1])
        return np.concatenate((x, x[:, first] * x[:, second]), axis=1)

    def matrix(self, part: Part, split: str) -> NDArray[np.float32]:
        """Return the columns of a part for the genes of a split."""
        key = (part.block, part.span, split)
        if key not in self._matrices:
            self._matrices[key] = self.read(part, self.rows[split])
        return self._matrices[key]

    def relative_error(self, error: NDArray[np.float64]) -> float:
        """Return validation errors over those of the mean predictor, averaged over labels."""
        known = np.isfinite(error) & (self._baseline > 0)
        return float(np.mean(error[known] / self._baseline[known])) if known.any() else 1.0


def fit_controls(
    dataset: Dataset,
    config: SampleConfig,
    samples: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    progress: bool = False,
) -> list[FittedControl]:
    """Fit the controls on the training genes of a dataset.

    Parameters
    ----------
    dataset : Dataset
    config : SampleConfig
        What the model was given; no control looks beyond its window.
    samples : sequence of str
        Labels to predict.
    names : sequence of str, optional
        Controls to fit; all but the extra ones when not given.
    progress : bool
        Show progress.

    Returns
    -------
    list of FittedControl
        In the order of :data:`CONTROLS`; those that need absent data carry the reason.

    Raises
    ------
    ConfigError
        A name is no control.
    InputError
        The training or validation split has no labelled gene.
    """
    wanted = usual_controls() if names is None else names
    require_controls(wanted)
    data = ControlData(dataset, config, samples)
    chosen = [control for control in CONTROLS if control.name in wanted]
    steps = track(chosen, total=len(chosen), label="controls", enabled=progress)
    return [_fit(control, data) for control in steps]


def require_controls(names: Sequence[str]) -> None:
    """Raise ConfigError unless every name is that of a fitted control."""
    known = [control.name for control in CONTROLS]
    for name in names:
        require_known("controls", name, known, expected="a fitted control")


def usual_controls() -> list[str]:
    """Return the names of the controls that are fitted when nothing else is asked for."""
    return [control.name for control in CONTROLS if not control.extra]


def _fit(control: Control, data: ControlData) -> FittedControl:
    missing = data.features.missing()
    absent = sorted({missing[block] for block in control.blocks if block in missing})
    blocks = tuple(block for block in control.blocks if block not in missing)
    # The strongest control takes what there is; others would no longer be what their name says.
    if absent and (control.name != "all_ridge" or len(blocks) < 2):
        return FittedControl(control.name, control.title, reason="; ".join(absent))
    if absent and blocks == ("tracks", "kmers"):
        reason = "; ".join([*absent, "the same as track_kmer_ridge"])
        return FittedControl(control.name, control.title, reason=reason)
    if control.kind == "mean":
        return _fit_mean(control, data)
    if control.kind == "mlp":
        from seq2exp.baselines.mlp import fit_mlp

        part = Part("scalars")
        mlp = fit_mlp(
            data.matrix(part, "train"),
            data.labels["train"],
            valid_columns=data.matrix(part, "valid"),
            valid_labels=data.labels["valid"],
        )
        return FittedControl(
            control.name,
            control.title,
            {"penalty": mlp.penalty, "features": data.features.scalar_names},
            predictor=lambda rows: mlp.predict(data.read(part, rows)),
        )
    title = control.title if not absent else "ridge: " + " + ".join(blocks)
    return _fit_design(replace(control, title=title), data, choose_design(data, blocks))


def _fit_mean(control: Control, data: ControlData) -> FittedControl:
    return FittedControl(
        control.name,
        control.title,
        {"value": data.mean.tolist()},
        predictor=lambda rows: np.tile(data.mean, (len(rows), 1)),
    )


def _fit_design(control: Control, data: ControlData, design: Design) -> FittedControl:
    ridge = _ridge(data, design, RELATIVE_ALPHAS)
    settings: dict[str, Any] = {"alpha": ridge.alpha.tolist()}
    settings["validation_error_over_mean"] = data.relative_error(ridge.error)
    for part in design:
        settings[part.block] = {"weight": part.weight}
        if part.span is not None:
            settings[part.block] |= asdict(part.span)
    return FittedControl(
        control.name,
        control.title,
        settings,
        predictor=lambda rows: ridge.predict(
            np.concatenate([data.read(part, rows) for part in design], axis=1)
        ),
    )


def _ridge(data: ControlData, design: Design, alphas: NDArray[np.float64]) -> Ridge:
    train = [data.matrix(part, "train") for part in design]
    valid = [data.matrix(part, "valid") for part in design]
    weights = block_weights([x.shape[1] for x in train], [part.weight for part in design])
    return fit_ridge(
        np.concatenate(train, axis=1),
        data.labels["train"],
        valid_columns=np.concatenate(valid, axis=1),
        valid_labels=data.labels["valid"],
        alphas=alphas * len(data.rows["train"]),
        column_weights=weights,
    )


def choose_design(data: ControlData, blocks: tuple[str, ...]) -> Design:
    """Return the spans and block weights with the smallest validation error.

    One block: all its spans are tried. Several: from the best of each, one pass over the weights
    and over the two ways of counting words; a full grid would choose too finely for a few hundred
    validation genes.
    """
    if blocks == ("kmers",):
        return (_best_kmers(data, _kmer_parts(data)),)
    if len(blocks) == 1:
        return min(((part,) for part in _parts(data, blocks[0])), key=lambda d: _score(data, d))
    design = tuple(choose_design(data, (block,))[0] for block in blocks)
    order = sorted(range(len(blocks)), key=lambda i: _ORDER.index(blocks[i]))
    for i in order:
        options = [(*design[:i], part, *design[i + 1 :]) for part in _moves(data, design[i])]
        design = min(options, key=lambda d: _score(data, d))
    return design


def _parts(data: ControlData, block: str) -> list[Part]:
    if block == "tracks":
        spans = track_spans(data.features.window_bp, bin_size=data.bin_size)
        return [Part(block, span) for span in spans]
    if block == "codons":
        return [Part(block, span) for span in codon_spans(data.features.window_bp)]
    return [Part(block)]


def _kmer_parts(data: ControlData) -> list[Part]:
    return [Part("kmers", span) for span in kmer_spans(data.features.window_bp)]


def _best_kmers(data: ControlData, parts: list[Part]) -> Part:
    """Return the best span, then the better of counts and their roots."""
    best = min(parts, key=lambda part: _score(data, (part,)))
    assert isinstance(best.span, KmerSpan)
    rooted = replace(best, span=replace(best.span, root=True))
    return min((best, rooted), key=lambda part: _score(data, (part,)))


def _moves(data: ControlData, part: Part) -> list[Part]:
    if part.block == "kmers":
        ways = itertools.groupby(sorted(_kmer_parts(data), key=_is_separate), key=_is_separate)
        return [_best_kmers(data, list(group)) for _, group in ways]
    if part.block == "scalars":
        spans = (ScalarSpan(), ScalarSpan(products=True))
        return [replace(part, span=span, weight=w) for span in spans for w in _OTHER_WEIGHTS]
    weights = _TRACK_WEIGHTS if part.block == "tracks" else _OTHER_WEIGHTS
    return [replace(part, weight=weight) for weight in weights]


def _is_separate(part: Part) -> bool:
    return isinstance(part.span, KmerSpan) and part.span.separate


def _score(data: ControlData, design: Design) -> float:
    if design not in data.scores:
        data.scores[design] = data.relative_error(_ridge(data, design, COARSE_ALPHAS).error)
    return data.scores[design]
