"""Tokens of genes: the only place where priors and gene texts enter a network.

A token says which gene a number belongs to. It may be learned freely (table), follow from what a
sequence model knows (prior), from a text about the gene, or from several of these.

Axes: G genes, P features of the prior, T features of the text, D width of a token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from seq2exp.core.config import require_known
from seq2exp.core.errors import ConfigError, InputError, facts
from seq2exp.priors.prior import AlignReport, GenePrior

__all__ = ["TOKEN_MODES", "GeneInputs", "GeneTokenEncoder", "TokenMode"]

TokenMode = Literal["none", "table", "prior", "table+prior", "text", "text+prior"]
TOKEN_MODES: tuple[str, ...] = get_args(TokenMode)
_GATE_HIDDEN = 32


@dataclass(frozen=True, eq=False)
class GeneInputs:
    """What is known of the genes of a panel before training.

    Attributes
    ----------
    gene_id : tuple of str
        Ids in the order of the panel.
    features : mapping of str to float32 array, shape (num_genes, any)
        Parts of the prior by name (z, expr, reg), standardised; rows of 0 where not present.
    present_G : bool array, shape (num_genes,)
        Genes with a prior.
    text_GT : float32 array, shape (num_genes, text features), optional
        Vectors of the genes' texts; NaN rows where there is none.
    """

    gene_id: tuple[str, ...]
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    present_G: NDArray[np.bool_] | None = None
    text_GT: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        parts = [*self.features.values(), self.present_G, self.text_GT]
        wrong = [part.shape for part in parts if part is not None and len(part) != len(self)]
        if wrong or len(set(self.gene_id)) < len(self.gene_id):
            raise InputError(
                facts(
                    "gene inputs",
                    found=f"a part of shape {wrong[0]}" if wrong else "genes named twice",
                    expected=f"one row for each of {len(self)} genes",
                    fix="align the prior and the texts to the panel first",
                )
            )

    def __len__(self) -> int:
        return len(self.gene_id)

    @classmethod
    def from_prior(
        cls,
        prior: GenePrior,
        gene_ids: Sequence[str],
        *,
        train_genes: Iterable[str] | None = None,
        symbols: Sequence[str] | None = None,
        synonyms: Mapping[str, str | Sequence[str]] | None = None,
        text: ArrayLike | None = None,
    ) -> tuple[GeneInputs, AlignReport]:
        """Align a prior to genes and standardise it on the training genes among them.

        Parameters
        ----------
        prior : GenePrior
        gene_ids : sequence of str
            Training and hidden genes; :meth:`take` picks a panel of them.
        train_genes : iterable of str, optional
            Those the statistics may see; all by default.
        symbols, synonyms
            As in ``GenePrior.align``.
        text : float array, shape (num_genes, text features), optional
            Vectors of the genes' texts, NaN rows where there is none.
        """
        aligned, report = prior.align(gene_ids, symbols=symbols, synonyms=synonyms)
        names = [str(gene) for gene in aligned.gene_id]
        chosen = set(gene_ids if train_genes is None else train_genes)
        train_G = np.array([gene in chosen for gene in gene_ids], dtype=np.bool_)
        shown_G = train_G & aligned.present
        features = {"z": aligned.transform(train_G).z}
        for name in ("expr", "reg"):
            values = getattr(aligned, name)
            if values.shape[-1] and len(values) == len(names):
                features[name] = _standardised(values, shown_G, aligned.present)
        vectors = None if text is None else np.asarray(text, np.float32)
        return cls(tuple(gene_ids), features, aligned.present, vectors), report

    def take(self, gene_ids: Sequence[str]) -> GeneInputs:
        """Return the inputs of some of the genes, in the order asked for.

        Raises
        ------
        InputError
            A gene is not among them.
        """
        place = {gene: row for row, gene in enumerate(self.gene_id)}
        unknown = [gene for gene in gene_ids if gene not in place]
        if unknown:
            raise InputError(
                facts(
                    "gene inputs",
                    found="genes that were never aligned",
                    expected="genes of the inputs",
                    fix="align the prior to all genes that will be asked for",
                    count=len(unknown),
                    examples=unknown,
                )
            )
        rows = np.array([place[gene] for gene in gene_ids], dtype=np.int64)
        return GeneInputs(
            tuple(gene_ids),
            {name: part[rows] for name, part in self.features.items()},
            None if self.present_G is None else self.present_G[rows],
            None if self.text_GT is None else self.text_GT[rows],
        )


def _standardised(
    values: NDArray[Any], train_G: NDArray[np.bool_], present_G: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Mean 0 and deviation 1 over the training genes; 0 where unknown."""
    wide = np.asarray(values, np.float64)
    known = np.isfinite(wide[train_G]).any(axis=0)
    result = np.zeros(wide.shape)
    shown = wide[train_G][:, known]
    width = np.nanstd(shown, axis=0)
    result[:, known] = (wide[:, known] - np.nanmean(shown, axis=0)) / np.where(width > 0, width, 1)
    result[~present_G] = 0
    return np.nan_to_num(result).astype(np.float32)


