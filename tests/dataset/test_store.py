"""Windows against a plain reading of the genome, base by base, in either direction."""

from __future__ import annotations

import math
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2exp.core.errors import InputError
from seq2exp.core.intervals import Window, tss_window
from seq2exp.core.sequence import decode
from tests.dataset.mini import mini_dataset

LENGTH = 203
COMPLEMENT = {"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}
NAN = math.nan


def positions(window):
    """Genome position of every base of a window, in model direction."""
    forward = list(range(window.start, window.end))
    return forward[::-1] if window.reverse else forward


def inside(window, position):
    return 0 <= position < window.contig_length


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    random = np.random.default_rng(3)
    codes = random.integers(0, 5, LENGTH)
    bins = random.normal(size=(-(-LENGTH // 8), 2))
    regions = [(5, 9), (100, 101), (190, 240)]
    root = tmp_path_factory.mktemp("store") / "dataset"
    return mini_dataset(root, codes, bins, bin_size=8, regions=regions)


WINDOWS = [(20, 84), (-30, 34), (170, 234), (-10, 246), (-90, -10), (203, 267), (0, 1), (202, 203)]


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize(("start", "end"), WINDOWS)
def test_bases_of_a_window_and_its_padding(dataset, start, end, strand):
    window = Window("c", start, end, strand, LENGTH)
    genome = decode(np.load(dataset.root / "sequence" / "c.npy"))
    expected = "".join(genome[p] if inside(window, p) else "N" for p in positions(window))
    if strand == "-":
        expected = "".join(COMPLEMENT[base] for base in expected)
    codes = dataset.codes(window)
    assert decode(codes) == expected
    assert codes.dtype == np.uint8


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize("offset", [-40, -1, 0, 1, 39])
@pytest.mark.parametrize("tss", [100, 3, 198])
@pytest.mark.parametrize("bin_size", [1, 16])
def test_a_marker_base_and_a_marker_signal_land_at_the_same_place(
    tmp_path, strand, offset, tss, bin_size
):
    """Offset is along transcription; the TSS is base length // 2 of the window on both strands."""
    place = tss + offset * (1 if strand == "+" else -1)
    codes, signal = np.zeros(LENGTH), np.zeros((LENGTH, 1))
    there = 0 <= place < LENGTH
    if there:
        codes[place], signal[place] = 1, 16.0
    dataset = mini_dataset(tmp_path / "d", codes, signal, bin_size=1, tss=[tss], strands=strand)
    window = tss_window("c", tss, strand, length=96, contig_length=LENGTH)
    marker = {"+": 1, "-": 2}[strand]  # C, or G on the other strand
    found = np.flatnonzero(dataset.codes(window) == marker).tolist()
    bins = dataset.track_bins(window, bin_size=bin_size)[:, 0]
    lit = np.flatnonzero(bins).tolist()
    assert found == ([48 + offset] if there else [])
    assert lit == ([(48 + offset) // bin_size] if there else [])
    if tss == 100:  # no padding: every mean is over bin_size bases
        assert bins.sum() * bin_size == 16.0


def brute_bins(stored, stored_size, window, bin_size):
    """Mean of the known bases of each bin: NaN without one, 0 outside the contig."""
    per_base = [stored[p // stored_size] if inside(window, p) else None for p in positions(window)]
    out = []
    for first in range(0, window.length, bin_size):
        covered = [value for value in per_base[first : first + bin_size] if value is not None]
        known = [value for value in covered if not math.isnan(value)]
        out.append(sum(known) / len(known) if known else (NAN if covered else 0.0))
    return out


@settings(max_examples=150, deadline=None)
@given(
    stored_size=st.sampled_from([1, 3, 8, 16, 50]),
    bin_size=st.sampled_from([1, 2, 8, 16, 48]),
    start=st.integers(-120, 230),
    num_bins=st.integers(1, 6),
    strand=st.sampled_from("+-"),
    missing=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 9),
)
def test_track_bins_equal_means_over_bases(
    stored_size, bin_size, start, num_bins, strand, missing, seed
):
    random = np.random.default_rng(seed)
    values = random.normal(size=(-(-LENGTH // stored_size), 1)).astype(np.float32)
    values[random.random(len(values)) < missing] = NAN
    window = Window("c", start, start + num_bins * bin_size, strand, LENGTH)
    expected = brute_bins(values[:, 0].astype(float), stored_size, window, bin_size)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "d"
        dataset = mini_dataset(root, np.zeros(LENGTH), values, bin_size=stored_size)
        found = dataset.track_bins(window, bin_size=bin_size)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_tracks_do_not_mix_and_keep_their_order(dataset):
    stored = np.load(dataset.root / "tracks" / "c.npy")
    window = Window("c", 16, 80, "-", LENGTH)
    np.testing.assert_array_equal(dataset.track_bins(window, bin_size=8), stored[2:10][::-1])


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize(("start", "num_bins"), [(20, 4), (-30, 8), (180, 4), (-100, 5)])
def test_excluded_and_inside_bins_touch_at_least_one_base(dataset, start, num_bins, strand):
    window = Window("c", start, start + 16 * num_bins, strand, LENGTH)
    bases = np.array(positions(window)).reshape(num_bins, 16)
    excluded = np.isin(bases, [*range(5, 9), 100, *range(190, 240)]).any(axis=1)
    within = ((bases >= 0) & (bases < LENGTH)).any(axis=1)
    assert dataset.excluded_bins(window, bin_size=16).tolist() == excluded.tolist()
    assert dataset.inside_bins(window, bin_size=16).tolist() == within.tolist()


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize("tss", [100, 2, 200])
def test_contacts_follow_the_distance_from_the_tss(tmp_path, strand, tss):
    """Profile bin i covers TSS + [(i - 3) * 20, (i - 2) * 20); window bins ask at their middle."""
    profile = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    dataset = mini_dataset(
        tmp_path / "d", np.zeros(LENGTH), np.zeros((LENGTH, 1)), bin_size=1,
        tss=[0, tss], strands="+" + strand, contacts=(20, [[9.0] * 6, profile]),
    )  # fmt: skip
    window = tss_window("c", tss, strand, length=160, contig_length=LENGTH)
    expected = []
    for first in range(window.start, window.end, 8):
        index = math.floor((first + 4 - tss) / 20) + 3
        touches = first < LENGTH and first + 8 > 0
        expected.append(profile[index] if touches and 0 <= index < 6 else 0.0)
    found = dataset.contact_bins(1, window, bin_size=8)
    assert found.tolist() == (expected[::-1] if strand == "-" else expected)


def test_wrong_windows_are_refused(dataset):
    with pytest.raises(InputError, match="a multiple of bin_size 16"):
        dataset.track_bins(Window("c", 0, 40, "+", LENGTH), bin_size=16)
    with pytest.raises(InputError, match="no contig 'chrQ'"):
        dataset.codes(Window("chrQ", 0, 40, "+", LENGTH))


def test_a_dataset_travels_to_worker_processes_without_its_arrays(dataset):
    window = Window("c", 0, 64, "+", LENGTH)
    before = dataset.codes(window)
    sent = pickle.dumps(dataset)
    copy = pickle.loads(sent)
    assert len(sent) < 10_000
    assert np.array_equal(copy.codes(window), before)
