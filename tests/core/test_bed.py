from __future__ import annotations

import gzip

import pandas as pd
import pysam
import pytest

from seq2exp.core.bed import read_bed, write_bed
from seq2exp.core.errors import FormatError, InputError

FRAME = pd.DataFrame(
    {
        "chrom": ["b", "a", "a"],
        "start": [5, 30, 2],
        "end": [9, 40, 7],
        "name": ["x", "y", "z"],
    }
)


def test_written_intervals_are_sorted_and_read_back(tmp_path):
    write_bed(FRAME, tmp_path / "x.bed")
    frame = read_bed(tmp_path / "x.bed")
    assert frame["name"].tolist() == ["z", "y", "x"]
    assert frame.loc[0, ["chrom", "start", "end"]].tolist() == ["a", 2, 7]


def test_a_gz_name_gives_bgzip_and_tabix(tmp_path):
    write_bed(FRAME, tmp_path / "x.bed.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.bed.gz", "x.bed.gz.tbi"]
    with pysam.TabixFile(str(tmp_path / "x.bed.gz")) as handle:
        assert [row.split("\t")[3] for row in handle.fetch("a", 0, 10)] == ["z"]
    assert read_bed(tmp_path / "x.bed.gz")["start"].tolist() == [2, 30, 5]


def test_headers_are_skipped_and_spaces_accepted(tmp_path):
    (tmp_path / "x.bed").write_text("track name=x\n#c\nbrowser y\n\nchr1 1 5\n")
    assert read_bed(tmp_path / "x.bed").values.tolist() == [["chr1", 1, 5]]


@pytest.mark.parametrize("line", ["chr1\t5\t5", "chr1\t-1\t5", "chr1\tx\t5", "chr1\t5"])
def test_a_bad_line_is_named_by_number(tmp_path, line):
    (tmp_path / "x.bed").write_text(f"chr1\t1\t2\n{line}\n")
    with pytest.raises(FormatError, match="line 2"):
        read_bed(tmp_path / "x.bed")


def test_missing_and_truncated_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_bed(tmp_path / "none.bed")
    whole = gzip.compress(b"chr1\t1\t2\n" * 100)
    (tmp_path / "x.bed.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match="restore"):
        read_bed(tmp_path / "x.bed.gz")


def test_a_cell_cannot_leave_its_line(tmp_path):
    names = ["a\tb", "c\nd", 'e"f', "=g,h"]
    frame = pd.DataFrame({"chrom": "c", "start": range(4), "end": range(1, 5), "name": names})
    write_bed(frame, tmp_path / "x.bed")
    lines = (tmp_path / "x.bed").read_text().splitlines()
    assert [line.split("\t")[3] for line in lines] == ["a_b", "c_d", "e_f", "=g,h"]
    assert {len(line.split("\t")) for line in lines} == {4}
