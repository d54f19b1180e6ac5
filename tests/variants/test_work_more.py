"""Work folders, merges and shares at the moments between their steps.

Each of these tests was written because a broken line of the library passed all others nearby.
"""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager

import pytest

from seq2exp.core.errors import InputError
from seq2exp.variants import claim, scale
from seq2exp.variants.execute import Share
from seq2exp.variants.merge import discard_partial, merge, publish, publishable, require_all
from seq2exp.variants.ranks import Ranks
from tests.variants import scale_fakes as fakes
from tests.variants.scale_fakes import Setting, scored
from tests.variants.test_execute import FIRSTS, interrupt_at, made, run, stop_after_three_parts


@pytest.fixture
def setting(tmp_path):
    return Setting(tmp_path / "s")


@pytest.fixture
def merging(setting, monkeypatch):
    """A run that was stopped when all its parts were there."""
    with monkeypatch.context() as patch:
        patch.setattr(scale, "merge", interrupt_at(1, merge))
        with pytest.raises(KeyboardInterrupt):
            run(setting)
    return setting


@pytest.fixture
def begun(setting, monkeypatch):
    """A run that was stopped after three parts of eight."""
    stop_after_three_parts(setting, monkeypatch)
    return setting


def merged(setting, write=fakes.write):
    store, shards = claim.store_of(setting.job()), setting.source.shards
    merge(store, shards, require_all(store, shards), setting.paths, write)
    return store


@pytest.mark.parametrize("number", range(3))
def test_outputs_that_were_published_in_part_are_published_to_the_end(merging, number):
    """Killed after any of the renames: what has its name by then counts as there."""
    store = merged(merging)
    note = json.loads((store.folder / "merge.json").read_text())
    files = [(fakes.Path(path), fakes.Path(partial)) for path, partial in note["files"].items()]
    assert len(files) == 3
    content = [partial.read_bytes() for _, partial in files]
    for path, partial in files[: number + 1]:
        partial.replace(path)
    assert publishable(store, merging.paths) == note["summary"]
    publish(store, overwrite=False)
    assert [path.read_bytes() for path, _ in files] == content
    # Where one has neither name, there is nothing to publish.
    files[number][0].unlink()
    assert publishable(store, merging.paths) is None


def test_what_a_merge_writes_is_known_before_it_is_written(merging):
    """Killed in the middle, somebody else must find the halves, indexes too, to remove them."""

    def killed(parts, targets):
        halves = [path for target in targets.values() for path in (target, index_of(target))]
        for path in halves:
            path.write_text("half")
        discard_partial(claim.store_of(merging.job()).folder)
        assert not any(path.exists() for path in halves)
        raise KeyboardInterrupt

    def index_of(path):
        return path.with_name(path.name + ".tbi")

    with pytest.raises(KeyboardInterrupt):
        merged(merging, killed)


def test_a_run_that_is_killed_while_it_removes_its_work_knows_that_it_is_done(merging, monkeypatch):
    """The note of the merge goes last: without it the outputs would stand in the way."""

    def killed(folder, **options):
        assert folder.name == "parts"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(claim.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            run(merging)
    seen = merging.visible()
    assert len(seen) == 3
    assert claim.names_pending(merging.paths)
    assert run(merging).merged
    assert merging.visible() == seen
    assert merging.hidden() == []


@pytest.mark.parametrize("suffix", [".tbi", ".csi", ".gzi"])
def test_an_index_without_its_output_is_not_overwritten_either(setting, suffix):
    lone = setting.paths[0].with_name(setting.paths[0].name + suffix)
    lone.parent.mkdir(parents=True)
    lone.write_text("of something else")
    with pytest.raises(InputError, match="--overwrite"):
        run(setting)
    assert made(setting) == []
    assert lone.read_text() == "of something else"


def test_who_continues_asks_for_the_rest_of_the_disk_only(begun, monkeypatch):
    asked = []
    monkeypatch.setattr(claim, "require_space", lambda folder, size, fix: asked.append(size))
    run(begun, num_bytes=800)
    # Three of eight parts are there.
    assert asked == [500]


def test_the_last_share_replaces_outputs_where_it_may(setting):
    """Outputs of before are not those that another share has made meanwhile."""
    run(setting)
    wanted = setting.visible()
    for name in wanted:
        (setting.folder / "out" / name).write_text("old")
    outcomes = [run(setting, share=Share(index, 2), overwrite=True) for index in (0, 1)]
    assert [outcome.merged for outcome in outcomes] == [False, True]
    assert setting.visible() == wanted
    assert scored(setting.notes) == sorted(2 * FIRSTS)


def test_a_share_leaves_what_another_one_is_writing(setting):
    run(setting, share=Share(0, 3))
    half = claim.store_of(setting.job()).folder / "parts" / ".partial.of_another_share"
    half.write_text("half")
    run(setting, share=Share(1, 3))
    assert half.exists()
    # Alone there is nobody else.
    run(setting, keep_parts=True)
    assert not half.exists()


def test_progress_counts_what_was_there_and_of_a_share_its_own(begun, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("seq2exp"), "propagate", True)
    caplog.set_level(logging.INFO, logger="seq2exp")
    # Shards 1, 4 and 7 of eight; the last one holds a single record. The first of them is there.
    run(begun, share=Share(1, 3), progress=True)
    assert "variants: 100% (15 of 15 variants, " in caplog.text
    caplog.clear()
    run(begun, progress=True)
    assert "variants: 100% (50 of 50 variants, " in caplog.text


def test_workers_of_processes_on_one_machine_have_numbers_of_their_own(setting, monkeypatch):
    """The third process with two workers each: its workers are 4 and 5, so are their devices."""
    numbers = []

    @contextmanager
    def third():
        yield Ranks(local=2)

    monkeypatch.setattr(scale, "open_ranks", third)
    execute = scale.execute

    def seen(*args, first_worker, **options):
        numbers.append((first_worker, options["workers"]))
        return execute(*args, first_worker=first_worker, **(options | {"workers": 1}))

    monkeypatch.setattr(scale, "execute", seen)
    run(setting, workers=2)
    assert numbers == [(4, 2)]
    assert {path.name.split("_")[1] for path in setting.notes.glob("made_*")} == {"4"}
