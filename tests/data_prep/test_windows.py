"""Splits, excluded regions and the leakage check."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.config import RegionConfig, SplitConfig
from data_prep.windows import (
    Region,
    assign_splits,
    excluded_regions,
    leaking_pairs,
    mark_excluded,
    parse_region,
)
from seq2exp.core.errors import ConfigError, InputError

SIZES = {"chr1": 1000, "chr2": 500}


def genes(*places, status="ok"):
    rows = [(f"g{i}", contig, tss, "+", status) for i, (contig, tss) in enumerate(places)]
    return pd.DataFrame(rows, columns=["gene_id", "contig", "tss", "strand", "status"])


def test_regions_are_half_open_and_names_may_be_aliases():
    assert parse_region("chr1", SIZES, what="x") == Region("chr1", 0, 1000)
    assert parse_region("1:1,00-200", SIZES, what="x") == Region("chr1", 100, 200)
    assert parse_region("a:b", {"a:b": 7}, what="x") == Region("a:b", 0, 7)


@pytest.mark.parametrize("text", ["chr9", "chr1:5-5", "chr1:9-5", "chr1:0-1001", "chr1:x-y"])
def test_impossible_regions_are_refused(text):
    with pytest.raises(ConfigError, match=r"splits\.test"):
        parse_region(text, SIZES, what="splits.test")


def test_split_by_contig():
    placed = assign_splits(genes(("chr1", 5), ("chr2", 5)), SplitConfig(test=["2"]), SIZES)
    assert placed["split"].tolist() == ["train", "test"]


def test_region_borders_belong_to_the_base():
    """[400, 600) holds 400 and 599, not 399 and 600."""
    config = SplitConfig(test=["chr1:400-600"])
    placed = assign_splits(genes(*(("chr1", tss) for tss in (399, 400, 599, 600))), config, SIZES)
    assert placed["split"].tolist() == ["train", "test", "test", "train"]


def test_buffer_excludes_on_both_sides_of_a_border():
    """Buffer 50: train needs TSS <= 349 or >= 650, test 450 <= TSS <= 549."""
    config = SplitConfig(test=["chr1:400-600"], buffer_bp=50)
    places = (349, 350, 449, 450, 549, 550, 649, 650)
    placed = assign_splits(genes(*(("chr1", tss) for tss in places)), config, SIZES)
    expected = ["train", "excluded", "excluded", "test", "test", "excluded", "excluded", "train"]
    assert placed["split"].tolist() == expected
    assert set(placed.loc[placed["split"] == "excluded", "status"]) == {
        "in the buffer between splits"
    }


def test_named_training_regions_leave_the_rest_out():
    config = SplitConfig(train=["chr1:0-100"], valid=["chr2"])
    placed = assign_splits(genes(("chr1", 50), ("chr1", 500), ("chr2", 1)), config, SIZES)
    assert placed["split"].tolist() == ["train", "excluded", "valid"]
    assert placed["status"].tolist() == ["ok", "in no split", "ok"]


def test_genes_with_a_status_are_kept_but_excluded():
    placed = assign_splits(
        pd.concat([genes(("chr1", 5)), genes(("chr1", 9), status="bad")]), SplitConfig(), SIZES
    )
    assert placed["split"].tolist() == ["train", "excluded"]
    assert placed["status"].tolist() == ["ok", "bad"]


def test_overlapping_and_empty_splits_are_refused():
    with pytest.raises(ConfigError, match="overlap on chr1"):
        config = SplitConfig(valid=["chr1:0-300"], test=["chr1:200-400"])
        assign_splits(genes(("chr1", 5)), config, SIZES)
    with pytest.raises(ConfigError, match=r"splits\.test: found no gene"):
        assign_splits(genes(("chr1", 5)), SplitConfig(test=["chr2"]), SIZES)


@settings(deadline=None, max_examples=50)
@given(
    tss=st.lists(st.integers(0, 999), min_size=3, max_size=40),
    border=st.tuples(st.integers(1, 500), st.integers(501, 999)),
    buffer=st.integers(0, 120),
)
def test_windows_of_twice_the_buffer_never_leak(tss, border, buffer):
    config = SplitConfig(test=[f"chr1:{border[0]}-{border[1]}"], buffer_bp=buffer)
    try:
        placed = assign_splits(genes(*(("chr1", t) for t in tss)), config, SIZES)
    except ConfigError:
        return  # a split lost all its genes
    assert len(leaking_pairs(placed, window_bp=max(2 * buffer, 1))) == 0


def test_leaks_are_measured_between_the_nearest_genes():
    frame = genes(("chr1", 100), ("chr1", 110), ("chr1", 150), ("chr2", 100))
    frame["split"] = ["train", "train", "test", "test"]
    leaks = leaking_pairs(frame, window_bp=64)
    assert leaks.to_dict("records") == [
        {
            "gene_id": "g2",
            "split": "test",
            "other_id": "g1",
            "other_split": "train",
            "overlap_bp": 24,
        }
    ]
    assert leaking_pairs(frame, window_bp=40).empty  # 150 - 110: they touch, they do not overlap
    frame["split"] = ["train", "excluded", "test", "test"]
    assert leaking_pairs(frame, window_bp=50).empty


def test_leak_past_a_gene_of_the_same_split_is_seen():
    """The nearest train gene before g2 is g0, although g1 (test) stands between them."""
    frame = genes(("chr1", 100), ("chr1", 110), ("chr1", 120))
    frame["split"] = ["train", "test", "test"]
    assert leaking_pairs(frame, window_bp=30)["gene_id"].tolist() == ["g1", "g2"]


def test_a_gene_in_two_splits_leaks():
    frame = genes(("chr1", 1), ("chr2", 1))
    frame["gene_id"] = "g"
    frame["split"] = ["train", "test"]
    assert len(leaking_pairs(frame, window_bp=1)) == 1


def test_excluded_regions_keep_their_reasons(tmp_path):
    (tmp_path / "bad.bed").write_text("1\t10\t20\n1\t15\t30\n9\t1\t2\n")
    (tmp_path / "real.bed").write_text("chr1\t0\t900\nchr2\t100\t500\n")
    config = RegionConfig(exclude=["bad.bed", "chr2:200-300"], include="real.bed")
    frame = excluded_regions(config, tmp_path, SIZES)
    assert frame.to_numpy().tolist() == [
        ["chr1", 10, 30, "bad.bed"],
        ["chr1", 900, 1000, "not included"],
        ["chr2", 0, 100, "not included"],
        ["chr2", 200, 300, "chr2:200-300"],
    ]


def test_genes_are_marked_by_the_base_of_their_tss():
    frame = pd.DataFrame(
        {"contig": ["chr1", "chr1"], "start": [10, 15], "end": [20, 30], "reason": ["a", "b"]}
    )
    places = (("chr1", 9), ("chr1", 10), ("chr1", 16), ("chr1", 29), ("chr1", 30), ("chr2", 10))
    marked = mark_excluded(genes(*places), frame)
    assert marked["status"].tolist() == [
        "ok",
        "excluded: a",
        "excluded: a",
        "excluded: b",
        "ok",
        "ok",
    ]


def test_bed_of_another_assembly_is_refused(tmp_path):
    (tmp_path / "x.bed").write_text("chr1\t10\t2000\n")
    with pytest.raises(InputError, match="ends at 2000"):
        excluded_regions(RegionConfig(exclude=["x.bed"]), tmp_path, SIZES)
    (tmp_path / "y.bed").write_text("chrUn\t10\t20\n")
    with pytest.raises(InputError, match=r"y\.bed"):
        excluded_regions(RegionConfig(exclude=["y.bed"]), tmp_path, SIZES)


def test_missing_bed_is_not_taken_for_a_contig(tmp_path):
    with pytest.raises(InputError, match=r"missing\.bed.*no such file"):
        excluded_regions(RegionConfig(exclude=["missing.bed"]), tmp_path, SIZES)
