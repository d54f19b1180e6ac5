"""Encoders from published weights: what their settings mean, and their names under our own.

Settings are those of config.json and tensors come by their published names; reading files is the
business of `seq2exp.training.pretrained`. Sources: kuleshov-group/caduceus at 0060a6d.

Shapes: V rows of the token table, D width.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from seq2exp.core.errors import FormatError, facts
from seq2exp.encoders.caduceus import Caduceus, CaduceusConfig
from seq2exp.encoders.renaming import Rule, build_strictly, renamed, require_settings
from seq2exp.nn.mamba import dt_rank
from seq2exp.nn.tokens import NUM_ROWS, complement_ids
from seq2exp.nn.two_pass import Strategy

__all__ = [
    "build_caduceus",
    "caduceus_settings",
    "caduceus_state",
    "mamba_rules",
    "padded_rows",
    "require_depth",
    "require_size",
]

_COMPLEMENT = re.compile(r"(.*\.)?complement_map")


def require_size(config: Mapping[str, Any], name: str, *, where: str) -> int:
    """Return a size that a configuration must hold, a whole number of at least 1.

    Raises
    ------
    FormatError
        It is missing or something else: sizes are never guessed.
    """
    value = config.get(name)
    if type(value) is not int or value < 1:
        raise FormatError(
            facts(
                where,
                found=f"{name}: {str(value)[:80]}" if name in config else f"no {name}",
                expected=f"{name}, a whole number of at least 1",
                fix="use the config.json that was published with the weights",
            )
        )
    return value


def padded_rows(config: Mapping[str, Any], *, where: str) -> int:
    """Rows of the token table: vocab_size, padded to the multiple that the configuration names."""
    size = require_size(config, "vocab_size", where=where)
    multiple = 1
    if "pad_vocab_size_multiple" in config:
        multiple = require_size(config, "pad_vocab_size_multiple", where=where)
    return -(-size // multiple) * multiple


def caduceus_settings(config: Mapping[str, Any], *, where: str) -> CaduceusConfig:
    """Translate the config.json of a Caduceus model.

    `swap_halves` follows the norm path that the configuration names: true for PS with
    `fused_add_norm`, which is how the published PS weights were trained.

    Raises
    ------
    FormatError
        A size is missing, or a setting is one that no Caduceus here has.
    """
    sizes = {name: require_size(config, name, where=where) for name in ("d_model", "n_layer")}
    ssm = config.get("ssm_cfg") or {}
    if not isinstance(ssm, Mapping):
        require_settings({"ssm_cfg": (ssm, [{}])}, where=where, model="Caduceus")
    strategy = config.get("bidirectional_strategy") or "add"
    known: dict[str, tuple[Any, Sequence[object]]] = {
        "model_type": (config.get("model_type", "caduceus"), ["caduceus"]),
        "rms_norm": (config.get("rms_norm", True), [True]),
        "bidirectional": (config.get("bidirectional", True), [True]),
        "bidirectional_strategy": (strategy, ["add", "ew_multiply"]),
        "bidirectional_weight_tie": (config.get("bidirectional_weight_tie", True), [True, False]),
        "rcps": (config.get("rcps", False), [True, False]),
        "fused_add_norm": (config.get("fused_add_norm", True), [True, False]),
        "token table rows": (padded_rows(config, where=where), [NUM_ROWS]),
        "ssm_cfg.conv_bias": (ssm.get("conv_bias", True), [True]),
        "ssm_cfg.bias": (ssm.get("bias", False), [False]),
        "ssm_cfg.dt_rank": (ssm.get("dt_rank", "auto"), ["auto", dt_rank(sizes["d_model"])]),
    }
    require_settings(known, where=where, model="Caduceus")
    _require_complement(config.get("complement_map"), where=where)
    eps = config.get("norm_epsilon", 1e-5)
    if not isinstance(eps, float) or not 0 < eps < 1:
        require_settings({"norm_epsilon": (eps, [1e-5])}, where=where, model="Caduceus")
    inner = {"d_state": 16, "d_conv": 4, "expand": 2} | dict(ssm)
    equivariant = known["rcps"][0] is True
    return CaduceusConfig(
        variant="ps" if equivariant else "ph",
        d_model=sizes["d_model"],
        num_layers=sizes["n_layer"],
        d_state=require_size(inner, "d_state", where=where),
        d_conv=require_size(inner, "d_conv", where=where),
        expand=require_size(inner, "expand", where=where),
        embedding="table",
        bidirectional_strategy=cast("Strategy", strategy),
        tie_projections=known["bidirectional_weight_tie"][0] is True,
        swap_halves=equivariant and known["fused_add_norm"][0] is True,
        norm_eps=eps,
    )


def _require_complement(given: object, *, where: str) -> None:
    """Refuse another alphabet: A7 with T10, C8 with G9, all others with themselves."""
    if given is None:
        return
    expected = {str(i): one for i, one in enumerate(complement_ids().tolist())}
    items = given.items() if isinstance(given, Mapping) else [("no mapping", given)]
    wrong = [f"{one}: {other}" for one, other in items if expected.get(str(one)) != other]
    if wrong:
        raise FormatError(
            facts(
                where,
                found="a complement_map of another alphabet",
                expected="7 with 10 (A, T), 8 with 9 (C, G), all others with themselves",
                fix="use weights of a published Caduceus",
                examples=wrong,
            )
        )


def mamba_rules(published: str, ours: str, *, tied: bool = True) -> list[Rule]:
    """Rules for the two directions of a bidirectional mixer.

    Parameters
    ----------
    published : str
        Pattern of the name before ``mamba_fwd`` and ``mamba_rev``, its dot included.
    ours : str
        Our name of the mixer, its dot included; may use groups of `published`.
    tied : bool
        Whether in- and out-projection stand under both directions and are one parameter.
    """
    rules: list[Rule] = []
    for theirs, mine in (("mamba_fwd", "fwd"), ("mamba_rev", "rev")):
        head = published + theirs
        suffix = "" if tied or mine == "fwd" else "_rev"
        rules += [
            (rf"{head}\.in_proj\.weight", rf"{ours}in_proj{suffix}.weight"),
            (rf"{head}\.out_proj\.weight", rf"{ours}out_proj{suffix}.weight"),
            (rf"{head}\.conv1d\.weight", rf"{ours}{mine}.conv_weight"),
            (rf"{head}\.conv1d\.bias", rf"{ours}{mine}.conv_bias"),
            (rf"{head}\.x_proj\.weight", rf"{ours}{mine}.x_proj.weight"),
            (rf"{head}\.dt_proj\.weight", rf"{ours}{mine}.dt_proj.weight"),
            (rf"{head}\.dt_proj\.bias", rf"{ours}{mine}.dt_proj.bias"),
            (rf"{head}\.A_log", rf"{ours}{mine}.A_log"),
            (rf"{head}\.D", rf"{ours}{mine}.D"),
        ]
    return rules


def caduceus_state(
    tensors: Mapping[str, Tensor], *, tied: bool = True, where: str
) -> dict[str, Tensor]:
    """Give the tensors of a Caduceus our names.

    Ph and PS, the fused and the unfused norm path, with or without a language-model head, with the
    prefix of Lightning (``model.``) or of the bare backbone. Tied tensors may stand under all of
    their names, or under one, as safetensors store them.

    Raises
    ------
    FormatError
        Tied tensors differ, or the complement map is that of another alphabet.
    """
    top = r"(?:model\.)?(?:caduceus\.)?backbone\."
    layer = top + r"layers\.(\d+)\."
    rules: list[Rule] = [
        (top + r"embeddings\.word_embeddings\.(?:embedding\.)?weight", "table.weight"),
        (r"(?:model\.)?lm_head\.(?:lm_head\.)?weight", "table.weight"),
        *mamba_rules(layer + r"mixer\.(?:submodule\.)?", r"trunk.layers.\1.mixer.", tied=tied),
        (layer + r"norm\.(?:submodule\.)?weight", r"trunk.layers.\1.norm.weight"),
        (top + r"norm_f\.(?:submodule\.)?weight", "trunk.norm_f.weight"),
    ]
    kept = {}
    for name, tensor in tensors.items():
        if not _COMPLEMENT.fullmatch(name):
            kept[name] = tensor
        elif not torch.equal(tensor, complement_ids()):
            _require_complement(
                dict(enumerate(tensor.flatten().tolist())), where=f"{where}: {name}"
            )
    return renamed(kept, rules, where=where)


def build_caduceus(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    where: str,
    swap_halves: bool | None = None,
    recompute: bool = False,
) -> Caduceus:
    """Build a Caduceus from its published configuration and weights, in evaluation mode.

    Parameters
    ----------
    config : mapping
        What config.json holds.
    tensors : mapping of str to tensor
        By their published names.
    where : str
        File or folder, for messages.
    swap_halves : bool, optional
        Norm path of PS, where it is known better than from the configuration.
    recompute : bool
        See `CaduceusConfig`.

    Raises
    ------
    FormatError
        A configuration of another architecture; missing or unexpected tensors, other shapes.
    """
    settings = caduceus_settings(config, where=where)
    require_depth(tensors, settings.num_layers, where=where)
    changes: dict[str, Any] = {"recompute": recompute}
    if swap_halves is not None:
        changes["swap_halves"] = swap_halves
    settings = dataclasses.replace(settings, **changes)
    _require_variant(tensors, settings, where=where)
    state = caduceus_state(tensors, tied=settings.tie_projections, where=where)
    return build_strictly(
        lambda: Caduceus(settings, tracks=(), window_bp=1, bin_size=1), state, where=where
    )


def _require_variant(
    tensors: Mapping[str, Tensor], settings: CaduceusConfig, *, where: str
) -> None:
    """Refuse the weights of PS under the settings of Ph, and the reverse: only names differ."""
    wrapped = any(".mixer.submodule." in name for name in tensors)
    if wrapped != (settings.variant == "ps"):
        raise FormatError(
            facts(
                where,
                found=f"rcps: {not wrapped}".lower(),
                expected=f"rcps: {wrapped}, as the names of the weights say".lower(),
                fix="use the config.json that was published with these weights",
            )
        )


def require_depth(tensors: Mapping[str, Tensor], num_layers: int, *, where: str) -> None:
    """Refuse a number of layers that is not that of the tensors, before anything is built.

    Raises
    ------
    FormatError
        The configuration names another number of layers.
    """
    numbers = {
        int(found[1]) for name in tensors if (found := re.search(r"\.layers\.(\d{1,6})\.", name))
    }
    depth = max(numbers, default=-1) + 1
    if depth != num_layers:
        raise FormatError(
            facts(
                where,
                found=f"n_layer: {num_layers}",
                expected=f"the {depth} layers of the weights",
                fix="use the config.json that was published with these weights",
            )
        )
