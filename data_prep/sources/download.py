"""One file from one of its addresses: resumed, checked, and whole or absent.

The library pooch checks hashes but neither resumes a broken download nor locks its folder against a
second process, so this is written on urllib.

The bytes go to ``NAME.part``; ``NAME.part.json`` says of which address and version they are, so
that a later run asks for the rest only if the server still offers the same. Nothing is at ``NAME``
before size, kind and checksums are right.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import logging
import shutil
import ssl
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from data_prep.sources.web import (
    BLOCK,
    Limits,
    RefusedError,
    TemporaryError,
    blocks,
    content_range,
    opener,
    refuse_address,
)
from seq2exp import __version__
from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.files import read_json, write_json
from seq2exp.core.progress import track
from seq2exp.core.textfile import file_kind

__all__ = ["Received", "UnreachableError", "checked_kind", "digests", "download"]

logger = logging.getLogger(__name__)

_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
_HTML = ("text/html", "application/xhtml")
# What a suffix promises, as file_kind says it.
_KINDS = {
    ".gz": ("a gzip file", "a bgzip file"),
    ".bgz": ("a bgzip file",),
    ".bw": ("a bigWig",),
    ".bigwig": ("a bigWig",),
    ".zip": ("a ZIP archive",),
    ".hic": ("a .hic file",),
}


class UnreachableError(InputError):
    """The host cannot be reached: the next file will not fare better."""


@dataclass(frozen=True)
class Received:
    """A whole file."""

    url: str
    size: int
    sha256: str


def download(
    urls: Sequence[str],
    target: Path,
    *,
    size: int = 0,
    sha256: str = "",
    md5: str = "",
    limits: Limits | None = None,
    progress: bool = True,
) -> Received:
    """Bring a file to ``target``, or leave nothing there.

    Parameters
    ----------
    urls : sequence of str
        Addresses of the same bytes, tried in order.
    target : Path
        Where the file will lie; not there yet.
    size, sha256, md5 : int, str, str
        What is known of the file; 0 and empty where nothing is.
    limits : Limits, optional
    progress : bool
        Show how far the transfer is.

    Raises
    ------
    InputError
        No address gives the file, or it is not the one that is expected.
    UnreachableError
        The host cannot be reached at all.
    """
    limits = limits or Limits()
    problems: list[str] = []
    reached = False
    for url in urls:
        source = _Source(url, target, size, bool(sha256 or md5), limits, progress)
        try:
            return _complete(source, size=size, sha256=sha256, md5=md5)
        except RefusedError as refusal:
            reached = True
            problems.append(f"{url}: {refusal}")
        except TemporaryError as failure:
            reached = reached or failure.reached
            problems.append(f"{url}: {failure}")
    kind = InputError if reached else UnreachableError
    raise kind(
        facts(
            target.name,
            found="; ".join(problems),
            expected="the file",
            fix="check the network, then run the same command again; it continues"
            if not reached
            else "run the same command again; if the address has changed, bring the file here "
            "by hand or give the new address in a registry of your own (--registry)",
        )
    )


def _complete(source: _Source, *, size: int, sha256: str, md5: str) -> Received:
    """Transfer, check and rename; a resumed file that is wrong is begun anew once."""
    for again in (False, True):
        resumed = source.transfer()
        problem = _problem(source.part, source.target.name, size=size, sha256=sha256, md5=md5)
        if not (problem or size or sha256 or md5 or source.announced()):
            problem = _cut_gzip(source.part)
        if not problem:
            break
        source.forget()
        if again or not resumed:
            raise RefusedError(problem)
        logger.info("%s: %s; beginning anew", source.target.name, problem)
    found = Received(
        source.url, source.part.stat().st_size, digests(source.part, md5=False)["sha256"]
    )
    source.part.replace(source.target)
    source.forget()
    return found


def _problem(path: Path, name: str, *, size: int, sha256: str, md5: str) -> str:
    found = path.stat().st_size
    if size and found != size:
        return f"found {found:,} bytes, expected {size:,}"
    try:
        checked_kind(path, name)
    except FormatError as error:
        return str(error)
    if sha256 or md5:
        seen = digests(path, md5=bool(md5))
        for kind, wanted in (("sha256", sha256), ("md5", md5)):
            if wanted and seen[kind] != wanted:
                return f"found {kind} {seen[kind]}, expected {wanted}"
    return ""


def _cut_gzip(path: Path) -> str:
    """Read a gzip file of which nobody said how long it is; return what is wrong with it."""
    with path.open("rb") as raw:
        if raw.read(2) != b"\x1f\x8b":
            return ""
    try:
        with gzip.open(path, "rb") as handle:
            while handle.read(BLOCK):
                pass
    except (EOFError, OSError, zlib.error) as error:
        return f"a gzip file that is cut or damaged ({error})"
    return ""


def digests(path: Path, *, md5: bool) -> dict[str, str]:
    """Return ``sha256``, and ``md5`` where asked for, of a file's content, hexadecimal."""
    sums = {"sha256": hashlib.sha256()}
    if md5:
        sums["md5"] = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as handle:
        while block := handle.read(BLOCK):
            for one in sums.values():
                one.update(block)
    return {name: one.hexdigest() for name, one in sums.items()}


