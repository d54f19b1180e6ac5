"""Variants as single words: chr1:100:A>G, chr1_100_A_G_b38, 1-100-A-G, 1:100:A:G, or an rsID."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Word", "is_rsid", "parse_word"]

_ALLELE = r"[A-Za-z]+|\*|\.|<[^<>\s]+>"
# The separator is one of three, and the same throughout; names of contigs may hold it too.
_WORD = re.compile(
    rf"(?P<chrom>\S+?)(?P<by>[:_-])(?P<position>\d{{1,18}})(?P=by)(?P<ref>{_ALLELE}|-)"
    rf"(?:>|(?P=by))(?P<alt>(?:{_ALLELE}|-)(?:,(?:{_ALLELE}))*)"
    r"(?:_(?P<build>b3[78]|hg\d+|GRC[a-z]\d+))?",
    re.IGNORECASE,
)
_RSID = re.compile(r"(?:rs|ss)\d+", re.IGNORECASE)
_BUILDS = {"b37": "GRCh37", "b38": "GRCh38"}


class Word(NamedTuple):
    """A variant that was written as one word.

    Attributes
    ----------
    chrom : str
    position : int
        0-based.
    ref : str
    alts : str
        Commas between several.
    assembly : str
        As the word names it; empty where it does not.
    """

    chrom: str
    position: int
    ref: str
    alts: str
    assembly: str


def parse_word(text: str) -> Word | None:
    """Return the variant that a word means, or None; positions count from 1.

    Examples
    --------
    >>> parse_word("chr1_100_A_G_b38")
    Word(chrom='chr1', position=99, ref='A', alts='G', assembly='GRCh38')
    """
    found = _WORD.fullmatch(text)
    if found is None:
        return None
    build = found["build"] or ""
    return Word(
        found["chrom"],
        int(found["position"]) - 1,
        found["ref"],
        found["alt"],
        _BUILDS.get(build.lower(), build),
    )


def is_rsid(text: str) -> bool:
    """Return whether a word is an identifier of dbSNP: rs or ss and digits."""
    return _RSID.fullmatch(text) is not None
