"""Units of predictions: in which the labels were stored, and linear again."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seq2exp.core.errors import ConfigError, facts

__all__ = ["TRANSFORMS", "LabelUnit", "undo_transform"]

Floats = NDArray[np.float64]

TRANSFORMS = {"none": 0.0, "log1p": 1.0, "log2p1": float(np.log(2)), "log10p1": float(np.log(10))}
"""Transforms of labels that can be undone, ``ln(1 + x) / value``; 0 for none at all."""

_WRITTEN = {
    "none": "{}",
    "log1p": "ln(1 + {})",
    "log2p1": "log2(1 + {})",
    "log10p1": "log10(1 + {})",
}
# Units of labels that were transformed before they came to us, so that 'none' is not linear.
_NOT_LINEAR = re.compile(r"(^|[^a-z])(log|ln)|z-?score", re.IGNORECASE)


def undo_transform(values: ArrayLike, transform: str) -> Floats:
    """Return labels or predictions as they were before their transform, at least 0.

    A model may predict less than the transform of 0. Such a prediction stands for no expression
    and becomes 0, also where nothing was transformed. NaN stays NaN.

    Parameters
    ----------
    values : array
    transform : str
        Key of ``TRANSFORMS``, what the dataset's manifest calls ``expression.transform``.

    Raises
    ------
    ConfigError
        The transform is unknown.
    """
    if transform not in TRANSFORMS:
        raise ConfigError(
            facts(
                "transform of the labels",
                found=transform,
                expected="one of " + ", ".join(TRANSFORMS),
                fix="choose scores in the unit of the labels, such as expr_delta",
            )
        )
    linear = np.array(values, dtype=np.float64)
    if factor := TRANSFORMS[transform]:
        with np.errstate(over="ignore"):
            linear = np.expm1(linear * factor)
    return np.asarray(np.maximum(linear, 0.0), dtype=np.float64)


@dataclass(frozen=True)
class LabelUnit:
    """Unit of what a model predicts.

    Attributes
    ----------
    unit : str
        Before the transform, such as TPM; empty where unknown.
    transform : str
        What was applied to the labels.
    """

    unit: str = ""
    transform: str = "none"

    @property
    def plain(self) -> str:
        """The linear unit, in words."""
        return self.unit or "label"

    @property
    def predicted(self) -> str:
        """The unit of predictions, in words."""
        return _WRITTEN.get(self.transform, self.transform + "({})").format(self.plain)

    @property
    def is_linear(self) -> bool:
        """Whether linear values can be had: the transform is known, and the unit no logarithm."""
        hidden = self.transform == "none" and _NOT_LINEAR.search(self.unit) is not None
        return self.transform in TRANSFORMS and not hidden

    def linear(self, values: ArrayLike) -> Floats:
        """Return predictions in the linear unit; see :func:`undo_transform`."""
        return undo_transform(values, self.transform)
