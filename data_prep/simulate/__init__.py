"""A genome, tracks and expression whose truth is known base by base, written as ordinary files."""

from __future__ import annotations

from data_prep.simulate.config import SimulationConfig
from data_prep.simulate.simulation import SimulationSummary, simulate

__all__ = ["SimulationConfig", "SimulationSummary", "simulate"]
