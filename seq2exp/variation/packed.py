"""Haplotypes straight from the bits in which a dataset keeps them, many windows in one call.

For phased genotypes this gives what `seq2exp.variation.policies.resolve` and
`seq2exp.variation.haplotypes.build` give, with alleles that were not called as REF and the overlap
rule ``first``, but nothing stands between the bits and the sequence: no array of alleles, no search
for what deletions could need (a haplotype is laid out again, further, where its own deletions ask
for it).

Shapes: B windows, P ploidy, L bases, M variants of the contig, K blocks of W bytes per row of bits,
R rows (haplotypes of the store).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.core.intervals import Window
from seq2exp.variation import coordinates
from seq2exp.variation import haplotype_kernels as kernels
from seq2exp.variation.haplotypes import Haplotypes, num_threads, read_only
from seq2exp.variation.table import Variants

__all__ = ["PackedHaplotypes"]

Codes = NDArray[np.uint8]


class PackedHaplotypes:
    """Builds haplotypes of one contig from memory-mapped bits.

    Parameters
    ----------
    reference_codes : uint8 array
        Codes of the whole contig; may be memory-mapped, as everything else here.
    variants : Variants
        All of the contig.
    reach_M : int64 array
        Largest end of REF of all variants up to each one.
    alleles_KRW : uint8 array, shape (blocks, haplotypes, bytes)
        Bit set: ALT. First variant of a byte in its highest bit.
    missing_KRW : uint8 array, optional
        Bit set: not called, whatever the other plane says; such alleles are REF.
    keep_M : bool array, optional
        Variants to use; all when None.

    Raises
    ------
    InputError
        Arrays do not fit together.
    """

    def __init__(
        self,
        reference_codes: Codes,
        variants: Variants,
        reach_M: NDArray[np.int64],
        alleles_KRW: Codes,
        *,
        missing_KRW: Codes | None = None,
        keep_M: NDArray[np.bool_] | None = None,
    ) -> None:
        num = len(variants)
        missing = np.empty((0, 0, 0), np.uint8) if missing_KRW is None else missing_KRW
        keep = np.empty(0, bool) if keep_M is None else keep_M
        fits = len(reach_M) == num and alleles_KRW.ndim == 3
        fits = fits and alleles_KRW.shape[0] * alleles_KRW.shape[2] * 8 >= num
        fits = fits and (missing_KRW is None or missing.shape == alleles_KRW.shape)
        if not fits or (keep_M is not None and keep.shape != (num,)):
            raise InputError(
                facts(
                    "bits of genotypes",
                    found=f"planes of {alleles_KRW.shape} and {missing.shape}, "
                    f"{len(reach_M)} reaches, {keep.shape[0]} marks",
                    expected=f"blocks x haplotypes x bytes for {num} variants",
                    fix="take all from one contig of one dataset",
                )
            )
        self.num_rows = alleles_KRW.shape[1]
        self._length = len(reference_codes)
        self._arrays = tuple(
            map(
                read_only,
                (
                    *(alleles_KRW, missing, keep, reach_M, reference_codes, variants.position_M),
                    *(variants.ref_length_M, variants.alt_offset_M1, variants.alt_codes_C),
                ),
            )
        )
        self._room = 1024

    def build(
        self,
        rows_BP: NDArray[np.int64],
        windows: Sequence[Window],
        tss_B: Sequence[int],
        *,
        gene_strands: Sequence[str] | None = None,
        out_BPL: Codes | None = None,
        parallel: bool = False,
    ) -> list[Haplotypes]:
        """Return the haplotypes of each window; all windows are of one length.

        Parameters
        ----------
        rows_BP : int64 array
            Haplotypes of the store that each window is built for.
        windows, tss_B : sequences of length B
        gene_strands, parallel
            As :func:`seq2exp.variation.haplotypes.build`.
        out_BPL : uint8 array, optional
            Buffer to fill, of that very shape.

        Raises
        ------
        InputError
            Shapes do not fit, a row or TSS is outside, or a variant leaves the contig.
        """
        rows = np.ascontiguousarray(rows_BP, dtype=np.int64)
        strands = gene_strands or [window.strand for window in windows]
        tss = np.array(tss_B, dtype=np.int64)
        start = np.array([window.start for window in windows], dtype=np.int64)
        out = self._check(rows, windows, tss, start, out_BPL)
        num, ploidy, length = out.shape
        reverse = np.array([window.reverse for window in windows], dtype=bool)
        to_right = np.array([strand != "-" for strand in strands], dtype=bool)
        each = [np.repeat(values, ploidy) for values in (tss, start, to_right, reverse)]
        fill = kernels.fill_packed_parallel if parallel else kernels.fill_packed
        facts_HF = np.empty((num * ploidy, 9), np.int64)
        while True:
            scratch = np.empty((num_threads() if parallel else 1, 6, self._room), np.int64)
            hap_S, ref_S, size_S = np.empty((3, num * ploidy * self._room), np.int64)
            fill(
                rows.ravel(), *each, *self._arrays, scratch, self._room, hap_S, ref_S, size_S,
                facts_HF, out.reshape(-1, length),
            )  # fmt: skip
            state = facts_HF[:, 0].min(initial=0)
            if state != kernels.NO_ROOM:
                break
            self._room *= 2
        if state < 0:
            self._refuse(facts_HF, windows[0])
        first_H = np.arange(num * ploidy) * self._room
        found = []
        for b, window in enumerate(windows):
            part = slice(b * ploidy, (b + 1) * ploidy)
            segments = coordinates.Segments(
                hap_S, ref_S, size_S, first_H[part], facts_HF[part, 0], length, window.reverse
            )
            before = int(tss[b] - start[b])
            index = length - 1 - before if window.reverse else before
            found.append(Haplotypes(out[b], window, int(tss[b]), index, segments, facts_HF[part]))
        return found

    def _check(
        self,
        rows_BP: NDArray[np.int64],
        windows: Sequence[Window],
        tss_B: NDArray[np.int64],
        start_B: NDArray[np.int64],
        out_BPL: Codes | None,
    ) -> Codes:
        lengths = {(window.length, window.contig_length) for window in windows}
        num = len(windows)
        if rows_BP.ndim != 2 or len(rows_BP) != num or len(tss_B) != num or len(lengths) != 1:
            raise InputError(
                facts(
                    "haplotypes of many windows",
                    found=f"rows of shape {rows_BP.shape}, {num} windows, {len(tss_B)} TSS",
                    expected="as many of each, windows of one length on one contig",
                    fix="make one call per length and contig",
                )
            )
        length, contig = lengths.pop()
        inside = (tss_B >= start_B) & (tss_B < start_B + length) & (tss_B >= 0) & (tss_B < contig)
        if not inside.all() or contig != self._length or contig >= 2**31:
            raise InputError(
                facts(
                    f"haplotypes on {windows[0].contig}",
                    found=f"a contig of {contig} bases, {int((~inside).sum())} TSS outside",
                    expected=f"{self._length} bases, each TSS in its window and in the contig",
                    fix="make windows around their TSS, on the contig of these variants",
                )
            )
        if rows_BP.size and not 0 <= rows_BP.min() <= rows_BP.max() < self.num_rows:
            raise InputError(
                facts(
                    "haplotypes of many windows",
                    found=f"rows {rows_BP.min()} to {rows_BP.max()}",
                    expected=f"rows below {self.num_rows}",
                    fix="number haplotypes as the store does: donor x ploidy + haplotype",
                )
            )
        shape = (*rows_BP.shape, length)
        if out_BPL is None:
            return np.empty(shape, np.uint8)
        if out_BPL.shape != shape or out_BPL.dtype != np.uint8 or not out_BPL.flags.c_contiguous:
            raise InputError(
                facts(
                    "buffer for haplotypes",
                    found=f"{out_BPL.dtype} array of shape {out_BPL.shape}",
                    expected=f"uint8 without gaps of shape {shape}",
                    fix="make it of that shape",
                )
            )
        return out_BPL

    def _refuse(self, facts_HF: NDArray[np.int64], window: Window) -> None:
        variant = int(facts_HF[np.argmin(facts_HF[:, 0]), 1])
        raise InputError(
            facts(
                f"haplotypes on {window.contig}, variant {variant}",
                found="a variant that leaves the contig",
                expected="variants of this assembly",
                fix="prepare the genotypes again",
            )
        )
