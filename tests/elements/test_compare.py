from __future__ import annotations

import dataclasses
import gzip

import numpy as np
import pandas as pd
import pytest

from seq2exp.core.errors import ConfigError, FormatError, InputError
from seq2exp.core.files import read_json
from seq2exp.elements.compare import CompareConfig, compare_with_truth, write_comparison
from seq2exp.elements.masks import FREE
from seq2exp.elements.references import read_reference
from seq2exp.elements.rivals import Rivals
from seq2exp.elements.scored import MODEL, score_bins
from seq2exp.elements.truth import Truth, read_simulated_truth

CONFIG = CompareConfig(distal_bp=128, bands_bp=(0, 256, 512), num_resamples=50)


def truth_at(masks, offset, *, width=64):
    """Return one true element per gene, ``offset`` bases downstream, and one false one upstream."""
    rows = []
    for gene in masks.genes.itertuples():
        sign = 1 if gene.strand == "+" else -1
        for side, causal in ((sign, True), (-sign, False)):
            start = gene.tss + side * offset - width // 2
            if 0 <= start < gene.contig_length - width:
                rows.append((gene.contig, start, start + width, gene.gene_id, causal, "enhancer"))
    columns = ["chrom", "start", "end", "gene_id", "causal", "kind"]
    return Truth(pd.DataFrame(rows, columns=columns), "toy")


def with_oracle(masks, truth):
    """Return the masks with 0.9 on true elements and noise below that elsewhere."""
    random = np.random.default_rng(0)
    mask = (0.5 * random.random(masks.mask.shape)).astype(np.float16)
    for number, gene in enumerate(masks.genes.itertuples()):
        starts, ends = masks.intervals(number)
        for element in truth.of_gene(gene.gene_id, gene.contig).itertuples():
            if element.causal:
                mask[number][(starts < element.end) & (ends > element.start)] = 0.9
    return dataclasses.replace(masks, mask=mask)


def test_a_perfect_mask_scores_one_and_beats_every_rival(masks, dataset):
    truth = truth_at(masks, 350)
    found = compare_with_truth(with_oracle(masks, truth), dataset, truth, config=CONFIG)
    for metric in ("auprc", "auprc 0.256-0.512 kb", "pairs_auprc"):
        assert found.value(MODEL, metric)["value"] == pytest.approx(1)
        for rival in found.chosen.values():
            difference = found.value(f"{MODEL} - {rival}", metric)
            assert difference["value"] == pytest.approx(1 - found.value(rival, metric)["value"])
            # Among few pairs a rival can be right by chance; among bins it cannot.
            assert difference["low"] > 0 or metric == "pairs_auprc"
    assert found.value(MODEL, "auprc")["n"] == 12  # test genes of the toy


def test_a_mask_that_follows_a_track_scores_like_that_track(masks, dataset):
    """The fake mask is a rising function of DNase, so both rank the bins alike."""
    found = compare_with_truth(masks, dataset, truth_at(masks, 200), config=CONFIG)
    mine, theirs = found.value(MODEL, "auprc"), found.value("signal DNase", "auprc")
    # float16 masks tie a few bins that the signal tells apart.
    assert mine["value"] == pytest.approx(theirs["value"], rel=0.02)


def test_forced_bins_are_left_out_for_every_method(masks, dataset):
    truth = truth_at(masks, 350)
    genes = np.arange(len(masks))
    scored = score_bins(masks, dataset, truth, genes)
    assert scored.label.size == (masks.forced == FREE).sum()
    assert all(values.size == scored.label.size for values in scored.scores.values())
    changed = masks.mask.copy()
    changed[masks.forced != FREE] = 0.123
    again = score_bins(dataclasses.replace(masks, mask=changed), dataset, truth, genes)
    np.testing.assert_array_equal(again.scores[MODEL], scored.scores[MODEL])


def test_labels_cover_the_bins_that_true_elements_touch(masks, dataset):
    truth = truth_at(masks, 350)
    gene = masks.index("chr3_g4")
    scored = score_bins(masks, dataset, truth, np.array([gene]))
    starts, ends = masks.intervals(gene)
    row = truth.of_gene("chr3_g4", "chr3").query("causal").iloc[0]
    expected = (starts < row["end"]) & (ends > row["start"])
    assert expected.sum() in (2, 3)
    np.testing.assert_array_equal(scored.label, expected[masks.forced[gene] == FREE])


def test_truth_of_one_gene_does_not_count_for_another(masks, dataset):
    truth = truth_at(masks, 350)
    alone = Truth(truth.elements[truth.elements["gene_id"] == "chr3_g4"], "one")
    scored = score_bins(masks, dataset, alone, np.arange(len(masks)))
    assert set(scored.gene[scored.label].tolist()) == {masks.index("chr3_g4")}


