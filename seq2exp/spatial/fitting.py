"""Fit any system: those that are solved, and those that learn by gradients."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from seq2exp.core.errors import ConfigError, facts
from seq2exp.spatial.batch import SystemInfo
from seq2exp.spatial.config import SpatialFitConfig
from seq2exp.spatial.data import FeatureScale, SpotTable
from seq2exp.spatial.devices import device_of
from seq2exp.spatial.images.encoder import Encoder
from seq2exp.spatial.recall import GallerySize, recall_table
from seq2exp.spatial.systems.hescape import Hescape
from seq2exp.spatial.systems.nsl import Nsl
from seq2exp.spatial.systems.registry import CLOSED, build_module, system_config
from seq2exp.spatial.systems.ridge import Ridge
from seq2exp.spatial.systems.stnet import StNet
from seq2exp.spatial.towers import Alignment, TwoTowers
from seq2exp.spatial.trainer import FitHistory, fit_module, needs_of, predict_table

__all__ = [
    "Ensemble",
    "FittedSystem",
    "MakeEncoder",
    "TrainedModule",
    "fit_system",
    "system_needs",
]

MakeEncoder = Callable[[], Encoder]
_BATCH, _GALLERY = 256, 64


class FittedSystem(Protocol):
    """What can predict the labels of spots."""

    @property
    def needs(self) -> frozenset[str]:
        """Fields of the batch that it reads."""

    @property
    def controls(self) -> Mapping[str, Callable[[SpotTable], NDArray[np.float64]]]:
        """Simpler models that must stand beside it, by name."""

    @property
    def num_parameters(self) -> int:
        """Numbers that were fitted."""

    def predict(self, table: SpotTable) -> NDArray[np.float64]:
        """Return predicted labels, shape (num_spots, num_genes)."""


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModule:
    """A system that learned by gradients.

    Attributes
    ----------
    module : nn.Module
    info : SystemInfo
        What it was built for.
    scale : FeatureScale or None
    history : list of dict
        One row per pass; empty when it was loaded.
    """

    module: nn.Module
    info: SystemInfo
    scale: FeatureScale | None = None
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)

    @property
    def needs(self) -> frozenset[str]:
        """Fields of the batch that the system reads."""
        return needs_of(self.module)

    @property
    def controls(self) -> Mapping[str, Callable[[SpotTable], NDArray[np.float64]]]:
        """Simpler models that must stand beside the system, by name."""
        if not isinstance(self.module, Nsl):
            return {}
        return {"mean density ridge": functools.partial(predict_table, self.module.control)}

    @property
    def num_parameters(self) -> int:
        """Weights that training moves."""
        return sum(each.numel() for each in self.module.parameters() if each.requires_grad)

    def align(self, table: SpotTable) -> Alignment:
        """Return both embeddings of spots, in the order of (section, row).

        Raises
        ------
        ConfigError
            The system has no two towers.
        """
        if not isinstance(self.module, TwoTowers):
            raise ConfigError(
                facts(
                    f"system {type(self.module).__name__}",
                    found="no towers",
                    expected="a contrastive system",
                    fix="use hescape, bleep or mclstexp",
                )
            )
        return _alignment(self.module, dataclasses.replace(table, scale=self.scale))

    def predict(self, table: SpotTable) -> NDArray[np.float64]:
        """Return predicted labels, shape (num_spots, num_genes)."""
        if isinstance(self.module, TwoTowers):
            # Another cohort numbers its patients in its own way; those of one name are the same.
            self.module.name_cohort(table.patients, table.sections)
        predicted = predict_table(self.module, dataclasses.replace(table, scale=self.scale))
        if isinstance(self.module, Nsl):
            section_N = torch.from_numpy(table.section_N)
            return self.module.finish(torch.from_numpy(predicted), section_N).numpy()
        return predicted


@dataclasses.dataclass(frozen=True, eq=False)
class Ensemble:
    """Systems that differ in their seeds; their mean predicts.

    Attributes
    ----------
    members : sequence of FittedSystem
    """

    members: Sequence[FittedSystem]

    @property
    def num_parameters(self) -> int:
        """Numbers that were learnt, of all members."""
        return sum(member.num_parameters for member in self.members)

    @property
    def needs(self) -> frozenset[str]:
        """Fields of the batch that the systems read."""
        return self.members[0].needs

    @property
    def controls(self) -> Mapping[str, Callable[[SpotTable], NDArray[np.float64]]]:
        """Simpler models that must stand beside the system; seeds do not change them."""
        return self.members[0].controls

    def predict(self, table: SpotTable) -> NDArray[np.float64]:
        """Return predicted labels, shape (num_spots, num_genes)."""
        mean: NDArray[np.float64] = np.mean([one.predict(table) for one in self.members], axis=0)
        return mean


def system_needs(
    settings: Mapping[str, Any], info: SystemInfo, *, encoder: MakeEncoder | None = None
) -> frozenset[str]:
    """Return the fields of the batch that a system reads, before there are data.

    Parameters
    ----------
    settings, info, encoder
        As for :func:`fit_system`.
    """
    if settings["name"] in CLOSED:
        return Ridge.needs
    return needs_of(build_module(settings, info, encoder=encoder and encoder()))


def fit_system(
    settings: Mapping[str, Any],
    train: SpotTable,
    valid: SpotTable | None,
    config: SpatialFitConfig,
    *,
    info: SystemInfo,
    encoder: MakeEncoder | None = None,
    checkpoint: Path | None = None,
) -> FittedSystem:
    """Fit a system.

    Parameters
    ----------
    settings : mapping
        ``name`` of the system and its settings.
    train : SpotTable
    valid : SpotTable or None
        Spots that choose the pass; a system that is solved takes them as training spots. Without
        them the last pass stays.
    config : SpatialFitConfig
    info : SystemInfo
    encoder : callable, optional
        Returns an encoder to be trained with the system on patches.
    checkpoint : Path, optional
        File to continue from.

    Raises
    ------
    ConfigError
        An unknown system or setting, or a field that the spots lack.
    """
    if settings["name"] in CLOSED:
        together = train if valid is None else train.joined(valid)
        return Ridge(system_config(settings)).fit(together)
    members = []
    for number in range(config.members):
        one = dataclasses.replace(config, seed=config.seed + number)
        place = checkpoint and checkpoint.with_name(f"{checkpoint.name}-{number}")
        members.append(_fit_member(settings, train, valid, one, info, encoder, place))
    return members[0] if len(members) == 1 else Ensemble(members)


def _fit_member(
    settings: Mapping[str, Any],
    train: SpotTable,
    valid: SpotTable | None,
    config: SpatialFitConfig,
    info: SystemInfo,
    encoder: MakeEncoder | None,
    checkpoint: Path | None,
) -> TrainedModule:
    """Fit one member; with ``refit`` once more on all spots, for the passes that were best."""

    def fit(
        known: SpotTable, held: SpotTable | None, how: SpatialFitConfig, place: Path | None
    ) -> tuple[TrainedModule, FitHistory]:
        torch.manual_seed(how.seed)
        module = build_module(settings, info, encoder=encoder and encoder())
        scale = FeatureScale.of(known.feat_ND)
        history = _trained(module, known, held, how, scale, place)
        return TrainedModule(module, info, scale, history.rows), history

    found, history = fit(train, valid, config, checkpoint)
    if not config.refit or valid is None:
        return found
    # The rate of learning is that of the passes, so their number is what validation has told.
    again = dataclasses.replace(config, max_epochs=history.best_epoch + 1, patience=0)
    place = checkpoint and checkpoint.with_name(f"{checkpoint.name}-refit")
    final, _ = fit(train.joined(valid), None, again, place)
    return dataclasses.replace(final, history=history.rows)


def _trained(
    module: nn.Module,
    train: SpotTable,
    valid: SpotTable | None,
    config: SpatialFitConfig,
    scale: FeatureScale | None,
    checkpoint: Path | None,
) -> FitHistory:
    known = dataclasses.replace(train, scale=scale)
    held = None if valid is None else dataclasses.replace(valid, scale=scale)
    _start(module, known)
    fill = None
    if isinstance(module, TwoTowers):
        if held is not None and np.intersect1d(known.patient_N, held.patient_N).size:
            held = _as_strangers(held)
        names = known if held is None else held

        def fill(trained: nn.Module) -> None:
            assert isinstance(trained, TwoTowers)
            trained.fit_reference(
                (batch.to(device_of(trained)) for batch in known.batches(_BATCH)),
                patients=names.patients,
                sections=names.sections,
            )

    score = None
    if isinstance(module, Hescape) and module.config.select == "recall":
        score = functools.partial(_gallery_recall, module)
    return fit_module(
        module, known, held, config, checkpoint=checkpoint, on_valid=fill, score=score
    )


def _alignment(module: TwoTowers, table: SpotTable) -> Alignment:
    device = device_of(module)
    return module.align(batch.to(device) for batch in table.batches(_BATCH, needs=needs_of(module)))


def _gallery_recall(module: TwoTowers, _: nn.Module, table: SpotTable) -> float:
    """Return the mean recall at 5 of both directions among 64 spots of a section, or all of it."""
    views = _alignment(module, table)
    size: GallerySize = _GALLERY if np.bincount(views.section_S).max() >= _GALLERY else "section"
    found = recall_table(
        views.image_SD,
        views.gene_SD,
        section_S=views.section_S,
        spot_S=views.spot_S,
        sizes=(size,),
        ks=(5,),
    )
    return float(found.loc[found["scope"] == "within", "recall"].mean())


def _start(module: nn.Module, train: SpotTable) -> None:
    """Give a system what it takes from the training spots before the first step."""
    if isinstance(module, Nsl):
        module.fit_labels(torch.from_numpy(train.y_NG))
        module.fit_control(train.batches(_BATCH, needs=module.requires))
    if isinstance(module, StNet):
        module.start_at(torch.from_numpy(np.nan_to_num(np.nanmean(train.y_NG, axis=0))))
    if isinstance(module, Hescape):
        module.prepare(train.batches(_BATCH))


def _as_strangers(table: SpotTable) -> SpotTable:
    """Return spots under names that no bank knows.

    A block of the training sections that is held out for validation is in no bank, so every spot of
    the bank may answer for it.
    """
    num_sections, num_patients = len(table.sections), len(table.patients)
    return dataclasses.replace(
        table,
        sections=[*table.sections, *(f"{name} (validation)" for name in table.sections)],
        patients=[*table.patients, *(f"{name} (validation)" for name in table.patients)],
        section_N=table.section_N + num_sections,
        patient_N=table.patient_N + num_patients,
        patches={key + num_sections: part for key, part in table.patches.items()},
    )
