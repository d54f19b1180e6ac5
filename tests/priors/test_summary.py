"""The pieces of a prior that need no model: bands, mask masses, CpG islands, quality, probes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from seq2exp.core.sequence import encode, reverse_complement
from seq2exp.elements.calling import CallConfig
from seq2exp.elements.masks import EXCLUDED, FREE, PROMOTER, GeneMasks
from seq2exp.priors.origin import gene_quality
from seq2exp.priors.probe import probe, specificity
from seq2exp.priors.summary import (
    band_names,
    bands_of_bins,
    cpg_island,
    gc_fraction,
    gene_lengths,
    mask_summary,
    signal_in_bands,
)
from tests.priors.makers import make_prior, names


def test_bands_cover_every_bin_once_and_alike_on_both_sides():
    bands = bands_of_bins(4096, 128)  # 262 kb on either side
    assert band_names() == ["0-1 kb", "1-5 kb", "5-20 kb", "20-100 kb", ">100 kb"]
    assert (bands.sum(axis=0) == 1).all()
    np.testing.assert_array_equal(bands, bands[:, ::-1])
    # Centres lie at 64, 192, ... bp: 8 of them within 1 kb, 39 within 5 kb, on either side.
    assert bands.sum(axis=1).tolist()[:2] == [16, 2 * (39 - 8)]


def test_signal_is_mask_times_signal_times_kilobases():
    mask, signal = np.zeros((1, 100)), np.zeros((1, 100, 2))
    mask[0, [49, 30, 0]] = 0.5, 0.25, 1.0  # 50, 1,950 and 4,950 bp upstream of the TSS
    signal[0, [49, 30, 0], 0] = 4, 8, 3
    signal[0, :, 1] = np.nan
    signal[0, 30, 1] = 2
    found = signal_in_bands(mask, signal, bin_size=100)
    np.testing.assert_allclose(found[0, 0, :2], [0.5 * 4 * 0.1, (0.25 * 8 + 3) * 0.1])
    assert np.isnan(found[0, 1, 0])  # no data within 1 kb
    assert found[0, 1, 1] == pytest.approx(0.25 * 2 * 0.1)
    assert found[0, :, 2:].tolist() == [[0, 0, 0], [0, 0, 0]]
    flipped = signal_in_bands(mask[:, ::-1], signal[:, ::-1], bin_size=100)
    np.testing.assert_array_equal(found, flipped)


def test_the_mask_counts_where_it_was_learned():
    """Two genes, 40 bins of 1 kb around TSS 30 and 4 kb: the second window is cut at 0."""
    mask = np.full((2, 40), 0.1, np.float16)
    forced = np.full((2, 40), FREE, np.uint8)
    forced[:, 19:21] = PROMOTER
    mask[:, 19:21] = 1
    mask[0, 5:7] = 0.5  # 14.5 and 13.5 kb away
    forced[0, 39], mask[0, 39] = EXCLUDED, 0
    forced[1, :16], mask[1, :16] = EXCLUDED, 0
    genes = pd.DataFrame(
        {
            "row": [0, 1], "gene_id": ["a", "b"], "symbol": ["a", "b"], "contig": "chr1",
            "tss": [30_000, 4_000], "strand": ["+", "-"], "split": "train",
            "start": [10_000, -16_000], "contig_length": 60_000,
        }
    )  # fmt: skip
    masks = GeneMasks(genes, mask, forced, mask, mask, 1000, {"assembly": "x"})
    columns, threshold = mask_summary(masks, CallConfig(threshold=0.4, min_length_bp=1000))
    assert threshold == 0.4
    assert columns["num_elements"].tolist() == [1, 0]
    first = 35 * 0.1 + 2 * 0.5  # 40 bins without two of the promoter and one excluded
    np.testing.assert_allclose(columns["mask_mass_kb"], [first, 22 * 0.1], rtol=1e-3)
    assert "mask 0-1 kb" not in columns  # all forced
    assert set(columns) == {
        "num_elements", "mask_mass_kb", "mask_contact_mass_kb", "mask 1-5 kb", "mask 5-20 kb",
    }  # fmt: skip
    total = columns["mask 1-5 kb"] + columns["mask 5-20 kb"]
    np.testing.assert_allclose(total, columns["mask_mass_kb"])
    distance = np.abs(np.arange(40) + 0.5 - 20)
    weight = np.where(distance < 5, 1, (distance / 5) ** -0.87)
    expected = (np.where(forced[0] == FREE, mask[0], 0) * weight).sum()
    assert columns["mask_contact_mass_kb"][0] == pytest.approx(expected, rel=1e-6)


# CpG islands and lengths ------------------------------------------------------------------------


def dataset_of(sequence: np.ndarray, tss: list[int], strand: str = "+") -> SimpleNamespace:
    length = len(sequence)

    def codes(window):
        out = np.full(window.length, 4, np.uint8)
        stop = window.length - window.pad_right
        out[window.pad_left : stop] = sequence[window.clipped_start : window.clipped_end]
        return reverse_complement(out) if window.reverse else out

    return SimpleNamespace(
        sites=[("chr1", place, strand) for place in tss],
        manifest=SimpleNamespace(contigs={"chr1": length}),
        codes=codes,
    )


def spans(pattern: str, size: int) -> np.ndarray:
    return np.resize(encode(pattern), size)


@pytest.mark.parametrize(
    ("pattern", "flag"),
    [
        ("CGATCG", 1.0),  # 67 % GC, one CpG in three bases: three times what chance gives
        ("GGCCTGGCCA", 0.0),  # as rich, and no CpG
        ("CGAATTAATT", 0.0),  # CpG, and 20 % GC
        ("GGGGGGGGGG", 0.0),  # no C at all
    ],
)
@pytest.mark.parametrize("strand", ["+", "-"])
def test_a_cpg_island_is_rich_in_gc_and_not_depleted_of_cpg(pattern, flag, strand):
    sequence = np.concatenate([spans("ATTA", 2000), spans(pattern, 600), spans("ATTA", 2000)])
    inside, far = 2300, 1000
    found = cpg_island(dataset_of(sequence, [inside, far], strand), np.array([0, 1]))
    assert found.tolist() == [flag, 0.0]


def test_an_island_must_cover_the_tss_with_500_bp():
    sequence = np.concatenate([spans("ATTA", 2000), spans("CG", 500), spans("ATTA", 2000)])
    # 55 % of 500 bp: 275 bases of the island are enough, up to 225 bases beside it.
    places = [1999 - 224, 1999 - 226, 2499 + 225, 2499 + 227]
    found = cpg_island(dataset_of(sequence, places), np.arange(4))
    assert found.tolist() == [1.0, 0.0, 1.0, 0.0]


def test_unknown_sequence_gives_no_answer():
    sequence = np.full(3000, 4, np.uint8)
    assert np.isnan(cpg_island(dataset_of(sequence, [1500]), np.array([0])))[0]
    assert np.isnan(gc_fraction(sequence[None]))[0]
    assert gc_fraction(encode("GCNA")[None])[0] == pytest.approx(2 / 3)


def test_gene_lengths_come_from_the_gene_table_or_are_unknown():
    genes = pd.DataFrame({"gene_start": [10, 5], "gene_end": [110, 5]})
    found = gene_lengths(SimpleNamespace(genes=genes), np.array([1, 0]))
    assert np.isnan(found[0])
    assert found[1] == 100
    bare = SimpleNamespace(genes=pd.DataFrame({"gene_id": ["a"]}))
    assert np.isnan(gene_lengths(bare, np.array([0]))).all()


# Quality ------------------------------------------------------------------------------------------


def test_quality_is_the_correlation_over_samples_beyond_the_level_of_each_sample():
    observed = np.array([[1.0, 5, 9], [3, 7, 11], [2, 7, 12], [4, 5, 6], [0, np.nan, 1]])
    predicted = np.array([[0.0, 0, 0], [0, 0, 0], [2, 6.5, 11], [2, 6, 13], [0, 0, 0]])
    split = names(["train", "train", "test", "valid", "test"])
    level = np.array([2.0, 6, 10])  # mean of the two training genes
    expected = [
        np.corrcoef(observed[gene] - level, predicted[gene] - level)[0, 1] for gene in (2, 3)
    ]
    found = gene_quality(observed, predicted, split)
    np.testing.assert_allclose(found[[2, 3]], expected, rtol=1e-6)
    # The level alone would correlate: without it the fourth gene would look well predicted.
    assert np.corrcoef(observed[3], predicted[3])[0, 1] > 0.9
    assert found[3] < 0
    assert np.isnan(found[[0, 1, 4]]).all()  # trained on, trained on, too few labels


def test_two_samples_or_no_training_label_say_nothing():
    values = np.arange(6.0).reshape(3, 2)
    assert np.isnan(gene_quality(values, values, names(["train", "test", "test"]))).all()
    values = np.arange(12.0).reshape(3, 4)
    assert np.isnan(gene_quality(values, values, names(["valid", "test", "test"]))).all()


# Probes -------------------------------------------------------------------------------------------


def test_a_probe_finds_what_is_there_and_nothing_where_nothing_is():
    prior = make_prior(num=400)
    weight = np.random.default_rng(2).normal(size=6)
    target = (prior.z @ weight)[:, None].astype(float)
    embeddings = {"prior": prior, "random": prior.control("random", 0)}
    rows = probe(embeddings, target, split="test", num_resamples=200)
    value = {(row["name"], row["metric"]): row for row in rows}
    assert value["prior", "ridge_r2"]["value"] > 0.99
    assert value["prior", "knn_r2"]["value"] > 0.6
    assert abs(value["random", "ridge_r2"]["value"]) < 0.1
    difference = value["random", "ridge_r2_difference"]
    assert difference["low"] > 0.85
    gain = value["prior", "ridge_r2"]["value"] - value["random", "ridge_r2"]["value"]
    assert difference["value"] == pytest.approx(gain)
    assert {row["n"] for row in rows} == {199}  # gene 3 has no window
    for row in rows:
        assert row["low"] <= row["value"] <= row["high"]


def test_a_probe_never_sees_the_genes_it_predicts():
    prior = make_prior(num=200)
    target = np.random.default_rng(2).normal(size=(200, 1))
    rows = probe({"prior": prior}, target, split="test", num_resamples=20)
    assert all(row["value"] < 0.05 for row in rows)
    assert probe({"prior": prior}, target, split="valid") == []
    target[prior.split == "train"] = np.nan
    assert probe({"prior": prior}, target, split="test") == []


def test_specificity_is_a_label_minus_the_mean_of_the_others():
    np.testing.assert_allclose(specificity(np.array([[1.0, 2, 6]])), [[1 - 4, 2 - 3.5, 6 - 1.5]])
    assert specificity(np.array([[1.0]])).shape == (1, 0)
