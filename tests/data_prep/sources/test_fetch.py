"""A folder of fetched files: kept, checked against its lock, brought where missing."""

from __future__ import annotations

import fcntl
import gzip
import io
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from data_prep.sources import SourceEntry, fetch, load_registry
from data_prep.sources import download as download_module
from data_prep.sources.registry import SHIPPED
from seq2exp.cli.main import main
from seq2exp.core.errors import ConfigError, FormatError, InputError
from tests.data_prep.sources.server import QUICK, noise

ROOT = Path(__file__).parents[3]


def entry(name, url, **settings):
    """An entry as the registry makes it, with an address that only tests may use."""
    made = SourceEntry(name, ["https://example.org/x"], about="a", found="b", **settings)
    object.__setattr__(made, "urls", [url])
    return made


def run(entries, out, limits=QUICK):
    return fetch(entries, out, limits=limits, progress=False)


def lock(out):
    return json.loads((out / "fetch.lock.json").read_text())["files"]


@pytest.fixture
def two(site):
    return [
        entry("a.bin", site.put("/a", body=noise(10_000))),
        entry("b.bin", site.put("/b", body=noise(20_000, seed=1))),
    ]


def test_f31_what_is_there_is_kept_also_without_a_network(two, site, tmp_path):
    out = tmp_path / "new" / "out"
    done = run(two, out)
    assert (done.new, done.kept, done.num_bytes) == (["a.bin", "b.bin"], [], 30_000)
    assert lock(out)["a.bin"]["checksum"] == "observed at the first download"
    site.pages.clear()
    again = run(two, out)
    assert (again.new, again.kept) == ([], ["a.bin", "b.bin"])
    (out / "b.bin").unlink()
    with pytest.raises(InputError, match="404"):
        run(two, out)


def test_f31_the_first_checksum_is_the_law_later(two, site, tmp_path):
    run(two, tmp_path)
    (tmp_path / "a.bin").unlink()
    site.put("/a", body=noise(10_000, seed=9))
    with pytest.raises(InputError, match=r"a\.bin: found .*sha256"):
        run(two, tmp_path)
    assert not (tmp_path / "a.bin").exists()
    # Another person with the same lock is held to it too.
    other = tmp_path / "other"
    other.mkdir()
    (other / "fetch.lock.json").write_bytes((tmp_path / "fetch.lock.json").read_bytes())
    with pytest.raises(InputError, match="sha256"):
        run(two, other)
    assert (other / "b.bin").exists(), "the other file is right and was brought"


