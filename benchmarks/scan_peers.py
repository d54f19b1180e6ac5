"""The scans and layers that benchmarks/scan.py is compared with.

Shapes: B batch, L positions, E channels, N states, T positions of a chunk, D model width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.nn.mamba import MambaDirection

__all__ = ["hugging_face_layers", "per_step_loop", "scan_cumulative", "scan_mambapy"]


def per_step_loop(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """One token after the other, as the definition says."""
    state = u.new_zeros((u.shape[0], *A.shape))
    rows = []
    for t in range(u.shape[1]):
        state = torch.exp(delta[:, t, :, None] * A) * state
        state = state + (delta[:, t] * u[:, t])[..., None] * B[:, t, None]
        rows.append((state * C[:, t, None]).sum(-1))
    return torch.stack(rows, dim=1)


def scan_cumulative(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *, chunk: int
) -> Tensor:
    """All tokens of a chunk at once by cumulative sums, in plain torch with torch's gradient.

    With ``S_t = A sum_{i<=t} delta_i`` the states of a chunk are ``exp(S_t) (s + cumsum(exp(-S)
    delta B u))``. exp(-S) overflows where a chunk forgets too much, so this is no general scan; on
    the inputs of the benchmark it does not.
    """
    state = u.new_zeros((u.shape[0], *A.shape))
    rows = []
    for start in range(0, u.shape[1], chunk):
        part = slice(start, start + chunk)
        S_BTEN = delta[:, part].cumsum(1)[..., None] * A
        push_BTEN = (delta[:, part] * u[:, part])[..., None] * B[:, part, None]
        sums_BTEN = state[:, None] + torch.cumsum(push_BTEN * torch.exp(-S_BTEN), dim=1)
        states_BTEN = torch.exp(S_BTEN) * sums_BTEN
        state = states_BTEN[:, -1]
        rows.append((states_BTEN @ C[:, part, :, None]).squeeze(-1))
    return torch.cat(rows, dim=1)


def scan_mambapy(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The parallel scan of mambapy, on arrays of all states."""
    from mambapy.pscan import pscan

    decay = torch.exp(delta[..., None] * A)
    push = delta[..., None] * B[:, :, None] * u[..., None]
    states: Tensor = pscan(decay, push)
    return (states @ C[..., None]).squeeze(-1)


class _Layer(nn.Module):
    """A causal Mamba layer of ours with the weights of another."""

    def __init__(self, other: nn.Module) -> None:
        super().__init__()
        width, states = other.A_log.shape
        self.in_proj, self.out_proj = other.in_proj, other.out_proj
        self.direction = MambaDirection(
            width,
            d_state=states,
            d_conv=other.conv1d.weight.shape[-1],
            rank=other.dt_proj.weight.shape[1],
            reverse=False,
        )
        ours = dict(self.direction.named_parameters())
        with torch.no_grad():
            for name in ("x_proj.weight", "dt_proj.weight", "dt_proj.bias", "A_log", "D"):
                ours[name].copy_(other.get_parameter(name))
            ours["conv_weight"].copy_(other.conv1d.weight[:, 0])
            ours["conv_bias"].copy_(other.conv1d.bias)

    def forward(self, x_BLD: Tensor) -> Tensor:
        x_BLE, z_BLE = self.in_proj(x_BLD).chunk(2, dim=-1)
        out: Tensor = self.out_proj(self.direction(x_BLE) * F.silu(z_BLE))
        return out


def hugging_face_layers(width: int) -> dict[str, Callable[[Tensor], Tensor]]:
    """One causal Mamba layer of transformers (its path without kernels) and ours, equal weights.

    Empty where transformers is not installed.
    """
    try:
        from transformers import MambaConfig
        from transformers.models.mamba.modeling_mamba import MambaMixer
    except ImportError:
        return {}
    config = MambaConfig(
        hidden_size=width, num_hidden_layers=1, use_mambapy=False, use_associative_scan=False
    )
    torch.manual_seed(0)
    theirs = MambaMixer(config, layer_idx=0).eval()
    return {"transformers": theirs, "ours": _Layer(theirs).eval()}
