from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from seq2exp.core.config import dump_yaml, to_dict
from seq2exp.core.errors import ConfigError
from seq2exp.spatial.compare.config import (
    CompareConfig,
    contenders,
    encoder_label,
    plain_protocol,
    protocol_of,
    seeded,
)
from seq2exp.spatial.config import EncoderConfig, SpatialConfig
from seq2exp.spatial.panels import PanelConfig
from seq2exp.spatial.systems.registry import SYSTEMS

OWN = {"system", "fit", "trained_encoder"}
SHIPPED = Path(__file__).parents[3] / "configs" / "spatial"


def test_a_comparison_decides_everything_but_the_system_and_how_it_is_trained():
    """A field added to the runs' configuration must be one of the comparison's too."""
    run, comparison = (
        {part.name: part for part in dataclasses.fields(cls)}
        for cls in (SpatialConfig, CompareConfig)
    )
    assert set(run) - OWN <= set(comparison)
    assert set(protocol_of(CompareConfig())) == set(run) - OWN
    default = to_dict(SpatialConfig())
    assert plain_protocol(CompareConfig()) == {k: default[k] for k in protocol_of(CompareConfig())}


def test_without_a_list_every_system_takes_part_with_its_shipped_settings():
    found = {each.name: each.config for each in contenders(CompareConfig(), shipped=SHIPPED)}
    assert list(found) == list(SYSTEMS)
    assert found["nsl"].fit.max_epochs == 40
    assert found["bleep"].system["retrieval"] == {"k": 50}
    assert all((SHIPPED / f"{name}.yaml").is_file() for name in SYSTEMS)


def test_the_reference_is_always_there_and_order_is_that_of_the_user():
    names = [
        [each.name for each in contenders(CompareConfig(), shipped=SHIPPED, chosen=chosen)]
        for chosen in (["nsl", "stnet"], ["nsl", "ridge"])
    ]
    assert names == [["ridge", "nsl", "stnet"], ["nsl", "ridge"]]


def test_settings_come_from_file_choice_and_protocol(tmp_path):
    own = {"system": {"name": "bleep", "width": 16}, "fit": {"lr": 0.5, "batch_size": 8}}
    dump_yaml(own, tmp_path / "mine.yaml")
    config = CompareConfig(
        panel=PanelConfig("heg", 12),
        systems={
            "mine": {"system": {"width": 32}, "fit": {"lr": 0.1}},
            "pca": {"system": {"name": "ridge", "num_components": 4}},
        },
    )
    found = contenders(config, shipped=SHIPPED, files={"mine": tmp_path / "mine.yaml"})
    by_name = {each.name: each.config for each in found}
    assert list(by_name) == ["ridge", "mine", "pca"]
    assert by_name["mine"].system == {"name": "bleep", "width": 32}
    assert (by_name["mine"].fit.lr, by_name["mine"].fit.batch_size) == (0.1, 8)
    assert by_name["pca"].system == {"name": "ridge", "num_components": 4}
    assert all(each.config.panel == config.panel for each in found)


def test_the_configuration_of_a_run_may_be_given_where_its_protocol_is_the_same(tmp_path):
    """RUN/config.yaml states everything; what it states must be what is compared."""
    run = SpatialConfig(panel=PanelConfig("heg", 12), system={"name": "stnet"})
    dump_yaml(run, tmp_path / "config.yaml")
    files = {"again": tmp_path / "config.yaml"}
    same = CompareConfig(panel=PanelConfig("heg", 12))
    assert contenders(same, shipped=SHIPPED, chosen=["again"], files=files)[1].config == run
    with pytest.raises(ConfigError, match=r"config.yaml: found panel.*take panel out"):
        contenders(CompareConfig(), shipped=SHIPPED, files=files)


def test_a_system_may_train_its_encoder_or_read_pixels_and_nothing_else(tmp_path):
    config = CompareConfig(encoder=EncoderConfig("tinycnn"))
    found = {each.name: each.config for each in contenders(config, shipped=SHIPPED)}
    assert found["nsl"].encoder == EncoderConfig("pixel_densities")
    assert found["triplex"].trained_encoder == EncoderConfig("tinycnn", px=48)
    assert {each.encoder for name, each in found.items() if name != "nsl"} == {config.encoder}
    dump_yaml({"encoder": {"name": "resnet18"}, "system": {"name": "stnet"}}, tmp_path / "x.yaml")
    with pytest.raises(ConfigError, match="take encoder out"):
        contenders(config, shipped=SHIPPED, files={"x": tmp_path / "x.yaml"})


def test_encoders_have_short_names():
    assert encoder_label(EncoderConfig("vit_small", weights="a/uni.pt", px=224)) == (
        "vit_small-uni-224px"
    )
    assert encoder_label(EncoderConfig(center="section")) == "colour_stats-centred"
    assert encoder_label(EncoderConfig(embeddings="x/gigapath/{section}.h5")) == "gigapath"


@pytest.mark.parametrize(
    ("systems", "message"),
    [
        ({"stnett": {}}, "did you mean 'stnet'"),
        ({"stnet": {"system": {"dropuot": 0.1}}}, "did you mean 'dropout'"),
        ({"stnet": {"fit": {"epochs": 3}}}, "did you mean 'max_epochs'"),
        ({"stnet": {"panel": {"num_genes": 5}}}, "unknown key 'panel'"),
        ({"a/b": {"system": {"name": "ridge"}}}, "letters, digits"),
        ({"depth": {"system": {"name": "ridge"}}}, "that of a control"),
    ],
)
def test_what_is_not_understood_is_named(systems, message):
    with pytest.raises(ConfigError, match=message):
        contenders(CompareConfig(systems=systems), shipped=SHIPPED)
    with pytest.raises(ConfigError, match="num_seeds 0"):
        CompareConfig(num_seeds=0)


def test_another_seed_changes_seeds_and_nothing_else():
    found = {each.name: each for each in contenders(CompareConfig(), shipped=SHIPPED)}
    assert not found["ridge"].has_seed
    assert found["stnet"].has_seed
    for each in found.values():
        assert seeded(each, 0) == each.config
    other = seeded(found["nsl"], 2)
    assert (other.fit.seed, other.system["seed"]) == (2 * other.fit.members, 2)
    nsl = found["nsl"].config
    assert dataclasses.replace(other, fit=nsl.fit, system=nsl.system) == nsl
    assert "seed" not in seeded(found["stnet"], 2).system


def test_trainings_share_no_member():
    """Member m of a training has the seed of its fit plus m."""
    fit = {"members": 3, "seed": 5}
    config = CompareConfig(systems={"stnet": {"fit": fit}})
    each = contenders(config, shipped=SHIPPED)[1]
    starts = [seeded(each, seed).fit.seed for seed in range(4)]
    seeds = [start + member for start in starts for member in range(3)]
    assert sorted(seeds) == list(range(5, 17))