class GeneTokenEncoder(nn.Module):
    """One token per gene, shape (num_genes, dim).

    With z the prior's features, e the text's vector, t a free vector and LN a layer norm:

    ============  =================================================
    none          0
    table         LN(t)
    prior         LN(W z)
    table+prior   LN(t + alpha W z), alpha learned, 0 at the start
    text          LN(V e)
    text+prior    LN(a V e + (1 - a) W z), a = sigmoid(MLP[e, z])
    ============  =================================================

    A learned vector stands for W z of genes without prior, and for V e of genes without text.

    Parameters
    ----------
    mode : str
    dim : int
        Width of a token.
    use : sequence of str
        Parts of the prior that are read.
    genes : GeneInputs
        The panel.

    Raises
    ------
    ConfigError
        Unknown mode, or the inputs lack what it reads.
    """

    prior_GP: Tensor
    present_G: Tensor
    text_GT: Tensor
    worded_G: Tensor

    def __init__(
        self, mode: TokenMode, dim: int, use: Sequence[str] = ("z",), *, genes: GeneInputs
    ) -> None:
        super().__init__()
        require_known("gene token mode", mode, TOKEN_MODES, expected="a mode")
        self.mode, self.dim, self.use = mode, dim, tuple(use)
        self._reads_prior, self._reads_text = mode.endswith("prior"), mode.startswith("text")
        buffers = self._buffers_of(genes)
        for name, value in buffers.items():
            self.register_buffer(name, value)
        self.gene_id = genes.gene_id
        self._table_genes = genes.gene_id
        if mode.startswith("table"):
            self.table_GD = nn.Parameter(torch.randn(len(genes), dim))
        if self._reads_prior:
            self.from_prior = nn.Linear(self.prior_GP.shape[1], dim, bias=False)
            self.missing_D = nn.Parameter(torch.randn(dim) * 0.02)
        if self._reads_text:
            self.from_text = nn.Linear(self.text_GT.shape[1], dim, bias=False)
            self.wordless_D = nn.Parameter(torch.randn(dim) * 0.02)
        if mode == "table+prior":
            self.alpha = nn.Parameter(torch.zeros(()))
        if mode == "text+prior":
            width = self.text_GT.shape[1] + self.prior_GP.shape[1]
            self.gate = nn.Sequential(
                nn.Linear(width, _GATE_HIDDEN), nn.GELU(), nn.Linear(_GATE_HIDDEN, 1)
            )
        if mode != "none":
            self.norm = nn.LayerNorm(dim)

    def _buffers_of(self, genes: GeneInputs) -> dict[str, Tensor]:
        lacking = [name for name in self.use if self._reads_prior and name not in genes.features]
        if self._reads_text and genes.text_GT is None:
            lacking.append("text")
        if lacking:
            raise ConfigError(
                facts(
                    f"gene tokens of mode {self.mode}",
                    found=f"no {', '.join(lacking)}",
                    expected="a prior with what is read, and vectors of texts for text modes",
                    fix="give them, or use mode table",
                )
            )
        prior = torch.zeros(len(genes), 0)
        if self._reads_prior:
            columns = [np.asarray(genes.features[name], np.float32) for name in self.use]
            prior = torch.from_numpy(np.concatenate(columns, axis=1))
        text = torch.zeros(len(genes), 0)
        if self._reads_text and genes.text_GT is not None:
            text = torch.from_numpy(np.asarray(genes.text_GT, np.float32))
        present = np.ones(len(genes), np.bool_) if genes.present_G is None else genes.present_G
        worded_G = torch.isfinite(text).all(1)
        return {
            "prior_GP": prior,
            "present_G": torch.from_numpy(present.copy()),
            "text_GT": torch.where(worded_G[:, None], text, 0.0),
            "worded_G": worded_G,
        }

    def forward(self) -> Tensor:
        """Return the tokens of the panel, shape (num_genes, dim)."""
        if self.mode == "none":
            return self.prior_GP.new_zeros(len(self.gene_id), self.dim)
        parts_GD = self._table() if self.mode.startswith("table") else self.prior_GP.new_zeros(())
        if self._reads_text:
            text_GD = self.from_text(self.text_GT)
            parts_GD = torch.where(self.worded_G[:, None], text_GD, self.wordless_D)
        if self._reads_prior:
            known_GD = self.from_prior(self.prior_GP)
            known_GD = torch.where(self.present_G[:, None], known_GD, self.missing_D)
            if self.mode == "text+prior":
                gate_G1 = self._gate()
                parts_GD = gate_G1 * parts_GD + (1 - gate_G1) * known_GD
            else:
                parts_GD = parts_GD + known_GD * (self.alpha if self.mode == "table+prior" else 1.0)
        tokens_GD: Tensor = self.norm(parts_GD)
        return tokens_GD

    def _table(self) -> Tensor:
        """Rows of the table in the order of the panel; 0 for genes it never learned."""
        if self.gene_id == self._table_genes:
            return self.table_GD
        place = {gene: row for row, gene in enumerate(self._table_genes)}
        rows = torch.tensor([place.get(gene, -1) for gene in self.gene_id])
        rows = rows.to(self.table_GD.device)
        return torch.where((rows >= 0)[:, None], self.table_GD[rows.clamp(min=0)], 0.0)

    def _gate(self) -> Tensor:
        gate_G1: Tensor = self.gate(torch.cat([self.text_GT, self.prior_GP], dim=1)).sigmoid()
        return gate_G1

    @torch.no_grad()
    def gates(self) -> dict[str, list[float]]:
        """Return how far the prior is used: ``alpha``, or ``text`` (1 - the prior's share) by gene.

        A gate that leaves the prior out is a result; modes without a gate return nothing.
        """
        if self.mode == "table+prior":
            return {"alpha": [float(self.alpha)]}
        if self.mode == "text+prior":
            return {"text": self._gate()[:, 0].tolist()}
        return {}

    def use_genes(self, genes: GeneInputs) -> None:
        """Make tokens of another panel from now on.

        Raises
        ------
        ConfigError
            A free table has no vector for one of the genes, or the features are others.
        """
        known = set(self._table_genes)
        unseen = [gene for gene in genes.gene_id if gene not in known]
        if self.mode == "table" and unseen:
            raise ConfigError(
                facts(
                    "gene tokens of mode table",
                    found="genes that were not trained on",
                    expected="genes of the training panel",
                    fix="use a mode with a prior or with text",
                    count=len(unseen),
                    examples=unseen,
                )
            )
        buffers = self._buffers_of(genes)
        for name in ("prior_GP", "text_GT"):
            if buffers[name].shape[1] != getattr(self, name).shape[1]:
                raise ConfigError(
                    facts(
                        "gene tokens",
                        found=f"{buffers[name].shape[1]} features of a gene",
                        expected=f"{getattr(self, name).shape[1]}, as trained",
                        fix="take both panels from one alignment (GeneInputs.take)",
                    )
                )
        device = self.prior_GP.device
        for name, value in buffers.items():
            setattr(self, name, value.to(device))
        self.gene_id = genes.gene_id
