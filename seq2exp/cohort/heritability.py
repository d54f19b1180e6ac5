"""Cis-heritability of a gene: REML on the kinship of its variants, and Haseman-Elston beside it.

    y = X b + g + e,   g ~ N(0, s_g K),   e ~ N(0, s_e I),   K = Z Z' / M,   h2 = s_g / (s_g + s_e)

with Z the standardised dosages. One eigendecomposition of K, after the covariates X are projected
out, makes the restricted likelihood a sum (Kang et al. 2008, Genetics 178:1709; Lippert et al.
2011, Nat. Methods 8:833). With d_i the eigenvalues, e_i the coordinates of y, m of them, and
v_i = h2 d_i + 1 - h2, the total variance has the closed form s = mean(e_i^2 / v_i), and

    -2 logL(h2) = m log s + sum log v_i + constant

which is searched on a grid and then by Brent's method. Negative h2 are allowed, down to where a
v_i reaches 0 (``constrained`` forbids them), so that the mean over genes is not pulled up.

Axes: D donors, M variants, P columns, R eigenvalues that are not 0.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from seq2exp.cohort.linear_design import make_design
from seq2exp.core.errors import InputError, facts

__all__ = [
    "Heritability",
    "Spectrum",
    "cis_heritability",
    "expected_pearson",
    "haseman_elston",
    "make_spectrum",
    "reml",
]

Floats = NDArray[np.float64]

_MIN_DONORS = 5
_GRID = 80


@dataclass(frozen=True)
class Heritability:
    """What is known of one gene's cis-heritability; NaN where the status says why.

    Attributes
    ----------
    h2, se : float
        REML estimate and its standard error from the expected information.
    p : float
        One-sided likelihood-ratio test of h2 = 0: half of chi2 with one degree of freedom above 0,
        and one minus that below, so that it is uniform where there is no heritability.
    he_h2, he_se : float
        Haseman-Elston regression and its jackknife error over donors.
    num_donors, num_variants : int
    effective_variants : float
        Independent directions among the variants: 1 / (sum d^2 / (sum d)^2 - 1/n) of the
        eigenvalues, 1/n being what chance adds in n donors; at most the variants.
    converged : bool
        Whether the maximum lies inside the interval searched.
    status : str
        ``ok``, ``no_variants``, ``too_few_donors``, ``constant_expression`` or ``no_expression``.
    """

    h2: float = math.nan
    se: float = math.nan
    p: float = math.nan
    he_h2: float = math.nan
    he_se: float = math.nan
    num_donors: int = 0
    num_variants: int = 0
    effective_variants: float = math.nan
    converged: bool = False
    status: str = "ok"

    def row(self) -> dict[str, Any]:
        """Return the numbers as one row of a table."""
        return asdict(self)


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of K and the squared coordinates of y in its eigenvectors.

    Attributes
    ----------
    value_R : float64 array
        Eigenvalues above 0, falling.
    vectors_R : float64 array, shape (num_donors, R) or (num_columns, R)
        Eigenvectors of K when `dual`, of the Gram matrix of the columns over M when not.
    square_R : float64 array
        Squared coordinates of y.
    rest : float
        Sum of squares of y outside the eigenvectors.
    num_zero : int
        Dimensions, covariates not counted, with eigenvalue 0.
    dual : bool
    """

    value_R: Floats
    vectors_R: Floats
    square_R: Floats
    rest: float
    num_zero: int
    dual: bool


def make_spectrum(
    columns_NP: Floats, y_N: Floats, *, num_variants: int, num_covariates: int = 1
) -> Spectrum:
    """Decompose K = A A' / M in the smaller of its two forms.

    Parameters
    ----------
    columns_NP : float64 array, shape (num_donors, num_columns)
        A: standardised columns times the root of their copies, covariates projected out.
    y_N : float64 array, shape (num_donors,)
        Covariates projected out.
    num_variants : int
        M.
    num_covariates : int
        Dimensions that the projection took, the intercept among them.
    """
    num_donors, num_columns = columns_NP.shape
    dual = num_donors < num_columns
    matrix = columns_NP @ columns_NP.T if dual else columns_NP.T @ columns_NP
    value, vectors = np.linalg.eigh(matrix / num_variants)
    keep = np.flatnonzero(value > 1e-10 * max(float(value[-1]), 1e-300))[::-1]
    keep = keep[: num_donors - num_covariates]
    value, vectors = value[keep], vectors[:, keep]
    if dual:
        coordinate = vectors.T @ y_N
    else:
        coordinate = vectors.T @ (columns_NP.T @ y_N) / np.sqrt(num_variants * value)
    square = coordinate**2
    return Spectrum(
        value_R=value,
        vectors_R=vectors,
        square_R=square,
        rest=max(float(y_N @ y_N - square.sum()), 0.0),
        num_zero=num_donors - num_covariates - value.size,
        dual=dual,
    )


