"""The nearest spots of a bank, their weights, and the mean and deviation of what they express.

Exact, and in pieces: nothing of the size of all queries by all spots is held beyond a chunk, and
expression is read where it lies, not copied once per neighbour.

Axes: B queries, N spots of the bank, K spots found, D width of the embeddings, G genes.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["distance_weights", "nearest_spots", "weighted_moments"]

# Below this share of their lengths the distance of two vectors cannot be had from their product.
_CANCELS = 0.02
# Expression of so many spots times genes is held at a time.
_MOST_NUMBERS = 1 << 24


def nearest_spots(
    query_BD: Tensor, unit_ND: Tensor, *, k: int, chunk: int, own_B: Tensor, code_N: Tensor
) -> tuple[Tensor, Tensor]:
    """Return cosines and rows of the most similar spots, shape (B, K), best first.

    Of equal cosines the smaller row comes first. Spots of the query's own patient have cosine
    -inf, and come last.

    Parameters
    ----------
    query_BD, unit_ND : float tensors
        Queries, and keys of length 1.
    k : int
    chunk : int
        Spots compared at a time.
    own_B, code_N : int64 tensors
        Who never answers, by query; whose each spot is. -1 shuts nobody out.
    """
    unit_BD = F.normalize(query_BD, dim=-1)
    shut_out = bool((own_B >= 0).any())
    found = []
    for start in range(0, len(unit_ND), chunk):
        part = slice(start, start + chunk)
        cosine = unit_BD @ unit_ND[part].T
        if shut_out:
            cosine.masked_fill_(own_B[:, None] == code_N[part], -torch.inf)
        best, place = cosine.topk(min(k, cosine.shape[1]), sorted=False)
        found.append((best, place + start))
    cosine_BC, row_BC = (torch.cat(each, dim=1) for each in zip(*found, strict=True))
    order = _rank(cosine_BC, row_BC).argsort(dim=1, descending=True)[:, :k]
    return cosine_BC.gather(1, order), row_BC.gather(1, order)


def _rank(cosine: Tensor, row: Tensor) -> Tensor:
    """Return integers that grow with the cosine, and among equal ones with a smaller row."""
    bits = (cosine.float() + 0.0).view(torch.int32).long()
    # The bits of negative numbers grow with their size.
    ordered = torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)
    return (ordered << 32) - row


def distance_weights(
    query_BD: Tensor,
    keys_ND: Tensor,
    row_BK: Tensor,
    cosine_BK: Tensor,
    *,
    order: Literal[1, 2],
    unit: bool,
    epsilon: float,
) -> Tensor:
    """Return inverse squares of the distances, 0 where the cosine is -inf; they sum to 1.

    Parameters
    ----------
    query_BD, keys_ND : float tensors
    row_BK : int64 tensor, shape (queries, found)
    cosine_BK : float tensor, shape (queries, found)
    order : int
        1: sum of differences; 2: Euclidean.
    unit : bool
        Between vectors divided by their lengths.
    epsilon : float
        Smallest distance that is told from 0.
    """
    if unit:
        query_BD = F.normalize(query_BD, dim=-1)
    if order == 1:
        keys_BKD = keys_ND[row_BK]
        keys_BKD = F.normalize(keys_BKD, dim=-1) if unit else keys_BKD
        distance_BK = (query_BD[:, None] - keys_BKD).abs().sum(dim=-1)
    else:
        distance_BK = _euclidean(query_BD, keys_ND, row_BK, cosine_BK, unit=unit)
    raw_BK = distance_BK.clamp(min=epsilon).pow(-2) * torch.isfinite(cosine_BK)
    weight_BK: Tensor = raw_BK / raw_BK.sum(dim=-1, keepdim=True)
    return weight_BK


def _euclidean(
    query_BD: Tensor, keys_ND: Tensor, row_BK: Tensor, cosine_BK: Tensor, *, unit: bool
) -> Tensor:
    """Distances by the law of cosines; those it would round away are taken from the vectors."""
    cosine_BK = cosine_BK.nan_to_num(neginf=0.0)
    query_B1 = query_BD.norm(dim=-1, keepdim=True)
    keys_BK = torch.ones_like(cosine_BK) if unit else keys_ND.norm(dim=-1)[row_BK]
    length_BK = query_B1.square() + keys_BK.square()
    square_BK = length_BK - 2 * query_B1 * keys_BK * cosine_BK
    near = square_BK < _CANCELS * length_BK
    which = near.nonzero()
    if len(which):
        keys = keys_ND[row_BK[near]]
        keys = F.normalize(keys, dim=-1) if unit else keys
        square_BK[near] = (query_BD[which[:, 0]] - keys).square().sum(dim=-1)
    distance_BK: Tensor = square_BK.clamp(min=0).sqrt()
    return distance_BK


def weighted_moments(
    expression_NG: Tensor, row_BK: Tensor, weight_BK: Tensor, *, complete: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return weighted mean and deviation, and the weight that stands behind each, shape (B, G).

    A gene's spots are those that measured it.

    Parameters
    ----------
    expression_NG : float tensor, shape (spots, genes)
        NaN where a gene was not measured.
    row_BK : int64 tensor, shape (queries, found)
    weight_BK : float tensor, shape (queries, found)
    complete : bool
        There is no NaN.
    """
    rows, inverse = row_BK.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    block = max(1, _MOST_NUMBERS // len(rows))
    parts = [
        _moments(expression_NG[rows, start : start + block].double(), inverse, weight_BK, complete)
        for start in range(0, expression_NG.shape[1], block)
    ]
    mean, deviation, total = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    dtype = expression_NG.dtype
    return mean.to(dtype), deviation.to(dtype), total.to(dtype)


def _moments(
    values_UG: Tensor,
    place_BK: Tensor,
    weight_BK: Tensor,
    complete: bool,  # noqa: FBT001
) -> tuple[Tensor, Tensor, Tensor]:
    """In double precision: the deviation is a difference of squares."""
    weight_BK = weight_BK.double()

    def summed(of_UG: Tensor) -> Tensor:
        return F.embedding_bag(place_BK, of_UG, per_sample_weights=weight_BK, mode="sum")

    if complete:
        total = weight_BK.sum(dim=1, keepdim=True).expand(-1, values_UG.shape[1])
    else:
        known_UG = torch.isfinite(values_UG)
        total = summed(known_UG.double())
        values_UG = torch.where(known_UG, values_UG, 0.0)
    share = total.clamp(min=1e-30)
    mean = summed(values_UG) / share
    variance = summed(values_UG.square()) / share - mean.square()
    # What is left of equal values is rounding.
    noise = 1e-13 * mean.square()
    return mean, torch.where(variance > noise, variance, 0.0).sqrt(), total
