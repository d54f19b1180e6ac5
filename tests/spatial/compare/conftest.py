from __future__ import annotations

from pathlib import Path

import pytest

from seq2exp.spatial.compare.config import CompareConfig, contenders
from seq2exp.spatial.compare.folder import write_tables
from seq2exp.spatial.compare.systems import compare_systems
from seq2exp.spatial.compare.text import comparison_text
from seq2exp.spatial.panels import PanelConfig

SHIPPED = Path(__file__).parents[3] / "configs" / "spatial"
QUICK = {
    "ridge": {"system": {"alpha": 10.0, "neighbours": False}},
    "stnet": {"fit": {"max_epochs": 8, "lr": 0.01}},
}


@pytest.fixture(scope="package")
def settings():
    """Two quick systems on twenty genes."""
    return CompareConfig(panel=PanelConfig("heg", 20), systems=QUICK, num_resamples=100)


@pytest.fixture(scope="package")
def compare(cohort, features, settings):
    """Compare as the command does, with features that are at hand."""

    def run(out, config=settings, *, chosen=(), get=lambda config: features):
        systems = contenders(config, shipped=SHIPPED, chosen=chosen)
        found = compare_systems(config, systems, data=cohort.root, out=out, features=get)
        write_tables(
            out, rows=found.rows, costs=found.costs, text=comparison_text(found), about={"a": 1}
        )
        return found

    return run


@pytest.fixture(scope="package")
def compared(compare, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "out"
    return out, compare(out)
