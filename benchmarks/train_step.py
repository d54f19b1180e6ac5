"""A whole training step of Seq2Exp (soft, published sizes) beside the same model on another mixer.

Forward, loss with KL, backward and AdamW at base resolution: two nets of four bidirectional blocks,
128 wide. The peer is the Mamba mixer of Hugging Face transformers, called once per direction with
the same tied weights; its outputs must agree first. Its slow path keeps every state for the
backward, which then takes time in proportion to the square of the length: so one block is timed
and multiplied by eight, which leaves out everything else, in favour of the peer; forward and
backward at the shortest window only, and forward at the others as long as it fits into memory.
Beyond that the forward is carried over from the longest window that fitted, in proportion to the
length.

On a GPU (``--device cuda``) batches of eight in bf16 stand beside the same model on the mamba-ssm
kernels, if that package is installed.

    python benchmarks/train_step.py [--windows 2048 32768 200000] [--threads 2] [--quick]
    python benchmarks/train_step.py --device cuda
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from typing import Any

import torch
from common import circumstances, summary, write_result
from torch import Tensor, nn

from seq2exp.models import Seq2Exp, Seq2ExpConfig
from seq2exp.nn.mamba import BiMambaMixer
from seq2exp.training.config import OptimConfig
from seq2exp.training.memory import available_bytes, measure
from seq2exp.training.module import parameter_groups

NUM_BLOCKS, D_MODEL, TRACKS, FEATURES = 8, 128, 3, 9
# Bytes that one direction of the peer keeps per token: five arrays of channels times states.
PEER_BYTES = 5 * 2 * D_MODEL * 16 * 4
GPU_TARGET = {"window": 200_000, "batch": 8, "milliseconds": 120, "gigabytes": 24}


class PeerMixer(nn.Module):
    """Two mixers of transformers that share their projections, with the weights of one of ours."""

    def __init__(self, ours: BiMambaMixer) -> None:
        super().__init__()
        from transformers import MambaConfig
        from transformers.models.mamba.modeling_mamba import MambaMixer

        config = MambaConfig(
            hidden_size=D_MODEL, state_size=16, conv_kernel=4, expand=2, num_hidden_layers=1
        )
        self.mixers = nn.ModuleList(MambaMixer(config, layer_idx=0) for _ in range(2))
        for mixer, direction in zip(self.mixers, (ours.fwd, ours.rev), strict=True):
            mixer.in_proj, mixer.out_proj = ours.in_proj, ours.out_proj
            mixer.conv1d.weight = nn.Parameter(direction.conv_weight.detach()[:, None].clone())
            mixer.conv1d.bias = nn.Parameter(direction.conv_bias.detach().clone())
            mixer.x_proj, mixer.dt_proj = direction.x_proj, direction.dt_proj
            mixer.A_log, mixer.D = direction.A_log, direction.D

    def forward(self, u_BLD: Tensor) -> Tensor:
        forward, backward = self.mixers
        out: Tensor = forward(u_BLD) + backward(u_BLD.flip(1)).flip(1)
        return out


def make_model(window_bp: int, *, recompute: bool) -> Seq2Exp:
    torch.manual_seed(0)
    return Seq2Exp(Seq2ExpConfig.published_soft(window_bp=window_bp, recompute=recompute)).train()


def make_batch(window_bp: int, batch: int, device: str) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 4, (batch, window_bp), generator=generator, dtype=torch.uint8)
    signal = torch.rand(batch, window_bp, TRACKS, generator=generator)
    features = torch.rand(batch, FEATURES, generator=generator)
    labels = torch.rand(batch, 1, generator=generator)
    return tuple(x.to(device) for x in (codes, signal, features, labels))


def step_of(model: Seq2Exp, batch: tuple[Tensor, ...], *, half: bool = False) -> Callable[[], None]:
    codes, signal, features, labels = batch
    groups = parameter_groups(model, OptimConfig().weight_decay)
    for group in groups:
        group.pop("shared_moment")
    optimizer = torch.optim.AdamW(groups, lr=1e-4)

    def step() -> None:
        with torch.autocast(codes.device.type, dtype=torch.bfloat16, enabled=half):
            out = model(codes, signal, features)
            loss = nn.functional.smooth_l1_loss(out.expression_BK, labels) + 0.01 * out.kl_B.mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def block_step(block: nn.Module, window_bp: int) -> Callable[[], None]:
    x = torch.randn(1, window_bp, D_MODEL, requires_grad=True)

    def step() -> None:
        block(x).sum().backward()
        block.zero_grad(set_to_none=True)
        x.grad = None

    return step


def require_agreement() -> float:
    """Largest difference of the two mixers, relative to the largest output."""
    torch.manual_seed(0)
    ours = BiMambaMixer(D_MODEL)
    u_BLD = torch.randn(1, 600, D_MODEL)
    with torch.no_grad():
        mine, theirs = ours(u_BLD), PeerMixer(ours)(u_BLD)
    error = float((mine - theirs).abs().max() / mine.abs().max())
    assert error < 1e-5, f"the mixers differ by {error}"
    return error


def seconds(step: Callable[[], None]) -> float:
    gc.collect()
    start = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def forward_of(block: nn.Module, window_bp: int) -> Callable[[], None]:
    x = torch.randn(1, window_bp, D_MODEL)

    def step() -> None:
        with torch.no_grad():
            block(x)

    return step


def ours_at(window: int) -> dict[str, Any]:
    """Time and memory of the whole step, with and without running blocks again."""
    entry: dict[str, Any] = {"seconds": {}, "peak_bytes": {}}
    batch = make_batch(window, 1, "cpu")
    for name, again in (("step", False), ("step, blocks again", True)):
        usage = measure(step_of(make_model(window, recompute=again), batch), torch.device("cpu"))
        entry["seconds"][name], entry["peak_bytes"][name] = usage.seconds, usage.peak_bytes
    model, (codes, signal, features, _) = make_model(window, recompute=False), batch

    def forward() -> None:
        with torch.no_grad():
            model(codes, signal, features)

    entry["seconds"]["forward"] = min(seconds(forward) for _ in range(2))
    return entry


def peer_at(window: int, shortest: int) -> dict[str, float]:
    """Seconds of one block of the peer; empty where it does not fit."""
    if 2 * window * PEER_BYTES * 1.5 > (available_bytes(torch.device("cpu")) or 0):
        return {}
    torch.manual_seed(0)
    peer = PeerMixer(BiMambaMixer(D_MODEL))
    found = {"forward of a peer block": seconds(forward_of(peer, window))}
    if window == shortest:
        found["step of a peer block"] = seconds(block_step(peer, window))
    return found


def on_cpu(windows: list[int]) -> dict[str, Any]:
    try:
        error = require_agreement()
    except ImportError:
        error = None
    found: dict[str, Any] = {}
    per_token = None
    for window in windows:
        entry = ours_at(window)
        times = entry["seconds"]
        if error is not None:
            times |= peer_at(window, min(windows))
            forward = times.get("forward of a peer block")
            if forward is None and per_token is not None:
                forward = per_token * window
                entry["carried over"] = "forward of a peer block, from the window before"
            entry["ratios"] = {}
            if forward is not None:
                per_token = forward / window
                ratio = NUM_BLOCKS * forward / times["forward"]
                entry["ratios"]["forward: eight peer blocks / whole model"] = ratio
            if "step of a peer block" in times:
                ratio = NUM_BLOCKS * times["step of a peer block"] / times["step"]
                entry["ratios"]["step: eight peer blocks / whole model"] = ratio
        found[str(window)] = entry
        print(window, entry, flush=True)
    return {"agreement": error, "windows": found}


def on_gpu(windows: list[int], repeats: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for window in windows:
        entry: dict[str, Any] = {}
        for backend in ("triton", "torch", "mamba_ssm"):
            model = make_model(window, recompute=True).to("cuda")
            for module in model.modules():
                if isinstance(module, BiMambaMixer):
                    module.backend = backend
            step = step_of(model, make_batch(window, GPU_TARGET["batch"], "cuda"), half=True)
            try:
                seconds(step)
                torch.cuda.reset_peak_memory_stats()
                times = [seconds(step) for _ in range(repeats)]
            except Exception as error:  # noqa: BLE001  a backend that is not there is a result
                entry[backend] = {"failed": str(error)}
                continue
            entry[backend] = {
                **summary({"step": times}),
                "peak_bytes": torch.cuda.max_memory_allocated(),
            }
        found[str(window)] = entry
        print(window, entry, flush=True)
    return {"device": torch.cuda.get_device_name(0), "target": GPU_TARGET, "windows": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--windows", type=int, nargs="+", default=[2048, 32_768, 200_000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="on a GPU")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="2,048 bases; writes no result")
    options = parser.parse_args()
    windows = [2048] if options.quick else options.windows
    torch.set_num_threads(options.threads)
    before = circumstances("torch")
    on_device = options.device == "cuda"
    result = on_gpu(windows, options.repeats) if on_device else on_cpu(windows)
    name = "train_step" if options.device == "cpu" else "train_step_gpu"
    write_result(name, {"threads": options.threads, **result, **before}, quick=options.quick)


if __name__ == "__main__":
    main()
