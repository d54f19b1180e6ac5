"""The numbers that docs/simulator.md promises, on a genome of 120 genes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from data_prep.simulate import SimulationConfig, evaluate
from data_prep.simulate.base_effects import base_effects
from data_prep.simulate.build import build_world, stream
from data_prep.simulate.genome import transition_matrix
from data_prep.simulate.simulation import observed_expression
from data_prep.simulate.tracks import element_heights, simulate_tracks

CONFIG = SimulationConfig(
    seed=1, num_contigs=2, min_contig_length=800_000, max_contig_length=900_000
)


@pytest.fixture(scope="module")
def big():
    draft = build_world(CONFIG)
    world = draft.world
    state = evaluate(world)
    rng = stream(CONFIG, "tracks")
    tracks = simulate_tracks(world, element_heights(world, state, rng), CONFIG, rng)
    return draft, world, state, tracks


def around(tracks, assay, elements, half):
    """Mean signal within ``half`` bp of each element's centre."""
    size = CONFIG.track_bin
    centre = (elements["start"] + elements["end"]) // 2
    return np.array(
        [
            np.nanmean(tracks[assay][chrom][(m - half) // size : (m + half) // size])
            for chrom, m in zip(elements["chrom"], centre, strict=True)
        ]
    )


def test_transition_rows_are_distributions_with_depleted_cpg():
    matrix = transition_matrix(0.5, cpg_ratio=0.25)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0)
    assert matrix[1, 2] / matrix[0, 2] == pytest.approx(0.25, rel=0.3)
    assert (matrix > 0).all()


def test_composition_of_the_genome(big):
    codes = np.concatenate(list(big[1].genome.values()))
    known = codes[codes < 4]
    gc = np.isin(known, (1, 2)).mean()
    assert 0.35 < gc < 0.50
    expected = (known == 1).mean() * (known == 2).mean()
    observed = ((known[:-1] == 1) & (known[1:] == 2)).mean()
    assert 0.15 < observed / expected < 0.5
    assert 0.005 < (codes == 4).mean() < 0.08
    # Isochores: windows of 20 kb differ far more than chance (0.35 % for independent bases).
    windows = known[: len(known) // 20_000 * 20_000].reshape(-1, 20_000)
    assert np.isin(windows, (1, 2)).mean(axis=1).std() > 0.02


def test_cpg_islands_are_rich_in_cpg(big):
    world = big[1]

    def ratio(rows):
        parts = [
            world.genome[g.chrom][g.tss - 150 : g.tss + 150] for g in world.genes[rows].itertuples()
        ]
        codes = np.concatenate(parts)
        expected = (codes == 1).mean() * (codes == 2).mean()
        return ((codes[:-1] == 1) & (codes[1:] == 2)).mean() / expected

    islands = world.genes["cpg_island"].to_numpy()
    assert ratio(islands) > 0.65
    assert ratio(~islands) < 0.6


def test_repeats_lie_in_both_orientations(big):
    repeats = big[0].repeats
    families = repeats[repeats["name"] != "simple"]
    assert 0.35 < (families["strand"] == "+").mean() < 0.65
    covered = (families["end"] - families["start"]).sum()
    total = sum(len(codes) for codes in big[1].genome.values())
    assert covered / total == pytest.approx(CONFIG.repeat_fraction, abs=0.02)


def test_contact_decays_with_the_stated_exponent(big):
    draft, world = big[0], big[1]
    table = draft.contacts
    tss = world.genes["tss"].to_numpy()
    columns = np.arange(table.true.shape[1])
    distance = np.abs((table.first_bin[:, None] + columns + 0.5) * table.bin_size - tss[:, None])
    far = distance > 1500
    slope, offset = np.polyfit(np.log(distance[far]), np.log(table.observed[far]), 1)
    assert slope == pytest.approx(-0.87, abs=0.03)
    residual = np.log(table.observed[far]) - (slope * np.log(distance[far]) + offset)
    assert residual.std() == pytest.approx(np.hypot(0.25, 0.10), rel=0.08)


def test_shares_of_the_variance_of_expression(big):
    _, _, state, _ = big
    observed = observed_expression(state, CONFIG)[:, 0]
    distal = (state.expression - state.strength)[:, 0]
    shares = [np.var(part) / np.var(observed) for part in (state.strength[:, 0], distal)]
    noise = np.var(observed - state.expression[:, 0]) / np.var(observed)
    assert 0.15 < shares[0] < 0.50
    assert 0.40 < shares[1] < 0.75
    assert 0.04 < noise < 0.15


def test_decoys_are_as_open_as_active_enhancers(big):
    _, world, state, tracks = big
    elements = world.elements
    dnase = around(tracks, "DNase", elements, 100)
    active = state.activity[:, 0] > 0.5
    decoy = (elements["kind"] == "decoy").to_numpy()
    assert active.sum() > 80
    assert np.median(dnase[decoy]) > 0.85 * np.median(dnase[active])
    both = active | decoy
    score = average_precision_score(active[both], dnase[both])
    assert score < active[both].mean() + 0.12


def test_acetylation_tells_something_but_not_enough(big):
    _, world, state, tracks = big
    acetylation = around(tracks, "H3K27ac", world.elements, 600)
    active = state.activity[:, 0] > 0.5
    decoy = (world.elements["kind"] == "decoy").to_numpy()
    both = active | decoy
    score = average_precision_score(active[both], acetylation[both])
    prevalence = active[both].mean()
    assert prevalence + 0.08 < score < 0.80
    correlation = np.corrcoef(np.log(acetylation + 0.1), state.activity[:, 0])[0, 1]
    assert 0.15 < correlation < 0.65


def test_tracks_are_scaled_to_their_mean_and_sparse(big):
    for assay, per_chrom in big[3].items():
        values = np.concatenate(list(per_chrom.values()))
        assert np.nanmean(values) == pytest.approx(1.0, rel=0.06)
        # Most of the genome is background: its median is far below the mean.
        assert np.nanmedian(values) < 0.6, assay


def test_kinds_of_cell_types(big):
    """Blood enhancers are silent in liver and muscle and the reverse; ubiquitous ones are not."""
    _, world, state, _ = big
    subkind = world.elements["subkind"].to_numpy()
    mean = {name: state.activity[subkind == name].mean(axis=0) for name in np.unique(subkind)}
    assert mean["blood"][0] > 10 * mean["blood"][1:].max()
    assert mean["muscle"][2] > 10 * mean["muscle"][:2].max()
    assert mean["liver"][1] > 3 * mean["liver"][[0, 2]].max()
    assert mean["ubiquitous"].min() > 1.0


def test_bases_that_matter_are_few_and_in_elements(big):
    _, world, state, _ = big
    effects = base_effects(world, state)
    chrom = world.genes["chrom"].to_numpy()[effects["gene"]]
    total = inside_decoys = 0
    for name in world.genome:
        position = np.unique(effects["position"].to_numpy()[chrom == name])
        total += len(position)
        decoys = world.elements[
            (world.elements["chrom"] == name) & (world.elements["kind"] == "decoy")
        ]
        row = np.searchsorted(decoys["start"].to_numpy(), position, side="right") - 1
        ends = decoys["end"].to_numpy()[np.maximum(row, 0)]
        inside_decoys += int(((row >= 0) & (position < ends)).sum())
    bases = sum(len(codes) for codes in world.genome.values())
    assert 0.005 < total / bases < 0.05
    # A decoy base matters only where one substitution makes a new, well-spaced activator site.
    assert inside_decoys < 0.003 * total


def test_some_genes_have_many_enhancers_and_some_none(big):
    world = big[1]
    home = world.elements[world.elements["kind"] == "enhancer"]["home"]
    counts = np.bincount(home, minlength=len(world.genes))
    assert counts.var() > 1.2 * counts.mean()
    assert (counts == 0).mean() > 0.05
