"""Deletion, sufficiency and swap on a model for which every number follows from a count."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.dataset.samples import GeneSamples, gene_window
from seq2exp.elements.truth import Truth
from seq2exp.interpret.agreement import agreement_rows, per_gene
from seq2exp.interpret.check_truth import truth_rows
from seq2exp.interpret.checks import CheckConfig, check_elements
from seq2exp.interpret.deletion import DeletionConfig
from tests.interpret.additive import CONFIG, additive_run, elements_at, weighted_count

ROWS = np.array([2, 3, 4, 5])
SPANS = [(64, 128), (256, 320), (700, 764)]


def config(method="n", **changes):
    return CheckConfig(DeletionConfig(method, num_shuffles=3), decoys=1, **changes)


def check(dataset, method="n", *, rows=ROWS, spans=SPANS, run=None, **changes):
    run = run or additive_run(dataset)
    elements = elements_at(dataset, rows, spans)
    return check_elements(run, dataset, elements, rows, config=config(method, **changes))


def codes_of(dataset, row):
    return dataset.codes(gene_window(dataset, int(row), CONFIG))


def spans_of(dataset, sites):
    for site in sites.itertuples():
        row = int(np.flatnonzero(dataset.genes["gene_id"] == site.gene_id)[0])
        window = gene_window(dataset, row, CONFIG)
        start, end = site.start - window.start, site.end - window.start
        if window.reverse:
            start, end = window.end - site.end, window.end - site.start
        yield site.Index, row, (start, end)


def test_losing_an_element_costs_what_it_gave_and_keeping_it_alone_gives_it_back(dataset):
    sites = check(dataset).sites
    assert (sites["status"] == "ok").all()
    assert sorted(sites["kind"].unique()) == ["decoy", "element"]
    for index, row, span in spans_of(dataset, sites):
        expected = weighted_count(codes_of(dataset, row), span)
        assert sites.loc[index, "delta:cell_a"] == pytest.approx(-expected)
        assert sites.loc[index, "delta:cell_b"] == pytest.approx(-2 * expected)
        assert sites.loc[index, "effect"] == pytest.approx(1.5 * expected)
        assert sites.loc[index, "gain:cell_a"] == pytest.approx(expected)


def test_shuffles_keep_the_count_of_a_whole_bin_so_nothing_changes(dataset):
    sites = check(dataset, "shuffle", spans=[(64, 96), (256, 288)]).sites
    assert np.abs(sites["delta:cell_a"]).max() < 1e-4
    assert (sites["delta_sd:cell_a"] < 1e-4).all()


def test_a_closed_mask_takes_the_same_away_and_leaves_the_dna(dataset):
    whole = [(64, 128), (256, 320), (704, 768)]
    by_mask = check(dataset, "mask", spans=whole).sites
    by_n = check(dataset, "n", spans=whole).sites
    np.testing.assert_allclose(by_mask["delta:cell_a"], by_n["delta:cell_a"])
    np.testing.assert_allclose(by_mask["gain:cell_b"], by_n["gain:cell_b"])


def test_an_element_elsewhere_gives_its_own_count_times_the_weight_of_the_place(dataset):
    found = check(dataset)
    swaps = found.swaps
    assert len(swaps) == len(ROWS) * len(SPANS)
    assert (swaps["distance_difference"] == 0).all()
    names = {n: i for i, n in enumerate(dataset.genes["gene_id"])}
    for swap in swaps.to_dict("records"):
        donor, place = swap["donor"].split("|")
        home = swap["name"].split("|")[0]
        assert donor != home
        start, stop = map(int, place.split("-"))
        expected = weighted_count(codes_of(dataset, names[donor]), (start, stop))
        assert swap["effect_there:cell_a"] == pytest.approx(expected)
    rows = {row["name"]: row for row in agreement_rows(found, split="x") if "swap" in row["name"]}
    # Same places, so a transplanted element does there exactly what it does at home.
    assert rows["swap, effect and that of the sequence"]["value"] == pytest.approx(1)
    assert rows["swap, effect and that of the place"]["value"] < 1


def test_tracks_of_a_destroyed_element_go_missing_or_to_the_background(dataset):
    run = additive_run(dataset, gain=1.0)
    sites = check(dataset, "n", run=run).sites
    for index, row, span in spans_of(dataset, sites):
        signal = GeneSamples(dataset, CONFIG, [row])[0].signal[:, 0].astype(np.float64)
        bins = range(span[0] // 32, -(-span[1] // 32))
        tracks = sum((n + 1) * np.nan_to_num(signal[n]) for n in bins)
        expected = weighted_count(codes_of(dataset, row), span) + tracks
        assert sites.loc[index, "delta:cell_a"] == pytest.approx(-expected, rel=1e-5)


def test_numbers_depend_neither_on_the_batch_nor_on_the_other_genes(dataset):
    one = check(dataset, "shuffle", batch_size=1).sites
    many = check(dataset, "shuffle", batch_size=50).sites
    pd.testing.assert_frame_equal(one, many)
    alone = check(dataset, "shuffle", rows=ROWS[1:2]).sites
    same = many[many["gene_id"] == alone["gene_id"].iloc[0]].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, same)


def test_places_that_cannot_be_tested_are_kept_with_the_reason(dataset):
    found = check(dataset, spans=[(64, 128), (480, 560), (-40, 30), (1000, 1064)], swap=False)
    status = found.sites[found.sites["kind"] == "element"].groupby("status").size()
    assert status.to_dict() == {"ok": 4, "outside": 8, "promoter": 4}
    untested = found.sites[found.sites["status"] != "ok"]
    assert untested["delta"].isna().all()
    with pytest.raises(InputError, match="no element that can be tested"):
        check(dataset, spans=[(480, 560)])


def test_a_gene_whose_elements_find_no_partner_is_not_swapped(dataset):
    assert check(dataset, rows=ROWS[:1]).swaps.empty
    assert check(dataset, spans=[(64, 128)], swap=False).swaps.empty


def test_models_without_a_mask_are_checked_but_have_nothing_to_agree_with(dataset):
    run = additive_run(dataset, masked=False)
    found = check(dataset, run=run)
    assert found.sites["mask_mean"].isna().all()
    assert np.isfinite(found.sites["delta"]).all()
    rows = [row for row in agreement_rows(found, split="test") if row["name"].startswith("mask")]
    assert len(rows) == 3
    assert all(row["value"] is None for row in rows)
    assert per_gene(found.sites)["spearman"].isna().all()
    with pytest.raises(ConfigError, match="without a mask"):
        check(dataset, "mask", run=run)


def test_the_reference_is_seen_once_per_gene(dataset):
    run = additive_run(dataset)
    check(dataset, run=run, swap=False, sufficiency=False, batch_size=64)
    # One reference and one batch of edits for each gene.
    assert run.models[0].seen[::2] == [1] * len(ROWS)
    assert len(run.models[0].seen) == 2 * len(ROWS)


def test_deletions_rank_what_the_truth_calls_causal(dataset):
    """Candidates labelled by the very effect of the model: deletions rank them without error."""
    elements = elements_at(dataset, ROWS, SPANS)
    candidates = elements_at(dataset, ROWS, [(128, 160), (352, 384), (800, 832)])
    counts = []
    for name in candidates["name"]:
        gene, place = name.split("|")
        row = int(np.flatnonzero(dataset.genes["gene_id"] == gene)[0])
        counts.append(weighted_count(codes_of(dataset, row), tuple(map(int, place.split("-")))))
    candidates["causal"] = np.array(counts) > np.median(counts)
    candidates["kind"] = np.where(candidates["causal"], "enhancer", "decoy")
    truth = Truth(candidates.drop(columns=["name", "element_class"]), "by hand")
    run = additive_run(dataset)
    found = check_elements(run, dataset, elements, ROWS, config=config(), truth=truth)
    rows = truth_rows(found, run, dataset, split="test")
    value = {(row["name"], row["metric"]): row["value"] for row in rows}
    assert value["deletion", "candidates auroc"] == 1
    assert value["deletion", "candidates auprc"] == 1
    for rival in ("mask", "distance", "contact x activity"):
        other = value[rival, "candidates auroc"]
        assert value[f"deletion - {rival}", "candidates auroc"] == pytest.approx(1 - other)
    nothing = Truth(truth.elements.assign(causal=False), "nothing")
    found = check_elements(run, dataset, elements, ROWS, config=config(), truth=nothing)
    with pytest.raises(InputError, match="0 causal of"):
        truth_rows(found, run, dataset, split="test")


def test_runs_without_tracks_and_masks_are_checked(tmp_path):
    """Sequence alone through a shared convolution: batches of one and whole passes agree."""
    from seq2exp.dataset.store import Dataset
    from seq2exp.interpret.deletion import Destroyer, background
    from seq2exp.interpret.edits import open_window
    from seq2exp.interpret.rerun import GeneRunner
    from seq2exp.models.baseline import Baseline, BaselineConfig
    from tests.elements.fakes import fake_run
    from tests.toys import ToyPlan, toy_dataset

    bare = Dataset(toy_dataset(tmp_path / "bare", ToyPlan(tracks=(), features=False)))
    settings = BaselineConfig(
        encoder="conv",
        encoder_params={"d_model": 8, "num_layers": 2, "stem": {"channels": 4, "width": 5}},
        num_outputs=2,
        window_bp=1024,
        bin_size=32,
        readout_bp=256,
    )
    data = dataclasses.replace(CONFIG, contacts=False)
    run = fake_run(bare, config=data)
    run.models = [Baseline(settings).double() for _ in range(2)]
    elements = elements_at(bare, ROWS, [(64, 128), (400, 440)])
    # What keeps the promoter is not known to the model.
    found = check_elements(
        run, bare, elements, ROWS, config=config("shuffle", promoter_bp=128, swap=False)
    )
    tested = found.sites[found.sites["status"] == "ok"]
    assert tested["delta_member_sd:cell_a"].gt(0).any()
    assert run.models[0].training
    samples = GeneSamples(bare, data, [])
    gene = open_window(samples, 3, promoter_bp=128)
    none = np.zeros(32, dtype=bool)
    maker = Destroyer(
        gene, samples, DeletionConfig(num_shuffles=3), background_T=background(gene, none)
    )
    edits = maker.destroy([(64, 128)]) + maker.destroy([(400, 440)])
    with run.evaluating(), torch.no_grad():
        shared = GeneRunner(run.models, gene, batch_size=4).predict(edits)
        whole = GeneRunner(run.models, gene, share=False, batch_size=1).predict(edits)
    np.testing.assert_allclose(shared, whole, atol=1e-12)
