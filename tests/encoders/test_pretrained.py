"""Published settings and names: every family on made-up weights, and what is refused.

The writers of `tests.published_names` share nothing with the rules that are tested here.
"""

from __future__ import annotations

import pytest
import torch

from seq2exp.core.errors import ConfigError, FormatError
from seq2exp.encoders.pretrained import build_caduceus, caduceus_settings
from seq2exp.encoders.pretrained_hyena import build_hyenadna, hyenadna_settings
from tests.published_names import (
    CODES,
    L_MAX,
    caduceus,
    config_json,
    hyena,
    hyena_config,
    hyena_port_config,
    hyena_published,
    published,
)

# Caduceus -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("twice", [True, False])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("variant", ["ph", "ps"])
def test_every_family_of_names(variant, fused, twice):
    encoder = caduceus(variant=variant, swap_halves=variant == "ps" and fused)
    for prefix, head in (("caduceus.", True), ("caduceus.", False), ("", False)):
        tensors = published(encoder, fused=fused, prefix=prefix, head=head, twice=twice)
        loaded = build_caduceus(config_json(encoder, fused=fused), tensors, where="x")
        assert loaded.config == encoder.config
        assert not loaded.training
        assert torch.equal(loaded(CODES), encoder(CODES))
    lightning = {f"model.{name}": one for name, one in published(encoder, fused=fused).items()}
    loaded = build_caduceus(config_json(encoder, fused=fused), lightning, where="x")
    assert torch.equal(loaded.token_logits(CODES), encoder.token_logits(CODES))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("strategy", ["add", "ew_multiply"])
def test_strategies_and_untied_projections(strategy, tied):
    encoder = caduceus(bidirectional_strategy=strategy, tie_projections=tied)
    loaded = build_caduceus(config_json(encoder), published(encoder), where="x")
    assert loaded.config == encoder.config
    assert torch.equal(loaded(CODES), encoder(CODES))


def test_the_norm_path_can_be_said():
    encoder = caduceus(variant="ps", swap_halves=True)
    config, tensors = config_json(encoder), published(encoder)
    assert caduceus_settings(config, where="x").swap_halves
    assert not caduceus_settings(config | {"fused_add_norm": False}, where="x").swap_halves
    other = build_caduceus(config, tensors, where="x", swap_halves=False, recompute=True)
    assert not other.config.swap_halves
    assert other.config.recompute
    assert not torch.allclose(other(CODES), encoder(CODES))
    ph = caduceus()
    assert not caduceus_settings(config_json(ph), where="x").swap_halves
    with pytest.raises(ConfigError, match="swap_halves"):
        build_caduceus(config_json(ph), published(ph), where="x", swap_halves=True)


def test_half_precision_weights_are_widened():
    encoder = caduceus()
    tensors = {name: one.bfloat16() for name, one in published(encoder).items()}
    loaded = build_caduceus(config_json(encoder), tensors, where="x")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.table.weight, encoder.table.weight.bfloat16().float())


def refused(config, tensors, build=build_caduceus):
    with pytest.raises(FormatError) as caught:
        build(config, tensors, where="the folder")
    message = str(caught.value)
    assert message.startswith("the folder")
    assert "\n" not in message
    assert len(message) < 700
    return message


@pytest.mark.parametrize("variant", ["ph", "ps"])
def test_one_missing_tensor_is_named_whichever_it_is(variant):
    encoder = caduceus(variant=variant, num_layers=1)
    tensors = published(encoder, head=False, twice=False)
    needed = [name for name in tensors if not name.endswith("complement_map")]
    assert len(needed) == sum(1 for _ in encoder.parameters())
    for name in needed:
        rest = {key: one for key, one in tensors.items() if key != name}
        assert "missing" in refused(config_json(encoder), rest)


