"""F34: archives from strangers. Nothing outside the folder, nothing but files, no bombs."""

from __future__ import annotations

import bz2
import gzip
import io
import stat
import tarfile
import zipfile

import pytest

from data_prep.sources.archives import ArchiveLimits, make_bgzip, unpack
from seq2exp.core.errors import FormatError
from seq2exp.core.textfile import SeekableText, file_kind

TIGHT = ArchiveLimits(max_files=5, max_bytes=10_000_000, max_ratio=50, free_bytes=1000)


def tar(path, *members, mode="w:gz"):
    """Members are (name, bytes) or TarInfo."""
    with tarfile.open(path, mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zipped(path, *members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def tree(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def refused(path, kind, match, limits=TIGHT):
    """Raise, leave nothing at the goal, and nothing new anywhere around it."""
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(FormatError, match=match):
        unpack(path, path.parent / "out", kind=kind, limits=limits)
    assert sorted(path.parent.rglob("*")) == before


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_plain_tar_is_unpacked(tmp_path, mode):
    path = tar(tmp_path / "a.tar", special("d", tarfile.DIRTYPE), ("d/x.txt", b"one"), ("y", b""),
               mode=mode)  # fmt: skip
    unpack(path, tmp_path / "out", kind="tar")
    assert tree(tmp_path / "out") == {"d/x.txt": b"one", "y": b""}


def test_a_plain_zip_is_unpacked_and_modes_are_not_kept(tmp_path):
    run = zipfile.ZipInfo("d/run.sh")
    run.external_attr = (stat.S_IFREG | 0o6777) << 16
    path = zipped(tmp_path / "a.zip", ("d/", b""), (run, b"one"), ("./y", b"two"))
    unpack(path, tmp_path / "out", kind="zip")
    assert tree(tmp_path / "out") == {"d/run.sh": b"one", "y": b"two"}
    assert not (tmp_path / "out" / "d" / "run.sh").stat().st_mode & 0o7111


NAMES = ["../evil", "a/../../evil", "/tmp/evil", "..", "a/..", "C:/evil", "C:evil", "..\\evil",
         "a\\b", "a\nb", "a\x1b", "/", "x/" * 40 + "y"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_f34_names_that_lead_outside(tmp_path, name):
    refused(tar(tmp_path / "a.tar", ("good", b"1"), (name, b"evil")), "tar", "a member ")
    if name not in ("..\\evil", "a\\b"):  # written with slashes by zipfile itself
        refused(zipped(tmp_path / "a.zip", ("good", b"1"), (name, b"evil")), "zip", "a member ")


def test_f34_the_default_of_tarfile_would_have_written_outside(tmp_path):
    """The other test would prove nothing if the library refused by itself."""
    inner = tmp_path / "in"
    inner.mkdir()
    with tarfile.open(tar(tmp_path / "a.tar", ("../evil", b"evil"))) as archive:
        archive.extractall(inner, filter="fully_trusted")
    assert (tmp_path / "evil").read_bytes() == b"evil"


LINKS = {
    "symlink": special("x", tarfile.SYMTYPE, "/etc/passwd"),
    "inner symlink": special("x", tarfile.SYMTYPE, "good"),
    "hard link": special("x", tarfile.LNKTYPE, "good"),
    "character device": special("x", tarfile.CHRTYPE),
    "block device": special("x", tarfile.BLKTYPE),
    "fifo": special("x", tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("kind", LINKS)
def test_f34_links_and_devices_in_tar(tmp_path, kind):
    refused(tar(tmp_path / "a.tar", ("good", b"1"), LINKS[kind]), "tar", "a link, device or hole")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO])
def test_f34_links_and_devices_in_zip(tmp_path, kind):
    link = zipfile.ZipInfo("x")
    link.external_attr = (kind | 0o777) << 16
    refused(zipped(tmp_path / "a.zip", (link, "/etc/passwd")), "zip", "a link or device")


def test_f34_a_link_cannot_be_used_by_the_next_member(tmp_path):
    path = tar(tmp_path / "a.tar", special("d", tarfile.SYMTYPE, str(tmp_path)), ("d/evil", b"1"))
    refused(path, "tar", "a link")


def test_f34_bombs(tmp_path):
    zeros = bytes(3_000_000)
    refused(tar(tmp_path / "a.tar", ("x", zeros)), "tar", "more than .* bytes out of")
    refused(zipped(tmp_path / "a.zip", ("x", zeros)), "zip", "more than .* bytes out of")
    # Many small ones add up.
    refused(zipped(tmp_path / "b.zip", *((f"{i}", zeros[:700_000]) for i in range(4))), "zip",
            "more than .* bytes out of")  # fmt: skip
    large = ArchiveLimits(max_bytes=1_000_000)
    refused(tar(tmp_path / "c.tar", ("x", zeros), mode="w"), "tar", "more than 1,000,000", large)
    small = tar(tmp_path / "d.tar", ("x", zeros[:900]))
    unpack(small, tmp_path / "out", kind="tar", limits=TIGHT)


def test_f34_an_archive_that_lies_about_sizes(tmp_path):
    """The declared size of a zip member is changed to 1; bytes are counted, not believed."""
    path = zipped(tmp_path / "a.zip", ("x", bytes(3_000_000)))
    content = path.read_bytes()
    size = (3_000_000).to_bytes(4, "little")
    assert content.count(size) == 2
    path.write_bytes(content.replace(size, (1).to_bytes(4, "little")))
    refused(path, "zip", "more than .* bytes out of|cannot be read")


def test_f34_too_many_members_or_one_twice(tmp_path):
    many = [(f"f{i}", b"") for i in range(6)]
    refused(tar(tmp_path / "a.tar", *many), "tar", "more than 5 members")
    refused(zipped(tmp_path / "a.zip", *many), "zip", "more than 5 members")
    for pair in (("x", "x"), ("x", "./x"), ("x", "X")):
        members = [(name, b"1") for name in pair]
        refused(tar(tmp_path / "b.tar", *members), "tar", "twice")
    refused(tar(tmp_path / "c.tar", ("x", b"1"), ("x/y", b"2")), "tar", "cannot be read")


def test_f34_damaged_and_locked_archives(tmp_path):
    whole = tar(tmp_path / "a.tar", ("x", bytes(range(256)) * 40)).read_bytes()
    for number, content in enumerate([whole[:-40], whole[:20], b"", b"PK\3\4 no", b"text"]):
        for kind in ("tar", "zip"):
            path = tmp_path / f"{number}.{kind}"
            path.write_bytes(content)
            refused(path, kind, "cannot be read|damaged data")
    damaged = bytearray(bz2.compress(bytes(range(256)) * 400))
    damaged[60:80] = bytes(20)
    (tmp_path / "x.tar").write_bytes(damaged)
    refused(tmp_path / "x.tar", "tar", "cannot be read|damaged data")
    locked = bytearray(zipped(tmp_path / "l.zip", ("x", b"abc")).read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        locked[locked.index(mark) + offset] |= 1
    (tmp_path / "l.zip").write_bytes(locked)
    refused(tmp_path / "l.zip", "zip", "cannot be read")


def test_gzip_becomes_bgzip_with_the_same_text(tmp_path):
    text = b">chr1\n" + b"ACGTACGTAA\n" * 40_000
    (tmp_path / "x.fa.gz").write_bytes(gzip.compress(text[:70_000]) + gzip.compress(text[70_000:]))
    make_bgzip(tmp_path / "x.fa.gz", tmp_path / "x.fa.bgz")
    assert file_kind(tmp_path / "x.fa.bgz") == "a bgzip file"
    with SeekableText(tmp_path / "x.fa.bgz", blocked=True) as found:
        assert found.size == len(text)
        assert found.read(300_000, 50) == text[300_000:300_050]


def test_f34_gzip_that_is_cut_or_a_bomb_leaves_nothing(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(bytes(range(256)) * 999)[:-9])
    with pytest.raises(FormatError, match="cannot be read"):
        make_bgzip(path, tmp_path / "y.bgz")
    path.write_bytes(gzip.compress(bytes(3_000_000)))
    with pytest.raises(FormatError, match="more than"):
        make_bgzip(path, tmp_path / "y.bgz", limits=TIGHT)
    assert [p.name for p in tmp_path.iterdir()] == ["x.gz"]
