"""Predictions of other tools: names that match, each value once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from seq2exp.cohort.other_tools import fit_predictions
from seq2exp.core.errors import InputError, Seq2ExpWarning

GENES, DONORS = ["ENSG1", "ENSG2.7"], ["a", "b", "c"]
TESTED = np.array([[True, True, False], [True, True, False]])


def table(genes=("ENSG1", "ENSG1", "ENSG2.7", "ENSG2.7"), donors="abab", values=(1, 2, 3, 4)):
    return pd.DataFrame({"gene_id": list(genes), "donor": list(donors), "value": list(values)})


def fitted(frame, *, taken=()):
    return fit_predictions(frame, "x", genes=GENES, donors=DONORS, tested_GD=TESTED, taken=taken)


@pytest.mark.filterwarnings("error")
def test_whole_predictions_are_taken_as_they_are():
    found = fitted(table())
    assert found["value"].tolist() == [1, 2, 3, 4]
    # Versions of gene ids do not part them, whichever side has them.
    other = fitted(table(genes=["ENSG1.3", "ENSG1.3", "ENSG2.1", "ENSG2"]))
    assert other["gene_id"].tolist() == found["gene_id"].tolist()


def test_part_of_the_tested_is_said():
    with pytest.warns(Seq2ExpWarning, match="3 of 4 tested values"):
        found = fitted(table(values=(1, 2, 3, None), donors="abab"))
    assert len(found) == 3
    with pytest.warns(Seq2ExpWarning, match="2 of 4"):
        found = fitted(table(genes=["ENSG1", "ENSG1", "other", "other"]))
    assert set(found["gene_id"]) == {"ENSG1"}


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (table(genes=["g"] * 4), "none is tested"),
        (table(donors="xyxy"), "donors x, y: none is tested"),
        (table(donors="cccc", genes=["ENSG1", "ENSG2", "u", "v"]), "none is tested"),
        (table(donors="aaab"), "a gene and donor twice"),
        (table(genes=["ENSG1", "ENSG1.1", "ENSG2", "ENSG2"], donors="aaab"), "twice"),
        (table(values=("1", "x", "2", "3")), "no finite number"),
        (table(values=(1, np.inf, 2, 3)), "no finite number"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(frame, message):
    with pytest.raises(InputError, match=message):
        fitted(frame)


def test_names_of_the_benchmark_are_not_given_twice():
    with pytest.raises(InputError, match="a name that a model or baseline has"):
        fitted(table(), taken=["x"])
