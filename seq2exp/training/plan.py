"""Before the first step: how large the model is, what a batch costs, and what fits.

One training step is measured on windows that are short enough for any machine, with real genes,
and the sizes are carried over to the whole window. Live tensors are counted, not sampled, so the
numbers of bytes are exact at the short windows and follow a polynomial of the second degree in the
length: scans and convolutions are linear, attention at most quadratic.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from seq2exp.core.errors import ConfigError, Seq2ExpError, facts
from seq2exp.dataset.samples import GeneSamples, collate
from seq2exp.models.registry import build_model
from seq2exp.training.config import TrainConfig
from seq2exp.training.memory import Usage, available_bytes, measure
from seq2exp.training.module import batch_loss

__all__ = ["Plan", "make_plan", "needs_plan", "require_room", "with_recompute"]

_MOST_BINS, _MOST_BP, _FEWEST_BINS = 1024, 32_768, 16
# Below this many bases per batch nobody runs out of memory.
_SMALL_BATCH_BP = 1 << 18
# What a process of its own takes before it holds a tensor.
_PROCESS_BYTES = 400_000_000
# Tensors are not all a step takes: allocators round up, kernels have work space.
_ALLOWANCE = 1.15
# Slope of the last stretch over that of the first from which memory counts as quadratic.
_CLEARLY_BENT = 1.15
GIGA = 1e9


@dataclass(frozen=True)
class Plan:
    """What training will need."""

    parameters: int
    """Trainable parameters."""
    device: str
    """Where a step runs."""
    window_bp: int
    """Window in bases."""
    num_bins: int
    """Bins of a window."""
    batch_size: int
    """Genes per step and device."""
    num_models: int
    """Models that train at the same time."""
    fixed_bytes: int
    """Weights, gradients, moments and averaged weights of a model."""
    window_bytes: int
    """Activations of one window, at the height of a step."""
    available_bytes: int | None
    """Memory that the device has left; None where nobody says."""
    step_seconds: float
    """Time of a step."""
    steps_per_epoch: int
    """Optimiser steps of an epoch, times the batches of each."""
    epochs: int
    """Most epochs."""
    measured_bins: int
    """Bins of the longest window that was run; from there the numbers are extrapolated."""
    recompute: bool
    """Whether blocks are run again in the backward pass to save memory."""

    @property
    def total_bytes(self) -> int:
        """Memory of all models that train at the same time."""
        return self._bytes_of(self.batch_size)

    @property
    def largest_batch(self) -> int | None:
        """Most genes per step that fit; None where the memory is not known."""
        if self.available_bytes is None:
            return None
        room = self.available_bytes / self.num_models / _ALLOWANCE - self.fixed_bytes
        return max(0, math.floor((room - self._process) / max(self.window_bytes, 1)))

    @property
    def fits(self) -> bool:
        """Whether a batch fits, as far as anybody knows."""
        return self.available_bytes is None or self.total_bytes <= self.available_bytes

    @property
    def _process(self) -> int:
        return _PROCESS_BYTES if self.num_models > 1 else 0

    def _bytes_of(self, batch_size: int) -> int:
        tensors = self.fixed_bytes + batch_size * self.window_bytes + self._process
        return round(self.num_models * _ALLOWANCE * tensors)

    @property
    def text(self) -> str:
        """Return the plan for people."""
        bins = self.num_bins
        how = "measured"
        if self.measured_bins < bins:
            how = f"extrapolated from windows of up to {self.measured_bins:,} bins"
        free = "unknown" if self.available_bytes is None else _size(self.available_bytes)
        largest = "unknown" if self.largest_batch is None else f"{self.largest_batch:,}"
        steps = self.steps_per_epoch * self.epochs
        rows = [
            ("parameters", f"{self.parameters:,}"),
            ("window", f"{self.window_bp:,} bp in {bins:,} bins; {self.batch_size} per step"),
            ("model", f"{_size(self.fixed_bytes)} for weights, gradients and moments"),
            (
                "activations",
                f"{_size(self.window_bytes)} per window"
                + (", blocks run again in the backward pass" if self.recompute else ""),
            ),
            ("memory", f"{_size(self.total_bytes)} of {free} on {self.device}; {how}"),
            ("largest batch", largest),
            ("step", f"about {_duration(self.step_seconds)} on {self.device}; {how}"),
            (
                "training",
                f"{self.epochs} epochs of {self.steps_per_epoch:,} steps, at most "
                f"{_duration(steps * self.step_seconds)}"
                + (
                    f"; {self.num_models} models at a time" if self.num_models > 1 else " per model"
                ),
            ),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows) + "\n"

    def rows(self) -> list[dict[str, Any]]:
        """Return the numbers as rows for ``--json``."""
        values = {
            "parameters": self.parameters,
            "fixed_bytes": self.fixed_bytes,
            "window_bytes": self.window_bytes,
            "total_bytes": self.total_bytes,
            "available_bytes": self.available_bytes,
            "largest_batch": self.largest_batch,
            "step_seconds": self.step_seconds,
        }
        return [{"name": "plan", "metric": key, "value": value} for key, value in values.items()]


def require_room(plan: Plan) -> None:
    """Raise ConfigError, with the numbers, where a batch does not fit into memory."""
    if plan.fits:
        return
    largest = plan.largest_batch or 0
    fix = f"set fit.batch_size to at most {largest} and raise fit.accumulate"
    if largest == 0:
        fix = "use a smaller data.window_bp, larger bins, or a smaller model"
    raise ConfigError(
        facts(
            f"windows of {plan.window_bp:,} bases, {plan.batch_size} per step",
            found=f"a need of {_size(plan.total_bytes)} "
            f"({_size(plan.window_bytes)} per window and step)",
            expected=f"at most the {_size(plan.available_bytes or 0)} free on {plan.device}",
            fix=fix,
        )
    )


def needs_plan(config: TrainConfig) -> bool:
    """Return whether a batch is large enough to run out of memory."""
    return config.data.window_bp * config.fit.batch_size > _SMALL_BATCH_BP


def make_plan(config: TrainConfig, params: Mapping[str, Any], samples: GeneSamples) -> Plan:
    """Measure steps on short windows and carry them over to the whole one.

    Blocks are run again in the backward pass (the same numbers, more time, less memory) where a
    batch would not fit otherwise and the configuration does not say anything about it.

    Parameters
    ----------
    config : TrainConfig
    params : mapping
        Complete settings of the model, as `model_params` makes them.
    samples : GeneSamples
        Training genes.
    """
    plan = _plan(config, params, samples)
    frugal = with_recompute(params)
    if plan.fits or frugal is None:
        return plan
    other = dataclasses.replace(_plan(config, frugal, samples), recompute=True)
    return other if other.total_bytes < plan.total_bytes else plan


def with_recompute(params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return settings with blocks run again in the backward; None where they are decided."""
    if params["name"] != "baseline":
        return None if "recompute" in params else {**params, "recompute": True}
    inner = dict(params.get("encoder_params", {}))
    return (
        None if "recompute" in inner else {**params, "encoder_params": {**inner, "recompute": True}}
    )


