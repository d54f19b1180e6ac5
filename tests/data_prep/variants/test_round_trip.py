"""VCF to dataset to reader, compared with a slow reader on random files."""

from __future__ import annotations

import hashlib
import warnings

import numpy as np
import pytest

from data_prep.variants import plan
from seq2exp.core.errors import Seq2ExpWarning
from seq2exp.dataset import format_genotypes as places
from tests.data_prep.variants import vcfs


def built(folder, text, **keys):
    with warnings.catch_warnings():
        # Two random alleles may be equal in their normal form, with other genotypes.
        warnings.simplefilter("ignore")
        return vcfs.build(folder, text, on_unsupported="skip", **keys)


def compare(dataset, text, chosen=vcfs.SAMPLES):
    reader = dataset.genotypes
    expected = vcfs.slow_read(text, chosen)
    assert reader.donors == list(chosen)
    assert reader.contigs == {contig: len(rows) for contig, rows in expected.items()}
    for contig, rows in expected.items():
        size = len(rows)
        variants, table = reader.variants(contig), reader.table(contig)
        assert variants.position_M.tolist() == [row[0] for row in rows]
        assert variants.ref_length_M.tolist() == [len(row[1]) for row in rows]
        assert [variants.alt(i) for i in range(size)] == [row[2] for row in rows]
        assert table["ref"].tolist() == [row[1] for row in rows]
        assert table["alt"].tolist() == [row[2] for row in rows]
        alleles = np.array([[call[0] for call in row[3]] for row in rows])
        np.testing.assert_array_equal(reader.alleles(contig, 0, size), np.moveaxis(alleles, 0, -1))
        unphased = np.array([[call[1] for call in row[3]] for row in rows]).T
        np.testing.assert_array_equal(reader.unphased(contig, 0, size), unphased)
        sets = np.array([[call[2] for call in row[3]] for row in rows]).T
        np.testing.assert_array_equal(reader.phase_sets(contig, 0, size), sets)


def digest(root):
    """Checksums of what the input alone decides: not the manifest, which names the input file."""
    paths = [p for p in sorted(root.rglob("*")) if p.is_file() and p.name != "manifest.json"]
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["v.vcf", "v.gz", "v.gzip"])
def test_a_random_vcf_is_read_as_the_slow_reader_reads_it(tmp_path, seed, name):
    text = vcfs.header() + "".join(vcfs.random_records(seed))
    compare(built(tmp_path, text, name=name), text)


def test_a_bcf_is_read_as_its_text(tmp_path):
    text = vcfs.header() + "".join(vcfs.random_records(5))
    compare(built(tmp_path, text, name="v.bcf"), text)


def test_bytes_depend_neither_on_format_nor_parts_nor_workers(tmp_path, monkeypatch):
    text = vcfs.header() + "".join(vcfs.random_records(8))
    built(tmp_path, text)
    whole = digest(tmp_path / "out")
    for number, (part, name) in enumerate(
        [(1000, "v.gz"), (97, "v.vcf"), (5000, "v.gzip"), (10**6, "v.gz")]
    ):
        monkeypatch.setattr(plan, "PART_BYTES", part)
        built(tmp_path, text, name=name, out=f"out{number}")
        assert digest(tmp_path / f"out{number}") == whole
    monkeypatch.setattr(plan, "PART_BYTES", 20_000)
    built(tmp_path, text, out="one", workers=1)
    built(tmp_path, text, out="two", workers=2)
    assert digest(tmp_path / "one") == digest(tmp_path / "two") == whole
    manifests = [(tmp_path / out / "manifest.json").read_bytes() for out in ("out", "one", "two")]
    assert len(set(manifests)) == 1


def test_subsets_of_samples_are_kept_in_the_order_of_the_file(tmp_path):
    text = vcfs.header() + "".join(vcfs.random_records(2))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "keep.txt").write_text("HG4\nHG2\n")
    dataset = built(tmp_path, text, include=["keep.txt", "HG5"], exclude=["HG2"])
    compare(dataset, text, ("HG4", "HG5"))
    listed = places.left_out_path(dataset.root).read_text().splitlines()
    assert listed == ["donor\treason"] + [
        f"{name}\texcluded by the configuration" for name in ("HG1", "HG2", "HG3")
    ]


