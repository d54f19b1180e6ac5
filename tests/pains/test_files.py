"""What users of other tools met with bigWig files, contigs and worker processes: P1 to P5, P7."""

from __future__ import annotations

import multiprocessing
import pickle
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyBigWig
import pytest
from torch.utils.data import DataLoader

from data_prep import tracks
from data_prep.config import TrackConfig
from data_prep.preflight import check_inputs
from data_prep.simulate.write import write_track
from data_prep.tracks import bin_contig, check_track
from seq2exp.core.errors import InputError
from seq2exp.core.intervals import Window
from seq2exp.core.sequence import decode, encode, reverse_complement
from seq2exp.dataset.datamodule import predict_loader
from seq2exp.dataset.samples import SampleConfig, collate
from seq2exp.dataset.store import Dataset
from seq2exp.elements.export import write_bigwig
from tests.data_prep import raw
from tests.dataset.mini import mini_dataset
from tests.pains.workers import SETTING, bins_of, track_file

NO_FORK_WARNING = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def open_files(ending: str) -> list[str]:
    """Files of this process that are open, by the end of their name."""
    found = []
    for link in list(Path("/proc/self/fd").iterdir()):
        try:
            found.append(str(link.readlink()))
        except OSError:  # closed meanwhile
            continue
    return [name for name in found if name.endswith(ending)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pain_01_no_handle_outlives_a_read_or_crosses_a_process(tmp_path, monkeypatch):
    """pyBigWig#74: a handle that workers share after a fork gives errors."""
    import pybigtools

    file, during, original = track_file(tmp_path), [], pybigtools.open
    opened: list[object] = []

    class Watched:
        def __init__(self, path):
            self.handle = original(path)
            opened.append(self)

        def values(self, *args, **options):
            during.append(open_files("t.bw"))
            return self.handle.values(*args, **options)

        def close(self):
            self.handle.close()
            opened.remove(self)

    expected = bins_of((file, "chr1"))
    monkeypatch.setattr(pybigtools, "open", Watched)
    assert np.array_equal(bins_of((file, "chr1")), expected, equal_nan=True)
    assert all(during), "the file is open while it is read"
    assert opened == open_files("t.bw") == [], "and closed afterwards: there is nothing to share"
    copy = pickle.loads(pickle.dumps(file))
    assert copy.path == file.path
    assert copy.header == file.header
    with (
        tracks._reader(file.path, "test") as watched,
        pytest.raises(TypeError, match="cannot pickle"),
    ):
        pickle.dumps(watched.handle)


@NO_FORK_WARNING
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_pain_02_two_workers_read_bigwigs_that_this_process_has_read(tmp_path, start):
    """pyBigWig#50: bwGetOverlappingIntervalsCore fails with num_workers > 0 only."""
    file = track_file(tmp_path)
    jobs = [(file, contig) for contig in raw.SIZES] * 4
    here = [bins_of(job) for job in jobs]
    context = multiprocessing.get_context(start)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        there = list(pool.map(bins_of, jobs))
    for mine, theirs in zip(here, there, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert np.nansum(here[0]) == 6.0


@NO_FORK_WARNING
@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_pain_02_two_loaders_read_a_dataset_that_this_process_has_read(toy, start):
    """pyBigWig#50, with what training reads instead of a bigWig."""
    dataset = Dataset(toy)
    config = SampleConfig(window_bp=256, bin_size=32)
    loader = predict_loader(dataset, config, np.arange(6), batch_size=2)
    here = list(loader)
    workers = DataLoader(
        loader.dataset, 2, num_workers=2, collate_fn=collate, multiprocessing_context=start
    )
    for mine, theirs in zip(here, workers, strict=True):
        for name in mine.__dataclass_fields__:
            first, second = getattr(mine, name).numpy(), getattr(theirs, name).numpy()
            np.testing.assert_array_equal(first, second)
    assert dataset._arrays, "memory maps are open here"
    assert not pickle.loads(pickle.dumps(dataset))._arrays, "and are not sent along"


class Strict:
    """A pyBigWig writer that takes what a wheel without numpy takes: numbers of Python only."""

    def __init__(self, path: str, mode: str) -> None:
        self.handle = REAL_OPEN(path, mode)
        self.sizes: list[int] = []
        self.closed = False

    def addHeader(self, contigs):
        self._refuse(contigs)
        self.handle.addHeader(contigs)

    def addEntries(self, contigs, starts, **options):
        self._refuse((contigs, starts, list(options.values())))
        self.sizes.append(len(starts) if isinstance(starts, list) else 1)
        self.handle.addEntries(contigs, starts, **options)

    def close(self):
        self.closed = True
        self.handle.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _refuse(self, value):
        if isinstance(value, list | tuple):
            for item in value:
                self._refuse(item)
        elif type(value) not in (int, float, str):
            message = f"{type(value)} given to a pyBigWig without numpy"
            raise TypeError(message)


REAL_OPEN = pyBigWig.open


@pytest.fixture
def strict(monkeypatch):
    opened: list[Strict] = []

    def remembered(path, mode):
        opened.append(Strict(path, mode))
        return opened[-1]

    monkeypatch.setattr(pyBigWig, "open", remembered)
    return opened


def test_pain_03_a_pybigwig_without_numpy_is_enough(tmp_path, monkeypatch, strict):
    """pyBigWig#128: values(numpy=True) is a TypeError in wheels that were built without numpy."""
    size = np.int64(1000)
    with write_bigwig(tmp_path / "map.bw", {"chr1": size}) as writer:
        writer.add("chr1", np.arange(0, 40, 4), np.arange(2, 42, 4), np.linspace(0, 1, 10))
    world = type("World", (), {"genome": {"chr1": np.zeros(1000, np.uint8)}})
    signal = np.arange(63, dtype=np.float32)
    write_track({"chr1": signal}, world, tmp_path / "track.bw", bin_size=16)
    assert [writer.closed for writer in strict] == [True, True]
    # Reading does not go through the package at all.
    monkeypatch.setitem(sys.modules, "pyBigWig", None)
    file = check_track(SETTING, tmp_path / "track.bw", sizes={"chr1": 1000}, contigs=["chr1"])
    whole = (np.array([0]), np.array([1000]))
    found = bin_contig(file, "chr1", length=1000, bin_size=16, config=SETTING, known=whole)
    np.testing.assert_allclose(found.values, signal)


def test_pain_04_writing_takes_numpy_numbers_in_pieces_and_always_closes(
    tmp_path, monkeypatch, strict
):
    """pyBigWig#18, #91, #148: numpy scalars crash; memory and handles grow with many files."""
    monkeypatch.setattr("seq2exp.elements.export._CHUNK", 7)
    for number in range(30):
        path = tmp_path / f"{number}.bw"
        with write_bigwig(path, {"chr1": np.int32(900)}) as writer:
            starts = np.arange(0, 800, 40, dtype=np.int64)
            writer.add("chr1", starts, starts + 10, np.full(20, number, np.float32))
        assert strict[number].sizes == [7, 7, 6]
        assert strict[number].closed
    with REAL_OPEN(str(path)) as handle:
        assert handle.intervals("chr1")[-1] == (760, 770, 29.0)
    with (
        pytest.raises(ZeroDivisionError),
        write_bigwig(tmp_path / "broken.bw", {"chr1": 900}) as writer,
    ):
        writer.add("chr1", starts, starts + 10, np.full(20, 1 / 0))
    assert strict[-1].closed
    if sys.platform == "linux":
        assert open_files(".bw") == []


def test_pain_05_other_names_are_understood_or_both_sets_are_named(tmp_path):
    """CREsted#44, #70, #132, #153, deepTools#247, bigtools#53: chr1 or 1, cryptic errors."""
    inputs = raw.write_raw(tmp_path / "raw")

    def renamed(name: str, file: str, contigs) -> TrackConfig:
        sizes = {contigs(contig): size for contig, size in raw.SIZES.items()}
        signal = {contigs(contig): rows for contig, rows in raw.SIGNAL.items()}
        raw.write_bigwig(inputs.folder / file, signal, sizes)
        return TrackConfig(name=name, path=file)

    bare = renamed("bare", "bare.bw", lambda contig: contig[3:])
    other = renamed("other", "other.bw", lambda contig: f"scaffold_{contig[3:]}")
    gone = TrackConfig(name="gone", path="gone.bw")
    config = replace(inputs.config, tracks=[*inputs.config.tracks, bare])
    checked = check_inputs(config, inputs.folder, cache=tmp_path / "cache")
    assert [track.file.names["chr1"] for track in checked.tracks] == ["chr1", "1"]
    config = replace(config, tracks=[*config.tracks, other, gone])
    with pytest.raises(InputError) as caught:
        check_inputs(config, inputs.folder, cache=tmp_path / "cache")
    message = str(caught.value)
    assert re.search(r"other\.bw: found contigs scaffold_1, scaffold_2.*chr1, chr2", message)
    assert "gone.bw" in message, "all files are looked at, not up to the first problem"
    # A contig of the genome that the file lacks is no signal, or unknown where that was asked for.
    file = check_track(SETTING, inputs.folder / "signal.bw", sizes=raw.SIZES, contigs=["chr1"])
    for nan, value in (("zero", 0.0), ("missing", np.nan)):
        found = bin_contig(
            file, "chr3", length=500, bin_size=16, config=replace(SETTING, nan=nan),
            known=(np.array([0]), np.array([500])),
        )  # fmt: skip
        np.testing.assert_array_equal(found.values, np.full(32, value))


@pytest.mark.parametrize("strand", ["+", "-"])
def test_pain_07_beyond_the_end_there_is_n_no_data_and_no_valid_bin(tmp_path, strand):
    """chrombpnet#188: invalid interval bounds past the end of a chromosome."""
    text = "ACGGTTACGATTACAGG" * 3  # 51 bases, no multiple of a bin
    bins = np.arange(1, 14, dtype=np.float32)[:, None]
    dataset = mini_dataset(tmp_path / "d", encode(text), bins, bin_size=4)
    window = Window("c", 40, 72, strand, 51)
    turn = -1 if strand == "-" else 1
    codes = encode(text[40:] + "N" * 21)
    expected = reverse_complement(codes) if strand == "-" else codes
    assert decode(dataset.codes(window)) == decode(expected)
    track = dataset.track_bins(window, bin_size=4)[::turn, 0]
    np.testing.assert_array_equal(track, [11, 12, 13, 0, 0, 0, 0, 0])
    valid = dataset.inside_bins(window, bin_size=4)[::turn]
    assert valid.tolist() == [True] * 3 + [False] * 5
