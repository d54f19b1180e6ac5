"""Gene panels: which genes are predicted, chosen on training sections only.

A panel knows genes by id. Columns of sections, models and result files are matched to it by id,
never by position.

Axes: N spots, A all genes of a section, G genes of the panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from seq2exp.core.errors import ConfigError, FormatError, InputError, facts

__all__ = ["PANEL_KINDS", "GenePanel", "PanelConfig", "dispersion_scores", "fit_panel"]

PanelKind = Literal["hvg", "var", "heg", "hmhvg", "list"]
PANEL_KINDS: tuple[str, ...] = get_args(PanelKind)
_MIN_SHARE = 0.1
_NUM_BINS = 20
_POOL = 2000
_HOUSEKEEPING = ("MT-", "MT.", "RPS", "RPL")


@dataclass(frozen=True)
class PanelConfig:
    """How a panel is chosen."""

    kind: PanelKind = "var"
    """hvg (dispersion, standardised in 20 bins of the mean), var (variance of the label), heg
    (largest mean), all among genes in a tenth of the spots; hmhvg (Stem: among the 2,000 of largest
    dispersion of any section, without mitochondrial and ribosomal genes, those of both large mean
    and large deviation of the raw counts); or list."""
    num_genes: int = 250
    """Genes to choose; a list gives its own number."""
    genes: tuple[str, ...] = ()
    """Ids or symbols, for list."""

    def __post_init__(self) -> None:
        if self.kind == "list" and not self.genes:
            raise ConfigError(
                facts("panel.genes", found="none", expected="ids or symbols", fix="give a list")
            )
        if self.num_genes < 1:
            raise ConfigError(
                facts("panel.num_genes", found=self.num_genes, expected=">= 1", fix="change it")
            )


@dataclass(frozen=True, eq=False)
class GenePanel:
    """Genes in a fixed order.

    Attributes
    ----------
    gene_id : list of str
        Ensembl ids without version where known, otherwise the name the sections use.
    symbol : list of str
    rule : str
        How the genes were chosen, for result files.
    """

    gene_id: list[str]
    symbol: list[str]
    rule: str = "list"

    def __post_init__(self) -> None:
        repeated = pd.Series(self.gene_id).duplicated()
        if repeated.any() or len(self.gene_id) != len(self.symbol):
            raise InputError(
                facts(
                    "gene panel",
                    found="genes listed twice" if repeated.any() else "ids without symbols",
                    expected="one id and one symbol per gene",
                    fix="drop the duplicates",
                    count=int(repeated.sum()),
                )
            )

    def __len__(self) -> int:
        return len(self.gene_id)

    def columns(self, var: pd.DataFrame) -> NDArray[np.int64]:
        """Return the column of each gene in a section, -1 where it is missing.

        Parameters
        ----------
        var : DataFrame
            Gene table of a section: index = symbol, column ``gene_id``.
        """
        ids = pd.Index(var["gene_id"].astype(str))
        return ids.get_indexer(pd.Index(self.gene_id)).astype(np.int64)

    def require_same(self, other: Sequence[str], *, what: str) -> None:
        """Refuse another list of genes, or another order.

        Raises
        ------
        FormatError
        """
        if list(other) != self.gene_id:
            missing = [gene for gene in self.gene_id if gene not in set(other)]
            raise FormatError(
                facts(
                    what,
                    found=f"{len(other)} genes, {len(missing)} of the panel missing"
                    if missing
                    else "the genes of the panel in another order",
                    expected=f"the {len(self)} genes of the panel, by id",
                    fix="use the files of one run",
                    count=len(missing),
                    examples=missing[:3],
                )
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"gene_id": self.gene_id, "symbol": self.symbol, "rule": self.rule}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> GenePanel:
        """Return the panel that :meth:`to_dict` wrote."""
        return cls(list(value["gene_id"]), list(value["symbol"]), str(value["rule"]))


def fit_panel(
    config: PanelConfig,
    sections: Sequence[tuple[sparse.csr_matrix, pd.DataFrame]],
) -> GenePanel:
    """Choose genes on training sections.

    Parameters
    ----------
    config : PanelConfig
    sections : sequence of (counts, var)
        Raw counts, shape [N, A], and the gene table of every training section. Genes must be in all
        of them. Means and variances are those of the natural logarithm of counts per ten thousand.

    Raises
    ------
    InputError
        No shared gene, or fewer than asked for.
    """
    shared = set.intersection(*(set(var["gene_id"].astype(str)) for _, var in sections))
    first = sections[0][1]
    # By id, so that ties do not hang on the order of columns.
    order = sorted(shared)
    symbols = dict(zip(first["gene_id"].astype(str), first.index.astype(str), strict=True))
    if config.kind == "list":
        return _listed(config, order, symbols)
    counts_NA = sparse.vstack(
        [counts[:, _places(var, order)] for counts, var in sections], format="csr"
    )
    values = [_log_per_ten_thousand(counts, _places(var, order)) for counts, var in sections]
    if config.kind == "hmhvg":
        names = [symbols[gene] for gene in order]
        chosen = _high_mean_and_deviation(counts_NA, values, names, config.num_genes)
    else:
        share_A = np.asarray((counts_NA > 0).mean(axis=0)).ravel()
        score_A = _scores(config.kind, np.concatenate(values))
        ranked = np.argsort(-np.where(share_A >= _MIN_SHARE, score_A, -np.inf), kind="stable")
        usable = int(np.isfinite(score_A[share_A >= _MIN_SHARE]).sum())
        chosen = ranked[: min(usable, config.num_genes)]
    if len(chosen) < config.num_genes:
        raise InputError(
            facts(
                "gene panel",
                found=f"{len(chosen)} genes that {config.kind} can choose from",
                expected=f"{config.num_genes}",
                fix="ask for fewer genes (panel.num_genes)",
            )
        )
    genes = [order[place] for place in chosen]
    rule = f"{config.kind}-{config.num_genes} of {len(sections)} training sections"
    return GenePanel(genes, [symbols[gene] for gene in genes], rule)


def _places(var: pd.DataFrame, order: Sequence[str]) -> NDArray[np.int64]:
    return pd.Index(var["gene_id"].astype(str)).get_indexer(pd.Index(order)).astype(np.int64)


def _listed(config: PanelConfig, order: Sequence[str], symbols: Mapping[str, str]) -> GenePanel:
    by_symbol = {symbols[gene]: gene for gene in order}
    known = set(order)
    found = [gene if gene in known else by_symbol.get(gene, "") for gene in config.genes]
    missing = [name for name, gene in zip(config.genes, found, strict=True) if not gene]
    if missing:
        raise InputError(
            facts(
                "panel.genes",
                found="genes that not all training sections hold",
                expected="ids or symbols of the sections",
                fix="drop them",
                count=len(missing),
                examples=missing[:3],
            )
        )
    genes = list(dict.fromkeys(found))
    return GenePanel(genes, [symbols[gene] for gene in genes], f"list of {len(genes)}")


def _log_per_ten_thousand(
    counts: sparse.csr_matrix, places: NDArray[np.int64]
) -> NDArray[np.float64]:
    total = np.asarray(counts.sum(axis=1)).ravel()
    chosen = counts[:, places].toarray().astype(np.float64)
    values: NDArray[np.float64] = np.log1p(
        chosen * (1e4 / np.where(total > 0, total, 1.0))[:, None]
    )
    return values


def _scores(kind: str, values_NA: NDArray[np.float64]) -> NDArray[np.float64]:
    if kind == "hvg":
        scores = dispersion_scores(values_NA)
    else:
        scores = values_NA.var(axis=0) if kind == "var" else values_NA.mean(axis=0)
    # Sums differ by rounding with the order of sections; ties must not.
    rounded: NDArray[np.float64] = np.round(scores, 9)
    return rounded


def _high_mean_and_deviation(
    counts_NA: sparse.csr_matrix,
    values: Sequence[NDArray[np.float64]],
    names: Sequence[str],
    num_genes: int,
) -> NDArray[np.int64]:
    """Return the genes among the top n by mean and by deviation, for the smallest n that does."""
    pool = np.zeros(len(names), dtype=np.bool_)
    for section in values:
        scores = dispersion_scores(section)
        top = np.argsort(-scores, kind="stable")[:_POOL]
        pool[top[np.isfinite(scores[top])]] = True
    pool &= ~np.array([name.upper().startswith(_HOUSEKEEPING) for name in names])
    candidates = np.flatnonzero(pool)
    counts = counts_NA[:, candidates].toarray().astype(np.float64)
    worst = np.maximum(_rank(counts.mean(axis=0)), _rank(counts.std(axis=0)))
    chosen = candidates[np.argsort(worst, kind="stable")[:num_genes]]
    return chosen[np.argsort([names[place] for place in chosen], kind="stable")]


def _rank(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the place of each value when the largest comes first."""
    place = np.empty(values.size, dtype=np.int64)
    place[np.argsort(-values, kind="stable")] = np.arange(values.size)
    return place


def dispersion_scores(values_NA: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return dispersions standardised within bins of the mean (Satija et al. 2015).

    Parameters
    ----------
    values_NA : float array, shape (num_spots, num_genes)
        Log-normalised values; mean and variance are taken on the linear scale.

    Returns
    -------
    float64 array, shape (num_genes,)
        (log dispersion - mean of its bin) / deviation of its bin; -inf for genes without counts.
    """
    linear = np.expm1(values_NA)
    mean = linear.mean(axis=0)
    variance = linear.var(axis=0, ddof=1) if len(linear) > 1 else np.zeros_like(mean)
    seen = (mean > 0) & (variance > 0)
    scores = np.full(mean.size, -np.inf)
    if not seen.any():
        return scores
    log_mean, log_dispersion = np.log1p(mean[seen]), np.log(variance[seen] / mean[seen])
    bins = pd.cut(log_mean, _NUM_BINS, labels=False)
    grouped = pd.Series(log_dispersion).groupby(bins)
    centre, width = grouped.transform("mean"), grouped.transform("std")
    # A bin of one gene has no deviation: its gene is neither high nor low.
    scores[seen] = ((log_dispersion - centre) / width.where(width > 0)).fillna(0.0)
    return scores