def _plan(config: TrainConfig, params: Mapping[str, Any], samples: GeneSamples) -> Plan:
    device = _device(config)
    num_bins = config.data.window_bp // config.data.bin_size
    probe = _Probe(config, params, samples, device)
    lengths = probe.lengths(num_bins)
    used = [probe.step(length, 1) for length in lengths]
    pair = probe.step(lengths[0], 2)
    # Two windows cost one window more than one; the rest does not grow with the batch.
    constant = max(0, 2 * used[0].peak_bytes - pair.peak_bytes)
    height = _extrapolate(lengths, [usage.peak_bytes for usage in used], num_bins)
    # Times of short windows are too noisy for a curve; operations are counted.
    longest: Any = probe.model_of(lengths[-1])
    whole: Any = probe.model_of(num_bins)
    growth = whole.flops() / longest.flops() if longest.flops() else num_bins / lengths[-1]
    seconds = used[-1].seconds * growth
    # A second window costs less than the first where the step is mostly overhead.
    further = min(1.0, max(0.0, pair.seconds / used[0].seconds - 1))
    fit = config.fit
    weights = sum(p.numel() * p.element_size() for p in whole.parameters())
    trained = sum(p.numel() for p in whole.parameters() if p.requires_grad)
    moments = 2 * 4 * trained
    averaged = weights if fit.ema_decay else 0
    per_step = math.ceil(len(samples) / (fit.batch_size * fit.devices * fit.num_nodes))
    together = min(fit.parallel, fit.seeds * (1 + len(config.controls)))
    return Plan(
        parameters=trained,
        device=str(device),
        window_bp=config.data.window_bp,
        num_bins=num_bins,
        batch_size=fit.batch_size,
        num_models=together,
        fixed_bytes=constant + weights + moments + averaged,
        window_bytes=max(0, height - constant),
        available_bytes=available_bytes(device),
        step_seconds=seconds * (1 + (fit.batch_size - 1) * further),
        steps_per_epoch=per_step,
        epochs=fit.max_epochs,
        measured_bins=lengths[-1],
        recompute=bool(params.get("recompute", False)),
    )


