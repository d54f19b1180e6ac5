"""Folders of Space Ranger: every version of their files gives the same section."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from data_prep.histology.build import prepare_cohort
from data_prep.histology.config import PatchConfig
from data_prep.histology.section import read_section
from seq2exp.core.errors import ConfigError, FormatError, InputError
from seq2exp.spatial.cohort import SpatialCohort
from tests.data_prep.histology import raw
from tests.data_prep.histology import visium_folder as visium


def read(config, folder):
    return read_section(config, raw.cohort(config), folder)


@pytest.mark.parametrize("matrix", ["h5", "mtx"])
@pytest.mark.parametrize("table", ["csv", "list", "list with header", "parquet"])
def test_every_version_of_the_files_gives_the_same_section(tmp_path, matrix, table):
    """30 of 36 spots are on the tissue; antibodies are no genes; pixels are those of the image."""
    config = visium.write_visium(tmp_path / "outs", matrix=matrix, table=table)
    found, frame = read(config, tmp_path), visium.positions()
    inside = frame[frame["in_tissue"] == 1]
    np.testing.assert_array_equal(found.counts.toarray(), visium.counts(30))
    assert found.gene_ids == visium.IDS
    assert found.genes == [*visium.SYMBOLS[:7], f"GENE6_{visium.IDS[7]}"]
    np.testing.assert_array_equal(found.array_row, inside["array_row"])
    np.testing.assert_array_equal(found.array_col, inside["array_col"])
    np.testing.assert_allclose(found.x, inside["pxl_col_in_fullres"] / 2)
    np.testing.assert_allclose(found.y, inside["pxl_row_in_fullres"] / 2)
    assert found.labels["barcode"].tolist() == list(inside["barcode"])
    assert (found.um_per_px, found.spot_pitch_um, found.spot_diameter_um) == (None, 100, 55)
    assert (found.grid, found.image.name) == ("hex", "tissue_hires_image.png")


def test_the_cohort_of_a_folder(tmp_path):
    """40 pixels of the full image are 100 micrometres, although a spot is 26 of them.

    The 55 micrometres of a spot over spot_diameter_fullres would give 2.1 micrometres per pixel:
    Space Ranger's diameter is that of 65 micrometres.
    """
    order = np.random.default_rng(0).permutation(30)
    small = visium.write_visium(tmp_path / "outs", order=order)
    full = visium.write_visium(tmp_path / "more", name="V2", image="more/full.tif", patient="P2")
    config = raw.cohort(small, full, patch=PatchConfig(um=80, px=16))
    manifest = prepare_cohort(config, tmp_path, tmp_path / "out")
    assert manifest.gene_ids == "ensembl"
    assert [info.um_per_px for info in manifest.sections] == pytest.approx([5.0, 2.5], rel=1e-6)
    cohort = SpatialCohort(tmp_path / "out")
    section, other = cohort.section("V1"), cohort.section("V2")
    assert (section.info.grid, section.info.spot_pitch_um) == ("hex", 100)
    np.testing.assert_array_equal(section.counts_NA.toarray(), other.counts_NA.toarray())
    np.testing.assert_array_equal(section.counts_NA.toarray(), visium.counts(30))
    assert section.var["gene_id"].tolist() == visium.IDS
    # Columns of the hexagonal array count half steps.
    assert section.grid_N2[:7].tolist() == [*([0, i] for i in range(6)), [1, 0]]
    for name in ("V1", "V2"):
        red = cohort.section(name).patches[:, 8, 8, 0]
        np.testing.assert_allclose(red, 150 + 10.0 * section.obs["array_row"], atol=1)


def test_downloads_with_a_prefix_and_matrices_of_all_spots(tmp_path):
    config = visium.write_visium(tmp_path / "outs")
    folder = tmp_path / "outs"
    before = read(config, tmp_path)
    (folder / "filtered_feature_bc_matrix.h5").rename(folder / "X_filtered_feature_bc_matrix.h5")
    np.testing.assert_array_equal(read(config, tmp_path).counts.toarray(), before.counts.toarray())
    (folder / "X_filtered_feature_bc_matrix.h5").unlink()
    frame = visium.positions()
    visium.write_h5(folder / "raw_feature_bc_matrix.h5", visium.counts(36), frame["barcode"])
    assert len(read(config, tmp_path).x) == 30


def test_bins_of_visium_hd_are_squares_that_say_their_size(tmp_path):
    config = visium.write_visium(tmp_path / "square_016um", table="parquet", bin_um=16.0)
    found = read(config, tmp_path)
    assert (found.spot_pitch_um, found.spot_diameter_um, found.grid) == (16, 16, "square")
    assert found.um_per_px == pytest.approx(16 / 40 * 2)
    prepare_cohort(raw.cohort(config, patch=PatchConfig(um=16, px=16)), tmp_path, tmp_path / "out")


# Refusals -------------------------------------------------------------------------------------


def test_the_folder_above_the_bins_is_refused(tmp_path):
    config = visium.write_visium(tmp_path / "outs")
    for size in ("002", "008", "016"):
        (tmp_path / f"outs/binned_outputs/square_{size}um").mkdir(parents=True)
    with pytest.raises(InputError, match=r"Visium HD in bins.*give .*square_016um"):
        read(config, tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("filtered_feature_bc_matrix.h5", "no filtered_feature_bc_matrix.h5 or"),
        ("spatial/tissue_positions.csv", "no spatial/tissue_positions.csv or"),
        ("spatial/scalefactors_json.json", "no spatial/scalefactors_json.json"),
        ("spatial/tissue_hires_image.png", "no spatial/tissue_hires_image.png"),
    ],
)
def test_a_missing_file_is_named(tmp_path, name, text):
    config = visium.write_visium(tmp_path / "outs")
    (tmp_path / "outs" / name).unlink()
    with pytest.raises(InputError, match=text):
        read(config, tmp_path)


def test_no_folder_and_no_patient(tmp_path):
    config = visium.write_visium(tmp_path / "outs")
    with pytest.raises(InputError, match=r"section V1.*no such folder"):
        read(config, tmp_path / "spatial")
    with pytest.raises(ConfigError, match="layout visium: found no patient"):
        visium.write_visium(tmp_path / "other", patient="")


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
@pytest.mark.parametrize("matrix", ["h5", "mtx"])
def test_f19_truncated_matrices(tmp_path, share, matrix):
    config = visium.write_visium(tmp_path / "outs", matrix=matrix)
    path = tmp_path / "outs/filtered_feature_bc_matrix"
    path = path.with_suffix(".h5") if matrix == "h5" else path / "matrix.mtx.gz"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(FormatError, match="filtered_feature_bc_matrix"):
        read(config, tmp_path)


def test_f19_a_matrix_that_lost_a_line_of_features(tmp_path):
    config = visium.write_visium(tmp_path / "outs", matrix="mtx")
    import gzip

    with gzip.open(tmp_path / "outs/filtered_feature_bc_matrix/features.tsv.gz", "wt") as handle:
        handle.write("ENSG1\tA\tGene Expression\n")
    with pytest.raises(FormatError, match=r"a matrix of 8 x 30 for 1 features and 30 barcodes"):
        read(config, tmp_path)


@pytest.mark.parametrize("values", [visium.counts(30) - 100, visium.counts(30) + 0.5])
def test_f19_values_that_are_no_counts(tmp_path, values):
    import h5py

    config = visium.write_visium(tmp_path / "outs")
    with h5py.File(tmp_path / "outs/filtered_feature_bc_matrix.h5", "a") as file:
        kept = file["matrix/data"][:].astype(float)
        del file["matrix/data"]
        kept[:8] = values.ravel()[:8]  # the genes of one barcode
        file["matrix/data"] = kept
    with pytest.raises(FormatError, match=r"no counts.*8 in all"):
        read(config, tmp_path)


def test_f19_flipped_bytes_that_point_beyond_the_matrix(tmp_path):
    import h5py

    config = visium.write_visium(tmp_path / "outs")
    with h5py.File(tmp_path / "outs/filtered_feature_bc_matrix.h5", "a") as file:
        file["matrix/indices"][5] = 2**40
    with pytest.raises(FormatError, match=r"matrix\.h5"):
        read(config, tmp_path)


def test_f19_barcodes_twice_and_of_another_slide(tmp_path):
    config = visium.write_visium(tmp_path / "outs")
    path = tmp_path / "outs/filtered_feature_bc_matrix.h5"
    barcodes = list(visium.positions()["barcode"][:30])
    visium.write_h5(path, visium.counts(30), [barcodes[1], *barcodes[1:]])
    with pytest.raises(InputError, match=r"spots listed twice.*AACC0001-1"):
        read(config, tmp_path)
    visium.write_h5(path, visium.counts(30), ["TTTT-1", *barcodes[1:]])
    with pytest.raises(InputError, match=r"no position of barcodes.*1 in all; first: TTTT-1"):
        read(config, tmp_path)


def test_f19_positions_that_are_no_positions(tmp_path):
    config = visium.write_visium(tmp_path / "outs")
    path = tmp_path / "outs/spatial/tissue_positions.csv"
    frame = pd.read_csv(path)
    frame.drop(columns="pxl_col_in_fullres").to_csv(path, index=False)
    with pytest.raises(FormatError, match=r"tissue_positions.csv.*found columns barcode"):
        read(config, tmp_path)
    frame.assign(pxl_col_in_fullres=["?", *range(35)]).to_csv(path, index=False)
    with pytest.raises(FormatError, match="values of pxl_col_in_fullres that are no numbers"):
        read(config, tmp_path)
    pd.concat([frame, frame[:1]]).to_csv(path, index=False)
    with pytest.raises(InputError, match="spots listed twice"):
        read(config, tmp_path)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (
            {"spot_diameter_fullres": 120.0},
            InputError,
            r"spots of 60\.0 pixels, 20\.0 pixels apart",
        ),
        ({"tissue_hires_scalef": None}, FormatError, "expected spot_diameter_fullres and"),
    ],
)
def test_f19_scale_factors_of_another_run(tmp_path, change, error, text):
    config = visium.write_visium(tmp_path / "outs")
    path = tmp_path / "outs/spatial/scalefactors_json.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error, match=text):
        read(config, tmp_path)


def test_f19_the_small_image_under_the_positions_of_the_large_one(tmp_path):
    """Given as the full image, the scaled one is too small for its spots."""
    config = visium.write_visium(tmp_path / "outs", image="outs/spatial/tissue_hires_image.png")
    with pytest.raises(InputError, match="check that pixels and image have the same resolution"):
        prepare_cohort(raw.cohort(config), tmp_path, tmp_path / "out")
