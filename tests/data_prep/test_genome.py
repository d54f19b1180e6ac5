"""FASTA: the same bases whatever the wrapping, compression, case and line ends."""

from __future__ import annotations

import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import textfile
from data_prep.genome import index_problem, open_genome, read_contig
from data_prep.textfile import file_kind, open_text
from seq2exp.core.sequence import decode
from tests.data_prep import raw


def expected(sequence: str) -> str:
    return "".join(base if base in "ACGT" else "N" for base in sequence.upper())


@pytest.mark.parametrize("width", [1, 7, 60, 5000])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_bases_do_not_depend_on_wrapping_or_line_ends(tmp_path, width, end):
    records = raw.sequences()
    path = raw.write_fasta(tmp_path / "g.fa", records, width=width, end=end)
    genome = open_genome(path, cache=tmp_path / "cache")
    assert genome.sizes == raw.SIZES
    for name, sequence in records.items():
        codes, ambiguous = read_contig(genome, name)
        assert decode(codes) == expected(sequence)
        assert ambiguous == (2 if name == "chr1" else 0)  # R and Y


def test_bgzip_gives_the_same_bases_as_plain_text(tmp_path):
    records = raw.sequences()
    plain = raw.write_fasta(tmp_path / "g.fa", records)
    packed = tmp_path / "g.fa.gz"
    pysam.tabix_compress(str(plain), str(packed))
    first = open_genome(plain, cache=tmp_path / "cache")
    second = open_genome(packed, cache=tmp_path / "cache")
    assert first.sizes == second.sizes
    for name in records:
        assert read_contig(first, name)[0].tolist() == read_contig(second, name)[0].tolist()


def test_missing_index_is_made_in_the_cache_and_never_beside_the_file(tmp_path):
    home = tmp_path / "read only"
    home.mkdir()
    path = raw.write_fasta(home / "g.fa", raw.sequences())
    genome = open_genome(path, cache=tmp_path / "cache")
    assert [file.name for file in home.iterdir()] == ["g.fa"]
    assert genome.index.parent == tmp_path / "cache"
    assert genome.rebuilt == ""


def test_good_index_of_the_user_is_used(tmp_path):
    path = raw.write_fasta(tmp_path / "g.fa", raw.sequences())
    pysam.faidx(str(path))
    genome = open_genome(path, cache=tmp_path / "cache")
    assert genome.index == tmp_path / "g.fa.fai"
    assert not (tmp_path / "cache").exists()


def test_name_holds_a_path_with_spaces_and_unicode(tmp_path):
    folder = tmp_path / "my g\u00e9nome, v1"
    folder.mkdir()
    path = raw.write_fasta(folder / "g \u00fc.fa", {"c": "ACGT"})
    genome = open_genome(path, cache=tmp_path / "c \u00e4")
    assert decode(read_contig(genome, "c")[0]) == "ACGT"


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_block_text_reads_like_the_plain_text(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("blocks")
    # More than two 64 kB blocks, so that reads cross block borders.
    content = (">c\n" + "ACGTTGCA" * 20_000 + "\n").encode()
    plain = folder / "t.fa"
    plain.write_bytes(content)
    pysam.tabix_compress(str(plain), str(folder / "t.fa.gz"))
    with open_text(folder / "t.fa.gz") as text:
        assert text.size == len(content)
        for _ in range(5):
            offset = data.draw(st.integers(0, len(content)))
            length = data.draw(st.integers(0, 140_000))
            assert text.read(offset, length) == content[offset : offset + length]


def test_block_index_is_compared_with_the_blocks(tmp_path):
    plain = tmp_path / "t.fa"
    plain.write_text(">c\n" + "ACGT" * 60_000 + "\n")
    packed = tmp_path / "t.fa.gz"
    pysam.tabix_compress(str(plain), str(packed))
    pysam.faidx(str(packed))
    index = tmp_path / "t.fa.gz.gzi"
    with open_text(packed) as text:
        assert text.block_index_fits(index)
        content = bytearray(index.read_bytes())
        content[8] ^= 1
        index.write_bytes(content)
        assert not text.block_index_fits(index)
        index.write_bytes(b"short")
        assert not text.block_index_fits(index)


def test_record_names_are_found_across_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(textfile, "_SCAN", 7)
    path = raw.write_fasta(tmp_path / "g.fa", {"alpha": "ACGT" * 5, "beta": "GG", "c": "A>C"})
    with open_text(path) as text:
        assert text.record_names() == ["alpha", "beta", "c"]


def test_index_of_a_shifted_record_is_seen(tmp_path):
    from data_prep.genome import _read_index

    path = raw.write_fasta(tmp_path / "g.fa", raw.sequences())
    pysam.faidx(str(path))
    rows = _read_index(tmp_path / "g.fa.fai")
    with open_text(path) as text:
        assert index_problem(rows, text) == ""
        assert index_problem(rows[:2], text) == "sequence that the index leaves out"
        assert index_problem([], text) == "sequence that the index leaves out"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"  <html lang='en'>", "an HTML page"),
        (b"\xeb\xf2\x89\x87rest", "a bigBed"),
        (b"\x26\xfc\x8f\x88rest", "a bigWig"),
        (b"\x1f\x8b\x08\x00rest", "a gzip file"),
        (b"chr1\t0\t10\t2.5\n", "bedGraph text"),
        (b"track type=bedGraph\n", "wiggle or bedGraph text"),
        (b">c\nACGT\n", "FASTA text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\0\0\0\0", "binary data"),
    ],
)
def test_kind_of_a_file_is_said_in_words(tmp_path, content, kind):
    path = tmp_path / "x"
    path.write_bytes(content)
    assert file_kind(path) == kind
