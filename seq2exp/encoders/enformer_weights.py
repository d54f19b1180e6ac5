"""Published Enformer weights, under the names of enformer-pytorch, into the encoder.

Names: lucidrains/enformer-pytorch 0.8.10, ``Enformer.state_dict()``. That class registers its trunk
twice, so a file holds ``stem.*`` or ``_trunk.1.*`` or both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from seq2exp.core.errors import FormatError, facts
from seq2exp.encoders.enformer import EnformerEncoder

__all__ = ["enformer_key", "load_enformer"]

_TRUNK = {"1": "stem", "2": "conv_tower", "4": "transformer", "6": "final_pointwise"}
# Beginnings of published names and ours; {i} is the number of the stage or block.
_NAMES = (
    ("stem.0.", "stem.conv."),
    ("stem.1.fn.0.", "stem.pointwise.norm."),
    ("stem.1.fn.2.", "stem.pointwise.conv."),
    ("stem.2.to_attn_logits.weight", "stem.pool.weight"),
    ("conv_tower.{i}.0.0.", "tower.{i}.conv.norm."),
    ("conv_tower.{i}.0.2.", "tower.{i}.conv.conv."),
    ("conv_tower.{i}.1.fn.0.", "tower.{i}.pointwise.norm."),
    ("conv_tower.{i}.1.fn.2.", "tower.{i}.pointwise.conv."),
    ("conv_tower.{i}.2.to_attn_logits.weight", "tower.{i}.pool.weight"),
    ("transformer.{i}.0.fn.0.", "blocks.{i}.norm_attention."),
    ("transformer.{i}.0.fn.1.rel_content_bias", "blocks.{i}.attention.content_bias"),
    ("transformer.{i}.0.fn.1.rel_pos_bias", "blocks.{i}.attention.position_bias"),
    ("transformer.{i}.0.fn.1.", "blocks.{i}.attention."),
    ("transformer.{i}.1.fn.0.", "blocks.{i}.norm_network."),
    ("transformer.{i}.1.fn.1.", "blocks.{i}.project_in."),
    ("transformer.{i}.1.fn.4.", "blocks.{i}.project_out."),
    ("final_pointwise.1.0.", "final.block.norm."),
    ("final_pointwise.1.2.", "final.block.conv."),
    ("tf_gammas", "tf_gammas"),
)
_RULES = tuple(
    (re.compile(re.escape(theirs).replace(r"\{i\}", r"(?P<i>\d+)")), ours)
    for theirs, ours in _NAMES
)


def enformer_key(name: str) -> str | None:
    """Translate a name of enformer-pytorch into one of `EnformerEncoder`.

    A leading ``enformer.`` is ignored. None for the track heads, which the encoder lacks; an
    unknown name comes back as it is.
    """
    name = name.removeprefix("enformer.")
    if name.startswith("_heads."):
        return None
    if trunk := re.match(r"_trunk\.(\d)\.", name):
        name = f"{_TRUNK.get(trunk[1], trunk[0][:-1])}.{name[trunk.end() :]}"
    for pattern, ours in _RULES:
        if found := pattern.match(name):
            return ours.format(**found.groupdict()) + name[found.end() :]
    return name


@torch.no_grad()
def load_enformer(encoder: EnformerEncoder, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Copy published weights into the encoder, all or none of them.

    Parameters
    ----------
    encoder : EnformerEncoder
        Of the sizes of the weights.
    tensors : mapping of str to tensor
        Weights under the names of enformer-pytorch; with `tf_gamma` also the table ``tf_gammas``,
        shape (2 * bins - 1, features) or with leading axes of 1.

    Returns
    -------
    tuple of str
        What the encoder has no use for: the track heads, and ``tf_gammas`` without `tf_gamma`.

    Raises
    ------
    FormatError
        Missing or unexpected names, other shapes, or two names of one weight that differ.
    """
    own = encoder.state_dict()
    found, unused = _translated(tensors, with_gammas="tf_gammas" in own)
    # Batch norm counts its batches but never reads the count.
    missing = [n for n in own if n not in found and not n.endswith(".num_batches_tracked")]
    _refuse("missing", missing)
    _refuse("unexpected", [name for name in found if name not in own])
    wrong = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(own[name].shape)}"
        for name in found
        if _squeezed(found[name]) != _squeezed(own[name])
    ]
    _refuse("of another shape", wrong)
    for name, tensor in found.items():
        own[name].copy_(tensor.reshape(own[name].shape))
    return unused


def _translated(
    tensors: Mapping[str, Tensor], *, with_gammas: bool
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Weights under our names, and the published names that have none."""
    found: dict[str, Tensor] = {}
    unused, twice = [], []
    for name, tensor in tensors.items():
        key = enformer_key(name)
        if key is None or (key == "tf_gammas" and not with_gammas):
            unused.append(name)
        elif key in found and not torch.equal(found[key], tensor):
            twice.append(name)
        else:
            found[key] = tensor
    _refuse("given twice with different values", twice)
    return found, tuple(unused)


def _squeezed(tensor: Tensor) -> tuple[int, ...]:
    """Shape without axes of 1, which the two sides place differently."""
    return tuple(size for size in tensor.shape if size != 1)


def _refuse(what: str, names: list[str]) -> None:
    if names:
        raise FormatError(
            facts(
                "Enformer weights",
                found=f"weights {what}",
                expected="those of an enformer-pytorch model of the configured sizes",
                fix="check dim, depth, num_heads, key_dim, num_halvings and channel_multiple, and "
                "that the file is complete",
                count=len(names),
                examples=names,
            )
        )
