"""The Triton kernels against the float64 reference: in Triton's interpreter, or on a GPU if one is.

The interpreter runs the very kernels with numpy, one program after the other. What only a compiler
notices is tested by compiling every kernel for a GPU that need not be there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from seq2exp.core.errors import ConfigError
from seq2exp.nn.scan import ScanInputs, bidirectional_scan, selective_scan, triton_scan
from seq2exp.nn.scan.triton_scan import group_states, lay_out
from tests.nn.test_scan import full_inputs, gradients, run_full

pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALF = {torch.bfloat16: 2e-2, torch.float16: 3e-3}


def side(length, *, batch=1, channels=2, states=3, seed=0, dtype=torch.float64, **options):
    """One direction's inputs with every option, leaves of float64 numbers rounded to a dtype."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tokens, rows = (batch, length, channels), (batch, length, states)
    inputs = ScanInputs(
        normal(*tokens).to(dtype),
        normal(*tokens).to(dtype),
        -torch.exp(normal(channels, states)),
        normal(*rows).to(dtype),
        normal(*rows).to(dtype),
        normal(batch, channels, states),
        D_E=normal(channels),
        z_BLE=normal(*tokens).to(dtype),
        delta_bias_E=normal(channels),
        delta_softplus=True,
        step_mask_BL=torch.rand(batch, length, generator=generator, dtype=torch.float64),
        chunk=32,
    )
    return replace(inputs, **options)


def tensors_of(inputs):
    values = {item.name: getattr(inputs, item.name) for item in fields(inputs)}
    return {k: v for k, v in values.items() if isinstance(v, torch.Tensor)}


def moved(inputs, dtype):
    """Leaves on the device; float64 numbers become `dtype`, half ones stay as they are."""
    changes = {
        k: (v.to(dtype) if v.dtype == torch.float64 or dtype == torch.float64 else v)
        .detach()
        .to(DEVICE)
        .requires_grad_()
        for k, v in tensors_of(inputs).items()
        if v.is_floating_point()
    }
    if inputs.starts_BL is not None:
        changes["starts_BL"] = inputs.starts_BL.to(DEVICE)
    return replace(inputs, **changes)


def numbers(pair, backend):
    """y of both directions and all gradients, named."""
    outputs = bidirectional_scan(*pair, backend=backend)
    leaves = {
        f"{way} {name}": tensor
        for way, inputs in zip(("forward", "backward"), pair, strict=True)
        for name, tensor in tensors_of(inputs).items()
        if tensor.requires_grad
    }
    found = dict(zip(("forward y", "backward y"), outputs, strict=True))
    grads = gradients([y.cpu() for y in outputs], list(leaves.values()))
    return found | {f"gradient of {k}": g for k, g in zip(leaves, grads, strict=True)}


def assert_equal(pair, *, tolerance=1e-5):
    single = [moved(inputs, torch.float32) for inputs in pair]
    exact = [moved(inputs, torch.float64) for inputs in pair]
    ours, theirs = numbers(single, "triton"), numbers(exact, "reference")
    for name, wanted in theirs.items():
        assert ours[name].shape == wanted.shape
        error = (ours[name].double() - wanted).abs().max() / wanted.abs().max().clamp_min(1e-30)
        assert error <= tolerance, f"{name}: {error:.1e}"


@pytest.mark.parametrize("length", [1, 3, 4, 63, 64, 65, 130])
def test_both_directions_in_one_launch_equal_the_reference_with_gradients(length):
    """130 tokens in chunks of 32 are five segments of one chunk each."""
    assert_equal((side(length), side(length, seed=1)))


@pytest.mark.parametrize(
    "shape",
    [
        {"batch": 1, "channels": 33, "states": 1},  # two blocks of channels, one almost empty
        {"batch": 3, "channels": 1, "states": 5},  # two groups of states, one almost empty
    ],
)
def test_odd_channels_and_states(shape):
    assert_equal((side(3, **shape), side(3, seed=1, **shape)))


@pytest.mark.parametrize("programs", [1, 1000])
def test_packed_sequences_in_one_segment_and_in_many(monkeypatch, programs):
    """Breaks at the edges of tiles (16), chunks (16) and segments, and beside them."""
    monkeypatch.setattr(triton_scan, "_programs", lambda device: programs)
    starts = torch.zeros(2, 34, dtype=torch.bool)
    starts[0, [0, 16, 17, 32]] = True
    starts[1, [1, 15, 31, 33]] = True
    shape = {"batch": 2, "channels": 1, "states": 2, "chunk": 16}
    pair = [side(34, starts_BL=starts, seed=seed, **shape) for seed in (0, 1)]
    assert_equal(pair)


