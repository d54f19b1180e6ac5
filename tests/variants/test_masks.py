"""Bins around a variant and bins of exons."""

from __future__ import annotations

import numpy as np
import pytest

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.core.intervals import Window
from seq2exp.variants.masks import centre_bins, centre_mask, gene_mask


def test_goldens_of_the_centre_mask():
    """c = offset // b, k = ceil(w / b), bins c - k // 2 to c - k // 2 + k."""
    assert centre_bins(1_000, num_bins=5_000, bin_size=1, width=501) == (750, 1251)
    assert centre_bins(10 * 128, num_bins=100, bin_size=128, width=501) == (8, 12)
    assert centre_bins(10 * 128 + 127, num_bins=100, bin_size=128, width=501) == (8, 12)
    assert centre_bins(0, num_bins=100, bin_size=128, width=501) == (0, 2)
    assert centre_bins(99 * 128, num_bins=100, bin_size=128, width=200_001) == (0, 100)
    with pytest.raises(ConfigError, match="at least 1 bp"):
        centre_bins(0, num_bins=1, bin_size=1, width=0)


@pytest.mark.parametrize("strand", ["+", "-"])
def test_masks_are_in_model_direction(strand):
    window = Window("chr1", 100, 180, strand, 1_000)
    around = centre_mask(window, 121, bin_size=8, width=20)
    expected = np.zeros(10, bool)
    expected[1:4] = True  # bin 2 holds base 21; three bins around it
    np.testing.assert_array_equal(around, expected[::-1] if strand == "-" else expected)
    exons = gene_mask(window, [90, 123, 170], [101, 125, 500], bin_size=8)
    touched = np.isin(np.arange(10), [0, 2, 3, 8, 9])
    np.testing.assert_array_equal(exons, touched[::-1] if strand == "-" else touched)


def test_nothing_counts_for_a_place_outside_of_the_window():
    window = Window("chr1", 100, 180, "+", 1_000)
    assert not centre_mask(window, 180, bin_size=8).any()
    assert not centre_mask(window, 99, bin_size=8).any()
    with pytest.raises(InputError, match="a whole number of bins"):
        centre_mask(window, 120, bin_size=7)
    with pytest.raises(InputError, match="intervals of a gene"):
        gene_mask(window, [5], [4], bin_size=8)
