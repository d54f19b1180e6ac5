"""Scanning against brute force: every word scored by hand, every p-value counted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from seq2exp.core.errors import ConfigError
from seq2exp.core.sequence import encode, reverse_complement
from seq2exp.interpret.motif_files import MotifMatrix
from seq2exp.interpret.pwm import (
    STEPS_PER_BIT,
    base_frequencies,
    best_scores,
    scan,
    score_motif,
)

SKEWED = np.array([0.35, 0.15, 0.15, 0.35])


def motif(width, seed=0, *, zeros=False):
    random = np.random.default_rng(seed)
    rows = random.dirichlet(np.full(4, 0.4), width)
    if zeros:
        rows[0] = (1, 0, 0, 0)
    return MotifMatrix(f"m{seed}", "", rows, 20)


def word_scores(scored):
    """All words, and their scores, one by one."""
    words = np.array(list(itertools.product(range(4), repeat=len(scored.steps))))
    return words, np.array([sum(map(int, scored.steps[range(len(word)), word])) for word in words])


@pytest.mark.parametrize("background", [np.full(4, 0.25), SKEWED], ids=["uniform", "skewed"])
@pytest.mark.parametrize(("width", "zeros"), [(1, False), (4, False), (6, True)])
def test_p_values_are_those_of_all_words(width, zeros, background):
    scored = score_motif(motif(width, zeros=zeros), background=background, p_value=0.01)
    words, scores = word_scores(scored)
    chance = background[words].prod(axis=1)
    for score in np.unique(scores):
        expected = chance[scores >= score].sum()
        assert scored.p_of(np.array([score]))[0] == pytest.approx(expected, rel=1e-9)
    # The threshold is the smallest score that rare, and the one below is too common.
    passing = chance[scores >= scored.threshold].sum()
    below = chance[scores >= scored.threshold - 1].sum()
    assert passing <= 0.01
    assert below > 0.01 or passing == 0
    assert scored.reachable == (passing > 0)


def test_scores_are_rounded_log_odds_with_a_pseudocount():
    """A zero among 20 sites with 0.1 pseudo-sites: log2((0 + 0.1/4)/20.1 / (1/4)) = -7.65 bits."""
    rows = np.array([[1.0, 0, 0, 0]])
    scored = score_motif(MotifMatrix("x", "", rows, 20), background=np.full(4, 0.25))
    assert scored.steps[0, 0] == round(STEPS_PER_BIT * np.log2((20.025 / 20.1) / 0.25))
    assert scored.steps[0, 1] == round(STEPS_PER_BIT * np.log2((0.025 / 20.1) / 0.25)) == -765


def naive_hits(scored, sequences):
    found = []
    for index, codes in enumerate(sequences):
        for number, one in enumerate(scored):
            width = len(one.steps)
            for start in range(len(codes) - width + 1):
                site = codes[start : start + width]
                if (site == 4).any():
                    continue
                for reverse, letters in ((False, site), (True, reverse_complement(site.copy()))):
                    score = sum(int(r[b]) for r, b in zip(one.steps, letters, strict=True))
                    if score >= one.threshold:
                        found.append((index, start, number, reverse, score))
    return sorted(found)


@pytest.mark.parametrize("piece", [16, 1 << 15])
def test_scan_and_best_scores_are_those_of_two_loops(monkeypatch, piece):
    monkeypatch.setattr("seq2exp.interpret.pwm._PIECE", piece)
    random = np.random.default_rng(1)
    sequences = [random.integers(0, 4, n).astype(np.uint8) for n in (60, 3, 5, 41, 1)]
    sequences[0][20:23] = 4
    background = base_frequencies(sequences)
    scored = [score_motif(motif(w, w), background=background, p_value=0.05) for w in (3, 5, 8)]
    hits = scan(scored, sequences)
    columns = (hits.sequence, hits.start, hits.motif, hits.reverse, hits.score)
    found = list(zip(*(column.tolist() for column in columns), strict=True))
    expected = naive_hits(scored, sequences)
    assert found == expected
    assert len(expected) > 10
    best = best_scores(scored, sequences)
    for index, codes in enumerate(sequences):
        for number, one in enumerate(scored):
            everything = score_motif(one.motif, background=background, p_value=0.999999)
            object.__setattr__(everything, "threshold", everything.lowest)
            scores = [hit[4] for hit in naive_hits([everything], [codes])]
            if scores:
                assert best[index, number] == max(scores)
            else:
                assert best[index, number] < one.lowest


def test_a_sequence_and_its_other_strand_have_the_same_sites_turned_round():
    random = np.random.default_rng(3)
    codes = random.integers(0, 4, 400).astype(np.uint8)
    scored = [score_motif(motif(6, 6), background=np.full(4, 0.25), p_value=0.02)]
    here, there = (scan(scored, [seq]) for seq in (codes, reverse_complement(codes)))
    turned = sorted(
        zip((400 - 6 - there.start).tolist(), (~there.reverse).tolist(), there.score.tolist(),
            strict=True)
    )  # fmt: skip
    assert turned == sorted(
        zip(here.start.tolist(), here.reverse.tolist(), here.score.tolist(), strict=True)
    )
    assert len(turned) > 3


def test_short_motifs_cannot_reach_small_p_values_and_never_hit():
    acg = MotifMatrix("x", "", np.eye(4)[:3], 20)
    scored = score_motif(acg, background=np.full(4, 0.25), p_value=1e-3)
    assert not scored.reachable  # the best of 64 words has p = 1/64
    assert scan([scored], [encode("ACGACGACG")]).start.size == 0
    fine = score_motif(acg, background=np.full(4, 0.25), p_value=0.02)
    assert scan([fine], [encode("TTACGTT")]).start.tolist() == [2, 3]  # ACG, and CGT turned


def test_base_frequencies_count_both_strands():
    """AAC: A 2, C 1; other strand T 2, G 1; one pseudocount each: 3, 2, 2, 3 of 10."""
    np.testing.assert_allclose(base_frequencies([encode("AACN")]), [0.3, 0.2, 0.2, 0.3])
    np.testing.assert_allclose(base_frequencies([encode("NN")]), 0.25)


def test_nothing_to_scan_and_nonsense():
    assert scan([], [encode("ACGT")]).start.size == 0
    assert best_scores([], [encode("ACGT")]).shape == (1, 0)
    for p_value, pseudocount in ((0, 0.1), (1, 0.1), (0.1, 0)):
        with pytest.raises(ConfigError, match="0 < p < 1"):
            score_motif(motif(3), background=SKEWED, p_value=p_value, pseudocount=pseudocount)
