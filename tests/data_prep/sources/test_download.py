"""F31, downloads: slow, broken, redirected, refused and wrong ones; none is ever half a file."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import socket

import pytest

from data_prep.sources.download import UnreachableError, checked_kind, download
from seq2exp.core.errors import FormatError, InputError
from tests.data_prep.sources.server import QUICK, noise

BODY = noise(3_000_000)
SUM = hashlib.sha256(BODY).hexdigest()


def get(url, target, **settings):
    urls = [url] if isinstance(url, str) else url
    return download(urls, target, limits=settings.pop("limits", QUICK), progress=False, **settings)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def ranges(page):
    return [request.get("Range") for request in page.requests]


def test_a_file_is_whole_and_alone(site, tmp_path):
    url = site.put("/x.bin", body=BODY)
    found = get(url, tmp_path / "x.bin", size=len(BODY), sha256=SUM)
    assert (found.size, found.sha256, found.url) == (len(BODY), SUM, url)
    assert (tmp_path / "x.bin").read_bytes() == BODY
    assert names(tmp_path) == ["x.bin"]


@pytest.mark.parametrize("hashed", [True, False])
def test_f31_a_broken_transfer_goes_on_where_it_broke(site, tmp_path, hashed):
    url = site.put("/x.bin", body=BODY, cuts=[1_500_000, 700_000])
    found = get(url, tmp_path / "x.bin", sha256=SUM if hashed else "")
    assert found.sha256 == SUM
    assert ranges(site.pages["/x.bin"]) == [None, "bytes=1500000-", "bytes=2200000-"]


def test_f31_a_killed_run_goes_on_in_the_next(site, tmp_path):
    url = site.put("/x.bin", body=BODY, cuts=[1_234_567, 0, 0])
    with pytest.raises(InputError, match="an end after 1,234,567 of 3,000,000 bytes"):
        get(url, tmp_path / "x.bin")
    assert names(tmp_path) == ["x.bin.part", "x.bin.part.json"]
    assert get(url, tmp_path / "x.bin").sha256 == SUM
    assert ranges(site.pages["/x.bin"])[-1] == "bytes=1234567-"
    assert names(tmp_path) == ["x.bin"]


def test_f31_a_finished_part_is_not_asked_for_again_in_vain(site, tmp_path):
    """All bytes had come, the rename had not: the server answers 416."""
    url = site.put("/x.bin", body=BODY)
    page = site.pages["/x.bin"]
    (tmp_path / "x.bin.part").write_bytes(BODY)
    notes = {"url": url, "validator": page.etag, "total": len(BODY)}
    (tmp_path / "x.bin.part.json").write_text(json.dumps(notes))
    assert get(url, tmp_path / "x.bin").sha256 == SUM
    assert len(page.requests) == 1


def test_f31_a_part_longer_than_the_file_is_begun_anew(site, tmp_path):
    url = site.put("/x.bin", body=BODY)
    (tmp_path / "x.bin.part").write_bytes(BODY + b"more")
    notes = {"url": url, "validator": site.pages["/x.bin"].etag, "total": 0}
    (tmp_path / "x.bin.part.json").write_text(json.dumps(notes))
    assert get(url, tmp_path / "x.bin").sha256 == SUM
    assert ranges(site.pages["/x.bin"]) == ["bytes=3000004-", None]


def test_f31_a_server_that_ignores_ranges_is_read_from_the_start(site, tmp_path):
    url = site.put("/x.bin", body=BODY, cuts=[1_000_000], ranges=False)
    assert get(url, tmp_path / "x.bin").sha256 == SUM
    assert ranges(site.pages["/x.bin"]) == [None, "bytes=1000000-"]


def test_f31_a_server_that_cannot_continue_and_always_breaks_is_given_up(site, tmp_path):
    url = site.put("/x.bin", body=BODY, cuts=[1000] * 50, ranges=False)
    with pytest.raises(InputError, match="an end after 1,000 of"):
        get(url, tmp_path / "x.bin")
    assert len(site.pages["/x.bin"].requests) == 3


def test_f31_bytes_of_two_versions_are_never_joined(site, tmp_path):
    """The file changed between two runs; If-Range makes the server send all of the new one."""
    url = site.put("/x.bin", body=BODY, cuts=[1_000_000, 0, 0])
    with pytest.raises(InputError):
        get(url, tmp_path / "x.bin")
    new = noise(2_000_000, seed=1)
    site.put("/x.bin", body=new)
    assert get(url, tmp_path / "x.bin").size == len(new)
    assert (tmp_path / "x.bin").read_bytes() == new


@pytest.mark.parametrize("tag", ["", 'W/"1"'])
def test_f31_without_a_version_a_part_is_kept_only_if_a_checksum_will_tell(site, tmp_path, tag):
    for number, (digest, second) in enumerate([("", None), (SUM, "bytes=9999-")]):
        url = site.put(f"/{number}.bin", body=BODY, cuts=[9_999], tag=tag)
        get(url, tmp_path / f"{number}.bin", sha256=digest)
        assert ranges(site.pages[f"/{number}.bin"]) == [None, second]
    url = site.put(
        "/dated", body=BODY, cuts=[9_999], tag=tag, modified="Mon, 01 Jan 2024 00:00:00 GMT"
    )
    get(url, tmp_path / "dated")
    assert ranges(site.pages["/dated"]) == [None, "bytes=9999-"]


def test_f31_a_part_from_the_wrong_byte_is_refused(site, tmp_path):
    url = site.put("/x.bin", body=BODY, cuts=[1_000_000], first_byte_off=3)
    assert get(url, tmp_path / "x.bin").sha256 == SUM
    assert ranges(site.pages["/x.bin"]) == [None, "bytes=1000000-", None]


def test_f31_a_resumed_file_with_a_wrong_sum_is_begun_anew_once(site, tmp_path):
    url = site.put("/x.bin", body=BODY)
    (tmp_path / "x.bin.part").write_bytes(b"rotten" * 1000)
    notes = {"url": url, "validator": site.pages["/x.bin"].etag, "total": len(BODY)}
    (tmp_path / "x.bin.part.json").write_text(json.dumps(notes))
    assert get(url, tmp_path / "x.bin", sha256=SUM).sha256 == SUM
    assert ranges(site.pages["/x.bin"]) == ["bytes=6000-", None]


def test_f31_a_wrong_sum_or_size_is_no_file(site, tmp_path):
    url = site.put("/x.bin", body=BODY)
    with pytest.raises(InputError, match=f"found sha256 {SUM}, expected 0{{64}}"):
        get(url, tmp_path / "x.bin", sha256="0" * 64)
    with pytest.raises(InputError, match=r"found md5 .*, expected 0{32}"):
        get(url, tmp_path / "x.bin", md5="0" * 32)
    with pytest.raises(InputError, match="a file of 3,000,000 bytes, expected 7"):
        get(url, tmp_path / "x.bin", size=7)
    site.put("/y.bin", body=BODY, length=False)
    with pytest.raises(InputError, match="found 3,000,000 bytes, expected 7"):
        get(site.root + "/y.bin", tmp_path / "y.bin", size=7)
    assert names(tmp_path) == []


def test_f31_404_and_403_are_named_and_not_asked_again(site, tmp_path):
    url = site.put("/x.bin", status=403, failures=[403, 403])
    with pytest.raises(InputError, match=r"x\.bin: HTTP 403 Forbidden"):
        get(url, tmp_path / "x.bin")
    assert len(site.pages["/x.bin"].requests) == 1
    with pytest.raises(InputError, match=r"gone\.bin: HTTP 404 Not Found.*--registry"):
        get(site.root + "/gone.bin", tmp_path / "x.bin")


def test_f31_a_busy_server_is_asked_again(site, tmp_path, monkeypatch):
    from data_prep.sources import download as module

    waits = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    url = site.put("/x", body=BODY, failures=[503, 429], headers={"Retry-After": "7"})
    patient = dataclasses.replace(QUICK, pause_s=2, max_pause_s=60, tries=4)
    assert get(url, tmp_path / "x", limits=patient).sha256 == SUM
    assert waits == [7, 7]
    url = site.put("/y", body=BODY, failures=[500] * 9)
    with pytest.raises(InputError, match="HTTP 500"):
        get(url, tmp_path / "y", limits=patient)
    assert waits[2:] == [2, 4, 8]
    url = site.put("/z", body=BODY, failures=[503], headers={"Retry-After": "99999"})
    get(url, tmp_path / "z", limits=patient)
    assert waits[-1] == 60


def test_f31_a_web_page_in_place_of_the_file_is_recognised(site, tmp_path):
    page = b"\n <!DOCTYPE html><html><body>Please sign in</body></html>"
    told = site.put("/a.vcf.gz", body=page, kind="text/html; charset=utf-8")
    with pytest.raises(InputError, match="a web page instead of the file"):
        get(told, tmp_path / "a.vcf.gz")
    for name in ("b.vcf.gz", "b.txt", "b.fa"):
        hidden = site.put(f"/{name}", body=page)
        with pytest.raises(InputError, match="found an HTML page"):
            get(hidden, tmp_path / name)
    fault = site.put("/c.bw", body=b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>')
    with pytest.raises(InputError, match=r"found an HTML page.*expected a bigWig"):
        get(fault, tmp_path / "c.bw")
    assert names(tmp_path) == []


def test_f31_a_file_of_another_kind_than_its_name_says(tmp_path):
    (tmp_path / "x").write_bytes(b"chr1\t1\t2\n")
    with pytest.raises(FormatError, match="expected a gzip file or a bgzip file"):
        checked_kind(tmp_path / "x", "a.vcf.gz")
    assert checked_kind(tmp_path / "x", "a.txt").startswith("text")
    (tmp_path / "empty").touch()
    with pytest.raises(FormatError, match="an empty file"):
        checked_kind(tmp_path / "empty", "a.txt")


def test_f31_redirects_are_followed_but_not_for_ever_nor_anywhere(site, tmp_path):
    goal = site.put("/goal", body=BODY, cuts=[5])
    site.put("/two", to=goal)
    assert get(site.put("/one", to=site.root + "/two"), tmp_path / "x").sha256 == SUM
    assert ranges(site.pages["/goal"]) == [None, "bytes=5-"]
    with pytest.raises(InputError, match="HTTP 302"):
        get(site.put("/loop", to=site.root + "/loop"), tmp_path / "y")
    assert len(site.pages["/loop"].requests) == QUICK.redirects + 1
    secret = tmp_path / "secret"
    secret.write_text("mine")
    for there in (secret.as_uri(), "ftp://127.0.0.1/x", "http://me:pw@127.0.0.1/x"):
        with pytest.raises(InputError, match=r"an address (of|with a user)|HTTP 302"):
            get(site.put("/away", to=there), tmp_path / "y")
    assert names(tmp_path) == ["secret", "x"]


@pytest.mark.parametrize(
    "url", ["http://example.org/x", "file:///etc/passwd", "ftp://example.org/x", "x"]
)
def test_f31_only_https_unless_a_test_says_otherwise(tmp_path, url):
    strict = dataclasses.replace(QUICK, schemes=("https",))
    with pytest.raises(InputError, match="an address of"):
        get(url, tmp_path / "x", limits=strict)


def test_f31_silence_and_dripping_end(site, tmp_path):
    hasty = dataclasses.replace(QUICK, timeout_s=0.2, tries=1)
    url = site.put("/silent", body=b"abc", pause_s=1.0)
    with pytest.raises(InputError, match=r"silence for 0\.2 s"):
        get(url, tmp_path / "x", limits=hasty)
    drip = dataclasses.replace(QUICK, stall_s=0.2, stall_bytes=1000, tries=1)
    url = site.put("/drip", body=b"a" * 500, pause_s=0.02)
    with pytest.raises(InputError, match="bytes in 0 s"):
        get(url, tmp_path / "y", limits=drip)
    assert (tmp_path / "y.part").stat().st_size > 0, "what came is kept for the next try"


def test_f31_no_network_is_said_as_such(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
        with pytest.raises(UnreachableError, match=r"no connection.*check the network"):
            get(url, tmp_path / "x")


def test_f31_the_second_address_helps(site, tmp_path):
    good = site.put("/good", body=BODY)
    found = get([site.root + "/gone", good], tmp_path / "x")
    assert found.url == good
    with pytest.raises(InputError, match=r"gone: HTTP 404.*also: HTTP 404") as caught:
        get([site.root + "/gone", site.root + "/also"], tmp_path / "y")
    assert not isinstance(caught.value, UnreachableError)


def test_f31_a_gzip_file_of_unsaid_length_is_read_to_its_end(site, tmp_path):
    whole = gzip.compress(b"ACGT" * 100_000, mtime=0)
    url = site.put("/x.gz", body=whole[:-20], length=False)
    with pytest.raises(InputError, match="cut or damaged"):
        get(url, tmp_path / "x.gz")
    assert names(tmp_path) == []
    site.put("/x.gz", body=whole, length=False)
    assert get(url, tmp_path / "x.gz").size == len(whole)


def test_f31_a_full_disk_is_seen_before_the_bytes_come(site, tmp_path, monkeypatch):
    from data_prep.sources import download as module

    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: _Usage(1_000_000))
    url = site.put("/x.bin", body=BODY)
    with pytest.raises(InputError, match=r"0\.00 GB free, expected 0\.00 GB for the rest"):
        get(url, tmp_path / "x.bin")
    assert not (tmp_path / "x.bin.part").exists()


class _Usage:
    def __init__(self, free):
        self.free = free
