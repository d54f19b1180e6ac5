"""Rows and per-gene table of the benchmark; helpers of strata and learning curves."""

from __future__ import annotations

import json

import numpy as np
import pytest

from seq2exp.cohort.report_table import (
    BenchmarkData,
    BenchmarkPlan,
    benchmark_split,
    nested_donors,
    tertiles,
)
from seq2exp.core.errors import InputError
from seq2exp.training.metrics import pearson, r2, spearman

GENES, DONORS = 24, 40
PLAN = BenchmarkPlan(num_resamples=100, num_permutations=50)


def data_of(**changes):
    random = np.random.default_rng(0)
    level = random.normal(3, 2, size=(GENES, 1))
    observed = random.normal(size=(GENES, DONORS))
    predictions = {
        "model": 0.8 * observed + random.normal(size=observed.shape),
        "enet": 0.3 * observed + random.normal(size=observed.shape),
        "mean": np.zeros(observed.shape),
    }
    values = {
        "genes": [f"g{k}" for k in range(GENES)],
        "donors": [f"d{k}" for k in range(DONORS)],
        "corrected_GD": observed,
        "predictions": predictions,
        "raw_GD": level + 0.2 * observed,
        "across_genes": {"model": level + random.normal(size=(GENES, 1))},
        "h2_G": np.linspace(-0.05, 0.6, GENES),
        "h2_se_G": np.full(GENES, 0.05),
        "strata": {"h2": tertiles(np.linspace(-0.05, 0.6, GENES))},
        "populations_D": ["EUR"] * 25 + ["YRI"] * 15,
    }
    return BenchmarkData(**(values | changes))


def scored(data=None, cells=None, plan=PLAN, split="A"):
    data = data or data_of()
    cells = np.ones((GENES, DONORS), bool) if cells is None else cells
    rows, table = benchmark_split(data, cells, split=split, plan=plan)
    return {(row["name"], row["metric"], row["stratum"]): row for row in rows}, table, rows


def test_rows_have_the_keys_every_command_writes_and_fit_into_json():
    found, _, rows = scored()
    assert len(found) == len(rows), "each row once"
    assert all(
        set(row) == {"name", "metric", "split", "value", "low", "high", "n", "stratum"}
        for row in rows
    )
    json.dumps(rows, allow_nan=False)
    for row in rows:
        if row["low"] is not None and not row["metric"].startswith("null"):
            # Ranks change in resamples, so the interval of Spearman across genes may lie beside.
            slack = 0.05 if "across_genes" in row["metric"] else 1e-9
            assert row["low"] - slack <= row["value"] <= row["high"] + slack, row


def test_values_are_those_of_the_genes():
    data = data_of()
    found, table, _ = scored(data)
    r = {
        name: [pearson(y, x) for y, x in zip(data.corrected_GD, guess, strict=True)]
        for name, guess in data.predictions.items()
    }
    assert found["model", "pearson_mean", None]["value"] == pytest.approx(np.mean(r["model"]))
    assert found["mean", "pearson_mean", None]["value"] == 0
    assert found["mean", "pearson_num_undefined", None]["value"] == GENES
    difference = found["enet", "pearson_difference", None]
    assert difference["value"] == pytest.approx(np.mean(r["model"]) - np.mean(r["enet"]))
    assert difference["low"] > 0
    assert ("model", "pearson_difference", None) not in found
    share = np.sign(r["model"]) * np.square(r["model"])
    assert found["model", "fraction_of_h2", None]["value"] == pytest.approx(
        share.sum() / np.sum(data.h2_G)
    )
    ours = table[table["name"] == "model"]
    np.testing.assert_allclose(ours["pearson"], r["model"])
    sure = np.asarray(data.h2_G) > 0.1
    assert (ours["fraction_of_h2"].notna() == sure).all()
    assert len(table) == 3 * GENES
    assert {"gene", "name", "split", "permutation_p", "h2", "h2_se", "num_missing"} <= set(table)


def test_null_and_model_are_told_apart():
    found, _, _ = scored()
    null = found["model", "null_pearson_mean", None]
    assert null["low"] < 0 < null["high"] < found["model", "pearson_mean", None]["low"]
    assert found["model", "null_pearson_mean_p", None]["value"] == pytest.approx(1 / 51)
    assert found["model", "null_pearson_mean_abs", None]["value"] > 0.1
    without, _, _ = scored(plan=BenchmarkPlan(num_resamples=10, num_permutations=0))
    assert not [key for key in without if key[1].startswith("null")]


