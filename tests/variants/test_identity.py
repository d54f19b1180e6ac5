"""What tells runs of the command apart: weights and settings of every member, ways of scoring."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from seq2exp.variants.command import model_sha256, score_hash
from seq2exp.variants.config import ScoreConfig


@pytest.mark.parametrize("changed", ["config.yaml", "model.safetensors"])
@pytest.mark.parametrize("member", ["seed_1", "seed_2"])
def test_weights_and_settings_of_every_member_count(tmp_path, changed, member):
    (tmp_path / "config.yaml").write_text("seed: 1\nfit: {seeds: 2}\n")
    for name in ("seed_1", "seed_2"):
        folder = tmp_path / "members" / name / "model"
        folder.mkdir(parents=True)
        for file in ("config.yaml", "model.safetensors"):
            (folder / file).write_text(f"{name} {file}")
    run = SimpleNamespace(folder=tmp_path)
    before = model_sha256(run)
    assert before == model_sha256(run)
    (tmp_path / "members" / member / "model" / changed).write_text("something else")
    assert model_sha256(run) != before


def test_backgrounds_are_told_apart_by_how_scores_are_made_and_by_nothing_else():
    plain = score_hash("a", ScoreConfig())
    assert score_hash("b", ScoreConfig()) != plain
    for change in ({"strands": "both"}, {"shifts": (1,)}, {"mask_bp": 64}, {"ensemble": "score"},
                   {"method": "gradient"}, {"context": "carriers"}):  # fmt: skip
        assert score_hash("a", ScoreConfig(**change)) != plain, change
    for same in ({"batch_size": 1}, {"genes": ("A",)}, {"scorers": ("sed",)}, {"max_indel": 5}):
        assert score_hash("a", ScoreConfig(**same)) == plain, same
