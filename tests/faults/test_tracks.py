"""F08 to F12: bigWig files that are cut, damaged, odd, or something else."""

from __future__ import annotations

import dataclasses
import json
import re
import resource
from pathlib import Path

import numpy as np
import pybigtools
import pyBigWig
import pytest

from data_prep.bigwig import check_bigwig
from data_prep.build import prepare
from data_prep.config import TrackConfig
from data_prep.preflight import PreflightError, check_inputs
from data_prep.tracks import bin_contig, check_track, to_storage
from seq2exp.cli.main import main
from seq2exp.core.config import dump_yaml
from seq2exp.core.errors import ConfigError, FormatError, InputError, Seq2ExpWarning
from seq2exp.core.files import read_json
from seq2exp.dataset import format as layout
from seq2exp.dataset.store import Dataset
from tests.data_prep import raw

SIZES = {"chr1": 200_000, "chr2": 100_000}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One contig with 10 bp steps, and one without data."""
    random = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("bw") / "t.bw"
    steps = [(start, start + 10, float(random.gamma(1, 5))) for start in range(0, 200_000, 10)]
    return raw.write_bigwig(path, {"chr1": steps}, SIZES).read_bytes()


def binned(path, **settings):
    config = TrackConfig(name="t", path="t.bw", **settings)
    file = check_track(config, path, sizes=SIZES, contigs=["chr1"])
    known = (np.array([0]), np.array([200_000]))
    return bin_contig(file, "chr1", length=200_000, bin_size=100, config=config, known=known)


def one_value(tmp_path, value, *, start=1000):
    entries = [(0, 500, 1.0), (start, start + 10, value), (start + 50, start + 60, 2.0)]
    return raw.write_bigwig(tmp_path / "t.bw", {"chr1": entries}, SIZES)


# F08 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9, 0.99])
def test_f08_truncated_bigwig_is_found_in_the_preflight(tmp_path, whole, kept):
    path = tmp_path / "t.bw"
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(FormatError, match=r"t\.bw: found a truncated or damaged file of"):
        check_bigwig(path)


def test_f08_no_cut_at_all_passes(tmp_path, whole):
    path = tmp_path / "t.bw"
    for length in np.linspace(1, len(whole) - 1, 300).astype(int):
        path.write_bytes(whole[:length])
        with pytest.raises((FormatError, InputError)):
            check_bigwig(path)


@pytest.mark.parametrize("kept", [0.9, 0.99])
def test_f08_the_libraries_are_silent_about_it(tmp_path, whole, kept):
    path = tmp_path / "t.bw"
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pyBigWig.open(str(path)) as library:
        assert np.isfinite(library.values("chr1", 0, 1000, numpy=True)).all()
    library = pybigtools.open(str(path))
    values = library.values("chr1", 0, 200_000, bins=100, exact=True, fillna=None)
    assert np.isfinite(values).all()
    with pytest.raises(FormatError):
        check_bigwig(path)


def test_f08_prepare_stops_before_any_output(tmp_path):
    inputs = raw.write_raw(tmp_path / "in")
    path = inputs.folder / "signal.bw"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(FormatError, match=r"signal\.bw"):
        prepare(inputs.config, source=inputs.folder, out=tmp_path / "out", progress=False)
    assert {entry.name for entry in tmp_path.iterdir()} <= {"in", ".out.lock"}


# F09 -------------------------------------------------------------------------------------------


def flipped(whole, tmp_path, fraction):
    """Flip 200 bytes at a fraction of the data section."""
    content = bytearray(whole)
    at = int(len(content) * fraction)
    content[at : at + 200] = bytes(255 - byte for byte in content[at : at + 200])
    path = tmp_path / "t.bw"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.4])
def test_f09_flipped_bytes_become_an_error_with_path_and_place(tmp_path, whole, fraction):
    with pytest.raises(FormatError, match=r"t\.bw"):
        binned(flipped(whole, tmp_path, fraction))


def test_f09_a_block_in_the_middle_is_found_when_read(tmp_path, whole):
    """The preflight sees the first and last block; the rest is read by the task itself."""
    path = flipped(whole, tmp_path, 0.35)
    check_bigwig(path)
    with pytest.raises(FormatError, match=r"t\.bw at chr1:\d+-\d+: found data that cannot be read"):
        binned(path)


def test_f09_the_library_panics_with_a_base_exception(tmp_path, whole):
    library = pybigtools.open(str(flipped(whole, tmp_path, 0.35)))
    with pytest.raises(BaseException) as error:  # noqa: PT011
        library.values("chr1", 0, 200_000, bins=100, exact=True, fillna=None)
    assert not isinstance(error.value, Exception)
    assert type(error.value).__name__ == "PanicException"


def test_f09_interrupts_are_never_swallowed(tmp_path, whole, monkeypatch):
    from data_prep import tracks

    with pytest.raises(KeyboardInterrupt), tracks._foreign_errors(tmp_path, "x"):
        raise KeyboardInterrupt
    with pytest.raises(SystemExit), tracks._foreign_errors(tmp_path, "x"):
        raise SystemExit(3)


@pytest.mark.parametrize("workers", [0, 2])
def test_f09_one_bad_block_fails_the_whole_preparation(tmp_path, whole, workers):
    inputs = raw.write_raw(tmp_path / "in")
    sizes = {"chr1": 200_000, "chr2": 100_000}
    sequences = {name: "ACGTACGTTA" * (size // 10) for name, size in sizes.items()}
    raw.write_fasta(inputs.folder / "genome.fa", sequences)
    flipped(whole, inputs.folder, 0.35)
    track = TrackConfig(name="DNase", path="t.bw")
    config = dataclasses.replace(inputs.config, tracks=[track])
    with pytest.raises(FormatError, match=r"t\.bw at chr1:"):
        prepare(config, source=inputs.folder, out=tmp_path / "out", workers=workers, progress=False)
    assert {entry.name for entry in tmp_path.iterdir()} == {"in", ".out.lock"}


def three_tracks(tmp_path, whole):
    """One good track, one truncated, and one whose damage only reading it shows."""
    inputs = raw.write_raw(tmp_path / "in")
    sizes = {"chr1": 200_000, "chr2": 100_000}
    sequences = {name: "ACGTACGTTA" * (size // 10) for name, size in sizes.items()}
    raw.write_fasta(inputs.folder / "genome.fa", sequences)
    flipped(whole, inputs.folder, 0.35)
    (inputs.folder / "good.bw").write_bytes(whole)
    (inputs.folder / "short.bw").write_bytes(whole[: len(whole) // 2])
    tracks = [
        TrackConfig(name="short", path="short.bw"),
        TrackConfig(name="good", path="good.bw", assay="DNase"),
        TrackConfig(name="flipped", path="t.bw"),
    ]
    return inputs, dataclasses.replace(inputs.config, tracks=tracks)


@pytest.mark.filterwarnings("ignore:track good. found contigs without any data")
@pytest.mark.parametrize("workers", [0, 2])
def test_f09_bad_tracks_may_be_left_out_and_are_listed(tmp_path, whole, workers):
    inputs, config = three_tracks(tmp_path, whole)
    skipping = dataclasses.replace(config, bad_tracks="skip")
    with pytest.warns(Seq2ExpWarning, match=r"left out.*2 .*short"):
        prepare(
            skipping,
            source=inputs.folder,
            out=tmp_path / "out",
            workers=workers,
            progress=False,
        )
    made = Dataset(tmp_path / "out")
    listed = {row["track"]: row for row in read_json(tmp_path / "out" / "skipped_tracks.json")}
    assert made.track_names == ["good"]
    assert made.manifest.counts["tracks_skipped"] == 2
    assert {name: row["path"] for name, row in listed.items()} == {
        "short": "short.bw",
        "flipped": "t.bw",
    }
    assert listed["flipped"]["problem"].startswith("t.bw at chr1:")
    assert str(tmp_path) not in json.dumps(listed)
    # What is left is the dataset that the good track alone gives.
    alone = dataclasses.replace(config, tracks=config.tracks[1:2])
    prepare(alone, source=inputs.folder, out=tmp_path / "alone", progress=False)
    expected = Dataset(tmp_path / "alone")
    for contig in made.manifest.contigs:
        paths = [layout.tracks_path(root, contig) for root in (made.root, expected.root)]
        assert paths[0].read_bytes() == paths[1].read_bytes()
    assert made.manifest.tracks == expected.manifest.tracks
    np.testing.assert_array_equal(made.features, expected.features)


def test_f09_without_any_good_track_nothing_is_skipped(tmp_path, whole):
    inputs, config = three_tracks(tmp_path, whole)
    for tracks, match in (
        (config.tracks[:1], r"short\.bw"),
        (config.tracks[2:], r"t\.bw at chr1:"),
    ):
        bad = dataclasses.replace(config, bad_tracks="skip", tracks=tracks)
        with pytest.raises(FormatError, match=match):
            prepare(bad, source=inputs.folder, out=tmp_path / "out", progress=False)
    assert {entry.name for entry in tmp_path.iterdir()} == {"in", ".out.lock"}


def test_f09_the_flag_of_the_command(tmp_path, whole, capsys):
    inputs, config = three_tracks(tmp_path, whole)
    dump_yaml(config, tmp_path / "data.yaml")
    line = ["prepare", "--config", str(tmp_path / "data.yaml"), "--source", str(inputs.folder)]
    assert main([*line, "--out", str(tmp_path / "out")]) == 2
    assert "short.bw" in capsys.readouterr().err
    assert main([*line, "--out", str(tmp_path / "out"), "--skip-bad-tracks"]) == 0
    assert "skipped_tracks.json" in capsys.readouterr().err
    assert Dataset(tmp_path / "out").track_names == ["good"]


# F10 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30])
@pytest.mark.parametrize("statistic", ["mean", "max"])
@pytest.mark.parametrize("nan", ["zero", "missing"])
def test_f10_values_that_are_no_signal_are_refused(tmp_path, value, statistic, nan):
    path = one_value(tmp_path, value)
    with pytest.raises(FormatError, match=r"t\.bw\) at chr1:1000-1100: found the value"):
        binned(path, statistic=statistic, nan=nan)


def test_f10_they_are_refused_in_a_bin_at_the_edge_of_a_mask_too(tmp_path):
    path = one_value(tmp_path, float("nan"))
    config = TrackConfig(name="t", path="t.bw")
    file = check_track(config, path, sizes=SIZES, contigs=["chr1"])
    known = (np.array([1005]), np.array([1095]))
    with pytest.raises(FormatError, match="chr1:1000-1100"):
        bin_contig(file, "chr1", length=200_000, bin_size=100, config=config, known=known)


def test_f10_the_library_is_silent_about_a_stored_nan(tmp_path):
    """Filling uncovered bases also fills a stored NaN: the bin reads 0."""
    library = pybigtools.open(str(one_value(tmp_path, float("nan"))))
    options = {"bins": 1, "exact": True, "uncovered": 0.0}
    assert library.values("chr1", 1000, 1100, fillna=0, **options).tolist() == [0.0]


def test_f10_float16_overflow_is_refused(tmp_path):
    values = np.array([1.0, 70_000.0])
    config = TrackConfig(name="t", path="t.bw")
    with pytest.raises(InputError, match=r"70000, expected at most 65504.*float32"):
        to_storage(values, config, contig="c", dtype="float16")
    assert to_storage(values, config, contig="c", dtype="float32").max() == 70_000
    logged = dataclasses.replace(config, transform="log1p")
    assert to_storage(values, logged, contig="c", dtype="float16").max() < 12


def test_f10_negatives_are_refused_under_a_logarithm_only(tmp_path):
    path = one_value(tmp_path, -3.0)
    assert binned(path).values.min() == pytest.approx((10 * -3 + 10 * 2) / 100)
    with pytest.raises(InputError, match=r"no negative value.*arcsinh"):
        to_storage(
            binned(path).values,
            TrackConfig(name="t", path="t.bw", transform="log1p"),
            contig="chr1",
            dtype="float16",
        )


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_f10_a_track_of_one_value_is_refused_unless_allowed(tmp_path, value):
    inputs = raw.write_raw(tmp_path / "in")
    full = {name: [(0, size, value)] for name, size in raw.SIZES.items()}
    raw.write_bigwig(inputs.folder / "signal.bw", full)
    with pytest.raises(InputError, match=r"track DNase.*one value everywhere.*allow_constant"):
        prepare(inputs.config, source=inputs.folder, out=tmp_path / "out", progress=False)
    track = dataclasses.replace(inputs.config.tracks[0], allow_constant=True)
    config = dataclasses.replace(inputs.config, tracks=[track])
    manifest = prepare(config, source=inputs.folder, out=tmp_path / "out", progress=False)
    assert manifest.tracks[0].summary["max"] == value


def test_f10_a_contig_without_data_is_reported(tmp_path):
    inputs = raw.write_raw(tmp_path / "in")
    raw.write_bigwig(inputs.folder / "signal.bw", {"chr1": raw.SIGNAL["chr1"]})
    with pytest.warns(UserWarning, match=r"contigs without any data.*1 in all; first: chr2"):
        prepare(inputs.config, source=inputs.folder, out=tmp_path / "out", progress=False)


# F11 -------------------------------------------------------------------------------------------


def test_f11_two_tracks_of_one_name(tmp_path):
    inputs = raw.write_raw(tmp_path / "in")
    with pytest.raises(ConfigError, match=r"names used twice.*1 in all; first: DNase"):
        dataclasses.replace(inputs.config, tracks=inputs.config.tracks * 2)


def test_f11_missing_files_are_listed_at_once(tmp_path):
    inputs = raw.write_raw(tmp_path / "in")
    tracks = [TrackConfig(name=f"t{i}", path=f"missing{i}.bw") for i in range(4)]
    config = dataclasses.replace(inputs.config, tracks=tracks)
    with pytest.raises(PreflightError) as error:
        prepare(config, source=inputs.folder, out=tmp_path / "out", progress=False)
    names = re.findall(r"missing\d\.bw: found no such file", str(error.value))
    assert len(names) == len(set(names)) == 4


def test_f11_many_tracks_need_few_file_handles(tmp_path):
    """120 tracks with room for 40 more open files: handles are closed after each task."""
    inputs = raw.write_raw(tmp_path / "in")
    tracks = [TrackConfig(name=f"t{i}", path="signal.bw") for i in range(120)]
    config = dataclasses.replace(inputs.config, tracks=tracks)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = max(int(handle.name) for handle in Path("/dev/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (last + 40, hard))
    try:
        manifest = prepare(config, source=inputs.folder, out=tmp_path / "out", progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(manifest.tracks) == 120


# F12 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>", "this is an HTML page"),
        (b"\xeb\xf2\x89\x87" + bytes(100), "this is a bigBed"),
        (b"chr1\t0\t10\t2.5\n", "it is bedGraph text"),
        (b"track type=wiggle_0\n", "it is wiggle or bedGraph text"),
        (b"\x1f\x8b\x08\x00" + bytes(50), "this is a gzip file"),
        (b"", "this is an empty file"),
    ],
)
def test_f12_other_files_saved_as_bw_are_named(tmp_path, content, kind):
    path = tmp_path / "t.bw"
    path.write_bytes(content)
    with pytest.raises(InputError, match=kind):
        check_bigwig(path)


def test_f12_a_folder_and_a_missing_file(tmp_path):
    for path in (tmp_path, tmp_path / "none.bw"):
        with pytest.raises(InputError, match="no such file"):
            check_bigwig(path)


def test_f12_header_with_wild_offsets_ends_in_an_error(tmp_path, whole):
    """Every 8 bytes of the header in turn point far away, or at the header itself."""
    path = tmp_path / "t.bw"
    for at in range(8, 64, 8):
        for wild in (b"\xff" * 8, (8).to_bytes(8, "little")):
            content = bytearray(whole)
            content[at : at + 8] = wild
            path.write_bytes(content)
            try:
                check_bigwig(path)
            except (FormatError, InputError):
                continue
            assert at >= 32  # field counts and the sql offset, which no reader of values needs


def test_f12_preflight_of_all_tracks_goes_on_after_the_first_problem(tmp_path):
    inputs = raw.write_raw(tmp_path / "in")
    (inputs.folder / "page.bw").write_bytes(b"<html></html>")
    tracks = [TrackConfig(name="a", path="page.bw"), TrackConfig(name="b", path="gone.bw")]
    config = dataclasses.replace(inputs.config, tracks=tracks)
    with pytest.raises(PreflightError, match=r"(?s)HTML page.*gone\.bw"):
        check_inputs(config, inputs.folder, cache=tmp_path / "cache")
