"""Patches that were cut before, in an HDF5 file with ``img``, ``coords`` and ``barcode``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.images import cut_square

__all__ = ["StoredPatches"]

_MOST_ROUNDING = 1.005


@dataclass(frozen=True, eq=False)
class StoredPatches:
    """Patches of the spots of a section.

    Attributes
    ----------
    path : Path
    row_N : int64 array, shape (num_spots,)
        Row of every spot in ``img``.
    px : int
        Side of a stored patch.
    um : float
        Side of the square of tissue that it shows, micrometres.
    """

    path: Path
    row_N: NDArray[np.int64]
    px: int
    um: float

    def require_field(self, um: float) -> None:
        """Refuse patches that show less tissue than is asked for.

        Raises
        ------
        InputError
        """
        if um > self.um * _MOST_ROUNDING:
            raise InputError(
                facts(
                    str(self.path),
                    found=f"patches of {self.um:.1f} micrometres",
                    expected=f"at least patch.um, {um:g} micrometres",
                    fix=f"set patch.um to {np.floor(self.um):g}, or give the slide as image",
                )
            )

    def cut(self, *, um: float, px: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the middle of every patch, uint8 arrays of shape (px, px, 3).

        Parameters
        ----------
        um : float
            Side of the square to show, micrometres; at most that of the stored ones.
        px : int
            Side of the result.

        Raises
        ------
        FormatError
            The file is damaged.
        """
        side = min(self.px, self.px * um / self.um)
        with h5py.File(self.path) as file:
            for row in self.row_N:
                try:
                    pixels = file["img"][int(row)]
                except OSError as error:
                    raise FormatError(
                        facts(
                            str(self.path),
                            found=str(error),
                            expected="whole patches",
                            fix="restore the file",
                        )
                    ) from error
                middle = self.px / 2
                yield cut_square(pixels, middle, middle, side=side, px=px, fill=255)