def test_f31_a_changed_file_is_named_and_not_replaced(two, tmp_path):
    run(two, tmp_path)
    content = bytearray((tmp_path / "a.bin").read_bytes())
    content[5000] ^= 1
    (tmp_path / "a.bin").write_bytes(content)
    os.utime(tmp_path / "a.bin", (0, 0))
    with pytest.raises(InputError, match=r"a\.bin: found sha256 .*delete it"):
        run(two, tmp_path)
    (tmp_path / "a.bin").write_bytes(content[:-1])
    with pytest.raises(InputError, match="found 9,999 bytes, expected 10,000"):
        run(two, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == content[:-1]


def test_a_file_brought_by_hand_is_taken_if_it_can_be(two, site, tmp_path):
    (tmp_path / "a.bin").write_bytes(site.pages["/a"].body)
    assert run(two, tmp_path).kept == ["a.bin"]
    assert lock(tmp_path)["a.bin"]["url"] == "here before the first run"
    page = tmp_path / "page"
    page.mkdir()
    (page / "a.bin").write_text("<html>404</html>")
    with pytest.raises(InputError, match="HTML page"):
        run(two[:1], page)


def test_f31_every_file_is_tried_and_every_problem_told(two, site, tmp_path):
    gone = entry("c.bin", site.root + "/c", standing="unverified")
    with pytest.raises(InputError) as caught:
        run([gone, *two, entry("d.bin", site.root + "/d", standing="code")], tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("c.bin: found")
    assert "marks this address as unverified" in lines[0]
    assert "unverified" not in lines[1]
    assert sorted(lock(tmp_path)) == ["a.bin", "b.bin"]


def test_f31_without_a_network_the_rest_is_not_tried(two, site, tmp_path):
    run(two[1:], tmp_path)
    dead = entry("c.bin", "http://127.0.0.1:9/c")
    with pytest.raises(InputError, match=r"check the network[\s\S]*not tried.*1 in all.*a\.bin"):
        run([dead, *two], tmp_path)
    assert site.pages["/a"].requests == []


def test_f26_two_processes_do_not_mix(two, tmp_path):
    with (tmp_path / ".fetch.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process"):
            run(two, tmp_path)
    assert run(two, tmp_path).new == ["a.bin", "b.bin"]


def test_f31_a_killed_download_is_continued(site, tmp_path):
    body = noise(4_000_000)
    url = site.put("/x", body=body, pause_s=0)
    page = site.pages["/x"]
    page.cuts, page.announce = [2_500_000], None
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from data_prep.sources import download as d\n"
        "from tests.data_prep.sources.server import QUICK\n"
        "d.time.sleep = lambda s: (print('waiting', flush=True), [None for _ in iter(int, 1)])\n"
        "d.download([sys.argv[1]], Path(sys.argv[2]), limits=QUICK, progress=False)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, url, str(tmp_path / "x")], cwd=ROOT,
        stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert child.stdout.readline() == b"waiting\n"
    finally:
        child.kill()
        child.wait()
    assert run([entry("x", url)], tmp_path).new == ["x"]
    assert (tmp_path / "x").read_bytes() == body
    assert page.requests[-1]["Range"] == "bytes=2500000-"


def test_f24_known_sizes_are_compared_with_the_disk_first(two, tmp_path):
    large = entry("a.bin", two[0].urls[0], size=10**15)
    with pytest.raises(InputError, match=r"1000000\.0 GB for 2 files"):
        run([large, two[1]], tmp_path)


def test_bgzip_is_made_once_and_watched(site, tmp_path):
    text = b">chr1\n" + b"ACGT\n" * 5000
    url = site.put("/g", body=gzip.compress(text, mtime=0))
    item = entry("g.fa.gz", url, unpack="bgzip", unpack_to="g.fa.bgz")
    assert run([item], tmp_path).made == ["g.fa.bgz"]
    first = (tmp_path / "g.fa.bgz").read_bytes()
    assert run([item], tmp_path).made == []
    (tmp_path / "g.fa.bgz").write_bytes(first[:-1])
    with pytest.raises(InputError, match=r"g\.fa\.bgz: found other content"):
        run([item], tmp_path)
    (tmp_path / "g.fa.bgz").unlink()
    assert run([item], tmp_path).made == ["g.fa.bgz"]
    assert (tmp_path / "g.fa.bgz").read_bytes() == first


def test_what_a_killed_run_left_half_noted_is_made_again(site, tmp_path):
    url = site.put("/g", body=gzip.compress(b"ACGT", mtime=0))
    item = entry("g.gz", url, unpack="bgzip", unpack_to="g.bgz")
    run([item], tmp_path)
    notes = json.loads((tmp_path / "fetch.lock.json").read_text())
    notes["files"]["g.gz"]["made"]["files"] = {}
    (tmp_path / "fetch.lock.json").write_text(json.dumps(notes))
    assert run([item], tmp_path).made == ["g.bgz"]


@pytest.mark.parametrize("name", ["ok.txt", "../evil"])
def test_f34_an_archive_is_unpacked_only_where_the_entry_says_so(site, tmp_path, name):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(name, "x")
    url = site.put("/z", body=content.getvalue())
    run([entry("plain.zip", url)], tmp_path / "a")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        ".fetch.lock", "fetch.lock.json", "plain.zip"]  # fmt: skip
    item = entry("z.zip", url, unpack="zip", unpack_to="z")
    if name == "ok.txt":
        assert run([item], tmp_path / "b").made == ["z"]
        assert (tmp_path / "b" / "z" / "ok.txt").read_text() == "x"
        (tmp_path / "b" / "z" / "ok.txt").write_text("y")
    with pytest.raises(InputError, match=r"other content|a member"):
        run([item], tmp_path / "b")
    assert not (tmp_path / "b" / "evil").exists()


@pytest.mark.parametrize("text", ["[]", "{}", "{", '{"format": "seq2exp fetch lock", "files": {}}'])
def test_a_lock_of_something_else_is_refused(two, tmp_path, text):
    (tmp_path / "fetch.lock.json").write_text(text)
    with pytest.raises(FormatError, match=r"fetch\.lock\.json"):
        run(two, tmp_path)


# The registry ----------------------------------------------------------------------------------


def test_every_shipped_entry_says_where_its_address_was_found():
    registry = load_registry()
    used = {name for recipe in registry.recipes.values() for name in recipe.files}
    assert used == set(registry.files)
    for item in registry.files.values():
        assert item.found
        assert item.about.endswith(".")
        assert item.licence
        assert all(url.startswith("https://") for part in item.expanded() for url in part.urls)
        # Nothing was downloaded from its publisher here, so only bytes seen elsewhere have a sum.
        assert bool(item.sha256) == (item.standing == "content")
    assert {"geuvadis", "hg19", "gencode12", "1000g_phase3_chr22", "seq2exp_k562",
            "seq2exp_gm12878"} <= set(registry.recipes)  # fmt: skip


def test_geuvadis_holds_all_that_its_configuration_reads():
    from data_prep.config import DataConfig
    from data_prep.preflight import input_files
    from seq2exp.core.config import load_config

    registry = load_registry()
    entries = registry.entries(registry.recipe("geuvadis"))
    there = {item.name for item in entries} | {item.unpack_to for item in entries}
    config = load_config(DataConfig, [ROOT / "configs" / "data" / "geuvadis.yaml"])
    assert len([item for item in entries if item.name.endswith(".vcf.gz")]) == 22
    for _, path in input_files(config, Path("/nowhere")):
        assert path.name in there, path
    assert config.genotypes.include[0] in there


def write_registry(path, **files):
    made = {name: {"urls": ["https://x.org/y"], "about": "a.", "found": "b", **more}
            for name, more in files.items()}  # fmt: skip
    path.write_text(
        json.dumps({"files": made, "recipes": {"mine": {"about": "a", "files": [*files]}}})
    )
    return path


@pytest.mark.parametrize(
    ("name", "more", "text"),
    [
        ("../x", {}, "name"),
        (".hidden", {}, "name"),
        ("x.part", {}, "name"),
        ("fetch.lock.json", {}, "name"),
        ("a b", {}, "name"),
        ("x", {"urls": ["http://x.org/y"]}, "https"),
        ("x", {"urls": ["file:///etc/passwd"]}, "https"),
        ("x", {"urls": ["https://me:pw@x.org/y"]}, "without user names"),
        ("x", {"urls": []}, "https"),
        ("x", {"sha256": "abc"}, "64 hex"),
        ("x", {"md5": "abc"}, "32 hex"),
        ("x", {"unpack": "zip", "unpack_to": "../y"}, "unpack_to"),
        ("x", {"unpack": "zip"}, "unpack_to"),
        ("x", {"unpack_to": "y"}, "unpack_to"),
        ("x", {"unpack": "rar", "unpack_to": "y"}, "rar"),
        ("x", {"each": ["1"]}, "each"),
        ("x{each}", {"each": ["../1"]}, "name"),
        ("x", {"sise": 3}, "did you mean 'size'"),
        ("hg19.fa.gz", {}, "known already"),
    ],
)
def test_a_registry_of_a_stranger_is_checked(tmp_path, name, more, text):
    path = write_registry(tmp_path / "r.yaml", **{name: more})
    with pytest.raises(ConfigError, match=text):
        registry = load_registry([path])
        registry.entries(registry.recipe("mine"))


def test_a_recipe_must_list_what_is_described(tmp_path):
    (tmp_path / "r.yaml").write_text("recipes: {mine: {about: a, files: [nothing]}}\n")
    with pytest.raises(ConfigError, match="nothing"):
        load_registry([tmp_path / "r.yaml"])
    assert SHIPPED.stat().st_size < 100_000


# The command -----------------------------------------------------------------------------------


def test_the_command_lists_fetches_and_says_what_is_next(site, tmp_path, monkeypatch, capsys):
    assert main(["fetch", "--list"]) == 0
    assert "geuvadis " in capsys.readouterr().out
    assert main(["fetch", "geuvadis", "--list"]) == 0
    told = capsys.readouterr().out
    assert "GD660.GeneQuantRPKM.txt.gz" in told
    assert "(22 files)" in told
    url = site.put("/a", body=b"abc")
    registry = write_registry(tmp_path / "r.yaml", a={}, b={})
    line = ["fetch", "mine", str(tmp_path / "out"), "--registry", str(registry), "--only", "a*"]
    monkeypatch.setattr(
        download_module.urllib.request, "Request",
        lambda asked, headers: _Request(url, headers=headers),
    )  # fmt: skip
    assert main(line) == 0
    assert "downloaded 1, already there and right 0" in capsys.readouterr().out
    assert main(line) == 0
    assert "downloaded 0, already there and right 1" in capsys.readouterr().out


_Request = download_module.urllib.request.Request


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["gevadis", "x"], "did you mean 'geuvadis'"),
        (["geuvadis"], "no recipe or no folder"),
        ([], "no recipe or no folder"),
        (["geuvadis", "x", "--only", "*chr99*"], "no file of geuvadis"),
    ],
)
def test_the_command_says_what_is_wrong(words, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fetch", *words]) == 2
    assert text in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_time_is_not_what_decides(two, tmp_path, monkeypatch):
    """F40: a clock that goes backwards changes nothing."""
    run(two, tmp_path)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert run(two, tmp_path).kept == ["a.bin", "b.bin"]
