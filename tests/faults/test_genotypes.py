"""F13-F15, F17, F18 for `prepare`: genotypes and tables of donors as users have them."""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings

import numpy as np
import pysam
import pytest

from data_prep import build as build_module
from data_prep.config import DonorExpressionConfig, SplitConfig
from seq2exp.cli.main import main
from seq2exp.core.config import dump_yaml
from seq2exp.core.errors import AssemblyError, ConfigError, FormatError, InputError, Seq2ExpWarning
from seq2exp.dataset import format as layout
from seq2exp.dataset import format_genotypes as places
from seq2exp.variation.vcf_file import open_vcf
from tests.data_prep import raw
from tests.data_prep.variants import vcfs
from tests.data_prep.variants.vcfs import build, header, line

CHR1 = vcfs.genome()["chr1"]
OTHER = {"A": "C", "C": "G", "G": "T", "T": "A"}
STRAND = {"A": "T", "C": "G", "G": "C", "T": "A"}
PLAIN = ["0|1", "1|1", "0|0", "1|0", "0|0"]


def snv(at, calls=PLAIN, contig="chr1", **more):
    """A substitution that fits the genome, at a position from 0."""
    ref = vcfs.genome()[contig][at]
    return line(contig, at + 1, ref, OTHER[ref], calls, **more)


def good(number=20):
    return [snv(100 + 10 * i) for i in range(number)]


def rejects(dataset):
    rows = places.rejects_path(dataset.root).read_text().splitlines()
    assert rows[0] == "contig\tpos\tid\tref\talt\treason"
    return [row.split("\t") for row in rows[1:]]


def nothing_left(folder):
    return [
        p.name for p in folder.iterdir() if p.name not in ("in",) and "lock" not in p.name
    ] == []


# F13: REF ------------------------------------------------------------------------------------


def mismatching(at):
    """A record whose REF is neither the genome's base nor its ALT, nor of the other strand."""
    truth = CHR1[at]
    ref, alt = (base for base in "ACGT" if base not in (truth, STRAND[truth]))
    return line("chr1", at + 1, ref, alt, PLAIN)


def swapped(at):
    return line("chr1", at + 1, OTHER[CHR1[at]], CHR1[at], PLAIN)


def test_f13_a_wrong_ref_stops_with_counts_and_the_first_three(tmp_path):
    wrong = [mismatching(at) for at in (55, 305, 311, 317)] + [swapped(323)]
    text = header() + "".join(sorted(good() + wrong, key=lambda row: int(row.split("\t")[1])))
    with pytest.raises(InputError) as caught:
        build(tmp_path, text)
    message = str(caught.value)
    assert "20.0% of 25 alleles with a REF that does not fit" in message
    assert "4 REF that is not what the genome says, 1 REF and ALT swapped; " in message.replace(
        ", expected none, each REF the bases of the genome", ""
    )
    assert "5 in all; first: chr1:56 " in message
    assert "genotypes.ref_mismatch: skip" in message
    assert nothing_left(tmp_path)


def test_f13_skipped_ones_are_listed_and_counted(tmp_path):
    text = header() + "".join([*good(), mismatching(305), swapped(323)])
    with pytest.warns(Seq2ExpWarning, match="left out: 1 REF that is not.*, 1 REF and ALT swapped"):
        dataset = build(tmp_path, text, ref_mismatch="skip", max_mismatch=0.1)
    assert [row[5] for row in rejects(dataset)] == ["mismatch", "swapped"]
    assert rejects(dataset)[0][:2] == ["chr1", "306"]
    assert dataset.genotypes.contigs == {"chr1": 20}
    assert dataset.manifest.genotypes.counts["left_out mismatch"] == 1


def test_f13_too_many_are_not_skipped(tmp_path):
    text = header() + "".join([*good(), mismatching(305)])
    with pytest.raises(InputError, match=r"4.8% of 21 alleles.*expected at most 1.00%"):
        build(tmp_path, text, ref_mismatch="skip")


@pytest.mark.parametrize(
    ("records", "hint", "kind"),
    [
        ([mismatching(at) for at in range(100, 200, 9)], "use the genome of the assembly",
         AssemblyError),
        ([line("chr1", at + 1, STRAND[CHR1[at]], OTHER[STRAND[CHR1[at]]], PLAIN)
          for at in range(100, 200, 9)], "the other strand: flip", AssemblyError),
        ([*good(), *(swapped(at) for at in (333, 345, 351))], "as PLINK does", InputError),
    ],
    ids=["assembly", "strand", "swapped"],
)  # fmt: skip
def test_f13_the_message_says_what_such_a_pattern_comes_from(tmp_path, records, hint, kind):
    with pytest.raises(kind, match=hint):
        build(tmp_path, header() + "".join(records))


def test_f13_another_assembly_is_seen_before_anything_is_read(tmp_path, monkeypatch):
    """In the preflight, from the first records of each file."""

    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr(build_module, "run_tasks", never)
    records = [mismatching(at) for at in range(100, 200, 9)]
    with pytest.raises(AssemblyError, match=r"its first 12 records: found 100.0% of 12 alleles"):
        build(tmp_path, header() + "".join(records))
    # Nine tell too little, and half of them might be skipped.
    with pytest.raises(AssertionError):
        build(tmp_path, header() + "".join(records[:9]))


def test_f13_bases_that_the_genome_masks(tmp_path):
    """chr1 has two IUPAC letters, which count as N."""
    assert CHR1[10:12] == "NN"
    text = header() + line("chr1", 11, "A", "C", PLAIN) + "".join(good())
    with pytest.raises(InputError, match=r"1 REF where the genome has N.*without masked bases"):
        build(tmp_path, text)
    with pytest.warns(Seq2ExpWarning, match="1 REF where the genome has N"):
        dataset = build(tmp_path, text, ref_mismatch="skip", max_mismatch=0.0)
    assert rejects(dataset)[0][5] == "ref_has_n"


