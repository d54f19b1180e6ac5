"""Masks of the same model where the evidence is destroyed: what a false-discovery level rests on.

Bases are shuffled so that dinucleotide counts stay; tracks are replaced. Positions, the contact
profile, forced bins and scalar features stay, so a null bin has the distance and the contact of
the bin it stands for.

======================  ==========================================================================
``background``          tracks are blocks of about 1 kb drawn from bins without signal
``mean``, ``median``    every track is its mean, or its median, over the window
``shuffled``            blocks of about 1 kb of the window's own tracks change places
``sequence``            tracks stay as they are; the only null of a model without tracks
======================  ==========================================================================

Shapes: B batch, L bases, N bins, T tracks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from seq2exp.core.dinucleotides import shuffle_dinucleotides
from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.dataset.samples import CONTACT, Batch, GeneSamples
from seq2exp.dataset.store import Dataset
from seq2exp.elements.masks import GeneMasks, gene_masks
from seq2exp.models.masking import LEARNED_MODES
from seq2exp.training.module import forward_batch
from seq2exp.training.run import TrainedRun

__all__ = ["NULLS", "NullConfig", "NullInputs", "null_masks", "replaced_tracks", "resolve_null"]

NULLS = ("background", "mean", "median", "shuffled", "sequence")
_BLOCK_BP = 1024
_POOL_GENES = 512
_SPREADS = 8.0
Signal = NDArray[np.float32]


@dataclass(frozen=True)
class NullConfig:
    """Which null masks are drawn."""

    kind: str | None = None
    """One of NULLS; background, or sequence for a model without tracks, when not given."""
    seed: int = 0
    """Seed of all draws."""
    draws: int = 3
    """Draws per gene; more make the counts of the null less noisy and take as much time each."""

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ConfigError(
                facts("elements.null_draws", found=self.draws, expected=">= 1", fix="use 1")
            )

    def resolved(self, run: TrainedRun) -> NullConfig:
        """Return the settings with the null that is used for a run."""
        return replace(self, kind=resolve_null(run, self.kind))


@dataclass(frozen=True, eq=False)
class Background:
    """Bins without signal, from which null tracks are drawn.

    Attributes
    ----------
    signal_PT : float32 array, shape (num_pool_bins, num_tracks)
        Tracks of the pool, gene after gene.
    starts : int64 array, shape (num_blocks,)
        First bins of the blocks of the pool in which every bin is background.
    share : float
        Share of background among the bins of the pool.
    """

    signal_PT: Signal
    starts: NDArray[np.int64]
    share: float


def replaced_tracks(run: TrainedRun) -> list[int]:
    """Return the tracks that a null replaces: all but the contact profile."""
    return [i for i, name in enumerate(run.card.tracks) if name != CONTACT]


def resolve_null(run: TrainedRun, kind: str | None) -> str:
    """Return the null to use: ``background``, or ``sequence`` for a model without tracks.

    Raises
    ------
    ConfigError
        There is no such null, it replaces tracks that the model does not read, or the mask of the
        model is not learned.
    """
    _require_learned(run)
    tracks = replaced_tracks(run)
    if kind is None:
        return "background" if tracks else "sequence"
    if kind not in NULLS:
        raise ConfigError(
            facts(
                "elements.null",
                found=repr(kind),
                expected=f"one of {', '.join(NULLS)}",
                fix="use one",
            )
        )
    if not tracks and kind != "sequence":
        raise ConfigError(
            facts(
                "elements.null",
                found=f"{kind}, which replaces tracks, for a model that reads none",
                expected="sequence",
                fix="give --null sequence",
            )
        )
    return kind


def _require_learned(run: TrainedRun) -> None:
    modes = {str(getattr(model.config, "mask", "soft")) for model in run.models}
    if not modes <= set(LEARNED_MODES):
        raise ConfigError(
            facts(
                f"run {run.folder}",
                found=f"a mask that is not learned (mask: {', '.join(sorted(modes))})",
                expected=f"mask: {' or '.join(LEARNED_MODES)} for a false-discovery level",
                fix="leave out --fdr and --null: every 1 of such a mask is called",
            )
        )


class NullInputs:
    """Replaces the evidence in batches; each gene has a random stream of its own.

    So neither the batch size nor the order of the genes changes a draw.

    Parameters
    ----------
    run : TrainedRun
    dataset : Dataset
    rows : int64 array, shape (num_genes,)
        Genes whose windows make up the pool of the background.
    kind : str
        One of ``NULLS``.
    seed, draw : int
        Streams depend on (seed, draw, gene).
    """

    def __init__(
        self,
        run: TrainedRun,
        dataset: Dataset,
        rows: NDArray[np.int64],
        *,
        kind: str,
        seed: int = 0,
        draw: int = 0,
    ) -> None:
        self.kind = resolve_null(run, kind)
        self.tracks = replaced_tracks(run)
        self.seed, self.draw = seed, draw
        self.block = max(1, round(_BLOCK_BP / run.card.data.bin_size))
        samples = GeneSamples(dataset, replace(run.card.data, samples=[]), rows)
        needed = self.kind == "background"
        self.background = _background(samples, self.tracks, self.block, seed) if needed else None
        self._last: tuple[Batch, Batch] | None = None

    def __call__(self, model: nn.Module, batch: Batch) -> Any:  # noqa: ANN401
        """Run a member on the null of a batch; all members see the same one."""
        if self._last is None or self._last[0] is not batch:
            self._last = (batch, self.change(batch))
        return forward_batch(model, self._last[1])

    def change(self, batch: Batch) -> Batch:
        """Return the batch without its evidence."""
        device = batch.codes_BL.device
        codes_BL = batch.codes_BL.cpu().numpy().copy()
        signal_BNT = batch.signal_BNT.cpu().numpy().copy()
        for place, gene in enumerate(batch.index_B.tolist()):
            random = np.random.default_rng((self.seed, self.draw, gene))
            codes_BL[place] = shuffle_dinucleotides(codes_BL[place], random)
            if self.kind != "sequence":
                real_NT = signal_BNT[place][:, self.tracks]
                signal_BNT[place][:, self.tracks] = self._tracks(real_NT, random)
        return replace(
            batch,
            codes_BL=torch.from_numpy(codes_BL).to(device),
            signal_BNT=torch.from_numpy(signal_BNT).to(device),
        )

    def _tracks(self, real_NT: Signal, random: np.random.Generator) -> Signal:
        """Return null tracks of a window; what was missing stays missing."""
        if self.background is not None:
            num_blocks = -(-len(real_NT) // self.block)
            starts = random.choice(self.background.starts, num_blocks)
            chosen = (starts[:, None] + np.arange(self.block)).ravel()[: len(real_NT)]
            null_NT = self.background.signal_PT[chosen]
        elif self.kind == "shuffled":
            blocks = np.arange(-(-len(real_NT) // self.block))
            order = random.permutation(blocks)[:, None] * self.block + np.arange(self.block)
            null_NT = real_NT[order[order < len(real_NT)]]
            return null_NT
        else:
            null_NT = np.broadcast_to(_centre(real_NT, self.kind), real_NT.shape)
        return np.where(np.isfinite(real_NT), null_NT, np.float32(np.nan)).astype(np.float32)


def _centre(signal_NT: Signal, kind: str) -> Signal:
    """Return the mean or the median of every track; NaN where nothing is known."""
    centre = np.full(signal_NT.shape[1], np.nan, dtype=np.float32)
    known = np.isfinite(signal_NT).any(axis=0)
    measure = np.nanmean if kind == "mean" else np.nanmedian
    centre[known] = measure(signal_NT[:, known], axis=0)
    return centre


def _background(samples: GeneSamples, tracks: list[int], block: int, seed: int) -> Background:
    """Collect blocks in which no track stands out.

    A bin is background where every track is at most eight spreads above its median; the spread is
    the distance from the median down to the 16 % quantile. The lower half of a track holds no
    signal, so neither number moves when a genome has more elements.
    """
    count = min(_POOL_GENES, len(samples))
    chosen = np.sort(np.random.default_rng(seed).choice(len(samples), count, replace=False))
    windows = [samples[int(item)].signal[:, tracks] for item in chosen]
    num_bins = len(windows[0])
    signal_PT = np.concatenate(windows)
    known = signal_PT[np.isfinite(signal_PT).all(axis=1)]
    if known.size:
        low, median = np.quantile(known, [0.16, 0.5], axis=0)
        # A comparison with NaN is false, so bins with a missing track are no background.
        quiet = (signal_PT <= median + _SPREADS * (median - low)).all(axis=1)
        runs = np.convolve(quiet, np.ones(block, dtype=np.int64), "valid") == block
        starts = np.flatnonzero(runs)
        starts = starts[starts % num_bins <= num_bins - block]
        if starts.size:
            return Background(signal_PT, starts, float(quiet.mean()))
    raise InputError(
        facts(
            "null background",
            found=f"no stretch of {block} bins without signal in {count} windows",
            expected="tracks that are quiet somewhere",
            fix="use --null median, or map more genes",
            count=0,
        )
    )


def null_masks(
    run: TrainedRun,
    dataset: Dataset,
    rows: NDArray[np.int64],
    *,
    kind: str | None = None,
    seed: int = 0,
    draw: int = 0,
    out: Path | None = None,
    batch_size: int = 16,
    workers: int = 0,
    progress: bool = False,
) -> GeneMasks:
    """Return the masks of genes on inputs without evidence.

    Parameters
    ----------
    run, dataset, rows, out, batch_size, workers, progress
        As in :func:`seq2exp.elements.masks.gene_masks`.
    kind : str, optional
        One of ``NULLS``; see :func:`resolve_null`.
    seed, draw : int
        Each pair is another draw.
    """
    named = resolve_null(run, kind)
    inputs = NullInputs(run, dataset, rows, kind=named, seed=seed, draw=draw)
    return gene_masks(
        run,
        dataset,
        rows,
        out=out,
        batch_size=batch_size,
        workers=workers,
        progress=progress,
        forward=inputs,
    )
