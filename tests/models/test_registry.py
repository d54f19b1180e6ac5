"""Models by name, and their configuration as plain values and back."""

from __future__ import annotations

import pytest
import torch
import yaml

from seq2exp.core.errors import ConfigError
from seq2exp.models import Seq2Exp, Seq2ExpConfig, build_model, config_dict, model_names

PARAMS = {
    "tracks": ["DNase"],
    "window_bp": 64,
    "bin_size": 16,
    "d_model": 8,
    "stem": {"channels": 4, "width": 5},
    "track_betas": {"DNase": 0.3},
}


def test_configuration_survives_yaml():
    model = build_model("seq2exp", PARAMS)
    assert isinstance(model, Seq2Exp)
    plain = yaml.safe_load(yaml.safe_dump(config_dict(model)))
    assert plain["name"] == "seq2exp"
    again = build_model(plain["name"], plain["params"])
    assert again.config == model.config
    again.load_state_dict(model.state_dict())


def test_takes_a_configuration_object():
    config = Seq2ExpConfig(
        window_bp=64, bin_size=16, stem=build_model("seq2exp", PARAMS).config.stem
    )
    assert build_model("seq2exp", config).config is config


def test_unknown_names_and_keys_are_refused_with_the_nearest():
    assert "seq2exp" in model_names()
    with pytest.raises(ConfigError, match="'seq2exp'"):
        build_model("seq2epx", {})
    with pytest.raises(ConfigError, match="'bin_size'"):
        build_model("seq2exp", PARAMS | {"bin_sise": 16})
    with pytest.raises(ConfigError, match="'width'"):
        build_model("seq2exp", PARAMS | {"stem": {"widht": 5}})
    with pytest.raises(ConfigError):
        build_model("seq2exp", PARAMS | {"bin_size": "many"})
    with pytest.raises(ConfigError):
        build_model("seq2exp", PARAMS | {"gate": "add"})


def test_cross_field_message_survives_the_binder():
    with pytest.raises(ConfigError, match="window_bp"):
        build_model("seq2exp", PARAMS | {"window_bp": 60})


def test_foreign_module_has_no_configuration():
    with pytest.raises(ConfigError, match="not registered"):
        config_dict(torch.nn.Linear(1, 1))
