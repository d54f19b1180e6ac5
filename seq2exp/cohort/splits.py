"""Which donors and genes train, choose and test: made once, checked, written with hashes.

Three axes are tested:

    A   genes seen in training   x   unseen donors of the training populations
    B   genes seen in training   x   donors of held-out populations
    C   genes never seen         x   all donors  (and ``C_new``: those who do not train or validate)

Donors are ``train``, ``valid``, ``test`` (A) or ``population`` (B). ``people: global`` has one list
for all genes. ``people: per_gene`` draws the test donors of every gene anew, as a published
comparison does (Rastogi et al. 2024, bioRxiv 2024.09.23.614632): a test donor of one gene then
trains what genes share through the others, so it is not the default.

Axes: G genes, D donors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import ConfigError, FormatError, facts
from seq2exp.core.files import read_json, write_json

__all__ = [
    "AXES",
    "DONOR_SETS",
    "GENE_SETS",
    "CohortSplit",
    "CohortSplitConfig",
    "list_hash",
    "read_split",
]

Bools = NDArray[np.bool_]
Codes = NDArray[np.int8]

DONOR_SETS = ("train", "valid", "test", "population", "unused")
GENE_SETS = ("seen", "seen_a", "seen_b", "valid", "unseen", "unused")
AXES = ("A", "B", "C", "C_new")
_NAME, _FORMAT = "seq2exp-cohort-split", 1
_SEEN = ("seen", "seen_a", "seen_b")


@dataclass(frozen=True)
class CohortSplitConfig:
    """How donors and genes are split."""

    test_populations: list[str] = field(default_factory=list)
    """Populations held out whole (axis B), as the donors table names them."""
    test_share: float = 0.2
    """Share of the other donors that tests (axis A)."""
    valid_share: float = 0.1
    """Share of the donors left after that which validates."""
    people: Literal["global", "per_gene"] = "global"
    """Test donors drawn once for all genes, or for every gene anew."""
    relatives: Literal["together", "warn"] = "together"
    """Keep relatives in one set, or draw donors one by one and warn."""
    genes: Literal["dataset", "rastogi"] = "dataset"
    """Classes of genes: the split of the dataset (train is seen, test unseen), or contigs dealt to
    the classes A, B and C of the published recipe."""
    class_shares: list[float] = field(default_factory=lambda: [0.4, 0.4, 0.2])
    """Shares of genes of the classes A, B, C of the published recipe."""
    seed: int = 42
    """Seed of every draw."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        problems = {
            "test_share": 0 <= self.test_share < 1,
            "valid_share": 0 <= self.valid_share < 1,
            "class_shares": len(self.class_shares) == 3 and all(x > 0 for x in self.class_shares),
        }
        for name, fits in problems.items():
            if not fits:
                raise ConfigError(
                    facts(
                        f"splits.{name}", found=getattr(self, name),
                        expected="three shares above 0" if name == "class_shares"
                        else "0 or more, below 1",
                        fix="mend it",
                    )
                )  # fmt: skip


