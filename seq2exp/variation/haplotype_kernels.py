"""Compiled loops that turn the alleles of a haplotype into its sequence.

First the records of a haplotype become edits (a stretch of the reference, and what stands there
instead), then the edits become segments of the window, which run beside the reference, and patches
on them, then both are copied. All places in a haplotype are counted in genome direction; only
copying turns them around.

Shapes: H haplotypes, L bases of the window, G of the contig, M variants, E edits of one haplotype,
S segments of all haplotypes (haplotype h has room for those from ``room_H1[h]`` on), T threads.

A change of a function that others inline is seen by the cache because all are in this file.
"""

# The arguments of compiled functions are arrays whose types numba finds itself.
# mypy: ignore-errors
# ruff: noqa: ANN001, ANN202

from __future__ import annotations

import numpy as np
from numba import get_thread_id, njit, prange

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
    "PADDING",
    "UNKNOWN",
    "fill_all",
    "fill_all_parallel",
    "keep_longest",
    "make_room",
]

# Actions.
LEAVE, ALT, UNKNOWN, IUPAC, DROPPED = 0, 1, 2, 3, 4
# Where the bases of a patch come from: ALT codes from a number of them on, or code c as _CODE - c.
_CODE = -1
# Which reference base a segment begins with: a position, none because the contig ended, or that of
# the base after which bases were inserted.
PADDING = -1
_INSERTED = -2
# Reasons to refuse.
BAD_POSITION, BAD_IUPAC, BAD_ACTION = -1, -2, -3

_N = 4
_inline = njit(inline="never", nogil=True, error_model="numpy")


@_inline
def _allele(i, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C):
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


@_inline
def _conflicts(position, front, last, longer):
    """Whether a record cannot follow one whose last REF base is `last`.

    On that base itself only an insertion or deletion anchored there may stand, and only if the
    record before did not make the sequence longer.
    """
    return position < last or (position == last and (front == 0 or longer))


@_inline
def _edits(
    actions_M, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C,
    start_E, end_E, source_E, size_E,
):  # fmt: skip
    """Fill the edits of one haplotype from the front and dropped positions from the back.

    Returns their numbers; a negative first one refuses.
    """
    taken, dropped, room = 0, 0, start_E.size
    last, longer = np.int64(-1), False
    pair = np.int64(-1)
    for i in range(actions_M.size):
        action = actions_M[i]
        if action == LEAVE:
            continue
        position = position_M[i]
        if position < 0 or position + ref_length_M[i] > reference_G.size:
            return BAD_POSITION, i
        if action > DROPPED:
            return BAD_ACTION, i
        ref_length, alt_length, front, behind = _allele(
            i, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C
        )
        first = alt_offset_M1[i]
        if action == UNKNOWN and ref_length == front + behind:
            # Whether bases were inserted is not known; no base of the reference is in doubt.
            continue
        if action == IUPAC and (ref_length != 1 or alt_length != 1):
            return BAD_IUPAC, i
        if action == DROPPED or _conflicts(position, front, last, longer):
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


@_inline
def _name_pair(source_E, at, reference_code, alt_offset_M1, alt_codes_C):
    """Replace the number of a variant by the code of its REF or ALT."""
    alt_code = alt_codes_C[alt_offset_M1[np.int64(source_E[at])]]
    both = BASES_OF_CODE[reference_code] | BASES_OF_CODE[alt_code]
    source_E[at] = _CODE - np.int64(CODE_OF_BASES[both])


@_inline
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


@_inline
def _put(hap_S, ref_S, size_S, count, hap, ref, size):
    """Write one segment and return how many there are."""
    hap_S[count], ref_S[count], size_S[count] = hap, ref, size
    return count + 1


@_inline
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


@_inline
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


@_inline
def _copy(target, source):
    """Copy bases."""
    for i in range(target.size):
        target[i] = source[i]


@_inline
def _copy_turned(target, source):
    """Copy the opposite strand of bases A, C, G, T, N."""
    # An index that may be negative would count from the end, and then nothing is vectorised.
    size = np.uint64(target.size)
    for i in range(size):
        code = source[size - np.uint64(1) - i]
        target[i] = code ^ np.uint8(3) if code < _N else code


@_inline
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
        for i in range(size_E[k]):
            code = alt_codes_C[source + i] if source >= 0 else np.uint8(_CODE - source)
            if reverse:
                out_L[length - 1 - hap - i] = COMPLEMENT[code]
            else:
                out_L[hap + i] = code


