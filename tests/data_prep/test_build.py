"""The whole preparation on inputs whose every number is known."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pandas as pd
import pytest

from data_prep.build import estimated_bytes, prepare
from data_prep.config import ContactConfig, RegionConfig, SplitConfig, TrackConfig
from data_prep.contacts import power_law, pseudocount
from data_prep.genome import Genome
from data_prep.preflight import check_inputs
from data_prep.shards import SequenceTask, sensible_workers
from seq2exp.core.errors import FormatError, InputError
from seq2exp.core.sequence import decode
from seq2exp.dataset import format as layout
from tests.data_prep import raw


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    inputs = raw.write_raw(folder / "in")
    manifest = prepare(inputs.config, source=inputs.folder, out=folder / "out", progress=False)
    return inputs, folder / "out", manifest


def digest(root):
    """Return the checksum of every file of a folder."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_files_and_manifest_agree(made):
    _, root, manifest = made
    assert sorted(digest(root)) == [
        "contacts.npy",
        "expression.parquet",
        "genes.parquet",
        "manifest.json",
        "sequence/chr1.npy",
        "sequence/chr2.npy",
        "tracks/chr1.npy",
        "tracks/chr2.npy",
    ]
    assert layout.read_manifest(root) == manifest
    layout.verify(root, manifest, checksums=True)
    assert manifest.contigs == {"chr1": 2000, "chr2": 1003}  # chr3 has no gene
    assert [source.role for source in manifest.sources] == [
        "fasta",
        "gtf",
        "track:DNase",
        "expression",
    ]
    assert str(root.parent) not in (root / "manifest.json").read_text()


def test_sequence_is_the_genome(made):
    _, root, manifest = made
    text = raw.sequences()["chr1"].upper().replace("R", "N").replace("Y", "N")
    assert decode(np.load(layout.sequence_path(root, "chr1"))) == text
    assert manifest.counts["ambiguous_bases"] == 2


def test_tracks_are_the_binned_signal(made):
    _, root, manifest = made
    for contig, length in manifest.contigs.items():
        expected = raw.reference_bins(raw.dense(raw.SIGNAL[contig], length), raw.BIN)
        stored = np.load(layout.tracks_path(root, contig))
        assert stored.dtype == np.float16
        np.testing.assert_array_equal(stored[:, 0], expected.astype(np.float16))
    assert manifest.tracks[0].summary["covered_bases"] == 28
    assert manifest.tracks[0].summary["max"] == 3.0


def test_genes_labels_and_splits(made):
    _, root, manifest = made
    genes = layout.read_table(layout.genes_path(root)).set_index("gene_id")
    assert genes["tss"].to_dict() == raw.TSS
    assert genes["split"].tolist() == ["train"] * 3 + ["test"] * 2
    # gB: TSS 899 with 500 bases around it, [399, 1400), holds 4 bases of 8.
    assert genes.loc["gB", "promoter_DNase"] == pytest.approx(32 / 1001)
    labels = layout.read_table(layout.expression_path(root))
    assert labels["gene_id"].tolist() == list(genes.index)
    np.testing.assert_allclose(labels["cell_a"], [0, 1, 2, 3, np.nan], rtol=1e-6)
    assert manifest.expression.samples == ["cell_a", "cell_b"]
    assert manifest.counts["genes_with_label"] == 4


def test_contacts_are_the_power_law(made):
    _, root, manifest = made
    profiles = np.load(layout.contacts_path(root))
    value = np.log10(1 + power_law(50) + pseudocount(50))
    np.testing.assert_allclose(profiles, np.full((5, 4), value), rtol=1e-6)
    assert (manifest.contacts.bin_size, manifest.contacts.num_bins) == (100, 4)


def test_features_are_listed_with_their_source(made):
    _, root, manifest = made
    table = layout.read_table(layout.genes_path(root))
    assert {f.name for f in manifest.features} <= set(table.columns)
    sources = {feature.name: feature.source for feature in manifest.features}
    assert sources["log_gene_length"] == "annotation"
    assert sources["gc_gene"] == "sequence"
    assert sources["promoter_DNase"] == "track"


def test_workers_do_not_change_a_byte(made, tmp_path):
    inputs, root, _ = made
    prepare(inputs.config, source=inputs.folder, out=tmp_path / "two", workers=2, progress=False)
    assert digest(tmp_path / "two") == digest(root)


def test_work_folder_is_gone_afterwards(made):
    root = made[1]
    assert {path.name for path in root.parent.iterdir()} == {"in", "out", ".out.lock"}


def test_dataset_without_tracks_labels_and_contacts(tmp_path):
    inputs = raw.write_raw(tmp_path / "in")
    config = dataclasses.replace(
        inputs.config, tracks=[], expression=None, contacts=ContactConfig(source="none")
    )
    manifest = prepare(config, source=inputs.folder, out=tmp_path / "out", progress=False)
    names = sorted(digest(tmp_path / "out"))
    assert names == ["genes.parquet", "manifest.json", "sequence/chr1.npy", "sequence/chr2.npy"]
    assert (manifest.tracks, manifest.expression.samples) == ([], [])
    assert manifest.contacts.source == "none"


