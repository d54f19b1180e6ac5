"""The compiled scan of the CPU beside the loop over tokens and the chunked scan in torch.

One layer's inner scan: 256 channels, 16 states, batch 1, float32. Every repeat runs all contestants
in turn, so that a busy moment hits all alike; the loop runs once, and not at 200,000 tokens. The
parallel scan of mambapy takes part if it is installed.

    python benchmarks/scan.py [--lengths 2000 20000 200000] [--threads 2] [--repeats 5] [--quick]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import circumstances, summary, write_result
from torch import Tensor

from seq2exp.nn.scan import selective_scan

CHANNELS, STATES = 256, 16
LOOP_AT_MOST = 20_000
TARGETS = {"forward: loop / cpu": 100, "forward: torch / cpu": 10, "both: torch / cpu": 8}
# Memory above the inputs of one forward and backward, in a process of its own.
MEMORY = """
import sys, torch
sys.path.insert(0, {folder!r})
from scan import make_inputs, resident
from seq2exp.nn.scan import selective_scan
warm = make_inputs(64)
selective_scan(*warm, backend={backend!r}).sum().backward()
inputs = make_inputs({length})
with open("/proc/self/clear_refs", "w") as handle:
    handle.write("5")  # forget the peak so far
before = resident("VmRSS")
selective_scan(*inputs, backend={backend!r}).sum().backward()
print(resident("VmHWM") - before)
"""


def resident(key: str) -> int:
    """Return VmRSS or VmHWM of this process in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))


def make_inputs(length: int) -> list[Tensor]:
    torch.manual_seed(0)
    values = (
        torch.randn(1, length, CHANNELS),
        torch.nn.functional.softplus(torch.randn(1, length, CHANNELS) - 4),
        -torch.exp(2 * torch.rand(CHANNELS, STATES)),
        torch.randn(1, length, STATES),
        torch.randn(1, length, STATES),
    )
    return [value.requires_grad_() for value in values]


def forward(inputs: list[Tensor], backend: str) -> None:
    with torch.no_grad():
        selective_scan(*inputs, backend=backend)


def both(inputs: list[Tensor], backend: str) -> None:
    for tensor in inputs:
        tensor.grad = None
    selective_scan(*inputs, backend=backend).sum().backward()


def mambapy_forward(inputs: list[Tensor]) -> None:
    from mambapy.pscan import pscan

    u, delta, A, B, C = inputs
    with torch.no_grad():
        decay = torch.exp(delta[..., None] * A)
        push = delta[..., None] * B[:, :, None] * u[..., None]
        (pscan(decay, push) @ C[..., None]).squeeze(-1)


def contestants(length: int) -> dict[str, Callable[[list[Tensor]], None]]:
    found: dict[str, Callable[[list[Tensor]], None]] = {
        "forward cpu": lambda x: forward(x, "cpu"),
        "forward torch": lambda x: forward(x, "torch"),
        "both cpu": lambda x: both(x, "cpu"),
        "both torch": lambda x: both(x, "torch"),
    }
    if length <= LOOP_AT_MOST:
        found["forward loop"] = lambda x: forward(x, "reference")
        try:
            import mambapy  # noqa: F401

            found["forward mambapy"] = mambapy_forward
        except ImportError:
            pass
    return found


def timed(run: Callable[[list[Tensor]], None], inputs: list[Tensor]) -> float:
    start = time.perf_counter()
    run(inputs)
    return time.perf_counter() - start


def exp_floor(length: int) -> float:
    """Seconds that torch needs for as many exponentials as the forward takes."""
    x = -torch.rand(1 << 20)
    times = [timed(lambda _: torch.exp(x), []) for _ in range(20)]
    return min(times) * length * CHANNELS * STATES / x.numel()


def measure(length: int, repeats: int) -> dict[str, object]:
    inputs = make_inputs(length)
    runs = contestants(length)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats):
        for name, run in runs.items():
            once = name in ("forward loop", "forward mambapy")
            if repeat == 0 or not once:
                times[name].append(timed(run, inputs))
    seconds = summary(times)
    cpu = seconds["forward cpu"]["median"]
    ratios = {
        f"forward: {name.split()[1]} / cpu": seconds[name]["median"] / cpu
        for name in runs
        if name.startswith("forward") and name != "forward cpu"
    }
    ratios["both: torch / cpu"] = seconds["both torch"]["median"] / seconds["both cpu"]["median"]
    ratios["forward: cpu / exp floor of torch"] = cpu / exp_floor(length)
    return {"seconds": seconds, "ratios": ratios}


def memory_over_input(length: int, backend: str) -> float:
    """Return the peak memory of forward and backward, over the bytes of the input u."""
    code = MEMORY.format(folder=str(Path(__file__).parent), backend=backend, length=length)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout) / (4 * length * CHANNELS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[2_000, 20_000, 200_000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="2,000 tokens; writes no result")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lengths = [2_000] if options.quick else options.lengths
    warm = make_inputs(64)
    both(warm, "cpu")
    result = {
        "shape": f"batch 1, {CHANNELS} channels, {STATES} states, float32",
        "threads": options.threads,
        "lengths": {str(length): measure(length, options.repeats) for length in lengths},
        "peak_memory_over_u_bytes": {
            f"{backend} at {lengths[-1]}": memory_over_input(lengths[-1], backend)
            for backend in ("cpu", "torch")
        },
        "targets_at_20000": TARGETS,
        **circumstances("torch", "numba"),
    }
    write_result("scan", result, quick=options.quick)


if __name__ == "__main__":
    main()