def test_unexpected_names_and_other_shapes_are_named():
    encoder = caduceus()
    tensors = published(encoder)
    message = refused(config_json(encoder), tensors | {"classifier.weight": torch.ones(2)})
    assert "unexpected classifier.weight" in message
    assert "1 in all" in message
    name = "caduceus.backbone.layers.1.mixer.mamba_rev.x_proj.weight"
    message = refused(config_json(encoder), tensors | {name: torch.ones(11, 64)})
    assert "trunk.layers.1.mixer.rev.x_proj.weight (11, 64) instead of (10, 64)" in message
    message = refused(config_json(encoder), tensors | {name: torch.full((10, 64), torch.nan)})
    assert "rev.x_proj.weight holds NaN" in message
    # Three kinds at once: one of each is shown.
    several = tensors | {"a": torch.ones(1), "b": torch.ones(1), name: torch.ones(1)}
    del several["caduceus.backbone.norm_f.weight"]
    message = refused(config_json(encoder), several)
    assert all(kind in message for kind in ("missing", "unexpected", "instead of", "4 in all"))


def test_tied_tensors_that_differ_are_refused():
    encoder = caduceus()
    for name in (
        "caduceus.backbone.layers.0.mixer.mamba_rev.in_proj.weight",
        "caduceus.backbone.layers.1.mixer.mamba_rev.out_proj.weight",
        "lm_head.weight",
    ):
        tensors = published(encoder)
        tensors[name] = tensors[name] + 1
        message = refused(config_json(encoder), tensors)
        assert "different values in" in message
        assert name in message


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model_type": "bert"}, "model_type: bert"),
        ({"rms_norm": False}, "rms_norm: False"),
        ({"bidirectional": False}, "bidirectional: False"),
        ({"bidirectional_strategy": "concat"}, "bidirectional_strategy: concat"),
        ({"vocab_size": 4096}, "token table rows: 4096"),
        ({"ssm_cfg": {"bias": True}}, "ssm_cfg.bias: True"),
        ({"ssm_cfg": {"dt_rank": 7}}, "ssm_cfg.dt_rank: 7"),
        ({"ssm_cfg": {"d_state": "16"}}, "d_state: 16"),
        ({"ssm_cfg": [1]}, "ssm_cfg"),
        ({"rcps": "yes"}, "rcps: yes"),
        ({"norm_epsilon": "small"}, "norm_epsilon"),
        ({"complement_map": {"7": 8}}, "complement_map"),
        ({"complement_map": [1]}, "complement_map"),
        ({"d_model": 0}, "d_model: 0"),
        ({"d_model": True}, "d_model: True"),
        ({"d_model": "32" * 1000}, "d_model"),
        ({"n_layer": 3}, "n_layer: 3"),
        ({"n_layer": 10**9}, "n_layer"),
    ],
    ids=str,
)
def test_a_configuration_of_something_else_is_refused(changes, what):
    encoder = caduceus()
    assert what in refused(config_json(encoder) | changes, published(encoder))


@pytest.mark.parametrize("name", ["d_model", "n_layer", "vocab_size"])
def test_sizes_are_never_guessed(name):
    encoder = caduceus()
    config = config_json(encoder)
    del config[name]
    assert f"no {name}" in refused(config, published(encoder))


@pytest.mark.parametrize("key", ["d_state", "d_conv", "expand"])
def test_f35_sizes_that_no_machine_holds_are_refused_before_allocation(key):
    encoder = caduceus()
    config = config_json(encoder)
    config["ssm_cfg"] = config["ssm_cfg"] | {key: 10**9}
    refused(config, published(encoder))
    refused(config_json(encoder) | {"d_model": 10**9}, published(encoder))
    refused(config_json(encoder) | {"d_model": 10**18}, published(encoder))


def test_a_complement_map_of_another_alphabet_in_the_weights_is_refused():
    encoder = caduceus(variant="ps", swap_halves=True)
    tensors = published(encoder)
    tensors["lm_head.complement_map"] = torch.arange(16)
    assert "lm_head.complement_map" in refused(config_json(encoder), tensors)


def test_weights_of_the_other_variant_are_refused():
    """The parameters of both have the same shapes; only names tell them apart."""
    ph, ps = caduceus(), caduceus(variant="ps", swap_halves=True)
    assert "rcps: false, expected rcps: true" in refused(config_json(ph), published(ps))
    assert "rcps: true, expected rcps: false" in refused(config_json(ps), published(ph))


