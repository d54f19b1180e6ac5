from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from seq2exp.core.errors import InputError
from seq2exp.elements.compare import CompareConfig
from seq2exp.elements.folder import ElementMap
from seq2exp.elements.masks import FREE
from seq2exp.elements.pairs import (
    MASK_MAX,
    MinimalPairConfig,
    compare_pairs,
    matched_pairs,
    score_pairs,
)
from seq2exp.elements.references import Reference
from seq2exp.elements.rivals import Rivals
from seq2exp.elements.scored import MODEL
from seq2exp.elements.suite import compare_reference
from seq2exp.elements.truth import Truth

CONFIG = CompareConfig(bands_bp=(0, 256, 512), num_resamples=50)
COLUMNS = ["chrom", "start", "end", "gene_id", "causal", "kind"]


def pairs_beside(masks, *, width=96, offsets=(-300, 300), kind="crispri", negatives=True):
    """Return two elements per gene, of which the one downstream acts."""
    rows = []
    for gene in masks.genes.itertuples():
        sign = 1 if gene.strand == "+" else -1
        for offset in offsets:
            start = gene.tss + sign * offset - width // 2
            acts = offset > 0
            if 0 <= start < gene.contig_length - width and (acts or negatives):
                rows.append((gene.contig, start, start + width, gene.gene_id, acts, "element"))
    truth = Truth(pd.DataFrame(rows, columns=COLUMNS), "toy")
    return Reference("toy", Path("toy.tsv"), kind, truth)


def rows_of(masks, split):
    return np.flatnonzero((masks.genes["split"] == split).to_numpy())


def value(found, name, metric):
    return next(r for r in found.rows if (r["name"], r["metric"]) == (name, metric))


def run_compare(masks, dataset, reference, **options):
    return compare_pairs(
        masks, dataset, reference, genes=rows_of(masks, "test"), tuning=rows_of(masks, "valid"),
        config=CONFIG, **options,
    )  # fmt: skip


def test_a_pair_scores_the_mean_and_maximum_of_its_learned_bins(masks, dataset):
    reference = pairs_beside(masks)
    gene = masks.index("chr3_g5")
    table, counts = score_pairs(masks, Rivals(masks, dataset), reference, np.array([gene]))
    assert len(table) == 2
    assert set(counts.values()) == {0}
    starts, ends = masks.intervals(gene)
    for row in table.to_dict("records"):
        inside = (starts < row["end"]) & (ends > row["start"]) & (masks.forced[gene] == FREE)
        values = masks.mask[gene][inside].astype(float)
        assert row[MODEL] == pytest.approx(values.mean())
        assert row[MASK_MAX] == values.max()
        tss = masks.genes["tss"].iloc[gene]
        assert row["distance"] == abs((row["start"] + row["end"] - 1) / 2 - tss)
        assert row["contact x activity"] > 0
        assert row["activity"] == pytest.approx(
            Rivals(masks, dataset).parts(gene)["activity"][inside].mean()
        )


def test_auprc_is_that_of_scikit_learn(masks, dataset):
    found = run_compare(masks, dataset, pairs_beside(masks))
    table = found.table
    for name in (MODEL, MASK_MAX, "contact", "activity", "contact x activity", "signal DNase"):
        score = table[name].astype("float32")
        expected = average_precision_score(table["acts"], score)
        assert value(found, name, "pair_auprc")["value"] == pytest.approx(expected)
    expected = average_precision_score(table["acts"], -table["distance"])
    assert value(found, "distance", "pair_auprc")["value"] == pytest.approx(expected)
    near = table[table["distance"] < 256]
    assert near.empty
    assert value(found, MODEL, "pair_auprc 0.256-0.512 kb")["value"] == pytest.approx(
        value(found, MODEL, "pair_auprc")["value"]
    )
    difference = value(found, f"{MODEL} - contact", "pair_auprc")["value"]
    assert difference == pytest.approx(
        value(found, MODEL, "pair_auprc")["value"] - value(found, "contact", "pair_auprc")["value"]
    )


def test_forced_bins_and_places_outside_the_window_are_counted(masks, dataset):
    reference = pairs_beside(masks, offsets=(-3000, -20, 20, 300), width=16)
    found = run_compare(masks, dataset, reference)
    genes = masks.genes.iloc[rows_of(masks, "test")]
    inside = reference.truth.elements[reference.truth.elements["gene_id"].isin(genes["gene_id"])]
    tss = genes.set_index("gene_id")["tss"].loc[inside["gene_id"]].to_numpy()
    distance = (inside["start"].to_numpy() + 8 - tss).__abs__()
    assert found.info["in forced bins only"] == (distance < 100).sum()
    assert found.info["outside the window"] == (distance > 600).sum()
    assert found.info["acting but out of reach"] == (distance == 20).sum() / 2
    assert found.info["pairs"] == (distance == 300).sum()
    assert found.rows == []  # all that are left act, so there is nothing to rank


