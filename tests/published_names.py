"""Made-up weights under the published names, spelled out, and the settings beside them."""

from __future__ import annotations

import math

import torch

from seq2exp.encoders.caduceus import Caduceus, CaduceusConfig
from seq2exp.encoders.hyena import HyenaConfig, HyenaEncoder

COMPLEMENT = [0, 1, 2, 3, 4, 5, 6, 10, 9, 8, 7, 11, 12, 13, 14, 15]
CODES = torch.randint(0, 5, (2, 21), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def moved(encoder, seed=0):
    """Values that no fresh model has."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return encoder.eval()


# Caduceus -----------------------------------------------------------------------------------------


def caduceus(**changes):
    settings = {"d_model": 32, "num_layers": 2, "d_state": 4, "embedding": "table"}
    config = CaduceusConfig(**(settings | changes))
    return moved(Caduceus(config, tracks=(), window_bp=21, bin_size=1))


def config_json(encoder, *, fused=True, **changes):
    """What save_pretrained writes: padded rows, string keys in the complement map."""
    config = encoder.config
    content = {
        "architectures": ["CaduceusForMaskedLM"],
        "model_type": "caduceus",
        "d_model": config.d_model,
        "n_layer": config.num_layers,
        "vocab_size": 16,
        "pad_vocab_size_multiple": 8,
        "ssm_cfg": {"d_state": config.d_state, "d_conv": 4, "expand": 2, "dt_rank": "auto",
                    "dt_min": 0.001, "dt_max": 0.1, "dt_init": "random", "dt_scale": 1.0,
                    "dt_init_floor": 0.0001, "conv_bias": True, "bias": False,
                    "use_fast_path": True},
        "rms_norm": True,
        "residual_in_fp32": False,
        "fused_add_norm": fused,
        "norm_epsilon": 1e-5,
        "bidirectional": True,
        "bidirectional_strategy": config.bidirectional_strategy,
        "bidirectional_weight_tie": config.tie_projections,
        "rcps": config.variant == "ps",
        "complement_map": {str(i): one for i, one in enumerate(COMPLEMENT)},
        "transformers_version": "4.38.1",
    }  # fmt: skip
    return content | changes


def mamba_names(mixer, prefix, *, twice=True):
    """Tied projections stand under both directions, or once, as safetensors store them."""
    found = {}
    for theirs, direction in (("mamba_fwd", mixer.fwd), ("mamba_rev", mixer.rev)):
        head = f"{prefix}.{theirs}."
        first = theirs == "mamba_fwd"
        in_proj = mixer.in_proj if first else getattr(mixer, "in_proj_rev", None) or mixer.in_proj
        out_proj = (
            mixer.out_proj if first else getattr(mixer, "out_proj_rev", None) or mixer.out_proj
        )
        if first or twice or in_proj is not mixer.in_proj:
            found[head + "in_proj.weight"] = in_proj.weight
            found[head + "out_proj.weight"] = out_proj.weight
        found |= {
            head + "conv1d.weight": direction.conv_weight[:, None, :],
            head + "conv1d.bias": direction.conv_bias,
            head + "x_proj.weight": direction.x_proj.weight,
            head + "dt_proj.weight": direction.dt_proj.weight,
            head + "dt_proj.bias": direction.dt_proj.bias,
            head + "A_log": direction.A_log,
            head + "D": direction.D,
        }
    return found


def published(encoder, *, fused=True, prefix="caduceus.", head=True, twice=True):
    equivariant = encoder.config.variant == "ps"
    wrapped = "submodule." if equivariant else ""
    norm_wrapped = "submodule." if equivariant and not fused else ""
    top = f"{prefix}backbone."
    table, tensors = encoder.table.weight, {}
    if equivariant:
        tensors[f"{top}embeddings.word_embeddings.embedding.weight"] = table
        tensors[f"{top}embeddings.word_embeddings.complement_map"] = torch.tensor(COMPLEMENT)
    else:
        tensors[f"{top}embeddings.word_embeddings.weight"] = table
    for i, layer in enumerate(encoder.trunk.layers):
        mixer = f"{top}layers.{i}.mixer.{wrapped}".removesuffix(".")
        tensors |= mamba_names(layer.mixer, mixer, twice=twice)
        tensors[f"{top}layers.{i}.norm.{norm_wrapped}weight"] = layer.norm.weight
    tensors[f"{top}norm_f.{norm_wrapped}weight"] = encoder.trunk.norm_f.weight
    if head and equivariant:
        tensors["lm_head.lm_head.weight"] = table
        tensors["lm_head.complement_map"] = torch.tensor(COMPLEMENT)
    elif head:
        tensors["lm_head.weight"] = table
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


# HyenaDNA -----------------------------------------------------------------------------------------

L_MAX = 34


def hyena():
    config = HyenaConfig(d_model=8, num_layers=2, d_inner=16, l_max=L_MAX, filter_width=6)
    return moved(HyenaEncoder(config, tracks=(), window_bp=21, bin_size=1))


def hyena_config(**changes):
    """The first release's layout."""
    layer = {"_name_": "hyena", "emb_dim": 5, "filter_order": 6, "local_order": 3, "l_max": L_MAX,
             "modulate": True, "w": 10, "lr": 6e-4, "wd": 0.0, "lr_pos_emb": 0.0}  # fmt: skip
    content = {
        "d_model": 8,
        "n_layer": 2,
        "d_inner": 16,
        "vocab_size": 12,
        "resid_dropout": 0.0,
        "embed_dropout": 0.1,
        "residual_in_fp32": True,
        "pad_vocab_size_multiple": 8,
        "layer": layer,
        "checkpoint_mixer": False,
    }
    return content | changes


def hyena_port_config(**changes):
    """The port's layout."""
    content = {
        "model_type": "hyenadna",
        "d_model": 8,
        "n_layer": 2,
        "d_inner": 16,
        "vocab_size": 12,
        "pad_vocab_size_multiple": 8,
        "max_seq_len": L_MAX,
        "emb_dim": 5,
        "filter_order": 6,
        "short_filter_order": 3,
        "hyena_order": 2,
        "num_inner_mlps": 2,
        "activation_freq": 10,
        "train_freq": True,
        "use_bias": True,
        "layer_norm_epsilon": 1e-5,
    }
    return content | changes


def hyena_published(encoder, *, prefix="model.", layer=""):
    """With `layer` = ".layer" the names of models that were trained with checkpointing."""
    top, tensors = f"{prefix}backbone.", {}
    padded = torch.cat([encoder.embedding.table.weight, torch.randn(4, 8)])
    tensors[f"{top}embeddings.word_embeddings.weight"] = padded
    tensors[f"{prefix.replace('hyena.', '')}lm_head.weight"] = padded
    time = torch.linspace(0, 1, L_MAX)
    angle = 2 * math.pi * torch.arange(L_MAX) / L_MAX * torch.tensor([[1e-4], [1.0]])
    z = torch.stack([time, *angle.cos(), *-angle.sin()], dim=-1)[None]
    for i, block in enumerate(encoder.trunk.layers):
        ours, inner = block.mixer, block.mixer.implicit_filter
        mixer = f"{top}layers.{i}.mixer{layer}."
        mlp, filters = f"{top}layers.{i}.mlp{layer}.", f"{mixer}filter_fn."
        for name in ("in_proj", "out_proj"):
            tensors[f"{mixer}{name}.weight"] = getattr(ours, name).weight
            tensors[f"{mixer}{name}.bias"] = getattr(ours, name).bias
        tensors[f"{mixer}short_filter.weight"] = ours.short_weight[:, None, :]
        tensors[f"{mixer}short_filter.bias"] = ours.short_bias
        tensors[f"{filters}bias"] = inner.bias
        for at in (1, 3, 5):
            tensors[f"{filters}implicit_filter.{at}.freq"] = inner.freq[None]
        for at, linear in zip((0, 2, 4, 6), inner.layers, strict=True):
            tensors[f"{filters}implicit_filter.{at}.weight"] = linear.weight
            if linear.bias is not None:
                tensors[f"{filters}implicit_filter.{at}.bias"] = linear.bias
        tensors[f"{filters}pos_emb.z"] = z
        tensors[f"{filters}pos_emb.t"] = time[None, :, None]
        low, high = math.log(0.01) / 1.5, math.log(0.01) / 0.3
        tensors[f"{filters}modulation.deltas"] = torch.linspace(low, high, 8)[None, None]
        for name in ("norm1", "norm2"):
            tensors[f"{top}layers.{i}.{name}.weight"] = getattr(block, name).weight
            tensors[f"{top}layers.{i}.{name}.bias"] = getattr(block, name).bias
        for name in ("fc1", "fc2"):
            tensors[f"{mlp}{name}.weight"] = getattr(block, name).weight
            tensors[f"{mlp}{name}.bias"] = getattr(block, name).bias
    tensors[f"{top}ln_f.weight"] = encoder.trunk.norm_f.weight
    tensors[f"{top}ln_f.bias"] = encoder.trunk.norm_f.bias
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
