from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.spatial.config import SpatialFitConfig
from seq2exp.spatial.data import fit_labels, spot_table
from seq2exp.spatial.folds import make_folds
from seq2exp.spatial.images.augment import dihedral
from seq2exp.spatial.panels import PanelConfig
from seq2exp.spatial.recipes import RECIPES
from seq2exp.spatial.trainer import fit_module, predict_table


class Linear(nn.Module):
    """Standardised features to labels, with dropout, so that the mode matters."""

    requires = frozenset({"feat", "y"})

    def __init__(self, train):
        super().__init__()
        values = torch.from_numpy(train.feat_ND)
        self.register_buffer("mean", values.mean(0))
        self.register_buffer("scale", values.std(0).clamp_min(1e-3))
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(values.shape[1], train.y_NG.shape[1]))
        self.head[1].bias.data = torch.from_numpy(train.y_NG.mean(0))
        self.steps = 0

    def predict(self, batch):
        return self.head(((batch.feat - self.mean) / self.scale).clamp(-3, 3))

    def loss(self, batch, step):
        self.steps += 1
        return {"total": ((self.predict(batch) - batch.y) ** 2).mean()}


@pytest.fixture(scope="module")
def tables(cohort, features):
    fold = make_folds(cohort)[0]
    labels = fit_labels(cohort, fold, panel=PanelConfig("heg", 12), recipe=RECIPES["default"])
    return [
        spot_table(cohort, spots, labels, training=training, features=features)
        for spots, training in ((fold.train, True), (fold.test, False))
    ]


def made(train, seed=0):
    torch.manual_seed(seed)
    return Linear(train)


CONFIG = SpatialFitConfig(max_epochs=12, batch_size=16, lr=3e-3, patience=0)


def weights(module):
    return torch.cat([value.flatten() for value in module.state_dict().values()])


def test_it_learns_and_keeps_the_best_pass(tables):
    train, valid = tables
    module = made(train)
    history = fit_module(module, train, valid, dataclasses.replace(CONFIG, max_epochs=40))
    rows = history.rows
    assert rows[-1]["train_total"] < 0.7 * rows[0]["train_total"]
    scores = [row["valid_pearson"] for row in rows]
    assert history.best_epoch == int(np.argmax(scores))
    found = predict_table(module, valid)
    assert module.training is False
    per_gene = [
        np.mean([np.corrcoef(found[p, g], valid.y_NG[p, g])[0, 1] for g in range(12)])
        for _, p in valid.by_section()
    ]
    assert np.mean(per_gene) == pytest.approx(max(scores), abs=1e-5)


def test_another_score_chooses_another_pass(tables):
    """The score falls from pass to pass: the first is kept, though later ones correlate better."""
    train, valid = tables
    fallen, once = made(train), made(train)
    calls = iter(range(100))
    history = fit_module(
        fallen, train, valid, CONFIG, score=lambda module, table: -float(next(calls))
    )
    assert (history.best_epoch, history.best_score) == (0, 0.0)
    assert [row["valid_score"] for row in history.rows] == [-float(i) for i in range(12)]
    assert history.rows[-1]["valid_pearson"] > history.rows[0]["valid_pearson"]
    fit_module(once, train, valid, dataclasses.replace(CONFIG, max_epochs=1))
    for name, value in fallen.state_dict().items():
        assert torch.equal(value, once.state_dict()[name])


def test_a_killed_run_ends_with_the_same_weights(tables, tmp_path):
    train, valid = tables
    whole = made(train)
    fit_module(whole, train, valid, CONFIG)
    for stop in (1, 5):
        path = tmp_path / f"{stop}.pt"
        first = made(train)
        fit_module(
            first, train, valid, dataclasses.replace(CONFIG, max_epochs=stop), checkpoint=path
        )
        # A new process: other weights at hand, another state of the random generator.
        again = made(train, seed=9)
        torch.rand(7)
        history = fit_module(again, train, valid, CONFIG, checkpoint=path)
        assert again.steps < whole.steps
        assert torch.equal(weights(again), weights(whole))
        assert [row["epoch"] for row in history.rows] == list(range(12))


def test_patience_stops(tables):
    train, valid = tables
    config = dataclasses.replace(CONFIG, max_epochs=300, patience=3, lr=0.03)
    history = fit_module(made(train), train, valid, config)
    assert len(history.rows) < 300
    assert history.rows[-1]["epoch"] == history.best_epoch + 3


def test_predictions_do_not_depend_on_the_batch(tables, monkeypatch):
    train, valid = tables
    module = made(train)
    whole = predict_table(module, valid)
    assert module.training
    np.testing.assert_array_equal(whole, predict_table(module, valid))
    monkeypatch.setattr("seq2exp.spatial.trainer._PREDICT_BATCH", 1)
    np.testing.assert_allclose(predict_table(module, valid), whole, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(valid))
    np.testing.assert_allclose(predict_table(module, valid.take(order)), whole[order], atol=1e-5)


