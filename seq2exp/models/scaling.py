"""Moments of columns over many batches, for buffers that scale inputs and outputs.

Shapes: C columns (tracks, features or outputs).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["ColumnMoments"]


class ColumnMoments:
    """Running mean and standard deviation per column; NaN entries are left out.

    Parameters
    ----------
    num_columns : int
        Size of the last axis of what is added.
    """

    def __init__(self, num_columns: int) -> None:
        self.count_C = torch.zeros(num_columns, dtype=torch.float64)
        self.mean_C = torch.zeros(num_columns, dtype=torch.float64)
        self.squares_C = torch.zeros(num_columns, dtype=torch.float64)

    def update(self, values: Tensor) -> None:
        """Add values of shape (..., columns)."""
        flat = values.detach().to("cpu", torch.float64).reshape(-1, self.mean_C.shape[0])
        present = ~torch.isnan(flat)
        count_C = present.sum(0)
        mean_C = torch.where(present, flat, 0.0).sum(0) / count_C.clamp(min=1)
        squares_C = torch.where(present, flat - mean_C, 0.0).square().sum(0)
        # Merged by the pairwise update of Chan, Golub and LeVeque (1983): no cancellation.
        total_C = (self.count_C + count_C).clamp(min=1)
        shift_C = mean_C - self.mean_C
        self.mean_C += shift_C * count_C / total_C
        self.squares_C += squares_C + shift_C.square() * self.count_C * count_C / total_C
        self.count_C += count_C

    def mean(self) -> Tensor:
        """Mean per column, float64, shape (columns,); 0 where nothing was seen."""
        return self.mean_C.clone()

    def std(self) -> Tensor:
        """Return the standard deviation per column; 1 where it is 0 or nothing was seen."""
        std_C = (self.squares_C / self.count_C.clamp(min=1)).sqrt()
        return torch.where(std_C > 0, std_C, 1.0)
