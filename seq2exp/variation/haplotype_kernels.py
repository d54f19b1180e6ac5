"""Compiled loops that turn the alleles of a haplotype into its sequence.

First the records of a haplotype become edits (a stretch of the reference, and what stands there
instead), then the edits become segments of the window, which run beside the reference, and patches
on them, then both are copied. All places in a haplotype are counted in genome direction; only
copying turns them around.

Shapes: H haplotypes, L bases of the window, G of the contig, M variants, E records of one
haplotype, S segments of all haplotypes; K blocks of W bytes per row of bits.

numba keeps compiled functions until their own file changes: after a change of what
`overlap_kernels` imports from here, remove ``__pycache__/*.nbi``.
"""

# The arguments of compiled functions are arrays whose types numba finds itself.
# mypy: ignore-errors
# ruff: noqa: ANN001, ANN202, FBT001

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from seq2exp.core.compiled import compiled
from seq2exp.variation.iupac import BASES_OF_CODE, CODE_OF_BASES, COMPLEMENT

__all__ = [
    "ALT",
    "BAD_ACTION",
    "BAD_IUPAC",
    "BAD_POSITION",
    "DROPPED",
    "IUPAC",
    "LEAVE",
    "NO_ROOM",
    "PADDING",
    "UNKNOWN",
    "allele_shape",
    "conflicts",
    "fill_all",
    "fill_packed",
    "inline",
    "make_room",
]

Codes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# Actions.
LEAVE, ALT, UNKNOWN, IUPAC, DROPPED = 0, 1, 2, 3, 4
# Where the bases of a patch come from: ALT codes from a number of them on, or code c as _CODE - c.
_CODE = -1
# Which reference base a segment begins with: a position, none because the contig ended, or that of
# the base after which bases were inserted.
PADDING = -1
_INSERTED = -2
# Reasons to refuse.
BAD_POSITION, BAD_IUPAC, BAD_ACTION, NO_ROOM = -1, -2, -3, -4

_N = 4
# Bases read on either side of a window at once; more only where deletions reach further.
_MARGIN = 64
inline = njit(inline="never", nogil=True, error_model="numpy")


@inline
def allele_shape(
    i: int, reference_G: Codes, position_M: Ints, ref_length_M: Ints, alt_offset_M1: Ints,
    alt_codes_C: Codes,
) -> tuple[int, int, int, int]:  # fmt: skip
    """Return REF and ALT length of variant i, and the bases both share in front and behind.

    They share one only where it is the anchor of an insertion or deletion.
    """
    first = alt_offset_M1[i]
    alt_length = alt_offset_M1[i + 1] - first
    ref_length = np.int64(ref_length_M[i])
    front, behind = np.int64(0), np.int64(0)
    if alt_length != ref_length:
        if alt_codes_C[first] == reference_G[position_M[i]]:
            front += 1
        elif alt_codes_C[first + alt_length - 1] == reference_G[position_M[i] + ref_length - 1]:
            behind += 1
    return ref_length, alt_length, front, behind


@inline
def conflicts(
    position: int, front: int, last: int, longer: bool,
) -> bool:  # fmt: skip
    """Whether a record cannot follow one whose last REF base is `last`.

    On that base itself only an insertion or deletion anchored there may stand, and only if the
    record before did not make the sequence longer.
    """
    return position < last or (position == last and (front == 0 or longer))


