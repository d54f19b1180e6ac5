"""Simulated donors: neutral theory, the grammar behind their expression, and their files."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib

import numpy as np
import pandas as pd
import pysam
import pytest

from data_prep.simulate import Edit, SimulationConfig, evaluate, expression_of, load_world, simulate
from data_prep.simulate.donor_config import DonorConfig
from data_prep.simulate.donor_truth import variant_effects
from data_prep.simulate.donor_variants import plant
from data_prep.simulate.donors import POPULATIONS, simulate_donors
from data_prep.simulate.population import draw_genealogy, mosaic, stretches
from seq2exp.core.errors import ConfigError
from seq2exp.core.sequence import decode, encode
from seq2exp.variation.alleles import normalise

DONORS = DonorConfig(num_donors=30, num_second=10, founders=20, indel_share=0.3)


@pytest.fixture(scope="module")
def config(small_config):
    return dataclasses.replace(small_config, donors=DONORS)


@pytest.fixture(scope="module")
def cohort(world, state, config):
    return simulate_donors(world, state, config)


@pytest.fixture(scope="module")
def written(tmp_path_factory, config):
    return simulate(config, tmp_path_factory.mktemp("donors") / "set").out


def test_a_genealogy_has_the_lengths_of_the_coalescent():
    """E[total length] = 2 sum 1/i, E[branches over i leaves] = 2/i (units of 2N generations)."""
    random, size, repeats = np.random.default_rng(1), 12, 600
    totals, spectrum = [], np.zeros(size + 1)
    for _ in range(repeats):
        tree = draw_genealogy((size, 0), 0.1, random)
        assert tree.carriers_BF.shape == (2 * size - 2, size)
        totals.append(tree.length_B.sum())
        np.add.at(spectrum, tree.carriers_BF.sum(axis=1), tree.length_B / repeats)
    harmonic = sum(1 / i for i in range(1, size))
    assert np.mean(totals) == pytest.approx(2 * harmonic, rel=0.06)
    expected = 2 / np.arange(1, size)
    assert np.allclose(spectrum[1:size], expected, rtol=0.25, atol=0.05)


def test_lineages_of_two_populations_join_only_before_the_split():
    random = np.random.default_rng(2)
    for _ in range(50):
        tree = draw_genealogy((4, 3), 5.0, random)
        mixed = tree.carriers_BF[:, :4].any(axis=1) & tree.carriers_BF[:, 4:].any(axis=1)
        # The root has no branch, and each side goes back to the split at least.
        whole = tree.carriers_BF[:, :4].all(axis=1) & ~tree.carriers_BF[:, 4:].any(axis=1)
        assert not mixed.any() or tree.length_B[whole].size
        depth = sum(tree.length_B[tree.carriers_BF[:, 0]])
        assert depth >= 5.0 - 1e-9


def test_stretches_cover_the_contig_once():
    edges = stretches(100_000, 2_000, np.random.default_rng(3))
    assert edges[0] == 0
    assert edges[-1] == 100_000
    assert (np.diff(edges) > 0).all()
    assert np.diff(edges).mean() == pytest.approx(2_000, rel=0.4)


def test_a_mosaic_copies_whole_pieces_of_its_founders():
    carried = np.eye(6, dtype=bool)[np.arange(60) // 10]  # founder f alone has variants of decade f
    position = np.arange(60) * 100
    rows = mosaic(
        carried.T.repeat(1, axis=0).T,
        position,
        np.array([2, 4]),
        200,
        switch_bp=1e12,
        random=np.random.default_rng(4),
    )
    for row in rows:
        assert (row == carried[:, 2]).all() or (row == carried[:, 4]).all()


def test_diversity_is_what_was_asked_for():
    base = SimulationConfig(
        seed=5, num_contigs=1, min_contig_length=400_000, max_contig_length=400_000
    )
    asked = DonorConfig(num_donors=60, founders=40, causal_per_gene=0.0, diversity=2e-3)
    config = dataclasses.replace(base, donors=asked)
    from data_prep.simulate.build import build_world

    world = build_world(config).world
    cohort = simulate_donors(world, evaluate(world), config)
    share = cohort.alleles["chr1"].mean(axis=0)
    known = (world.genome["chr1"] < 4).sum()
    assert (2 * share * (1 - share)).sum() / known == pytest.approx(2e-3, rel=0.2)
    assert (cohort.variants["chr1"].planted_M == -1).all()


def edits_of(cohort, haplotype):
    for chrom, found in cohort.variants.items():
        for index in np.flatnonzero(cohort.alleles[chrom][haplotype]):
            yield edit_of(chrom, *found.alleles[index])


def edit_of(chrom, position, ref, alt):
    """Return the edit without the shared first base: an anchor at a border changes nothing."""
    shared = int(len(ref) != len(alt))
    return Edit(chrom, position + shared, position + len(ref), encode(alt[shared:]))


def test_expression_follows_from_both_haplotypes(world, state, cohort):
    """Against the grammar applied to each haplotype's edits as a whole."""
    for donor in (0, 17, 39):
        alleles = [
            expression_of(world, list(edits_of(cohort, 2 * donor + side)), reference=state)[:, 0]
            for side in (0, 1)
        ]
        expected = np.log(np.exp(alleles).mean(axis=0))
        assert np.allclose(cohort.genetic_GD[:, donor], expected, atol=1e-6)


