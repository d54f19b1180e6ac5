"""AdamW whose lookup tables keep one second moment per column.

Adam divides every weight's step by the size of that weight's own past gradients, so a row that is
read rarely and by chance moves as far as a row whose gradient is large in every batch. In a table
of k-mers, where a few of thousands of words matter and each is seen in few genes, all rows then
learn the noise of their genes. With one second moment for the rows together a row moves in
proportion to its gradient, as in a ridge on word counts. Second moments of whole layers are those
of NovoGrad (Ginsburg et al., arXiv 1905.11286); decoupled decay is that of AdamW (Loshchilov and
Hutter, arXiv 1711.05101).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["TableAdamW"]


class TableAdamW(torch.optim.AdamW):
    """AdamW; in parameter groups with ``shared_moment`` rows share their second moment.

    With gradient g of a table (rows, columns) and the mean over its rows in the second line:

        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) mean(g^2),    shape (columns,)
        w <- w (1 - lr decay) - lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)

    Other groups are those of :class:`torch.optim.AdamW`.

    Parameters
    ----------
    groups : iterable of dict
        Parameter groups; ``shared_moment`` is False where it is not given.
    lr, betas, eps, weight_decay
        As in :class:`torch.optim.AdamW`.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(list(groups), lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        for group in self.param_groups:
            group.setdefault("shared_moment", False)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401
        """Take one step; return what the closure returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        tables = [
            (group, parameter, parameter.grad)
            for group in self.param_groups
            if group["shared_moment"]
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        # AdamW passes over what has no gradient.
        for _, parameter, _ in tables:
            parameter.grad = None
        super().step()
        for group, parameter, grad in tables:
            parameter.grad = grad
            self._step_table(group, parameter, grad)
        return loss

    def _step_table(self, group: dict[str, Any], table: nn.Parameter, grad: Tensor) -> None:
        state = self.state[table]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(table)
            state["exp_avg_sq"] = torch.zeros_like(table[0])
        state["step"] += 1
        count, (beta1, beta2) = int(state["step"]), group["betas"]
        state["exp_avg"].lerp_(grad, 1 - beta1)
        state["exp_avg_sq"].lerp_(grad.square().mean(0), 1 - beta2)
        size = state["exp_avg_sq"].sqrt() / math.sqrt(1 - beta2**count) + group["eps"]
        table.mul_(1 - group["lr"] * group["weight_decay"])
        table.addcdiv_(
            state["exp_avg"], size.expand_as(table), value=-group["lr"] / (1 - beta1**count)
        )
