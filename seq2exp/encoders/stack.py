"""The trunk that all families share: a stack of pre-norm residual blocks and a final norm.

A block says which positions of its input a span of its output reads. From the last block to the
first this gives the spans in which each has to be computed, so that what nobody can read is never
made: the right side of causal nets, all but the receptive field of dilated convolutions, and the
queries, gates and projections of the last block outside of the span.

Shapes: B batch, N positions, S positions of the span, D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, cast

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.encoders.protocol import Span

__all__ = ["Block", "BlockTrunk", "require_positive"]


class Block(Protocol):
    """A residual block; one of a trunk that supports packing takes `starts_BL` as well."""

    def __call__(
        self, residual_BND: Tensor, mask_BN: Tensor | None = None, *, span: Span | None = None
    ) -> Tensor:
        """Residual stream after the block, for the positions of `span`."""
        ...

    def reads(self, span: Span, num_positions: int) -> Span:
        """Positions of the input that those of `span` read."""
        ...

    def flops(self, num_positions: int) -> int:
        """Count the floating-point operations of a forward pass."""
        ...

    def kept_numbers(self, num_positions: int) -> int:
        """Count the numbers that a forward pass keeps for its backward, the input included."""
        ...


class BlockTrunk(nn.Module):
    """Runs blocks one after the other, each only where it is read.

    Parameters
    ----------
    d_model : int
        Width of the hidden states.
    blocks : iterable of Block
        From the first to the last; none leaves only the final norm.
    recompute : bool
        Keep only the input of each block and run the block again in the backward pass.
    norm : Module or None
        Final norm; None leaves the residual stream as it is.
    """

    causal = False
    supports_gate = True
    supports_packing = False

    def __init__(
        self,
        d_model: int,
        *,
        blocks: Iterable[nn.Module],
        recompute: bool = False,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.out_dim = d_model
        self.recompute = recompute
        self.layers = nn.ModuleList(blocks)
        self.norm_f = nn.Identity() if norm is None else norm

    def forward(
        self,
        hidden_BND: Tensor,
        mask_BN: Tensor | None = None,
        *,
        span: Span | None = None,
        starts_BN: Tensor | None = None,
        done: int = 0,
    ) -> Tensor:
        """Hidden states of the positions of `span`, of all when left out.

        Parameters
        ----------
        hidden_BND : float tensor, shape (batch, positions, width)
        mask_BN : float tensor, shape (batch, positions), optional
            Gates every block from inside: a position with mask 0 has no influence on the others.
        span : tuple of int, optional
            Half-open run of positions that is returned.
        starts_BN : bool tensor, shape (batch, positions), optional
            True at the first position of each of several sequences packed one behind the other;
            nothing crosses from one into the next.
        done : int
            First blocks that are left out; `hidden_BND` is what they gave for all positions.

        Raises
        ------
        InputError
            A span outside of the positions, or packed sequences for a trunk that cannot take them.
        """
        if starts_BN is not None and not self.supports_packing:
            raise InputError(
                facts(
                    f"trunk {type(self).__name__}",
                    found="packed sequences (starts)",
                    expected="one sequence per row",
                    fix="give every sequence its own row, or use a Mamba trunk",
                )
            )
        num_positions = hidden_BND.shape[1]
        base, spans = self.spans(_checked(span, num_positions), num_positions)
        base, spans = (spans[done - 1] if done else base), spans[done:]
        hidden_BND = hidden_BND[:, slice(*base)]
        mask_BN, starts_BN = _part(mask_BN, base), _part(starts_BN, base)
        for layer, (first, stop) in zip(self.layers[done:], spans, strict=True):
            wanted = first - base[0], stop - base[0]
            part = None if wanted == (0, hidden_BND.shape[1]) else wanted
            packing = {} if starts_BN is None else {"starts_BL": starts_BN}
            hidden_BND = self._run(layer, hidden_BND, mask_BN, span=part, **packing)
            mask_BN, starts_BN = _part(mask_BN, wanted), _part(starts_BN, wanted)
            base = first, stop
        out_BSD: Tensor = self.norm_f(hidden_BND)
        return out_BSD

    def _run(
        self,
        layer: nn.Module,
        hidden_BND: Tensor,
        mask_BN: Tensor | None,
        **where: Any,  # noqa: ANN401
    ) -> Tensor:
        if self.recompute and self.training:
            again: Tensor = checkpoint(layer, hidden_BND, mask_BN, use_reentrant=False, **where)
            return again
        out: Tensor = layer(hidden_BND, mask_BN, **where)
        return out

    def _blocks(self) -> list[Block]:
        return [cast("Block", layer) for layer in self.layers]

    @property
    def reaches(self) -> list[int] | None:
        """Positions to either side that each block reads; None where one reads all of them.

        Blocks of finite reach say so with an attribute `reach`.
        """
        found = [getattr(layer, "reach", None) for layer in self.layers]
        known = [reach for reach in found if reach is not None]
        return known if known and len(known) == len(found) else None

    def spans(self, span: Span, num_positions: int) -> tuple[Span, list[Span]]:
        """Positions of the input that are read, and those that each block has to return."""
        spans = []
        for block in reversed(self._blocks()):
            spans.append(span)
            span = block.reads(span, num_positions)
        return span, spans[::-1]

    def reads(self, span: Span, num_positions: int) -> Span:
        """Positions of the input that those of `span` read."""
        return self.spans(span, num_positions)[0]

    def receptive_field(self, num_positions: int) -> int:
        """Count the positions of such a window that one output position can read, itself too."""
        middle, last = num_positions // 2, num_positions - 1
        reads = [self.reads((at, at + 1), num_positions) for at in (middle, last)]
        return max(stop - first for first, stop in reads)

    def flops(self, num_positions: int) -> int:
        """Count the floating-point operations of a forward pass, two for a multiply-add.

        Products, convolutions, attention and scans count; norms, activations and gates do not.
        With a span of a causal trunk the count is that of its end.
        """
        return sum(block.flops(num_positions) for block in self._blocks())

    def activation_bytes(self, num_positions: int) -> int:
        """Count the bytes that a float32 forward pass keeps for its backward, per window.

        With `recompute` these are the inputs of all blocks and, at the time when a block runs
        again, what that block keeps.
        """
        kept = [block.kept_numbers(num_positions) for block in self._blocks()]
        inputs = num_positions * self.out_dim
        total = 0 if isinstance(self.norm_f, nn.Identity) else inputs + num_positions
        if self.recompute and kept:
            total += inputs * (len(kept) - 1) + max(kept)
        else:
            total += sum(kept)
        return 4 * total


def _checked(span: Span | None, num_positions: int) -> Span:
    if span is None:
        return 0, num_positions
    if not 0 <= span[0] < span[1] <= num_positions:
        raise InputError(
            facts(
                "span",
                found=f"{span[0]} to {span[1]}",
                expected=f"a run of positions between 0 and {num_positions}, end not included",
                fix="give positions of the window, or leave the span out",
            )
        )
    return span


def _part(values_BN: Tensor | None, span: Span) -> Tensor | None:
    return None if values_BN is None else values_BN[:, slice(*span)]


def require_positive(where: str, **values: int) -> None:
    """Refuse sizes below 1.

    Raises
    ------
    ConfigError
        The first value that is too small, with its name.
    """
    for name, value in values.items():
        if value < 1:
            raise ConfigError(
                facts(f"{where}, {name}", found=value, expected="at least 1", fix=f"raise {name}")
            )
