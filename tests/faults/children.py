"""Work for child processes: one import of torch, then a fork for every case.

``python -m tests.faults.children FOLDER`` runs every task of this module and writes the findings
of each to FOLDER/TASK.json. A task forks for each case, so that a case may be killed, run out of
disk or change the process without touching the next one.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from seq2exp.cli.main import main
from seq2exp.core.config import dump_yaml
from seq2exp.training import callbacks, trainer
from seq2exp.training.module import ExpressionModule
from seq2exp.training.trainer import train
from tests.faults.killing import killing
from tests.runs import tiny_config
from tests.toys import toy_dataset

EPOCHS, STEPS = 3, 9  # 24 genes in batches of 8
CONFIG: dict[str, Any] = {"fit": {"max_epochs": EPOCHS, "ema_decay": 0.9}}


def forked(work: Callable[[], int | None], log: Path | None = None) -> int:
    """Run ``work`` in a fork; return its exit code, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = _logged(work, log) or 0
        except KeyboardInterrupt:
            code = 130
        except BaseException:  # noqa: BLE001 - the fork must end here, whatever happened
            traceback.print_exc()
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status)


def _logged(work: Callable[[], int | None], log: Path | None) -> int | None:
    if log is None:
        return work()
    with log.open("w") as out, redirect_stderr(out), redirect_stdout(out):
        return work()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "absent"


def state(run: Path) -> dict[str, Any]:
    """What a user would compare, and what should not lie around."""
    metrics = run / "metrics.csv"
    return {
        "weights": digest(run / "model" / "model.safetensors"),
        "metrics": metrics.read_text() if metrics.is_file() else "",
        "hidden": sorted(p.name for p in run.rglob(".*") if p.name != ".lock"),
    }


def checkpoint_epoch(run: Path) -> int | str:
    """Number of finished epochs in last.ckpt; "absent" before the first one is whole."""
    path = run / "checkpoints" / "last.ckpt"
    if not path.is_file():
        return "absent"
    return int(torch.load(path, weights_only=True)["epoch"]) + 1


def _moments() -> dict[str, Callable[[], None]]:
    clock = random.Random(0)
    step = ExpressionModule, "training_step"
    first, second, third = sorted(clock.sample(range(1, STEPS + 1), 3))
    row = callbacks.MetricsTable, "on_train_epoch_end"
    save = callbacks.Checkpoints, "on_train_epoch_end"
    return {
        f"step {first}": lambda: killing(*step, first),
        f"step {second}": lambda: killing(*step, second),
        f"SIGTERM in step {third}": lambda: killing(*step, third, number=signal.SIGTERM),
        "before the row of epoch 2": lambda: killing(*row, 2),
        "between the row and the checkpoint of epoch 2": lambda: killing(*save, 2),
        "inside the first checkpoint": lambda: killing(pl.Trainer, "save_checkpoint", 1, half=True),
        "inside the third checkpoint": lambda: killing(pl.Trainer, "save_checkpoint", 3, half=True),
        "inside the best weights": _kill_best,
        "inside the model folder": _kill_model,
    }


def kills(folder: Path) -> dict[str, Any]:
    """F22: kill a training at every moment of the list, look, resume, look again."""
    toy = toy_dataset(folder / "toy")
    forked(lambda: train(tiny_config(**CONFIG), toy, folder / "whole"))
    found: dict[str, Any] = {"whole": state(folder / "whole"), "cases": {}}
    for name, arm in _moments().items():
        run = folder / name.replace(" ", "_")

        def broken(arm: Callable[[], None] = arm, run: Path = run) -> None:
            arm()
            train(tiny_config(**CONFIG), toy, run)

        code = forked(broken, folder / "log")
        between = checkpoint_epoch(run)
        finished = (run / "model").exists()
        again = forked(lambda run=run: train(tiny_config(**CONFIG), toy, run))
        found["cases"][name] = {
            "code": code, "epochs": between, "finished": finished, "again": again,
            "after": state(run),
        }  # fmt: skip
    return found


def _kill_best() -> None:
    original = callbacks.atomic_file

    def dying(path: Path, **kwargs: Any) -> Any:
        if Path(path).name == "best.pt" and Path(path).exists():
            Path(path).with_name(".0123456789ab.partial.best.pt").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        return original(path, **kwargs)

    callbacks.atomic_file = dying


