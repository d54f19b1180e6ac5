from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import average_precision_score

from seq2exp.core.errors import InputError
from seq2exp.variants.evaluate import SIGNED, UNSIGNED, EffectConfig, EffectJudge
from seq2exp.variants.linkage import LinkedPairs

EFFECT = np.array([0.5, -0.2, 0.1, 0.0, 0.0, 0.01])
SCORE = np.array([0.4, -0.3, -0.1, 0.2, 0.0, 0.9])
GENE = np.array(["a", "a", "b", "b", "c", "c"])


def made(num=300, seed=0):
    random = np.random.default_rng(seed)
    gene = random.integers(0, 20, num)
    effect = random.normal(size=num) * (random.random(num) < 0.5)
    score = effect + random.normal(size=num)
    return gene, effect, score


def values(rows):
    return {(row["name"], row["metric"]): row for row in rows}


def test_sign_agreement_by_hand():
    """Causal: 0.5 right, -0.2 right, 0.1 wrong; with a score of 0 the last counts one half."""
    judge = EffectJudge(GENE, EFFECT)
    assert judge.draws("sign_agreement", SCORE)[0] == pytest.approx(2 / 3)
    half = np.where(np.arange(6) == 2, 0.0, SCORE)
    assert judge.draws("sign_agreement", half)[0] == pytest.approx(2.5 / 3)


def test_balanced_signs_give_a_constant_guess_one_half():
    """Up: 0.5 right, 0.1 wrong, so 1/2; down: right, 1. Their mean is 3/4."""
    judge = EffectJudge(GENE, EFFECT)
    assert judge.draws("sign_balanced", SCORE)[0] == pytest.approx(3 / 4)
    assert judge.draws("sign_agreement", np.full(6, -1.0))[0] == pytest.approx(1 / 3)
    assert judge.draws("sign_balanced", np.full(6, -1.0))[0] == pytest.approx(1 / 2)


def test_signed_and_absolute_ranks_are_kept_apart():
    gene, effect, score = made()
    judge = EffectJudge(gene, effect)
    first = judge.draws("spearman", score)[1]
    judge.draws("abs_spearman", score)
    assert (judge.draws("spearman", score)[1] == first).all()
    assert judge.draws("abs_spearman", score)[1].mean() != pytest.approx(first.mean())


def test_what_was_asked_before_changes_no_answer():
    """Every metric of all pairs and of some, by one judge and by one that knows nothing yet."""
    gene, effect, score = made(120)
    config = EffectConfig(num_resamples=20)
    used = EffectJudge(gene, effect, config)
    for metric in (*SIGNED, *UNSIGNED):
        for where in (None, effect >= 0, effect <= 0, None):
            asked = used.draws(metric, score, where)[1]
            fresh = EffectJudge(gene, effect, config).draws(metric, score, where)[1]
            np.testing.assert_array_equal(asked, fresh)


def test_signs_are_counted_among_causal_pairs():
    """Three of the six pairs; among those with more only, two, of which one is right. Balanced
    signs of those with more alone have no other half."""
    judge = EffectJudge(GENE, EFFECT)
    rows = values(judge.rows({"s": SCORE}, ("sign_agreement", "sign_balanced", "pearson")))
    assert [row["n"] for row in rows.values()] == [3, 3, 6]
    more = EFFECT > 0
    assert judge.draws("sign_agreement", SCORE, more)[0] == pytest.approx(1 / 2)
    assert np.isnan(judge.draws("sign_balanced", SCORE, more)[0])


def test_auprc_by_hand():
    """By size: 0.4 causal, 0.3 causal, 0.2 idle, 0.1 causal, 0 idle; 0.9 is neither and left out.
    AP = (1/1 + 2/2 + 3/4) / 3."""
    value, _ = EffectJudge(GENE, EFFECT).draws("auprc", SCORE)
    assert value == pytest.approx((1 + 1 + 3 / 4) / 3)


