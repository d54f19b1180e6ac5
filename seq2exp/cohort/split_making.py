"""Draws the sets of a cohort split: populations, random donors, families, classes of genes."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.cohort.relatives import family_groups
from seq2exp.cohort.split_checks import check_split
from seq2exp.cohort.splits import DONOR_SETS, CohortSplit, CohortSplitConfig
from seq2exp.core.errors import InputError, Seq2ExpWarning, facts

__all__ = ["gene_classes", "make_split", "match_donors"]

Bools = NDArray[np.bool_]
Codes = NDArray[np.int8]


def match_donors(
    genotyped: Sequence[str], measured: Sequence[str], *, what: str = "expression"
) -> list[str]:
    """Return the donors that both lists hold, in the order of the first.

    Raises
    ------
    InputError
        A name stands twice in a list, or none is shared.

    Warns
    -----
    Seq2ExpWarning
        Some are in one list only: how many, with examples.
    """
    for label, names in (("genotypes", genotyped), (what, measured)):
        double = sorted(name for name, num in Counter(names).items() if num > 1)
        if double:
            raise InputError(
                facts(
                    f"donors of the {label}", found="names that stand twice", expected="each once",
                    count=len(double), examples=double, fix="average or drop replicates",
                )
            )  # fmt: skip
    known = set(measured)
    shared = [name for name in genotyped if name in known]
    if not shared:
        raise InputError(
            facts(
                f"donors of genotypes and {what}",
                found=f"none in common ({', '.join(list(genotyped)[:3])} against "
                f"{', '.join(list(measured)[:3])})",
                expected="the same names in both",
                fix="rename the columns of one of them",
            )
        )
    alone = [name for name in genotyped if name not in known]
    others = sorted(known - set(genotyped))
    if alone or others:
        warnings.warn(
            f"{len(shared)} donors have genotypes and {what}; left out: {len(alone)} without "
            f"{what} ({', '.join(alone[:3])}) and {len(others)} without genotypes "
            f"({', '.join(others[:3])})",
            Seq2ExpWarning,
            stacklevel=2,
        )
    return shared


def gene_classes(genes: pd.DataFrame, config: CohortSplitConfig) -> list[str]:
    """Return the set of every gene.

    Parameters
    ----------
    genes : DataFrame
        gene_id, contig and, for ``genes: dataset``, split.
    config : CohortSplitConfig
        ``rastogi``: contigs, the one with most genes first, each go to the class that is furthest
        below its share of genes.
    """
    if config.genes == "dataset":
        names = {"train": "seen", "valid": "valid", "test": "unseen"}
        return [names.get(str(value), "unused") for value in genes["split"]]
    sizes = genes["contig"].astype(str).value_counts()
    # Equal sizes in the order of their names, so that the order of rows does not matter.
    order = sorted(sizes.index, key=lambda contig: (-int(sizes[contig]), contig))
    target = np.array(config.class_shares) / sum(config.class_shares)
    filled = np.zeros(3)
    place: dict[str, int] = {}
    for contig in order:
        place[contig] = int(np.argmax(target - filled / len(genes)))
        filled[place[contig]] += sizes[contig]
    names_of = ("seen_a", "seen_b", "unseen")
    return [names_of[place[contig]] for contig in genes["contig"].astype(str)]


def make_split(donors: pd.DataFrame, genes: pd.DataFrame, config: CohortSplitConfig) -> CohortSplit:
    """Split donors and genes.

    Parameters
    ----------
    donors : DataFrame
        ``donor``; ``population`` where populations are held out; ``family``, ``father``,
        ``mother`` as far as known.
    genes : DataFrame
        ``gene_id``, ``contig``; ``split`` for ``genes: dataset``; ``group`` (paralogs) if known.
    config : CohortSplitConfig

    Returns
    -------
    CohortSplit
        Checked by :func:`check_split`.

    Raises
    ------
    InputError
        A population is unknown, a set would be empty, or a check fails.

    Warns
    -----
    Seq2ExpWarning
        Relatives lie in different sets.
    """
    names = [str(name) for name in donors["donor"]]
    groups = family_groups(donors)
    held = _held_populations(donors, config)
    units = groups if config.relatives == "together" else np.arange(len(names))
    # A family with a member in a held-out population goes there whole: nobody of it may train.
    if config.relatives == "together":
        outside = np.isin(groups, groups[held]) & ~held
    else:
        outside = np.zeros(len(names), bool)
    free = ~held & ~outside
    sets = np.full(len(names), "train", object)
    sets[held], sets[outside] = "population", "unused"
    gene_sets = gene_classes(genes, config)
    per_gene: dict[str, Codes] = {}
    if config.people == "global":
        sets[free] = _draw(
            units[free], config, np.random.default_rng(config.seed), test_share=config.test_share
        )
    else:
        for gene, name in zip(genes["gene_id"].astype(str), gene_sets, strict=True):
            drawn = sets.copy()
            own = np.random.default_rng([config.seed, _number(gene)])
            # Genes that are tested on the held-out population only train on all others.
            share = 0.0 if name == "seen_b" else config.test_share
            drawn[free] = _draw(units[free], config, own, test_share=share)
            per_gene[gene] = np.array([DONOR_SETS.index(x) for x in drawn], np.int8)
    split = CohortSplit(
        donors=tuple(names),
        genes=tuple(genes["gene_id"].astype(str)),
        donor_sets=tuple(str(x) for x in sets),
        gene_sets=tuple(gene_sets),
        contigs=tuple(genes["contig"].astype(str)),
        per_gene=per_gene,
        config=asdict(config),
    )
    check_split(split, donors=donors, genes=genes)
    return split


def _held_populations(donors: pd.DataFrame, config: CohortSplitConfig) -> Bools:
    if not config.test_populations:
        return np.zeros(len(donors), bool)
    known = set(donors["population"].astype(str)) - {""} if "population" in donors else set()
    unknown = [name for name in config.test_populations if name not in known]
    if unknown:
        raise InputError(
            facts(
                "splits.test_populations", found=", ".join(unknown),
                expected=f"populations of the donors table: {', '.join(sorted(known)) or 'none'}",
                fix="name one of them",
            )
        )  # fmt: skip
    return np.asarray(donors["population"].astype(str).isin(config.test_populations))


def _draw(
    units: NDArray[np.int64],
    config: CohortSplitConfig,
    random: np.random.Generator,
    *,
    test_share: float,
) -> NDArray[np.object_]:
    """Return train, valid or test per donor: whole units in random order until a share is full."""
    num = units.size
    num_test = round(num * test_share)
    num_valid = round((num - num_test) * config.valid_share)
    sets = np.full(num, "train", object)
    order = random.permutation(np.unique(units))
    taken = {"test": 0, "valid": 0}
    wanted = {"test": num_test, "valid": num_valid}
    for unit in order:
        places = np.flatnonzero(units == unit)
        for name, quota in wanted.items():
            # A family that would overfill a set waits; single donors fill the rest.
            if taken[name] + places.size <= quota:
                sets[places] = name
                taken[name] += places.size
                break
    empty = [name for name, quota in wanted.items() if quota and not taken[name]]
    if empty:
        raise InputError(
            facts(
                f"donors to {' and '.join(empty)}",
                found=f"{num} donors in {np.unique(units).size} families, none of which fits in",
                expected=f"families of at most {max(wanted.values())} donors",
                fix="raise the share, or set splits.relatives: warn",
            )
        )
    return sets


def _number(gene: str) -> int:
    return int.from_bytes(hashlib.sha256(gene.encode()).digest()[:8], "big")
