"""F01 to F07: reference and annotation."""

from __future__ import annotations

import dataclasses
import gzip
import os

import numpy as np
import pyfaidx
import pysam
import pytest

from data_prep.build import prepare
from data_prep.config import AnnotationConfig, TrackConfig
from data_prep.genome import check_letters, open_genome, read_contig
from data_prep.preflight import PreflightError, check_inputs
from data_prep.tracks import check_track
from seq2exp.core.contigs import ASSEMBLIES
from seq2exp.core.errors import AssemblyError, FormatError, InputError, Seq2ExpWarning
from seq2exp.core.intervals import tss_window
from seq2exp.core.sequence import decode
from seq2exp.dataset import format as layout
from seq2exp.dataset.store import Dataset
from tests.data_prep import raw


@pytest.fixture
def inputs(tmp_path):
    return raw.write_raw(tmp_path / "in")


def bgzip(path):
    packed = path.with_name(path.name + ".gz")
    pysam.tabix_compress(str(path), str(packed), force=True)
    return packed


# F01 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9, 0.99])
def test_f01_truncated_fasta_with_full_index(tmp_path, kept):
    path = raw.write_fasta(tmp_path / "g.fa", raw.sequences())
    pysam.faidx(str(path))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    os.utime(tmp_path / "g.fa.fai")
    with pytest.raises(FormatError, match=r"g\.fa: found .* bytes of text where chr"):
        open_genome(path, cache=tmp_path / "cache")


def test_f01_the_library_is_silent_about_it(tmp_path):
    """pyfaidx returns fewer bases than asked, and none beyond the cut, without a word."""
    path = raw.write_fasta(tmp_path / "g.fa", raw.sequences())
    pysam.faidx(str(path))
    path.write_bytes(path.read_bytes()[:1000])
    os.utime(tmp_path / "g.fa.fai")
    with pyfaidx.Fasta(str(path), rebuild=False) as library:
        assert 0 < len(str(library["chr1"][900:1100])) < 200
        assert str(library["chr1"][1500:1600]) == ""
    with pytest.raises(FormatError):
        open_genome(path, cache=tmp_path / "cache")


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_f01_truncated_bgzip(tmp_path, kept):
    path = bgzip(raw.write_fasta(tmp_path / "g.fa", {"c": "ACGT" * 40_000}))
    pysam.faidx(str(path))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    os.utime(tmp_path / "g.fa.gz.fai")
    with pytest.raises(FormatError, match=r"truncated"):
        open_genome(path, cache=tmp_path / "cache")


def test_f01_damaged_bgzip_block(tmp_path):
    random = np.random.default_rng(0)
    path = bgzip(
        raw.write_fasta(tmp_path / "g.fa", {"c": "".join(random.choice(list("ACGT"), 300_000))})
    )
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(255 - byte for byte in content[middle : middle + 200])
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"g\.fa\.gz"):
        read_contig(open_genome(path, cache=tmp_path / "cache"), "c")


def test_f01_every_fetched_length_is_compared(tmp_path):
    path = raw.write_fasta(tmp_path / "g.fa", raw.sequences())
    genome = open_genome(path, cache=tmp_path / "cache")
    path.write_bytes(path.read_bytes()[:1500])  # truncated after the check
    with pytest.raises(FormatError, match=r"contig chr1: found .* expected the 2000 bases"):
        read_contig(genome, "chr1")


def test_f01_prepare_stops_before_any_output(inputs, tmp_path):
    path = inputs.folder / "genome.fa"
    pysam.faidx(str(path))
    path.write_bytes(path.read_bytes()[:2500])
    os.utime(inputs.folder / "genome.fa.fai")
    with pytest.raises(FormatError, match="truncated"):
        prepare(inputs.config, source=inputs.folder, out=tmp_path / "out", progress=False)
    assert {entry.name for entry in tmp_path.iterdir()} <= {"in", ".out.lock"}


# F02 -------------------------------------------------------------------------------------------


def age(path, seconds):
    stamp = path.stat().st_mtime - seconds
    os.utime(path, (stamp, stamp))