def _device(config: TrainConfig) -> torch.device:
    wants_gpu = config.fit.accelerator in ("auto", "gpu")
    return torch.device("cuda" if wants_gpu and torch.cuda.is_available() else "cpu")


class _Probe:
    """Steps of the model on shorter windows."""

    def __init__(
        self,
        config: TrainConfig,
        params: Mapping[str, Any],
        samples: GeneSamples,
        device: torch.device,
    ) -> None:
        self.config, self.params, self.samples, self.device = config, params, samples, device

    def lengths(self, num_bins: int) -> list[int]:
        """Numbers of bins to run: the window itself if it is short, else three shorter ones."""
        bin_size = self.config.data.bin_size
        most = max(_FEWEST_BINS, min(_MOST_BINS, _MOST_BP // bin_size))
        if num_bins <= most:
            return [num_bins]
        unit = int(self.params.get("mask_bin_size") or bin_size) // bin_size
        unit = math.lcm(unit, 2)
        found = [most // part // unit * unit for part in (4, 2, 1)]
        return found if self._can_build(found[0]) else [num_bins]

    def _can_build(self, num_bins: int) -> bool:
        try:
            self._build(num_bins)
        except Seq2ExpError:
            # The model exists for one window only.
            return False
        return True

    def model_of(self, num_bins: int) -> nn.Module:
        """Make the model for windows of so many bins, without its weights."""
        with torch.device("meta"):
            return self._build(num_bins)

    def _build(self, num_bins: int) -> nn.Module:
        window_bp = num_bins * self.config.data.bin_size
        settings = {k: v for k, v in self.params.items() if k != "name"}
        if window_bp != self.config.data.window_bp:
            shorter = {"window_bp": window_bp, "readout_edges": ()}
            settings |= shorter
            if "mask_model" in settings:
                settings["mask_model"] = {**settings["mask_model"], **shorter}
        with torch.random.fork_rng():
            return build_model(str(self.params["name"]), settings)

    def step(self, num_bins: int, batch_size: int) -> Usage:
        """Measure forward and backward of a batch of real genes."""
        model = self._build(num_bins).to(self.device).train()
        data = dataclasses.replace(
            self.config.data, window_bp=num_bins * self.config.data.bin_size, edge="pad"
        )
        rows = np.resize(self.samples.rows, batch_size)
        genes = GeneSamples(self.samples.dataset, data, rows)
        batch = collate([genes[i] for i in range(batch_size)]).to(self.device)
        half = self.device.type == "cuda" and self.config.fit.precision != "32-true"

        def run() -> None:
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half):
                parts = batch_loss(model, batch, self.config.optim)
            parts.total.backward()  # type: ignore[no-untyped-call]
            model.zero_grad(set_to_none=True)

        with torch.random.fork_rng(), torch.enable_grad():
            return measure(run, self.device)


def _extrapolate(lengths: list[int], values: list[int], target: int) -> int:
    """Value at a length, from the polynomial through one or three measured ones."""
    if len(lengths) == 1:
        return values[0]
    (x1, x2, x3), (y1, y2, y3) = lengths, values
    first, second = (y2 - y1) / (x2 - x1), (y3 - y2) / (x3 - x2)
    # Attention bends the curve by up to a factor of two here; work space whose size is chosen by
    # the length bends it a little, which at a hundred times the length would swamp everything.
    bend = (second - first) / (x3 - x1) if second > _CLEARLY_BENT * first else 0.0
    return round(y3 + (target - x3) * (second + bend * (target - x2)))


def _size(num_bytes: int) -> str:
    if num_bytes < GIGA / 10:
        return f"{num_bytes / 1e6:.1f} MB"
    return f"{num_bytes / GIGA:.1f} GB"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.3g} s"
