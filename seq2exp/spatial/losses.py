"""Losses over spots and genes; labels that are NaN are left out.

Axes: B spots, G genes.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["distill", "mse", "mse_per_gene", "pearson", "pearson_per_gene"]


def mse(prediction_BG: Tensor, truth_BG: Tensor) -> Tensor:
    """Return the mean squared error over the labels there are; 0 where there are none.

    Parameters
    ----------
    prediction_BG, truth_BG : float tensors, shape (spots, genes)
    """
    known_BG = truth_BG.isfinite()
    # The difference to a NaN would poison the gradient even where it is not summed.
    error_BG = torch.where(known_BG, prediction_BG - truth_BG.nan_to_num(), 0.0)
    return error_BG.square().sum() / known_BG.sum().clamp(min=1)


def mse_per_gene(prediction_BG: Tensor, truth_BG: Tensor) -> Tensor:
    """Return the mean squared error of each gene over its labels, shape (genes,)."""
    known_BG = truth_BG.isfinite()
    error_BG = torch.where(known_BG, prediction_BG - truth_BG.nan_to_num(), 0.0)
    return error_BG.square().sum(dim=0) / known_BG.sum(dim=0).clamp(min=1)


def pearson(prediction_BG: Tensor, truth_BG: Tensor) -> Tensor:
    """Return the mean over genes of 1 - r, r across the spots of the batch."""
    return pearson_per_gene(prediction_BG, truth_BG)[0].mean()


def pearson_per_gene(prediction_BG: Tensor, truth_BG: Tensor) -> tuple[Tensor, Tensor]:
    """Return 1 - r of each gene, and which genes are constant.

    Parameters
    ----------
    prediction_BG, truth_BG : float tensors, shape (spots, genes)

    Returns
    -------
    loss_G : float tensor, shape (genes,)
        1 without gradient for a gene that is constant in the truth or in the prediction.
    constant_G : bool tensor, shape (genes,)
    """
    known_BG = truth_BG.isfinite()
    guess_BG = _centred(prediction_BG, known_BG)
    label_BG = _centred(truth_BG.nan_to_num(), known_BG)
    constant_G = _constant(guess_BG, prediction_BG) | _constant(label_BG, truth_BG.nan_to_num())
    power_G = guess_BG.square().sum(dim=0) * label_BG.square().sum(dim=0)
    # The inner `where` keeps the infinite slope of the root at 0 out of the gradient.
    scale_G = torch.where(constant_G, 1.0, power_G).sqrt()
    r_G = (guess_BG * label_BG).sum(dim=0) / scale_G
    return torch.where(constant_G, 1.0, 1 - r_G), constant_G


def _centred(values_BG: Tensor, known_BG: Tensor) -> Tensor:
    count_G = known_BG.sum(dim=0).clamp(min=1)
    mean_G = torch.where(known_BG, values_BG, 0.0).sum(dim=0) / count_G
    return torch.where(known_BG, values_BG - mean_G, 0.0)


def _constant(centred_BG: Tensor, values_BG: Tensor) -> Tensor:
    """Return which genes are no more than rounding noise around their mean."""
    noise = 4 * torch.finfo(values_BG.dtype).eps
    spread_G, size_G = (each.detach().abs().amax(dim=0) for each in (centred_BG, values_BG))
    return spread_G <= noise * size_G


def distill(
    student_BG: Tensor, teacher_BG: Tensor, truth_BG: Tensor, *, weight: float, detach: bool
) -> Tensor:
    """Return (1 - weight) MSE(student, truth) + weight MSE(student, teacher).

    Both over the labels there are.

    Parameters
    ----------
    student_BG, teacher_BG, truth_BG : float tensors, shape (spots, genes)
    weight : float
        Share of the teacher.
    detach : bool
        The teacher gets no gradient from the student.
    """
    teacher_BG = teacher_BG.detach() if detach else teacher_BG
    known_BG = truth_BG.isfinite()
    apart_BG = torch.where(known_BG, student_BG - teacher_BG, 0.0)
    to_teacher = apart_BG.square().sum() / known_BG.sum().clamp(min=1)
    return (1 - weight) * mse(student_BG, truth_BG) + weight * to_teacher