def test_alleles_fit_the_genome_and_keep_apart(world, cohort):
    indels = 0
    for chrom, found in cohort.variants.items():
        end = -1
        for allele in found.alleles:
            last = allele.position + len(allele.ref)
            assert decode(world.genome[chrom][allele.position : last]) == allele.ref
            assert normalise(allele, world.genome[chrom]) == allele
            assert allele.position > end
            end = last
            indels += len(allele.ref) != len(allele.alt)
    assert indels > 100


def test_planted_variants_are_common_and_move_their_gene(world, state, cohort, config):
    effects = variant_effects(world, state, cohort.variants)
    planted = effects[effects["planted"]]
    snv = (planted["ref"].str.len() == 1) & (planted["alt"].str.len() == 1)
    assert len(planted) > 20
    assert (planted["effect"][snv].abs() >= DONORS.causal_effect - 1e-6).all()
    assert (planted["effect"] > 0).any()
    assert (planted["effect"] < 0).any()
    for chrom, found in cohort.variants.items():
        chosen = found.planted_M >= 0
        share = found.carried_MF[chosen].mean(axis=1)
        assert (np.minimum(share, 1 - share) >= DONORS.causal_frequency).all(), chrom
    every = plant(world, state, config.donors, np.random.default_rng(0))
    assert len(every) / len(world.genes) == pytest.approx(DONORS.causal_per_gene, rel=0.3)


def test_effects_are_those_of_the_variant_alone(world, state, cohort):
    effects = variant_effects(world, state, cohort.variants)
    row_of = {gene: row for row, gene in enumerate(world.genes["gene_id"])}
    long = effects["ref"].str.len() + effects["alt"].str.len() > 2
    some = pd.concat([effects[long].head(25), effects[~long].head(25)])
    for chrom, position, ref, alt, gene, _, effect in some.itertuples(index=False):
        edits = [edit_of(chrom, position, ref, alt)]
        value = expression_of(world, edits, reference=state) - state.expression
        assert value[row_of[gene], 0] == pytest.approx(effect, abs=1e-6)


def test_heritability_is_what_was_asked_for(cohort):
    first = (cohort.donors["population"] == POPULATIONS[0]).to_numpy()
    variance = cohort.genetic_GD[:, first].var(axis=1)
    varies = variance > 1e-4
    assert varies.sum() > 20
    assert np.allclose(cohort.heritability_G[varies], DONORS.heritability)
    left = variance + cohort.noise_sd_G**2
    assert np.allclose(variance / left, cohort.heritability_G)
    hidden_and_noise = (cohort.observed_GD - cohort.genetic_GD).var(axis=1)
    expected = left / (1 - DONORS.factor_share) - variance
    assert np.median(hidden_and_noise / expected) == pytest.approx(1, abs=0.25)


