from __future__ import annotations

import numpy as np
import pytest

from seq2exp.core.errors import FormatError, InputError
from seq2exp.core.intervals import Window
from seq2exp.dataset.samples import SampleConfig
from seq2exp.elements.masks import EXCLUDED, FREE, PROMOTER, gene_masks, load_masks
from tests.elements.fakes import PROMOTER_BP, fake_run


def test_masks_lie_where_their_signal_lies_on_both_strands(masks, dataset):
    """The fake mask is (1 + s) / (3 + s) of the DNase bin s, read here on the plus strand."""
    for gene in range(len(masks)):
        row = masks.genes.iloc[gene]
        start = int(row["start"])
        plus = Window(row["contig"], start, start + 1024, "+", int(row["contig_length"]))
        signal = dataset.track_bins(plus, bin_size=32)[:, 0].astype(np.float64)
        expected = (1 + signal) / (3 + signal)
        free = masks.forced[gene] == FREE
        assert free.any()
        np.testing.assert_allclose(
            masks.mask[gene][free].astype(float), expected[free], rtol=0, atol=1e-3
        )


def test_both_strands_occur_and_the_promoter_covers_the_tss(masks):
    assert set(masks.genes["strand"]) == {"+", "-"}
    for gene in range(len(masks)):
        starts, ends = masks.intervals(gene)
        promoter = (masks.forced[gene] == PROMOTER) & (ends > starts)
        tss = int(masks.genes["tss"].iloc[gene])
        assert ((starts <= tss) & (tss < ends) & promoter).sum() == 1
        # 256 bases in bins of 32, centred on an edge between bins: eight bins.
        assert promoter.sum() == PROMOTER_BP // 32
        assert (masks.mask[gene][promoter] == 1).all()


def test_bins_outside_the_contig_are_excluded_and_empty(masks):
    first = int(np.argmin(masks.genes["start"]))
    starts, ends = masks.intervals(first)
    assert int(masks.genes["start"].iloc[first]) < 0
    outside = ends == starts
    assert outside.any()
    assert (masks.forced[first][outside] == EXCLUDED).all()
    assert (masks.mask[first][outside] == 0).all()
    assert starts.min() == 0


def test_excluded_regions_are_zero_and_flagged(masks):
    """The toy excludes chr1:100-400; gene 0 lies at 300, so part of it is its promoter."""
    starts, ends = masks.intervals(0)
    touched = (starts < 400) & (ends > 100) & (ends > starts)
    flags = masks.forced[0][touched]
    assert set(flags.tolist()) == {PROMOTER, EXCLUDED}
    assert (masks.mask[0][touched][flags == EXCLUDED] == 0).all()


def test_batch_size_does_not_change_masks(run, dataset, masks):
    again = gene_masks(run, dataset, range(len(dataset.genes)), batch_size=3)
    np.testing.assert_array_equal(again.mask, masks.mask)
    np.testing.assert_array_equal(again.forced, masks.forced)


def test_members_are_averaged(dataset):
    one, two = (gene_masks(fake_run(dataset, gains=(g,)), dataset, [5, 9]) for g in (0.5, 4.0))
    both = gene_masks(fake_run(dataset, gains=(0.5, 4.0)), dataset, [5, 9])
    mean = (one.mask.astype(float) + two.mask.astype(float)) / 2
    np.testing.assert_allclose(both.mask.astype(float), mean, atol=1e-3)
    alpha = (one.alpha.astype(float) + two.alpha.astype(float)) / 2
    np.testing.assert_allclose(both.alpha.astype(float), alpha, rtol=2e-3)
    assert both.info["num_members"] == 2


def test_plus_strand_windows_are_not_flipped(dataset):
    config = SampleConfig(window_bp=1024, bin_size=32, strand="plus")
    plus = gene_masks(fake_run(dataset, config=config), dataset, [5])
    start = int(plus.genes["start"].iloc[0])
    assert plus.genes["strand"].iloc[0] == "-"
    assert start == int(plus.genes["tss"].iloc[0]) - 512
    window = Window("chr1", start, start + 1024, "+", int(plus.genes["contig_length"].iloc[0]))
    signal = dataset.track_bins(window, bin_size=32)[:, 0]
    free = plus.forced[0] == FREE
    expected = (1 + signal) / (3 + signal)
    np.testing.assert_allclose(plus.mask[0][free].astype(float), expected[free], atol=1e-3)


def test_folder_reads_back_equal(run, dataset, masks, tmp_path):
    stored = gene_masks(
        run, dataset, range(len(dataset.genes)), out=tmp_path / "masks", batch_size=7
    )
    opened = load_masks(tmp_path / "masks")
    for name in ("mask", "forced", "alpha", "beta"):
        np.testing.assert_array_equal(getattr(opened, name), getattr(masks, name))
        assert isinstance(getattr(stored, name), np.memmap)
    assert opened.genes.equals(masks.genes)
    assert opened.bin_size == 32


def test_a_killed_writer_leaves_nothing(run, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "seq2exp.elements.masks._average", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        gene_masks(run, dataset, [0, 1], out=tmp_path / "masks")
    assert list(tmp_path.iterdir()) == []


def test_genes_are_found_by_id_and_symbol(masks):
    assert masks.index("chr2_g3") == masks.index("CHR2G3")
    with pytest.raises(InputError, match="nonesuch"):
        masks.index("nonesuch")


def test_no_gene_is_an_error(run, dataset):
    with pytest.raises(InputError, match="no gene"):
        gene_masks(run, dataset, [])


def test_a_truncated_array_is_named(run, dataset, tmp_path):
    gene_masks(run, dataset, [0, 1], out=tmp_path / "masks")
    path = tmp_path / "masks" / "mask.npy"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FormatError, match=r"mask\.npy"):
        load_masks(tmp_path / "masks")
    with pytest.raises(FormatError, match=r"masks\.json"):
        load_masks(tmp_path)
