"""Training on people: who is seen, what is learnt, kills, starts from other runs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from data_prep.build import prepare
from data_prep.config import DataConfig
from seq2exp.cohort.losses import LOSSES
from seq2exp.cohort.module import DIFFERENCE, LEVEL, people_outputs
from seq2exp.cohort.predict import open_cohort_run, predict_people
from seq2exp.cohort.samples import collate_groups
from seq2exp.cohort.splits import read_split
from seq2exp.cohort.train import CohortData, open_cohort, train_cohort
from seq2exp.core.config import bind
from seq2exp.core.errors import ConfigError, InputError
from seq2exp.dataset.store import Dataset
from seq2exp.training import fitting
from seq2exp.training.config import TrainConfig
from seq2exp.training.module import forward_batch
from seq2exp.training.run import open_run
from seq2exp.training.trainer import train
from tests.cohort.conftest import TINY


def weights(run):
    return open_run(run).models[0].state_dict()


def same(first, second):
    a, b = weights(first), weights(second)
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def trained(people, tmp_path_factory):
    from seq2exp.cohort.config import CohortConfig

    out = tmp_path_factory.mktemp("trained") / "run"
    train_cohort(bind(CohortConfig, TINY, where="test"), people, out)
    return out


def test_a_run_is_complete_and_says_who_was_seen(trained, people):
    split = read_split(trained / "split.json")
    assert set(split.donor_sets) == {"train", "valid", "test", "population"}
    assert list(split.donors) == Dataset(people).genotypes.donors
    metrics = pd.read_csv(trained / "metrics.csv")
    assert len(metrics) == 2
    assert {"valid_people_pearson", "valid_mse", "valid_loss"} <= set(metrics.columns)
    run, config = open_cohort_run(trained)
    assert config.loss.name == "joint"
    assert run.card.samples == ["level", "difference"]
    assert run.card.train_contigs == ["chr1"]


def test_training_continues_after_a_kill_to_the_same_weights(
    trained, people, settings, tmp_path, monkeypatch
):
    """Stopped after the first epoch, as if killed between epochs."""
    real = fitting.pl.Trainer

    def stopped(**options):
        return real(**(options | {"max_epochs": 1}))

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(fitting.pl, "Trainer", stopped)
        patch.setattr(
            "seq2exp.cohort.train.best_weights",
            lambda folder: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        with pytest.raises(KeyboardInterrupt):
            train_cohort(settings(), people, out)
    assert len(pd.read_csv(out / "metrics.csv")) == 1
    train_cohort(settings(), people, out)
    assert len(pd.read_csv(out / "metrics.csv")) == 2
    assert same(trained, out)


def test_another_configuration_is_refused_in_the_same_folder(trained, people, settings):
    with pytest.raises(InputError, match=r"groups\.people"):
        train_cohort(settings(groups={"people": 5}), people, trained)
    with pytest.raises(InputError, match="--resume never"):
        train_cohort(settings(), people, trained, resume="never")


def test_expression_of_tested_people_changes_nothing(
    trained, people, simulated, data_settings, settings, tmp_path
):
    """Leakage: everything fitted is the same when only test people's expression differs."""
    split = read_split(trained / "split.json")
    sets = zip(split.donors, split.donor_sets, strict=True)
    held = [name for name, kind in sets if kind in ("test", "population")]
    table = pd.read_csv(simulated / "cohort" / "expression.tsv.gz", sep="\t")
    table[held] = table[held].sample(frac=1, random_state=1).to_numpy() * 3 + 1
    changed = tmp_path / "expression.tsv"
    table.to_csv(changed, sep="\t", index=False)
    values = data_settings | {
        "donors": data_settings["donors"] | {"expression": {"path": str(changed), "unit": "TPM"}}
    }
    other = tmp_path / "dataset"
    config = bind(DataConfig, values, where="test")
    prepare(config, source=simulated, out=other, workers=1, progress=False)
    train_cohort(settings(), other, tmp_path / "run")
    assert same(trained, tmp_path / "run")
    known = Dataset(people).donor_expression[held], Dataset(other).donor_expression[held]
    assert not np.allclose(*known)


