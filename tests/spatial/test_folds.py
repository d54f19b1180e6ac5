from __future__ import annotations

import numpy as np
import pytest

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.spatial.folds import (
    Fold,
    FoldConfig,
    gene_folds,
    make_folds,
    require_no_overlap,
    spatial_blocks,
)
from tests.spatial.fakes import small_cohort


def patients_of(cohort, spots):
    return {cohort.patients[name] for name, rows in spots.items() if rows.size}


def test_every_patient_is_held_out_once_and_never_leaks(tmp_path):
    cohort = small_cohort(tmp_path, {"A1": "A", "B1": "B", "B2": "B", "C1": "C"})
    folds = make_folds(cohort)
    assert [fold.name for fold in folds] == ["A", "B", "C"]
    for fold in folds:
        parts = [patients_of(cohort, part) for part in (fold.train, fold.valid, fold.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 3
        assert parts[2] == {fold.name}
        assert not fold.leaky
    grouped = make_folds(cohort, FoldConfig(num_folds=2))
    held = [patient for fold in grouped for patient in patients_of(cohort, fold.test)]
    assert sorted(held) == ["A", "B", "C"]
    with pytest.raises(InputError, match="4 for 3 patients"):
        make_folds(cohort, FoldConfig(num_folds=4))


def test_sections_of_a_patient_on_both_sides_are_marked(cohort):
    folds = make_folds(cohort, FoldConfig("section"))
    assert [fold.name for fold in folds] == cohort.names
    assert all(fold.leaky for fold in folds)
    assert set(folds[0].test) == {"A1"}
    assert "A2" in folds[0].fitting


def test_one_patient_cannot_be_split_by_patient(tmp_path):
    cohort = small_cohort(tmp_path, {"A1": "A", "A2": "A"})
    with pytest.raises(InputError, match=r"one patient.*section or blocks"):
        make_folds(cohort)
    (first, second) = make_folds(cohort, FoldConfig("section"))
    # The only other section is cut into training and validation blocks, with a gap between.
    rows = first.train["A2"], first.valid["A2"]
    assert set(first.test) == {"A1"}
    assert set(second.test) == {"A2"}
    assert not np.intersect1d(*rows).size
    grid = cohort.section("A2").grid_N2
    gap = np.abs(grid[rows[0]][:, None] - grid[rows[1]][None]).max(axis=2).min()
    assert gap >= 2


def test_blocks_cover_every_spot_once_with_a_buffer(cohort):
    folds = make_folds(cohort, FoldConfig("blocks"))
    assert len(folds) == 4
    assert all(fold.leaky for fold in folds)
    for section in cohort.sections():
        held = np.concatenate([fold.test[section.name] for fold in folds])
        np.testing.assert_array_equal(np.sort(held), np.arange(len(section)))
    for fold in folds:
        for name, rows in fold.test.items():
            grid = cohort.section(name).grid_N2
            other = grid[fold.fitting[name]]
            assert np.abs(grid[rows][:, None] - other[None]).max(axis=2).min() >= 2


def test_blocks_are_contiguous_and_about_equal():
    grid = np.array([(r, c) for r in range(20) for c in range(5)])
    for seed in range(4):
        number = spatial_blocks(grid, num_blocks=5, seed=seed)
        held = grid[number == 0]
        assert len(held) == 20
        assert np.ptp(held[:, 0]) == 3
    with pytest.raises(InputError, match="9 spots"):
        spatial_blocks(grid[:9], num_blocks=5)


def test_gene_folds_hide_every_gene_once_and_are_alike_in_mean():
    mean = np.random.default_rng(0).gamma(2, size=103)
    folds = gene_folds(mean, num_folds=5, seed=3)
    np.testing.assert_array_equal(np.sort(np.concatenate(folds)), np.arange(103))
    # Of each five neighbours in rank one goes to each fold.
    rank = np.argsort(np.argsort(mean))
    assert all(
        np.bincount(rank[fold] // 5, minlength=21)[:20].tolist() == [1] * 20 for fold in folds
    )
    assert not np.array_equal(folds[0], gene_folds(mean, num_folds=5, seed=4)[0])
    with pytest.raises(ConfigError, match="gene folds"):
        gene_folds(mean, num_folds=1)


def test_f20_a_patient_or_a_spot_on_two_sides_is_refused():
    rows = np.arange(4)
    patients = {"A1": "A", "A2": "A", "B1": "B"}
    with pytest.raises(InputError, match="spots of A1 in train and valid"):
        require_no_overlap(Fold("x", {"A1": rows}, {"A1": rows[3:]}, {"B1": rows}), patients)
    leak = Fold("x", {"A1": rows}, {"B1": rows[:1]}, {"A2": rows})
    with pytest.raises(InputError, match="patient A on both sides"):
        require_no_overlap(leak, patients)
    require_no_overlap(Fold("x", leak.train, leak.valid, leak.test, leaky=True), patients)


def test_a_single_fold_is_refused():
    with pytest.raises(ConfigError, match="num_folds"):
        FoldConfig(num_folds=1)