def test_f13_contig_lengths_of_another_assembly(tmp_path):
    text = header(contigs={"chr1": 2001, "chr2": 1003}) + "".join(good())
    with pytest.raises(AssemblyError, match=r"v\.vcf: found contig lengths of another assembly"):
        build(tmp_path, text)


# F14: what is no sequence, and calls of every kind ---------------------------------------------

UNSUPPORTED = {
    "symbolic": ("<DEL>", "symbolic alleles and breakends"),
    "breakend": (f"{CHR1[499]}[chr2:80[", "symbolic alleles and breakends"),
    "single breakend": (f"{CHR1[499]}.", "symbolic alleles and breakends"),
    "star": ("*", r"\* alleles"),
    "dot": (".", "records without ALT"),
    "block": ("<NON_REF>", "reference blocks"),
    "iupac": ("R", "alleles with letters other than ACGT"),
    "n": ("N", "alleles with letters other than ACGT"),
    "same": (CHR1[499], "ALT equal to REF"),
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_f14_alleles_that_are_no_sequence(tmp_path, kind):
    alt, words = UNSUPPORTED[kind]
    text = header() + "".join(good()) + line("chr1", 500, CHR1[499], alt, PLAIN, name="odd")
    with pytest.raises(InputError, match=rf"1 {words}.*first: chr1:500.*bcftools.*skip"):
        build(tmp_path, text)
    with pytest.warns(Seq2ExpWarning, match=f"left out: 1 {words}"):
        dataset = build(tmp_path, text, on_unsupported="skip")
    assert [row[:5] for row in rejects(dataset)] == [["chr1", "500", "odd", CHR1[499], alt]]
    assert dataset.genotypes.contigs == {"chr1": 20}


@pytest.mark.skipif(shutil.which("bcftools") is None, reason="bcftools is not installed")
def test_f14_the_command_of_the_message_makes_the_file_usable(tmp_path):
    """Every kind at once; haplotypes that carried a bad allele have REF afterwards."""
    odd = [
        line("chr1", 500 + i, CHR1[499 + i], alt.replace(CHR1[499], CHR1[499 + i]), PLAIN)
        for i, (alt, _) in enumerate(UNSUPPORTED.values())
    ]
    mixed = line("chr1", 600, CHR1[599], f"{OTHER[CHR1[599]]},*", ["1|2", "0|1", *PLAIN[2:]])
    more = '##ALT=<ID=DEL,Description="d">\n##ALT=<ID=NON_REF,Description="n">\n'
    text = header(more=more) + "".join([*good(), *odd, mixed])
    with pytest.raises(InputError) as caught:
        build(tmp_path, text)
    command = str(caught.value).split("`")[1]
    source = tmp_path / "in"
    command = command.replace("IN", str(source / "v.vcf")).replace("OUT", str(source / "clean.gz"))
    subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True, capture_output=True)
    cleaned = build(tmp_path, None, vcf=["clean.gz"])
    with pytest.warns(Seq2ExpWarning, match="left out"):
        skipped = build(tmp_path, None, on_unsupported="skip", out="skipped")
    assert cleaned.genotypes.contigs == skipped.genotypes.contigs == {"chr1": 21}
    both = [d.genotypes.alleles("chr1", 0, 21) for d in (cleaned, skipped)]
    np.testing.assert_array_equal(*both)
    assert both[0][0, :, 20].tolist() == [1, 0]


def test_f14_several_alts_become_one_variant_each(tmp_path):
    ref = CHR1[499]
    alts = [base for base in "ACGT" if base != ref]
    calls = ["1|2", "3|0", "2/3", "./1", "2|2"]
    dataset = build(tmp_path, header() + line("chr1", 500, ref, ",".join(alts), calls, name="m"))
    reader = dataset.genotypes
    assert [reader.variants("chr1").alt(i) for i in range(3)] == alts
    assert reader.alleles("chr1", 0, 3).transpose(2, 0, 1).tolist() == [
        [[1, 0], [0, 0], [0, 0], [2, 1], [0, 0]],
        [[0, 1], [0, 0], [1, 0], [2, 0], [1, 1]],
        [[0, 0], [1, 0], [0, 1], [2, 0], [0, 0]],
    ]
    # The third donor's alleles have no phase; the fourth's first one was not called.
    assert reader.unphased("chr1", 0, 3).T.tolist() == [
        [False, False, False, True, False],
        [False, False, True, True, False],
        [False, False, True, True, False],
    ]
    table = reader.table("chr1")
    assert table["allele"].tolist() == [1, 2, 3]
    assert table["record"].tolist() == [0, 0, 0]
    assert set(table["status"]) == {"multiallelic"}
    assert (table["ac"].tolist(), table["an"].tolist()) == ([2, 4, 2], [9, 9, 9])


def test_f14_alts_of_a_record_keep_its_site_where_normalising_moves_them_apart(tmp_path):
    at = next(i for i in range(60, 1900) if len(set(CHR1[i - 1 : i + 2])) == 3)
    ref = CHR1[at - 1 : at + 2]
    third = next(base for base in "ACGT" if base not in (ref[1], ref[2]))
    # A deletion of the second base, and another third base.
    alts = [ref[0] + ref[2], ref[:2] + third]
    text = header() + "".join(good(2)) + line("chr1", at, ref, ",".join(alts), PLAIN)
    dataset = build(tmp_path, "".join(sorted(text.splitlines(keepends=True), key=by_position)))
    reader = dataset.genotypes
    moved = np.flatnonzero(reader.table("chr1")["status"].str.contains("multiallelic"))
    first, last = int(moved[0]), int(moved[-1]) + 1
    assert reader.variants("chr1").position_M[first:last].tolist() == [at - 1, at + 1]
    assert reader.sites("chr1", first, last).tolist() == [at - 1, at - 1]
    plain = build(tmp_path, header() + "".join(good(2)), out="plain").genotypes
    assert not places.genotype_path(plain.root, "chr1", "site").exists()
    assert plain.sites("chr1", 0, 2).tolist() == [100, 110]