def test_metrics_are_those_of_other_libraries():
    gene, effect, score = made()
    judge = EffectJudge(gene, effect)
    found = {metric: judge.draws(metric, score)[0] for metric in (*SIGNED, *UNSIGNED)}
    assert found["pearson"] == pytest.approx(pearsonr(effect, score)[0])
    assert found["spearman"] == pytest.approx(spearmanr(effect, score)[0])
    expected = spearmanr(np.abs(effect), np.abs(score))[0]
    assert found["abs_spearman"] == pytest.approx(expected)
    kept = (np.abs(effect) >= 0.05) | (np.abs(effect) < 1e-4)
    expected = average_precision_score(np.abs(effect[kept]) >= 0.05, np.abs(score[kept]))
    assert found["auprc"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("metric", [*SIGNED, *UNSIGNED])
def test_resamples_repeat_whole_genes(metric):
    """Each draw is the metric of a table in which the pairs of a gene stand as often as it was
    drawn."""
    gene, effect, score = made(80)
    judge = EffectJudge(gene, effect, EffectConfig(num_resamples=5))
    _, draws = judge.draws(metric, score)
    for counts, drawn in zip(judge.counts_RG, draws, strict=True):
        repeated = np.repeat(np.arange(80), counts[judge.group_P].astype(int))
        once = EffectJudge(gene[repeated], effect[repeated])
        assert once.draws(metric, score[repeated])[0] == pytest.approx(drawn, abs=1e-6)


def test_genes_of_one_group_are_drawn_together():
    gene, effect, score = made(200)
    apart = EffectJudge(gene, effect)
    together = EffectJudge(gene, effect, group_P=gene // 10)
    assert together.counts_RG.shape[1] == 2
    assert together.draws("pearson", score)[0] == apart.draws("pearson", score)[0]
    # Two groups have three different draws.
    assert len(np.unique(together.draws("pearson", score)[1].round(9))) == 3
    assert len(np.unique(apart.draws("pearson", score)[1].round(9))) > 100


def test_linked_accuracy_by_hand():
    """Pair 0 beats 3 and ties with 4: 3/4. Pair 1 loses to 3: 0. Causal ones count alike: 3/8."""
    judge = EffectJudge(np.zeros(6), EFFECT)
    pairs = LinkedPairs(np.array([0, 0, 1]), np.array([3, 4, 3]))
    score = np.array([0.4, 0.1, 0, -0.2, 0.4, 0])
    assert judge.linked_draws(score, pairs)[0] == pytest.approx(3 / 8)
    rows = values(judge.linked_rows({"a": score, "b": -score}, pairs, reference="a"))
    assert rows["a", "linked_accuracy"]["n"] == 2
    difference = rows["a - b", "linked_accuracy"]
    assert (difference["value"], difference["low"], difference["high"]) == (0, 0, 0)


def test_rows_carry_numbers_of_pairs_and_paired_differences():
    gene, effect, score = made()
    noise = np.random.default_rng(1).normal(size=effect.size)
    judge = EffectJudge(gene, effect, split="test")
    where = effect >= 0
    rows = values(
        judge.rows(
            {"model": score, "noise": noise}, ("pearson", "auprc"), reference="model",
            where_P=where, stratum="up",
        )
    )  # fmt: skip
    model, other = rows["model", "auprc"], rows["noise", "auprc"]
    difference = rows["model - noise", "auprc"]
    assert difference["value"] == pytest.approx(model["value"] - other["value"])
    assert difference["low"] > 0
    kept = where & ((effect >= 0.05) | (effect == 0))
    assert model["n"] == kept.sum()
    assert model["num_causal"] == (where & (effect >= 0.05)).sum()
    assert model["num_genes"] == np.unique(gene[kept]).size
    assert (model["stratum"], model["split"]) == ("up", "test")
    assert rows["model", "pearson"]["n"] == where.sum()


def test_scores_without_order_are_worth_nothing():
    gene, effect, _ = made(2000)
    noise = np.random.default_rng(5).normal(size=effect.size)
    metrics = (*SIGNED, "abs_spearman")
    rows = values(EffectJudge(gene, effect).rows({"noise": noise}, metrics))
    for metric, nothing in zip(metrics, (0, 0, 0.5, 0.5, 0), strict=True):
        row = rows["noise", metric]
        assert row["low"] < nothing < row["high"]


def test_without_a_causal_variant_there_is_no_precision():
    judge = EffectJudge([0, 0], [0.0, 0.0])
    assert np.isnan(judge.draws("auprc", [1.0, 2.0])[0])
    assert np.isnan(judge.draws("sign_agreement", [1.0, 2.0])[0])
    row = judge.rows({"s": [1.0, 2.0]}, ("auprc",))[0]
    assert row["value"] is None


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="missing values"):
        EffectJudge(GENE, EFFECT).draws("pearson", np.where(SCORE > 0.8, np.nan, SCORE))
    with pytest.raises(InputError, match="one of each per pair"):
        EffectJudge(GENE[:3], EFFECT)
    with pytest.raises(InputError, match="at least one pair"):
        EffectJudge([], [])
    with pytest.raises(InputError, match="auroc"):
        EffectJudge(GENE, EFFECT).draws("auroc", SCORE)