def test_only_training_people_of_seen_genes_are_trained_on(cohort):
    data = CohortData(cohort, seed=0)
    split, genes = cohort.targets.split, cohort.dataset.genes
    people, rows = set(), set()
    for epoch in range(6):
        data.train.set_epoch(epoch)
        for item in range(len(data.train)):
            sample = data.train[item]
            people |= set(sample.people.tolist())
            rows.add(sample.gene)
    assert {split.donor_sets[number] for number in people} == {"train"}
    assert set(genes["contig"].iloc[sorted(rows)]) == {"chr1"}
    assert len(people) == split.donor_sets.count("train")


def test_batches_do_not_depend_on_workers(cohort):
    data = CohortData(cohort, seed=3)
    data.train.set_epoch(1)

    def batches(workers, context=None):
        loader = DataLoader(
            data.train, batch_size=3, num_workers=workers, collate_fn=collate_groups,
            multiprocessing_context=context,
        )  # fmt: skip
        return list(loader)

    plain = batches(0)
    for other in (batches(2), batches(1, "spawn")):
        for a, b in zip(plain, other, strict=True):
            assert torch.equal(a.sequences.codes_BL, b.sequences.codes_BL)
            assert torch.equal(a.row_QDP, b.row_QDP)
            assert torch.equal(a.targets.z_QD, b.targets.z_QD)


def test_a_batch_is_its_groups(cohort, trained):
    """Outputs for people do not depend on what else is in the batch."""
    data = CohortData(cohort, seed=0)
    samples = [data.train[item] for item in range(4)]
    # A group of fewer people than the others.
    few = dataclasses.replace(
        samples[1],
        people=samples[1].people[:2],
        haplotypes=dataclasses.replace(
            samples[1].haplotypes, row_DP=samples[1].haplotypes.row_DP[:2]
        ),
        raw=samples[1].raw[:2], z=samples[1].z[:2], percentile=samples[1].percentile[:2],
    )  # fmt: skip
    samples[1] = few
    model = open_run(trained).models[0]

    def outputs(group):
        batch = collate_groups(group)
        with torch.no_grad():
            found = forward_batch(model, batch.sequences).expression_BK
        return batch, people_outputs(found, batch)

    whole, together = outputs(samples)
    assert torch.isnan(whole.targets.z_QD[1, 2:]).all()
    for number, sample in enumerate(samples):
        _, alone = outputs([sample])
        size = len(sample.people)
        assert torch.allclose(together.level_QD[number, :size], alone.level_QD[0], atol=1e-5)
        assert torch.allclose(together.difference_Q[number], alone.difference_Q[0], atol=1e-5)


