"""Self-attention with rotary positions, a gated MLP, and a mask that hides positions.

Rotary positions: Su et al., arXiv 2104.09864. Gated MLP: Shazeer, arXiv 2002.05202. A mask m adds
``log m`` to the scores of a key, which multiplies its weight by m before the weights are divided by
their sum: 1 is no mask, 0 hides the key.

Shapes: B batch, L positions, S positions of a span, D width, H heads, E channels of a head, F inner
width of the MLP.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, facts
from seq2exp.nn.norm import RMSNorm

__all__ = ["AttentionBlock", "Norm", "RotaryAttention", "make_norm", "rotate"]

Norm = Literal["rms", "layer"]
_BASE = 10_000.0


def make_norm(kind: Norm, width: int) -> RMSNorm | nn.LayerNorm:
    """Make a norm over the last axis.

    Raises
    ------
    ConfigError
        `kind` is neither "rms" nor "layer".
    """
    if kind not in get_args(Norm):
        raise ConfigError(facts("norm", found=repr(kind), expected="rms or layer", fix="use 'rms'"))
    return RMSNorm(width) if kind == "rms" else nn.LayerNorm(width)


def rotate(x_BSHE: Tensor, *, first: int = 0) -> Tensor:
    """Turn channel e and channel e + E/2 of every head by an angle that grows with the position.

    Products of turned queries and keys depend on the distance of their positions only. Angles,
    sines and products are float32 or wider; the result has the dtype of the input.

    Parameters
    ----------
    x_BSHE : float tensor, shape (batch, positions, heads, even number of channels)
    first : int
        Position of the first row.
    """
    half = x_BSHE.shape[-1] // 2
    dtype = torch.promote_types(x_BSHE.dtype, torch.float32)
    at_S = torch.arange(first, first + x_BSHE.shape[1], device=x_BSHE.device, dtype=dtype)
    speed_E = _BASE ** (-torch.arange(half, device=x_BSHE.device, dtype=dtype) / half)
    angle_S1E = (at_S[:, None] * speed_E)[:, None]
    cos, sin = angle_S1E.cos(), angle_S1E.sin()
    left, right = x_BSHE.to(dtype).chunk(2, dim=-1)
    turned = torch.cat([left * cos - right * sin, left * sin + right * cos], dim=-1)
    return turned.to(x_BSHE.dtype)


class RotaryAttention(nn.Module):
    """Self-attention over all positions, by torch's fused kernels where there is no mask.

    Parameters
    ----------
    d_model : int
        Width.
    num_heads : int
        Divides the width into even parts.
    """

    def __init__(self, d_model: int, *, num_heads: int) -> None:
        super().__init__()
        if num_heads < 1 or d_model % (2 * num_heads):
            raise ConfigError(
                facts(
                    "num_heads",
                    found=f"{num_heads} for a width of {d_model}",
                    expected="a divisor of half the width (rotary positions turn pairs)",
                    fix=f"use {math.gcd(d_model // 2, max(num_heads, 1))} heads",
                )
            )
        self.num_heads = num_heads
        self.in_proj = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self,
        u_BLD: Tensor,
        mask_BL: Tensor | None = None,
        *,
        span: tuple[int, int] | None = None,
    ) -> Tensor:
        """Attend from the positions of the span to all, shape (batch, positions of span, width).

        Parameters
        ----------
        mask_BL : float tensor, shape (batch, length), optional
            In [0, 1]. Keys with mask 0 have no influence, and their mask gets no gradient; where
            all keys have mask 0 the result is 0.
        span : tuple of int, optional
            Half-open run of positions whose queries are asked.
        """
        q_BHSE, k_BHLE, v_BHLE = self._project(u_BLD, span)
        bias_B11L = open_B111 = None
        if mask_BL is not None:
            bias_B11L, open_B111 = _key_bias(mask_BL, q_BHSE.dtype)
        out_BHSE = F.scaled_dot_product_attention(q_BHSE, k_BHLE, v_BHLE, attn_mask=bias_B11L)
        if open_B111 is not None:
            out_BHSE = out_BHSE * open_B111
        out_BSD: Tensor = self.out_proj(out_BHSE.transpose(1, 2).flatten(2))
        return out_BSD

    def _project(
        self, u_BLD: Tensor, span: tuple[int, int] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Make turned queries of the span, turned keys, and values; heads before positions."""
        if span is None:
            query, key, value = self.in_proj(u_BLD).chunk(3, dim=-1)
        else:
            width = u_BLD.shape[-1]
            weight = self.in_proj.weight
            query = F.linear(u_BLD[:, slice(*span)], weight[:width])
            key, value = F.linear(u_BLD, weight[width:]).chunk(2, dim=-1)
        split = (self.num_heads, -1)
        turned_BSHE = rotate(query.unflatten(-1, split), first=0 if span is None else span[0])
        keys_BLHE = rotate(key.unflatten(-1, split))
        values_BLHE = value.unflatten(-1, split)
        return turned_BSHE.transpose(1, 2), keys_BLHE.transpose(1, 2), values_BLHE.transpose(1, 2)


