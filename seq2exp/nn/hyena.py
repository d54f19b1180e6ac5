"""The Hyena operator with an implicit filter, and the block of HyenaDNA around it.

Poli et al., arXiv 2302.10866; sizes, features and initial values as in HyenaDNA (Nguyen et al.,
arXiv 2306.15794). Filter and Fourier transforms run in float32 or wider whatever the precision of
the rest: half precision cannot tell neighbouring times apart.

Parameters, for readers of published weights (left: names in the released HyenaDNA models, where
``.layer.`` may stand after mixer and mlp; d width, M filter width; the last filter layer has no
bias and the frequencies are one vector under three names there):

=================================================  ===================================  =========
released                                           here                                 shape
=================================================  ===================================  =========
``mixer.in_proj.weight``, ``bias``                 ``mixer.in_proj.weight``, ``bias``   3d, d
``mixer.out_proj.weight``, ``bias``                ``mixer.out_proj.weight``, ``bias``  d, d
``mixer.short_filter.weight`` (3d, 1, 3)           ``mixer.short_weight``               3d, 3
``mixer.short_filter.bias``                        ``mixer.short_bias``                 3d
``mixer.filter_fn.bias``                           ``mixer.implicit_filter.bias``       d
``mixer.filter_fn.implicit_filter.{0,2,4,6}``      ``...implicit_filter.layers.{0..3}``
``mixer.filter_fn.implicit_filter.{1,3,5}.freq``   ``...implicit_filter.freq``          M
``mlp.fc1``, ``mlp.fc2``                           ``fc1``, ``fc2``
``norm1``, ``norm2``                               ``norm1``, ``norm2``                 d
=================================================  ===================================  =========

The released ``pos_emb.z``, ``pos_emb.t`` and ``modulation.deltas`` are formulas here.

Shapes: B batch, L positions, S positions of a span, D width, F position features, M filter width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.core.errors import InputError, facts
from seq2exp.nn.conv import depthwise_conv

__all__ = [
    "HyenaBlock",
    "HyenaOperator",
    "ImplicitFilter",
    "WideLayerNorm",
    "fft_length",
    "long_conv",
]

_BANDS = (1e-4, 1.0)
_FREQUENCY = 10.0
_FAST, _SLOW, _TARGET = 0.3, 1.5, 1e-2
_SHORT_TAPS = 3


def fft_length(count: int) -> int:
    """Smallest length of at least `count` without prime factors above 5.

    >>> [fft_length(count) for count in (1, 7, 14, 202_000)]
    [1, 8, 15, 202500]
    """
    best = 1 << max(count - 1, 0).bit_length()
    five = 1
    while five < best:
        odd = five
        while odd < best:
            rest = -(-count // odd)
            best = min(best, odd << max(rest - 1, 0).bit_length())
            odd *= 3
        five *= 5
    return best


def long_conv(v_BLD: Tensor, filter_LD: Tensor, bias_D: Tensor) -> Tensor:
    """Causal convolution as long as the sequence, plus a skip: ``sum_k f_k v_{t-k} + bias v_t``.

    Runs by Fourier transforms of at least twice the length, so that nothing wraps around.

    Parameters
    ----------
    v_BLD : float tensor, shape (batch, length, channels)
    filter_LD : float tensor, shape (length, channels)
        Float32 or wider; the result has its dtype.
    bias_D : float tensor, shape (channels,)
    """
    run: Callable[..., Tensor] = _LongConv.apply
    return run(v_BLD.to(filter_LD.dtype), filter_LD, bias_D)


class _LongConv(torch.autograd.Function):
    """Keeps values and filter and transforms them again; spectra are twice as long."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  its attributes are made at run time
        v_BLD: Tensor,
        filter_LD: Tensor,
        bias_D: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(v_BLD, filter_LD, bias_D)
        if v_BLD.numel() == 0:  # Fourier libraries refuse empty batches
            return torch.empty_like(v_BLD)
        size = fft_length(2 * v_BLD.shape[1])
        spectrum = _spectrum(v_BLD, size).mul_(_spectrum(filter_LD, size))
        return _signal(spectrum, v_BLD).addcmul_(v_BLD, bias_D)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401  its attributes are made at run time
        grad_BLD: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        v_BLD, filter_LD, bias_D = ctx.saved_tensors
        if v_BLD.numel() == 0:
            return torch.empty_like(v_BLD), torch.zeros_like(filter_LD), torch.zeros_like(bias_D)
        size = fft_length(2 * v_BLD.shape[1])
        # Convolution turns into correlation: conjugate spectra.
        grads = _spectrum(grad_BLD, size)
        along = (grads * _spectrum(v_BLD, size).conj_physical_()).sum(0)
        grads.mul_(_spectrum(filter_LD, size).conj_physical_())
        grad_v_BLD = _signal(grads, v_BLD).addcmul_(grad_BLD, bias_D)
        return grad_v_BLD, _signal(along, filter_LD), (grad_BLD * v_BLD).sum((0, 1))


