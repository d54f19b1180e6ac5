"""The suite of HESCAPE on simulated tissue: what is planted is found, what is shuffled is not."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from data_prep.histology.build import prepare_cohort
from data_prep.simulate.spatial import SpatialSimulationConfig, simulate_cohort
from seq2exp.core.errors import ConfigError
from seq2exp.report.spatial_plot import plot_recall
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.compare.hescape import compare_hescape
from seq2exp.spatial.compare.hescape_config import Arm, HescapeSuiteConfig, arms
from seq2exp.spatial.compare.hescape_rows import over_units, recall_interval, recall_name
from seq2exp.spatial.compare.hescape_text import hescape_text, shown_recall
from seq2exp.spatial.config import EncoderConfig, SpatialFitConfig
from seq2exp.spatial.features import GivenFeatures
from seq2exp.spatial.folds import FoldConfig
from seq2exp.spatial.panels import PanelConfig
from tests.spatial.tissue_batches import quick_features

NAME = "colours.linear.clip.{}"
WHOLE = recall_name(5, "section", "within")


def config(**more):
    settings = {
        "encoders": [EncoderConfig("colours")],
        "genes": ("linear",),
        "objectives": ("clip",),
        "system": {"width": 8, "image_head": "linear", "retrieval": {"k": 10}},
        "fit": SpatialFitConfig(max_epochs=10, lr=0.01, batch_size=64),
        "panel": PanelConfig("var", 30),
        "sizes": (64, "section"),
        "ks": (1, 5),
        "probe_columns": ("array_row",),
        "num_resamples": 300,
    }
    return HescapeSuiteConfig(**settings | more)


@pytest.fixture(scope="module")
def tissue(tmp_path_factory):
    """Three patients with two sections of 100 spots, and colours of their patches."""
    folder = tmp_path_factory.mktemp("tissue")
    settings = SpatialSimulationConfig(
        num_patients=3, num_spots=100, signal=0.8, noise=0.05, batch_effect=0.1, depth=20_000.0
    )
    truth = simulate_cohort(settings, folder / "raw")
    prepare_cohort(truth.cohort, folder / "raw", folder / "cohort")
    cohort = SpatialCohort(folder / "cohort")
    values = {each.name: quick_features(each.patches) for each in cohort.sections()}
    return cohort, GivenFeatures(values)


@pytest.fixture(scope="module")
def aligned(tissue, tmp_path_factory):
    out = tmp_path_factory.mktemp("hescape") / "out"
    cohort, features = tissue

    def get(run):
        if run.encoder.name == "none":
            raise ConfigError("no such encoder")
        return features

    suite = config(encoders=[EncoderConfig("colours"), EncoderConfig("none")])
    return out, compare_hescape(suite, data=cohort.root, out=out, features=get), get


def found_in(rows):
    return {(row["name"], row["metric"], row.get("direction")): row for row in rows}


def test_planted_signal_is_found_far_above_chance_and_shuffled_pairs_are_at_it(aligned):
    rows = found_in(aligned[1].rows)
    for negatives in ("any", "within_slide"):
        name = NAME.format(negatives)
        for way in ("image->gene", "gene->image"):
            found = rows[name, WHOLE, way]
            assert (found["gallery"], found["n"]) == (100, 600)
            assert found["chance"] == pytest.approx(5 / 100)
            assert found["low"] > 10 * found["chance"]
            shuffled = rows[f"{name}: shuffled pairs", WHOLE, way]
            assert shuffled["low"] < 5 / 100 < shuffled["high"]
            small = rows[f"{name}: shuffled pairs", recall_name(5, 64, "across"), way]
            assert small["chance"] == pytest.approx(5 / 64)
            assert small["low"] < 5 / 64 < small["high"]


def test_probes_stand_beside_the_frozen_features(aligned):
    rows = found_in(aligned[1].rows)
    name = NAME.format("any")
    ours, frozen = (rows[each, "ridge pearson", None] for each in (name, "colours: frozen"))
    gain = rows[f"{name} - frozen", "ridge pearson", None]
    assert min(ours["value"], frozen["value"]) > 0.2
    assert gain["value"] == pytest.approx(ours["value"] - frozen["value"])
    assert (gain["n"], ours["n"]) == (3, 3)
    assert gain["low"] <= gain["value"] <= gain["high"]
    accuracy = rows[name, "image section accuracy (held-out spots)", None]
    assert accuracy["chance"] == 0.5
    label = rows[name, "image accuracy of array_row, sections held out", None]
    assert label["chance"] == pytest.approx(1 / 10)
    # The rows of other sections have other programmes.
    assert label["value"] < 0.4
    assert rows["colours: frozen", "accuracy of array_row, sections held out", None]["n"] == 600
    paired = rows[f"{NAME.format('within_slide')} - any", WHOLE, "image->gene"]
    both = [rows[NAME.format(each), WHOLE, "image->gene"]["value"] for each in
            ("within_slide", "any")]  # fmt: skip
    assert paired["value"] == pytest.approx(both[0] - both[1])


def test_an_arm_that_fails_stops_no_other(aligned):
    _, result, _ = aligned
    assert {arm.encoder for arm in result.arms} == {"colours"}
    assert set(result.failed) == {"none.linear.clip.any-0", "none.linear.clip.within_slide-0"}
    assert [row["name"] for row in result.rows if row["metric"] == "failed"] == [
        "none.linear.clip.any", "none.linear.clip.within_slide"]  # fmt: skip


def test_the_page_prints_chance_and_gallery_and_says_what_failed(aligned):
    _, result, _ = aligned
    rows = shown_recall(result)
    assert {row["metric"] for row in rows} == {recall_name(5, 64, "within")}
    text = hescape_text(result)
    assert "recall@5 of 64: chance 0.078 (N = 64)" in text
    assert "| *colours, frozen* |" in text
    assert "tells the section (chance 0.50)" in text
    assert "Shuffled pairs are at chance in every arm." in text
    assert "- `none.linear.clip.any-0`: no such encoder" in text
    figure = plot_recall(rows, title="recall", note="note")
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == [NAME.format("within_slide"), NAME.format("any")]


def test_what_stands_is_kept_and_gives_the_same_rows(aligned, tissue):
    out, result, get = aligned
    times = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*.safetensors")}
    again = compare_hescape(result.config, data=tissue[0].root, out=out, features=get)
    assert again.rows == result.rows
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_embeddings_open_as_anndata(aligned):
    data = anndata.read_h5ad(aligned[0] / "embeddings" / f"{NAME.format('any')}-0.h5ad")
    assert data.n_obs == 600
    assert data.obsm["image"].shape == data.obsm["genes"].shape == (600, 8)
    np.testing.assert_allclose(np.linalg.norm(data.obsm["image"], axis=1), 1, rtol=1e-5)
    assert set(data.obs["patient"]) == {"P1", "P2", "P3"}
    assert data.obs_names.is_unique


def test_seeds_are_averaged_and_one_section_is_told_from_all(cohort, features, tmp_path):
    """Section by section in one patient's tissue: leaky, units are what was held out."""
    suite = config(
        negatives=("any",),
        num_seeds=2,
        folds=FoldConfig("section"),
        probe_columns=(),
        fit=SpatialFitConfig(max_epochs=2),
        panel=PanelConfig("var", 15),
    )
    result = compare_hescape(
        suite, data=cohort.root, out=tmp_path / "out", features=lambda run: features
    )
    rows = found_in(result.rows)
    found = rows[NAME.format("any"), WHOLE, "image->gene"]
    assert found["split"] == "test (leaky)"
    hits = []
    for seed in (0, 1):
        judged = tmp_path / "out" / "judged" / f"{NAME.format('any')}-{seed}"
        table = pd.read_parquet(judged / "recall.parquet")
        part = table[(table["pairs"] == "true") & (table["direction"] == "image->gene")]
        part = part[(part["size"] == "section") & (part["k"] == 5)]
        hits.append(part.groupby("unit")["hits"].sum() / 84)
    assert found["value"] == pytest.approx(np.mean(hits))
    spread = rows[NAME.format("any"), f"{WHOLE} seed sd", "image->gene"]
    assert spread["value"] == pytest.approx(np.std([each.mean() for each in hits], ddof=1))
    assert (NAME.format("any"), "image section accuracy (all spots)", None) in rows
    assert not [key for key in rows if "across" in key[1]]


