"""A small neural network on the scalar features alone: the control that published tables lack."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["ScalarNetwork", "fit_mlp"]

Matrix = NDArray[np.float64]

_PENALTIES = (0.001, 0.1, 10.0)
_HIDDEN = (32,)


@dataclass(frozen=True)
class ScalarNetwork:
    """One fitted network per label.

    Attributes
    ----------
    pipelines : list
        scikit-learn pipelines, in label order.
    penalty : list of float
        L2 penalty chosen for each on the validation genes.
    """

    pipelines: list  # type: ignore[type-arg]
    penalty: list[float]

    def predict(self, columns: ArrayLike) -> Matrix:
        """Return predictions, shape (num_genes, num_labels)."""
        x = np.asarray(columns, dtype=np.float64)
        return np.stack([pipeline.predict(x) for pipeline in self.pipelines], axis=1)


def fit_mlp(
    train_columns: ArrayLike,
    train_labels: ArrayLike,
    *,
    valid_columns: ArrayLike,
    valid_labels: ArrayLike,
) -> ScalarNetwork:
    """Fit one hidden layer per label on the training genes; the penalty is chosen on validation.

    Parameters
    ----------
    train_columns, valid_columns : float arrays, shape (num_genes, num_columns)
        NaN counts as the training mean of its column.
    train_labels, valid_labels : float arrays, shape (num_genes, num_labels)
        NaN where unknown.
    """
    x, y = np.asarray(train_columns, np.float64), np.asarray(train_labels, np.float64)
    xv, yv = np.asarray(valid_columns, np.float64), np.asarray(valid_labels, np.float64)
    pipelines, penalties = [], []
    for label in range(y.shape[1]):
        known, judged = np.isfinite(y[:, label]), np.isfinite(yv[:, label])
        fitted = [_fit(x[known], y[known, label], penalty) for penalty in _PENALTIES]
        errors = [
            np.mean((model.predict(xv[judged]) - yv[judged, label]) ** 2) if judged.any() else 0.0
            for model in fitted
        ]
        # Without validation genes the middle penalty stands.
        best = int(np.argmin(errors)) if judged.any() else len(_PENALTIES) // 2
        pipelines.append(fitted[best])
        penalties.append(_PENALTIES[best])
    return ScalarNetwork(pipelines, penalties)


def _fit(x: Matrix, y: NDArray[np.float64], penalty: float):  # type: ignore[no-untyped-def]  # noqa: ANN202
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network = MLPRegressor(
        hidden_layer_sizes=_HIDDEN,
        alpha=penalty,
        max_iter=200,
        learning_rate_init=3e-3,
        batch_size=min(64, len(x)),
        random_state=0,
    )
    pipeline = make_pipeline(
        SimpleImputer(keep_empty_features=True),
        StandardScaler(),
        TransformedTargetRegressor(network, transformer=StandardScaler()),
    )
    with warnings.catch_warnings():
        # 200 passes are enough for a control; the penalty is what is chosen.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return pipeline.fit(x, y)
