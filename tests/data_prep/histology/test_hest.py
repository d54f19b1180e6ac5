"""Folders of HEST-1k: patches from their file or from the slide, of the right size of tissue."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_prep.histology.build import prepare_cohort
from data_prep.histology.config import PatchConfig
from data_prep.histology.section import read_section
from seq2exp.core.errors import FormatError, InputError, Seq2ExpWarning
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.images.tiles import open_section_image
from tests.data_prep.histology import hest_folder as hest
from tests.data_prep.histology import raw


def read(config, folder):
    return read_section(config, raw.cohort(config), folder)


def cohort_of(config, folder, **patch):
    settings = {"um": hest.UM, "px": hest.PX} | patch
    prepare_cohort(raw.cohort(config, patch=PatchConfig(**settings)), folder, folder / "out")
    return SpatialCohort(folder / "out")


def test_a_section_of_hest(tmp_path):
    """Counts, places and scale; probes that are no genes are left out."""
    found = read(hest.write_hest(tmp_path), tmp_path)
    assert found.genes == raw.GENES[:6]
    np.testing.assert_array_equal(found.counts.toarray(), raw.counts()[:, :6])
    np.testing.assert_array_equal(found.array_row, raw.grid()[0])
    np.testing.assert_array_equal(found.x, raw.places()[0])
    assert found.patient == "Patient 1"
    assert (found.um_per_px, found.spot_pitch_um, found.spot_diameter_um) == (10, 200, 100)
    assert (found.image, found.grid, found.size) == (None, "square", (280, 220))
    assert found.labels["barcode"].tolist() == hest.BARCODES
    assert (found.patches.px, found.patches.um) == (16, 240)


def test_stored_patches_go_to_their_spots_in_any_order(tmp_path):
    """Spots without a patch are left out and counted."""
    config = hest.write_hest(tmp_path)
    kept = np.setdiff1d(np.arange(30), [3, 17])
    order = np.random.default_rng(0).permutation(kept)
    hest.write_patches(tmp_path / "patches/T1.h5", spots=order)
    section = cohort_of(config, tmp_path).section("T1")
    np.testing.assert_array_equal(section.patches, hest.stored_patches(raw.picture())[kept])
    np.testing.assert_array_equal(section.counts_NA.toarray(), raw.counts()[kept, :6])
    assert section.obs["barcode"].tolist() == [hest.BARCODES[i] for i in kept]
    info = section.info
    assert info.left_out == {"no stored patch": 2, "fewer than 100 counts": 0}
    assert (info.image, info.width, info.height, info.um_per_px) == ("", 280, 220, 10)
    with pytest.raises(InputError, match=r"section T1.*prepare the cohort with the slides"):
        open_section_image(SpatialCohort(tmp_path / "out"), "T1")


def test_less_tissue_than_stored_is_the_middle(tmp_path):
    """Half of 240 micrometres are the inner 8 of 16 pixels."""
    section = cohort_of(hest.write_hest(tmp_path), tmp_path, um=120, px=8).section("T1")
    stored = hest.stored_patches(raw.picture())
    np.testing.assert_array_equal(section.patches, stored[:, 4:12, 4:12])


def test_patches_from_the_slide(tmp_path):
    """Given the slide, patches are cut from it and the file of patches is not read."""
    config = hest.write_hest(tmp_path, image="wsis/T1.tif")
    (tmp_path / "patches/T1.h5").unlink()
    section = cohort_of(config, tmp_path, um=160).section("T1")
    x, y = (int(axis[7]) for axis in raw.places())
    expected = raw.picture()[y - 8 : y + 8, x - 8 : x + 8]
    np.testing.assert_array_equal(section.patches[7], expected)
    assert section.info.image == "images/T1.tif"


def test_ids_of_the_genes_are_found_where_they_are(tmp_path):
    ids = [f"ENSG{i:011d}" for i in range(8)]
    names = ["A", "B", "B", *raw.GENES[3:]]
    kinds = ["Gene Expression"] * 7 + ["Antibody Capture"]
    with pytest.warns(UserWarning, match="not unique"):
        config = hest.write_hest(
            tmp_path / "a", var=pd.DataFrame({"gene_ids": ids, "feature_types": kinds}, names)
        )
    with pytest.warns(UserWarning, match="not unique"):
        found = read(config, tmp_path / "a")
    assert found.gene_ids == ids[:7]
    assert found.genes[:3] == ["A", "B", "B_ENSG00000000002"]
    found = read(hest.write_hest(tmp_path / "b", var=pd.DataFrame(index=ids)), tmp_path / "b")
    assert found.gene_ids == found.genes == ids


def test_hexagonal_arrays_are_known_by_their_columns(tmp_path):
    """On Visium arrays rows and columns are both even or both odd."""
    import anndata

    config = hest.write_hest(tmp_path)
    data = anndata.read_h5ad(tmp_path / "st/T1.h5ad")
    data.obs["array_col"] = data.obs["array_col"] * 2 + data.obs["array_row"] % 2
    data.write_h5ad(tmp_path / "st/T1.h5ad")
    assert read(config, tmp_path).grid == "hex"


# Resolutions ----------------------------------------------------------------------------------


def test_f19_more_tissue_than_was_stored(tmp_path):
    config = hest.write_hest(tmp_path)
    with pytest.raises(InputError, match=r"patches of 240\.0 micrometres.*set patch\.um to 240"):
        cohort_of(config, tmp_path, um=300)
    assert not (tmp_path / "out").exists()


def test_f19_patches_of_another_resolution_than_the_spots(tmp_path):
    config = hest.write_hest(tmp_path)
    hest.write_patches(tmp_path / "patches/T1.h5", attributes=hest.ATTRIBUTES | {"pixel_size": 5.0})
    with pytest.raises(InputError, match=r"cut at 5 micrometres per pixel.*expected 10"):
        read(config, tmp_path)


def test_f19_a_size_of_pixels_that_does_not_fit_the_spots(tmp_path):
    config = hest.write_hest(tmp_path, about=hest.metadata(pixel_size_um_estimated=5.0))
    hest.write_patches(tmp_path / "patches/T1.h5", attributes={"downsample": 1.5})
    with pytest.raises(InputError, match=r"pixels off their spots|different resolutions"):
        cohort_of(config, tmp_path, um=100)


def test_f19_patches_that_do_not_say_their_resolution(tmp_path):
    """Half a micrometre per pixel, as all of HEST-1k, is taken and said."""
    config = hest.write_hest(tmp_path)
    hest.write_patches(tmp_path / "patches/T1.h5", attributes={}, coords=None)
    with pytest.warns(Seq2ExpWarning, match=r"0\.5 micrometres per pixel were taken"):
        assert read(config, tmp_path).patches.um == 8
    hest.write_patches(tmp_path / "patches/T1.h5", attributes={"factor": 1.5})
    assert read(config, tmp_path).patches.um == 240


def test_f19_no_size_of_a_pixel(tmp_path):
    about = hest.metadata(pixel_size_um_estimated=None, inter_spot_dist=None)
    config = hest.write_hest(tmp_path, about=about, image="wsis/T1.tif")
    with pytest.raises(InputError, match="give um_per_px of the section"):
        cohort_of(config, tmp_path)


# What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("patient", [None, "", float("nan")])
def test_a_section_without_a_patient(tmp_path, patient):
    config = hest.write_hest(tmp_path, about=hest.metadata(patient=patient))
    with pytest.raises(InputError, match=r"section T1.*no patient in its metadata"):
        read(config, tmp_path)


def test_f19_patches_that_are_missing_damaged_or_of_another_section(tmp_path):
    config = hest.write_hest(tmp_path)
    path = tmp_path / "patches/T1.h5"
    other = np.array([f"X{i}".encode() for i in range(30)], dtype=object)
    hest.write_patches(path, barcode=other)
    with pytest.raises(InputError, match=r"T1\.h5.*0 of them spots.*first: X0"):
        read(config, tmp_path)
    hest.write_patches(path, spots=[0, 1, 1])
    with pytest.raises(InputError, match=r"T1\.h5.*listed twice"):
        read(config, tmp_path)
    hest.write_patches(path, coords=np.column_stack(raw.places()).astype(int) + 300)
    with pytest.raises(InputError, match=r"T1\.h5.*pixels off their spots"):
        read(config, tmp_path)
    hest.write_patches(path, img=np.zeros((30, 16, 8, 3), np.uint8))
    with pytest.raises(FormatError, match=r"img of shape \(30, 16, 8, 3\)"):
        read(config, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    with pytest.raises(FormatError, match=r"T1\.h5.*expected HDF5 with img"):
        read(config, tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="give patches, or the slide as image"):
        read(config, tmp_path)


@pytest.mark.parametrize("exchange", [False, True])
def test_corners_of_patches_may_have_their_axes_exchanged(tmp_path, exchange):
    """As in one release of the benchmark; spots are where the AnnData says."""
    config = hest.write_hest(tmp_path)
    corners = (np.column_stack(raw.places()) - 12).astype(int)
    hest.write_patches(tmp_path / "patches/T1.h5", coords=corners[:, ::-1] if exchange else corners)
    np.testing.assert_array_equal(read(config, tmp_path).x, raw.places()[0])


def test_stains_cannot_be_fitted_to_stored_patches(tmp_path):
    config = hest.write_hest(tmp_path)
    with pytest.raises(InputError, match=r"give image, or set patch\.stain: none"):
        cohort_of(config, tmp_path, stain="macenko")


def test_metadata_that_are_no_json(tmp_path):
    config = hest.write_hest(tmp_path)
    (tmp_path / "metadata/T1.json").write_text("{")
    with pytest.raises(FormatError, match=r"T1\.json.*expected JSON"):
        read(config, tmp_path)
    assert Image.open(tmp_path / "wsis/T1.tif").size == (280, 220)
