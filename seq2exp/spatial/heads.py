"""From features of a spot to the genes of a panel.

Axes: B spots, D features, G genes, T width of a gene's token, R rank, C cell types or tracks.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, facts

__all__ = ["CompositionHead", "GeneQueryHead", "GeneTokens", "LinearHead", "NBHead", "nb_loss"]


class GeneTokens(Protocol):
    """What a module that gives tokens of the panel's genes must say; it is called without input."""

    dim: int


class LinearHead(nn.Linear):
    """One weight vector and one bias per gene: y = W f + c.

    Parameters
    ----------
    width, num_genes : int
    """

    def __init__(self, width: int, num_genes: int) -> None:
        super().__init__(width, num_genes)

    @torch.no_grad()
    def start_at(self, mean_G: Tensor) -> None:
        """Begin at these labels, shape (G,): small weights, and the labels as biases."""
        self.weight.mul_(0.1)
        self.bias.copy_(mean_G)


class GeneQueryHead(nn.Module):
    """Weights of a gene are made of its token, so that genes never seen can be predicted.

    y[b, g] = (U f_b) . (V tok_g) + c(tok_g) + r_g . f_b, where r, of seen genes only, is 0 at
    first and held small by :meth:`penalty`.

    Parameters
    ----------
    width : int
        Features of a spot.
    token_dim : int
        Width of a token.
    rank : int
        Rows of U and V.
    num_seen : int
        Genes with a row in r; 0 without r.
    """

    def __init__(self, width: int, token_dim: int, *, rank: int = 64, num_seen: int = 0) -> None:
        super().__init__()
        self.spot = nn.Linear(width, rank, bias=False)
        self.gene = nn.Linear(token_dim, rank, bias=False)
        self.level = nn.Linear(token_dim, 1)
        self.own = nn.Parameter(torch.zeros(num_seen, width)) if num_seen else None

    def forward(
        self, features_BD: Tensor, tokens_GT: Tensor, rows_G: Tensor | None = None
    ) -> Tensor:
        """Return predictions, shape (spots, genes).

        Parameters
        ----------
        features_BD : float tensor, shape (spots, width)
        tokens_GT : float tensor, shape (genes, token_dim)
        rows_G : int64 tensor, shape (genes,), optional
            Row of each gene in r, -1 for genes that were never seen. By default the genes are the
            seen ones in their order.

        Raises
        ------
        ConfigError
            Another number of genes than was seen, without ``rows_G``.
        """
        scores_BG: Tensor = self.spot(features_BD) @ self.gene(tokens_GT).T
        scores_BG = torch.add(scores_BG, self.level(tokens_GT).T)
        if self.own is None:
            return scores_BG
        if rows_G is None:
            if len(tokens_GT) != len(self.own):
                raise ConfigError(
                    facts(
                        "gene tokens",
                        found=f"{len(tokens_GT)} genes",
                        expected=f"the {len(self.own)} genes that were trained",
                        fix="say with rows_G which of them are which",
                    )
                )
            return scores_BG + features_BD @ self.own.T
        seen_G1 = (rows_G >= 0)[:, None]
        own_GD = torch.where(seen_G1, self.own[rows_G.clamp(min=0)], 0.0)
        return scores_BG + features_BD @ own_GD.T

    def penalty(self) -> Tensor:
        """Return the sum of squares of r, a scalar."""
        own = self.level.weight.new_zeros(()) if self.own is None else self.own
        return own.square().sum()


class CompositionHead(nn.Module):
    """A spot as a mixture of known profiles: y[b, g] = sum_c pi_c(f_b) a_gc + r_g . f_b.

    pi is softplus of a linear map, so never negative; r is 0 at first.

    Parameters
    ----------
    width, num_types, num_genes : int
    """

    def __init__(self, width: int, num_types: int, num_genes: int) -> None:
        super().__init__()
        self.share = nn.Linear(width, num_types)
        self.rest = LinearHead(width, num_genes)
        nn.init.zeros_(self.rest.weight)
        nn.init.zeros_(self.rest.bias)

    def composition(self, features_BD: Tensor) -> Tensor:
        """Return the amount of each type, at least 0, shape (spots, types)."""
        return F.softplus(self.share(features_BD))

    def forward(self, features_BD: Tensor, profiles_GC: Tensor) -> Tensor:
        """Return predictions, shape (spots, genes).

        Parameters
        ----------
        features_BD : float tensor, shape (spots, width)
        profiles_GC : float tensor, shape (genes, types)
            Such as ``expr`` of a gene prior.
        """
        out: Tensor = self.composition(features_BD) @ profiles_GC.T + self.rest(features_BD)
        return out


class NBHead(nn.Module):
    """Counts as negative binomial: mean = size factor exp(W f + c), one dispersion per gene.

    Parameters
    ----------
    width, num_genes : int
    """

    def __init__(self, width: int, num_genes: int) -> None:
        super().__init__()
        self.rate = LinearHead(width, num_genes)
        self.log_dispersion = nn.Parameter(torch.zeros(num_genes))

    def forward(self, features_BD: Tensor, size_factor_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean, shape (spots, genes), and the dispersion, shape (genes,).

        Parameters
        ----------
        features_BD : float tensor, shape (spots, width)
        size_factor_B : float tensor, shape (spots,)

        Returns
        -------
        mean_BG, dispersion_G : float tensors
            The variance is mean + dispersion mean^2.
        """
        log_mean_BG = self.rate(features_BD) + size_factor_B.log()[:, None]
        return log_mean_BG.clamp(max=20).exp(), self.log_dispersion.exp()


def nb_loss(counts_BG: Tensor, mean_BG: Tensor, dispersion_G: Tensor) -> Tensor:
    """Return the mean negative log likelihood of counts; NaN counts are left out.

    Parameters
    ----------
    counts_BG, mean_BG : float tensors, shape (spots, genes)
    dispersion_G : float tensor, shape (genes,)
        alpha of variance = mean + alpha mean^2.
    """
    known_BG = counts_BG.isfinite()
    counts_BG = counts_BG.nan_to_num()
    size_G = 1 / dispersion_G
    log_BG = (
        torch.lgamma(counts_BG + size_G)
        - torch.lgamma(size_G)
        - torch.lgamma(counts_BG + 1)
        - size_G * torch.log1p(dispersion_G * mean_BG)
        + counts_BG * (mean_BG.log() - (mean_BG + size_G).log())
    )
    return -torch.where(known_BG, log_BG, 0.0).sum() / known_BG.sum().clamp(min=1)
