"""Guards against leakage between the sets of a cohort split."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from seq2exp.cohort.relatives import family_groups, related_pairs
from seq2exp.cohort.splits import DONOR_SETS, GENE_SETS, CohortSplit
from seq2exp.core.errors import InputError, Seq2ExpWarning, facts

__all__ = ["check_split", "split_from_lists"]

_SEEN = ("seen", "seen_a", "seen_b")


def split_from_lists(
    donors: Mapping[str, Sequence[str]],
    genes: Mapping[str, Sequence[str]],
    *,
    contigs: Mapping[str, str],
) -> CohortSplit:
    """Return a split of lists made elsewhere.

    Parameters
    ----------
    donors, genes : mapping
        Set (of ``DONOR_SETS``, of ``GENE_SETS``) to names.
    contigs : mapping
        Gene to contig.

    Raises
    ------
    InputError
        A donor or gene is in two sets, a set is unknown, or a gene has no contig.
    """
    for kind, lists, known in (("donors", donors, DONOR_SETS), ("genes", genes, GENE_SETS)):
        unknown = [name for name in lists if name not in known]
        if unknown:
            raise _leak(f"sets of {kind}", ", ".join(unknown), f"one of {', '.join(known)}", [])
        names = [name for part in lists.values() for name in part]
        double = sorted(name for name, num in Counter(names).items() if num > 1)
        if double:
            raise _leak(kind, "names in two sets, or twice in one", "each in one set", double)
    all_genes = [gene for part in genes.values() for gene in part]
    lost = [gene for gene in all_genes if gene not in contigs]
    if lost:
        raise _leak("genes", "genes without contig", "a contig for each", lost)
    return CohortSplit(
        donors=tuple(name for part in donors.values() for name in part),
        genes=tuple(all_genes),
        donor_sets=tuple(label for label, part in donors.items() for _ in part),
        gene_sets=tuple(label for label, part in genes.items() for _ in part),
        contigs=tuple(contigs[gene] for gene in all_genes),
    )


def check_split(
    split: CohortSplit, *, donors: pd.DataFrame | None = None, genes: pd.DataFrame | None = None
) -> None:
    """Refuse a split through which test data could leak into training.

    Parameters
    ----------
    split : CohortSplit
    donors : DataFrame, optional
        With pedigree columns: relatives in different sets are warned about.
    genes : DataFrame, optional
        With a column ``group``: paralogs may not be seen and unseen.

    Raises
    ------
    InputError
        A donor or gene stands twice; a contig or a group of paralogs has seen and unseen genes;
        nobody trains or tests; a donor of a held-out population trains on some gene.

    Warns
    -----
    Seq2ExpWarning
        Relatives lie in different sets.
    """
    for kind, names in (("donors", split.donors), ("genes", split.genes)):
        double = sorted(name for name, num in Counter(names).items() if num > 1)
        if double:
            raise _leak(f"{kind} of the split", "names that stand twice", "each once", double)
    _check_sets(split)
    _check_across(split, dict(zip(split.genes, split.contigs, strict=True)), "contigs")
    if genes is not None and "group" in genes.columns:
        pairs = zip(genes["gene_id"].astype(str), genes["group"].fillna("").astype(str),
                    strict=True)  # fmt: skip
        _check_across(split, {gene: group for gene, group in pairs if group}, "groups of paralogs")
    if donors is not None:
        _warn_of_relatives(split, donors)


def _check_sets(split: CohortSplit) -> None:
    codes = split.codes()
    if not (split.mask("train").any() or split.mask("C").any()) or not len(split.donors):
        raise _leak("split", _listed(split), "donors that train, and genes", [])
    if "train" not in split.donor_sets:
        raise InputError(
            facts(
                "splits",
                found=f"nobody who trains: {_listed(split)}",
                expected="some donors that train",
                fix="lower splits.test_share, or hold out fewer populations",
            )
        )
    held = np.array([name == "population" for name in split.donor_sets])
    allowed = [DONOR_SETS.index(name) for name in ("population", "unused")]
    if held.any() and not np.isin(codes[:, held], allowed).all():
        wrong = np.flatnonzero(held & ~np.isin(codes, allowed).all(axis=0))
        raise _leak(
            "held-out populations", "donors that train or choose on some gene", "none",
            [split.donors[k] for k in wrong],
        )  # fmt: skip


def _listed(split: CohortSplit) -> str:
    return ", ".join(f"{number} {name}" for name, number in split.counts().items())


def _check_across(split: CohortSplit, label_of: Mapping[str, str], what: str) -> None:
    """Refuse labels that seen (or validation) genes and unseen ones share."""
    labels: dict[str, set[str]] = {"seen": set(), "valid": set(), "unseen": set()}
    for gene, name in zip(split.genes, split.gene_sets, strict=True):
        kind = "seen" if name in _SEEN else name
        if kind in labels and gene in label_of:
            labels[kind].add(label_of[gene])
    shared = sorted(labels["unseen"] & (labels["seen"] | labels["valid"]))
    if shared:
        raise _leak(f"{what} of unseen genes", "some that hold seen genes too",
                    "none in common", shared)  # fmt: skip


def _warn_of_relatives(split: CohortSplit, donors: pd.DataFrame) -> None:
    place = pd.Index([str(name) for name in donors["donor"]]).get_indexer(pd.Index(split.donors))
    groups = family_groups(donors)
    known = np.flatnonzero(place >= 0)
    if np.unique(groups).size == groups.size:
        return
    if split.per_gene:
        sets_of = [
            [DONOR_SETS[code] for code in split.per_gene[gene][known]] for gene in split.per_gene
        ]
    else:
        sets_of = [[split.donor_sets[k] for k in known]]
    pairs: dict[tuple[str, str], None] = {}
    for sets in sets_of:
        used = ["" if name == "unused" else name for name in sets]
        for one, two in related_pairs(groups[place[known]], used):
            names = (split.donors[known[one]], split.donors[known[two]])
            pairs.setdefault(names)
    if pairs:
        shown = ", ".join(f"{one}/{two}" for one, two in list(pairs)[:3])
        warnings.warn(
            f"{len(pairs)} pairs of relatives lie in different sets ({shown}): their shared "
            f"haplotypes leak; relatives: together keeps families in one set",
            Seq2ExpWarning,
            stacklevel=3,
        )


def _leak(what: str, found: str, expected: str, examples: list[str]) -> InputError:
    count = len(examples) or None
    return InputError(
        facts(what, found=found, expected=expected, count=count, examples=examples,
              fix="mend the split; seq2exp makes one from the donors table")
    )  # fmt: skip
