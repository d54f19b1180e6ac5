"""F21, F24, F25 and F26 for `prepare`: kills, full disks, odd folders, two processes at once."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from data_prep import build, shards
from data_prep.build import prepare
from data_prep.shards import run_tasks
from seq2exp.core.errors import InputError
from seq2exp.core.files import file_lock
from seq2exp.core.shards import is_finished
from tests.data_prep import raw

ROOT = Path(__file__).parents[2]
SECONDS = 120


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Inputs, and the dataset that an unbroken run makes of them."""
    folder = tmp_path_factory.mktemp("whole")
    inputs = raw.write_raw(folder / "in")
    prepare(inputs.config, source=inputs.folder, out=folder / "out", progress=False)
    return inputs, digest(folder / "out")


def digest(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


# A child that prepares the toy inputs, with a hook that runs before the preparation.
CHILD = """
import os, signal, sys, time
from pathlib import Path
from data_prep import assemble, build, shards
from seq2exp.core import shards as core_shards
from data_prep.build import prepare
from tests.data_prep import raw

def main():
    {hook}
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    config = raw.toy_config()
    try:
        prepare(config, source=source, out=out, workers=int(sys.argv[3]), progress=False)
    except (ValueError, KeyboardInterrupt) as error:
        print(type(error).__name__, error, file=sys.stderr)
        sys.exit(130 if isinstance(error, KeyboardInterrupt) else 2)

if __name__ == "__main__":
    main()
"""


def start(tmp_path, source, out, *, hook="pass", workers=0):
    script = tmp_path / "child.py"
    script.write_text(CHILD.format(hook=textwrap.indent(textwrap.dedent(hook), "    ").strip()))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(source), str(out), str(workers)]
    return subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )


# F21 -------------------------------------------------------------------------------------------

# Kills this process at the n-th call of a function, before or in the middle of what it does.
KILL_AT = """
calls = 0
original = {module}.{name}
def counted(*args, **kwargs):
    global calls
    calls += 1
    if calls == {count}:
        {midway}
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)
{module}.{name} = counted
"""
HALF = "args[0].write_bytes(b'half a shard')"
MOMENTS = [
    ("shards", "write_array", 1, "pass"),
    ("shards", "write_array", 2, HALF),
    ("shards", "write_array", 4, "pass"),
    ("core_shards", "_checksum", 3, "pass"),
    ("assemble", "write_array", 1, HALF),
    ("assemble", "write_array", 3, "pass"),
    ("build", "replace_directory", 1, "pass"),
]


def kill_hook(module, name, count, midway):
    text = KILL_AT.format(module=module, name=name, count=count, midway=midway)
    return text.replace("global calls", "nonlocal calls")


@pytest.mark.parametrize("moment", [MOMENTS[1], MOMENTS[4], MOMENTS[6]], ids=str)
def test_f21_killed_preparation_continues_to_the_same_bytes(whole, tmp_path, moment):
    check_kill(whole, tmp_path, moment)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [MOMENTS[0], MOMENTS[2], MOMENTS[3], MOMENTS[5]], ids=str)
def test_f21_killed_at_the_other_moments(whole, tmp_path, moment):
    check_kill(whole, tmp_path, moment)


def check_kill(whole, tmp_path, moment):
    inputs, expected = whole
    out = tmp_path / "out"
    child = start(tmp_path, inputs.folder, out, hook=kill_hook(*moment))
    assert child.wait(SECONDS) == -signal.SIGKILL
    child.stderr.close()
    assert not out.exists()
    prepare(inputs.config, source=inputs.folder, out=out, progress=False)
    assert digest(out) == expected
    assert hidden(tmp_path) == [".out.lock"]


