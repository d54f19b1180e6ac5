"""Compiled loops over the segments of haplotypes (`seq2exp.variation.coordinates`).

Shapes: H haplotypes, L bases, S segments, N bins, T tracks, R bases of the reference.
"""

# The arguments of compiled functions are arrays whose types numba finds itself.
# mypy: ignore-errors
# ruff: noqa: FBT001

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.compiled import compiled

__all__ = ["fill_bins", "fill_map", "fill_reference"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@compiled()
def fill_map(
    first_H: Ints, num_H: Ints, hap_S: Ints, ref_S: Ints, size_S: Ints, reverse: bool,
    out_HL: NDArray[np.int32],
) -> None:  # fmt: skip
    """Fill the reference position of every base; -1 where it has none."""
    length = out_HL.shape[1]
    for h in range(out_HL.shape[0]):
        out = out_HL[h]
        for k in range(first_H[h], first_H[h] + num_H[h]):
            hap, ref, size = hap_S[k], ref_S[k], size_S[k]
            if reverse:
                part = out[length - hap - size : length - hap]
                for i in range(size):
                    part[i] = ref + size - 1 - i if ref >= 0 else -1
            else:
                part = out[hap : hap + size]
                for i in range(size):
                    part[i] = ref + i if ref >= 0 else -1


@compiled()
def fill_bins(
    first_H: Ints, num_H: Ints, hap_S: Ints, ref_S: Ints, size_S: Ints, reverse: bool,
    bins_NT: Floats, start: int, bin_size: int, out_bin_size: int, sums_NT: Floats,
    counts_NT: Floats, out_HNT: Floats,
) -> None:  # fmt: skip
    """Fill means of haplotype bins; `sums_NT` and `counts_NT` are room for one haplotype."""
    num_out, num_tracks = sums_NT.shape
    end = start + bins_NT.shape[0] * bin_size
    for h in range(out_HNT.shape[0]):
        sums_NT[:] = 0
        counts_NT[:] = 0
        for k in range(first_H[h], first_H[h] + num_H[h]):
            hap, ref, size = hap_S[k], ref_S[k], size_S[k]
            if ref == -1:
                continue
            # Bases that were inserted stay at their anchor.
            moves = ref >= 0
            at = ref if moves else -2 - ref
            done = 0
            while done < size:
                here = at + done if moves else at
                target = (hap + done) // out_bin_size
                step = min(size - done, (target + 1) * out_bin_size - hap - done)
                if here < start:
                    if moves:
                        step = min(step, start - here)
                    done += step
                    continue
                if here >= end:
                    if moves:
                        break
                    done += step
                    continue
                source = (here - start) // bin_size
                if moves:
                    step = min(step, start + (source + 1) * bin_size - here)
                for t in range(num_tracks):
                    value = bins_NT[source, t]
                    if not np.isnan(value):
                        sums_NT[target, t] += step * np.float64(value)
                        counts_NT[target, t] += step
                done += step
        for n in range(num_out):
            to = num_out - 1 - n if reverse else n
            for t in range(num_tracks):
                count = counts_NT[n, t]
                out_HNT[h, to, t] = sums_NT[n, t] / count if count > 0 else np.nan


@compiled()
def fill_reference(
    first_H: Ints, num_H: Ints, hap_S: Ints, ref_S: Ints, size_S: Ints, reverse: bool,
    values_HN: Floats, bin_size: int, start: int, out_HR: Floats,
) -> None:  # fmt: skip
    """Fill the largest value of the bases that belong to each base of the reference."""
    length = values_HN.shape[1] * bin_size
    num_bases = out_HR.shape[1]
    for h in range(out_HR.shape[0]):
        values, out = values_HN[h], out_HR[h]
        out[:] = np.nan
        for k in range(first_H[h], first_H[h] + num_H[h]):
            hap, ref, size = hap_S[k], ref_S[k], size_S[k]
            if ref == -1:
                continue
            for i in range(size):
                at = (ref + i if ref >= 0 else -2 - ref) - start
                if at < 0 or at >= num_bases:
                    continue
                place = length - 1 - hap - i if reverse else hap + i
                value = values[place // bin_size]
                to = num_bases - 1 - at if reverse else at
                if np.isnan(out[to]) or value > out[to]:
                    out[to] = value
