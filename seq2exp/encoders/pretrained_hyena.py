"""HyenaDNA from published weights: settings and names under our own.

Two layouts exist: config.json of the first release (sizes of the operator under ``layer``) with a
Lightning checkpoint, and the later port to transformers. Sources: HazyResearch/hyena-dna (training
code, standalone_hyenadna.py) and the port's modeling_hyena.py.

Shapes: L positions up to l_max, F position features, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from seq2exp.core.errors import FormatError, facts
from seq2exp.encoders.embedding import VOCABULARY
from seq2exp.encoders.hyena import HyenaConfig, HyenaEncoder
from seq2exp.encoders.pretrained import padded_rows, require_depth, require_size
from seq2exp.encoders.renaming import Rule, build_strictly, renamed, require_settings
from seq2exp.nn.hyena import ImplicitFilter
from seq2exp.nn.tokens import NUM_ROWS

__all__ = ["HYENADNA_RULES", "build_hyenadna", "hyenadna_settings", "hyenadna_state"]

_TOP = r"(?:model\.)?(?:hyena\.)?backbone\."
_LAYER = _TOP + r"layers\.(\d+)\."
_MIXER = _LAYER + r"mixer\.(?:layer\.)?"
_FILTER = _MIXER + r"filter_fn\."
_OURS = r"trunk.layers.\1."
HYENADNA_RULES: list[Rule] = [
    (_TOP + r"embeddings\.word_embeddings\.weight", "embedding.table.weight"),
    (r"(?:model\.)?lm_head\.weight", "embedding.table.weight"),
    (_LAYER + r"(norm[12])\.(weight|bias)", _OURS + r"\2.\3"),
    (_LAYER + r"mlp\.(?:layer\.)?(fc[12])\.(weight|bias)", _OURS + r"\2.\3"),
    (_MIXER + r"(in_proj|out_proj)\.(weight|bias)", _OURS + r"mixer.\2.\3"),
    (_MIXER + r"short_filter\.(weight|bias)", _OURS + r"mixer.short_\2"),
    (_FILTER + r"bias", _OURS + "mixer.implicit_filter.bias"),
    (_FILTER + r"implicit_filter\.[135]\.freq", _OURS + "mixer.implicit_filter.freq"),
    *(
        (
            _FILTER + rf"implicit_filter\.{2 * layer}\.(weight|bias)",
            _OURS + rf"mixer.implicit_filter.layers.{layer}.\2",
        )
        for layer in range(4)
    ),
    (_FILTER + r"pos_emb\.([zt])", r"features.\1.\2"),
    (_FILTER + r"modulation\.deltas", r"features.\1.deltas"),
    (_TOP + r"ln_f\.(weight|bias)", r"trunk.norm_f.\1"),
]
"""Published names, with and without the ``.layer.`` of models that were trained with checkpointing.

