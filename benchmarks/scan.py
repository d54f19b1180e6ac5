"""The compiled scan of the CPU beside every other way to compute it, and beside its floor.

One layer's inner scan: 256 channels, 16 states, batch 1, float32; and one whole causal layer of
width 128 beside that of transformers. Every repeat runs all contestants in turn, so that a busy
moment hits all alike; slow ones run twice. mambapy and transformers take part if installed. "torch"
is our own backend in plain torch, chunk by chunk with a hand-written backward; "cumulative" is a
chunk-vectorised scan as one would write it down, with torch's gradient.

    python benchmarks/scan.py [--lengths 2000 20000 200000] [--threads 2] [--repeats 7]
        [--patience 60] [--quick]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import circumstances, summary, wait_for_quiet, write_result
from numba import prange
from scan_peers import hugging_face_layers, per_step_loop, scan_cumulative, scan_mambapy
from torch import Tensor

from seq2exp.nn.lanes import WIDTH, compiled, exp2, load, store
from seq2exp.nn.numba_use import use_threads
from seq2exp.nn.scan import selective_scan

CHANNELS, STATES, LAYER_WIDTH = 256, 16, 128
# The largest length of each slow contestant; beyond it needs minutes or more than 16 GB.
AT_MOST = {
    "loop": 20_000,
    "mambapy": 20_000,
    "transformers": 20_000,
    "cumulative 32 both": 20_000,
    "cumulative 128 both": 20_000,
}
SLOW = ("loop", "mambapy", "transformers")
SLOW_REPEATS = 2
TARGETS = {
    "forward: loop / cpu": "at least 100",
    "forward: cumulative 32 and 128 / cpu": "at least 10",
    "both: cumulative 32 and 128 / cpu": "at least 8",
    "forward: cpu / floor of own exp": "at most 3",
    "peak memory at 200000 over the bytes of u": "below 3",
}
# Memory above the inputs of one forward and backward, in a process of its own.
MEMORY = """
import sys, torch
sys.path.insert(0, {folder!r})
from scan import make_inputs, resident
from seq2exp.nn.scan import selective_scan
torch.set_num_threads({threads})
warm = make_inputs(64)
selective_scan(*warm, backend={backend!r}).sum().backward()
inputs = make_inputs({length})
weights = torch.ones_like(inputs[0])
with open("/proc/self/clear_refs", "w") as handle:
    handle.write("5")  # forget the peak so far
before = resident("VmRSS")
if {dense}:
    (selective_scan(*inputs, backend={backend!r}) * weights).sum().backward()
else:
    selective_scan(*inputs, backend={backend!r}).sum().backward()
print(resident("VmHWM") - before)
"""


@compiled("void(f4[:,:], i8)", parallel=True)
def exponentials(x: np.ndarray, repeats: int) -> None:
    """Take the kernel's own exponential of numbers that stay in the cache."""
    for row in prange(x.shape[0]):
        for _ in range(repeats):
            for left in range(0, x.shape[1], WIDTH):
                store(x, (row, left), exp2(load(x, (row, left)) - np.float32(1)))


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


def scans() -> dict[str, Callable[..., Tensor]]:
    """All ways to scan, ours first."""
    found: dict[str, Callable[..., Tensor]] = {
        "cpu": lambda *x: selective_scan(*x, backend="cpu"),
        "torch": lambda *x: selective_scan(*x, backend="torch"),
        "cumulative 32": lambda *x: scan_cumulative(*x, chunk=32),
        "cumulative 128": lambda *x: scan_cumulative(*x, chunk=128),
        "loop": per_step_loop,
    }
    try:
        import mambapy  # noqa: F401
    except ImportError:
        return found
    return {**found, "mambapy": scan_mambapy}


