"""Numbers over sites against values worked out by hand and by another way."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu, spearmanr

from seq2exp.interpret.agreement import (
    GeneBootstrap,
    add_p_values,
    empirical_p,
    per_gene,
    weighted_auroc,
)


def test_p_is_the_share_of_decoys_that_reach_the_effect():
    """Null 0, 1, 2, 3: a score of 3 is reached by one of four, (1 + 1) / (1 + 4)."""
    null = np.array([0.0, 1, 2, 3])
    score = np.array([3.0, 5, 1.5, -1])
    far = np.full(4, 3000)
    np.testing.assert_allclose(empirical_p(score, far, null, far), [0.4, 0.2, 0.6, 1.0])
    assert np.isnan(empirical_p(score, far, np.empty(0), np.empty(0, dtype=int))).all()


def test_decoys_are_matched_by_distance():
    """A hundred decoys near and strong, a hundred far and weak."""
    null = np.concatenate([np.full(100, 5.0), np.full(100, 1.0)])
    distance = np.concatenate([np.full(100, -1500), np.full(100, 8000)])
    found = empirical_p(np.array([3.0, 3.0]), np.array([1500, -8000]), null, distance)
    np.testing.assert_allclose(found, [1.0, 1 / 101])


def test_p_of_elements_like_decoys_is_uniform():
    random = np.random.default_rng(0)
    found = empirical_p(
        random.gamma(1.0, 1.0, 2000),
        random.integers(1000, 9000, 2000),
        random.gamma(1.0, 1.0, 2000),
        random.integers(1000, 9000, 2000),
    )
    assert abs((found <= 0.05).mean() - 0.05) < 0.02
    assert abs(found.mean() - 0.5) < 0.03


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_counts_pairs(ties):
    random = np.random.default_rng(1)
    score = random.integers(0, 5, 60).astype(float) if ties else random.normal(size=60)
    label = random.random(60) < 0.4
    counts = random.integers(0, 4, (3, 60)).astype(float)
    found = weighted_auroc(label, score, counts)
    for row, value in zip(counts.astype(int), found, strict=True):
        first, second = (np.repeat(score[keep], row[keep]) for keep in (label, ~label))
        pairs = mannwhitneyu(first, second).statistic / (first.size * second.size)
        assert value == pytest.approx(pairs)
    assert np.isnan(weighted_auroc(np.ones(60, dtype=bool), score, counts)).all()


def table(genes=6, each=8, seed=0):
    random = np.random.default_rng(seed)
    size = genes * each
    effect = random.gamma(1.0, 1.0, size)
    return pd.DataFrame(
        {
            "gene_id": np.repeat([f"g{i}" for i in range(genes)], each),
            "symbol": "s",
            "kind": np.tile(["element", "decoy"], size // 2),
            "status": "ok",
            "name": [f"n{i}" for i in range(size)],
            "distance": random.integers(-9000, 9000, size),
            "mask_mean": effect + random.normal(size=size),
            "effect": effect,
            "delta": -effect,
            "gain": np.nan,
        }
    )


def test_genes_are_described_one_by_one():
    sites = table()
    add_p_values(sites)
    found = per_gene(sites).set_index("gene_id")
    part = sites[sites["gene_id"] == "g2"]
    element = part[part["kind"] == "element"]
    expected = spearmanr(part["mask_mean"], part["effect"]).statistic
    assert found.loc["g2", "spearman"] == pytest.approx(expected)
    assert found.loc["g2", "strongest"] == element.sort_values("effect")["name"].iloc[-1]
    assert found.loc["g2", "largest_loss"] == pytest.approx(element["effect"].max())
    assert found.loc["g2", ["elements", "decoys"]].tolist() == [4, 4]
    assert sites.loc[sites["kind"] == "decoy", "p"].isna().all()
    few = sites.groupby("gene_id").head(4)
    assert per_gene(few)["spearman"].isna().all()


def test_intervals_are_over_genes():
    """Sites of a gene that are copies of each other add no certainty."""
    sites = table(genes=30, each=2)
    copied = pd.concat([sites] * 10, ignore_index=True)

    def width(frame):
        boot = GeneBootstrap(frame["gene_id"], split="test")
        values = frame["effect"].to_numpy()
        every = np.ones(len(frame), dtype=bool)
        row = boot.row("a", "mean", every, lambda c: c @ values / c.sum(1))
        assert row["value"] == pytest.approx(values.mean())
        assert row["n"] == 30
        return row["high"] - row["low"]

    assert width(copied) == pytest.approx(width(sites), rel=1e-6)
