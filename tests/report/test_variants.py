from __future__ import annotations

import pysam
import pytest

from seq2exp.core.errors import AssemblyError, FormatError, InputError
from seq2exp.core.intervals import Window
from seq2exp.core.sequence import decode
from seq2exp.dataset.store import Dataset
from seq2exp.report import variants
from seq2exp.report.annotation import read_exons
from seq2exp.report.variants import read_variants

REGIONS = [("chr3", 1000, 3000), ("chr3", 2500, 4000), ("chr1", 0, 500)]
OTHER = {"A": "C", "C": "G", "G": "T", "T": "A", "N": "A"}


def base(dataset, contig, position):
    window = Window(contig, position, position + 1, "+", dataset.manifest.contigs[contig])
    return decode(dataset.codes(window))


def write_vcf(path, dataset, places, *, rename=str, wrong=False, lengths=None):
    """Write SNVs at 0-based places; ``wrong`` gives them another reference base."""
    sizes = lengths or dataset.manifest.contigs
    lines = ["##fileformat=VCFv4.2"]
    lines += [f"##contig=<ID={rename(name)},length={size}>" for name, size in sizes.items()]
    lines.append("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO")
    for contig, position in sorted(places):
        own = base(dataset, contig, position)
        ref = OTHER[own] if wrong else own
        alt = OTHER[ref]
        lines.append(f"{rename(contig)}\t{position + 1}\trs{position}\t{ref}\t{alt}\t.\t.\t.")
    path.write_text("\n".join(lines) + "\n")
    return path


PLACES = [
    ("chr3", 999),
    ("chr3", 1000),
    ("chr3", 2600),
    ("chr3", 2999),
    ("chr3", 3000),
    ("chr1", 4),
]


@pytest.mark.parametrize("kind", ["plain", "indexed", "bcf"])
def test_variants_of_regions_are_half_open(tmp_path, dataset, kind):
    path = write_vcf(tmp_path / "v.vcf", dataset, PLACES)
    if kind == "indexed":
        path = type(path)(pysam.tabix_index(str(path), preset="vcf", force=True))
    if kind == "bcf":
        with pysam.VariantFile(str(path)) as source:
            path = tmp_path / "v.bcf"
            with pysam.VariantFile(str(path), "wb", header=source.header) as target:
                for record in source:
                    target.write(record)
    found, left_out = read_variants(path, dataset, REGIONS)
    assert [[v[0] for v in region] for region in found] == [
        [1000, 2600, 2999],
        [2600, 2999, 3000],
        [4],
    ]
    assert left_out == 0
    position, name, ref, alt = found[0][1]
    assert (name, ref, alt) == (f"rs{position}", base(dataset, "chr3", position), OTHER[ref])


@pytest.mark.parametrize("indexed", [False, True])
def test_contig_aliases_are_understood(tmp_path, dataset, indexed):
    path = write_vcf(tmp_path / "v.vcf", dataset, PLACES, rename=lambda n: n.removeprefix("chr"))
    if indexed:
        path = pysam.tabix_index(str(path), preset="vcf", force=True)
    found, _ = read_variants(path, dataset, REGIONS)
    assert [len(region) for region in found] == [3, 3, 1]


def test_lengths_of_another_assembly_are_refused(tmp_path, dataset):
    lengths = {name: size + 10 for name, size in dataset.manifest.contigs.items()}
    path = write_vcf(tmp_path / "v.vcf", dataset, PLACES, lengths=lengths)
    with pytest.raises(AssemblyError, match="another assembly"):
        read_variants(path, dataset, REGIONS)


def test_reference_alleles_of_another_assembly_are_refused(tmp_path, dataset):
    """The header may say nothing or the same lengths; the bases do not."""
    path = write_vcf(tmp_path / "v.vcf", dataset, PLACES, wrong=True)
    with pytest.raises(AssemblyError, match=r"7 in all.*chr3:1,001"):
        read_variants(path, dataset, REGIONS)


def test_names_of_another_organism_are_refused(tmp_path, dataset):
    path = write_vcf(tmp_path / "v.vcf", dataset, PLACES, rename=lambda n: f"scaffold_{n}_x")
    with pytest.raises(InputError, match="under any of its aliases"):
        read_variants(path, dataset, REGIONS)


