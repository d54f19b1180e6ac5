"""A stem that counts words: every k-mer has its own vector, and a bin is the sum of its words.

A convolution has to find its filters by gradient descent from noise, which takes many genes. A
table of words is linear in the sequence from the start, as in a ridge on k-mer counts, and is
learned from a few hundred genes. Words are read without regard to strand: a word and its reverse
complement share a vector. Only words that lie wholly inside a bin count, so a bin never shows its
neighbours anything.

Shapes: B batch, L base pairs, N bins, W words per bin, C channels, D model width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, facts
from seq2exp.nn.norm import rms_norm

__all__ = ["KmerStem", "word_numbers"]

_INIT_STD = 0.02


def word_numbers(codes_BL: Tensor, *, length: int) -> Tensor:
    """Return the number of every k-mer as a strand-free word; with an N, the last number.

    Parameters
    ----------
    codes_BL : uint8 tensor, shape (batch, length of the window)
        Bases A0 C1 G2 T3 N4.
    length : int
        Letters per word (k).

    Returns
    -------
    int64 tensor, shape (batch, length of the window - k + 1)
        Smaller of the base-4 numbers of the word and of its reverse complement, in
        ``[0, 4**k)``; ``4**k`` where the word holds an N.
    """
    windows_BWK = codes_BL.long().unfold(1, length, 1)
    powers_K = 4 ** torch.arange(length - 1, -1, -1, device=codes_BL.device)
    known_BWK = windows_BWK.clamp(max=3)
    forward_BW = (known_BWK * powers_K).sum(-1)
    reverse_BW = ((3 - known_BWK) * powers_K.flip(0)).sum(-1)
    broken_BW = (windows_BWK > 3).any(-1)
    return torch.minimum(forward_BW, reverse_BW).masked_fill(broken_BW, 4**length)


def _word_weights(columns: Tensor, length: int) -> Tensor:
    """Products of the columns of all words, shape (bins, words of the bin, 4**length)."""
    num_words = columns.shape[1] - length + 1
    weights = columns.new_ones((len(columns), num_words, 1))
    for letter in range(length):
        more = columns[:, letter : letter + num_words]
        weights = (weights[..., None] * more[:, :, None]).flatten(2)
    return weights


class KmerStem(nn.Module):
    """Sum of the vectors of the words inside each bin, normed, activated and projected.

    Parameters
    ----------
    d_model : int
        Width of the embedding.
    bin_size : int
        Base pairs per bin, at least `length`.
    length : int
        Letters per word, 1 to 8.
    channels : int
        Width of a word's vector.
    word_dropout : float
        Share of the words that is left out at random in training.
    dropout : float
        Dropout on the bin's channels.
    """

    def __init__(
        self,
        d_model: int,
        *,
        bin_size: int,
        length: int,
        channels: int,
        word_dropout: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not 1 <= length <= min(8, bin_size):
            raise ConfigError(
                facts(
                    "stem.kmer",
                    found=length,
                    expected=f"between 1 and {min(8, bin_size)}, for bins of {bin_size} bp",
                    fix="use 6, or larger bins",
                )
            )
        self.bin_size, self.length, self.word_dropout = bin_size, length, word_dropout
        self.words = nn.Embedding(4**length + 1, channels, padding_idx=4**length)
        nn.init.normal_(self.words.weight, std=_INIT_STD)
        with torch.no_grad():
            self.words.weight[-1] = 0
        self.scale = nn.Parameter(torch.ones(channels))
        self.dropout = nn.Dropout(dropout)
        self.proj = nn.Linear(channels, d_model)

    def scan_bases(self, codes_BL: Tensor) -> tuple[Tensor, ...]:
        """Embed every bin; nothing depends on the mask."""
        batch, num_bases = codes_BL.shape[:2]
        bins = codes_BL.reshape(-1, self.bin_size, *codes_BL.shape[2:])
        summed = self._sum_columns(bins) if bins.ndim == 3 else self._sum_words(bins)
        # Counts of independent words grow with their number, their noise with its root.
        summed = summed / math.sqrt(self.bin_size - self.length + 1)
        activated = self.dropout(F.gelu(rms_norm(summed, self.scale)))
        shape = (batch, num_bases // self.bin_size, self.proj.out_features)
        return (self.proj(activated).view(shape),)

    def _sum_words(self, bins: Tensor) -> Tensor:
        """Sum the vectors of the words of every bin of codes."""
        numbers = word_numbers(bins, length=self.length)
        if self.training and self.word_dropout:
            drop = torch.rand(numbers.shape, device=numbers.device) < self.word_dropout
            numbers = numbers.masked_fill(drop, 4**self.length)
        return F.embedding_bag(
            numbers, self.words.weight, mode="sum", padding_idx=self.words.padding_idx
        )

    def _sum_columns(self, bins: Tensor) -> Tensor:
        """Sum the vectors of all words, each weighted by the product of its bases' columns.

        The multilinear extension of the sum over words: equal to it for one-hot columns, with the
        values after a substitution as its partial derivatives there. No word is left out.
        """
        length = self.length
        columns = bins.to(self.words.weight.dtype)
        first = _word_weights(columns[:, : self.bin_size - length + length // 2], length // 2)
        second = _word_weights(columns[:, length // 2 :], length - length // 2)
        # The two halves of every word meet in one product per bin.
        counts = first.transpose(1, 2) @ second
        words = torch.cartesian_prod(*[torch.arange(4, device=bins.device)] * length)
        numbers = word_numbers(words.reshape(-1, length), length=length)[:, 0]
        return counts.flatten(1) @ self.words.weight[numbers]

    def forward(self, scan: tuple[Tensor, ...], mask_BN: Tensor | None = None) -> Tensor:
        """Return the embedding, shape (batch, bins, width); no bin reads another."""
        del mask_BN
        return scan[0]

    def margins(self) -> tuple[int, int]:
        """Count the base pairs before and after a bin that its embedding reads: none."""
        return 0, 0

    def flops(self, num_bins: int) -> int:
        """Count the sums of the words' vectors and the projection."""
        num_words = self.bin_size - self.length + 1
        return num_bins * (num_words * self.words.embedding_dim + 2 * self.proj.weight.numel())

    def kept_numbers(self, num_bins: int) -> int:
        """Count the numbers of four bytes that are kept for the backward.

        Word numbers of eight bytes and the bins to which they belong, and the channels at the norm,
        the activation and the projection.
        """
        num_words = self.bin_size - self.length + 1
        return num_bins * (4 * num_words + 3 * self.words.embedding_dim + 1)
