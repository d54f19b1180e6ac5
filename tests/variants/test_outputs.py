"""VCF, TSV and Parquet of one run: the same rows and numbers, whole or absent."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pysam
import pytest

from seq2exp.core.errors import ConfigError, FormatError, InputError
from seq2exp.dataset.store import Dataset
from seq2exp.variants.columns import ScoreColumn, info_keys
from seq2exp.variants.outputs import check_outputs, write_outputs
from seq2exp.variants.source import open_source
from tests.toys import toy_dataset
from tests.variants import inputs
from tests.variants.inputs import COLUMNS, HEADER, parts_of, put, vcf_line

pytestmark = pytest.mark.filterwarnings("ignore:.*contigs that the dataset lacks")
ROOT = Path(__file__).parents[2]
KEYS = info_keys(COLUMNS)
SCORES = [column.name for column in COLUMNS]
NAMES = ("out.vcf", "out.vcf.gz", "out.tsv", "out.tsv.gz", "out.parquet")
needs_bcftools = pytest.mark.skipif(
    shutil.which("bcftools") is None, reason="bcftools is not installed"
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset(toy_dataset(tmp_path_factory.mktemp("toy") / "dataset"))


@pytest.fixture
def dirty(dataset, tmp_path):
    more = '##INFO=<ID=AF,Number=A,Type=Float,Description="x">\n'
    more += '##INFO=<ID=DB,Number=0,Type=Flag,Description="x">\n'
    more += '##INFO=<ID=END,Number=1,Type=Integer,Description="x">\n'
    more += '##FORMAT=<ID=GT,Number=1,Type=String,Description="x">\n'
    text = inputs.header(dataset, samples=["a", "b"], more=more)
    lines = [line.rstrip("\n") + "\tGT\t0|1\t./.\n" for line in inputs.dirty_lines(dataset)]
    return put(tmp_path / "dirty.vcf", text + "".join(lines))


def run(source, folder, names=NAMES, **options):
    outs = [folder / name for name in names]
    summary = write_outputs(outs, source, parts_of(source), COLUMNS, HEADER, **options)
    return summary, outs


def read_tsv(path):
    skip = sum(line.startswith("##") for line in lines_of(path))
    keep = ["id", "ref", "alt", "symbol"]
    return pd.read_csv(path, sep="\t", skiprows=skip, dtype=dict.fromkeys(SCORES, np.float32)
                       | dict.fromkeys(keep, str), keep_default_na=True)  # fmt: skip


def lines_of(path):
    return (gzip.open(path, "rt") if path.suffix == ".gz" else path.open()).read().splitlines()


def expected(source):
    """What an independent reading of alleles and scores gives, one dictionary per row."""
    alleles = pd.concat([source.read(shard) for shard in source.shards], ignore_index=True)
    scores = pd.concat(list(parts_of(source)), ignore_index=True)
    return alleles.merge(scores, on=["record", "allele"], how="left", validate="1:m")


def test_pain_10_every_output_has_the_rows_of_the_input_in_its_order(dirty, dataset, tmp_path):
    source = open_source(dirty, dataset=dataset, shard_size=5)
    summary, (vcf, vcf_gz, tsv, tsv_gz, parquet) = run(source, tmp_path)
    wanted = expected(source)
    given = [line.split("\t") for line in lines_of(dirty) if line[0] != "#"]
    for path in (vcf, vcf_gz):
        found = [line.split("\t") for line in lines_of(path) if line[0] != "#"]
        assert [f[:7] + f[8:] for f in found] == [g[:7] + g[8:] for g in given]
        for one, other in zip(found, given, strict=True):
            kept = "" if other[7] == "." else other[7] + ";"
            assert one[7].startswith(f"{kept}S2E_STATUS=")
    assert lines_of(vcf) == lines_of(vcf_gz)
    frames = [read_tsv(tsv), read_tsv(tsv_gz), pq.read_table(parquet).to_pandas()]
    for frame in frames:
        assert frame["record"].tolist() == wanted["record"].tolist()
        assert frame["allele"].tolist() == wanted["allele"].tolist()
        assert (frame["pos1"] == wanted["position"] + 1).all()
        assert frame["status"].tolist() == wanted["status"].tolist()
        assert frame["ref_status"].tolist() == wanted["ref_status"].tolist()
        assert (frame["gene_id"].fillna("") == wanted["gene_id"]).all()
        assert frame["id"].tolist() == wanted["id"].tolist()
        for name in SCORES:
            np.testing.assert_array_equal(frame[name].to_numpy(np.float32), wanted[name])
    assert summary.num_records == len(given)
    assert {"ok", "swapped", "ref_mismatch", "no_gene", "unsupported", "too_long"} == set(
        summary.status
    )


def entries_of(vcf):
    """Rows of S2E_ALL of every record, by the names in its description."""
    with pysam.VariantFile(str(vcf)) as records:
        words = records.header.info["S2E_ALL"].description
        names = words.split("Format: ")[1].split("|")
        return [
            [dict(zip(names, entry.split("|"), strict=True)) for entry in record.info["S2E_ALL"]]
            for record in records
        ]


def test_the_vcf_carries_the_same_numbers_bit_for_bit(dirty, dataset, tmp_path):
    source = open_source(dirty, dataset=dataset, shard_size=3)
    _, (vcf,) = run(source, tmp_path, ["out.vcf.gz"])
    wanted = expected(source)
    found = [entry for entries in entries_of(vcf) for entry in entries]
    assert len(found) == len(wanted)
    for entry, row in zip(found, wanted.to_dict("records"), strict=True):
        assert entry["ALT"].replace("%2C", ",") == row["alt"]
        assert entry["status"] == row["status"]
        assert entry["gene_id"] == (row["gene_id"] or ".")
        for name in SCORES:
            text = entry[KEYS[name].removeprefix("S2E_")]
            value = np.float32("nan" if text == "." else text)
            np.testing.assert_array_equal(value, np.float32(row[name]))
    text = vcf.read_bytes()
    assert b"a;b" not in gzip.decompress(text).split(b"#CHROM")[1]
    assert b"a%3Bb%2Cc%3Dd%7Ce%20f" in gzip.decompress(text)


def test_fields_of_an_allele_are_those_of_the_gene_with_the_largest_score(dirty, dataset, tmp_path):
    source = open_source(dirty, dataset=dataset)
    _, (vcf,) = run(source, tmp_path, ["out.vcf"])
    rows = expected(source)
    best = {}
    for pair, group in rows.groupby(["record", "allele"], sort=False):
        size = group[SCORES[0]].abs().fillna(-1)
        num = int((group["gene_row"] >= 0).sum())
        best[pair] = group.loc[size.idxmax()].to_dict() | {"num": num}
    seen = 0
    for number, line in enumerate(line for line in lines_of(vcf) if line[0] != "#"):
        info = dict(field.partition("=")[::2] for field in line.split("\t")[7].split(";"))
        alleles = [best[pair] for pair in best if pair[0] == number]
        for key, name in (("S2E_STATUS", "status"), ("S2E_GENE", "gene_id"), ("S2E_NGENES", "num"),
                          ("S2E_DISTANCE", "distance_to_tss")):  # fmt: skip
            wanted = [row[name] for row in alleles]
            texts = ["." if pd.isna(value) or value == "" else str(value) for value in wanted]
            assert info[key].split(",") == texts
        for name in SCORES:
            values = [float(v) if v != "." else np.nan for v in info[KEYS[name]].split(",")]
            np.testing.assert_array_equal(
                np.float32(values), np.float32([r[name] for r in alleles])
            )
        seen += 1
    assert seen == source.num_records


def test_a_gene_without_a_score_is_never_the_one_with_the_largest(dirty, dataset, tmp_path):
    source = open_source(dirty, dataset=dataset)
    (table,) = list(parts_of(source))
    rows = table[table.duplicated(["record", "allele"], keep=False)]
    first = rows.drop_duplicates(["record", "allele"]).index
    table.loc[first, SCORES[0]] = np.nan
    write_outputs([tmp_path / "o.vcf"], source, iter([table]), COLUMNS, HEADER)
    lines = [line for line in lines_of(tmp_path / "o.vcf") if line[0] != "#"]
    for row in table.loc[first].itertuples():
        info = dict(f.partition("=")[::2] for f in lines[row.record].split("\t")[7].split(";"))
        assert info["S2E_GENE"].split(",")[row.allele - 1] not in (row.gene_id, ".")
    assert len(first) > 2


@needs_bcftools
def test_bcftools_reads_splits_and_indexes_the_output(dirty, dataset, tmp_path):
    ordered = tmp_path / "ordered.vcf.gz"
    # The header of the input lacks contigs, so bcftools can only sort what we have written.
    _, (first,) = run(open_source(dirty, dataset=dataset), tmp_path, ["first.vcf"])
    subprocess.run(["bcftools", "sort", "-Oz", "-o", ordered, first], check=True,
                   capture_output=True)  # fmt: skip
    source = open_source(ordered, dataset=dataset)
    assert source.sorted
    _, (vcf,) = run(source, tmp_path, ["out.vcf.gz"])
    assert vcf.with_name("out.vcf.gz.tbi").is_file()

    def bcftools(*words):
        done = subprocess.run(["bcftools", *words], check=True, capture_output=True, text=True)
        assert "Incorrect number" not in done.stderr
        return done.stdout, done.stderr

    text, told = bcftools("view", vcf)
    assert len([line for line in text.splitlines() if line[0] != "#"]) == source.num_records
    assert "not defined" not in told
    query = "%POS\t%ALT\t%S2E_STATUS\t%S2E_EXPR_DELTA_CELL_A\n"
    split = bcftools("norm", "-m", "-any", vcf)[0]
    put(tmp_path / "split.vcf", split)
    one = [
        r.split("\t")
        for r in bcftools("query", "-f", query, tmp_path / "split.vcf")[0].split("\n")[:-1]
    ]
    assert len(one) == source.num_alleles
    whole = [r.split("\t") for r in bcftools("query", "-f", query, vcf)[0].split("\n")[:-1]]
    pieces = [[p, a, s, v] for p, alts, ss, vs in whole for a, s, v in
              zip(alts.split(","), ss.split(","), vs.split(","), strict=True)]  # fmt: skip
    assert sorted(one) == sorted(pieces)
    near = bcftools("view", "-H", "-r", "chr2:1001-1003", vcf)[0]
    assert len(near.splitlines()) == 4
    assert bcftools("view", "-Ob", "-o", tmp_path / "o.bcf", vcf)


def test_unsorted_records_are_written_as_they_came_without_an_index(dirty, dataset, tmp_path):
    source = open_source(dirty, dataset=dataset)
    _, (vcf,) = run(source, tmp_path, ["out.vcf.gz"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dirty.vcf", "out.vcf.gz"]
    # An index of what stood there before must not outlive it.
    vcf.with_name("out.vcf.gz.tbi").write_bytes(b"old")
    run(source, tmp_path, ["out.vcf.gz"], overwrite=True)
    assert not vcf.with_name("out.vcf.gz.tbi").exists()


def test_fields_of_an_earlier_run_are_replaced_in_header_and_records(dirty, dataset, tmp_path):
    _, (first,) = run(open_source(dirty, dataset=dataset), tmp_path, ["first.vcf"])
    again = open_source(first, dataset=dataset)
    write_outputs([tmp_path / "second.vcf"], again, parts_of(again), COLUMNS, {"version": "0.2"})
    one, two = lines_of(first), lines_of(tmp_path / "second.vcf")
    assert [line for line in one if "##seq2exp_variants" not in line] == [
        line for line in two if "##seq2exp_variants" not in line
    ]
    assert [line for line in two if "##seq2exp_variants" in line] == [
        '##seq2exp_variants=<ID=version,Value="0.2">'
    ]
    assert one.count("##contig=<ID=chrUn_1>") == 1


def test_pain_23_headers_carry_formula_unit_and_settings(dirty, dataset, tmp_path):
    source = open_source(dirty, dataset=dataset)
    _, (vcf, tsv, parquet) = run(source, tmp_path, ["o.vcf", "o.tsv", "o.parquet"])
    header = pysam.VariantFile(str(vcf)).header
    words = header.info["S2E_EXPR_DELTA_CELL_A"].description
    assert "y_a - y_r" in words
    assert "unit log10" in words
    assert "signed, ALT minus REF" in words
    assert header.info["S2E_EXPR_DELTA_CELL_A"].number == "A"
    assert header.info["S2E_MASK_MAX"].description.startswith("max |m_a - m_r| of 'W'")
    assert '##seq2exp_variants=<ID=model,Value="abc">' in vcf.read_text()
    assert "##model=abc" in tsv.read_text()
    assert "##column=mask_max: max |m_a - m_r|" in tsv.read_text()
    notes = pq.read_schema(parquet).metadata
    assert json.loads(notes[b"seq2exp.variants"]) == HEADER
    assert [ScoreColumn(**c) for c in json.loads(notes[b"seq2exp.columns"])] == COLUMNS
    assert notes[b"seq2exp.schema_version"] == b"1"


def test_tables_are_written_as_vcf_and_vcf_as_tables(dataset, tmp_path):
    rows = inputs.clean_rows(dataset)
    frame = pd.DataFrame(rows, columns=["chrom", "pos0", "ref", "alt"])
    frame.loc[len(frame)] = ["chr3", 17_990, inputs.sequence(dataset, "chr3")[17_990], "-"]
    frame.to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    table = open_source(tmp_path / "t.tsv", dataset=dataset)
    _, (out,) = run(table, tmp_path, ["t.vcf.gz"])
    assert (tmp_path / "t.vcf.gz.tbi").is_file()
    with pysam.VariantFile(str(out)) as records:
        assert {n: c.length for n, c in records.header.contigs.items()} == {
            name: dataset.manifest.contigs[name] for name in ("chr1", "chr2", "chr3")
        }
        found = [(r.contig, r.pos - 1, r.ref, r.alts[0]) for r in records]
    assert found[:-1] == rows
    # A VCF has no gaps: a deletion is written with the base before it.
    contig, position, ref, alt = found[-1]
    assert (contig, len(ref), len(alt)) == ("chr3", 2, 1)
    text = inputs.sequence(dataset, "chr3")
    assert text[:position] + alt + text[position + 2 :] == text[:17_990] + text[17_991:]
    back = open_source(out, dataset=dataset)
    _, (again,) = run(back, tmp_path, ["again.tsv"])
    assert read_tsv(again)["norm_pos1"].tolist() == (
        read_tsv(run(table, tmp_path, ["direct.tsv"])[1][0])["norm_pos1"].tolist()
    )
    # A table of results can be read again without a word on where it counts from.
    assert open_source(again, dataset=dataset).contigs.keys() == back.contigs.keys()


def test_ids_without_a_place_are_written_too(dataset, tmp_path):
    rows = inputs.clean_rows(dataset)[:1]
    lookup = put(tmp_path / "l.vcf", inputs.header(None) + vcf_line(
        rows[0][0], rows[0][1] + 1, *rows[0][2:], name="rs1"))  # fmt: skip
    with pytest.warns(match="ids that are not there"):
        source = open_source(["rs9", "rs1"], dataset=dataset, lookup=lookup)
    _, (vcf, tsv) = run(source, tmp_path, ["o.vcf.gz", "o.tsv"])
    with pysam.VariantFile(str(vcf)) as records:
        found = [(r.id, r.pos, r.info["S2E_STATUS"]) for r in records]
    assert found[0] == ("rs9", 0, ("unsupported",))
    assert found[1][:2] == ("rs1", rows[0][1] + 1)
    assert read_tsv(tsv)["id"].drop_duplicates().tolist() == ["rs9", "rs1"]


def test_windows_line_ends_and_bare_headers_are_mended(dataset, tmp_path):
    rows = inputs.clean_rows(dataset)[:5]
    body = "".join(vcf_line(c, p + 1, r, a, info="DB") for c, p, r, a in rows)
    text = ("\ufeff" + inputs.NAMES + "\n" + body).replace("\n", "\r\n")
    source = open_source(put(tmp_path / "w.vcf", text), dataset=dataset)
    assert any("CR LF" in note for note in source.notes)
    _, (out,) = run(source, tmp_path, ["o.vcf"])
    content = out.read_bytes()
    assert b"\r" not in content
    assert content.startswith(b"##fileformat=VCFv4.2\n##contig=<ID=chr1,length=36007>\n")
    with pysam.VariantFile(str(out)) as records:
        assert [(r.pos - 1, r.ref) for r in records] == [(p, r) for _, p, r, _ in rows]


def test_long_tables_hold_the_same_scores(dirty, dataset, tmp_path):
    source = open_source(dirty, dataset=dataset)
    run(source, tmp_path, ["wide.parquet"])
    run(source, tmp_path, ["long.parquet", "long.tsv"], long=True)
    wide = pq.read_table(tmp_path / "wide.parquet").to_pandas()
    long = pq.read_table(tmp_path / "long.parquet").to_pandas()
    assert len(long) == 3 * len(wide)
    assert not set(SCORES) & set(long)
    for column in COLUMNS:
        chosen = long[(long["scorer"] == column.scorer)
                      & (long["sample"].fillna("") == (column.sample or ""))]  # fmt: skip
        np.testing.assert_array_equal(chosen[column.kind], wide[column.name])
        assert chosen["record"].tolist() == wide["record"].tolist()
    # The standard deviation of what has none is missing.
    assert long.loc[long["scorer"] == "mask_max", "sd"].isna().all()
    assert len(read_tsv(tmp_path / "long.tsv")) == len(long)


def test_bytes_do_not_depend_on_shards_parts_or_time(dirty, dataset, tmp_path):
    digests = set()
    for size in (1, 7, 1000):
        source = open_source(dirty, dataset=dataset, shard_size=size)
        scores = pd.concat(list(parts_of(source)), ignore_index=True)
        # Parts may end anywhere, also inside a record.
        parts = [scores[at : at + 2 * size] for at in range(0, len(scores), 2 * size)]
        folder = tmp_path / str(size)
        outs = [folder / name for name in NAMES]
        write_outputs(outs, source, iter(parts), COLUMNS, HEADER)
        digests.add(tuple(hashlib.sha256(out.read_bytes()).hexdigest() for out in outs))
    assert len(digests) == 1


def without(part, row):
    return pd.concat([part[:row], part[row + 1 :]])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda parts: parts[:-1], "no scores from record 15 on"),
        (lambda parts: [*parts, parts[-1].assign(record=99)], "beyond its last record 18"),
        (lambda parts: [parts[1], parts[0], *parts[2:]], "other alleles at record 0"),
        (lambda parts: [without(parts[0], 0), *parts[1:]], "other alleles at record"),
        (lambda parts: [parts[0], *parts], "other alleles at"),
        (lambda parts: [part.drop(columns="mask_max") for part in parts], "first: mask_max"),
        (lambda parts: [], "no scores from record 0 on"),
    ],
)
def test_scores_that_do_not_fit_the_input_are_refused(dirty, dataset, tmp_path, change, match):
    source = open_source(dirty, dataset=dataset, shard_size=5)
    parts = [part.reset_index(drop=True) for part in parts_of(source)]
    # The first record has one gene or none, so that its rows can be counted here.
    parts[0] = parts[0].drop_duplicates(["record", "allele"]).reset_index(drop=True)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(FormatError, match=match):
        write_outputs(
            [tmp_path / name for name in NAMES], source, iter(change(parts)), COLUMNS, HEADER
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_outputs_are_judged_before_any_work(dirty, dataset, tmp_path):
    good = tmp_path / "o.tsv"
    for name, match in {
        "o.bcf": "BCF, which is not written",
        "o.txt": "a name ending in .vcf",
        ".vcf": "a name ending in .vcf",
        "dirty.vcf": "a file that is read",
    }.items():
        with pytest.raises(ConfigError, match=match):
            check_outputs([good, tmp_path / name], inputs=[dirty])
    with pytest.raises(ConfigError, match="the same file twice"):
        check_outputs([good, tmp_path / "x" / ".." / "o.tsv"])
    with pytest.raises(ConfigError, match="--out: found none"):
        check_outputs([])
    (tmp_path / "d.tsv").mkdir()
    with pytest.raises(InputError, match="found a folder"):
        check_outputs([tmp_path / "d.tsv"])
    good.write_text("mine")
    with pytest.raises(InputError, match=r"an existing output.*--overwrite"):
        check_outputs([good])
    check_outputs([good], overwrite=True)
    check_outputs([tmp_path / "new" / "folder" / "o.tsv"])
    with pytest.raises(InputError, match="where nothing can be written"):
        check_outputs([tmp_path / "dirty.vcf" / "o.tsv"])
    assert not (tmp_path / "new").exists()
    link = tmp_path / "link.vcf"
    link.symlink_to(dirty)
    with pytest.raises(ConfigError, match="a file that is read"):
        check_outputs([link], inputs=[dirty], overwrite=True)


def test_f24_a_full_disk_leaves_no_output(dirty, dataset, tmp_path, monkeypatch):
    import errno

    from seq2exp.variants import write_table

    source = open_source(dirty, dataset=dataset, shard_size=5)
    original, calls = write_table.TsvWriter.write, []

    def full(self, part):
        calls.append(part)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, part)

    monkeypatch.setattr(write_table.TsvWriter, "write", full)
    with pytest.raises(OSError, match="No space left"):
        run(source, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["dirty.vcf"]
    monkeypatch.undo()
    run(source, tmp_path)


def test_pain_11_one_line_says_what_became_of_all(dirty, dataset, tmp_path):
    source = open_source(dirty, dataset=dataset, shard_size=5)
    summary, _ = run(source, tmp_path, ["o.tsv"])
    line = summary.line()
    assert line.startswith("19 records, 22 alleles, ")
    assert "REF: ok 15, swapped 1, mismatch 1, ref_has_n 1, no_contig 1, out_of_bounds 3" in line
    assert (
        "unsupported 6 (allele_non_acgt 1, missing_alt 1, ref_block 1, star 1, symbolic 2)" in line
    )
    assert "\n" not in line
    assert summary.mismatch_share == 5 / 22
    with pytest.raises(InputError, match=r"22\.7% of 22 alleles .*mismatch 1, no_contig 1"):
        summary.refuse_mismatch(0.05, what="v.vcf")
    summary.refuse_mismatch(0.25, what="v.vcf")
    values = {(row["name"], row["metric"]): row["value"] for row in summary.rows()}
    assert values["status", "unsupported"] == 6
    scores = pd.concat(list(parts_of(source)))
    assert values["variants", "pairs"] == (scores["gene_row"] >= 0).sum() > 0


def test_a_flipped_byte_of_the_parquet_is_seen(dirty, dataset, tmp_path):
    source = open_source(dirty, dataset=dataset)
    _, (path,) = run(source, tmp_path, ["o.parquet"])
    group = pq.ParquetFile(path).metadata.row_group(0)
    column = next(group.column(i) for i in range(group.num_columns)
                  if group.column(i).path_in_schema == SCORES[0])  # fmt: skip
    first = column.dictionary_page_offset or column.data_page_offset
    content = bytearray(path.read_bytes())
    content[first + column.total_compressed_size - 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(OSError, match="CRC"):
        pq.ParquetFile(path, page_checksum_verification=True).read()


CHILD = """
import resource, sys
from pathlib import Path
import numpy as np, pysam
from seq2exp.dataset.store import Dataset
from seq2exp.variants.outputs import write_outputs
from seq2exp.variants.source import open_source
from tests.variants import inputs