@_inline
def _one(
    h, actions_HM, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C,
    tss, before, to_right, reverse, scratch_4E, room_H1, hap_S, ref_S, size_S, facts_HF, out_HL,
):  # fmt: skip
    """Build haplotype h; its facts are those of :func:`fill_all`."""
    start, end, source, bases = scratch_4E[0], scratch_4E[1], scratch_4E[2], scratch_4E[3]
    taken, dropped = _edits(
        actions_HM[h], reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C,
        start, end, source, bases,
    )  # fmt: skip
    if taken < 0:
        facts_HF[h, 0], facts_HF[h, 1] = taken, dropped
        return
    anchor, place, moved = _anchor(start, end, bases, taken, tss, to_right)
    hap, ref = hap_S[room_H1[h] : room_H1[h + 1]], ref_S[room_H1[h] : room_H1[h + 1]]
    size = size_S[room_H1[h] : room_H1[h + 1]]
    length = out_HL.shape[1]
    count, patches, applied = _segments(
        start, end, source, bases, taken, place - before, length, reference_G.size, hap, ref, size
    )
    _fill(
        hap, ref, size, count, start, source, bases, patches, reference_G, alt_codes_C,
        reverse, out_HL[h],
    )  # fmt: skip
    left = size[0] if ref[0] == PADDING and place < before else 0
    right = size[count - 1] if ref[count - 1] == PADDING and (count > 1 or left == 0) else 0
    low, high = _span(ref, size, count)
    if left > 0:
        low = np.int64(0)
    if right > 0:
        high = reference_G.size
    inside = 0
    for k in range(dropped):
        inside += low <= start[start.size - 1 - k] < high
    facts_HF[h, 0], facts_HF[h, 1], facts_HF[h, 2] = count, anchor, moved
    facts_HF[h, 3], facts_HF[h, 4] = applied, inside
    facts_HF[h, 5], facts_HF[h, 6] = left, right
    facts_HF[h, 7], facts_HF[h, 8] = low, high


@_inline
def _span(ref_S, size_S, count):
    """Return the stretch of the reference that segments were made of; nothing of padding."""
    low, high = np.int64(-1), np.int64(0)
    for k in range(count):
        ref, size = ref_S[k], size_S[k]
        if ref <= _INSERTED:
            ref, size = _INSERTED - ref, np.int64(1)
        if ref >= 0:
            low = ref if low < 0 else low
            high = ref + size
    return max(low, np.int64(0)), high


@compiled()
def fill_all(
    actions_HM, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C,
    tss, before, to_right, reverse, scratch_T4E, room_H1, hap_S, ref_S, size_S, facts_HF, out_HL,
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
            tss, before, to_right, reverse, scratch_T4E[0], room_H1, hap_S, ref_S, size_S,
            facts_HF, out_HL,
        )  # fmt: skip


@compiled(parallel=True)
def fill_all_parallel(
    actions_HM, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C,
    tss, before, to_right, reverse, scratch_T4E, room_H1, hap_S, ref_S, size_S, facts_HF, out_HL,
) -> None:  # fmt: skip
    """Build haplotypes on as many threads as there is scratch for; as :func:`fill_all`."""
    for h in prange(actions_HM.shape[0]):
        _one(
            h, actions_HM, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C,
            tss, before, to_right, reverse, scratch_T4E[get_thread_id()], room_H1, hap_S, ref_S,
            size_S, facts_HF, out_HL,
        )  # fmt: skip


@compiled()
def make_room(actions_HM, ref_length_M, alt_offset_M1, moves_M, room_H1) -> int:
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


@_inline
def _clash(i, j, row, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C):
    """Whether variants i < j cannot both be put into a haplotype."""
    if row[i] == IUPAC and row[j] == IUPAC and position_M[i] == position_M[j]:
        # Both alleles of one call.
        return False
    ref_length, alt_length, _, _ = _allele(
        i, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C
    )
    _, _, front, _ = _allele(j, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C)
    longer = row[i] == ALT and alt_length > ref_length
    return _conflicts(position_M[j], front, position_M[i] + ref_length - 1, longer)


@_inline
def _settle(row, members, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C):
    """Keep the longest of neighbours, then the longest of those that fit to it, and so on."""
    size = members.size
    for _ in range(size):
        best, longest = -1, np.int64(-1)
        for k in range(size):
            i = members[k]
            if i < 0:
                # Settled ones are marked by their complement.
                continue
            length = max(np.int64(ref_length_M[i]), alt_offset_M1[i + 1] - alt_offset_M1[i])
            if length > longest:
                best, longest = k, length
        i = members[best]
        for k in range(size):
            j = ~members[k]
            if j >= 0 and row[j] != DROPPED and _clash(
                min(i, j), max(i, j), row, reference_G, position_M, ref_length_M, alt_offset_M1,
                alt_codes_C,
            ):  # fmt: skip
                row[i] = DROPPED
                break
        members[best] = ~i


@compiled()
def keep_longest(
    actions_HM, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C, members_M
) -> None:
    """Mark as dropped, in place, records that cannot stand beside a longer one.

    The length of a record is that of the longer of its alleles; of equal ones the first stays.
    ``members_M`` is room for int64 numbers.
    """
    for h in range(actions_HM.shape[0]):
        row = actions_HM[h]
        count, last = 0, np.int64(-1)
        for i in range(row.size + 1):
            if i < row.size:
                if row[i] == LEAVE:
                    continue
                if position_M[i] < 0 or position_M[i] + ref_length_M[i] > reference_G.size:
                    # Refused later, with its number.
                    continue
                ref_length, _, front, behind = _allele(
                    i, reference_G, position_M, ref_length_M, alt_offset_M1, alt_codes_C
                )
                if row[i] == UNKNOWN and ref_length == front + behind:
                    continue
            if count > 0 and (i == row.size or position_M[i] > last):
                if count > 1:
                    _settle(
                        row, members_M[:count], reference_G, position_M, ref_length_M,
                        alt_offset_M1, alt_codes_C,
                    )  # fmt: skip
                count = 0
            if i < row.size:
                members_M[count] = i
                count += 1
                last = max(last, position_M[i] + ref_length_M[i] - 1)
