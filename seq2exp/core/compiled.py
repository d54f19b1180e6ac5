"""Loops that numba compiles when they are first called."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

__all__ = ["compiled"]


def compiled(
    *, parallel: bool = False, contract: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function at its first call, for the types it is called with.

    The function runs without the lock of the interpreter. Machine code is kept beside the module
    where there is a folder to keep it in. numba is imported with the first call, not before.

    Parameters
    ----------
    parallel : bool
        Spread loops over ``prange`` on as many threads as numba has.
    contract : bool
        Let a product and a sum be rounded once, where the processor can.
    """

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        @cache
        def machine_code() -> Callable[..., Any]:
            from numba import njit

            options: dict[str, Any] = {
                "nogil": True, "error_model": "numpy", "parallel": parallel
            }  # fmt: skip
            if contract:
                options["fastmath"] = {"contract"}
            try:
                found: Callable[..., Any] = njit(cache=True, **options)(function)
            except RuntimeError:
                # No folder to keep machine code in.
                found = njit(**options)(function)
            return found

        @wraps(function)
        def run(*args: Any) -> Any:  # noqa: ANN401
            return machine_code()(*args)

        return run

    return wrap
