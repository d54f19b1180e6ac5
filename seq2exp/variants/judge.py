"""What is done with each allele: scored as it is, the other way round, or not at all, and why.

Shapes: A alleles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.core.sequence import decode
from seq2exp.dataset.store import Dataset
from seq2exp.variation.alleles import SEQUENCE_CLASSES, Allele, classify, normalise

__all__ = ["REF_POLICIES", "STATUSES", "Judged", "Put", "RefPolicy", "changed_span", "judge"]

RefPolicy = Literal["flag", "strict", "use-vcf-ref", "drop-swapped"]
"""flag: swapped alleles are scored from what the genome says, mismatches are not scored. strict:
any REF that is not what the genome says is an error. use-vcf-ref: REF is put into the sequence.
drop-swapped: as flag, but swapped alleles are not scored."""

REF_POLICIES: tuple[str, ...] = ("flag", "strict", "use-vcf-ref", "drop-swapped")

STATUSES = ("ok", "swapped", "ref_mismatch", "no_gene", "edge", "too_long", "unsupported")
"""The one word that says what became of an allele and a gene."""

Put = tuple[Allele, ...]
"""What a sequence holds in place of the reference; nothing is the reference."""

_WRONG_REF = ("mismatch", "ref_has_n", "out_of_bounds")


@dataclass(frozen=True)
class Judged:
    """What is done with one allele.

    Attributes
    ----------
    status : str
        One of ``STATUSES``, before genes are looked at.
    reason : str
        Why it is not scored; empty if it is.
    before, after : tuple of Allele
        What the two sequences that are compared hold.
    sign : int
        -1 where the comparison runs from ALT to REF.
    span : tuple of int
        Bases of the reference that change, 0-based half-open; empty for an insertion, which stands
        before the base ``span[0]``.
    """

    status: str
    reason: str
    before: Put
    after: Put
    sign: int
    span: tuple[int, int]

    @property
    def scored(self) -> bool:
        """Whether it is scored at all."""
        return not self.reason

    @property
    def moves(self) -> bool:
        """Whether a sequence holds an insertion or deletion, which moves bases."""
        return any(len(allele.ref) != len(allele.alt) for allele in (*self.before, *self.after))


def changed_span(position: int, ref: str, alt: str) -> tuple[int, int]:
    """Return the bases of REF that ALT does not keep, 0-based half-open; see `Judged.span`."""
    ref, alt = ref.upper(), alt.upper()
    shortest = min(len(ref), len(alt))
    start = 0
    while start < shortest and ref[start] == alt[start]:
        start += 1
    end = 0
    while end < shortest - start and ref[-1 - end] == alt[-1 - end]:
        end += 1
    return position + start, position + len(ref) - end


def judge(
    alleles: pd.DataFrame, dataset: Dataset, *, policy: RefPolicy = "flag", max_indel: int = 1000
) -> list[Judged]:
    """Say what is done with each row of a table of alleles.

    Parameters
    ----------
    alleles : DataFrame
        Columns ``seq2exp.variants.columns.ALLELE_COLUMNS``.
    dataset : Dataset
        The genome.
    policy : str
        See `RefPolicy`.
    max_indel : int
        Longest difference between the lengths of REF and ALT, and longest allele, in bases.

    Raises
    ------
    InputError
        With ``strict``, a REF that is not what the genome says.
    """
    if policy == "strict":
        _require_ok(alleles)
    columns = ["contig", "norm_position", "norm_ref", "norm_alt", "variant_type", "ref_status"]
    rows = zip(*(alleles[name].tolist() for name in columns), strict=True)
    return [_one(row, dataset, policy, max_indel) for row in rows]


def _one(
    row: tuple[str | None, int, str, str, str, str],
    dataset: Dataset,
    policy: str,
    max_indel: int,
) -> Judged:
    contig, position, ref, alt, kind, ref_status = row
    if kind not in SEQUENCE_CLASSES:
        return _refused("unsupported", kind, position)
    if ref_status == "no_contig" or contig is None:
        return _refused("no_gene", "no_contig", position)
    if max(len(ref), len(alt)) > max_indel + 1:
        return _refused("too_long", f"longer_than_{max_indel}", position)
    codes = dataset.contig_codes(contig)
    if ref_status == "ok":
        allele = Allele(position, ref, alt)
        if kind == "same":
            return Judged("ok", "", (), (), 1, (position, position + 1))
        return Judged("ok", "", (), (allele,), 1, changed_span(*allele))
    if ref_status == "swapped" and policy in ("flag", "drop-swapped"):
        if policy == "drop-swapped":
            return _refused("swapped", "swapped", position)
        allele = normalise(Allele(position, alt, ref), codes)
        return Judged("swapped", "", (), (allele,), -1, changed_span(*allele))
    if policy == "use-vcf-ref" and ref_status != "out_of_bounds":
        before, after = (_in_genome(position, len(ref), letters, codes) for letters in (ref, alt))
        status = "swapped" if ref_status == "swapped" else "ref_mismatch"
        return Judged(status, "", before, after, 1, (position, position + len(ref)))
    return _refused("ref_mismatch", ref_status, position)


def _refused(status: str, reason: str, position: int) -> Judged:
    return Judged(status, reason, (), (), 1, (position, position + 1))


def _in_genome(position: int, length: int, letters: str, codes: NDArray[np.uint8]) -> Put:
    """Return what makes letters of a stretch of the genome; nothing where they are the same."""
    genome, letters = decode(codes[position : position + length]), letters.upper()
    if genome == letters:
        return ()
    allele = Allele(position, genome, letters)
    if classify(genome, letters) in SEQUENCE_CLASSES:
        allele = normalise(allele, codes)
    return (allele,)


def _require_ok(alleles: pd.DataFrame) -> None:
    """Raise where REF is not what the genome says."""
    status = alleles["ref_status"]
    wrong = alleles[status.isin((*_WRONG_REF, "swapped", "no_contig"))]
    if wrong.empty:
        return
    shown, names = wrong.head(3), ("chrom", "position", "ref", "alt", "ref_status")
    raise InputError(
        facts(
            "REF of the variants",
            found="alleles that are not what the genome says",
            expected="REF as in the genome, with --ref-policy strict",
            fix="use the VCF of this assembly, or --ref-policy flag, which keeps such records with "
            "their status",
            count=len(wrong),
            examples=[
                f"{chrom}:{position + 1} {ref}>{alt} ({found})"
                for chrom, position, ref, alt, found in zip(
                    *(shown[name].tolist() for name in names), strict=True
                )
            ],
        )
    )
