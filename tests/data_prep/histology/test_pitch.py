"""The distance of spots: exact on exact arrays, unbiased where spots are a little off."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial import cKDTree

from data_prep.histology.pitch import estimate_pitch
from tests.data_prep.histology import raw
from tests.data_prep.histology.test_checks import section, some


def hexagonal(pitch, num_rows=20, num_cols=30):
    row, col = np.meshgrid(range(num_rows), range(num_cols), indexing="ij")
    kept = (row + col) % 2 == 0
    row, col = row[kept], col[kept]
    return dataclasses.replace(
        section(),
        array_row=row,
        array_col=col,
        x=50 + col * pitch / 2,
        y=50 + row * pitch * np.sqrt(3) / 2,
        grid="hex",
    )


def square(pitch, size=18):
    row, col = (part.ravel() for part in np.meshgrid(range(size), range(size), indexing="ij"))
    places = {"x": 70 + col * pitch, "y": 30 + row * pitch}
    return dataclasses.replace(section(), array_row=row, array_col=col, **places)


def moved(base, size, *, seed=0):
    noise = np.random.default_rng(seed).normal(0, size, (2, len(base.x)))
    return dataclasses.replace(base, x=base.x + noise[0], y=base.y + noise[1])


@pytest.mark.parametrize("make", [hexagonal, square])
def test_exact_arrays_give_their_pitch_at_any_angle(make):
    base = make(37.5)
    assert estimate_pitch(base) == pytest.approx(37.5, abs=1e-5)
    turn = np.exp(0.3j) * (base.x + 1j * base.y)
    turned = dataclasses.replace(base, x=turn.real, y=-turn.imag)
    assert estimate_pitch(turned) == pytest.approx(37.5, abs=1e-5)


@pytest.mark.parametrize("make", [hexagonal, square])
def test_jitter_does_not_bring_spots_nearer(make):
    """With a jitter of 7 % of the pitch, as on HER2ST, the nearest neighbours are 5 % too near."""
    base = moved(make(290.0), 20.0)
    places = np.column_stack([base.x, base.y])
    nearest = np.median(cKDTree(places).query(places, k=2)[0][:, 1])
    assert nearest < 0.96 * 290
    assert estimate_pitch(base) == pytest.approx(290, rel=0.006)


def test_spots_that_are_missing_or_lost_do_not_matter():
    rows = np.random.default_rng(1).permutation(324)[:60]  # few have a neighbour left
    base = square(20.0)
    sparse = dataclasses.replace(
        base, **{name: getattr(base, name)[rows] for name in ("array_row", "array_col", "x", "y")}
    )
    assert estimate_pitch(sparse) == pytest.approx(20, abs=1e-5)
    lost = base.x.copy()
    lost[:5] += 400
    assert estimate_pitch(dataclasses.replace(base, x=lost)) == pytest.approx(20, rel=1e-3)


def test_the_order_of_the_spots_does_not_matter():
    base = moved(square(20.0), 1.0)
    order = np.random.default_rng(0).permutation(len(base.x))
    parts = {name: getattr(base, name)[order] for name in ("array_row", "array_col", "x", "y")}
    assert estimate_pitch(dataclasses.replace(base, **parts)) == estimate_pitch(base)


def test_places_that_do_not_tell_pixels_leave_it_to_the_nearest_spot():
    base = section()
    order = np.random.default_rng(3).permutation(30)
    shuffled = dataclasses.replace(
        base, array_row=base.array_row[order], array_col=base.array_col[order]
    )
    line = some(base, np.arange(6))  # one row
    for one in (shuffled, line, some(base, np.array([0, 1]))):
        assert estimate_pitch(one) == raw.PITCH
    assert np.isnan(estimate_pitch(some(base, np.array([0]))))