def test_arms_are_all_combinations_with_the_seed_in_the_fit():
    encoders = [EncoderConfig("a"), EncoderConfig("timm:b")]
    suite = config(encoders=encoders, genes=("mlp", "pca"), objectives=("clip", "siglip"))
    every = arms(suite)
    assert len({arm.name for arm in every}) == len(every) == 16
    assert every[-1] == Arm("timm:b", "pca", "siglip", "within_slide")
    assert every[-1].name == "timm_b.pca.siglip.within_slide"
    run = every[-1].config(suite, 3)
    assert (run.encoder, run.fit.seed, run.panel) == (encoders[1], 3, suite.panel)
    assert run.system["objective"] == "siglip"
    assert run.system["select"] == "recall"


def test_settings_that_mean_nothing_are_refused(cohort, tmp_path):
    with pytest.raises(ConfigError, match="empty list, or a number below 1"):
        config(genes=())
    with pytest.raises(ConfigError, match=r"members 2.*use num_seeds"):
        config(fit=SpatialFitConfig(members=2))
    with pytest.raises(ConfigError, match="empty list, or a number below 1"):
        config(ks=(0,))
    with pytest.raises(ConfigError, match="differ in name, weights"):
        config(encoders=[EncoderConfig("a"), EncoderConfig("a")])
    with pytest.raises(ConfigError, match="did you mean 'array_row'"):
        compare_hescape(
            config(probe_columns=("array_rwo",)), data=cohort.root, out=tmp_path, features=print
        )
    with pytest.raises(ConfigError, match="did you mean 'image_head'"):
        compare_hescape(
            config(system={"image_haed": "mlp"}), data=cohort.root, out=tmp_path, features=print
        )


# Intervals ------------------------------------------------------------------------------------


def test_intervals_of_recall_hold_the_truth():
    """Patients alike at chance 5 / 64: of 200 draws about 190 intervals hold it."""
    random = np.random.default_rng(0)
    queries = np.array([320.0, 512.0, 256.0, 448.0, 384.0, 320.0, 512.0, 256.0])
    held = 0
    for seed in range(200):
        hits = random.binomial(queries.astype(int), 5 / 64).astype(float)
        found = recall_interval(hits, queries, num_resamples=300, seed=seed)
        held += found.low <= 5 / 64 <= found.high
    assert held >= 185


def test_patients_weigh_the_same_whatever_their_spots():
    found = recall_interval(np.array([10.0, 300.0]), np.array([100.0, 400.0]))
    assert found.value == pytest.approx((0.1 + 0.75) / 2)
    assert found.n == 500
    # Both draws may be of one patient.
    assert found.low < 0.15
    assert found.high > 0.7


def test_one_patient_gives_no_interval_over_patients():
    single, pair = over_units(np.array([0.3])), over_units(np.array([0.1, 0.3]))
    assert np.isnan(single.low)
    assert (single.value, single.n) == (0.3, 1)
    assert (pair.value, pair.low, pair.high) == (pytest.approx(0.2), 0.1, 0.3)
