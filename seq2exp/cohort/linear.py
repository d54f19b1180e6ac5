"""Linear baselines of expression from cis-variants: what a sequence model must beat.

``mean``      training mean: constant, so its correlation is undefined
``top1``      the variant with the largest training correlation, alone
``ridge_cv``  ridge, the penalty by cross-validation
``blup``      ridge with lambda = M (1 - h2) / h2, h2 by REML on the training donors
``lasso``, ``enet``  absolute penalty alone, or half of it (l1_ratio), by cross-validation; the
elastic net is PrediXcan's (Gamazon et al. 2015, Nat. Genet. 47:1091)

Everything is fitted on the training donors of a gene that have expression: frequencies, means,
scales, folds, penalties, weights. BSLMM, which the published comparison adds for a gain of 0.005 in
mean correlation and a hundred times the cost, is out of scope.

Axes: N training donors with expression, D donors, M variants, K variants used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seq2exp.cohort.heritability import Spectrum, make_spectrum, reml
from seq2exp.cohort.linear_design import Design, make_design
from seq2exp.cohort.linear_paths import Chosen, NetPlan, Parts, choose_net, choose_ridge
from seq2exp.cohort.linear_paths import ridge_weights as _ridge_weights
from seq2exp.core.config import require_known
from seq2exp.core.errors import ConfigError, InputError, facts

__all__ = [
    "LINEAR_MODELS",
    "LinearConfig",
    "LinearFit",
    "assign_folds",
    "fit_gene",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

LINEAR_MODELS = ("mean", "top1", "ridge_cv", "blup", "lasso", "enet")
"""Names of the models, the simplest first."""

_MIN_TOP1 = 3


@dataclass(frozen=True)
class LinearConfig:
    """Settings of the linear baselines."""

    models: list[str] = field(default_factory=lambda: list(LINEAR_MODELS))
    """Which to fit: mean, top1, ridge_cv, blup, lasso, enet."""
    min_maf: float = 0.05
    """Least minor-allele frequency among the training donors."""
    include_indels: bool = False
    """Use insertions and deletions beside single-nucleotide variants."""
    num_folds: int = 5
    """Folds of the cross-validation that chooses penalties."""
    choose_on: Literal["folds", "valid"] = "folds"
    """Where penalties are chosen: folds of the training donors, or the valid donors."""
    l1_ratio: float = 0.5
    """Share of the absolute penalty in the elastic net."""
    num_alphas: int = 100
    """Penalties of the elastic net and the lasso, evenly spaced in logarithm."""
    alpha_ratio: float = 1e-3
    """Smallest penalty over the largest."""
    patience: int = 30
    """The path ends when so many penalties in a row brought no smaller error; 0 walks all."""
    tolerance: float = 1e-7
    """Duality gap over the variance at which a fit is taken as solved."""
    max_sweeps: int = 10_000
    """Most passes over the variants per penalty."""
    ridge_h2: list[float] = field(
        default_factory=lambda: [
            *(0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2),
            *(0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        ]
    )
    """Grid of ridge_cv, as the heritability h2 of the penalty M (1 - h2) / h2."""
    min_h2: float = 0.01
    """BLUP takes at least this h2, so that a gene without estimated heritability still gets a
    (weak) prediction; the status says where."""
    seed: int = 0
    """Seed of the folds."""

    def __post_init__(self) -> None:
        """Check names and ranges."""
        for name in self.models:
            require_known("models", name, LINEAR_MODELS, expected="a linear model")
        require_known("choose_on", self.choose_on, ("folds", "valid"), expected="folds or valid")
        ranges = {
            "min_maf": (0 <= self.min_maf < 0.5, "0 or more and below 0.5"),
            "num_folds": (self.num_folds >= 2, "2 or more"),
            "l1_ratio": (0 < self.l1_ratio <= 1, "above 0, at most 1"),
            "num_alphas": (self.num_alphas >= 1, "1 or more"),
            "alpha_ratio": (0 < self.alpha_ratio < 1, "between 0 and 1"),
            "patience": (self.patience >= 0, "0 or more"),
            "tolerance": (self.tolerance > 0, "above 0"),
            "max_sweeps": (self.max_sweeps >= 1, "1 or more"),
            "ridge_h2": (
                bool(self.ridge_h2) and all(0 < h2 < 1 for h2 in self.ridge_h2),
                "values between 0 and 1",
            ),
            "min_h2": (0 < self.min_h2 < 1, "between 0 and 1"),
        }
        for name, (fits, expected) in ranges.items():
            if not fits:
                raise ConfigError(
                    facts(name, found=getattr(self, name), expected=expected, fix="mend it")
                )


@dataclass(frozen=True)
class LinearFit:
    """One fitted model of one gene.

    Attributes
    ----------
    name : str
    intercept : float
        In the unit of the expression; NaN where the gene has none in the training donors.
    variant_K : int64 array
        Places of the variants that the model reads, in the dosages given to the fit.
    weights_K : float64 array
        Per copy of ALT.
    mean_K : float64 array
        Training mean of the dosage, which stands in for missing calls.
    penalty : float
        alpha of enet and lasso, h2 of the penalty of ridge_cv and blup; NaN otherwise.
    num_variants : int
        Variants that passed the filters, of which the model could use any.
    num_donors : int
    status : str
        ``ok``; or why the prediction is constant: ``constant`` (by definition), ``none_selected``,
        ``no_variants``, ``too_few_donors``, ``constant_expression``; the prediction is NaN with
        ``no_training_donors`` (an unseen gene) and ``no_expression`` (of any of them). Or
        ``h2_floor`` (BLUP took ``min_h2``), ``not_converged``.
    """

    name: str
    intercept: float
    variant_K: Ints
    weights_K: Floats
    mean_K: Floats
    penalty: float
    num_variants: int
    num_donors: int
    status: str

    def predict(self, dosage_DM: ArrayLike) -> Floats:
        """Return the expression of donors, shape (num_donors,), from dosages in the same order."""
        dosage = np.asarray(dosage_DM)
        if self.variant_K.size == 0:
            return np.full(dosage.shape[0], self.intercept)
        part = dosage[:, self.variant_K].astype(np.float64)
        centred = np.where(np.isnan(part), 0.0, part - self.mean_K)
        centre = self.intercept + float(self.mean_K @ self.weights_K)
        return np.asarray(centre + centred @ self.weights_K)

    @property
    def num_used(self) -> int:
        """Number of variants with a weight."""
        return int(np.count_nonzero(self.weights_K))


def assign_folds(train_D: ArrayLike, *, num_folds: int, seed: int) -> Ints:
    """Return the fold of every training donor, drawn once for all genes; -1 for other donors.

    Folds are a random order of the training donors cut into parts whose sizes differ by one at
    most; they depend on the seed and on the order of the donors only.
    """
    train = np.flatnonzero(np.asarray(train_D, bool))
    folds = np.full(np.asarray(train_D).size, -1, np.int64)
    order = np.random.default_rng(seed).permutation(train.size)
    folds[train[order]] = np.arange(train.size) * num_folds // max(train.size, 1)
    return folds


def fit_gene(
    dosage_DM: ArrayLike,
    y_D: ArrayLike,
    *,
    train_D: ArrayLike,
    config: LinearConfig,
    valid_D: ArrayLike | None = None,
    snp_M: ArrayLike | None = None,
    ploidy: int = 2,
    folds_D: ArrayLike | None = None,
) -> dict[str, LinearFit]:
    """Fit the linear models of one gene on its training donors.

    Parameters
    ----------
    dosage_DM : float array, shape (num_donors, num_variants)
        Copies of ALT in the window of the gene; NaN for a missing call.
    y_D : float array, shape (num_donors,)
        Expression; donors whose value is NaN are left out. Only training (and, with ``choose_on:
        valid``, validation) donors are read.
    train_D : bool array, shape (num_donors,)
    config : LinearConfig
    valid_D : bool array, optional
        For ``choose_on: valid``.
    snp_M : bool array, optional
        Variants that are single-nucleotide; the others need ``include_indels``. All when left out.
    ploidy : int
    folds_D : int array, optional
        Folds of the training donors (:func:`assign_folds`, the default).

    Returns
    -------
    dict
        From model name to fit, in the order of the configuration. A gene that cannot be fitted
        gets constant predictions with a status.

    Raises
    ------
    InputError
        Shapes do not fit, a donor trains and validates, or a dosage is impossible.
    """
    dosage, y = np.asarray(dosage_DM), np.asarray(y_D, np.float64)
    train = np.asarray(train_D, bool)
    valid = np.zeros_like(train) if valid_D is None else np.asarray(valid_D, bool)
    _check_shapes(dosage, y, train, valid)
    allowed = np.arange(dosage.shape[1])
    if snp_M is not None and not config.include_indels:
        allowed = np.flatnonzero(np.asarray(snp_M, bool))
    known = np.isfinite(y)
    rows = np.flatnonzero(train & known)
    design = make_design(dosage[rows][:, allowed], min_maf=config.min_maf, ploidy=ploidy)
    gene = _Gene(design=design, y_N=y[rows], config=config, seen=bool(train.any()))
    if config.choose_on == "valid":
        held = np.flatnonzero(valid & known)
        gene.set_validation(dosage[held][:, allowed], y[held])
    else:
        folds = folds_D
        if folds is None:
            folds = assign_folds(train, num_folds=config.num_folds, seed=config.seed)
        gene.set_folds(np.asarray(folds)[rows])
    fits = {name: gene.fit(name) for name in config.models}
    return {
        name: LinearFit(**{**vars(fit), "variant_K": allowed[fit.variant_K]})
        for name, fit in fits.items()
    }


class _Gene:
    """One gene at work: what several models share is made once."""

    def __init__(self, *, design: Design, y_N: Floats, config: LinearConfig, seen: bool) -> None:
        self.design, self.y, self.config, self.seen = design, y_N, config, seen
        self.mean = float(y_N.mean()) if y_N.size else math.nan
        self.centred = y_N - self.mean
        self._parts: Parts | None = None
        self._spectrum: Spectrum | None = None
        self._lonely = False

    def set_folds(self, fold_N: Ints) -> None:
        """Hold out fold after fold; donors without expression are missing from theirs."""
        held = [np.flatnonzero(fold_N == k) for k in np.unique(fold_N)]
        self._lonely = self.y.size < 2 * self.config.num_folds or len(held) < 2
        train = np.arange(self.y.size)
        self._parts = Parts(self.design.columns_NP, self.centred, held, train)

    def set_validation(self, dosage_DM: NDArray[np.floating], y_N: Floats) -> None:
        """Hold out the validation donors once."""
        self._lonely = self.y.size < _MIN_TOP1 or y_N.size == 0
        columns = np.vstack([self.design.columns_NP, self.design.standardise(dosage_DM)])
        rows = np.arange(self.y.size + y_N.size)
        held, train = rows[self.y.size :], rows[: self.y.size]
        labels = np.concatenate([self.centred, y_N - self.mean])
        self._parts = Parts(columns, labels, [held], train)

    def fit(self, name: str) -> LinearFit:
        """Fit one model, or say why its prediction is constant."""
        status = self._obstacle(name)
        if status:
            return self._made(name, None, status=status)
        if name == "top1":
            return self._top1()
        chosen = self._blup() if name == "blup" else self._penalised(name)
        if not chosen.weights_P.any():
            status = "none_selected"
        elif name == "blup" and chosen.penalty == self.config.min_h2:
            status = "h2_floor"
        else:
            status = "ok" if chosen.solved else "not_converged"
        return self._made(name, chosen.weights_P, status=status, penalty=chosen.penalty)

    def _obstacle(self, name: str) -> str:
        if self.y.size == 0:
            return "no_expression" if self.seen else "no_training_donors"
        if name == "mean":
            return "constant"
        if np.abs(self.centred).max() <= 1e-9 * max(float(np.abs(self.y).max()), 1e-300):
            return "constant_expression" if self.y.size > 1 else "too_few_donors"
        if self.y.size < _MIN_TOP1 or (name not in ("top1", "blup") and self._lonely):
            return "too_few_donors"
        return "" if self.design.num_variants else "no_variants"

    def _top1(self) -> LinearFit:
        """Return simple regression on the variant of smallest p; the first of equals."""
        side = self.design.columns_NP.T @ self.centred / self.y.size
        best = int(np.argmax(np.abs(side)))
        k = int(np.flatnonzero(self.design.column_K == best)[0])
        weights = np.zeros(self.design.num_variants)
        weights[k] = self.design.sign_K[k] * side[best] / self.design.scale_K[k]
        return self._made("top1", weights, status="ok", spread=False)

    def _blup(self) -> Chosen:
        h2, *_ = reml(self.spectrum())
        h2 = max(h2, self.config.min_h2)
        # Rounding alone would reach 1: then all of y is genetic.
        h2 = min(h2, 1 - 1e-6)
        weights = _ridge_weights(
            self.spectrum(), self.design.columns_NP, self.centred, copies_P=self.design.copies_P,
            h2=h2, num_variants=self.design.num_variants,
        )  # fmt: skip
        return Chosen(weights, h2, np.zeros(0))

    def _penalised(self, name: str) -> Chosen:
        config, copies = self.config, self.design.copies_P
        parts = self._parts
        if parts is None:
            raise InputError("folds or validation donors come before the fit")
        if name == "ridge_cv":
            return choose_ridge(
                parts, copies, np.sort(config.ridge_h2), num_variants=self.design.num_variants,
                spectrum=self.spectrum(),
            )  # fmt: skip
        plan = NetPlan(
            l1_ratio=1.0 if name == "lasso" else config.l1_ratio,
            num_alphas=config.num_alphas,
            alpha_ratio=config.alpha_ratio,
            tolerance=config.tolerance,
            max_sweeps=config.max_sweeps,
            patience=config.patience,
        )
        return choose_net(parts, copies, plan=plan)

    def spectrum(self) -> Spectrum:
        """Return eigenvalues and eigenvectors of the training kinship."""
        if self._spectrum is None:
            columns = self.design.columns_NP * np.sqrt(self.design.copies_P)
            self._spectrum = make_spectrum(
                columns, self.centred, num_variants=self.design.num_variants
            )
        return self._spectrum

    def _made(
        self,
        name: str,
        weights: Floats | None,
        *,
        status: str,
        penalty: float = math.nan,
        spread: bool = True,
    ) -> LinearFit:
        design = self.design
        empty = np.zeros(0)
        used, on_dosage, mean = np.zeros(0, np.int64), empty, empty
        if weights is not None and weights.any():
            full = design.spread(weights) if spread else weights
            kept = np.flatnonzero(full)
            used, on_dosage, mean = design.variant_K[kept], full[kept], design.mean_K[kept]
        return LinearFit(
            name=name,
            intercept=self.mean - float(mean @ on_dosage),
            variant_K=used,
            weights_K=on_dosage,
            mean_K=mean,
            penalty=penalty,
            num_variants=design.num_variants,
            num_donors=int(self.y.size),
            status=status,
        )


def _check_shapes(dosage: NDArray[np.floating], y: Floats, train: Bools, valid: Bools) -> None:
    num = dosage.shape[0] if dosage.ndim == 2 else -1
    if not y.shape == train.shape == valid.shape == (num,):
        raise InputError(
            facts(
                "linear models",
                found=f"dosages {dosage.shape}, expression {y.shape}, training donors "
                f"{train.shape}, validation donors {valid.shape}",
                expected="dosages (donors, variants) and one value per donor",
                fix="align them by donor",
            )
        )
    both = int((train & valid).sum())
    if both:
        raise InputError(
            facts(
                "linear models", found=f"{both} donors that train and validate",
                expected="none", fix="give each donor one set",
            )
        )  # fmt: skip