def test_f02_index_older_than_the_fasta_is_rebuilt_in_the_cache(tmp_path):
    path = raw.write_fasta(tmp_path / "g.fa", raw.sequences())
    pysam.faidx(str(path))
    own = tmp_path / "g.fa.fai"
    before = own.read_bytes()
    age(own, 60)
    with pytest.warns(Seq2ExpWarning, match="index older than the FASTA"):
        genome = open_genome(path, cache=tmp_path / "cache")
    assert genome.index.parent == tmp_path / "cache"
    assert own.read_bytes() == before
    assert genome.rebuilt == "index older than the FASTA"


@pytest.mark.parametrize(
    ("column", "change"), [(1, -60), (1, 60), (2, 1), (2, -3), (3, 30), (4, 70), (0, "chrX")]
)
def test_f02_wrong_index_is_never_used(tmp_path, column, change):
    records = raw.sequences()
    path = raw.write_fasta(tmp_path / "g.fa", records)
    pysam.faidx(str(path))
    index = tmp_path / "g.fa.fai"
    rows = [line.split("\t") for line in index.read_text().splitlines()]
    old = rows[1][column]
    rows[1][column] = change if isinstance(change, str) else str(int(old) + change)
    index.write_text("".join("\t".join(row) + "\n" for row in rows))
    with pytest.warns(Seq2ExpWarning, match="an index that does not fit"):
        genome = open_genome(path, cache=tmp_path / "cache")
    assert genome.sizes == raw.SIZES
    assert decode(read_contig(genome, "chr2")[0]) == records["chr2"]


def test_f02_index_of_the_file_before_it_was_edited(tmp_path):
    """A record was put in front; names and lengths still fit, the offsets do not."""
    records = raw.sequences()
    path = raw.write_fasta(tmp_path / "g.fa", records)
    pysam.faidx(str(path))
    raw.write_fasta(path, {"new": "ACGT"} | records)
    os.utime(tmp_path / "g.fa.fai")
    with pytest.warns(Seq2ExpWarning, match="does not fit"):
        genome = open_genome(path, cache=tmp_path / "cache")
    assert list(genome.sizes) == ["new", "chr1", "chr2", "chr3"]
    assert decode(read_contig(genome, "chr3")[0]) == records["chr3"]


@pytest.mark.parametrize("content", [b"", b"garbage\n", b"chr1\tx\t1\t2\t3\n", b"\xff\xfe\0"])
def test_f02_unreadable_index(tmp_path, content):
    path = raw.write_fasta(tmp_path / "g.fa", raw.sequences())
    (tmp_path / "g.fa.fai").write_bytes(content)
    with pytest.warns(Seq2ExpWarning, match="does not fit"):
        assert open_genome(path, cache=tmp_path / "cache").sizes == raw.SIZES


def test_f02_wrong_block_index_is_rebuilt(tmp_path):
    records = {"c": "ACGTTGCAAC" * 20_000}
    path = bgzip(raw.write_fasta(tmp_path / "g.fa", records))
    pysam.faidx(str(path))
    index = tmp_path / "g.fa.gz.gzi"
    content = bytearray(index.read_bytes())
    content[16] ^= 8
    index.write_bytes(content)
    with pytest.warns(Seq2ExpWarning, match=r"\.gzi that does not fit"):
        genome = open_genome(path, cache=tmp_path / "cache")
    assert decode(read_contig(genome, "c")[0]) == records["c"]


# F03 -------------------------------------------------------------------------------------------


def test_f03_plain_gzip_names_the_command(tmp_path):
    path = tmp_path / "g.fa.gz"
    path.write_bytes(gzip.compress(b">c\nACGT\n"))
    with pytest.raises(InputError, match=r"gunzip -c g\.fa\.gz \| bgzip > g\.fa\.bgz"):
        open_genome(path, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"\n\n", "expected FASTA text"),
        (b"ACGT\n", "expected FASTA text"),
        (b"<html><body>404</body></html>", "an HTML page"),
        (b">a\nACGT\n>b\nGG\n>a\nTTTT\n", "contig names used twice.*1 in all; first: a"),
        (b">a\nACGT\n>b\n\n>c\nGG\n", "records without sequence.*first: b"),
        (b">a\nACGT\nACGTACGT\nAC\n", "lines of different length"),
    ],
)
def test_f03_files_that_are_no_genome(tmp_path, content, message):
    path = tmp_path / "g.fa"
    path.write_bytes(content)
    with pytest.raises((InputError, FormatError), match=message):
        open_genome(path, cache=tmp_path / "cache")


