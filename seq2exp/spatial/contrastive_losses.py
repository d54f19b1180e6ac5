"""Losses that pull the two views of a spot together, its picture and its expression.

All of them compare every picture of a batch with every expression of it. Embeddings are divided by
their lengths first, unless told otherwise, so that the logits are scaled cosines and the length of
an embedding carries nothing. Uniform logits give the loss ln B: a run whose loss stays there has
learned nothing, and :class:`ChanceWatch` says so.

Axes: B spots of a batch, D width of the embeddings, C spots of a chunk.
"""

from __future__ import annotations

import logging
import math
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from seq2exp.core.errors import ConfigError, Seq2ExpWarning, facts

__all__ = [
    "MAX_LOG_SCALE",
    "ChanceWatch",
    "LogitScale",
    "info_nce",
    "siglip",
    "soft_clip",
]

MAX_LOG_SCALE = math.log(100.0)
"""Largest logarithm of the logit scale (Radford et al. 2021)."""
_LOG = logging.getLogger(__name__)


class LogitScale(nn.Module):
    """What cosines are multiplied by: one over a temperature, learned as its logarithm.

    The logarithm stays within [0, ln 100]: call :meth:`clamp_` after every step of the optimiser.
    It takes no weight decay (:func:`seq2exp.spatial.trainer.parameter_groups`).

    Parameters
    ----------
    temperature : float
        At the start, between 0.01 and 1.

    Raises
    ------
    ConfigError
        The temperature lies outside.
    """

    def __init__(self, *, temperature: float = 0.07) -> None:
        super().__init__()
        if not math.exp(-MAX_LOG_SCALE) <= temperature <= 1:
            raise ConfigError(
                facts(
                    "temperature",
                    found=temperature,
                    expected="between 0.01 and 1, because the logit scale stays within 1 and 100",
                    fix="use 0.07",
                )
            )
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self) -> Tensor:
        """Return the scale, a scalar."""
        scale: Tensor = self.log_scale.exp()
        return scale

    @torch.no_grad()
    def clamp_(self) -> None:
        """Put the logarithm back into [0, ln 100]."""
        self.log_scale.clamp_(0.0, MAX_LOG_SCALE)


def info_nce(
    image_BD: Tensor,
    gene_BD: Tensor,
    *,
    scale: Tensor | float = 1.0,
    normalise: bool = True,
    chunk: int | None = 1024,
    ignore_BB: Tensor | None = None,
) -> Tensor:
    """Return the mean over both directions of the cross-entropy of finding one's own partner.

    With logits L = scale * gene image^T,
    ``(CE(L, identity) + CE(L^T, identity)) / 2`` (van den Oord et al. 2018; Radford et al. 2021).

    Parameters
    ----------
    image_BD, gene_BD : float tensors, shape (batch, width)
        Row by row the two views of a spot.
    scale : scalar
    normalise : bool
        Divide the rows by their lengths.
    chunk : int, optional
        Rows whose logits are held at a time; the backward pass computes them again. Smaller
        batches, and None, take the dense form, which gives the same values.
    ignore_BB : bool tensor, shape (batch, batch), optional
        Pairs that are no negatives, symmetric; what it says of a spot and itself is not read.
    """
    image_BD, gene_BD = _unit(image_BD, gene_BD, normalise=normalise)
    own_B = (image_BD * gene_BD).sum(-1) * scale
    if ignore_BB is not None:
        same = torch.eye(len(own_B), dtype=torch.bool, device=own_B.device)
        ignore_BB = ignore_BB & ~same
    if chunk is None or chunk >= len(own_B):
        rows_B, columns_B = _sums(gene_BD, image_BD, torch.as_tensor(scale), ignore_BB)
        return (rows_B + columns_B - 2 * own_B).mean() / 2
    parts: list[Tensor] = []
    total_B = torch.full_like(own_B, -torch.inf)
    for start in range(0, len(own_B), chunk):
        part = slice(start, start + chunk)
        hidden = None if ignore_BB is None else ignore_BB[part]
        arguments = (gene_BD[part], image_BD, torch.as_tensor(scale), hidden)
        rows_C, columns_B = checkpoint(_sums, *arguments, use_reentrant=False)
        parts.append(rows_C)
        total_B = columns_B if not start else torch.logaddexp(total_B, columns_B)
    return (torch.cat(parts) + total_B - 2 * own_B).mean() / 2