@inline
def _edits(
    index_E, action_E, carried, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C,
    start_E, end_E, source_E, size_E,
):  # fmt: skip
    """Fill the edits of one haplotype from the front and dropped positions from the back.

    Returns their numbers; a negative first one refuses, and then the second is the variant.
    """
    taken, dropped, room = 0, 0, start_E.size
    last, longer = np.int64(-1), False
    pair = np.int64(-1)
    for k in range(carried):
        i, action = index_E[k], action_E[k]
        position = position_M[i]
        if position < 0 or position + ref_length_M[i] > reference_G.size:
            return BAD_POSITION, i
        if action > DROPPED:
            return BAD_ACTION, i
        # Most are single bases: no call, at which numba counts references to arrays.
        first = alt_offset_M1[i]
        alt_length, ref_length = alt_offset_M1[i + 1] - first, np.int64(ref_length_M[i])
        front, behind = np.int64(0), np.int64(0)
        if alt_length != ref_length:
            _, _, front, behind = allele_shape(
                i, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C
            )
        if action == UNKNOWN and ref_length == front + behind:
            # Whether bases were inserted is not known; no base of the reference is in doubt.
            continue
        if action == IUPAC and (ref_length != 1 or alt_length != 1):
            return BAD_IUPAC, i
        if action == DROPPED or (position <= last and conflicts(position, front, last, longer)):
            if action == IUPAC and position == pair:
                # Two ALT of one site on one haplotype: the call was one or the other, never REF.
                other = alt_codes_C[alt_offset_M1[np.int64(source_E[taken - 1])]]
                both = BASES_OF_CODE[other] | BASES_OF_CODE[alt_codes_C[first]]
                source_E[taken - 1] = _CODE - np.int64(CODE_OF_BASES[both])
                pair = -1
                continue
            dropped += 1
            start_E[room - dropped] = position
            continue
        if pair >= 0:
            _name_pair(source_E, taken - 1, reference_G[pair], alt_offset_M1, alt_codes_C)
        pair = -1
        last, longer = position + ref_length - 1, action == ALT and alt_length > ref_length
        start_E[taken] = position + front
        end_E[taken] = position + ref_length - behind
        if action == ALT:
            source_E[taken], size_E[taken] = first + front, alt_length - front - behind
        elif action == UNKNOWN:
            source_E[taken], size_E[taken] = _CODE - _N, ref_length - front - behind
        else:
            # The variant for now: another one of the same site may follow.
            source_E[taken], size_E[taken], pair = i, 1, position
        taken += 1
    if pair >= 0:
        _name_pair(source_E, taken - 1, reference_G[pair], alt_offset_M1, alt_codes_C)
    return taken, dropped


@inline
def _name_pair(source_E, at, reference_code, alt_offset_M1, alt_codes_C):
    """Replace the number of a variant by the code of its REF or ALT."""
    alt_code = alt_codes_C[alt_offset_M1[np.int64(source_E[at])]]
    both = BASES_OF_CODE[reference_code] | BASES_OF_CODE[alt_code]
    source_E[at] = _CODE - np.int64(CODE_OF_BASES[both])


@inline
def _anchor(start_E, end_E, size_E, taken, tss, to_right):
    """Return the base that stands for the TSS, its place in the haplotype, and whether it moved."""
    shift = np.int64(0)
    k = 0
    while k < taken and end_E[k] <= tss:
        shift += size_E[k] - (end_E[k] - start_E[k])
        k += 1
    if k == taken or start_E[k] > tss:
        return tss, tss + shift, False
    kept = min(size_E[k], end_E[k] - start_E[k])
    if tss - start_E[k] < kept:
        return tss, tss + shift, False
    if to_right:
        at = end_E[k]
        shift += size_E[k] - (end_E[k] - start_E[k])
        k += 1
        while k < taken and start_E[k] <= at:
            if end_E[k] > at and size_E[k] > 0:
                break
            at = end_E[k]
            shift += size_E[k] - (end_E[k] - start_E[k])
            k += 1
        return at, at + shift, True
    at = start_E[k] + kept - 1
    while kept == 0 and k > 0 and end_E[k - 1] > at:
        k -= 1
        shift -= size_E[k] - (end_E[k] - start_E[k])
        if start_E[k] <= at:
            kept = min(size_E[k], end_E[k] - start_E[k])
            at = start_E[k] + kept - 1
    return at, at + shift, True


@inline
def _put(hap_S, ref_S, size_S, count, hap, ref, size):
    """Write one segment and return how many there are."""
    hap_S[count], ref_S[count], size_S[count] = hap, ref, size
    return count + 1


@inline
def _run(hap_S, ref_S, size_S, count, first, low, high, shift, contig_length):
    """Write haplotype places [low, high) that lie beside the reference; outside is padding."""
    stop = min(high, shift)
    if stop > low:
        count = _put(hap_S, ref_S, size_S, count, low - first, PADDING, stop - low)
        low = stop
    stop = min(high, contig_length + shift)
    if stop > low:
        count = _put(hap_S, ref_S, size_S, count, low - first, low - shift, stop - low)
        low = stop
    if high > low:
        count = _put(hap_S, ref_S, size_S, count, low - first, PADDING, high - low)
    return count


