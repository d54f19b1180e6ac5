"""By how many bases windows are moved, where nobody says it.

Models read bins, so a window that is moved by less than a bin is another cut of the same bases.
"""

from __future__ import annotations

from dataclasses import replace

from seq2exp.dataset.samples import SampleConfig
from seq2exp.variants.config import ScoreConfig

__all__ = ["all_phases", "usual_shifts", "with_shifts"]

_PHASES = 16


def usual_shifts(config: SampleConfig) -> tuple[int, ...]:
    """Return the shifts that are averaged for substitutions where none are named.

    Bins cut sites in two. Windows moved by a third of a bin see each site whole in at least one of
    them, if the models know moved windows.

    Parameters
    ----------
    config : SampleConfig
        Of the training.
    """
    step = min(config.bin_size // 3, config.jitter_bp)
    return (-step, 0, step) if step else (0,)


def all_phases(bin_size: int) -> tuple[int, ...]:
    """Return shifts that lie evenly over one bin, 16 or as many as it has bases.

    An insertion or deletion moves every base behind it against the bins, and a model says something
    else of other cuts of the same bases. Averaged over all cuts, both alleles see each of them, and
    the difference that is left is that of the bases.

    Parameters
    ----------
    bin_size : int
    """
    step = -(-bin_size // _PHASES)
    return tuple(range(-(bin_size // 2), bin_size - bin_size // 2, step))


def with_shifts(config: ScoreConfig, data: SampleConfig) -> ScoreConfig:
    """Fill in the shifts that are not named.

    Parameters
    ----------
    config : ScoreConfig
    data : SampleConfig
        Of the training.

    Returns
    -------
    ScoreConfig
        `shifts` and `indel_shifts` are not empty; the second are the first, if only these are
        named.
    """
    shifts = config.shifts or usual_shifts(data)
    moved = config.indel_shifts or config.shifts or all_phases(data.bin_size)
    return replace(config, shifts=shifts, indel_shifts=moved)
