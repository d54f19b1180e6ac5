"""The place of scores among those of common variants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from seq2exp.core.errors import ConfigError, FormatError, InputError
from seq2exp.variants.background import BANDS, Background, BackgroundBuilder
from seq2exp.variants.choice import columns_of
from seq2exp.variants.command import score_hash
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.scorers import SCORERS
from seq2exp.variants.units import LabelUnit

COLUMNS = columns_of(
    [SCORERS["expr_delta"], SCORERS["mask_max"]], ["K562"], label=LabelUnit(), with_sd=True
)
MODEL = "a" * 64


def test_a_background_is_told_apart_by_all_that_makes_a_score():
    usual = ScoreConfig(shifts=(0,))
    carried = replace(usual, context="carriers")
    known = [score_hash("a", usual), score_hash("b", usual), score_hash("a", carried)]
    for name, value in (("method", "gradient"), ("ensemble", "score"), ("strands", "both"),
                        ("shifts", (0, 4)), ("mask_bp", 2001)):  # fmt: skip
        known.append(score_hash("a", replace(usual, **{name: value})))
    for name, value in (
        ("carriers", ("x",)),
        ("max_carriers", 3),
        ("phase", "random"),
        ("seed", 4),
    ):
        known.append(score_hash("a", replace(carried, **{name: value})))
        # Without carriers they decide nothing.
        assert score_hash("a", replace(usual, **{name: value})) == known[0]
    assert len(set(known)) == len(known)
    same = replace(usual, batch_size=2, scorers=("sed",), ref_policy="strict", null_draws=9)
    assert score_hash("a", same) == known[0]


def common(num: int, *, seed: int = 0, genes: int = 3) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    kinds = np.array(["snv", "snv", "snv", "mnv", "ins", "del", "delins", "symbolic"])
    distance = pd.array((10 ** random.uniform(0, 5.3, num)).astype(int), dtype="Int64")
    distance = distance * random.choice([-1, 1], num)
    distance[random.random(num) < 0.03] = pd.NA
    frame = pd.DataFrame(
        {
            "chrom": "chr1",
            "norm_position": random.permutation(10 * num)[:num],
            "norm_ref": "A",
            "norm_alt": "G",
            "gene_id": [f"g{i}" for i in random.integers(0, genes, num)],
            "variant_type": random.choice(kinds, num),
            "distance_to_tss": distance,
            "expr_delta:K562": random.normal(size=num).astype(np.float32),
            "mask_max": random.random(num).astype(np.float32),
        }
    )
    frame.loc[random.random(num) < 0.05, "mask_max"] = np.nan
    return frame


def built(*parts: pd.DataFrame, capacity: int = 10_000, seed: int = 0) -> Background:
    builder = BackgroundBuilder(COLUMNS, model_hash=MODEL, capacity=capacity, seed=seed)
    for part in parts:
        builder.add(part)
    return builder.build()


def same(first: Background, second: Background) -> bool:
    return list(first.cells) == list(second.cells) and all(
        np.array_equal(first.cells[cell], second.cells[cell], equal_nan=True)
        for cell in first.cells
    )


@pytest.mark.parametrize("signed", [False, True])
def test_quantiles_are_counted_among_pairs_of_the_same_class_and_band(signed):
    table = common(6_000)
    background = built(table)
    name, kind, far = "expr_delta:K562", "snv", 3_000
    size = table["distance_to_tss"].abs()
    match = table["variant_type"].isin(["snv", "mnv"]) & (size >= 1_000) & (size < 5_000)
    known = table.loc[match.fillna(value=False).astype(bool), name].to_numpy()
    assert known.size > 100
    scores = [-1.5, 0.0, float(known[7]), 9.0]
    found = background.quantiles(
        name, scores, variant_type=[kind] * 4, distance=[far, -far, far, far], signed=signed
    )
    for score, value in zip(scores, found, strict=True):
        known_, score_ = (known, score) if signed else (np.abs(known), abs(score))
        share = ((known_ < score_).sum() + (known_ == score_).sum() / 2) / known.size
        assert value == pytest.approx(2 * share - 1 if signed else share)
    assert found[-1] == 1


def test_the_lower_end_of_a_band_belongs_to_it():
    """Near ones score 1, those of 1,000 bases and more 2, as do those before the TSS."""
    table = common(600)
    table["variant_type"], table["mask_max"] = "snv", np.float32(0)
    away = np.repeat([0, 999, 1_000, 4_999, 5_000, 19_999], 100)
    table["distance_to_tss"] = np.where(np.arange(600) % 2, -away, away)
    table["expr_delta:K562"] = np.select([away < 1_000, away < 5_000], [1, 2], 3).astype("float32")
    at = [0, -999, 1_000, -1_000, 4_999, 5_000, -19_999]
    found = built(table).quantiles("expr_delta:K562", [2.0] * 7, variant_type=["snv"] * 7,
                                   distance=at)  # fmt: skip
    assert found.tolist() == [1, 1, 0.5, 0.5, 0.5, 0, 0]


def test_a_score_read_from_text_ties_with_itself():
    """0.1 is not the number that tables keep: in 32 bits it is larger."""
    assert float(np.float32(0.1)) > 0.1
    table = common(200)
    table["variant_type"], table["distance_to_tss"] = "snv", 10
    table["expr_delta:K562"] = np.float32(0.1)
    found = built(table).quantiles("expr_delta:K562", [0.1], variant_type=["snv"], distance=[10])
    assert found.tolist() == [0.5]


def test_too_few_pairs_of_a_band_or_class_are_filled_with_wider_ones():
    table = common(3_000)
    table["distance_to_tss"] = 10
    table["variant_type"] = "snv"
    table.loc[:49, "variant_type"] = "ins"
    background = built(table)
    score, every = 0.3, np.abs(table["expr_delta:K562"].to_numpy())
    snv = every[50:]
    found = background.quantiles("expr_delta:K562", [score] * 3, variant_type=["snv", "snv", "del"],
                                 distance=[10, 10**6, 10])  # fmt: skip
    expected = [(snv < score).mean(), (snv < score).mean(), (every < score).mean()]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_what_has_no_score_class_or_enough_to_compare_with_has_no_quantile():
    table = common(3_000)
    table.loc[40:, "mask_max"] = np.nan
    background = built(table)
    found = background.quantiles("expr_delta:K562", [np.nan, 0.1, 0.1], distance=[1, 1, None],
                                 variant_type=["snv", "symbolic", "snv"])  # fmt: skip
    assert np.isnan(found[:2]).all()
    # Without a distance: all of its class.
    assert 0 < found[2] < 1
    assert np.isnan(background.quantiles("mask_max", [0.1], variant_type=["snv"], distance=[1]))
    with pytest.raises(InputError, match="no scores sed"):
        background.quantiles("sed", [0.1], variant_type=["snv"], distance=[1])


def test_order_shards_and_repeats_do_not_matter():
    table = common(3_000)
    shuffled = table.sample(frac=1, random_state=3)
    parts = np.array_split(np.arange(3_000), 7)
    whole = built(table, capacity=150)
    assert same(whole, built(*(shuffled.iloc[part] for part in parts), shuffled, capacity=150))
    assert not same(whole, built(table, capacity=150, seed=1))
    assert max(len(values) for values in whole.cells.values()) == 150


def test_a_sample_stands_for_all():
    table = common(40_000)
    few, all_ = built(table, capacity=2_000), built(table, capacity=50_000)
    scores = np.linspace(0, 2.5, 9)
    at = {"variant_type": ["snv"] * 9, "distance": [10_000] * 9}
    name = "expr_delta:K562"
    # Four standard errors of a share of 2,000.
    np.testing.assert_allclose(
        few.quantiles(name, scores, **at), all_.quantiles(name, scores, **at), atol=0.045
    )
    assert few.num_pairs < all_.num_pairs


def test_it_is_read_as_it_was_written_by_its_own_model_only(tmp_path):
    table = common(3_000)
    background = built(table)
    path = tmp_path / "background.parquet"
    background.save(path)
    again = Background.load(path, model_hash=MODEL)
    assert same(background, again)
    assert again.names == ["expr_delta:K562", "mask_max"]
    before = path.read_bytes()
    background.save(path, overwrite=True)
    assert path.read_bytes() == before
    with pytest.raises(
        InputError, match=r"another model, or made in another way \(aaaaaaaaaaaa\).*--shifts.*\(bbb"
    ):
        Background.load(path, model_hash="b" * 64)
    with pytest.raises(InputError, match="no such file"):
        Background.load(tmp_path / "other", model_hash=MODEL)
    table.to_parquet(tmp_path / "table.parquet")
    with pytest.raises(FormatError, match=r"another Parquet file.*`seq2exp variants background`"):
        Background.load(tmp_path / "table.parquet", model_hash=MODEL)
    (tmp_path / "in.vcf").write_text("##fileformat=VCFv4.2")
    with pytest.raises(FormatError, match=r"a file that is no Parquet"):
        Background.load(tmp_path / "in.vcf", model_hash=MODEL)
    data = bytearray(before)
    for place in (None, 200, len(data) // 2):
        broken = data.copy()
        if place is None:
            broken = broken[: len(data) // 2]
        else:
            broken[place : place + 8] = bytes(255 - byte for byte in broken[place : place + 8])
        path.write_bytes(broken)
        with pytest.raises(FormatError, match="make it with `seq2exp variants background`"):
            Background.load(path, model_hash=MODEL)
    common(10).to_parquet(path)
    with pytest.raises(FormatError, match="seq2exp background of variant scores"):
        Background.load(path, model_hash=MODEL)


def test_tables_come_in_parts_and_must_have_all_scores():
    table = common(2_000)
    builder = BackgroundBuilder(COLUMNS, model_hash=MODEL)
    for first in range(0, 2_000, 300):
        builder.add(table.iloc[first : first + 300])
    assert same(builder.build(), built(table))
    with pytest.raises(InputError, match="no column mask_max"):
        builder.add(table.drop(columns="mask_max"))


def test_a_background_of_nothing_is_refused():
    with pytest.raises(InputError, match="0 scored pairs"):
        built(common(3_000).assign(variant_type="symbolic"))
    with pytest.raises(InputError, match="score more common variants"):
        built(common(80))
    with pytest.raises(ConfigError, match="10 pairs of 2 scores"):
        built(common(10), capacity=10)
    assert BANDS[0] == 0
