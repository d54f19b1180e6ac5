"""F23, and F24 to F26 and F31 for the scoring of variants; tests/faults/scoring_children.py helps.

Processes are killed, and run as ranks or shares, in forks of one child.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seq2exp.core.errors import InputError
from seq2exp.variants import parts
from seq2exp.variants.claim import store_of
from seq2exp.variants.scale import score_in_parts
from tests.variants import scale_fakes as fakes
from tests.variants.scale_fakes import Setting, scored

ROOT = Path(__file__).parents[2]
SECONDS = 300
FIRSTS = list(range(0, fakes.NUM_RECORDS, fakes.PER_SHARD))


def child(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment,
        cwd=ROOT, timeout=SECONDS, check=False, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def children(tmp_path_factory):
    """Findings of every task of tests/faults/scoring_children.py."""
    folder = tmp_path_factory.mktemp("children")
    done = child("tests.faults.scoring_children", folder)
    assert done.returncode == 0, done.stderr
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


@pytest.fixture(scope="module")
def whole(children):
    """Outputs of an unbroken run, as hexadecimal text by name."""
    visible = children["kills"]["whole"]["visible"]
    assert sorted(visible) == ["out.vcf", "out.vcf.tbi", "sub/out.parquet"]
    assert bytes.fromhex(visible["sub/out.parquet"])[:4] == b"PAR1"
    return visible


@pytest.fixture
def setting(tmp_path):
    return Setting(tmp_path / "s")


def run(setting, *, fake=None, **options):
    maker = fake or setting.fake()
    return score_in_parts(
        setting.source, maker, fakes.write, setting.job(**options), progress=False
    )


def hexed(setting):
    return {name: content.hex() for name, content in setting.visible().items()}


# F23 -------------------------------------------------------------------------------------------


def test_f23_the_moments_were_really_hit(children):
    cases = children["kills"]["cases"]
    assert len(cases) == 15
    for name, case in cases.items():
        assert case["code"] == (130 if "SIGTERM" in name else -9), name
        assert case["between"]["hidden"], name
    assert {case["between"]["parts"] for case in cases.values()} == {0, 2, 3, 4, 8}


def test_f23_a_killed_scoring_ends_with_the_same_bytes(children, whole):
    for name, case in children["kills"]["cases"].items():
        assert case["again"] == 0, (name, case["said"])
        assert case["after"]["visible"] == whole, name
        assert case["after"]["hidden"] == [], name
        assert json.loads(case["said"])["num_records"] == fakes.NUM_RECORDS, name


def test_f23_no_half_output_is_ever_seen(children, whole):
    for case in children["kills"]["cases"].values():
        assert case["between"]["visible"].items() <= whole.items()


def test_f23_whole_parts_are_kept_and_others_made_again(children):
    again = {name: case["scored_again"] for name, case in children["kills"]["cases"].items()}
    assert again["in the first shard"] == 8
    assert again["in the fifth shard"] == 4
    assert again["with half of the third part"] == 6
    assert again["between the third part and its checksum"] == 6
    late = [name for name in again if "output" in name or "folder" in name or "merge" in name]
    assert len(late) == 7
    assert {again[name] for name in late} == {0}


def test_f23_killed_by_the_clock_until_a_run_comes_through(children, whole):
    found = children["clock"]
    assert found["codes"][-1] == 0
    assert -9 in found["codes"]
    assert found["after"]["visible"] == whole
    assert found["after"]["hidden"] == []


@pytest.mark.parametrize("names", ["torchrun", "lightning", "srun"])
def test_f23_ranks_share_the_work_and_end_with_the_same_bytes(children, whole, names):
    found = children["ranks"][names]
    assert set(found["codes"]) == {0}
    assert found["visible"] == whole
    assert found["hidden"] == []
    assert found["scored"] == FIRSTS
    outcomes = [json.loads(words) for words in found["said"]]
    assert [outcome["merged"] for outcome in outcomes] == [True] + [False] * (len(outcomes) - 1)
    assert outcomes[0]["num_records"] == fakes.NUM_RECORDS


def test_f23_after_a_lost_rank_nothing_is_merged_and_what_is_missing_is_named(children, whole):
    lost = children["ranks"]["lost"]
    assert lost["codes"] == [2, -9]
    assert "found 5 of 8 parts; a rank was lost" in lost["said"][0]
    assert "3 in all; first: part_000003.parquet, part_000005.parquet" in lost["said"][0]
    assert lost["visible"] == {}
    again = children["ranks"]["lost again"]
    assert again["codes"] == [0, 0]
    assert again["visible"] == whole
    assert again["scored"] == FIRSTS  # none was scored twice


def test_f23_a_rank_that_is_lost_after_its_parts_does_not_matter(children, whole):
    found = children["ranks"]["lost at the end"]
    assert found["codes"] == [0, -9]
    assert found["visible"] == whole


def test_f23_ranks_without_the_first_one_end_too(children, whole):
    found = children["ranks"]["leader lost"]
    assert found["codes"] == [-9, 2]
    assert "another rank was lost" in found["said"][1]
    assert found["visible"] == {}
    assert children["ranks"]["leader lost again"]["visible"] == whole


def test_f23_what_stops_the_first_rank_is_told_to_all(children):
    found = children["ranks"]["output exists"]
    assert found["codes"] == [2, 2]
    assert all("--overwrite" in words for words in found["said"])


def test_f23_what_stops_another_rank_is_told_to_the_first(children, whole):
    first, again = children["broken_rank"]["first"], children["broken_rank"]["again"]
    assert first["codes"] == [2, 2]
    assert "rank 1: record 22: found no window" in first["said"][0]
    assert "part_000003.parquet" in first["said"][0]
    assert first["visible"] == {}
    assert again["visible"] == whole


def test_f23_shares_of_a_job_array(children, whole):
    found = children["shares"]
    assert found["all"]["codes"] == [0, 0, 0]
    assert sum(found["all"]["merged"]) == 1
    assert found["all"]["visible"] == whole
    assert found["killed"]["codes"] == [0, -9, 0]
    assert found["killed"]["visible"] == {}
    assert found["again"]["visible"] == whole
    assert found["again"]["hidden"] == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "no checksum", "lost"])
@pytest.mark.parametrize("merged", [False, True])
def test_f23_a_damaged_part_is_made_again(setting, whole, damage, merged):
    """Also one that a finished run had kept, for another run to use."""
    run(setting, keep_parts=True)
    if not merged:
        for path in setting.paths:
            path.unlink()
        (setting.paths[0].with_name("out.vcf.tbi")).unlink()
    path = store_of(setting.job()).path(4)
    content = path.read_bytes()
    if damage == "no checksum":
        path.with_name(path.name + ".json").unlink()
    elif damage == "lost":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
        path.write_bytes({"cut": content[:-1], "flipped": flipped, "empty": b""}[damage])
    run(setting, overwrite=merged)
    assert hexed(setting) == whole
    assert scored(setting.notes) == sorted([*FIRSTS, FIRSTS[4]])


def test_f23_a_part_damaged_between_scoring_and_merge_stops_the_merge(setting, whole):
    path = store_of(setting.job()).path(5)

    def write(parts, targets):
        for number, _ in enumerate(parts):
            if number == 2:
                path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(ValueError, match=r"part_000005\.parquet: found no whole part"):
        score_in_parts(setting.source, setting.fake(), write, setting.job(), progress=False)
    assert setting.visible() == {}
    run(setting)
    assert hexed(setting) == whole


@pytest.mark.slow
def test_f23_under_the_real_torchrun(tmp_path, whole):
    done = child(
        "torch.distributed.run", "--standalone", "--nproc-per-node", 2,
        "-m", "tests.variants.scale_child", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert hexed(Setting(tmp_path)) == whole


# F31 -------------------------------------------------------------------------------------------


def test_f31_a_dead_worker_is_named_with_its_shard(setting, whole):
    words = r"a worker process: found that it died .* at work on shard 3 \(records 22 to 28\)"
    with pytest.raises(InputError, match=words):
        run(setting, workers=2, fake=setting.fake(kill_at=21, seconds=0.02))
    assert setting.visible() == {}
    # Two workers begin the fourth shard when two of the first three are done, whichever these are.
    assert len({*scored(setting.notes)} & {*FIRSTS[:3]}) >= 2
    run(setting)
    assert hexed(setting) == whole
    assert sorted({*scored(setting.notes)}) == FIRSTS


# F24 -------------------------------------------------------------------------------------------


def test_f24_a_kernel_that_refuses_writes_keeps_whole_parts_only(children, whole):
    """The kernel limits file sizes, below a part or between a part and an output."""
    found = children["full_disk"]
    for name, parts_left, again in (("parts", 0, 8), ("outputs", 8, 0)):
        case = found[name]
        assert case["code"] == 2
        assert "File too large" in case["said"], name
        assert case["between"]["visible"] == {}
        assert case["between"]["parts"] == parts_left
        assert [*case["between"]["hidden"]][1:] == []  # nothing but the work folder
        assert (case["again"], case["scored_again"]) == (0, again)
        assert case["visible"] == whole


@pytest.mark.parametrize("call", [1, 4])
def test_f24_a_full_disk_is_said_and_the_next_run_continues(setting, monkeypatch, whole, call):
    original, calls = parts.pq.write_table, []

    def full(table, path, **options):
        calls.append(path)
        if len(calls) == call:
            path.write_bytes(b"what still fitted")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(table, path, **options)

    monkeypatch.setattr(parts.pq, "write_table", full)
    with pytest.raises(InputError, match=r"out\.vcf: found a full disk, expected a folder with"):
        run(setting)
    assert not calls[-1].exists()
    assert setting.visible() == {}
    assert len([*setting.folder.rglob("part_*.parquet")]) == call - 1
    monkeypatch.setattr(parts.pq, "write_table", original)
    run(setting)
    assert hexed(setting) == whole


# F25 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["with space", "\u00fcml\u4e2d", "star*[x]?", "new\nline", "-x"])
def test_f25_odd_names(tmp_path, name, whole):
    setting = Setting(tmp_path / name, outputs=(f"{name}.vcf", f"sub/{name}.parquet"))
    run(setting)
    assert sorted(hexed(setting).values()) == sorted(whole.values())
    assert setting.hidden() == []


def test_f25_relative_outputs_survive_a_change_of_folder(tmp_path, monkeypatch, whole):
    monkeypatch.chdir(tmp_path)
    setting = Setting(tmp_path)
    setting.paths = [path.relative_to(tmp_path) for path in setting.paths]
    run(setting)
    assert hexed(Setting(tmp_path)) == whole


def test_f25_outputs_that_cannot_be_written(setting, tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for parent in (tmp_path / "file", tmp_path / "loop", Path("/proc/1/x")):
        setting.paths = [parent / "out.vcf"]
        with pytest.raises(InputError, match=r"expected a folder that can be written"):
            run(setting)
    setting.paths = [setting.folder]
    with pytest.raises(InputError, match="found a folder, expected a file"):
        run(setting, overwrite=True)
    assert (tmp_path / "file").read_text() == "precious"
    assert scored(setting.notes) == []


@pytest.mark.parametrize("name", ["out.vcf", "out.vcf.tbi", "sub/out.parquet"])
def test_f25_existing_outputs_need_overwrite(setting, whole, name):
    path = setting.folder / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    with pytest.raises(InputError, match="--overwrite"):
        run(setting)
    assert path.read_text() == "precious"
    assert scored(setting.notes) == []
    run(setting, overwrite=True)
    assert hexed(setting) == whole


# F26 -------------------------------------------------------------------------------------------


def test_f26_a_second_process_is_refused_and_the_first_one_finishes(children, whole):
    found = children["rivals"]
    assert (found["first"], found["second"]) == (0, 2)
    assert "another process that is writing it" in found["said"]
    assert found["visible"] == whole
    assert found["hidden"] == []
