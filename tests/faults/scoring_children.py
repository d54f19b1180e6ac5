"""Scoring of variants that is killed, runs out of disk, loses a rank: in forks of one process.

``python -m tests.faults.scoring_children FOLDER`` runs every task of this module and writes the
findings of each to FOLDER/TASK.json. See tests/faults/children.py.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seq2exp.core import shards as core_shards
from seq2exp.core.errors import Seq2ExpError
from seq2exp.variants import claim, merge, parts, scale
from seq2exp.variants.execute import Share
from seq2exp.variants.ranks import Ranks
from seq2exp.variants.scale import score_in_parts
from tests.faults.killing import killing
from tests.variants import scale_fakes as fakes
from tests.variants.scale_fakes import Setting, scored


def run(
    setting: Setting,
    *,
    report: str = "report",
    fake: dict[str, Any] | None = None,
    arm: Callable[[], None] | None = None,
    **options: Any,
) -> int:
    """Score as the command would; return its exit code and leave what it says in a file."""
    if arm is not None:
        arm()
    try:
        outcome = score_in_parts(
            setting.source,
            setting.fake(**(fake or {})),
            fakes.write,
            setting.job(**options),
            progress=False,
        )
    except Seq2ExpError as error:
        (setting.folder / report).write_text(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        (setting.folder / report).write_text("interrupted")
        return 130
    (setting.folder / report).write_text(json.dumps(vars(outcome)))
    return 0


def begin(work: Callable[[], int], environment: dict[str, str] | None = None) -> int:
    """Start work in a fork and return its process id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.environ.update(environment or {})
            code = work()
        finally:
            os._exit(code)
    return pid


def end(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def said(setting: Setting, report: str = "report") -> str:
    path = setting.folder / report
    return path.read_text() if path.exists() else ""


def state(setting: Setting) -> dict[str, Any]:
    return {
        "visible": {name: text.hex() for name, text in setting.visible().items()},
        "hidden": setting.hidden(),
        "parts": len([*setting.folder.rglob("part_*.parquet")]),
    }


# Kills -----------------------------------------------------------------------------------------


def _kill_second_rename() -> None:
    original = scale.publish

    def publish(*args: Any, **kwargs: Any) -> None:
        killing(Path, "replace", 2)
        original(*args, **kwargs)

    scale.publish = publish


def _kill_half_output() -> None:
    original = fakes.write

    def write(parts, targets):
        for number, _ in enumerate(parts):
            for target in targets.values():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text("half an output")
            if number == 4:
                os.kill(os.getpid(), signal.SIGKILL)
        original(parts, targets)

    fakes.write = write


MOMENTS: dict[str, Callable[[], None]] = {
    "before the manifest": lambda: killing(claim, "write_json", 1),
    "in the first shard": lambda: killing(fakes, "score", 1),
    "in the fifth shard": lambda: killing(fakes, "score", 5),
    "with half of the third part": lambda: killing(parts, "finish_shard", 3, half=True),
    "before the third part has its name": lambda: killing(parts, "finish_shard", 3),
    "between the third part and its checksum": lambda: killing(core_shards, "_sync", 6),
    "before the merge": lambda: killing(scale, "merge", 1),
    "with half of the outputs": _kill_half_output,
    "before the outputs are noted as whole": lambda: killing(merge, "_note", 2),
    "before the outputs have their names": lambda: killing(scale, "publish", 1),
    "between two outputs": _kill_second_rename,
    "before the work folder goes": lambda: killing(scale, "remove_work", 1),
    "while the work folder goes": lambda: killing(shutil, "rmtree", 1),
    "when the parts are gone": lambda: killing(shutil, "rmtree", 2),
    "SIGTERM in the fourth shard": lambda: killing(fakes, "score", 4, number=signal.SIGTERM),
}


def kills(folder: Path) -> dict[str, Any]:
    """F23: kill at every moment of the list, look, run again, look again."""
    whole = Setting(folder / "whole")
    run(whole)
    found: dict[str, Any] = {"whole": state(whole), "cases": {}}
    for name, arm in MOMENTS.items():
        setting = Setting(folder / name.replace(" ", "_"))

        def broken(arm: Callable[[], None] = arm, setting: Setting = setting) -> int:
            arm()
            return run(setting)

        code = end(begin(broken))
        between = state(setting)
        before = len(scored(setting.notes))
        again = end(begin(lambda setting=setting: run(setting, report="again")))
        found["cases"][name] = {
            "code": code, "between": between, "again": again, "said": said(setting, "again"),
            "after": state(setting), "scored_again": len(scored(setting.notes)) - before,
        }  # fmt: skip
    return found


def clock(folder: Path) -> dict[str, Any]:
    """F23: kill by the clock, again and again, until a run comes through."""
    setting, moments = Setting(folder / "clock"), random.Random(0)
    codes, seen = [], []
    while 0 not in codes and len(codes) < 60:
        pid = begin(lambda setting=setting: run(setting, fake={"seconds": 0.03}))
        time.sleep(moments.uniform(0.0, 0.12))
        os.kill(pid, signal.SIGKILL if len(codes) % 3 else signal.SIGTERM)
        codes.append(end(pid))
        seen.append(sorted(setting.visible()))
        if codes[-1] and seen[-1] and not any(setting.folder.rglob("merge.json")):
            # Killed between its last step and its end; another would meet finished outputs.
            setting = Setting(folder / f"clock_{time.monotonic_ns()}")
            codes, seen = [], []
    if 0 not in codes:
        codes.append(run(setting))
    return {"codes": codes, "seen": seen, "after": state(setting)}


# Ranks, shares, rivals --------------------------------------------------------------------------


def _port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _ranks(setting: Setting, *, size: int = 2, names: str = "torchrun", **each: dict[str, Any]):
    """Start ranks as torchrun or srun would; return their exit codes and words."""
    keys = {
        "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
        "lightning": ("LOCAL_RANK", "WORLD_SIZE", "LOCAL_RANK"),
        "srun": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    }[names]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _port()}
    pids = []
    for rank in range(size):
        place = dict(zip(keys, (str(rank), str(size), str(rank)), strict=True))
        options = each.get(f"rank{rank}", {})
        report = f"rank{rank}"
        pids.append(begin(lambda o=options, r=report: run(setting, report=r, **o), meeting | place))
    codes = [end(pid) for pid in pids]
    words = [said(setting, f"rank{rank}") for rank in range(size)]
    for rank in range(size):
        (setting.folder / f"rank{rank}").unlink(missing_ok=True)
    return {"codes": codes, "said": words, **state(setting)}


