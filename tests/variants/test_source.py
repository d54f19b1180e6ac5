"""Variants of every kind of input become the same table of alleles, and no row is lost."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pandas as pd
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2exp.core.errors import (
    AssemblyError,
    ConfigError,
    FormatError,
    InputError,
    Seq2ExpWarning,
)
from seq2exp.dataset.store import Dataset
from seq2exp.variants.columns import ALLELE_COLUMNS
from seq2exp.variants.source import open_source
from seq2exp.variants.strings import parse_word
from seq2exp.variation.alleles import Allele, classify, normalise, ref_status
from tests.toys import ToyPlan, toy_dataset
from tests.variants import inputs
from tests.variants.inputs import put, vcf_line

DNA = ("norm_position", "norm_ref", "norm_alt", "variant_type", "ref_status", "was_normalised")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset(toy_dataset(tmp_path_factory.mktemp("toy") / "dataset"))


@pytest.fixture(scope="module")
def rows(dataset):
    return inputs.clean_rows(dataset)


def table(source):
    return pd.concat([source.read(shard) for shard in source.shards], ignore_index=True)


def frame_of(rows, **more):
    names = ["chrom", "position", "ref", "alt"]
    return pd.DataFrame(rows, columns=names).assign(id=[f"v{i}" for i in range(len(rows))], **more)


def tsv(rows, base, name, sep="\t"):
    frame = frame_of(rows)
    frame[name] = frame.pop("position") + base
    return frame.to_csv(sep=sep, index=False)


FORMATS = ["a.vcf", "a.vcf.gz", "a.gzip", "a.bcf", "pos1.tsv", "pos0.tsv", "start.csv", "t.tsv.gz",
           "t.tsv.gzip", "t.parquet", "words.txt", "gtex.tsv"]  # fmt: skip


def write_as(name, rows, dataset, folder):
    path = folder / name
    if name.startswith("a."):
        return put(path, inputs.vcf_text(dataset, rows))
    if name == "t.parquet":
        frame = frame_of(rows, num=1.5).rename(columns={"position": "pos0"})
        frame.astype({"pos0": float}).to_parquet(path)
        return path
    if name == "words.txt":
        return put(path, "".join(f"{c}:{p + 1}:{r}>{a}\n" for c, p, r, a in rows))
    if name == "gtex.tsv":
        text = "".join(f"{c}_{p + 1}_{r}_{a}_b38\t0.1\tG1\n" for c, p, r, a in rows)
        return put(path, "variant_id\tslope\tgene_id\n" + text)
    column = {"pos0.tsv": "pos0", "start.csv": "start"}.get(name, "pos1")
    return put(
        path, tsv(rows, int(column == "pos1"), column, "," if name.endswith("csv") else "\t")
    )


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_alleles(dataset, rows, tmp_path, name):
    path = write_as(name, rows, dataset, tmp_path)
    before = sorted(file.name for file in tmp_path.iterdir())
    source = open_source(path, dataset=dataset, shard_size=17)
    found = table(source)
    assert {column: str(found[column].dtype) for column in found} == ALLELE_COLUMNS
    assert source.num_records == source.num_alleles == len(rows)
    assert source.sorted
    assert not source.notes
    given_rows = list(zip(*(found[c] for c in ("chrom", "position", "ref", "alt")), strict=True))
    assert given_rows == rows
    assert found["record"].tolist() == list(range(len(rows)))
    assert set(found["allele"]) == {1}
    if name not in ("words.txt", "gtex.tsv"):
        assert found["id"].tolist() == [f"v{i}" for i in range(len(rows))]
    assert set(found["gene"]) == {"G1" if name == "gtex.tsv" else ""}
    for row in found.itertuples():
        codes = dataset.contig_codes(row.contig)
        allele = Allele(row.position, row.ref, row.alt)
        assert row.ref_status == ref_status(allele, codes) == "ok"
        assert row.variant_type == classify(row.ref, row.alt)
        assert (row.norm_position, row.norm_ref, row.norm_alt) == normalise(allele, codes)
    # Nothing is written beside the user's file.
    assert sorted(file.name for file in tmp_path.iterdir()) == before


def test_f15_fetched_bases_are_ref_at_the_position_of_the_file(dataset, rows, tmp_path):
    for name in ("a.vcf", "pos0.tsv", "pos1.tsv"):
        path = write_as(name, rows, dataset, tmp_path)
        for row in table(open_source(path, dataset=dataset)).itertuples():
            text = inputs.sequence(dataset, row.contig)
            assert text[row.position : row.position + len(row.ref)] == row.ref


@settings(deadline=None, max_examples=15)
@given(size=st.integers(1, 200), number=st.integers(0, 10**6))
def test_shards_do_not_change_the_table_and_can_be_read_in_any_order(dataset, rows, size, number):
    words = [f"{c}:{p + 1}:{r}:{a}" for c, p, r, a in rows]
    whole = open_source(words, dataset=dataset, shard_size=10**6)
    source = open_source(words, dataset=dataset, shard_size=size)
    assert {shard.num_records for shard in source.shards[:-1]} <= {size}
    pd.testing.assert_frame_equal(table(source), table(whole))
    shard = source.shards[number % source.num_shards]
    rows_there = table(whole).iloc[shard.first_record : shard.first_record + shard.num_records]
    pd.testing.assert_frame_equal(source.read(shard), rows_there.reset_index(drop=True))


def test_a_pickled_source_holds_paths_and_numbers_only(dataset, rows, tmp_path):
    path = put(tmp_path / "v.vcf.gz", inputs.vcf_text(dataset, rows))
    source = open_source(path, dataset=dataset, shard_size=5)
    first = source.read(source.shards[2])
    sent = pickle.dumps(source)
    assert len(sent) < 20_000
    again = pickle.loads(sent)
    pd.testing.assert_frame_equal(again.read(again.shards[2]), first)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("chr1:100:A>G", ("chr1", 99, "A", "G", "")),
        ("chr1_100_A_G_b38", ("chr1", 99, "A", "G", "GRCh38")),
        ("1-100-A-G", ("1", 99, "A", "G", "")),
        ("1_100_A_G", ("1", 99, "A", "G", "")),
        ("1:100:A:G", ("1", 99, "A", "G", "")),
        ("chrX_7_ACG_A_b37", ("chrX", 6, "ACG", "A", "GRCh37")),
        ("1:100:A:<DEL>", ("1", 99, "A", "<DEL>", "")),
        ("1:100:A:G,T", ("1", 99, "A", "G,T", "")),
        ("1:100:A:-", ("1", 99, "A", "-", "")),
        ("chr1_KI270706v1_random_12_A_G", ("chr1_KI270706v1_random", 11, "A", "G", "")),
        ("HLA-A*01:01-3-A-G", ("HLA-A*01:01", 2, "A", "G", "")),
    ],
)
def test_words_are_understood(word, expected):
    assert parse_word(word) == expected


@pytest.mark.parametrize("word", ["chr1:100", "chr1:A:G", "rs12", "", "chr1:1:A>", "a b:1:A>G"])
def test_other_words_are_refused(dataset, word):
    assert parse_word(word) is None
    with pytest.raises((FormatError, InputError), match="--variant"):
        open_source([word], dataset=dataset)


def test_words_that_name_another_assembly_are_refused(tmp_path):
    from dataclasses import replace

    from seq2exp.dataset import format as layout

    root = toy_dataset(tmp_path / "dataset")
    layout.finish_manifest(root, replace(layout.read_manifest(root), assembly="hg19"))
    with pytest.raises(FormatError, match="of hg38/GRCh38, while the dataset is of hg19/GRCh37"):
        open_source(["chr1_100_A_G_b38"], dataset=Dataset(root))
    assert open_source(["chr1_100_A_G_b37"], dataset=Dataset(root)).num_records == 1


def test_pain_12_names_of_contigs_are_matched_both_ways(tmp_path):
    root = toy_dataset(tmp_path / "d", ToyPlan(contigs=(("1", "train", 3), ("chrX", "test", 3))))
    dataset = Dataset(root)
    words = [f"{name}:500:A>G" for name in ("1", "chr1", "NC_000001.11", "X", "23", "chr23")]
    found = table(open_source(words, dataset=dataset))
    assert found["contig"].tolist() == ["1"] * 3 + ["chrX"] * 3
    assert found["chrom"].tolist() == ["1", "chr1", "NC_000001.11", "X", "23", "chr23"]


def test_pain_15_a_table_must_say_where_it_counts_from(dataset, rows, tmp_path):
    path = put(tmp_path / "t.tsv", tsv(rows, 1, "pos"))
    with pytest.raises(ConfigError, match=r"'pos', which does not say .* --coordinates 1"):
        open_source(path, dataset=dataset)
    right = table(open_source(path, dataset=dataset, zero_based=False))
    assert right["position"].tolist() == [row[1] for row in rows]
    with pytest.raises(AssemblyError, match=r"one too low: .* --coordinates 0") as caught:
        open_source(put(tmp_path / "z.tsv", tsv(rows, 0, "pos")), dataset=dataset, zero_based=False)
    assert "REF that is not what the genome says" in str(caught.value)
    with pytest.raises(AssemblyError, match=r"one too high: .* --coordinates 1"):
        open_source(path, dataset=dataset, zero_based=True)
    with pytest.raises(ConfigError, match="'pos1' and --coordinates 0"):
        open_source(put(tmp_path / "o.tsv", tsv(rows, 1, "pos1")), dataset=dataset, zero_based=True)


def test_pain_15_records_of_every_kind_keep_their_row_with_a_status(dataset, tmp_path):
    lines = inputs.dirty_lines(dataset)
    path = put(tmp_path / "v.vcf", inputs.header(dataset) + "".join(lines))
    with pytest.warns(Seq2ExpWarning, match="1 of 19 records on contigs that the dataset lacks"):
        source = open_source(path, dataset=dataset, shard_size=4)
    found = table(source)
    assert source.num_records == len(lines)
    assert source.num_alleles == len(found) == len(lines) + 3
    assert not source.sorted
    one = found.set_index("id")
    status = one.loc[["ok", "alias;lower", "again", "swapped", "mismatch", "n"], "ref_status"]
    assert status.tolist() == ["ok", "ok", "ok", "swapped", "mismatch", "ref_has_n"]
    status = one.loc[["zero", "over", "beyond", "nowhere"], "ref_status"]
    assert status.tolist() == ["out_of_bounds"] * 3 + ["no_contig"]
    assert one.loc["zero", "position"] == -1
    kinds = one.loc[["many", "breakend", "no_alt", "block", "iupac", "del", "same"], "variant_type"]
    assert kinds.tolist() == ["snv", "star", "symbolic", "ins", "symbolic", "missing_alt",
                              "ref_block", "allele_non_acgt", "del", "same"]  # fmt: skip
    assert one.loc["many", "allele"].tolist() == [1, 2, 3, 4]
    assert one.loc["no_alt", "allele"] == 0
    assert one.loc["alias;lower", "contig"] == "chr1"
    assert found["variant_type"].tolist()[-3] == "mnv"
    assert any("out of order" in note for note in source.notes)


def test_rows_without_a_place_are_kept(dataset, tmp_path):
    text = "chrom\tpos1\tref\talt\nchr1\t600\tA\tG\n\tNA\tA\tG\nchr1\t\tA\tG\nchr1\t700\t\tC\n"
    found = table(open_source(put(tmp_path / "t.tsv", text), dataset=dataset))
    assert found["ref_status"].tolist()[1:3] == ["no_contig", "out_of_bounds"]
    assert found["position"].tolist() == [599, -1, -1, 699]
    # An empty cell is no insertion.
    assert found["variant_type"].tolist()[3] == "allele_non_acgt"


def test_gaps_are_anchored(dataset):
    text = inputs.sequence(dataset, "chr1")
    at = next(i for i in range(1000, 2000) if len(set(text[i - 1 : i + 2])) == 3)
    found = table(open_source([f"chr1:{at + 1}:{text[at]}:-"], dataset=dataset))
    row = found.iloc[0]
    assert (row.norm_position, row.norm_ref, row.norm_alt) == (
        at - 1, text[at - 1 : at + 1], text[at - 1])  # fmt: skip


def test_quoted_cells_and_spare_columns(dataset, tmp_path):
    text = 'note,"chrom",Position,REF,ALT,Gene\n"a, ""b""",chr1,600,A,"G,T",TP53\n'
    path = put(tmp_path / "t.csv", text)
    found = table(open_source(path, dataset=dataset, zero_based=False))
    assert found["alt"].tolist() == ["G", "T"]
    assert found["gene"].tolist() == ["TP53"] * 2
    other = open_source(path, dataset=dataset, zero_based=False, gene_column="note")
    assert set(table(other)["gene"]) == {'a, "b"'}
    with pytest.raises(InputError, match="a column target"):
        open_source(path, dataset=dataset, zero_based=False, gene_column="target")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("chrom\tpos1\tref\talt\nchr1\tsix\tA\tG\nchr1\t7\tA\n",
         "2 in all; first: row 1: position 'six', row 2: 3 columns instead of 4"),
        ("chrom\tpos1\tref\talt\nchr1\t6\tA\tG", "a last line that does not end"),
        ("##only=notes\n", "neither a row nor a line of names"),
        ("", "an empty file"),
        ("chrom\tpos1\tref\nchr1\t6\tA\n", "columns chrom, pos1 .or pos0., ref and alt"),
        ("chrom\tpos1\tref\talt\tref\nchr1\t6\tA\tG\tA\n", "column ref twice"),
        ("p\tbeta\n1\t2\n", "a table with columns p, beta"),
        ("<!DOCTYPE html><html></html>\n", "an HTML page"),
        ("rs12\nrs13\n", "rs12, an rsID, without a table to look it up in"),
        ("id\nrs12\n", "variants named by id only"),
    ],
)  # fmt: skip
def test_broken_tables_are_refused_with_the_reason(dataset, tmp_path, text, match):
    with pytest.raises((InputError, FormatError, ConfigError), match=match):
        open_source(put(tmp_path / "t.tsv", text), dataset=dataset)


