"""Deleting 50 elements of one gene beside single passes of the same model.

A deletion is one window with 500 bp shuffled and its tracks at 0. The claim: 50 of them, the
reference they are compared with included, cost at most 12 single passes for encoders with a
convolutional stem. Shared is what `seq2exp.models.rerun` computes once; batched is the same edits
as whole windows. Elements lie evenly over the bins that the read-out can see, which is the worst
case: an element beyond them costs nothing. The trunk's share of a single pass says where the rest
goes: attention and scans carry a change to every bin, so their trunks run in full for each edit.

    python benchmarks/deletion.py [--windows 32768 196608] [--repeats 3] [--quick]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import circumstances, wait_for_quiet, write_result
from torch import Tensor

from seq2exp.models.baseline import Baseline, BaselineConfig
from seq2exp.models.output import ModelCall
from seq2exp.models.rerun import share_window

BIN, ELEMENT, NUM_ELEMENTS, TRACKS, TARGET = 128, 500, 50, ("DNase", "H3K27ac"), 12
# A tower of convolutions at base resolution before a small transformer.
DEEP_STEM = {"channels": 128, "num_layers": 4, "inner_pool": 2}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "conv": ("conv", {}),
    "transformer": ("transformer", {}),
    "transformer, 2 blocks": ("transformer", {"num_layers": 2}),
    "transformer, 2 blocks, deep stem": ("transformer", {"num_layers": 2, "stem": DEEP_STEM}),
    "bimamba": ("bimamba", {"embedding": "stem"}),
}


def make_model(name: str, window_bp: int) -> Baseline:
    torch.manual_seed(0)
    encoder, params = MODELS[name]
    config = BaselineConfig(
        encoder=encoder, encoder_params=params, window_bp=window_bp, bin_size=BIN,
        tracks=TRACKS, use_tracks=True,
    )  # fmt: skip
    return Baseline(config).eval()


def call_of(codes_BL: Tensor, signal_BNT: Tensor) -> ModelCall:
    return ModelCall(codes_BL, signal_BNT, None, None, None, None, force_promoter=True)


def make_edits(model: Baseline, window_bp: int) -> tuple[ModelCall, ModelCall, Tensor]:
    """The window, its edits, and the bins that differ."""
    random = torch.Generator().manual_seed(1)
    num_bins = window_bp // BIN
    codes = torch.randint(0, 4, (1, window_bp), generator=random, dtype=torch.uint8)
    signal = torch.rand(1, num_bins, len(TRACKS), generator=random)
    first, stop = model.encoder.trunk.reads(model.span, num_bins)
    edits, tracks = codes.repeat(NUM_ELEMENTS, 1), signal.repeat(NUM_ELEMENTS, 1, 1)
    places = np.linspace(first * BIN, stop * BIN - ELEMENT, NUM_ELEMENTS).astype(int)
    for row, start in enumerate(places):
        order = torch.randperm(ELEMENT, generator=random)
        edits[row, start : start + ELEMENT] = codes[0, start : start + ELEMENT][order]
        tracks[row, start // BIN : -(-(start + ELEMENT) // BIN)] = 0
    changed = (edits != codes).view(NUM_ELEMENTS, num_bins, BIN).any(2)
    changed |= (tracks != signal).any(2)
    return call_of(codes, signal), call_of(edits, tracks), changed


def part_of(call: ModelCall, rows: slice) -> ModelCall:
    signal = None if call.signal_BNT is None else call.signal_BNT[rows]
    return call_of(call.codes_BL[rows], signal)


def run_shared(
    model: Baseline, window: ModelCall, edits: ModelCall, changed: Tensor, batch: int
) -> Tensor:
    shared = share_window(model, window)
    assert shared is not None
    parts = [slice(i, i + batch) for i in range(0, NUM_ELEMENTS, batch)]
    return torch.cat([shared(part_of(edits, p), changed[p]).expression_BK for p in parts])


def run_batched(model: Baseline, edits: ModelCall, batch: int) -> Tensor:
    parts = [part_of(edits, slice(i, i + batch)) for i in range(0, NUM_ELEMENTS, batch)]
    return torch.cat([model(p.codes_BL, p.signal_BNT).expression_BK for p in parts])


def seconds(run: Callable[[], object]) -> float:
    """Processor time: the wall clock of a shared machine says more about its other users."""
    start = time.process_time()
    run()
    return time.process_time() - start


def measure(name: str, window_bp: int, *, batch: int, repeats: int) -> dict[str, Any]:
    model = make_model(name, window_bp)
    window, edits, changed = make_edits(model, window_bp)
    encoder, codes, signal = model.encoder, window.codes_BL, window.signal_BNT
    hidden = encoder.embedding(codes, signal)
    exact = run_batched(model, edits, batch)
    error = run_shared(model, window, edits, changed, batch) - exact
    effect = exact - model(codes, signal).expression_BK
    runs: dict[str, Callable[[], object]] = {
        "single": lambda: model(codes, signal),
        "trunk": lambda: encoder.trunk(hidden, span=model.span),
        "shared": lambda: run_shared(model, window, edits, changed, batch),
        "batched": lambda: run_batched(model, edits, batch),
    }
    times: dict[str, list[float]] = {key: [] for key in runs}
    idle = wait_for_quiet(20)
    for _ in range(repeats):
        for key, run in runs.items():
            # A single pass is short, so it is run several times.
            count = 5 if key in ("single", "trunk") else 1
            times[key].append(float(np.median([seconds(run) for _ in range(count)])))
    middle = {key: float(np.median(values)) for key, values in times.items()}
    ratio = float(np.median(np.divide(times["shared"], times["single"])))
    return {
        "seconds": middle,
        "passes_shared": ratio,
        "passes_batched": float(np.median(np.divide(times["batched"], times["single"]))),
        "trunk_share_of_single_pass": middle["trunk"] / middle["single"],
        "largest_difference": float(error.abs().max()),
        "largest_effect": float(effect.abs().max()),
        "holds": ratio <= TARGET,
        "idle": idle,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--windows", type=int, nargs="+", default=[32_768, 196_608])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--batch", type=int, default=25, help="edits per pass")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="conv at 32 kb; writes no result")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    before = circumstances("torch")
    windows = [32_768] if options.quick else options.windows
    found: dict[str, Any] = {}
    with torch.no_grad():
        for window in windows:
            for name in ["conv"] if options.quick else options.models:
                entry = measure(name, window, batch=options.batch, repeats=options.repeats)
                found.setdefault(str(window), {})[name] = entry
                print(window, name, entry, flush=True)
    settings = {
        "elements": NUM_ELEMENTS, "element_bp": ELEMENT, "bin_bp": BIN, "batch": options.batch,
        "threads": options.threads, "target_passes": TARGET, "clock": "processor time",
    }  # fmt: skip
    write_result("deletion", {**settings, "windows": found, **before}, quick=options.quick)


if __name__ == "__main__":
    main()