@inline
def _segments(
    start_E, end_E, source_E, size_E, taken, first, length, contig_length, hap_S, ref_S, size_S
):  # fmt: skip
    """Fill the segments of haplotype places [first, first + length).

    What stands there instead of the reference replaces the edits: places counted from `first` in
    ``start_E``. Returns the numbers of segments, of those, and of edits that touch the window.
    """
    count, patches, applied = 0, 0, 0
    beyond = first + length
    shift, done = np.int64(0), first
    for k in range(taken):
        start, size = start_E[k], size_E[k]
        begin = start + shift
        if begin >= beyond:
            break
        old = end_E[k] - start
        junction = begin + size
        if old == size:
            # A substitution moves nothing.
            if junction > first:
                low, high = max(begin, first), min(junction, beyond)
                source = source_E[k]
                start_E[patches] = low - first
                source_E[patches] = source + (low - begin) if source >= 0 else source
                size_E[patches] = high - low
                patches += 1
                applied += 1
            continue
        kept = min(size, old)
        low = begin + kept
        if low > done:
            stop = min(low, beyond)
            count = _run(hap_S, ref_S, size_S, count, first, done, stop, shift, contig_length)
            done = stop
        stop = min(junction, beyond)
        if stop > done and size > kept:
            anchor = max(start + kept - 1, np.int64(0))
            count = _put(hap_S, ref_S, size_S, count, done - first, _INSERTED - anchor, stop - done)
            done = stop
        low, high = max(begin, first), min(junction, beyond)
        if high > low:
            start_E[patches] = low - first
            source_E[patches] = source_E[k] + low - begin
            size_E[patches] = high - low
            patches += 1
        applied += high > low or first < junction < beyond
        shift += size - old
    if beyond > done:
        count = _run(hap_S, ref_S, size_S, count, first, done, beyond, shift, contig_length)
    return count, patches, applied


@inline
def _copy(target, source):
    """Copy bases."""
    for i in range(target.size):
        target[i] = source[i]


@inline
def _copy_turned(target, source):
    """Copy the opposite strand of bases A, C, G, T, N."""
    # An index that may be negative would count from the end, and then nothing is vectorised.
    size = np.uint64(target.size)
    for i in range(size):
        code = source[size - np.uint64(1) - i]
        target[i] = code ^ np.uint8(3) if code < _N else code


@inline
def _fill(
    hap_S, ref_S, size_S, count, place_E, source_E, size_E, patches, reference_G, alt_codes_C,
    reverse, out_L,
):  # fmt: skip
    """Write the sequence: runs of the reference, then what replaces it; turned with `reverse`."""
    length = out_L.size
    for k in range(count):
        hap, ref, size = hap_S[k], ref_S[k], size_S[k]
        if ref <= _INSERTED:
            continue
        part = out_L[length - hap - size : length - hap] if reverse else out_L[hap : hap + size]
        if ref == PADDING:
            part[:] = _N
        elif reverse:
            _copy_turned(part, reference_G[ref : ref + size])
        else:
            _copy(part, reference_G[ref : ref + size])
    for k in range(patches):
        hap, source = place_E[k], source_E[k]
        # Base by base: most are single, and slices would cost more than they copy.
        if source >= 0 and not reverse:
            for i in range(size_E[k]):
                out_L[hap + i] = alt_codes_C[source + i]
            continue
        for i in range(size_E[k]):
            code = alt_codes_C[source + i] if source >= 0 else np.uint8(_CODE - source)
            if reverse:
                out_L[length - 1 - hap - i] = COMPLEMENT[code]
            else:
                out_L[hap + i] = code


@inline
def _lay_out(
    carried, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C,
    tss, before, to_right, length, scratch_6E, hap_S, ref_S, size_S, facts_F,
):  # fmt: skip
    """Turn the records of one haplotype into segments and patches; return the number of patches.

    Scratch holds, in its rows: variants, actions, and the edits that become patches.
    """
    start_E, end_E, source_E, size_E = scratch_6E[2], scratch_6E[3], scratch_6E[4], scratch_6E[5]
    taken, dropped = _edits(
        scratch_6E[0], scratch_6E[1], carried, reference_G, position_M, ref_length_M,
        alt_offset_M1, alt_codes_C, start_E, end_E, source_E, size_E,
    )  # fmt: skip
    if taken < 0:
        facts_F[0], facts_F[1] = taken, dropped
        return np.int64(0)
    anchor, place, moved = _anchor(start_E, end_E, size_E, taken, tss, to_right)
    count, patches, applied = _segments(
        start_E, end_E, source_E, size_E, taken, place - before, length, reference_G.size,
        hap_S, ref_S, size_S,
    )  # fmt: skip
    left = size_S[0] if ref_S[0] == PADDING and place < before else 0
    right = size_S[count - 1] if ref_S[count - 1] == PADDING and (count > 1 or left == 0) else 0
    low, high = _span(ref_S, size_S, count)
    if left > 0:
        low = np.int64(0)
    if right > 0:
        low, high = reference_G.size if low < 0 else low, reference_G.size
    inside = 0
    for k in range(dropped):
        inside += low <= start_E[start_E.size - 1 - k] < high
    facts_F[0], facts_F[1], facts_F[2] = count, anchor, moved
    facts_F[3], facts_F[4] = applied, inside
    facts_F[5], facts_F[6] = left, right
    facts_F[7], facts_F[8] = low, high
    return np.int64(patches)


