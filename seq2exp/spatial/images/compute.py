"""Run an encoder over many patches, in batches, without gradients.

Axes: B patches of a batch, N patches, T places, D features, H = W pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from seq2exp.core.errors import FormatError, facts
from seq2exp.core.progress import track
from seq2exp.spatial.images.encoder import Encoder

__all__ = ["encode_patches", "patches_to_tensor", "resized"]

_RESIZED_AT_ONCE = 64


def patches_to_tensor(patches_BHW3: NDArray[np.uint8]) -> Tensor:
    """Return patches as encoders take them: float32, shape (batch, 3, height, width), 0 to 1."""
    # A copy: patches may be a memory map that must not be written to.
    return torch.from_numpy(np.array(patches_BHW3)).permute(0, 3, 1, 2).float() / 255


def resized(patches_NHW3: NDArray[np.uint8], px: int) -> NDArray[np.uint8]:
    """Return patches of another side, averaged over what a new pixel covers.

    Parameters
    ----------
    patches_NHW3 : uint8 array, shape (num_patches, side, side, 3)
    px : int
        The new side; 0 and the side itself return the patches as they are.
    """
    if px in (0, patches_NHW3.shape[1]):
        return patches_NHW3
    out = np.empty((len(patches_NHW3), px, px, 3), np.uint8)
    for first in range(0, len(out), _RESIZED_AT_ONCE):
        part = patches_to_tensor(patches_NHW3[first : first + _RESIZED_AT_ONCE])
        small = F.interpolate(part, (px, px), mode="bilinear", antialias=True)
        out[first : first + _RESIZED_AT_ONCE] = (small * 255).round().permute(0, 2, 3, 1).numpy()
    return out


def encode_patches(
    encoder: Encoder,
    patches: Iterable[NDArray[np.uint8]],
    *,
    num_patches: int,
    part: Literal["feat", "tokens"] = "feat",
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    label: str = "patches",
    progress: bool = False,
) -> NDArray[np.float32]:
    """Return the features of patches.

    Parameters
    ----------
    encoder : Encoder
        Used in evaluation mode; its mode and its device are put back.
    patches : iterable of uint8 arrays, shape (px, px, 3)
    num_patches : int
        How many there are.
    part : str
        ``feat`` for whole patches, ``tokens`` for their places.
    batch_size : int
    device : str or torch.device
    label : str
        What the progress says.
    progress : bool

    Returns
    -------
    float32 array, shape (num_patches, dim) or (num_patches, places, token_dim)

    Raises
    ------
    FormatError
        A feature is NaN or infinite.
    """
    num_batches = -(-num_patches // batch_size)
    out: NDArray[np.float32] | None = None
    done = 0
    with torch.inference_mode(), _evaluating(encoder, torch.device(device)):
        batches = track(
            _batches(patches, batch_size), total=num_batches, label=label, enabled=progress
        )
        for patches_BHW3 in batches:
            x_B3HW = patches_to_tensor(patches_BHW3).to(device)
            found = encoder.tokens(x_B3HW) if part == "tokens" else encoder.pool(x_B3HW)
            values = found.float().cpu().numpy()
            if out is None:
                out = np.empty((num_patches, *values.shape[1:]), np.float32)
            out[done : done + len(values)] = values
            done += len(values)
    if out is None:
        return np.empty((0, encoder.dim), np.float32)
    wrong = ~np.isfinite(out).reshape(len(out), -1).all(axis=1)
    if wrong.any():
        raise FormatError(
            facts(
                label,
                found="features that are NaN or infinite",
                expected="numbers",
                fix="check the weights of the encoder",
                count=int(wrong.sum()),
                examples=[f"patch {row}" for row in np.flatnonzero(wrong)[:3]],
            )
        )
    return out


def _batches(patches: Iterable[NDArray[np.uint8]], batch_size: int) -> Iterator[NDArray[np.uint8]]:
    rest = iter(patches)
    while batch := list(islice(rest, batch_size)):
        yield np.stack(batch)


@contextmanager
def _evaluating(encoder: Encoder, device: torch.device) -> Iterator[None]:
    training = encoder.training
    before = encoder.device
    encoder.eval().to(device)
    try:
        yield
    finally:
        encoder.to(before).train(training)
