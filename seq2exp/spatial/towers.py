"""Two towers and a bank: what the contrastive systems share.

The image tower sees a patch (or its cached features), the gene tower the labels of the spot. After
training, :meth:`TwoTowers.fit_reference` encodes reference spots with the gene tower; a new patch
is answered with the expression of the reference spots most like it.

Axes: B spots of a batch, S spots of several, D width of the embeddings, N spots of the bank, G
genes.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.spatial.batch import SpotBatch, SystemInfo, require_fields
from seq2exp.spatial.contrastive_losses import ChanceWatch, LogitScale
from seq2exp.spatial.genes import GeneInputs
from seq2exp.spatial.image_tower import ImageTower, PatchEncoder
from seq2exp.spatial.retrieval import RetrievalBank, RetrievalConfig, Retrieved
from seq2exp.spatial.samplers import Negatives

__all__ = ["Alignment", "TwoTowers", "evaluating", "join_spots", "shared_parts", "spot_order"]

_PER_SPOT = ("section", "patient", "spot", "grid", "xy_um", "total", "y", "gene_mask")


@dataclass(frozen=True, eq=False)
class Alignment:
    """Both embeddings of some spots, in the order of (section, spot).

    Attributes
    ----------
    image_SD, gene_SD : float32 arrays, shape (num_spots, width)
        Divided by their lengths.
    section_S, patient_S, spot_S : int64 arrays, shape (num_spots,)
    """

    image_SD: NDArray[np.float32]
    gene_SD: NDArray[np.float32]
    section_S: NDArray[np.int64]
    patient_S: NDArray[np.int64]
    spot_S: NDArray[np.int64]


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Switch to evaluation without gradients, and back to the mode before."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in before:
            part.training = training


def spot_order(batches: Sequence[SpotBatch]) -> Tensor:
    """Return the order of (section, spot) of the spots of several batches, int64 rows.

    Raises
    ------
    InputError
        No batch, or a spot occurs twice.
    """
    pairs = [
        pair
        for batch in batches
        for pair in zip(batch.section.tolist(), batch.spot.tolist(), strict=True)
    ]
    repeated = len(pairs) - len(set(pairs))
    if repeated or not pairs:
        raise InputError(
            facts(
                "spots with labels",
                found="spots given twice" if repeated else "no batch",
                expected="each spot once",
                fix="go through the sections once",
                count=repeated,
            )
        )
    return torch.tensor(sorted(range(len(pairs)), key=pairs.__getitem__), dtype=torch.int64)


def join_spots(batches: Sequence[SpotBatch]) -> SpotBatch:
    """Return one batch with the positions and labels of several, in the order of (section, spot).

    Pictures and features are left out.

    Raises
    ------
    InputError
        No batch, or a spot occurs twice.
    """
    order = spot_order(batches)
    columns: dict[str, Any] = {}
    for name in _PER_SPOT:
        parts = [getattr(batch, name) for batch in batches]
        if all(part is not None for part in parts):
            joined = torch.cat(parts)
            columns[name] = joined[order.to(joined.device)]
    return SpotBatch(**columns)


def shared_parts(
    config: Any,  # noqa: ANN401
    info: SystemInfo,
    *,
    encoder: PatchEncoder | None,
) -> dict[str, Any]:
    """Return image tower, retrieval and temperature of BLEEP and mclSTExp, which share them.

    Parameters
    ----------
    config : BleepConfig or MclSTExpConfig
        With ``reference_compat`` features stay as they are, products have no temperature, and other
        sections of the query's patient may answer.
    info : SystemInfo
    encoder : PatchEncoder, optional
        Trained with the image tower.
    """
    compat, retrieval = config.reference_compat, config.retrieval
    if compat:
        retrieval = replace(retrieval, unit=False, exclude="section")
    image = ImageTower(
        info,
        width=config.width,
        dropout=config.dropout,
        standardise=not compat,
        neighbours=config.image_neighbours,
        encoder=encoder,
    )
    temperature = None if compat else config.temperature
    return {"image": image, "retrieval": retrieval, "temperature": temperature}


class TwoTowers(nn.Module):
    """An image tower, a gene tower, a logit scale and a bank; systems add their loss.

    Parameters
    ----------
    name : str
        Of the system, for messages.
    image : ImageTower
    retrieval : RetrievalConfig
    temperature : float, optional
        Of the logits at the start, learned; without one the logits are plain products.
    """

    batches: Negatives = "any"
    """Where the negatives of a batch come from."""

    def __init__(
        self,
        name: str,
        *,
        image: ImageTower,
        retrieval: RetrievalConfig,
        temperature: float | None = 0.07,
    ) -> None:
        super().__init__()
        self.name, self.image, self.retrieval = name, image, retrieval
        self.scale = None if temperature is None else LogitScale(temperature=temperature)
        self.watch: ChanceWatch | None = ChanceWatch()
        self.bank: RetrievalBank | None = None
        self.patients: tuple[str, ...] | None = None
        self.sections: tuple[str, ...] | None = None

    @property
    def requires(self) -> frozenset[str]:
        """Fields that a prediction reads; the loss and the reference also read ``y``."""
        return self.image.requires

    @property
    def logit_scale(self) -> Tensor | float:
        """What products of embeddings are multiplied by."""
        scale: Tensor | float = 1.0 if self.scale is None else self.scale()
        return scale

    # The two views --------------------------------------------------------------------------------

    def encode_image(self, batch: SpotBatch) -> Tensor:
        """Return the embedding of every patch, shape (batch, width)."""
        require_fields(self.requires, batch, system=self.name)
        embedding_BD: Tensor = self.image(batch)
        return embedding_BD

    def encode_genes(self, batch: SpotBatch) -> Tensor:
        """Return the embedding of every spot's expression, shape (batch, width)."""
        raise NotImplementedError

    def contrast(self, image_BD: Tensor, gene_BD: Tensor, batch: SpotBatch) -> Tensor:
        """Return the contrastive loss of the embeddings of a batch, a scalar."""
        raise NotImplementedError

    def labels_of(self, batch: SpotBatch) -> Tensor:
        """Return the labels, NaN where not measured; refuse a batch without."""
        require_fields(frozenset({"y"}), batch, system=self.name)
        y_BG = batch.y if batch.y is not None else torch.empty(0)
        if batch.gene_mask is not None:
            y_BG = torch.where(batch.gene_mask, y_BG, torch.nan)
        return y_BG

    def embed(self, batch: SpotBatch) -> Tensor:
        """Return unit embeddings of the patches, shape (batch, width), in evaluation mode."""
        with evaluating(self):
            return F.normalize(self.encode_image(batch), dim=-1)

    # Training -------------------------------------------------------------------------------------

    def loss(self, batch: SpotBatch, step: int) -> dict[str, Tensor]:
        """Return ``total``, and beside it the loss of guessing, ``ln_b``, and the logit scale."""
        loss = self.contrast(self.encode_image(batch), self.encode_genes(batch), batch)
        if self.watch is not None and self.training:
            self.watch.look(loss, len(batch), step=step)
        chance = torch.tensor(float(len(batch)), device=loss.device).log()
        scale = torch.as_tensor(self.logit_scale, device=loss.device).detach()
        return {"total": loss, "ln_b": chance, "logit_scale": scale}

    def after_step(self) -> None:
        """Put the logit scale back into its bounds; to be called after every optimiser step."""
        if self.scale is not None:
            self.scale.clamp_()

    # Reference ------------------------------------------------------------------------------------

    def fit_reference(
        self,
        batches: Iterable[SpotBatch],
        *,
        genes: Sequence[str] = (),
        recipe: str = "",
        patients: Sequence[str] = (),
        sections: Sequence[str] = (),
    ) -> RetrievalBank:
        """Build the bank from reference spots; it does not hang on their order.

        Parameters
        ----------
        batches : iterable of SpotBatch
            With labels; each spot once.
        genes : sequence of str
            Ids of the columns of the labels.
        recipe : str
            Of the labels.
        patients, sections : sequences of str
            Names that the numbers in the batches stand for; the numbers themselves by default.

        Returns
        -------
        RetrievalBank
            Also kept as ``bank``.
        """
        keys, spots = self._reference_keys(list(batches))
        bank = RetrievalBank(
            keys_ND=keys.float(),
            expression_NG=self.labels_of(spots).float(),
            spot_N=spots.spot,
            section_N=spots.section,
            patient_N=spots.patient,
            sections=tuple(sections) or _numbers(spots.section),
            patients=tuple(patients) or _numbers(spots.patient),
            genes=tuple(genes),
            recipe=recipe,
            towers=self.fingerprint(),
        )
        self.bank = bank
        self.patients = tuple(patients) or None
        self.sections = tuple(sections) or None
        return bank

    def _reference_keys(self, batches: Sequence[SpotBatch]) -> tuple[Tensor, SpotBatch]:
        """Keys of the reference spots, and these in the same order."""
        spots = join_spots(batches)
        with evaluating(self):
            keys = [self.encode_genes(part) for part in _cut(spots, 1024)]
        return torch.cat(keys), spots

    def align(self, batches: Iterable[SpotBatch]) -> Alignment:
        """Return both embeddings of spots with labels, for recall, probes and reports.

        What :func:`seq2exp.spatial.recall.recall_table` and
        :func:`seq2exp.spatial.batch_effects.batch_effect_rows` ask for.
        """
        given = list(batches)
        genes, spots = self._reference_keys(given)
        image = torch.cat([self.embed(batch) for batch in given])
        codes = (spots.section, spots.patient, spots.spot)
        return Alignment(
            image.cpu().float()[spot_order(given)].numpy(),
            F.normalize(genes, dim=-1).cpu().float().numpy(),
            *(code.cpu().numpy() for code in codes),
        )

    def set_bank(self, bank: RetrievalBank) -> None:
        """Answer from another bank from now on.

        Raises
        ------
        ConfigError
            Its keys were made by other towers.
        """
        if bank.towers != self.fingerprint():
            raise ConfigError(
                facts(
                    "retrieval bank",
                    found="keys of another model",
                    expected=f"keys that this {self.name} made",
                    fix="build it with fit_reference of this model",
                )
            )
        self.bank = bank

    def name_cohort(self, patients: Sequence[str], sections: Sequence[str]) -> None:
        """Say what the numbers of patients and sections in coming batches stand for.

        Needed where they are those of another cohort than the bank's; patients of the same name
        are the same patient.
        """
        self.patients, self.sections = tuple(patients), tuple(sections)

    def fingerprint(self) -> str:
        """Return a hash of the learned parameters."""
        found = hashlib.sha256()
        for name, value in self.named_parameters():
            found.update(name.encode())
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()[:16]

    # Prediction -----------------------------------------------------------------------------------

    def retrieve(self, batch: SpotBatch) -> Retrieved:
        """Return mean, deviation, rows and weights of the reference spots found.

        Raises
        ------
        ConfigError
            There is no bank.
        """
        if self.bank is None:
            raise ConfigError(
                facts(
                    f"system {self.name}",
                    found="no reference spots",
                    expected="a bank, because it predicts by example",
                    fix="call fit_reference with the training spots, or load a bank",
                )
            )
        with evaluating(self):
            query_BD = self.encode_image(batch).float()
        bank = self.bank
        if bank.keys_ND.device != query_BD.device:
            bank = self.bank = bank.to(query_BD.device)
        return bank.query(
            query_BD,
            self.retrieval,
            patient_B=_codes(batch.patient, self.patients, bank.patients),
            section_B=_codes(batch.section, self.sections, bank.sections),
        )

    def predict(self, batch: SpotBatch) -> Tensor:
        """Return predicted labels, shape (batch, genes), in evaluation mode."""
        return self.retrieve(batch).mean_BG

    # Another panel --------------------------------------------------------------------------------

    def use_genes(self, genes: GeneInputs, batches: Iterable[SpotBatch]) -> None:
        """Encode expression of another panel from now on; build a new bank afterwards.

        Parameters
        ----------
        genes : GeneInputs
        batches : iterable of SpotBatch
            Spots with labels of that panel, for mean and deviation of its genes.

        Raises
        ------
        ConfigError
            The gene tower knows genes by column.
        """
        labels = torch.cat([self.labels_of(batch) for batch in batches])
        self._use_genes(genes, labels)
        self.bank = None

    def _use_genes(self, genes: GeneInputs, y_SG: Tensor) -> None:
        raise NotImplementedError


