"""FASTA: the same bases whatever the wrapping, compression, case and line ends."""

from __future__ import annotations

import pysam
import pytest

from data_prep.genome import index_problem, open_genome, read_contig
from seq2exp.core.sequence import decode
from seq2exp.core.textfile import open_fasta
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


def test_index_of_a_shifted_record_is_seen(tmp_path):
    from data_prep.genome import _read_index

    path = raw.write_fasta(tmp_path / "g.fa", raw.sequences())
    pysam.faidx(str(path))
    rows = _read_index(tmp_path / "g.fa.fai")
    with open_fasta(path) as text:
        assert index_problem(rows, text) == ""
        assert index_problem(rows[:2], text) == "sequence that the index leaves out"
        assert index_problem([], text) == "sequence that the index leaves out"
