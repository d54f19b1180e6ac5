"""bigWig to bins: equal to a slow, obvious loop over every base."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import tracks
from data_prep.config import TrackConfig
from data_prep.tracks import bin_contig, check_track, known_intervals, summarise, to_storage
from seq2exp.core.errors import InputError
from tests.data_prep.raw import SIGNAL, SIZES, dense, reference_bins, write_bigwig

NOTHING = (np.empty(0, np.int64), np.empty(0, np.int64))


def config(**settings):
    return TrackConfig(name="t", path="t.bw", **settings)


def binned(path, contig="chr1", *, bin_size=16, known=None, sizes=SIZES, **settings):
    setting = config(**settings)
    file = check_track(setting, path, sizes=sizes, contigs=list(sizes))
    known = known or (np.array([0]), np.array([sizes[contig]]))
    return bin_contig(
        file, contig, length=sizes[contig], bin_size=bin_size, config=setting, known=known
    )


@pytest.fixture
def path(tmp_path):
    return write_bigwig(tmp_path / "t.bw", SIGNAL)


def test_bins_by_hand(path):
    """Bin 6 is [96, 112): 8 bases of 2 and 8 of 4, mean 3, maximum 4. Bin 56 is [896, 912): 4 bases
    of 8, mean over 16 bases 2, over the 4 with an entry 8. Bin 93 is [1488, 1504): one base of 16.
    """
    zero = binned(path).values
    assert zero[[6, 56, 93]].tolist() == [3.0, 2.0, 1.0]
    assert zero.sum() == 6.0
    missing = binned(path, nan="missing").values
    assert missing[[6, 56, 93]].tolist() == [3.0, 8.0, 16.0]
    assert np.isnan(missing).sum() == 125 - 3
    assert binned(path, statistic="max").values[[6, 56, 93]].tolist() == [4.0, 8.0, 16.0]


def test_a_shift_by_one_base_would_be_seen(tmp_path):
    path = write_bigwig(tmp_path / "one.bw", {"chr1": [(31, 33, 16.0)]})
    assert binned(path).values[:4].tolist() == [0.0, 1.0, 1.0, 0.0]


def test_last_bin_is_the_mean_of_its_real_bases(path):
    """chr2 has 1,003 bases: bin 62 is [992, 1003), 11 bases, 3 of them with 5: 15 / 11."""
    values = binned(path, "chr2").values
    assert len(values) == 63
    assert values[-1] == pytest.approx(15 / 11)
    assert values[0] == 4 / 16


def test_covered_bases_are_counted(path):
    result = binned(path)
    assert (result.covered_bases, result.known_bases) == (8 + 8 + 4 + 1, 2000)
    assert binned(path, "chr2").covered_bases == 7
    assert binned(path, "chr3").covered_bases == 0


def test_masked_bases_leave_numerator_and_denominator(path):
    """Masking [100, 105) of bin 6 leaves 4 bases of 2 and 7 of 4: 36 / 11."""
    known = known_intervals(2000, (np.array([100, 888]), np.array([105, 912])), None)
    result = binned(path, known=known)
    assert result.values[6] == pytest.approx(36 / 11)
    assert np.isnan(result.values[56])  # [896, 912) is masked whole
    assert result.values[55] == 0.0  # [880, 888) of it is known
    assert result.known_bases == 2000 - 5 - 24


def test_signal_outside_the_covered_intervals_is_unknown(path):
    known = known_intervals(2000, NOTHING, (np.array([90]), np.array([200])))
    values = binned(path, known=known).values
    assert np.isfinite(values).nonzero()[0].tolist() == list(range(5, 13))  # [80, 208)
    assert values[6] == 3.0


def test_error_policy_wants_every_base(tmp_path, path):
    with pytest.raises(InputError, match=r"bases without an entry.*1979 in all"):
        binned(path, nan="error")
    full = write_bigwig(tmp_path / "f.bw", {"chr1": [(0, 1000, 1.0), (1000, 2000, 3.0)]})
    assert binned(full, nan="error").values[[0, -1]].tolist() == [1.0, 3.0]


def test_contig_that_the_file_lacks_follows_the_policy(tmp_path):
    sizes = {"chr1": 2000, "chr2": 1003}
    path = write_bigwig(tmp_path / "t.bw", {"chr1": SIGNAL["chr1"]}, {"chr1": 2000})
    setting = config()
    file = tracks.TrackFile(path, {"chr1": "chr1"}, tracks.check_bigwig(path))
    known = (np.array([8]), np.array([1003]))
    result = bin_contig(file, "chr2", length=1003, bin_size=16, config=setting, known=known)
    assert result.values.tolist() == [0.0] * 63
    missing = bin_contig(
        file, "chr2", length=sizes["chr2"], bin_size=16, config=config(nan="missing"), known=known
    )
    assert np.isnan(missing.values).all()


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_equals_the_loop_over_bases(tmp_path_factory, data):
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    length = data.draw(st.integers(50, 700))
    bin_size = data.draw(st.sampled_from([1, 5, 16, 64]))
    edges = np.sort(random.choice(length + 1, size=min(40, length // 2 * 2), replace=False))
    entries = [
        (int(a), int(b), float(np.float32(random.normal(2, 3))))
        for a, b in zip(edges[::2], edges[1::2], strict=False)
    ]
    path = write_bigwig(tmp_path_factory.mktemp("bw") / "t.bw", {"c": entries}, {"c": length})
    cuts = np.sort(random.choice(length + 1, size=4, replace=False))
    masked = (cuts[[0, 2]].astype(np.int64), cuts[[1, 3]].astype(np.int64))
    known = np.ones(length, dtype=bool)
    for start, end in zip(*masked, strict=True):
        known[start:end] = False
    for statistic in ("mean", "max"):
        for nan in ("zero", "missing"):
            result = binned(
                path,
                "c",
                bin_size=bin_size,
                sizes={"c": length},
                statistic=statistic,
                nan=nan,
                known=known_intervals(length, masked, None),
            )
            reference = reference_bins(
                dense(entries, length), bin_size, statistic=statistic, nan=nan, known=known
            )
            np.testing.assert_allclose(result.values, reference, rtol=1e-12, atol=1e-12)
            covered = np.isfinite(dense(entries, length)) & known
            assert result.covered_bases == covered.sum()


def test_pieces_join_without_a_seam(path, monkeypatch):
    whole = binned(path).values
    monkeypatch.setattr(tracks, "_PIECE", 48)
    assert binned(path).values.tolist() == whole.tolist()


def test_transforms_and_storage():
    values = np.array([0.0, 1.0, np.nan, 99.0])
    stored = to_storage(values, config(transform="log1p"), contig="c", dtype="float32")
    np.testing.assert_allclose(stored, [0, np.log(2), np.nan, np.log(100)], rtol=1e-6)
    stored = to_storage(values, config(transform="arcsinh"), contig="c", dtype="float32")
    np.testing.assert_allclose(stored, np.log(values + np.sqrt(values**2 + 1)), rtol=1e-6)
    assert to_storage(values, config(), contig="c", dtype="float16").dtype == np.float16


def test_summary_counts_known_bins_only():
    parts = [np.array([0, 2, np.nan]), np.array([4, np.nan])]
    summary = summarise(config(), None, parts, covered_bases=12)
    assert summary["mean"] == 2.0
    assert summary["std"] == pytest.approx(np.sqrt(8 / 3))
    assert (summary["min"], summary["quantile_50"], summary["max"]) == (0.0, 2.0, 4.0)
    assert summary["zero_fraction"] == pytest.approx(1 / 3)
    assert summary["known_fraction"] == pytest.approx(3 / 5)
    assert summary["covered_bases"] == 12


def test_constant_track_is_refused_unless_allowed():
    with pytest.raises(InputError, match="one value everywhere"):
        summarise(config(), None, [np.ones(5)], covered_bases=5)
    assert summarise(config(allow_constant=True), None, [np.ones(5)], covered_bases=5)["std"] == 0


def test_library_padding_beyond_the_contig_is_never_used(path):
    """pybigtools answers out-of-bounds queries in silence, with NaN for the whole bin."""
    import pybigtools

    handle = pybigtools.open(str(path))
    assert np.isnan(handle.values("chr2", 992, 1008, bins=1, exact=True, fillna=None)).all()
    assert np.isfinite(binned(path, "chr2").values).all()
