"""Which scores are computed, and what their columns are called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from seq2exp.core.config import nearest
from seq2exp.core.errors import ConfigError, facts
from seq2exp.variants.columns import ScoreColumn
from seq2exp.variants.ensemble import ENSEMBLES
from seq2exp.variants.scorers import SCORERS, Scorer
from seq2exp.variants.units import TRANSFORMS, LabelUnit

__all__ = ["choose_scorers", "columns_of", "scorer_names"]


_P = "(1 + shuffled contexts at least as extreme) / (1 + contexts)"
_SPREAD = "sqrt(mean of (score - mean)^2 over copies of carriers' haplotypes)"
_LACKS = {
    "expression": "a model that predicts no expression",
    "mask": "a model without a mask",
    "fixed": "a model without a mask that could be held fixed",
    "embedding": "a model without a pooled state",
    "profile": "a model that predicts no tracks",
    "exons": "no exons of genes",
    "totals": "no totals of elements of the reference",
}


def scorer_names(text: str) -> list[str]:
    """Return the names of a list with commas, each once.

    Raises
    ------
    ConfigError
        A name is unknown; the message names the nearest one.
    """
    names = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    unknown = [name for name in names if name not in SCORERS]
    if unknown or not names:
        raise ConfigError(
            facts(
                "--scores",
                found=unknown[0] if unknown else "no name",
                expected="names of scores, with commas",
                fix=nearest(unknown[0] if unknown else "", list(SCORERS)),
                count=len(unknown) or None,
            )
        )
    return names


def choose_scorers(
    names: Sequence[str] | None = None, *, offers: Iterable[str], label: LabelUnit
) -> list[Scorer]:
    """Return the scores asked for, or those by default that a model can give.

    Parameters
    ----------
    names : sequence of str, optional
        Known names. Without them the default ones, less those that the model cannot give.
    offers : iterable of str
        What the model gives: values of ``needs`` and ``also``.
    label : LabelUnit
        Unit of its predictions.

    Raises
    ------
    ConfigError
        A score was asked for that needs what the model does not give, or linear values of labels
        whose transform is unknown.
    """
    given = set(offers)

    def lack(scorer: Scorer) -> str:
        if missing := {scorer.needs, scorer.also} - given - {""}:
            return _LACKS[min(missing)]
        if scorer.linear and not label.is_linear:
            return f"labels in {label.predicted}, which cannot be made linear"
        return ""

    if names is None:
        return [scorer for scorer in SCORERS.values() if scorer.default and not lack(scorer)]
    chosen = [SCORERS[name] for name in names]
    for scorer in chosen:
        if reason := lack(scorer):
            linear = f"labels stored with one of {', '.join(TRANSFORMS)}"
            raise ConfigError(
                facts(
                    f"score {scorer.name}",
                    found=reason,
                    expected=linear if "linear" in reason else f"{scorer.needs} for each allele",
                    fix="leave it out; this model gives "
                    + ", ".join(one.name for one in SCORERS.values() if not lack(one)),
                )
            )
    return chosen


def columns_of(
    scorers: Sequence[Scorer],
    samples: Sequence[str],
    *,
    label: LabelUnit,
    ensemble: str = "pred",
    with_sd: bool = False,
    with_p: bool = False,
    with_quantile: bool = False,
    with_haplotypes: bool = False,
) -> list[ScoreColumn]:
    """Return the columns of scores in the order of scores, then labels, then kinds.

    Parameters
    ----------
    scorers : sequence of Scorer
    samples : sequence of str
        Labels that are predicted.
    label : LabelUnit
        Their unit.
    ensemble : str
        Key of ``ENSEMBLES``; stands in the formula of every score.
    with_sd, with_p, with_quantile, with_haplotypes : bool
        Further columns of every score: spread over members; p and q; place among a background,
        for signed scores also with the sign; spread over haplotypes.

    Raises
    ------
    ConfigError
        The way to average is unknown, or two columns would have one name.
    """
    if ensemble not in ENSEMBLES:
        raise ConfigError(
            facts("--ensemble", found=ensemble, expected="a known way",
                  fix=nearest(ensemble, list(ENSEMBLES)))
        )  # fmt: skip
    found: list[ScoreColumn] = []
    for scorer in scorers:
        for sample in samples if scorer.per_sample else [None]:
            found += _columns(scorer, sample, label, ENSEMBLES[ensemble],
                              kinds=(with_sd, with_haplotypes, with_p, with_quantile))  # fmt: skip
    names = [column.name for column in found]
    if len(set(names)) < len(names):
        twice = sorted(name for name in set(names) if names.count(name) > 1)
        raise ConfigError(
            facts("columns of scores", found="names that occur twice",
                  expected="labels and scores with names of their own",
                  fix="rename the labels of the dataset", count=len(twice), examples=twice)
        )  # fmt: skip
    return found


def _columns(
    scorer: Scorer, sample: str | None, label: LabelUnit, how: str, *, kinds: tuple[bool, ...]
) -> list[ScoreColumn]:
    name = scorer.name if sample is None else f"{scorer.name}:{sample}"
    unit, with_sd, with_haplotypes, with_p, with_quantile = scorer.unit_of(label), *kinds
    tail = "two-sided, min(1, 2 min(left, right))" if scorer.signed else "right tail"
    share = "share of background scores below, ties half"
    rows = [
        (True, name, "score", f"{scorer.formula}; {how}", unit, scorer.signed),
        (with_sd, f"{name}:sd", "sd", "standard deviation of the members' own scores", unit, False),
        (with_haplotypes, f"{name}:haplotype_sd", "haplotype_sd", _SPREAD, unit, False),
        (with_p, f"{name}:p", "p", f"{_P}, {tail}", "probability", False),
        (with_p, f"{name}:q", "q", "Benjamini-Hochberg over all rows", "false-discovery rate",
         False),
        (with_quantile, f"{name}:quantile", "quantile", f"{share}, of absolute values", "share",
         False),
        (with_quantile and scorer.signed, f"{name}:signed_quantile", "quantile",
         f"2 x ({share}) - 1", "share, -1 to 1", True),
    ]  # fmt: skip
    return [
        ScoreColumn(name, scorer.name, sample, kind, formula, unit, signed)
        for there, name, kind, formula, unit, signed in rows
        if there
    ]
