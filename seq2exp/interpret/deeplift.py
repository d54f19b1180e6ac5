"""DeepLIFT/SHAP through captum, where its rules cover the whole network.

DeepLIFT (Shrikumar, Greenside and Kundaje, ICML 2017) replaces the gradient of each nonlinear
module by a ratio of differences. captum knows such rules for modules of torch only. Scans, gates
(products of two activations), norms and nonlinear functions that are no modules keep their plain
gradient, and then the shares no longer sum to ``f(x) - f(x')``. That sum is therefore checked for
every gene, and a result that fails it is refused.

Shapes: L base pairs, C the four bases A C G T.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.interpret.gradients import Shares, centred, real_input
from seq2exp.interpret.target import Target

__all__ = ["TOLERANCE", "deeplift_shap"]

TOLERANCE = 0.01
"""Largest completeness error, relative to the difference it should equal."""

# Operations through which a ratio of differences and a gradient are the same thing.
_LINEAR = (
    "Add", "Sub", "Neg", "Div", "Mm", "Addmm", "Bmm", "Baddbmm", "View", "UnsafeView", "Reshape",
    "Permute", "Transpose", "TBackward", "Expand", "Repeat", "Sum", "Mean", "Slice", "Select",
    "Index", "Cat", "Stack", "Squeeze", "Unsqueeze", "Clone", "Copy", "ToCopy", "Flip",
    "Convolution", "ConstantPad", "AccumulateGrad", "Split", "Unbind", "AsStrided", "Unfold",
    "MkldnnLinear",    "Alias", "Roll", "Lerp", "Einsum",
)  # fmt: skip


class _OneGene(nn.Module):
    """The target as a module of its bases, as captum wants it; modules of the members inside."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.members = nn.ModuleList(target.models)
        self.target = target

    def forward(self, bases_BLC: Tensor) -> Tensor:
        """Predicted value of every row, shape (batch, 1)."""
        signal_BNT = self.target.batch.signal_BNT
        rows = (len(bases_BLC), *signal_BNT.shape[1:])
        return self.target(bases_BLC, signal_BNT.expand(rows))[:, None]


def deeplift_shap(target: Target, baselines: Tensor, *, tolerance: float = TOLERANCE) -> Shares:
    """Shares of the bases by DeepLIFT, the mean over the baselines.

    Parameters
    ----------
    target : Target
    baselines : float tensor, shape (baselines, length, 4)
        From `seq2exp.interpret.gradients.base_baselines`.
    tolerance : float
        Largest relative completeness error of any baseline.

    Raises
    ------
    InputError
        captum is not installed.
    ConfigError
        The shares do not sum to the difference: the network has layers without a rule.
    """
    captum = _captum()
    x_1LC, signal_1NT = real_input(target)
    explained = _OneGene(target)
    shares, mean_LC, values = [], torch.zeros_like(x_1LC[0]), []
    for baseline_LC in baselines:
        multiplier_1LC = _multipliers(captum, explained, x_1LC, baseline_LC[None])
        shares.append(((x_1LC[0] - baseline_LC) * multiplier_1LC[0]).sum(-1))
        mean_LC += multiplier_1LC[0] / len(baselines)
        with torch.no_grad():
            pair = torch.cat([x_1LC, baseline_LC[None]])
            values.append(target(pair, signal_1NT.expand(2, -1, -1)))
        difference = float(values[-1][0] - values[-1][1])
        error = abs(float(shares[-1].double().sum()) - difference)
        if not error <= tolerance * max(abs(difference), 1e-6):
            raise _not_covered(target, error, difference, tolerance)
    mean_2 = torch.stack(values).mean(0)
    return Shares(
        torch.stack(shares).mean(0),
        centred(mean_LC, target.batch.codes_BL[0]),
        float(mean_2[0]),
        float(mean_2[1]),
    )


def _captum() -> Any:  # noqa: ANN401
    try:
        from captum.attr import DeepLift
    except ImportError as error:
        raise InputError(
            facts(
                "--method deeplift_shap",
                found="no package captum",
                expected="captum, which the extra `attribution` installs",
                fix='pip install "seq2exp[attribution]"',
            )
        ) from error
    return DeepLift


def _multipliers(
    captum: Any,  # noqa: ANN401
    explained: nn.Module,
    x_1LC: Tensor,
    baseline_1LC: Tensor,
) -> Tensor:
    import warnings

    method = captum(explained, multiply_by_inputs=False)
    with warnings.catch_warnings():
        # captum says that it sets hooks and gradients; both are gone afterwards.
        warnings.simplefilter("ignore")
        found: Tensor = method.attribute(
            x_1LC.clone().requires_grad_(), baselines=baseline_1LC, target=0
        )
    return found.detach()


def _not_covered(target: Target, error: float, difference: float, tolerance: float) -> ConfigError:
    relative = error / max(abs(difference), 1e-6)
    names = sorted(_uncovered(target))
    return ConfigError(
        facts(
            "--method deeplift_shap",
            found=f"shares that miss f(x) - f(baseline) = {difference:.4g} by {error:.4g} "
            f"({relative:.0%}); the network has operations without a DeepLIFT rule, or whose rule "
            f"captum cannot apply: {', '.join(names) or 'none that autograd shows'}",
            expected=f"a completeness error of at most {tolerance:.0%}",
            fix="use --method integrated_gradients or saturation, which hold for every layer",
        )
    )


def _uncovered(target: Target) -> set[str]:
    """Names of the nonlinear operations between the bases and the prediction."""
    x_1LC, signal_1NT = real_input(target)
    value = target(x_1LC.clone().requires_grad_(), signal_1NT)
    names, seen, todo = set(), set(), [value.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = node.name().rsplit("::", 1)[-1]
        if not name.startswith(_LINEAR):
            names.add(name.removesuffix("0").removesuffix("Backward").strip("_"))
        todo += [before for before, _ in node.next_functions]
    return names