def test_links_without_negatives_are_set_against_the_other_elements(masks, dataset):
    """What lies upstream is linked to the gene after: it is no link of this gene."""
    frame = pairs_beside(masks).truth.elements
    order = {name: place for place, name in enumerate(masks.genes["gene_id"])}
    after = np.roll(masks.genes["gene_id"].to_numpy(), -1)
    owner = [
        gene if acts else after[order[gene]]
        for gene, acts in zip(frame["gene_id"], frame["causal"], strict=True)
    ]
    truth = Truth(frame.assign(gene_id=owner, causal=True), "toy")
    reference = Reference("toy", Path("toy.tsv"), "links", truth)
    found = run_compare(masks, dataset, reference)
    assert found.info["not acting are"] == "other elements of the file"
    linked = set(zip(owner, frame["start"], strict=True))
    expected = set()
    for number in rows_of(masks, "test").tolist():
        gene = masks.genes["gene_id"].iloc[number]
        starts, ends = masks.intervals(number)
        for row in frame[frame["chrom"] == "chr3"].itertuples():
            inside = (starts < row.end) & (ends > row.start) & (masks.forced[number] == FREE)
            if inside.any():
                expected.add((gene, row.start, (gene, row.start) in linked))
    keys = ["gene_id", "start", "acts"]
    assert set(map(tuple, found.table[keys].to_numpy().tolist())) == expected
    assert found.table["acts"].nunique() == 2


def test_a_perfect_mask_wins_every_minimal_pair_and_a_blind_one_half(masks, dataset):
    reference = pairs_beside(masks)
    right, blind = masks.mask.copy(), np.full_like(masks.mask, 0.5)
    for number, gene in enumerate(masks.genes.itertuples()):
        sign = 1 if gene.strand == "+" else -1
        starts, _ = masks.intervals(number)
        right[number] = np.where(sign * (starts - gene.tss) > 0, 0.9, 0.1)
    # Distances are alike by construction; the activity is allowed to differ.
    minimal = MinimalPairConfig(activity=1e9)
    for mask, share in ((right, 1.0), (blind, 0.5)):
        found = run_compare(
            dataclasses.replace(masks, mask=mask), dataset, reference, minimal=minimal
        )
        row = value(found, MODEL, "minimal_pairs")
        assert row["value"] == share
        assert (row["low"], row["high"]) == (share, share)
        # Genes at the ends of the contig have one of the two elements only.
        both = found.table.groupby("gene_id")["acts"].nunique() == 2
        assert row["n"] == found.info["minimal_pairs"] == both.sum() > 5


def test_matching_wants_both_distance_and_activity():
    table = pd.DataFrame(
        {
            "gene": [0, 0, 0, 0, 1],
            "acts": [True, False, False, False, False],
            "distance": [1000.0, 1200.0, 1300.0, 1100.0, 1000.0],
            "activity": [2.0, 2.4, 2.0, 3.0, 2.0],
        }
    )
    found = matched_pairs(table)
    assert found[["acting", "other"]].to_numpy().tolist() == [[0, 1]]
    wide = matched_pairs(table, config=MinimalPairConfig(distance=0.31, activity=0.51))
    assert wide["other"].tolist() == [1, 2, 3]
    quiet = matched_pairs(table.assign(activity=0.0))
    assert quiet["other"].tolist() == [1, 3]
    assert matched_pairs(table.drop(columns="activity"))["other"].tolist() == [1, 3]


def test_order_of_pairs_does_not_matter(masks, dataset):
    reference = pairs_beside(masks)
    frame = reference.truth.elements.sample(frac=1, random_state=0)
    again = dataclasses.replace(reference, truth=Truth(frame, "toy"))
    one, two = (run_compare(masks, dataset, each) for each in (reference, again))
    assert one.rows == two.rows
    assert one.chosen == two.chosen


def test_a_table_out_of_reach_says_where_its_pairs_lie(masks, dataset, tmp_path):
    reference = pairs_beside(masks, offsets=(-3000, 3000))
    elements = ElementMap(tmp_path, pd.DataFrame(), {}, masks)
    with pytest.raises(
        InputError, match=r"toy\.tsv.*split test \(\d+ outside the window, 0 in forced"
    ):
        compare_reference(elements, dataset, reference)
