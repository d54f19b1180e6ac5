"""Genes by name: ids without version, symbols, and the rows of genes that a user asks for."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AMBIGUOUS", "ENSEMBL_VERSION", "UNKNOWN", "GeneNames", "find_genes", "strip_version"]

UNKNOWN = -1
"""There is no such gene."""
AMBIGUOUS = -2
"""Several genes have this symbol."""

ENSEMBL_VERSION = re.compile(r"^(ENS[A-Z]*[GTP]\d{11}|SIMG\d{8})\.\d+(_PAR_[XY])?$")
r"""Ensembl's own form, and that of simulated genes, only: a dot means something in other ids
(WormBase sequence names). Groups 1 and 2 are the id without version; `\1\2` in a substitution."""

_SHOWN = 3


def strip_version(gene_id: str) -> str:
    """Return an Ensembl id without its version; other ids as they are.

    >>> strip_version("ENSG00000100266.12"), strip_version("Y74C9A.3")
    ('ENSG00000100266', 'Y74C9A.3')
    """
    return ENSEMBL_VERSION.sub(r"\1\2", gene_id)


class GeneNames:
    """Looks up many genes of other files in a table, by id without version, then by symbol.

    Parameters
    ----------
    genes : DataFrame
        ``gene_id`` and ``symbol``.
    """

    def __init__(self, genes: pd.DataFrame) -> None:
        self._ids = _index(strip_version(str(name)) for name in genes["gene_id"])
        self._symbols = _index(str(name) for name in genes["symbol"])

    def find(self, gene_id: object, symbol: object) -> int:
        """Return the row of a gene, ``UNKNOWN`` or ``AMBIGUOUS``; what is no text is no name.

        Either name may be an id or a symbol, because tables put ids into columns called gene.
        """
        found = UNKNOWN
        for name in (gene_id, symbol):
            if not isinstance(name, str) or not name:
                continue
            for known in (self._ids, self._symbols):
                found = known.get(strip_version(str(name)), found)
                if found >= 0:
                    return found
        return found

    def rows(self, gene_id: Iterable[object], symbol: Iterable[object]) -> NDArray[np.int64]:
        """Return what :meth:`find` says for each pair of names."""
        pairs = zip(gene_id, symbol, strict=True)
        return np.array([self.find(*pair) for pair in pairs], dtype=np.int64)


def _index(names: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row, name in enumerate(names):
        if name and name.lower() != "nan":
            found[name] = AMBIGUOUS if name in found else row
    return found


def find_genes(
    genes: pd.DataFrame, names: Sequence[str], *, what: str, where: str
) -> NDArray[np.int64]:
    """Return the rows of genes that a user names by id or symbol, each once, in the order given.

    Parameters
    ----------
    genes : DataFrame
        ``gene_id`` and ``symbol``.
    names : sequence of str
        An id wins over an equal symbol; an Ensembl version may be left out, or be another one.
    what : str
        The option that named them, for the message.
    where : str
        What the genes are of, for the message.

    Raises
    ------
    InputError
        Names of no gene, with the nearest that there is, or of several, with their ids.
    """
    ids = genes["gene_id"].astype(str).to_numpy(dtype=object)
    symbols = genes["symbol"].fillna("").astype(str).to_numpy(dtype=object)
    found: list[int] = []
    wrong: list[str] = []
    for name in dict.fromkeys(names):
        hits = _hits(name, ids, symbols)
        if hits.size == 1:
            found.append(int(hits[0]))
        elif hits.size:
            wrong.append(f"{name} ({_listed(ids[hits].tolist())})")
        else:
            # Searching a genome of names takes a while, so only for what the message shows.
            wrong.append(_with_nearest(name, ids, symbols) if len(wrong) < _SHOWN else name)
    if wrong:
        raise InputError(
            facts(
                what,
                found="names of no gene, or of several",
                expected=f"ids or symbols of the {len(ids):,} genes of {where}",
                fix="take the ids in genes.parquet",
                count=len(wrong),
                examples=wrong,
            )
        )
    return np.array(list(dict.fromkeys(found)), dtype=np.int64)


def _hits(name: str, ids: NDArray[np.object_], symbols: NDArray[np.object_]) -> NDArray[np.int64]:
    for known in (ids, symbols):
        hits = np.flatnonzero(known == name)
        if hits.size:
            return hits
    bare = strip_version(name)
    return np.flatnonzero([strip_version(one) == bare for one in ids])


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return ", ".join(ids[:_SHOWN]) + more


def _with_nearest(name: str, ids: NDArray[np.object_], symbols: NDArray[np.object_]) -> str:
    rows = {one.casefold(): row for known in (ids, symbols) for row, one in enumerate(known) if one}
    near = difflib.get_close_matches(name.casefold(), rows, n=1)
    if not near:
        return name
    row = rows[near[0]]
    return f"{name} (nearest: {', '.join(dict.fromkeys(filter(None, (symbols[row], ids[row]))))})"