def test_f03_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.fa: found no such file"):
        open_genome(tmp_path / "none.fa", cache=tmp_path / "cache")


def test_f03_protein_is_refused(tmp_path):
    path = raw.write_fasta(tmp_path / "p.fa", {"p": "MKVLAAGIVGLLLAQEFPP"})
    genome = open_genome(path, cache=tmp_path / "cache")
    with pytest.raises(InputError, match=r"letters 'EFILPQ' that are no nucleotide code"):
        check_letters(genome, ["p"])


def test_f03_odd_letters_deep_inside_a_contig_are_found_when_read(tmp_path):
    path = raw.write_fasta(tmp_path / "g.fa", {"c": "A" * 20_000 + "-" + "A" * 50})
    genome = open_genome(path, cache=tmp_path / "cache")
    check_letters(genome, ["c"])
    with pytest.raises(InputError, match="letters '-'"):
        read_contig(genome, "c")


def test_f03_iupac_soft_mask_and_crlf_are_fine(tmp_path):
    path = raw.write_fasta(tmp_path / "g.fa", {"c": "acgtRYSWKMBDHVNryN"}, width=5, end="\r\n")
    codes, ambiguous = read_contig(open_genome(path, cache=tmp_path / "cache"), "c")
    assert decode(codes) == "ACGT" + "N" * 14
    assert ambiguous == 12  # ten upper-case codes, r and y; N itself is no ambiguity code


def test_f03_a_contig_name_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "g.fa"
    path.write_bytes(b">c\xc8r1\nACGT\n")
    with pytest.raises(FormatError, match=r"g\.fa: found contig names that are no text"):
        open_genome(path, cache=tmp_path / "cache")


# F04 -------------------------------------------------------------------------------------------


def test_f04_windows_beyond_the_ends_are_padded_to_length(inputs, tmp_path):
    """gD has its TSS on the first base of chr2, gE (minus) on the last one."""
    prepare(inputs.config, source=inputs.folder, out=tmp_path / "out", progress=False)
    dataset = Dataset(tmp_path / "out")
    sequence = raw.sequences()["chr2"]
    first = tss_window("chr2", 0, "+", length=64, contig_length=1003)
    assert (first.pad_left, first.pad_right) == (32, 0)
    assert decode(dataset.codes(first)) == "N" * 32 + sequence[:32]
    last = tss_window("chr2", 1002, "-", length=64, contig_length=1003)
    codes = decode(dataset.codes(last))
    assert (len(codes), codes[:32]) == (64, "N" * 32)
    # The TSS base is at index 32 on both strands; on minus it reads complemented.
    assert codes[32] == str.translate(sequence[-1], str.maketrans("ACGT", "TGCA"))
    whole = tss_window("chr2", 500, "+", length=4000, contig_length=1003)
    assert decode(dataset.codes(whole)).strip("N") == sequence
    assert whole.pad_left + whole.pad_right == 4000 - 1003


def test_f04_the_library_is_silent_about_it(tmp_path):
    path = raw.write_fasta(tmp_path / "g.fa", raw.sequences())
    with pyfaidx.Fasta(str(path)) as library:
        assert len(str(library["chr3"][490:550])) == 10
        assert str(library["chr3"][-5:5]) == ""


# F05 -------------------------------------------------------------------------------------------


def test_f05_bigwig_of_the_other_human_assembly_is_named(tmp_path):
    old = {f"chr{name}": size for name, size in ASSEMBLIES["hg19/GRCh37"].items()}
    new = {f"chr{name}": size for name, size in ASSEMBLIES["hg38/GRCh38"].items()}
    path = raw.write_bigwig(tmp_path / "t.bw", {"chr22": [(100, 200, 1.0), (300, 400, 2.0)]}, old)
    with pytest.raises(
        AssemblyError, match=r"hg19/GRCh37.*hg38/GRCh38.*8 in all; first: chr1 "
    ) as error:
        check_track(TrackConfig(name="t", path="t.bw"), path, sizes=new, contigs=["chr22"])
    assert str(error.value).count("against") == 3


