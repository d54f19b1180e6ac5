"""What "auto" takes: trials of backends, their reasons, the environment variable, mamba_ssm."""

from __future__ import annotations

import logging
import sys
import types
from dataclasses import replace

import pytest
import torch

from seq2exp.core.errors import ConfigError
from seq2exp.nn.scan import (
    ScanInputs,
    backend_names,
    backend_states,
    bidirectional_scan,
    choose,
    front,
    scan_reference,
    selective_scan,
)
from seq2exp.nn.scan.choose import FALLBACK, VARIABLE, Trials, try_backend
from seq2exp.nn.scan.chunked import scan_chunked
from seq2exp.nn.scan.inputs import unfused
from tests.nn.test_scan import full_inputs, gradients, make_inputs, run, run_full

CPU = torch.device("cpu")
GOOD = unfused(scan_chunked)
FLOAT, DOUBLE, HALF = torch.float32, torch.float64, torch.bfloat16


def tiny(dtype=FLOAT):
    u, delta, A, B, C, _, state = make_inputs(3, dtype=dtype)
    return ScanInputs(u, delta, A, B, C, state)


def altered(**changes):
    """The right scan, but of inputs with something changed or left out."""
    return lambda inputs: GOOD(replace(inputs, **changes))


class _GradientOff(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * 1.01


def wrong_gradient(inputs):
    return GOOD(replace(inputs, C_BLN=_GradientOff.apply(inputs.C_BLN)))


def not_a_number(inputs):
    y, state = GOOD(inputs)
    return y * torch.nan, state


def explode(inputs):
    raise RuntimeError("no kernel image is available\nfor execution on the device")


@pytest.mark.parametrize("dtype", [FLOAT, HALF, torch.float16])
def test_a_right_backend_passes_in_every_dtype(dtype):
    assert try_backend(GOOD, CPU, dtype) is None
    with torch.inference_mode():
        assert try_backend(GOOD, CPU, dtype) is None


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        (altered(D_E=None), "its y is wrong"),
        (altered(starts_BL=None), "its y is wrong"),
        (altered(step_mask_BL=None), "its y is wrong"),
        (altered(delta_softplus=False), "wrong"),
        (altered(reverse=False), "its y is wrong"),
        (wrong_gradient, "its gradient of C_BLN is wrong by 1.0e-02"),
        (not_a_number, "its y is wrong by nan"),
        (explode, "RuntimeError: no kernel image is available"),
    ],
)
def test_a_wrong_backend_fails_with_a_reason(backend, words):
    reason = try_backend(backend, CPU, FLOAT)
    assert reason is not None
    assert words in reason
    assert "\n" not in reason


def counted(backend, calls):
    def run(inputs):
        calls.append(inputs.u_BLE.dtype)
        return backend(inputs)

    return run


def test_the_compiled_backend_is_taken_if_it_is_right(caplog):
    calls = []
    trials = Trials({"cpu": counted(GOOD, calls), "torch": explode})
    with caplog.at_level(logging.INFO, logger="seq2exp"):
        assert [trials.choose(tiny()) for _ in range(3)] == ["cpu"] * 3
    assert len(calls) == 2  # one trial, of both directions
    assert [record.getMessage() for record in caplog.records] == [
        "selective scan on cpu, float32: backend cpu (passed its trial)"
    ]


def test_a_failing_backend_is_passed_over_and_its_reason_is_kept(caplog):
    calls = []
    trials = Trials({"cpu": counted(explode, calls), "torch": GOOD})
    with caplog.at_level(logging.INFO, logger="seq2exp"):
        assert [trials.choose(tiny()) for _ in range(3)] == [FALLBACK] * 3
    assert len(calls) == 1
    assert "not cpu: RuntimeError: no kernel image" in caplog.text
    assert len(caplog.records) == 1
    assert trials.failure("cpu", CPU, FLOAT).startswith("RuntimeError")
    assert trials.choose(tiny(HALF)) == FALLBACK  # another dtype is another trial
    assert calls == [FLOAT, HALF]


def test_double_precision_takes_no_compiled_backend():
    calls = []
    trials = Trials({"cpu": counted(GOOD, calls), "torch": GOOD})
    assert trials.choose(tiny(DOUBLE)) == FALLBACK
    assert calls == []


def test_order_on_devices():
    assert choose.candidates("cuda", FLOAT) == ("triton",)
    assert choose.candidates("cpu", FLOAT) == ("cpu",)
    assert choose.candidates("cuda", DOUBLE) == choose.candidates("mps", FLOAT) == ()


def test_the_argument_goes_before_the_environment_variable(monkeypatch):
    seen = []
    for name in ("torch", "reference"):
        backend = front._BACKENDS[name]
        monkeypatch.setitem(
            front._BACKENDS, name, lambda x, n=name, b=backend: (seen.append(n), b(x))[1]
        )
    inputs = make_inputs(3, dtype=FLOAT)
    monkeypatch.setenv(VARIABLE, "reference")
    run(inputs)
    run(inputs, backend="torch")
    bidirectional_scan(tiny(), tiny())
    assert seen == ["reference", "torch", "reference", "reference"]
    monkeypatch.setenv(VARIABLE, "tritn")
    with pytest.raises(ConfigError, match=f"variable {VARIABLE}: found 'tritn'.*use 'triton'"):
        run(inputs)
    for nothing in ("auto", "", " "):
        monkeypatch.setenv(VARIABLE, nothing)
        assert choose.wish() == "auto"


