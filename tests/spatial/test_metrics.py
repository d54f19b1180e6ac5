from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from seq2exp.core.errors import InputError
from seq2exp.spatial.evaluation import accuracy_rows
from seq2exp.spatial.metrics import (
    aggregate,
    columns_pearson,
    depth_residual,
    gene_table,
    mean_table,
    paired_difference,
    relative_variance,
    summary_rows,
)

GENES = ["a", "b", "c"]


def drawn(seed=0, spots=40, genes=3):
    random = np.random.default_rng(seed)
    truth = random.normal(size=(spots, genes))
    return truth, truth + random.normal(size=truth.shape), random.integers(50, 5000, spots)


def table_of(truth, guess, total, section="S1", patient="P1", genes=GENES):
    return gene_table(
        truth, guess, total_N=np.asarray(total, float), genes=genes, section=section,
        patient=patient,
    )  # fmt: skip


def test_every_column_against_scipy():
    truth, guess, total = drawn()
    table = table_of(truth, guess, total)
    design = np.column_stack([np.ones(len(total)), np.log1p(total)])

    def residual(values):
        return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]

    for gene in range(3):
        row, x, y = table.iloc[gene], truth[:, gene], guess[:, gene]
        assert row["pearson"] == pytest.approx(stats.pearsonr(x, y)[0])
        assert row["spearman"] == pytest.approx(stats.spearmanr(x, y)[0])
        partial = stats.pearsonr(residual(x), residual(y))[0]
        assert row["pearson_partial"] == pytest.approx(partial)
        assert row["mse"] == pytest.approx(np.mean((x - y) ** 2))
        assert row["mae"] == pytest.approx(np.mean(abs(x - y)))
        assert row["r2"] == pytest.approx(1 - np.mean((x - y) ** 2) / np.var(x))
    assert not table[["const_truth", "const_predicted"]].any(axis=None)


def test_depth_alone_has_no_partial_correlation():
    """A prediction that is a function of depth only is nothing once depth is taken out."""
    truth, _, total = drawn()
    depth = np.log1p(total)[:, None] * [1.0, -2.0, 0.5]
    table = table_of(truth + depth, depth, total)
    assert (table["pearson"].abs() > 0.1).all()
    assert table["pearson_partial"].isna().all()
    assert aggregate(table, "pearson_partial").value == 0
    np.testing.assert_allclose(depth_residual(depth, total.astype(float)), 0, atol=1e-12)


def test_constant_genes_are_flagged_and_count_as_zero():
    truth, guess, total = drawn()
    truth[:, 0], guess[:, 1] = 3.3, 0.1
    table = table_of(truth, guess, total)
    assert table["const_truth"].tolist() == [True, False, False]
    assert table["const_predicted"].tolist() == [False, True, False]
    assert table["pearson"].isna().tolist() == [True, True, False]
    assert aggregate(table, "pearson").value == pytest.approx(table["pearson"][2] / 3)
    assert np.isnan(table["r2"][0])


def test_genes_that_were_not_measured_get_no_row():
    truth, guess, total = drawn()
    truth[:, 1] = np.nan
    assert table_of(truth, guess, total)["gene_id"].tolist() == ["a", "c"]


def test_predictions_that_are_no_number_are_refused():
    truth, guess, total = drawn()
    guess[3, 2] = np.nan
    with pytest.raises(InputError, match=r"section S1.*no number.*1 in all"):
        table_of(truth, guess, total)
    with pytest.raises(InputError, match="shape"):
        table_of(truth, guess[:, :2], total)


def test_relative_variance_by_hand():
    table = pd.DataFrame({"var_truth": [1.0, 2.0], "var_predicted": [0.5, 2.0]})
    assert relative_variance(table, eps=0).tolist() == pytest.approx([0.25, 0])
    assert relative_variance(table, eps=1.0).tolist() == pytest.approx([0.25 / 4, 0])


def cohort_table(values):
    """Return a table of given Pearson values: {(patient, section): values per gene}."""
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "patient": patient,
                    "section": section,
                    "gene_id": [f"g{i}" for i in range(len(numbers))],
                    "pearson": numbers,
                }
            )
            for (patient, section), numbers in values.items()
        ],
        ignore_index=True,
    )


def test_sections_are_averaged_within_patients():
    """Patient A has two sections of 0 and 1, patient B one of 0.9: the mean is (0.5 + 0.9) / 2."""
    table = cohort_table(
        {("A", "A1"): [0.0, 0.0], ("A", "A2"): [1.0, 1.0], ("B", "B1"): [0.9, 0.9]}
    )
    found = aggregate(table, "pearson")
    assert found.value == pytest.approx(0.7)
    # Resampling two patients gives A A, A B, or B B.
    assert (found.low, found.high) == (pytest.approx(0.5), pytest.approx(0.9))
    assert found.n == 2


def test_interval_covers_what_it_should():
    """True mean 0.3; patients differ by 0.1, genes by 0.2: 95 % intervals hold it 95 % of times."""
    held, rounds = 0, 200
    for seed in range(rounds):
        random = np.random.default_rng(seed)
        gene = random.normal(0, 0.2, 60)
        table = cohort_table(
            {(f"P{p}", f"S{p}"): 0.3 + random.normal(0, 0.1) + gene for p in range(20)}
        )
        found = aggregate(table, "pearson", num_resamples=300, seed=seed)
        held += found.low <= 0.3 <= found.high
    assert 0.9 <= held / rounds <= 0.99