@pytest.mark.slow
def test_f21_killed_at_seeded_times(whole, tmp_path):
    """Kills by the clock, until a run comes through: each time the output is absent or whole."""
    inputs, expected = whole
    out = tmp_path / "out"
    clock = random.Random(0)
    for attempt in range(12):
        child = start(tmp_path, inputs.folder, out, workers=attempt % 2 * 2)
        try:
            child.wait(timeout=clock.uniform(0.5, 3.0))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stderr.close()
        assert not out.exists() or digest(out) == expected
    if not out.exists():
        prepare(inputs.config, source=inputs.folder, out=out, progress=False)
    assert digest(out) == expected


def test_f21_finished_shards_are_not_made_again(whole, tmp_path, monkeypatch):
    inputs, expected = whole
    out = tmp_path / "out"
    original = shards.write_array
    written = []

    def interrupted(path, array):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path.name)
        original(path, array)

    monkeypatch.setattr(shards, "write_array", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(inputs.config, source=inputs.folder, out=out, progress=False)
    assert not out.exists()
    monkeypatch.setattr(
        shards,
        "write_array",
        lambda path, array: (written.append(path.name), original(path, array)),
    )
    prepare(inputs.config, source=inputs.folder, out=out, progress=False)
    assert len(written) == len(set(written)) == 4  # two sequences, one track on two contigs
    assert digest(out) == expected


def test_f21_changed_inputs_do_not_use_old_shards(whole, tmp_path):
    inputs = raw.write_raw(tmp_path / "in")
    out = tmp_path / "out"
    hook = kill_hook("assemble", "write_array", 1, "pass")
    assert start(tmp_path, inputs.folder, out, hook=hook).wait(SECONDS) == -signal.SIGKILL
    assert len(hidden(tmp_path)) == 2  # lock and work folder
    signal_2 = {"chr1": [(0, 100, 3.0)], "chr2": [(0, 50, 1.0)]}
    raw.write_bigwig(inputs.folder / "signal.bw", signal_2)
    prepare(inputs.config, source=inputs.folder, out=out, progress=False)
    prepare(inputs.config, source=inputs.folder, out=tmp_path / "new", progress=False)
    assert digest(out) == digest(tmp_path / "new")
    assert hidden(tmp_path) == [".new.lock", ".out.lock"]


def test_f21_sigterm_stops_and_leaves_a_state_to_continue(whole, tmp_path):
    inputs, expected = whole
    out = tmp_path / "out"
    hook = """
    original = shards.write_array
    def slow(path, array):
        original(path, array)
        Path(sys.argv[2]).with_name("started").touch()
        time.sleep(0.3 if "chr1" in path.name else 60)
    shards.write_array = slow
    """
    child = start(tmp_path, inputs.folder, out, hook=hook)
    deadline = time.monotonic() + SECONDS
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child.terminate()
    _, message = child.communicate(timeout=SECONDS)
    assert (child.returncode, message.split()[0]) == (130, "KeyboardInterrupt")
    assert not out.exists()
    prepare(inputs.config, source=inputs.folder, out=out, progress=False)
    assert digest(out) == expected


class DyingTask:
    """A task whose process is killed, as the out-of-memory killer does."""

    def __init__(self, target, label):
        self.target, self.label, self.cost = target, label, 1

    def run(self):
        if self.label == "track x on contig y":
            while not is_finished(self.target.with_name("0.npy")):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        shards._write_shard(self.target, __import__("numpy").arange(3), {})


def test_f31_a_dead_worker_is_named_and_nothing_hangs(tmp_path):
    labels = ["a", "track x on contig y", "b"]
    tasks = [DyingTask(tmp_path / f"{i}.npy", label) for i, label in enumerate(labels)]
    with pytest.raises(InputError, match=r"a worker process.* died .*track x on contig y"):
        run_tasks(tasks, workers=2, progress=False)
    assert is_finished(tasks[0].target)


def test_f31_workers_end_with_their_parent(whole, tmp_path):
    """The parent is killed while a worker sleeps in a task: the worker must not stay behind."""
    source = tmp_path / "child.py"
    source.write_text(
        textwrap.dedent(
            """
            import os, signal, sys, threading, time
            from pathlib import Path
            from data_prep.shards import run_tasks

            class Task:
                cost = 1
                def __init__(self, number):
                    self.target, self.label = Path(sys.argv[1]) / str(number), "t"
                def run(self):
                    Path(self.target).write_text(str(os.getpid()))
                    time.sleep(600)

            if __name__ == "__main__":
                run_tasks([Task(1), Task(2)], workers=2, progress=False)
            """
        )
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(source), str(tmp_path)], env=environment)
    deadline = time.monotonic() + SECONDS
    paths = [tmp_path / "1", tmp_path / "2"]
    while time.monotonic() < deadline:
        if all(path.exists() and path.read_text() for path in paths):
            break
        time.sleep(0.05)
    workers = [int(path.read_text()) for path in paths]
    parent.kill()
    parent.wait()
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


