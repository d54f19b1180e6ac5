"""Who is trained on and who is judged: folds by patient, section, block of tissue or gene.

Sections of a patient are neighbouring cuts of one tissue. A fold that has them on both sides is
marked ``leaky``; its results say so. Inner validation, which chooses epochs and strengths, is cut
from the training part: a patient where there are several, otherwise a block of every section.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.spatial.cohort import SpatialCohort

__all__ = [
    "FOLD_KINDS",
    "Fold",
    "FoldConfig",
    "Spots",
    "gene_folds",
    "inner_validation",
    "make_folds",
    "require_no_overlap",
    "spatial_blocks",
]

FoldKind = Literal["patient", "section", "blocks"]
FOLD_KINDS: tuple[str, ...] = get_args(FoldKind)

Spots = Mapping[str, NDArray[np.int64]]
"""Rows of the spots by section."""


@dataclass(frozen=True)
class FoldConfig:
    """How a cohort is cut."""

    kind: FoldKind = "patient"
    """patient: each patient in turn is held out (or a share of them, with ``num_folds``); section:
    each section in turn, leaky where its patient has others; blocks: contiguous blocks within
    every section, with a buffer of one spot."""
    num_folds: int = 0
    """Groups of patients, or blocks per section; 0 takes every patient, and four blocks."""
    seed: int = 0
    """Of the groups and of the inner validation."""

    def __post_init__(self) -> None:
        if self.num_folds < 0 or self.num_folds == 1:
            raise ConfigError(
                facts(
                    "folds.num_folds",
                    found=self.num_folds,
                    expected="0, or at least 2",
                    fix="change it",
                )
            )
        if self.seed < 0:
            raise ConfigError(
                facts("folds.seed", found=self.seed, expected="0 or more", fix="change it")
            )


@dataclass(frozen=True, eq=False)
class Fold:
    """One cut.

    Attributes
    ----------
    name : str
        What is held out.
    train, valid, test : mapping of str to int64 array
        Rows of the spots by section.
    leaky : bool
        A patient of the test part is in the training part too.
    """

    name: str
    train: Spots
    valid: Spots
    test: Spots
    leaky: bool = field(default=False)

    @property
    def fitting(self) -> Spots:
        """Training and validation spots together."""
        names = dict.fromkeys([*self.train, *self.valid])
        empty = np.empty(0, np.int64)
        return {
            name: np.sort(
                np.concatenate([self.train.get(name, empty), self.valid.get(name, empty)])
            )
            for name in names
        }


def make_folds(cohort: SpatialCohort, config: FoldConfig | None = None) -> list[Fold]:
    """Return the folds of a cohort.

    Raises
    ------
    InputError
        Too few patients, sections or spots for the kind of fold.
    """
    config = config or FoldConfig()
    rows = {info.name: np.arange(info.num_spots) for info in cohort.manifest.sections}
    patients = cohort.patients
    if config.kind == "blocks":
        return _block_folds(cohort, config)
    groups: list[tuple[str, list[str]]]
    if config.kind == "section":
        groups = [(name, [name]) for name in rows]
    else:
        groups = _patient_groups(patients, config)
    if len(groups) < 2:
        raise InputError(
            facts(
                f"cohort {cohort.root}",
                found=f"one {config.kind}",
                expected="at least two, one to train on and one to judge by",
                fix="use folds.kind: section or blocks, and read the result as leaky",
                count=len(groups),
            )
        )
    folds = []
    for name, held_out in groups:
        fitting = {key: value for key, value in rows.items() if key not in held_out}
        train, valid = inner_validation(cohort, fitting, seed=config.seed)
        test = {key: rows[key] for key in held_out}
        leaky = bool({patients[key] for key in test} & {patients[key] for key in fitting})
        folds.append(Fold(name, train, valid, test, leaky))
    for fold in folds:
        require_no_overlap(fold, patients)
    return folds


def _patient_groups(patients: Mapping[str, str], config: FoldConfig) -> list[tuple[str, list[str]]]:
    names = list(dict.fromkeys(patients.values()))
    if config.num_folds:
        if config.num_folds > len(names):
            raise InputError(
                facts(
                    "folds.num_folds",
                    found=f"{config.num_folds} for {len(names)} patients",
                    expected="at most one per patient",
                    fix="lower it",
                )
            )
        order = np.random.default_rng(config.seed).permutation(len(names))
        parts = [sorted(names[i] for i in part) for part in np.array_split(order, config.num_folds)]
    else:
        parts = [[name] for name in names]
    return [
        ("+".join(part), [section for section, patient in patients.items() if patient in part])
        for part in parts
    ]


def inner_validation(
    cohort: SpatialCohort, fitting: Spots, *, seed: int = 0
) -> tuple[Spots, Spots]:
    """Cut the inner validation from the training part: a patient, or a block of every section.

    Returns
    -------
    train, valid : mapping of str to int64 array
        Rows of the spots by section.
    """
    patients = cohort.patients
    names = sorted({patients[section] for section in fitting})
    if len(names) > 1:
        chosen = names[int(np.random.default_rng(seed).integers(len(names)))]
        valid = {key: value for key, value in fitting.items() if patients[key] == chosen}
        return {key: value for key, value in fitting.items() if key not in valid}, valid
    return _inner_blocks(cohort, fitting, seed)


def _block_folds(cohort: SpatialCohort, config: FoldConfig) -> list[Fold]:
    num_blocks = config.num_folds or 4
    blocks = {
        section.name: [
            spatial_blocks(section.grid_N2, num_blocks=num_blocks, seed=config.seed, first=number)
            for number in range(num_blocks)
        ]
        for section in cohort.sections()
    }
    folds = []
    for number in range(num_blocks):
        test = {name: np.flatnonzero(parts[number] == 0) for name, parts in blocks.items()}
        fitting = {name: np.flatnonzero(parts[number] > 0) for name, parts in blocks.items()}
        train, valid = _inner_blocks(cohort, fitting, config.seed)
        folds.append(Fold(f"block {number + 1}", train, valid, test, leaky=True))
    return folds


def _inner_blocks(cohort: SpatialCohort, fitting: Spots, seed: int) -> tuple[Spots, Spots]:
    train, valid = {}, {}
    for section, rows in fitting.items():
        blocks = spatial_blocks(cohort.section(section).grid_N2[rows], num_blocks=5, seed=seed)
        valid[section], train[section] = rows[blocks == 0], rows[blocks > 0]
    return train, valid


def spatial_blocks(
    grid_N2: NDArray[np.int64], *, num_blocks: int, seed: int = 0, first: int = 0
) -> NDArray[np.int64]:
    """Cut spots into contiguous blocks of about equal size along the longer side of the tissue.

    Parameters
    ----------
    grid_N2 : int64 array, shape (num_spots, 2)
        Row and column.
    num_blocks : int
    seed : int
        Which block is numbered 0.
    first : int
        Moves the numbering on by so many blocks.

    Returns
    -------
    int64 array, shape (num_spots,)
        0 for the held-out block, -1 for spots next to it (within one row and column), which belong
        to neither side, and the numbers of the other blocks.

    Raises
    ------
    InputError
        Fewer spots than blocks.
    """
    if len(grid_N2) < 2 * num_blocks:
        raise InputError(
            facts(
                "blocks of a section",
                found=f"{len(grid_N2)} spots",
                expected=f"at least two for each of {num_blocks} blocks",
                fix="use fewer blocks, or leave the section out",
                count=len(grid_N2),
            )
        )
    axis = int(np.argmax(np.ptp(grid_N2, axis=0)))
    order = np.lexsort((grid_N2[:, 1 - axis], grid_N2[:, axis]))
    part = np.empty(len(grid_N2), dtype=np.int64)
    part[order] = np.arange(len(grid_N2)) * num_blocks // len(grid_N2)
    held = (int(np.random.default_rng(seed).integers(num_blocks)) + first) % num_blocks
    number = (part - held) % num_blocks
    inside = grid_N2[number == 0]
    # Chebyshev distance to the held-out block of at most one: the buffer.
    near = (np.abs(grid_N2[:, None] - inside[None]).max(axis=2) <= 1).any(axis=1)
    return np.where(near & (number != 0), -1, number)


def gene_folds(
    mean_G: NDArray[np.float64], *, num_folds: int = 5, seed: int = 0
) -> list[NDArray[np.int64]]:
    """Return the genes hidden in each fold, alike in training mean expression.

    Parameters
    ----------
    mean_G : float array, shape (num_genes,)
        Mean label over training spots.
    num_folds : int
    seed : int
    """
    if not 2 <= num_folds <= mean_G.size:
        raise ConfigError(
            facts(
                "gene folds",
                found=f"{num_folds} for {mean_G.size} genes",
                expected="between 2 and one per gene",
                fix="change it",
            )
        )
    random = np.random.default_rng(seed)
    order = np.argsort(mean_G, kind="stable")
    fold = np.empty(mean_G.size, dtype=np.int64)
    # Of every num_folds genes of like mean, one goes to each fold.
    for first in range(0, mean_G.size, num_folds):
        group = order[first : first + num_folds]
        fold[group] = random.permutation(num_folds)[: group.size]
    return [np.flatnonzero(fold == number) for number in range(num_folds)]


def require_no_overlap(fold: Fold, patients: Mapping[str, str]) -> None:
    """Refuse a fold whose parts share spots, or patients without being marked.

    Raises
    ------
    InputError
    """
    parts: Sequence[tuple[str, Spots]] = (
        ("train", fold.train),
        ("valid", fold.valid),
        ("test", fold.test),
    )
    for place, (name, spots) in enumerate(parts):
        for other, others in parts[place + 1 :]:
            shared = {
                section
                for section in set(spots) & set(others)
                if np.intersect1d(spots[section], others[section]).size
            }
            if shared:
                raise InputError(
                    facts(
                        f"fold {fold.name}",
                        found=f"spots of {', '.join(sorted(shared))} in {name} and {other}",
                        expected="every spot on one side",
                        fix="mend the split",
                        count=len(shared),
                    )
                )
    judged = {patients[section] for section in fold.test}
    fitted = {patients[section] for section in {*fold.train, *fold.valid}}
    if judged & fitted and not fold.leaky:
        raise InputError(
            facts(
                f"fold {fold.name}",
                found=f"patient {', '.join(sorted(judged & fitted))} on both sides",
                expected="patients on one side, or a fold marked as leaky",
                fix="split by patient",
                count=len(judged & fitted),
            )
        )
