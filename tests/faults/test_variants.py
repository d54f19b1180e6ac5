"""Bad or awkward variants and cohorts (F13 to F18 of the catalogue)."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from seq2exp.core.errors import FormatError, InputError, Seq2ExpError, Seq2ExpWarning
from seq2exp.core.intervals import tss_window
from seq2exp.core.sequence import decode, encode
from seq2exp.dataset.store import Dataset
from seq2exp.variants.outputs import write_outputs
from seq2exp.variants.source import open_source
from seq2exp.variation.alleles import CLASSES, SEQUENCE_CLASSES, STATUSES
from seq2exp.variation.haplotypes import build
from seq2exp.variation.table import Variants
from tests.toys import toy_dataset
from tests.variants import inputs

REFERENCE = "AACCGGTTACGTTGCAAGTCCATGCATTGCAGGATCTTGACCATGGCATTAACGGATACC"
TSS, LENGTH = 30, 20


def built(rows, strand="+", **options):
    window = tss_window("c", TSS, strand, length=LENGTH, contig_length=len(REFERENCE))
    actions = np.ones((1, len(rows)), np.uint8)
    table = Variants.from_alleles(rows)
    return build(encode(REFERENCE), table, actions, window, TSS, **options)


def test_f16_of_overlapping_variants_the_first_applies_and_the_rest_is_counted():
    rows = [(24, "CATT", "C"), (25, "A", "G"), (26, "T", "TGG"), (28, "G", "C")]
    found = built(rows)
    assert found.num_overlap_dropped_H.tolist() == [2]
    assert found.num_applied_H.tolist() == [2]
    assert decode(found.codes_HL[0]) == REFERENCE[17:25] + "C" + REFERENCE[29:40]
    with pytest.raises(InputError, match=r"2 in all; first: haplotype 0\. Fix: choose overlap"):
        built(rows, overlap="error")


@pytest.mark.parametrize("strand", ["+", "-"])
def test_f16_indels_never_move_the_tss_nor_change_the_length(strand):
    plain = built([], strand)
    for rows in (
        [(22, REFERENCE[22:29], REFERENCE[22])],
        [(22, REFERENCE[22], REFERENCE[22] + "ACGTACG")],
        [(33, REFERENCE[33:38], REFERENCE[33])],
        [(22, REFERENCE[22:29], REFERENCE[22]), (33, REFERENCE[33], REFERENCE[33] + "TTT")],
    ):
        found = built(rows, strand)
        assert found.codes_HL.shape == (1, LENGTH)
        assert found.tss_index == LENGTH // 2 == plain.tss_index
        assert found.reference_map()[0, LENGTH // 2] == TSS
        assert found.codes_HL[0, LENGTH // 2] == plain.codes_HL[0, LENGTH // 2]
        # Deletions are made up for by the reference, never by N.
        assert (found.codes_HL < 4).all()
        assert not np.array_equal(found.codes_HL, plain.codes_HL)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset(toy_dataset(tmp_path_factory.mktemp("toy") / "dataset"))


def alleles_of(path, dataset, **options):
    source = open_source(path, dataset=dataset, **options)
    return source, pd.concat([source.read(shard) for shard in source.shards], ignore_index=True)


def test_f13_in_scoring_every_row_says_whether_its_ref_fits(dataset, tmp_path):
    text = inputs.header(dataset) + "".join(inputs.dirty_lines(dataset))
    with pytest.warns(Seq2ExpWarning, match="contigs that the dataset lacks"):
        source, found = alleles_of(inputs.put(tmp_path / "v.vcf", text), dataset)
    assert set(found["ref_status"]) == set(STATUSES)
    outs = [tmp_path / "o.vcf", tmp_path / "o.parquet"]
    summary = write_outputs(outs, source, inputs.parts_of(source), inputs.COLUMNS, {})
    with pytest.raises(InputError, match=r"do not fit the genome .mismatch 1, no_contig 1, out_of"):
        summary.refuse_mismatch(0.05, what="v.vcf")
    # The error comes after the outputs, which keep every row.
    assert len(pq.read_table(outs[1]).to_pandas()[["record", "allele"]].drop_duplicates()) == len(
        found
    )


def test_f14_what_is_no_sequence_is_never_scored_and_never_dropped(dataset, tmp_path):
    text = inputs.header(dataset) + "".join(inputs.dirty_lines(dataset))
    with pytest.warns(Seq2ExpWarning, match="contigs that the dataset lacks"):
        source, found = alleles_of(inputs.put(tmp_path / "v.vcf", text), dataset)
    out = tmp_path / "o.tsv"
    write_outputs([out], source, inputs.parts_of(source), inputs.COLUMNS, {})
    lines = [line for line in out.read_text().splitlines() if not line.startswith("##")]
    rows = [dict(zip(lines[0].split("\t"), line.split("\t"), strict=True)) for line in lines[1:]]
    odd = [row for row in rows if row["variant_type"] not in SEQUENCE_CLASSES]
    assert {row["variant_type"] for row in odd} == set(CLASSES) - set(SEQUENCE_CLASSES)
    assert {row["status"] for row in odd} == {"unsupported"}
    assert {row[column.name] for row in odd for column in inputs.COLUMNS} == {""}
    assert len({(row["record"], row["allele"]) for row in rows}) == len(found)


@pytest.mark.parametrize("name", ["v.vcf", "v.vcf.gz", "v.gzip", "v.bcf"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_f15_a_cut_file_is_refused_before_anything_is_scored(dataset, tmp_path, name, share):
    rows = inputs.clean_rows(dataset, size=300)
    path = inputs.put(tmp_path / name, inputs.vcf_text(dataset, rows))
    assert open_source(path, dataset=dataset).num_records == len(rows)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises((FormatError, InputError), match=path.name):
        open_source(path, dataset=dataset)


def test_f15_a_damaged_block_is_named(dataset, tmp_path):
    rows = inputs.clean_rows(dataset, size=300)
    path = inputs.put(tmp_path / "v.vcf.gz", inputs.vcf_text(dataset, rows))
    content = bytearray(path.read_bytes())
    for at in range(len(content) // 2, len(content) // 2 + 200):
        content[at] ^= 255
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"v\.vcf\.gz: found block at byte"):
        open_source(path, dataset=dataset)


def test_f15_header_without_contigs_repeats_and_disorder_are_scored_as_they_stand(
    dataset, tmp_path
):
    rows = inputs.clean_rows(dataset)[::-1]
    lines = [inputs.vcf_line(c, p + 1, r, a) for c, p, r, a in [*rows, rows[-1]]]
    path = inputs.put(tmp_path / "v.vcf", inputs.header(None) + "".join(lines))
    source, found = alleles_of(path, dataset, shard_size=7)
    assert found["position"].tolist() == [p for _, p, *_ in [*rows, rows[-1]]]
    assert not source.sorted
    assert any("repeat the one before" in note for note in source.notes)
    assert any("out of order" in note for note in source.notes)


def test_f06_no_contig_in_common_names_both_sets(dataset, tmp_path):
    lines = [inputs.vcf_line(f"scaffold_{i}", 5, "A", "G") for i in range(5)]
    path = inputs.put(tmp_path / "v.vcf", inputs.header(None) + "".join(lines))
    with pytest.raises(
        InputError,
        match=r"scaffold_0, scaffold_1, scaffold_2 and 2 more only, expected .* chr1, chr2, chr3",
    ):
        open_source(path, dataset=dataset)


def test_pain_27_long_indels_keep_their_row_with_a_word(dataset, tmp_path):
    text = inputs.sequence(dataset, "chr2")
    long = inputs.vcf_line("chr2", 1001, text[1000], text[1000] + "ACGT" * 400)
    path = inputs.put(tmp_path / "v.vcf", inputs.header(dataset) + long)
    source, found = alleles_of(path, dataset)
    assert found["variant_type"].tolist() == ["ins"]
    out = tmp_path / "o.vcf"
    summary = write_outputs([out], source, inputs.parts_of(source), inputs.COLUMNS, {})
    assert summary.status == {"too_long": 1}
    assert "S2E_STATUS=too_long;S2E_GENE=.;" in out.read_text()


@pytest.mark.slow
def test_f44_damaged_variants_end_in_our_errors_or_not_at_all(dataset, tmp_path):
    """Random damage: our exceptions or success, and never fewer rows than a whole file has."""
    rows = inputs.clean_rows(dataset, size=30)
    whole = inputs.put(tmp_path / "v.vcf.gz", inputs.vcf_text(dataset, rows))
    table = inputs.put(
        tmp_path / "t.tsv",
        "chrom\tpos1\tref\talt\n" + "".join(f"{c}\t{p + 1}\t{r}\t{a}\n" for c, p, r, a in rows),
    )
    random = np.random.default_rng(0)
    for path in (whole, table):
        content = path.read_bytes()
        for _ in range(150):
            broken = bytearray(content)
            for at in random.integers(0, len(broken), 3):
                broken[at] = random.integers(0, 256)
            path.write_bytes(broken)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    source, found = alleles_of(path, dataset, shard_size=9)
                except Seq2ExpError:
                    continue
            assert source.num_alleles == len(found)