# F24 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "full_at"), [("shards", 0), ("shards", 3), ("assemble", 0), ("assemble", 2)]
)
def test_f24_full_disk_leaves_nothing_and_a_rerun_succeeds(
    whole, tmp_path, monkeypatch, module, full_at
):
    from data_prep import assemble

    inputs, expected = whole
    out = tmp_path / "out"
    place = {"shards": shards, "assemble": assemble}[module]
    original = place.write_array
    calls = []

    def full(path, array):
        calls.append(path)
        if len(calls) > full_at:
            path.write_bytes(b"what still fitted")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        original(path, array)

    monkeypatch.setattr(place, "write_array", full)
    with pytest.raises(InputError, match="found a full disk, expected a folder with room"):
        prepare(inputs.config, source=inputs.folder, out=out, progress=False)
    assert hidden(tmp_path) == [".out.lock"]
    assert visible(tmp_path) == []
    monkeypatch.setattr(place, "write_array", original)
    prepare(inputs.config, source=inputs.folder, out=out, progress=False)
    assert digest(out) == expected


def test_f24_space_is_estimated_before_the_start(whole, tmp_path, monkeypatch):
    from data_prep import build as module

    inputs, _ = whole
    monkeypatch.setattr(module, "estimated_bytes", lambda config, plan: 10**18)
    with pytest.raises(InputError, match=r"GB free, expected at least 1000000000\.00 GB"):
        prepare(inputs.config, source=inputs.folder, out=tmp_path / "out", progress=False)
    assert visible(tmp_path) == []


def test_f24_a_file_limit_of_the_system_is_a_clear_error(whole, tmp_path):
    """A write that the kernel itself refuses (file size limit), not one that a test invents."""
    inputs, _ = whole
    hook = """
    import resource
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
    """
    child = start(tmp_path, inputs.folder, tmp_path / "out", hook=hook)
    _, message = child.communicate(timeout=SECONDS)
    assert child.returncode == 2
    assert message.startswith("InputError")
    assert "Traceback" not in message
    assert visible(tmp_path) == ["child.py"]


# F25 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["with space", "\u00fcml\u4e2d", "star*[x]?", "new\nline"])
def test_f25_odd_names_of_folders(whole, tmp_path, name):
    _, expected = whole
    inputs = raw.write_raw(tmp_path / name / "in")
    out = tmp_path / name / f"out {name}"
    prepare(inputs.config, source=inputs.folder, out=out, progress=False)
    assert digest(out) == expected
    assert hidden(out.parent) == [f".{out.name}.lock"]


def test_f25_missing_parents_are_made(whole, tmp_path):
    inputs, expected = whole
    out = tmp_path / "a" / "b" / "out"
    prepare(inputs.config, source=inputs.folder, out=out, progress=False)
    assert digest(out) == expected


def test_f25_relative_paths_survive_a_change_of_folder(whole, tmp_path, monkeypatch):
    inputs, expected = whole
    monkeypatch.chdir(tmp_path)
    original = build.check_inputs

    def moved(*args, **kwargs):
        os.chdir("/")
        return original(*args, **kwargs)

    monkeypatch.setattr(build, "check_inputs", moved)
    source = Path(os.path.relpath(inputs.folder, tmp_path))
    prepare(inputs.config, source=source, out=Path("out"), progress=False)
    assert digest(tmp_path / "out") == expected


