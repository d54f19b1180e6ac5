"""Codes for sets of bases: what a haplotype holds where the phase of a substitution is not known.

Codes 0 to 4 are those of `seq2exp.core.sequence` (A C G T N); 5 to 14 are the letters of IUPAC for
two or three bases: R Y S W K M B D H V.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.core.sequence import N_CODE

__all__ = [
    "BASES_OF_CODE",
    "CODE_OF_BASES",
    "COMPLEMENT",
    "LETTERS",
    "NUM_CODES",
    "decode",
    "encode",
    "one_hot",
    "reverse_complement",
]

LETTERS = "ACGTNRYSWKMBDHV"
"""Letter of every code."""
NUM_CODES = len(LETTERS)

_MEANS = {
    **{base: base for base in "ACGT"}, "N": "ACGT",
    "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC",
    "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG",
}  # fmt: skip
_BITS = [sum(1 << "ACGT".index(base) for base in _MEANS[letter]) for letter in LETTERS]

BASES_OF_CODE = np.array(_BITS, dtype=np.uint8)
"""Set of bases of every code, as bits A 1, C 2, G 4, T 8."""
CODE_OF_BASES = np.full(16, N_CODE, dtype=np.uint8)
"""Code of every set of bases; N for none."""
CODE_OF_BASES[BASES_OF_CODE] = np.arange(NUM_CODES, dtype=np.uint8)

# A and T, C and G change places: the four bits are read backwards.
_TURNED = [int(f"{bits:04b}"[::-1], 2) for bits in _BITS]
COMPLEMENT = CODE_OF_BASES[_TURNED]
"""Code of the opposite strand of every code."""

_UNKNOWN = 255
_ENCODE = np.full(256, _UNKNOWN, dtype=np.uint8)
for _code, _letter in enumerate(LETTERS):
    _ENCODE[[ord(_letter), ord(_letter.lower())]] = _code


def encode(sequence: str) -> NDArray[np.uint8]:
    """Return the codes of letters in any case.

    Raises
    ------
    InputError
        A letter is none of ``LETTERS``.
    """
    raw = np.frombuffer(sequence.encode("ascii", "replace"), dtype=np.uint8)
    codes = _ENCODE[raw]
    bad = codes == _UNKNOWN
    if bad.any():
        at = int(np.argmax(bad))
        raise InputError(
            facts(
                "sequence",
                found=f"{sequence[at]!r} at position {at}",
                expected=f"letters of {LETTERS}",
                fix="give nucleotides",
                count=int(bad.sum()),
            )
        )
    return codes


def decode(codes: NDArray[np.uint8]) -> str:
    """Return the letters of codes.

    Raises
    ------
    InputError
        A number is no code.
    """
    table = np.frombuffer(LETTERS.encode("ascii"), dtype=np.uint8)
    return table[_checked(codes)].tobytes().decode("ascii")


def one_hot(codes: NDArray[np.uint8], *, n_value: float = 0.0) -> NDArray[np.float32]:
    """Return rows in the order A, C, G, T with equal weights of the bases that a code stands for.

    Parameters
    ----------
    codes : uint8 array, shape (..., length)
    n_value : float
        Weight of each base where nothing is known: 0, as everywhere in this package, or 0.25. It
        must be what the model was trained with.

    Returns
    -------
    float32 array, shape (..., length, 4)
        Rows sum to 1; those of N to ``4 * n_value``.

    Raises
    ------
    InputError
        A number is no code.
    """
    bits = (BASES_OF_CODE[:, None] >> np.arange(4)) & 1
    table = (bits / bits.sum(axis=1, keepdims=True)).astype(np.float32)
    table[N_CODE] = n_value
    rows: NDArray[np.float32] = table[_checked(codes)]
    return rows


def reverse_complement(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the codes of the opposite strand, read 5' to 3'; applied twice it is the identity.

    Parameters
    ----------
    codes : uint8 array, shape (..., length)

    Raises
    ------
    InputError
        A number is no code.
    """
    return np.ascontiguousarray(COMPLEMENT[_checked(codes)][..., ::-1])


def _checked(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    codes = np.asarray(codes)
    if codes.size and int(codes.max()) >= NUM_CODES:
        raise InputError(
            facts(
                "sequence codes",
                found=f"code {int(codes.max())}",
                expected=f"codes below {NUM_CODES}",
                fix="give codes as haplotypes hold them",
            )
        )
    return codes