def test_a_vcf_with_moved_positions_is_not_told_of_options_for_tables(dataset, rows, tmp_path):
    moved = [(chrom, position + 1, ref, alt) for chrom, position, ref, alt in rows]
    path = put(tmp_path / "v.vcf", inputs.vcf_text(dataset, moved))
    with pytest.raises(AssemblyError, match=r"one too high: take 1 from each") as caught:
        open_source(path, dataset=dataset)
    assert "--coordinates" not in str(caught.value)


def test_columns_parted_by_spaces_are_named(dataset, rows, tmp_path):
    path = put(tmp_path / "v.vcf", inputs.vcf_text(dataset, rows).replace("\t", " "))
    with pytest.raises(FormatError, match=r"parted by spaces, expected tabs"):
        open_source(path, dataset=dataset)


def test_a_message_about_foreign_contigs_counts_nothing(dataset):
    with pytest.raises(InputError, match=r"records on zz only") as caught:
        open_source(["zz:100:A>G"], dataset=dataset)
    assert "0 in all" not in str(caught.value)


def test_a_vcf_takes_no_settings_of_tables(dataset, rows, tmp_path):
    path = put(tmp_path / "v.vcf", inputs.vcf_text(dataset, rows))
    with pytest.raises(InputError, match="--coordinates 0: found a VCF"):
        open_source(path, dataset=dataset, zero_based=True)
    with pytest.raises(ConfigError, match="leave out --lookup"):
        open_source(path, dataset=dataset, lookup=path)
    with pytest.raises(InputError, match="no such file"):
        open_source(tmp_path / "none.vcf", dataset=dataset)


