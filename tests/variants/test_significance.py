"""Columns of p, q and quantile in tables that come in parts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from seq2exp.interpret.enrichment import benjamini_hochberg
from seq2exp.variants.background import BackgroundBuilder
from seq2exp.variants.choice import columns_of
from seq2exp.variants.nulls import p_right, p_two_sided
from seq2exp.variants.scorers import SCORERS
from seq2exp.variants.significance import QCounts, p_columns, quantile_columns
from seq2exp.variants.units import LabelUnit

COLUMNS = columns_of([SCORERS["expr_delta"], SCORERS["mask_max"]], ["K562"], label=LabelUnit("TPM"),
                     with_sd=True, with_p=True, with_quantile=True)  # fmt: skip
NAMES = ["expr_delta:K562", "mask_max"]


def scored(num: int = 400) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    random = np.random.default_rng(0)
    score, draws = random.normal(size=(num, 2)), random.normal(size=(num, 19, 2))
    score[:, 1], draws[..., 1] = np.abs(score[:, 1]), np.abs(draws[..., 1])
    score[5, 0] = np.nan
    table = pd.DataFrame(score.astype(np.float32), columns=NAMES)
    table["variant_type"], table["distance_to_tss"] = "snv", pd.array([10] * num, dtype="Int64")
    return score, draws, table


def test_signed_scores_are_two_sided_and_others_take_the_right_tail():
    score, draws, _ = scored()
    found = p_columns(COLUMNS, score, draws)
    assert list(found) == ["expr_delta:K562:p", "mask_max:p"]
    expected = [p_two_sided(score[:, 0], draws[..., 0]), p_right(score[:, 1], draws[..., 1])]
    for values, wanted in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(values, wanted, rtol=1e-6)
        assert values.dtype == np.float32
    assert np.isnan(found["expr_delta:K562:p"][5])


def test_q_values_of_parts_are_those_of_the_whole_table():
    score, draws, table = scored()
    table = table.assign(**p_columns(COLUMNS, score, draws))
    counts = QCounts(COLUMNS)
    parts = [table.iloc[:150], table.iloc[150:]]
    for part in reversed(parts):
        counts.add(part)
    for name in NAMES:
        found = np.concatenate([counts.columns(part)[f"{name}:q"] for part in parts])
        expected = benjamini_hochberg(table[f"{name}:p"].to_numpy(np.float64))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_quantiles_stand_beside_their_scores():
    _, _, table = scored()
    builder = BackgroundBuilder(COLUMNS, model_hash="m")
    builder.add(table.assign(chrom="1", norm_position=np.arange(400), norm_ref="A", norm_alt="G",
                             gene_id="g"))  # fmt: skip
    found = quantile_columns(COLUMNS, table, builder.build())
    assert list(found) == [column.name for column in COLUMNS if column.kind == "quantile"]
    signed, plain = found["expr_delta:K562:signed_quantile"], found["expr_delta:K562:quantile"]
    known = table["expr_delta:K562"].notna().to_numpy()
    np.testing.assert_allclose(np.sort(plain[known]), (np.arange(399) + 0.5) / 399, atol=1e-6)
    order = np.argsort(table.loc[known, "expr_delta:K562"])
    assert (np.diff(signed[known][order]) > 0).all()
    assert (signed[known].min(), signed[known].max()) == (
        np.float32(1 / 399 - 1),
        np.float32(1 - 1 / 399),
    )
    assert np.isnan(plain[5])
