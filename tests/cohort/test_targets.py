"""Targets of people: standardised by training people, ranked, and genes chosen by them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from seq2exp.cohort.config import GeneConfig
from seq2exp.cohort.genes import chosen_genes, rank_genes
from seq2exp.cohort.heritability import cis_heritability
from seq2exp.cohort.targets import cohort_targets
from seq2exp.core.errors import ConfigError, InputError
from seq2exp.dataset.store import Dataset


def test_targets_are_standardised_by_training_people_alone(cohort):
    targets = cohort.targets
    train = np.array(targets.split.donor_sets) == "train"
    z, corrected = targets.z_GD, targets.corrected_GD
    assert np.allclose(z[:, train].mean(axis=1), 0, atol=1e-5)
    assert np.allclose(z[:, train].std(axis=1), 1, atol=1e-5)
    # The others are moved and scaled by the same numbers, so they do not average to 0.
    assert (np.abs(z[:, ~train].mean(axis=1)) > 0.01).mean() > 0.8
    for gene in (0, 20):
        mean, sd = corrected[gene, train].mean(), corrected[gene, train].std()
        assert np.allclose(z[gene], (corrected[gene] - mean) / sd, atol=1e-4)
        assert targets.mean_G[gene] == pytest.approx(targets.raw_GD[gene, train].mean(), abs=1e-5)


def test_people_drawn_per_gene_standardise_that_gene_alone(people, settings):
    dataset, config = Dataset(people), settings(splits={"people": "per_gene"})
    targets = cohort_targets(dataset, config.expression, config.splits)
    train = targets.split.codes() == 0
    assert (train != train[0]).any()
    for gene in range(0, len(train), 5):
        assert targets.z_GD[gene, train[gene]].mean() == pytest.approx(0, abs=1e-5)
        raw = targets.raw_GD[gene, train[gene]].mean()
        assert targets.mean_G[gene] == pytest.approx(raw, abs=1e-5)


def test_fitted_on_all_means_all(people, settings):
    """The published way, flagged: everybody centres and scales a gene."""
    dataset, config = Dataset(people), settings(expression={"fit_on": "all"})
    targets = cohort_targets(dataset, config.expression, config.splits)
    assert np.allclose(targets.z_GD.mean(axis=1), 0, atol=1e-5)
    assert any("ALL donors" in note for note in targets.processed.notes)


def test_percentiles_are_ranks_among_training_people(cohort):
    targets = cohort.targets
    train = np.flatnonzero(np.array(targets.split.donor_sets) == "train")
    known = np.sort(targets.corrected_GD[4, train])
    for donor in (int(train[0]), int(train[5]), 39):
        value = targets.corrected_GD[4, donor]
        below, equal = (known < value).sum(), (known == value).sum()
        expected = 100 * (below + equal / 2) / len(known)
        assert targets.percentile_GD[4, donor] == pytest.approx(expected, abs=1e-3)


def test_raw_targets_are_logarithms_of_the_table(cohort):
    table = cohort.dataset.donor_expression
    genes = cohort.dataset.genes["gene_id"].astype(str)
    expected = np.log(table.reindex(genes).to_numpy() + 0.01)
    assert np.allclose(cohort.targets.raw_GD, expected, atol=1e-5)


def test_known_covariates_are_taken_out(people, settings):
    """Sex explains nothing in truth; taken out, its training means are equal."""
    config = settings()
    dataset = Dataset(people)
    plain = cohort_targets(dataset, config.expression, config.splits)
    targets = cohort_targets(dataset, config.expression, config.splits, covariates=["sex"])
    train = np.array(targets.split.donor_sets) == "train"
    male = (dataset.donors["sex"] == "male").to_numpy()

    def gap(values):
        return values[:, train & male].mean(axis=1) - values[:, train & ~male].mean(axis=1)

    assert np.abs(gap(targets.corrected_GD)).max() < 1e-5
    assert np.abs(gap(plain.corrected_GD)).max() > 0.1
    with pytest.raises(ConfigError, match="did you mean 'sex'"):
        cohort_targets(dataset, config.expression, config.splits, covariates=["sx"])


def test_genes_are_ranked_by_training_people(cohort):
    targets = cohort.targets
    train = np.flatnonzero(np.array(targets.split.donor_sets) == "train")
    rows = np.flatnonzero(np.array(targets.split.gene_sets) == "seen")
    order = rank_genes("h2", rows, targets, cohort.personal)
    h2 = []
    for gene in rows[order]:
        dosage, snv = cohort.personal.dosage(int(gene), train)
        found = cis_heritability(dosage[:, snv], targets.corrected_GD[gene, train])
        h2.append(found.h2)
    h2 = np.array(h2)
    assert (np.diff(h2[np.isfinite(h2)]) <= 1e-9).all()
    chosen = chosen_genes(GeneConfig("h2", num_seen=5, num_unseen=3), targets, cohort.personal)
    sets = np.array(targets.split.gene_sets)
    assert chosen[sets == "seen"].sum() == 5
    assert chosen[sets == "unseen"].sum() == 3
    assert chosen[sets == "valid"].all()
    assert chosen[rows[order[:5]]].all()
    # Nothing of it may come from a tested person.
    other = dataclasses.replace(targets, corrected_GD=targets.corrected_GD.copy())
    held = np.array(targets.split.donor_sets) != "train"
    other.corrected_GD[:, held] = 7.0
    again = chosen_genes(GeneConfig("h2", num_seen=5, num_unseen=3), other, cohort.personal)
    assert (again == chosen).all()


def test_dosages_are_the_copies_of_alt_in_the_window(cohort):
    dataset = cohort.dataset
    contig, tss, _ = dataset.sites[7]
    dosage, snv = cohort.personal.dosage(7, np.arange(40))
    variants = dataset.genotypes.variants(contig)
    inside = (variants.position_M >= tss - 1024) & (variants.position_M < tss + 1024)
    assert dosage.shape == (40, inside.sum()) == (40, len(snv))
    alleles = dataset.genotypes.alleles(contig, 0, len(variants))[:, :, inside]
    assert (dosage == alleles.sum(axis=1)).all()
    assert (snv == variants.is_snv_M[inside]).all()


def test_a_ranking_without_a_number_and_the_other_way_round():
    with pytest.raises(ConfigError, match=r"genes\.num_seen"):
        GeneConfig("none", num_seen=5)
    with pytest.raises(ConfigError, match="ranking"):
        GeneConfig("best")


def test_a_dataset_without_people_is_refused(toy, settings):
    config = settings()
    with pytest.raises(InputError, match=r"donors\.expression"):
        cohort_targets(Dataset(toy), config.expression, config.splits)
