"""What the readers take and what they refuse (F19 of the catalogue of faults)."""

from __future__ import annotations

import dataclasses

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from data_prep.histology.section import read_section, section_files
from seq2exp.core.errors import FormatError, InputError
from tests.data_prep.histology import raw


def read(config, folder):
    return read_section(config, raw.cohort(config), folder)


def test_st_tables_are_joined_by_name_not_by_order(tmp_path):
    """Spots come shuffled and with one that has no counts; genes keep their order."""
    rows, columns = raw.grid()
    x, y = raw.places()
    spots = pd.DataFrame({"x": columns, "y": rows, "pixel_x": x, "pixel_y": y, "kind": "tumour"})
    extra = pd.DataFrame({"x": [99], "y": [9], "pixel_x": [1.0], "pixel_y": [1.0], "kind": ["?"]})
    spots = pd.concat([spots, extra]).sample(frac=1, random_state=0)
    found = read(raw.write_st(tmp_path, spots=spots), tmp_path)
    assert len(found.x) == 30
    assert found.genes == raw.GENES
    np.testing.assert_array_equal(found.counts.toarray(), raw.counts())
    np.testing.assert_array_equal(found.array_row, rows)
    np.testing.assert_array_equal(found.array_col, columns)
    np.testing.assert_array_equal(found.x, x)
    np.testing.assert_array_equal(found.y, y)
    assert list(found.labels) == ["kind"]
    assert set(found.labels["kind"]) == {"tumour"}
    assert (found.um_per_px, found.spot_pitch_um, found.spot_diameter_um) == (None, 200, 100)


def test_sums_that_tables_carry_are_no_genes(tmp_path):
    rows, columns = raw.grid()
    names = [f"{c}x{r}" for r, c in zip(rows, columns, strict=True)]
    table = pd.DataFrame(raw.counts(genes=3), index=names, columns=["A", "B", "C"])
    table.insert(0, "__total_umi", 10_000)
    found = read(raw.write_st(tmp_path, table=table), tmp_path)
    assert found.genes == ["A", "B", "C"]
    assert found.counts.sum() == raw.counts(genes=3).sum()


def test_h5ad_says_patient_image_and_scale(tmp_path):
    config = raw.write_h5ad(tmp_path)
    found = read(dataclasses.replace(config, image=""), tmp_path)
    assert (found.patient, found.image) == ("P2", tmp_path / "H1.png")
    assert (found.um_per_px, found.spot_pitch_um, found.spot_diameter_um) == (10, 200, 100)
    assert found.labels["barcode"].tolist() == [f"AAC-{i}" for i in range(30)]
    np.testing.assert_array_equal(found.counts.toarray(), raw.counts())
    assert found.counts.dtype == np.int32


def test_the_configuration_wins_over_the_file(tmp_path):
    config = raw.write_h5ad(tmp_path)
    config = dataclasses.replace(config, patient="P9", um_per_px=5.0)
    found = read(config, tmp_path)
    assert (found.patient, found.um_per_px, found.spot_pitch_um) == ("P9", 5, 100)


def test_raw_counts_are_preferred_and_spots_off_the_tissue_left_out(tmp_path):
    data = raw.adata(X=np.log1p(raw.counts()))
    data.layers["counts"] = sparse.csr_matrix(raw.counts())
    data.obs["in_tissue"] = [0] + [1] * 29
    found = read(raw.write_h5ad(tmp_path, data=data), tmp_path)
    np.testing.assert_array_equal(found.counts.toarray(), raw.counts()[1:])
    assert found.labels["barcode"][0] == "AAC-1"
    assert len(found.x) == len(found.array_row) == 29


def test_a_missing_file_is_named(tmp_path):
    config = raw.write_st(tmp_path)
    assert len(section_files(config, tmp_path)) == 3
    (tmp_path / "S1.png").unlink()
    with pytest.raises(InputError, match=r"section S1.*S1\.png.*no such file"):
        read(config, tmp_path)


# Tables --------------------------------------------------------------------------------------


