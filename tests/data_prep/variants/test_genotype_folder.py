"""Genotypes of a VCF in a folder of their own: what `prepare` stores, and who may come twice."""

from __future__ import annotations

import hashlib
import threading

import pytest

from data_prep.variants import genotype_folder as module
from data_prep.variants.genotype_folder import genotype_folder
from seq2exp.core.errors import AssemblyError, InputError
from seq2exp.dataset.genotypes import Genotypes
from tests.data_prep.variants import vcfs
from tests.data_prep.variants.test_round_trip import built


def digests(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((root / "genotypes").rglob("*.npy"))
    }


def test_it_holds_what_prepare_stores(tmp_path):
    text = vcfs.header() + "".join(vcfs.random_records(4))
    dataset = built(tmp_path / "prepared", text)
    vcf = vcfs.write_vcf(tmp_path / "v.gz", text)
    info = genotype_folder(vcf, tmp_path / "g", dataset=dataset.root)
    assert digests(tmp_path / "g") == digests(dataset.root) != {}
    assert info.contigs == dataset.genotypes.contigs
    assert Genotypes(tmp_path / "g").donors == list(vcfs.SAMPLES)
    assert info.counts["left_out duplicate_conflict"] >= 1
    assert not (tmp_path / "g" / "shards").exists()


def test_samples_and_long_alleles_can_be_left_out(tmp_path):
    text = vcfs.header() + "".join(vcfs.random_records(5))
    dataset = built(tmp_path / "prepared", text)
    vcf = vcfs.write_vcf(tmp_path / "v.vcf", text)
    some = genotype_folder(
        vcf, tmp_path / "g", dataset=dataset.root, samples=["HG4", "HG2"], max_indel=3
    )
    assert some.donors == ["HG2", "HG4"]
    assert some.counts["left_out too_long"] > 0
    ours, theirs = Genotypes(tmp_path / "g"), dataset.genotypes
    contig = next(iter(theirs.contigs))
    size = ours.contigs[contig]
    both = set(zip(*[ours.table(contig)[name] for name in ("position", "ref", "alt")], strict=True))
    rows = theirs.table(contig)
    keys = list(zip(*[rows[name] for name in ("position", "ref", "alt")], strict=True))
    kept = [number for number, key in enumerate(keys) if key in both]
    assert len(kept) == size < len(keys)
    alleles = theirs.alleles(contig, 0, len(keys))[[1, 3]][:, :, kept]
    assert (ours.alleles(contig, 0, size) == alleles).all()


def test_it_is_made_once_and_waited_for(tmp_path, monkeypatch):
    text = vcfs.header() + "".join(vcfs.random_records(6))
    dataset = built(tmp_path / "prepared", text)
    vcf = vcfs.write_vcf(tmp_path / "v.vcf", text)
    calls, original = [], module.read_genotypes

    def counted(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(module, "read_genotypes", counted)
    monkeypatch.setattr(module, "_WAIT_S", 0.01)
    work = [
        threading.Thread(
            target=genotype_folder, args=(vcf, tmp_path / "g"), kwargs={"dataset": dataset.root}
        )
        for _ in range(3)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(calls) == 1
    before = digests(tmp_path / "g")
    genotype_folder(vcf, tmp_path / "g", dataset=dataset.root)
    assert len(calls) == 1
    assert digests(tmp_path / "g") == before


def test_what_has_no_genotypes_of_this_genome_is_refused(tmp_path):
    text = vcfs.header() + "".join(vcfs.random_records(7))
    dataset = built(tmp_path / "prepared", text)
    contig = next(iter(dataset.manifest.contigs))
    bare = vcfs.write_vcf(
        tmp_path / "bare.vcf",
        f"##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
        f"{contig}\t100\t.\tA\tC\t.\t.\t.\n",
    )
    with pytest.raises(InputError, match="sample"):
        genotype_folder(bare, tmp_path / "a", dataset=dataset.root)
    vcf = vcfs.write_vcf(tmp_path / "v.vcf", text)
    with pytest.raises(InputError, match="bcftools query -l"):
        genotype_folder(vcf, tmp_path / "b", dataset=dataset.root, samples=["nobody"])
    size = dataset.manifest.contigs[contig]
    other = vcfs.write_vcf(
        tmp_path / "other.vcf", text.replace(f"length={size}", f"length={size + 7}", 1)
    )
    with pytest.raises(AssemblyError):
        genotype_folder(other, tmp_path / "c", dataset=dataset.root)
    left = [path.name for path in tmp_path.iterdir() if path.is_dir()]
    assert sorted(left) == ["prepared"]