@inline
def _one(
    h, actions_HM, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C,
    tss, before, to_right, reverse, scratch_6E, room_H1, hap_S, ref_S, size_S, facts_HF, out_HL,
):  # fmt: skip
    """Build haplotype h; its facts are those of :func:`fill_all`."""
    row, index_E, action_E = actions_HM[h], scratch_6E[0], scratch_6E[1]
    carried = 0
    for i in range(row.size):
        if row[i] != LEAVE:
            index_E[carried], action_E[carried] = i, row[i]
            carried += 1
    first, last = room_H1[h], room_H1[h + 1]
    hap, ref, size = hap_S[first:last], ref_S[first:last], size_S[first:last]
    patches = _lay_out(
        carried, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C,
        tss, before, to_right, out_HL.shape[1], scratch_6E, hap, ref, size, facts_HF[h],
    )  # fmt: skip
    if facts_HF[h, 0] > 0:
        _fill(
            hap, ref, size, facts_HF[h, 0], scratch_6E[2], scratch_6E[4], scratch_6E[5], patches,
            reference_G, alt_codes_C, reverse, out_HL[h],
        )  # fmt: skip


@inline
def _span(ref_S, size_S, count):
    """Return the stretch of the reference that segments were made of; -1 if all is padding."""
    low, high = np.int64(-1), np.int64(0)
    for k in range(count):
        ref, size = ref_S[k], size_S[k]
        if ref <= _INSERTED:
            ref, size = _INSERTED - ref, np.int64(1)
        if ref >= 0:
            low = ref if low < 0 else low
            high = ref + size
    return low, high


@compiled()
def fill_all(
    actions_HM: Codes, reference_G: Codes, position_M: Ints, ref_length_M: Ints,
    alt_offset_M1: Ints, alt_codes_C: Codes, tss: int, before: int, to_right: bool, reverse: bool,
    scratch_6E: Ints, room_H1: Ints, hap_S: Ints, ref_S: Ints, size_S: Ints, facts_HF: Ints,
    out_HL: Codes,
) -> None:  # fmt: skip
    """Build haplotypes.

    ``before`` bases stand before the TSS in genome direction; where the TSS is deleted, the next
    base to the right stands for it with ``to_right``, else to the left. Facts of a haplotype:
    segments (negative: refused, and then the variant), base that stands for the TSS, whether that
    is another base, edits that touch the window, records dropped inside it, padding before and
    after, first and last + 1 base of the reference.
    """
    for h in range(actions_HM.shape[0]):
        _one(
            h, actions_HM, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C,
            tss, before, to_right, reverse, scratch_6E, room_H1, hap_S, ref_S, size_S,
            facts_HF, out_HL,
        )  # fmt: skip


@inline
def _first_from(values_M, target):
    """Return the first number whose value is at least the target."""
    low, high = np.int64(0), np.int64(values_M.size)
    while low < high:
        middle = (low + high) // 2
        if values_M[middle] < target:
            low = middle + 1
        else:
            high = middle
    return low