def st_with(tmp_path, *, spots=None, **table):
    """A section whose spots or table of counts are changed by a function."""
    rows, columns = raw.grid()
    x, y = raw.places()
    frame = pd.DataFrame({"x": columns, "y": rows, "pixel_x": x, "pixel_y": y})
    return raw.write_st(tmp_path, spots=spots(frame) if spots else frame, **table)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.drop(columns="pixel_y"), "columns x, y, pixel_x.*expected x, y and either"),
        (lambda t: t.drop(columns="y"), "columns x, pixel_x, pixel_y"),
        (lambda t: t.assign(pixel_x=t["pixel_x"].where(t["x"] > 0)), "values of pixel_x.*5 in all"),
        (lambda t: t.assign(x=t["x"] + 0.5), "values of x that are no whole numbers"),
        (lambda t: t.assign(x=t["x"].astype(object).where(t["x"] > 0, "a")), "no whole numbers"),
    ],
)
def test_f19_spots_without_a_place(tmp_path, change, text):
    config = st_with(tmp_path, spots=change)
    with pytest.raises(FormatError, match=text):
        read(config, tmp_path)


def test_f19_spots_listed_twice(tmp_path):
    config = st_with(tmp_path, spots=lambda t: pd.concat([t, t.iloc[:2]]))
    with pytest.raises(InputError, match=r"S1_spots.*spots listed twice.*2 in all; first: 0x0"):
        read(config, tmp_path)
    table = pd.DataFrame(raw.counts(spots=2), index=["0x0", "0x0"], columns=raw.GENES)
    config = st_with(tmp_path, table=table)
    with pytest.raises(InputError, match=r"S1_counts.*spots listed twice"):
        read(config, tmp_path)


def test_f19_counts_of_another_section(tmp_path):
    table = pd.DataFrame(raw.counts(spots=3), index=["0x0", "77x1", "78x1"], columns=raw.GENES)
    config = st_with(tmp_path, table=table)
    with pytest.raises(InputError, match=r"spots that the table of spots lacks.*2 in all.*77x1"):
        read(config, tmp_path)


def test_genes_with_two_columns(tmp_path):
    """Readers of tables would call the second one A.1 and go on."""
    table = pd.DataFrame(raw.counts(spots=1, genes=3), index=["0x0"], columns=["A", "B", "A"])
    config = st_with(tmp_path, table=table)
    with pytest.raises(InputError, match=r"more than one column.*first: A"):
        read(config, tmp_path)


def filled(value, dtype=float):
    table = raw.counts().astype(dtype)
    table[3, 2] = value
    return table


@pytest.mark.parametrize(
    ("value", "shown"),
    [(np.nan, "nan"), (-1, "-1"), (0.5, "0.5"), (np.inf, "inf"), (3e9, "3e")],
)
def test_f19_values_that_are_no_counts(tmp_path, value, shown):
    names = [f"{c}x{r}" for r, c in zip(*raw.grid(), strict=True)]
    table = pd.DataFrame(filled(value), index=names, columns=raw.GENES)
    with pytest.raises(FormatError, match=rf"S1_counts.*no counts.*1 in all; first: {shown}"):
        read(st_with(tmp_path, table=table), tmp_path)
    for matrix in (filled(value), sparse.csr_matrix(filled(value))):
        config = raw.write_h5ad(tmp_path, data=raw.adata(X=matrix))
        with pytest.raises(FormatError, match=rf"H1\.h5ad.*no counts.*first: {shown}"):
            read(config, tmp_path)


def test_f19_normalised_values_are_no_counts(tmp_path):
    config = raw.write_h5ad(tmp_path, data=raw.adata(X=np.log1p(raw.counts())))
    with pytest.raises(FormatError, match="give raw counts, not normalised ones"):
        read(config, tmp_path)


def test_texts_are_no_counts(tmp_path):
    names = [f"{c}x{r}" for r, c in zip(*raw.grid(), strict=True)]
    table = pd.DataFrame(filled("many", object), index=names, columns=raw.GENES)
    with pytest.raises(FormatError, match=r"S1_counts.*found texts, expected counts"):
        read(st_with(tmp_path, table=table), tmp_path)


