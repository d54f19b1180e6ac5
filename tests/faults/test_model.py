"""F28, F29 and F41: models and datasets that do not fit, numbers that are none, determinism."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import torch

from seq2exp.cli.main import main
from seq2exp.core.config import dump_yaml
from seq2exp.core.errors import ConfigError, InputError
from seq2exp.core.files import read_json, sha256
from seq2exp.dataset import format as layout
from seq2exp.dataset.samples import Batch, GeneSamples, collate
from seq2exp.dataset.store import Dataset
from seq2exp.training.metrics import bootstrap
from seq2exp.training.module import ExpressionModule, NumericsError, forward_batch
from seq2exp.training.predict import predict
from seq2exp.training.run import open_run
from seq2exp.training.trainer import train
from tests.runs import tiny_config
from tests.toys import ToyPlan, toy_dataset


def edited(toy, place, **changes):
    """A dataset whose manifest says something else; its files stay as they are."""
    root = shutil.copytree(toy, place)
    path = layout.manifest_path(root)
    path.write_text(json.dumps(read_json(path) | changes))
    return root


# F28 -------------------------------------------------------------------------------------------


def test_f28_all_differences_are_listed_at_once(finished, tmp_path):
    other = toy_dataset(tmp_path / "d", ToyPlan(tracks=("ATAC",), features=False, bin_size=32))
    path = layout.manifest_path(other)
    path.write_text(json.dumps(read_json(path) | {"assembly": "toy2"}))
    with pytest.raises(ConfigError) as caught:
        open_run(finished).check_dataset(Dataset(other))
    message = str(caught.value)
    for part in ("assembly toy2 instead of toy1", "no track DNase", "no track H3K27ac",
                 "no feature log10_length", "no feature promoter_DNase",
                 "bin_size 32 instead of 16", "7 in all"):  # fmt: skip
        assert part in message


def test_f28_a_track_stored_with_another_transform(finished, toy, tmp_path):
    tracks = read_json(layout.manifest_path(toy))["tracks"]
    tracks[0]["transform"] = "log1p"
    other = edited(toy, tmp_path / "d", tracks=tracks)
    with pytest.raises(ConfigError, match="DNase stored as log1p instead of none"):
        open_run(finished).check_dataset(Dataset(other))


def test_f28_tracks_are_found_by_name_not_by_place(finished, toy, tmp_path):
    """The same tracks in another order give the same predictions."""
    swapped = shutil.copytree(toy, tmp_path / "d")
    manifest = read_json(layout.manifest_path(swapped))
    manifest["tracks"].reverse()
    for contig in manifest["contigs"]:
        path = layout.tracks_path(swapped, contig)
        np.save(path, np.load(path)[:, ::-1].copy())
    layout.manifest_path(swapped).write_text(json.dumps(manifest))
    run, rows = open_run(finished), np.arange(6)
    straight = predict(run, Dataset(toy), rows).expression
    assert np.array_equal(predict(run, Dataset(swapped), rows).expression, straight)


def test_f28_every_command_refuses_before_it_writes(finished, tmp_path, capsys):
    other = toy_dataset(tmp_path / "d", ToyPlan(tracks=("ATAC",)))
    for line in (["evaluate"], ["predict", "--out", str(tmp_path / "x.parquet")],
                 ["elements", "--out", str(tmp_path / "x")]):  # fmt: skip
        assert main([line[0], str(finished), "--data", str(other), *line[1:]]) == 2
        errors = capsys.readouterr().err
        assert "no track DNase; no track H3K27ac" in errors
        assert "Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_f28_a_run_is_not_continued_on_another_dataset(finished, tmp_path):
    other = toy_dataset(tmp_path / "d", ToyPlan(seed=5))
    with pytest.raises(InputError, match="dataset checksum"):
        train(tiny_config(), other, finished)


# F29 -------------------------------------------------------------------------------------------


def poisoned(monkeypatch, step):
    """From this step on the model returns NaN, as after an exploded update."""
    original, calls = ExpressionModule.training_step, [0]

    def counted(self, batch, batch_idx):
        calls[0] += 1
        if calls[0] == step:
            with torch.no_grad():
                next(p for p in self.model.parameters() if p.requires_grad).fill_(math.nan)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(ExpressionModule, "training_step", counted)


def test_f29_a_nan_loss_stops_with_step_genes_and_a_saved_batch(toy, tmp_path, monkeypatch):
    run = tmp_path / "run"
    poisoned(monkeypatch, 5)  # epoch 1, three steps an epoch
    with pytest.raises(NumericsError) as caught:
        train(tiny_config(), toy, run)
    message = str(caught.value)
    assert message.startswith("training step 4: found loss nan")
    saved = torch.load(run / "debug_batch_step_4.pt", weights_only=True)
    ids = Dataset(toy).genes["gene_id"].iloc[saved["index_B"].tolist()]
    assert ", ".join(ids[:3]) in message
    assert "debug_batch_step_4.pt" in message
    genes = Dataset(toy)
    window = GeneSamples(genes, tiny_config().data, saved["index_B"].numpy())
    assert saved["codes_BL"].shape == (len(window), 512)
    best = torch.load(run / "checkpoints" / "best.pt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in best.values())
    assert not (run / "model").exists()


def test_f29_a_nan_loss_is_a_user_error_on_the_command_line(toy, tmp_path, monkeypatch, capsys):
    dump_yaml(tiny_config(), tmp_path / "c.yaml")
    poisoned(monkeypatch, 1)
    line = ["train", "--config", str(tmp_path / "c.yaml"), "--data", str(toy)]
    assert main([*line, "--out", str(tmp_path / "run")]) == 2
    errors = capsys.readouterr().err
    assert "error: training step 0: found loss nan" in errors
    assert "Traceback" not in errors


def test_f29_a_nan_validation_is_never_the_best(toy, tmp_path, monkeypatch):
    original = ExpressionModule.on_validation_epoch_end

    def blind(self):
        original(self)
        if self.trainer.current_epoch == 0:
            self.history["valid_loss"] = math.nan

    monkeypatch.setattr(ExpressionModule, "on_validation_epoch_end", blind)
    train(tiny_config(), toy, tmp_path / "run")
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    states = [value for value in last["callbacks"].values() if "best_epoch" in value]
    assert [(s["best_epoch"], math.isfinite(s["best"])) for s in states] == [(1, True)]


def test_f29_without_any_finite_validation_there_is_no_model(toy, tmp_path, monkeypatch):
    def blind(self):
        self.history = dict.fromkeys(("valid_loss", "valid_mse", "valid_pearson"), math.nan)
        self.history["mask_ratio"] = 0.5

    monkeypatch.setattr(ExpressionModule, "on_validation_epoch_end", blind)
    with pytest.raises(InputError, match="no epoch with a finite validation loss"):
        train(tiny_config(), toy, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()


def changed(batch, **values):
    return Batch(**{name: values.get(name, getattr(batch, name)) for name in vars(batch)})


@pytest.fixture(scope="module")
def model_and_batch(finished, toy):
    run = open_run(finished)
    samples = GeneSamples(Dataset(toy), run.card.data, np.arange(6))
    return run.models[0], collate([samples[i] for i in range(6)])


@pytest.mark.parametrize("case", ["all N", "all masked", "outside", "no data", "alone"])
def test_f29_odd_windows_give_finite_predictions(model_and_batch, case):
    model, batch = model_and_batch
    odd = {
        "all N": changed(batch, codes_BL=torch.full_like(batch.codes_BL, 4)),
        "all masked": changed(batch, blacklist_BN=torch.ones_like(batch.blacklist_BN)),
        "outside": changed(batch, valid_BN=torch.zeros_like(batch.valid_BN)),
        "no data": changed(batch, signal_BNT=torch.full_like(batch.signal_BNT, math.nan)),
        "alone": Batch(**{name: value[:1] for name, value in vars(batch).items()}),
    }[case]
    with torch.no_grad():
        output = forward_batch(model, odd)
    assert torch.isfinite(output.expression_BK).all()
    assert torch.isfinite(output.kl_B).all()
    assert ((output.mask_BN >= 0) & (output.mask_BN <= 1)).all()
    assert len(output.expression_BK) == len(odd)


def test_f29_an_empty_batch_is_an_empty_answer(model_and_batch):
    model, batch = model_and_batch
    empty = Batch(**{name: value[:0] for name, value in vars(batch).items()})
    with torch.no_grad():
        assert forward_batch(model, empty).expression_BK.shape == (0, 2)


def test_f29_constant_labels_give_nan_with_a_count_not_zero():
    constant, varied = np.ones(12), np.arange(12.0)
    for observed, predicted in ((constant, varied), (varied, constant)):
        for metric in ("pearson", "spearman"):
            estimate = bootstrap(observed, predicted, metric, num_resamples=20)
            assert math.isnan(estimate.value)
            assert estimate.n == 12


def test_f29_evaluation_of_constant_labels_is_valid_json(toy, finished, tmp_path, capsys):
    """NaN is no JSON: the value is null, the count stays."""
    import pandas as pd

    flat = shutil.copytree(toy, tmp_path / "flat")
    labels = layout.read_table(layout.expression_path(flat))
    constant = pd.DataFrame({name: labels["gene_id"] if name == "gene_id" else np.float32(1)
                             for name in labels})  # fmt: skip
    layout.write_table(constant, layout.expression_path(flat))
    layout.finish_manifest(flat, layout.read_manifest(flat))
    run = shutil.copytree(finished, tmp_path / "run")
    line = ["evaluate", str(run), "--data", str(flat), "--resamples", "20"]
    assert main([*line, "--json", str(tmp_path / "e.json")]) == 0
    rows = json.loads((tmp_path / "e.json").read_text(), parse_constant=pytest.fail)["rows"]
    correlations = [row for row in rows if row["metric"] == "pearson"]
    assert correlations
    assert all(row["value"] is None and row["n"] == 12 for row in correlations)


# F41 -------------------------------------------------------------------------------------------


def test_f41_the_same_seed_twice_gives_the_same_bytes(toy, finished, tmp_path):
    """tests/training/test_trainer.py shows that worker processes change nothing either."""
    train(tiny_config(), toy, tmp_path / "again")
    names = ("model/model.safetensors", "metrics.csv", "checkpoints/best.pt")
    for name in names[:2]:
        assert sha256(tmp_path / "again" / name) == sha256(finished / name)
    first, second = (torch.load(run / names[2], weights_only=True)
                     for run in (finished, tmp_path / "again"))  # fmt: skip
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_f41_one_batch_or_seven_shards(toy, finished):
    """Predictions of shards, put together, equal those of one pass."""
    run, dataset = open_run(finished), Dataset(toy)
    rows = np.arange(len(dataset.genes))
    whole = predict(run, dataset, rows, batch_size=4).expression
    for num_shards in (1, 7):
        parts = [predict(run, dataset, part, batch_size=4).expression
                 for part in np.array_split(rows, num_shards)]  # fmt: skip
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5, atol=1e-6)


def test_f41_evaluating_twice_gives_the_same_numbers(finished, tmp_path, capsys):
    run = shutil.copytree(finished, tmp_path / "run")
    found = []
    for number in range(2):
        out = tmp_path / f"{number}.json"
        assert main(["evaluate", str(run), "--resamples", "30", "--json", str(out)]) == 0
        found.append(json.loads(out.read_text())["rows"])
    assert found[0] == found[1]