What is named features is a formula here; it is compared and not kept.
"""

_TOLERANCE = 1e-4
_FAST, _SLOW, _TARGET = 0.3, 1.5, 1e-2


def hyenadna_settings(config: Mapping[str, Any], *, where: str) -> HyenaConfig:
    """Translate the config.json of a HyenaDNA, in the layout of the release or of the port.

    Raises
    ------
    FormatError
        A size is missing, or a setting is one that no HyenaDNA here has.
    """
    layer = config.get("layer", config)
    if not isinstance(layer, Mapping):
        require_settings({"layer": (layer, [{}])}, where=where, model="HyenaDNA")
    sizes = {
        name: require_size(config, name, where=where) for name in ("d_model", "n_layer", "d_inner")
    }
    longest = "max_seq_len" if layer is config else "l_max"
    order = layer.get("hyena_order", layer.get("order", 2))
    taps = layer.get("short_filter_order", layer.get("local_order", 3))
    known: dict[str, tuple[Any, Sequence[object]]] = {
        "model_type": (config.get("model_type", "hyenadna"), ["hyenadna"]),
        "layer._name_": (layer.get("_name_", "hyena"), ["hyena"]),
        "attn_layer_idx": (config.get("attn_layer_idx"), [None]),
        "order": (order, [2]),
        "short_filter_order": (taps, [3]),
        "emb_dim": (layer.get("emb_dim"), [5]),
        "num_inner_mlps": (layer.get("num_inner_mlps", 2), [2]),
        "modulate": (layer.get("modulate", True), [True]),
        "layer_norm_epsilon": (config.get("layer_norm_epsilon", 1e-5), [1e-5]),
        "token table rows": (padded_rows(config, where=where), [VOCABULARY, NUM_ROWS]),
    }
    require_settings(known, where=where, model="HyenaDNA")
    return HyenaConfig(
        d_model=sizes["d_model"],
        num_layers=sizes["n_layer"],
        d_inner=sizes["d_inner"],
        l_max=require_size(layer, longest, where=where),
        filter_width=require_size(layer, "filter_order", where=where),
    )


def hyenadna_state(
    tensors: Mapping[str, Tensor], *, where: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Give the tensors of a HyenaDNA our names.

    Returns
    -------
    state : dict of str to tensor
        Parameters. The table has its 12 characters, without the rows of padding.
    features : dict of str to tensor
        What is a formula here: ``features.<layer>.z``, ``t`` and ``deltas``.

    Raises
    ------
    FormatError
        Tensors that are one parameter differ: the frequencies of a filter, or table and head.
    """
    state = renamed(tensors, HYENADNA_RULES, where=where)
    features = {name: state.pop(name) for name in list(state) if name.startswith("features.")}
    for name, tensor in state.items():
        if name.endswith("implicit_filter.freq") and tensor.ndim == 2 and len(tensor) == 1:
            state[name] = tensor[0]
    table = state.get("embedding.table.weight")
    if table is not None and len(table) == NUM_ROWS:
        state["embedding.table.weight"] = table[:VOCABULARY]
    return state, features


def build_hyenadna(
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    where: str,
    filter_shift: float = 0.0,
) -> HyenaEncoder:
    """Build a HyenaDNA from its published configuration and weights, in evaluation mode.

    Windows of up to `l_max` bases are read; the time of the filters stays scaled by `l_max`.

    Parameters
    ----------
    config : mapping
        What config.json holds.
    tensors : mapping of str to tensor
        By their published names.
    where : str
        File or folder, for messages.
    filter_shift : float
        See `HyenaConfig`; no published configuration holds it.

    Raises
    ------
    FormatError
        A configuration of another architecture; missing or unexpected tensors, other shapes;
        position features or decays that are not those of the formula.
    """
    settings = replace(hyenadna_settings(config, where=where), filter_shift=filter_shift)
    require_depth(tensors, settings.num_layers, where=where)
    state, features = hyenadna_state(tensors, where=where)
    encoder = build_strictly(
        lambda: HyenaEncoder(settings, tracks=(), window_bp=1, bin_size=1), state, where=where
    )
    _require_formulas(settings, features, where=where)
    return encoder


def _require_formulas(settings: HyenaConfig, features: Mapping[str, Tensor], *, where: str) -> None:
    """Refuse stored features that the formulas do not give, such as trained ones."""
    d_model, l_max = settings.d_model, settings.l_max or 1
    at_LF = ImplicitFilter(d_model, l_max=l_max, width=1).features(l_max)
    low, high = math.log(_TARGET) / _SLOW, math.log(_TARGET) / _FAST
    formulas = {"z": at_LF, "t": at_LF[:, :1], "deltas": torch.linspace(low, high, d_model)}
    for name, tensor in sorted(features.items()):
        formula = formulas[name.rpartition(".")[2]]
        found = tensor.to(formula.dtype)
        found = found.squeeze(0).squeeze(0) if formula.ndim == 1 else found.squeeze(0)
        if found.shape != formula.shape or not torch.allclose(
            found, formula, rtol=0, atol=_TOLERANCE
        ):
            raise FormatError(
                facts(
                    where,
                    found=f"position features or decays of their own ({name}, shape "
                    f"{tuple(tensor.shape)})",
                    expected="those of the published formula, fixed while training",
                    fix="use a published HyenaDNA and its own config.json",
                )
            )
