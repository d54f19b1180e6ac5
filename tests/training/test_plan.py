"""Planning a run: counted memory, what is carried over to long windows, refusals."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from seq2exp.cli.main import main
from seq2exp.core.config import dump_yaml, to_dict
from seq2exp.core.errors import ConfigError
from seq2exp.core.files import read_json
from seq2exp.training import memory, plan, trainer
from seq2exp.training.checkpoint import load_model
from seq2exp.training.memory import available_bytes, measure
from seq2exp.training.plan import make_plan, require_room, with_recompute
from seq2exp.training.trainer import dry_run, train
from tests.runs import tiny_config

CPU = torch.device("cpu")
# Peak of one training step in a process of its own, above what it held before.
STEP = """
import sys, torch
from pathlib import Path
from seq2exp.core.config import bind, load_yaml
from seq2exp.dataset.store import Dataset
from seq2exp.dataset.samples import GeneSamples, collate
from seq2exp.models.registry import build_model
from seq2exp.training.config import TrainConfig
from seq2exp.training.module import batch_loss
from seq2exp.training.trainer import model_params

def resident(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))

config = bind(TrainConfig, load_yaml(Path(sys.argv[1])), where="test")
samples = GeneSamples(Dataset(Path(sys.argv[2])), config.data, [0])
params = model_params(config, samples)
model = build_model(params.pop("name"), params).train()
batch = collate([samples[0]])
small = build_model("seq2exp", {**params, "window_bp": 512, "recompute": False}).train()
short = GeneSamples(samples.dataset, type(config.data)(window_bp=512, bin_size=1), [0])
batch_loss(small, collate([short[0]]), config.optim).total.backward()
with open("/proc/self/clear_refs", "w") as handle:
    handle.write("5")  # forget the peak so far
