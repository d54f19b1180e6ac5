"""The habits of public cohort files, each alone, then all of them together (cohort.md, 4.3)."""

from __future__ import annotations

import gzip
import logging

import numpy as np
import pysam
import pytest

from data_prep.config import DonorExpressionConfig
from seq2exp.core.errors import AssemblyError, Seq2ExpWarning
from seq2exp.dataset import format_genotypes as places
from tests.data_prep import raw
from tests.data_prep.variants import vcfs
from tests.data_prep.variants.vcfs import build, header, line

CHR1 = vcfs.genome()["chr1"]
AT = (100, 140, 180, 220)
CALLS = ["0|1", "1|1", "0|0", "1|0", "0|0"]
ALLELES = [[0, 1], [1, 1], [0, 0], [1, 0], [0, 0]]


def other(base):
    return "ACGT"[("ACGT".index(base) + 1) % 4]


def records(contig="chr1", calls=CALLS, form="GT"):
    return [line(contig, at + 1, CHR1[at], other(CHR1[at]), calls, form=form) for at in AT]


def check(dataset, alleles=ALLELES):
    assert dataset.genotypes.contigs == {"chr1": len(AT)}
    found = dataset.genotypes.alleles("chr1", 0, len(AT))
    np.testing.assert_array_equal(found, np.repeat(np.array(alleles)[:, :, None], len(AT), axis=2))


@pytest.mark.parametrize("name", ["1", "chr1", "NC_000001.11"])
def test_contig_names_are_matched_and_told_once(tmp_path, caplog, name):
    contigs = {name: raw.SIZES["chr1"]}
    with caplog.at_level(logging.INFO, logger="data_prep"):
        dataset = build(tmp_path, header(contigs=contigs) + "".join(records(name)))
    check(dataset)
    told = [record.message for record in caplog.records if "of the genome" in record.message]
    assert told == ([] if name == "chr1" else [f"v.vcf: contig {name} is chr1 of the genome"])


def test_x_coded_as_23_is_found_where_the_genome_has_no_contig_23():
    from seq2exp.variation.vcf_names import ContigNames

    names = ContigNames(["chrX", "chrY", "chrM"], ["chrX", "chrM"])
    assert [names.known(name) for name in ("23", "chr23", "24", "26", "25")] == [
        "chrX", "chrX", "chrY", "chrM", None]  # fmt: skip
    assert [names.stored(name) for name in ("X", "Y", "MT")] == ["chrX", None, "chrM"]
    assert ContigNames(["chr23", "chrX"], ["chr23"]).known("23") == "chr23"


def test_plain_gzip_is_read_though_it_cannot_be_indexed(tmp_path):
    text = header() + "".join(records())
    dataset = build(tmp_path, text, name="v.gzip")
    check(dataset)
    # Nothing is written beside the user's files.
    there = sorted(path.name for path in (tmp_path / "in").iterdir())
    assert there == ["genes.gtf.gz", "genome.fa", "labels.tsv", "signal.bw", "v.gzip"]
    with pytest.raises(OSError, match="building of index"):
        pysam.tabix_index(str(tmp_path / "in" / "v.gzip"), preset="vcf", keep_original=True)


def test_several_gzip_members_are_one_file(tmp_path):
    raw.write_raw(tmp_path / "in")
    parts = [header(), *records()]
    members = b"".join(gzip.compress(part.encode(), mtime=0) for part in parts)
    (tmp_path / "in" / "v.vcf.gz").write_bytes(members)
    check(build(tmp_path, None, name="v.vcf.gz"))


def test_undeclared_fields_and_odd_numbers_do_not_matter(tmp_path):
    more = '##FORMAT=<ID=GL,Number=.,Type=Float,Description="x">\n##INFO=<broken\n'
    calls = [f"{call}:0.9:-1,-2,-3:7" for call in CALLS]
    check(build(tmp_path, header(more=more) + "".join(records(calls=calls, form="GT:PP:GL:BD"))))


def test_repeated_contig_lines(tmp_path):
    lines = header().splitlines(keepends=True)
    repeated = [row for row in lines if row.startswith("##contig")]
    text = "".join(lines[:-1] + repeated * 2 + lines[-1:]) + "".join(records())
    check(build(tmp_path, text))


def test_a_single_dot_is_a_missing_call_and_not_ref(tmp_path):
    dataset = build(tmp_path, header() + "".join(records(calls=[".", *CALLS[1:]])))
    check(dataset, [[2, 2], *ALLELES[1:]])
    assert np.isnan(dataset.genotypes.dosage("chr1", 0, 1)[0, 0])


