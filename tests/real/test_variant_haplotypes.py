"""The phased Europeans on chromosome 20: what is compared on carriers' haplotypes, by bcftools."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pysam
import pytest

from data_prep.variants.genotype_folder import genotype_folder
from seq2exp.core.files import atomic_directory
from seq2exp.core.sequence import decode, encode
from seq2exp.dataset import format as layout
from seq2exp.dataset.format import Manifest
from seq2exp.dataset.genotypes import Genotypes
from seq2exp.dataset.store import Dataset
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.engine import open_engine
from seq2exp.variants.joint import JointScorer
from seq2exp.variants.joint_groups import JointConfig, find_items
from seq2exp.variants.judge import judge
from seq2exp.variants.source import open_source
from seq2exp.variants.views import View, open_view
from tests.variants.engines import WINDOW, Additive, run_of
from tests.variation.slow import bcftools, needs_bcftools

DATA = (
    Path(os.environ.get("SEQ2EXP_REAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
    / "human_chr20_b37"
)
VCF = DATA / "eur300_phased.vcf.gz"
SCORE = "expr_delta:cell_a"
NAMES = [*"abcdefghij"]

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}"),
    needs_bcftools,
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """The sequence, and ten genes beside common insertions and deletions."""
    root = tmp_path_factory.mktemp("chr20") / "dataset"
    with pysam.FastaFile(str(DATA / "chr20_b37.fa.gz")) as fasta:
        codes = encode(fasta.fetch("20"))
    with pysam.VariantFile(str(VCF)) as handle:
        sites = np.array(
            [r.pos for r in handle if len(r.ref) != len(r.alts[0]) and 150 < r.info["AC"][0] < 450]
        )
    tss = sites[:: len(sites) // 10][:10] + 40
    genes = pd.DataFrame(
        {"gene_id": NAMES, "symbol": NAMES, "contig": "20", "tss": tss, "strand": [*"+-"] * 5,
         "biotype": "x", "split": "train"}
    )  # fmt: skip
    labels = pd.DataFrame({"gene_id": NAMES, "cell_a": 0.0, "cell_b": 0.0})
    manifest = Manifest("GRCh37", {"20": len(codes)}, 32)
    with atomic_directory(root) as partial:
        (partial / "sequence").mkdir()
        np.save(layout.sequence_path(partial, "20"), codes)
        layout.write_table(genes, layout.genes_path(partial))
        layout.write_table(labels, layout.expression_path(partial))
        layout.write_table(
            pd.DataFrame({"contig": ["20"], "start": [0], "end": [1], "reason": "x"}),
            layout.regions_path(partial),
        )
        expression = layout.ExpressionInfo(samples=["cell_a", "cell_b"])
        layout.finish_manifest(partial, replace(manifest, expression=expression))
    return Dataset(root)


@pytest.fixture(scope="module")
def genotypes(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("calls") / "genotypes"
    info = genotype_folder(VCF, folder, dataset=dataset.root)
    assert (len(info.donors), info.contigs["20"]) == (300, 7568)
    assert info.counts["calls_heterozygous_unphased"] == 0
    return Genotypes(folder)


@pytest.fixture(scope="module")
def source(dataset):
    return open_source(VCF, dataset=dataset)


def near(dataset, source):
    """The alleles around the genes."""
    parts = [source.read(shard) for shard in source.shards]
    table = pd.concat(parts, ignore_index=True)
    tss = dataset.genes["tss"].to_numpy()
    far = np.abs(table["position"].to_numpy()[:, None] - tss).min(axis=1)
    return table[far < WINDOW // 2 + 10].reset_index(drop=True)


def test_the_sequences_compared_are_those_of_bcftools(dataset, genotypes, source, tmp_path):
    """Both of a pair: of a carrier's haplotype, with the record of the variant and without it."""
    alleles = near(dataset, source)
    judged = judge(alleles, dataset)
    names = {name: number for number, name in enumerate(genotypes.donors)}
    config = ScoreConfig(context="carriers", carriers=("HG00096", "HG00097", "HG00099"))
    checked = indels = 0
    with open_engine(run_of(dataset, Additive()), dataset, config, genotypes=genotypes) as engine:
        people = engine.contexts.people
        for gene, (contig, tss, _) in enumerate(dataset.sites):
            text = decode(dataset.contig_codes(contig)[tss - 4000 : tss + 4000])
            region = tmp_path / f"{gene}.fa"
            region.write_text(f">{contig}:{tss - 4000 + 1}-{tss + 4000}\n{text}\n")
            here = [n for n, case in enumerate(judged) if abs(case.span[0] - tss) < WINDOW // 2 - 9]
            contexts = engine.contexts.contexts(gene, [judged[n] for n in here])
            view = open_view(engine.samples, gene, View(opposite=False, shift=0))
            carriers = engine.contexts.gene(gene)
            for number in range(len(contexts)):
                haplotype = int(contexts.haplotype_C[number])
                if haplotype < 0:
                    continue
                case, row = contexts.case(number), alleles.iloc[here[contexts.row_C[number]]]
                copy = int(np.flatnonzero(carriers.haplotype_H == haplotype)[0])
                sample = genotypes.donors[people[copy // 2]]
                assert sample in names
                built = view.put([case.before, case.after]).built.codes_HL
                given = ("-s", sample, "-H", copy % 2 + 1, "-f", region)
                site = f'POS={row.position + 1} && ID="{row.id}"'
                for codes, words in zip(built, (("-e", site), ()), strict=True):
                    expected = bcftools("consensus", *given, *words, VCF)
                    expected = "".join(expected.split("\n")[1:]).upper()
                    if view.window.reverse:
                        codes = np.where(codes < 4, 3 - codes, codes)[::-1]
                    assert decode(codes) in expected
                checked += 1
                indels += any(len(a.ref) != len(a.alt) for a in case.after)
    assert checked >= 20
    assert indels >= 10


def test_everybody_on_a_small_region(dataset, genotypes, source):
    alleles = near(dataset, source)
    model = Additive()
    found = []
    for config in (ScoreConfig(), ScoreConfig(context="carriers", max_carriers=0)):
        with open_engine(run_of(dataset, model), dataset, config, genotypes=genotypes) as engine:
            found.append(engine.score(alleles))
    plain, carried = found
    counts = genotypes.table("20").set_index("id")["ac"]
    scored = carried[carried["score_status"].str.startswith("scored")]
    copies = scored["context"].str.extract(r"carriers:(\d+)")[0].fillna(0).astype(int)
    ids = alleles.set_index("record")["id"].loc[scored["record"]]
    np.testing.assert_array_equal(copies, counts.loc[ids])
    assert (copies == 0).sum() > 3
    assert (scored["num_haplotypes"] > 1).sum() > 10
    # Nothing that moves a base: what else is carried adds the same before and after.
    moved = pd.concat([plain[SCORE], carried[SCORE], carried[f"{SCORE}:haplotype_sd"]], axis=1)
    still = (carried[f"{SCORE}:haplotype_sd"] < 1e-4) | (carried["num_haplotypes"] == 0)
    assert still.sum() > 20
    assert (~still).sum() > 0
    assert moved[~still].notna().all(axis=None)


def test_whole_haplotypes_of_a_person(dataset, genotypes, source):
    joint = JointConfig(("HG00096",))
    with open_engine(run_of(dataset, Additive()), dataset, ScoreConfig()) as engine:
        items = find_items(joint, source, engine, genotypes)
        score = JointScorer(engine, items, joint, genotypes)
        table = pd.concat([score(items.read(shard)) for shard in items.shards])
    assert set(table["haplotype"]) == {"HG00096|1", "HG00096|2"}
    done = table[table["score_status"] == "scored"]
    assert len(done) >= 4
    assert (done["num_variants"] >= 1).all()
    names = [f"{SCORE}:{part}" for part in ("joint", "sum", "epistasis")]
    values = done[names].to_numpy()
    np.testing.assert_allclose(values[:, 0] - values[:, 1], values[:, 2], atol=1e-4)
