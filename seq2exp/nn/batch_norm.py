"""Batch normalisation that can be run again, and blocks that are.

A block whose activations are not kept runs twice; its running statistics must move once.

Shapes: B batch, C channels, L positions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

__all__ = ["BatchNorm", "NormStatistics", "run_again_in_backward"]

NormStatistics = Literal["batch", "running"]


class BatchNorm(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` for x of shape (batch, channels, positions).

    Parameters
    ----------
    num_channels : int
        Channels.
    statistics : str
        batch: of the batch in training, running averages in evaluation. running: the averages
        always, and they stay as they are: for fine-tuning with batches too small to have
        statistics.
    """

    def __init__(self, num_channels: int, *, statistics: NormStatistics = "batch") -> None:
        super().__init__(num_channels)
        self.statistics = statistics
        self.is_replay = False

    def forward(self, input: Tensor) -> Tensor:
        """Normalise every channel, shape (batch, channels, positions)."""
        if self.training and (self.statistics == "running" or self.is_replay):
            # A replay has to keep as many tensors as the first run, so it moves copies.
            of_batch = self.statistics == "batch"
            mean_C, var_C = self.running_mean, self.running_var
            if of_batch and mean_C is not None and var_C is not None:
                mean_C, var_C = mean_C.clone(), var_C.clone()
            return F.batch_norm(
                input, mean_C, var_C, self.weight, self.bias, training=of_batch, eps=self.eps
            )
        return super().forward(input)


def run_again_in_backward(module: nn.Module, *inputs: Tensor, **options: Any) -> Tensor:  # noqa: ANN401
    """Return ``module(*inputs, **options)``, keeping only the inputs for the backward pass.

    The second run draws the same dropout and leaves running statistics alone. Where no gradient is
    asked for the module simply runs.
    """
    if not torch.is_grad_enabled():
        plain: Tensor = module(*inputs, **options)
        return plain
    contexts = partial(_first_and_second, module)
    out: Tensor = checkpoint(module, *inputs, use_reentrant=False, context_fn=contexts, **options)
    return out


def _first_and_second(
    module: nn.Module,
) -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
    return contextlib.nullcontext(), _replay(module)


@contextlib.contextmanager
def _replay(module: nn.Module) -> Iterator[None]:
    norms = [inner for inner in module.modules() if isinstance(inner, BatchNorm)]
    for norm in norms:
        norm.is_replay = True
    try:
        yield
    finally:
        for norm in norms:
            norm.is_replay = False