def test_only_named_contigs_are_stored(tmp_path):
    inputs = raw.write_raw(tmp_path / "in")
    config = dataclasses.replace(
        inputs.config,
        contigs=["1", "chr3"],
        splits=SplitConfig(),
        expression=None,
        tracks=[TrackConfig(name="DNase", path="signal.bw")],
    )
    with pytest.warns(UserWarning, match=r"contigs without any data.*chr3"):
        manifest = prepare(config, source=inputs.folder, out=tmp_path / "out", progress=False)
    assert list(manifest.contigs) == ["chr1", "chr3"]
    assert manifest.counts["genes_on_contigs_not_stored"] == 2


def test_masked_regions_are_recorded_and_unknown(tmp_path):
    inputs = raw.write_raw(tmp_path / "in")
    config = dataclasses.replace(inputs.config, regions=RegionConfig(exclude=["chr1:96-112"]))
    manifest = prepare(config, source=inputs.folder, out=tmp_path / "out", progress=False)
    stored = np.load(layout.tracks_path(tmp_path / "out", "chr1"))[:, 0]
    assert np.isnan(stored).nonzero()[0].tolist() == [6]
    regions = layout.read_table(layout.regions_path(tmp_path / "out"))
    assert regions.to_numpy().tolist() == [["chr1", 96, 112, "chr1:96-112"]]
    genes = layout.read_table(layout.genes_path(tmp_path / "out")).set_index("gene_id")
    assert genes.loc["gA", ["split", "status"]].tolist() == ["excluded", "excluded: chr1:96-112"]
    assert manifest.counts["status: excluded: chr1:96-112"] == 1
    # The masked peak no longer counts: 4 + 1 bases are left on chr1, 7 on chr2.
    assert manifest.tracks[0].summary["covered_bases"] == 12


def test_order_of_tracks_is_the_order_of_the_configuration(tmp_path):
    inputs = raw.write_raw(tmp_path / "in")
    raw.write_bigwig(inputs.folder / "other.bw", {"chr1": [(0, 16, 7.0)], "chr2": [(0, 1, 1.0)]})
    tracks = [TrackConfig(name="z", path="other.bw"), TrackConfig(name="a", path="signal.bw")]
    config = dataclasses.replace(inputs.config, tracks=tracks)
    manifest = prepare(config, source=inputs.folder, out=tmp_path / "out", progress=False)
    assert [track.name for track in manifest.tracks] == ["z", "a"]
    stored = np.load(layout.tracks_path(tmp_path / "out", "chr1"))
    assert stored[[0, 6]].tolist() == [[7.0, 0.0], [0.0, 3.0]]


def test_track_that_is_known_in_part(tmp_path):
    inputs = raw.write_raw(tmp_path / "in")
    (inputs.folder / "covered.bed").write_text("chr1\t80\t160\n")
    track = TrackConfig(name="DNase", path="signal.bw", covered="covered.bed")
    config = dataclasses.replace(inputs.config, tracks=[track])
    prepare(config, source=inputs.folder, out=tmp_path / "out", progress=False)
    stored = np.load(layout.tracks_path(tmp_path / "out", "chr1"))[:, 0]
    assert np.isfinite(stored).nonzero()[0].tolist() == [5, 6, 7, 8, 9]
    assert np.isnan(np.load(layout.tracks_path(tmp_path / "out", "chr2"))).all()


def test_overwrite_replaces_and_is_asked_for(tmp_path):
    inputs = raw.write_raw(tmp_path / "in")
    out = tmp_path / "out"
    prepare(inputs.config, source=inputs.folder, out=out, progress=False)
    (out / "old file").write_text("x")
    with pytest.raises(InputError, match="--overwrite"):
        prepare(inputs.config, source=inputs.folder, out=out, progress=False)
    assert (out / "old file").exists()
    prepare(inputs.config, source=inputs.folder, out=out, overwrite=True, progress=False)
    assert not (out / "old file").exists()


def test_space_estimate_covers_what_is_written(made, tmp_path):
    inputs, root, _ = made
    plan = check_inputs(inputs.config, inputs.folder, cache=tmp_path / "cache")
    written = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    shards = 4 * (125 + 63)
    assert estimated_bytes(inputs.config, plan) >= written + shards


def test_tables_open_in_pandas(made):
    _, root, _ = made
    frame = pd.read_parquet(root / "genes.parquet")
    assert frame["tss"].dtype == np.int64
    assert list(frame.columns[:7]) == list(layout.GENE_COLUMNS)


@pytest.mark.parametrize(
    "change",
    [
        {"bin_size": "16"},
        {"bin_size": True},
        {"colour": "red"},
        {"tracks": [{"name": "t", "colour": "red"}]},
        {"tracks": {"name": "t"}},
        {"contigs": {"chr1": "long"}},
        {"contigs": None},
    ],
)
def test_manifest_of_wrong_types_is_refused(made, tmp_path, change):
    values = json.loads((made[1] / "manifest.json").read_text()) | change
    (tmp_path / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(FormatError, match=r"manifest\.json"):
        layout.read_manifest(tmp_path)


def test_large_genomes_get_a_process_per_core_and_small_ones_none(tmp_path):
    genome = Genome(tmp_path, tmp_path, None, {"big": 600_000_000, "small": 12_000_000})
    big, small = (SequenceTask(genome, name, tmp_path) for name in ("big", "small"))
    assert sensible_workers([small]) == 0
    assert sensible_workers([small, big]) >= 1
