from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from seq2exp.core.errors import InputError
from seq2exp.elements.calling import CallConfig, call_elements
from seq2exp.elements.masks import FREE
from seq2exp.elements.truth import Truth
from seq2exp.report import plots
from seq2exp.report.locus import locus_data, plot_locus
from seq2exp.report.style import save_figure

ROWS = [
    {"name": "model", "metric": "pearson", "value": 0.8, "low": 0.7, "high": 0.9},
    {"name": "ridge", "metric": "pearson", "value": 0.5, "low": None, "high": None},
    {"name": "mean", "metric": "pearson", "value": None, "low": None, "high": None},
    {"name": "mask", "metric": "auprc 0-1 kb", "value": 0.4, "low": 0.3, "high": 0.5},
    {"name": "mask", "metric": "auprc 1-2 kb", "value": 0.2, "low": 0.1, "high": 0.3},
    {"name": "distance", "metric": "auprc 1-2 kb", "value": 0.1, "low": 0.1, "high": 0.1},
]


def texts(figure):
    return [item.get_text() for axis in figure.axes for item in axis.texts]


def test_scatter_prints_r_and_n_of_labelled_genes():
    observed = [1.0, 2.0, 3.0, np.nan]
    figure = plots.plot_scatter(observed, [2.0, 4.0, 6.0, 0.0], unit="log1p TPM")
    assert texts(figure) == ["r = 1.000\nn = 3 genes"]
    assert figure.axes[0].get_xlabel() == "observed (log1p TPM)"
    assert figure.axes[0].get_xlim() == figure.axes[0].get_ylim()
    with pytest.raises(InputError, match="no labelled gene"):
        plots.plot_scatter([np.nan], [1.0])


def test_training_marks_the_best_epoch():
    metrics = pd.DataFrame(
        {
            "epoch": [0, 1, 2],
            "train_loss": [3.0, 2, 1],
            "valid_loss": [3.0, 1, 2],
            "valid_pearson": [0.1, 0.5, 0.4],
            "mask_ratio": [0.5, 0.4, 0.3],
        }
    )
    assert plots.kept_epoch(metrics) == 2
    for axis, drawn in zip(plots.plot_training(metrics).axes, (2, 1, 1), strict=True):
        upright = [line for line in axis.lines if list(line.get_xdata()) == [2, 2]]
        assert len(upright) == 1
        assert upright[0].get_linestyle() == "--"
        assert len(axis.lines) == drawn + 1
    score = plots.plot_training(metrics).axes[1]
    assert [0.1, 0.5, 0.4] in [list(line.get_ydata()) for line in score.lines]
    assert plots.kept_epoch(metrics.drop(columns="valid_loss")) is None
    assert plots.kept_epoch(metrics.assign(valid_loss=np.nan)) is None


def test_metric_points_are_sorted_and_rows_without_value_left_out():
    axis = plots.plot_metric(ROWS, "pearson").axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["ridge", "model"]


def test_bars_stand_in_the_band_of_their_row():
    axis = plots.plot_bands(ROWS, ["mask", "distance"]).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0-1 kb", "1-2 kb"]
    mask, distance = axis.containers
    assert [bar.get_height() for bar in mask] == [0.4, 0.2]
    assert [bar.get_height() for bar in distance] == [0.0, 0.1]


def test_curves_carry_their_area():
    figure = plots.plot_precision_recall(
        {"mask": ([0, 1], [1, 0.5])}, base_rate=0.1, values={"mask": 0.75}
    )
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mask  0.750"]


@pytest.mark.parametrize("gene", ["chr3_g4", "chr3_g5"])
def test_locus_shows_both_strands_where_they_are(masks, dataset, gene):
    elements, threshold = call_elements(masks, CallConfig(budget=0.2, min_length_bp=32))
    data = locus_data(masks, dataset, gene, elements=elements, threshold=threshold)
    number = masks.index(gene)
    np.testing.assert_array_equal(np.isfinite(data.mask), masks.forced[number] == FREE)
    assert set(data.elements["gene_id"]) == {gene}
    # Beta(alpha, beta): its mean, the mask, lies inside the central 95 %.
    known = np.isfinite(data.low)
    assert known.sum() == (masks.forced[number] == FREE).sum()
    assert ((data.low <= data.mask) & (data.mask <= data.high))[known].all()
    ((first, last),) = data.forced
    assert first <= data.gene["tss"] < last
    figure = plot_locus(data)
    assert len(figure.axes) == 1 + 2 + 2  # genes, two tracks, mask, elements
    assert data.contig in figure.axes[-1].get_xlabel()
    arrow = next(a for a in figure.axes[0].texts if hasattr(a, "arrow_patch") and a.arrow_patch)
    downstream = arrow.xy[0] - data.gene["tss"]
    assert (downstream > 0) == (data.gene["strand"] == "+")


def test_distance_axis_runs_along_transcription(masks, dataset):
    for gene, sign in (("chr3_g4", 1), ("chr3_g5", -1)):
        data = locus_data(masks, dataset, gene)
        top = plot_locus(data).axes[0].child_axes[0]
        assert top._functions[0](data.gene["tss"] + 1000) == sign


def test_truth_adds_a_layer(masks, dataset):
    row = masks.genes.iloc[masks.index("chr3_g4")]
    frame = pd.DataFrame(
        {
            "chrom": "chr3",
            "start": [row["tss"] + 200],
            "end": [row["tss"] + 260],
            "gene_id": ["chr3_g4"],
            "causal": [True],
            "kind": ["enhancer"],
        }
    )
    data = locus_data(masks, dataset, "chr3_g4", truth=Truth(frame, "toy"))
    assert len(plot_locus(data).axes) == 6
    assert len(locus_data(masks, dataset, "chr3_g5", truth=Truth(frame, "toy")).truth) == 0


def test_figures_are_written_twice_alike(tmp_path):
    for name in ("one", "two"):
        save_figure(plots.plot_metric(ROWS, "pearson"), tmp_path / name)
    for suffix in ("svg", "png"):
        one, two = (tmp_path / f"{name}.{suffix}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
        assert one.stat().st_size > 1000
