"""Whether compiled loops can run here, and the forms in which they take tensors."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["arrays", "numba_refuses", "use_threads", "vectorised", "without_gaps"]

_WIDTH = 16


@cache
def numba_refuses() -> str | None:
    """Why numba cannot compile here; None where it can."""
    try:
        import numba
    except (ImportError, OSError) as error:
        return str(error)
    # Read when numba is imported; without compilation there are no vectors.
    return "NUMBA_DISABLE_JIT is set" if numba.config.DISABLE_JIT else None  # type: ignore[attr-defined]


def vectorised(*tensors: Tensor) -> bool:
    """Whether loops over whole vectors of channels, the last axis, can take these tensors."""
    fits = all(
        x.device.type == "cpu" and x.dtype == torch.float32 and x.shape[-1] % _WIDTH == 0
        for x in tensors
    )
    return fits and numba_refuses() is None


def without_gaps(tensor: Tensor) -> Tensor:
    """Return a tensor whose last axis has no gaps; the others keep their strides."""
    if tensor.stride(-1) == 1 or tensor.numel() == 0:
        return tensor
    if tensor.ndim == 3 and tensor.stride(1) == 0:
        # One row for all tokens, as a mean or a sum sends back: it is not copied.
        return tensor[:, :1].contiguous().expand(tensor.shape)
    return tensor.contiguous()


def arrays(*tensors: Tensor) -> list[Any]:
    """Return numpy's view of each tensor."""
    return [tensor.detach().numpy() for tensor in tensors]


def use_threads() -> int:
    """Give numba as many threads as torch takes, and return their number."""
    import numba

    threads = min(torch.get_num_threads(), _launched())
    numba.set_num_threads(threads)
    return threads


@cache
def _launched() -> int:
    """Start numba's threads, and return how many there are."""
    import numba

    wanted = torch.get_num_threads()
    numba.set_num_threads(1)
    # Its pool may share OpenMP with torch, and then takes torch's number of threads with it.
    torch.set_num_threads(wanted)
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    return most
