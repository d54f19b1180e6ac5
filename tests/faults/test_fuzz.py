"""F44: random damage to every kind of input ends in success or in an error of our own."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from data_prep.annotation import read_annotation
from data_prep.build import prepare
from data_prep.config import DataConfig, DonorConfig, DonorExpressionConfig, GenotypeConfig
from data_prep.contacts import read_contact_table
from data_prep.donor_expression import find_assays, read_donor_expression
from data_prep.donors import read_donors
from data_prep.expression import read_expression
from data_prep.genome import open_genome, read_contig
from data_prep.tracks import bin_contig, check_track
from data_prep.variants.judge import judge, sum_up
from data_prep.variants.merge import ContigTask, ShardSource
from data_prep.variants.tasks import VcfTask
from data_prep.windows import bed_intervals
from seq2exp.core.config import dump_yaml, load_config
from seq2exp.core.errors import FormatError
from seq2exp.core.shards import shard_info
from seq2exp.dataset import format as layout
from seq2exp.dataset.samples import GeneSamples, SampleConfig
from seq2exp.dataset.store import Dataset
from seq2exp.training.checkpoint import load_model
from seq2exp.variation.vcf_file import open_vcf
from seq2exp.variation.vcf_names import ContigNames
from tests.data_prep import raw
from tests.data_prep.variants import vcfs
from tests.faults.fuzz import mutate, read_damaged

QUICK, MANY = 60, 2000
SMALLEST_SHARE_REFUSED = 0.02


@dataclass(frozen=True)
class Input:
    """A file that is damaged, and how it is read."""

    path: Path
    read: Callable[[], object]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def inputs(place, finished):
    """Every kind of input in a folder of its own."""
    made = raw.write_raw(place / "raw")
    prepare(made.config, source=made.folder, out=place / "dataset", progress=False)
    shutil.copytree(finished / "model", place / "model")
    (place / "raw" / "genes.gtf").write_text("\n".join(raw.gene_lines()) + "\n")
    (place / "raw" / "blacklist.bed").write_text("chr1\t100\t200\nchr2\t5\t50\tname\n")
    contacts = "gene_id\tstart\tend\tcontact\ngA\t0\t100\t1.5\ngB\t100\t200\t0.5\n"
    (place / "raw" / "contacts.tsv").write_text(contacts)
    dump_yaml(made.config, place / "raw" / "data.yaml")
    text = vcfs.header() + "".join(vcfs.random_records(0, size=12))
    for suffix in ("bcf", "vcf", "gz", "gzip"):
        vcfs.write_vcf(place / "raw" / f"calls.{suffix}", text)
    donors = "".join(f"{name}\tFIN\t{1 + i % 2}\n" for i, name in enumerate(vcfs.SAMPLES))
    (place / "raw" / "donors.tsv").write_text("donor\tpop\tsex\n" + donors)
    values = "".join(f"g{i}\t1.5\t2\t3e1\tNA\t0\n" for i in range(9))
    columns = "\t".join(["gene_id", *vcfs.SAMPLES])
    (place / "raw" / "donor_values.tsv").write_text(columns + "\n" + values)
    return _inputs(place, made.config)


def _inputs(place: Path, config: DataConfig) -> dict[str, Input]:
    folder, root, model = place / "raw", place / "dataset", place / "model"
    expression = config.expression
    assert expression is not None
    return {
        "fasta": Input(folder / "genome.fa", lambda: _genome(folder, place)),
        "gtf": Input(folder / "genes.gtf", lambda: _gtf(folder / "genes.gtf", config)),
        "gtf.gz": Input(folder / "genes.gtf.gz", lambda: _gtf(folder / "genes.gtf.gz", config)),
        "bigwig": Input(folder / "signal.bw", lambda: _track(folder / "signal.bw", config)),
        "labels": Input(
            folder / "labels.tsv", lambda: read_expression(folder / "labels.tsv", expression)
        ),
        "bed": Input(
            folder / "blacklist.bed", lambda: bed_intervals(folder / "blacklist.bed", raw.SIZES)
        ),
        "contacts": Input(
            folder / "contacts.tsv", lambda: read_contact_table(folder / "contacts.tsv")
        ),
        "yaml": Input(
            folder / "data.yaml", lambda: load_config(DataConfig, [folder / "data.yaml"])
        ),
        "manifest": Input(layout.manifest_path(root), lambda: _dataset(root)),
        "npy": Input(layout.sequence_path(root, "chr1"), lambda: _dataset(root)),
        "parquet": Input(layout.genes_path(root), lambda: _dataset(root)),
        "vcf": Input(folder / "calls.vcf", lambda: _calls(folder / "calls.vcf", root, place)),
        "vcf.gz": Input(folder / "calls.gz", lambda: _calls(folder / "calls.gz", root, place)),
        "vcf.gzip": Input(
            folder / "calls.gzip", lambda: _calls(folder / "calls.gzip", root, place)
        ),
        "bcf": Input(folder / "calls.bcf", lambda: _calls(folder / "calls.bcf", root, place)),
        "donors": Input(
            folder / "donors.tsv",
            lambda: read_donors(
                folder / "donors.tsv", DonorConfig("x", population="pop", sex="sex")
            ),
        ),
        "donor values": Input(
            folder / "donor_values.tsv", lambda: _values(folder / "donor_values.tsv")
        ),
        "safetensors": Input(model / "model.safetensors", lambda: load_model(model)),
        "model config": Input(model / "config.yaml", lambda: load_model(model)),
    }


def _genome(folder: Path, place: Path) -> None:
    # A new cache each time: an index of other content is a fault of its own (F02).
    genome = open_genome(folder / "genome.fa", cache=place / f"cache{os.getpid()}")
    for contig in genome.sizes:
        read_contig(genome, contig)


def _gtf(path: Path, config: DataConfig) -> None:
    for bad_rows in ("error", "skip"):
        read_annotation(path, dataclasses.replace(config.annotation, bad_rows=bad_rows))


def _track(path: Path, config: DataConfig) -> None:
    track = config.tracks[0]
    file = check_track(track, path, sizes=raw.SIZES, contigs=["chr1", "chr2"])
    for contig in ("chr1", "chr2"):
        length = raw.SIZES[contig]
        known = (np.array([0]), np.array([length]))
        bin_contig(file, contig, length=length, bin_size=raw.BIN, config=track, known=known)


def _dataset(root: Path) -> None:
    dataset = Dataset(root)
    samples = GeneSamples(dataset, SampleConfig(window_bp=256, bin_size=32), [0, 1])
    for row in range(2):
        samples[row]
    layout.verify(root, dataset.manifest)


def _calls(path: Path, root: Path, place: Path) -> None:
    """Read a VCF as one part, judge it, and put a contig together."""
    folder = place / f"calls{os.getpid()}"
    folder.mkdir()
    try:
        file = open_vcf(path, cache=folder)
        names = ContigNames([*raw.SIZES], ["chr1", "chr2"])
        sequences = {name: layout.sequence_path(root, name) for name in ("chr1", "chr2")}
        keep = np.arange(len(file.samples))
        config = GenotypeConfig(["x"], on_unsupported="skip", ref_mismatch="skip", max_mismatch=1)
        task = VcfTask(
            file, 0, file.start, file.size, keep, names, sequences, config, folder / "a.arrow"
        )
        task.run()
        found = sum_up([[shard_info(task.target)]], names)
        for problem in judge(found, config, [file], names):
            raise problem
        shards = (ShardSource(task.target, 0, 0),)
        ContigTask("chr1", shards, len(keep), found.ploidy, 1, folder / "chr1").run()
    finally:
        shutil.rmtree(folder)


def _values(path: Path) -> None:
    config = DonorExpressionConfig(path="x", unit="TPM", replicates="first")
    assays = find_assays(path, config, mapping=None)
    donors = [name for name in vcfs.SAMPLES if name in assays.columns]
    if donors:
        read_donor_expression(path, config, assays, donors)


KINDS = (
    "fasta", "gtf", "gtf.gz", "bigwig", "labels", "bed", "contacts", "yaml", "manifest", "npy",
    "parquet", "safetensors", "model config", "vcf", "vcf.gz", "vcf.gzip", "bcf", "donors",
    "donor values",
)  # fmt: skip


def fuzz(item: Input, count: int, place: Path) -> float:
    """Read `count` damaged copies; return the share that was refused."""
    whole = item.path.read_bytes()
    around = {path.name for path in place.parent.iterdir()}
    try:
        found = [read_damaged(item.path, whole, seed, item.read) for seed in range(count)]
    finally:
        item.path.write_bytes(whole)
        for cache in place.glob("cache*"):
            shutil.rmtree(cache)
    assert [outcome for outcome in found if outcome.trouble] == []
    assert {path.name for path in place.parent.iterdir()} == around
    return float(np.mean([outcome.refused for outcome in found]))


@pytest.mark.parametrize("kind", KINDS)
def test_f44_a_few_damaged_inputs_of_every_kind(inputs, place, kind):
    assert set(inputs) == set(KINDS)
    inputs[kind].read()
    assert fuzz(inputs[kind], QUICK, place) > SMALLEST_SHARE_REFUSED


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_f44_thousands_of_damaged_inputs_of_every_kind(inputs, place, kind):
    assert fuzz(inputs[kind], MANY, place) > SMALLEST_SHARE_REFUSED


def test_f44_trouble_is_seen(tmp_path):
    """The harness itself: a foreign error, a crash, a hang and a refusal are told apart."""

    def hang():
        while True:
            pass

    def refuse():
        raise FormatError("no")

    path = tmp_path / "x"
    cases = {"ZeroDivisionError": lambda: 1 // 0, "SIGABRT": os.abort, "a hang": hang}
    for trouble, read in cases.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.faults.fuzz.SECONDS", 1)
            assert read_damaged(path, b"abc", 0, read).trouble.startswith(trouble)
    assert read_damaged(path, b"abc", 0, refuse).refused
    assert not read_damaged(path, b"abc", 0, lambda: None).refused
    assert len({mutate(b"some content", seed) for seed in range(50)}) > 45
