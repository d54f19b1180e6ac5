"""Controls of a gene prior: the same form without what the sequence model knows.

Shapes: G genes, D embedding width, S spots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seq2exp.core.config import nearest
from seq2exp.core.errors import InputError, facts
from seq2exp.priors.algebra import coexpression, groups_by_rank, random_like, rolled_within

if TYPE_CHECKING:
    from seq2exp.priors.prior import GenePrior

__all__ = ["CONTROL_KINDS", "GC", "GENE_LENGTH", "make_control"]

CONTROL_KINDS = ("shuffled", "random", "nuisance", "coexp")
GENE_LENGTH = "gene_length_bp"
GC = "gc"


def make_control(
    prior: GenePrior, kind: str, seed: int, *, train: ArrayLike | None = None
) -> dict[str, Any]:
    """Return the slots by which a control differs from its prior.

    The arguments are those of `GenePrior.control`. Only shuffled keeps `expr` and `reg`, from the
    gene that also gives z; elsewhere they have no columns, because they would tell what z hides.
    """
    if kind not in CONTROL_KINDS:
        raise InputError(
            facts(
                f"control {kind!r}",
                found="no such control",
                expected="one of " + ", ".join(CONTROL_KINDS),
                fix=nearest(kind, list(CONTROL_KINDS)),
            )
        )
    made = {"shuffled": _shuffled, "random": _random, "nuisance": _nuisance, "coexp": _coexp}
    parts, notes = made[kind](prior, seed, _by_gene(prior, train))
    if kind != "shuffled":
        empty = np.zeros((len(prior), 0), np.float32)
        parts |= {"expr": empty, "expr_names": (), "reg": empty, "reg_names": ()}
        present = parts.setdefault("present", prior.present)
        parts["z"] = np.where(present[:, None], parts["z"], 0).astype(np.float32)
    parts["meta"] = prior.meta | {"control": kind, "control_seed": seed, **notes}
    return parts


def _shuffled(
    prior: GenePrior, seed: int, train: NDArray[np.float64] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    level_G, source = _levels(prior, train)
    rows = np.flatnonzero(prior.present)
    donor = rolled_within(groups_by_rank(level_G[rows]), np.random.default_rng(seed))
    moved = np.arange(len(prior))
    moved[rows] = rows[donor]
    parts = {name: getattr(prior, name)[moved] for name in ("z", "expr", "reg")}
    return parts, {"control_levels": source}


def _random(
    prior: GenePrior, seed: int, train: NDArray[np.float64] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    del train
    _require_rows(prior)
    z_GD = np.zeros(prior.z.shape)
    z_GD[prior.present] = random_like(prior.z[prior.present], np.random.default_rng(seed))
    return {"z": z_GD}, {}


def _nuisance(
    prior: GenePrior, seed: int, train: NDArray[np.float64] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    del seed
    level_G, source = _levels(prior, train)
    columns = {"mean_expression": level_G}
    for name in (GENE_LENGTH, GC):
        if name in prior.reg_names:
            columns[name] = prior.reg[:, prior.reg_names.index(name)].astype(np.float64)
    if GENE_LENGTH in columns:
        columns[GENE_LENGTH] = np.log10(1 + columns[GENE_LENGTH])
    known = {n: v for n, v in columns.items() if np.isfinite(v[prior.present]).any()}
    filled = [np.where(np.isfinite(v), v, np.nanmean(v[prior.present])) for v in known.values()]
    z_GD = np.stack(filled, axis=1)
    spread_D = z_GD[prior.present].std(axis=0)
    z_GD = (z_GD - z_GD[prior.present].mean(axis=0)) / np.where(spread_D > 0, spread_D, 1)
    return {"z": z_GD}, {"control_levels": source, "control_columns": ", ".join(known)}


def _coexp(
    prior: GenePrior, seed: int, train: NDArray[np.float64] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    del seed
    if train is None or train.ndim != 2:
        raise InputError(
            facts(
                "control 'coexp'",
                found="no expression matrix" if train is None else "means of genes",
                expected="expression of the training sections, shape (spots, genes)",
                fix="pass train=",
            )
        )
    finite = np.isfinite(train).all(axis=0)
    varied = finite & (np.where(finite, train, 0).std(axis=0) > 0)
    used = varied & prior.present
    if used.sum() < 2 or len(train) < 2:
        raise InputError(
            facts(
                "control 'coexp'",
                found=f"{int(used.sum())} genes that vary over {len(train)} spots",
                expected="at least two genes and two spots",
                fix="pass the expression of all training sections",
            )
        )
    loadings_GK = coexpression(train[:, used])
    z_GD = np.zeros((len(prior), loadings_GK.shape[1]))
    z_GD[used] = loadings_GK
    return {"z": z_GD, "present": used}, {}


def _levels(prior: GenePrior, train: NDArray[np.float64] | None) -> tuple[NDArray[np.float64], str]:
    """Return the mean expression of every gene, NaN where unknown, and where it comes from."""
    if train is not None:
        return train if train.ndim == 1 else train.mean(axis=0), "mean of the training sections"
    if not prior.expr_names:
        raise InputError(
            facts(
                "train",
                found="nothing, and a prior without predicted expression",
                expected="the expression of the training sections, or its mean per gene",
                fix="pass train=",
            )
        )
    return prior.expr.astype(np.float64).mean(axis=1), "predicted by the sequence model"


def _by_gene(prior: GenePrior, train: ArrayLike | None) -> NDArray[np.float64] | None:
    """Return training expression in the order of the prior's genes, one or two axes."""
    if train is None:
        return None
    source: Any = train
    if hasattr(source, "reindex"):
        source = (
            source.reindex(columns=prior.gene_id)
            if hasattr(source, "columns")
            else source.reindex(prior.gene_id)
        )
    values = np.asarray(source, dtype=np.float64)
    if values.ndim not in (1, 2) or values.shape[-1] != len(prior) or not np.isfinite(values).any():
        raise InputError(
            facts(
                "train",
                found=f"shape {values.shape}"
                + ("" if np.isfinite(values).any() else " without a known value"),
                expected=f"({len(prior)},) or (spots, {len(prior)}), in the order of the prior, or "
                "a frame with gene ids",
                fix="align the prior to the genes of the matrix first",
            )
        )
    return values


def _require_rows(prior: GenePrior) -> None:
    if prior.present.sum() < 2:
        raise InputError(
            facts(
                "control 'random'",
                found=f"{int(prior.present.sum())} genes with a prior",
                expected="at least two",
                fix="use a prior that covers the genes",
            )
        )
