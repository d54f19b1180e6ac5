"""A small simulated cohort, prepared once, and settings of a model that trains in a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.build import prepare
from data_prep.config import DataConfig
from data_prep.simulate import SimulationConfig, simulate
from data_prep.simulate.donor_config import DonorConfig
from seq2exp.cohort.config import CohortConfig
from seq2exp.cohort.train import open_cohort
from seq2exp.core.config import bind, load_yaml, merge
from seq2exp.dataset.store import Dataset

ROOT = Path(__file__).parents[2]
SIMULATION = SimulationConfig(
    seed=2,
    num_contigs=3,
    min_contig_length=150_000,
    max_contig_length=160_000,
    gene_spacing=8_000,
    max_distance=3_500,
    reach=4_000,
    donors=DonorConfig(
        num_donors=30, num_second=10, founders=12, indel_share=0.3, heritability=0.6
    ),
)
TINY = {
    "data": {"window_bp": 2048, "bin_size": 64},
    "expression": {"factors": "none"},
    "splits": {"test_populations": ["SIM2"], "valid_share": 0.25},
    "groups": {"people": 6, "per_gene": 1},
    "loss": {"name": "joint"},
    "model": {
        "name": "seq2exp",
        "mask": "none",
        "kl_weight": 0.0,
        "d_model": 8,
        "d_state": 2,
        "generator_layers": 1,
        "predictor_layers": 1,
        "promoter_bp": 256,
        "readout_bp": 2048,
        "head_hidden": 8,
        "head_layers": 1,
        "stem": {"kmer": 4, "channels": 8},
    },
    "optim": {"lr": 1e-2},
    # Sums depend on the number of threads, which other tests of the process may have set.
    "fit": {"max_epochs": 2, "batch_size": 4, "threads": 1},
}


@pytest.fixture(scope="session")
def simulated(tmp_path_factory) -> Path:
    return simulate(SIMULATION, tmp_path_factory.mktemp("people") / "simulated").out


@pytest.fixture(scope="session")
def data_settings():
    """Settings of the shipped data configuration, with other contigs held out."""
    values = load_yaml(ROOT / "configs" / "data" / "simulated_cohort.yaml")
    return merge(values, {"splits": {"valid": ["chr2"], "test": ["chr3"]}})


@pytest.fixture(scope="session")
def people(simulated, data_settings, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("people_data") / "dataset"
    config = bind(DataConfig, data_settings, where="test")
    prepare(config, source=simulated, out=out, workers=1, progress=False)
    return out


@pytest.fixture
def settings():
    """Return a maker of configurations: the tiny one with changes."""

    def make(**changes) -> CohortConfig:
        return bind(CohortConfig, merge(TINY, changes), where="test")

    return make


@pytest.fixture(scope="session")
def cohort(people):
    return open_cohort(bind(CohortConfig, TINY, where="test"), Dataset(people))
