"""F39 and F40: odd environments and clocks change nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_prep import shards
from data_prep.build import prepare
from seq2exp.core.files import sha256
from seq2exp.training.trainer import train
from tests.data_prep import raw
from tests.runs import tiny_config
from tests.toys import toy_dataset

ROOT = Path(__file__).parents[2]


def test_f39_without_home_locale_and_assertions_the_numbers_are_the_same(tmp_path):
    """`python -O`, LANG=C, no home, another time zone. Paths are not ASCII."""
    toy = toy_dataset(tmp_path / "toy \u00fc")
    train(tiny_config(), toy, tmp_path / "run")
    line = ["predict", str(tmp_path / "run"), "--out"]
    script = "import sys; from seq2exp.cli.main import main; sys.exit(main(sys.argv[1:]))"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C", "LC_ALL": "C",
                   "HOME": "/nonexistent", "TZ": "Pacific/Kiritimati",
                   "OMP_NUM_THREADS": "1"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-O", "-c", script, *line, str(tmp_path / "odd.parquet")],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    from seq2exp.cli.main import main

    assert main([*line, str(tmp_path / "usual.parquet")]) == 0
    odd, usual = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("odd", "usual"))
    assert odd.drop(columns=["predicted:cell_a", "predicted:cell_b", "mask_ratio"]).equals(
        usual.drop(columns=["predicted:cell_a", "predicted:cell_b", "mask_ratio"])
    )
    np.testing.assert_allclose(odd["predicted:cell_a"], usual["predicted:cell_a"], atol=1e-6)


def test_f40_a_changed_input_of_equal_size_and_time_is_not_taken_from_the_cache(
    tmp_path, monkeypatch
):
    """An interrupted preparation leaves shards; the key is the content, not the clock."""
    inputs = raw.write_raw(tmp_path / "in")
    track = inputs.folder / "signal.bw"
    original = shards.write_array
    written = []

    def interrupted(path, array):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path.name)
        original(path, array)

    monkeypatch.setattr(shards, "write_array", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(inputs.config, source=inputs.folder, out=tmp_path / "out", progress=False)
    monkeypatch.undo()
    before, was = track.stat(), sha256(track)
    raw.write_bigwig(track, {"chr1": [(0, 100, 3.0)], "chr2": [(0, 50, 1.0)]})
    missing = before.st_size - track.stat().st_size
    assert missing >= 0
    # Padding before the closing magic number keeps the file readable and makes sizes equal.
    data = track.read_bytes()
    track.write_bytes(data[:-4] + b"\0" * missing + data[-4:])
    os.utime(track, ns=(before.st_atime_ns, before.st_mtime_ns))
    now = track.stat()
    assert (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert sha256(track) != was
    prepare(inputs.config, source=inputs.folder, out=tmp_path / "out", progress=False)
    shutil.copytree(inputs.folder, tmp_path / "in2")
    prepare(inputs.config, source=tmp_path / "in2", out=tmp_path / "new", progress=False)
    for path in (tmp_path / "new" / "tracks").iterdir():
        assert sha256(path) == sha256(tmp_path / "out" / "tracks" / path.name)


def test_f40_a_dataset_from_the_future_opens(tmp_path):
    from seq2exp.dataset.store import Dataset

    root = toy_dataset(tmp_path / "d")
    for path in root.rglob("*"):
        os.utime(path, (4e9, 4e9))
    assert len(Dataset(root, verify_checksums=True).genes) == 44
