"""F21 for genotypes: a killed preparation continues from its shards to the same bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.data_prep.variants import vcfs

ROOT = Path(__file__).parents[3]
CHILD = """
import os, signal, sys, warnings
from pathlib import Path
import data_prep.variants.merge as merge, data_prep.variants.plan as plan
import seq2exp.variation.vcf_file as source, data_prep.variants.store as store
import data_prep.variants.tasks as tasks
from tests.data_prep.variants import vcfs

plan.PART_BYTES = 3000
owner, name, count, half = sys.argv[2:]
module = {"merge": merge, "tasks": tasks, "source": source, "store": store}[owner]
original, calls = getattr(module, name), [0]

def counted(*args, **kwargs):
    calls[0] += 1
    if calls[0] == int(count):
        if half == "half":
            # What the call would move into place is cut first.
            path = Path(args[0])
            for file in [path] if path.is_file() else sorted(path.iterdir())[:1]:
                file.write_bytes(file.read_bytes()[:50])
            args[0].replace(args[1])
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)

setattr(module, name, counted)
warnings.simplefilter("ignore")
vcfs.build(Path(sys.argv[1]), None, name="v.gzip", on_unsupported="skip")
"""
MOMENTS = {
    "before the copy of the gzip file": ("source", "copy_gzip", 1, ""),
    "after the second part": ("tasks", "finish_shard", 3, ""),
    "with half of the third part": ("tasks", "finish_shard", 3, "half"),
    "before the first contig": ("store", "sum_up", 1, ""),
    "after the first contig": ("merge", "finish_shard", 2, ""),
    "with half of the second contig": ("merge", "finish_shard", 2, "half"),
    "inside a plane": ("merge", "_write_block", 2, ""),
    "while rejects are written": ("store", "_write_rejects", 1, ""),
}


def digest(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def make(folder):
    odd = vcfs.line("chr1", 70, "N", "<DEL>", ["0|1"] * 5)
    text = vcfs.header() + odd + "".join(vcfs.random_records(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return vcfs.build(folder, text, name="v.gzip", on_unsupported="skip")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, digest(make(folder).root)


@pytest.mark.parametrize("moment", MOMENTS)
def test_f21_killed_while_genotypes_are_read(whole, tmp_path, moment):
    source, expected = whole
    (tmp_path / "in").symlink_to(source / "in")
    command = [sys.executable, "-c", CHILD, str(tmp_path), *map(str, MOMENTS[moment])]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == -9, done.stderr
    assert not (tmp_path / "out").exists()
    assert [path.suffix for path in tmp_path.glob(".out.*.work")] == [".work"]
    command[-4:] = ["store", "sum_up", "99", ""]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert digest(tmp_path / "out") == expected
    assert not list(tmp_path.glob(".out.*.work"))


def test_f21_finished_parts_are_not_read_again(whole, tmp_path, monkeypatch):
    """A contig that fails after the parts were read: they are still there for the next run."""
    from data_prep.variants import merge, plan, tasks
    from seq2exp.core.errors import InputError

    source, expected = whole
    (tmp_path / "in").symlink_to(source / "in")
    monkeypatch.setattr(plan, "PART_BYTES", 3000)
    with monkeypatch.context() as patch:

        def dying(*_):
            message = "a worker process: found that it died"
            raise InputError(message)

        patch.setattr(merge, "_write_variants", dying)
        with warnings.catch_warnings(), pytest.raises(InputError, match="a worker process"):
            warnings.simplefilter("ignore")
            vcfs.build(tmp_path, None, name="v.gzip", on_unsupported="skip")

    def never(*_):
        raise AssertionError

    monkeypatch.setattr(tasks, "parse_calls", never)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vcfs.build(tmp_path, None, name="v.gzip", on_unsupported="skip")
    assert digest(tmp_path / "out") == expected
