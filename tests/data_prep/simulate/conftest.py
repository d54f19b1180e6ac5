"""One small simulated world per session, and the same world on disk."""

from __future__ import annotations

import pytest

from data_prep.simulate import SimulationConfig, evaluate, simulate
from data_prep.simulate.build import build_world

# 2 contigs of about 400 kb: some fifty genes, some two hundred distal elements.
SMALL = SimulationConfig(
    seed=7, num_contigs=2, min_contig_length=380_000, max_contig_length=420_000
)


@pytest.fixture(scope="session")
def small_config():
    return SMALL


@pytest.fixture(scope="session")
def draft():
    return build_world(SMALL)


@pytest.fixture(scope="session")
def world(draft):
    return draft.world


@pytest.fixture(scope="session")
def state(world):
    return evaluate(world)


@pytest.fixture(scope="session")
def summary(tmp_path_factory):
    return simulate(SMALL, tmp_path_factory.mktemp("simulated") / "set")


@pytest.fixture(scope="session")
def folder(summary):
    return summary.out