def test_strata_are_scored_on_their_genes_and_populations_on_their_donors():
    data = data_of()
    found, table, _ = scored(data)
    ours = table[table["name"] == "model"].reset_index()
    low = np.array(data.strata["h2"]) == "low"
    row = found["model", "pearson_mean", "h2:low"]
    assert row["value"] == pytest.approx(ours["pearson"][low].mean())
    assert row["n"] == low.sum() == 8
    guess = data.predictions["model"]
    eur = [pearson(y[:25], x[:25]) for y, x in zip(data.corrected_GD, guess, strict=True)]
    assert found["model", "pearson_mean", "population:EUR"]["value"] == pytest.approx(np.mean(eur))
    assert ("enet", "pearson_difference", "h2:high") in found
    few = data_of(strata={"odd": ["x"] * 3 + [None] * (GENES - 3)})
    assert not [key for key in scored(few)[0] if str(key[2]).startswith("odd")]


def test_across_genes_uses_raw_expression_and_the_reference_prediction():
    data = data_of()
    found, _, _ = scored(data)
    mean, guess = np.mean(data.raw_GD, axis=1), data.across_genes["model"][:, 0]
    for metric, function in (("pearson", pearson), ("spearman", spearman), ("r2", r2)):
        row = found["model", f"across_genes_{metric}_mean", None]
        assert row["value"] == pytest.approx(function(mean, guess))
    within = [pearson(y, guess) for y in data.raw_GD.T]
    row = found["model", "across_genes_within_donor_pearson", None]
    assert row["value"] == pytest.approx(np.mean(within))
    assert row["low"] < row["value"] < row["high"]
    ranks = [spearman(y, guess) for y in data.raw_GD.T]
    row = found["model", "across_genes_within_donor_spearman", None]
    assert row["value"] == pytest.approx(np.mean(ranks))
    assert ("enet", "across_genes_pearson_mean", None) not in found
    both, _, _ = scored(data_of(across_genes=None))
    assert ("enet", "across_genes_pearson_mean", None) in both
    assert not [k for k in scored(data_of(raw_GD=None))[0] if k[1].startswith("across_genes")]


def test_only_the_cells_of_the_split_count():
    data = data_of()
    cells = np.zeros((GENES, DONORS), bool)
    cells[:10, 5:30] = True
    found, table, _ = scored(data, cells, split="B")
    changed = {k: np.where(cells, v, 99.0) for k, v in data.predictions.items()}
    other = data_of(predictions=changed, corrected_GD=np.where(cells, data.corrected_GD, -7))
    again, _, _ = scored(other, cells, split="B")
    keep = [k for k in found if not k[1].startswith("across_genes")]
    assert [found[k] for k in keep] == [again[k] for k in keep]
    assert table["gene"].nunique() == 10
    assert set(table["n"]) == {25}
    assert {row["split"] for row in found.values()} == {"B"}


def test_groups_and_seed_decide_the_resamples():
    one, two = scored()[2], scored()[2]
    assert one == two, "the same numbers twice"
    grouped, _, _ = scored(data_of(groups_G=[k // 6 for k in range(GENES)]))
    row, other = scored()[0]["model", "pearson_mean", None], grouped["model", "pearson_mean", None]
    assert row["value"] == other["value"]
    assert (row["low"], row["high"]) != (other["low"], other["high"])


def test_wrong_shapes_and_empty_splits_are_refused():
    with pytest.raises(InputError, match=r"enet \(24, 39\)"):
        scored(data_of(predictions={"enet": np.zeros((GENES, DONORS - 1))}))
    with pytest.raises(InputError, match="no gene with a test donor"):
        scored(cells=np.zeros((GENES, DONORS), bool))
    with pytest.raises(InputError, match="no predictions"):
        scored(data_of(predictions={}))


def test_one_gene_one_donor_has_defined_rows():
    data = BenchmarkData(
        genes=["g"], donors=["d"], corrected_GD=[[1.0]], predictions={"model": [[2.0]]},
        raw_GD=[[1.0]],
    )  # fmt: skip
    rows, table = benchmark_split(data, [[True]], split="A", plan=PLAN)
    assert table["status"].tolist() == ["too_few_donors"]
    values = {row["metric"]: row["value"] for row in rows}
    assert values["pearson_mean"] is None
    assert values["pearson_num_unscorable"] == 1
    json.dumps(rows, allow_nan=False)


def test_tertiles_are_thirds_by_rank():
    assert tertiles([5, 1, 3, np.nan, 2, 4, 6]) == [
        "high", "low", "middle", "", "low", "middle", "high",
    ]  # fmt: skip
    assert tertiles([7, 7, 7]) == ["middle"] * 3
    assert tertiles([np.nan]) == [""]


def test_learning_curves_are_nested():
    donors = [f"d{k}" for k in range(50)]
    found = nested_donors(donors, [1.0, 0.2, 0.6], seed=3)
    assert [len(part) for part in found.values()] == [10, 30, 50]
    assert set(found[0.2]) < set(found[0.6]) < set(found[1.0]) == set(donors)
    assert found == nested_donors(donors, [0.2, 0.6, 1.0], seed=3)
    with pytest.raises(InputError, match="at most 1"):
        nested_donors(donors, [1.5], seed=0)
