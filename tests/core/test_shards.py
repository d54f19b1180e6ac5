from __future__ import annotations

import json

import pytest

from seq2exp.core.shards import (
    finish_shard,
    is_finished,
    partial_path,
    remove_partial,
    shard_info,
)


def write(target, content=b"12345", **options):
    partial = partial_path(target, unique=options.pop("unique", False))
    partial.write_bytes(content)
    finish_shard(partial, target, {"covered": 3}, **options)


@pytest.mark.parametrize("sync", [False, True])
def test_a_shard_counts_only_when_whole(tmp_path, sync):
    target = tmp_path / "s.npy"
    assert not is_finished(target)
    write(target, sync=sync)
    assert is_finished(target)
    assert shard_info(target)["covered"] == 3
    for damaged in (b"1234", b"1234x", b"", b"123456"):
        target.write_bytes(damaged)
        assert not is_finished(target)
    target.write_bytes(b"12345")
    assert is_finished(target)
    for text in ("{", "[]", "{}", "null"):
        (tmp_path / "s.npy.json").write_text(text)
        assert not is_finished(target)


def test_the_checksum_is_that_of_sha256sum(tmp_path):
    """echo -n abc | sha256sum: the published test vector."""
    write(tmp_path / "s", b"abc")
    checksum = json.loads((tmp_path / "s.json").read_text())["sha256"]
    assert checksum.startswith("ba7816bf8f01cfea414140de5dae2223b00361a3")


def test_a_folder_is_a_shard_and_its_names_count(tmp_path):
    for number in range(2):  # the second replaces the first
        partial = partial_path(tmp_path / "d")
        partial.mkdir()
        (partial / "a").write_text(str(number))
        (partial / "b").write_text("2")
        finish_shard(partial, tmp_path / "d", {})
        assert is_finished(tmp_path / "d")
    (tmp_path / "d" / "b").rename(tmp_path / "d" / "c")
    assert not is_finished(tmp_path / "d")


def test_two_writers_of_one_shard_do_not_meet(tmp_path):
    target = tmp_path / "s"
    first, second = (partial_path(target, unique=True) for _ in range(2))
    assert first != second
    first.write_bytes(b"same")
    second.write_bytes(b"same")
    finish_shard(first, target, {})
    finish_shard(second, target, {})
    assert is_finished(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s", "s.json"]


def test_what_was_left_half_written_is_removed(tmp_path):
    write(tmp_path / "s")
    partial_path(tmp_path / "t", unique=True).write_bytes(b"half")
    partial_path(tmp_path / "d").mkdir()
    remove_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s", "s.json"]
