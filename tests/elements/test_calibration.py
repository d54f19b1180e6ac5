from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from seq2exp.elements.calibration import false_calls, level_rows, touches
from seq2exp.elements.truth import Truth
from tests.elements.hand import masks_of


def random_intervals(random, num, chroms=("chr1", "chr2")):
    start = random.integers(0, 1000, num)
    return pd.DataFrame(
        {
            "chrom": random.choice(chroms, num),
            "start": start,
            "end": start + random.integers(1, 40, num),
        }
    )


def test_touching_against_every_pair():
    random = np.random.default_rng(0)
    calls, known = random_intervals(random, 60), random_intervals(random, 25, ("chr1", "chr3"))
    expected = [
        any(a.chrom == b.chrom and a.start < b.end and b.start < a.end for b in known.itertuples())
        for a in calls.itertuples()
    ]
    assert 0 < sum(expected) < 60
    np.testing.assert_array_equal(touches(calls, known), expected)


def calls_and_truth():
    """g0: one causal, one decoy, one nothing; g1: an element that is causal for g0 only."""
    calls = pd.DataFrame(
        {
            "chrom": "chr1",
            "start": [100, 300, 500, 100, 0],
            "end": [200, 400, 600, 200, 50],
            "gene_id": ["g0", "g0", "g0", "g1", "g1"],
            "element_class": ["distal"] * 4 + ["promoter"],
        }
    )
    truth = pd.DataFrame(
        {
            "chrom": "chr1",
            "start": [150, 399, 700],
            "end": [160, 500, 800],
            "gene_id": ["g0", "g0", "g1"],
            "causal": [True, False, True],
            "kind": ["enhancer", "decoy", "enhancer"],
        }
    )
    return calls, Truth(truth, "hand")


def test_two_kinds_of_false_calls():
    """The third call begins where the decoy ends: touching without a shared base is not enough."""
    found = false_calls(*calls_and_truth())
    assert found["no_element"].tolist() == [False, False, True, False]
    assert found["not_causal"].tolist() == [False, True, True, True]


def test_an_element_for_every_gene_counts_for_each():
    calls, truth = calls_and_truth()
    anyone = Truth(truth.elements.assign(gene_id=None), "bed")
    assert false_calls(calls, anyone)["not_causal"].tolist() == [False, True, True, False]


def test_rows_by_split():
    masks = masks_of(np.full((2, 10), 0.5))
    stated = {"by_split": {"valid": {"fdr": 0.2, "observed": 3}, "test": {"fdr": None}}}
    calls, truth = calls_and_truth()
    rows = level_rows(masks, calls, stated, truth=truth)
    values = {(row["metric"], row["split"]): row for row in rows}
    assert values["fdr_stated", "valid"]["value"] == 0.2
    assert ("fdr_stated", "test") not in values
    assert values["fdr_no_element", "valid"]["value"] == pytest.approx(1 / 3)
    assert values["fdr_not_causal", "valid"]["value"] == pytest.approx(2 / 3)
    assert values["fdr_not_causal", "test"]["value"] == 1
    assert all(set(row) == set(rows[0]) for row in rows)
    assert level_rows(masks, calls, stated) == rows[:1]


def test_intervals_resample_genes():
    """Fifty genes with two calls, both right or both wrong: twice the variance of single calls."""
    masks = masks_of(np.full((100, 10), 0.5))
    genes = np.repeat(np.arange(0, 100, 2), 2)
    start = genes * 1000
    calls = pd.DataFrame(
        {
            "chrom": "chr1",
            "start": start + np.tile([0, 500], 50),
            "end": start + np.tile([100, 600], 50),
            "gene_id": [f"g{gene}" for gene in genes],
            "element_class": "distal",
        }
    )
    right = calls[calls["gene_id"].str[1:].astype(int) % 4 == 0]
    truth = Truth(
        right.assign(causal=True, kind="enhancer")[
            ["chrom", "start", "end", "gene_id", "causal", "kind"]
        ],
        "half",
    )
    stated = {"by_split": {"valid": {"fdr": 0.5, "observed": 100}}}
    row = next(
        row
        for row in level_rows(masks, calls, stated, truth=truth)
        if row["metric"] == "fdr_no_element"
    )
    assert row["value"] == 0.5
    # 1.96 sqrt(0.25 / 50) = 0.139 to either side.
    assert row["high"] - row["low"] == pytest.approx(0.277, abs=0.04)