def by_position(row):
    return -1 if row.startswith("#") else int(row.split("\t")[1])


def test_f14_missing_half_and_mixed_calls_are_kept_and_counted(tmp_path):
    text = (
        header()
        + snv(100, [".", "./.", "./1", "0/1", "0|1"])
        + snv(110, [".|.", "1/1", *PLAIN[2:]])
    )
    dataset = build(tmp_path, text)
    alleles = dataset.genotypes.alleles("chr1", 0, 2)
    assert alleles[:, :, 0].tolist() == [[2, 2], [2, 2], [2, 1], [0, 1], [0, 1]]
    assert alleles[0, :, 1].tolist() == [2, 2]
    assert np.isnan(dataset.genotypes.dosage("chr1", 0, 1)[:3]).all()
    counts = dataset.manifest.genotypes.counts
    assert counts["calls"] == 10
    assert (counts["calls_missing"], counts["calls_half"], counts["calls_haploid"]) == (3, 1, 0)
    assert counts["calls_heterozygous_unphased"] == 1
    assert counts["calls_heterozygous_phased"] == 2
    unphased = dataset.genotypes.unphased("chr1", 0, 2)
    assert unphased.T.tolist() == [[False, False, True, True, False], [False] * 5]


def test_f14_haploid_calls_among_diploid_ones_fill_both_haplotypes(tmp_path):
    """Males on chrX: the one allele, not the allele and a reference one."""
    text = (
        header()
        + snv(100, ["1", "0", ".", "0|1", "1|1"])
        + snv(110, ["1:0.5", *PLAIN[1:]], form="GT:DS")
    )
    dataset = build(tmp_path, text)
    assert dataset.genotypes.ploidy == 2
    assert dataset.genotypes.alleles("chr1", 0, 1)[:, :, 0].tolist() == [
        [1, 1], [0, 0], [2, 2], [0, 1], [1, 1]]  # fmt: skip
    table = dataset.genotypes.table("chr1")
    assert table["status"].tolist() == ["haploid", "haploid"]
    # A haploid call counts once.
    assert (table["ac"][0], table["an"][0]) == (4, 6)
    assert dataset.manifest.genotypes.counts["calls_haploid"] == 3


def test_f14_a_haploid_cohort_has_one_haplotype_each(tmp_path):
    text = header() + snv(100, ["1", "0", ".", "1", "./."]) + snv(110, list("00100"))
    dataset = build(tmp_path, text)
    assert dataset.genotypes.ploidy == 1
    assert dataset.genotypes.alleles("chr1", 0, 2).tolist() == [
        [[1, 0]], [[0, 0]], [[2, 1]], [[1, 0]], [[2, 0]]]  # fmt: skip
    np.testing.assert_array_equal(
        dataset.genotypes.dosage("chr1", 0, 2)[2:], [[np.nan, 1], [1, 0], [np.nan, 0]]
    )


@pytest.mark.parametrize(
    ("record", "words", "reason"),
    [
        (snv(500, ["0|1|1", *PLAIN[1:]]), "calls of more than two alleles", "ploidy"),
        (snv(500, ["0.4"] * 5, form="DS"), "records without GT", "no_genotypes"),
    ],
)
def test_f14_ploidy_three_and_records_without_gt(tmp_path, record, words, reason):
    text = header() + "".join(good()) + record
    with pytest.raises(InputError, match=rf"1 {words}.*first: chr1:501.*skip"):
        build(tmp_path, text)
    with pytest.warns(Seq2ExpWarning, match=f"1 {words}"):
        dataset = build(tmp_path, text, on_unsupported="skip")
    assert rejects(dataset)[0][5] == reason


def test_f14_a_donor_who_is_left_out_may_have_any_ploidy(tmp_path):
    text = header() + snv(500, ["0|1|1", *PLAIN[1:]])
    assert build(tmp_path, text, exclude=["HG1"]).genotypes.contigs == {"chr1": 1}


def test_f14_long_indels_are_left_out_listed_and_counted(tmp_path):
    long = line("chr1", 700, CHR1[699:720], CHR1[699], PLAIN)
    text = header() + "".join(good()) + long + snv(800)
    assert build(tmp_path, text, max_indel=20).genotypes.contigs == {"chr1": 22}
    with pytest.warns(Seq2ExpWarning, match="1 too long insertions and deletions"):
        dataset = build(tmp_path, text, max_indel=19, out="short")
    assert dataset.genotypes.contigs == {"chr1": 21}
    assert rejects(dataset)[0][5] == "too_long"


def test_f14_all_kinds_at_once_are_reported_together(tmp_path):
    odd = [
        line("chr1", 500, CHR1[499], "<DEL>", PLAIN),
        line("chr1", 510, CHR1[509], "*", PLAIN),
        snv(520, ["0|1|1", *PLAIN[1:]]),
        mismatching(530),
    ]
    with pytest.raises(InputError) as caught:
        build(tmp_path, header() + "".join(good() + odd))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "1 symbolic alleles and breakends, 1 * alleles" in lines[0]
    assert "calls of more than two alleles" in lines[1]
    assert "4.2% of 24 alleles with a REF" in lines[2]


@pytest.mark.parametrize("gt", ["0|x", "a", "0|1.5", "|", "-1", "0|10000"])
def test_f14_a_gt_that_is_no_genotype(tmp_path, gt):
    text = header() + snv(100, [gt, *PLAIN[1:]])
    with pytest.raises(FormatError, match=r"v\.vcf chr1:101: found GT"):
        build(tmp_path, text)