def test_rivals_follow_their_definitions(masks, dataset):
    gene = masks.index("chr3_g5")
    rivals = Rivals(masks, dataset)
    scores = rivals.scores(gene)
    starts, ends = masks.intervals(gene)
    row = masks.genes.iloc[gene]
    assert row["strand"] == "-"
    nearest = np.argmax(scores["distance"])
    assert starts[nearest] <= row["tss"] < ends[nearest] or scores["distance"][nearest] >= -32
    product = scores["signal DNase"] * scores["signal H3K27ac"]
    np.testing.assert_allclose(scores["signal DNase x H3K27ac"], product)
    abc = scores["contact x activity"]
    assert abc.sum() == pytest.approx(1)
    contact = abc / np.sqrt(product)
    # Toy contact of the bin that starts at 500 * i from the TSS, i = ..., -1, 0, 1: 1 / (|i| + 1).
    steps = np.floor((row["start"] + 32 * np.arange(32) + 16 - row["tss"]) / 500)
    expected = 1 / (np.abs(steps) + 1)
    known = (product > 0) & (ends > starts)
    ratio = contact[known] / expected[known]
    np.testing.assert_allclose(ratio, ratio[0])
    for name in rivals.peak_names:
        bases = scores[name]
        assert ((bases == 0) | (bases >= 0.9 * np.min(bases[bases > 0], initial=9))).all()
    assert (
        scores[rivals.peak_names[-1]].astype(bool).sum()
        <= scores[rivals.peak_names[0]].astype(bool).sum()
    )


def test_no_true_distal_element_is_an_error(masks, dataset):
    with pytest.raises(InputError, match=r"no true distal element.*windows reach farther than"):
        compare_with_truth(masks, dataset, truth_at(masks, 5), config=CONFIG)


def test_a_missing_split_is_named(masks, dataset):
    with pytest.raises(InputError, match="excluded"):
        compare_with_truth(
            masks,
            dataset,
            truth_at(masks, 350),
            config=dataclasses.replace(CONFIG, split="excluded"),
        )
    with pytest.raises(ConfigError, match="bands_bp"):
        CompareConfig(bands_bp=(5, 1))


def test_results_are_the_same_twice_and_fit_the_json_schema(masks, dataset, tmp_path):
    truth = truth_at(masks, 350)
    one, two = (compare_with_truth(masks, dataset, truth, config=CONFIG) for _ in range(2))
    assert one.rows == two.rows
    write_comparison(one, tmp_path / "comparison.json")
    rows = read_json(tmp_path / "comparison.json")["rows"]
    assert rows == one.rows
    keys = {"name", "metric", "split", "value", "low", "high", "n"}
    assert all(set(row) == keys for row in rows)
    assert "peaks DNase" in one.text


def write_effects(folder, frame):
    (folder / "truth").mkdir()
    with gzip.open(folder / "truth" / "effects.tsv.gz", "wt") as handle:
        frame.to_csv(handle, sep="\t", index=False)


EFFECTS = pd.DataFrame(
    {
        "gene_id": ["g1", "g1", "g2"],
        "chrom": "chr1",
        "start": [10, 50, 50],
        "end": [20, 60, 60],
        "kind": ["enhancer", "decoy", "enhancer"],
        "causal_a": [True, False, False],
        "causal_b": [False, False, True],
    }
)


def test_simulated_truth_takes_the_cells_asked_for(tmp_path):
    write_effects(tmp_path, EFFECTS)
    both = read_simulated_truth(tmp_path)
    only = read_simulated_truth(tmp_path / "truth", cells=("a",))
    assert both.elements["causal"].tolist() == [True, False, True]
    assert only.elements["causal"].tolist() == [True, False, False]
    assert only.of_gene("g1", "chr1")["start"].tolist() == [10, 50]
    with pytest.raises(InputError, match="lung"):
        read_simulated_truth(tmp_path, cells=("lung",))


def test_broken_truth_is_named(tmp_path):
    with pytest.raises(InputError, match=r"effects\.tsv\.gz"):
        read_simulated_truth(tmp_path)
    write_effects(tmp_path, EFFECTS.drop(columns="kind"))
    with pytest.raises(FormatError, match="no column kind"):
        read_simulated_truth(tmp_path)


def test_any_bed_is_a_truth_for_all_genes(dataset, masks, tmp_path):
    path = tmp_path / "peaks.bed"
    path.write_text("1\t2000\t2100\n3\t4000\t4200\n")
    truth = read_reference(path, dataset).truth
    assert truth.elements["chrom"].tolist() == ["chr1", "chr3"]
    scored = score_bins(masks, dataset, truth, np.arange(len(masks)))
    assert scored.pairs is None
    assert scored.label.any()


def test_without_other_genes_to_choose_by_defaults_stand_in(masks, dataset):
    """Every split is reported, so no gene is left to choose cutoffs on."""
    config = dataclasses.replace(CONFIG, split="all")
    found = compare_with_truth(masks, dataset, truth_at(masks, 350), config=config)
    assert found.info["chosen_on"] == "nothing: defaults"
    assert found.chosen["peak caller"] == "peaks DNase q0.95"
    assert found.chosen["strongest signal"] == "signal DNase x H3K27ac"
    assert found.info["genes"] == len(masks)
    usual = compare_with_truth(masks, dataset, truth_at(masks, 350), config=CONFIG)
    assert usual.info["chosen_on"] == "valid"


def test_a_budget_is_spent_on_all_bins_also_inside_a_band(masks, dataset):
    """A perfect mask with room for half of the true bins finds those; the rest are tied last."""
    truth = truth_at(masks, 350)
    found = compare_with_truth(with_oracle(masks, truth), dataset, truth, config=CONFIG)
    for budget in (0.05, 0.1):
        whole = found.value(MODEL, f"auprc@{budget:g}")["value"]
        band = found.value(MODEL, f"auprc@{budget:g} 0.256-0.512 kb")["value"]
        # All true bins lie in the band: only the bins tied last differ.
        assert whole <= band <= 1
    assert found.value(MODEL, "auprc@0.1 0-0.256 kb") is None
