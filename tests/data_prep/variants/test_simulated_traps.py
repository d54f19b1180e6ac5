"""Simulated donors written plainly and with the habits of public files give the same dataset."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from data_prep.build import prepare
from data_prep.config import DataConfig
from data_prep.simulate import SimulationConfig, simulate
from data_prep.simulate.donor_config import DonorConfig
from seq2exp.core.config import bind, load_yaml, merge
from seq2exp.core.errors import InputError, Seq2ExpWarning
from seq2exp.dataset.store import Dataset
from seq2exp.variation.policies import MISSING

ROOT = Path(__file__).parents[3]
DONORS = DonorConfig(num_donors=100, num_second=5, founders=12, indel_share=0.3)
SIMULATION = SimulationConfig(
    seed=3, num_contigs=2, min_contig_length=150_000, max_contig_length=160_000,
    gene_spacing=8_000, max_distance=3_500, reach=4_000, donors=DONORS,
)  # fmt: skip
PLAIN = merge(
    load_yaml(ROOT / "configs" / "data" / "simulated_cohort.yaml"),
    {"splits": {"valid": [], "test": ["chr2"]}},
)
# What the files with traps need beside: names of columns, and what to do with replicates.
TRAPPED = {
    "donors": {
        "expression": {
            "gene_column": "targetid",
            "ignore": ["Gene_Symbol", "gene_type"],
            "cut_names_at": ".",
            "replicates": "mean",
        }
    }
}


def made(folder, *, traps):
    donors = dataclasses.replace(DONORS, traps=traps)
    source = simulate(dataclasses.replace(SIMULATION, donors=donors), folder / "raw").out
    values = merge(PLAIN, TRAPPED) if traps else PLAIN
    config = bind(DataConfig, values, where="test")
    prepare(config, source=source, out=folder / "out", workers=1, progress=False)
    return Dataset(folder / "out")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traps")
    plain = made(folder / "plain", traps=False)
    with pytest.warns(Seq2ExpWarning, match="donors with several columns"):
        return plain, made(folder / "trapped", traps=True)


def test_alleles_are_the_same_but_for_the_calls_that_were_dotted(both):
    plain, trapped = both
    assert plain.genotypes.donors == trapped.genotypes.donors
    assert set(plain.genotypes.contigs) == set(trapped.genotypes.contigs) == {"chr1", "chr2"}
    for contig in plain.genotypes.contigs:
        first, second = (found.genotypes.variants(contig) for found in both)
        for name in ("position_M", "ref_length_M", "alt_codes_C"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        given, found = (part.genotypes.alleles(contig, 0, len(first)) for part in both)
        dotted = (found == MISSING).all(axis=1)
        assert 0 < dotted.mean() < 0.02
        assert not (given == MISSING).any()
        everyone = np.broadcast_to(dotted[:, None], given.shape)
        np.testing.assert_array_equal(found[~everyone], given[~everyone])
        assert (found[everyone] == MISSING).all()


def test_expression_and_donors_are_the_same(both):
    plain, trapped = both
    first, second = plain.donor_expression, trapped.donor_expression
    assert first.index.equals(second.index)
    assert list(first.columns) == list(second.columns)
    # The mean of two equal replicates may round differently.
    np.testing.assert_allclose(second, first, rtol=1e-6)
    assert plain.donors.equals(trapped.donors)
    assert plain.manifest.genotypes.expression_unit == trapped.manifest.genotypes.expression_unit


def test_without_those_settings_the_files_are_refused(tmp_path, both):
    source = Path(both[1].root).parent / "raw"
    config = bind(DataConfig, PLAIN, where="test")
    with pytest.raises(InputError, match="no column 'gene_id'"):
        prepare(config, source=source, out=tmp_path / "out", workers=1, progress=False)
