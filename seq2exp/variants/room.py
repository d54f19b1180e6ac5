"""Memory that scoring takes, measured on one window before the work begins."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch

from seq2exp.core.errors import Seq2ExpWarning, facts
from seq2exp.training.memory import available_bytes, measure
from seq2exp.training.module import batch_call
from seq2exp.variants.engine import Engine
from seq2exp.variants.views import open_view

__all__ = ["tell_memory"]

logger = logging.getLogger(__name__)

_GIGA = 1e9
# Copies of windows, sequences and results beside the tensors of a pass.
_BESIDE = 1.5


def tell_memory(engine: Engine, *, processes: int = 1) -> int:
    """Log how much memory passes take at most, and warn where it is more than there is.

    Parameters
    ----------
    engine : Engine
    processes : int
        That score at once on this machine.

    Returns
    -------
    int
        Bytes of all processes together, about.
    """
    if not engine.index.windows:
        return 0
    row = next(iter(engine.index.windows))
    view = open_view(engine.samples, row, engine.views[0])
    call = batch_call(view.batch.to(engine.device))

    def once() -> None:
        models: list[Any] = engine.run.models
        with torch.set_grad_enabled(engine.config.method == "gradient"):
            models[0].one_strand(call)

    device = torch.device(engine.device)
    one = measure(once, device).peak_bytes
    at_once = 1 if engine.config.method == "gradient" else engine.config.batch_size
    wanted = int(one * at_once * _BESIDE) * processes
    room = available_bytes(device)
    said = "" if room is None else f" of {room / _GIGA:.1f} GB that are free"
    logger.info("passes take about %.1f GB%s", wanted / _GIGA, said)
    if room is not None and wanted > room:
        warnings.warn(
            Seq2ExpWarning(
                facts(
                    "memory",
                    found=f"about {wanted / _GIGA:.1f} GB wanted, {room / _GIGA:.1f} GB free",
                    expected="room for the passes of all processes",
                    fix="lower --batch-size or --workers",
                )
            ),
            stacklevel=2,
        )
    return wanted