def contestants(length: int) -> dict[str, Callable[[], object]]:
    """What is timed at a length: scans forward and with gradient, and whole layers."""
    inputs = make_inputs(length)
    x = torch.randn(1, length, LAYER_WIDTH)

    def forward(run: Callable[..., Tensor]) -> Tensor:
        with torch.no_grad():
            return run(*inputs)

    def both(run: Callable[..., Tensor]) -> None:
        for tensor in inputs:
            tensor.grad = None
        run(*inputs).sum().backward()

    def layer(run: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.no_grad():
            return run(x)

    runs: dict[str, Callable[[], object]] = {}
    for name, run in scans().items():
        if length <= AT_MOST.get(name, length):
            runs[f"forward {name}"] = lambda run=run: forward(run)
        gradients = name not in SLOW and length <= AT_MOST.get(f"{name} both", length)
        if gradients:
            runs[f"both {name}"] = lambda run=run: both(run)
    for name, run in hugging_face_layers(LAYER_WIDTH).items():
        if length <= AT_MOST.get(name, length):
            runs[f"layer {name}"] = lambda run=run: layer(run)
    return runs


def check_equal(length: int = 500) -> dict[str, float]:
    """Return how far each contestant is from the float64 definition, over its largest value."""
    inputs = [tensor.detach() for tensor in make_inputs(length)]
    exact = per_step_loop(*(tensor.double() for tensor in inputs))
    gaps = {
        name: ((run(*inputs) - exact).abs().max() / exact.abs().max()).item()
        for name, run in scans().items()
    }
    layers = hugging_face_layers(LAYER_WIDTH)
    if layers:
        x = torch.randn(1, length, LAYER_WIDTH)
        with torch.no_grad():
            ours, theirs = layers["ours"](x), layers["transformers"](x)
        gaps["layer"] = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    assert max(gaps.values()) < 1e-5, gaps
    return gaps


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def exp_rates() -> dict[str, Callable[[], float]]:
    """Seconds per exponential on all threads: torch's, and the kernel's own."""
    x = -torch.rand(1 << 20)
    out = torch.empty_like(x)
    small = torch.zeros(use_threads(), 2048)
    repeats = 2000

    def ours() -> float:
        return timed(lambda: exponentials(small.numpy(), repeats)) / (small.numel() * repeats)

    return {
        "torch": lambda: min(timed(lambda: torch.exp(x, out=out)) for _ in range(5)) / x.numel(),
        "own": ours,
    }


def measure(length: int, repeats: int, patience: float) -> dict[str, Any]:
    runs, rates = contestants(length), exp_rates()
    times: dict[str, list[float]] = {name: [] for name in runs}
    floors: dict[str, list[float]] = {name: [] for name in rates}
    idle = []
    for repeat in range(repeats):
        idle.append(wait_for_quiet(patience))
        for name, run in runs.items():
            slow = name.split()[1] in SLOW or name.startswith("both cumulative")
            if repeat < SLOW_REPEATS or not slow:
                times[name].append(timed(run))
        for name, rate in rates.items():
            floors[name].append(rate() * length * CHANNELS * STATES)
    seconds, floor_seconds = summary(times), summary(floors)
    return {
        "seconds": seconds,
        "exp_floor_seconds": floor_seconds,
        "ratios_of_medians": ratios(seconds, floor_seconds, "median"),
        "ratios_of_minima": ratios(seconds, floor_seconds, "min"),
        "idle_share_before_each_repeat": idle,
        "load_1_min": round(os.getloadavg()[0], 2),
    }


def ratios(
    seconds: dict[str, dict[str, float]], floors: dict[str, dict[str, float]], which: str
) -> dict[str, float]:
    """Every contestant's time over ours, and ours over the floors; minima suit a busy machine."""
    found = {}
    for kind, base in (("forward", "forward cpu"), ("both", "both cpu"), ("layer", "layer ours")):
        for name in (name for name in seconds if name.startswith(kind) and name != base):
            label = f"{kind}: {name.removeprefix(kind + ' ')} / {base.split()[1]}"
            found[label] = seconds[name][which] / seconds[base][which]
    for name, values in floors.items():
        found[f"forward: cpu / floor of {name} exp"] = seconds["forward cpu"][which] / values[which]
    return found


def memory_over_input(length: int, backend: str, threads: int, *, dense: bool) -> float:
    """Return the peak memory of forward and backward, over the bytes of the input u."""
    code = MEMORY.format(
        folder=str(Path(__file__).parent),
        backend=backend,
        length=length,
        dense=dense,
        threads=threads,
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout) / (4 * length * CHANNELS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[2_000, 20_000, 200_000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--patience", type=float, default=0, help="seconds to wait for an idle machine, per repeat"
    )
    parser.add_argument("--quick", action="store_true", help="2,000 tokens; writes no result")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lengths = [2_000] if options.quick else options.lengths
    gaps = check_equal()
    selective_scan(*make_inputs(64), backend="cpu").sum().backward()
    result = {
        "shape": f"batch 1, {CHANNELS} channels, {STATES} states, float32",
        "threads": options.threads,
        "largest_error_over_largest_value": gaps,
        "lengths": {
            str(length): measure(length, options.repeats, options.patience) for length in lengths
        },
        "peak_memory_over_u_bytes": {
            f"{backend} at {lengths[-1]}, gradient {kind}": memory_over_input(
                lengths[-1], backend, options.threads, dense=kind == "in memory"
            )
            for backend in ("cpu", "torch")
            for kind in ("of a sum", "in memory")
        },
        "targets_at_20000": TARGETS,
        **circumstances("torch", "numba"),
    }
    write_result("scan", result, quick=options.quick)


if __name__ == "__main__":
    main()