@pytest.mark.parametrize("kind", ["vcf", "tsv", "parquet"])
@pytest.mark.parametrize("by", ["words", "list", "table"])
def test_ids_are_looked_up_and_those_not_found_keep_their_row(dataset, rows, tmp_path, kind, by):
    some = [row for row in rows if len(row[2]) == len(row[3]) == 1][:4]
    lines = [vcf_line(c, p + 1, r, a, name=f"rs{i}") for i, (c, p, r, a) in enumerate(some)]
    # A second ALT at the place of rs0, on a line of its own.
    third = next(b for b in "ACGT" if b not in some[0][2:])
    lines.append(vcf_line(*(some[0][0], some[0][1] + 1, some[0][2]), third, name="rs0;other"))
    if kind == "vcf":
        lookup = put(tmp_path / "l.vcf.gz", inputs.header(None) + "".join(lines))
    else:
        cells = [line.split("\t")[:5] for line in lines]
        frame = pd.DataFrame(cells, columns=["chrom", "pos1", "id", "ref", "alt"])
        lookup = tmp_path / f"l.{kind}"
        if kind == "tsv":
            frame.to_csv(lookup, sep="\t", index=False)
        else:
            frame.astype({"pos1": int}).to_parquet(lookup)
    names = ["rs3", "rs99", "rs0", "rs3"]
    given_names = names
    if by == "list":
        given_names = put(tmp_path / "ids.txt", "\n".join(names) + "\n")
    elif by == "table":
        text = "rsID\tgene\n" + "".join(f"{name}\tG{i}\n" for i, name in enumerate(names))
        given_names = put(tmp_path / "ids.tsv", text)
    with pytest.warns(Seq2ExpWarning, match="ids that are not there.*1 in all; first: rs99"):
        source = open_source(given_names, dataset=dataset, lookup=lookup)
    found = table(source)
    assert found["id"].tolist() == ["rs3", "rs99", "rs0", "rs0", "rs3"]
    assert found["alt"].tolist()[2:4] == [some[0][3], third]
    assert found["position"].tolist() == [some[3][1], -1, some[0][1], some[0][1], some[3][1]]
    assert found["ref_status"].tolist() == ["ok", "unknown_id", "ok", "ok", "ok"]
    assert found["variant_type"].tolist()[1] == "missing_alt"
    assert found["gene"].tolist()[-1] == ("G3" if by == "table" else "")


