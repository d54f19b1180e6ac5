from __future__ import annotations

import pytest

from tests.spatial.fakes import colour_features, small_cohort


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    return small_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="session")
def features(cohort):
    return colour_features(cohort)
