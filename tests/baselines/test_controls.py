"""Controls learn from training genes, choose on validation genes, and see no test gene."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from seq2exp.baselines.controls import CONTROLS, ControlData, Part, fit_controls
from seq2exp.baselines.features import ScalarSpan
from seq2exp.baselines.mlp import fit_mlp
from seq2exp.core.errors import ConfigError
from seq2exp.dataset import format as layout
from seq2exp.dataset.samples import SampleConfig
from seq2exp.dataset.store import Dataset
from seq2exp.training.metrics import mse
from tests.toys import SAMPLES, ToyPlan, toy_dataset

CONFIG = SampleConfig(window_bp=2048, bin_size=32)
BIG = ToyPlan(
    contigs=(("chr1", "train", 120), ("chr2", "valid", 40), ("chr3", "test", 40)), noise=0.05
)


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    return Dataset(toy_dataset(tmp_path_factory.mktemp("big") / "dataset", BIG))


@pytest.fixture(scope="module")
def fitted(big):
    return {control.name: control for control in fit_controls(big, CONFIG, SAMPLES)}


def alter(dataset: Dataset, folder, *, labels_of="", tracks_of=""):
    """Copy a dataset and replace labels of a split, or tracks of a contig, by noise."""
    shutil.copytree(dataset.root, folder)
    random = np.random.default_rng(9)
    if labels_of:
        table = layout.read_table(layout.expression_path(folder))
        rows = np.flatnonzero(dataset.genes["split"] == labels_of)
        for name in SAMPLES:
            table.loc[rows, name] = random.normal(5, 3, rows.size).astype(np.float32)
        layout.write_table(table, layout.expression_path(folder))
    if tracks_of:
        path = layout.tracks_path(folder, tracks_of)
        np.save(path, random.gamma(1, 1, np.load(path).shape).astype(np.float16))
        codes = layout.sequence_path(folder, tracks_of)
        np.save(codes, random.integers(0, 4, np.load(codes).size).astype(np.uint8))
    layout.finish_manifest(folder, layout.read_manifest(folder))
    return Dataset(folder)


def test_every_control_is_there_and_beats_what_knows_less(big, fitted):
    assert list(fitted) == [control.name for control in CONTROLS if not control.extra]
    rows = big.gene_rows(("test",))
    observed = big.expression[rows, 0].astype(float)
    error = {name: mse(observed, fit.predict(rows)[:, 0]) for name, fit in fitted.items()}
    # The toy label is log1p(openness) + 0.3 motifs + length: each block explains a part of it.
    for name in ("promoter_signal", "scalar_ridge", "scalar_mlp", "track_ridge", "kmer_ridge"):
        assert error[name] < 0.95 * error["mean"], name
    assert error["track_kmer_ridge"] < min(error["track_ridge"], error["kmer_ridge"])
    assert error["all_ridge"] < error["track_kmer_ridge"]


def test_the_mean_control_is_the_mean_of_known_training_labels(big, fitted):
    train = big.gene_rows(("train",))
    expected = np.nanmean(big.expression[train], axis=0)
    found = fitted["mean"].predict(np.array([0, 190]))
    np.testing.assert_allclose(found, np.stack((expected, expected)), rtol=1e-6)


def test_test_genes_change_nothing_in_the_fit(big, fitted, tmp_path):
    other = alter(big, tmp_path / "other", labels_of="test", tracks_of="chr3")
    again = {control.name: control for control in fit_controls(other, CONFIG, SAMPLES)}
    rows = big.gene_rows(("train", "valid"))
    for name, control in fitted.items():
        assert again[name].settings == control.settings
        np.testing.assert_array_equal(again[name].predict(rows), control.predict(rows))


def test_validation_labels_choose_settings_but_do_not_move_coefficients(big, fitted, tmp_path):
    other = alter(big, tmp_path / "other", labels_of="valid")
    again = {control.name: control for control in fit_controls(other, CONFIG, SAMPLES)}
    # Noise on validation asks for the strongest penalty; real labels do not.
    assert min(again["scalar_ridge"].settings["alpha"]) > max(
        fitted["scalar_ridge"].settings["alpha"]
    )
    rows = big.gene_rows(("test",))
    np.testing.assert_array_equal(again["mean"].predict(rows), fitted["mean"].predict(rows))


def test_training_labels_do_move_the_fit(big, fitted, tmp_path):
    other = alter(big, tmp_path / "other", labels_of="train")
    again = {
        control.name: control
        for control in fit_controls(other, CONFIG, SAMPLES, names=["mean", "scalar_ridge"])
    }
    rows = big.gene_rows(("test",))
    for name, control in again.items():
        assert not np.allclose(control.predict(rows), fitted[name].predict(rows))


def test_settings_name_what_was_chosen(fitted):
    settings = fitted["all_ridge"].settings
    assert {"alpha", "tracks", "kmers", "scalars", "validation_error_over_mean"} <= set(settings)
    assert settings["kmers"]["k"] == 5
    assert max(settings["kmers"]["upstream"], settings["kmers"]["downstream"]) <= 1024
    assert settings["tracks"]["bin_bp"] * settings["tracks"]["num_bins"] <= 2048
    assert len(settings["alpha"]) == 2
    assert 0 < settings["validation_error_over_mean"] < 1


def test_absent_data_are_named_not_dropped(tmp_path):
    bare = Dataset(toy_dataset(tmp_path / "bare", ToyPlan(tracks=(), features=False)))
    found = {control.name: control for control in fit_controls(bare, CONFIG, SAMPLES)}
    reasons = {name: control.reason for name, control in found.items() if control.reason}
    assert reasons == {
        "promoter_signal": "the dataset has no tracks",
        "scalar_ridge": "the dataset has no scalar features",
        "scalar_mlp": "the dataset has no scalar features",
        "track_ridge": "the dataset has no tracks",
        "track_kmer_ridge": "the dataset has no tracks",
        "all_ridge": "the dataset has no scalar features; the dataset has no tracks",
    }
    with pytest.raises(ConfigError, match="no tracks"):
        found["track_ridge"].predict(np.array([0]))


def test_the_strongest_control_takes_what_there_is(tmp_path):
    silent = Dataset(toy_dataset(tmp_path / "silent", ToyPlan(tracks=())))
    found = {c.name: c for c in fit_controls(silent, CONFIG, SAMPLES, names=["all_ridge"])}
    assert not found["all_ridge"].reason
    assert found["all_ridge"].title == "ridge: kmers + scalars"
    plain = Dataset(toy_dataset(tmp_path / "plain", ToyPlan(features=False)))
    (control,) = fit_controls(plain, CONFIG, SAMPLES, names=["all_ridge"])
    assert "the same as track_kmer_ridge" in control.reason


def test_products_of_scalars_are_standardised_by_training_genes_only(big):
    data = ControlData(big, CONFIG, SAMPLES)
    rows = big.gene_rows(("test",))
    found = data.read(Part("scalars", ScalarSpan(products=True)), rows)
    train = big.features[data.rows["train"]]
    x = (big.features[rows] - train.mean(axis=0)) / train.std(axis=0)
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    expected = np.stack([*x.T, *(x[:, i] * x[:, j] for i, j in pairs)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4)


def test_extra_controls_are_fitted_when_named(big):
    (control,) = fit_controls(big, CONFIG, SAMPLES, names=["codon_ridge"])
    assert control.name == "codon_ridge"
    assert control.settings["codons"]["phased"]
    assert np.isfinite(control.predict(big.gene_rows(("test",)))).all()


def test_network_on_scalars_learns_what_ridge_cannot_and_is_repeatable():
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 3))
    x[5, 1] = np.nan
    y = np.stack((np.abs(x[:, 0]), x[:, 2]), axis=1)
    y[7, 0] = np.nan
    parts = (x[:300], y[:300])
    first = fit_mlp(*parts, valid_columns=x[300:], valid_labels=y[300:])
    second = fit_mlp(*parts, valid_columns=x[300:], valid_labels=y[300:])
    found = first.predict(x[300:])
    np.testing.assert_array_equal(found, second.predict(x[300:]))
    assert mse(y[300:, 0], found[:, 0]) < 0.2 * y[300:, 0].var()


def test_a_name_that_is_no_control_is_refused_with_the_nearest(big):
    with pytest.raises(ConfigError, match=r"found kmer_rigde.*kmer_ridge"):
        fit_controls(big, CONFIG, SAMPLES, names=["kmer_rigde"])
