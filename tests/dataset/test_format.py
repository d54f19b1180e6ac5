"""The manifest round trip, and F27: every kind of damage is named before a number comes out."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from seq2exp.core.errors import FormatError, Seq2ExpError
from seq2exp.core.intervals import Window
from seq2exp.dataset import format as layout
from seq2exp.dataset.format import Manifest, read_manifest, read_table, write_table
from seq2exp.dataset.samples import SampleConfig, gene_window
from seq2exp.dataset.store import Dataset
from tests.toys import ToyPlan, toy_dataset


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return toy_dataset(tmp_path_factory.mktemp("format") / "d", ToyPlan(contacts=True))


@pytest.fixture
def root(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "d")


def read_everything(root):
    """What training reads of a gene, for one gene of every contig."""
    dataset = Dataset(root)
    for gene in dataset.genes.groupby("contig").indices.values():
        window = gene_window(dataset, int(gene[0]), SampleConfig(window_bp=512))
        dataset.codes(window)
        dataset.track_bins(window, bin_size=64)
        dataset.contact_bins(int(gene[0]), window, bin_size=64)
        dataset.excluded_bins(window, bin_size=64)
    return dataset.expression, dataset.features


def edit(root, **changes):
    path = layout.manifest_path(root)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_manifest_survives_a_round_trip(whole):
    manifest = read_manifest(whole)
    rebuilt = layout._bind(Manifest, json.loads(json.dumps(dataclasses.asdict(manifest))))
    assert rebuilt == manifest
    assert manifest.tracks[1].name == "H3K27ac"
    assert manifest.contacts.num_bins == 8
    on_disk = {p.relative_to(whole).as_posix() for p in whole.rglob("*") if p.is_file()}
    assert set(manifest.files) == on_disk - {"manifest.json"}


def test_a_whole_dataset_passes_every_check(root):
    Dataset(root, verify_checksums=True)
    read_everything(root)


def test_the_checksum_depends_on_content_and_names(whole):
    manifest = read_manifest(whole)
    name, info = next(iter(manifest.files.items()))
    changed = dataclasses.replace(info, sha256="0" * 64)
    other = dataclasses.replace(manifest, files={**manifest.files, name: changed})
    assert other.checksum != manifest.checksum
    order = dict(reversed(manifest.files.items()))
    assert dataclasses.replace(manifest, files=order).checksum == manifest.checksum


FILES = ["sequence/chr2.npy", "tracks/chr1.npy", "genes.parquet", "expression.parquet",
         "contacts.npy", "regions.parquet"]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_f27_a_missing_file_is_named_when_the_dataset_is_opened(root, name):
    (root / name).unlink()
    with pytest.raises(FormatError, match=f"{name}: found no such file"):
        Dataset(root)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", [-7, 3])
def test_f27_a_wrong_size_is_named_when_the_dataset_is_opened(root, name, change):
    data = (root / name).read_bytes()
    (root / name).write_bytes(data[:change] if change < 0 else data + b"x" * change)
    with pytest.raises(FormatError, match=f"{name}: found {len(data) + change} bytes instead of"):
        Dataset(root)


@pytest.mark.parametrize("name", FILES)
def test_f27_a_flipped_byte_is_found_by_verify_only(root, name):
    data = bytearray((root / name).read_bytes())
    data[len(data) // 2] ^= 1
    (root / name).write_bytes(bytes(data))
    Dataset(root)
    with pytest.raises(FormatError, match=f"{name}: found content that differs"):
        Dataset(root, verify_checksums=True)


def test_f27_a_flipped_byte_in_a_table_is_found_without_verify(tmp_path):
    """The library alone returns wrong values in silence; page checksums make it speak."""
    path = tmp_path / "table.parquet"
    frame = pd.DataFrame({"x": np.random.default_rng(0).normal(size=200).astype(np.float32)})
    write_table(frame, path)
    whole = path.read_bytes()
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    silent = 0
    for offset in range(column.dictionary_page_offset + 40, column.data_page_offset, 61):
        data = bytearray(whole)
        data[offset] ^= 1
        path.write_bytes(bytes(data))
        with contextlib.suppress(OSError):  # where the flip broke the compression
            silent += not pq.read_table(path).to_pandas().equals(frame)
        with pytest.raises(FormatError, match=r"table\.parquet"):
            read_table(path)
    assert silent > 5


def test_f27_a_truncated_table_and_a_truncated_array(root):
    for name in ("genes.parquet", "tracks/chr1.npy"):
        data = (root / name).read_bytes()
        (root / name).write_bytes(data[: len(data) // 2])
        reader = read_table if name.endswith("parquet") else layout.load_array
        with pytest.raises(FormatError, match=name):
            reader(root / name)


def test_f27_an_array_of_objects_is_never_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError, match=r"x\.npy"):
        layout.load_array(tmp_path / "x.npy")


@pytest.mark.parametrize("version", [3, 99, "1", None, 1.5])
def test_f27_another_format_version_is_refused(root, version):
    edit(root, format_version=version)
    with pytest.raises(FormatError, match=r"manifest\.json: found format_version.*at most 2"):
        Dataset(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ('{"assembly": "x"', "not JSON"),
        ("[1]", "format_version None"),
        ('{"format_version": 1}', "missing 3 required"),
    ],
)
def test_f27_a_damaged_manifest(root, text, message):
    layout.manifest_path(root).write_text(text)
    with pytest.raises(FormatError, match=message):
        Dataset(root)


EDITS = [
    {"bin_size": 32},
    {"bin_size": 0},
    {"bin_size": "16"},
    {"contigs": {"chr1": 36_007, "chr2": 12_007, "chr3": 17_907}},
    {"contigs": {"chr1": 36_007, "chr2": 12_007}},
    {"tracks": [{"name": "DNase"}]},
    {"tracks": [{"name": "DNase"}, {"name": "H3K27ac"}, {"name": "more"}]},
    {"tracks": [{"name": "DNase", "colour": "red"}, {"name": "H3K27ac"}]},
    {"expression": {"unit": "TPM", "samples": ["cell_a", "cell_z"]}},
    {"features": [{"name": "never_written"}]},
    {"contacts": {"source": "table", "bin_size": 500, "num_bins": 10, "unit": ""}},
    {"surprise": 1},
]


@pytest.mark.parametrize("change", EDITS, ids=str)
def test_f27_an_edited_manifest_that_no_longer_fits_its_files(root, change):
    edit(root, **change)
    with pytest.raises(Seq2ExpError, match=r"manifest|shape|column|contig"):
        read_everything(root)


def test_f27_no_dataset_at_all(tmp_path):
    with pytest.raises(FormatError, match=r"no manifest\.json.*seq2exp prepare"):
        Dataset(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("seed: 0")
    (run / "manifest.json").write_text("{}")
    with pytest.raises(FormatError, match=r"found a run, .*seq2exp prepare"):
        Dataset(run)
    with pytest.raises(FormatError, match=r"no manifest\.json"):
        Dataset(tmp_path / "nowhere")


def test_f27_a_missing_shard_is_never_read_as_zero(root):
    """Even when someone also removed it from the manifest's list of files."""
    values = json.loads(layout.manifest_path(root).read_text())
    del values["files"]["tracks/chr2.npy"]
    edit(root, files=values["files"])
    (root / "tracks" / "chr2.npy").unlink()
    dataset = Dataset(root)
    with pytest.raises(FormatError, match=r"tracks/chr2\.npy"):
        dataset.track_bins(Window("chr2", 0, 64, "+", 12_007), bin_size=64)
