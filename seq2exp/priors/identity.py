"""Who a gene is: identifier systems, versions, assemblies, and matching one list to another."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from seq2exp.core.errors import InputError, facts
from seq2exp.core.genes import strip_version

__all__ = [
    "AlignReport",
    "GeneMatch",
    "combined_hash",
    "gene_names",
    "id_system",
    "match_genes",
    "same_system",
    "text_of",
]

RULES = ("gene_id", "symbol", "synonym")

_SYSTEMS = (
    (re.compile(r"^(ENS[A-Z]*G)\d{11}(\.\d+)?(_PAR_[XY])?$"), "ensembl/"),
    (re.compile(r"^FBgn\d{7}$"), "flybase"),
    (re.compile(r"^WBGene\d{8}$"), "wormbase"),
    (re.compile(r"^(Y[A-P][LR]\d{3}[WC](-[A-Z])?|Q\d{4})$"), "sgd"),
    (re.compile(r"^AT[1-5CM]G\d{5}$"), "tair"),
    (re.compile(r"^\d+$"), "entrez"),
)


def gene_names(genes: Iterable[object]) -> list[str]:
    """Return the names of genes as text; numbers are ids too.

    Parameters
    ----------
    genes : iterable of str
        A list, an array, a column of a table.

    Raises
    ------
    InputError
        One text in place of a list, or missing values, which would become genes called nan.
    """
    if isinstance(genes, (str, bytes)):
        raise InputError(
            facts(
                "genes to align",
                found=f"one text, {genes!r}",
                expected="a list of names",
                fix="put it into brackets",
            )
        )
    listed = list(genes)
    blank = [place for place, gene in enumerate(listed) if _missing(gene)]
    if blank:
        raise InputError(
            facts(
                "genes to align",
                found="missing values",
                expected="an id or symbol for every gene",
                fix="drop these genes, or name them",
                count=len(blank),
                examples=[f"place {place} of {len(listed)}" for place in blank],
            )
        )
    return [str(gene) for gene in listed]


def text_of(names: Iterable[object]) -> list[str]:
    """Return names as text, missing values as empty ones."""
    return ["" if _missing(name) else str(name) for name in names]


def _missing(name: object) -> bool:
    """Whether a cell of a table is empty: None, or a float that differs from itself."""
    return name is None or name != name


def id_system(gene_ids: Iterable[str]) -> str:
    """Name the system that nine in ten ids belong to.

    Returns
    -------
    str
        ``ensembl/`` and the prefix, which tells the species (``ensembl/ENSG`` is human),
        ``flybase``, ``wormbase``, ``sgd``, ``tair``, ``entrez``, or ``other``: symbols and ids of
        one's own.
    """
    ids = list(gene_ids)
    counts = Counter(_system(one) for one in ids)
    name, most = counts.most_common(1)[0] if counts else ("other", 0)
    return name if most >= 0.9 * len(ids) else "other"


def _system(gene_id: str) -> str:
    for pattern, name in _SYSTEMS:
        found = pattern.match(gene_id)
        if found:
            return name + found[1] if name.endswith("/") else name
    return "other"


def combined_hash(hashes: Sequence[str]) -> str:
    """Return the hash of a model's weights; for several members the SHA-256 of their hashes."""
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def same_system(stated: str, found: str) -> bool:
    """Tell whether two names of id systems agree; ``ensembl`` alone stands for every species."""
    return stated == found or (stated == "ensembl" and found.startswith("ensembl/"))


@dataclass(frozen=True)
class GeneMatch:
    """How the genes of a list were found among those of a prior.

    Attributes
    ----------
    row : tuple of int
        Row of the prior for each gene of the list; -1 where there is none.
    rule : tuple of str
        gene_id, symbol or synonym; empty where there is none.
    missing : tuple of str
        Genes of the list without any row.
    ambiguous : dict
        Genes of the list that several rows claim, with the ids of these rows.
    """

    row: tuple[int, ...]
    rule: tuple[str, ...]
    missing: tuple[str, ...] = ()
    ambiguous: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def by_rule(self) -> dict[str, int]:
        """Genes matched by each rule."""
        return {rule: self.rule.count(rule) for rule in RULES}


