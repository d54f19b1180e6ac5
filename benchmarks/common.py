"""What every benchmark records: hardware, load, date, versions; where results go."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["RESULTS", "circumstances", "summary", "wait_for_quiet", "write_result"]

RESULTS = Path(__file__).parent / "results"


def circumstances(*packages: str) -> dict[str, Any]:
    """Return date, hardware, load and the versions of seq2exp, Python and the named packages."""
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "hardware": f"{platform.machine()}, {_processor()}, {os.cpu_count()} cores",
        "load_1_min": round(os.getloadavg()[0], 2),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("seq2exp", *packages)},
        },
    }


def summary(times: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Return median and smallest time per name, in the unit given."""
    return {
        name: {"median": float(np.median(values)), "min": min(values), "n": len(values)}
        for name, values in times.items()
    }


def write_result(name: str, result: Mapping[str, Any], *, quick: bool = False) -> None:
    """Print a result and, unless it was a quick look, write it into ``results/NAME.json``."""
    text = json.dumps({"benchmark": name, **result}, indent=2) + "\n"
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(text)
    print(text, end="")


def wait_for_quiet(seconds: float) -> float:
    """Wait until half a second passes in which the processors idle, at most so long (Linux).

    Return the share of idle time in that half second, 0 to 1.
    """
    end = time.monotonic() + seconds
    while True:
        before = _idle_and_total()
        time.sleep(0.5)
        after = _idle_and_total()
        share = (after[0] - before[0]) / max(1, after[1] - before[1])
        if share > 0.9 or time.monotonic() >= end:
            return round(share, 2)


def _idle_and_total() -> tuple[int, int]:
    times = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return times[3] + times[4], sum(times[:8])


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"
