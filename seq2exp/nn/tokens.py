"""Token table of the published DNA language models, addressed by base codes.

The character tokenizer of HyenaDNA and Caduceus numbers its special tokens 0 to 6 and A7, C8, G9,
T10, N11; the table is padded to a multiple of 8 rows (kuleshov-group/caduceus and
HazyResearch/hyena-dna).

Shapes: B batch, L base pairs, C the four bases A C G T, D width, V rows of the table.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["FIRST_BASE_ID", "NUM_ROWS", "TokenTable", "complement_ids", "token_ids"]

FIRST_BASE_ID = 7
"""Id of A; C, G, T and N follow."""
NUM_ROWS = 16
"""Rows of the table: 12 tokens, padded to a multiple of 8."""
_INIT_STD = 0.02


def token_ids(codes_BL: Tensor) -> Tensor:
    """Return the ids of base codes A0 C1 G2 T3 N4, int64."""
    return codes_BL.to(torch.int64) + FIRST_BASE_ID


def complement_ids() -> Tensor:
    """Return the id of every token's complement, int64, shape (rows,): A with T, C with G."""
    ids_V = torch.arange(NUM_ROWS)
    bases = slice(FIRST_BASE_ID, FIRST_BASE_ID + 4)
    ids_V[bases] = ids_V[bases].flip(0)
    return ids_V


class TokenTable(nn.Module):
    """Embedding by look-up, with the rows that the published models have.

    Parameters
    ----------
    d_model : int
        Width.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(NUM_ROWS, d_model).normal_(std=_INIT_STD))

    def tokens(self, ids_BL: Tensor) -> Tensor:
        """Embed token ids, shape (batch, length, width)."""
        return F.embedding(ids_BL, self.weight)

    def forward(self, bases: Tensor) -> Tensor:
        """Embed bases through the rows of their letters, shape (batch, length, width).

        Parameters
        ----------
        bases : uint8 tensor, shape (batch, length), or float tensor, shape (batch, length, 4)
            Codes A0 C1 G2 T3 N4, or columns A C G T, for gradients with respect to the bases. What
            a row lacks to the sum 1 counts as N, so a zero row is N; for exact one-hot rows the
            result is that of the codes bit for bit.
        """
        if bases.ndim == 2:
            return self.tokens(token_ids(bases))
        bases_BLC = bases.to(self.weight.dtype)
        n_BL1 = 1 - bases_BLC.sum(-1, keepdim=True)
        rows = self.weight[FIRST_BASE_ID : FIRST_BASE_ID + 5]
        embedded_BLD: Tensor = torch.cat([bases_BLC, n_BL1], dim=-1) @ rows
        return embedded_BLD
