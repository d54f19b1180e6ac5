"""DNA as small integers and one-hot rows.

Base codes are A0 C1 G2 T3 N4. One-hot columns are A, C, G, T; N is the zero row. Lower case
(soft-masked) bases count as their upper case; every other IUPAC letter becomes N.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ALPHABET",
    "NUM_BASES",
    "N_CODE",
    "decode",
    "encode",
    "invalid_letters",
    "num_ambiguous",
    "one_hot",
    "reverse_complement",
]

ALPHABET = "ACGT"
NUM_BASES = 4
N_CODE = 4

# U is RNA's T; the other ten letters are IUPAC ambiguity codes; "-" and "." are gaps.
_AMBIGUOUS = b"RYSWKMBDHV"
_INVALID = 255


def _encode_table() -> NDArray[np.uint8]:
    table = np.full(256, _INVALID, dtype=np.uint8)
    for code, base in enumerate(ALPHABET):
        table[ord(base)] = table[ord(base.lower())] = code
    for letter in (*_AMBIGUOUS, ord("N")):
        table[letter] = table[letter + 32] = N_CODE
    table[ord("U")] = table[ord("u")] = ALPHABET.index("T")
    return table


_ENCODE = _encode_table()
_LETTERS = np.frombuffer(b"ACGTN", dtype=np.uint8)
_ONE_HOT = np.vstack([np.eye(NUM_BASES, dtype=np.float32), np.zeros((1, NUM_BASES), np.float32)])


def _as_bytes(sequence: str | bytes) -> NDArray[np.uint8]:
    raw = sequence.encode("ascii", "replace") if isinstance(sequence, str) else sequence
    return np.frombuffer(raw, dtype=np.uint8)


def encode(sequence: str | bytes) -> NDArray[np.uint8]:
    """Return the base codes of a sequence; letters that are no A, C, G or T become N.

    Parameters
    ----------
    sequence : str or bytes
        DNA in any case, IUPAC letters allowed.

    Returns
    -------
    uint8 array, shape (length,)
        Codes A0 C1 G2 T3 N4.

    Examples
    --------
    >>> encode("AcgTRN").tolist()
    [0, 1, 2, 3, 4, 4]
    """
    codes = _ENCODE[_as_bytes(sequence)]
    codes[codes == _INVALID] = N_CODE
    return codes


def num_ambiguous(sequence: str | bytes) -> int:
    """Return how many letters are IUPAC ambiguity codes other than N."""
    raw = _as_bytes(sequence)
    upper = np.where((raw >= ord("a")) & (raw <= ord("z")), raw - 32, raw)
    return int(np.isin(upper, np.frombuffer(_AMBIGUOUS, dtype=np.uint8)).sum())


def invalid_letters(sequence: str | bytes) -> str:
    """Return the distinct letters that no nucleotide code knows, sorted (protein, gaps, digits)."""
    raw = _as_bytes(sequence)
    return "".join(sorted({chr(letter) for letter in np.unique(raw[_ENCODE[raw] == _INVALID])}))


def decode(codes: NDArray[np.uint8]) -> str:
    """Return the upper-case letters of base codes.

    Examples
    --------
    >>> decode(np.array([0, 1, 2, 3, 4], dtype=np.uint8))
    'ACGTN'
    """
    return _LETTERS[np.asarray(codes)].tobytes().decode("ascii")


def reverse_complement(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the codes of the opposite strand, read 5' to 3'; applied twice it is the identity.

    Parameters
    ----------
    codes : uint8 array, shape (..., length)

    Returns
    -------
    uint8 array, shape (..., length)
    """
    # A0 C1 G2 T3 turn around in their two lowest bits, N4 stays. Bit operations and moves of eight
    # bases at a time take a tenth of the time of a table and a reversed view.
    codes = np.asarray(codes, dtype=np.uint8)
    turned = np.less(codes, N_CODE).view(np.uint8)
    turned *= 3
    turned ^= codes
    if turned.ndim == 1 and turned.size % 8 == 0:
        words = turned.view(np.uint64)[::-1].copy()
        return words.byteswap(inplace=True).view(np.uint8)
    return np.ascontiguousarray(turned[..., ::-1])


def one_hot(
    codes: NDArray[np.uint8], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return one-hot rows in the order A, C, G, T; N is all zeros.

    Parameters
    ----------
    codes : uint8 array, shape (..., length)
    out : float32 array, shape (..., length, 4), optional
        Buffer to fill; reusing one avoids the allocation that dominates the cost.

    Returns
    -------
    float32 array, shape (..., length, 4)
    """
    return np.take(_ONE_HOT, codes, axis=0, out=out, mode="clip" if out is not None else "raise")
