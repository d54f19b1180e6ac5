"""Which spots share a batch, and which sections are held out.

In a contrastive loss the other spots of a batch are the negatives. Drawn from all sections, a spot
can be told from most of them by the colour of its section alone; drawn from its own section it
cannot.

Axes: S spots.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.config import nearest
from seq2exp.core.errors import ConfigError, InputError, Seq2ExpWarning, facts

__all__ = ["Negatives", "SpotSampler", "require_sections"]

Negatives = Literal["any", "within_slide"]
Integers = NDArray[np.int64]


class SpotSampler:
    """Batches of rows, a function of seed and epoch; of nearly equal size, and each row once.

    Parameters
    ----------
    section_S : int64 array, shape (num_spots,)
        Section of every row.
    batch_size : int
        Most rows of a batch.
    negatives : str
        any: batches from all sections; within_slide: each from one. Sections of a single spot have
        no negatives and are then left out, with a warning.
    seed : int
    """

    def __init__(
        self, section_S: Integers, *, batch_size: int, negatives: Negatives = "any", seed: int = 0
    ) -> None:
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0
        section_S = np.asarray(section_S)
        self.groups = [np.arange(len(section_S))]
        if negatives == "within_slide":
            every = [np.flatnonzero(section_S == section) for section in np.unique(section_S)]
            self.groups = [group for group in every if len(group) > 1]
            if len(self.groups) < len(every):
                message = facts(
                    "sections with negatives of their own",
                    found="sections of a single spot",
                    expected="at least two spots",
                    fix="drop them; they are not trained on",
                    count=len(every) - len(self.groups),
                )
                warnings.warn(message, Seq2ExpWarning, stacklevel=2)
        if batch_size < 2 or not self.groups or len(self.groups[0]) < 2:
            raise InputError(
                facts(
                    "contrastive batches",
                    found=f"batches of {batch_size} of {len(section_S)} spots",
                    expected="at least two spots each",
                    fix="give more spots, or a larger batch",
                )
            )

    def __len__(self) -> int:
        return sum(self._count(group) for group in self.groups)

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self.seed, self.epoch])
        batches: list[Integers] = []
        for group in self.groups:
            batches += np.array_split(random.permutation(group), self._count(group))
        for place in random.permutation(len(batches)):
            yield batches[place].tolist()

    def _count(self, group: Integers) -> int:
        # Rounded down where a batch of one spot would be left.
        return min(-(-len(group) // self.batch_size), len(group) // 2)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order is next."""
        self.epoch = epoch


def require_sections(names: Sequence[str], known: Sequence[str], *, what: str = "held_out") -> None:
    """Refuse names that are no section: a hold-out list with a slip withholds nothing.

    Raises
    ------
    ConfigError
        Names an unknown section, and two that it may have been.
    """
    unknown = [name for name in names if name not in set(known)]
    repeated = sorted({name for name in names if list(names).count(name) > 1})
    if not unknown and not repeated:
        return
    found, fix = (unknown or repeated)[0], "list each section once"
    if unknown:
        pairs = [
            f"{left} and {right}" for left in known for right in known if left + right == found
        ]
        fix = f"a comma is missing between {pairs[0]}" if pairs else nearest(found, list(known))
    raise ConfigError(
        facts(
            what,
            found=found,
            expected="sections of the cohort, each once",
            fix=fix,
            count=len(unknown or repeated),
        )
    )
