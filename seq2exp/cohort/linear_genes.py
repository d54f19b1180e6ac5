"""The linear models of many genes, on all processors.

Genes are spread over threads: the work is in compiled loops and in LAPACK, which let other threads
run. Results do not depend on their number.

Axes: G genes, D donors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from seq2exp.cohort.linear import LinearConfig, LinearFit, assign_folds, fit_gene
from seq2exp.core.errors import InputError, facts

__all__ = ["LinearResults", "fit_genes"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LinearResults:
    """Fits of many genes.

    Attributes
    ----------
    predictions : dict
        Per model a float64 array, shape (num_genes, num_donors): all donors, training ones too.
    table : DataFrame
        gene_id, name, status, num_variants, num_used, num_donors, penalty: a row per gene and
        model.
    fits : dict
        Per gene and model the fit, where it was asked for.
    """

    predictions: dict[str, Floats]
    table: pd.DataFrame
    fits: dict[tuple[str, str], LinearFit]


def fit_genes(
    gene_ids: Sequence[str],
    load: Callable[[str], ArrayLike],
    y_GD: ArrayLike,
    *,
    train: ArrayLike,
    config: LinearConfig,
    valid: ArrayLike | None = None,
    load_snps: Callable[[str], ArrayLike] | None = None,
    ploidy: int = 2,
    workers: int | None = None,
    keep_fits: bool = False,
    on_gene: Callable[[str], None] | None = None,
) -> LinearResults:
    """Fit the linear models of many genes and predict all donors.

    Parameters
    ----------
    gene_ids : sequence of str
    load : callable
        From gene to dosages, shape (num_donors, num_variants), of all donors; called once per gene,
        from several threads, at most a few genes ahead.
    y_GD : float array, shape (num_genes, num_donors)
    train : bool array, shape (num_donors,) or (num_genes, num_donors)
        Training donors, of all genes or of each.
    config : LinearConfig
    valid : bool array, optional
        Validation donors, in either shape.
    load_snps : callable, optional
        From gene to a bool array over its variants: which are single-nucleotide.
    ploidy : int
    workers : int, optional
        Threads; the number of processors when left out.
    keep_fits : bool
        Keep the weights.
    on_gene : callable, optional
        Called with each gene when it is finished, in order: progress.

    Raises
    ------
    InputError
        Shapes do not fit, or a dosage is impossible; the gene is named.
    """
    y = np.asarray(y_GD, np.float64)
    shape = y.shape
    if y.ndim != 2 or shape[0] != len(gene_ids):
        raise InputError(
            facts(
                "expression for the linear models", found=f"shape {shape}",
                expected=f"({len(gene_ids)}, donors)", fix="give one row per gene",
            )
        )  # fmt: skip
    trains = np.broadcast_to(np.asarray(train, bool), shape)
    valids = np.broadcast_to(np.zeros(shape[1], bool) if valid is None else valid, shape)
    common = None
    if np.asarray(train).ndim == 1:
        common = assign_folds(trains[0], num_folds=config.num_folds, seed=config.seed)

    def work(place: int) -> tuple[dict[str, LinearFit], dict[str, Floats]]:
        gene = gene_ids[place]
        dosage = np.asarray(load(gene))
        try:
            fits = fit_gene(
                dosage, y[place], train_D=trains[place], config=config, valid_D=valids[place],
                snp_M=load_snps(gene) if load_snps else None, ploidy=ploidy, folds_D=common,
            )  # fmt: skip
        except InputError as error:
            error.add_note(f"gene {gene}")
            raise
        return fits, {name: fit.predict(dosage) for name, fit in fits.items()}

    predictions = {name: np.full(shape, np.nan) for name in config.models}
    rows: list[Mapping[str, object]] = []
    kept: dict[tuple[str, str], LinearFit] = {}
    for place, (fits, guesses) in enumerate(_in_threads(work, len(gene_ids), workers)):
        for name, fit in fits.items():
            predictions[name][place] = guesses[name]
            rows.append(_table_row(gene_ids[place], fit))
            if keep_fits:
                kept[gene_ids[place], name] = fit
        if on_gene:
            on_gene(gene_ids[place])
    return LinearResults(predictions, pd.DataFrame(rows, columns=list(_COLUMNS)), kept)


_COLUMNS = ("gene_id", "name", "status", "num_variants", "num_used", "num_donors", "penalty")


def _table_row(gene: str, fit: LinearFit) -> dict[str, object]:
    return {"gene_id": gene} | {name: getattr(fit, name) for name in _COLUMNS[1:]}


def _in_threads(
    work: Callable[[int], tuple[dict[str, LinearFit], dict[str, Floats]]],
    num: int,
    workers: int | None,
) -> Iterator[tuple[dict[str, LinearFit], dict[str, Floats]]]:
    """Yield results in order; no more than a few are under way, so memory stays flat."""
    threads = max(1, min(workers or os.cpu_count() or 1, num))
    with _one_blas_thread():
        if threads == 1:
            yield from (work(place) for place in range(num))
            return
        waiting: list[Future[tuple[dict[str, LinearFit], dict[str, Floats]]]] = []
        with ThreadPoolExecutor(threads) as pool:
            try:
                for place in range(num):
                    waiting.append(pool.submit(work, place))
                    if len(waiting) >= 4 * threads:
                        yield waiting.pop(0).result()
                while waiting:
                    yield waiting.pop(0).result()
            finally:
                for future in waiting:
                    future.cancel()


def _one_blas_thread() -> AbstractContextManager[object]:
    """Keep BLAS from starting threads inside ours."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limits
