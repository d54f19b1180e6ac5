"""Shards to parts in one process or several, shares of job arrays, and the outputs at the end."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.core.files import file_lock
from seq2exp.variants import claim, execute, scale
from seq2exp.variants.execute import Share, estimated_bytes, parse_share
from seq2exp.variants.scale import score_in_parts
from tests.variants import scale_fakes as fakes
from tests.variants.scale_fakes import Setting, scored

ROOT = Path(__file__).parents[2]
FIRSTS = list(range(0, fakes.NUM_RECORDS, fakes.PER_SHARD))


@pytest.fixture
def setting(tmp_path):
    return Setting(tmp_path / "s")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Outputs of an unbroken run in one process."""
    setting = Setting(tmp_path_factory.mktemp("whole"))
    outcome = run(setting)
    return outcome, setting.visible()


def run(setting, *, fake=None, write=fakes.write, progress=False, **options):
    maker = fake or setting.fake()
    return score_in_parts(setting.source, maker, write, setting.job(**options), progress=progress)


def made(setting):
    return sorted({path.name.split("_")[2] for path in setting.notes.glob("made_*")})


def interrupt_at(count, original):
    """Stand in for a function: Ctrl-C at its ``count``-th call."""
    calls = []

    def counted(*args, **kwargs):
        calls.append(1)
        if len(calls) == count:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    return counted


# One process ------------------------------------------------------------------------------------


def test_everything_is_scored_once_and_nothing_is_left_behind(setting, whole):
    outcome = run(setting)
    assert scored(setting.notes) == FIRSTS
    assert (outcome.merged, outcome.num_shards, outcome.left) == (True, 8, [])
    assert (outcome.num_records, outcome.num_alleles) == (50, 60)
    assert outcome == whole[0]
    assert setting.visible() == whole[1]
    assert sorted(whole[1]) == ["out.vcf", "out.vcf.tbi", "sub/out.parquet"]
    assert setting.hidden() == []


def test_a_stopped_run_continues_after_its_parts(setting, whole, monkeypatch, caplog):
    monkeypatch.setattr(fakes, "score", interrupt_at(4, fakes.score))
    with pytest.raises(KeyboardInterrupt):
        run(setting)
    assert setting.visible() == {}
    monkeypatch.setattr(logging.getLogger("seq2exp"), "propagate", True)
    caplog.set_level(logging.INFO, logger="seq2exp")
    assert run(setting) == whole[0]
    assert "continued from 3 of 8 finished parts" in caplog.text
    assert setting.visible() == whole[1]
    # The fourth shard was begun twice and none of the first three was scored again.
    assert scored(setting.notes) == sorted([*FIRSTS, FIRSTS[3]])


def test_without_anything_to_score_no_model_is_made(setting, whole, monkeypatch):
    monkeypatch.setattr(scale, "merge", interrupt_at(1, scale.merge))
    with pytest.raises(KeyboardInterrupt):
        run(setting)
    assert len(made(setting)) == 1
    run(setting, fake=lambda worker: pytest.fail("no scorer is needed"))
    assert setting.visible() == whole[1]


def test_the_state_of_a_process_is_given_back(setting):
    run(setting)
    assert execute._HERE == {}


def test_progress_says_speed_and_time_left(setting, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("seq2exp"), "propagate", True)
    caplog.set_level(logging.INFO, logger="seq2exp")
    run(setting, progress=True)
    assert "variants: 100% (50 of 50 variants, " in caplog.text
    assert "/s, 0 s left)" in caplog.text


# Several processes ------------------------------------------------------------------------------


def test_pain_17_several_workers_read_and_score_as_one(setting, whole):
    """Each reads the file through a handle of its own, and has a model of its own."""
    outcome = run(setting, workers=2, fake=setting.fake(seconds=0.05))
    assert outcome == whole[0]
    assert setting.visible() == whole[1]
    assert scored(setting.notes) == FIRSTS
    assert len(made(setting)) == 2
    assert {path.name.split("_")[1] for path in setting.notes.glob("made_*")} == {"0", "1"}