def test_f05_gtf_beyond_the_end_of_a_contig(inputs, tmp_path):
    lines = [*raw.gene_lines(), raw.gtf_line("chr2", "gene", 900, 1004, "+", gene_id="far")]
    raw.write_gtf(inputs.folder / "genes.gtf.gz", lines)
    with pytest.raises(AssemblyError, match=r"genes\.gtf\.gz.*chr2 1,004 against 1,003"):
        check_inputs(inputs.config, inputs.folder, cache=tmp_path / "cache")


def test_f05_bigwig_of_another_length(inputs, tmp_path):
    sizes = raw.SIZES | {"chr2": 1004}
    raw.write_bigwig(inputs.folder / "signal.bw", raw.SIGNAL, sizes)
    with pytest.raises(AssemblyError, match="chr2 1,004 against 1,003"):
        check_inputs(inputs.config, inputs.folder, cache=tmp_path / "cache")


# F06 -------------------------------------------------------------------------------------------


def rename(names, tmp_path):
    """Write the toy inputs with other contig names in FASTA, GTF and bigWig."""
    inputs = raw.write_raw(tmp_path)
    fasta, gtf, track = names
    records = raw.sequences()
    raw.write_fasta(inputs.folder / "genome.fa", {fasta(name): s for name, s in records.items()})
    lines = [gtf(line.split("\t")[0]) + "\t" + line.split("\t", 1)[1] for line in raw.gene_lines()]
    raw.write_gtf(inputs.folder / "genes.gtf.gz", lines)
    raw.write_bigwig(
        inputs.folder / "signal.bw",
        {track(name): entries for name, entries in raw.SIGNAL.items()},
        {track(name): size for name, size in raw.SIZES.items()},
    )
    return inputs


def same(name):
    return name


def bare(name):
    return name.removeprefix("chr")


def refseq(name):
    return f"NC_{int(bare(name)):06d}.11"


@pytest.mark.parametrize(
    "names", [(same, bare, refseq), (bare, refseq, same), (refseq, same, bare)]
)
def test_f06_contig_aliases_give_the_same_dataset(tmp_path, names):
    plain = raw.write_raw(tmp_path / "plain")
    other = rename(names, tmp_path / "other")
    prepare(plain.config, source=plain.folder, out=tmp_path / "a", progress=False)
    prepare(other.config, source=other.folder, out=tmp_path / "b", progress=False)
    fasta = names[0]
    for contig in ("chr1", "chr2"):
        for place in (layout.sequence_path, layout.tracks_path):
            first, second = place(tmp_path / "a", contig), place(tmp_path / "b", fasta(contig))
            np.testing.assert_array_equal(np.load(first), np.load(second))
    genes = layout.read_table(layout.genes_path(tmp_path / "b"))
    assert genes["contig"].unique().tolist() == [fasta("chr1"), fasta("chr2")]


def test_f06_nothing_shared_is_an_error(inputs, tmp_path):
    sizes = {f"scaffold_{i}": size for i, size in enumerate(raw.SIZES.values())}
    raw.write_bigwig(inputs.folder / "signal.bw", {"scaffold_0": [(0, 9, 1.0)]}, sizes)
    with pytest.raises(InputError, match=r"signal\.bw.*scaffold_0.*0 in all"):
        check_inputs(inputs.config, inputs.folder, cache=tmp_path / "cache")


def test_f06_a_partial_join_warns_with_counts(inputs, tmp_path):
    sizes = {name: raw.SIZES[name] for name in ("chr1", "chr3")}
    raw.write_bigwig(inputs.folder / "signal.bw", {"chr1": raw.SIGNAL["chr1"]}, sizes)
    with pytest.warns(Seq2ExpWarning, match=r"signal\.bw.*1 of 2 contigs.*first: chr2"):
        check_inputs(inputs.config, inputs.folder, cache=tmp_path / "cache")


def test_f06_gtf_of_another_genome(inputs, tmp_path):
    lines = [line.replace("chr", "contig_") for line in raw.gene_lines()]
    raw.write_gtf(inputs.folder / "genes.gtf.gz", lines)
    with pytest.raises(InputError, match="contig_1"):
        check_inputs(inputs.config, inputs.folder, cache=tmp_path / "cache")


def test_f06_the_library_answers_for_a_contig_without_data_in_silence(tmp_path):
    import pybigtools

    path = raw.write_bigwig(tmp_path / "t.bw", raw.SIGNAL)
    values = pybigtools.open(str(path)).values("chr3", 0, 500, fillna=None)
    assert np.isnan(values).all()


