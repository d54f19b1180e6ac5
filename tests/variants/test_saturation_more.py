"""Regions and saturation at their edges: nested regions, single N, spreads, names, strongest.

Each of these tests was written because a broken line of the library passed all others.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from seq2exp.core.errors import InputError
from seq2exp.dataset.store import Dataset
from seq2exp.variants.regions import Region, find_regions, usable_regions
from seq2exp.variants.saturation import Saturation
from seq2exp.variants.saturation_files import strongest_rows, write_tracks
from tests.toys import toy_dataset
from tests.variants.engines import BIN, WINDOW, Additive, engine_of
from tests.variants.test_engine import naive_window
from tests.variants.test_engine_formulas import Shares
from tests.variants.test_saturation import first_n, saturated, site


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset(toy_dataset(tmp_path_factory.mktemp("saturation") / "toy"))


def one_of(codes, delta=0.0, *, gene_id="G1", symbol="", start=100):
    """A saturation of one label in which every substitution has one effect."""
    codes = np.array(codes, dtype=np.uint8)
    size = len(codes)
    delta_PCK = np.full((size, 4, 1), delta, dtype=np.float32)
    known = np.flatnonzero(codes < 4)
    delta_PCK[known, codes[known]] = 0
    delta_PCK[codes >= 4] = np.nan
    nothing = np.full((size, 1), np.nan, dtype=np.float32)
    return Saturation(
        Region("chr1", start, start + size), gene_id, symbol, "+", 150, ("K562",), "log10", "",
        codes, delta_PCK, delta_PCK * 0, delta_PCK[:, :, 0] * 0, nothing, nothing,
        np.zeros(size, dtype=np.int8),
    )  # fmt: skip


# Regions ----------------------------------------------------------------------------------------


def test_a_region_inside_of_another_one_does_not_cut_it(dataset):
    words = ["chr1:101-400", "chr1:151-200", "chr1:391-450"]
    assert find_regions(words, dataset=dataset) == [Region("chr1", 100, 450)]
    assert find_regions(words[:2], dataset=dataset) == [Region("chr1", 100, 400)]


def test_a_region_with_some_unknown_bases_is_kept(dataset):
    contig, start = first_n(dataset)
    region = Region(contig, start - 1, start + 1)
    index = SimpleNamespace(holding=lambda name, span: [7], windows={}, length=WINDOW)
    assert usable_regions([region], dataset, index) == [(region, [7])]
    with pytest.raises(InputError, match="only N"):
        usable_regions([Region(contig, start, start + 1)], dataset, index)


@pytest.mark.parametrize(("first", "distance"), [(-603, 601), (600, 600)])
def test_the_distance_of_the_nearest_tss_is_that_of_the_nearest_base(dataset, first, distance):
    """A region of 3 bases: its last base lies before the TSS, its first one behind it."""
    row = site(dataset, "+")[0]
    contig, tss, _ = dataset.sites[row]
    gene = str(dataset.genes["gene_id"].iloc[row])
    with engine_of(dataset, [Additive()], genes=(gene,)) as engine:
        index = engine.index
    region = Region(contig, tss + first, tss + first + 3)
    with pytest.raises(InputError, match=f"TSS of {gene} is {distance} bases away"):
        usable_regions([region], dataset, index)


# Arrays -----------------------------------------------------------------------------------------


def test_spreads_and_masks_are_those_of_the_formula_and_zero_for_the_base_that_is_there(
    dataset, tmp_path
):
    """sd (n - 1) of two members; G and T count 1/32 in the mask of their bin, A and C nothing."""
    row, tss = site(dataset, "+")
    gene = str(dataset.genes["gene_id"].iloc[row])
    region = Region("chr1", tss - 203, tss - 190)
    before = naive_window(dataset, row, [])
    places = np.arange(region.start, region.end) - (tss - WINDOW // 2)
    there = before[places]
    other = Shares()
    with_weights = Additive(seed=1), Additive(seed=2)
    one = saturated(dataset, with_weights, [region], tmp_path, scorers=("expr_delta",))
    found = one[str(region), gene]
    weights = np.stack([model.weight_LC.detach().numpy()[places] for model in with_weights])
    changes = weights - np.take_along_axis(weights, there[None, :, None].astype(int), axis=2)
    np.testing.assert_allclose(found.spread_PCK[:, :, 0], changes.std(0, ddof=1), atol=1e-4)
    assert (found.spread_PCK[np.arange(len(there)), there] == 0).all()
    names = ("expr_delta", "mask_delta")
    found = saturated(dataset, [other], [region], tmp_path, scorers=names)[str(region), gene]
    counts = np.isin(np.arange(4), (2, 3)) / BIN
    expected = counts[None] - counts[there][:, None]
    np.testing.assert_allclose(found.mask_PC, expected, atol=1e-6)
    assert (found.mask_PC[np.arange(len(there)), there] == 0).all()


def test_the_strongest_of_effects_that_are_all_zero_is_a_substitution():
    found = one_of([0, 1, 2])
    assert found.strongest(0) == (0, 1, 0.0)
    assert strongest_rows([found])["strongest"].tolist() == ["chr1:101:A>C"]
    assert one_of([4, 4]).strongest(0) is None


def test_bases_count_as_scored_with_all_of_their_substitutions():
    found = one_of([0, 4, 2, 3], 0.5)
    delta = found.delta_PCK.copy()
    delta[2, 1] = np.nan
    (row,) = strongest_rows([replace(found, delta_PCK=delta)]).to_dict("records")
    assert (row["bases"], row["scored_bases"]) == (4, 2)
    assert (row["effect"], row["tss1"]) == (0.5, 151)
    # Their mean is 3/3 of 0.5 in the bases that have one.
    assert row["mean_importance_size"] == pytest.approx(0.5)


def test_tracks_of_genes_that_share_a_symbol_are_named_by_their_ids(tmp_path):
    symbols = {"G1": "MYC", "G2": "MYC", "G3": "TP53", "G4": ""}
    found = [one_of([0, 1], 0.5, gene_id=gene, symbol=name) for gene, name in symbols.items()]
    assert write_tracks(found, tmp_path, {"chr1": 1000}) == 12
    names = {path.name.split("_K562")[0] for path in tmp_path.iterdir()}
    assert names == {"G1", "G2", "TP53", "G4"}
