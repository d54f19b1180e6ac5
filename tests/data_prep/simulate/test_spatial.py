from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pandas as pd
import pytest

from data_prep.histology.build import prepare_cohort
from data_prep.histology.config import CohortConfig
from data_prep.simulate.spatial import SpatialSimulationConfig, simulate_cohort
from data_prep.simulate.tissue import NUM_PROGRAMMES
from seq2exp.core.config import load_config
from seq2exp.core.errors import ConfigError, InputError
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.colour import stain_concentrations

SMALL = SpatialSimulationConfig(
    num_patients=2, sections_per_patient=1, num_spots=30, num_genes=20, patch_px=16
)


def checksums(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cohort of the usual size, prepared from its own files."""
    pytest.importorskip("anndata")
    folder = tmp_path_factory.mktemp("tissue")
    truth = simulate_cohort(SpatialSimulationConfig(seed=3), folder / "raw")
    config = load_config(CohortConfig, [folder / "raw" / "cohort.yaml"])
    assert config == truth.cohort
    prepare_cohort(config, folder / "raw", folder / "cohort")
    return truth, SpatialCohort(folder / "cohort", verify_checksums=True)


def test_it_is_prepared_as_any_other_cohort(made):
    truth, cohort = made
    assert cohort.names == ["P1_1", "P1_2", "P2_1", "P2_2"]
    assert set(cohort.patients.values()) == {"P1", "P2"}
    for section in cohort.sections():
        assert len(section) == 100
        assert section.patches.shape == (100, 32, 32, 3)
        assert list(section.var["gene_id"]) == truth.gene_id
        assert section.info.notes["saturation_on_spots"] > 20
        assert section.info.spot_pitch_um == pytest.approx(200)
        # Rows of truth are those of the prepared section.
        np.testing.assert_array_equal(section.grid_N2[:, 0] * 10 + section.grid_N2[:, 1],
                                      np.arange(100))  # fmt: skip


def test_expression_follows_from_programmes_and_weights(made):
    truth, cohort = made
    signal = {name: u @ truth.mixing_UZ @ truth.w_GZ.T for name, u in truth.programmes.items()}
    for name, u in truth.programmes.items():
        rest = truth.expression[name] - truth.mean_G - signal[name]
        # What is left is an offset per gene and noise of SD .2.
        assert rest.std(axis=0).mean() == pytest.approx(0.2, rel=0.1)
        assert u.shape == (100, NUM_PROGRAMMES)
    offsets = np.array([(truth.expression[name] - truth.mean_G - signal[name]).mean(axis=0)
                        for name in signal])  # fmt: skip
    assert offsets.std() == pytest.approx(0.2, rel=0.2)
    whole = np.concatenate(list(truth.programmes.values()))
    np.testing.assert_allclose(whole.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(whole.std(axis=0), 1, rtol=1e-9)
    # Programmes are not independent over few spots, so the deviation is near .6 only.
    assert np.concatenate(list(signal.values())).std(axis=0).mean() == pytest.approx(0.6, rel=0.25)
    # Counts: their share is exp(y) up to the noise of counting.
    section = cohort.section("P1_1")
    share = section.counts_NA.toarray() / section.total_N[:, None]
    y = truth.expression["P1_1"]
    expected = np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)
    deviation = (share - expected) / np.sqrt(expected / section.total_N[:, None])
    assert deviation.std() == pytest.approx(1, abs=0.1)
    assert np.log(section.total_N).std() == pytest.approx(0.4, rel=0.3)


def test_the_picture_shows_the_programmes(made):
    """Amounts of stain over the patch follow the programmes that set them."""
    truth, cohort = made
    for section in cohort.sections():
        stain = stain_concentrations(section.patches / 255.0)[..., :2]
        share, eosin = truth.programmes[section.name][:, :2].T
        nuclei = stain[..., 0] > 0.5 * np.quantile(stain[..., 0], 0.97, axis=(1, 2), keepdims=True)
        assert np.corrcoef(nuclei.mean(axis=(1, 2)), share)[0, 1] > 0.7
        bright = np.quantile(stain[..., 1], 0.8, axis=(1, 2))
        assert np.corrcoef(bright, eosin)[0, 1] > 0.8
        # Coarse nuclei change less from pixel to pixel.
        change = np.abs(np.diff(stain[..., 0], axis=2)).mean(axis=(1, 2))
        relative = change / stain[..., 0].std(axis=(1, 2))
        assert np.corrcoef(relative, truth.programmes[section.name][:, 3])[0, 1] < -0.4


def test_programmes_are_smooth_and_sections_of_a_patient_are_alike(made):
    truth, _ = made
    for u in truth.programmes.values():
        square = u.reshape(10, 10, NUM_PROGRAMMES)
        assert np.abs(np.diff(square, axis=1)).mean() < 0.6 * u.std()
    same = np.corrcoef(truth.programmes["P1_1"].ravel(), truth.programmes["P1_2"].ravel())[0, 1]
    assert same > 0.2


def test_the_truth_is_written(made):
    truth, _ = made
    folder = truth.out / "truth"
    z, w = (pd.read_csv(folder / f"{name}.tsv", sep="\t", index_col=0) for name in ("z", "w"))
    assert list(z.index) == truth.gene_id
    np.testing.assert_allclose(z, truth.z_GZ, rtol=1e-6)
    np.testing.assert_allclose(w, truth.w_GZ, rtol=1e-6)
    spots = pd.read_csv(folder / "spots.tsv", sep="\t")
    chosen = spots.loc[spots["section"] == "P2_1", ["u1", "u2", "u3", "u4"]]
    np.testing.assert_allclose(chosen, truth.programmes["P2_1"], rtol=1e-6, atol=1e-7)
    genes = pd.read_csv(folder / "genes.tsv", sep="\t")
    effects = truth.w_GZ @ truth.mixing_UZ.T
    np.testing.assert_allclose(genes[[f"effect_u{i}" for i in (1, 2, 3, 4)]], effects, rtol=1e-6)
    mixing = pd.read_csv(folder / "mixing.tsv", sep="\t")
    np.testing.assert_allclose(mixing, truth.mixing_UZ, rtol=1e-6)


@pytest.mark.parametrize("rho", [0.0, 0.5, 1.0])
def test_the_dial_is_the_share_of_weights_that_follows_from_the_prior(tmp_path, rho):
    pytest.importorskip("anndata")
    config = dataclasses.replace(SMALL, prior_share=rho, num_genes=600, num_patients=1, num_spots=9)
    truth = simulate_cohort(config, tmp_path / "x")
    r = np.corrcoef(truth.z_GZ.ravel(), truth.w_GZ.ravel())[0, 1]
    # 4,800 pairs: three standard errors of r are .04.
    assert r == pytest.approx(np.sqrt(rho), abs=0.045)
    assert truth.w_GZ.std() == pytest.approx(1, abs=0.04)


def test_a_seed_makes_the_same_bytes(tmp_path):
    pytest.importorskip("anndata")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        simulate_cohort(dataclasses.replace(SMALL, seed=seed), tmp_path / name)
    one, same, other = (checksums(tmp_path / name) for name in "abc")
    assert one == same
    differ = {name for name in one if one[name] != other[name]}
    assert {"truth/z.tsv", "images/P1_1.png", "sections/P2_1.h5ad"} <= differ


def test_dials_turn_one_thing_each(tmp_path):
    pytest.importorskip("anndata")
    still = dataclasses.replace(SMALL, noise=0.0, batch_effect=0.0, depth_effect=0.0)
    truth = simulate_cohort(still, tmp_path / "still")
    for name, u in truth.programmes.items():
        expected = u @ truth.mixing_UZ @ truth.w_GZ.T + truth.mean_G
        np.testing.assert_allclose(truth.expression[name], expected)
    depth = pd.read_csv(tmp_path / "still" / "truth" / "spots.tsv", sep="\t")["depth"]
    assert (depth == 5000).all()


def test_a_prior_may_be_brought(tmp_path):
    pytest.importorskip("anndata")
    random = np.random.default_rng(0)
    ids = [f"SIMG{number:08d}" for number in (4, 9, 2, 7)]
    prior = pd.DataFrame(random.normal(5, 3, (4, 6)), index=ids)
    config = dataclasses.replace(SMALL, prior_share=1.0)
    truth = simulate_cohort(config, tmp_path / "x", prior=prior)
    assert truth.gene_id == ids
    standard = (prior - prior.mean()) / prior.std(ddof=0)
    np.testing.assert_allclose(truth.w_GZ, standard.to_numpy())
    with pytest.raises(InputError, match="1 genes listed twice"):
        simulate_cohort(config, tmp_path / "y", prior=prior.rename({ids[0]: ids[1]}))
    with pytest.raises(InputError, match="3 columns"):
        simulate_cohort(config, tmp_path / "y", prior=prior.iloc[:, :3])
    assert not (tmp_path / "y").exists()


def test_settings_out_of_range_are_refused(tmp_path):
    for wrong in ({"num_spots": 3}, {"prior_share": 1.1}, {"noise": -1.0}, {"prior_dim": 3}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            SpatialSimulationConfig(**wrong)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "file").write_text("mine")
    with pytest.raises(InputError):
        simulate_cohort(SMALL, tmp_path / "x")