def test_f14_an_allele_that_the_record_does_not_have(tmp_path):
    with pytest.raises(FormatError, match=r"chr1:101: found a genotype with allele 2"):
        build(tmp_path, header() + snv(100, ["0|2", *PLAIN[1:]]))


# F15: damaged, odd and old files ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["v.gz", "v.gzip", "v.bcf"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_f15_truncated_compressed_files(tmp_path, name, share):
    raw.write_raw(tmp_path / "in")
    path = vcfs.write_vcf(tmp_path / "in" / name, header() + "".join(vcfs.random_records(0)))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(FormatError, match=rf"{name}: found .*expected a whole"):
        build(tmp_path, None, name=name, on_unsupported="skip")
    assert nothing_left(tmp_path)


def test_f15_a_bgzip_file_without_its_last_block(tmp_path):
    raw.write_raw(tmp_path / "in")
    path = vcfs.write_vcf(tmp_path / "in" / "v.gz", header() + "".join(good()))
    path.write_bytes(path.read_bytes()[:-28])
    level = pysam.set_verbosity(0)
    with pytest.raises(OSError, match="no BGZF EOF marker"):
        pysam.VariantFile(str(path))
    pysam.set_verbosity(level)
    with pytest.raises(FormatError, match=r"v.gz: found no end-of-file block"):
        build(tmp_path, None, name="v.gz")