def test_workers_share_the_cores(monkeypatch, setting):
    threads = []
    monkeypatch.setattr(execute.torch, "set_num_threads", threads.append)
    monkeypatch.setattr(execute, "_num_cores", lambda: 7)
    for workers in (1, 2, 9):
        execute._Setup(setting.source, setting.fake(), None, 3, workers)(1)
        process = execute._HERE.popitem()[1]
        assert process.worker == 4  # a process with lower numbers has the devices 0 to 2
    assert threads == [3, 1]


def test_a_scorer_that_cannot_be_made_is_an_error_of_its_own(setting):
    def fail(worker):
        raise InputError("no such model")

    with pytest.raises(InputError, match="no such model"):
        run(setting, fake=fail)
    assert setting.visible() == {}


# Shares of a job array --------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1/1", "3/20", "20/20"])
def test_shares_count_from_one(text):
    index, count = (int(word) for word in text.split("/"))
    assert parse_share(text) == Share(index - 1, count)


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/3/5", "", "1/ 3"])
def test_other_texts_are_no_share(text):
    with pytest.raises(ConfigError, match=r"--shard: found .*, expected I/N with I from 1 to N"):
        parse_share(text)


@pytest.mark.parametrize("count", [1, 3, 8, 11])
def test_shares_hold_every_shard_once(count):
    shares = [Share(index, count).numbers(8) for index in range(count)]
    assert sorted(number for share in shares for number in share) == list(range(8))


def test_the_last_share_merges_whatever_the_order(setting, whole):
    left = []
    for index in (2, 0, 1):
        assert setting.visible() == {}
        outcome = run(setting, share=Share(index, 3))
        left.append(outcome.left)
    assert left == [[0, 1, 3, 4, 6, 7], [1, 4, 7], []]
    assert outcome == whole[0]
    assert setting.visible() == whole[1]
    assert scored(setting.notes) == FIRSTS
    assert setting.hidden() == []


def test_a_run_without_share_does_what_is_left(setting, whole):
    outcome = run(setting, share=Share(1, 3))
    assert (outcome.merged, outcome.num_records) == (False, 15)
    assert run(setting) == whole[0]
    assert setting.visible() == whole[1]
    assert scored(setting.notes) == FIRSTS


def test_more_shares_than_shards_leave_some_without_work(setting, whole):
    outcomes = [run(setting, share=Share(index, 11)) for index in reversed(range(11))]
    assert [outcome.merged for outcome in outcomes] == [False] * 10 + [True]
    assert outcomes[0].num_records == 0
    assert [outcome.idle for outcome in outcomes] == ["11 shares for 8 shards"] * 3 + [""] * 8
    assert setting.visible() == whole[1]


