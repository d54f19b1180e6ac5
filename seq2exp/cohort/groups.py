"""Which people of which gene a training step sees: a pure function of seed, epoch and index.

A group is a gene and some of its training people; all pairs of a group count. People of a gene are
drawn in a new order each epoch, one group after the other, so every person is seen equally often.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import ConfigError, facts

__all__ = ["Group", "GroupConfig", "GroupPlan"]


@dataclass(frozen=True)
class GroupConfig:
    """How people of a gene come together."""

    people: int = 16
    """People of one gene in a group; all pairs of a group count. 2 is the published pair."""
    per_gene: int = 2
    """Groups of each gene in an epoch: genes count alike, however many people they have."""

    def __post_init__(self) -> None:
        for name, least in (("people", 1), ("per_gene", 1)):
            if getattr(self, name) < least:
                raise ConfigError(
                    facts(
                        f"groups.{name}",
                        found=getattr(self, name),
                        expected=f">= {least}",
                        fix="use the default",
                    )
                )


@dataclass(frozen=True)
class Group:
    """One gene with people.

    Attributes
    ----------
    gene : int
        Row of the gene table.
    people : int64 array
        Numbers of donors, at most as many as asked for.
    """

    gene: int
    people: NDArray[np.int64]


class GroupPlan:
    """The groups of an epoch.

    Parameters
    ----------
    genes : int array, shape (num_genes,)
        Rows of the gene table.
    known_GD : bool array, shape (num_genes, num_donors)
        People who may be drawn for each of these genes.
    config : GroupConfig
    seed : int
    """

    def __init__(
        self,
        genes: NDArray[np.int64],
        known_GD: NDArray[np.bool_],
        config: GroupConfig,
        *,
        seed: int,
    ) -> None:
        self.genes = np.asarray(genes, dtype=np.int64)
        self.people = [np.flatnonzero(row) for row in known_GD]
        self.config = config
        self.seed = seed

    def __len__(self) -> int:
        return len(self.genes) * self.config.per_gene

    def group(self, item: int, epoch: int) -> Group:
        """Return a group of an epoch, the same in every process."""
        number, turn = divmod(item, self.config.per_gene)
        known, size = self.people[number], self.config.people
        gene = int(self.genes[number])
        # A new order whenever all people have been through.
        first = (epoch * self.config.per_gene + turn) * size
        wanted = min(size, len(known))
        drawn: list[int] = []
        place = first
        while len(drawn) < wanted:
            lap, inside = divmod(place, len(known))
            order = np.random.default_rng((self.seed, gene, lap)).permutation(known)
            # A person of the end of one order may come again at the start of the next.
            fresh = [int(one) for one in order[inside:] if int(one) not in drawn]
            taken = fresh[: wanted - len(drawn)]
            drawn += taken
            place = (lap + 1) * len(known)
        return Group(gene, np.array(drawn, dtype=np.int64))