def test_f15_flipped_bytes_in_a_block(tmp_path):
    raw.write_raw(tmp_path / "in")
    path = vcfs.write_vcf(tmp_path / "in" / "v.gz", header() + "".join(vcfs.random_records(0)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(FormatError, match=r"v\.gz"):
        build(tmp_path, None, name="v.gz", on_unsupported="skip")


@pytest.mark.parametrize("size", [b"", b"\0\0", b"\3\0"])
def test_f15_headers_of_blocks_that_break_off_or_are_too_short(tmp_path, size):
    """Found by the fuzz test: the field of the size ends early, or says less than its own header.

    With the field cut the data begin elsewhere; with another size it still is a gzip file.
    """
    raw.write_raw(tmp_path / "in")
    path = vcfs.write_vcf(tmp_path / "in" / "v.gz", header() + "".join(good()))
    content = bytearray(path.read_bytes())
    content[10:12] = (4 + len(size)).to_bytes(2, "little")
    content[16 : 16 + len(size)] = size
    path.write_bytes(bytes(content))
    if size:
        assert build(tmp_path, None, name="v.gz").genotypes.contigs == {"chr1": 20}
    else:
        with pytest.raises(FormatError, match=r"v\.gz"):
            build(tmp_path, None, name="v.gz")


def test_f15_text_cut_inside_a_line(tmp_path):
    text = header() + "".join(good())
    with pytest.raises(FormatError, match="a last line that does not end"):
        build(tmp_path, text[:-6])
    # Cut in FILTER: htslib takes the value for a new filter before it misses the rest.
    cut = text[: text.rindex("PASS") + 2] + "\n"
    with pytest.raises(FormatError, match=r"at 'chr1.*found 7 columns"):
        build(tmp_path, cut)
    # Cut between two samples.
    with pytest.raises(FormatError, match=r"chr1:291: found 4 genotype columns, expected the 5"):
        build(tmp_path, text[: text.rindex("\t")] + "\n")


def test_f15_an_old_index_hides_records_from_pysam_and_nothing_from_us(tmp_path):
    """SILENT in htslib: records that were appended after indexing are not returned."""
    raw.write_raw(tmp_path / "in")
    path = vcfs.write_vcf(tmp_path / "in" / "v.gz", header() + "".join(good(5)))
    pysam.tabix_index(str(path), preset="vcf", force=True)
    index = path.with_name("v.gz.tbi")
    more = vcfs.write_vcf(tmp_path / "more.gz", "".join(snv(at) for at in range(600, 900, 10)))
    path.write_bytes(path.read_bytes()[:-28] + more.read_bytes())
    os.utime(index, (1, 1))
    level = pysam.set_verbosity(0)
    with pysam.VariantFile(str(path)) as records:
        seen = [record.pos for record in records.fetch("chr1")]
    pysam.set_verbosity(level)
    assert len(seen) == 5, "pysam is no longer misled: say so in faults.md"
    dataset = build(tmp_path, None, name="v.gz")
    assert dataset.genotypes.contigs == {"chr1": 35}
    assert index.stat().st_mtime == 1


def test_f15_no_index_is_needed_and_none_is_written(tmp_path):
    build(tmp_path, header() + "".join(good()), name="v.gz")
    assert not list((tmp_path / "in").glob("v.gz.*"))


def test_f15_records_out_of_order_are_sorted_and_told(tmp_path):
    rows = good() + [snv(at, contig="chr2") for at in (60, 70)]
    tidy = build(tmp_path, header() + "".join(rows), out="tidy")
    mixed = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    with pytest.warns(Seq2ExpWarning, match="records that are not in order.*bcftools sort"):
        dataset = build(tmp_path, header() + "".join(mixed))
    for contig in ("chr1", "chr2"):
        size = tidy.genotypes.contigs[contig]
        np.testing.assert_array_equal(
            dataset.genotypes.variants(contig).position_M,
            tidy.genotypes.variants(contig).position_M,
        )
        np.testing.assert_array_equal(
            dataset.genotypes.alleles(contig, 0, size), tidy.genotypes.alleles(contig, 0, size)
        )
    assert dataset.manifest.genotypes.counts["records_out_of_order"] > 0


def test_f15_a_header_without_contigs(tmp_path):
    dataset = build(tmp_path, header(contigs={}) + "".join(good()))
    assert dataset.genotypes.contigs == {"chr1": 20}


def test_f15_copies_of_a_variant(tmp_path):
    text = header() + "".join([*good(), snv(100), snv(110)])
    with pytest.warns(Seq2ExpWarning) as caught:
        dataset = build(tmp_path, text)
    messages = [str(warning.message) for warning in caught]
    assert any("copies of a variant with the same genotypes" in text for text in messages)
    assert [row[5] for row in rejects(dataset)] == ["duplicate"] * 2
    assert dataset.genotypes.contigs == {"chr1": 20}
    text = header() + "".join([*good()[:1], snv(100, ["0|0"] * 5), *good()[1:]])
    with pytest.raises(
        InputError, match=r"with other genotypes.*1 in all; first: chr1:101.*norm -d"
    ):
        build(tmp_path, text, out="other")
    with pytest.warns(Seq2ExpWarning, match="with other genotypes"):
        dataset = build(tmp_path, text, out="other", on_unsupported="skip")
    # The first one of the file stays.
    assert dataset.genotypes.alleles("chr1", 0, 1)[1].tolist() == [[1], [1]]


def test_f15_copies_are_seen_in_their_normal_form(tmp_path):
    """Two ways to write the deletion of one base of a run."""
    at = next(
        i for i in range(60, 1900) if CHR1[i : i + 3] == CHR1[i] * 3 and CHR1[i - 1] != CHR1[i]
    )
    run = CHR1[at]
    first = line("chr1", at, CHR1[at - 1 : at + 1], CHR1[at - 1], PLAIN)
    second = line("chr1", at + 2, run + CHR1[at + 2], run, PLAIN)
    with pytest.warns(Seq2ExpWarning, match=r"copies of a variant.*1 in all"):
        dataset = build(tmp_path, header() + first + second)
    assert dataset.genotypes.variants("chr1").position_M.tolist() == [at - 1]
    with pytest.warns(Seq2ExpWarning):
        table = build(tmp_path, header() + second + first, out="two").genotypes.table("chr1")
    assert table["status"].tolist() == ["normalised"]


@pytest.mark.parametrize(("position", "ref"), [(0, "A"), (2001, "A"), (1999, "ACGTACGT")])
def test_f15_positions_outside_the_contig(tmp_path, position, ref):
    text = header() + "".join(good()) + line("chr1", position, ref, "C", PLAIN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match=rf"1 positions outside the contig.*chr1:{position}"):
            build(tmp_path, text)
        dataset = build(tmp_path, text, ref_mismatch="skip", max_mismatch=0.2)
    assert rejects(dataset)[0][5] == "out_of_bounds"


@pytest.mark.parametrize("name", ["v.vcf", "v.gz", "v.gzip"])
def test_f15_windows_line_ends(tmp_path, name):
    text = header() + "".join([*good(), snv(500, ["0:1"] * 4 + ["1:7"], form="GT:DS")])
    tidy = build(tmp_path, text, out="tidy")
    dataset = build(tmp_path, text.replace("\n", "\r\n"), name=name)
    assert dataset.genotypes.donors == tidy.genotypes.donors
    np.testing.assert_array_equal(
        dataset.genotypes.alleles("chr1", 0, 21), tidy.genotypes.alleles("chr1", 0, 21)
    )


def test_f15_every_ref_is_what_the_genome_says_at_its_position(tmp_path):
    """The property that an error by one would break, after normalising too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = header() + "".join(vcfs.random_records(6))
        dataset = build(tmp_path, text, on_unsupported="skip")
    with pysam.FastaFile(str(tmp_path / "in" / "genome.fa")) as fasta:
        for contig in dataset.genotypes.contigs:
            table = dataset.genotypes.table(contig)
            for position, ref in zip(table["position"], table["ref"], strict=True):
                assert fasta.fetch(contig, position, position + len(ref)).upper() == ref
            lengths = dataset.genotypes.variants(contig).ref_length_M
            assert lengths.tolist() == table["ref"].str.len().tolist()


@pytest.mark.parametrize(
    ("content", "message", "kind"),
    [
        ("", "an empty file", InputError),
        ("<!DOCTYPE html><html></html>\n", "an HTML page", InputError),
        (">chr1\nACGT\n", "FASTA text", InputError),
        ("##fileformat=VCFv4.2\n", "no line of column names", FormatError),
        (header(()), "the file names no sample", InputError),
        (header(("a", "b", "a")) + "x\n", "samples used twice.*first: a", InputError),
        (header(("a", "")) + "x\n", "a sample without a name", InputError),
        (header(), "no record", InputError),
        (header() + "chr1 100 . A C . . . GT 0|1\n", "found 1 columns", FormatError),
        (header() + good(1)[0] + header() + good(2)[1], "a header line among the records",
         FormatError),
        (header() + good(1)[0].replace("101", "1e2"), "position '1e2'", FormatError),
        (header() + line("chrUn", 5, "A", "C", PLAIN), "records on chrUn only", InputError),
    ],
)  # fmt: skip
def test_f15_files_that_are_no_vcf_or_hold_nothing(tmp_path, content, message, kind):
    with pytest.raises(kind, match=message):
        build(tmp_path, content)


def test_f15_a_missing_file_is_reported_with_all_other_problems(tmp_path):
    raw.write_raw(tmp_path / "in")
    (tmp_path / "in" / "labels.tsv").unlink()
    with pytest.raises(InputError) as caught:
        build(tmp_path, None, vcf=["none.vcf"])
    assert "none.vcf: found no such file" in str(caught.value)
    assert "labels.tsv: found no such file" in str(caught.value)
    with pytest.raises(InputError, match=r"part\.\{contig\}.*no such file for any stored contig"):
        raw.write_raw(tmp_path / "in")
        build(tmp_path, None, vcf=["part.{contig}.vcf"])


def test_f15_the_command_ends_with_code_2_and_one_line(tmp_path, capsys):
    inputs = raw.write_raw(tmp_path / "in")
    vcfs.write_vcf(tmp_path / "in" / "v.vcf", header() + "".join(good())[:-3])
    dump_yaml(inputs.config, tmp_path / "in" / "c.yaml")
    config = (tmp_path / "in" / "c.yaml").read_text()
    config = config.replace("genotypes: null", "genotypes:\n  vcf: [v.vcf]")
    (tmp_path / "in" / "c.yaml").write_text(config)
    code = main(
        ["prepare", "--config", str(tmp_path / "in" / "c.yaml"), "--out", str(tmp_path / "d")]
    )
    assert code == 2
    error = [row for row in capsys.readouterr().err.splitlines() if row.startswith("error")]
    assert len(error) == 1
    assert "v.vcf: found a last line that does not end" in error[0]


# F17: donors and their expression ----------------------------------------------------------------

EXPRESSION = {"gA": [1.5, 2, 3, 4, 5], "gB": [0, 1, 0, 1, 0], "gD": [9, 8, 7, 6, 5]}


def write_expression(folder, rows=EXPRESSION, columns=vcfs.SAMPLES, name="e.tsv", gene="gene_id"):
    lines = ["\t".join([gene, *columns])]
    lines += ["\t".join([key, *map(str, values)]) for key, values in rows.items()]
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / name).write_text("\n".join(lines) + "\n")


def with_donors(folder, *, table=None, out="out", **keys):
    if table is not None:
        (folder / "in").mkdir(exist_ok=True)
        (folder / "in" / "donors.tsv").write_text(table)
    donors = {"path": "donors.tsv"} if table is not None else {}
    donors |= keys.pop("donors", {})
    if keys:
        donors["expression"] = DonorExpressionConfig(**{"path": "e.tsv", **keys})
    return build(folder, header() + "".join(good()), donors=donors, out=out)


def test_f17_no_donor_in_common_is_an_error(tmp_path):
    write_expression(tmp_path, columns=[f"other{i}" for i in range(5)])
    with pytest.raises(
        InputError, match=r"e.tsv: found donors such as other0.*such as HG1.*0 in all"
    ):
        with_donors(tmp_path, unit="TPM")
    with pytest.raises(InputError, match=r"donors.tsv: found donors such as x"):
        with_donors(tmp_path, table="donor\nx\ny\n")


def test_f17_donors_in_one_table_only_are_left_out_counted_and_listed(tmp_path):
    write_expression(tmp_path, columns=["HG3", "HG1", "HG2", "HG9", "Chr"])
    table = "donor\tpop\nHG4\tA\nHG3\tB\nHG1\tA\nHG8\tA\n"
    with pytest.warns(Seq2ExpWarning) as caught:
        dataset = with_donors(tmp_path, table=table, unit="TPM", donors={"population": "pop"})
    messages = " ".join(str(warning.message) for warning in caught)
    assert "donors.tsv: found 3 of 4 donors with genotypes, and 2 donors with genotypes" in messages
    assert dataset.genotypes.donors == ["HG1", "HG3"]
    assert dataset.donors["population"].tolist() == ["A", "B"]
    assert dataset.donor_expression.loc["gA"].tolist() == [2.0, 1.5]
    listed = dict(
        row.split("\t") for row in places.left_out_path(dataset.root).read_text().splitlines()[1:]
    )
    assert listed == {
        "Chr": "no genotypes", "HG2": "not in donors.tsv", "HG4": "not in e.tsv",
        "HG5": "not in e.tsv", "HG8": "no genotypes", "HG9": "no genotypes",
    }  # fmt: skip
    assert dataset.manifest.genotypes.counts["donors_left_out"] == 6


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("donor\tpop\nHG1\tA\nHG1\tB\nHG2\tA\n", "donors used twice.*1 in all; first: HG1"),
        ("donor\tpop\nHG1\tA\n\tB\n", "rows without a donor"),
        ("name\nHG1\n", "no column 'donor'.*donors.donor names"),
        ("donor\tsex\nHG1\tmale\nHG2\tx1\n", "values that are no sex.*first: x1"),
    ],
)
def test_f17_a_table_of_donors_that_cannot_be_used(tmp_path, table, message):
    donors = {"sex": "sex"} if "sex" in table else {}
    donors |= {"population": "pop"} if "HG1\tB" in table else {}
    with pytest.raises(InputError, match=message):
        with_donors(tmp_path, table=table, donors=donors)


def test_f17_rows_that_say_the_same_of_a_donor_are_one(tmp_path):
    """An SDRF has a row per file of reads."""
    rows = [f"{name}\t{file}\t{pop}" for name, pop in zip(vcfs.SAMPLES, "AABBB", strict=True)
            for file in ("x_1", "x_2")]  # fmt: skip
    table = "\n".join(["Source Name\tfile\tpop", *rows]) + "\n"
    given = {"donor": "Source Name", "population": "pop"}
    write_expression(tmp_path, {"gA": [1, 2, 3, 4, 5]})
    dataset = with_donors(tmp_path, table=table, donors=given, unit="TPM")
    assert dataset.donors["population"].tolist() == list("AABBB")


def test_f17_a_million_per_column_of_the_whole_file(tmp_path):
    """TPM of RPKM: each assay by its own sum, over genes that the dataset does not hold too."""
    columns = ["HG1.1", "HG1.2", "HG2.1", "HG3.1", "HG4.1", "HG5.1"]
    rows = {"gA": [1, 3, 2, 3, 4, 5], "gZ": [3, 5, 0, 9, 1, 0]}
    write_expression(tmp_path, rows, columns=columns)
    keys = {"unit": "RPKM", "cut_names_at": ".", "per_million": True, "replicates": "mean"}
    with pytest.warns(Seq2ExpWarning):
        dataset = with_donors(tmp_path, **keys)
    first = (1 / 4 + 3 / 8) / 2 * 1e6
    expected = [first, 1e6, 0.25e6, 0.8e6, 1e6]
    np.testing.assert_allclose(dataset.donor_expression.loc["gA"], expected)
    assert dataset.manifest.genotypes.expression_unit == "TPM"
    write_expression(tmp_path, {"gA": [0, 2, 3, 4, 5]}, columns=columns[:1] + columns[2:])
    with pytest.raises(InputError, match=r"columns whose sum is 0.*first: HG1\.1"):
        with_donors(tmp_path, **keys, out="zero")
    with pytest.raises(ConfigError, match="no unit"):
        with_donors(tmp_path, **keys | {"unit": ""}, out="unit")


def test_f17_population_sex_and_family_are_kept(tmp_path):
    table = (
        "Sample\tpop\tgender\tfam\tdad\tmum\nHG1\tFIN\t1\tF1\tHG3\tHG2\nHG2\tNA\tF\tF1\t0\t0\n"
        "HG3\tFIN\tMale\tF1\t.\t\nHG4\tYRI\tNA\t\t0\t0\nHG5\tYRI\t2\tF2\t0\t-9\n"
    )
    columns = {"donor": "sample", "population": "pop", "sex": "gender", "family": "fam",
               "father": "dad", "mother": "mum"}  # fmt: skip
    donors = with_donors(tmp_path, table=table, donors=columns).donors
    assert donors["donor"].tolist() == list(vcfs.SAMPLES)
    assert donors["population"].tolist() == ["FIN", "", "FIN", "YRI", "YRI"]
    assert donors["sex"].tolist() == ["male", "female", "male", "", "female"]
    assert donors["family"].tolist() == ["F1", "F1", "F1", "", "F2"]
    assert donors["father"].tolist() == ["HG3", "", "", "", ""]
    assert donors["mother"].tolist() == ["HG2", "", "", "", ""]


def test_f17_missing_values_stay_missing_and_constant_genes_are_told(tmp_path):
    rows = {"gA": [1, "", "NA", 2, 3], "gB": [7, 7, 7, "", 7], "gC": ["NA"] * 5}
    write_expression(tmp_path, rows)
    with pytest.warns(Seq2ExpWarning, match=r"the same in all donors.*2 in all; first: gB, gC"):
        dataset = with_donors(tmp_path, unit="TPM")
    values = dataset.donor_expression
    assert np.isnan(values.loc["gA"]).tolist() == [False, True, True, False, False]
    counts = dataset.manifest.genotypes.counts
    assert (counts["genes_constant"], counts["genes_without_values"]) == (1, 1)
    assert counts["expression_missing"] == 8


def test_f17_negative_values_where_the_unit_forbids_them(tmp_path):
    write_expression(tmp_path, {**EXPRESSION, "gC": [1, -2, 3, -1, 0]})
    with pytest.raises(InputError, match=r"negative values in TPM.*2 in all; first: gC"):
        with_donors(tmp_path, unit="TPM")
    assert len(with_donors(tmp_path, unit="log2(TPM + 1)").donor_expression) == 4


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            {"ENSG00000000001.1": [1] * 5, "ENSG00000000001.2": [2] * 5},
            "genes used twice.*1 in all",
        ),
        ({"gA": [1, 2, "high", 4, 5]}, "column HG3: found cells that are no finite number.*'high'"),
        ({"gA": [1, 2, 3, "inf", 5]}, "column HG4: found cells that are no finite number"),
        ({"gX": [1] * 5}, "gene ids such as gX.*such as gA"),
    ],
)
def test_f17_an_expression_table_that_cannot_be_used(tmp_path, rows, message):
    write_expression(tmp_path, rows)
    with pytest.raises(InputError, match=message):
        with_donors(tmp_path, unit="TPM")


def test_f17_several_columns_of_a_donor(tmp_path):
    """E-GEUV-1: names of assays, some people with several."""
    columns = ["HG1.1.M_1", "HG1.7.M_2", "HG2.4.M_1", "HG3.1", "HG4.1", "HG5.1"]
    write_expression(tmp_path, {"gA": [1.5, 2, 3, 4, 5, 6]}, columns=columns)
    keys = {"unit": "RPKM", "cut_names_at": "."}
    with pytest.raises(InputError, match=r"donors with several columns.*first: HG1 2 columns"):
        with_donors(tmp_path, **keys)
    found = {}
    for choice in ("first", "mean"):
        with pytest.warns(Seq2ExpWarning, match="donors with several columns"):
            dataset = with_donors(tmp_path, **keys, replicates=choice, out=choice)
        assert dataset.genotypes.donors == list(vcfs.SAMPLES)
        found[choice] = dataset.donor_expression.loc["gA"].tolist()
    assert found == {"first": [1.5, 3, 4, 5, 6], "mean": [1.75, 3, 4, 5, 6]}


def test_f17_a_map_names_the_columns_of_donors(tmp_path):
    write_expression(tmp_path, columns=["HG1.1", "HG1.7", "ERR2", "HG3.1", "HG4.1"])
    sdrf = (
        "Source Name\tComment[x]\tComment[x]\tAssay Name\n"
        "HG1\ta\tb\tHG1.7\nHG1\ta\tc\tHG1.7\nHG2\ta\tb\tERR2\nHG3\ta\tb\tHG3.1\n"
    )
    (tmp_path / "in" / "sdrf.txt").write_text(sdrf)
    keys = {
        "unit": "RPKM",
        "map": "sdrf.txt",
        "map_column": "Assay Name",
        "map_donor": "Source Name",
    }
    with pytest.warns(Seq2ExpWarning, match="2 donors with genotypes but not here"):
        dataset = with_donors(tmp_path, **keys)
    assert dataset.donor_expression.loc["gA"].tolist() == [2, 3, 4]
    assert dataset.manifest.genotypes.counts["columns_not_in_map"] == 2
    (tmp_path / "in" / "sdrf.txt").write_text(sdrf + "HG5\ta\tb\tHG1.7\n")
    with pytest.raises(InputError, match=r"sdrf.txt: found assays of two donors.*first: HG1.7"):
        with_donors(tmp_path, **keys, out="two")


def test_f17_names_that_the_configuration_gets_wrong(tmp_path):
    text = header() + "".join(good())
    for key in ("include", "exclude"):
        with pytest.raises(InputError, match=rf"genotypes.{key}: found names that are no sample"):
            build(tmp_path, text, **{key: ["HG1", "nobody"]})
    with pytest.raises(InputError, match="no donor that all files have"):
        build(tmp_path, text, exclude=list(vcfs.SAMPLES))


# F18: small and odd cohorts ------------------------------------------------------------------


def test_f18_one_donor_and_one_gene(tmp_path):
    write_expression(tmp_path, {"gA": [3]}, columns=["HG1"])
    donors = {"expression": DonorExpressionConfig(path="e.tsv", unit="TPM")}
    text = header(["HG1"]) + snv(100, ["0|1"]) + snv(130, ["1|1"])
    with pytest.warns(Seq2ExpWarning, match="genes that are the same in all donors"):
        dataset = build(tmp_path, text, donors=donors)
    assert dataset.genotypes.alleles("chr1", 0, 2).tolist() == [[[0, 1], [1, 1]]]
    assert dataset.donor_expression.shape == (1, 1)
    assert dataset.genotypes.span("chr1", 0, 2000) == (0, 2)


def test_f18_genes_on_mitochondrion_y_and_alternative_contigs(tmp_path):
    """Haploid calls on chrM and chrY beside diploid ones; an alternative contig by its own name."""
    source = tmp_path / "in"
    source.mkdir()
    sizes = {"chr1": 900, "chrM": 700, "chrY": 800, "chr1_KI270706v1_random": 600}
    random = np.random.default_rng(0)
    text = {name: "".join(random.choice(list("ACGT"), size)) for name, size in sizes.items()}
    raw.write_fasta(source / "genome.fa", text)
    lines = [
        raw.gtf_line(name, "gene", 101, 300, "+", gene_id=f"g{i}", gene_biotype="protein_coding")
        for i, name in enumerate(sizes)
    ]
    raw.write_gtf(source / "genes.gtf.gz", lines)
    (source / "labels.tsv").write_text("gene_id\tcell\ng0\t1\ng1\t2\n")
    rows = []
    aliases = dict(zip(sizes, ("1", "MT", "24", "chr1_KI270706v1_random"), strict=True))
    for name, calls in zip(sizes, (PLAIN, list("01.01"), list("1...0"), PLAIN), strict=True):
        ref = text[name][200]
        rows.append(line(aliases[name], 201, ref, OTHER[ref], calls))
    contigs = {aliases[name]: size for name, size in sizes.items()}
    dataset = build(
        tmp_path, header(contigs=contigs) + "".join(rows), contigs=[], splits=SplitConfig()
    )
    reader = dataset.genotypes
    assert reader.contigs == dict.fromkeys(sizes, 1)
    assert reader.ploidy == 2
    assert reader.alleles("chrM", 0, 1)[:, :, 0].tolist() == [
        [0, 0],
        [1, 1],
        [2, 2],
        [0, 0],
        [1, 1],
    ]
    assert reader.alleles("chrY", 0, 1)[0].tolist() == [[1], [1]]


def test_f18_variants_of_contigs_without_genes_are_counted(tmp_path):
    text = header() + "".join([*good(), snv(60, contig="chr3"), snv(70, contig="chr3")])
    dataset = build(tmp_path, text, contigs=[])
    assert dataset.genotypes.contigs == {"chr1": 20}
    assert dataset.manifest.genotypes.counts["records_on_contigs_not_stored"] == 2
    text = header() + "".join(good()) + line("GL000191.1", 5, "A", "C", PLAIN)
    with pytest.warns(
        Seq2ExpWarning, match=r"contigs that the genome does not have.*first: GL0001"
    ):
        build(tmp_path, text, out="other")


def test_f18_a_contig_of_which_every_variant_is_left_out(tmp_path):
    text = header() + "".join(good()) + line("chr2", 60, "N", "<DEL>", PLAIN)
    with pytest.warns(Seq2ExpWarning, match="symbolic"):
        dataset = build(tmp_path, text, on_unsupported="skip")
    assert dataset.genotypes.contigs == {"chr1": 20}
    with pytest.raises(InputError, match="no variant that can be used: 1 symbolic"):
        build(
            tmp_path,
            header() + line("chr2", 60, "N", "<DEL>", PLAIN),
            on_unsupported="skip",
            out="x",
        )


def test_f17_what_was_found_stands_in_the_manifest_and_the_metadata(tmp_path):
    write_expression(tmp_path)
    dataset = with_donors(tmp_path, unit="RPKM")
    info = dataset.manifest.genotypes
    assert info.expression_unit == "RPKM"
    assert info.counts["genes_measured"] == 3
    roles = [file.role for file in dataset.manifest.sources]
    assert roles[-2:] == ["genotypes:v.vcf", "donor expression"]
    schema = layout.pq.read_schema(places.donor_expression_path(dataset.root))
    assert schema.metadata[b"unit"] == b"RPKM"


def test_f15_a_file_that_changes_is_read_anew(tmp_path):
    """The work folder is named by the content of the inputs."""
    cache = tmp_path / "cache"
    path = vcfs.write_vcf(tmp_path / "v.gzip", header() + "".join(good()))
    file = open_vcf(path, cache=cache)
    assert file.text.parent == cache
    assert file.samples == list(vcfs.SAMPLES)
    assert file.lengths == raw.SIZES
