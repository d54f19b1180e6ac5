"""Processes that score one input together, on several devices or machines.

They are started from outside (torchrun, srun) and find each other as Lightning's do. Each writes
its own parts; what they tell each other are words at the end, over gloo, whatever the devices.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from seq2exp.core.errors import InputError, facts

__all__ = ["LostRankError", "Ranks", "open_ranks"]

_MEETING = timedelta(minutes=30)
# Long, because ranks end hours apart. A rank that dies is noticed at once: its sockets close.
_WAITING = timedelta(days=60)


class LostRankError(InputError):
    """A process that others wait for is gone."""


@dataclass(frozen=True)
class Ranks:
    """Who this process is among those that work together.

    Attributes
    ----------
    rank, size : int
        Number of this process, from 0, and of all.
    local : int
        Number of this process on its machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    group: Any = None

    def gather(self, value: object) -> list[Any]:
        """Return the values of all ranks, in their order; waits for all.

        Raises
        ------
        LostRankError
            A rank ended before it got here.
        """
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(values, value, group=self.group)
        except RuntimeError as error:
            raise LostRankError(
                facts(
                    f"rank {self.rank} of {self.size}",
                    found="that another rank was lost (killed, or out of memory)",
                    expected="all ranks",
                    fix="run the same command again, it continues",
                )
            ) from error
        return values


@contextmanager
def open_ranks() -> Iterator[Ranks]:
    """Yield who this process is; several join, and part at the end.

    torchrun and Lightning say so by RANK, LOCAL_RANK and WORLD_SIZE, a step of srun by
    SLURM_PROCID, SLURM_LOCALID and SLURM_STEP_NUM_TASKS. A process in a batch job that srun did
    not start is alone. A group that is there already is used, and stays.

    Raises
    ------
    LostRankError
        Not all came together within half an hour.
    """
    rank, size, local = _from_environment()
    if dist.is_available() and dist.is_initialized():
        # Another group: the one that is there may speak through devices, and wait less long.
        group = dist.new_group(backend="gloo", timeout=_WAITING)
        yield Ranks(dist.get_rank(), dist.get_world_size(), local, group)
        return
    if size == 1:
        yield Ranks()
        return
    try:
        dist.init_process_group(
            "gloo", init_method=_meeting_point(), rank=rank, world_size=size, timeout=_MEETING
        )
        group = dist.new_group(backend="gloo", timeout=_WAITING)
    except RuntimeError as error:
        raise LostRankError(
            facts(
                f"rank {rank} of {size}",
                found=f"no meeting of the ranks ({str(error).splitlines()[0]})",
                expected="all of them at MASTER_ADDR and MASTER_PORT",
                fix="start all ranks, on machines that reach each other, with one command "
                "(torchrun or srun)",
            )
        ) from error
    try:
        yield Ranks(rank, size, local, group)
    finally:
        dist.destroy_process_group()


def _from_environment() -> tuple[int, int, int]:
    for names in (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
        # Lightning does not tell the processes that it starts their global number.
        ("LOCAL_RANK", "WORLD_SIZE", "LOCAL_RANK"),
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    ):
        if all(name in os.environ for name in names[:2]):
            rank, size = (int(os.environ[name]) for name in names[:2])
            return rank, size, int(os.environ.get(names[2], "0"))
    return 0, 1, 0


def _meeting_point() -> str:
    """Return where rank 0 listens: MASTER_ADDR and MASTER_PORT, or what SLURM implies."""
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    nodes = os.environ.get("SLURM_STEP_NODELIST", os.environ.get("SLURM_NODELIST", "127.0.0.1"))
    address = os.environ.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes)
    # As Lightning: a port of its own for every job.
    job = int(os.environ.get("SLURM_JOB_ID", "0")[-4:])
    return f"tcp://{address}:{os.environ.get('MASTER_PORT') or 15_000 + job}"
