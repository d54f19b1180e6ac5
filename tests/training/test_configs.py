"""Every training configuration that is shipped can be read, and its model built."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest
import torch

from seq2exp.core.config import load_config
from seq2exp.models.masking import MaskMode
from seq2exp.models.registry import build_model, config_dict
from seq2exp.training.config import TrainConfig
from seq2exp.training.trainer import _ABOUT_TRACKS

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "configs" / "train").glob("*.yaml"))


MASKS = sorted((SHIPPED[0].parent / "masks").glob("*.yaml"))


TABLE = SHIPPED[0].parent / "table"
BASES = ("simulated", "yeast")


def load_model(path, *overlays, **decided):
    config = load_config(TrainConfig, [path, *overlays])
    settings = config.model
    if not decided["tracks"]:
        # As the sequence_only control does.
        settings = {key: value for key, value in settings.items() if key not in _ABOUT_TRACKS}
    params = {key: value for key, value in settings.items() if key != "name"}
    sizes = {"window_bp": config.data.window_bp, "bin_size": config.data.bin_size}
    return config, build_model(config.model["name"], params | sizes | decided)


def test_there_are_some():
    assert {"debug.yaml", "yeast.yaml"} <= {path.name for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
@pytest.mark.parametrize("tracks", [["ATAC"], []])
def test_shipped_configuration_makes_a_model_with_and_without_tracks(path, tracks):
    config, model = load_model(path, tracks=tracks, num_features=2)
    codes = torch.zeros(1, config.data.window_bp, dtype=torch.uint8)
    signal = torch.zeros(1, model.config.num_bins, len(tracks))
    out = model.eval()(codes, signal, torch.zeros(1, 2))
    assert torch.isfinite(out.expression_BK).all()


@pytest.mark.parametrize("path", MASKS, ids=lambda path: path.stem)
def test_a_mask_overlay_changes_the_mask_of_the_demo_and_little_else(path):
    demo = next(path for path in SHIPPED if path.stem == "demo")
    tracks = ["DNase", "contact"]
    plain, soft = load_model(demo, tracks=tracks)
    frozen = config_dict(soft)["params"]
    decided = {"mask_model": frozen} if path.stem == "retrain" else {}
    config, model = load_model(demo, path, tracks=tracks, **decided)
    assert model.config.mask == path.stem
    assert config.optim == plain.optim
    assert config.data.window_bp == plain.data.window_bp
    assert bool(config.mask_from) == (path.stem == "retrain")
    codes = torch.zeros(2, config.data.window_bp, dtype=torch.uint8)
    signal = torch.rand(2, model.config.num_bins, 2)
    elements = torch.tensor([[[100, 600]], [[-1, -1]]], dtype=torch.int32)
    out = model.eval()(codes, signal, elements_BR2=elements)
    assert torch.isfinite(out.expression_BK).all()
    assert out.mask_BN[:, 56:72].eq(1).all()


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("path", sorted(TABLE.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_models_of_a_table_are_about_equally_large_and_share_everything_else(base, path):
    if path.stem in BASES:
        return
    tracks = ["DNase", "contact"]
    shared = load_config(TrainConfig, [TABLE / f"{base}.yaml"])
    _, soft = load_model(TABLE / f"{base}.yaml", TABLE / "soft.yaml", tracks=tracks)
    frozen = config_dict(soft)["params"]
    decided = {"mask_model": frozen} if path.stem == "retrain" else {}
    config, model = load_model(
        TABLE / f"{base}.yaml", path, tracks=tracks, num_features=2, **decided
    )
    assert (config.data, config.optim, config.fit) == (shared.data, shared.optim, shared.fit)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert 60_000 < trained < 80_000
    codes = torch.randint(0, 4, (2, config.data.window_bp), dtype=torch.uint8)
    signal = torch.rand(2, model.config.num_bins, 2)
    elements = torch.tensor([[[100, 600]], [[-1, -1]]], dtype=torch.int32)
    out = model.eval()(codes, signal, torch.zeros(2, 2), elements_BR2=elements)
    assert torch.isfinite(out.expression_BK).all()


def test_there_is_an_overlay_for_every_mode():
    assert {path.stem for path in MASKS} == set(typing.get_args(MaskMode))


def test_the_map_overlay_of_yeast_learns_the_whole_window():
    """All but the bins at the TSS: half of the window is forced in the configuration below it."""
    yeast = next(path for path in SHIPPED if path.stem == "yeast")
    overlay = yeast.parent / "maps" / "yeast.yaml"
    config, model = load_model(yeast, overlay, tracks=["ATAC"])
    plain, forced = load_model(yeast, tracks=["ATAC"])
    assert (config.data, config.optim) == (plain.data, plain.optim)
    bins = config.data.bin_size
    assert model.config.promoter_bp == 2 * bins
    assert forced.config.promoter_bp * 2 == config.data.window_bp


def test_yeast_reads_codons():
    """Windows are never shifted or mirrored, and the stem starts its threes at the TSS."""
    path = next(path for path in SHIPPED if path.stem == "yeast")
    config, model = load_model(path, tracks=["ATAC"])
    assert config.data.jitter_bp == 0
    assert not model.config.rc_average
    assert config.data.window_bp // 2 % 3 == model.stem.first.offset == 0
    assert model.stem.first.stride == 3
    edges = model.config.bands
    assert edges[0] == -config.data.window_bp // 2
    assert edges[-1] == config.data.window_bp // 2
