from __future__ import annotations

import h5py
import numpy as np
import pytest

from seq2exp.core.errors import FormatError, InputError
from seq2exp.spatial.images.embeddings import read_embeddings
from tests.spatial.images.toy import make_cohort


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("embeddings")).section("A")


def table(section, seed=0):
    return np.random.default_rng(seed).normal(size=(len(section), 5)).astype(np.float32)


def write(path, values, ids, names=("features", "row_ids")):
    if path.suffix == ".npy":
        np.save(path, values)
        path.with_suffix(".txt").write_text("\n".join(ids) + "\n")
    else:
        with h5py.File(path, "w") as handle:
            handle[names[0]] = values
            handle[names[1]] = np.array(ids, dtype=object)[:, None]  # as HEST writes them
    return path


@pytest.mark.parametrize("name", ["a.npy", "a.h5"])
@pytest.mark.parametrize("short", [False, True])
def test_rows_are_found_by_id_whatever_their_order(section, tmp_path, name, short):
    values, order = table(section), np.random.default_rng(1).permutation(len(section))
    ids = [str(one).removeprefix("A_" if short else "") for one in section.obs.index]
    extra = np.full((1, 5), 7, np.float32)
    path = write(tmp_path / name, np.concatenate([extra, values[order]]),
                 ["77x77", *(ids[i] for i in order)])  # fmt: skip
    found = read_embeddings(path, section)
    np.testing.assert_array_equal(found, values)
    assert found.dtype == np.float32


def test_layouts_of_others_and_half_precision(section, tmp_path):
    values = table(section)
    path = write(tmp_path / "a.h5", values.astype(np.float16), list(section.obs.index),
                 ("embeddings", "barcodes"))  # fmt: skip
    np.testing.assert_allclose(read_embeddings(path, section), values, rtol=1e-3, atol=1e-3)


def test_barcodes_of_the_source(tmp_path):
    from data_prep.histology.build import prepare_cohort
    from seq2exp.spatial.cohort import SpatialCohort
    from tests.data_prep.histology import raw

    prepare_cohort(raw.cohort(raw.write_h5ad(tmp_path)), tmp_path, tmp_path / "cohort")
    section = SpatialCohort(tmp_path / "cohort").section("H1")
    values = table(section)
    path = write(tmp_path / "a.npy", values, [f"AAC-{i}" for i in range(30)])
    np.testing.assert_array_equal(read_embeddings(path, section), values)


def test_spots_without_a_row_are_an_error(section, tmp_path):
    path = write(tmp_path / "a.npy", table(section)[:-2], list(section.obs.index)[:-2])
    with pytest.raises(InputError, match=r"no row for 2 of the 30 spots of A.*first: A_4x4, A_5x4"):
        read_embeddings(path, section)
    path = write(tmp_path / "b.npy", table(section), [f"x{i}" for i in range(30)])
    with pytest.raises(InputError, match=r"no row for 30 of the 30 spots.*first id is x0"):
        read_embeddings(path, section)


def test_faults_of_files(section, tmp_path):
    ids, values = list(map(str, section.obs.index)), table(section)
    with pytest.raises(InputError, match=r"more than once.*A_0x0"):
        read_embeddings(write(tmp_path / "a.npy", values, [ids[0], *ids[:-1]]), section)
    with pytest.raises(FormatError, match=r"shape \(30, 5\) and 29 ids"):
        read_embeddings(write(tmp_path / "b.npy", values, ids[:-1]), section)
    with pytest.raises(FormatError, match=r"shape \(30,\)"):
        read_embeddings(write(tmp_path / "c.npy", values[:, 0], ids), section)
    wrong = values.copy()
    wrong[4, 2] = np.nan
    with pytest.raises(FormatError, match=r"NaN or infinite.*1 in all; first: A_4x0"):
        read_embeddings(write(tmp_path / "d.npy", wrong, ids), section)
    np.save(tmp_path / "e.npy", values)
    with pytest.raises(FormatError, match=r"no e\.txt beside it"):
        read_embeddings(tmp_path / "e.npy", section)
    with pytest.raises(InputError, match="no such file"):
        read_embeddings(tmp_path / "f.npy", section)
    path = write(tmp_path / "g.h5", values, ids, ("pixels", "row_ids"))
    with pytest.raises(FormatError, match="data sets pixels, row_ids"):
        read_embeddings(path, section)


@pytest.mark.parametrize("name", ["a.npy", "a.h5"])
def test_truncated_files_and_objects(section, tmp_path, name):
    path = write(tmp_path / name, table(section), list(section.obs.index))
    content = path.read_bytes()
    for share in (0, 0.5):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(FormatError, match=name):
            read_embeddings(path, section)
    if name == "a.npy":
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
        with pytest.raises(FormatError, match=name):
            read_embeddings(path, section)
