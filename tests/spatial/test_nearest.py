"""Neighbours, weights and moments against the plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seq2exp.spatial import nearest
from seq2exp.spatial.nearest import distance_weights, nearest_spots, weighted_moments

NOBODY = torch.full((7,), -1)


def vectors(rows, seed, width=5):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("chunk", [3, 10, 1000])
def test_neighbours_are_those_of_a_full_sort(chunk):
    query, unit = vectors(7, 0), F.normalize(vectors(40, 1), dim=-1)
    cosine, rows = nearest_spots(
        query, unit, k=6, chunk=chunk, own_B=NOBODY, code_N=torch.zeros(40, dtype=torch.int64)
    )
    every = (F.normalize(query, dim=-1) @ unit.T).numpy()
    np.testing.assert_array_equal(rows, np.argsort(-every, axis=1, kind="stable")[:, :6])
    np.testing.assert_allclose(cosine, np.take_along_axis(every, rows.numpy(), 1), atol=1e-6)


def test_of_equal_cosines_the_first_row_wins_also_below_zero():
    unit = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    _, rows = nearest_spots(
        torch.tensor([[2.0, 0.0]]), unit, k=5, chunk=2, own_B=torch.tensor([-1]),
        code_N=torch.zeros(5, dtype=torch.int64),
    )  # fmt: skip
    assert rows.tolist() == [[0, 2, 4, 1, 3]]


def test_own_spots_come_last():
    code = torch.arange(40) % 4
    cosine, rows = nearest_spots(
        vectors(7, 0), F.normalize(vectors(40, 1), dim=-1), k=40, chunk=16,
        own_B=torch.full((7,), 2), code_N=code,
    )  # fmt: skip
    assert (code[rows[:, :30]] != 2).all()
    assert torch.isinf(cosine[:, 30:]).all()


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("apart", [1.0, 1e-4])
def test_weights_follow_the_distances_also_of_near_vectors(unit, order, apart):
    """Where products would round distances away they are taken from the vectors."""
    query = vectors(7, 0)
    keys = torch.cat([query + apart * vectors(7, 3), vectors(33, 1)])
    rows = torch.arange(40).expand(7, 40)
    cosine = F.normalize(query, dim=-1) @ F.normalize(keys, dim=-1).T
    found = distance_weights(query, keys, rows, cosine, order=order, unit=unit, epsilon=1e-6)
    q, x = query.double().numpy(), keys.double().numpy()
    if unit:
        q, x = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (q, x))
    distance = np.linalg.norm(q[:, None] - x, ord=order, axis=-1)
    expected = distance**-2.0 / (distance**-2.0).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-9)


@pytest.mark.parametrize("most", [1 << 24, 50])
@pytest.mark.parametrize("missing", [False, True])
def test_moments_are_those_of_the_spots_that_measured_a_gene(monkeypatch, most, missing):
    monkeypatch.setattr(nearest, "_MOST_NUMBERS", most)
    random = np.random.default_rng(0)
    values = 8 + random.normal(size=(40, 9)).astype(np.float32)
    if missing:
        values[random.random(values.shape) < 0.4] = np.nan
    rows = random.permuted(np.tile(np.arange(40), (7, 1)), axis=1)[:, :6]
    weight = random.random((7, 6)).astype(np.float32)
    weight /= weight.sum(axis=1, keepdims=True)
    mean, sd, total = weighted_moments(
        torch.tensor(values), torch.tensor(rows), torch.tensor(weight), complete=not missing
    )
    for query in range(7):
        for gene in range(9):
            x = values[rows[query], gene].astype(float)
            known = np.isfinite(x)
            share = weight[query][known].astype(float)
            assert float(total[query, gene]) == pytest.approx(share.sum(), abs=1e-6)
            if known.any():
                middle = np.average(x[known], weights=share)
                spread = np.sqrt(np.average((x[known] - middle) ** 2, weights=share))
                assert float(mean[query, gene]) == pytest.approx(middle, rel=1e-6)
                assert float(sd[query, gene]) == pytest.approx(spread, rel=1e-5, abs=1e-6)


def test_equal_values_have_no_deviation():
    values = torch.full((10, 3), 7.123)
    weight = torch.tensor([[0.1, 0.2, 0.7]])
    _, sd, _ = weighted_moments(values, torch.tensor([[1, 4, 9]]), weight, complete=True)
    assert torch.equal(sd, torch.zeros(1, 3))
