"""Sets of candidate elements: files of intervals and runs of a track, from input to dataset."""

from __future__ import annotations

import dataclasses
import gzip

import numpy as np
import pandas as pd
import pytest

from data_prep.build import prepare
from data_prep.config import DataConfig, ElementConfig, SplitConfig
from data_prep.elements import training_cutoff
from seq2exp.core.config import bind
from seq2exp.core.errors import ConfigError, InputError, Seq2ExpError
from seq2exp.dataset import format as layout
from seq2exp.dataset.store import Dataset
from tests.data_prep import raw

# Unsorted, under another name of the contig, two that overlap, two that touch, one not stored.
NARROW_PEAK = """\
track name=peaks
2\t500\t600\tp3\t10\t.\t4.0\t9.0\t2.0\t50
1\t100\t200\tp1\t10\t.\t5.5\t9.0\t3.0\t50
1\t150\t260\tp2\t10\t.\t7.5\t9.0\t0.5\t50
1\t260\t300\tp4\t10\t.\t1.0\t9.0\t0.1\t20
3\t10\t20\tp5\t10\t.\t1.0\t9.0\t0.1\t20
"""


def made(tmp_path, *sets, text=NARROW_PEAK, name="peaks.narrowPeak", **changes):
    inputs = raw.write_raw(tmp_path / "in")
    path = inputs.folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    elements = [bind(ElementConfig, values, where="test") for values in sets]
    config = dataclasses.replace(inputs.config, elements=elements, **changes)
    manifest = prepare(config, source=inputs.folder, out=tmp_path / "out", progress=False)
    return manifest, tmp_path / "out"


def rows(root, name):
    table = layout.read_table(layout.elements_path(root))
    chosen = table[table["set"] == name]
    return [tuple(row) for row in chosen[["contig", "start", "end", "score"]].to_numpy().tolist()]


PEAKS = {"name": "peaks", "bed": "peaks.narrowPeak"}


@pytest.mark.parametrize("name", ["peaks.narrowPeak", "peaks.narrowPeak.gz"])
def test_a_file_is_joined_sorted_and_named_as_the_genome_is(tmp_path, name):
    manifest, root = made(tmp_path, {**PEAKS, "bed": name}, name=name)
    expected = [("chr1", 100, 260, 7.5), ("chr1", 260, 300, 1.0), ("chr2", 500, 600, 4.0)]
    assert rows(root, "peaks") == expected
    assert manifest.counts["elements peaks"] == 3
    assert "elements:peaks" in [source.role for source in manifest.sources]
    assert "elements.parquet" in manifest.files
    assert manifest.format_version == 1
    starts, ends = Dataset(root, verify_checksums=True).elements["peaks"]["chr1"]
    assert (starts.tolist(), ends.tolist()) == ([100, 260], [260, 300])


@pytest.mark.parametrize(
    ("limit", "kept"),
    [({"min_signal": 5.0}, [("chr1", 100, 260, 7.5)]),
     ({"min_log10_q": 2.0}, [("chr1", 100, 200, 5.5), ("chr2", 500, 600, 4.0)])],
)  # fmt: skip
def test_limits_are_those_of_a_narrow_peak(tmp_path, limit, kept):
    assert rows(made(tmp_path, PEAKS | limit)[1], "peaks") == kept


def test_a_plain_bed_has_its_score_or_none(tmp_path):
    text = "chr1\t5\t9\tname\t12\t+\nchr2\t1\t2\tname\t3\t+\n"
    assert rows(made(tmp_path / "a", PEAKS, text=text)[1], "peaks")[0] == ("chr1", 5, 9, 12.0)
    bare = "chr1\t5\t9\nchr1\t1\t3\n"
    assert rows(made(tmp_path / "b", PEAKS, text=bare)[1], "peaks") == [
        ("chr1", 1, 3, 0.0), ("chr1", 5, 9, 0.0)]  # fmt: skip


def test_runs_of_a_track_by_the_rule_of_peak_callers(tmp_path):
    """Bins of 16 with signal: chr1 6 (3.0), 56 (2.0), 93 (1.0); chr2 0 (.25), 62 (1.36, 11 bp)."""
    called = {"name": "open", "track": "DNase", "quantile": 0.5, "min_length_bp": 1}
    _, root = made(tmp_path / "a", called)
    found = rows(root, "open")
    assert [row[:3] for row in found] == [
        ("chr1", 96, 112), ("chr1", 896, 912), ("chr1", 1488, 1504), ("chr2", 0, 16),
        ("chr2", 992, 1003)]  # fmt: skip
    assert found[0][3] == 3.0
    _, root = made(tmp_path / "b", called | {"min_length_bp": 16})
    assert len(rows(root, "open")) == 4
    _, root = made(tmp_path / "c", called | {"max_gap_bp": 784})
    assert rows(root, "open")[0] == ("chr1", 96, 1504, 3.0)