def reml(spectrum: Spectrum, *, constrained: bool = False) -> tuple[float, float, float, bool]:
    """Return h2, its standard error, the one-sided p and whether the search converged.

    Parameters
    ----------
    spectrum : Spectrum
    constrained : bool
        Keep h2 at 0 or above; p is then 1 at 0.
    """
    low, high = _bounds(spectrum)
    low = 0.0 if constrained else low
    width = high - low
    # Ends where a variance is 0 are left out.
    inside = (low if constrained else low + 1e-6 * width, high - 1e-6 * width)
    # The likelihood bends most near the lower end, where the largest eigenvalue meets 0.
    grid = inside[0] + (inside[1] - inside[0]) * np.linspace(0, 1, _GRID) ** 2
    values = _deviance(spectrum, grid)
    best = int(np.argmin(values))
    left, right = grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)]
    found = minimize_scalar(
        lambda h: float(_deviance(spectrum, np.array([h]))[0]),
        bounds=(left, right),
        method="bounded",
        options={"xatol": 1e-7 * max(width, 1e-3)},
    )
    h2, deviance = float(found.x), float(found.fun)
    if values[best] < deviance:
        h2, deviance = float(grid[best]), float(values[best])
    root = math.sqrt(max(float(_deviance(spectrum, np.zeros(1))[0]) - deviance, 0.0))
    p = float(norm.sf(math.copysign(root, h2)))
    if constrained and h2 <= 1e-6:
        h2, p = 0.0, 1.0
    interior = bool(found.success) and (constrained or h2 - inside[0] > 1e-4 * width)
    return h2, _standard_error(spectrum, h2), p, interior and inside[1] - h2 > 1e-4 * width


def haseman_elston(columns_NP: Floats, y_N: Floats, *, num_variants: int) -> tuple[float, float]:
    """Return the slope of y_i y_j on K_ij over pairs of donors, and its jackknife error.

    y has mean 0 and variance 1, so the slope estimates h2 without a likelihood.

    Parameters
    ----------
    columns_NP, y_N, num_variants
        As of :func:`make_spectrum`.
    """
    y = y_N / math.sqrt(float(y_N @ y_N) / y_N.size)
    kinship = columns_NP @ columns_NP.T / num_variants
    np.fill_diagonal(kinship, 0.0)
    n = y.size
    # Sums over the pairs that hold a donor; every pair is in two of them.
    pairs = n - 1.0
    by_donor = np.stack(
        [
            np.full(n, pairs),
            kinship.sum(axis=0),
            y * (y.sum() - y),
            (kinship**2).sum(axis=0),
            y * (kinship @ y),
        ]
    )
    whole = by_donor.sum(axis=1, keepdims=True) / 2
    h2 = _slope(whole)[0]
    left = _slope(whole - by_donor)
    return float(h2), float(math.sqrt((n - 1) / n * float(((left - left.mean()) ** 2).sum())))


def cis_heritability(
    dosage_DM: ArrayLike,
    y_D: ArrayLike,
    *,
    covariates_DC: ArrayLike | None = None,
    min_maf: float = 0.05,
    ploidy: int = 2,
    constrained: bool = False,
) -> Heritability:
    """Estimate the cis-heritability of a gene by REML and by Haseman-Elston regression.

    Parameters
    ----------
    dosage_DM : float array, shape (num_donors, num_variants)
        Copies of ALT; missing calls, NaN, take the mean.
    y_D : float array, shape (num_donors,)
        Expression; donors without it, NaN, are left out.
    covariates_DC : float array, shape (num_donors, num_covariates), optional
        Projected out beside the intercept; without NaN.
    min_maf : float
        Least minor-allele frequency among the donors used.
    ploidy : int
    constrained : bool
        Keep h2 at 0 or above.

    Returns
    -------
    Heritability
        NaN with a status where nothing can be estimated.

    Raises
    ------
    InputError
        Shapes do not fit, or a dosage is impossible.
    """
    dosage, y = np.asarray(dosage_DM), np.asarray(y_D, np.float64)
    if dosage.ndim != 2 or y.shape != dosage.shape[:1]:
        raise InputError(
            facts(
                "heritability",
                found=f"dosages of shape {dosage.shape} and {y.shape} expressions",
                expected="one row of dosages per expression value",
                fix="align both by donor",
            )
        )
    known = np.isfinite(y)
    y = y[known]
    design = make_design(dosage[known], min_maf=min_maf, ploidy=ploidy)
    cov = np.ones((y.size, 1))
    if covariates_DC is not None:
        cov = np.column_stack([cov, np.asarray(covariates_DC, np.float64)[known]])
    basis = _basis(cov) if y.size else np.zeros((0, 1))
    status = _status(y, basis, design.num_variants)
    num_variants = design.num_variants
    if status != "ok":
        return Heritability(num_donors=y.size, num_variants=num_variants, status=status)
    columns = design.columns_NP * np.sqrt(design.copies_P)
    columns = columns - basis @ (basis.T @ columns)
    y = y - basis @ (basis.T @ y)
    spectrum = make_spectrum(
        columns, y, num_variants=design.num_variants, num_covariates=basis.shape[1]
    )
    h2, se, p, converged = reml(spectrum, constrained=constrained)
    he_h2, he_se = haseman_elston(columns, y, num_variants=design.num_variants)
    return Heritability(
        h2=h2,
        se=se,
        p=p,
        he_h2=he_h2,
        he_se=he_se,
        num_donors=y.size,
        num_variants=num_variants,
        effective_variants=_effective(spectrum, num_variants),
        converged=converged,
    )