def _key_bias(mask_BL: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scores to add per key, and 0 for the windows that have no key at all.

    A window without keys attends to all of them instead, so that nothing divides by zero, and its
    result is then multiplied by 0.
    """
    wide_BL = mask_BL.to(torch.promote_types(mask_BL.dtype, torch.float32))
    hidden_BL = wide_BL < torch.finfo(wide_BL.dtype).tiny
    closed_B1 = hidden_BL.all(1, keepdim=True)
    # The inner `where` keeps the infinite slope of log at 0 out of the gradient.
    bias_BL = torch.where(hidden_BL, 1.0, wide_BL).log()
    bias_BL = torch.where(hidden_BL & ~closed_B1, -math.inf, bias_BL)
    open_B111 = (~closed_B1)[:, None, None].to(dtype)
    return bias_BL[:, None, None].to(dtype), open_B111


class AttentionBlock(nn.Module):
    """Pre-norm attention, then a pre-norm gated MLP, ``W_out (silu(W_g u) * W_u u)``.

    Parameters
    ----------
    d_model : int
        Width.
    num_heads : int
        Heads of the attention.
    d_inner : int
        Inner width of the MLP.
    norm : str
        "rms" or "layer".
    dropout : float
        Dropout on the outputs of attention and MLP.
    """

    def __init__(
        self,
        d_model: int,
        *,
        num_heads: int,
        d_inner: int,
        norm: Norm = "rms",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = make_norm(norm, d_model), make_norm(norm, d_model)
        self.attention = RotaryAttention(d_model, num_heads=num_heads)
        self.fc1 = nn.Linear(d_model, 2 * d_inner, bias=False)
        self.fc2 = nn.Linear(d_inner, d_model, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        residual_BLD: Tensor,
        mask_BL: Tensor | None = None,
        *,
        span: tuple[int, int] | None = None,
    ) -> Tensor:
        """Return the residual stream after the block, shape (batch, positions of span, width).

        The arguments are those of `RotaryAttention.forward`.
        """
        mixed_BSD = self.attention(self.norm1(residual_BLD), mask_BL, span=span)
        if span is not None:
            residual_BLD = residual_BLD[:, slice(*span)]
        residual_BSD = residual_BLD + self.dropout(mixed_BSD)
        gate_BSF, up_BSF = self.fc1(self.norm2(residual_BSD)).chunk(2, dim=-1)
        out_BSD: Tensor = residual_BSD + self.dropout(self.fc2(F.silu(gate_BSF) * up_BSF))
        return out_BSD

    def reads(self, span: tuple[int, int], num_positions: int) -> tuple[int, int]:
        """Positions of the input that those of `span` read: all."""
        del span
        return 0, num_positions

    def flops(self, num_positions: int) -> int:
        """Count the operations of a forward pass.

        Projections and MLP, and ``4 L^2 D`` for the products of queries with keys and of weights
        with values.
        """
        width = self.fc2.out_features
        weights = 4 * width * width + self.fc1.weight.numel() + self.fc2.weight.numel()
        return 2 * num_positions * weights + 4 * num_positions**2 * width

    def kept_numbers(self, num_positions: int) -> int:
        """Count the numbers kept by a fused attention without a mask, the input included.

        Two norms (input and up to two moments), the inputs of the projection and of the MLP, the
        projected values with their storage (3 D), turned queries and keys, the attended values and
        one number per head, sines and cosines, and four times the inner width of the MLP. Attention
        that is not fused keeps ``H L^2`` numbers more.
        """
        width, inner = self.fc2.out_features, self.fc2.in_features
        heads = self.attention.num_heads
        dropped = 2 * width if self.dropout.p else 0
        per_position = 2 * (width + 1) + 2 * width + 6 * width + heads + 2 * width // heads
        return num_positions * (per_position + 4 * inner + dropped)