def checked_kind(path: Path, name: str) -> str:
    """Return what a file is; refuse one that is not what its name promises.

    Raises
    ------
    FormatError
        An error page, an empty file, or another format than the suffix says.
    """
    kind = file_kind(path)
    suffix = Path(name).suffix.lower()
    expected = _KINDS.get(suffix, ())
    page = kind in ("an HTML page", "a Git LFS pointer") and suffix not in (".html", ".htm", ".xml")
    if kind == "an empty file" or page or (expected and kind not in expected):
        raise FormatError(
            facts(
                name,
                found=kind,
                expected=" or ".join(expected) or "data",
                fix="the address does not lead to the file; look at it in a browser",
            )
        )
    return kind


@dataclass(frozen=True)
class _Source:
    """One address and what has come from it."""

    url: str
    target: Path
    size: int
    hashed: bool
    limits: Limits
    progress: bool

    @property
    def part(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def notes(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part.json")

    def forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)

    def announced(self) -> int:
        """Return the size that the server stated, 0 for none."""
        return int(self._noted().get("total", 0))

    def transfer(self) -> bool:
        """Bring all bytes to the part; return whether some were there before."""
        refuse_address(self.url, self.limits)
        resumed, failures, best = False, 0, 0
        while True:
            have = self._usable()
            resumed = resumed or have > 0
            best = max(best, have)
            try:
                self._attempt(have)
            except TemporaryError as failure:
                reached = self.part.stat().st_size if self.part.exists() else 0
                # Servers that cannot continue start at 0: only bytes never seen before count.
                failures = 1 if reached > best else failures + 1
                best = max(best, reached)
                if failures >= self.limits.tries:
                    raise
                pause = self.limits.pause_s * 2 ** (failures - 1)
                pause = min(max(pause, failure.wait_s), self.limits.max_pause_s)
                logger.info("%s: %s; again in %.0f s", self.target.name, failure, pause)
                time.sleep(pause)
            else:
                return resumed

    def _usable(self) -> int:
        """Return how many bytes of the part may be kept; clear it when none may."""
        notes = self._noted()
        same = notes.get("url") == self.url and (notes.get("validator") or self.hashed)
        if same and self.part.is_file():
            return self.part.stat().st_size
        self.forget()
        return 0

    def _noted(self) -> dict[str, Any]:
        try:
            found = read_json(self.notes)
        except (FormatError, OSError):
            return {}
        return found if isinstance(found, dict) else {}

    def _attempt(self, have: int) -> None:
        headers = {"User-Agent": f"seq2exp/{__version__}", "Accept-Encoding": "identity"}
        noted = self._noted()
        if have:
            headers["Range"] = f"bytes={have}-"
            if noted.get("validator"):
                headers["If-Range"] = str(noted["validator"])
        request = urllib.request.Request(self.url, headers=headers)
        try:
            with opener(self.limits).open(request, timeout=self.limits.timeout_s) as response:
                start, total = self._accepted(response, have)
                self._note(response, total)
                self._receive(response, start, total)
        except urllib.error.HTTPError as error:
            self._refusal(error, have, noted)
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise RefusedError(
                    f"a certificate that cannot be trusted ({error.reason})"
                ) from None
            raise TemporaryError(f"no connection ({error.reason})", reached=False) from None
        except TimeoutError:
            raise TemporaryError(f"silence for {self.limits.timeout_s:g} s") from None
        except (ConnectionError, http.client.HTTPException, ssl.SSLError) as error:
            raise TemporaryError(f"a connection that broke ({error!r})") from None

    def _refusal(self, error: urllib.error.HTTPError, have: int, noted: dict[str, Any]) -> None:
        """Judge an answer other than success; return when it means that all is here."""
        code = error.code
        if code == 416:
            if have and have == noted.get("total"):
                return
            self.forget()
            raise TemporaryError("a server that cannot continue the part") from None
        if code in _TEMPORARY:
            asked = str(error.headers.get("Retry-After", ""))
            wait = float(asked) if asked.isdigit() else 0.0
            raise TemporaryError(f"HTTP {code} {error.reason}", wait_s=wait) from None
        raise RefusedError(f"HTTP {code} {error.reason}") from None

    def _accepted(self, response: Any, have: int) -> tuple[int, int]:  # noqa: ANN401
        """Return where the answer begins and the size of the whole, 0 where that is not said."""
        kind = str(response.headers.get("Content-Type", "")).lower()
        if kind.startswith(_HTML) and self.target.suffix.lower() not in (".html", ".htm"):
            raise RefusedError("a web page instead of the file")
        length = str(response.headers.get("Content-Length", ""))
        start = 0
        total = int(length) if length.isdigit() else 0
        if response.status == 206:
            start, total = content_range(str(response.headers.get("Content-Range", "")))
            if start != have:
                self.forget()
                raise TemporaryError(f"a part from byte {start} where {have} was asked for")
        elif response.status != 200:
            raise RefusedError(f"HTTP {response.status}")
        if self.size and total and total != self.size:
            raise RefusedError(f"a file of {total:,} bytes, expected {self.size:,}")
        _require_room(self.target, (total or self.size) - start, self.limits)
        return start, total

    def _note(self, response: Any, total: int) -> None:  # noqa: ANN401
        tag = str(response.headers.get("ETag", ""))
        # A weak tag does not promise equal bytes.
        strong = tag if tag and not tag.startswith("W/") else ""
        validator = strong or str(response.headers.get("Last-Modified", ""))
        write_json({"url": self.url, "validator": validator, "total": total}, self.notes)

    def _receive(self, response: Any, start: int, total: int) -> None:  # noqa: ANN401
        pieces = blocks(response, self.limits)
        count = -(-(total - start) // BLOCK) if total else 0
        shown = track(pieces, total=count, label=f"{self.target.name} (MiB)", enabled=self.progress)
        with self.part.open("ab" if start else "wb") as handle:
            for block in shown:
                _write(handle, block)
        found = self.part.stat().st_size
        if total and found < total:
            raise TemporaryError(f"an end after {found:,} of {total:,} bytes")
        if total and found > total:
            self.forget()
            raise TemporaryError(f"{found:,} bytes where {total:,} were announced")


def _write(handle: IO[bytes], block: bytes) -> None:
    # Flushed, so that what a kill leaves is what the next run continues from.
    handle.write(block)
    handle.flush()


def _require_room(target: Path, num_bytes: int, limits: Limits) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < num_bytes + limits.spare_bytes:
        raise InputError(
            facts(
                str(target),
                found=f"{free / 1e9:.2f} GB free",
                expected=f"{(num_bytes + limits.spare_bytes) / 1e9:.2f} GB for the rest of it",
                fix="free disk space or choose another disk, then run the same command again; it "
                "continues",
            )
        )