before = resident("VmRSS")
batch_loss(model, batch, config.optim).total.backward()
print(resident("VmHWM") - before)
"""


def base_config(**changes):
    """Bases as bins, so that a window has many of them."""
    data = {"window_bp": 2048, "bin_size": 1, "jitter_bp": 0} | changes.pop("data", {})
    fit = {"batch_size": 2, "threads": 1} | changes.pop("fit", {})
    return tiny_config(data=data, fit=fit, **changes)


def test_tensors_that_live_at_the_same_time_are_counted():
    def work():
        first = torch.zeros(1000)  # 4,000 bytes
        second = first + 1  # 8,000 together
        view = second[:10]  # a view costs nothing
        del first
        third = torch.ones(500, dtype=torch.float64)  # 4,000 beside the second
        del second, view, third
        torch.zeros(100)

    assert measure(work, CPU).peak_bytes == 8000


def test_what_autograd_keeps_is_counted_until_the_backward_frees_it():
    weight = torch.ones(1000, requires_grad=True)

    def work():
        kept = [(weight * i).exp() for i in range(5)]
        loss = sum(k.sum() for k in kept)
        del kept
        loss.backward()
        weight.grad = None

    five = measure(work, CPU).peak_bytes
    assert 5 * 4000 <= five <= 8 * 4000


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_the_plan_is_within_a_fifth_of_the_measured_peak(toy, tmp_path):
    model = {"d_model": 32, "generator_layers": 2}
    config = base_config(data={"window_bp": 4096}, model=model, fit={"batch_size": 1})
    # The longest window that is run is a quarter of the one that is planned.
    found = dry_run(config, toy)
    assert found.measured_bins == 1024
    dump_yaml(to_dict(config), tmp_path / "config.yaml")
    done = subprocess.run(
        [sys.executable, "-c", STEP, str(tmp_path / "config.yaml"), str(toy)],
        check=True,
        capture_output=True,
        text=True,
    )
    weights = 4 * found.parameters
    planned = found.window_bytes + found.fixed_bytes - 3 * weights
    assert planned == pytest.approx(int(done.stdout), rel=0.2)


def test_lengths_follow_a_line_or_a_parabola():
    lengths = [512, 1024, 2048]
    line = [7_000 + 35 * n for n in lengths]
    assert plan._extrapolate(lengths, line, 200_000) == 7_000 + 35 * 200_000
    parabola = [7_000 + 35 * n + n * n // 16 for n in lengths]
    assert plan._extrapolate(lengths, parabola, 8192) == 7_000 + 35 * 8192 + 8192**2 // 16
    # A step of work space on the way is no parabola.
    uneven = [line[0], line[1], line[2] + 2_000]
    assert plan._extrapolate(lengths, uneven, 200_000) == pytest.approx(7_000_000, rel=0.07)


def test_a_short_window_is_measured_and_a_long_one_extrapolated(toy):
    short = dry_run(tiny_config(), toy)
    assert short.measured_bins == short.num_bins == 16
    assert "measured" in short.text
    long = dry_run(base_config(), toy)
    assert (long.measured_bins, long.num_bins) == (1024, 2048)
    assert "extrapolated from windows of up to 1,024 bins" in long.text
    assert long.step_seconds > 0


def test_networks_without_blocks_are_planned_too(toy):
    found = dry_run(base_config(model={"generator_layers": 0, "predictor_layers": 0}), toy)
    assert found.step_seconds > 0


def test_a_window_too_large_is_refused_with_the_numbers_before_anything_is_written(
    toy, tmp_path, monkeypatch
):
    monkeypatch.setattr(plan, "_SMALL_BATCH_BP", 0)
    monkeypatch.setattr(plan, "available_bytes", lambda device: 2_000_000)
    config = base_config(model={"recompute": False})
    with pytest.raises(ConfigError, match=r"windows of 2,048 bases, 2 per step: found a need of"):
        train(config, toy, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_largest_batch_fits_and_one_more_does_not(toy, monkeypatch):
    found = dry_run(tiny_config(), toy)
    room = 10 * found.total_bytes
    for batch, fits in ((0, True), (1, False)):
        limited = dataclasses.replace(found, available_bytes=room)
        assert limited.largest_batch is not None
        tried = dataclasses.replace(limited, batch_size=limited.largest_batch + batch)
        assert tried.fits is fits
    unknown = dataclasses.replace(found, available_bytes=None)
    assert unknown.fits
    assert unknown.largest_batch is None
    assert "unknown" in unknown.text
    with pytest.raises(ConfigError, match=r"set fit\.batch_size to at most"):
        require_room(dataclasses.replace(limited, batch_size=limited.largest_batch + 1))


def test_blocks_run_again_only_where_that_is_needed_and_not_decided(toy, monkeypatch):
    config = base_config(model={"generator_layers": 2, "predictor_layers": 2})
    free = dry_run(config, toy)
    assert not free.recompute
    monkeypatch.setattr(plan, "available_bytes", lambda device: free.total_bytes - 1)
    tight = dry_run(config, toy)
    assert tight.recompute
    assert tight.window_bytes < 0.8 * free.window_bytes
    decided = base_config(model={"generator_layers": 3, "predictor_layers": 3, "recompute": False})
    assert not dry_run(decided, toy).recompute
    inner = {"name": "baseline", "encoder": "conv", "encoder_params": {"num_layers": 2}}
    assert with_recompute(inner) == {
        **inner, "encoder_params": {"num_layers": 2, "recompute": True},
    }  # fmt: skip


def test_planning_changes_no_weight(toy, tmp_path, monkeypatch):
    config = tiny_config(fit={"max_epochs": 1})
    train(config, toy, tmp_path / "plain")
    monkeypatch.setattr(plan, "_SMALL_BATCH_BP", 0)
    train(config, toy, tmp_path / "planned")
    # Nor does running the blocks again.
    found = make_plan(config, *_params(config, toy))
    monkeypatch.setattr(plan, "available_bytes", lambda device: found.total_bytes - 1)
    monkeypatch.setattr(trainer, "require_room", lambda plan: None)
    train(config, toy, tmp_path / "again")
    states = [
        load_model(tmp_path / name / "model")[0].state_dict()
        for name in ("plain", "planned", "again")
    ]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])
        assert torch.equal(value, states[2][name])
    assert load_model(tmp_path / "again" / "model")[1].model["recompute"] is True


def _params(config, toy):
    from seq2exp.dataset.store import Dataset

    samples = trainer._data(config, Dataset(toy), seed=1).train
    return trainer.model_params(config, samples), samples


def test_the_command_prints_the_plan_and_writes_no_run(toy, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    dump_yaml(to_dict(tiny_config()), config)
    line = ["train", "--config", str(config), "--data", str(toy), "--dry-run"]
    target = tmp_path / "plan.json"
    assert main([*line, "--out", str(tmp_path / "run"), "--json", str(target)]) == 0
    out = capsys.readouterr().out
    rows = {row["metric"]: row["value"] for row in read_json(target)["rows"]}
    assert f"{rows['parameters']:,}" in out
    assert "largest batch" in out
    assert not (tmp_path / "run").exists()
    assert main(line[:-1]) == 2
    assert "--out" in capsys.readouterr().err


def test_memory_limits_of_a_container_count(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("2000000\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    assert available_bytes(CPU) == 3_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes(CPU) == 8000 * 1024


def test_counting_leaves_the_numbers_alone():
    x = torch.linspace(0, 1, 50, requires_grad=True)
    seen = []
    measure(lambda: seen.append(float((x.sin() * x).detach().sum())), CPU)
    assert len(set(seen)) == 1
    assert np.isfinite(seen[0])