def _kill_model() -> None:
    def dying(model: Any, card: Any, folder: Path) -> None:
        partial = folder.with_name(".0123456789ab.partial.model")
        partial.mkdir()
        (partial / "model.safetensors").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    trainer.save_model = dying


def interrupt(folder: Path) -> dict[str, Any]:
    """Ctrl-C and SIGTERM during `seq2exp train`: the exit code and what is printed."""
    toy = toy_dataset(folder / "toy")
    dump_yaml(tiny_config(**CONFIG), folder / "c.yaml")
    found = {}
    for name in ("SIGINT", "SIGTERM"):
        out = folder / name

        def work(name: str = name, out: Path = out) -> int:
            # What is started in the background of a shell ignores it.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            # Early: a busy machine may hand the signal over a few steps late.
            killing(ExpressionModule, "training_step", 2, number=getattr(signal, name))
            command = ["train", "--config", str(folder / "c.yaml"), "--data", str(toy)]
            return main([*command, "--out", str(out)])

        code = forked(work, folder / "log")
        found[name] = {"code": code, "log": (folder / "log").read_text(), "state": state(out)}
    return found


def limited(arguments: list[str], num_bytes: int | None) -> int:
    """Run a command with a limit on the size of every file: the kernel refuses the write."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if num_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
    return main(arguments)


def full_disk(folder: Path) -> dict[str, Any]:
    """F24: `train`, `predict` and `elements` under ever larger limits, then without one."""
    toy = toy_dataset(folder / "toy")
    dump_yaml(tiny_config(**CONFIG), folder / "c.yaml")
    run = folder / "run"
    forked(lambda: train(tiny_config(**CONFIG), toy, run))
    commands = {
        "train": ["train", "--config", str(folder / "c.yaml"), "--data", str(toy), "--out"],
        "predict": ["predict", str(run), "--out"],
        "elements": ["elements", str(run), "--plots", "0", "--out"],
    }
    found: dict[str, Any] = {"whole": state(run)}
    for name, command in commands.items():
        for limit in LIMITS[name]:
            out = folder / f"{name}_{limit}" / ("out.parquet" if name == "predict" else "out")
            out.parent.mkdir()
            log = folder / "log"
            code = forked(lambda c=command, o=out, n=limit: limited([*c, str(o)], n), log)
            text = log.read_text()
            final = out / "model" if name == "train" else out
            there = final.exists()
            left = sorted(p.name for p in out.parent.rglob(".*") if p.name != ".lock")
            again = forked(lambda c=command, o=out: limited([*c, str(o)], None), log)
            found[f"{name} {limit}"] = {
                "code": code, "log": text, "final": there, "left": left, "again": again,
                "weights": digest(out / "model" / "model.safetensors"),
            }  # fmt: skip
    return found


LIMITS = {"train": [3000, 40_000], "predict": [500], "elements": [1500, 5000]}


def rivals(folder: Path) -> dict[str, Any]:
    """F26: a second training into the run folder of a live one."""
    toy = toy_dataset(folder / "toy")
    run, go = folder / "run", folder / "go"
    forked(lambda: train(tiny_config(**CONFIG), toy, folder / "alone"))
    dump_yaml(tiny_config(**CONFIG), folder / "c.yaml")
    pid = os.fork()
    if pid == 0:
        original = ExpressionModule.training_step

        def waiting(self: Any, batch: Any, batch_idx: int) -> Any:
            (folder / "started").touch()
            while not go.exists():
                time.sleep(0.02)
            return original(self, batch, batch_idx)

        ExpressionModule.training_step = waiting
        code = 1
        try:
            train(tiny_config(**CONFIG), toy, run)
            code = 0
        finally:
            os._exit(code)
    while not (folder / "started").exists():
        time.sleep(0.02)
    command = ["train", "--config", str(folder / "c.yaml"), "--data", str(toy), "--out", str(run)]
    second = forked(lambda: main(command), folder / "log")
    go.touch()
    first = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {
        "first": first, "second": second, "log": (folder / "log").read_text(),
        "state": state(run), "alone": state(folder / "alone"),
    }  # fmt: skip


def run_all(folder: Path) -> None:
    torch.set_num_threads(1)
    for task in (kills, interrupt, full_disk, rivals):
        place = folder / task.__name__
        place.mkdir()
        (folder / f"{task.__name__}.json").write_text(json.dumps(task(place)))


if __name__ == "__main__":
    run_all(Path(sys.argv[1]))
