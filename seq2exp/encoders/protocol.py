"""What every encoder offers: trunks mix positions, encoders read windows.

A trunk takes embedded positions and is the generator or predictor of Seq2Exp, or the inside of an
encoder. An encoder takes a window of bases, and tracks where it can, and returns hidden states per
bin.

Shapes: B batch, L base pairs, N positions or bins, T tracks, S positions of a span, D width.
"""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor

__all__ = ["Encoder", "Span", "Strands", "Trunk"]

Span = tuple[int, int]
"""Half-open run of positions that the caller reads."""

Strands = Literal["none", "equivariant"]


class Trunk(Protocol):
    """Mixes embedded positions: ``trunk(hidden_BND, mask_BN) -> hidden_BSD``.

    Attributes
    ----------
    out_dim : int
        Width of the output.
    causal : bool
        Whether a position sees only what lies left of it.
    supports_gate : bool
        Whether `mask_BN` gates the mixing itself, so that a position with mask 0 has no
        influence on the others.
    supports_packing : bool
        Whether it also takes `starts_BN`, true at the first position of each of several sequences
        packed one behind the other.
    """

    out_dim: int
    causal: bool
    supports_gate: bool
    supports_packing: bool

    def __call__(
        self, hidden_BND: Tensor, mask_BN: Tensor | None = None, *, span: Span | None = None
    ) -> Tensor:
        """Hidden states of the positions of `span`, of all when left out.

        With a span, work that no position of it can read is left out; the values are those of the
        whole output.
        """
        ...

    def reads(self, span: Span, num_positions: int) -> Span:
        """Positions of the input that those of `span` read."""
        ...

    def receptive_field(self, num_positions: int) -> int:
        """Count the positions of such a window that one output position can read, itself too."""
        ...

    def flops(self, num_positions: int) -> int:
        """Count the floating-point operations of a forward pass, two for a multiply-add."""
        ...

    def activation_bytes(self, num_positions: int) -> int:
        """Count the bytes that a float32 forward pass keeps for its backward, per window.

        A trunk that runs its blocks again counts their inputs and one live block.
        """
        ...


class Encoder(Protocol):
    """Reads windows: ``encoder(codes_BL, signal_BNT, mask_BN) -> hidden_BSD``.

    Attributes
    ----------
    bin_size : int
        Base pairs per position of the output, and of signal and mask.
    out_dim : int
        Width of the output.
    causal : bool
        Whether a bin sees only what lies left of it.
    rc : str
        equivariant: the reverse complement of the window gives the flipped output, `out_dim` / 2
        channels of each strand, exchanged. none: no such promise.
    takes_tracks : bool
        Whether it reads `signal_BNT`; one that does not raises ConfigError when it is built for
        tracks, and never ignores them.
    window_bp : int or None
        The only window length that is accepted; None accepts every multiple of `bin_size`.
    """

    bin_size: int
    out_dim: int
    causal: bool
    rc: Strands
    takes_tracks: bool
    window_bp: int | None

    def __call__(
        self,
        codes_BL: Tensor,
        signal_BNT: Tensor | None = None,
        mask_BN: Tensor | None = None,
        *,
        span: Span | None = None,
    ) -> Tensor:
        """Hidden states of the bins of `span`, of all when left out.

        Parameters
        ----------
        codes_BL : uint8 tensor, shape (batch, length)
            Bases A0 C1 G2 T3 N4.
        signal_BNT : float tensor, shape (batch, bins, tracks), optional
            Raw signal per bin; NaN where a track is missing.
        mask_BN : float tensor, shape (batch, bins), optional
            Multiplies what is embedded of each bin.
        span : tuple of int, optional
            Half-open run of bins that is read.
        """
        ...

    def receptive_field(self, window_bp: int) -> int:
        """Count the base pairs of a window of this length that one output bin can read."""
        ...

    def flops(self, window_bp: int) -> int:
        """Count the floating-point operations of a forward pass, two for a multiply-add."""
        ...

    def activation_bytes(self, window_bp: int) -> int:
        """Count the bytes that a float32 forward pass keeps for its backward, per window."""
        ...
