"""Prediction by example: the expression of the reference spots whose keys are most like a query.

A bank belongs to the towers that made its keys. It carries its genes, recipe, sections and patients
by name, can be extended or replaced without training, and never answers with a spot of the query's
own patient unless sections are all that is to be kept apart, which is then flagged.

Axes: B queries, N spots of the bank, K spots found, D width of the keys, G genes.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, FormatError, InputError, Seq2ExpWarning, facts
from seq2exp.core.files import atomic_directory, read_json, write_json
from seq2exp.spatial.nearest import distance_weights, nearest_spots, weighted_moments

__all__ = ["RetrievalBank", "RetrievalConfig", "Retrieved"]

BANK_FORMAT = 1
_FIELDS = ("keys_ND", "expression_NG", "spot_N", "section_N", "patient_N")
_NAMES = ("sections", "patients", "genes")
_MOST_NUMBERS = 1 << 22


@dataclass(frozen=True)
class RetrievalConfig:
    """How the bank answers."""

    k: int = 200
    """Spots that are averaged."""
    weights: Literal["l1", "l2", "softmax", "uniform"] = "l2"
    """Weight of a spot: inverse square of the distance (sum of differences, or Euclidean), softmax
    of the cosine over ``temperature``, or the same for all."""
    epsilon: float = 1e-6
    """Smallest distance that is told from 0."""
    temperature: float = 0.07
    """Of the softmax."""
    unit: bool = True
    """Take distances between embeddings divided by their lengths."""
    exclude: Literal["patient", "section"] = "patient"
    """Whose spots never answer: those of the query's patient, or only those of its section."""
    chunk: int = 4096
    """Spots of the bank, and queries, that are compared at a time."""

    def __post_init__(self) -> None:
        for name in ("k", "epsilon", "temperature", "chunk"):
            if not getattr(self, name) > 0:
                found = getattr(self, name)
                raise ConfigError(
                    facts(f"retrieval.{name}", found=found, expected="> 0", fix="change it")
                )


@dataclass(frozen=True, eq=False)
class Retrieved:
    """Answer of a bank.

    Attributes
    ----------
    mean_BG, sd_BG : float tensors, shape (queries, genes)
        Weighted mean of the expression of the spots found, and its weighted deviation.
    ids_BK : int64 tensor, shape (queries, found)
        Rows of the bank, most similar first; -1 where the bank had no more.
    weights_BK : float tensor, shape (queries, found)
        Sum to 1.
    similarity_BK : float tensor, shape (queries, found)
        Cosines; -inf where ids are -1.
    leaky : bool
        A spot of the query's own patient is among those found.
    """

    mean_BG: Tensor
    sd_BG: Tensor
    ids_BK: Tensor
    weights_BK: Tensor
    similarity_BK: Tensor
    leaky: bool


