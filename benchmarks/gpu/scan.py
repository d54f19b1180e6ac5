"""The selective scan of GPUs: parity, times, memory, and how far from the floors of the device.

One layer's inner scan with a gate, skip, bias and softplus: batch 1, 256 channels, 16 states.
Every repeat runs all contestants in turn. `one` is one direction, `two` both directions: in one
launch for triton, one after the other for the others. mamba_ssm takes part if it works here.

    benchmarks/gpu.sh [--quick]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from importlib.metadata import PackageNotFoundError, version

import torch
from common import circumstances, summary, write_result
from torch import Tensor

from seq2exp.nn.scan import ScanInputs, backend_states, bidirectional_scan, selective_scan

CHANNELS, STATES = 256, 16
EXP_PER_CLOCK = 16  # of one multiprocessor; the number that the derivation of the floors assumes
# Largest error allowed, relative to the largest number of the same tensor.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}
LOOP_AT_MOST = 5_000  # beyond it the chunked scan in float64 is the reference


def make_inputs(
    length: int, dtype: torch.dtype, device: torch.device, *, channels: int | None = None
) -> ScanInputs:
    torch.manual_seed(0)
    channels = channels or CHANNELS

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device)

    tokens, rows = (1, length, channels), (1, length, STATES)
    inputs = ScanInputs(
        normal(*tokens).to(dtype),
        normal(*tokens).to(dtype),
        -torch.exp(2 * torch.rand(channels, STATES, device=device)),
        normal(*rows).to(dtype),
        normal(*rows).to(dtype),
        torch.zeros(1, channels, STATES, device=device),
        D_E=normal(channels),
        z_BLE=normal(*tokens).to(dtype),
        delta_bias_E=normal(channels) - 4,
        delta_softplus=True,
    )
    return with_leaves(inputs)


def leaves_of(inputs: ScanInputs) -> dict[str, Tensor]:
    tensors = {item.name: getattr(inputs, item.name) for item in fields(inputs)}
    return {
        name: tensor
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor) and name != "initial_state_BEN"
    }


def with_leaves(inputs: ScanInputs) -> ScanInputs:
    return replace(
        inputs, **{k: v.detach().clone().requires_grad_() for k, v in leaves_of(inputs).items()}
    )


def one(inputs: ScanInputs, backend: str) -> Tensor:
    return selective_scan(
        inputs.u_BLE, inputs.delta_BLE, inputs.A_EN, inputs.B_BLN, inputs.C_BLN, D_E=inputs.D_E,
        z_BLE=inputs.z_BLE, delta_bias_E=inputs.delta_bias_E, delta_softplus=True,
        reverse=inputs.reverse, backend=backend,
    )  # fmt: skip


def two(inputs: ScanInputs, backend: str) -> Tensor:
    y_forward, y_backward = bidirectional_scan(inputs, inputs, backend=backend)
    return y_forward + y_backward


def numbers(inputs: ScanInputs, backend: str) -> dict[str, Tensor]:
    leaves = leaves_of(inputs)
    y = two(inputs, backend)
    waves = torch.sin(torch.arange(y.numel(), device=y.device, dtype=torch.float64)).view_as(y)
    grads = torch.autograd.grad(
        (y * waves.to(y.dtype)).sum(dtype=torch.float32), [*leaves.values()]
    )
    return {"y": y.detach()} | {f"gradient of {k}": g for k, g in zip(leaves, grads, strict=True)}


def parity(backend: str, length: int, dtype: torch.dtype, device: torch.device) -> dict[str, float]:
    """Largest error of each output and gradient over its largest number, both directions."""
    channels = 40 if length <= LOOP_AT_MOST else CHANNELS
    inputs = make_inputs(length, dtype, device, channels=channels)
    exact = with_leaves(inputs.cast(torch.float64))
    found = numbers(inputs, backend)
    wanted = numbers(exact, "reference" if length <= LOOP_AT_MOST else "torch")
    return {
        name: float((found[name].double() - true).abs().max() / true.abs().max())
        for name, true in wanted.items()
    }


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forward(run: Callable[[ScanInputs, str], Tensor], inputs: ScanInputs, backend: str) -> None:
    with torch.no_grad():
        run(inputs, backend)


def both(run: Callable[[ScanInputs, str], Tensor], inputs: ScanInputs, backend: str) -> None:
    y = run(inputs, backend)
    torch.autograd.grad(y, [*leaves_of(inputs).values()], torch.ones_like(y))


def measure(
    length: int, dtype: torch.dtype, device: torch.device, backends: list[str], repeats: int
) -> dict[str, object]:
    """Milliseconds and peak memory of every contestant, after one run that is not counted."""
    inputs = make_inputs(length, dtype, device)
    contestants = {
        f"{work.__name__} {ways.__name__} {backend}": (work, ways, backend)
        for backend in backends
        for ways in (one, two)
        for work in (forward, both)
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    memory: dict[str, int] = {}
    for repeat in range(repeats + 1):
        for name, (work, ways, backend) in contestants.items():
            if repeat > 1 and backend == "torch" and length > 20_000:
                continue  # seconds per run
            wait(device)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
                before = torch.cuda.memory_allocated(device)
            start = time.perf_counter()
            work(ways, inputs, backend)
            wait(device)
            if repeat:
                times[name].append(1e3 * (time.perf_counter() - start))
            if device.type == "cuda":
                memory[name] = torch.cuda.max_memory_allocated(device) - before
    found = summary(times)
    floor = floors(length, dtype, device)
    least = max(floor["exp_ms"], floor["traffic_ms"])
    return {
        "milliseconds": found,
        "peak_memory_bytes": memory,
        "floors": floor,
        "forward two triton over its floor": found["forward two triton"]["median"] / (2 * least)
        if "triton" in backends
        else None,
    }


def work_of(length: int, dtype: torch.dtype) -> dict[str, int]:
    """Exponentials, and bytes of u, delta, z and y, of one direction's forward."""
    size = torch.empty((), dtype=dtype).element_size()
    return {"exp": length * CHANNELS * STATES, "bytes": 4 * length * CHANNELS * size}


