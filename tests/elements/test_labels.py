from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from seq2exp.core.errors import InputError
from seq2exp.elements.calibration import false_calls
from seq2exp.elements.calling import CallConfig, call_elements
from seq2exp.elements.labels import Labels, label_curve, label_summary, labelled_genes
from seq2exp.elements.masks import EXCLUDED
from seq2exp.elements.references import Reference
from seq2exp.elements.truth import Truth
from tests.elements.hand import BIN, drawn_masks, masks_of


def labels_of(rows, *, kind="links", splits=("valid",)):
    """Return labels; rows are (start, end, gene_id, causal)."""
    frame = pd.DataFrame(rows, columns=["start", "end", "gene_id", "causal"])
    frame = frame.assign(chrom="chr1", kind="element")
    return Labels(Reference("hand", Path("hand.tsv"), kind, Truth(frame, "hand")), splits)


def drawn_labels(masks, element, *, splits=("valid",)):
    gene, place = np.nonzero(element)
    start = masks.genes["start"].to_numpy()[gene] + place * BIN
    names = masks.genes["gene_id"].to_numpy()[gene]
    rows = [(at, at + BIN, name, True) for at, name in zip(start, names, strict=True)]
    return labels_of(rows, splits=splits)


@pytest.mark.parametrize("level", [0.05, 0.1, 0.3])
def test_the_stated_level_holds_for_genes_without_labels(level):
    """Labels of the even genes; judged on the odd ones, which follow the same law."""
    masks, _, element = drawn_masks(num_genes=2000, num_bins=100, share=0.1, seed=4)
    labels = drawn_labels(masks, element)
    curve = label_curve(masks, labels, min_length=BIN)
    elements, threshold = call_elements(masks, CallConfig(fdr=level, max_gap_bp=0), curve=curve)
    truth = drawn_labels(masks, element).reference.truth
    found = false_calls(elements, truth)
    split = masks.genes.set_index("gene_id")["split"].loc[found["gene_id"]].to_numpy()
    held_out = found.loc[split == "test", "not_causal"]
    assert len(held_out) > 2000
    assert curve.value(threshold) == pytest.approx(held_out.mean(), rel=0.1)
    assert curve.value(threshold) == pytest.approx(level, rel=0.1)


def test_counts_by_hand():
    """g0 and g2 are labelled; the calls of g1 do not count."""
    masks = masks_of([[0.9, 0.1, 0.8, 0.1], [0.9, 0.1, 0.9, 0.1], [0.7, 0.1, 0.6, 0.1]])
    # g0: its first bin acts; g2: its second called bin acts.
    labels = labels_of([(0, 50, "g0", True), (1050, 1060, "g2", True)])
    curve = label_curve(masks, labels, min_length=BIN)
    counts = zip(curve.observed, curve.null, strict=True)
    by_threshold = dict(zip(curve.threshold.round(2), counts, strict=True))
    # (called, false): the thresholds below the peak of the true ones are left out.
    assert by_threshold == {0.6: (4, 2), 0.7: (3, 2), 0.8: (2, 1), 0.9: (1, 0)}
    np.testing.assert_allclose(curve.fdr, [3 / 4, 1, 1, 1])


def test_only_tested_places_count_in_a_table_of_tests():
    """Of four calls one touches what acts, one what was tested without effect, two neither."""
    masks = masks_of([[0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.9, 0.1]])
    tests = [(20, 80, "g0", True), (250, 260, "g0", False), (150, 180, "g0", True)]
    known = label_curve(masks, labels_of(tests, kind="crispri"), min_length=BIN)
    assert (known.observed[-1], known.null[-1]) == (2, 1)
    everything = label_curve(masks, labels_of(tests), min_length=BIN)
    assert (everything.observed[-1], everything.null[-1]) == (4, 3)


@pytest.mark.filterwarnings("ignore:elements.*no distal element")
@pytest.mark.parametrize(("gap", "length"), [(0, 100), (100, 200)])
def test_counts_are_those_of_the_caller(gap, length):
    random = np.random.default_rng(7)
    forced = np.where(random.random((30, 40)) < 0.05, EXCLUDED, 0)
    masks = masks_of(random.random((30, 40)), forced)
    labels = drawn_labels(masks, random.random((30, 40)) < 0.1, splits=("valid", "test"))
    curve = label_curve(masks, labels, max_gap=gap, min_length=length, num_thresholds=12)
    named = masks.genes["gene_id"].iloc[labelled_genes(masks.genes, labels)]
    steps = zip(curve.threshold, curve.observed, curve.null, strict=True)
    for threshold, observed, false in steps:
        rule = CallConfig(threshold=threshold, max_gap_bp=gap, min_length_bp=length)
        found = false_calls(call_elements(masks, rule)[0], labels.reference.truth)
        found = found[found["gene_id"].isin(named)]
        assert (observed, false) == (len(found), found["not_causal"].sum())


def test_an_element_for_every_gene_labels_the_genes_of_its_contig():
    masks = masks_of([[0.9, 0.1], [0.8, 0.1]])
    labels = labels_of([(0, 50, None, True)], kind="bed", splits=("valid", "test"))
    assert labelled_genes(masks.genes, labels).tolist() == [0, 1]
    curve = label_curve(masks, labels, min_length=BIN)
    assert (curve.observed[-1], curve.null[-1]) == (1, 0)


def test_labels_that_say_nothing_are_refused():
    masks = masks_of([[0.9, 0.1, 0.8, 0.1], [0.9, 0.1, 0.8, 0.1]])
    with pytest.raises(InputError, match="no mapped gene of valid; 1 of others"):
        label_curve(masks, labels_of([(400, 450, "g1", True)]))
    with pytest.raises(InputError, match="could touch"):
        label_curve(masks, labels_of([(5000, 5050, "g0", False)], kind="crispri"))


def test_summary_states_one_rate_for_all():
    masks, _, element = drawn_masks(num_genes=40, num_bins=60, share=0.1, seed=2)
    labels = drawn_labels(masks, element)
    curve = label_curve(masks, labels, min_length=BIN)
    rule = CallConfig(fdr=0.2, max_gap_bp=0)
    elements, threshold = call_elements(masks, rule, curve=curve)
    found = label_summary(curve, masks, elements, labels, threshold=threshold)
    assert found["labelled_genes"] == element[::2].any(axis=1).sum()
    rates = {entry["fdr"] for entry in found["by_split"].values()}
    assert rates == {curve.value(threshold)}
    distal = (elements["element_class"] == "distal").sum()
    assert sum(entry["observed"] for entry in found["by_split"].values()) == distal
    assert "by_split" not in label_summary(curve, masks, elements, labels, threshold=None)
