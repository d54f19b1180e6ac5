"""What training, validation and the sequences are given: people, genes, policies, shifts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

import seq2exp.cohort.personal as personal_module
from seq2exp.cohort import module
from seq2exp.cohort.genes import rank_genes
from seq2exp.cohort.groups import GroupConfig, GroupPlan
from seq2exp.cohort.heritability import cis_heritability
from seq2exp.cohort.personal import PersonalGenes
from seq2exp.cohort.predict import open_cohort_run, predict_people
from seq2exp.cohort.samples import TrainingGroups, collate_groups, make_sample
from seq2exp.cohort.train import CohortData, open_cohort, train_cohort, untrained_run
from seq2exp.core.errors import InputError
from seq2exp.dataset.store import Dataset
from seq2exp.variation.policies import GenotypePolicy


def sets_of(cohort):
    return np.array(cohort.targets.split.donor_sets), np.array(cohort.targets.split.gene_sets)


def test_the_epoch_is_chosen_by_validation_people_and_genes_alone(cohort):
    people, genes = sets_of(cohort)
    valid = CohortData(cohort, seed=0).valid
    samples = [valid[item] for item in range(len(valid))]
    seen = [one for one in samples if not one.unseen]
    unseen = [one for one in samples if one.unseen]
    assert {people[number] for one in seen for number in one.people} == {"valid"}
    assert {genes[one.gene] for one in seen} == {"seen"}
    assert {genes[one.gene] for one in unseen} == {"valid"}
    assert all(len(one.people) == 0 for one in unseen)


def test_levels_of_unseen_genes_do_not_reach_a_new_model(cohort, monkeypatch):
    _, genes = sets_of(cohort)
    mean = cohort.targets.mean_G.copy()
    mean[genes != "seen"] += 100
    changed = dataclasses.replace(cohort, targets=dataclasses.replace(cohort.targets, mean_G=mean))
    states = []
    for one in (cohort, changed):
        monkeypatch.setattr("seq2exp.cohort.train.open_cohort", lambda *_, one=one: one)
        states.append(untrained_run(one.config, one.dataset).models[0].state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_frequencies_are_those_of_training_people(cohort):
    people, _ = sets_of(cohort)
    train = np.flatnonzero(people == "train")
    assert cohort.personal.train.tolist() == train.tolist()
    policy = GenotypePolicy(min_maf=0.2, max_maf=0.4)
    personal = PersonalGenes(cohort.dataset, cohort.config.data, policy, train=train)
    everyone, genotypes, differs = np.arange(len(people)), cohort.dataset.genotypes, 0
    for gene in range(12):
        plan = personal.plan(gene, everyone)
        contig = cohort.dataset.sites[gene][0]
        first, last = genotypes.span(contig, *plan.known)
        alleles = genotypes.alleles(contig, first, last)
        results = []
        for chosen in (train, everyone):
            share = alleles[chosen].mean(axis=(0, 1))
            minor = np.minimum(share, 1 - share)
            rare = (minor < 0.2) | (minor > 0.4)
            results.append(np.where(rare, share > 0.5, alleles))
        assert (plan.actions_UM[plan.row_DP] == results[0]).all()
        differs += (results[0] != results[1]).any()
    assert differs


def unphased(dataset, monkeypatch):
    real = dataset.genotypes.alleles
    monkeypatch.setattr(dataset.genotypes, "unphased", lambda *where: real(*where).sum(axis=1) == 1)


def test_chance_turns_a_call_by_donor_contig_and_site(people, settings, monkeypatch):
    """All calls of one site: of a donor they turn together, whoever else is asked for."""
    dataset, config = Dataset(people), settings()
    unphased(dataset, monkeypatch)
    monkeypatch.setattr(
        dataset.genotypes, "sites", lambda _, first, last: np.zeros(last - first, np.int64)
    )
    policy = GenotypePolicy(phase="random", seed=3)
    personal = PersonalGenes(dataset, config.data, policy, train=np.arange(20))
    contigs = [contig for contig, _, _ in dataset.sites]
    turned = {}
    for gene in (3, contigs.index("chr2") + 2):
        plan = personal.plan(gene, np.arange(40))
        first, last = dataset.genotypes.span(contigs[gene], *plan.known)
        alleles = dataset.genotypes.alleles(contigs[gene], first, last)
        made = plan.actions_UM[plan.row_DP]
        for donor in range(40):
            het = alleles[donor].sum(axis=0) == 1
            if het.any():
                swapped = (made[donor] != alleles[donor])[:, het]
                assert swapped.all() or not swapped.any()
                turned[contigs[gene], donor] = bool(swapped.any())
        back = personal.plan(gene, np.arange(40)[::-1])
        assert (back.actions_UM[back.row_DP][::-1] == made).all()
    assert set(turned.values()) == {True, False}
    both = [d for d in range(40) if ("chr1", d) in turned and ("chr2", d) in turned]
    assert any(turned["chr1", donor] != turned["chr2", donor] for donor in both)


def test_phase_sets_reach_the_policy(people, settings, monkeypatch):
    dataset = Dataset(people)

    def sets(contig, first, last, donors=None):
        alleles = dataset.genotypes.alleles(contig, first, last, donors)
        return np.where(alleles.sum(axis=1) == 1, np.arange(first, last) + 1, 0).astype(np.int32)

    monkeypatch.setattr(dataset.genotypes, "phase_sets", sets)
    personal = PersonalGenes(
        dataset, settings().data, GenotypePolicy(), train=np.arange(20)
    )  # fmt: skip
    with pytest.raises(InputError, match="without phase"):
        for gene in range(10):
            personal.plan(gene, np.arange(40))


def test_downstream_is_that_of_the_gene_in_a_window_read_forward(people, settings, monkeypatch):
    seen = []
    real = personal_module.build

    def spy(*args, **options):
        seen.append((args[3].strand, options["gene_strand"], options["known"]))
        return real(*args, **options)

    monkeypatch.setattr(personal_module, "build", spy)
    dataset = Dataset(people)
    config = dataclasses.replace(settings().data, strand="plus")
    personal = PersonalGenes(dataset, config, GenotypePolicy(), train=np.arange(20))
    gene = next(row for row, site in enumerate(dataset.sites) if site[2] == "-")
    plan = personal.plan(gene, np.arange(4))
    personal.sequences(plan)
    assert seen == [("+", "-", plan.known)]


def test_sequences_in_parts_are_those_of_the_whole(cohort):
    plan = cohort.personal.plan(3, np.arange(40))
    whole = cohort.personal.sequences(plan)
    assert len(whole) == len(plan) > 3
    parts = [cohort.personal.sequences(plan, first, first + 3) for first in range(0, len(plan), 3)]
    assert max(map(len, parts)) == 3
    for name in ("codes_UL", "signal_UNT"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert np.array_equal(joined, getattr(whole, name), equal_nan=True)


def test_prediction_never_holds_more_sequences_than_a_batch(cohort, monkeypatch):
    run = untrained_run(cohort.config, cohort.dataset)
    sizes = []
    real = PersonalGenes.sequences

    def spy(self, *args):
        made = real(self, *args)
        sizes.append(len(made))
        return made

    monkeypatch.setattr(PersonalGenes, "sequences", spy)
    asked = np.ones((1, 40), dtype=bool)
    predict_people(run, cohort.personal, np.array([3]), asked, batch_size=5)
    assert max(sizes) == 5
    assert sum(sizes) == len(cohort.personal.plan(3, np.arange(40)))


def test_windows_are_shifted_by_chance_with_their_tracks(cohort):
    rows = np.flatnonzero(cohort.cells("train").any(axis=1))[:6]
    plan = GroupPlan(rows, cohort.cells("train")[rows], GroupConfig(4, 2), seed=1)
    shifts = []

    class Spy:
        def haplotypes(self, gene, people, *, shift):
            shifts.append(shift)
            return cohort.personal.haplotypes(gene, people, shift=shift)

    groups = TrainingGroups(Spy(), cohort.targets, plan, jitter_bp=30)
    for epoch in (0, 1, 0):
        groups.set_epoch(epoch)
        for item in range(len(groups)):
            groups[item]
    first, second, again = np.reshape(shifts, (3, -1))
    assert (first == again).all()
    assert (first != second).any()
    assert len(set(first)) > 4
    assert -30 <= min(shifts) < 0 < max(shifts) <= 30
    assert max(map(abs, shifts)) > 10
    config = dataclasses.replace(
        cohort.config, data=dataclasses.replace(cohort.config.data, jitter_bp=40)
    )
    assert CohortData(dataclasses.replace(cohort, config=config), seed=0).train.jitter_bp == 40
    still, moved = (cohort.personal.haplotypes(2, np.array([1]), shift=by) for by in (0, 64))
    a, b = (one.signal_UNT[one.reference] for one in (still, moved))
    reverse = cohort.dataset.sites[2][2] == "-"
    pair = (a[:-1], b[1:]) if reverse else (a[1:], b[:-1])
    assert np.allclose(*pair, equal_nan=True, atol=1e-3)
    assert not np.allclose(a, b, equal_nan=True, atol=1e-3)


def test_a_sample_carries_the_targets_of_its_people(cohort):
    targets, people = cohort.targets, np.array([7, 2, 31])
    one = make_sample(5, people, cohort.personal.haplotypes(5, people), targets, unseen=False)
    for name in ("raw", "z", "percentile"):
        assert (getattr(one, name) == getattr(targets, f"{name}_GD")[5, people]).all()
    assert one.mean == pytest.approx(float(targets.mean_G[5]))


@pytest.mark.parametrize("loss", ["reference", "single_mse", "pair_mse"])
def test_the_log_is_of_validation_people_and_genes(loss, people, settings, tmp_path):
    """One epoch, so that the saved weights are those that were validated."""
    config = settings(loss={"name": loss}, fit={"max_epochs": 1})
    train_cohort(config, people, tmp_path / "run")
    run, _ = open_cohort_run(tmp_path / "run")
    cohort = open_cohort(config, Dataset(people))
    cells, targets = cohort.cells("valid"), cohort.targets
    rows = np.flatnonzero(cells.any(axis=1))
    found = predict_people(run, cohort.personal, rows, cells[rows])
    unseen = np.flatnonzero(cohort.cells("valid_genes").any(axis=1))
    nobody = np.zeros((len(unseen), cells.shape[1]), dtype=bool)
    level = predict_people(run, cohort.personal, unseen, nobody).level_G
    logged = pd.read_csv(tmp_path / "run" / "metrics.csv").iloc[0]
    observed = targets.mean_G[unseen]
    assert logged["valid_mse"] == pytest.approx(np.mean((level - observed) ** 2), rel=1e-3)
    assert logged["valid_pearson"] == pytest.approx(np.corrcoef(level, observed)[0, 1], abs=1e-3)
    if loss == "reference":
        assert logged["valid_loss"] == pytest.approx(logged["valid_mse"], rel=1e-4)
        return
    ranked = found.difference_GD if loss == "pair_mse" else found.level_GD
    r, error = [], []
    for row, gene in enumerate(rows):
        guess, z = ranked[row, cells[gene]], targets.z_GD[gene, cells[gene]]
        r.append(np.corrcoef(guess, z)[0, 1])
        if loss == "pair_mse":
            gap = (guess[:, None] - guess) - (z[:, None] - z)
            error.append(np.mean(gap[np.triu_indices(len(z), 1)] ** 2))
        else:
            error.append(np.mean((guess - targets.raw_GD[gene, cells[gene]]) ** 2))
    expected = np.nan_to_num(r).mean()
    assert logged["valid_people_pearson"] == pytest.approx(expected, abs=2e-3)
    assert logged["valid_loss"] == pytest.approx(np.mean(error), rel=1e-3)


def test_validation_runs_a_few_sequences_at_a_time(cohort, monkeypatch):
    model = untrained_run(cohort.config, cohort.dataset).models[0]
    data, sizes, results = CohortData(cohort, seed=0), [], []
    batch = collate_groups([data.valid[0], data.valid[1]])
    real = module.forward_batch

    def spy(model, part, **options):
        sizes.append(len(part))
        return real(model, part, **options)

    monkeypatch.setattr(module, "forward_batch", spy)
    for limit in (3, 1000):
        one = module.CohortModule(
            model, cohort.config.optim, cohort.config.loss, total_steps=1, gene_ids=[],
            sample_masks=False, sequences_at_once=limit,
        )  # fmt: skip
        one.on_validation_epoch_start()
        with torch.no_grad():
            one.validation_step(batch, 0)
        results.append([part for held in one._held.values() for part in held.predicted])
        results[-1].append(torch.tensor([one._mask_sum, one._mask_genes]))
    assert max(sizes[:-1]) == 3
    assert sum(sizes[:-1]) == sizes[-1] == len(batch.sequences) > 3
    for few, whole in zip(*results, strict=True):
        assert torch.allclose(few, whole, atol=1e-5)


def test_genes_are_ranked_by_their_own_training_people(people, settings):
    """People drawn per gene: who tests a gene must not have chosen it."""
    cohort = open_cohort(settings(splits={"people": "per_gene"}), Dataset(people))
    codes, genes = cohort.targets.split.codes(), sets_of(cohort)[1]
    rows = np.flatnonzero(genes == "seen")
    for rank in ("h2", "p"):
        scores = []
        for gene in rows:
            train = np.flatnonzero(codes[gene] == 0)
            dosage, snv = cohort.personal.dosage(int(gene), train)
            found = cis_heritability(dosage[:, snv], cohort.targets.corrected_GD[gene, train])
            scores.append(-found.h2 if rank == "h2" else found.p)
        scores = np.where(np.isfinite(scores), scores, np.inf)
        order = rank_genes(rank, rows, cohort.targets, cohort.personal)
        assert (np.diff(scores[order][np.isfinite(scores[order])]) >= -1e-9).all()
        assert (order == np.argsort(scores, kind="stable")).all()