def test_ids_at_several_places_and_none_found(dataset, rows, tmp_path):
    lines = [vcf_line(c, p + 1, r, a, name="rs1") for c, p, r, a in rows[:3]]
    lookup = put(tmp_path / "l.vcf", inputs.header(None) + "".join(lines))
    with pytest.warns(Seq2ExpWarning, match="ids at several places.*1 in all"):
        source = open_source(["rs1"], dataset=dataset, lookup=lookup)
    assert table(source)["position"].tolist() == [rows[0][1]]
    with pytest.raises(InputError, match="none of the ids"):
        open_source(["rs5"], dataset=dataset, lookup=lookup)


def test_pain_06_contigs_that_the_genome_lacks_are_counted_and_kept(dataset, rows, tmp_path):
    odd = [("chrUn_1", 5, "A", "G")] * 3
    path = put(tmp_path / "v.vcf", inputs.vcf_text(dataset, [*rows, *odd]))
    match = f"3 of {len(rows) + 3} records .*first: chrUn_1"
    with pytest.warns(Seq2ExpWarning, match=match):
        source = open_source(path, dataset=dataset)
    found = table(source)
    assert len(found) == len(rows) + 3
    assert set(found["ref_status"][-3:]) == {"no_contig"}
    assert found["contig"].isna().sum() == 3