@pytest.mark.parametrize("share", [0, 0.5, 0.98])
def test_f19_truncated_tables(tmp_path, share):
    config = raw.write_st(tmp_path)
    path = tmp_path / config.table
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(FormatError, match="S1_counts"):
        read(config, tmp_path)


# AnnData -------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.99])
def test_f19_a_truncated_h5ad(tmp_path, share):
    config = raw.write_h5ad(tmp_path)
    path = tmp_path / "H1.h5ad"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(FormatError, match=r"H1\.h5ad.*expected a whole AnnData"):
        read(config, tmp_path)


@pytest.mark.filterwarnings("ignore:Element '/img' was written")
def test_f19_hdf5_and_text_that_are_no_anndata(tmp_path):
    config = raw.write_h5ad(tmp_path)
    with h5py.File(tmp_path / "H1.h5ad", "w") as handle:
        handle["img"] = np.zeros(3)
    with pytest.raises(FormatError, match=r"H1\.h5ad"):
        read(config, tmp_path)
    (tmp_path / "H1.h5ad").write_text("not found")
    with pytest.raises(FormatError, match=r"H1\.h5ad"):
        read(config, tmp_path)


def obs(**columns):
    rows, cols = raw.grid()
    names = [f"AAC-{i}" for i in range(30)]
    frame = pd.DataFrame({"array_row": rows, "array_col": cols, "patient": "P2"}, index=names)
    return frame.assign(**columns)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (lambda: raw.adata(obs=obs().drop(columns="array_row")), "no array_row"),
        (lambda: raw.adata(obs=obs(array_row=[np.nan] + [1.0] * 29)), "array_row.*whole numbers"),
        (lambda: raw.adata(spatial=np.zeros((30, 1))), r"obsm\[\"spatial\"\] with columns x and y"),
    ],
)
def test_f19_an_anndata_without_places(tmp_path, data, text):
    config = raw.write_h5ad(tmp_path, data=data())
    with pytest.raises(FormatError, match=text):
        read(config, tmp_path)


def test_an_anndata_without_counts(tmp_path):
    data = raw.adata()
    del data.X
    config = raw.write_h5ad(tmp_path, data=data)
    with pytest.raises(FormatError, match="no counts"):
        read(config, tmp_path)


def test_f19_barcodes_listed_twice(tmp_path):
    frame = obs()
    frame.index = ["AAC-0", *frame.index[:-1]]
    with pytest.warns(UserWarning, match="not unique"):
        data = raw.adata(obs=frame)
    config = raw.write_h5ad(tmp_path, data=data)
    with (
        pytest.warns(UserWarning, match="not unique"),
        pytest.raises(InputError, match=r"spots listed twice.*AAC-0"),
    ):
        read(config, tmp_path)


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_two_columns_of_a_gene_in_an_anndata(tmp_path):
    config = raw.write_h5ad(tmp_path, data=raw.adata(var_names=["A", "A", *raw.GENES[2:]]))
    with pytest.raises(InputError, match="more than one column"):
        read(config, tmp_path)


def test_two_patients_in_a_section(tmp_path):
    config = raw.write_h5ad(tmp_path, data=raw.adata(obs=obs(patient=["P1"] + ["P2"] * 29)))
    with pytest.raises(InputError, match=r"patient P1, P2.*one per section"):
        read(config, tmp_path)


def test_a_section_without_image_or_patient(tmp_path):
    config = raw.write_h5ad(tmp_path, data=raw.adata(about={"um_per_px": 10.0}))
    with pytest.raises(InputError, match="no image in"):
        read(dataclasses.replace(config, image=""), tmp_path)
    config = raw.write_h5ad(tmp_path, data=raw.adata(obs=obs().drop(columns="patient")))
    with pytest.raises(InputError, match="no patient in"):
        read(config, tmp_path)
