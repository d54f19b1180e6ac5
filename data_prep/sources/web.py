"""How a download speaks to servers: limits, redirects, refusals, and bytes as they come."""

from __future__ import annotations

import http.client
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

__all__ = [
    "BLOCK",
    "Limits",
    "RefusedError",
    "TemporaryError",
    "blocks",
    "content_range",
    "opener",
    "refuse_address",
]

_PIECE = 1 << 16
BLOCK = 1 << 20
"""Bytes that are handed on at a time."""


class TemporaryError(Exception):
    """What failed may succeed in a moment."""

    def __init__(self, reason: str, *, wait_s: float = 0.0, reached: bool = True) -> None:
        super().__init__(reason)
        self.wait_s, self.reached = wait_s, reached


class RefusedError(Exception):
    """The address will not do."""


@dataclass(frozen=True)
class Limits:
    """How patient a download is, and where it may go."""

    timeout_s: float = 60.0
    """Longest silence of the server."""
    stall_s: float = 120.0
    """A transfer that brings less than ``stall_bytes`` in this time is begun again."""
    stall_bytes: int = 1 << 14
    """See ``stall_s``."""
    tries: int = 5
    """Failures in a row, without a new byte between them, before an address is given up."""
    pause_s: float = 2.0
    """Wait after the first failure; doubled after each."""
    max_pause_s: float = 60.0
    """Longest wait, also where a server asks for more."""
    redirects: int = 5
    """Most redirects."""
    schemes: tuple[str, ...] = ("https",)
    """Where requests and redirects may go. Tests add http."""
    spare_bytes: int = 200_000_000
    """Room on the disk that is left free."""


def blocks(response: Any, limits: Limits) -> Iterator[bytes]:  # noqa: ANN401
    """Yield a mebibyte at a time; a transfer that hardly moves is given up."""
    waiting = b""
    since, received = time.monotonic(), 0
    try:
        while piece := response.read1(_PIECE):
            waiting += piece
            received += len(piece)
            now = time.monotonic()
            if now - since > limits.stall_s:
                if received < limits.stall_bytes:
                    raise TemporaryError(f"{received} bytes in {now - since:.0f} s")
                since, received = now, 0
            if len(waiting) >= BLOCK:
                yield waiting[:BLOCK]
                waiting = waiting[BLOCK:]
    except (OSError, http.client.HTTPException, TemporaryError):
        # What came before the break is good.
        if waiting:
            yield waiting
        raise
    if waiting:
        yield waiting


def content_range(text: str) -> tuple[int, int]:
    """Read ``bytes 10-99/100`` as (10, 100); the size is 0 where it is ``*``."""
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit != "bytes" or not first.isdigit():
        raise TemporaryError(f"a part with Content-Range {text!r}")
    return int(first), int(total) if total.isdigit() else 0


def refuse_address(url: str, limits: Limits) -> None:
    """Raise RefusedError for another scheme than allowed, and for user names in an address."""
    parts = urlsplit(url)
    if parts.scheme not in limits.schemes or not parts.hostname:
        raise RefusedError(f"an address of {parts.scheme or 'no kind'}, not {limits.schemes[0]}")
    if "@" in parts.netloc:
        raise RefusedError("an address with a user name, which is not sent")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, to allowed schemes only."""

    limits = Limits()

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: Any,  # noqa: ANN401
        code: int,
        msg: str,
        headers: Any,  # noqa: ANN401
        newurl: str,
    ) -> urllib.request.Request | None:
        refuse_address(newurl, self.limits)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def opener(limits: Limits) -> urllib.request.OpenerDirector:
    """Return what opens addresses and follows redirects within the limits."""
    most = {"max_redirections": limits.redirects, "max_repeats": limits.redirects}
    return urllib.request.build_opener(type("_Own", (_Redirects,), {"limits": limits, **most}))
