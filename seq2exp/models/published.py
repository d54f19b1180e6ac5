"""The published Seq2Exp checkpoints: settings and parameter names under our own.

Source: divelab/AIRS, OpenBio/Seq2Exp, commit 2164a27 (Su et al., arXiv 2502.13991).

Shapes: D width, L positions of the window.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from seq2exp.core.errors import FormatError, facts
from seq2exp.encoders.pretrained import mamba_rules
from seq2exp.encoders.renaming import Rule, build_strictly, renamed
from seq2exp.models.config import CONTACT, Seq2ExpConfig
from seq2exp.models.seq2exp import Seq2Exp

__all__ = [
    "PUBLISHED_FEATURES",
    "PUBLISHED_TRACKS",
    "build_published",
    "published_settings",
    "published_state",
]

PUBLISHED_TRACKS = ("H3K27ac", "DNase", CONTACT)
"""Order of the signal in the published models."""
PUBLISHED_FEATURES = (
    "UTR5LEN", "CDSLEN", "INTRONLEN", "UTR3LEN", "UTR5GC", "CDSGC", "UTR3GC", "ORFEXONDENSITY",
    "PromoterActivity",
)  # fmt: skip
"""Order of the scalar features in the published models."""

_HARD: dict[str, Any] = {
    "mask": "hard",
    # There masked bases are cut out. No gate here does just that; this one lets none through.
    "gate": "delta",
    "generator_sees_tracks": True,
    "position_embedding": True,
    "beta_min": 0.0,
    "prior_scale_factor": 1.0,
    "prior_mean": 0.45,
    "prior_scale": 0.1,
}
_ROLES = {"generator": "generator", "encoder": "predictor"}
# Ours, and not in the files: scalings that are off in the published models, and the prior.
_CONSTANTS = re.compile(
    r"track_unit_T|prior\.(alpha|beta)|track_embedding\.(mean|std)_T"
    r"|head\.(feature|output)_(mean|std)_[FK]"
)


def published_state(tensors: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """Give the tensors of a published Seq2Exp our names.

    Tied projections stand there under both directions. In the hard model generator and predictor
    are one network, under both names; here each has its own, equal at first.

    Parameters
    ----------
    tensors : mapping of str to tensor
        By their published names, with the prefix ``model.`` of Lightning or without.
    where : str
        File, for messages.

    Raises
    ------
    FormatError
        Tensors that are one parameter differ.
    """
    rules: list[Rule] = [
        (r"(?:model\.)?seq_input_layer\.(weight|bias)", r"stem.proj.\1"),
        (r"(?:model\.)?signal_input_layer\.(weight|bias)", r"track_embedding.proj.\1"),
        (r"(?:model\.)?pos_emb", "position_ND"),
        (r"(?:model\.)?mask_output\.(weight|bias)", r"mask_head.\1"),
        (r"(?:model\.)?prior_weights", "track_beta.log_weights_T"),
        (r"(?:model\.)?signal_betas", "track_beta.betas_T"),
        (r"(?:model\.)?pToExpr\.0\.(weight|bias)", r"head.layers.0.\1"),
        (r"(?:model\.)?pToExpr\.2\.(weight|bias)", r"head.layers.3.\1"),
        (r"(?:model\.)?pToExpr\.4\.(weight|bias)", r"head.layers.6.\1"),
    ]
    for theirs, ours in _ROLES.items():
        top = rf"(?:model\.)?{theirs}\.backbone\."
        layer = top + r"layers\.(\d+)\."
        rules += mamba_rules(layer + r"mixer\.", rf"{ours}.layers.\1.mixer.")
        rules += [
            (layer + r"norm\.weight", rf"{ours}.layers.\1.norm.weight"),
            (top + r"norm_f\.weight", rf"{ours}.norm_f.weight"),
        ]
    state = renamed(tensors, rules, where=where)
    if "position_ND" in state and state["position_ND"].ndim == 3:
        state["position_ND"] = state["position_ND"][0]
    return state


def published_settings(
    state: Mapping[str, Tensor],
    *,
    tracks: Sequence[str] = PUBLISHED_TRACKS,
    where: str,
    **changes: Any,  # noqa: ANN401
) -> Seq2ExpConfig:
    """Tell the published soft and hard settings apart, and read the sizes off the tensors.

    Parameters
    ----------
    state : mapping of str to tensor
        What `published_state` returned.
    tracks : sequence of str
        Names of the tracks, in the order of the signal.
    where : str
        File, for messages.
    **changes
        Settings of `Seq2ExpConfig` that replace the published ones, such as window_bp.

    Raises
    ------
    FormatError
        No generator, or tensors of other sizes than one Seq2Exp can have.
    """
    needed = ("stem.proj.weight", "track_embedding.proj.weight", "head.layers.0.weight")
    layers = {role: _depth(state, role) for role in _ROLES.values()}
    missing = [name for name in needed if name not in state or state[name].ndim != 2]
    missing += [f"{role}.layers" for role, depth in layers.items() if not depth]
    if missing:
        raise FormatError(
            facts(
                where,
                found="no " + ", ".join(missing),
                expected="a published Seq2Exp, soft or hard, with generator, predictor and tracks",
                fix="give the checkpoint of such a model; models of peaks, abc and retrain have no "
                "generator of their own",
            )
        )
    _require_variant(state, where=where)
    d_model = state["stem.proj.weight"].shape[0]
    num_tracks = state["track_embedding.proj.weight"].shape[1]
    if num_tracks != len(tracks):
        raise FormatError(
            facts(
                where,
                found=f"{num_tracks} tracks",
                expected=f"{len(tracks)}: " + ", ".join(tracks),
                fix="give the names of its tracks",
            )
        )
    sizes: dict[str, Any] = {
        "tracks": tuple(tracks),
        "d_model": d_model,
        "generator_layers": layers["generator"],
        "predictor_layers": layers["predictor"],
        "num_features": state["head.layers.0.weight"].shape[1] - d_model,
        "head_hidden": state["head.layers.0.weight"].shape[0],
    }
    if "position_ND" in state:
        sizes |= _HARD | {"window_bp": state["position_ND"].shape[0]}
    return Seq2ExpConfig.published_soft(**(sizes | changes))


def _require_variant(state: Mapping[str, Tensor], *, where: str) -> None:
    """Refuse what is neither soft (two networks) nor hard (one network, positions)."""
    generator, predictor = (
        {name.removeprefix(role): one for name, one in state.items() if name.startswith(role)}
        for role in ("generator.", "predictor.")
    )
    shared = generator.keys() == predictor.keys() and all(
        torch.equal(one, predictor[name]) for name, one in generator.items()
    )
    positions = "position_ND" in state
    if shared != positions:
        nets = "one network for both roles" if shared else "two networks"
        raise FormatError(
            facts(
                where,
                found=f"{nets} and {'pos_emb' if positions else 'no pos_emb'}",
                expected="two networks without positions (soft), or one with them (hard)",
                fix="give a published checkpoint, soft or hard, whole",
            )
        )


def _depth(state: Mapping[str, Tensor], role: str) -> int:
    found = (re.match(rf"{role}\.layers\.(\d{{1,6}})\.", name) for name in state)
    return max((int(one[1]) + 1 for one in found if one), default=0)


def build_published(
    tensors: Mapping[str, Tensor],
    *,
    tracks: Sequence[str] = PUBLISHED_TRACKS,
    where: str,
    **changes: Any,  # noqa: ANN401
) -> Seq2Exp:
    """Build a Seq2Exp from the tensors of a published checkpoint, in evaluation mode.

    The arguments are those of `published_settings`.

    Raises
    ------
    FormatError
        Missing or unexpected tensors, other shapes, or tied tensors that differ.
    """
    state = published_state(tensors, where=where)
    config = published_settings(state, tracks=tracks, where=where, **changes)
    constants = {
        name: value
        for name, value in Seq2Exp(config).state_dict().items()
        if _CONSTANTS.fullmatch(name)
    }
    return build_strictly(lambda: Seq2Exp(config), constants | state, where=where)