@inline
def _carried(bits_KHW, missing_KHW, keep_M, row, first, last, index_E, action_E):
    """List the variants of a range that a haplotype carries; -1 where there is no room."""
    count, width = 0, bits_KHW.shape[2]
    for byte in range(first // 8, (last + 7) // 8):
        block, at = byte // width, byte % width
        value = bits_KHW[block, row, at]
        if value == 0:
            continue
        if missing_KHW.size > 0:
            value &= ~missing_KHW[block, row, at]
        for bit in range(8):
            i = byte * 8 + bit
            if value & (np.uint8(128) >> np.uint8(bit)) and first <= i < last:
                if keep_M.size > 0 and not keep_M[i]:
                    continue
                if count == index_E.size:
                    return -1
                index_E[count], action_E[count] = i, ALT
                count += 1
    return count


@inline
def _one_packed(
    h, row, bits_KHW, missing_KHW, keep_M, reach_M, reference_G, position_M, ref_length_M,
    alt_offset_M1, alt_codes_C, tss, start, to_right, reverse, scratch_6E, room,
    hap_S, ref_S, size_S, facts_HF, out_L,
):  # fmt: skip
    """Build a haplotype from bits, reading as far as its deletions ask for."""
    hap, ref = hap_S[h * room : (h + 1) * room], ref_S[h * room : (h + 1) * room]
    size, found = size_S[h * room : (h + 1) * room], facts_HF[h]
    length, contig = out_L.size, np.int64(reference_G.size)
    low, high = max(start - _MARGIN, np.int64(0)), min(start + length + _MARGIN, contig)
    while True:
        first, last = _first_from(reach_M, low + 1), _first_from(position_M, high)
        while 0 < first < last and reach_M[first - 1] > position_M[first]:
            first -= 1
        carried = _carried(
            bits_KHW, missing_KHW, keep_M, row, first, last, scratch_6E[0], scratch_6E[1]
        )
        if carried < 0 or 2 * carried + 3 > room:
            found[0] = NO_ROOM
            return
        patches = _lay_out(
            carried, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C,
            tss, tss - start, to_right, length, scratch_6E, hap, ref, size, found,
        )  # fmt: skip
        if found[0] < 0:
            return
        if found[7] >= low and found[8] <= high:
            break
        low, high = min(low, max(found[7] - _MARGIN, 0)), max(high, min(found[8] + _MARGIN, contig))
    _fill(
        hap, ref, size, found[0], scratch_6E[2], scratch_6E[4], scratch_6E[5], patches,
        reference_G, alt_codes_C, reverse, out_L,
    )  # fmt: skip


@compiled()
def fill_packed(
    row_BP: Ints, plan_BF: Ints, bits_KHW: Codes, missing_KHW: Codes, keep_M: Bools, reach_M: Ints,
    reference_G: Codes, position_M: Ints, ref_length_M: Ints, alt_offset_M1: Ints,
    alt_codes_C: Codes, scratch_6E: Ints, room: int, hap_S: Ints, ref_S: Ints, size_S: Ints,
    facts_HF: Ints, out_BPL: Codes,
) -> None:  # fmt: skip
    """Build haplotypes, each in a window of its own, from bits.

    A plan is TSS, start of the window, whether downstream is to the right, and whether to turn.
    Facts as those of :func:`fill_all`. Arrays of variants are those of the whole contig.
    """
    for h in range(row_BP.size):
        b, p = h // row_BP.shape[1], h % row_BP.shape[1]
        plan = plan_BF[b]
        _one_packed(
            h, row_BP[b, p], bits_KHW, missing_KHW, keep_M, reach_M, reference_G, position_M,
            ref_length_M, alt_offset_M1, alt_codes_C, plan[0], plan[1], plan[2] != 0,
            plan[3] != 0, scratch_6E, room, hap_S, ref_S, size_S, facts_HF, out_BPL[b, p],
        )  # fmt: skip


@compiled()
def make_room(
    actions_HM: Codes, ref_length_M: Ints, alt_offset_M1: Ints, moves_M: Codes, room_H1: Ints,
) -> int:  # fmt: skip
    """Fill where the segments of each haplotype begin; return the most edits of one haplotype.

    ``moves_M`` is room for a byte per variant.
    """
    most = np.int64(0)
    for i in range(moves_M.size):
        moves_M[i] = alt_offset_M1[i + 1] - alt_offset_M1[i] != ref_length_M[i]
    room_H1[0] = 0
    for h in range(actions_HM.shape[0]):
        row = actions_HM[h]
        edits, moving = np.int64(0), np.int64(0)
        for i in range(row.size):
            acts = np.uint8(row[i] != LEAVE)
            edits += acts
            moving += acts & moves_M[i]
        most = max(most, edits)
        # A run and an insertion for each that moves others, a run behind it, padding on both sides.
        room_H1[h + 1] = room_H1[h] + 2 * moving + 3
    return most