@pytest.mark.parametrize(("units", "least", "most"), [(2, 0.4, 0.65), (4, 0.7, 0.9), (8, 0.82, 1)])
def test_few_units_give_narrow_intervals(units, least, most):
    """Genes share the error of a unit: 95 % intervals hold the truth as often as the page says."""
    held, rounds = 0, 200
    for seed in range(rounds):
        random = np.random.default_rng(seed)
        table = cohort_table(
            {
                (f"P{p}", f"S{p}"): random.normal(0, 0.1) + random.normal(0, 0.05, 40)
                for p in range(units)
            }
        )
        found = aggregate(table, "pearson", num_resamples=200, seed=seed)
        held += found.low <= 0 <= found.high
    assert least <= held / rounds <= most


def test_a_single_section_has_no_interval_and_sections_of_a_patient_have():
    """Genes of one section share its spots; they cannot say how far another would lie."""
    one = aggregate(cohort_table({("A", "A1"): [0.1, 0.2, 0.6]}), "pearson")
    assert one.value == pytest.approx(0.3)
    assert np.isnan([one.low, one.high]).all()
    two = aggregate(cohort_table({("A", "A1"): [0.2] * 3, ("A", "A2"): [0.4] * 3}), "pearson")
    assert (two.low, two.high) == (pytest.approx(0.2), pytest.approx(0.4))


def test_further_numbers_weigh_patients_as_the_others_do():
    """Patient A has two sections, B one: rows would weigh A twice."""
    table = cohort_table(
        {("A", "A1"): [0.0, 0.4], ("A", "A2"): [0.2, 0.2], ("B", "B1"): [0.8, np.nan]}
    )
    rest = dict.fromkeys(("spearman", "pearson_partial", "mse", "mae", "r2"), 0.5)
    table = table.assign(
        **rest, var_truth=0.99, var_predicted=[0.99, 0.99, 0.99, 0.99, 1.99, 1.99],
        const_truth=[False] * 5 + [True], const_predicted=False, HEG=True, HVG=True,
    )  # fmt: skip
    rows = {row["metric"]: row["value"] for row in accuracy_rows([table], "m", split="t")}
    assert rows["pearson"] == pytest.approx((0.2 + 0.4) / 2)
    assert rows["pearson_defined"] == pytest.approx((0.2 + 0.8) / 2)
    assert rows["rvd"] == pytest.approx((0 + 1) / 2)
    assert rows["n_const_truth"] == 1


def test_paired_differences():
    truth, guess, total = drawn()
    first, second = table_of(truth, guess, total), table_of(truth, guess * 0.5 + 1, total)
    # A linear map changes no correlation, but the error.
    assert paired_difference(first, second, "pearson").value == pytest.approx(0, abs=1e-12)
    difference = paired_difference(first, second, "mse")
    assert difference.value == pytest.approx((first["mse"] - second["mse"]).mean())
    assert np.isnan([difference.low, difference.high]).all()
    with pytest.raises(InputError, match="1 pairs"):
        paired_difference(first, second.iloc[1:], "mse")
    # A gene that is undefined in one of them counts as 0 there.
    broken = second.assign(pearson=[np.nan, *second["pearson"][1:]])
    assert paired_difference(first, broken, "pearson").value == pytest.approx(
        first["pearson"][0] / 3, abs=1e-12
    )


def test_trainings_are_averaged_row_by_row():
    truth, guess, total = drawn()
    first, second = table_of(truth, guess, total), table_of(truth, guess[::-1], total)
    broken = second.assign(pearson=[np.nan, *second["pearson"][1:]])
    mean = mean_table([first, broken])
    # Undefined in one of two counts as 0 there.
    assert mean["pearson"][0] == pytest.approx(first["pearson"][0] / 2)
    np.testing.assert_allclose(mean["mse"], (first["mse"] + second["mse"]) / 2)
    assert mean_table([first]) is first
    with pytest.raises(InputError, match="other sections or genes"):
        mean_table([first, table_of(truth, guess, total, section="S2")])


def test_what_is_not_known_is_none_in_rows():
    truth, guess, total = drawn()
    truth[:, :] = 3.0
    rows = {
        row["metric"]: row for row in summary_rows(table_of(truth, guess, total), "m", split="t")
    }
    assert rows["r2"]["value"] is None
    assert rows["pearson"]["value"] == 0


def test_rows_by_gene_list():
    truth, guess, total = drawn()
    table = table_of(truth, guess, total)
    listed = table.assign(HEG=[False, True, False])
    found = summary_rows(listed, "m", split="test", lists=["HEG"])
    rows = {row["metric"]: row for row in found}
    assert rows["pearson HEG"]["value"] == pytest.approx(table["pearson"][1])
    assert rows["pearson HEG"]["n"] == 1
    assert rows["pearson"]["n"] == 3


def test_correlation_of_columns_is_exact_for_linear_maps():
    values = np.array([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0]])
    np.testing.assert_array_equal(columns_pearson(values, -3 * values + 1), [-1, np.nan])