def ranks(folder: Path) -> dict[str, Any]:
    """F23: two and three processes that work together; one is lost; again."""
    found: dict[str, Any] = {}
    for names, size in (("torchrun", 2), ("lightning", 3), ("srun", 2)):
        setting = Setting(folder / names)
        found[names] = _ranks(setting, size=size, names=names)
        found[names]["scored"] = scored(setting.notes)
    lost = Setting(folder / "lost")
    killed = {"rank1": {"fake": {"kill_at": 20, "seconds": 0.05}}}
    found["lost"] = _ranks(lost, **killed)
    found["lost again"] = _ranks(lost)
    found["lost again"]["scored"] = scored(lost.notes)
    done = Setting(folder / "done")  # dies when its parts are there
    found["lost at the end"] = _ranks(done, rank1={"arm": lambda: killing(Ranks, "gather", 2)})
    late = Setting(folder / "late")
    found["leader lost"] = _ranks(late, rank0={"fake": {"kill_at": 0}})
    found["leader lost again"] = _ranks(late)
    exists = Setting(folder / "exists")
    run(exists)
    found["output exists"] = _ranks(exists)
    return found


def broken_rank(folder: Path) -> dict[str, Any]:
    """A rank whose scorer fails says why, and the first rank repeats it."""
    setting = Setting(folder / "broken")
    original = fakes.score

    def score(alleles):
        if int(alleles["record"].iloc[0]) == 21:
            message = "record 22: found no window, expected one. Fix: none"
            raise Seq2ExpError(message)
        return original(alleles)

    fakes.score = score
    found = {"first": _ranks(setting)}
    fakes.score = original
    return {**found, "again": _ranks(setting)}


def shares(folder: Path) -> dict[str, Any]:
    """Jobs of an array at once; then the same with one of them killed."""
    setting = Setting(folder / "array")

    def one(index: int, **fake: Any) -> Callable[[], int]:
        options = {"seconds": 0.02} | fake
        return lambda: run(setting, report=f"job{index}", share=Share(index, 3), fake=options)

    codes = [end(pid) for pid in [begin(one(index)) for index in range(3)]]
    merged = [json.loads(said(setting, f"job{index}"))["merged"] for index in range(3)]
    found: dict[str, Any] = {"all": {"codes": codes, "merged": merged, **state(setting)}}
    setting = Setting(folder / "killed_array")
    work = [one(0), one(1, kill_at=25), one(2)]
    codes = [end(pid) for pid in [begin(each) for each in work]]
    found["killed"] = {"codes": codes, **state(setting)}
    codes = [end(begin(one(1)))]
    found["again"] = {"codes": codes, **state(setting), "said": said(setting, "job1")}
    return found


def rivals(folder: Path) -> dict[str, Any]:
    """F26: a second process is refused while the first one works."""
    setting = Setting(folder / "rivals")
    first = begin(lambda: run(setting, report="first", fake={"seconds": 0.1}))
    while not scored(setting.notes):
        time.sleep(0.01)
    second = end(begin(lambda: run(setting, report="second")))
    return {"second": second, "first": end(first), "said": said(setting, "second"),
            **state(setting)}  # fmt: skip


def full_disk(folder: Path) -> dict[str, Any]:
    """F24: the kernel refuses files above a size; whole parts stay, and the next run goes on."""
    found = {}
    for name, limit in (("parts", 2000), ("outputs", 10_000)):
        setting = Setting(folder / name)

        def limited(setting: Setting = setting, limit: int = limit) -> int:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            return run(setting)

        code = end(begin(limited))
        words, between, before = said(setting), state(setting), len(scored(setting.notes))
        again = end(begin(lambda setting=setting: run(setting)))
        found[name] = {
            "code": code, "said": words, "between": between, "again": again, **state(setting),
            "scored_again": len(scored(setting.notes)) - before,
        }  # fmt: skip
    return found


TASKS = (kills, clock, ranks, broken_rank, shares, rivals, full_disk)

if __name__ == "__main__":
    root = Path(sys.argv[1])
    for task in TASKS:
        if sys.argv[2:] and task.__name__ not in sys.argv[2:]:
            continue
        begun = time.monotonic()
        findings = task(root / f"{task.__name__}_work")
        findings["seconds"] = time.monotonic() - begun
        (root / f"{task.__name__}.json").write_text(json.dumps(findings))
