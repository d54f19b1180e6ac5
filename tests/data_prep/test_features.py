"""Scalar features, worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from data_prep.config import FeatureConfig, TrackConfig
from data_prep.features import (
    gc_fraction,
    length_features,
    promoter_signal,
    sequence_features,
)
from seq2exp.core.sequence import encode


def genes(**columns):
    base = {
        "gene_id": ["a", "b"],
        "contig": ["c", "c"],
        "tss": [10, 30],
        "gene_start": [10, 20],
        "gene_end": [19, 119],
        "cds_length": [999.0, np.nan],
        "utr5_length": [9.0, np.nan],
        "utr3_length": [np.nan, np.nan],
        "intron_length": [0.0, 99.0],
        "num_exons": [3.0, 1.0],
        "num_cds": [3.0, np.nan],
    }
    return pd.DataFrame(base | columns)


def test_lengths_by_hand():
    frame, infos = length_features(genes())
    assert frame["log_gene_length"].tolist() == [1.0, 2.0]  # log10(1 + 9), log10(1 + 99)
    assert frame["log_intron_length"].tolist() == [0.0, 2.0]
    assert frame["num_exons"].tolist() == [3.0, 1.0]
    assert {info.source for info in infos} == {"annotation"}
    assert [info.name for info in infos] == list(frame.columns)


def test_features_that_say_nothing_are_left_out():
    frame, _ = length_features(genes())
    assert "log_utr3_length" not in frame  # unknown for all
    assert "log_cds_length" not in frame  # one known gene: nothing to compare with


def test_junction_density_is_per_kb_of_cds():
    frame, _ = length_features(genes(cds_length=[500.0, 2000.0], num_cds=[3.0, 2.0]))
    assert frame["exon_junction_density"].tolist() == [4.0, 0.5]  # 2 / 0.5 kb, 1 / 2 kb


@pytest.mark.parametrize(
    ("sequence", "expected"), [("GGCC", 1.0), ("ATGC", 0.5), ("NNGA", 0.5), ("ATAT", 0.0)]
)
def test_gc_counts_known_bases_only(sequence, expected):
    assert gc_fraction(encode(sequence)) == expected


def test_gc_of_no_known_base_is_unknown():
    assert np.isnan(gc_fraction(encode("NNN")))


def test_gc_of_gene_cds_and_tss():
    codes = encode("A" * 10 + "GGGGGGGGGA" + "C" * 10 + "T" * 970)
    cds = pd.DataFrame({"gene_id": ["a", "a", "b"], "start": [10, 18, 0], "end": [12, 20, 4]})
    frame, infos = sequence_features(genes(), cds, {"c": codes})
    assert frame["gc_gene"].tolist() == [1.0, pytest.approx(10 / 99)]  # [10, 19) and [20, 119)
    assert frame["gc_cds"].tolist() == [0.75, 0.0]  # GG GA, AAAA
    assert frame["gc_tss"].tolist() == [pytest.approx(19 / 510), pytest.approx(19 / 530)]
    assert {info.source for info in infos} == {"sequence"}


def track(name, assay="", biosample="K"):
    return TrackConfig(name=name, path="x", assay=assay, biosample=biosample, unit="u")


def promoter(bins, tracks, **columns):
    return promoter_signal(
        genes(**columns),
        {"c": bins},
        tracks,
        FeatureConfig(promoter_bp=5),
        bin_size=4,
        sizes={"c": 4 * len(bins)},
    )


def test_promoter_weights_bins_by_their_overlap():
    """TSS 10 with 5 bases on either side is [5, 16): 3 bases of bin 1, 4 of bins 2 and 3."""
    bins = np.zeros((20, 1))
    bins[1:4, 0] = [1.0, 2.0, 3.0]
    bins[9] = 1.0
    frame, infos = promoter(bins, [track("T")], tss=[10, 38])
    assert frame["promoter_T"].tolist() == [
        pytest.approx((3 * 1 + 4 * 2 + 4 * 3) / 11),
        np.float32(4 / 11),
    ]
    assert (infos[0].unit, infos[0].source) == ("mean u", "track")


def test_promoter_is_the_same_seen_from_either_strand():
    bins = np.random.default_rng(0).random((20, 1))
    forward, _ = promoter(bins, [track("T")], tss=[10, 41])
    # The base at p becomes 79 - p when the contig of 80 bases is turned round.
    turned, _ = promoter(bins[::-1], [track("T")], tss=[69, 38])
    np.testing.assert_allclose(forward, turned, rtol=1e-6)


def test_unknown_bins_do_not_count():
    bins = np.full((20, 1), np.nan)
    bins[2] = 6.0
    bins[8] = 2.0
    frame, _ = promoter(bins, [track("T")], tss=[10, 34])
    assert frame["promoter_T"].tolist() == [6.0, 2.0]


def test_activity_is_the_geometric_mean_of_mark_and_accessibility():
    bins = np.tile(np.array([[4.0, 9.0, 100.0]]), (20, 1))
    bins[8:] *= 2
    tracks = [track("x", "H3K27ac"), track("y", "DNase-seq"), track("z", "ATAC-seq")]
    frame, _ = promoter(bins, tracks, tss=[10, 60])
    assert frame["promoter_activity"].tolist() == [6.0, 12.0]  # sqrt(4 * 9), DNase before ATAC
    frame, _ = promoter(bins[:, [0, 2]], [tracks[0], tracks[2]], tss=[10, 60])
    assert frame["promoter_activity"].tolist() == [20.0, 40.0]


def test_no_activity_across_biosamples():
    bins = np.arange(40.0).reshape(20, 2)
    frame, _ = promoter(bins, [track("x", "H3K27ac"), track("y", "DNase", "other")], tss=[10, 60])
    assert "promoter_activity" not in frame
