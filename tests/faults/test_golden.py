"""F43: a genome small enough to compute by hand, from raw files to windows and BED text."""

from __future__ import annotations

import numpy as np
import pandas as pd

from seq2exp.core.bed import write_bed
from seq2exp.core.intervals import tss_window
from seq2exp.core.sequence import decode, encode
from tests.dataset.mini import mini_dataset

#         0         1         2
#         012345678901234567890123
GENOME = "AACCGGTTNACGTTTTCCCCAAAA"
# Bins of 4: AACC GGTT NACG TTTT CCCC AAAA
SIGNAL = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]


def test_f43_windows_computed_by_hand(tmp_path):
    dataset = mini_dataset(
        tmp_path / "d", encode(GENOME), np.array(SIGNAL)[:, None], bin_size=4,
        tss=[10, 13, 2], strands="+--",
    )  # fmt: skip
    expected = {
        # TSS 10 on plus: [6, 14). Bins [6, 10) = (2 + 2 + 4 + 4) / 4, [10, 14) = (4+4+8+8) / 4.
        0: ("TTNACGTT", [3.0, 6.0]),
        # TSS 13 on minus: [13 - 3, 13 + 5) = [10, 18) = CGTTTTCC, read back as GGAAAACG; bins
        # [14, 18) = (8 + 8 + 16 + 16) / 4, then [10, 14).
        1: ("GGAAAACG", [12.0, 6.0]),
        # TSS 2 on minus: [-1, 7) = .AACCGGT, read back as ACCGGTTN; bins [3, 7) = (1+2+2+2) / 4,
        # then [-1, 3), where three bases exist.
        2: ("ACCGGTTN", [1.75, 1.0]),
    }
    for gene, (text, bins) in expected.items():
        contig, tss, strand = dataset.sites[gene]
        window = tss_window(contig, tss, strand, length=8, contig_length=len(GENOME))
        assert decode(dataset.codes(window)) == text
        assert dataset.track_bins(window, bin_size=4)[:, 0].tolist() == bins
        base = GENOME[tss] if strand == "+" else decode(3 - encode(GENOME[tss]))
        assert text[4] == base


def test_f43_bed_text(tmp_path):
    frame = pd.DataFrame(
        {
            "chrom": ["c2", "c1", "c1"], "start": [5, 20, 3], "end": [9, 30, 8],
            "name": ["x", "y", "z"], "score": [1000, 7, 0], "strand": ["+", "-", "."],
            "mean_mask": [1 / 3, 0.5, 1e-9],
        }
    )  # fmt: skip
    write_bed(frame, tmp_path / "x.bed")
    assert (tmp_path / "x.bed").read_text() == (
        "c1\t3\t8\tz\t0\t.\t1e-09\nc1\t20\t30\ty\t7\t-\t0.5\nc2\t5\t9\tx\t1000\t+\t0.333333\n"
    )
