"""`seq2exp --help` beside an empty Python and `import torch` (target: below 0.5 s).

Every command is started in a fresh process, in turn, so that a busy moment hits all alike.

    python benchmarks/cli_help.py [--quick]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

from common import circumstances, summary, write_result

TARGET_SECONDS = 0.5


def commands() -> dict[str, list[str]]:
    """Return what is started, by the name it has in the result."""
    program = str(Path(sys.executable).with_name("seq2exp"))
    return {
        "python -c pass": [sys.executable, "-c", "pass"],
        "python -c 'import torch'": [sys.executable, "-c", "import torch"],
        "seq2exp --help": [program, "--help"],
        "seq2exp train --help": [program, "train", "--help"],
    }


def children_cpu() -> float:
    """Return the CPU time of finished child processes; wall time also counts what others do."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="3 repeats; writes no result")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in commands()}
    cpu: dict[str, list[float]] = {name: [] for name in commands()}
    for _ in range(3 if options.quick else 11):
        for name, command in commands().items():
            start, used = time.perf_counter(), children_cpu()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - start)
            cpu[name].append(children_cpu() - used)
    times = summary(seconds)
    result = {
        "seconds": times,
        "cpu_seconds": summary(cpu),
        "ratio_to_import_torch": times["seq2exp --help"]["median"]
        / times["python -c 'import torch'"]["median"],
        "target_seconds": TARGET_SECONDS,
        **circumstances("torch"),
    }
    write_result("cli_help", result, quick=options.quick)


if __name__ == "__main__":
    main()
