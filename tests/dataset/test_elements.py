"""Candidate elements from the dataset to the batch: orientation, shifts, order, padding."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2exp.core.errors import ConfigError, FormatError
from seq2exp.core.intervals import Window
from seq2exp.dataset import format as layout
from seq2exp.dataset.samples import GeneSamples, SampleConfig, collate
from seq2exp.dataset.store import Dataset
from tests.dataset.mini import mini_dataset

LENGTH = 2000
PAIRS = [(0, 30), (700, 760), (760, 800), (930, 1010), (1300, 1301), (1990, 2000)]
SETS = {"peaks": PAIRS, "one": [(1100, 1200)]}


def write_sets(root, sets):
    rows = [(name, "c", *pair, 1.0) for name, pairs in sets.items() for pair in pairs]
    frame = pd.DataFrame(rows, columns=list(layout.ELEMENT_COLUMNS))
    layout.write_table(frame, layout.elements_path(root))
    manifest = layout.read_manifest(root)
    layout.finish_manifest(root, manifest)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Genes at 1,000 on either strand, at 20, and at 1,500, far from everything."""
    root = tmp_path_factory.mktemp("e") / "d"
    codes = np.random.default_rng(0).integers(0, 4, LENGTH)
    mini_dataset(root, codes, np.zeros((20, 1)), bin_size=100, tss=(1000, 1000, 20, 1500),
                 strands="+-++")  # fmt: skip
    write_sets(root, SETS)
    return Dataset(root)


def sample(dataset, gene, **changes):
    config = SampleConfig(**{"window_bp": 600, "bin_size": 100, "elements": "peaks"} | changes)
    return GeneSamples(dataset, config, [gene])[0]


def test_elements_of_a_window_nearest_first(dataset):
    """[700, 1300): middles 970, 780 and 730 of a TSS at 1000; (1300, 1301) begins where it ends."""
    assert sample(dataset, 0).elements.tolist() == [[230, 310], [60, 100], [0, 60]]
    assert sample(dataset, 0).elements.dtype == np.int32


def test_minus_strand_elements_are_mirrored(dataset):
    """The window is [701, 1301), read from its right end: position p lies at 1301 - p."""
    expected = [
        [1301 - b, 1301 - a] for a, b in [(930, 1010), (760, 800), (700, 760), (1300, 1301)]
    ]
    assert sample(dataset, 1).elements.tolist() == expected
    assert expected[-1] == [0, 1]
    assert (
        sample(dataset, 1, strand="plus").elements.tolist() == sample(dataset, 0).elements.tolist()
    )


def test_elements_are_not_clipped_to_the_window_nor_to_its_padding(dataset):
    assert sample(dataset, 2).elements.tolist() == [[280, 310]]
    wide = sample(dataset, 0, window_bp=200).elements
    assert wide.tolist() == [[30, 110]]
    assert sample(dataset, 0, window_bp=100).elements.tolist() == [[-20, 60]]


def test_elements_move_with_the_shift_and_keep_their_order(dataset):
    config = SampleConfig(window_bp=600, bin_size=100, jitter_bp=50, elements="peaks")
    samples = GeneSamples(dataset, config, [0], jitter=True, seed=3)
    shift = samples._window(0).start - 700
    assert shift
    moved = (np.array([[230, 310], [60, 100], [0, 60]]) - shift).tolist()
    found = samples[0].elements.tolist()
    assert [pair for pair in found if pair in moved] == [pair for pair in moved if pair[1] > 0]


def test_a_gene_without_elements_and_a_contig_without_any(dataset, tmp_path):
    assert sample(dataset, 3, window_bp=200).elements.shape == (0, 2)
    root = tmp_path / "d"
    bare = mini_dataset(root, np.zeros(500), np.zeros((5, 1)), bin_size=100, tss=(250,))
    assert bare.elements == {}
    with pytest.raises(ConfigError, match=r"data\.elements: found 'peaks'.*the dataset has none"):
        sample(bare, 0)
    with pytest.raises(ConfigError, match="one of peaks, one"):
        sample(dataset, 0, elements="peak")


def test_batches_are_padded_with_minus_one(dataset):
    config = SampleConfig(window_bp=600, bin_size=100, elements="peaks")
    samples = GeneSamples(dataset, config, [0, 1, 2])
    batch = collate([samples[i] for i in range(3)])
    assert batch.elements_BR2.dtype == torch.int32
    assert batch.elements_BR2.shape == (3, 4, 2)
    assert batch.elements_BR2[0, 3].tolist() == [-1, -1]
    assert batch.elements_BR2[2, 1:].eq(-1).all()
    assert batch.elements_BR2[1].tolist() == samples[1].elements.tolist()
    lonely = GeneSamples(dataset, SampleConfig(window_bp=200, bin_size=100, elements="one"), [3])
    assert collate([lonely[0]]).elements_BR2.tolist() == [[[-1, -1]]]


def test_without_a_set_nothing_changes(dataset):
    plain = GeneSamples(dataset, SampleConfig(window_bp=600, bin_size=100), [0, 1])
    assert plain[0].elements is None
    assert collate([plain[0], plain[1]]).elements_BR2.shape == (2, 0, 2)


def test_shuffled_control_gets_the_elements_of_the_other_gene(dataset):
    config = SampleConfig(window_bp=600, bin_size=100, elements="peaks", shuffle_tracks=True)
    mixed = GeneSamples(dataset, config, np.arange(4))
    for gene, donor in enumerate(mixed.donor):
        assert donor != gene
        assert mixed[gene].elements.tolist() == sample(dataset, int(donor)).elements.tolist()


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 60)), max_size=20),
    st.integers(-100, 900),
    st.integers(1, 400),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_look_up_equals_the_plain_loop(steps, start, length, reverse):
    place, pairs = 0, []
    for gap, size in steps:
        pairs.append((place + gap, place + gap + size))
        place += gap + size
    store = object.__new__(Dataset)
    starts, ends = (np.array([pair[i] for pair in pairs], dtype=np.int64) for i in (0, 1))
    store.elements = {"x": {"c": (starts, ends)}}
    end, tss = start + length, start + length // 2
    found = store.window_elements(
        Window("c", start, end, "-" if reverse else "+", 10_000), tss, name="x"
    )
    touched = [(a, b) for a, b in pairs if a < end and b > start]
    expected = [(end - b, end - a) if reverse else (a - start, b - start) for a, b in touched]
    assert sorted(map(tuple, found.tolist())) == sorted(expected)
    middle = [abs((end - a + end - b if reverse else a + b + 2 * start) - 2 * tss - 1)
              for a, b in found.tolist()]  # fmt: skip
    assert middle == sorted(middle)


@pytest.mark.parametrize(
    "pairs", [[(10, 10)], [(50, 70), (60, 80)], [(50, 70), (10, 20)], [(1990, 2001)], [(-1, 5)]]
)
def test_a_table_of_wrong_intervals_is_refused(tmp_path, pairs):
    root = tmp_path / "d"
    mini_dataset(root, np.zeros(LENGTH), np.zeros((20, 1)), bin_size=100)
    write_sets(root, {"peaks": pairs})
    with pytest.raises(FormatError, match="overlap or lie outside"):
        _ = Dataset(root).elements


def test_a_damaged_table_is_seen_when_it_is_opened(tmp_path):
    root = tmp_path / "d"
    mini_dataset(root, np.zeros(LENGTH), np.zeros((20, 1)), bin_size=100)
    write_sets(root, SETS)
    layout.elements_path(root).write_bytes(b"PAR1")
    with pytest.raises(FormatError, match=r"elements\.parquet"):
        Dataset(root)