@dataclass(frozen=True, eq=False)
class CohortSplit:
    """The sets of every donor and gene.

    Attributes
    ----------
    donors, genes : tuple of str
    donor_sets : tuple of str
        One of :data:`DONOR_SETS` per donor. With ``people: per_gene`` the donors of the training
        populations are ``train`` here and drawn per gene in `per_gene`.
    gene_sets : tuple of str
        One of :data:`GENE_SETS` per gene. ``seen_a`` and ``seen_b`` are seen genes that are tested
        on the axis A or B only.
    contigs : tuple of str
        Of the genes.
    per_gene : dict
        Gene to codes of :data:`DONOR_SETS`, int8, one per donor; empty with ``people: global``.
    config : dict
        What made the split; empty for lists given by hand.
    """

    donors: tuple[str, ...]
    genes: tuple[str, ...]
    donor_sets: tuple[str, ...]
    gene_sets: tuple[str, ...]
    contigs: tuple[str, ...]
    per_gene: Mapping[str, Codes] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    def codes(self) -> Codes:
        """Return the set of each donor for each gene, codes of :data:`DONOR_SETS`, shape (G, D)."""
        common = np.array([DONOR_SETS.index(name) for name in self.donor_sets], np.int8)
        out = np.tile(common, (len(self.genes), 1))
        for row, gene in enumerate(self.genes):
            if gene in self.per_gene:
                out[row] = self.per_gene[gene]
        return out

    def mask(self, name: str) -> Bools:
        """Return the cells (gene, donor) of a set, bool, shape (num_genes, num_donors).

        Parameters
        ----------
        name : str
            ``train`` and ``valid``: seen genes by training and validation donors. ``valid_genes``:
            validation genes by training donors. ``A``, ``B``, ``C``, ``C_new``: the tests.
        """
        codes = self.codes()
        sets = np.array(self.gene_sets)
        seen = np.isin(sets, _SEEN)
        train, valid, test, population = (codes == code for code in range(4))
        rows: dict[str, tuple[Bools, Bools]] = {
            "train": (seen, train),
            "valid": (seen, valid),
            "valid_genes": (sets == "valid", train),
            "A": (np.isin(sets, ("seen", "seen_a")), test),
            "B": (np.isin(sets, ("seen", "seen_b")), population),
            "C": (sets == "unseen", codes < DONOR_SETS.index("unused")),
            "C_new": (sets == "unseen", test | population),
        }
        if name not in rows:
            raise ConfigError(
                facts("split", found=name, expected=", ".join(rows), fix="choose one of them")
            )
        genes, cells = rows[name]
        return np.asarray(genes[:, None] & cells)

    def never_fitted(self) -> Bools:
        """Return the donors on whom nothing may be fitted: test and population of any gene."""
        codes = self.codes()
        held = [DONOR_SETS.index(name) for name in ("test", "population")]
        if not self.per_gene:
            return np.asarray(np.isin(codes[0], held)) if len(codes) else np.zeros(0, bool)
        # Per gene, a test donor of one gene trains others; held-out populations never do.
        return np.asarray([name in ("test", "population") for name in self.donor_sets])

    def counts(self) -> dict[str, int]:
        """Return the number of donors, and of genes (``gene_...``), by set."""
        donors = {name: self.donor_sets.count(name) for name in DONOR_SETS}
        genes = {f"gene_{name}": self.gene_sets.count(name) for name in GENE_SETS}
        return {name: num for name, num in (donors | genes).items() if num}

    def hashes(self) -> dict[str, str]:
        """Return SHA-256 of the list of every set of donors and genes, order ignored."""
        out = {}
        for kind, names, sets in (
            ("donors", self.donors, self.donor_sets),
            ("genes", self.genes, self.gene_sets),
        ):
            for label in DONOR_SETS if kind == "donors" else GENE_SETS:
                part = [name for name, own in zip(names, sets, strict=True) if own == label]
                if part:
                    out[f"{kind}.{label}"] = list_hash(part)
        if self.per_gene:
            # The codes have the order of the donors, so that order counts here.
            lines = [f"{gene} {codes.tolist()}" for gene, codes in self.per_gene.items()]
            lines.append(" ".join(self.donors))
            out["per_gene"] = list_hash(lines)
        return out

    def write(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the split as JSON: lists by set, their hashes, and what made it."""
        value: dict[str, Any] = {
            "format": _NAME,
            "format_version": _FORMAT,
            "config": dict(self.config),
            "counts": self.counts(),
            "sha256": self.hashes(),
            "donors": {"donor": list(self.donors), "set": list(self.donor_sets)},
            "genes": {
                "gene_id": list(self.genes),
                "contig": list(self.contigs),
                "set": list(self.gene_sets),
            },
        }
        if self.per_gene:
            # One digit per donor, in the order above.
            value["per_gene"] = {
                gene: "".join(map(str, codes.tolist())) for gene, codes in self.per_gene.items()
            }
        write_json(value, path, overwrite=overwrite)


def list_hash(names: Sequence[str]) -> str:
    """Return the SHA-256 of names, sorted, one per line."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def read_split(path: Path) -> CohortSplit:
    """Read a split file and check it against its hashes.

    Raises
    ------
    FormatError
        Not such a file, of a newer format, or changed after it was written.
    """
    value = read_json(path)
    if not isinstance(value, dict) or value.get("format") != _NAME:
        raise _unreadable(path, "another file", "a cohort split")
    if value.get("format_version") != _FORMAT:
        raise _unreadable(path, f"version {value.get('format_version')}", f"version {_FORMAT}")
    try:
        donors, genes = value["donors"], value["genes"]
        split = CohortSplit(
            donors=tuple(donors["donor"]),
            genes=tuple(genes["gene_id"]),
            donor_sets=tuple(donors["set"]),
            gene_sets=tuple(genes["set"]),
            contigs=tuple(genes["contig"]),
            per_gene={
                gene: np.array([int(digit) for digit in value["per_gene"][gene]], np.int8)
                for gene in genes["gene_id"]
                if gene in value.get("per_gene", {})
            },
            config=value["config"],
        )
        hashes = split.hashes()
        wrong = [name for name in {**hashes, **value["sha256"]}
                 if hashes.get(name) != value["sha256"].get(name)]  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(path, f"{type(error).__name__} {error}", "the keys of a split") from None
    if wrong:
        raise _unreadable(
            path, f"lists that do not have their hashes ({', '.join(wrong)})", "unchanged lists"
        )
    return split


def _unreadable(path: Path, found: str, expected: str) -> FormatError:
    return FormatError(facts(str(path), found=found, expected=expected, fix="make the split again"))