@dataclass(frozen=True, eq=False)
class RetrievalBank:
    """Reference spots.

    Attributes
    ----------
    keys_ND : float32 tensor, shape (spots, width)
        Embeddings of the spot tower, not divided by their lengths.
    expression_NG : float32 tensor, shape (spots, genes)
        Labels; NaN where a gene was not measured.
    spot_N, section_N, patient_N : int64 tensors, shape (spots,)
        Row of the spot in its section, and places in ``sections`` and ``patients``.
    sections, patients, genes : tuples of str
    recipe : str
        Of the labels.
    towers : str
        Fingerprint of the model that made the keys.
    """

    keys_ND: Tensor
    expression_NG: Tensor
    spot_N: Tensor
    section_N: Tensor
    patient_N: Tensor
    sections: tuple[str, ...]
    patients: tuple[str, ...]
    genes: tuple[str, ...] = ()
    recipe: str = ""
    towers: str = ""

    def __post_init__(self) -> None:
        sizes = {len(getattr(self, name)) for name in _FIELDS}
        num_genes = self.expression_NG.shape[1]
        wrong = "parts of different lengths" if len(sizes) > 1 else ""
        if not len(self.keys_ND):
            wrong = "no spot"
        elif not torch.isfinite(self.keys_ND).all():
            wrong = "keys that are no number"
        elif self.genes and len(self.genes) != num_genes:
            wrong = f"{num_genes} columns for {len(self.genes)} genes"
        elif not wrong:
            for code, names in ((self.section_N, self.sections), (self.patient_N, self.patients)):
                if int(code.min()) < 0 or int(code.max()) >= len(names):
                    wrong = "a section or patient without name"
        if wrong:
            raise InputError(
                facts(
                    "retrieval bank",
                    found=wrong,
                    expected="one key, expression, section and patient per spot",
                    fix="build it with fit_reference",
                )
            )

    def __len__(self) -> int:
        return len(self.keys_ND)

    def label(self, row: int) -> tuple[str, int]:
        """Return the section and the row in it of a spot of the bank."""
        return self.sections[int(self.section_N[row])], int(self.spot_N[row])

    def patient_codes(self, names: Iterable[str]) -> Tensor:
        """Return the places of patients in ``patients``; -1 for those the bank does not know."""
        place = {name: code for code, name in enumerate(self.patients)}
        return torch.tensor([place.get(name, -1) for name in names], dtype=torch.int64)

    def require_disjoint(self, patients: Iterable[str]) -> None:
        """Refuse to be the reference of these patients if any spot is of one of them.

        Raises
        ------
        InputError
        """
        held = {self.patients[code] for code in set(self.patient_N.tolist())}
        shared = sorted(held & set(patients))
        if shared:
            raise InputError(
                facts(
                    "retrieval bank",
                    found="spots of the patients to predict",
                    expected="reference spots of other patients",
                    fix="build the bank from training patients",
                    count=len(shared),
                    examples=shared,
                )
            )

    # Queries --------------------------------------------------------------------------------------

    @torch.no_grad()
    def query(
        self,
        query_BD: Tensor,
        config: RetrievalConfig,
        *,
        patient_B: Tensor,
        section_B: Tensor | None = None,
    ) -> Retrieved:
        """Answer queries, exactly.

        Parameters
        ----------
        query_BD : float tensor, shape (queries, width)
        config : RetrievalConfig
        patient_B : int64 tensor, shape (queries,)
            Place of the query's patient in ``patients``; -1 for a patient unknown to the bank.
        section_B : int64 tensor, shape (queries,), optional
            Place of its section; needed where only sections are kept apart.

        Raises
        ------
        InputError
            Nothing is left to answer from, or keys of another width.
        """
        own_B, code_N = patient_B, self.patient_N
        if config.exclude == "section" and section_B is not None:
            own_B, code_N = section_B, self.section_N
        self._require_query(query_BD, section_B, config)
        counts = torch.bincount(code_N, minlength=int(code_N.max()) + 1)
        lost_B = torch.where(
            (own_B >= 0) & (own_B < len(counts)), counts[own_B.clamp(0, len(counts) - 1)], 0
        )
        left_B = len(self) - lost_B
        k = self._clipped(config.k, left_B, config.exclude)
        # So many queries at a time that neither cosines nor keys outgrow the memory.
        gathered = k * self.keys_ND.shape[1] if config.weights == "l1" else k
        widest = max(min(config.chunk, len(self)), gathered)
        size = max(1, min(config.chunk, _MOST_NUMBERS // widest))
        parts = [
            self._answer(
                query_BD[at : at + size], own_B[at : at + size], self._unit_ND, code_N, k, config
            )
            for at in range(0, len(query_BD), size)
        ]
        mean, sd, ids, weights, cosines = (torch.cat(part) for part in zip(*parts, strict=True))
        shared = (self.patient_N[ids.clamp(min=0)] == patient_B[:, None]) & (ids >= 0)
        return Retrieved(mean, sd, ids, weights, cosines, bool(shared.any()))

    def _require_query(
        self, query_BD: Tensor, section_B: Tensor | None, config: RetrievalConfig
    ) -> None:
        wrong = ""
        if not len(query_BD):
            wrong = "no query"
        elif query_BD.shape[1] != self.keys_ND.shape[1]:
            wrong = f"queries of width {query_BD.shape[1]}"
        elif not torch.isfinite(query_BD).all():
            wrong = "queries that are no number"
        elif config.exclude == "section" and section_B is None:
            wrong = "no section of the queries"
        if wrong:
            raise InputError(
                facts(
                    "retrieval",
                    found=wrong,
                    expected=f"finite embeddings of width {self.keys_ND.shape[1]} and their origin",
                    fix="query the bank with the towers that made it",
                )
            )

    def _clipped(self, k: int, left_B: Tensor, exclude: str) -> int:
        most, least = int(left_B.max()), int(left_B.min())
        if least < 1:
            raise InputError(
                facts(
                    "retrieval bank",
                    found=f"only spots of the {exclude} to predict",
                    expected="reference spots of others",
                    fix="add reference sections, or let exclude be section (leaky)",
                )
            )
        if k > least:
            message = facts(
                "retrieval.k",
                found=k,
                expected=f"at most {least}, the spots of other {exclude}s",
                fix="lower it; all there are were used",
            )
            warnings.warn(message, Seq2ExpWarning, stacklevel=3)
        return min(k, most)

    def _answer(
        self,
        query_BD: Tensor,
        own_B: Tensor,
        unit_ND: Tensor,
        code_N: Tensor,
        k: int,
        config: RetrievalConfig,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        cosine_BK, ids_BK = nearest_spots(
            query_BD, unit_ND, k=k, chunk=config.chunk, own_B=own_B, code_N=code_N
        )
        weights_BK = self._weights(query_BD, ids_BK, cosine_BK, config)
        mean_BG, sd_BG, total_BG = weighted_moments(
            self.expression_NG, ids_BK, weights_BK, complete=self._complete
        )
        # Where none of the spots found has measured a gene, its mean over the bank answers.
        if not self._complete:
            mean_BG = torch.where(total_BG > 0, mean_BG, self.expression_NG.nanmean(0))
        ids_BK = torch.where(torch.isfinite(cosine_BK), ids_BK, -1)
        return mean_BG, sd_BG, ids_BK, weights_BK, cosine_BK

    def _weights(
        self, query_BD: Tensor, ids_BK: Tensor, cosine_BK: Tensor, config: RetrievalConfig
    ) -> Tensor:
        if config.weights == "softmax":
            return (cosine_BK / config.temperature).softmax(-1)
        if config.weights == "uniform":
            found_BK = torch.isfinite(cosine_BK).to(cosine_BK.dtype)
            return found_BK / found_BK.sum(-1, keepdim=True)
        return distance_weights(
            query_BD,
            self.keys_ND,
            ids_BK,
            cosine_BK,
            order=1 if config.weights == "l1" else 2,
            unit=config.unit,
            epsilon=config.epsilon,
        )

    @cached_property
    def _unit_ND(self) -> Tensor:
        return F.normalize(self.keys_ND, dim=-1)

    @cached_property
    def _complete(self) -> bool:
        return bool(torch.isfinite(self.expression_NG).all())

    # Other references -----------------------------------------------------------------------------

    def extend(self, other: RetrievalBank) -> RetrievalBank:
        """Return a bank with the spots of both.

        Raises
        ------
        InputError
            Other genes, recipe or towers, or spots that both hold.
        """
        differ = [
            name
            for name in ("genes", "recipe", "towers")
            if getattr(self, name) != getattr(other, name)
        ]
        if differ:
            raise InputError(
                facts(
                    "retrieval bank",
                    found=f"other {' and '.join(differ)}",
                    expected="the same genes, recipe and towers",
                    fix="build both with one trained system",
                )
            )
        sections, section_N = _joined(self.sections, other.sections, other.section_N)
        patients, patient_N = _joined(self.patients, other.patients, other.patient_N)
        moved = dataclasses.replace(
            other, sections=sections, patients=patients, section_N=section_N, patient_N=patient_N
        )
        joined: dict[str, Any] = {
            name: torch.cat([getattr(self, name), getattr(moved, name)]) for name in _FIELDS
        }
        pairs = zip(joined["section_N"].tolist(), joined["spot_N"].tolist(), strict=True)
        repeated = len(joined["spot_N"]) - len(set(pairs))
        if repeated:
            raise InputError(
                facts(
                    "retrieval bank",
                    found="spots that it holds already",
                    expected="each spot once",
                    fix="extend it by other sections",
                    count=repeated,
                )
            )
        return dataclasses.replace(self, sections=sections, patients=patients, **joined)

    def to(self, device: torch.device | str) -> RetrievalBank:
        """Return the bank on a device."""
        moved: dict[str, Any] = {name: getattr(self, name).to(device) for name in _FIELDS}
        return dataclasses.replace(self, **moved)

    # Files ----------------------------------------------------------------------------------------

    def save(self, folder: Path, *, overwrite: bool = False) -> None:
        """Write ``bank.safetensors`` and ``bank.json``; the folder appears whole or not at all."""
        # Cloned: one tensor may stand for sections and patients, which the format refuses.
        tensors = {
            name: getattr(self, name).detach().cpu().clone().contiguous() for name in _FIELDS
        }
        words = {name: list(getattr(self, name)) for name in _NAMES}
        with atomic_directory(folder, overwrite=overwrite) as partial:
            try:
                save_file(tensors, partial / "bank.safetensors")
            except SafetensorError as error:
                # Its I/O errors are no OSError.
                raise OSError(f"{folder}: the bank cannot be written: {error}") from error
            card = {"format_version": BANK_FORMAT, "num_spots": len(self), **words}
            write_json(card | {"recipe": self.recipe, "towers": self.towers}, partial / "bank.json")

    @classmethod
    def load(cls, folder: Path, *, genes: Sequence[str] | None = None) -> RetrievalBank:
        """Read a bank.

        Parameters
        ----------
        folder : Path
        genes : sequence of str, optional
            Ids that it must hold, in this order.

        Raises
        ------
        FormatError
            A file is missing or damaged, or the genes are others.
        """
        folder = Path(folder)
        card = read_json(folder / "bank.json")
        wrong = ""
        try:
            tensors: dict[str, Any] = load_file(folder / "bank.safetensors")
            words: dict[str, Any] = {name: tuple(map(str, card[name])) for name in _NAMES}
            version, recipe, towers = (
                card["format_version"],
                str(card["recipe"]),
                str(card["towers"]),
            )
            if version != BANK_FORMAT:
                wrong = f"format_version {version}"
            elif set(tensors) != set(_FIELDS) or len(tensors["keys_ND"]) != card["num_spots"]:
                wrong = "parts that do not belong together"
            elif genes is not None and list(genes) != list(words["genes"]):
                wrong = "other genes, or another order of them"
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            wrong = f"no readable bank ({error})"
        if wrong:
            raise FormatError(
                facts(
                    str(folder),
                    found=wrong,
                    expected="a bank of this package with the genes of the run",
                    fix="build it again with fit_reference",
                )
            )
        return cls(**tensors, **words, recipe=recipe, towers=towers)


def _joined(
    first: tuple[str, ...], second: tuple[str, ...], code_N: Tensor
) -> tuple[tuple[str, ...], Tensor]:
    """Names of both, and the second's places in them."""
    names = tuple(dict.fromkeys([*first, *second]))
    place = torch.tensor([names.index(name) for name in second], dtype=torch.int64)
    return names, place.to(code_N.device)[code_N]
