"""Recall on fixed galleries: is a spot's expression among the k most like its picture.

A gallery is a seeded draw of N spots; every spot of it is asked for once in each direction. Chance
is k / N, so N stands beside every value. Galleries within a section and across sections are told
apart, because across sections it is enough to know the section. Rivals whose score equals one's own
count as ahead. The result does not hang on the order in which spots were embedded.

Axes: S spots, N spots of a gallery, D width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts

__all__ = ["GallerySize", "pessimistic_ranks", "recall_table"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
GallerySize: TypeAlias = int | Literal["section"]
_TIE = 1e-9
_MOST_ROWS = 1024


def pessimistic_ranks(query_ND: NDArray[np.floating], key_ND: NDArray[np.floating]) -> Integers:
    """Return the rank of each query's own key by cosine; 1 is best, ties count against it.

    Parameters
    ----------
    query_ND, key_ND : float arrays, shape (gallery, width)
        Row by row the two views of a spot.
    """
    query, key = _unit(query_ND), _unit(key_ND)
    own_N = (query * key).sum(axis=1)
    ranks = []
    for start in range(0, len(query), _MOST_ROWS):
        part = slice(start, start + _MOST_ROWS)
        ahead = query[part] @ key.T >= own_N[part, None] - _TIE
        # One's own key is not its rival, however its cosine was rounded.
        ahead[np.arange(len(ahead)), np.arange(start, start + len(ahead))] = False
        ranks.append(1 + ahead.sum(axis=1))
    return np.concatenate(ranks).astype(np.int64)


def recall_table(
    image_SD: NDArray[np.floating],
    gene_SD: NDArray[np.floating],
    *,
    section_S: Integers,
    spot_S: Integers,
    sizes: Sequence[GallerySize] = (64, 1000, "section"),
    ks: Sequence[int] = (1, 5, 10),
    seed: int = 0,
) -> pd.DataFrame:
    """Return recall at k, and ranks, for both directions, every size and both scopes.

    Spots are put in the order of (section, row), permuted by the seed and cut into galleries of N;
    what is left over is not asked for. "section" takes each section whole.

    Parameters
    ----------
    image_SD, gene_SD : float arrays, shape (spots, width)
    section_S, spot_S : int64 arrays, shape (spots,)
    sizes : sequence of int or "section"
    ks : sequence of int
    seed : int

    Returns
    -------
    DataFrame
        scope (within, across), direction, size (N, the mean for whole sections), k, recall, chance
        (k / N), mean_rank, median_rank, num_queries, num_galleries. Sizes that no gallery has are
        absent.

    Raises
    ------
    InputError
        Embeddings that are no number, or of other lengths.
    """
    _require(image_SD, gene_SD, section_S, spot_S)
    order = np.lexsort((spot_S, section_S))
    views = (np.asarray(image_SD)[order], np.asarray(gene_SD)[order])
    section_S = np.asarray(section_S)[order]
    rows: list[dict[str, Any]] = []
    for size in sizes:
        for scope in ("within", "across") if size != "section" else ("within",):
            galleries = list(_galleries(section_S, scope, size, seed))
            if not galleries:
                continue
            for direction, (first, second) in (
                ("image->gene", views),
                ("gene->image", views[::-1]),
            ):
                ranks = [pessimistic_ranks(first[each], second[each]) for each in galleries]
                rows += _rows(scope, direction, ranks, ks)
    return pd.DataFrame(rows)


def _rows(
    scope: str, direction: str, ranks: Sequence[Integers], ks: Sequence[int]
) -> Iterator[dict[str, Any]]:
    every = np.concatenate(ranks)
    sizes = np.repeat([len(each) for each in ranks], [len(each) for each in ranks])
    for k in ks:
        yield {
            "scope": scope,
            "direction": direction,
            "size": float(np.mean(sizes)),
            "k": k,
            "recall": float((every <= k).mean()),
            "chance": float(np.minimum(k / sizes, 1).mean()),
            "mean_rank": float(every.mean()),
            "median_rank": float(np.median(every)),
            "num_queries": len(every),
            "num_galleries": len(ranks),
        }


def _galleries(section_S: Integers, scope: str, size: GallerySize, seed: int) -> Iterator[Integers]:
    groups = (
        [np.flatnonzero(section_S == section) for section in np.unique(section_S)]
        if scope == "within"
        else [np.arange(len(section_S))]
    )
    random = np.random.default_rng(seed)
    for group in groups:
        if size == "section":
            if len(group) > 1:
                yield group
            continue
        shuffled = random.permutation(group)
        for start in range(0, len(group) - size + 1, size):
            yield shuffled[start : start + size]


def _unit(values_ND: NDArray[np.floating]) -> Floats:
    values = np.asarray(values_ND, np.float64)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit: Floats = values / np.where(length > 0, length, 1.0)
    return unit


def _require(
    image_SD: NDArray[np.floating],
    gene_SD: NDArray[np.floating],
    section_S: Integers,
    spot_S: Integers,
) -> None:
    sizes = {len(each) for each in (image_SD, gene_SD, section_S, spot_S)}
    if len(sizes) > 1 or image_SD.shape != gene_SD.shape:
        found = f"shapes {image_SD.shape} and {gene_SD.shape} for {len(section_S)} spots"
    elif not (np.isfinite(image_SD).all() and np.isfinite(gene_SD).all()):
        found = "values that are no number"
    else:
        return
    raise InputError(
        facts(
            "embeddings",
            found=found,
            expected="two finite embeddings of one width per spot",
            fix="embed the spots with both towers of one model",
        )
    )
