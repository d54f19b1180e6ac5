"""Candidate elements: choice, cutting at every edge, means, equal rows."""

from __future__ import annotations

import pytest
import torch

from seq2exp.nn import elements
from seq2exp.nn.elements import (
    base_index,
    cut_sequences,
    first_copies,
    nearest_elements,
    span_centres,
    span_means,
    undo_transform,
)
from seq2exp.nn.tracks import apply_transform

EMPTY = (-1, -1)


def spans(*pairs):
    return torch.tensor([pairs], dtype=torch.int32)


def choose(given, limit=10, beyond=10, within=100):
    chosen, filled = nearest_elements(
        given, tss=500, beyond_bp=beyond, within_bp=within, limit=limit
    )
    return [tuple(pair) for pair in chosen[filled].tolist()], filled


def test_centres_round_down():
    assert span_centres(torch.tensor([[10, 20], [10, 21], [-3, 0], [-4, 0]])).tolist() == [
        15, 15, -2, -2]  # fmt: skip


def test_distance_decides_who_counts():
    """Centres at 10, 11, 100 and 101 bases from the TSS, and an empty slot."""
    given = spans((485, 495), (484, 494), EMPTY, (590, 610), (591, 611), (398, 400))
    kept, filled = choose(given)
    assert kept == [(484, 494), (590, 610)]
    assert filled.tolist() == [[False, True, False, True, False, False]]


def test_the_nearest_are_kept_in_any_order_given():
    given = spans((590, 600), (470, 480), EMPTY, (540, 550), (400, 404), (460, 464))
    wanted = [(470, 480), (460, 464), (540, 550)]
    for order in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 0, 5, 1, 3, 4]):
        kept, filled = choose(given[:, order], limit=3)
        assert kept == wanted
        assert filled.shape == (1, 3)


def test_too_few_elements_leave_empty_slots():
    _, filled = choose(spans(EMPTY, (470, 480), EMPTY, EMPTY), limit=2)
    assert filled.tolist() == [[True, False]]
    kept, filled = choose(torch.zeros(1, 0, 2, dtype=torch.int32))
    assert kept == []
    assert filled.shape == (1, 0)


def slow_cut(codes, start, end, width):
    """As the published loader places a sequence: centred in zeros, or trimmed around its centre."""
    row = [4] * width
    inside = {b: int(codes[b]) for b in range(max(start, 0), min(end, len(codes)))}
    size, centre = end - start, (start + end) // 2
    if size > width:
        start, end, size = centre - width // 2, centre + width // 2, width
    first = width // 2 - size // 2
    for i in range(size):
        row[first + i] = inside.get(start + i, 4)
    return row


@pytest.mark.parametrize(
    "span",
    [(10, 16), (10, 17), (0, 5), (35, 40), (-3, 4), (37, 44), (10, 18), (10, 19), (3, 39), (-9, -2),
     (-20, 60), (12, 13)],
)  # fmt: skip
def test_cutting_an_element(span):
    codes = torch.randint(0, 4, (3, 40), dtype=torch.uint8)
    pair = torch.tensor([span])
    index, inside = base_index(pair, width=8, length=40)
    cut = cut_sequences(codes, torch.tensor([1]), index, inside)
    assert cut.dtype == torch.uint8
    assert cut[0].tolist() == slow_cut(codes[1], *span, 8)


@pytest.mark.parametrize("span", [(0, 5), (3, 17), (10, 20), (19, 20), (-4, 7), (15, 99), (7, 8)])
def test_span_means_equal_the_means_over_bases(span):
    signal = torch.rand(2, 4, 3, dtype=torch.float64)
    signal[1, 1, 0] = torch.nan
    bases = torch.nan_to_num(signal[1]).repeat_interleave(5, dim=0)
    wanted = bases[max(span[0], 0) : min(span[1], 20)].mean(0)
    ours = span_means(signal, torch.tensor([1]), torch.tensor([span]), bin_size=5)
    torch.testing.assert_close(ours[0], wanted, rtol=0, atol=1e-12)


def test_a_span_outside_the_window_has_mean_zero():
    signal = torch.rand(1, 4, 1)
    ours = span_means(signal, torch.tensor([0]), torch.tensor([[25, 30]]), bin_size=5)
    assert ours.item() == 0


@pytest.mark.parametrize("transform", ["none", "log1p", "arcsinh", "sqrt"])
def test_transforms_are_undone(transform):
    raw = torch.tensor([0.0, 0.5, 3.0, torch.nan], dtype=torch.float64)
    back = undo_transform(apply_transform(raw, transform), transform)
    torch.testing.assert_close(back, raw, equal_nan=True)


def check_copies(codes, num_kinds):
    first, kind = first_copies(codes)
    assert len(first) == num_kinds
    assert torch.equal(codes[first][kind], codes)
    assert len({tuple(row) for row in codes[first].tolist()}) == num_kinds


def test_equal_rows_are_found():
    rows = torch.randint(0, 5, (4, 30), dtype=torch.uint8)
    check_copies(rows[[0, 1, 0, 2, 3, 1, 0]], 4)
    check_copies(rows[:1], 1)
    first, kind = first_copies(rows[:0])
    assert len(first) == len(kind) == 0


def test_rows_whose_sums_clash_are_told_apart(monkeypatch):
    monkeypatch.setattr(
        elements.torch, "randint", lambda low, high, size, **_: torch.ones(size, dtype=torch.int64)
    )
    check_copies(torch.tensor([[0, 1], [1, 0], [0, 1], [2, 2]], dtype=torch.uint8), 3)
