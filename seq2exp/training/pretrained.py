"""Published models from local files; nothing is downloaded and no code of theirs runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import seq2exp
from seq2exp.core.errors import FormatError, facts
from seq2exp.core.files import refuse_existing
from seq2exp.dataset.samples import SampleConfig
from seq2exp.encoders.caduceus import Caduceus
from seq2exp.encoders.hyena import HyenaEncoder
from seq2exp.encoders.pretrained import build_caduceus
from seq2exp.encoders.pretrained_hyena import build_hyenadna
from seq2exp.models.config import CONTACT
from seq2exp.models.published import PUBLISHED_FEATURES, PUBLISHED_TRACKS, build_published
from seq2exp.models.registry import config_dict
from seq2exp.training.checkpoint import ModelCard, save_model
from seq2exp.training.weights import read_model_folder, read_pickled_tensors

__all__ = ["convert_seq2exp_checkpoint", "load_caduceus", "load_hyenadna"]


def load_caduceus(
    path: Path,
    *,
    allow_pickle: bool = False,
    checksums: Mapping[str, str] | None = None,
    swap_halves: bool | None = None,
    recompute: bool = False,
) -> Caduceus:
    """Load a published Caduceus, Ph or PS, as an encoder of bases.

    Parameters
    ----------
    path, allow_pickle, checksums
        See `seq2exp.training.weights.read_model_folder`.
    swap_halves : bool, optional
        Norm path that trained the PS weights: true for the fused one. When left out, what
        config.json says.
    recompute : bool
        Keep only the input of each block in training (less memory).

    Returns
    -------
    Caduceus
        In evaluation mode, float32, on the CPU.

    Raises
    ------
    FormatError
        Files that are missing, damaged or of another architecture.
    """
    config, tensors = read_model_folder(path, allow_pickle=allow_pickle, checksums=checksums)
    return build_caduceus(
        config, tensors, where=str(path), swap_halves=swap_halves, recompute=recompute
    )


def load_hyenadna(
    path: Path,
    *,
    allow_pickle: bool = False,
    checksums: Mapping[str, str] | None = None,
    filter_shift: float = 0.0,
) -> HyenaEncoder:
    """Load a published HyenaDNA as an encoder of bases, for windows of up to its `l_max`.

    Parameters
    ----------
    path, allow_pickle, checksums
        See `seq2exp.training.weights.read_model_folder`.
    filter_shift : float
        0.05 gives the outputs of the port to transformers (docs/pretrained.md).

    Returns
    -------
    HyenaEncoder
        In evaluation mode, float32, on the CPU.

    Raises
    ------
    FormatError
        Files that are missing, damaged or of another architecture.
    """
    config, tensors = read_model_folder(path, allow_pickle=allow_pickle, checksums=checksums)
    return build_hyenadna(config, tensors, where=str(path), filter_shift=filter_shift)


def convert_seq2exp_checkpoint(
    path: Path,
    out: Path,
    *,
    sample: str,
    tracks: Sequence[str] = PUBLISHED_TRACKS,
    features: Sequence[str] = PUBLISHED_FEATURES,
    assembly: str = "hg38",
    overwrite: bool = False,
    **changes: Any,  # noqa: ANN401
) -> ModelCard:
    """Convert a published Seq2Exp checkpoint (Lightning .ckpt) to a model folder.

    The file is read without running code: tensors only (`read_pickled_tensors`). The folder holds
    config.yaml and model.safetensors, which `seq2exp.training.checkpoint.load_model` reads.

    Parameters
    ----------
    path : Path
        The .ckpt file.
    out : Path
        Folder to write.
    sample : str
        Name of the predicted column, such as K562.
    tracks, features : sequence of str
        Names of tracks and scalar features, in the order of the checkpoint.
    assembly : str
        Assembly of the genome it was trained on.
    overwrite : bool
        Replace an existing folder.
    **changes
        Settings of `Seq2ExpConfig` in place of the published ones.

    Returns
    -------
    ModelCard
        As it stands in config.yaml.

    Raises
    ------
    FormatError
        The file is damaged, or not a published Seq2Exp of these tracks and features.
    InputError
        `out` exists.
    """
    out = Path(out)
    refuse_existing(out, overwrite=overwrite)
    model = build_published(read_pickled_tensors(path), tracks=tracks, where=str(path), **changes)
    if len(features) != model.config.num_features:
        raise FormatError(
            facts(
                str(path),
                found=f"{model.config.num_features} scalar features",
                expected=f"{len(features)}: " + ", ".join(features),
                fix="give the names of its features",
            )
        )
    stored = [name for name in tracks if name != CONTACT]
    card = ModelCard(
        model={"name": "seq2exp"} | config_dict(model)["params"],
        data=SampleConfig(
            window_bp=model.config.window_bp,
            bin_size=1,
            strand="plus",
            contacts=CONTACT in tracks,
            tracks=stored,
            samples=[sample],
            features=list(features),
        ),
        tracks=list(tracks),
        features=list(features),
        samples=[sample],
        assembly=assembly,
        expression_unit="CAGE signal in 384 bp around the TSS",
        expression_transform="log10p1",
        dataset_checksum="",
        train_contigs=[],
        package_version=seq2exp.__version__,
    )
    save_model(model, card, out)
    return card