def test_broken_files_are_refused(tmp_path, dataset):
    with pytest.raises(InputError, match="no such file"):
        read_variants(tmp_path / "none.vcf", dataset, REGIONS)
    (tmp_path / "text.vcf").write_text("chr3\t5\tA\tC\n")
    with pytest.raises(FormatError, match="expected a VCF or BCF"):
        read_variants(tmp_path / "text.vcf", dataset, REGIONS)


def test_of_many_variants_some_are_kept_and_the_rest_is_counted(tmp_path, dataset, monkeypatch):
    monkeypatch.setattr(variants, "MAX_VARIANTS", 10)
    places = [("chr3", position) for position in range(1100, 1200)]
    path = write_vcf(tmp_path / "v.vcf", dataset, places)
    found, left_out = read_variants(path, dataset, [("chr3", 1000, 2000), ("chr3", 1100, 1105)])
    assert [v[0] for v in found[0]] == list(range(1100, 1200, 11))
    assert len(found[1]) == 5
    assert left_out == 90


# Exons ------------------------------------------------------------------------------------------


def write_gtf(path, rows):
    lines = ["#!genome toy"]
    for contig, feature, start, end, gene in rows:
        lines.append(f'{contig}\tx\t{feature}\t{start}\t{end}\t.\t+\t.\tgene_id "{gene}"; x "y";')
    path.write_text("\n".join(lines) + "\n")
    return path


def test_exons_are_joined_over_transcripts(tmp_path, dataset):
    rows = [("3", "exon", 11, 20, "chr3_g0"), ("3", "exon", 15, 30, "chr3_g0"),
            ("chr3", "exon", 41, 50, "chr3_g0"), ("chr3", "CDS", 60, 70, "chr3_g0"),
            ("chr9", "exon", 1, 5, "unknown"), ("chr1", "exon", 1, 5, "chr1_g0")]  # fmt: skip
    found = read_exons(write_gtf(tmp_path / "a.gtf", rows), dataset, ["chr3_g0", "chr3_g1"])
    assert found == {"chr3_g0": [(10, 30), (40, 50)]}


def test_an_annotation_without_exons_shows_transcripts(tmp_path, dataset):
    rows = [("chr3", "gene", 5, 90, "chr3_g0"), ("chr3", "transcript", 11, 80, "chr3_g0")]
    found = read_exons(write_gtf(tmp_path / "a.gtf", rows), dataset, ["chr3_g0"])
    assert found == {"chr3_g0": [(10, 80)]}
    # Genes that have exons are shown with them alone.
    rows += [("chr3", "exon", 21, 30, "chr3_g0")]
    found = read_exons(write_gtf(tmp_path / "b.gtf", rows), dataset, ["chr3_g0"])
    assert found == {"chr3_g0": [(20, 30)]}


def test_the_two_copies_of_a_pseudoautosomal_gene_are_kept_apart(tmp_path, dataset):
    gene, dataset = "ENSG00000182378", Dataset(dataset.root)
    copies = {"chr1": gene, "chr3": f"{gene}_PAR_Y"}
    for contig, name in copies.items():
        first = dataset.genes.index[dataset.genes["contig"] == contig][0]
        dataset.genes.loc[first, "gene_id"] = name
    rows = [("chr1", "exon", 11, 20, f"{gene}.15"), ("chr3", "exon", 31, 40, f"{gene}.15_PAR_Y")]
    found = read_exons(write_gtf(tmp_path / "a.gtf", rows), dataset, list(copies.values()))
    assert found == {gene: [(10, 20)], f"{gene}_PAR_Y": [(30, 40)]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("chr1", "exon", 1, 5, "chr3_g0"), "chr1:1-5 of chr3_g0 on chr3"),
        (("chr3", "exon", 1, 99_999, "chr3_g0"), "1-99,999 of chr3_g0"),
        (("chr3", "exon", 1, 5, "other"), "no exon, transcript or gene line"),
    ],
)
def test_an_annotation_of_something_else_is_refused(tmp_path, dataset, row, message):
    path = write_gtf(tmp_path / "a.gtf", [row])
    with pytest.raises((InputError, FormatError), match=message):
        read_exons(path, dataset, ["chr3_g0"])


def test_a_damaged_annotation_is_refused(tmp_path, dataset):
    (tmp_path / "a.gtf.gz").write_bytes(b"\x1f\x8b\x08\x00broken")
    with pytest.raises(FormatError, match="GTF text"):
        read_exons(tmp_path / "a.gtf.gz", dataset, ["chr3_g0"])
    with pytest.raises(InputError, match="no such file"):
        read_exons(tmp_path / "none.gtf", dataset, ["chr3_g0"])
