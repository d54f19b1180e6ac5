"""Text read by offset, plain or in blocks, and what kind of file it is."""

from __future__ import annotations

from itertools import pairwise

import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2exp.core import textfile
from seq2exp.core.errors import FormatError
from seq2exp.core.textfile import SeekableText, file_kind, open_fasta, text_lines
from tests.data_prep import raw


@settings(deadline=None, max_examples=20)
@given(data=st.data())
def test_block_text_reads_like_the_plain_text(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("blocks")
    # More than two 64 kB blocks, so that reads cross block borders.
    content = (">c\n" + "ACGTTGCA" * 20_000 + "\n").encode()
    plain = folder / "t.fa"
    plain.write_bytes(content)
    pysam.tabix_compress(str(plain), str(folder / "t.fa.gz"))
    with open_fasta(folder / "t.fa.gz") as text:
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
    with open_fasta(packed) as text:
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
    with open_fasta(path) as text:
        assert text.record_names() == ["alpha", "beta", "c"]


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


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_every_line_is_in_the_part_in_which_it_begins(tmp_path_factory, data):
    lines = data.draw(st.lists(st.binary(max_size=9).map(lambda b: b.replace(b"\n", b""))))
    path = tmp_path_factory.mktemp("lines") / "t"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    size = path.stat().st_size
    borders = [0, *sorted(data.draw(st.lists(st.integers(0, size), max_size=4))), size]
    piece, textfile._PIECE = textfile._PIECE, data.draw(st.integers(1, 20))
    try:
        with SeekableText(path, blocked=False) as text:
            parts = [
                (at, line)
                for start, end in pairwise(borders)
                for first, found in text_lines(text, start, end, name="t")
                for at, line in _placed(first, found)
            ]
    finally:
        textfile._PIECE = piece
    assert parts == _placed(0, lines)


def _placed(first, lines):
    placed = []
    for line in lines:
        placed.append((first, line))
        first += len(line) + 1
    return placed


def test_a_last_line_that_does_not_end_is_refused(tmp_path):
    (tmp_path / "t").write_bytes(b"one\ntwo")
    with (
        SeekableText(tmp_path / "t", blocked=False) as text,
        pytest.raises(FormatError, match="t at 'two': found a line that does not end"),
    ):
        list(text_lines(text, 0, text.size, name="t"))