def test_files_of_contigs_give_what_one_file_gives(tmp_path):
    records = vcfs.random_records(3)
    text = vcfs.header() + "".join(records)
    built(tmp_path, text)
    for contig, alias in (("chr1", "1"), ("chr2", "chr2"), ("chr3", "3")):
        here = [row.replace(contig, alias, 1) for row in records if row.startswith(contig + "\t")]
        sizes = {alias: vcfs.raw.SIZES[contig]}
        vcfs.write_vcf(
            tmp_path / "in" / f"part.{alias}.vcf", vcfs.header(contigs=sizes) + "".join(here)
        )
    vcfs.write_vcf(tmp_path / "in" / "part.chr9.vcf", "not a VCF, and of no stored contig\n")
    dataset = built(tmp_path, None, name="part.{contig}.vcf", out="parts")
    compare(dataset, text)
    same = digest(tmp_path / "out")
    for path, checksum in digest(tmp_path / "parts").items():
        # The table says of which file a record is.
        assert checksum == same[path] or path.endswith(("variants.parquet", "rejects.tsv"))


def test_two_files_of_one_contig_are_put_in_order(tmp_path):
    records = vcfs.random_records(4)
    (tmp_path / "in").mkdir()
    vcfs.write_vcf(tmp_path / "in" / "a.vcf", vcfs.header() + "".join(records[::2]))
    vcfs.write_vcf(tmp_path / "in" / "b.gz", vcfs.header() + "".join(records[1::2]))
    dataset = built(tmp_path, None, vcf=["a.vcf", "b.gz"])
    compare(dataset, vcfs.header() + "".join([*records[::2], *records[1::2]]))
    files = dataset.genotypes.table("chr1")["file"]
    assert set(files) == {0, 1}


def test_samples_in_another_order_or_missing_from_a_file(tmp_path):
    base = vcfs.genome()["chr1"]
    rows = [(at, base[at], "ACGT"["TGCA".index(base[at])]) for at in (100, 300)]
    (tmp_path / "in").mkdir()
    for name, samples, (at, ref, alt), calls in (
        ("a.vcf", ("x", "y", "z"), rows[0], ["0|1", "1|1", "0|0"]),
        ("b.vcf", ("w", "z", "x"), rows[1], ["1|1", "1|0", "0|0"]),
    ):
        text = vcfs.header(samples) + vcfs.line("chr1", at + 1, ref, alt, calls)
        vcfs.write_vcf(tmp_path / "in" / name, text)
    with pytest.warns(
        Seq2ExpWarning, match="donors that not every file has.*2 in all; first: y, w"
    ):
        dataset = vcfs.build(tmp_path, None, vcf=["a.vcf", "b.vcf"])
    assert dataset.genotypes.donors == ["x", "z"]
    assert dataset.genotypes.alleles("chr1", 0, 2).tolist() == [
        [[0, 0], [1, 0]],
        [[0, 1], [0, 0]],
    ]
    assert places.left_out_path(dataset.root).read_text() == (
        "donor\treason\nw\tno sample of a.vcf\ny\tno sample of b.vcf\n"
    )


def test_many_variants_fill_several_blocks(tmp_path, monkeypatch):
    """All 12 changes of one or two bases at 1,500 positions, in parts that end inside blocks."""
    monkeypatch.setattr(plan, "PART_BYTES", 100_000)
    random = np.random.default_rng(0)
    sequence = vcfs.genome()["chr1"]
    alleles = []
    for at in range(60, 1560):
        first, second = ["ACGT".replace(base, "") for base in sequence[at : at + 2]]
        alleles += [(at, sequence[at], alt) for alt in first]
        alleles += [(at, sequence[at : at + 2], a + b) for a in first for b in second]
    haplotypes = random.integers(0, 2, (len(alleles), 10))
    rows = [
        vcfs.line("chr1", at + 1, ref, alt, [f"{a}|{b}" for a, b in calls.reshape(5, 2)])
        for (at, ref, alt), calls in zip(alleles, haplotypes, strict=True)
    ]
    dataset = vcfs.build(tmp_path, vcfs.header() + "".join(rows))
    reader = dataset.genotypes
    assert reader.contigs == {"chr1": 18_000}
    assert len(rows) > 2 * places.BLOCK
    expected = haplotypes.T.reshape(5, 2, -1)
    np.testing.assert_array_equal(reader.alleles("chr1", 0, len(rows)), expected)
    np.testing.assert_array_equal(
        reader.alleles("chr1", 8000, 17_000, np.array([4, 1])), expected[[4, 1], :, 8000:17_000]
    )
    assert reader.unphased("chr1", 0, 9) is None
    table = reader.table("chr1")
    assert table["ac"].tolist() == haplotypes.sum(axis=1).tolist()
    assert set(table["an"]) == {10}
    assert table["record"].tolist() == list(range(len(rows)))
    assert table["position"].tolist() == reader.variants("chr1").position_M.tolist()
