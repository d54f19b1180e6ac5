"""F22, F24, F25 and F26 for training, prediction and element maps; tests/faults/children.py helps.

Files are damaged and processes killed in forks of one child, so that torch is imported once.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seq2exp.cli.main import main
from seq2exp.core.config import dump_yaml
from seq2exp.core.errors import InputError
from seq2exp.core.files import file_lock, sha256
from seq2exp.elements import export
from seq2exp.training.trainer import train
from tests.runs import tiny_config

ROOT = Path(__file__).parents[2]
SECONDS = 300


@pytest.fixture(scope="module")
def children(tmp_path_factory):
    """Findings of every task of tests/faults/children.py."""
    folder = tmp_path_factory.mktemp("children")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.children", str(folder)],
        env=environment, cwd=ROOT, timeout=SECONDS, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


@pytest.fixture
def command(toy, tmp_path):
    dump_yaml(tiny_config(), tmp_path / "c.yaml")
    return ["train", "--config", str(tmp_path / "c.yaml"), "--data", str(toy), "--out"]


def weights(run):
    return sha256(run / "model" / "model.safetensors")


def only_error_lines(text):
    return [line for line in text.splitlines() if line.startswith("error: ")]


# F22 -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(children):
    return children["kills"]


def test_f22_the_moments_were_really_hit(killed):
    cases = killed["cases"]
    assert len(cases) == 9
    for name, case in cases.items():
        assert case["code"] == (130 if "SIGTERM" in name else -9), name
        assert not case["finished"], name
    assert {case["epochs"] for case in cases.values()} == {"absent", 1, 2, 3}


def test_f22_a_killed_training_resumes_to_the_same_bytes(killed):
    whole = killed["whole"]
    assert whole["weights"] != "absent"
    for name, case in killed["cases"].items():
        assert case["again"] == 0, name
        assert case["after"]["weights"] == whole["weights"], name


def test_f22_no_metric_row_is_lost_or_doubled(killed):
    whole = killed["whole"]["metrics"]
    assert [row["epoch"] for row in csv.DictReader(io.StringIO(whole))] == ["0", "1", "2"]
    assert {case["after"]["metrics"] for case in killed["cases"].values()} == {whole}


def test_f22_half_written_files_are_swept(killed):
    assert {str(case["after"]["hidden"]) for case in killed["cases"].values()} == {"[]"}


def test_f22_ctrl_c_and_sigterm_end_with_130_and_one_word(children):
    for case in children["interrupt"].values():
        assert case["code"] == 130
        assert case["log"].splitlines()[-1] == "interrupted"
        assert "Traceback" not in case["log"]
        assert case["state"]["hidden"] == []


@pytest.mark.parametrize("cut", ["", "1", "1,6,0.39", "epo"])
def test_f22_a_cut_row_of_the_metrics_is_written_again(toy, tmp_path, monkeypatch, finished, cut):
    """A full disk cuts the row of epoch 1 (or the header); the resumed table is the whole one."""
    from seq2exp.training.callbacks import MetricsTable

    original = MetricsTable.on_train_epoch_end

    def cutting(self, trainer, module):
        if trainer.current_epoch == 0:
            original(self, trainer, module)
            return
        rows = self.path.read_text()
        self.path.write_text(cut if cut == "epo" else rows + cut)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(MetricsTable, "on_train_epoch_end", cutting)
    with pytest.raises(OSError, match="No space"):
        train(tiny_config(), toy, tmp_path / "run")
    monkeypatch.setattr(MetricsTable, "on_train_epoch_end", original)
    train(tiny_config(), toy, tmp_path / "run")
    table = (tmp_path / "run" / "metrics.csv").read_text()
    if cut == "epo":  # the row of epoch 0 went with its header
        assert [row["epoch"] for row in csv.DictReader(io.StringIO(table))] == ["1"]
    else:
        assert table == (finished / "metrics.csv").read_text()
    assert weights(tmp_path / "run") == weights(finished)


@pytest.mark.parametrize("damage", ["truncated", "empty"])
def test_f22_an_unreadable_checkpoint_is_named(toy, tmp_path, monkeypatch, capsys, command, damage):
    from seq2exp.training import trainer

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    run = tmp_path / "run"
    monkeypatch.setattr(trainer, "save_model", stop)
    assert main([*command, str(run)]) == 130
    monkeypatch.undo()
    last = run / "checkpoints" / "last.ckpt"
    data = last.read_bytes()
    last.write_bytes(b"" if damage == "empty" else data[: len(data) // 2])
    assert main([*command, str(run)]) == 2
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert len(only_error_lines(errors)) == 1
    assert "last.ckpt: found no readable checkpoint" in errors


# F24 -------------------------------------------------------------------------------------------


def test_f24_a_kernel_that_refuses_writes_gives_one_error_and_no_output(children):
    """The kernel limits file sizes; the first file that does not fit ends the command."""
    found = dict(children["full_disk"])
    whole = found.pop("whole")["weights"]
    assert len(found) == 5
    for name, case in found.items():
        assert case["code"] == 2, (name, case["log"])
        assert len(only_error_lines(case["log"])) == 1, (name, case["log"])
        assert "full disk or a limit on file sizes" in case["log"], name
        assert "Traceback" not in case["log"], name
        assert not case["final"], name
        assert case["left"] == [], name
        assert case["again"] == 0, name
        if name.startswith("train"):
            assert case["weights"] == whole, name


def test_f24_a_full_disk_in_the_middle_of_a_checkpoint_keeps_the_old_one(
    toy, tmp_path, monkeypatch, finished
):
    import pytorch_lightning as pl

    original, calls = pl.Trainer.save_checkpoint, []

    def full(self, path, *args, **kwargs):
        calls.append(path)
        if len(calls) == 2:
            Path(path).write_bytes(b"what still fitted")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        original(self, path, *args, **kwargs)

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", full)
    with pytest.raises(OSError, match="No space"):
        train(tiny_config(), toy, tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["best.pt", "last.ckpt"]
    train(tiny_config(), toy, tmp_path / "run")
    assert weights(tmp_path / "run") == weights(finished)
    assert len(calls) == 3  # the first epoch was not trained again


def test_f24_room_for_element_maps_is_asked_for_before_the_bigwigs(
    finished, tmp_path, monkeypatch, capsys
):
    """The bigWig library may crash on a full disk, so it must not get that far."""

    def none_left(folder, num_bytes):
        assert num_bytes > 0
        raise InputError("0.00 GB free")

    monkeypatch.setattr(export, "require_space", none_left)
    assert main(["elements", str(finished), "--out", str(tmp_path / "out")]) == 2
    assert list(tmp_path.iterdir()) == []
    assert "0.00 GB free" in capsys.readouterr().err


def test_f24_a_bigwig_without_its_end_is_no_bigwig(tmp_path):
    path = tmp_path / "x.bw"
    with export.write_bigwig(path, {"c": 100}) as writer:
        writer.add("c", *(__import__("numpy").array([value]) for value in (0, 10, 1.0)))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(OSError, match="No space"):
        export._require_whole(path)


# F25 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["with space", "\u00fcml\u4e2d", "star*[x]?", "new\nline", "-x"])
def test_f25_odd_names_of_run_folders_and_outputs(toy, tmp_path, command, finished, name, capsys):
    run, table = tmp_path / "p" / name, tmp_path / name / "t.parquet"
    assert main([*command, str(run)]) == 0
    assert weights(run) == weights(finished)
    assert main(["predict", str(run), "--out", str(table)]) == 0
    assert table.is_file()


def test_f25_missing_parents_are_made_and_relative_paths_work(
    toy, tmp_path, command, finished, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main([*command, "a/b/run"]) == 0
    assert weights(tmp_path / "a" / "b" / "run") == weights(finished)


def test_f25_outputs_that_cannot_be_written(toy, tmp_path, command, finished, capsys):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for parent in (tmp_path / "file", tmp_path / "loop", Path("/proc/1/x")):
        for line in ([*command, str(parent / "out")],
                     ["predict", str(finished), "--out", str(parent / "out.parquet")],
                     ["elements", str(finished), "--out", str(parent / "out")],
                     ["doctor", "--log-file", str(parent / "log")]):  # fmt: skip
            assert main(line) == 2, line
            errors = capsys.readouterr().err
            assert len(only_error_lines(errors)) == 1, errors
            assert str(parent) in errors
            assert "Traceback" not in errors
    assert (tmp_path / "file").read_text() == "precious"


def test_f25_existing_outputs_need_overwrite(finished, tmp_path, capsys):
    table = tmp_path / "t.parquet"
    table.write_text("precious")
    line = ["predict", str(finished), "--out", str(table)]
    assert main(line) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert table.read_text() == "precious"
    assert main([*line, "--overwrite"]) == 0
    assert table.read_bytes()[:4] == b"PAR1"


def test_f25_a_read_only_dataset_is_enough(toy, tmp_path, command):
    """Nothing is ever written into the dataset (root may write anywhere, so contents decide)."""
    before = {path: path.stat().st_mtime_ns for path in toy.rglob("*")}
    assert main([*command, str(tmp_path / "run")]) == 0
    assert {path: path.stat().st_mtime_ns for path in toy.rglob("*")} == before


# F26 -------------------------------------------------------------------------------------------


def test_f26_a_live_run_folder_refuses_a_second_process(children):
    found = children["rivals"]
    assert (found["first"], found["second"]) == (0, 2)
    assert len(only_error_lines(found["log"])) == 1
    assert "another process that is writing it" in found["log"]
    assert found["state"] == found["alone"]


def test_f26_a_lock_left_by_a_dead_process_does_not_stop_anyone(toy, tmp_path, finished):
    run = tmp_path / "run"
    with file_lock(run / ".lock", what="run"), pytest.raises(InputError, match="another process"):
        train(tiny_config(), toy, run)
    assert (run / ".lock").exists()
    train(tiny_config(), toy, run)
    assert weights(run) == weights(finished)