def test_f25_output_that_cannot_be_written(whole, tmp_path):
    inputs, _ = whole
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for parent in (tmp_path / "file", tmp_path / "loop", Path("/proc/1/x")):
        with pytest.raises(InputError, match=r"expected a folder that can be written"):
            prepare(inputs.config, source=inputs.folder, out=parent / "out", progress=False)


def test_f25_read_only_folder(whole, tmp_path, monkeypatch):
    inputs, _ = whole

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path))

    monkeypatch.setattr(build, "_sources", refuse)
    with pytest.raises(InputError, match="Read-only file system"):
        prepare(inputs.config, source=inputs.folder, out=tmp_path / "out", progress=False)


def test_f25_read_only_inputs_stay_as_they_are(tmp_path):
    inputs = raw.write_raw(tmp_path / "in")
    before = digest(inputs.folder)
    prepare(inputs.config, source=inputs.folder, out=tmp_path / "out", progress=False)
    assert digest(inputs.folder) == before


def test_f25_existing_output_and_links_need_overwrite(whole, tmp_path):
    inputs, expected = whole
    (tmp_path / "file").write_text("precious")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("file", "dangling"):
        with pytest.raises(InputError, match="--overwrite"):
            prepare(inputs.config, source=inputs.folder, out=tmp_path / name, progress=False)
    assert (tmp_path / "file").read_text() == "precious"
    prepare(
        inputs.config, source=inputs.folder, out=tmp_path / "file", overwrite=True, progress=False
    )
    assert digest(tmp_path / "file") == expected


def test_f25_a_failing_run_keeps_the_old_output(whole, tmp_path):
    inputs, expected = whole
    out = tmp_path / "out"
    prepare(inputs.config, source=inputs.folder, out=out, progress=False)
    broken = raw.write_raw(tmp_path / "in")
    (broken.folder / "signal.bw").write_bytes(b"<html>")
    with pytest.raises(InputError, match="HTML"):
        prepare(broken.config, source=broken.folder, out=out, overwrite=True, progress=False)
    assert digest(out) == expected


def test_f25_empty_output_folder_may_be_used(whole, tmp_path):
    inputs, expected = whole
    (tmp_path / "out").mkdir()
    prepare(inputs.config, source=inputs.folder, out=tmp_path / "out", progress=False)
    assert digest(tmp_path / "out") == expected


# F26 -------------------------------------------------------------------------------------------


def test_f26_a_second_process_is_refused_at_once(whole, tmp_path):
    inputs, _ = whole
    out = tmp_path / "out"
    with (
        file_lock(tmp_path / ".out.lock", what="test"),
        pytest.raises(InputError, match=r"out: found another process that is writing it"),
    ):
        prepare(inputs.config, source=inputs.folder, out=out, progress=False)
    assert visible(tmp_path) == []


def test_f26_two_processes_give_one_valid_dataset(whole, tmp_path):
    inputs, expected = whole
    out = tmp_path / "out"
    children = [start(tmp_path, inputs.folder, out) for _ in range(2)]
    messages = [child.communicate(timeout=SECONDS)[1] for child in children]
    codes = sorted(child.returncode for child in children)
    # The slower one is refused by the lock or by the finished output; both are exit code 2.
    assert codes == [0, 2], messages
    assert digest(out) == expected
    assert hidden(tmp_path) == [".out.lock"]


def test_f26_leftovers_of_dead_processes_are_swept_but_not_those_of_others(whole, tmp_path):
    inputs, _ = whole
    ours, other = tmp_path / ".out.0123456789abcdef.work", tmp_path / ".out2.0123.work"
    for folder in (ours, other):
        (folder / "shards").mkdir(parents=True)
    prepare(inputs.config, source=inputs.folder, out=tmp_path / "out", progress=False)
    assert not ours.exists()
    assert other.exists()
