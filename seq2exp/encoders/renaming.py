"""Published weights under our names: renaming by rules, and strict loading."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from seq2exp.core.errors import FormatError, facts

__all__ = ["Rule", "build_strictly", "renamed", "require_settings", "state_problems"]

Rule = tuple[str, str]
"""A pattern that a whole published name must match, and our name, which may use its groups."""

Model = TypeVar("Model", bound=nn.Module)


def renamed(
    tensors: Mapping[str, Tensor], rules: Sequence[Rule], *, where: str
) -> dict[str, Tensor]:
    """Give published tensors our names.

    The first rule that matches counts. A name without a rule stays as it is, so that strict loading
    lists it. Kernels of depthwise convolutions (channels, 1, taps) lose their middle axis.

    Parameters
    ----------
    tensors : mapping of str to tensor
        By their published names.
    rules : sequence of Rule
    where : str
        File or folder, for messages.

    Raises
    ------
    FormatError
        Tensors that are one parameter under several names, such as tied projections, differ.
    """
    state: dict[str, Tensor] = {}
    source: dict[str, str] = {}
    for name in sorted(tensors):
        new = _new_name(name, rules)
        tensor = _without_middle_axis(new, tensors[name])
        if new in state and not torch.equal(state[new], tensor):
            raise FormatError(
                facts(
                    where,
                    found=f"different values in {source[new]} and {name}",
                    expected="one parameter under both names",
                    fix="get the file again; if the model was trained without tied weights, its "
                    "settings must say so",
                )
            )
        state[new], source[new] = tensor, name
    return state


def _new_name(name: str, rules: Sequence[Rule]) -> str:
    for pattern, target in rules:
        found = re.fullmatch(pattern, name)
        if found:
            return found.expand(target)
    return name


def _without_middle_axis(name: str, tensor: Tensor) -> Tensor:
    kernel = name.endswith(("conv_weight", "short_weight"))
    return tensor[:, 0] if kernel and tensor.ndim == 3 and tensor.shape[1] == 1 else tensor


def require_settings(
    settings: Mapping[str, tuple[object, Sequence[object]]], *, where: str, model: str
) -> None:
    """Refuse a configuration of another architecture.

    Parameters
    ----------
    settings : mapping of str to (value, values that can be loaded)
    where, model : str
        File and family, for messages.

    Raises
    ------
    FormatError
        The first setting that has another value, with what was expected.
    """
    for name, (value, known) in settings.items():
        if not any(value == one and type(value) is type(one) for one in known):
            raise FormatError(
                facts(
                    where,
                    found=f"{name}: {str(value)[:80]}",
                    expected=" or ".join(str(one) for one in known),
                    fix=f"give the config.json of a {model} model",
                )
            )


def state_problems(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """List missing and unexpected names, other shapes, and values that are no numbers.

    One of each kind comes first, so that a message that shows three shows three kinds.
    """
    kinds = [
        [f"missing {name}" for name in sorted(expected.keys() - state.keys())],
        [f"unexpected {name}" for name in sorted(state.keys() - expected.keys())],
        [
            f"{name} {tuple(state[name].shape)} instead of {tuple(value.shape)}"
            for name, value in expected.items()
            if name in state and state[name].shape != value.shape
        ],
        [
            f"{name} holds NaN, Inf or no real numbers"
            for name, value in expected.items()
            if name in state and state[name].shape == value.shape and not _finite(state[name])
        ],
    ]
    return [kind[0] for kind in kinds if kind] + [line for kind in kinds for line in kind[1:]]


def _finite(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool(torch.isfinite(tensor).all())


def build_strictly(build: Callable[[], Model], state: Mapping[str, Tensor], *, where: str) -> Model:
    """Build a module, give it exactly these parameters, and set it to evaluation.

    Names and shapes are compared on torch's meta device, where sizes cost nothing.

    Raises
    ------
    FormatError
        Missing or unexpected names, other shapes, NaN or Inf; or sizes that no machine holds.
    """
    try:
        with torch.device("meta"):
            expected = build().state_dict()
    except (RuntimeError, OverflowError) as error:
        raise FormatError(
            facts(
                where,
                found=f"sizes that no machine holds ({error})",
                expected="the sizes of the weights",
                fix="use the config.json that was published with these weights",
            )
        ) from None
    problems = state_problems(expected, state)
    if problems:
        raise FormatError(
            facts(
                where,
                found="weights of another architecture, or damaged ones",
                expected=f"the {len(expected)} parameters that its settings describe",
                fix="use weights and config.json of one model",
                count=len(problems),
                examples=problems,
            )
        )
    model = build()
    model.load_state_dict(dict(state))
    return model.eval()