@pytest.mark.parametrize("dtype", list(HALF))
def test_half_precision_inputs_keep_a_float32_state(dtype):
    """Both sides see the same rounded inputs; the error left is the rounding of the outputs."""
    shape = {"channels": 1, "states": 2, "dtype": dtype}
    assert_equal((side(33, **shape), side(33, seed=1, **shape)), tolerance=HALF[dtype])
    y = selective_scan(
        *[
            getattr(moved(side(3, **shape), torch.float32), name)
            for name in ("u_BLE", "delta_BLE", "A_EN", "B_BLN", "C_BLN")
        ],
        backend="triton",
        return_state=True,
    )
    assert [x.dtype for x in y] == [dtype, torch.float32]


def test_bare_scan_without_any_option():
    bare = dict.fromkeys(("D_E", "z_BLE", "delta_bias_E", "step_mask_BL"))
    pair = [side(20, seed=s, delta_softplus=False, **bare) for s in (0, 1)]
    assert_equal([replace(x, delta_BLE=x.delta_BLE.abs()) for x in pair])


@pytest.mark.parametrize("reverse", [False, True])
def test_one_direction_and_its_last_state(reverse):
    exact = full_inputs(21, channels=2)
    single = [t.detach().float().to(DEVICE).requires_grad_() for t in exact]
    ours = run_full(single, backend="triton", reverse=reverse, chunk=16)
    theirs = run_full(exact, backend="reference", reverse=reverse)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.cpu() - other).abs().max() <= 1e-5 * other.abs().max()
    mine_and_theirs = (gradients([x.cpu() for x in ours], single), gradients(theirs, exact))
    for mine, other in zip(*mine_and_theirs, strict=True):
        assert (mine.cpu() - other).abs().max() <= 1e-5 * other.abs().max()


def test_small_steps_keep_their_digits():
    """Steps of 1e-7 to 20 after the softplus, relative to each output, not to the largest."""
    delta = torch.linspace(-16, 20, 37, dtype=torch.float64)[:, None, None]
    one = torch.ones_like(delta)
    args = (one, delta, -torch.ones(1, 1, dtype=torch.float64), one, one)
    wanted = selective_scan(*args, delta_softplus=True, backend="reference")
    found = selective_scan(
        *(x.float().to(DEVICE) for x in args), delta_softplus=True, backend="triton"
    )
    assert ((found.cpu() - wanted) / wanted).abs().max() < 2e-6


def test_inference_keeps_no_states_and_gives_the_same_bits():
    inputs = moved(side(20, channels=1, chunk=16), torch.float32)
    trained = bidirectional_scan(inputs, inputs, backend="triton")
    with torch.no_grad():
        plain = bidirectional_scan(inputs, inputs, backend="triton")
    assert trained[0].requires_grad
    assert not plain[0].requires_grad
    assert all(torch.equal(a, b) for a, b in zip(trained, plain, strict=True))


def test_two_runs_give_the_same_bits():
    found = [numbers([moved(side(5), torch.float32)] * 2, "triton") for _ in range(2)]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_directions_of_different_kinds_are_launched_one_by_one():
    pair = [moved(side(5), torch.float32), moved(side(7, seed=1, z_BLE=None), torch.float32)]
    ours, theirs = (bidirectional_scan(*pair, backend=name) for name in ("triton", "reference"))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_strided_inputs():
    inputs = moved(side(9, batch=2), torch.float32)
    turned = {
        k: v.detach().transpose(0, -1).contiguous().transpose(0, -1)
        for k, v in tensors_of(inputs).items()
    }
    found = [
        bidirectional_scan(x, x, backend="triton") for x in (inputs, replace(inputs, **turned))
    ]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("empty", [{"length": 0}, {"length": 4, "batch": 0}])
