"""Memory is told before the work, and too little of it is a warning."""

from __future__ import annotations

import pytest

from seq2exp.core.errors import Seq2ExpWarning
from seq2exp.dataset.store import Dataset
from seq2exp.variants import room
from tests.toys import toy_dataset
from tests.variants.engines import engine_of, seq2exp


def test_memory_grows_with_batch_and_processes_and_is_compared_with_what_is_free(
    tmp_path, monkeypatch
):
    dataset = Dataset(toy_dataset(tmp_path / "toy"))
    model = seq2exp(dataset)
    with engine_of(dataset, [model], batch_size=2) as engine:
        few = room.tell_memory(engine)
        assert room.tell_memory(engine, processes=3) == pytest.approx(3 * few, rel=0.05)
    # At least the hidden states of 32 bins, 8 wide, in float32.
    assert few > 2 * 32 * 8 * 4
    with engine_of(dataset, [model], batch_size=64) as engine:
        assert room.tell_memory(engine) == pytest.approx(32 * few, rel=0.05)
        monkeypatch.setattr(room, "available_bytes", lambda device: few)
        with pytest.warns(Seq2ExpWarning, match="lower --batch-size"):
            room.tell_memory(engine)
