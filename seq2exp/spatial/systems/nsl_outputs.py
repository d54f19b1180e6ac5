"""What a fitted :class:`Nsl` says of genes: weights, stains, concentration maps.

Shapes: G genes, Q stains of a gene, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.core.stain import STAINS
from seq2exp.spatial.optics import optical_density
from seq2exp.spatial.systems.nsl import Nsl
from seq2exp.spatial.systems.pixel_pool import bend

__all__ = [
    "concentration_maps",
    "grey_image",
    "learned_stains",
    "stain_cosines",
    "weight_table",
]

_COLOURS = ("red", "green", "blue")
_NAMES = ("haematoxylin", "eosin", "residual")
_READ = {
    "deconv3x3": ("read_haematoxylin", "read_eosin"),
    "conv1x1": ("read_haematoxylin", "read_eosin"),
    "meanstd": (
        "read_mean_haematoxylin",
        "read_mean_eosin",
        "read_sd_haematoxylin",
        "read_sd_eosin",
    ),
    "scalar": ("read_sum",),
}
_ROWS = 128


@torch.no_grad()
def weight_table(model: Nsl, gene_ids: Sequence[str], *, recipe: str) -> pd.DataFrame:
    """Return the eleven weights of every gene.

    Parameters
    ----------
    model : Nsl
    gene_ids : sequence of str
        Of the panel, in its order.
    recipe : str
        Name of the recipe of the labels.

    Returns
    -------
    DataFrame
        gene_id, recipe, variant, phi, label_mean, label_sd, and one column per weight:
        ``stain_<stain>_<colour>`` for a matrix S, ``unmix_<colour>_<stain>`` for a matrix W,
        ``shift_<stain>``, ``read_...`` and ``level``. Weights are of standardised labels.
    """
    _require_genes(model, gene_ids)
    stain = model.stain.cpu().numpy()
    columns: dict[str, NDArray[np.float32]] = {}
    for first in range(stain.shape[1]):
        for second in range(stain.shape[2]):
            name = (
                f"stain_{_NAMES[first]}_{_COLOURS[second]}"
                if model.inverted
                else f"unmix_{_COLOURS[first]}_{_NAMES[second]}"
            )
            columns[name] = stain[:, first, second]
    if model.shift is not None:
        for number, shift in enumerate(model.shift.cpu().numpy().T):
            columns[f"shift_{_NAMES[number]}"] = shift
    names = _READ[model.config.variant]
    columns |= dict(zip(names, model.read.cpu().numpy().T, strict=True))
    if model.level is not None:
        columns["level"] = model.level.cpu().numpy()
    about = {
        "gene_id": list(gene_ids),
        "recipe": recipe,
        "variant": model.config.variant,
        "phi": model.config.phi,
        "label_mean": model.label_mean.cpu().numpy(),
        "label_sd": model.label_sd.cpu().numpy(),
    }
    return pd.DataFrame({**about, **columns})


@torch.no_grad()
def learned_stains(model: Nsl) -> NDArray[np.float32]:
    """Return the absorptions S that each gene learnt, float32 array of shape (G, Q, 3).

    Where the unmixing W (3 x 2) was learnt it is the pseudo-inverse of W, of two rows.
    """
    stains = model.stain if model.inverted else torch.linalg.pinv(model.stain)
    found: NDArray[np.float32] = stains.cpu().numpy()
    return found


def stain_cosines(model: Nsl, gene_ids: Sequence[str]) -> pd.DataFrame:
    """Return how far each learnt stain is from haematoxylin and from eosin.

    Returns
    -------
    DataFrame
        gene_id, stain (where the row started: haematoxylin, eosin, residual), cos_haematoxylin,
        cos_eosin; 1 is the same colour.
    """
    _require_genes(model, gene_ids)
    stains = learned_stains(model).astype(np.float64)
    unit = stains / np.linalg.norm(stains, axis=-1, keepdims=True).clip(1e-12)
    known = np.array(STAINS[:2]) / np.linalg.norm(STAINS[:2], axis=1, keepdims=True)
    cosine = (unit @ known.T).reshape(-1, 2)
    num_rows = stains.shape[1]
    return pd.DataFrame(
        {
            "gene_id": np.repeat(np.asarray(gene_ids, dtype=object), num_rows),
            "stain": np.tile(np.asarray(_NAMES[:num_rows], dtype=object), len(gene_ids)),
            "cos_haematoxylin": cosine[:, 0],
            "cos_eosin": cosine[:, 1],
        }
    )


@torch.no_grad()
def concentration_maps(
    model: Nsl, image_HW3: NDArray[np.uint8], *, gene: int
) -> NDArray[np.float32]:
    """Return the bent concentrations of a gene's stains at every pixel of an image.

    Parameters
    ----------
    model : Nsl
    image_HW3 : uint8 array, shape (height, width, 3)
        RGB.
    gene : int
        Column of the panel.

    Returns
    -------
    float32 array, shape (stains, height, width)
        phi(od W + b), whose mean over tissue the gene's read-out takes.
    """
    num_stains = model.weights().shape[1] // len(model.read)
    first = gene * num_stains
    weight_4Q = model.weights()[:, first : first + num_stains].cpu()
    height, width = image_HW3.shape[:2]
    maps = np.empty((num_stains, height, width), dtype=np.float32)
    for row in range(0, height, _ROWS):
        part = torch.from_numpy(np.ascontiguousarray(image_HW3[row : row + _ROWS]))
        density = optical_density(part.float() / 255)
        linear = density @ weight_4Q[:3] + weight_4Q[3]
        bent = bend(linear, model.config.phi, model.config.beta)
        maps[:, row : row + _ROWS] = bent.permute(2, 0, 1).numpy()
    return maps


def grey_image(map_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a map as an image: white at its 1 % quantile and below, black at 99 % and above."""
    low, high = np.quantile(map_HW, [0.01, 0.99])
    share = (map_HW - low) / max(high - low, 1e-12)
    grey: NDArray[np.uint8] = (255 * (1 - share.clip(0, 1))).round().astype(np.uint8)
    return grey


def _require_genes(model: Nsl, gene_ids: Sequence[str]) -> None:
    if len(gene_ids) != len(model.read):
        raise InputError(
            facts(
                "genes of the table",
                found=f"{len(gene_ids)} ids",
                expected=f"{len(model.read)}, those of the model",
                fix="give the panel of the run",
            )
        )
