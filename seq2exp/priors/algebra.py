"""Linear algebra of gene priors: whitening, joint embeddings of seeds, random and shuffled rows.

Shapes: G genes, D embedding width, K kept components, S spots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MAX_DIMS",
    "Whitening",
    "coexpression",
    "fit_whitening",
    "groups_by_rank",
    "joint_embedding",
    "random_like",
    "rolled_within",
]

MAX_DIMS = 64
"""Most dimensions that a whitened embedding keeps."""
# Directions a thousand times narrower than the widest hold rounding of float32, not genes.
_NARROWEST = 1e-3

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Whitening:
    """A PCA that gives every kept component mean 0 and deviation 1 over the genes it was fitted on.

    Attributes
    ----------
    mean_D : float64 array, shape (embedding width,)
    axes_DK : float64 array, shape (embedding width, components)
        Principal axes over the deviation along them, widest first; the largest entry of each is
        positive, so that signs do not depend on the library.
    """

    mean_D: Floats
    axes_DK: Floats

    def __call__(self, z_GD: NDArray[np.floating]) -> Floats:
        """Return whitened rows, shape (num_genes, components)."""
        whitened_GK: Floats = (np.asarray(z_GD, np.float64) - self.mean_D) @ self.axes_DK
        return whitened_GK


def fit_whitening(z_GD: NDArray[np.floating], *, max_dims: int = MAX_DIMS) -> Whitening:
    """Fit a whitening PCA on the rows given, at least two of which differ.

    Parameters
    ----------
    z_GD : float array, shape (num_genes, embedding width)
    max_dims : int
        Most components; those with less than a thousandth of the widest deviation are left out.
    """
    values_GD = np.asarray(z_GD, np.float64)
    mean_D = values_GD.mean(axis=0)
    _, size_K, axes_KD = np.linalg.svd(values_GD - mean_D, full_matrices=False)
    deviation_K = size_K / np.sqrt(max(len(values_GD) - 1, 1))
    kept = (deviation_K > _NARROWEST * deviation_K[:1]) & (np.arange(size_K.size) < max_dims)
    axes_KD, deviation_K = axes_KD[kept], deviation_K[kept]
    largest_K = np.take_along_axis(axes_KD, np.abs(axes_KD).argmax(axis=1)[:, None], axis=1)
    return Whitening(mean_D, (axes_KD * np.sign(largest_K) / deviation_K[:, None]).T)


def joint_embedding(
    members: Sequence[NDArray[np.floating]], reference: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Put the embeddings of several seeds side by side, each scaled to the same total variance.

    Coordinates of different seeds have nothing to do with each other, so their mean means nothing.
    Side by side, and over the square root of their number, inner products of genes are the mean
    of those of the seeds, which is what cosines, neighbours, kernels and ridge see.

    Parameters
    ----------
    members : sequence of float arrays, shape (num_genes, width)
        One per seed; widths may differ.
    reference : bool array, shape (num_genes,)
        Genes over which the variance is taken (training genes).

    Returns
    -------
    float32 array, shape (num_genes, sum of the widths)
        A single member is returned unchanged.
    """
    if len(members) == 1:
        return np.asarray(members[0], np.float32)
    parts = []
    for member in members:
        values_GD = np.asarray(member, np.float64)
        total = values_GD[reference].var(axis=0).sum() if reference.any() else 0.0
        parts.append(values_GD / np.sqrt((total or 1.0) * len(members)))
    return np.concatenate(parts, axis=1).astype(np.float32)


def random_like(z_GD: NDArray[np.floating], random: np.random.Generator) -> Floats:
    """Return Gaussian rows with exactly the mean, covariance and spectrum of the given ones.

    With the centred rows written as U S V', U is replaced by random orthonormal columns that sum
    to 0. So nothing of the genes is left, and no sampling error either.
    """
    values_GD = np.asarray(z_GD, np.float64)
    mean_D = values_GD.mean(axis=0)
    _, size_K, axes_KD = np.linalg.svd(values_GD - mean_D, full_matrices=False)
    # Centring takes one dimension away.
    rank = min(size_K.size, len(values_GD) - 1)
    drawn_GK = random.standard_normal((len(values_GD), rank))
    columns_GK, _ = np.linalg.qr(drawn_GK - drawn_GK.mean(axis=0))
    drawn_GD: Floats = mean_D + (columns_GK * size_K[:rank]) @ axes_KD[:rank]
    return drawn_GD


def groups_by_rank(values_G: NDArray[np.floating], *, num_groups: int = 10) -> NDArray[np.int64]:
    """Return groups 0 .. num_groups - 1 of equal size by rank; NaN form the last group of all."""
    group_G = np.full(len(values_G), num_groups, dtype=np.int64)
    known = np.flatnonzero(np.isfinite(values_G))
    order = known[np.argsort(np.asarray(values_G)[known], kind="stable")]
    group_G[order] = np.arange(order.size) * num_groups // max(order.size, 1)
    return group_G


def rolled_within(group_G: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """Return for each gene another gene of its group; a gene alone in its group keeps itself."""
    donor_G = np.arange(len(group_G), dtype=np.int64)
    for group in np.unique(group_G):
        order = random.permutation(np.flatnonzero(group_G == group))
        # One cycle, because a plain permutation would leave some genes with their own row.
        donor_G[order] = np.roll(order, 1)
    return donor_G


def coexpression(counts_SG: NDArray[np.floating], *, max_dims: int = MAX_DIMS) -> Floats:
    """Return the co-expression embedding of genes: inner products approximate correlations.

    Parameters
    ----------
    counts_SG : float array, shape (num_spots, num_genes)
        Expression, normalised as the caller wants it; every gene varies over the spots.
    max_dims : int
        Most components.
    """
    values_SG = np.asarray(counts_SG, np.float64)
    unit_SG = (values_SG - values_SG.mean(axis=0)) / values_SG.std(axis=0)
    _, size_K, axes_KG = np.linalg.svd(unit_SG, full_matrices=False)
    kept = min(max_dims, int((size_K > _NARROWEST * size_K[:1]).sum()))
    loadings_GK: Floats = (axes_KG[:kept] * size_K[:kept, None]).T / np.sqrt(len(values_SG))
    return loadings_GK
