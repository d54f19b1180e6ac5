"""What each column of scores is called in a table and in a VCF, and what its numbers mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["ALLELE_COLUMNS", "KINDS", "UNKNOWN_ID", "ScoreColumn", "info_keys"]

KINDS = ("score", "sd", "haplotype_sd", "p", "q", "quantile")
"""score: the number itself. sd: its standard deviation over what was averaged. haplotype_sd: that
over the haplotypes of carriers. p: probability under a null. q: p after Benjamini and Hochberg.
quantile: place among common variants."""

UNKNOWN_ID = "unknown_id"
"""``ref_status`` of an id that the table of ids does not have: there is no REF to be judged."""

ALLELE_COLUMNS = {
    "record": "int64",
    "allele": "int32",
    "chrom": "object",
    "contig": "object",
    "position": "int64",
    "id": "object",
    "ref": "object",
    "alt": "object",
    "gene": "object",
    "haplotype": "object",
    "norm_position": "int64",
    "norm_ref": "object",
    "norm_alt": "object",
    "variant_type": "object",
    "ref_status": "object",
    "was_normalised": "bool",
}
"""Columns of a table of alleles, one row per ALT of a record, in the order of the input.

``record`` counts from 0; ``allele`` is the number of the ALT, 0 for a record without one.
``position`` is 0-based, as written; ``contig`` the name in the dataset, None where it has none.
``gene`` restricts the genes, ``haplotype`` names variants that are scored together; empty for none.
"""


@dataclass(frozen=True)
class ScoreColumn:
    """One column of scores.

    Attributes
    ----------
    name : str
        In tables, such as ``expr_delta:K562`` or ``expr_delta:K562:sd``.
    scorer : str
        Name of the scorer.
    sample : str or None
        Label that is predicted; None for what has no label.
    kind : str
        One of ``KINDS``.
    formula : str
        In words and symbols, for headers.
    unit : str
    signed : bool
        Positive when ALT has more; False for distances.
    """

    name: str
    scorer: str
    sample: str | None
    kind: str
    formula: str
    unit: str
    signed: bool


def info_keys(columns: Sequence[ScoreColumn]) -> dict[str, str]:
    """Return the key of every column in the INFO of a VCF, all different.

    Parameters
    ----------
    columns : sequence of ScoreColumn
    """
    keys: dict[str, str] = {}
    taken: set[str] = set()
    for column in columns:
        plain = "S2E_" + re.sub(r"[^A-Z0-9]", "_", column.name.upper())
        key, number = plain, 2
        while key in taken:
            key, number = f"{plain}_{number}", number + 1
        taken.add(key)
        keys[column.name] = key
    return keys