def expected_pearson(h2: float, *, num_donors: int, effective_variants: float) -> float:
    """Return the correlation with new donors that a linear model can expect.

    sqrt(h2) sqrt(N h2 / (N h2 + M_e)): the root of the heritability bounds it, and N training
    donors estimate M_e independent effects (Daetwyler et al. 2008, PLoS ONE 3:e3395). It is that of
    BLUP, whatever the number of causal variants; a sparse model comes nearer to sqrt(h2) where few
    variants act.
    """
    signal = num_donors * max(h2, 0.0)
    if signal <= 0:
        return 0.0
    return math.sqrt(max(h2, 0.0) * signal / (signal + effective_variants))


def _effective(spectrum: Spectrum, num_variants: int) -> float:
    value = spectrum.value_R
    chance = 1 / (value.size + spectrum.num_zero)
    inverse = float((value**2).sum() / value.sum() ** 2) - chance
    return min(1 / inverse, float(num_variants)) if inverse > 0 else float(num_variants)


def _status(y: Floats, basis: Floats, num_variants: int) -> str:
    if y.size == 0:
        return "no_expression"
    if y.size < _MIN_DONORS + basis.shape[1]:
        return "too_few_donors"
    rest = y - basis @ (basis.T @ y)
    if float(np.abs(rest).max()) <= 1e-9 * max(float(np.abs(y).max()), 1e-300):
        return "constant_expression"
    return "ok" if num_variants else "no_variants"


def _basis(covariates: Floats) -> Floats:
    left, value, _ = np.linalg.svd(covariates, full_matrices=False)
    return np.asarray(left[:, value > 1e-9 * value[0]])


def _bounds(spectrum: Spectrum) -> tuple[float, float]:
    """Return the h2 between which every variance is above 0."""
    largest = float(spectrum.value_R.max())
    smallest = 0.0 if spectrum.num_zero else float(spectrum.value_R.min())
    low = -1 / (largest - 1) if largest > 1 + 1e-6 else -1e3
    high = 1 / (1 - smallest) if smallest < 1 - 1e-6 else 1e3
    return max(low, -10.0), min(high, 1.0)


def _deviance(spectrum: Spectrum, h2: Floats) -> Floats:
    """Return -2 logL without its constant, for each h2."""
    variance = h2[:, None] * (spectrum.value_R - 1) + 1
    scaled = (spectrum.square_R / variance).sum(axis=1)
    logs = np.log(variance).sum(axis=1)
    if spectrum.num_zero:
        scaled = scaled + spectrum.rest / (1 - h2)
        logs = logs + spectrum.num_zero * np.log(1 - h2)
    num = spectrum.value_R.size + spectrum.num_zero
    return np.asarray(num * np.log(scaled / num) + logs)


def _standard_error(spectrum: Spectrum, h2: float) -> float:
    """Return the error of h2 from the expected information of (s_g, s_e), s_g + s_e = 1."""
    value = np.append(spectrum.value_R, 0.0)
    copies = np.append(np.ones(spectrum.value_R.size), spectrum.num_zero)
    weight = copies / (h2 * value + 1 - h2) ** 2
    gg, ge, ee = ((weight * value**power).sum() / 2 for power in (2, 1, 0))
    determinant = gg * ee - ge**2
    if determinant <= 0:
        return math.nan
    slope = np.array([1 - h2, -h2])
    covariance = np.array([[ee, -ge], [-ge, gg]]) / determinant
    return math.sqrt(max(float(slope @ covariance @ slope), 0.0))


def _slope(sums: Floats) -> Floats:
    """Return the slope of a regression from the sums n, x, y, xx, xy."""
    n, x, y, xx, xy = sums
    spread = n * xx - x**2
    return np.asarray(np.where(spread > 0, (n * xy - x * y) / np.where(spread > 0, spread, 1), 0.0))
