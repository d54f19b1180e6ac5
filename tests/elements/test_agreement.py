from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from seq2exp.core.errors import InputError
from seq2exp.elements.agreement import replicate_agreement, replicate_masks
from tests.elements.hand import BIN, masks_of


def two_members(num_genes=60, num_bins=40, seed=0):
    """Bins 5 and 25 are strong in both members, bin 15 in the first only, the rest is noise."""
    random = np.random.default_rng(seed)
    members = 0.3 * random.random((2, num_genes, num_bins))
    strong = random.uniform(0.6, 0.9, (num_genes, 2))
    members[:, :, [5, 25]] = strong + random.normal(0, 0.02, (2, num_genes, 2))
    members[0, :, 15] = random.uniform(0.6, 0.9, num_genes)
    stacked = members.astype(np.float16)
    return masks_of(members.mean(axis=0), members={"mask": stacked})


def elements_at(num_genes, *bins):
    gene = np.arange(num_genes).repeat(len(bins))
    start = gene * 40 * BIN + np.tile(bins, num_genes) * BIN
    return pd.DataFrame({"gene": gene, "start": start, "end": start + BIN})


def test_elements_of_both_members_are_reproducible():
    masks = two_members()
    elements = elements_at(60, 5, 15, 25)
    found = replicate_agreement(masks, replicate_masks(masks), elements, threshold=0.4)
    assert found.summary["num_replicates"] == 2
    assert found.summary["converged"]
    assert found.summary["num_candidates"] > 180
    calling = found.num_calling.reshape(60, 3)
    np.testing.assert_array_equal(calling, np.tile([2, 1, 2], (60, 1)))
    idr = found.idr.reshape(60, 3)
    assert np.median(idr[:, [0, 2]]) < 0.05
    assert np.median(idr[:, 1]) > 5 * np.median(idr[:, [0, 2]])


def test_one_member_says_so():
    masks = masks_of(np.random.default_rng(0).random((3, 40)))
    found = replicate_agreement(masks, replicate_masks(masks), elements_at(3, 5), threshold=0.5)
    assert np.isnan(found.num_calling).all()
    assert np.isnan(found.idr).all()
    assert "one replicate only" in found.summary["reason"]


def test_too_few_candidates_and_constant_masks_say_so():
    few = two_members(num_genes=1)
    found = replicate_agreement(few, replicate_masks(few), elements_at(1, 5), threshold=0.4)
    assert "20 are needed" in found.summary["reason"]
    np.testing.assert_array_equal(found.num_calling, [2])
    masks = two_members()
    flat = np.stack([masks.members["mask"][0], np.full(masks.mask.shape, 0.5, np.float16)])
    found = replicate_agreement(masks, list(flat), elements_at(60, 5), threshold=0.4)
    assert "alike" in found.summary["reason"]
    assert np.isnan(found.idr).all()


def test_several_runs_stand_for_replicates():
    one, two = two_members(seed=1), two_members(seed=2)
    found = replicate_masks(one, [two])
    np.testing.assert_array_equal(found[0], one.mask)
    np.testing.assert_array_equal(found[1], two.mask)
    shifted = two.genes.assign(start=two.genes["start"] + 50)
    with pytest.raises(InputError, match="differ in their seed only"):
        replicate_masks(one, [dataclasses.replace(two, genes=shifted)])


def test_no_element_at_all():
    masks = two_members()
    none = elements_at(60, 5).iloc[:0]
    found = replicate_agreement(masks, replicate_masks(masks), none, threshold=np.inf)
    assert found.idr.size == found.num_calling.size == 0
