"""Masks written by hand or drawn from known distributions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from seq2exp.elements.masks import EXCLUDED, FREE, PROMOTER, GeneMasks

BIN = 100


def masks_of(values: Any, forced: Any = None, **more: Any) -> GeneMasks:
    """Return masks of genes on chr1, one window after the other, in bins of 100 bases."""
    mask = np.atleast_2d(np.asarray(values, dtype=np.float16))
    num_genes, num_bins = mask.shape
    flags = np.full(mask.shape, FREE) if forced is None else np.atleast_2d(forced)
    start = np.arange(num_genes, dtype=np.int64) * num_bins * BIN
    genes = pd.DataFrame(
        {
            "row": np.arange(num_genes),
            "gene_id": [f"g{i}" for i in range(num_genes)],
            "symbol": [f"S{i}" for i in range(num_genes)],
            "contig": "chr1",
            "tss": start + num_bins * BIN // 2,
            "strand": "+",
            "split": np.where(np.arange(num_genes) % 2 == 0, "valid", "test"),
            "start": start,
            "contig_length": num_genes * num_bins * BIN,
        }
    )
    info = {"assembly": "toy", "num_members": 1, "promoter_bp": 2 * BIN}
    arrays = {"alpha": None, "beta": None} | more
    return GeneMasks(genes, mask, flags.astype(np.uint8), bin_size=BIN, info=info, **arrays)


def drawn_masks(*, num_genes: int, num_bins: int, share: float, seed: int) -> tuple[Any, ...]:
    """Return masks, null masks and truth: null bins follow Beta(1, 6), elements Beta(6, 2).

    Every other bin is excluded, so that a called bin is a discovery of its own; two in the middle
    are the promoter.
    """
    random = np.random.default_rng(seed)
    shape = (num_genes, num_bins)
    forced = np.zeros(shape, dtype=np.uint8)
    forced[:, 1::2] = EXCLUDED
    forced[:, num_bins // 2 - 1 : num_bins // 2 + 1] = PROMOTER
    element = (random.random(shape) < share) & (forced == FREE)
    values = np.where(element, random.beta(6, 2, shape), random.beta(1, 6, shape))
    return masks_of(values, forced), masks_of(random.beta(1, 6, shape), forced), element