def test_empty_sequences_and_batches(empty):
    inputs = moved(side(empty.pop("length"), **empty), torch.float32)
    found = numbers([inputs, inputs], "triton")
    wanted = numbers([inputs, inputs], "torch")
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_what_cannot_be_computed_is_refused(monkeypatch):
    exact, single = moved(side(3), torch.float64), moved(side(3), torch.float32)
    with pytest.raises(ConfigError, match=r"torch\.float64"):
        bidirectional_scan(exact, exact, backend="triton")
    monkeypatch.setitem(sys.modules, "seq2exp.nn.scan.triton_forward", None)
    with pytest.raises(ConfigError, match=r"seq2exp\[triton\]"):
        bidirectional_scan(single, single, backend="triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    on_cpu = replace(single, **{k: v.cpu() for k, v in tensors_of(single).items()})
    with pytest.raises(ConfigError, match="tensors on cpu"):
        bidirectional_scan(on_cpu, on_cpu, backend="triton")


@pytest.mark.parametrize("length", [1, 16, 17, 1000, 200_000, 5_000_000])
@pytest.mark.parametrize("sequences", [1, 16])
@pytest.mark.parametrize("chunk", [None, 1, 100])
def test_layout_covers_every_token_and_fills_the_device(length, sequences, chunk):
    cut = lay_out(length, 256, sequences=sequences, programs=4224, chunk=chunk)
    assert cut.visits >= length
    assert cut.visits - length < cut.segment_tiles * cut.tile
    assert cut.segment_tiles % cut.chunk_tiles == 0
    assert cut.chunks * cut.chunk_tiles == cut.tiles == cut.segments * cut.segment_tiles
    assert cut.segments <= cut.chunks <= 65_535
    assert cut.blocks * cut.width == 256
    if length >= 200_000:
        assert cut.segments * cut.blocks * sequences > 4224 / 2
    else:
        assert cut.chunk_tiles <= max(4, (chunk or 0) // 16 + 1)


def test_states_are_cut_into_whole_groups():
    assert group_states(16) == {"STATES": 16, "GROUPS": 4, "GROUP": 4}
    assert group_states(17) == {"STATES": 20, "GROUPS": 8, "GROUP": 4}
    assert group_states(2) == {"STATES": 2, "GROUPS": 1, "GROUP": 2}


def compiled(*options):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "tests/nn/compile_triton.py"), *options],
        env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_kernel_compiles_for_an_h100():
    """And as it is meant: a channel lies in one thread, so a recurrence needs no shuffle.

    Shuffles are left where channels are summed (per token and state, 5 of them for B and 5 for C,
    and 5 for the mask), and a few where a break is looked for.
    """
    rows = {row["kernel"]: row for row in compiled("--variants", "1")}
    assert set(rows) == {"scan_combine", "scan_ends", "scan_marks", "scan_outputs",
                         "scan_adjoints", "scan_gradients"}  # fmt: skip
    assert rows["scan_outputs"]["shuffles"] == rows["scan_marks"]["shuffles"] == 0
    assert rows["scan_combine"]["shuffles"] == 0
    assert rows["scan_ends"]["shuffles"] <= 8
    assert rows["scan_adjoints"]["shuffles"] <= 8
    assert rows["scan_gradients"]["shuffles"] <= 16 * (4 * 10 + 5)
    assert all(row["registers"] <= 128 for name, row in rows.items() if name != "scan_gradients")


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["80", "90"])
def test_every_variant_compiles(arch):
    assert len(compiled("--arch", arch)) == 6 * 4


# The benchmark of GPUs ------------------------------------------------------------------------


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("gpu_scan", ROOT / "benchmarks/gpu/scan.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "CHANNELS", 2)
    monkeypatch.setattr(module, "STATES", 2)
    return module


def test_the_benchmark_runs_where_the_kernels_run(benchmark):
    """With two channels, so that the interpreter can do it; the floors need a device."""
    device = torch.device(DEVICE)
    found = benchmark.measure(5, torch.float32, device, ["triton", "torch"], 1)
    assert set(found["milliseconds"]) == {
        f"{work} {ways} {backend}"
        for work in ("forward", "both")
        for ways in ("one", "two")
        for backend in ("triton", "torch")
    }
    benchmark.LOOP_AT_MOST = 1  # the second case takes the chunked scan as reference
    for dtype in benchmark.TOLERANCE:
        errors = benchmark.parity("triton", 4, dtype, device)
        assert max(errors.values()) <= benchmark.TOLERANCE[dtype]


def test_the_work_behind_the_floors(benchmark, monkeypatch):
    """performance.md, section 8: 819 M exponentials and 410 MB in bf16 at 200,000 positions."""
    monkeypatch.setattr(benchmark, "CHANNELS", 256)
    monkeypatch.setattr(benchmark, "STATES", 16)
    work = benchmark.work_of(200_000, torch.bfloat16)
    assert work == {"exp": 819_200_000, "bytes": 409_600_000}


@pytest.mark.skipif(DEVICE == "cuda", reason="there is a GPU")
def test_without_a_gpu_nothing_is_run_or_written():
    before = sorted((ROOT / "benchmarks" / "results").iterdir())
    done = subprocess.run(
        ["bash", str(ROOT / "benchmarks" / "gpu.sh")], env=os.environ | {"PYTHON": sys.executable},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no CUDA device" in done.stderr
    assert sorted((ROOT / "benchmarks" / "results").iterdir()) == before
