"""Ridge regression on features of the patch: the floor that every system is shown beside.

Features, and those of the neighbouring spots on request, are standardised with training spots and,
on request, centred per section, which takes away what differs between sections of colour alone and
uses the features, not the labels, of the section that is predicted. Strength and number of
principal components are settings, or the strength is chosen by leaving out one training section at
a time.

Axes: N spots, D features, G genes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.core.errors import ConfigError, facts
from seq2exp.spatial.data import SpotTable

__all__ = ["Ridge", "RidgeConfig", "neighbour_mean"]

Floats = NDArray[np.float64]
_REACH = 1.6


@dataclass(frozen=True)
class RidgeConfig:
    """Settings of the ridge."""

    alpha: float = 0.0
    """Strength; 0 chooses among ``alphas`` by leaving out patients, or sections of one patient."""
    alphas: tuple[float, ...] = (10.0, 100.0, 1000.0, 10000.0)
    """Strengths to choose from."""
    num_components: int = 0
    """Principal components of the features; 0 uses the features themselves."""
    neighbours: bool = True
    """Add the mean features of the spots within 1.6 pitches."""
    clip: float = 3.0
    """Largest size of a standardised feature: colours that training sections hardly show would
    otherwise rule a section that has them; 0 for no limit."""
    center_sections: bool = True
    """Centre features, and training labels, per section."""

    def __post_init__(self) -> None:
        sizes = (self.alpha, self.num_components, self.clip)
        if min(sizes) < 0 or not self.alphas or min(self.alphas) <= 0:
            raise ConfigError(
                facts(
                    "ridge",
                    found=f"alpha {self.alpha}, alphas {self.alphas}, "
                    f"num_components {self.num_components}, clip {self.clip}",
                    expected="strengths above 0, the others 0 or more",
                    fix="change it",
                )
            )


class Ridge:
    """Ridge regression from features to all genes of a panel.

    Parameters
    ----------
    config : RidgeConfig
    """

    needs = frozenset({"feat"})
    """Fields that are read."""

    def __init__(self, config: RidgeConfig | None = None) -> None:
        self.config = config or RidgeConfig()
        self.alpha = self.config.alpha
        self._state: dict[str, Floats] = {}

    @property
    def controls(self) -> dict[str, Any]:
        """Simpler models that must stand beside it: none."""
        return {}

    def fit(self, table: SpotTable) -> Ridge:
        """Fit on training spots; genes that were not measured in a section are left out there.

        Raises
        ------
        ConfigError
            The table has no features.
        """
        self.alpha = self.config.alpha or self._choose(table)
        self._state = self._fitted(table, self.alpha)
        return self

    def predict(self, table: SpotTable) -> Floats:
        """Return predicted labels, shape (num_spots, num_genes)."""
        state = self._state
        x_ND = self._inputs(table, state)
        predicted: Floats = x_ND @ state["weight"] + state["mean_y"]
        return predicted

    @property
    def num_parameters(self) -> int:
        """Weights and means of the genes."""
        return int(self._state["weight"].size + self._state["mean_y"].size)

    def state(self) -> dict[str, Any]:
        """Return the fitted numbers, for saving."""
        return {**self._state, "alpha": np.float64(self.alpha)}

    @classmethod
    def from_state(cls, config: RidgeConfig, state: dict[str, Any]) -> Ridge:
        """Return the ridge that :meth:`state` described."""
        made = cls(config)
        made.alpha = float(np.ravel(state["alpha"])[0])
        made._state = {key: np.asarray(value) for key, value in state.items() if key != "alpha"}
        return made

    def _choose(self, table: SpotTable) -> float:
        """Return the strength with the smallest error on left-out patients, or sections of one."""
        several = len(np.unique(table.patient_N)) > 1
        left_out_N = table.patient_N if several else table.section_N
        if len(np.unique(left_out_N)) < 2:
            return float(np.median(self.config.alphas))
        errors = dict.fromkeys(self.config.alphas, 0.0)
        for number in np.unique(left_out_N):
            places = np.flatnonzero(left_out_N == number)
            rest = np.setdiff1d(np.arange(len(table)), places)
            for alpha in self.config.alphas:
                state = self._fitted(table.take(rest), alpha)
                held = table.take(places)
                difference = held.y_NG - (
                    self._inputs(held, state) @ state["weight"] + state["mean_y"]
                )
                if self.config.center_sections:
                    for _, rows in held.by_section():
                        difference[rows] -= _known_mean(difference[rows])
                errors[alpha] += float(np.nansum(difference**2))
        return min(errors, key=errors.__getitem__)

    def _fitted(self, table: SpotTable, alpha: float) -> dict[str, Floats]:
        raw_ND = self._features(table)
        state = {"mean_x": raw_ND.mean(axis=0), "scale_x": raw_ND.std(axis=0)}
        # A constant feature says nothing; dividing it by rounding noise would.
        state["scale_x"] = np.where(state["scale_x"] > 1e-9, state["scale_x"], np.inf)
        if self.config.num_components:
            scaled = (raw_ND - state["mean_x"]) / state["scale_x"]
            if self.config.clip:
                scaled = scaled.clip(-self.config.clip, self.config.clip)
            _, _, axes = np.linalg.svd(scaled, full_matrices=False)
            state["axes"] = axes[: self.config.num_components].T
        x_ND = self._inputs(table, state)
        y_NG = table.y_NG.astype(np.float64)
        state["mean_y"] = _known_mean(y_NG)
        target_NG = y_NG - state["mean_y"]
        if self.config.center_sections:
            for _, places in table.by_section():
                target_NG[places] -= _known_mean(target_NG[places])
        state["weight"] = _solve(x_ND, target_NG, alpha)
        return state

    def _inputs(self, table: SpotTable, state: dict[str, Floats]) -> Floats:
        x_ND = (self._features(table) - state["mean_x"]) / state["scale_x"]
        if self.config.clip:
            x_ND = x_ND.clip(-self.config.clip, self.config.clip)
        if "axes" in state:
            x_ND = x_ND @ state["axes"]
        if self.config.center_sections:
            for _, places in table.by_section():
                x_ND[places] -= x_ND[places].mean(axis=0)
        return x_ND

    def _features(self, table: SpotTable) -> Floats:
        if table.feat_ND is None:
            raise ConfigError(
                facts(
                    "system ridge",
                    found="no features",
                    expected="features of the patches",
                    fix="choose an image encoder",
                )
            )
        values = table.feat_ND.astype(np.float64)
        if not self.config.neighbours:
            return values
        return np.concatenate([values, neighbour_mean(table)], axis=1)


def neighbour_mean(table: SpotTable) -> Floats:
    """Return the mean features of the spots within 1.6 pitches; of none, the spot's own."""
    from scipy.spatial import cKDTree

    assert table.feat_ND is not None
    values = table.feat_ND.astype(np.float64)
    found = values.copy()
    for _, places in table.by_section():
        if places.size < 2:
            continue
        tree = cKDTree(table.um_N2[places])
        pitch = float(np.median(tree.query(table.um_N2[places], k=2)[0][:, 1]))
        for place, near in zip(places, tree.query_ball_tree(tree, _REACH * pitch), strict=True):
            others = places[near][places[near] != place]
            if others.size:
                found[place] = values[others].mean(axis=0)
    return found


def _solve(x_ND: Floats, y_NG: Floats, alpha: float) -> Floats:
    """Return the weights; spots where a gene is missing are left out for that gene."""
    known_NG = np.isfinite(y_NG)
    weight = np.zeros((x_ND.shape[1], y_NG.shape[1]))
    patterns, which = np.unique(known_NG, axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        rows, genes = patterns[:, number], np.flatnonzero(which.ravel() == number)
        if rows.any():
            x, y = x_ND[rows], y_NG[np.ix_(rows, genes)]
            gram = x.T @ x + alpha * np.eye(x.shape[1])
            weight[:, genes] = np.linalg.solve(gram, x.T @ y)
    return weight


def _known_mean(values_NG: Floats) -> Floats:
    """Return the mean of each column over what is known; 0 where nothing is."""
    known = np.isfinite(values_NG)
    mean: Floats = np.where(known, values_NG, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return mean