# F07 -------------------------------------------------------------------------------------------


BAD = {
    "no gene_id": 'chr1\tx\tgene\t5\t9\t.\t+\t.\tgene_name "q";',
    "start or end": raw.gtf_line("chr1", "gene", 9, 5, "+", gene_id="q"),
    "strand": raw.gtf_line("chr1", "gene", 5, 9, ".", gene_id="q"),
    "not nine columns": "chr1\tx\tgene\t5\t9",
}


@pytest.mark.parametrize("reason", BAD)
def test_f07_bad_rows_are_counted_and_refused(inputs, reason):
    raw.write_gtf(inputs.folder / "genes.gtf.gz", [*raw.gene_lines(), BAD[reason]])
    from data_prep.annotation import read_annotation

    path = inputs.folder / "genes.gtf.gz"
    with pytest.raises(InputError, match=rf"1 {reason}.*first: data row 6.*bad_rows: skip"):
        read_annotation(path, AnnotationConfig(gtf="x"))
    with pytest.warns(Seq2ExpWarning, match=rf"1 {reason}"):
        annotation = read_annotation(path, AnnotationConfig(gtf="x", bad_rows="skip"))
    assert (len(annotation.genes), annotation.counts["gtf_bad_rows"]) == (5, 1)


def test_f07_position_zero_is_no_gtf_position(inputs, tmp_path):
    line = raw.gtf_line("chr1", "gene", 0, 9, "+", gene_id="q")
    raw.write_gtf(inputs.folder / "genes.gtf.gz", [*raw.gene_lines(), line])
    with pytest.raises(InputError, match="1 start or end"):
        check_inputs(inputs.config, inputs.folder, cache=tmp_path / "cache")


def test_f07_a_gene_twice_is_refused_versions_or_not(inputs, tmp_path):
    ids = ("ENSG00000100266.1", "ENSG00000100266.2")
    lines = [raw.gtf_line("chr1", "gene", 5, 9, "+", gene_id=name) for name in ids]
    raw.write_gtf(inputs.folder / "genes.gtf.gz", [*raw.gene_lines(), *lines])
    with pytest.raises(InputError, match=r"gene ids used twice.*1 in all; first: ENSG00000100266"):
        check_inputs(inputs.config, inputs.folder, cache=tmp_path / "cache")


def test_f07_versioned_ids_join_unversioned_labels(inputs, tmp_path):
    ids = {gene[0]: f"ENSG0000000000{i}" for i, gene in enumerate(raw.GENES)}
    lines = raw.gene_lines()
    for old, new in ids.items():
        lines = [line.replace(f'gene_id "{old}"', f'gene_id "{new}.7"') for line in lines]
    raw.write_gtf(inputs.folder / "genes.gtf.gz", lines)
    table = (inputs.folder / "labels.tsv").read_text()
    for old, new in ids.items():
        table = table.replace(f"\n{old}\t", f"\n{new}\t")
    (inputs.folder / "labels.tsv").write_text(table)
    plan = check_inputs(inputs.config, inputs.folder, cache=tmp_path / "cache")
    assert plan.counts["genes_with_label"] == 4
    assert set(plan.genes["gene_id"]) == set(ids.values())


@pytest.mark.parametrize("kept", [0.2, 0.7, 0.99])
def test_f07_truncated_gtf(inputs, tmp_path, kept):
    path = inputs.folder / "genes.gtf.gz"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(FormatError, match=r"genes\.gtf\.gz"):
        check_inputs(inputs.config, inputs.folder, cache=tmp_path / "cache")


# All problems at once --------------------------------------------------------------------------


def test_f11_every_problem_is_reported_together(inputs, tmp_path):
    (inputs.folder / "genome.fa").unlink()
    (inputs.folder / "labels.tsv").unlink()
    track = TrackConfig(name="gone", path="gone.bw")
    config = dataclasses.replace(inputs.config, tracks=[*inputs.config.tracks, track])
    with pytest.raises(PreflightError) as error:
        check_inputs(config, inputs.folder, cache=tmp_path / "cache")
    lines = str(error.value).splitlines()
    assert len(lines) == len(error.value.problems) == 3
    for name, line in zip(("genome.fa", "labels.tsv", "gone.bw"), lines, strict=True):
        assert f"{name}: found no such file" in line