def test_shares_work_beside_each_other_and_one_merges(setting, whole):
    outcomes = []

    def one(index):
        fake = setting.fake(seconds=0.03)
        outcomes.append(run(setting, share=Share(index, 3), fake=fake))

    threads = [threading.Thread(target=one, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(outcome.merged for outcome in outcomes) == 1
    assert setting.visible() == whole[1]
    assert setting.hidden() == []


def test_a_damaged_part_of_another_share_is_made_again_by_the_last_one(setting, whole):
    run(setting, share=Share(0, 2))
    part = claim.store_of(setting.job()).path(2)
    part.write_bytes(part.read_bytes()[:-9])
    outcome = run(setting, share=Share(1, 2))
    assert outcome.merged
    assert scored(setting.notes).count(FIRSTS[2]) == 2
    assert setting.visible() == whole[1]


def test_a_share_waits_for_no_whole_run_and_a_whole_run_for_no_share(setting):
    lock = setting.paths[0].with_name(f".{setting.paths[0].name}.lock")
    with file_lock(lock, what="out"), pytest.raises(InputError, match="another process"):
        run(setting, share=Share(0, 2))
    with file_lock(lock, what="out", shared=True):
        with pytest.raises(InputError, match="another process"):
            run(setting)
        assert run(setting, share=Share(0, 2)).left == [1, 3, 5, 7]
        # All parts are there, but another share may still be reading.
        last = run(setting, share=Share(1, 2))
        assert (last.merged, last.left) == (False, [])
    assert setting.visible() == {}
    assert run(setting).merged


def test_a_share_that_starts_while_another_job_merges_has_nothing_to_do(setting):
    """Alone holds whoever merges: with all parts there, or the outputs made, that is no problem."""
    run(setting, keep_parts=True)
    folder = claim.store_of(setting.job()).folder
    lock = setting.paths[0].with_name(f".{setting.paths[0].name}.lock")
    with file_lock(lock, what="out"):
        outcome = run(setting, share=Share(1, 2), fake=None)
        assert outcome.idle == "all parts are there, and another job makes the outputs"
        claim.store_of(setting.job()).path(3).unlink()
        with pytest.raises(InputError, match="another process"):
            run(setting, share=Share(1, 2))
        made = iter([False, True])
        late = run(setting, share=Share(1, 2), made=lambda: next(made))
    assert late.idle == scale.MADE
    # Made between the first look and the lock.
    made = iter([False, True])
    assert run(setting, share=Share(1, 2), made=lambda: next(made)).idle == scale.MADE
    assert scored(setting.notes) == FIRSTS
    assert folder.is_dir()


def test_work_that_is_refused_before_its_first_part_leaves_no_folder(setting, monkeypatch):
    def refuse(alleles):
        raise InputError("not so")

    with monkeypatch.context() as patch, pytest.raises(InputError, match="not so"):
        patch.setattr(fakes, "score", refuse)
        run(setting)
    assert setting.hidden() == []


def test_shares_and_restart_exclude_each_other(setting):
    with pytest.raises(ConfigError, match=r"--shard: found it beside --restart.*\.work"):
        run(setting, share=Share(0, 2), restart=True)


# Other inputs, settings, outputs ----------------------------------------------------------------


def stop_after_three_parts(setting, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(fakes, "score", interrupt_at(4, fakes.score))
        with pytest.raises(KeyboardInterrupt):
            run(setting)


@pytest.fixture
def begun(setting, monkeypatch):
    """A run that was stopped after three parts."""
    stop_after_three_parts(setting, monkeypatch)
    for path in setting.notes.iterdir():
        path.unlink()
    return setting


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"input_sha256": "x"}, "input_sha256 'i' -> 'x'"),
     ({"model_sha256": "x"}, "model_sha256 'm' -> 'x'"),
     ({"dataset_checksum": "x"}, "dataset_checksum 'd' -> 'x'"),
     ({"version": "0"}, "version .* -> '0'"),
     ({"config": {"batch_size": 5, "scorers": ["expr_delta"]}}, "config.batch_size 4 -> 5"),
     ({"config": {"scorers": ["expr_delta"], "edge": "pad"}},
      "2 in all; first: config.batch_size 4 -> None, config.edge None -> 'pad'")],
)  # fmt: skip
def test_changed_inputs_or_settings_are_refused_by_name(begun, changes, words):
    with pytest.raises(InputError, match=rf"unfinished work with other.*{words}.*--restart"):
        run(begun, identity=begun.identity(**changes))
    assert scored(begun.notes) == []
    run(begun)
    assert scored(begun.notes) == FIRSTS[3:]


def test_restart_deletes_the_parts_of_other_settings(begun, whole):
    other = begun.identity(config={"batch_size": 5})
    outcome = run(begun, identity=other, restart=True)
    assert scored(begun.notes) == FIRSTS
    assert outcome == whole[0]
    assert begun.hidden() == []


def test_restart_scores_everything_again_also_with_the_same_settings(begun, whole):
    run(begun, restart=True)
    assert scored(begun.notes) == FIRSTS
    assert begun.visible() == whole[1]


def test_work_that_cannot_say_what_it_is_is_refused_too(begun):
    (folder,) = claim.work_folders(begun.paths[0])
    for text in ("{", "[]", None):
        (folder / "manifest.json").unlink()
        if text is not None:
            (folder / "manifest.json").write_text(text)
        with pytest.raises(InputError, match="its manifest cannot be read"):
            run(begun, identity=begun.identity(model_sha256="x"))
        (folder / "manifest.json").touch()


def test_work_that_had_not_begun_is_swept(begun, whole):
    (folder,) = claim.work_folders(begun.paths[0])
    empty = folder.with_name(f".{begun.paths[0].name}.{'0' * 16}.work")
    (empty / "parts").mkdir(parents=True)
    run(begun)
    assert begun.hidden() == []
    assert begun.visible() == whole[1]