def test_alleles_stay_texts_and_in_their_order(tmp_path):
    """T is a base and not "true"; the more common allele may be ALT."""
    at = [i for i in range(60, 900) if CHR1[i] == "T"][:3]
    text = "".join(line("chr1", i + 1, "T", "A", ["1|1"] * 5) for i in at)
    table = build(tmp_path, header() + text).genotypes.table("chr1")
    assert table["ref"].tolist() == ["T"] * 3
    assert table["alt"].tolist() == ["A"] * 3
    assert (table["ac"] == table["an"]).all()


def test_coordinates_of_another_assembly(tmp_path):
    text = header(contigs={"1": 249_250_621}) + "".join(records("1"))
    with pytest.raises(AssemblyError, match="hg19/GRCh37"):
        build(tmp_path, text)


def geuvadis_like(folder):
    """Expression as GD660 has it: assays with suffixes, replicates, columns that are no people."""
    assays = ["HG3.1.M_111124_1", "HG1.4.M_120208_2", "HG1.7.M_120219_2", "HG9.1.M_1"]
    names = ["TargetID", "gene_symbol", "chr", "coord", *assays, "note"]
    rows = [
        ["ENSG00000000001.7", "ENSG00000000001.7", "1", "100", 3, 1, 10, 9, "ok"],
        ["ENSG00000000002.11", "ENSG00000000002.11", "1", "900", 30, 10, 100, 90, "T"],
        ["ENSG00000000009.1", "ENSG00000000009.1", "7", "900", 3, 1, 10, 9, "NA"],
    ]
    text = "\n".join("\t".join(map(str, row)) for row in [names, *rows]) + "\n"
    (folder / "e.tsv").write_text(text)
    sdrf = ["Source Name\tComment[ENA]\tComment[ENA]\tAssay Name"]
    people = ((0, "HG3"), (0, "HG3"), (2, "HG1"), (3, "HG9"))
    sdrf += [f"{person}\ta\tb\t{assays[number]}" for number, person in people]
    (folder / "sdrf.txt").write_text("\n".join(sdrf) + "\n")
    genes = [
        line_.replace('gene_id "gA"', 'gene_id "ENSG00000000001.2"').replace(
            'gene_id "gB"', 'gene_id "ENSG00000000002"'
        )
        for line_ in raw.gene_lines()
    ]
    raw.write_gtf(folder / "genes.gtf.gz", genes)
    (folder / "labels.tsv").write_text("gene_id\tcell\nENSG00000000001\t1\ngD\t2\n")


def test_all_of_them_together(tmp_path):
    raw.write_raw(tmp_path / "in")
    geuvadis_like(tmp_path / "in")
    contigs = {"1": raw.SIZES["chr1"], "2": raw.SIZES["chr2"]}
    lines = header(contigs=contigs).splitlines(keepends=True)
    repeated = [row for row in lines if row.startswith("##contig")]
    calls = ["0|1:0.9:-1", "1|1:0.8", ".", "1|0:1:2", "0|0"]
    text = "".join(lines[:-1] + repeated + lines[-1:])
    text = (text + "".join(records("1", calls, "GT:PP:BD"))).replace("\n", "\r\n")
    expression = DonorExpressionConfig(
        path="e.tsv", gene_column="targetid", unit="RPKM", map="sdrf.txt",
        map_column="Assay Name", map_donor="Source Name",
        ignore=["Gene_Symbol", "Chr", "Coord"],
    )  # fmt: skip
    with pytest.warns(Seq2ExpWarning) as caught:
        dataset = build(tmp_path, text, name="v.gzip", donors={"expression": expression})
    messages = " ".join(str(warning.message) for warning in caught)
    assert "2 of 3 donors with genotypes, and 3 donors with genotypes but not here" in messages
    assert "2 of 3 measured genes in the gene table" in messages
    assert dataset.genotypes.donors == ["HG1", "HG3"]
    check(dataset, [ALLELES[0], [2, 2]])
    values = dataset.donor_expression
    assert values.index.tolist() == ["ENSG00000000001", "ENSG00000000002"]
    assert values.to_numpy().tolist() == [[10, 3], [100, 30]]
    listed = places.left_out_path(dataset.root).read_text().splitlines()[1:]
    assert listed == [
        "HG2\tnot in e.tsv",
        "HG4\tnot in e.tsv",
        "HG5\tnot in e.tsv",
        "HG9\tno genotypes",
    ]
