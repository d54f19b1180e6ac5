"""First-order change of predictions for every substitution in a window, from one backward pass.

With x the one-hot bases of a window and g the gradient of a prediction f there, putting base b at
position l changes f by about ``g[l, b] - g[l, base that is there]``: the Taylor expansion of f cut
after its first term. It is exact where f is linear in the bases and misses what bases do together.
Several substitutions count with the sum of their changes. Insertions and deletions move bases and
have no such term.

A mask of 0 and 1 does not change with a small change of the bases. Where the models pass a gradient
through it all the same (``mask: hard``, straight-through), the result says so; masks that are
ranked (``test_mask: topk``, ``mask: retrain``) pass none.

Shapes: L base pairs, C the four bases A C G T, K outputs, S edited windows, M substitutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seq2exp.core.sequence import N_CODE
from seq2exp.interpret.target import MaskUse, columns_of
from seq2exp.models.output import ModelCall

__all__ = ["MaskGradient", "Taylor", "mask_gradient", "taylor"]

MaskGradient = Literal["true", "straight_through", "none"]
"""What the gradient knows of changes of the mask. true: all, or the mask does not hang on the
bases. straight_through: as if a mask of 0 and 1 moved with its mean. none: nothing."""


@dataclass(frozen=True, eq=False)
class Taylor:
    """First-order changes of the predictions of one window.

    Attributes
    ----------
    delta_KLC : float tensor, shape (outputs, length, 4)
        Change when base A, C, G or T replaces the one that is there, in the unit of the labels; 0
        for that base itself, NaN at N.
    value_K : float tensor, shape (outputs,)
        Predictions of the window as it is.
    codes_L : uint8 tensor, shape (length,)
        Its bases.
    mask_N : float tensor, shape (bins,)
        Mean of the posterior of the window as it is; ones without a mask.
    through_mask : str
        See `MaskGradient`.
    """

    delta_KLC: Tensor
    value_K: Tensor
    codes_L: Tensor
    mask_N: Tensor
    through_mask: MaskGradient

    def of(self, at_M: Tensor, base_M: Tensor) -> Tensor:
        """Return the changes when bases come in the places of others, singly, shape (M, outputs).

        Parameters
        ----------
        at_M, base_M : int tensor, shape (M,)
            Positions in the window, and codes of the new bases; N gives NaN.
        """
        single_MK = self.delta_KLC[:, at_M, base_M.long().clamp(max=N_CODE - 1)].T
        return single_MK.masked_fill((base_M >= N_CODE)[:, None], torch.nan)

    def change(self, codes_SL: Tensor) -> Tensor:
        """Return the changes of windows with some bases replaced, shape (S, outputs).

        Parameters
        ----------
        codes_SL : uint8 tensor, shape (windows, length)
            Sums the changes of all bases that differ; NaN where one of them is N, before or after;
            0 where none differs. Not defined for windows with insertions or deletions.
        """
        changes_SK = self.value_K.new_zeros((len(codes_SL), len(self.value_K)))
        row, at = (codes_SL != self.codes_L).nonzero(as_tuple=True)
        return changes_SK.index_add(0, row, self.of(at, codes_SL[row, at]))


def mask_gradient(model: nn.Module, *, mask: MaskUse = "recomputed") -> MaskGradient:
    """Tell what the gradient of a model knows of changes of its mask.

    Parameters
    ----------
    model : Module
    mask : str
        As for `taylor`.
    """
    config: Any = model.config
    kind = getattr(config, "mask", "none")
    if mask == "fixed" or kind in ("none", "peaks", "abc"):
        return "true"
    if kind == "retrain" or config.test_mask == "topk":
        return "none"
    return "straight_through" if kind == "hard" else "true"


def taylor(
    model: nn.Module,
    call: ModelCall,
    *,
    outputs: Sequence[int] | None = None,
    mask: MaskUse = "recomputed",
    strands: Literal["given", "both"] = "given",
) -> Taylor:
    """Return the first-order change of predictions for every substitution in a window.

    Costs one forward pass, and one backward pass per output.

    Parameters
    ----------
    model : Module
        In evaluation mode; without gradients of its weights (`interpret.target.quiet_models`) it is
        faster.
    call : ModelCall
        The window, a batch of one, its bases as codes.
    outputs : sequence of int, optional
        Which of the predicted values; all when left out.
    mask : str
        recomputed: the mask follows the bases. fixed: it stays that of the window.
    strands : str
        given: the window as it is. both: the mean with the other strand, each strand under its own
        mask.
    """
    delta_KLC, value_K, mask_N = _one_strand(model, call, outputs, mask)
    if strands == "both":
        other_KLC, other_K, other_N = _one_strand(model, call.mirrored(), outputs, mask)
        # Turned around, and A for T, C for G.
        delta_KLC = (delta_KLC + other_KLC.flip(1, 2)) / 2
        value_K = (value_K + other_K) / 2
        mask_N = (mask_N + other_N.flip(0)) / 2
    through = mask_gradient(model, mask=mask)
    return Taylor(delta_KLC, value_K, call.codes_BL[0], mask_N, through)


def _one_strand(
    model: Any,  # noqa: ANN401  a model of the registry
    call: ModelCall,
    outputs: Sequence[int] | None,
    mask: MaskUse,
) -> tuple[Tensor, Tensor, Tensor]:
    codes_L = call.codes_BL[0].long()
    dtype = next(model.parameters()).dtype
    if mask == "fixed" and call.mask_BN is None:
        with torch.no_grad():
            call = call._replace(mask_BN=model.one_strand(call).mask_BN)
    leaf_1LC = columns_of(call.codes_BL, dtype=dtype).requires_grad_()
    with torch.enable_grad():
        output = model.one_strand(call._replace(codes_BL=leaf_1LC))
        value_K = output.expression_BK[0]
        chosen = range(len(value_K)) if outputs is None else outputs
        gradients = [_gradient(value_K[k], leaf_1LC, again=k != chosen[-1]) for k in chosen]
    grad_KLC = torch.stack(gradients)
    known_L = codes_L < N_CODE
    there_L1 = codes_L.clamp(max=N_CODE - 1)[:, None]
    delta_KLC = grad_KLC - grad_KLC.take_along_dim(there_L1[None], dim=2)
    delta_KLC = delta_KLC.masked_fill(~known_L[:, None], torch.nan)
    return delta_KLC, value_K.detach()[list(chosen)], output.mean_BN[0].detach()


def _gradient(value: Tensor, leaf_1LC: Tensor, *, again: bool) -> Tensor:
    """Gradient of a value by the bases, shape (length, 4); 0 where the model does not read them."""
    if not value.requires_grad:
        return torch.zeros_like(leaf_1LC[0])
    (grad_1LC,) = torch.autograd.grad(value, leaf_1LC, retain_graph=again, materialize_grads=True)
    return grad_1LC[0]
