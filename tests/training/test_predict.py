from __future__ import annotations

import shutil

import numpy as np
import pytest

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.dataset.store import Dataset
from seq2exp.training.predict import gene_table, predict
from seq2exp.training.run import open_run
from tests.runs import tiny_config
from tests.toys import ToyPlan, toy_dataset


@pytest.fixture(scope="module")
def run(finished):
    return open_run(finished)


@pytest.fixture(scope="module")
def dataset(toy):
    return Dataset(toy)


@pytest.fixture(scope="module")
def base(run, dataset):
    return predict(run, dataset, np.arange(len(dataset.genes)), batch_size=64)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_batch_size_does_not_change_predictions(run, dataset, base, batch_size):
    other = predict(run, dataset, base.rows, batch_size=batch_size)
    np.testing.assert_allclose(other.expression, base.expression, atol=1e-5)
    np.testing.assert_allclose(other.mask_ratio, base.mask_ratio, atol=1e-5)


def test_order_does_not_change_predictions(run, dataset, base):
    order = np.random.default_rng(0).permutation(base.rows)
    other = predict(run, dataset, order, batch_size=64)
    np.testing.assert_allclose(other.expression, base.expression[order], atol=1e-5)


def test_worker_count_does_not_change_predictions_at_all(run, dataset):
    rows = np.arange(10)
    alone = predict(run, dataset, rows, batch_size=4)
    helped = predict(run, dataset, rows, batch_size=4, workers=2)
    assert np.array_equal(alone.expression, helped.expression)


def test_predicting_twice_gives_the_same_bits_and_restores_the_mode(run, dataset):
    run.models[0].train()
    first = predict(run, dataset, np.arange(5))
    assert run.models[0].training
    run.models[0].eval()
    assert np.array_equal(first.expression, predict(run, dataset, np.arange(5)).expression)


def test_no_gene_gives_an_empty_table(run, dataset):
    empty = predict(run, dataset, np.empty(0, dtype=np.int64))
    assert empty.expression.shape == (0, 2)
    assert len(gene_table(run, dataset, empty)) == 0


def test_the_table_has_one_row_per_gene_with_labels_beside_predictions(run, dataset, base):
    table = gene_table(run, dataset, base)
    assert table["gene_id"].is_unique
    assert len(table) == len(dataset.genes)
    np.testing.assert_array_equal(table["observed:cell_a"], dataset.expression[:, 0])
    np.testing.assert_array_equal(table["predicted:cell_b"], base.expression[:, 1])


def test_an_ensemble_averages_its_members(toy, tmp_path, dataset):
    from seq2exp.training.trainer import train

    config = tiny_config(fit={"seeds": 2, "max_epochs": 1})
    train(config, toy, tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert len(run.models) == 2
    both = predict(run, dataset, np.arange(6), batch_size=6)
    singles = []
    for model in run.models:
        run_of_one = type(run)(run.folder, [model], run.card)
        singles.append(predict(run_of_one, dataset, np.arange(6), batch_size=6).expression)
    assert not np.allclose(singles[0], singles[1])
    np.testing.assert_allclose(both.expression, np.mean(singles, axis=0), atol=1e-6)
    np.testing.assert_allclose(both.spread, np.std(singles, axis=0), atol=1e-6)
    # Before the second member is trained, the first alone is not what the configuration says.
    shutil.rmtree(tmp_path / "run" / "members" / f"seed_{config.seed + 1}" / "model")
    with pytest.raises(InputError, match="no trained model"):
        open_run(tmp_path / "run")


def test_a_dataset_of_another_layout_is_refused_with_every_difference(run, tmp_path):
    plan = ToyPlan(tracks=("ATAC",), bin_size=32)
    other = Dataset(toy_dataset(tmp_path / "other", plan))
    with pytest.raises(
        ConfigError, match=r"no track DNase; no track H3K27ac.*bin_size 32"
    ) as error:
        predict(run, other, np.arange(3))
    assert "3 in all" in str(error.value) or "in all" in str(error.value)


def test_training_fits_the_genes_it_saw(toy, tmp_path, dataset):
    """Many passes over 24 genes must explain most of their variance; an untrained model cannot."""
    from seq2exp.training.metrics import pearson
    from seq2exp.training.trainer import train

    config = tiny_config(
        fit={"max_epochs": 40, "batch_size": 12}, optim={"lr": 0.02}, data={"jitter_bp": 0}
    )
    train(config, toy, tmp_path / "run")
    rows = dataset.gene_rows(("train",))
    predicted = predict(open_run(tmp_path / "run"), dataset, rows).expression[:, 0]
    assert pearson(dataset.expression[rows, 0].astype(float), predicted.astype(float)) > 0.7


def test_a_dataset_that_is_gone_is_asked_for(finished, run, toy, tmp_path, monkeypatch):
    assert run.open_dataset(toy).root == toy
    assert run.open_dataset().root == run.dataset_path()
    monkeypatch.setattr(type(run), "dataset_path", lambda _: tmp_path / "gone")
    with pytest.raises(InputError, match=r"no dataset at .*gone.*name it with --data"):
        run.open_dataset()


def test_mode_and_place_are_put_back_after_an_error(run):
    run.models[0].train()
    with pytest.raises(ZeroDivisionError), run.evaluating("cpu"):
        assert not run.models[0].training
        raise ZeroDivisionError
    assert run.models[0].training
    run.models[0].eval()
