from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from seq2exp.spatial.data import fit_labels, spot_table
from seq2exp.spatial.folds import FoldConfig, make_folds
from seq2exp.spatial.panels import PanelConfig
from seq2exp.spatial.recipes import RECIPES, grid_mean


@pytest.fixture
def reordered(cohort):
    """Section A2 lists its genes the other way round, and lacks one of them."""
    section = cohort.section("A2")
    before = section.counts_NA, section.var
    object.__setattr__(section, "counts_NA", before[0][:, ::-1][:, :-1].tocsr())
    object.__setattr__(section, "var", before[1].iloc[::-1].iloc[:-1])
    yield before[1].index[0]
    for name, value in zip(("counts_NA", "var"), before, strict=True):
        object.__setattr__(section, name, value)


@pytest.mark.parametrize(("train", "judge"), [(True, False), (False, True)])
def test_labels_are_smoothed_for_training_and_for_judging_as_each_is_told(cohort, train, judge):
    plain = RECIPES["default"]
    recipe = dataclasses.replace(plain, smooth_train=train, smooth_eval=judge)
    fold = make_folds(cohort)[0]
    config = PanelConfig("heg", 6)
    labels = fit_labels(cohort, fold, panel=config, recipe=recipe)
    raw = fit_labels(cohort, fold, panel=config, recipe=plain)
    for training, smooth in ((True, train), (False, judge)):
        found = spot_table(cohort, fold.test, labels, training=training)
        expected = spot_table(cohort, fold.test, raw, training=training)
        for _, places in expected.by_section():
            values = expected.y_NG[places].astype(float)
            if smooth:
                values = grid_mean(values, expected.grid_N2[places])
            np.testing.assert_allclose(found.y_NG[places], values, rtol=1e-5)


def test_every_row_is_its_spot_and_every_column_its_gene(cohort, features, reordered):
    """By section and row, and by gene id: columns of another order, spots of a block fold."""
    config = PanelConfig("list", genes=(reordered, "G7", "G2", "G25"))
    whole = next(fold for fold in make_folds(cohort) if "A2" in fold.test)
    labels = fit_labels(cohort, whole, panel=config, recipe=RECIPES["default"])
    fold = make_folds(cohort, FoldConfig("blocks"))[1]
    table = spot_table(cohort, fold.fitting, labels, training=True, features=features)
    assert {name for name, _ in table.by_section()} == set(cohort.names)
    for name, places in table.by_section():
        section, rows = cohort.section(name), fold.fitting[name]
        np.testing.assert_array_equal(table.row_N[places], rows)
        total = np.asarray(section.counts_NA.sum(axis=1)).ravel()[rows]
        np.testing.assert_array_equal(table.total_N[places], section.total_N[rows])
        np.testing.assert_array_equal(table.feat_ND[places], features.feat(name)[rows])
        np.testing.assert_array_equal(table.grid_N2[places], section.grid_N2[rows])
        np.testing.assert_allclose(table.size_N[places], total / 1e4, rtol=1e-6)
        for column, gene in enumerate(labels.panel.symbol):
            if gene not in section.var.index:
                assert (name, gene) == ("A2", reordered)
                assert np.isnan(table.y_NG[places, column]).all()
                continue
            there = section.var.index.get_loc(gene)
            counts = section.counts_NA[:, [there]].toarray().ravel()[rows]
            np.testing.assert_array_equal(table.counts_NG[places, column], counts)
            expected = np.log(counts * 1e4 / total + 1)
            np.testing.assert_allclose(table.y_NG[places, column], expected, rtol=1e-5)
    batch = table.batch(np.arange(len(table))[::-1].copy())
    np.testing.assert_array_equal(batch.counts, table.counts_NG[::-1])
    np.testing.assert_array_equal(batch.gene_mask, np.isfinite(table.y_NG[::-1]))
    np.testing.assert_array_equal(batch.spot, table.row_N[::-1])
