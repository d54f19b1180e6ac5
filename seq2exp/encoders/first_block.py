"""The first block of a bidirectional Mamba for edits of one window.

Left of an edit the forward scan is that of the window without edits, right of it the backward scan;
projections and convolutions differ near the edit only. So each scan starts at the edit, from a
state that was kept, and half of the scans and nearly all of the projections are left out. Behind
the first block every position differs. Values are those of a whole pass.

Shapes: B edits, N bins, D width, E inner width.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.encoders.stack import BlockTrunk
from seq2exp.nn.mamba import BiMambaBlock, BiMambaMixer, MambaDirection
from seq2exp.nn.scan import run_scan

__all__ = ["FirstBlock", "first_block"]

# Bins between two states that are kept.
_STEP = 32
_PER_BIN = ("u_BLE", "delta_BLE", "B_BLN", "C_BLN")


def first_block(trunk: nn.Module | None, hidden_1ND: Tensor) -> FirstBlock | None:
    """Look at the first of several bidirectional Mamba blocks; None for every other trunk.

    Parameters
    ----------
    trunk : Module or None
    hidden_1ND : float tensor, shape (1, bins, width)
        Its input without edits.
    """
    if not isinstance(trunk, BlockTrunk) or len(trunk.layers) < 2:
        return None
    block = trunk.layers[0]
    return FirstBlock(block, hidden_1ND) if isinstance(block, BiMambaBlock) else None


class FirstBlock:
    """A block and what it makes of one window.

    Parameters
    ----------
    block : BiMambaBlock
    hidden_1ND : float tensor, shape (1, bins, width)
        Input without edits.
    """

    def __init__(self, block: BiMambaBlock, hidden_1ND: Tensor) -> None:
        self.block, self.num_bins = block, hidden_1ND.shape[1]
        self.mixer: BiMambaMixer = block.mixer
        x_1NE, z_1NE = self._project(hidden_1ND, slice(None))
        self.gate_1NE = F.silu(z_1NE)
        directions = self.mixer.fwd, self.mixer.rev
        self.ways = [_Way(one, x_1NE, self.mixer.backend) for one in directions]

    def __call__(self, hidden_BND: Tensor, changed_BN: Tensor, reads: tuple[int, int]) -> Tensor:
        """Return the residual stream after the block, shape (batch, bins, width).

        Parameters
        ----------
        hidden_BND : float tensor, shape (batch, bins, width)
            Edited input.
        changed_BN : bool tensor, shape (batch, bins)
            Where the windows differ from the one without edits.
        reads : tuple of int
            Bins that a bin of the input reads before and after itself.
        """
        places = changed_BN.any(0).nonzero()[:, 0].tolist() or [0]
        low, high = max(0, places[0] - reads[1]), min(self.num_bins, places[-1] + 1 + reads[0])
        reach = self.mixer.fwd.conv_weight.shape[1] - 1
        first, stop = max(0, low - reach), min(self.num_bins, high + reach)
        x_BPE, z_BPE = self._project(hidden_BND, slice(first, stop))
        forward, backward = self.ways
        y_BNE = forward(x_BPE, first, (low, stop)) + backward(x_BPE, first, (first, high))
        own = slice(low - first, high - first)
        y_BNE[:, :low] *= self.gate_1NE[:, :low]
        y_BNE[:, low:high] *= F.silu(z_BPE[:, own])
        y_BNE[:, high:] *= self.gate_1NE[:, high:]
        out_BND: Tensor = hidden_BND + self.mixer.out_proj(y_BNE)
        return out_BND

    def _project(self, hidden_BND: Tensor, where: slice) -> tuple[Tensor, Tensor]:
        normed_BPD = self.block.norm(hidden_BND[:, where])
        x_BPE, z_BPE = self.mixer.in_proj(normed_BPD).chunk(2, dim=-1)
        return x_BPE, z_BPE


class _Way:
    """One scan over the window without edits, and its states on the way."""

    def __init__(self, direction: MambaDirection, x_1NE: Tensor, backend: str) -> None:
        self.direction, self.backend = direction, backend
        self.inputs = direction.scan_inputs(x_1NE)
        self.num_bins = num_bins = x_1NE.shape[1]
        edges = [*range(0, num_bins, _STEP), num_bins]
        spans = list(itertools.pairwise(edges))
        # The state before each span, by the edge at which the scan enters it.
        self.states: dict[int, Tensor] = {}
        state, outs = self.inputs.initial_state_BEN, []
        for span in reversed(spans) if direction.reverse else spans:
            self.states[span[direction.reverse]] = state
            part = {name: getattr(self.inputs, name)[:, slice(*span)] for name in _PER_BIN}
            y_1PE, state = self._scan(state, part)
            outs.append(y_1PE)
        self.out_1NE = torch.cat(outs[::-1] if direction.reverse else outs, dim=1)

    def __call__(self, x_BPE: Tensor, first: int, changed: tuple[int, int]) -> Tensor:
        """Return the output of the scan for edited windows, shape (batch, bins, inner width).

        Parameters
        ----------
        x_BPE : float tensor, shape (batch, bins of a piece, inner width)
            Output of the in-projection on a piece of the edited windows.
        first : int
            Bin that the piece starts with.
        changed : tuple of int
            Half-open run of bins at which the convolution may differ.
        """
        fresh = self.direction.scan_inputs(x_BPE)
        low, high = changed
        if self.direction.reverse:
            stop = min(self.num_bins, -(-high // _STEP) * _STEP)
            start, entry = 0, stop
        else:
            start, stop = low // _STEP * _STEP, self.num_bins
            entry = start
        parts = {}
        for name in _PER_BIN:
            old, new = getattr(self.inputs, name), getattr(fresh, name)
            pieces = _expanded(old[:, start:low], new), new[:, low - first : high - first]
            parts[name] = torch.cat([*pieces, _expanded(old[:, high:stop], new)], dim=1)
        state_BEN = _expanded(self.states[entry], x_BPE)
        y_BPE, _ = self._scan(state_BEN, parts)
        left, right = self.out_1NE[:, :start], self.out_1NE[:, stop:]
        return torch.cat([_expanded(left, y_BPE), y_BPE, _expanded(right, y_BPE)], dim=1)

    def _scan(self, state_BEN: Tensor, parts: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        changes: dict[str, Any] = {"initial_state_BEN": state_BEN, **parts}
        inputs = replace(self.inputs, **changes)
        return run_scan(inputs, backend=self.backend)


def _expanded(values: Tensor, like: Tensor) -> Tensor:
    return values.expand(len(like), *values.shape[1:])