@dataclass(frozen=True)
class AlignReport:
    """What `GenePrior.align` found.

    Attributes
    ----------
    match : GeneMatch
        Row and rule for every gene asked for.
    absent : tuple of str
        Genes that were found, but have no usable window.
    coverage : float
        Share of the genes asked for that now have a prior.
    """

    match: GeneMatch
    absent: tuple[str, ...]
    coverage: float

    @property
    def text(self) -> str:
        """One line for people."""
        rules = ", ".join(f"{count:,} by {rule}" for rule, count in self.match.by_rule.items())
        return (
            f"{self.coverage:.1%} of {len(self.match.row):,} genes have a prior ({rules}; "
            f"{len(self.absent):,} of these without usable window; "
            f"{len(self.match.missing):,} missing, {len(self.match.ambiguous):,} ambiguous)"
        )


def match_genes(
    wanted: Sequence[str],
    gene_ids: Sequence[str],
    symbols: Sequence[str],
    *,
    wanted_symbols: Sequence[str] | None = None,
    synonyms: Mapping[str, str | Sequence[str]] | None = None,
) -> GeneMatch:
    """Find each wanted gene by id without version, then by exact symbol, then by synonym.

    Parameters
    ----------
    wanted : sequence of str
        Ids or symbols.
    gene_ids, symbols : sequence of str
        Of the prior; ids are unique, symbols may be empty or shared.
    wanted_symbols : sequence of str, optional
        Symbols beside the wanted ids; the wanted names themselves when not given.
    synonyms : mapping, optional
        From an old name to the id or symbol that stands for it, or to several of them.

    Raises
    ------
    InputError
        A wanted gene is there twice (versions do not count), or two of them are one gene.
    """
    names = [strip_version(str(name)) for name in wanted]
    _refuse_repeats(names)
    given = names if wanted_symbols is None else wanted_symbols
    labels = text_of(given)
    if len(labels) != len(names):
        raise InputError(
            facts(
                "genes to align",
                found=f"{len(names)} genes and {len(labels)} symbols",
                expected="one symbol per gene",
                fix="give both in the same order",
            )
        )
    by_id = {strip_version(gene_id): row for row, gene_id in enumerate(gene_ids)}
    by_symbol: dict[str, list[int]] = {}
    for row, symbol in enumerate(symbols):
        by_symbol.setdefault(symbol, []).append(row)
    by_symbol.pop("", None)

    def by_name(name: str) -> set[int]:
        row = by_id.get(strip_version(name))
        return set(by_symbol.get(name, ())) if row is None else {row}

    rows, rules, missing, ambiguous = [], [], [], {}
    for name, label in zip(names, labels, strict=True):
        found, rule = {by_id[name]} if name in by_id else set(), "gene_id"
        if not found:
            found, rule = set(by_symbol.get(label, ())), "symbol"
        if not found:
            targets = _targets(synonyms or {}, name, label)
            found, rule = set().union(*map(by_name, targets)), "synonym"
        rows.append(found.pop() if len(found) == 1 else -1)
        rules.append(rule if rows[-1] >= 0 else "")
        if found and rows[-1] < 0:
            ambiguous[name] = tuple(str(gene_ids[row]) for row in sorted(found))
        elif rows[-1] < 0:
            missing.append(name)
    _refuse_shared(names, rows, gene_ids)
    return GeneMatch(tuple(rows), tuple(rules), tuple(missing), ambiguous)


def _targets(synonyms: Mapping[str, str | Sequence[str]], *names: str) -> list[str]:
    found: list[str] = []
    for name in names:
        value = synonyms.get(name, ())
        found += [value] if isinstance(value, str) else list(value)
    return found


def _refuse_repeats(names: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(
            facts(
                "genes to align",
                found="genes named twice (versions do not count)",
                expected="every gene once",
                fix="drop the repeated ones",
                count=len(repeated),
                examples=repeated,
            )
        )


def _refuse_shared(names: Sequence[str], rows: Sequence[int], gene_ids: Sequence[str]) -> None:
    claims: dict[int, list[str]] = {}
    for name, row in zip(names, rows, strict=True):
        if row >= 0:
            claims.setdefault(row, []).append(name)
    shared = [f"{' and '.join(who)} ({gene_ids[row]})" for row, who in claims.items() if who[1:]]
    if shared:
        raise InputError(
            facts(
                "genes to align",
                found="names that mean the same gene of the prior",
                expected="one name per gene",
                fix="drop all names but one of each, or correct the synonyms",
                count=len(shared),
                examples=shared,
            )
        )
