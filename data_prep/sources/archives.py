"""What is made of a downloaded file: bgzip of gzip, or the members of an archive.

Archives come from strangers. Only plain files and folders are taken out of them, under names that
stay inside, and not more of them, nor more bytes, than :class:`ArchiveLimits` allows: the sizes
that an archive states are not believed, bytes are counted as they come. Links and devices are
refused, as ``filter="data"`` of tarfile does with those that lead outside, and so is whatever
stands twice.
"""

from __future__ import annotations

import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, Any

from seq2exp.core.errors import FormatError, Seq2ExpError, facts
from seq2exp.core.files import atomic_directory, atomic_file, require_space

__all__ = ["ArchiveLimits", "make_bgzip", "unpack"]

_BLOCK = 1 << 20
_FAULTS = (tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError, RuntimeError,
           NotImplementedError, gzip.BadGzipFile)  # fmt: skip


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may hold."""

    max_files: int = 100_000
    """Most members."""
    max_bytes: int = 200_000_000_000
    """Most bytes of all members together."""
    max_ratio: float = 300.0
    """Most bytes out per byte in, beyond ``free_bytes``."""
    free_bytes: int = 64_000_000
    """Bytes that may come out whatever the ratio."""
    max_depth: int = 32
    """Deepest folder."""


class _Counter:
    """Counts what comes out of one archive and says stop."""

    def __init__(self, path: Path, limits: ArchiveLimits) -> None:
        self.path, self.limits = path, limits
        allowed = max(limits.max_ratio * path.stat().st_size, limits.free_bytes)
        self.most = int(min(allowed, limits.max_bytes))
        self.num_bytes, self.num_files = 0, 0
        self.names: set[str] = set()

    def add_bytes(self, num: int) -> None:
        self.num_bytes += num
        if self.num_bytes > self.most:
            raise _refused(
                self.path,
                f"more than {self.most:,} bytes out of {self.path.stat().st_size:,}",
                "data that were compressed in good faith",
            )

    def add_member(self, name: str, *, folder: bool) -> PurePosixPath:
        """Return the place of a member inside the folder."""
        self.num_files += 1
        if self.num_files > self.limits.max_files:
            raise _refused(self.path, f"more than {self.limits.max_files:,} members", "fewer")
        place = PurePosixPath(name)
        unfit = (
            not name.strip("/. ")
            or "\\" in name
            or any(ord(letter) < 32 for letter in name)
            or place.is_absolute()
            or ".." in place.parts
            or ":" in place.parts[0]
            or len(place.parts) > self.limits.max_depth
        )
        if unfit and not (folder and name.rstrip("/") == "."):
            raise _refused(self.path, f"a member {name[:80]!r}", "names inside the archive")
        key = str(place).lower()
        if key in self.names and not folder:
            raise _refused(self.path, f"{name[:80]!r} twice", "each name once")
        self.names.add(key)
        return place


def unpack(path: Path, folder: Path, *, kind: str, limits: ArchiveLimits | None = None) -> None:
    """Write the members of an archive to a new folder, all or nothing.

    Parameters
    ----------
    path : Path
        zip, or tar plain or compressed.
    folder : Path
        Appears when all members are out.
    kind : str
        zip or tar.
    limits : ArchiveLimits, optional

    Raises
    ------
    FormatError
        A damaged archive, a name that leads outside, a link or device, a name twice, or more
        members or bytes than the limits allow.
    """
    counter = _Counter(path, limits or ArchiveLimits())
    with _as_format_error(path), atomic_directory(folder) as place:
        (_from_zip if kind == "zip" else _from_tar)(path, place, counter)


def _from_tar(path: Path, folder: Path, counter: _Counter) -> None:
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            if not (member.isreg() or member.isdir()) or member.issparse():
                raise _refused(path, f"a link, device or hole ({member.name[:80]!r})", "files")
            place = folder / counter.add_member(member.name, folder=member.isdir())
            if member.isdir():
                place.mkdir(parents=True, exist_ok=True)
                continue
            source = archive.extractfile(member)
            if source is not None:
                _copy(source, place, counter)


def _from_zip(path: Path, folder: Path, counter: _Counter) -> None:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            # The upper half of the attributes is the mode of Unix; 0 where none was kept.
            mode = stat.S_IFMT(member.external_attr >> 16)
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(path, f"a link or device ({member.filename[:80]!r})", "files")
            place = folder / counter.add_member(member.filename, folder=member.is_dir())
            if member.is_dir():
                place.mkdir(parents=True, exist_ok=True)
                continue
            with archive.open(member) as source:
                _copy(source, place, counter)


def _copy(source: IO[bytes], target: Path, counter: _Counter) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as handle:
        while block := source.read(_BLOCK):
            counter.add_bytes(len(block))
            handle.write(block)


def make_bgzip(path: Path, target: Path, *, limits: ArchiveLimits | None = None) -> None:
    """Compress the text of a gzip file anew in blocks that can be read at random.

    Parameters
    ----------
    path : Path
        gzip; several members are one text.
    target : Path
        Appears when it is whole.
    limits : ArchiveLimits, optional

    Raises
    ------
    FormatError
        The stream is cut or damaged.
    """
    import pysam

    counter = _Counter(path, limits or ArchiveLimits())
    require_space(target.parent, path.stat().st_size)
    with (
        _as_format_error(path),
        atomic_file(target) as partial,
        gzip.open(path, "rb") as text,
        pysam.BGZFile(str(partial), "wb", None) as copy,
    ):
        while block := text.read(_BLOCK):
            counter.add_bytes(len(block))
            copy.write(block)


@contextmanager
def _as_format_error(path: Path) -> Iterator[None]:
    try:
        yield
    except Seq2ExpError:
        raise
    except (*_FAULTS, FileExistsError, NotADirectoryError) as error:
        raise _refused(path, f"an archive that cannot be read ({error!r})", "a whole one") from None
    except OSError as error:
        # bz2 says so of damaged data; real troubles of the disk have a number.
        if error.errno is not None:
            raise
        raise _refused(path, f"damaged data ({error})", "a whole archive") from None


def _refused(path: Path, found: Any, expected: str) -> FormatError:  # noqa: ANN401
    return FormatError(
        facts(
            str(path),
            found=found,
            expected=expected,
            fix="download it again; if it is the same, do not trust it",
        )
    )
