from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seq2exp.core.measure import measured


def test_time_is_told_also_of_work_that_fails():
    with pytest.raises(KeyError), measured() as cost:
        raise KeyError
    assert 0 < cost.seconds < 5


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_the_peak_is_that_of_the_block_and_not_of_what_was_before():
    with measured() as large:
        np.ones(30_000_000).sum()
    with measured() as small:
        np.ones(10).sum()
    assert large.peak_bytes is not None
    assert small.peak_bytes is not None
    assert large.peak_bytes - small.peak_bytes > 200e6


def test_a_system_without_proc_tells_no_memory(monkeypatch, tmp_path):
    monkeypatch.setattr("seq2exp.core.measure._RESET", tmp_path / "none" / "clear_refs")
    with measured() as cost:
        pass
    assert cost.peak_bytes is None
