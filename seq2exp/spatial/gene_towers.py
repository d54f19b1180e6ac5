"""Encoders of a spot's expression, from labels to a vector.

Those that read gene tokens (priorpool, tokens) serve any panel whose genes have tokens; the others
know genes by column and serve the panel they were trained on.

Axes: B spots of a batch, S reference spots, G genes, D width, H heads, E channels of a head.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from seq2exp.core.errors import ConfigError, facts
from seq2exp.spatial.genes import GeneInputs, GeneTokenEncoder
from seq2exp.spatial.standard import RunningStandard

__all__ = [
    "GeneTower",
    "GeneTowerKind",
    "LinearGenes",
    "MlpGenes",
    "PcaGenes",
    "PriorPool",
    "TokenPool",
    "make_gene_tower",
]

GeneTowerKind = Literal["mlp", "linear", "pca", "priorpool", "tokens"]


class GeneTower(nn.Module):
    """Standardises labels gene by gene and encodes them.

    Parameters
    ----------
    num_genes, width : int
        Genes of the panel; width of the result.
    """

    def __init__(self, num_genes: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.standard = RunningStandard(num_genes)

    def forward(self, y_BG: Tensor) -> Tensor:
        """Return a vector per spot, shape (batch, width); NaN marks genes not measured."""
        return self.encode(self.standard(y_BG), torch.isfinite(y_BG))

    def encode(self, y_BG: Tensor, known_BG: Tensor) -> Tensor:
        """Encode standardised labels, 0 where `known_BG` is False."""
        raise NotImplementedError

    def use_genes(self, genes: GeneInputs, y_SG: Tensor) -> None:
        """Serve another panel from now on.

        Parameters
        ----------
        genes : GeneInputs
        y_SG : float tensor, shape (num_spots, num_genes)
            Labels of reference spots, for the mean and deviation of the genes.

        Raises
        ------
        ConfigError
            The encoder knows genes by column.
        """
        tokens = getattr(self, "tokens", None)
        if not isinstance(tokens, GeneTokenEncoder):
            raise ConfigError(
                facts(
                    f"gene tower {type(self).__name__}",
                    found=f"another panel, of {len(genes)} genes",
                    expected="the panel of the training, because it knows genes by column",
                    fix="train with gene tokens (priorpool or tokens)",
                )
            )
        tokens.use_genes(genes)
        standard = RunningStandard(len(genes)).to(y_SG.device)
        standard(y_SG)
        self.standard = standard.train(self.training)


class LinearGenes(GeneTower):
    """Linear map of the labels."""

    def __init__(self, num_genes: int, width: int) -> None:
        super().__init__(num_genes, width)
        self.linear = nn.Linear(num_genes, width)

    def encode(self, y_BG: Tensor, known_BG: Tensor) -> Tensor:
        """Encode standardised labels."""
        del known_BG
        encoded_BD: Tensor = self.linear(y_BG)
        return encoded_BD


class MlpGenes(GeneTower):
    """The plain gene encoder of HESCAPE: a linear map, then blocks of norm, ReLU and linear.

    Parameters
    ----------
    num_genes, width : int
    num_blocks : int
    dropout : float
    """

    def __init__(
        self, num_genes: int, width: int, *, num_blocks: int = 3, dropout: float = 0.1
    ) -> None:
        super().__init__(num_genes, width)
        layers: list[nn.Module] = [nn.Linear(num_genes, width)]
        for _ in range(num_blocks):
            layers += [nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)]
            layers.append(nn.Linear(width, width))
        self.layers = nn.Sequential(*layers, nn.BatchNorm1d(width), nn.ReLU())

    def encode(self, y_BG: Tensor, known_BG: Tensor) -> Tensor:
        """Encode standardised labels."""
        del known_BG
        encoded_BD: Tensor = self.layers(y_BG)
        return encoded_BD


class PcaGenes(GeneTower):
    """Principal components of the training labels, not learned; a control.

    Call :meth:`fit` with the labels of the training spots before training.
    """

    axes_GD: Tensor
    fitted: Tensor

    def __init__(self, num_genes: int, width: int) -> None:
        super().__init__(num_genes, min(width, num_genes))
        self.register_buffer("axes_GD", torch.zeros(num_genes, self.width))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def fit(self, y_SG: Tensor) -> None:
        """Fit mean, deviation and axes on labels of shape (num_spots, num_genes)."""
        self.standard = RunningStandard(y_SG.shape[1]).to(y_SG.device)
        scaled = self.standard(y_SG).double().cpu().numpy()
        _, size, axes = np.linalg.svd(scaled - scaled.mean(0), full_matrices=False)
        kept = min(self.width, int((size > 1e-6 * size[0]).sum()))
        signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])
        scores = size[:kept] / np.sqrt(len(scaled))
        # Components of deviation 1, so that the head sees them alike.
        self.axes_GD.zero_()
        found = (axes[:kept] * signs[:kept, None] / scores[:, None]).T
        self.axes_GD[:, :kept] = torch.from_numpy(found).to(self.axes_GD)
        self.fitted.fill_(value=True)
        self.standard.train(self.training)

    def forward(self, y_BG: Tensor) -> Tensor:
        """Return the components, shape (batch, width); training does not move them."""
        return self.encode(self.standard.scaled(y_BG), torch.isfinite(y_BG))

    def encode(self, y_BG: Tensor, known_BG: Tensor) -> Tensor:
        """Return the components of standardised labels."""
        del known_BG
        if not self.fitted:
            raise ConfigError(
                facts(
                    "gene tower pca",
                    found="no components",
                    expected="components of the training labels",
                    fix="call prepare with the training spots first",
                )
            )
        return y_BG @ self.axes_GD


class PriorPool(GeneTower):
    """Sum of the gene tokens, each times the standardised label: linear in the labels.

    Divided by the square root of the number of genes measured, so that panels of different size
    give vectors of one scale.

    Parameters
    ----------
    tokens : GeneTokenEncoder
    """

    def __init__(self, tokens: GeneTokenEncoder) -> None:
        super().__init__(len(tokens.gene_id), tokens.dim)
        self.tokens = tokens

    def encode(self, y_BG: Tensor, known_BG: Tensor) -> Tensor:
        """Pool standardised labels."""
        count_B1 = known_BG.sum(1, keepdim=True).clamp(min=1)
        pooled_BD: Tensor = y_BG @ self.tokens() / count_B1.sqrt()
        return pooled_BD


class TokenPool(GeneTower):
    """Attention pooling of gene tokens: h = sum_g softmax_g(q . t_g) t_g, t_g = MLP(y_g) + token.

    Each head pools channels of its own. Genes that were not measured get no weight.

    Parameters
    ----------
    tokens : GeneTokenEncoder
    hidden : int
        Of the perceptron of a label.
    num_heads : int
        Divides the width of the tokens, or one is used.
    """

    def __init__(self, tokens: GeneTokenEncoder, *, hidden: int = 32, num_heads: int = 4) -> None:
        super().__init__(len(tokens.gene_id), tokens.dim)
        self.tokens = tokens
        self.value = nn.Sequential(nn.Linear(1, hidden), nn.GELU(), nn.Linear(hidden, tokens.dim))
        heads = num_heads if tokens.dim % num_heads == 0 else 1
        self.query_HE = nn.Parameter(torch.randn(heads, tokens.dim // heads))

    def encode(self, y_BG: Tensor, known_BG: Tensor) -> Tensor:
        """Pool standardised labels."""
        joint_BGD = self.value(y_BG[..., None]) + self.tokens()
        joint_BGHE = joint_BGD.unflatten(-1, self.query_HE.shape)
        score_BGH = (joint_BGHE * self.query_HE).sum(-1) / self.query_HE.shape[1] ** 0.5
        least = torch.finfo(score_BGH.dtype).min
        share_BGH = score_BGH.masked_fill(~known_BG[..., None], least).softmax(1)
        pooled_BD: Tensor = (share_BGH[..., None] * joint_BGHE).sum(1).flatten(1)
        return pooled_BD


def make_gene_tower(
    kind: GeneTowerKind,
    num_genes: int,
    *,
    width: int,
    dropout: float = 0.1,
    tokens: GeneTokenEncoder | None = None,
) -> GeneTower:
    """Make a gene tower.

    Raises
    ------
    ConfigError
        A tower that reads gene tokens gets none, or tokens of another number of genes.
    """
    if kind in ("priorpool", "tokens"):
        if tokens is None or len(tokens.gene_id) != num_genes:
            raise ConfigError(
                facts(
                    f"gene tower {kind}",
                    found="no gene tokens" if tokens is None else f"{len(tokens.gene_id)} tokens",
                    expected=f"a token for each of {num_genes} genes",
                    fix="give the genes of the panel (GeneInputs), or use mlp",
                )
            )
        return PriorPool(tokens) if kind == "priorpool" else TokenPool(tokens)
    if kind == "pca":
        return PcaGenes(num_genes, width)
    if kind == "linear":
        return LinearGenes(num_genes, width)
    return MlpGenes(num_genes, width, dropout=dropout)
