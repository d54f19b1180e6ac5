"""The file and the object: what goes in comes out, what contradicts itself is refused."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest

from seq2exp.core.errors import AssemblyError, FormatError, InputError
from seq2exp.priors.checks import META_KEYS, describe
from seq2exp.priors.prior import GenePrior
from tests.priors.makers import make_prior, names

ROOT = Path(__file__).parents[2]


def assert_equal(first: GenePrior, second: GenePrior) -> None:
    for item in dataclasses.fields(GenePrior):
        mine, theirs = getattr(first, item.name), getattr(second, item.name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == theirs.dtype, item.name
            np.testing.assert_array_equal(mine, theirs, err_msg=item.name)
        else:
            assert mine == theirs, item.name


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "priors.h5ad"
    make_prior().save(path)
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"expr": np.zeros((60, 0), np.float32), "expr_names": ()},
        {"reg": np.zeros((60, 0), np.float32), "reg_names": ()},
        {"symbol": names([""] * 60), "meta": describe()},
    ],
    ids=["whole", "no outputs", "no summary", "nothing known"],
)
def test_what_is_saved_is_loaded_bit_by_bit(tmp_path, changes):
    prior = make_prior(**changes)
    prior.save(tmp_path / "p.h5ad")
    assert_equal(GenePrior.load(tmp_path / "p.h5ad"), prior)


def test_the_file_has_the_slots_of_the_contract(saved):
    data = anndata.read_h5ad(saved)
    prior = make_prior()
    assert data.obs_names.tolist() == prior.gene_id.tolist()
    assert set(data.obs) == {
        "symbol", "contig", "tss", "strand", "split", "quality", "present",
    }  # fmt: skip
    assert data.var_names.tolist() == ["blood", "liver"]
    assert set(data.obsm) == {"embedding", "elements"}
    assert list(data.uns["seq2exp_elements"]) == ["gc", "gene_length_bp"]
    assert set(META_KEYS) <= set(data.uns["seq2exp"])
    assert data.uns["seq2exp"]["format_version"] == 1
    np.testing.assert_array_equal(data.X, prior.expr)
    np.testing.assert_array_equal(data.obsm["embedding"], prior.z)
    assert data.obsm["embedding"].dtype == np.float32


def test_equal_priors_give_equal_bytes(tmp_path, saved):
    make_prior().save(tmp_path / "again.h5ad")
    assert (tmp_path / "again.h5ad").read_bytes() == saved.read_bytes()


def test_an_existing_file_stays_unless_it_may_go(saved):
    before = saved.read_bytes()
    with pytest.raises(InputError, match="--overwrite"):
        make_prior(seed=1).save(saved)
    assert saved.read_bytes() == before
    make_prior(seed=1).save(saved, overwrite=True)
    assert_equal(GenePrior.load(saved), make_prior(seed=1))
    assert [path.name for path in saved.parent.iterdir()] == ["priors.h5ad"]


def test_it_opens_in_scanpy(saved):
    scanpy = pytest.importorskip("scanpy")
    data = scanpy.read_h5ad(saved)
    table = scanpy.get.obs_df(data, keys=["split", "liver"], obsm_keys=[("embedding", 0)])
    np.testing.assert_array_equal(table["embedding-0"], make_prior().z[:, 0])
    np.testing.assert_array_equal(table["liver"], make_prior().expr[:, 1])


# Refusals -------------------------------------------------------------------------------------


def holed() -> np.ndarray:
    z = make_prior().z.copy()
    z[7, 2] = np.nan
    return z


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"meta": describe(format_version=2)}, ["format_version 2", "expected 1"]),
        ({"meta": {"format_version": 1}}, ["meta without model", "assembly"]),
        ({"gene_id": names(["ENSG00000000001"] * 60)}, ["genes named twice", "ENSG00000000001"]),
        (
            {"gene_id": names(["ENSG00000000001.4", *make_prior().gene_id[1:]])},
            ["genes named twice", "ENSG00000000001"],
        ),
        ({"z": holed()}, ["NaN or Inf in z", "1 in all", "ENSG00000000007"]),
        ({"z": np.ones((60, 6), np.float32)}, ["values in z", "not present", "ENSG00000000003"]),
        ({"expr": np.ones((60, 2), np.float32)}, ["values in expr", "not present"]),
        ({"z": np.zeros((59, 6), np.float32)}, ["z of shape (59, 6)", "(60, width)"]),
        ({"z": np.zeros((60, 0), np.float32)}, ["z of shape (60, 0)"]),
        ({"expr_names": ("blood",)}, ["expr of shape (60, 2)", "(60, 1)"]),
        ({"reg_names": ()}, ["reg of shape (60, 2)", "(60, 0)"]),
        ({"quality": np.zeros(3, np.float32)}, ["quality of shape (3,)", "(60,)"]),
        ({"split": names(["training"] * 60)}, ["split 'training'", "train, valid, test, excluded"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_parts_that_contradict_each_other_are_refused(changes, parts):
    with pytest.raises(FormatError) as error:
        make_prior(**changes)
    for part in parts:
        assert part in str(error.value)


def test_nan_in_z_of_an_absent_gene_is_no_zero_row():
    z = make_prior().z.copy()
    z[3] = np.nan
    with pytest.raises(FormatError, match="values in z of genes that are not present"):
        make_prior(z=z)


def edited(path: Path, change) -> Path:
    """Change the AnnData file behind the back of the object."""
    data = anndata.read_h5ad(path)
    data = change(data) or data
    data.write_h5ad(path)
    return path


def set_version(data):
    data.uns["seq2exp"]["format_version"] = 7


def put_nan(data):
    data.obsm["embedding"][0, 0] = np.nan


def repeat_gene(data):
    data.obs_names = ["ENSG00000000009", *data.obs_names[1:]]


def drop_meta(data):
    del data.uns["seq2exp"]


def drop_embedding(data):
    del data.obsm["embedding"]


def drop_columns(data):
    del data.obs["split"], data.obs["tss"]


def present_as_text(data):
    data.obs["present"] = data.obs["present"].astype(str)


def short_names(data):
    data.uns["seq2exp_elements"] = ["gc"]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (set_version, "format_version 7"),
        (put_nan, "NaN or Inf in z"),
        (repeat_gene, "genes named twice"),
        (drop_meta, "without uns['seq2exp']"),
        (drop_embedding, "without obsm['embedding']"),
        (drop_columns, "without obs['split'], obs['tss']"),
        (present_as_text, "present is no truth value"),
        (short_names, "reg of shape (60, 2)"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_file_that_breaks_the_contract_is_refused_by_name(saved, change, part):
    edited(saved, change)
    with pytest.raises(FormatError) as error:
        GenePrior.load(saved)
    assert part in str(error.value)
    assert str(saved) in str(error.value)
    assert "Fix: " in str(error.value)


def test_damaged_and_foreign_files_are_refused(saved, tmp_path):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match="no readable AnnData"):
        GenePrior.load(saved)
    saved.write_text("<html>not found</html>")
    with pytest.raises(FormatError, match="no HDF5 file"):
        GenePrior.load(saved)
    saved.write_bytes(b"")
    with pytest.raises(FormatError, match="no HDF5 file"):
        GenePrior.load(saved)
    with h5py.File(tmp_path / "other.h5ad", "w") as other:
        other["x"] = [1, 2]
    with pytest.raises(FormatError, match=r"other\.h5ad"):
        GenePrior.load(tmp_path / "other.h5ad")
    with pytest.raises(InputError, match="no such file"):
        GenePrior.load(tmp_path / "nowhere.h5ad")


def test_another_assembly_or_id_system_is_refused(saved):
    for fits in ("hg38", "GRCh38", "hg38/GRCh38"):
        GenePrior.load(saved, assembly=fits)
    for fits in ("ensembl/ENSG", "ensembl"):
        GenePrior.load(saved, id_system=fits)
    with pytest.raises(AssemblyError, match=r"assembly hg38, expected GRCh37"):
        GenePrior.load(saved, assembly="GRCh37")
    with pytest.raises(InputError, match=r"ensembl/ENSG, such as ENSG0.* expected ensembl/ENSMUSG"):
        GenePrior.load(saved, id_system="ensembl/ENSMUSG")
    with pytest.raises(InputError, match="expected sgd"):
        GenePrior.load(saved, id_system="sgd")


# Who may import what ----------------------------------------------------------------------------


def test_a_prior_needs_core_only():
    """The histology systems read priors without the genomic half, and without torch."""
    script = (
        "import sys; import seq2exp.priors.prior as p; p.GenePrior\n"
        "print(sorted(m for m in sys.modules if m.startswith('seq2exp.')))\n"
        "print([m for m in ('torch', 'anndata', 'pytorch_lightning') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    ours, heavy = done.stdout.splitlines()
    assert "seq2exp.core.errors" in ours
    rooms = {name.split(".")[1] for name in ours.strip("[]").replace("'", "").split(", ")}
    assert rooms == {"core", "priors"}
    assert heavy == "[]"
