"""Parts of scores: checked when written, whole when read, merged in order."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from seq2exp.core.errors import FormatError, InputError
from seq2exp.variants.merge import (
    Parts,
    discard_partial,
    merge,
    publish,
    publishable,
    require_all,
    summarise,
)
from seq2exp.variants.parts import PartStore, add_counts, check_part, count_statuses
from tests.variants import scale_fakes as fakes


@pytest.fixture
def source(tmp_path):
    return fakes.write_source(tmp_path / "in.txt")


@pytest.fixture
def store(tmp_path):
    (tmp_path / "work" / "parts").mkdir(parents=True)
    return PartStore(tmp_path / "work", "0123456789abcdef")


def fill(store, source):
    infos = []
    for number, shard in enumerate(source.shards):
        alleles = source.read(shard)
        infos.append(store.write(number, alleles, fakes.score(alleles), shard=shard))
    return infos


def both(source, number=0):
    shard = source.shards[number]
    alleles = source.read(shard)
    return alleles, fakes.score(alleles), shard


# What a part must hold --------------------------------------------------------------------------


def test_the_fake_scores_keep_the_contract(source):
    for number in range(len(source.shards)):
        alleles, scores, shard = both(source, number)
        check_part(alleles, scores, shard=shard)


def drop_allele(scores):
    return scores[scores["record"] != scores["record"].iloc[-1]]


def foreign(scores):
    return pd.concat([scores, scores.tail(1).assign(record=10_000)])


def other_allele(scores):
    return pd.concat([scores, scores.tail(1).assign(allele=np.int32(9))])


def backwards(scores):
    return scores.iloc[::-1]


def far_gene_first(scores):
    worse = scores.copy()
    down = pd.Series(np.arange(-len(worse), 0), index=worse.index, dtype="Int64")
    worse["distance_to_tss"] = down.mask(worse["distance_to_tss"].isna())
    return worse


def twice(scores):
    at = int(np.flatnonzero(scores["gene_row"] >= 0)[0])
    return scores.iloc[np.sort([*range(len(scores)), at])]


def beside_none(scores):
    at = int(np.flatnonzero(scores["gene_row"] < 0)[0])
    return scores.iloc[np.sort([*range(len(scores)), at])]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(drop_allele, "1 alleles without scores and 0 scored that are none.*record 6 allele 1"),
     (foreign, "0 alleles without scores and 1 scored.*record 10000"),
     (other_allele, "allele 9"), (backwards, "out of order"), (far_gene_first, "out of order"),
     (twice, "several rows"), (beside_none, "several rows")],
)  # fmt: skip
def test_scores_that_are_not_those_of_the_shard_are_refused(source, store, spoil, words):
    alleles, scores, shard = both(source)
    with pytest.raises(RuntimeError, match=rf"(?s)shard of 7 records from number 1.*{words}"):
        store.write(0, alleles, spoil(scores), shard=shard)
    assert list(store.folder.rglob("*.*")) == []


def test_alleles_that_are_not_those_of_the_shard_are_refused(source):
    alleles, scores, shard = both(source)
    for wrong in (alleles[alleles["record"] != 3], alleles.assign(record=alleles["record"] + 1)):
        with pytest.raises(RuntimeError, match="expected those of all, and no others"):
            check_part(wrong, scores, shard=shard)
    doubled = alleles.iloc[[0, *range(len(alleles))]]
    with pytest.raises(RuntimeError, match="alleles twice"):
        check_part(doubled, scores, shard=shard)


def test_ten_million_records_do_not_overflow_the_check():
    class Far:
        first_record, num_records = 2**31 + 5, 2

    alleles = pd.DataFrame({"record": [2**31 + 5, 2**31 + 6], "allele": [2, 1]})
    scores = alleles.assign(gene_row=-1)
    check_part(alleles, scores, shard=Far)
    with pytest.raises(RuntimeError, match=f"record {2**31 + 6} allele 1"):
        check_part(alleles, scores.head(1), shard=Far)


# Written and read -------------------------------------------------------------------------------


def test_a_part_comes_back_as_it_was(source, store):
    alleles, scores, shard = both(source, 2)
    info = store.write(2, alleles, scores, shard=shard)
    assert (info.number, info.first_record, info.num_records) == (2, 14, 7)
    assert (info.num_alleles, info.num_rows) == (len(alleles), len(scores))
    again, back = store.read(2, shard)
    assert again == info == store.find(2, shard)
    pd.testing.assert_frame_equal(back, scores, check_dtype=False)
    assert back["expr_delta:K562"].dtype == np.float32
    assert back["expr_delta:K562"].isna().sum() == (scores["gene_row"] < 0).sum() > 0


def test_types_do_not_depend_on_what_is_missing(source, store):
    """A shard without a gene has no distance, no symbol and no value to tell their types by."""
    for number, empty in ((0, False), (1, True)):
        alleles, scores, shard = both(source, number)
        if empty:
            scores = alleles[["record", "allele"]].assign(
                gene_row=-1, symbol=None, distance_to_tss=np.nan, status="no_gene",
                score_status="skipped:no_gene", in_element=None,
            )  # fmt: skip
            scores["expr_delta:K562"] = np.full(len(alleles), np.nan, np.float32)
        store.write(number, alleles, scores, shard=shard)
    schemas = [pq.read_schema(store.path(number)).remove_metadata() for number in (0, 1)]
    assert schemas[0] == schemas[1]


def test_every_damage_makes_a_part_missing(source, store):
    """Cut anywhere, any byte flipped, emptied, without its checksum: never read as scores."""
    alleles, scores, shard = both(source)
    store.write(0, alleles, scores, shard=shard)
    path, beside = store.path(0), store.path(0).with_name("part_000000.parquet.json")
    whole, text = path.read_bytes(), beside.read_bytes()
    damaged = [b"", whole[:-1], whole[: len(whole) // 2], whole + b"x"]
    flipped = range(0, len(whole), 97)
    damaged += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in flipped]
    for content in damaged:
        path.write_bytes(content)
        assert store.find(0, shard) is None
        with pytest.raises(FormatError, match=r"part_000000.*found no whole part.*run the same"):
            store.read(0, shard)
    path.write_bytes(whole)
    for content in (b"", b"{}", text.replace(b"sha256", b"sha257"), text[:-10]):
        beside.write_bytes(content)
        assert store.find(0, shard) is None
    beside.write_bytes(text)
    assert store.find(0, shard) is not None


def test_a_whole_part_of_other_work_does_not_count(source, store):
    alleles, scores, shard = both(source)
    store.write(0, alleles, scores, shard=shard)
    assert PartStore(store.folder, "f" * 16).find(0, shard) is None
    for suffix in ("", ".json"):  # the same file under the name of another shard
        shutil.copy(f"{store.path(0)}{suffix}", f"{store.path(1)}{suffix}")
    assert store.find(1, source.shards[1]) is None
    cut = fakes.FileShard(0, 6, 0)
    assert store.find(0, cut) is None
    pq.write_table(pq.read_table(store.path(0)).replace_schema_metadata(None), store.path(2))
    from seq2exp.core.shards import finish_shard

    finish_shard(store.path(2), store.path(2), {})
    assert store.find(2, source.shards[2]) is None


def test_counts_of_parts_add_up(source, store):
    infos = fill(store, source)
    alleles = pd.concat([source.read(shard) for shard in source.shards])
    scores = fakes.score(alleles.reset_index(drop=True))
    total = summarise(infos)
    assert total["num_records"] == fakes.NUM_RECORDS
    assert total["num_alleles"] == len(alleles) == total["counts"]["alleles"]["all"]
    assert total["num_rows"] == len(scores) == sum(total["counts"]["status"].values())
    assert total["counts"] == count_statuses(alleles, scores)
    assert total["counts"]["ref_status"] == {"ok": 54, "mismatch": 6}
    assert total["counts"]["alleles"]["scored"] == 32
    added = {}
    add_counts(added, {"a": {"x": 1}})
    add_counts(added, {"a": {"x": 2, "y": 3}})
    assert added == {"a": {"x": 3, "y": 3}}


# Merged -----------------------------------------------------------------------------------------


@pytest.fixture
def outputs(tmp_path):
    return [tmp_path / "out.vcf", tmp_path / "out.parquet"]


def test_parts_are_merged_in_order_and_appear_together(source, store, outputs):
    infos = fill(store, source)
    assert publishable(store, outputs) is None
    merge(store, source.shards, infos, outputs, fakes.write)
    assert not any(path.exists() for path in outputs)
    assert publishable(store, outputs) == summarise(infos)
    publish(store, overwrite=False)
    table = pd.read_parquet(outputs[1])
    assert table["record"].is_monotonic_increasing
    assert table["record"].nunique() == fakes.NUM_RECORDS
    assert len(outputs[0].read_text().splitlines()) == len(table) == summarise(infos)["num_rows"]
    assert outputs[0].with_name("out.vcf.tbi").exists()


def test_missing_parts_are_named(source, store):
    fill(store, source)
    store.path(3).unlink()
    store.path(5).write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"6 of 8 parts.*2 in all.*part_000003.*part_000005"):
        require_all(store, source.shards)


def test_a_part_that_changes_during_the_merge_stops_it(source, store, outputs):
    infos = fill(store, source)
    parts = Parts(store, source.shards, infos)
    next(parts)
    store.path(1).write_bytes(store.path(2).read_bytes())
    with pytest.raises(FormatError, match="part_000001"):
        next(parts)


def test_a_part_with_other_counts_or_columns_is_refused(source, store):
    infos = fill(store, source)
    alleles, scores, shard = both(source, 1)
    store.write(1, alleles, scores.assign(more=1.0), shard=shard)
    parts = Parts(store, source.shards, infos)
    next(parts)
    with pytest.raises(InputError, match=r"rows in 10 columns, expected \d+ rows in the 9 columns"):
        next(parts)
    kept = scores.drop_duplicates(["record", "allele"])
    assert len(kept) < len(scores)
    store.write(1, alleles, kept, shard=shard)
    parts = Parts(store, source.shards, infos)
    next(parts)
    with pytest.raises(InputError, match=f"found {len(kept)} rows"):
        next(parts)


@pytest.mark.parametrize("fault", ["stops early", "forgets a file"])
def test_a_writer_that_leaves_something_out_is_a_mistake(source, store, outputs, fault):
    def careless(parts, targets):
        if fault == "stops early":
            next(parts)
            for target in targets.values():
                target.touch()
        else:
            fakes.write(parts, dict([*targets.items()][:1]))

    infos = fill(store, source)
    words = "found 7 parts not read" if fault == "stops early" else "1 outputs not written"
    with pytest.raises(RuntimeError, match=words):
        merge(store, source.shards, infos, outputs, careless)
    assert publishable(store, outputs) is None


def test_an_index_of_the_old_output_does_not_outlive_it(source, store, outputs):
    infos = fill(store, source)
    old = {outputs[0]: "old", outputs[0].with_name("out.vcf.csi"): "old index",
           outputs[0].with_name("out.vcf.tbi"): "old index"}  # fmt: skip
    for path, text in old.items():
        path.write_text(text)
    merge(store, source.shards, infos, outputs, fakes.write)
    with pytest.raises(InputError, match="--overwrite"):
        publish(store, overwrite=False)
    assert [path.read_text() for path in old] == list(old.values())
    publish(store, overwrite=True)
    assert not outputs[0].with_name("out.vcf.csi").exists()
    assert outputs[0].with_name("out.vcf.tbi").read_text() != "old index"


@pytest.mark.parametrize("state", [b"", b"{", b"[]", b'{"files": {}}'])
def test_a_damaged_note_of_the_merge_means_that_it_is_done_again(source, store, outputs, state):
    infos = fill(store, source)
    merge(store, source.shards, infos, outputs, fakes.write)
    (store.folder / "merge.json").write_bytes(state)
    assert publishable(store, outputs) is None
    merge(store, source.shards, infos, outputs, fakes.write)
    publish(store, overwrite=False)
    assert all(path.exists() for path in outputs)


def test_what_a_merge_left_for_other_outputs_is_not_published(source, store, outputs):
    infos = fill(store, source)
    merge(store, source.shards, infos, outputs, fakes.write)
    assert publishable(store, outputs[:1]) is None
    assert publishable(store, [*outputs, outputs[0].with_name("third.tsv")]) is None
    note = json.loads((store.folder / "merge.json").read_text())
    discard_partial(store.folder)
    assert not any(map(fakes.Path.exists, map(fakes.Path, note["files"].values())))


def test_pain_16_only_one_part_is_held_at_a_time(source, store):
    """Killed at 414,830 samples: here each part is forgotten before the next one is read."""
    import gc
    import weakref

    infos = fill(store, source)
    parts, seen = Parts(store, source.shards, infos), []
    for scores in parts:
        seen.append(weakref.ref(scores))
        del scores
        gc.collect()
        assert sum(ref() is not None for ref in seen) == 0
    assert len(seen) == len(source.shards)
    assert parts.num_left == 0