def test_another_genome_is_seen_in_the_header_and_without_one(dataset, rows, tmp_path):
    text = inputs.vcf_text(dataset, rows)
    wrong = re.sub(r"length=(\d+)", lambda m: f"length={int(m[1]) + 5}", text)
    with pytest.raises(AssemblyError, match=r"contig lengths of another assembly.*3 in all"):
        open_source(put(tmp_path / "v.vcf", wrong), dataset=dataset)
    moved = [(c, p + 7, r, a) for c, p, r, a in rows if len(r) == len(a) == 1]
    bare = inputs.header(None) + "".join(vcf_line(c, p + 1, r, a) for c, p, r, a in moved)
    path = put(tmp_path / "w.vcf", bare)
    with pytest.raises(AssemblyError, match=r"\d\d% with a REF that is not what the genome says"):
        open_source(path, dataset=dataset)
    # Whoever wants these rows with their statuses says so.
    found = table(open_source(path, dataset=dataset, max_mismatch=1.0))
    assert (found["ref_status"] == "mismatch").mean() > 0.3


def test_swapped_alleles_and_the_other_strand_are_told_apart(dataset, rows, tmp_path):
    single = [row for row in rows if len(row[2]) == len(row[3]) == 1]
    swapped = [vcf_line(c, p + 1, a, r) for c, p, r, a in single]
    path = put(tmp_path / "v.vcf", inputs.header(dataset) + "".join(swapped))
    assert set(table(open_source(path, dataset=dataset))["ref_status"]) == {"swapped"}
    turn = str.maketrans("ACGT", "TGCA")
    flipped = [
        vcf_line(c, p + 1, r.translate(turn), inputs.other(r).translate(turn))
        for c, p, r, _ in single
    ]
    path = put(tmp_path / "w.vcf", inputs.header(dataset) + "".join(flipped))
    with pytest.raises(AssemblyError, match="the base of the other strand"):
        open_source(path, dataset=dataset)


def test_an_index_is_never_used(dataset, rows, tmp_path):
    whole, part = (inputs.vcf_text(dataset, some) for some in (rows, rows[:5]))
    path = put(tmp_path / "v.vcf.gz", part)
    pysam.tabix_index(str(path), preset="vcf")
    put(path, whole)
    assert open_source(path, dataset=dataset).num_records == len(rows)
    (tmp_path / "v.vcf.gz.tbi").write_bytes(b"damaged")
    assert open_source(path, dataset=dataset).num_records == len(rows)


def test_copies_of_a_cache_are_those_of_the_same_bytes(dataset, rows, tmp_path):
    cache = tmp_path / "cache"
    path = put(tmp_path / "v.gzip", inputs.vcf_text(dataset, rows))
    first = open_source(path, dataset=dataset, cache=cache)
    put(path, inputs.vcf_text(dataset, rows[:9]))
    second = open_source(path, dataset=dataset, cache=cache)
    assert (first.num_records, second.num_records) == (len(rows), 9)
    assert first.sha256 != second.sha256
    assert len(table(first)) == len(rows)


def test_the_base_counts_as_numpy_does(dataset):
    found = table(open_source(["chr1:600:A>G"], dataset=dataset))
    assert found["position"].dtype == np.int64
    assert found["position"].tolist() == [599]