def test_without_heritability_nothing_is_genetic(world, state, config):
    donors = dataclasses.replace(DONORS, heritability=0.0)
    none = simulate_donors(world, state, dataclasses.replace(config, donors=donors))
    assert (none.genetic_GD.std(axis=1) < 1e-9).all()
    assert (none.heritability_G < 1e-12).all()
    assert (none.observed_GD.std(axis=1) > 0.05).all()


def test_files_hold_what_was_drawn(cohort, written):
    donors = pd.read_csv(written / "cohort" / "donors.tsv", sep="\t")
    assert donors["population"].value_counts().to_dict() == {"SIM1": 30, "SIM2": 10}
    table = pd.read_csv(written / "cohort" / "expression.tsv.gz", sep="\t").set_index("gene_id")
    assert np.allclose(np.log(table[donors["donor"]]), cohort.observed_GD, atol=2e-3)
    with pysam.VariantFile(str(written / "cohort" / "genotypes.vcf.gz")) as vcf:
        assert list(vcf.header.samples) == donors["donor"].tolist()
        for chrom, found in cohort.variants.items():
            for index, record in enumerate(vcf.fetch(chrom)):
                allele = found.alleles[index]
                assert (record.start, record.ref, record.alts) == (
                    allele.position,
                    allele.ref,
                    (allele.alt,),
                )
                calls = [record.samples[name] for name in donors["donor"]]
                assert all(call.phased for call in calls)
                pairs = np.array([call["GT"] for call in calls]).ravel()
                assert (pairs == cohort.alleles[chrom][:, index]).all()
                assert record.info["AC"] == (pairs.sum(),)


def test_donors_move_no_base_of_the_genome(written, folder):
    for name in ("genome.fa", "genes.gtf.gz", "expression.tsv", "tracks/blood.DNase.bw"):
        ours, plain = (hashlib.sha256((p / name).read_bytes()) for p in (written, folder))
        assert ours.hexdigest() == plain.hexdigest()
    assert not (folder / "cohort").exists()
    assert load_world(written).config.donors == DONORS


def test_the_same_seed_gives_the_same_bytes(written, config, tmp_path):
    again = simulate(config, tmp_path / "again").out
    names = ["cohort/genotypes.vcf.gz", "cohort/expression.tsv.gz", "truth/donor_variants.tsv.gz"]
    for name in names:
        assert (written / name).read_bytes() == (again / name).read_bytes()


def test_traps_of_public_files(config, tmp_path):
    donors = dataclasses.replace(DONORS, traps=True, num_donors=100)
    small = dataclasses.replace(
        config, donors=donors, num_contigs=1, min_contig_length=150_000, max_contig_length=160_000
    )
    place = simulate(small, tmp_path / "set").out / "cohort"
    raw = (place / "genotypes.vcf.gz").read_bytes()
    assert raw[:4] == b"\x1f\x8b\x08\x00"  # gzip without the extra field of BGZF
    assert not list(place.glob("*.tbi"))
    text = gzip.decompress(raw).decode()
    assert "##contig=<ID=1," in text
    assert "ID=PP" not in text
    assert "\t.\t" in text.splitlines()[-1]
    table = pd.read_csv(place / "expression.tsv.gz", sep="\t")
    assert table["TargetID"].str.contains(r"\.\d$").all()
    assert table.columns[2].startswith("D0001.")
    assert table.shape[1] == 2 + 110 + 1 + 1


@pytest.mark.parametrize(
    ("key", "value"),
    [("heritability", 1.0), ("founders", 2), ("diversity", 0.0), ("num_donors", -1)],
)
def test_values_that_mean_nothing_are_refused(key, value):
    with pytest.raises(ConfigError, match=f"donors.{key}"):
        DonorConfig(**{key: value})
