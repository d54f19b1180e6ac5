"""configs/data/geuvadis.yaml and configs/cohort/geuvadis.yaml on small files like the real ones."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_prep.sources import fetch, load_registry
from seq2exp.cli.main import main
from seq2exp.cohort.benchmark_config import BenchmarkConfig
from seq2exp.cohort.targets import cohort_targets
from seq2exp.core.config import dump_yaml, load_config, load_yaml
from seq2exp.core.errors import Seq2ExpWarning
from seq2exp.dataset import format_genotypes as places
from seq2exp.dataset.store import Dataset
from tests.data_prep.sources import geuvadis

ROOT = Path(__file__).parents[2]
DATA = ROOT / "configs" / "data" / "geuvadis.yaml"
COHORT = ROOT / "configs" / "cohort" / "geuvadis.yaml"
# Sizes only: the protocol stays the shipped one.
TINY = {
    "cohort": {
        "data": {"window_bp": 2048},
        "expression": {"num_factors": 2},
        "genes": {"num_seen": 8, "num_unseen": 4},
        "groups": {"people": 6, "per_gene": 1},
        "model": {
            "d_model": 8, "d_state": 2, "predictor_layers": 1, "promoter_bp": 256,
            "head_hidden": 8, "head_layers": 1, "stem": {"kmer": 3, "channels": 4},
        },
        "fit": {"max_epochs": 1, "accelerator": "cpu", "threads": 1},
    },
    "linear": {"models": ["mean", "top1", "enet"], "num_alphas": 15},
    "plan": {"num_resamples": 50, "num_permutations": 50},
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The files as downloads leave them, and what fetch makes of them; no network is needed."""
    files = geuvadis.write(tmp_path_factory.mktemp("geuvadis") / "raw")
    registry = load_registry()
    entries = registry.entries(registry.recipe("geuvadis"))
    # The list of people is held to its published checksum, which ours cannot have.
    here = [item for item in entries if item.name != "geuvadis_421.txt"]
    done = fetch(here, files.folder, progress=False)
    assert (done.new, done.made) == ([], ["hg19.fa.bgz"])
    assert len(done.kept) == 26
    return files


@pytest.fixture(scope="module")
def prepared(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("geuvadis_data") / "dataset"
    line = ["prepare", "--config", str(DATA), "--source", str(made.folder), "--out", str(out)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Seq2ExpWarning)
        assert main([*line, "--workers", "1"]) == 0
    return out


def test_the_people_are_those_of_the_list_in_both_tables(made, prepared):
    dataset = Dataset(prepared)
    assert dataset.genotypes.donors == made.people
    assert dataset.genotypes.ploidy == 2
    found = dict(zip(dataset.donors["donor"], dataset.donors["population"], strict=True))
    assert found == {name: made.population[name] for name in made.people}
    left = pd.read_csv(places.left_out_path(prepared), sep="\t", header=None, comment="#")
    assert set(made.others) <= set(left[0])


def test_genotypes_are_the_planted_ones_and_the_rest_is_listed(made, prepared):
    genotypes = Dataset(prepared).genotypes
    assert set(genotypes.contigs) == {f"chr{n}" for n in range(1, 23)}
    for contig, expected in made.alleles.items():
        variants = genotypes.variants(contig)
        assert variants.position_M.tolist() == made.positions[contig]
        np.testing.assert_array_equal(genotypes.alleles(contig, 0, len(variants)), expected)
        phase = genotypes.unphased(contig, 0, len(variants))
        assert phase is None or not phase.any()
    rejects = pd.read_csv(places.rejects_path(prepared), sep="\t")
    assert (rejects["alt"] == "<DEL>").sum() == 22 * 3
    # Beside them, the one variant whose REF the genome does not have.
    assert rejects["reason"].nunique() == 2
    assert len(rejects) == 22 * 3 + 1


def test_expression_is_tpm_over_all_genes_of_the_file(made, prepared):
    dataset = Dataset(prepared)
    assert dataset.manifest.genotypes.expression_unit == "TPM"
    table = dataset.donor_expression
    assert list(table.index) == made.genes
    expected = np.stack([made.tpm[name] for name in made.genes])
    np.testing.assert_allclose(table.to_numpy(), expected, rtol=1e-5)
    # The genes of X are part of the sum though they are not stored.
    assert (table.sum(axis=0) < 0.999e6).all()


def test_start_sites_are_ends_of_the_gene_record(made, prepared):
    genes = Dataset(prepared).genes
    assert genes["gene_id"].tolist() == made.genes
    assert genes["tss"].tolist() == list(geuvadis.TSS) * 22
    assert genes["strand"].tolist() == ["+", "-", "+"] * 22


def test_the_shipped_protocol_splits_and_fits_as_it_says(made, prepared):
    config = load_config(BenchmarkConfig, [COHORT]).cohort
    assert (config.data.window_bp, config.data.bin_size) == (49_152, 128)
    values = load_yaml(COHORT)["cohort"]["expression"] | {"num_factors": 2}
    tuned = load_config(BenchmarkConfig, [COHORT], overrides={"cohort": {"expression": values}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Seq2ExpWarning)
        targets = cohort_targets(Dataset(prepared), tuned.cohort.expression, config.splits)
    sets = dict(zip(targets.split.donors, targets.split.donor_sets, strict=True))
    held = {name for name, kind in sets.items() if kind == "population"}
    assert held == {name for name, where in made.population.items() if where == "Yoruba"}
    assert sum(kind == "test" for kind in sets.values()) == round(32 * 0.2239)
    contigs = {}
    for contig, kind in zip(targets.split.contigs, targets.split.gene_sets, strict=True):
        assert contigs.setdefault(contig, kind) == kind
    assert sorted(set(contigs.values())) == ["seen_a", "seen_b", "unseen"]
    # One gene has zeros in too many people.
    assert np.isnan(targets.raw_GD).all(axis=1).sum() == 1
    level = np.stack([made.tpm[name] for name in made.genes])
    kept = np.isfinite(targets.raw_GD).all(axis=1)
    np.testing.assert_allclose(
        targets.raw_GD[kept], np.log(level[kept] + 0.01), rtol=1e-4, atol=1e-5
    )


def test_real_sizes_give_77_test_people():
    config = load_config(BenchmarkConfig, [COHORT]).cohort.splits
    assert round(344 * config.test_share) == 77
    assert round((344 - 77) * config.valid_share) == 13


def test_the_benchmark_runs_to_its_end(prepared, tmp_path, capsys):
    dump_yaml(TINY, tmp_path / "tiny.yaml")
    out = tmp_path / "bench"
    line = ["cohort", "benchmark", "--config", str(COHORT), "--config", str(tmp_path / "tiny.yaml")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Seq2ExpWarning)
        assert main([*line, "--data", str(prepared), "--out", str(out)]) == 0
    assert (out / "report.html").is_file()
    table = pd.read_csv(out / "table.tsv", sep="\t")
    assert {"reference", "pairs", "joint", "untrained", "enet", "top1"} <= set(table["name"])
    assert {"A", "B", "C"} <= set(table["split"])
    assert "fitted on" in capsys.readouterr().out
