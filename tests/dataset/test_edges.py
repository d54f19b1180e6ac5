from __future__ import annotations

import logging

import numpy as np
import pytest

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.dataset.datamodule import GeneDataModule, labelled_rows
from seq2exp.dataset.edges import padded_bases, usable_rows
from seq2exp.dataset.samples import GeneSamples, SampleConfig
from seq2exp.dataset.store import Dataset


@pytest.fixture(scope="module")
def dataset(toy):
    return Dataset(toy)


def config(**changes):
    return SampleConfig(**{"window_bp": 1024, "bin_size": 32, **changes})


@pytest.fixture(scope="module")
def everyone(dataset):
    return np.arange(len(dataset.genes))


def test_f04_padded_bases_are_counted_as_the_windows_have_them(dataset, everyone):
    samples = GeneSamples(dataset, config(), everyone)
    # Bins wholly outside show in `valid`; the count is per base, so it differs by less than a bin.
    outside = np.array([(~samples[int(row)].valid).sum() * 32 for row in everyone])
    counts = padded_bases(dataset, everyone, config())
    assert (counts > 0).sum() >= 3
    assert ((counts - outside >= 0) & (counts - outside < 32)).all()


def test_f04_pad_keeps_all_genes_and_skip_those_inside(dataset, everyone):
    padded = padded_bases(dataset, everyone, config())
    kept = usable_rows(dataset, everyone, config(edge="pad"), what="genes")
    inside = usable_rows(dataset, everyone, config(edge="skip"), what="genes")
    assert kept.tolist() == everyone.tolist()
    assert inside.tolist() == everyone[padded == 0].tolist()


def test_f04_the_numbers_are_reported(dataset, everyone, monkeypatch):
    seen = []
    monkeypatch.setattr(
        logging.getLogger("seq2exp.dataset.edges"), "info", lambda text, *a: seen.append(text % a)
    )
    padded = padded_bases(dataset, everyone, config())
    usable_rows(dataset, everyone, config(), what="train genes")
    usable_rows(dataset, everyone, config(edge="skip"), what="train genes")
    start = f"train genes: {(padded > 0).sum()} of 44 windows reach beyond a contig end; "
    assert seen == [
        f"{start}{padded.sum():,} bases are padded with N",
        f"{start}their genes are left out",
    ]


def test_f04_training_and_controls_follow_the_policy(dataset):
    for split in ("train", "valid"):
        some = labelled_rows(dataset, split, config(edge="skip"))
        assert 0 < len(some) < len(labelled_rows(dataset, split, config()))
        assert not padded_bases(dataset, some, config()).any()
    data = GeneDataModule(dataset, config(edge="skip"), batch_size=4)
    assert len(data.train) == len(labelled_rows(dataset, "train", config(edge="skip")))


def test_f04_no_window_inside_and_an_unknown_policy_are_refused(dataset, everyone):
    with pytest.raises(InputError, match="no window of 65,536 bases inside its contig"):
        usable_rows(dataset, everyone, config(window_bp=65536, edge="skip"), what="genes")
    with pytest.raises(ConfigError, match=r"data\.edge: found trim"):
        config(edge="trim")