def _spectrum(x: Tensor, size: int) -> Tensor:
    """Transform along positions, shape (..., channels, size / 2 + 1)."""
    spectrum: Tensor = torch.fft.rfft(x.transpose(-1, -2), n=size)
    return spectrum


def _signal(spectrum: Tensor, like: Tensor) -> Tensor:
    """Transform back to as many positions as `like` has."""
    length = like.shape[-2]
    signal: Tensor = torch.fft.irfft(spectrum, n=fft_length(2 * length))[..., :length]
    return signal.transpose(-1, -2).contiguous()


class ImplicitFilter(nn.Module):
    """A filter as a function of time: a small sine network times an exponential decay.

    Time runs from 0 to 1 over `l_max` positions, whatever the length of the sequence. No weight
    decay belongs on these parameters: the optimiser must spare names that start with
    ``implicit_filter``.

    Parameters
    ----------
    d_model : int
        Channels of the filter.
    l_max : int
        Longest sequence.
    width : int
        Width of the hidden layers.
    num_inner : int
        Hidden layers after the first.
    shift : float
        Added to the decay: what remains of the filter far away.
    """

    def __init__(
        self,
        d_model: int,
        *,
        l_max: int,
        width: int = 64,
        num_inner: int = 2,
        shift: float = 0.0,
    ) -> None:
        super().__init__()
        self.l_max, self.shift = l_max, shift
        widths = [1 + 2 * len(_BANDS), *[width] * (1 + num_inner)]
        self.layers = nn.ModuleList(
            nn.Linear(before, after) for before, after in itertools.pairwise(widths)
        )
        self.layers.append(nn.Linear(width, d_model, bias=False))
        self.freq = nn.Parameter(torch.full((width,), _FREQUENCY))
        self.bias = nn.Parameter(torch.randn(d_model))

    def _linears(self) -> list[nn.Linear]:
        return [cast("nn.Linear", layer) for layer in self.layers]

    def features(self, length: int) -> Tensor:
        """Time, and cosines and negative sines of its bands; float64, shape (length, 5)."""
        at_L = torch.arange(length, device=self.freq.device, dtype=torch.float64)
        angle_L2 = (2 * math.pi / self.l_max) * at_L[:, None] * at_L.new_tensor(_BANDS)
        time_L1 = at_L[:, None] / max(self.l_max - 1, 1)
        return torch.cat([time_L1, torch.cos(angle_L2), -torch.sin(angle_L2)], dim=1)

    def forward(self, length: int) -> Tensor:
        """First `length` positions of the filter, shape (length, channels), at least float32."""
        dtype = torch.promote_types(self.freq.dtype, torch.float32)
        features_LF = self.features(length).to(dtype)
        with torch.autocast(device_type=self.freq.device.type, enabled=False):
            x_LM, freq_M = features_LF, self.freq.to(dtype)
            for layer in self._linears()[:-1]:
                x_LM = torch.sin(freq_M * _linear(layer, x_LM))
            filter_LD = _linear(self._linears()[-1], x_LM)
        low, high = math.log(_TARGET) / _SLOW, math.log(_TARGET) / _FAST
        rate_D = torch.linspace(low, high, filter_LD.shape[1], device=self.freq.device, dtype=dtype)
        decay_LD = torch.exp(-features_LF[:, :1] * rate_D.abs()) + self.shift
        return filter_LD * decay_LD

    def flops(self, length: int) -> int:
        """Count the operations that make the filter, once for a whole batch."""
        return 2 * length * sum(layer.weight.numel() for layer in self._linears())

    def kept_per_position(self) -> int:
        """Count the numbers kept at one time: features and decay, and 4 per unit and layer.

        Each sine layer keeps its input, the output of its product, that times the frequency, and
        the filter keeps itself before its decay.
        """
        width, channels = len(self.freq), len(self.bias)
        return 1 + 2 * len(_BANDS) + channels + 3 * width * (len(self.layers) - 1)


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a linear layer in the dtype of its input."""
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return F.linear(x, layer.weight.to(x.dtype), bias)


class HyenaOperator(nn.Module):
    """Hyena of order 2: ``W_out (x0 * conv(x1 * v))`` with x0, x1, v projected from the input.

    Parameters
    ----------
    d_model : int
        Width.
    l_max : int
        Longest sequence; scales the time of the filter.
    filter_width : int
        Width of the filter network.
    filter_shift : float
        Added to the decay of the filter.
    """

    def __init__(
        self, d_model: int, *, l_max: int, filter_width: int = 64, filter_shift: float = 0.0
    ) -> None:
        super().__init__()
        self.l_max = l_max
        self.in_proj = nn.Linear(d_model, 3 * d_model)
        bound = 1 / math.sqrt(_SHORT_TAPS)
        self.short_weight = nn.Parameter(
            torch.empty(3 * d_model, _SHORT_TAPS).uniform_(-bound, bound)
        )
        self.short_bias = nn.Parameter(torch.empty(3 * d_model).uniform_(-bound, bound))
        self.implicit_filter = ImplicitFilter(
            d_model, l_max=l_max, width=filter_width, shift=filter_shift
        )
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(
        self,
        u_BLD: Tensor,
        mask_BL: Tensor | None = None,
        *,
        span: tuple[int, int] | None = None,
    ) -> Tensor:
        """Mix along the sequence, shape (batch, positions of the span, width).

        Parameters
        ----------
        mask_BL : float tensor, shape (batch, length), optional
            Multiplies what a position gives to the short and to the long convolution.
        span : tuple of int, optional
            Half-open run of positions that is returned; what lies right of it is not computed.

        Raises
        ------
        InputError
            The sequence is longer than `l_max`.
        """
        first, stop = (0, u_BLD.shape[1]) if span is None else span
        self._check_length(stop)
        u_BLD = u_BLD[:, :stop]
        mask_BL1 = None if mask_BL is None else mask_BL[:, :stop, None].to(u_BLD.dtype)
        width = u_BLD.shape[2]
        # x0 is read inside of the span only; its convolution sees two positions more.
        before = max(0, first - (_SHORT_TAPS - 1))
        gate_BSD = self._project(u_BLD, mask_BL1, slice(0, width), before)[:, first - before :]
        x1, v = self._project(u_BLD, mask_BL1, slice(width, None), 0).chunk(2, dim=-1)
        v_BLD = x1 * v
        if mask_BL1 is not None:
            v_BLD = v_BLD * mask_BL1.to(v_BLD.dtype)
        filter_LD = self.implicit_filter(stop)
        bias_D = self.implicit_filter.bias.to(filter_LD.dtype)
        mixed_BSD = long_conv(v_BLD, filter_LD, bias_D)[:, first:].to(gate_BSD.dtype)
        out_BSD: Tensor = self.out_proj(mixed_BSD * gate_BSD)
        return out_BSD

    def _project(self, u_BLD: Tensor, mask_BL1: Tensor | None, rows: slice, first: int) -> Tensor:
        """Run some channels of in-projection and short convolution from position `first` on."""
        x = F.linear(u_BLD[:, first:], self.in_proj.weight[rows], self.in_proj.bias[rows])
        if mask_BL1 is not None:
            x = x * mask_BL1[:, first:].to(x.dtype)
        return depthwise_conv(x, self.short_weight[rows], self.short_bias[rows])

    def _check_length(self, length: int) -> None:
        if length > self.l_max:
            raise InputError(
                facts(
                    "Hyena operator",
                    found=f"{length} positions",
                    expected=f"at most l_max = {self.l_max}",
                    fix="use a shorter window, or a model of a larger l_max",
                )
            )

    def flops(self, num_positions: int) -> int:
        """Count the operations of a window.

        A real Fourier transform of size n counts ``2.5 n log2 n``; there are three per channel
        (values, filter, back) and a complex product of 6 per frequency.
        """
        width = self.out_proj.out_features
        size = fft_length(2 * num_positions)
        transforms = round(width * (3 * 2.5 * size * math.log2(max(size, 1)) + 6 * (size // 2 + 1)))
        products = 2 * num_positions * (4 * width * width + _SHORT_TAPS * 3 * width)
        return products + transforms + self.implicit_filter.flops(num_positions)

    def kept_numbers(self, num_positions: int) -> int:
        """Count the numbers kept for the backward.

        Per position input (D), projected and convolved channels (6 D), the product x1 v (D), the
        mixed values (D), their product with the gate (D), the filter (D) and what it keeps.
        """
        width = self.out_proj.out_features
        return num_positions * (11 * width + self.implicit_filter.kept_per_position())


class WideLayerNorm(nn.LayerNorm):
    """Layer norm that computes in the precision of its input and returns that of its weights."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise over the last axis."""
        dtype = torch.promote_types(input.dtype, torch.float32)
        weight, bias = self.weight.to(dtype), self.bias.to(dtype)
        with torch.autocast(device_type=input.device.type, enabled=False):
            wide = F.layer_norm(input.to(dtype), self.normalized_shape, weight, bias, self.eps)
        return wide.to(self.weight.dtype)