def test_work_of_an_output_with_a_longer_name_is_left_alone(begun, whole):
    longer = Setting(begun.folder, outputs=("out",))
    run(longer, identity=begun.identity(model_sha256="x"))
    assert (begun.folder / "out" / "out").exists()
    assert len(claim.work_folders(begun.paths[0])) == 1


def test_another_output_more_uses_the_same_parts(begun):
    begun.paths.append(begun.folder / "out" / "third.tsv")
    run(begun)
    assert scored(begun.notes) == FIRSTS[3:]
    assert begun.visible()["third.tsv"] == begun.visible()["out.vcf"]


def test_kept_parts_serve_the_next_run(setting, whole):
    assert run(setting, keep_parts=True) == whole[0]
    assert [name.split(".")[-1] for name in setting.hidden()] == ["work"]
    with pytest.raises(InputError, match="--overwrite"):
        run(setting)
    assert run(setting, overwrite=True) == whole[0]
    assert scored(setting.notes) == FIRSTS
    assert setting.visible() == whole[1]
    assert setting.hidden() == []


def test_one_output_twice_is_refused(setting):
    setting.paths.append(setting.paths[0])
    with pytest.raises(ConfigError, match="--out: found one output twice"):
        run(setting)


# Space and memory -------------------------------------------------------------------------------


def test_pain_16_shards_are_counted_and_the_disk_is_asked_before_the_start(setting):
    """Killed at 414,830 samples: here the parts are known, and their size, before one is scored."""
    with pytest.raises(InputError, match=r"GB free, expected at least 1000000000\.00 GB"):
        run(setting, num_bytes=10**18)
    assert made(setting) == []
    assert setting.visible() == {}


def test_what_there_is_to_do_is_said_first(setting, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("seq2exp"), "propagate", True)
    caplog.set_level(logging.INFO, logger="seq2exp")
    run(setting, num_bytes=3_000_000)
    # Two outputs and the parts: 1 MB each, of which a shard of 7 in 50 records holds 14 %.
    assert caplog.messages[0] == (
        "variants: 50 in 8 shards; parts and outputs take about 3 MB of disk, the scores of a "
        "shard about 0.56 MB of memory in each process"
    )


def test_the_estimate_covers_what_is_written(tmp_path):
    """With a shard of the usual size; Parquet of a few rows is all header."""
    from tests.variants import scale_many

    source = scale_many.Numbers(4096)
    job = claim.Job([tmp_path / "out.parquet"], claim.Identity("i", "m", "d", {}), keep_parts=True)
    seen = scale_many.Seen(1)
    outcome = score_in_parts(
        source, lambda worker: scale_many.scorer(seen), scale_many.writer(seen), job, progress=False
    )
    written = sum(p.stat().st_size for p in tmp_path.rglob("*.parquet"))
    estimate = estimated_bytes(outcome.num_rows, 2, num_outputs=1)
    assert written < estimate < 30 * written
    assert estimated_bytes(1_000_000, 4, num_outputs=2) == 1_000_000 * (136 + 2 * 240)


@pytest.mark.slow
def test_f38_a_million_alleles_in_bounded_memory(tmp_path):
    """Two million rows: memory does not grow with the parts, and few files are open at a time."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.variants.scale_many", str(tmp_path), "1000000"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["rows"] == 2_000_000
    assert found["files"] < 20
    # Between a tenth of the parts and the end of the merge; all rows would be 500 MB as a table.
    assert found["peak"] - found["early"] < 60_000_000


def test_what_the_first_part_takes_is_compared_with_the_disk(setting, monkeypatch):
    asked = []
    monkeypatch.setattr(
        execute, "require_space", lambda folder, size, fix: asked.append((folder, size, fix))
    )
    run(setting, keep_parts=True)
    first = claim.store_of(setting.job()).path(0).stat().st_size
    # 43 of 50 records are left, and two outputs of all 50 come after them.
    assert [size for _, size, _ in asked] == [int(first / 7 * (43 + 100))]
    assert "finished parts stay" in asked[0][2]