def test_the_cutoff_is_a_quantile_of_training_bins_alone():
    """Of chr1 without a held-out region, and not of chr2, whose genes are test genes."""
    item = ElementConfig(name="open", track="DNase", quantile=0.5)
    values = {"chr1": np.array([1.0, 2, 3, 100, 100, np.nan]), "chr2": np.full(6, 50.0)}
    genes = pd.DataFrame({"contig": ["chr1", "chr2"], "split": ["train", "test"]})
    options = {"sizes": {"chr1": 96, "chr2": 96, "chr9": 96}, "bin_size": 16}
    cutoff = training_cutoff(item, values, genes=genes, held_out=["chr1:50-90"], **options)
    assert cutoff == 2.0
    # A held-out contig of the genome that the dataset does not store.
    others = ["chr1:50-90", "chr9", "chr9:10-20"]
    assert training_cutoff(item, values, genes=genes, held_out=others, **options) == 2.0
    assert training_cutoff(item, values, genes=genes, held_out=[], **options) == 3.0
    empty = dict.fromkeys(values, np.zeros(6))
    assert training_cutoff(item, empty, genes=genes, held_out=[], **options) > 0
    with pytest.raises(InputError, match="no training bin"):
        training_cutoff(item, values, genes=genes, held_out=["chr1"], **options)


def test_several_sets_share_a_table_and_none_leaves_no_file(tmp_path):
    called = {"name": "open", "track": "DNase", "quantile": 0.5, "min_length_bp": 1}
    _, root = made(tmp_path / "a", called, PEAKS)
    assert list(Dataset(root).elements) == ["open", "peaks"]
    _, root = made(tmp_path / "b")
    assert not layout.elements_path(root).exists()
    assert Dataset(root).elements == {}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "no interval, expected at least one"),
        ("# only a remark\n", "no interval, expected at least one"),
        ("chrX\t1\t5\n", r"contigs chrX.*same organism and assembly"),
        ("chr1\t1990\t2001\n", r"ends at 2001, expected at most 2000.*same assembly"),
        ("chr3\t1\t5\n", "no interval on a stored contig"),
        ("chr1\t9\t5\n", "line 1"),
        ("chr1\tx\t5\n", "line 1"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path, text, match):
    with pytest.raises(Seq2ExpError, match=match) as error:
        made(tmp_path, PEAKS, text=text)
    assert "peaks.narrowPeak" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_other_problems_are_reported_beside_it(tmp_path):
    with pytest.raises(InputError) as error:
        made(tmp_path, PEAKS, {"name": "b", "bed": "absent.bed"}, text="")
    assert [word in str(error.value) for word in ("absent.bed", "peaks.narrowPeak")] == [True] * 2


@pytest.mark.parametrize(
    ("limit", "text", "match"),
    [
        ({"min_signal": 9.0}, NARROW_PEAK, r"lower elements\.min_signal"),
        ({"min_signal": 1.0}, "chr1\t1\t5\n", "column 7: found no such column"),
        ({"min_log10_q": 1.0}, NARROW_PEAK.replace("\t3.0\t", "\tx\t"), "column 9: found 'x'"),
    ],
)
def test_limits_that_leave_nothing_or_cannot_be_read(tmp_path, limit, text, match):
    with pytest.raises(InputError, match=match):
        made(tmp_path, PEAKS | limit, text=text)


def test_a_track_without_runs_is_an_error(tmp_path):
    called = {"name": "open", "track": "DNase", "quantile": 0.5, "min_length_bp": 500}
    with pytest.raises(InputError, match=r"elements open: found no run of DNase"):
        made(tmp_path, called)


def test_a_set_of_a_track_that_was_left_out_is_left_out_too(tmp_path):
    inputs = raw.write_raw(tmp_path / "in")
    (inputs.folder / "bad.bw").write_text("no bigWig")
    tracks = [*inputs.config.tracks, dataclasses.replace(inputs.config.tracks[0], name="bad",
                                                         path="bad.bw")]  # fmt: skip
    elements = [ElementConfig(name="x", track="bad")]
    config = dataclasses.replace(inputs.config, tracks=tracks, bad_tracks="skip", elements=elements)
    left_out = "elements x: found track bad, which was left out"
    with pytest.warns(UserWarning, match="skipped_tracks"), pytest.warns(match=left_out):
        prepare(config, source=inputs.folder, out=tmp_path / "out", progress=False)
    assert Dataset(tmp_path / "out").elements == {}


BASE = {"assembly": "a", "fasta": "f", "annotation": {"gtf": "g"}}


@pytest.mark.parametrize(
    ("sets", "match"),
    [
        ([{"name": "a"}], "either bed or track"),
        ([{"name": "a", "bed": "x", "track": "t"}], "either bed or track"),
        ([{"name": "a b", "bed": "x"}], r"elements\.name"),
        ([PEAKS, PEAKS], "used twice.*peaks"),
        ([{"name": "a", "track": "DNAse"}], "did you mean 'DNase'"),
        ([{"name": "a", "track": "DNase", "quantile": 1.0}], r"elements\.quantile"),
        ([{"name": "a", "track": "DNase", "min_signal": 1.0}], r"elements\.min_signal"),
        ([{"name": "a", "bed": "x", "min_lenght_bp": 3}], "min_length_bp"),
    ],
)
def test_settings_that_cannot_be_are_refused(sets, match):
    tracks = [{"name": "DNase", "path": "x.bw"}]
    with pytest.raises(ConfigError, match=match):
        bind(DataConfig, BASE | {"tracks": tracks, "elements": sets}, where="test")


def test_workers_and_regions_as_splits(tmp_path):
    """One contig holds both splits: the bins of the test region do not set the cutoff."""
    called = {"name": "open", "track": "DNase", "quantile": 0.9, "min_length_bp": 1}
    splits = SplitConfig(test=["chr1:1400-2000"])
    _, root = made(tmp_path, called, splits=splits)
    assert ("chr1", 1488, 1504, 1.0) in rows(root, "open")