folder, num = Path(sys.argv[2]), int(sys.argv[3])
dataset = Dataset(Path(sys.argv[1]))
text = inputs.sequence(dataset, "chr1")
path = folder / f"{num}.vcf.gz"
with pysam.BGZFile(str(path), "wb") as out:
    out.write(inputs.header(dataset).encode())
    for number in range(num):
        at = 300 + number * 30_000 // num
        out.write(inputs.vcf_line("chr1", at + 1, text[at], inputs.other(text[at])).encode())
source = open_source(path, dataset=dataset, shard_size=2000)
one = inputs.made_up(source.read(source.shard(0)).iloc[:1], dataset)

def parts():
    for shard in source.shards:
        part = one.iloc[np.zeros(shard.num_records, int)].reset_index(drop=True)
        yield part.assign(record=np.arange(shard.num_records) + shard.first_record)

outs = [folder / f"{num}.out.{ending}" for ending in ("vcf.gz", "tsv.gz", "parquet")]
assert write_outputs(outs, source, parts(), inputs.COLUMNS, inputs.HEADER).num_records == num
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_pain_16_two_hundred_thousand_records_stream_in_little_memory(dataset, tmp_path):
    peaks = []
    for num in (70_000, 200_000):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, dataset.root, tmp_path, str(num)],
            check=True, capture_output=True, text=True, cwd=ROOT,
        )  # fmt: skip
        peaks.append(float(done.stdout))
        with pysam.VariantFile(str(tmp_path / f"{num}.out.vcf.gz")) as records:
            assert sum(1 for _ in records) == num
    # Three times the records; their tables alone would take hundreds of megabytes more.
    assert peaks[1] < peaks[0] + 60, peaks