def _cut(spots: SpotBatch, size: int) -> Iterator[SpotBatch]:
    for start in range(0, len(spots), size):
        parts = {part.name: getattr(spots, part.name) for part in fields(spots)}
        cut: dict[str, Any] = {
            name: x[start : start + size] for name, x in parts.items() if isinstance(x, Tensor)
        }
        yield replace(spots, **cut)


def _numbers(code_N: Tensor) -> tuple[str, ...]:
    return tuple(str(number) for number in range(int(code_N.max()) + 1))


def _codes(number_B: Tensor, names: tuple[str, ...] | None, known: tuple[str, ...]) -> Tensor:
    """Places in the bank of what the numbers of a batch stand for; -1 where it has none."""
    if names is None and known != tuple(map(str, range(len(known)))):
        raise ConfigError(
            facts(
                "retrieval",
                found=f"a bank of {known[0]} and others, and spots known by number only",
                expected="names, because a number may be another patient in another cohort",
                fix="call name_cohort with the patients and sections of the cohort",
            )
        )
    wanted = [str(n) if names is None else names[n] for n in number_B.tolist()]
    place = {name: code for code, name in enumerate(known)}
    codes = torch.tensor([place.get(name, -1) for name in wanted], dtype=torch.int64)
    return codes.to(number_B.device)
