from __future__ import annotations

import numpy as np
import pytest

from seq2exp.elements.masks import FREE, PROMOTER
from seq2exp.elements.merged import merged_mask, run_lengths


def per_base(masks, contig, length):
    """The definition, one base at a time."""
    learned = np.full(length, np.nan)
    full = np.full(length, np.nan)
    values = [[] for _ in range(length)]
    promoter = np.zeros(length, dtype=bool)
    for gene in np.flatnonzero(masks.genes["contig"] == contig):
        for start, end, value, flag in zip(
            *masks.intervals(gene), masks.mask[gene].astype(float), masks.forced[gene], strict=True
        ):
            for base in range(start, end):
                full[base] = np.nanmax([full[base], value])
                promoter[base] |= flag == PROMOTER
                if flag == FREE:
                    values[base].append(value)
    for base, found in enumerate(values):
        learned[base] = max(found) if found else np.nan
    mean = [np.mean(found) if found else np.nan for found in values]
    return learned, np.array(mean), full, promoter, np.array([len(found) for found in values])


@pytest.mark.parametrize("chunk_bp", [1 << 21, 1000, 997])
def test_merged_mask_equals_its_definition_for_any_chunk(masks, chunk_bp):
    length = int(masks.genes["contig_length"][masks.genes["contig"] == "chr2"].iloc[0])
    expected = per_base(masks, "chr2", length)
    found = [np.full(length, np.nan) for _ in range(3)]
    promoter = np.zeros(length, dtype=bool)
    count = np.zeros(length, dtype=int)
    for stretch in merged_mask(masks, "chr2", chunk_bp=chunk_bp):
        where = slice(stretch.start, stretch.start + stretch.learned.size)
        for out, name in zip(found, ("learned", "mean", "full"), strict=True):
            out[where] = getattr(stretch, name)
        promoter[where] = stretch.promoter
        count[where] = stretch.num_genes
    assert np.nanmax(count) > 0
    for out, wanted in zip(found, expected[:3], strict=True):
        np.testing.assert_allclose(out, wanted, rtol=1e-6)
    np.testing.assert_array_equal(promoter, expected[3])
    np.testing.assert_array_equal(count, expected[4])


def test_a_contig_without_genes_yields_nothing(masks):
    assert list(merged_mask(masks, "chrNone")) == []


def test_run_lengths_skip_nan_and_restore_the_array():
    values = np.array([np.nan, 1, 1, 0, np.nan, np.nan, 0, 0, 2], dtype=np.float32)
    starts, ends, found = run_lengths(values, start=100)
    assert starts.tolist() == [101, 103, 106, 108]
    assert ends.tolist() == [103, 104, 108, 109]
    assert found.tolist() == [1, 0, 0, 2]
    assert run_lengths(values[:0])[0].size == 0
