"""Groups of people: balanced, and a function of seed, epoch and index alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from seq2exp.cohort.groups import GroupConfig, GroupPlan
from seq2exp.core.errors import ConfigError


def plan(known, *, people=4, per_gene=3, seed=0):
    genes = np.arange(len(known)) * 10
    return GroupPlan(genes, known, GroupConfig(people, per_gene), seed=seed)


def test_every_gene_has_its_groups_and_every_person_its_turn():
    known = np.ones((3, 12), dtype=bool)
    made = plan(known)
    assert len(made) == 9
    for epoch in range(4):
        seen = {gene: [] for gene in (0, 10, 20)}
        for item in range(9):
            group = made.group(item, epoch)
            assert len(set(group.people.tolist())) == 4
            seen[group.gene] += group.people.tolist()
        # 3 groups of 4 are all 12 people, once each.
        assert all(sorted(people) == list(range(12)) for people in seen.values())


def test_people_are_balanced_where_groups_do_not_divide_them():
    made = plan(np.ones((1, 7), dtype=bool), people=3, per_gene=2)
    counts = np.zeros(7)
    for epoch in range(70):
        for item in range(2):
            group = made.group(item, epoch).people
            assert len(set(group.tolist())) == 3
            counts[group] += 1
    assert counts.sum() == 420
    assert np.ptp(counts) <= 12


def test_people_meet_others_when_all_have_been_through():
    made = plan(np.ones((1, 12), dtype=bool))
    laps = [{tuple(sorted(made.group(i, epoch).people)) for i in range(3)} for epoch in range(4)]
    assert all(first != second for first, second in pairwise(laps))


def test_a_group_depends_on_nothing_but_seed_epoch_and_index():
    known = np.ones((2, 30), dtype=bool)
    first, again, other = plan(known), plan(known), plan(known, seed=1)
    again.group(5, 9)
    assert (first.group(3, 2).people == again.group(3, 2).people).all()
    assert (first.group(3, 2).people != other.group(3, 2).people).any()
    assert (first.group(3, 2).people != first.group(3, 5).people).any()
    assert (first.group(0, 0).people != first.group(3, 0).people).any()


def test_people_without_expression_are_never_drawn():
    known = np.zeros((1, 20), dtype=bool)
    known[0, [3, 8, 15]] = True
    made = plan(known, people=16)
    for epoch in range(5):
        assert sorted(made.group(0, epoch).people.tolist()) == [3, 8, 15]


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"groups\.people"):
        GroupConfig(people=0)
