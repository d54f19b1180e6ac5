"""What users met with kernels, memory and precision: P18 to P20, P25, P26, P30, P31."""

from __future__ import annotations

import ast
import json
import logging
import math
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from seq2exp.cli.main import main
from seq2exp.core.errors import ConfigError
from seq2exp.dataset.samples import GeneSamples, collate
from seq2exp.dataset.store import Dataset
from seq2exp.nn.scan import front, selective_scan
from seq2exp.nn.scan.choose import Trials
from seq2exp.training import plan
from seq2exp.training.module import ExpressionModule, NumericsError, forward_batch
from seq2exp.training.trainer import dry_run, train
from tests.runs import tiny_config
from tests.variants.engines import BIN, WINDOW, seq2exp

ROOT = Path(__file__).parents[2]
# Packages that are made for one kind of GPU, or need a compiler to install.
ACCELERATORS = ("mamba_ssm", "causal_conv1d", "flash_attn", "transformer_engine", "xformers")
CHILD = """
import json, sys, warnings
for name in json.loads(sys.argv[1]):
    sys.modules[name] = None  # not installed
found = {}
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import torch
    before = len(seen)
    from seq2exp.encoders import build_encoder
    from seq2exp.nn.sequence import reverse_complement
    from seq2exp.training.fitting import _precision
    codes = torch.randint(0, 4, (2, 37), generator=torch.Generator().manual_seed(0))
    codes = codes.to(torch.uint8)
    for variant in ("ph", "ps", "ps"):
        torch.manual_seed(0)
        encoder = build_encoder(
            "caduceus", {"variant": variant, "d_model": 8, "num_layers": 2, "d_state": 4},
            window_bp=37, bin_size=1,
        )
        out = encoder(codes)
        out.square().sum().backward()
        lost = [n for n, p in encoder.named_parameters() if p.grad is None]
        turned = encoder(reverse_complement(codes)).flip(1, 2)
        found[variant] = [list(out.shape), lost, float((turned - out).abs().max())]
    found["precision"] = [str(_precision("auto")), str(_precision("32-true"))]
    found["ours"] = [str(w.message) for w in seen[before:] if "seq2exp" in w.filename]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def bare() -> dict:
    """What a machine without any accelerating package computes."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps([*ACCELERATORS, "triton", "numba"])],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def imported_at_the_top(source: str) -> set[str]:
    """Packages that importing a module imports: everything outside of functions."""
    found, todo = set(), list(ast.parse(source).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            todo += list(ast.iter_child_nodes(node))
    return found


def test_pain_18_nothing_needs_mamba_ssm_to_install_or_to_import():
    """mamba#55, #18, #323, #561: the package needs nvcc even to tell its metadata."""
    assert imported_at_the_top("if 1:\n    import mamba_ssm.ops\n") == {"mamba_ssm"}
    assert imported_at_the_top("def f():\n    import mamba_ssm\n") == set()
    modules = [*(ROOT / "seq2exp").rglob("*.py"), *(ROOT / "data_prep").rglob("*.py")]
    assert len(modules) > 300
    for path in modules:
        assert not imported_at_the_top(path.read_text()) & set(ACCELERATORS), path
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    wanted = " ".join(lines).replace("-", "_").lower()
    assert not [name for name in ACCELERATORS if name in wanted]


def test_pain_19_a_kernel_that_cannot_run_costs_one_line_and_no_result(monkeypatch, capsys, caplog):
    """mamba#467, #40, zigma#22: half-installed kernels, and none for the GPU that is there."""

    def explode(inputs):
        message = "no kernel image is available\nfor execution on the device"
        raise RuntimeError(message)

    monkeypatch.delenv("SEQ2EXP_SCAN", raising=False)
    monkeypatch.setitem(front._BACKENDS, "cpu", explode)
    monkeypatch.setattr(front, "_TRIALS", Trials(front._BACKENDS))
    inputs = scan_inputs(19, torch.float32)
    with caplog.at_level(logging.INFO, logger="seq2exp"):
        found = [run(inputs, "auto") for _ in range(3)]
    torch.testing.assert_close(found[0][0], run(inputs, "reference")[0])
    told = [r.getMessage() for r in caplog.records if "selective scan" in r.getMessage()]
    assert len(told) == 1
    assert "backend torch (not cpu: RuntimeError" in told[0]
    assert main(["doctor"]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    states = {name: text.strip() for name, text in lines.items()}
    assert "cpu: RuntimeError: no kernel image is available" in states["scan backend cpu"]
    assert states["scan auto on cpu"] == (
        "torch, not cpu: RuntimeError: no kernel image is available"
    )


def scan_inputs(length: int, dtype: torch.dtype) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(length)

    def normal(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    tensors = (
        normal(2, length, 5), normal(2, length, 5), -normal(5, 3).exp(), normal(2, length, 3),
        normal(2, length, 3), normal(5), normal(2, length, 5), normal(5),
    )  # fmt: skip
    return [tensor.to(dtype).requires_grad_() for tensor in tensors]


def run(inputs: list[torch.Tensor], backend: str, chunk: int | None = None) -> list[torch.Tensor]:
    """Output and the gradients of all inputs, with bias and softplus in the kernel."""
    u, delta, A, B, C, D, z, bias = inputs
    y = selective_scan(
        u, delta, A, B, C, D_E=D, z_BLE=z, delta_bias_E=bias, delta_softplus=True,
        backend=backend, chunk=chunk,
    )  # fmt: skip
    weight = torch.sin(torch.arange(y.numel(), dtype=torch.float64)).view(y.shape).to(y.dtype)
    return [y.detach(), *torch.autograd.grad((y * weight).sum(), inputs)]


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 33])
def test_pain_20_gradients_are_right_where_no_block_divides_the_length(backend, length):
    """mamba#368: wrong backward with softplus and bias unless a block divides the length."""
    expected = run(scan_inputs(length, torch.float64), "reference")
    found = run(scan_inputs(length, torch.float32), backend, chunk=16)
    for ours, exact in zip(found, expected, strict=True):
        # The gradient of A is 0 for a single token that starts from nothing.
        error = float((ours.double() - exact).abs().max())
        assert error <= 1e-5 * float(exact.abs().max()) + 1e-12


def test_pain_25_long_windows_are_planned_and_a_nan_leaves_its_batch(toy, tmp_path, monkeypatch):
    """hyena-dna#15: a million bases ran out of memory, and then gave NaN."""
    monkeypatch.setattr(plan, "_MOST_BINS", 128)  # short windows, that the test be short
    data = {"window_bp": 1 << 20, "bin_size": 1, "jitter_bp": 0}
    model = {"generator_layers": 2, "predictor_layers": 2, "trunk": "conv"}
    config = tiny_config(data=data, model=model, fit={"batch_size": 2})
    monkeypatch.setattr(plan, "available_bytes", lambda device: 1 << 50)
    free = dry_run(config, toy)
    assert (free.num_bins, free.fits, free.recompute) == (1 << 20, True, False)
    monkeypatch.setattr(plan, "available_bytes", lambda device: free.total_bytes - 1)
    tight = dry_run(config, toy)
    assert tight.recompute, "blocks run again where a batch would not fit otherwise"
    assert tight.total_bytes < free.total_bytes
    monkeypatch.setattr(plan, "available_bytes", lambda device: 1_000_000)
    with pytest.raises(ConfigError, match=r"windows of 1,048,576 bases, 2 per step"):
        train(config, toy, tmp_path / "long")
    assert not (tmp_path / "long").exists()

    original = ExpressionModule.training_step

    def poisoned(self, batch, batch_idx):
        with torch.no_grad():
            next(self.model.parameters()).fill_(math.nan)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(ExpressionModule, "training_step", poisoned)
    with pytest.raises(NumericsError, match=r"step 0: found loss nan.*debug_batch_step_0\.pt"):
        train(tiny_config(), toy, tmp_path / "run")
    saved = torch.load(tmp_path / "run" / "debug_batch_step_0.pt", weights_only=True)
    assert saved["codes_BL"].shape == (8, 512)


def test_pain_26_no_package_of_one_gpu_is_needed_and_precision_falls_back(bare, toy, tmp_path):
    """evo2#167, #14, #220, variantformer#22, gReLU PR#78: FP8, flash-attn, workers, warnings."""
    assert bare["precision"] == ["32-true", "32-true"]
    assert bare["ours"] == [], "no warning for every model"
    with pytest.raises(ConfigError, match=r"fit\.precision.*found fp8"):
        tiny_config(fit={"precision": "fp8"})
    run = tmp_path / "run"
    train(tiny_config(fit={"max_epochs": 1, "workers": 2}), toy, run)
    assert (run / "model").is_dir(), "loader processes are there to stay"


@pytest.mark.parametrize("trunk", ["bimamba", "transformer"])
def test_pain_30_the_model_keeps_its_precision_with_and_without_autocast(toy, trunk):
    """borzoi-pytorch#19: errors in fp32 without autocast, attention without another kernel."""
    data = Dataset(toy)
    params = {"num_heads": 2} if trunk == "transformer" else {}
    model = seq2exp(data, trunk=trunk, trunk_params=params)
    samples = GeneSamples(data, type(tiny_config().data)(window_bp=WINDOW, bin_size=BIN), [3, 4])
    batch = collate([samples[0], samples[1]])
    plain = forward_batch(model, batch)
    plain.expression_BK.sum().backward()
    assert plain.expression_BK.dtype == torch.float32
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads
    assert all(grad.dtype == torch.float32 and grad.isfinite().all() for grad in grads)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = forward_batch(model, batch)
    for name in ("alpha_BN", "beta_BN", "mask_BN", "kl_B"):
        assert getattr(half, name).dtype == torch.float32, name
    scale = float(plain.expression_BK.detach().abs().max())
    assert float((half.expression_BK - plain.expression_BK).detach().abs().max()) < 0.1 * scale
    with sdpa_kernel(SDPBackend.MATH):
        again = forward_batch(model, batch)
    torch.testing.assert_close(again.expression_BK, plain.expression_BK, rtol=1e-4, atol=1e-5)


def test_pain_31_both_caduceus_run_on_a_cpu_with_torch_alone(bare):
    """caduceus modeling_caduceus.py, line 11: an import of mamba_ssm without a guard."""
    (shape, lost, moved), (wide, _, equal) = bare["ph"], bare["ps"]
    assert (shape, wide) == ([2, 37, 8], [2, 37, 16])
    assert lost == []
    assert equal < 1e-5 < moved, "ps sees the same on both strands, ph does not"
