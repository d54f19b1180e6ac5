"""Runs of every mask mode: trained, resumed, moved away from the mask run, and predicted with."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from seq2exp.core.config import bind, dump_yaml, load_config, load_yaml
from seq2exp.core.errors import ConfigError, FormatError, InputError
from seq2exp.core.files import sha256
from seq2exp.dataset.samples import GeneSamples
from seq2exp.dataset.store import Dataset
from seq2exp.elements.calling import CallConfig
from seq2exp.elements.export import export_elements
from seq2exp.models.seq2exp import Seq2Exp
from seq2exp.training.callbacks import MetricsTable
from seq2exp.training.config import TrainConfig
from seq2exp.training.frozen_masks import StoredMasks
from seq2exp.training.predict import iterate, predict
from seq2exp.training.run import open_run
from seq2exp.training.trainer import control_config, model_params, train
from tests.runs import tiny_config
from tests.toys import add_elements, toy_dataset

RETRAIN = {"mask": "retrain", "mask_budget": 0.4}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return add_elements(toy_dataset(tmp_path_factory.mktemp("m") / "dataset"))


@pytest.fixture(scope="module")
def mask_run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("m") / "mask_run"
    train(tiny_config(fit={"max_epochs": 1, "seeds": 2}), data, out)
    return out


def retrain_config(mask_run, **changes):
    model = {**RETRAIN, **changes.pop("model", {})}
    return tiny_config(model=model, mask_from=str(mask_run), **changes)


def weights(run):
    return sha256(run / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def retrained(data, mask_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("m") / "retrained"
    train(retrain_config(mask_run, fit={"max_epochs": 2, "ema_decay": 0.9}), data, out)
    return out


def test_a_retrained_run_holds_its_mask_model_unchanged(mask_run, retrained):
    saved = load_file(retrained / "model" / "model.safetensors")
    for number, place in enumerate(sorted((mask_run / "members").iterdir())):
        source = load_file(place / "model" / "model.safetensors")
        prefix = f"mask_model.{number}."
        mine = {k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix)}
        assert set(mine) == set(source)
        assert all(torch.equal(mine[name], source[name]) for name in source)
    card = load_yaml(retrained / "model" / "config.yaml")
    assert card["model"]["mask_members"] == 2
    assert card["model"]["mask_model"]["d_model"] == 8


def test_its_masks_are_the_highest_bins_of_the_mean_over_the_members(data, mask_run, retrained):
    dataset, rows = Dataset(data), np.arange(6)
    _, theirs = next(iter(iterate(open_run(mask_run), dataset, rows)))
    mean = torch.stack([out.mean_BN for out in theirs]).mean(0)
    _, (mine,) = next(iter(iterate(open_run(retrained), dataset, rows)))
    inside = mine.mask_BN.sum(1)
    assert inside.max() == int(0.4 * 16)
    mean[:, 7:9] = torch.inf
    free = next(iter(iterate(open_run(retrained), dataset, rows)))[0]
    allowed = ~free.blacklist_BN & free.valid_BN
    for scores, kept, may in zip(mean, mine.mask_BN.bool(), allowed, strict=True):
        if (may & ~kept).any():
            assert scores[kept].min() >= scores[may & ~kept].max()


def test_everything_works_when_the_mask_run_is_gone(data, mask_run, retrained, tmp_path):
    """Resumed after one epoch without it: bit for bit the unbroken run; then predicted with."""
    lent = shutil.copytree(mask_run, tmp_path / "lent")
    config = retrain_config(lent, fit={"max_epochs": 2, "ema_decay": 0.9})
    out = tmp_path / "run"
    train(retrain_config(lent, fit={"max_epochs": 2, "ema_decay": 0.9}), data, out)
    assert weights(out) == weights(retrained)
    (tmp_path / "broken").mkdir()
    _stop_after_one_epoch(config, data, tmp_path / "broken" / "run")
    shutil.rmtree(lent)
    train(config, data, tmp_path / "broken" / "run")
    assert weights(tmp_path / "broken" / "run") == weights(out)
    shutil.rmtree(out / "mask_model")
    moved = shutil.move(out, tmp_path / "moved")
    rows = np.arange(5)
    first = predict(open_run(moved), Dataset(data), rows).expression
    assert np.array_equal(first, predict(open_run(retrained), Dataset(data), rows).expression)


@pytest.mark.parametrize(("jitter", "saved"), [(0, 2), (8, 1)])
def test_stored_masks_save_the_mask_model_and_change_nothing(
    data, mask_run, tmp_path, monkeypatch, jitter, saved
):
    """It runs in one epoch of two; shifted windows need it in both."""
    calls = {True: 0, False: 0}
    original = Seq2Exp.mean_mask

    def trained(*, store):
        def counted(self, *arguments):
            calls[store] += 1
            return original(self, *arguments)

        monkeypatch.setattr(Seq2Exp, "mean_mask", counted)
        out = tmp_path / str(store)
        fit = {"max_epochs": 2, "store_masks": store}
        train(retrain_config(mask_run, fit=fit, data={"jitter_bp": jitter}), data, out)
        return weights(out)

    assert trained(store=True) == trained(store=False)
    assert calls[False] == saved * calls[True]


def test_stored_masks_come_back_bit_for_bit():
    stored, mask = StoredMasks(num_bins=13), torch.rand(5, 13) > 0.5
    stored.put(torch.tensor([7, 3, 9, 1, 4]), mask)
    assert torch.equal(stored.get(torch.tensor([9, 7])), mask[[2, 0]].float())


def _stop_after_one_epoch(config, data, out):
    def stop(self, trainer, module):
        if trainer.current_epoch == 1:
            raise RuntimeError("stopped")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricsTable, "on_train_epoch_start", stop)
        with pytest.raises(RuntimeError, match="stopped"):
            train(config, data, out)
    assert (out / "checkpoints" / "last.ckpt").is_file()
    assert not (out / "model").exists()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"data": {"window_bp": 1024}}, "window_bp 512 instead of 1024"),
        ({"data": {"tracks": ["DNase"]}}, r"tracks \['DNase', 'H3K27ac'\] instead of \['DNase'\]"),
        ({"data": {"bin_size": 16}}, "bin_size 32 instead of 16"),
        ({"data": {"strand": "plus"}}, "strand 'gene' instead of 'plus'"),
    ],
)
def test_a_mask_run_of_other_inputs_is_refused(data, mask_run, tmp_path, changes, match):
    with pytest.raises(ConfigError, match=match):
        train(retrain_config(mask_run, **changes), data, tmp_path / "run")


def test_a_mask_run_must_be_a_finished_run_that_learns_its_mask(data, mask_run, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        train(retrain_config(tmp_path / "absent"), data, tmp_path / "run")
    open_all = tiny_config(model={"mask": "none"}, fit={"max_epochs": 1})
    train(open_all, data, tmp_path / "none")
    with pytest.raises(ConfigError, match=r"mask_from.*a run with mask: none"):
        train(retrain_config(tmp_path / "none"), data, tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model": {"mask": "retrain"}}, "mask_from"),
        ({"mask_from": "run"}, "mask_from"),
        ({"model": {"mask": "peaks"}}, r"data\.elements"),
        ({"model": {"mask": "abc"}}, r"data\.elements"),
    ],
)
def test_what_a_mode_needs_is_asked_for_before_any_work(changes, match):
    with pytest.raises(ConfigError, match=match):
        bind(TrainConfig, changes, where="test")


def test_altered_settings_of_the_mask_model_are_noticed(retrained, tmp_path):
    from seq2exp.training.checkpoint import load_model

    folder = shutil.copytree(retrained / "model", tmp_path / "model")
    values = load_yaml(folder / "config.yaml")
    values["model"]["mask_model"]["generator_layers"] = 100_000
    dump_yaml(values, folder / "config.yaml")
    with pytest.raises(FormatError, match=r"mask_model\.generator_layers 100000"):
        load_model(folder)


MODES = [
    {"mask": "peaks", "gate": "pack"},
    {"mask": "abc", "gate": "delta", "abc_distance_bp": [60, 200]},
    {"mask": "hard", "gate": "pack", "posterior": "kumaraswamy"},
    {"mask": "soft", "posterior": "logistic_normal", "test_mask": "topk", "mask_budget": 0.3},
]


@pytest.mark.parametrize("model", MODES, ids=lambda model: "-".join(map(str, model.values())))
def test_every_mode_trains_predicts_and_is_mapped(data, tmp_path, model):
    needs = {"elements": "peaks"} if model["mask"] in ("peaks", "abc") else {}
    train(tiny_config(model=model, data=needs, fit={"max_epochs": 1}), data, tmp_path / "run")
    run, dataset = open_run(tmp_path / "run"), Dataset(data)
    everyone = np.arange(len(dataset.genes))
    whole = predict(run, dataset, everyone)
    assert np.isfinite(whole.expression).all()
    again = predict(run, dataset, everyone[::-1], batch_size=5)
    np.testing.assert_allclose(again.expression[::-1], whole.expression, atol=1e-5)
    calls = CallConfig(budget=0.2, min_length_bp=32)
    made = export_elements(tmp_path / "run", tmp_path / "map", config=calls)
    if needs:
        assert made.masks.alpha is None
        assert set(np.unique(made.masks.mask).tolist()) == {0.0, 1.0}
        distal = made.elements[made.elements["element_class"] == "distal"]
        assert len(distal) > 20
        assert (distal["mean_mask"] == 1).all()
    else:
        assert made.masks.alpha is not None


def test_a_dataset_without_the_set_is_refused(data, toy, tmp_path):
    config = tiny_config(model={"mask": "peaks"}, data={"elements": "peaks"}, fit={"max_epochs": 1})
    train(config, data, tmp_path / "run")
    with pytest.raises(ConfigError, match="no set of elements peaks"):
        predict(open_run(tmp_path / "run"), Dataset(toy), np.arange(2))
    with pytest.raises(ConfigError, match=r"data\.elements"):
        train(config, toy, tmp_path / "other")


@pytest.mark.parametrize("mask", ["retrain", "peaks", "abc"])
def test_the_sequence_control_drops_masks_that_come_from_tracks(data, mask_run, mask):
    config = (
        retrain_config(mask_run)
        if mask == "retrain"
        else tiny_config(
            model={"mask": mask, "gate": "pack", "mask_budget": 0.5}, data={"elements": "peaks"}
        )
    )
    control = control_config(config, Dataset(data), "sequence_only")
    assert control.model["mask"] == "none"
    assert control.data.elements is None
    assert control.mask_from == ""
    params = model_params(control, GeneSamples(Dataset(data), control.data, [0]))
    assert params["tracks"] == []
    shuffled = control_config(config, Dataset(data), "shuffled_tracks")
    assert shuffled.model["mask"] == mask


def test_a_set_of_elements_does_not_change_runs_that_ignore_it(data, toy, tmp_path, finished):
    train(tiny_config(), data, tmp_path / "run")
    assert weights(tmp_path / "run") == weights(finished)
    config = load_config(TrainConfig, [tmp_path / "run" / "config.yaml"])
    assert config.data.elements is None
