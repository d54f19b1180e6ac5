"""A genome, tracks and expression whose truth is known base by base, written as ordinary files."""

from __future__ import annotations

from data_prep.simulate.config import SimulationConfig
from data_prep.simulate.load import (
    gene_base_effects,
    load_base_effects,
    load_effects,
    load_world,
)
from data_prep.simulate.simulation import SimulationSummary, simulate
from data_prep.simulate.world import Edit, World, evaluate, expression_of

__all__ = [
    "Edit",
    "SimulationConfig",
    "SimulationSummary",
    "World",
    "evaluate",
    "expression_of",
    "gene_base_effects",
    "load_base_effects",
    "load_effects",
    "load_world",
    "simulate",
]