def test_states_of_the_backends_on_this_processor():
    failures, choice = backend_states(CPU)
    assert set(failures) == {"torch", "cpu", "reference"}
    assert failures["torch"] is failures["reference"] is None
    assert choice.backend == ("cpu" if failures["cpu"] is None else "torch")


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_bidirectional_is_two_calls(backend):
    u, delta, A, B, C, D, state, z, bias, mask = full_inputs(9)
    starts = torch.zeros(2, 9, dtype=torch.bool)
    starts[:, 4] = True
    options = {"D_E": D, "z_BLE": z, "delta_bias_E": bias, "delta_softplus": True,
               "step_mask_BL": mask, "starts_BL": starts}  # fmt: skip
    inputs = ScanInputs(u, delta, A, B, C, state, **options)
    found = bidirectional_scan(inputs, inputs, backend=backend)
    for y, reverse in zip(found, (False, True), strict=True):
        wanted = selective_scan(
            u, delta, A, B, C, initial_state_BEN=state, reverse=reverse, backend=backend, **options
        )
        assert torch.equal(y, wanted)


# mamba_ssm ------------------------------------------------------------------------------------


def documented_function(
    u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False,
    return_last_state=False,
):  # fmt: skip
    """The documented signature and layouts of selective_scan_fn, over our loop."""
    batch, channels, length = u.shape
    states = A.shape[1]
    assert delta.shape == u.shape
    assert A.shape == (channels, states)
    assert A.dtype == torch.float32
    assert B.shape == C.shape == (batch, states, length)
    assert {x.dtype for x in (delta, B, C)} == {u.dtype}
    assert z is None or (z.shape == u.shape and z.dtype == u.dtype)
    for vector in (D, delta_bias):
        assert vector is None or (vector.shape == (channels,) and vector.dtype == torch.float32)
    rows = [x.transpose(1, 2).float() for x in (u, delta, B, C)]
    step = rows[1] if delta_bias is None else rows[1] + delta_bias
    step = torch.nn.functional.softplus(step) if delta_softplus else step
    zero = torch.zeros(batch, channels, states)
    y, last = scan_reference(rows[0], step, A, rows[2], rows[3], initial_state_BEN=zero)
    y = y if D is None else y + D * rows[0]
    y = y.transpose(1, 2)
    y = y if z is None else y * torch.nn.functional.silu(z.float())
    y = y.to(u.dtype)
    return (y, last) if return_last_state else y


@pytest.fixture
def mamba_ssm(monkeypatch):
    names = ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.selective_scan_interface")
    modules = [types.ModuleType(name) for name in names]
    modules[2].selective_scan_fn = documented_function
    for name, module in zip(names, modules, strict=True):
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_adapter_of_mamba_ssm_turns_every_layout(mamba_ssm, reverse, masked):
    inputs = [t.detach().float().requires_grad_() for t in full_inputs(11)]
    inputs[6] = torch.zeros_like(inputs[6])
    leaves = [x for i, x in enumerate(inputs) if i != 6 and (masked or i != 9)]
    inputs[9] = inputs[9] if masked else None
    ours = run_full(inputs, backend="mamba_ssm", reverse=reverse)
    wanted = run_full(inputs, backend="torch", reverse=reverse)
    for mine, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)
    for mine, other in zip(gradients(ours, leaves), gradients(wanted, leaves), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)


def test_mamba_ssm_takes_half_precision_and_bare_scans(mamba_ssm):
    u, delta, A, B, C, *_ = (t.detach() for t in make_inputs(7, dtype=FLOAT))
    found = selective_scan(u.to(HALF), delta, A, B.to(HALF), C, backend="mamba_ssm")
    assert found.dtype == HALF
    wanted = selective_scan(u.to(HALF), delta, A, B.to(HALF), C, backend="torch")
    assert torch.equal(found, wanted)


def test_mamba_ssm_passes_the_trial_without_what_it_lacks(mamba_ssm):
    assert Trials(front._BACKENDS).failure("mamba_ssm", CPU, FLOAT) is None


def test_mamba_ssm_refuses_what_it_lacks(mamba_ssm):
    u, delta, A, B, C, _, state = (t.detach() for t in make_inputs(4, dtype=FLOAT))
    starts = torch.zeros(2, 4, dtype=torch.bool)
    for options, words in (
        ({"initial_state_BEN": state}, "an initial state"),
        ({"starts_BL": starts}, "several sequences"),
    ):
        with pytest.raises(ConfigError, match=words):
            selective_scan(u, delta, A, B, C, backend="mamba_ssm", **options)
    with pytest.raises(ConfigError, match="float64"):
        selective_scan(u.double(), delta, A, B, C, backend="mamba_ssm")


def test_f30_mamba_ssm_that_is_missing_or_half_built_is_one_sentence(monkeypatch):
    u, delta, A, B, C, *_ = (t.detach() for t in make_inputs(4, dtype=FLOAT))
    for name in ("mamba_ssm", "mamba_ssm.ops.selective_scan_interface"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"mamba_ssm cannot be imported.*docs/gpu\.md") as caught:
        selective_scan(u, delta, A, B, C, backend="mamba_ssm")
    assert "\n" not in str(caught.value)
    assert "mamba_ssm" in backend_names()


def test_doctor_says_what_every_backend_does_and_what_auto_takes(monkeypatch):
    from seq2exp.cli.doctor import findings

    monkeypatch.delenv(VARIABLE, raising=False)
    rows = dict(findings())
    assert {f"scan backend {name}" for name in backend_names()} <= set(rows)
    assert rows["scan backend torch"].startswith("cpu: usable")
    assert rows["scan auto on cpu"].startswith(("cpu, passed its trial", "torch, not cpu: "))
    if not torch.cuda.is_available():
        assert rows["scan backend triton"] == "cuda: no such device here"
        assert rows["scan auto on cuda"] == "no such device here"
    monkeypatch.setenv(VARIABLE, "torch")
    assert dict(findings())["scan auto on cpu"] == f"torch, named by {VARIABLE}"
