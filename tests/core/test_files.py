from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from seq2exp.core.errors import FormatError, InputError
from seq2exp.core.files import (
    atomic_directory,
    atomic_file,
    file_lock,
    read_json,
    require_space,
    safe_name,
    sha256,
    write_json,
)


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a.txt") as partial:
        partial.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_the_final_path_appears_only_at_the_end_and_keeps_its_suffix(tmp_path):
    with atomic_file(tmp_path / "a.bed.gz") as partial:
        assert partial.name.endswith(".bed.gz")
        partial.write_text("x")
        assert not (tmp_path / "a.bed.gz").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a.bed.gz"]


def test_an_existing_output_needs_overwrite(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(InputError, match="--overwrite"), atomic_file(path):
        pytest.fail("the block must not run")
    with atomic_file(path, overwrite=True) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"


def test_an_output_that_appeared_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(InputError), atomic_file(path) as partial:
        partial.write_text("mine")
        path.write_text("theirs")
    assert path.read_text() == "theirs"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "d"
    target.mkdir()
    (target / "old").touch()
    with atomic_directory(target, overwrite=True) as partial:
        (partial / "new").touch()
        assert (target / "old").exists()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_failed_folder_keeps_the_old_one(tmp_path):
    target = tmp_path / "d"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(RuntimeError), atomic_directory(target, overwrite=True):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert [path.name for path in target.iterdir()] == ["old"]


def test_a_second_process_is_refused_at_once(tmp_path):
    lock = tmp_path / "x.lock"
    code = (
        "import sys; from pathlib import Path; from seq2exp.core.files import file_lock\n"
        f"with file_lock(Path({str(lock)!r}), what='run'): pass"
    )
    with file_lock(lock, what="run"):
        held = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
    assert "another process" in held.stderr
    assert held.returncode != 0
    free = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert free.returncode == 0


def test_too_little_disk_space_is_told_before_the_start(tmp_path):
    with pytest.raises(InputError, match="GB free"):
        require_space(tmp_path / "not" / "there", 10**18)
    require_space(tmp_path, 1)


def test_sha256_of_the_empty_file_is_the_published_constant(tmp_path):
    (tmp_path / "e").touch()
    assert sha256(tmp_path / "e").startswith("e3b0c44298fc1c149afbf4c8996fb924")


def test_json_round_trip_and_refusal(tmp_path):
    write_json({"b": [1, None], "a": 0.5}, tmp_path / "x.json")
    assert read_json(tmp_path / "x.json") == {"a": 0.5, "b": [1, None]}
    with pytest.raises(ValueError, match="JSON"):
        write_json({"a": float("nan")}, tmp_path / "y.json")
    (tmp_path / "x.json").write_text('{"a": 1')
    with pytest.raises(FormatError, match="not JSON"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", "", "tab\there", "<script>"])
def test_a_name_cannot_leave_its_folder(name, tmp_path):
    path = (tmp_path / safe_name(name)).resolve()
    assert path.parent == tmp_path.resolve()
    assert Path(safe_name(name)).name == safe_name(name)


def test_what_a_killed_process_left_is_swept_and_a_living_one_is_not(tmp_path):
    dead = tmp_path / ".0123456789ab.partial.out"
    other = tmp_path / ".0123456789ab.partial.out2"  # of another folder
    for folder in (dead, other):
        folder.mkdir()
        (folder / "part").write_text("x")
    with atomic_directory(tmp_path / "out", overwrite=True) as living:
        assert not dead.exists()
        assert other.exists()
        (living / "mine").write_text("first")
        with atomic_directory(tmp_path / "out", overwrite=True) as second:
            assert living.is_dir()
            (second / "mine").write_text("second")
        assert (living / "mine").read_text() == "first"
    assert (tmp_path / "out" / "mine").read_text() == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "out"]