def floors(length: int, dtype: torch.dtype, device: torch.device) -> dict[str, float]:
    """Derived least milliseconds of one direction's forward: exponentials, and memory traffic."""
    if device.type != "cuda":
        return {"exp_ms": float("nan"), "traffic_ms": float("nan")}
    properties, work = torch.cuda.get_device_properties(device), work_of(length, dtype)
    clock = 1e3 * getattr(properties, "clock_rate", 1_980_000)
    rate = properties.multi_processor_count * EXP_PER_CLOCK * clock
    return {
        "exp_ms": 1e3 * work["exp"] / rate,
        "traffic_ms": 1e3 * work["bytes"] / copy_rate(device),
        "assumed_exp_per_clock_and_multiprocessor": EXP_PER_CLOCK,
        "clock_hz": clock,
    }


def copy_rate(device: torch.device) -> float:
    """Measured bytes per second, read and written, of a copy of 1 GiB."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(6):
        wait(device)
        start = time.perf_counter()
        target.copy_(source)
        wait(device)
        times.append(time.perf_counter() - start)
    return 2 * source.numel() / min(times[1:])


def usable(device: torch.device) -> tuple[list[str], dict[str, str | None]]:
    failures, _ = backend_states(device)
    names = [name for name in ("triton", "torch", "mamba_ssm") if not failures.get(name, "absent")]
    return names, failures


def versions() -> list[str]:
    found = []
    for name in ("torch", "triton", "mamba-ssm"):
        try:
            version(name)
        except PackageNotFoundError:
            continue
        found.append(name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[2_000, 20_000, 200_000])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="2,000 tokens; writes no result")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device that torch can use; nothing was run or written", file=sys.stderr)
        sys.exit(2)
    device = torch.device("cuda", torch.cuda.current_device())
    backends, failures = usable(device)
    lengths = [2_000] if options.quick else options.lengths
    errors = {
        f"{backend} {str(dtype).removeprefix('torch.')} {length}": parity(
            backend, length, dtype, device
        )
        for backend in backends
        for dtype in TOLERANCE
        for length in (1, 37, 64, 1_000, 4_097, *lengths[1:2])
    }
    wrong = [
        name
        for name, found in errors.items()
        if not max(found.values()) <= TOLERANCE[getattr(torch, name.split()[1])]
    ]
    result = {
        "device": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "shape": f"batch 1, {CHANNELS} channels, {STATES} states",
        "unusable_backends": {name: reason for name, reason in failures.items() if reason},
        "largest_relative_errors": errors,
        "too_large_errors": wrong,
        "lengths": {
            f"{str(dtype).removeprefix('torch.')} {length}": measure(
                length, dtype, device, backends, options.repeats
            )
            for dtype in TOLERANCE
            for length in lengths
        },
        **circumstances(*versions()),
    }
    write_result(f"gpu_scan_{result['date']}", result, quick=options.quick)
    if wrong or "triton" not in backends:
        sys.exit(1)


if __name__ == "__main__":
    main()
