"""Files of a cohort that changed after they were written."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from seq2exp.core.errors import FormatError
from seq2exp.spatial import format as layout
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.config import EncoderConfig
from seq2exp.spatial.features import cohort_features
from tests.spatial.fakes import colour_features


@pytest.fixture
def copy(cohort, tmp_path):
    shutil.copytree(cohort.root, tmp_path / "copy", ignore=shutil.ignore_patterns("features"))
    return SpatialCohort(tmp_path / "copy")


def test_f27_a_table_of_another_section_is_refused(copy):
    first, second = copy.names[:2]
    shutil.copy(layout.section_path(copy.root, second), layout.section_path(copy.root, first))
    with pytest.raises(FormatError, match="found another content"):
        copy.section(first)


def test_f27_patches_of_another_section_make_no_features(copy):
    first, second = copy.names[:2]
    shutil.copy(layout.patches_path(copy.root, second), layout.patches_path(copy.root, first))
    assert len(copy.section(first).patches) == len(copy.section(first))  # nothing shows
    with pytest.raises(FormatError, match=r"npy: found another content"):
        colour_features(copy).feat(first)


@pytest.mark.parametrize("kind", ["cut", "objects", "floats", "empty"])
def test_f27_files_that_are_no_patches(copy, kind):
    path = layout.patches_path(copy.root, copy.names[0])
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        values = np.array([{}]) if kind == "objects" else np.zeros((3, 2))
        np.save(path, values, allow_pickle=kind == "objects")
    with pytest.raises(FormatError, match="patches"):
        len(copy.section(copy.names[0]).patches)


def test_embeddings_of_sections_have_one_width(copy, tmp_path):
    for width, section in enumerate(copy.sections(), start=3):
        np.save(tmp_path / f"{section.name}.npy", np.zeros((len(section), width)))
        (tmp_path / f"{section.name}.txt").write_text("\n".join(section.obs.index))
    config = EncoderConfig(embeddings=str(tmp_path / "{section}.npy"))
    with pytest.raises(FormatError, match=r"A2.npy: found 4 features, expected 3, as in .*A1.npy"):
        cohort_features(copy, config)
