from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from seq2exp.core.errors import FormatError, InputError
from seq2exp.spatial.predicted import (
    dense_layer,
    find_genes,
    read_predictions,
    section_of,
    top_genes,
)

VAR = pd.DataFrame(
    {"gene_id": ["ENSG1", "ENSG2", "ENSG3", "ENSG4"]}, index=["ERBB2", "GAPDH", "Actb", "ACTB"]
)


def prediction(section="C2", *, heldout=None, observed=True):
    random = np.random.default_rng(0)
    truth = random.normal(size=(30, 4))
    # Less and less of the truth.
    guess = truth + random.normal(size=(30, 4)) * [0.1, 0.5, 2.0, 9.0]
    data = anndata.AnnData(
        X=guess.astype(np.float32),
        obs=pd.DataFrame({"section": section}, index=[f"s{i}" for i in range(30)]),
        var=VAR.copy(),
    )
    if observed:
        data.layers["observed"] = truth.astype(np.float32)
    if heldout is not None:
        data.var["heldout_pearson"] = heldout
    data.obsm["spatial"] = random.random((30, 2))
    data.uns |= {"image": {"width": 10}, "seq2exp": {"unit": "u"}}
    return data


def test_genes_by_symbol_or_id_in_any_case():
    assert find_genes(VAR, ["ERBB2", "ENSG2", "erbb2", "ensg3"]) == [0, 1, 2]
    # Case decides where it must; the first listed answers where it cannot.
    assert find_genes(VAR, ["ACTB"]) == [3]
    assert find_genes(VAR, ["Actb"]) == [2]
    assert find_genes(VAR, ["actb"]) == [2]
    assert find_genes(VAR.drop(columns="gene_id"), ["GAPDH"]) == [1]


def test_unknown_genes_are_named_with_what_is_near():
    with pytest.raises(InputError) as caught:
        find_genes(VAR, ["ERBB3", "GAPDH", "XYZZY"])
    text = str(caught.value)
    assert "no ERBB3 (near: ERBB2" in text
    assert "no XYZZY (near: none)" in text
    assert "2 in all" in text
    assert "\n" not in text


def test_top_genes_go_by_held_out_accuracy_then_by_what_was_observed():
    heldout = np.array([0.1, np.nan, 0.9, 0.5])
    assert top_genes([prediction(heldout=heldout)], 3) == (
        [2, 3, 0], "correlation on held-out tissue")  # fmt: skip
    places, why = top_genes([prediction(heldout=np.full(4, np.nan))], 4)
    assert (places, why) == ([0, 1, 2, 3], "correlation with what was observed here")
    places, why = top_genes([prediction(observed=False)], 1)
    assert (places, why) == ([3], "variance of the prediction")


def test_files_and_folders(tmp_path):
    for name in ("C3", "C2"):
        prediction(name).write_h5ad(tmp_path / f"{name}.h5ad")
    assert [section_of(data) for data in read_predictions(tmp_path)] == ["C2", "C3"]
    (data,) = read_predictions(tmp_path / "C3.h5ad")
    np.testing.assert_array_equal(dense_layer(data, None), data.X)
    assert dense_layer(data, "sd") is None
    data.layers["sd"] = np.full(data.shape, np.nan)
    assert dense_layer(data, "sd") is None


def test_what_is_no_prediction_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_predictions(tmp_path / "none.h5ad")
    with pytest.raises(InputError, match=r"no \.h5ad"):
        read_predictions(tmp_path)
    (tmp_path / "a.h5ad").write_text("no hdf5")
    with pytest.raises(FormatError, match="spatial predict"):
        read_predictions(tmp_path)
    data = prediction()
    del data.uns["image"], data.obsm["spatial"]
    data.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(FormatError, match=r'no obsm\["spatial"\], uns\["image"\]'):
        read_predictions(tmp_path / "a.h5ad")
    prediction().write_h5ad(tmp_path / "a.h5ad")
    prediction()[:, :2].copy().write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(FormatError, match=r"2 genes that are not those of a\.h5ad"):
        read_predictions(tmp_path)
