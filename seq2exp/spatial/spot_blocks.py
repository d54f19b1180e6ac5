"""Blocks over spots: what a spot's expression says beside that of the spots around it.

Axes: B spots of a batch, G genes (the width), K a spot and its neighbours, H heads, E channels of a
head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SpotBlock", "grid_encoding", "nearest_spots"]

_CHUNK = 512
_FAR = 1 << 60


class SpotBlock(nn.Module):
    """Pre-norm attention over other spots, where wanted, then a pre-norm perceptron.

    S + MHSA(LN S), S + FFN(LN S); heads of 64 channels, no bias on queries, keys and values; the
    perceptron is as wide as its input (mclSTExp, Min et al. 2024).

    Parameters
    ----------
    width : int
    num_heads : int
        0: no attention.
    head_dim : int
    dropout : float
        On both outputs.
    """

    def __init__(
        self, width: int, *, num_heads: int, head_dim: int = 64, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        inner = num_heads * head_dim
        if num_heads:
            self.norm1 = nn.LayerNorm(width)
            self.qkv = nn.Linear(width, 3 * inner, bias=False)
            self.out = nn.Linear(inner, width)
        self.norm2 = nn.LayerNorm(width)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, s_BG: Tensor, near: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return the spots after the block, shape (batch, width).

        Parameters
        ----------
        s_BG : float tensor
        near : tuple of int64 and bool tensors, shape (batch, K), optional
            Rows that each spot attends to, and which of them count; without them each spot
            attends to the whole batch.
        """
        if self.num_heads:
            s_BG = s_BG + self.dropout(self._attend(self.norm1(s_BG), near))
        inner_BG = F.gelu(self.first(self.norm2(s_BG)))
        out_BG: Tensor = s_BG + self.dropout(self.second(inner_BG))
        return out_BG

    def _attend(self, s_BG: Tensor, near: tuple[Tensor, Tensor] | None) -> Tensor:
        q_BHE, k_BHE, v_BHE = self.qkv(s_BG).unflatten(-1, (3, self.num_heads, -1)).unbind(1)
        if near is None:
            mixed_HBE = F.scaled_dot_product_attention(
                q_BHE.transpose(0, 1), k_BHE.transpose(0, 1), v_BHE.transpose(0, 1)
            )
            out_BHE = mixed_HBE.transpose(0, 1)
        else:
            rows_BK, count_BK = near
            score_BKH = torch.einsum("bhe,bkhe->bkh", q_BHE, k_BHE[rows_BK])
            score_BKH = score_BKH / q_BHE.shape[-1] ** 0.5
            least = torch.finfo(score_BKH.dtype).min
            share_BKH = score_BKH.masked_fill(~count_BK[..., None], least).softmax(1)
            out_BHE = torch.einsum("bkh,bkhe->bhe", share_BKH, v_BHE[rows_BK])
        attended_BG: Tensor = self.out(out_BHE.flatten(1))
        return attended_BG


@torch.no_grad()
def nearest_spots(
    grid_B2: Tensor, section_B: Tensor, spot_B: Tensor, *, num_neighbours: int
) -> tuple[Tensor, Tensor]:
    """Find each spot and its nearest spots of the same section, by chunks of spots.

    Equal distances are told apart by the number of the spot, so that the order of the batch does
    not matter.

    Parameters
    ----------
    grid_B2, section_B, spot_B : int64 tensors
        Row and column, section, and number of the spot in it.
    num_neighbours : int

    Returns
    -------
    tuple
        Rows of the batch, int64 of shape (batch, K), K at most 1 + num_neighbours, the spot itself
        first; and which of them are of its section, bool.
    """
    k = min(1 + num_neighbours, len(grid_B2))
    most = int(spot_B.max()) + 1
    rows, counts = [], []
    for start in range(0, len(grid_B2), _CHUNK):
        part = slice(start, start + _CHUNK)
        distance = (grid_B2[part, None] - grid_B2[None]).square().sum(-1)
        rank = distance * most + spot_B[None]
        # The spot itself comes first, whatever its number.
        rank = torch.where(distance == 0, -1, rank)
        rank = rank.masked_fill(section_B[part, None] != section_B[None], _FAR)
        found, row = rank.topk(k, largest=False)
        rows.append(row)
        counts.append(found < _FAR)
    return torch.cat(rows), torch.cat(counts)


def grid_encoding(position_B2: Tensor, width: int, *, std: float = 0.02) -> Tensor:
    """Return sines and cosines of positions between 0 and 1, shape (batch, width).

    Half of the columns read the first coordinate, half the second; wavelengths run from the whole
    array down to a 64th of it. Scaled to the deviation asked for.

    Parameters
    ----------
    position_B2 : float tensor, shape (batch, 2)
    width : int
    std : float
    """
    per_axis = -(-width // 4)
    speed = 2 * torch.pi * 2.0 ** torch.linspace(0, 6, per_axis, device=position_B2.device)
    angle_BP2 = speed[None, :, None] * position_B2[:, None]
    # Columns alternate between the coordinates, so that cutting to the width keeps both.
    waves_BG = torch.cat([angle_BP2.sin(), angle_BP2.cos()], dim=-1).flatten(1)
    return waves_BG[:, :width] * (std * 2**0.5)
