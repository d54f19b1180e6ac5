"""Image encoders by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from seq2exp.core.config import require_known
from seq2exp.core.errors import ConfigError, facts
from seq2exp.spatial.images.densenet import DenseNet
from seq2exp.spatial.images.encoder import Colour, Encoder
from seq2exp.spatial.images.resnet import RESNETS, ResNet
from seq2exp.spatial.images.small import ColourStats, PixelDensities, TinyCNN
from seq2exp.spatial.images.vit import VITS, VisionTransformer
from seq2exp.spatial.images.weights import hash_weights, load_weights

__all__ = ["ENCODERS", "make_encoder"]

ENCODERS: dict[str, Callable[[], Encoder]] = {
    "colour_stats": ColourStats,
    "pixel_densities": PixelDensities,
    "tinycnn": TinyCNN,
    **{name: partial(ResNet, sizes) for name, sizes in RESNETS.items()},
    "densenet121": DenseNet,
    **{name: partial(VisionTransformer, sizes) for name, sizes in VITS.items()},
}
"""Encoders of this package by name; ``timm:<name>`` names those of timm."""

_TIMM = "timm:"
# Raised when the definition of features without weights changes, so that cached ones are not used.
_DEFINITION = 1


def make_encoder(
    name: str,
    weights: Path | str | None = None,
    *,
    freeze: bool = True,
    seed: int = 0,
    mean: Colour | None = None,
    std: Colour | None = None,
) -> Encoder:
    """Make an image encoder; nothing is downloaded.

    Parameters
    ----------
    name : str
        A key of :data:`ENCODERS`, or ``timm:<name>`` with the extra ``vision``.
    weights : path, optional
        Local file of weights; without one they are random.
    freeze : bool
        Keep the weights, and the statistics of batch norms, as they are.
    seed : int
        Of random weights. The generator of torch is left as it was.
    mean, std : three floats, optional
        What the weights expect RGB between 0 and 1 to be centred and divided by; of ImageNet (or
        what timm says) when not given.

    Returns
    -------
    Encoder

    Raises
    ------
    ConfigError
        No such encoder, or weights for one that has none, or timm is not installed.
    FormatError
        The weights do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = _made(name)
    encoder.name = name
    encoder.set_colour(mean or encoder.mean, std or encoder.std)
    if not encoder.state_dict():
        if weights is not None:
            raise ConfigError(
                facts(
                    f"encoder {name}",
                    found=f"weights {weights}",
                    expected="none: it has nothing to learn",
                    fix="leave the weights out",
                )
            )
        text = f"{name} version {_DEFINITION}"
        encoder.weight_hash = hashlib.sha256(text.encode()).hexdigest()
    elif weights is not None:
        load_weights(encoder, Path(weights))
        encoder.pretrained = True
    else:
        encoder.weight_hash = hash_weights(encoder)
    return encoder.freeze() if freeze else encoder


def _made(name: str) -> Encoder:
    if name.startswith(_TIMM):
        from seq2exp.spatial.images.timm_models import TimmEncoder

        return TimmEncoder(name.removeprefix(_TIMM))
    require_known("image encoder", name, sorted(ENCODERS), expected="an encoder, or timm:<name>")
    return ENCODERS[name]()