def test_every_spot_is_seen_once_in_a_pass(tables):
    train, valid = tables
    seen = []

    class Watching(Linear):
        def loss(self, batch, step):
            seen.extend((batch.section * 1000 + batch.spot).tolist())
            return super().loss(batch, step)

    torch.manual_seed(0)
    fit_module(Watching(train), train, valid, dataclasses.replace(CONFIG, max_epochs=2))
    first, second = seen[: len(train)], seen[len(train) :]
    assert (
        sorted(first) == sorted(second) == sorted((train.section_N * 1000 + train.row_N).tolist())
    )
    assert first != second


@pytest.mark.parametrize("negatives", ["any", "within_slide"])
def test_a_system_says_where_its_negatives_come_from(tables, negatives):
    train, valid = tables
    mixed = []

    class Contrasting(Linear):
        batches = negatives

        def loss(self, batch, step):
            mixed.append(len(batch.section.unique()) > 1)
            return super().loss(batch, step)

    torch.manual_seed(0)
    fit_module(Contrasting(train), train, valid, dataclasses.replace(CONFIG, max_epochs=2))
    assert any(mixed) == (negatives == "any")


@pytest.mark.parametrize("augment", ["none", "dihedral"])
def test_patches_of_training_are_turned_anew_in_every_pass_and_of_validation_never(
    cohort, features, augment
):
    """Each is its patch under a symmetry; with turns, half or more differ from pass to pass."""
    fold = make_folds(cohort)[0]
    labels = fit_labels(cohort, fold, panel=PanelConfig("heg", 12), recipe=RECIPES["default"])
    needs = frozenset({"img", "feat"})
    train, valid = (
        spot_table(cohort, spots, labels, training=True, features=features, needs=needs)
        for spots in (fold.train, fold.valid)
    )
    shown = {True: [], False: []}

    class Watching(Linear):
        requires = frozenset({"img", "feat", "y"})

        def predict(self, batch):
            keys = (batch.section * 1000 + batch.spot).tolist()
            shown[self.training].append(dict(zip(keys, batch.img, strict=True)))
            return super().predict(batch)

    def pictures(table):
        batch = table.batch(np.arange(len(table)), needs=needs)
        return dict(zip((batch.section * 1000 + batch.spot).tolist(), batch.img, strict=True))

    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, max_epochs=2, augment=augment)
    fit_module(Watching(train), train, valid, config)
    half = len(shown[True]) // 2
    passes = [
        {key: img for batch in part for key, img in batch.items()}
        for part in (shown[True][:half], shown[True][half:])
    ]
    plain, turned = pictures(train), []
    assert passes[0].keys() == passes[1].keys() == plain.keys()
    for key, picture in plain.items():
        kinds = [
            next(kind for kind in range(8) if torch.equal(dihedral(picture, kind), each[key]))
            for each in passes
        ]
        turned.append(kinds)
    kinds = np.array(turned)
    assert kinds.any() == (augment == "dihedral")
    assert (kinds[:, 0] != kinds[:, 1]).mean() > (0.5 if augment == "dihedral" else -1)
    still = pictures(valid)
    for batch in shown[False]:
        assert all(torch.equal(img, still[key]) for key, img in batch.items())


def test_a_system_is_told_after_every_step_of_the_optimiser(tables):
    """It puts back what must stay in bounds: after the step, so validation and files hold that."""
    train, valid = tables

    class Bounded(Linear):
        calls = 0

        def after_step(self):
            self.calls += 1
            with torch.no_grad():
                self.head[1].weight.clamp_(-0.01, 0.01)

        def predict(self, batch):
            assert self.calls < 1 or self.head[1].weight.abs().max() <= 0.01 + 1e-7
            return super().predict(batch)

    torch.manual_seed(0)
    module = Bounded(train)
    fit_module(module, train, valid, dataclasses.replace(CONFIG, max_epochs=2))
    assert module.calls == module.steps > 2


def test_what_is_missing_is_named(tables):
    train, valid = tables
    module = made(train)
    bare = dataclasses.replace(train, feat_ND=None)
    with pytest.raises(ConfigError, match=r"no feat.*choose an image encoder"):
        fit_module(module, bare, valid, CONFIG)


def test_a_loss_that_is_no_number_stops(tables):
    train, valid = tables
    broken = dataclasses.replace(train, feat_ND=np.full_like(train.feat_ND, np.nan))
    with pytest.raises(InputError, match="loss of nan"):
        fit_module(made(train), broken, valid, CONFIG)
