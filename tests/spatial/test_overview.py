from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from seq2exp.spatial.overview import cohort_table, cohort_warnings, common_genes, spread_rows
from tests.spatial.fakes import GENES


@pytest.fixture
def table(cohort):
    return cohort_table(cohort)


def test_numbers_are_those_of_the_counts(cohort, table):
    assert list(table["section"]) == ["A1", "A2", "B1", "B2"]
    assert list(table["patient"]) == ["A", "A", "B", "B"]
    counts = cohort.section("B1").counts_NA.toarray()
    row = table.set_index("section").loc["B1"]
    assert row["spots"] == 42
    assert row["genes"] == GENES
    assert row["median_counts"] == np.median(counts.sum(axis=1))
    assert row["median_genes"] == np.median((counts > 0).sum(axis=1))
    assert row["um_per_px"] == 5
    assert row["saturation_on"] > 2 * row["saturation_off"]
    assert common_genes(cohort) == GENES


def lines(cohort, table, **columns):
    return " | ".join(cohort_warnings(cohort, table.assign(**columns)))


def test_few_patients_and_small_sections_are_named(cohort, table):
    text = lines(cohort, table)
    assert "2 patients: each fold learns from 1" in text
    assert "fewer than 50 spots in A1, A2, B1, B2" in text
    assert "nothing is learnt about other patients" in lines(cohort, table, patient="A")
    fine = {"patient": list("ABCD"), "spots": 100}
    assert lines(cohort, table, **fine) == ""


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"um_per_px": [5.0, 5.0, 2.0, 5.0]}, "from 2.00 to 5.00 um per pixel"),
        ({"um_per_px": 10.0}, "patches of 16 pixels enlarged to 32 in A1, A2, B1, B2"),
        ({"left_out": [0, 0, 0, 60]}, "more than 20% of the spots left out in B2"),
        ({"median_counts": [100.0, 90.0, 500.0, 100.0]}, "from 90 to 500: sections differ"),
        ({"saturation_on": [9.0, 1.0, 9.0, 9.0], "saturation_off": 5.0}, "than the glass in A2"),
        ({"genes": 100}, "30 genes in every section, of 100"),
        ({"saturation_on": np.nan, "saturation_off": np.nan}, ""),
    ],
)
def test_what_else_makes_results_hard_to_believe(cohort, table, columns, message):
    fine = {"patient": list("ABCD"), "spots": 100}
    found = lines(cohort, table, **fine, **columns)
    assert found.count(" | ") == 0
    assert message in found
    assert bool(message) == bool(found)


def test_genes_named_otherwise_are_not_common(cohort):
    class Other:
        def sections(self):
            first, *rest = cohort.sections()
            var = first.var.assign(gene_id=[f"ENSG{i}" for i in range(GENES)])
            yield dataclasses.replace(first, var=var)
            yield from rest

    assert common_genes(Other()) == 0


def test_spots_are_spread_over_a_section():
    np.testing.assert_array_equal(spread_rows(100, 4), [0, 33, 66, 99])
    np.testing.assert_array_equal(spread_rows(3, 8), [0, 1, 2])
    np.testing.assert_array_equal(spread_rows(1, 8), [0])
