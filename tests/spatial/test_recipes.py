from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import sparse

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.spatial.recipes import RECIPES, LabelRecipe, grid_mean, named_recipe

# A spot with panel counts (1, 3) and 8 counts in all.
COUNTS = np.array([[1, 3, 4]])
PANEL = np.array([0, 1])


def labels(recipe, counts=COUNTS, columns=PANEL, **more):
    return recipe.fit([(counts, columns)]).labels(counts, columns, **more)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # ln(1e4 / 8 + 1), ln(3e4 / 8 + 1)
        ("default", (7.131699, 8.229778)),
        # log10(1e4 / 4 + 1), log10(3e4 / 4 + 1)
        ("her2_785", (3.398114, 3.875119)),
        # log2(1 + 1), log2(3 + 1)
        ("stem", (1.0, 2.0)),
        ("agl_code", (math.log(2), math.log(4))),
        # One spot: its own panel sum is the median, so nothing is scaled.
        ("hescape_mlp", (math.log(2), math.log(4))),
    ],
)
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csr_array])
def test_golden_values(name, expected, form):
    found = labels(named_recipe(name), form(COUNTS))
    np.testing.assert_allclose(found, [expected], atol=5e-7)


def test_errors_of_two_logarithms_differ_by_a_constant():
    random = np.random.default_rng(0)
    truth, guess = random.poisson(5, (2, 30, 4))
    columns = np.arange(4)
    errors = {}
    for log in ("ln", "log10"):
        recipe = LabelRecipe("panel", 1e4, log)
        errors[log] = np.mean(
            (labels(recipe, truth, columns) - labels(recipe, guess, columns)) ** 2
        )
    assert errors["ln"] / errors["log10"] == pytest.approx(5.301898, abs=1e-6)


def test_smoothing_takes_the_neighbours_that_are_there():
    """A row of three spots and one far away."""
    values = np.array([[0.0], [3.0], [9.0], [5.0]])
    grid = np.array([[0, 0], [0, 1], [1, 2], [7, 7]])
    np.testing.assert_allclose(grid_mean(values, grid), [[1.5], [4.0], [6.0], [5.0]])
    # The order of spots does not matter.
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(grid_mean(values[order], grid[order]), [[6.0], [1.5], [5.0], [4.0]])
    with pytest.raises(InputError, match="1 in all"):
        grid_mean(values, np.array([[0, 0], [0, 1], [0, 1], [7, 7]]))


def test_the_median_and_the_scale_come_from_training_spots():
    train = np.array([[1, 1], [4, 4], [8, 8]])
    columns = np.array([0, 1])
    fitted = LabelRecipe("panel", "median_train", None).fit([(train, columns)])
    assert fitted.target == 8
    np.testing.assert_allclose(fitted.labels(np.array([[3, 1]]), columns), [[6, 2]])
    scaled = LabelRecipe(None, log=None, scale="zscore_train").fit([(train, columns)])
    deviation = np.std([1, 4, 8])
    expected = (10 - np.mean([1, 4, 8])) / deviation
    np.testing.assert_allclose(scaled.labels(np.array([[10, 10]]), columns), [[expected] * 2])
    ranged = LabelRecipe(None, log=None, scale="minmax_gene").fit([(train, columns)])
    np.testing.assert_allclose(ranged.labels(train, columns)[:, 0], [0, 3 / 7, 1])


def test_a_constant_gene_and_an_empty_spot_make_no_nan():
    counts = np.array([[0, 0], [0, 5]])
    found = labels(LabelRecipe(scale="zscore_train"), counts)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(labels(LabelRecipe(), counts)[0], [0, 0])


def test_genes_that_were_not_measured_are_missing():
    found = labels(RECIPES["default"], COUNTS, np.array([1, -1]))
    assert np.isnan(found[0, 1])
    assert found[0, 0] == pytest.approx(8.229778, abs=1e-6)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="target"):
        LabelRecipe(target=0)
    with pytest.raises(ConfigError, match="pseudocount"):
        LabelRecipe(pseudocount=0)
    with pytest.raises(ConfigError, match="her2_785"):
        named_recipe("her2_78")