class HyenaBlock(nn.Module):
    """Pre-norm residual block: Hyena operator, then a tanh-GELU MLP; residuals stay in float32.

    Parameters
    ----------
    d_model : int
        Width.
    l_max : int
        Longest sequence.
    d_inner : int
        Width of the hidden layer of the MLP.
    filter_width : int
        Width of the filter network.
    filter_shift : float
        Added to the decay of the filter.
    dropout : float
        Dropout on the outputs of operator and MLP.
    """

    def __init__(
        self,
        d_model: int,
        *,
        l_max: int,
        d_inner: int,
        filter_width: int = 64,
        filter_shift: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = WideLayerNorm(d_model), WideLayerNorm(d_model)
        self.mixer = HyenaOperator(
            d_model, l_max=l_max, filter_width=filter_width, filter_shift=filter_shift
        )
        self.fc1, self.fc2 = nn.Linear(d_model, d_inner), nn.Linear(d_inner, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        residual_BLD: Tensor,
        mask_BL: Tensor | None = None,
        *,
        span: tuple[int, int] | None = None,
    ) -> Tensor:
        """Return the residual stream after the block, shape (batch, positions of span, width).

        The arguments are those of `HyenaOperator.forward`.
        """
        wide = torch.promote_types(residual_BLD.dtype, torch.float32)
        mixed_BSD = self.mixer(self.norm1(residual_BLD), mask_BL, span=span)
        if span is not None:
            residual_BLD = residual_BLD[:, slice(*span)]
        residual_BSD = residual_BLD.to(wide) + self.dropout(mixed_BSD)
        hidden_BSM = F.gelu(self.fc1(self.norm2(residual_BSD)), approximate="tanh")
        out_BSD: Tensor = residual_BSD + self.dropout(self.fc2(hidden_BSM))
        return out_BSD

    def reads(self, span: tuple[int, int], num_positions: int) -> tuple[int, int]:
        """Positions of the input that those of `span` read: none right of it."""
        del num_positions
        return 0, span[1]

    def flops(self, num_positions: int) -> int:
        """Count the floating-point operations of a forward pass, the filter's included."""
        products = self.fc1.weight.numel() + self.fc2.weight.numel()
        return self.mixer.flops(num_positions) + 2 * num_positions * products

    def kept_numbers(self, num_positions: int) -> int:
        """Count the numbers that a forward pass keeps for its backward, the input included.

        Beside the operator's: two norms (input and two moments each), the input of the MLP, and its
        hidden layer before and after the GELU.
        """
        d_model, d_inner = self.fc1.in_features, self.fc1.out_features
        dropped = 2 * d_model if self.dropout.p else 0
        per_position = 2 * (d_model + 2) + d_model + 2 * d_inner + dropped
        return self.mixer.kept_numbers(num_positions) + num_positions * per_position
