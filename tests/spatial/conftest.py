from __future__ import annotations

import numpy as np
import pytest

from seq2exp.spatial.colour import colour_stats
from tests.spatial.fakes import small_cohort


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    return small_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="session")
def features(cohort):
    return {
        section.name: np.stack([colour_stats(patch) for patch in section.patches])
        for section in cohort.sections()
    }
