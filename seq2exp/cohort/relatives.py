"""Which donors are related, from the pedigree columns of the donors table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts

__all__ = ["family_groups", "related_pairs"]

_PARENTS = ("father", "mother")
# What PLINK and others write for an unknown parent or family.
_UNKNOWN = ("", "0", "nan", "None", "NA")


def family_groups(donors: pd.DataFrame) -> NDArray[np.int64]:
    """Return a number per donor that related donors share.

    Donors are related when they have the same ``family``, when one is the ``father`` or ``mother``
    of the other, or when they share a parent, also one who is no donor; and whoever is related to
    either belongs to both.

    Parameters
    ----------
    donors : DataFrame
        ``donor`` and, as far as known, ``family``, ``father``, ``mother``; empty text or 0 where
        not. A family identifier of one donor relates nobody.

    Returns
    -------
    int64 array, shape (num_donors,)

    Raises
    ------
    InputError
        A donor stands twice, or is a parent of their own.
    """
    names = _names(donors, "donor")
    if len(set(names)) != len(names):
        double = sorted({name for name in names if names.count(name) > 1})
        raise InputError(
            facts(
                "donors table", found="donors named twice", expected="each once",
                count=len(double), examples=double, fix="drop or rename the repeats",
            )
        )  # fmt: skip
    parent = list(range(len(names)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    # Whoever bears the same token is related: a family, or a parent and all their children.
    holder: dict[tuple[str, str], int] = {("person", name): k for k, name in enumerate(names)}
    tokens = {"family": "family", "father": "person", "mother": "person"}
    for column, kind in tokens.items():
        if column not in donors.columns:
            continue
        for place, value in enumerate(_names(donors, column)):
            if value in _UNKNOWN:
                continue
            if kind == "person" and value == names[place]:
                raise InputError(
                    facts(
                        "donors table", found=f"{value} as {column} of {value}",
                        expected="another person", fix="mend the pedigree",
                    )
                )  # fmt: skip
            first = holder.setdefault((kind, value), place)
            parent[root(place)] = root(first)
    roots = [root(place) for place in range(len(names))]
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def related_pairs(groups_D: NDArray[np.int64], sets_D: Sequence[str]) -> list[tuple[int, int]]:
    """Return pairs of donors (places) of one group whose sets differ; one pair per donor at most.

    Parameters
    ----------
    groups_D : int64 array
        Of :func:`family_groups`.
    sets_D : sequence of str
        Set of each donor; an empty text is no set.
    """
    first: dict[tuple[int, str], int] = {}
    for place, (group, name) in enumerate(zip(groups_D.tolist(), sets_D, strict=True)):
        if name:
            first.setdefault((group, name), place)
    pairs = []
    for place, (group, name) in enumerate(zip(groups_D.tolist(), sets_D, strict=True)):
        others = [k for (g, s), k in first.items() if g == group and s != name and k < place]
        if name and others:
            pairs.append((others[0], place))
    return pairs


def _names(donors: pd.DataFrame, column: str) -> list[str]:
    return [str(value).strip() for value in donors[column].fillna("")]
