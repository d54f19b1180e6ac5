"""What every base and every track bin contributes to the predicted expression of a gene.

Results are in genome coordinates: of a gene that the model reads reverse-complemented, positions
are turned round and the columns A C G T of hypothetical rows exchanged.

Shapes: L base pairs of the window, C the four bases A C G T, N bins, T tracks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.core.intervals import Window, merge
from seq2exp.core.progress import track
from seq2exp.core.sequence import N_CODE, NUM_BASES, reverse_complement
from seq2exp.dataset.samples import gene_window
from seq2exp.dataset.store import Dataset
from seq2exp.interpret.deeplift import deeplift_shap
from seq2exp.interpret.gradients import (
    Baseline,
    Shares,
    base_baselines,
    gradient_x_input,
    integrated_gradients,
    track_shares,
)
from seq2exp.interpret.saturation import saturate
from seq2exp.interpret.target import MaskUse, Target, make_target, quiet_models
from seq2exp.training.run import TrainedRun

__all__ = [
    "AttributionConfig",
    "Completeness",
    "GeneAttribution",
    "Method",
    "Regions",
    "attribute_gene",
    "attributions",
    "explain_bases",
]

Method = Literal["gradient_x_input", "integrated_gradients", "saturation", "deeplift_shap"]
Regions = Sequence[tuple[int, int]]
"""Half-open genome intervals."""


@dataclass(frozen=True)
class AttributionConfig:
    """How attributions are computed."""

    method: Method = "gradient_x_input"
    """gradient_x_input, integrated_gradients, saturation or deeplift_shap."""
    baseline: Baseline = "uniform"
    """What the bases are compared with; see `seq2exp.interpret.gradients.Baseline`."""
    num_shuffles: int = 4
    """Shuffled baselines per gene."""
    steps: int = 64
    """Points of the integral of integrated_gradients."""
    mask: MaskUse = "recomputed"
    """Whether the mask follows the inputs, or stays that of the real window."""
    tracks: bool = True
    """Also attribute to the tracks."""
    span_bp: int = 1000
    """Bases around the TSS that saturation covers where no regions are given."""
    batch_size: int = 16
    """Windows per pass."""
    seed: int = 0
    """Draws the shuffles, per gene."""

    def __post_init__(self) -> None:
        choices = {"method": Method, "baseline": Baseline, "mask": MaskUse}
        for name, kind in choices.items():
            known = get_args(kind)
            _require(getattr(self, name) in known, name, getattr(self, name), ", ".join(known))
        for name in ("num_shuffles", "steps", "span_bp", "batch_size"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)


def _require(holds: bool, name: str, found: object, expected: str) -> None:  # noqa: FBT001
    if not holds:
        raise ConfigError(
            facts(f"attribution {name}", found=found, expected=expected, fix="change the value")
        )


@dataclass(frozen=True)
class Completeness:
    """How far the contributions are from summing to what they explain."""

    value: float
    """f(x), in the unit of the labels."""
    baseline_value: float
    """f(x'), the mean over baselines."""
    total: float
    """Sum of the contributions."""

    @property
    def difference(self) -> float:
        """``f(x) - f(x')``."""
        return self.value - self.baseline_value

    @property
    def error(self) -> float:
        """Sum of the contributions minus the difference."""
        return self.total - self.difference

    @property
    def relative_error(self) -> float:
        """Absolute error over the absolute difference; NaN where that is 0."""
        return abs(self.error) / abs(self.difference) if self.difference else math.nan


@dataclass(frozen=True, eq=False)
class GeneAttribution:
    """Contributions of one gene, in genome direction and in the unit of the labels.

    Attributes
    ----------
    row : int
        Row of the gene table.
    window : Window
        What the model read; index 0 of the arrays is `window.start`, which may lie before the
        contig.
    codes : uint8 array, shape (length,)
        Bases of the plus strand; N beyond the contig.
    share : float32 array, shape (length,)
        Contribution of the base that is there; 0 at N and where nothing was computed.
    hypothetical : float32 array, shape (length, 4)
        What each base would contribute there, every row with mean 0.
    covered : bool array, shape (length,)
        Where something was computed: everywhere, or in the regions of saturation.
    delta : float32 array, shape (length, 4), or None
        Saturation: change of the prediction by each substitution; NaN outside of the regions.
    tracks : float32 array, shape (bins, tracks), or None
        Contribution of the signal of each bin.
    bases, signal : Completeness
        Of `share` and of `tracks`.
    """

    row: int
    window: Window
    codes: NDArray[np.uint8]
    share: NDArray[np.float32]
    hypothetical: NDArray[np.float32]
    covered: NDArray[np.bool_]
    delta: NDArray[np.float32] | None
    tracks: NDArray[np.float32] | None
    bases: Completeness
    signal: Completeness | None


def attributions(
    run: TrainedRun,
    dataset: Dataset,
    rows: Sequence[int] | NDArray[np.int64],
    config: AttributionConfig,
    *,
    output: int | None = None,
    regions: Mapping[int, Regions] | None = None,
    progress: bool = False,
) -> Iterator[GeneAttribution]:
    """Yield the attributions of genes, in order; device and mode of the models are put back.

    Parameters
    ----------
    run : TrainedRun
    dataset : Dataset
        Must fit the run.
    rows : int array, shape (num_genes,)
        Rows of the gene table.
    config : AttributionConfig
    output : int, optional
        Which of the predicted values; their mean when left out.
    regions : mapping, optional
        Saturation: half-open genome intervals per row of the gene table.
    progress : bool
        Show progress.

    Raises
    ------
    ConfigError
        The dataset does not fit the run, or the method does not fit the models.
    InputError
        A window that holds no known base.
    """
    run.check_dataset(dataset)
    _require_gradients(run, config)
    with quiet_models(run):
        chosen = np.asarray(rows, dtype=np.int64)
        for row in track(chosen, total=len(chosen), label="attribute", enabled=progress):
            given = None if regions is None else regions.get(int(row), ())
            yield attribute_gene(run, dataset, int(row), config, output=output, regions=given)


def attribute_gene(
    run: TrainedRun,
    dataset: Dataset,
    row: int,
    config: AttributionConfig,
    *,
    output: int | None = None,
    regions: Regions | None = None,
) -> GeneAttribution:
    """Return the attribution of one gene; the models are as `quiet_models` leaves them.

    The arguments are those of `attributions`.
    """
    target = make_target(run, dataset, row, output=output, mask=config.mask)
    window = gene_window(dataset, row, run.card.data)
    codes = target.batch.codes_BL[0].cpu().numpy()
    if (codes == N_CODE).all():
        raise InputError(
            facts(
                f"gene {dataset.genes['gene_id'].iloc[row]}",
                found="a window without a known base (only N)",
                expected="bases to attribute to",
                fix="leave the gene out, or use another FASTA",
            )
        )
    bases, arrays = explain_bases(target, window, config, row=row, regions=regions)
    signal = _tracks(target, config)
    tracks = None if signal is None else _numbers(signal.share)
    if window.reverse:
        arrays = {name: _turned(array) for name, array in arrays.items()}
        tracks = None if tracks is None else np.ascontiguousarray(tracks[::-1])
    return GeneAttribution(
        row=row,
        window=window,
        codes=reverse_complement(codes) if window.reverse else codes,
        share=arrays["share"],
        hypothetical=arrays["hypothetical"],
        covered=arrays["covered"],
        delta=arrays.get("delta"),
        tracks=tracks,
        bases=bases,
        signal=None if signal is None else _completeness(signal),
    )


def explain_bases(
    target: Target,
    window: Window,
    config: AttributionConfig,
    *,
    row: int,
    regions: Regions | None = None,
) -> tuple[Completeness, dict[str, NDArray[Any]]]:
    """Return share, hypothetical, covered and delta of the bases of a target, in model direction.

    Parameters
    ----------
    target : Target
    window : Window
        Of the gene.
    config : AttributionConfig
    row : int
        Row of the gene table, which with the seed draws the shuffles.
    regions : sequence of (int, int), optional
        Saturation: genome intervals.
    """
    if config.method == "saturation":
        return _saturated(target, window, config, regions)
    return _by_gradient(target, config, np.random.default_rng((config.seed, row)))


def _by_gradient(
    target: Target, config: AttributionConfig, random: np.random.Generator
) -> tuple[Completeness, dict[str, NDArray[Any]]]:
    baselines = base_baselines(
        target, config.baseline, num_shuffles=config.num_shuffles, random=random
    )
    if config.method == "integrated_gradients":
        shares = integrated_gradients(
            target, baselines, steps=config.steps, batch_size=config.batch_size
        )
    elif config.method == "deeplift_shap":
        shares = deeplift_shap(target, baselines)
    else:
        shares = gradient_x_input(target, baselines)
    share = _numbers(shares.share)
    arrays: dict[str, NDArray[Any]] = {
        "share": share,
        "hypothetical": _numbers(shares.hypothetical_LC),
        "covered": np.ones(share.size, dtype=np.bool_),
    }
    return _completeness(shares), arrays


def _saturated(
    target: Target, window: Window, config: AttributionConfig, regions: Regions | None
) -> tuple[Completeness, dict[str, NDArray[Any]]]:
    """Saturate each region; the completeness of several regions is that of their sums."""
    length = window.length
    arrays: dict[str, NDArray[Any]] = {
        "share": np.zeros(length, dtype=np.float32),
        "hypothetical": np.zeros((length, NUM_BASES), dtype=np.float32),
        "covered": np.zeros(length, dtype=np.bool_),
        "delta": np.full((length, NUM_BASES), np.nan, dtype=np.float32),
    }
    value, difference, total = math.nan, 0.0, 0.0
    for start, end in _spans(window, config, regions):
        found = saturate(target, start=start, end=end, batch_size=config.batch_size)
        here = slice(start, end)
        arrays["share"][here] = found.share_P
        arrays["hypothetical"][here] = found.hypothetical_PC
        arrays["delta"][here] = found.delta_PC
        arrays["covered"][here] = True
        value, difference = found.value, difference + found.difference
        total += float(found.share_P.sum(dtype=np.float64))
    return Completeness(value, value - difference, total), arrays


def _spans(
    window: Window, config: AttributionConfig, regions: Regions | None
) -> list[tuple[int, int]]:
    """Stretches in model direction, merged, inside the window."""
    if regions is None:
        half = min(config.span_bp, window.length) // 2
        middle = window.length // 2
        return [(middle - half, middle + max(half, 1))]
    starts, ends = merge([start for start, _ in regions], [end for _, end in regions])
    starts = starts.clip(window.clipped_start, window.clipped_end) - window.start
    ends = ends.clip(window.clipped_start, window.clipped_end) - window.start
    if window.reverse:
        starts, ends = window.length - ends, window.length - starts
    pairs = zip(starts.tolist(), ends.tolist(), strict=True)
    return [(start, end) for start, end in pairs if end > start]


def _tracks(target: Target, config: AttributionConfig) -> Shares | None:
    """Attribute to the tracks; one gradient for gradient_x_input, else the integral."""
    if not config.tracks or not target.batch.signal_BNT.shape[-1]:
        return None
    steps = None if config.method == "gradient_x_input" else config.steps
    return track_shares(target, steps=steps, batch_size=config.batch_size)


def _numbers(values: Any) -> NDArray[np.float32]:  # noqa: ANN401
    numbers: NDArray[np.float32] = values.detach().float().cpu().numpy()
    return numbers


def _turned(array: NDArray[Any]) -> NDArray[Any]:
    """Turn an array over positions, and over bases, to the other strand."""
    return np.ascontiguousarray(array[::-1] if array.ndim == 1 else array[::-1, ::-1])


def _completeness(shares: Shares) -> Completeness:
    total = float(shares.share.double().sum())
    return Completeness(shares.value, shares.baseline_value, total)


def _require_gradients(run: TrainedRun, config: AttributionConfig) -> None:
    """Refuse gradients through a mask that is rounded: they are not those of the function."""
    if config.method == "saturation" or config.mask == "fixed":
        return
    settings: list[Any] = [model.config for model in run.models]
    kinds = [(getattr(s, "mask", "none"), getattr(s, "test_mask", "")) for s in settings]
    rounded = [kind for kind, test in kinds if kind in ("hard", "retrain") or test == "topk"]
    if rounded:
        raise ConfigError(
            facts(
                f"--method {config.method}",
                found=f"a model whose mask is rounded to 0 or 1 (mask: {rounded[0]})",
                expected="a function with a gradient",
                fix="add --mask fixed to hold the mask of the real window, or use "
                "--method saturation",
            )
        )
