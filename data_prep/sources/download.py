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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from data_prep.textfile import file_kind
from seq2exp import __version__
from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.files import read_json, write_json
from seq2exp.core.progress import track

__all__ = ["Limits", "Received", "UnreachableError", "checked_kind", "digests", "download"]

logger = logging.getLogger(__name__)

_PIECE = 1 << 16
_BLOCK = 1 << 20
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


class _Temporary(Exception):
    """What failed may succeed in a moment."""

    def __init__(self, reason: str, *, wait_s: float = 0.0, reached: bool = True) -> None:
        super().__init__(reason)
        self.wait_s, self.reached = wait_s, reached


class _Refused(Exception):
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
        except _Refused as refusal:
            reached = True
            problems.append(f"{url}: {refusal}")
        except _Temporary as failure:
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
            raise _Refused(problem)
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
            while handle.read(_BLOCK):
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
        while block := handle.read(_BLOCK):
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
        _refuse_address(self.url, self.limits)
        resumed, failures, best = False, 0, 0
        while True:
            have = self._usable()
            resumed = resumed or have > 0
            best = max(best, have)
            try:
                self._attempt(have)
            except _Temporary as failure:
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
            with _opener(self.limits).open(request, timeout=self.limits.timeout_s) as response:
                start, total = self._accepted(response, have)
                self._note(response, total)
                self._receive(response, start, total)
        except urllib.error.HTTPError as error:
            self._refusal(error, have, noted)
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise _Refused(f"a certificate that cannot be trusted ({error.reason})") from None
            raise _Temporary(f"no connection ({error.reason})", reached=False) from None
        except TimeoutError:
            raise _Temporary(f"silence for {self.limits.timeout_s:g} s") from None
        except (ConnectionError, http.client.HTTPException, ssl.SSLError) as error:
            raise _Temporary(f"a connection that broke ({error!r})") from None

    def _refusal(self, error: urllib.error.HTTPError, have: int, noted: dict[str, Any]) -> None:
        """Judge an answer other than success; return when it means that all is here."""
        code = error.code
        if code == 416:
            if have and have == noted.get("total"):
                return
            self.forget()
            raise _Temporary("a server that cannot continue the part") from None
        if code in _TEMPORARY:
            asked = str(error.headers.get("Retry-After", ""))
            wait = float(asked) if asked.isdigit() else 0.0
            raise _Temporary(f"HTTP {code} {error.reason}", wait_s=wait) from None
        raise _Refused(f"HTTP {code} {error.reason}") from None

    def _accepted(self, response: Any, have: int) -> tuple[int, int]:  # noqa: ANN401
        """Return where the answer begins and the size of the whole, 0 where that is not said."""
        kind = str(response.headers.get("Content-Type", "")).lower()
        if kind.startswith(_HTML) and self.target.suffix.lower() not in (".html", ".htm"):
            raise _Refused("a web page instead of the file")
        length = str(response.headers.get("Content-Length", ""))
        start = 0
        total = int(length) if length.isdigit() else 0
        if response.status == 206:
            start, total = _content_range(str(response.headers.get("Content-Range", "")))
            if start != have:
                self.forget()
                raise _Temporary(f"a part from byte {start} where {have} was asked for")
        elif response.status != 200:
            raise _Refused(f"HTTP {response.status}")
        if self.size and total and total != self.size:
            raise _Refused(f"a file of {total:,} bytes, expected {self.size:,}")
        _require_room(self.target, (total or self.size) - start, self.limits)
        return start, total

    def _note(self, response: Any, total: int) -> None:  # noqa: ANN401
        tag = str(response.headers.get("ETag", ""))
        # A weak tag does not promise equal bytes.
        strong = tag if tag and not tag.startswith("W/") else ""
        validator = strong or str(response.headers.get("Last-Modified", ""))
        write_json({"url": self.url, "validator": validator, "total": total}, self.notes)

    def _receive(self, response: Any, start: int, total: int) -> None:  # noqa: ANN401
        blocks = _blocks(response, self.limits)
        count = -(-(total - start) // _BLOCK) if total else 0
        shown = track(blocks, total=count, label=f"{self.target.name} (MiB)", enabled=self.progress)
        with self.part.open("ab" if start else "wb") as handle:
            for block in shown:
                _write(handle, block)
        found = self.part.stat().st_size
        if total and found < total:
            raise _Temporary(f"an end after {found:,} of {total:,} bytes")
        if total and found > total:
            self.forget()
            raise _Temporary(f"{found:,} bytes where {total:,} were announced")


def _write(handle: IO[bytes], block: bytes) -> None:
    # Flushed, so that what a kill leaves is what the next run continues from.
    handle.write(block)
    handle.flush()


def _blocks(response: Any, limits: Limits) -> Iterator[bytes]:  # noqa: ANN401
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
                    raise _Temporary(f"{received} bytes in {now - since:.0f} s")
                since, received = now, 0
            if len(waiting) >= _BLOCK:
                yield waiting[:_BLOCK]
                waiting = waiting[_BLOCK:]
    except (OSError, http.client.HTTPException, _Temporary):
        # What came before the break is good.
        if waiting:
            yield waiting
        raise
    if waiting:
        yield waiting


def _content_range(text: str) -> tuple[int, int]:
    """Read ``bytes 10-99/100`` as (10, 100); the size is 0 where it is ``*``."""
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit != "bytes" or not first.isdigit():
        raise _Temporary(f"a part with Content-Range {text!r}")
    return int(first), int(total) if total.isdigit() else 0


def _refuse_address(url: str, limits: Limits) -> None:
    parts = urlsplit(url)
    if parts.scheme not in limits.schemes or not parts.hostname:
        raise _Refused(f"an address of {parts.scheme or 'no kind'}, not {limits.schemes[0]}")
    if "@" in parts.netloc:
        raise _Refused("an address with a user name, which is not sent")


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
        _refuse_address(newurl, self.limits)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(limits: Limits) -> urllib.request.OpenerDirector:
    most = {"max_redirections": limits.redirects, "max_repeats": limits.redirects}
    return urllib.request.build_opener(type("_Own", (_Redirects,), {"limits": limits, **most}))


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