# HyenaDNA -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [hyena_config(), hyena_port_config()], ids=["release", "port"])
@pytest.mark.parametrize("layer", ["", ".layer"])
@pytest.mark.parametrize("prefix", ["model.", "hyena.", ""])
def test_names_of_hyenadna(config, layer, prefix):
    encoder = hyena()
    tensors = hyena_published(encoder, prefix=prefix, layer=layer)
    loaded = build_hyenadna(config, tensors, where="x")
    assert loaded.state_dict().keys() == encoder.state_dict().keys()
    assert torch.equal(loaded(CODES), encoder(CODES))
    assert not loaded.training


def test_what_safetensors_leave_out_is_not_missed():
    """They keep one name of shared tensors; formulas need not be stored."""
    encoder = hyena()
    left_out = ("3.freq", "5.freq", "lm_head.weight", "pos_emb.z", "pos_emb.t", "deltas")
    tensors = {
        name: one for name, one in hyena_published(encoder).items() if not name.endswith(left_out)
    }
    loaded = build_hyenadna(hyena_port_config(), tensors, where="x")
    assert torch.equal(loaded(CODES), encoder(CODES))


def test_the_time_of_the_filter_is_scaled_by_l_max():
    encoder = hyena()
    tensors = hyena_published(encoder)
    loaded = build_hyenadna(hyena_config(), tensors, where="x")
    assert loaded.trunk.layers[0].mixer.l_max == L_MAX
    kept = {name: one for name, one in tensors.items() if "pos_emb" not in name}
    longer = hyena_config()
    longer["layer"] = longer["layer"] | {"l_max": 68}
    stretched = build_hyenadna(longer, kept, where="x")
    assert not torch.allclose(stretched(CODES), encoder(CODES))
    assert "features.0.t" in refused(longer, tensors, build_hyenadna)


@pytest.mark.parametrize("name", ["pos_emb.z", "pos_emb.t", "modulation.deltas"])
def test_trained_features_are_refused(name):
    tensors = hyena_published(hyena())
    key = f"model.backbone.layers.1.mixer.filter_fn.{name}"
    tensors[key] = tensors[key] + 1e-3
    message = refused(hyena_config(), tensors, build_hyenadna)
    assert "features or decays of their own" in message
    assert name.rpartition(".")[2] in message


def test_one_missing_tensor_of_hyenadna_is_named():
    tensors = hyena_published(hyena())
    formulas = ("lm_head.weight", "freq", "pos_emb.z", "pos_emb.t", "deltas")
    for name in tensors:
        if name.endswith(formulas):
            continue
        rest = {key: one for key, one in tensors.items() if key != name}
        if name.endswith("word_embeddings.weight"):
            del rest["model.lm_head.weight"]
        assert "missing" in refused(hyena_config(), rest, build_hyenadna)
    rest = {key: one for key, one in tensors.items() if not key.endswith("freq")}
    assert "implicit_filter.freq" in refused(hyena_config(), rest, build_hyenadna)
    tensors["model.backbone.layers.0.mixer.filter_fn.implicit_filter.3.freq"] += 1
    assert "different values" in refused(hyena_config(), tensors, build_hyenadna)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model_type": "caduceus"}, "model_type: caduceus"),
        ({"attn_layer_idx": [1]}, "attn_layer_idx"),
        ({"layer": "hyena"}, "layer"),
        ({"layer": {"emb_dim": 3}}, "emb_dim: 3"),
        ({"layer": {"emb_dim": 5, "order": 3}}, "order: 3"),
        ({"layer": {"emb_dim": 5, "filter_order": 6}}, "no l_max"),
        ({"vocab_size": 5}, "token table rows: 8"),
        ({"n_layer": 3}, "n_layer: 3"),
        ({"d_inner": None}, "d_inner"),
    ],
    ids=str,
)
def test_a_configuration_of_another_hyena_is_refused(changes, what):
    config = hyena_config() | changes
    assert what in refused(config, hyena_published(hyena()), build_hyenadna)


def test_settings_of_both_layouts_agree():
    release = hyenadna_settings(hyena_config(), where="x")
    assert release == hyenadna_settings(hyena_port_config(), where="x")
    assert (release.d_model, release.num_layers, release.d_inner) == (8, 2, 16)
    assert (release.l_max, release.filter_width) == (L_MAX, 6)
