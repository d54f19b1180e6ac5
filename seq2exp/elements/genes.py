"""Genes of other files among those of a dataset: by id without version, then by symbol."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["AMBIGUOUS", "UNKNOWN", "GeneNames", "bare_id"]

UNKNOWN = -1
"""The dataset has no such gene."""
AMBIGUOUS = -2
"""Several genes of the dataset have this symbol."""

_VERSION = re.compile(r"^(ENS[A-Z]*\d+)\.\d+$")


def bare_id(name: str) -> str:
    """Return an Ensembl id without its version, and any other name as it is.

    >>> bare_id("ENSG00000100271.15"), bare_id("YDL247W.1")
    ('ENSG00000100271', 'YDL247W.1')
    """
    return _VERSION.sub(r"\1", name)


class GeneNames:
    """Looks up genes of a table.

    Parameters
    ----------
    genes : DataFrame
        ``gene_id`` and ``symbol``.
    """

    def __init__(self, genes: pd.DataFrame) -> None:
        self._ids = _index(bare_id(str(name)) for name in genes["gene_id"])
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
                found = known.get(bare_id(str(name)), found)
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
