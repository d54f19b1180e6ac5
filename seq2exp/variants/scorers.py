"""The registered scores of variants: what each is called, means, needs and computes.

r and a stand for REF and ALT, W for the bins that count, y for predicted expression, m for the
mask. Functions and the shapes they take are those of `seq2exp.variants.profile_scorers` and
`seq2exp.variants.gene_scorers`; ``needs`` says which:

``expression``  ``f(ref_BK, alt_BK) -> BK``
``mask``        ``f(ref_BN, alt_BN, inside_BN) -> B``
``embedding``   ``f(ref_BD, alt_BD) -> B``
``profile``     ``f(ref_BST, alt_BST, inside_BS) -> BT``

Everything is computed and returned in float64. Swapping REF and ALT negates signed scores and
leaves the others; equal alleles give exactly 0 but for what is called active.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.variants import gene_scorers as gene
from seq2exp.variants import profile_scorers as profile
from seq2exp.variants.units import LabelUnit

__all__ = [
    "SCORERS",
    "Scorer",
    "combine_strands",
]

Floats = NDArray[np.float64]
Needs = Literal["expression", "mask", "profile", "embedding"]


@dataclass(frozen=True)
class Scorer:
    """One way to compare the predictions for two alleles.

    Attributes
    ----------
    name, formula : str
    unit : str
        ``{predicted}`` and ``{plain}`` stand for the unit of predictions and for the linear one.
    signed : bool
        Positive where ALT has more; others are at least 0.
    needs : str
        Kind of arrays it compares.
    window : str
        ``tss``: the window of a gene. ``variant``: one around the variant.
    function : callable
    linear : bool
        It takes values in the linear unit, the transform of the labels undone.
    also : str
        What must be there beside the arrays: ``fixed`` predictions under the mask of the reference,
        ``exons`` of the gene as the bins that count, ``totals`` of elements of the reference. Empty
        for nothing.
    strands : str
        How scores of two strands become one: ``sum``, ``root`` of the sum of squares, or empty
        where that has no meaning.
    default : bool
        Computed where nothing is asked for.
    """

    name: str
    formula: str
    unit: str
    signed: bool
    needs: Needs
    window: Literal["tss", "variant"]
    function: Callable[..., Floats]
    linear: bool = False
    also: str = ""
    strands: Literal["sum", "root", ""] = ""
    default: bool = False

    @property
    def per_sample(self) -> bool:
        """Whether there is one score for each label or track."""
        return self.needs in ("expression", "profile")

    def unit_of(self, label: LabelUnit) -> str:
        """Return the unit for labels of this unit."""
        return self.unit.format(predicted=label.predicted, plain=label.plain)

    def of_predictions(self, label: LabelUnit) -> Callable[..., Floats]:
        """Return the function that takes predictions as the model gives them.

        Parameters
        ----------
        label : LabelUnit
            Its transform is undone where the score is of linear values.
        """
        if not self.linear:
            return self.function

        def scored(ref_BK: ArrayLike, alt_BK: ArrayLike) -> Floats:
            with np.errstate(invalid="ignore"):
                found = self.function(label.linear(ref_BK), label.linear(alt_BK))
            # Both below what the unit knows: whether they differ is not seen, which is not 0.
            ref, alt = np.asarray(ref_BK, np.float64), np.asarray(alt_BK, np.float64)
            return np.where((ref < 0) & (alt < 0), np.nan, found)

        return scored


def _profile(
    name: str, formula: str, unit: str, function: Callable[..., Floats], *, signed: bool,
    strands: Literal["sum", "root", ""], also: str = "", default: bool = False,
    window: Literal["tss", "variant"] = "variant",
) -> Scorer:  # fmt: skip
    return Scorer(name, formula, unit, signed, "profile", window, function, also=also,
                  strands=strands, default=default)  # fmt: skip


def _gene(
    name: str, formula: str, unit: str, function: Callable[..., Floats], *, signed: bool,
    needs: Needs = "expression", linear: bool = False, also: str = "", default: bool = False,
) -> Scorer:  # fmt: skip
    strands: Literal["sum", ""] = "sum" if needs == "expression" else ""
    return Scorer(name, formula, unit, signed, needs, "tss", function, linear=linear, also=also,
                  strands=strands, default=default)  # fmt: skip


def _identity(values: Floats) -> Floats:
    return values


def _log2p1(values: Floats) -> Floats:
    return np.asarray(np.log2(1 + np.maximum(values, 0.0)))


def _ln1p(values: Floats) -> Floats:
    return np.log1p(np.maximum(values, 0.0))


def _sqrt(values: Floats) -> Floats:
    return np.sqrt(np.maximum(values, 0.0))


_LOG2 = "log2 of (1 + {plain})"
_ROOT = "square root of {plain}"
_MASK = "mask, 0 to 1"
_LINEAR = "in the linear unit, not below 0; missing where both are"

_ALL = (
    _gene("expr_delta", "y_a - y_r; the mask follows each allele", "{predicted}", gene.difference,
          signed=True, default=True),
    _gene("expr_delta_fixed", "y_a - y_r; the mask stays that of the reference", "{predicted}",
          gene.difference, signed=True, also="fixed", default=True),
    _gene("sed", f"y_a - y_r {_LINEAR}", "{plain}", gene.difference, signed=True, linear=True,
          default=True),
    _gene("log_sed", f"log2(1 + y_a) - log2(1 + y_r) {_LINEAR}", _LOG2,
          gene.log2_difference, signed=True, linear=True, default=True),
    _gene("mask_delta", "sum_W (m_a - m_r)", f"{_MASK}, summed over bins", gene.mask_delta,
          signed=True, needs="mask", default=True),
    _gene("mask_max", "max_W abs(m_a - m_r)", _MASK, gene.mask_max, signed=False, needs="mask",
          default=True),
    _gene("mask_l2", "sqrt(sum_W (m_a - m_r)^2)", _MASK, gene.mask_l2, signed=False, needs="mask"),
    _gene("embed_l2", "sqrt(sum (e_a - e_r)^2) of pooled encoder states", "encoder state",
          gene.embed_l2, signed=False, needs="embedding", default=True),
    _gene("embed_cos", "1 - cos(e_a, e_r) of pooled encoder states", "none, 0 to 2",
          gene.embed_cos, signed=False, needs="embedding"),
    _profile("diff_sum", "sum_W a - sum_W r", "{plain}, summed over bins", profile.diff_sum,
             signed=True, strands="sum"),
    _profile("diff_mean", "mean_W a - mean_W r", "{plain}", profile.diff_mean, signed=True,
             strands="sum"),
    _profile("log2_sum", "log2(1 + sum_W a) - log2(1 + sum_W r)", _LOG2, profile.log2_sum,
             signed=True, strands="sum", default=True),
    _profile("sum_log2", "sum_W (log2(1 + a) - log2(1 + r))", f"{_LOG2}, summed over bins",
             profile.sum_of(_log2p1), signed=True, strands="sum"),
    _profile("sqrt_sum", "sum_W (sqrt(a) - sqrt(r))", f"{_ROOT}, summed over bins",
             profile.sum_of(_sqrt), signed=True, strands="sum"),
    _profile("sax", "a - r in the bin of W where abs(a - r) is largest", "{plain}", profile.sax,
             signed=True, strands="sum"),
    _profile("d1", "sum_W abs(a - r)", "{plain}, summed over bins",
             profile.distance(_identity, power=1), signed=False, strands="sum"),
    _profile("log_d1", "sum_W abs(log2(1 + a) - log2(1 + r))", f"{_LOG2}, summed over bins",
             profile.distance(_log2p1, power=1), signed=False, strands="sum"),
    _profile("sqrt_d1", "sum_W abs(sqrt(a) - sqrt(r))", f"{_ROOT}, summed over bins",
             profile.distance(_sqrt, power=1), signed=False, strands="sum"),
    _profile("d2", "sqrt(sum_W (a - r)^2)", "{plain}", profile.distance(_identity, power=2),
             signed=False, strands="root"),
    _profile("log_d2", "sqrt(sum_W (log2(1 + a) - log2(1 + r))^2)", _LOG2,
             profile.distance(_log2p1, power=2), signed=False, strands="root"),
    _profile("sqrt_d2", "sqrt(sum_W (sqrt(a) - sqrt(r))^2)", _ROOT,
             profile.distance(_sqrt, power=2), signed=False, strands="root"),
    _profile("l2_log1p", "sqrt(sum_W (ln(1 + a) - ln(1 + r))^2)", "ln of (1 + {plain})",
             profile.distance(_ln1p, power=2), signed=False, strands="root"),
    _profile("jsd", "Jensen-Shannon distance, base 2, of a / sum_W a and r / sum_W r",
             "none, 0 to 1", profile.jsd, signed=False, strands=""),
    _profile("active_sum", "max(sum_W a, sum_W r)", "{plain}, summed over bins",
             profile.active("sum"), signed=False, strands=""),
    _profile("active_mean", "max(mean_W a, mean_W r)", "{plain}", profile.active("mean"),
             signed=False, strands=""),
    _profile("active_max", "max(max_W a, max_W r)", "{plain}", profile.active("max"), signed=False,
             strands=""),
    _profile("gene_lfc", "ln(mean_g a + 0.001) - ln(mean_g r + 0.001); g: exons of the gene",
             "ln of {plain}", profile.gene_lfc, signed=True, strands="sum", also="exons",
             window="tss"),
    _profile("gene_active", "max(mean_g a, mean_g r); g: exons of the gene", "{plain}",
             profile.gene_active, signed=False, strands="", also="exons", window="tss"),
    _profile("log2fc", "log2(sum_W a / sum_W r)", "log2 fold change", profile.log2fc, signed=True,
             strands="sum"),
    _profile("ies", "abs(log2fc) x jsd", "log2 fold change", profile.ies, signed=False, strands=""),
    _profile("ips", "log2fc x jsd x AAQ; AAQ: share of elements of the reference with a total not "
             "above that of the stronger allele, at least 1/n", "log2 fold change", profile.ips,
             signed=True, strands="sum", also="totals"),
)  # fmt: skip

SCORERS = {scorer.name: scorer for scorer in _ALL}
"""All scores by name."""


def combine_strands(scorer: Scorer, plus: ArrayLike, minus: ArrayLike) -> Floats:
    """Return one score for two tracks that are the strands of one assay.

    Signed scores and sums of absolute values add, Euclidean distances are the root of the sum of
    squares.

    Raises
    ------
    InputError
        The score of both strands together does not follow from the two.
    """
    first, second = np.asarray(plus, np.float64), np.asarray(minus, np.float64)
    if scorer.strands == "sum":
        return np.asarray(first + second)
    if scorer.strands == "root":
        return np.asarray(np.sqrt(first**2 + second**2))
    raise InputError(
        facts(
            f"score {scorer.name} of two strands",
            found="a score of each strand",
            expected="a score that adds up",
            fix="add the two tracks before scoring, or keep both scores",
        )
    )
