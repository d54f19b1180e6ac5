"""F42: properties that hold for any input, beside those of tests/core, tests/nn and tests/dataset.

One-hot and reverse complement: tests/core/test_sequence.py. Interval algebra against brute force:
tests/core/test_intervals.py. KL against a numerical integral: tests/nn/test_beta.py.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2exp.core.bed import read_bed, write_bed
from seq2exp.core.intervals import Window
from seq2exp.core.sequence import reverse_complement
from seq2exp.dataset.datamodule import SeededSampler
from seq2exp.models.registry import build_model
from tests.dataset.mini import mini_dataset
from tests.runs import MODEL

LENGTH = 160


@settings(max_examples=25, deadline=None)
@given(bin_size=st.sampled_from([1, 4, 5, 16]), start=st.integers(-40, 0), size=st.integers(1, 12))
def test_f42_windows_that_tile_a_contig_conserve_the_sum_of_a_track(bin_size, start, size):
    """Bins that cross a contig end hold the mean of the covered part, so they count for less."""
    values = np.random.default_rng(size).gamma(1.0, size=(LENGTH // 4, 1)).astype(np.float32)
    length = bin_size * size
    total = 0.0
    with tempfile.TemporaryDirectory() as folder:
        dataset = mini_dataset(Path(folder) / "d", np.zeros(LENGTH), values, bin_size=4)
        for first in range(start, LENGTH, length):
            window = Window("c", first, first + length, "+-"[size % 2], LENGTH)
            bins = dataset.track_bins(window, bin_size=bin_size)[:, 0]
            edges = np.arange(first, first + length + 1, bin_size).clip(0, LENGTH)
            covered = np.diff(edges)
            total += float((bins * (covered[::-1] if window.reverse else covered)).sum())
    assert total == pytest.approx(4 * values.sum(), rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(start=st.integers(-50, LENGTH), length=st.integers(1, 80))
def test_f42_the_two_strands_of_a_window_mirror_each_other(start, length):
    random = np.random.default_rng(0)
    codes, values = random.integers(0, 5, LENGTH), random.normal(size=(LENGTH // 4, 2))
    with tempfile.TemporaryDirectory() as folder:
        dataset = mini_dataset(Path(folder) / "d", codes, values, bin_size=4)
        plus, minus = (Window("c", start, start + length, strand, LENGTH) for strand in "+-")
        assert np.array_equal(reverse_complement(dataset.codes(plus)), dataset.codes(minus))
        forward = dataset.track_bins(plus, bin_size=1)
        assert np.array_equal(forward[::-1], dataset.track_bins(minus, bin_size=1))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([0.0, 1.0, 1e4]))
def test_f42_masks_lie_between_0_and_1_whatever_the_signal(seed, scale):
    settings_ = {key: value for key, value in MODEL.items() if key != "name"}
    torch.manual_seed(seed)
    model = build_model(
        "seq2exp", {**settings_, "tracks": ["DNase"], "window_bp": 256, "bin_size": 32}
    )
    codes, signal = torch.randint(0, 5, (2, 256)).to(torch.uint8), scale * torch.rand(2, 8, 1)
    for mode in (model.train(), model.eval()):
        output = mode(codes, signal, torch.zeros(2, 0))
        assert ((output.mask_BN >= 0) & (output.mask_BN <= 1)).all()
        assert (output.kl_B >= 0).all()


@given(num=st.integers(1, 200), seed=st.integers(0, 10**9), epoch=st.integers(0, 1000))
def test_f42_an_epoch_covers_each_gene_once(num, seed, epoch):
    sampler = SeededSampler(num, seed=seed)
    sampler.set_epoch(epoch)
    assert sorted(sampler) == list(range(num))


NAME = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"'),
               min_size=1, max_size=12)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 10**9), st.integers(1, 10**6), NAME), min_size=1))
def test_f42_a_bed_file_reads_back_as_it_was_written(rows):
    frame = pd.DataFrame([("c", start, start + n, name) for start, n, name in rows],
                         columns=["chrom", "start", "end", "name"])  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        write_bed(frame, Path(folder) / "x.bed")
        back = read_bed(Path(folder) / "x.bed")[list(frame)]
    ordered = frame.sort_values(["chrom", "start", "end"], kind="stable").reset_index(drop=True)
    assert back.to_dict("list") == ordered.to_dict("list")