def _sums(
    gene_CD: Tensor, image_BD: Tensor, scale: Tensor, ignore_CB: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Log of the summed exponentials of the logits, along the rows and along the columns."""
    logits_CB = gene_CD @ image_BD.T * scale.to(gene_CD.device)
    if ignore_CB is not None:
        logits_CB = logits_CB.masked_fill(ignore_CB, torch.finfo(logits_CB.dtype).min)
    return logits_CB.logsumexp(1), logits_CB.logsumexp(0)


def soft_clip(
    image_BD: Tensor,
    gene_BD: Tensor,
    *,
    scale: Tensor | float = 1.0,
    target_temperature: float = 1.0,
    normalise: bool = True,
    detach: bool = True,
) -> Tensor:
    """Return the contrastive loss whose targets share the weight among spots that are alike.

    Targets are ``softmax(((I I^T + S S^T) / 2) / temperature)`` over the rows, in both directions
    (BLEEP, Xie et al. 2023). The similarities are symmetric, so both directions have the same
    targets; the published code takes the transposed ones, whose rows do not sum to 1.

    Parameters
    ----------
    image_BD, gene_BD, scale, normalise
        As in :func:`info_nce`.
    target_temperature : float
        Small values approach the identity.
    detach : bool
        Let no gradient into the targets.
    """
    image_BD, gene_BD = _unit(image_BD, gene_BD, normalise=normalise)
    logits_BB = gene_BD @ image_BD.T * scale
    alike_BB = (image_BD @ image_BD.T + gene_BD @ gene_BD.T) / 2
    target_BB = (alike_BB / target_temperature).softmax(-1)
    if detach:
        target_BB = target_BB.detach()
    rows = F.cross_entropy(logits_BB, target_BB)
    return (rows + F.cross_entropy(logits_BB.T, target_BB)) / 2


def siglip(
    image_BD: Tensor,
    gene_BD: Tensor,
    *,
    scale: Tensor | float,
    bias: Tensor | float,
    normalise: bool = True,
) -> Tensor:
    """Return the pairwise sigmoid loss (Zhai et al. 2023).

    ``-1/B sum_ij log sigmoid(s_ij (scale gene_i . image_j + bias))`` with s = 1 for a spot with
    itself and -1 otherwise.
    """
    image_BD, gene_BD = _unit(image_BD, gene_BD, normalise=normalise)
    logits_BB = gene_BD @ image_BD.T * scale + bias
    sign_BB = 2 * torch.eye(len(logits_BB), device=logits_BB.device, dtype=logits_BB.dtype) - 1
    return -F.logsigmoid(sign_BB * logits_BB).sum() / len(logits_BB)


def _unit(first_BD: Tensor, second_BD: Tensor, *, normalise: bool) -> tuple[Tensor, Tensor]:
    if not normalise:
        return first_BD, second_BD
    return F.normalize(first_BD, dim=-1), F.normalize(second_BD, dim=-1)


class ChanceWatch:
    """Says ln B beside the loss, and warns once where the loss stays there.

    Parameters
    ----------
    warmup : int
        Steps during which a loss at chance is nothing unusual.
    every : int
        Steps between looks; a look waits for the device.
    tolerance : float
        How near ln B the loss must be.
    """

    def __init__(self, *, warmup: int = 500, every: int = 50, tolerance: float = 0.05) -> None:
        self.warmup, self.every, self.tolerance = warmup, every, tolerance
        self._warned = False

    def look(self, loss: Tensor, num_spots: int, *, step: int) -> None:
        """Log the loss and ln B on every so many steps; warn after the warm-up."""
        if step % self.every or num_spots < 2:
            return
        value, chance = float(loss.detach()), math.log(num_spots)
        _LOG.info("step %d: contrastive loss %.4f, ln B %.4f", step, value, chance)
        if step < self.warmup or self._warned or abs(value - chance) >= self.tolerance:
            return
        self._warned = True
        message = facts(
            f"contrastive loss at step {step}",
            found=f"{value:.3f}",
            expected=f"well below ln B = {chance:.3f}, the loss of guessing among {num_spots}",
            fix="raise the learning rate, check that pictures and counts belong together",
        )
        warnings.warn(message, Seq2ExpWarning, stacklevel=2)
