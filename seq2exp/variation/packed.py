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
from seq2exp.variation.haplotypes import Haplotypes, in_parts, read_only
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
        if self._length >= 2**31:
            raise InputError(
                facts(
                    "haplotypes",
                    found=f"a contig of {self._length} bases",
                    expected="fewer than 2^31",
                    fix="split the contig",
                )
            )
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
        threads: int = 1,
    ) -> list[Haplotypes]:
        """Return the haplotypes of each window; all windows are of one length.

        Parameters
        ----------
        rows_BP : int64 array
            Haplotypes of the store that each window is built for.
        windows, tss_B : sequences of length B
        gene_strands, threads
            As :func:`seq2exp.variation.haplotypes.build`.
        out_BPL : uint8 array, optional
            Buffer to fill, of that very shape.

        Raises
        ------
        InputError
            Shapes do not fit, a row or TSS is outside, or a variant leaves the contig.
        """
        rows = np.ascontiguousarray(rows_BP, dtype=np.int64)
        out = self._check(rows, windows, tss_B, out_BPL)
        num, ploidy, length = out.shape
        plan_BF = np.array(
            [
                (t, window.start, (gene_strands[b] if gene_strands else window.strand) != "-",
                 window.reverse)
                for b, (window, t) in enumerate(zip(windows, tss_B, strict=True))
            ],
            dtype=np.int64,
        ).reshape(num, 4)  # fmt: skip
        facts_HF = np.empty((num * ploidy, 9), np.int64)
        while True:
            parts = np.empty((3, num, ploidy * self._room), np.int64)
            self._fill(rows, plan_BF, parts, facts_HF, out, threads)
            at = int(facts_HF[:, 0].argmin()) if len(facts_HF) else 0
            worst = int(facts_HF[at, 0]) if len(facts_HF) else 0
            if worst != kernels.NO_ROOM:
                break
            self._room *= 2
        if worst < 0:
            self._refuse(int(facts_HF[at, 1]), windows[0])
        parts = parts.reshape(3, -1)
        first_H = np.arange(0, num * ploidy * self._room, self._room)
        found = []
        for b, window in enumerate(windows):
            mine = slice(b * ploidy, (b + 1) * ploidy)
            facts_PF = facts_HF[mine]
            segments = coordinates.Segments(
                parts[0], parts[1], parts[2], first_H[mine], facts_PF[:, 0], length, window.reverse
            )
            before = tss_B[b] - window.start
            index = length - 1 - before if window.reverse else before
            found.append(Haplotypes(out[b], window, tss_B[b], index, segments, facts_PF))
        return found

    def _fill(
        self,
        rows_BP: NDArray[np.int64],
        plan_BF: NDArray[np.int64],
        parts_3BS: NDArray[np.int64],
        facts_HF: NDArray[np.int64],
        out_BPL: Codes,
        threads: int,
    ) -> None:
        ploidy = rows_BP.shape[1]

        def fill(first: int, last: int) -> None:
            kernels.fill_packed(
                rows_BP[first:last], plan_BF[first:last], *self._arrays,
                np.empty((6, self._room), np.int64), self._room,
                *(part[first:last].reshape(-1) for part in parts_3BS),
                facts_HF[first * ploidy : last * ploidy], out_BPL[first:last],
            )  # fmt: skip

        in_parts(fill, len(rows_BP), threads=threads)

    def _check(
        self,
        rows_BP: NDArray[np.int64],
        windows: Sequence[Window],
        tss_B: Sequence[int],
        out_BPL: Codes | None,
    ) -> Codes:
        num = len(windows)
        length = windows[0].length if num else 0
        if rows_BP.ndim != 2 or len(rows_BP) != num or len(tss_B) != num or not num:
            raise InputError(
                facts(
                    "haplotypes of many windows",
                    found=f"rows of shape {rows_BP.shape}, {num} windows, {len(tss_B)} TSS",
                    expected="as many of each, at least one",
                    fix="give haplotypes and TSS for every window",
                )
            )
        for window, tss in zip(windows, tss_B, strict=True):
            if window.end - window.start != length or window.contig_length != self._length:
                raise InputError(
                    facts(
                        f"haplotypes on {window.contig}",
                        found=f"a window of {window.length} bases on a contig of "
                        f"{window.contig_length}",
                        expected=f"{length} bases as the first, {self._length}",
                        fix="make one call per length and contig",
                    )
                )
            if not (window.start <= tss < window.end and 0 <= tss < self._length):
                raise InputError(
                    facts(
                        f"haplotypes on {window.contig}",
                        found=f"TSS {tss}",
                        expected=f"a position in the window {window.start}-{window.end} and in "
                        "the contig",
                        fix="make the window around the TSS",
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

    def _refuse(self, variant: int, window: Window) -> None:
        raise InputError(
            facts(
                f"haplotypes on {window.contig}, variant {variant}",
                found="a variant that leaves the contig",
                expected="variants of this assembly",
                fix="prepare the genotypes again",
            )
        )