def test_a_person_is_the_mean_of_both_haplotypes(cohort, trained):
    run, _ = open_cohort_run(trained)
    rows, asked = np.array([2, 9]), np.zeros((2, 40), dtype=bool)
    asked[0, [4, 11]] = asked[1, 30] = True
    found = predict_people(run, cohort.personal, rows, asked, batch_size=3)
    one = predict_people(run, cohort.personal, rows, asked, batch_size=64)
    assert np.allclose(found.level_GD, one.level_GD, atol=1e-5, equal_nan=True)
    assert (np.isfinite(found.level_GD) == asked).all()
    made = cohort.personal.haplotypes(2, np.array([11]))
    from seq2exp.cohort.personal import stack_haplotypes

    with torch.no_grad():
        out = forward_batch(run.models[0], stack_haplotypes([made])).expression_BK.numpy()
    both = out[made.row_DP[0]]
    assert found.level_GD[0, 11] == pytest.approx(both[:, LEVEL].mean(), abs=1e-5)
    assert found.difference_GD[0, 11] == pytest.approx(both[:, DIFFERENCE].mean(), abs=1e-5)
    assert found.level_G[0] == pytest.approx(out[made.reference, LEVEL], abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_trains_what_it_says(name, people, settings, tmp_path):
    """Rows of the head that a loss does not reach stay as they were drawn."""
    out = tmp_path / "run"
    config = settings(
        loss={"name": name}, fit={"max_epochs": 1}, optim={"weight_decay": 0.0}, seed=5
    )
    train_cohort(config, people, out)
    from seq2exp.cohort.train import untrained_run

    before = untrained_run(config, Dataset(people)).models[0].state_dict()
    after = weights(out)
    head = [key for key in after if key.startswith("head.layers") and key.endswith("weight")]
    moved = (after[head[-1]] != before[head[-1]]).any(dim=1).tolist()
    kind = LOSSES[name]
    assert moved == [kind.level, kind.people == "difference"]


def test_training_on_pairs_learns_people(people, settings, tmp_path):
    """Fits its own training people far better than chance: the path from genotype to loss works."""
    config = settings(
        loss={"name": "pair_mse"}, fit={"max_epochs": 40, "batch_size": 2},
        groups={"people": 16, "per_gene": 1}, optim={"lr": 2e-2, "warmup_fraction": 0.05},
    )  # fmt: skip
    train_cohort(config, people, tmp_path / "run")
    run, config = open_cohort_run(tmp_path / "run")
    cohort = open_cohort(config, Dataset(people))
    cells = cohort.cells("train")
    rows = np.flatnonzero(cells.any(axis=1))
    found = predict_people(run, cohort.personal, rows, cells[rows])
    r = [
        np.corrcoef(found.difference_GD[i, cells[g]], cohort.targets.z_GD[g, cells[g]])[0, 1]
        for i, g in enumerate(rows)
    ]
    assert np.nanmean(r) > 0.35


def test_a_run_of_train_can_be_started_from(people, settings, tmp_path):
    plain = {
        "data": TINY["data"] | {"samples": ["liver", "blood"]},
        "model": TINY["model"], "fit": {"max_epochs": 1},
    }  # fmt: skip
    train(bind(TrainConfig, plain, where="test"), people, tmp_path / "plain")
    slow = {"lr": 1e-9, "start_lr": 1e-9, "final_lr": 1e-9}
    config = dataclasses.replace(
        settings(fit={"max_epochs": 1}, optim=slow), model={"name": "seq2exp"}
    )
    config = dataclasses.replace(
        config, start_from=str(tmp_path / "plain"), start_sample="blood", freeze=["predictor"]
    )
    train_cohort(config, people, tmp_path / "run")
    cohort = open_cohort(config, Dataset(people))
    run, _ = open_cohort_run(tmp_path / "run")
    rows = np.arange(0, 12)
    nobody = np.zeros((12, 40), dtype=bool)
    found = predict_people(run, cohort.personal, rows, nobody)
    from seq2exp.training.predict import predict

    old = open_run(tmp_path / "plain")
    expected = predict(old, old.open_dataset(people), rows).expression[:, 1]
    assert np.allclose(found.level_G, expected, atol=1e-4)
    assert np.allclose(found.difference_G, expected, atol=1e-4)
    before, after = old.models[0].state_dict(), run.models[0].state_dict()
    frozen = [name for name in before if name.startswith("predictor")]
    assert frozen
    assert all(torch.equal(before[name], after[name]) for name in frozen)


def test_starts_that_do_not_fit_are_refused(trained, people, settings, tmp_path):
    model = {"model": {"name": "seq2exp"}}

    def start(**changes):
        config = dataclasses.replace(settings(), model={"name": "seq2exp"})
        return dataclasses.replace(config, start_from=str(trained), **changes)

    with pytest.raises(ConfigError, match="window_bp 1024 instead of 2048"):
        data = dataclasses.replace(settings().data, window_bp=1024)
        train_cohort(start(data=data), people, tmp_path / "a")
    with pytest.raises(ConfigError, match="levle"):
        train_cohort(start(start_sample="levle"), people, tmp_path / "b")
    with pytest.raises(ConfigError, match="freeze"):
        train_cohort(start(freeze=["nothing"]), people, tmp_path / "c")
    with pytest.raises(ConfigError, match="all parameters"):
        train_cohort(start(freeze=[""]), people, tmp_path / "d")
    with pytest.raises(ConfigError, match="the model is that of the run"):
        settings(start_from=str(trained))
    with pytest.raises(ConfigError, match="a run they come from"):
        settings(freeze=["head"], **model)


def test_nothing_to_train_on_is_said(people, toy, settings, tmp_path):
    with pytest.raises(InputError, match="no expression of donors"):
        train_cohort(settings(), toy, tmp_path / "a")
    with pytest.raises(InputError, match="valid_share"):
        train_cohort(settings(splits={"valid_share": 0.0}), people, tmp_path / "b")
