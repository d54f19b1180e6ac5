"""How much memory a machine has left, and how much a piece of work holds at its height."""

from __future__ import annotations

import gc
import os
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Usage", "available_bytes", "measure"]

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Usage:
    """What one call cost."""

    peak_bytes: int
    """Most bytes of tensors that were alive at once, those from before the call not counted."""
    seconds: float
    """Duration of the faster of two calls after a warm-up, without the counting."""


def available_bytes(device: torch.device) -> int | None:
    """Return the memory that a process can still take on a device; None where nobody says.

    On Linux the limit of the control group (containers, SLURM) counts as well as that of the
    machine.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if _MEMINFO.is_file():
        limits = [_machine_bytes(), *_group_bytes()]
        return min(limits)
    if "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _machine_bytes() -> int:
    lines = _MEMINFO.read_text().splitlines()
    values = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return 1024 * values.get("MemAvailable", values["MemTotal"])


def _group_bytes() -> list[int]:
    """Room under the limit of the control group, version 2; empty without a limit."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return []
    return [] if limit == "max" else [max(0, int(limit) - used)]


def measure(work: Callable[[], None], device: torch.device) -> Usage:
    """Run a piece of work four times: to warm up, twice on the clock, and counting its tensors."""
    work()
    _settle(device)
    seconds = min(_timed(work, device) for _ in range(2))
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        _settle(device)
        return Usage(torch.cuda.max_memory_allocated(device) - before, seconds)
    with _LiveTensors() as alive:
        work()
    return Usage(alive.most, seconds)


def _timed(work: Callable[[], None], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    _settle(device)
    return time.perf_counter() - start


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401  the signature is torch's
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        self.most = max(self.most, self.now)
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return

        def forget(_: object) -> None:
            del self._seen[key]
            self.now -= size

        self._seen[key] = weakref.ref(storage, forget)
        self.now += size
