"""How often each base follows each other."""

from __future__ import annotations

import numpy as np


def dinucleotide_counts(codes):
    """Counts of pairs of base codes, shape (25,), N included."""
    return np.bincount(codes[:-1].astype(np.int64) * 5 + codes[1:], minlength=25)
