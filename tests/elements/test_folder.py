"""The folder of an element map: what is read back, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil

import pandas as pd
import pytest

from seq2exp.core.bed import read_bed, write_bed
from seq2exp.core.errors import AssemblyError, FormatError, InputError, Seq2ExpWarning
from seq2exp.core.files import read_json, write_json
from seq2exp.elements import export
from seq2exp.elements.calling import CallConfig
from seq2exp.elements.export import export_elements
from seq2exp.elements.folder import called_elements, open_elements, other_origin
from seq2exp.elements.intervals import on_contigs, read_intervals, warn_left_out
from seq2exp.elements.rivals import Rivals
from tests.elements.fakes import fake_run

CONFIG = CallConfig(budget=0.1, min_length_bp=32)


@pytest.fixture(scope="module")
def made(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "open_run", lambda _: fake_run(dataset))
        return export_elements(folder, folder / "map", data=dataset.root, config=CONFIG)


@pytest.fixture
def broken(made, tmp_path):
    """A copy of the map that a test may spoil."""
    return shutil.copytree(made.folder, tmp_path / "map")


def spoil(folder, **changes):
    write_json({**read_json(folder / "summary.json"), **changes}, folder / "summary.json")


def rewrite(folder, **changes):
    """Replace columns; of a list all but its first items stay as they are."""
    frame = read_bed(folder / "elements.bed.gz")
    names = read_json(folder / "summary.json")["columns"]["elements.bed.gz"]
    for name, value in changes.items():
        column = frame.columns[names.index(name)]
        rest = frame[column].iloc[len(value) :].tolist() if isinstance(value, list) else None
        frame[column] = value if rest is None else value + rest
    write_bed(frame, folder / "elements.bed.gz", overwrite=True)


def test_the_map_reads_back_as_it_was_called(made, dataset):
    found = open_elements(made.folder)
    columns = ["chrom", "start", "end", "name", "strand", "summit", "gene_id", "element_class"]
    pd.testing.assert_frame_equal(found.elements[columns], made.elements[columns])
    for name in ("mean_mask", "q_value", "prob_called", "distance"):
        expected = made.elements[name].to_numpy(float)
        assert found.elements[name].to_numpy(float) == pytest.approx(
            expected, rel=1e-5, nan_ok=True
        )
    assert len(found.masks) == len(made.masks)
    called = called_elements(made.folder)
    pd.testing.assert_frame_equal(called.elements, found.elements)
    called.check_dataset(dataset)


def test_contigs_and_genes_stay_text_whatever_they_are_called(broken):
    rewrite(broken, chrom="1", gene_id="NA", symbol=["", "nan"])
    elements = open_elements(broken).elements
    assert set(elements["chrom"]) == {"1"}
    assert set(elements["gene_id"]) == {"NA"}
    assert {"", "nan"} <= set(elements["symbol"])


def test_a_map_without_an_element_opens_but_gives_none(broken, dataset):
    frame = read_bed(broken / "elements.bed.gz")
    write_bed(frame.iloc[:0], broken / "elements.bed.gz", overwrite=True)
    found = open_elements(broken)
    assert found.elements.empty
    assert found.elements["start"].dtype == "int64"
    assert "gene_id" in found.elements
    found.check_dataset(dataset)
    with pytest.raises(InputError, match=r"found no called element.*--budget"):
        called_elements(broken)


@pytest.mark.parametrize(("name", "words"), [
    ("elements.bed.gz", r"\(elements\.bed\.gz missing\), expected a folder"),
    ("summary.json", r"no element map \(summary\.json missing\), expected a folder"),
])  # fmt: skip
def test_missing_files_are_named(broken, name, words):
    (broken / name).unlink()
    for read in (open_elements, called_elements):
        with pytest.raises(InputError, match=words):
            read(broken)


@pytest.mark.parametrize(
    ("spoiling", "words"),
    [
        (lambda f: spoil(f, columns={}), r"found no 'elements\.bed\.gz'"),
        (lambda f: spoil(f, columns={"elements.bed.gz": ["chrom"]}), "19 columns instead of 1"),
        (lambda f: spoil(f, columns=None), "NoneType"),
        (lambda f: rewrite(f, summit=["x"]), 'Unable to parse string "x"'),
        (lambda f: rewrite(f, summit=["NA"]), "expected the columns"),
        (lambda f: (f / "elements.bed.gz").write_bytes(b"\x1f\x8b\x08broken"), "run `seq2exp"),
        (lambda f: (f / "elements.bed.gz").write_bytes(
            (f / "elements.bed.gz").read_bytes()[:60]), "run `seq2exp"),
    ],
)  # fmt: skip
def test_damaged_tables_are_refused(broken, spoiling, words):
    spoiling(broken)
    with pytest.raises(FormatError, match=words):
        called_elements(broken)


def test_a_column_that_is_needed_is_named(broken):
    names = read_json(broken / "summary.json")["columns"]["elements.bed.gz"]
    renamed = ["other" if name == "gene_id" else name for name in names]
    spoil(broken, columns={"elements.bed.gz": renamed})
    with pytest.raises(FormatError, match=r"no 'gene_id', expected the columns"):
        called_elements(broken)


def test_elements_of_another_assembly_are_refused(broken, dataset):
    spoil(broken, assembly="hg19")
    with pytest.raises(AssemblyError, match="found elements of assembly hg19, expected toy1"):
        called_elements(broken).check_places(dataset)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"end": 10_000_000}, r"outside of the contigs.*first: chr1:\d+-10000000"),
        ({"chrom": ["1"]}, r"outside of the contigs.*1 in all; first: 1:"),
    ],
)
def test_elements_beyond_the_contigs_are_refused(broken, dataset, changes, words):
    rewrite(broken, **changes)
    with pytest.raises(AssemblyError, match=words):
        called_elements(broken).check_dataset(dataset)


def test_elements_of_another_dataset_are_noted(broken, dataset):
    spoil(broken, dataset_checksum="0" * 64)
    called = called_elements(broken)
    with pytest.warns(Seq2ExpWarning, match="another dataset: dataset 000000000000 instead of"):
        called.check_dataset(dataset)
    called.check_places(dataset)


def test_unknown_genes_are_counted_or_refused(broken, dataset):
    rewrite(broken, gene_id=["x"])
    with pytest.warns(Seq2ExpWarning, match=r"1 in all; first: x\. Fix: they are left out"):
        called_elements(broken).check_dataset(dataset)
    rewrite(broken, gene_id="x")
    with pytest.raises(InputError, match="genes that the dataset lacks"):
        called_elements(broken).check_dataset(dataset)


def test_what_differs_in_origin_is_told_and_what_is_unknown_is_not(made, dataset):
    run = fake_run(dataset)
    summary = made.summary | {"model_sha256": "e" * 64, "dataset_checksum": "f" * 64}
    run.card = dataclasses.replace(run.card, weights_sha256="d" * 64)
    told = other_origin(summary, run=run, dataset=dataset)
    ours = dataset.manifest.checksum[:12]
    assert told == [
        "model eeeeeeeeeeee instead of dddddddddddd", f"dataset ffffffffffff instead of {ours}"
    ]  # fmt: skip
    assert other_origin(summary) == []
    assert other_origin({}, run=run, dataset=dataset) == []
    assert other_origin(made.summary, dataset=dataset) == []


def test_rivals_refuse_a_dataset_whose_genes_stand_elsewhere(masks, dataset):
    swapped = masks.genes.assign(row=masks.genes["row"].to_numpy()[::-1])
    with pytest.raises(InputError, match=r"other genes.*44 in all; first: chr1_g0"):
        Rivals(dataclasses.replace(masks, genes=swapped), dataset)


# BED files of other people ----------------------------------------------------------------------


def bed_of(tmp_path, *lines):
    path = tmp_path / "x.bed"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_bed_needs_neither_order_nor_strand_nor_our_names(tmp_path, dataset):
    path = bed_of(tmp_path, "track name=x", "3 50 90", "1 40 60", "1 10 50", "1 40 60")
    notes = {}
    found = on_contigs(read_intervals(path, dataset), dataset, path, notes)
    assert found.to_numpy().tolist() == [
        ["chr3", 50, 90], ["chr1", 40, 60], ["chr1", 10, 50], ["chr1", 40, 60]
    ]  # fmt: skip
    assert not any(notes.values())


def test_intervals_on_other_contigs_are_counted_in_one_warning(tmp_path, dataset):
    path = bed_of(tmp_path, "chr1 10 50", "chrQ 1 2", "chrQ 3 4")
    notes = {"rows": 3}
    assert len(on_contigs(read_intervals(path, dataset), dataset, path, notes)) == 1
    with pytest.warns(Seq2ExpWarning, match=r"2 on contigs the dataset lacks, expected all 3 rows"):
        warn_left_out(path, notes)


@pytest.mark.parametrize(
    ("lines", "error", "words"),
    [
        ([], InputError, "an empty file"),
        (["# nothing"], InputError, "no interval"),
        (["chr1 5"], FormatError, r"line 1.*chrom, start, end"),
        (["chr1 5 9", "chr1 9 5"], FormatError, r"line 2.*start < end"),
        (["#assembly=hg19", "chr1 5 9"], AssemblyError, "says it is of hg19, expected toy1"),
        (["chrQ 5 9"], InputError, "contigs chrQ"),
        (["chr1 5 9", "chr1 5 999999999"], AssemblyError, r"end of chr1.*1 in all"),
    ],
)  # fmt: skip
def test_a_bed_that_cannot_be_used_is_refused(tmp_path, dataset, lines, error, words):
    path = bed_of(tmp_path, *lines)
    with pytest.raises(error, match=words):
        on_contigs(read_intervals(path, dataset), dataset, path, {})


def test_a_narrowpeak_has_ten_columns(tmp_path, dataset):
    path = bed_of(tmp_path, "\t".join(["chr1", "5", "9", "a", "0", "."]))
    with pytest.raises(FormatError, match=r"6 columns.*missing: signalValue, pValue, qValue, peak"):
        read_intervals(path, dataset, narrowpeak=True)
    assert len(read_intervals(path, dataset)) == 1
