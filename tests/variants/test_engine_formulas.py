"""Scores of a model that fits on a page, spans, distances and elements: each by its formula.

Each of these tests was written because a broken line of the library passed all others.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from seq2exp.core.intervals import Window
from seq2exp.core.sequence import decode
from seq2exp.dataset.samples import SampleConfig
from seq2exp.dataset.store import Dataset
from seq2exp.models.output import Seq2ExpOutput
from seq2exp.models.rerun import changed_bins
from seq2exp.training.module import batch_call
from seq2exp.variants.arrays import compare
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.elements import ElementBins
from seq2exp.variants.engine import open_engine
from seq2exp.variants.genes import GeneIndex, distance_to_tss, window_holds
from seq2exp.variants.gradient import taylor
from seq2exp.variants.judge import changed_span, judge
from seq2exp.variants.passes import Predicted
from seq2exp.variants.views import View, open_view
from seq2exp.variation.alleles import Allele
from tests.toys import toy_dataset
from tests.variants.engines import BIN, WINDOW, Additive, engine_of, run_of, seq2exp, table_of
from tests.variants.test_engine import naive_window, random_alleles

NUM = WINDOW // BIN
PROMOTER = (NUM // 2 - 1, NUM // 2 + 1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset(toy_dataset(tmp_path_factory.mktemp("variants") / "toy"))


class Shares(nn.Module):
    """mask_n = share of G and T in bin n, 1 in the promoter; y_k = (k + 1) sum_n mask_n w_n C_n.

    C_n is the number of C in the bin; w_n hangs on the place in the window, so that nothing can be
    turned around or moved unseen.
    """

    promoter = PROMOTER

    def __init__(self) -> None:
        super().__init__()
        self.weight_N = nn.Parameter(torch.linspace(0.5, 2.0, NUM).double() ** 2)
        self.config = SimpleNamespace(mask="soft", rc_average=False, gate="")

    def one_strand(self, call):
        bins = call.codes_BL.reshape(-1, NUM, BIN)
        mean_BN = ((bins == 2) | (bins == 3)).double().mean(2)
        mask_BN = mean_BN if call.mask_BN is None else call.mask_BN.double()
        if call.mask_BN is None and call.force_promoter:
            mask_BN = mask_BN.clone()
            mask_BN[:, slice(*PROMOTER)] = 1
        value_B = (mask_BN * self.weight_N * (bins == 1).sum(2)).sum(1)
        return Seq2ExpOutput(
            expression_BK=torch.stack([value_B, 2 * value_B], 1), mask_BN=mask_BN, mean_BN=mean_BN,
            alpha_BN=None, beta_BN=None, kl_B=value_B * 0, track_loss_B=value_B * 0,
            embedding_BD=value_B[:, None],
        )  # fmt: skip

    def of(self, codes, mask=None):
        """Mean of the mask, mask and prediction of one window, in numpy."""
        bins = np.asarray(codes).reshape(NUM, BIN)
        mean = np.isin(bins, (2, 3)).mean(1)
        forced = mean.copy()
        forced[slice(*PROMOTER)] = 1
        held = forced if mask is None else mask
        weight = self.weight_N.detach().numpy()
        return mean, forced, float((held * weight * (bins == 1).sum(1)).sum())


def places_of(dataset, row, allele=None, *, moved=0):
    """Reference position of every base of the window of a gene (inserted: its anchor)."""
    contig, tss, strand = dataset.sites[row]
    places = np.arange(-WINDOW, dataset.manifest.contigs[contig] + WINDOW)
    if allele is not None:
        position, ref, alt = allele
        at = position + WINDOW
        keep = min(len(ref), len(alt))
        middle = [*range(position, position + keep), *[position + keep - 1] * (len(alt) - keep)]
        places = np.concatenate([places[:at], middle, places[at + len(ref) :]])
    at = int(np.flatnonzero(places == tss)[0])
    start = at - WINDOW // 2 + (strand == "-") + moved
    places = places[start : start + WINDOW]
    return places[::-1] if strand == "-" else places


def bin_means(values):
    parts = np.asarray(values, float).reshape(NUM, BIN)
    known = ~np.isnan(parts)
    with np.errstate(invalid="ignore"):
        return np.where(known, parts, 0).sum(1) / known.sum(1)


def expected_of(model, dataset, row, allele):
    """expr_delta, expr_delta_fixed and the change of the mask on REF, in genome direction."""
    _, ref, alt = allele
    before, after = (naive_window(dataset, row, part) for part in ([], [allele]))
    mean, mask, value = model.of(before)
    mean_alt, own, value_alt = model.of(after)
    held, on_reference = mask, mean_alt
    if len(ref) != len(alt):
        old, new = places_of(dataset, row), places_of(dataset, row, allele)
        of_base = dict(zip(old.tolist(), np.repeat(mask, BIN).tolist(), strict=True))
        held = bin_means([of_base.get(place, np.nan) for place in new.tolist()])
        held = np.where(np.isnan(held), own, held)
        largest: dict[int, float] = {}
        for place, base in zip(new.tolist(), np.repeat(mean_alt, BIN).tolist(), strict=True):
            largest[place] = max(largest.get(place, 0.0), base)
        on_reference = bin_means([largest.get(place, np.nan) for place in old.tolist()])
    fixed = model.of(after, held)[2]
    step = -1 if dataset.sites[row][2] == "-" else 1
    return value_alt - value, fixed - value, (on_reference - mean)[::step]


def test_a_masked_model_gives_the_closed_form_with_its_own_and_with_a_held_mask(dataset):
    model, alleles = Shares(), []
    random = np.random.default_rng(3)
    for row in (4, 5, 7, 8):
        contig, tss, _ = dataset.sites[row]
        for offset, num_ref, num_alt in (
            (-300, 1, 1), (90, 1, 1), (-130, 3, 3), (200, 1, 40), (-240, 1, 9), (150, 38, 1),
            (-20, 1, 1), (12, 3, 3), (-350, 6, 1), (60, 3, 6), (490, 1, 1), (-495, 1, 1),
        ):  # fmt: skip
            place = tss + offset
            ref = decode(dataset.contig_codes(contig)[place : place + num_ref])
            alt = "".join(random.choice(list("ACGT"), num_alt))
            if "N" not in ref:
                first = ref[0] if num_ref != num_alt else "ACGT"[("ACGT".index(ref[0]) + 1) % 4]
                alleles.append((contig, place, ref, first + alt[1:]))
    names = ("expr_delta", "expr_delta_fixed", "mask_delta", "mask_max")
    table = table_of(dataset, alleles)
    with engine_of(dataset, [model], scorers=names, mask_bp=101) as engine:
        found = engine.score(table)
    checked = set()
    for row in found[found.score_status == "scored"].itertuples():
        normal = table.loc[row.record]
        if row.edge_status != "ok":
            continue
        allele = (int(normal.norm_position), normal.norm_ref, normal.norm_alt)
        delta, fixed, change = expected_of(model, dataset, row.gene_row, allele)
        values = found.loc[row.Index]
        assert values["expr_delta:cell_a"] == pytest.approx(delta, rel=1e-4, abs=1e-4)
        assert values["expr_delta:cell_b"] == pytest.approx(2 * delta, rel=1e-4, abs=1e-4)
        assert values["expr_delta_fixed:cell_a"] == pytest.approx(fixed, rel=1e-4, abs=1e-4)
        # ceil(101 / 32) = 4 bins, two of them before that of the first changed base.
        first = changed_span(*allele)[0]
        here = (first - row.window_start) // BIN
        around = change[max(here - 2, 0) : here + 2]
        around = around[~np.isnan(around)]
        assert values["mask_delta"] == pytest.approx(around.sum(), abs=1e-5)
        assert values["mask_max"] == pytest.approx(np.abs(around).max(), abs=1e-5)
        checked.add((row.gene_strand, normal.variant_type))
    kinds = {"snv", "mnv", "ins", "del", "delins"}
    assert checked == {(strand, kind) for strand in "+-" for kind in kinds}


def test_first_order_scores_under_the_held_mask_are_those_of_its_gradient(dataset):
    """Each score is the change that the Taylor expansion of the view says, mask free or held."""
    model = seq2exp(dataset)
    table = table_of(dataset, random_alleles(dataset, count=60, seed=8, kinds=("snv", "mnv")))
    names = ("expr_delta", "expr_delta_fixed")
    with engine_of(dataset, [model], scorers=names, method="gradient", strands="both") as engine:
        found = engine.score(table)
        checked = 0
        for row in found[found.score_status == "scored"].itertuples():
            normal = table.loc[row.record]
            put = (Allele(int(normal.norm_position), normal.norm_ref, normal.norm_alt),)
            for name, mask in zip(names, ("recomputed", "fixed"), strict=True):
                changes = []
                for view in engine.gene(row.gene_row).passes.views:
                    expansion = taylor(model, batch_call(view.batch), mask=mask)
                    codes_BL = view.put([put]).batch.codes_BL
                    changes.append(float(expansion.change(codes_BL)[0, 0]))
                assert len(changes) == 2
                value = found.loc[row.Index, f"{name}:cell_a"]
                assert value == pytest.approx(np.mean(changes), rel=1e-4, abs=1e-6)
            checked += 1
            if checked == 8:
                break
    assert checked == 8
    assert not np.allclose(
        found["expr_delta:cell_a"].fillna(0), found["expr_delta_fixed:cell_a"].fillna(0)
    )


# Windows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0, 5])
def test_tracks_follow_their_bases_bin_by_bin(dataset, shift):
    """A bin is the mean over its bases, each with the stored value of its place or its anchor."""
    with engine_of(dataset, [Additive()]) as engine:
        samples = engine.samples
    size = dataset.manifest.bin_size
    for row in (4, 5, 7, 8):
        contig, tss, strand = dataset.sites[row]
        text = decode(np.asarray(dataset.contig_codes(contig)))
        stored = dataset.contig_tracks(contig).astype(np.float64)
        view = open_view(samples, row, View(opposite=False, shift=shift))
        for place, num_ref, more in (
            (tss - 100, 1, "GATTACA"), (tss + 77, 10, ""), (tss, 1, "CC"), (tss, 12, ""),
            (tss - 40, 33, ""), (tss - 13, 13, ""), (tss + 1, 1, "G" * 45), (tss - 1, 1, "TT"),
        ):  # fmt: skip
            ref = text[place : place + num_ref]
            allele = (place, ref, ref[0] + more)
            put = view.put([(Allele(*allele),)])
            step = -shift if strand == "-" else shift
            places = places_of(dataset, row, allele, moved=step)
            inside = (places >= 0) & (places < len(text))
            at = np.clip(places // size, 0, len(stored) - 1)
            values = np.where(inside[:, None], stored[at], np.nan)
            wanted = np.stack([bin_means(values[:, t]) for t in range(stored.shape[1])], axis=1)
            found = put.batch.signal_BNT[0].numpy()[:, : stored.shape[1]]
            valid = view.sample.valid
            np.testing.assert_allclose(found[valid], wanted[valid], rtol=1e-3, atol=1e-3)


def test_a_substitution_and_an_indel_of_one_base_stand_together(dataset):
    """A to C at the base that anchors an insertion of GG behind it: CGG, in whatever order."""
    with engine_of(dataset, [Additive()]) as engine:
        samples = engine.samples
    for row in (4, 5):
        contig, tss, _ = dataset.sites[row]
        place = tss + 60
        ref = decode(dataset.contig_codes(contig)[place : place + 1])
        other = "ACGT"[("ACGT".index(ref) + 1) % 4]
        put = (Allele(place, ref, other), Allele(place, ref, ref + "GG"))
        view = open_view(samples, row, View(opposite=False, shift=0))
        found = view.put([put, put[::-1]]).built.codes_HL
        wanted = naive_window(dataset, row, [(place, ref, other + "GG")])
        np.testing.assert_array_equal(found, np.stack([wanted, wanted]))


# Places ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("position", "ref", "alt", "span"),
    [
        (10, "A", "C", (10, 11)),
        (10, "ACGT", "ATGT", (11, 12)),
        (10, "A", "AGG", (11, 11)),
        (10, "AGG", "A", (11, 13)),
        (10, "CAA", "CA", (12, 13)),
        (10, "acg", "TCG", (10, 11)),
    ],
)
def test_changed_bases_are_those_that_alt_does_not_keep(position, ref, alt, span):
    assert changed_span(position, ref, alt) == span


def test_a_window_holds_what_changes_one_of_its_bases():
    window = Window("chr1", 100, 200, "+", 1000)
    inside = {(100, 101), (199, 200), (99, 101), (199, 201), (0, 999), (101, 101), (199, 199)}
    # Before its first base and behind its last one nothing inserted is in it.
    outside = {(99, 100), (200, 201), (100, 100), (200, 200), (0, 0)}
    assert {span for span in inside | outside if window_holds(window, span)} == inside


@pytest.mark.parametrize(
    ("span", "distance"),
    [
        ((50, 51), 0),
        ((53, 56), 3),
        ((40, 45), -6),
        ((45, 60), 0),
        # An insertion before 55 stands between 54 and 55.
        ((55, 55), 4),
        ((40, 40), -10),
        ((51, 51), 0),
        ((50, 50), 0),
    ],
)
def test_distances_count_to_the_nearest_changed_base_along_transcription(span, distance):
    assert distance_to_tss(span, 50, "+") == distance
    assert distance_to_tss(span, 50, "-") == -distance


def test_the_index_finds_the_windows_that_looking_at_all_finds(dataset):
    index = GeneIndex(dataset, SampleConfig(window_bp=WINDOW, bin_size=BIN))
    random, found = np.random.default_rng(0), 0
    for window in index.windows.values():
        spans = [
            (window.start + a, window.start + a + b) for a in (-3, -1, 0, 1) for b in (0, 1, 3)
        ]
        spans += [(window.end + a, window.end + a + b) for a in (-3, -1, 0, 1) for b in (0, 1, 3)]
        start = int(random.integers(window.start, window.end))
        for span in [*spans, (start, start + 1)]:
            wanted = {
                row for row, w in index.windows.items()
                if w.contig == window.contig and window_holds(w, span)
            }  # fmt: skip
            assert set(index.holding(window.contig, span)) == wanted
            found += len(wanted)
    assert found > 50
    assert index.holding("chrUn", (5, 6)) == []


def test_the_longest_indel_is_scored_and_one_base_more_is_not(dataset):
    tss = dataset.sites[4][1]
    codes = dataset.contig_codes("chr1")
    text = decode(codes[tss + 40 : tss + 50])
    rows = [("chr1", tss + 40, text[:6], text[0]), ("chr1", tss + 40, text[:7], text[0])]
    cases = judge(table_of(dataset, rows), dataset, max_indel=5)
    assert [case.status for case in cases] == ["ok", "too_long"]
    other = "ACGT"[("ACGT".index(text[0]) + 1) % 4]
    wrong = table_of(dataset, [("chr1", tss + 40, other + text[1:4], other)])
    # Under use-vcf-ref all of REF is put in, so all of it changes.
    (case,) = judge(wrong, dataset, policy="use-vcf-ref")
    assert case.span == (tss + 40, tss + 44)


def test_members_are_paired_with_themselves_in_every_view(dataset):
    """Spread of two models in two windows: sd (n - 1) of the four differences, each by itself."""
    models = [Additive(seed=1), Additive(seed=2)]
    table = table_of(dataset, random_alleles(dataset, count=30, seed=7, kinds=("snv",)))
    own = []
    for model in models:
        for shift in (0, 3):
            with engine_of(dataset, [model], shifts=(shift,), scorers=("expr_delta",)) as engine:
                own.append(engine.score(table)["expr_delta:cell_a"])
    with engine_of(dataset, models, shifts=(0, 3), scorers=("expr_delta",)) as engine:
        found = engine.score(table)
    np.testing.assert_allclose(found["expr_delta:cell_a"], np.mean(own, 0), atol=1e-4)
    np.testing.assert_allclose(found["expr_delta:cell_a:sd"], np.std(own, 0, ddof=1), atol=1e-4)


def test_bins_whose_tracks_differ_are_run_again_though_their_bases_do_not(dataset):
    """An indel in a repeat moves tracks and no base; no data (NaN) on both sides is no change."""
    signal = torch.ones(2, NUM, 1)
    signal[:, 7] = torch.nan
    codes = torch.zeros(2, WINDOW, dtype=torch.uint8)
    reference = SimpleNamespace(codes_BL=codes[:1], signal_BNT=signal[:1].clone())
    signal[1, 5], codes = 2.0, codes.clone()
    codes[0, 3 * BIN] = 1
    found = changed_bins(
        SimpleNamespace(codes_BL=codes, signal_BNT=signal), reference, bin_size=BIN
    )
    assert found.nonzero().tolist() == [[0, 3], [1, 5]]


# Elements -------------------------------------------------------------------------------------


def bins_of(means, *, reverse=False, threshold=None, shifts=(0,)):
    """ElementBins of one bin per 10 bases; a row of means for each member of each view."""
    num = len(means[0])
    views, members = [], []
    for shift in shifts:
        window = Window(
            "chr1", 1000 + shift, 1000 + shift + 10 * num, "-" if reverse else "+", 10**6
        )
        valid, blacklist = np.ones(num, bool), np.zeros(num, bool)
        valid[0], blacklist[1] = False, True
        sample = SimpleNamespace(valid=valid, blacklist=blacklist)
        views.append(SimpleNamespace(window=window, view=View(False, shift), sample=sample))
        per_view = len(means) // len(shifts)
        members += [SimpleNamespace(view=views[-1])] * per_view
    passes = SimpleNamespace(views=views, members=members, bin_size=10, promoter=(3, 5))
    mask = np.array(means, np.float32)[:, None]
    return ElementBins(passes, SimpleNamespace(mask_ESN=mask), threshold=threshold)


def test_elements_are_the_highest_of_the_free_bins_and_the_promoter():
    """44 bins: the first is outside, the second excluded, 3 and 4 the promoter; 40 are free."""
    mean = np.arange(44) / 64
    # Free bins are in model direction, means in genome direction.
    assert np.flatnonzero(bins_of([mean]).called_N).tolist() == [3, 4, 42, 43]
    assert np.flatnonzero(bins_of([mean], reverse=True).called_N).tolist() == [38, 39, 40, 41]
    assert np.flatnonzero(bins_of([mean], threshold=40 / 64).called_N).tolist() == [
        3,
        4,
        40,
        41,
        42,
        43,
    ]
    # Ties with the first that is left out are left out; members are averaged.
    tied = np.minimum(mean, 0.42)
    tied[43] = 0.7
    tied[41] = 0.42
    assert np.flatnonzero(bins_of([tied]).called_N).tolist() == [3, 4, 43]
    both = bins_of([mean, mean[::-1] * 3])
    assert np.flatnonzero(both.called_N).tolist() == [2, 3, 4, 5]


def test_a_change_is_in_an_element_if_one_of_its_bases_is():
    found = bins_of([np.arange(44) / 100])
    # Bins 3 and 4 are bases 1030 to 1049.
    inside = {(1030, 1031), (1049, 1050), (1020, 1031), (1049, 1060), (1030, 1030), (1050, 1050)}
    outside = {(1029, 1030), (1050, 1051), (1029, 1029), (1051, 1051), (0, 5), (9000, 9001)}
    assert {span for span in inside | outside if found.holds(span)} == inside


def test_elements_are_those_of_the_window_that_is_not_moved():
    mean = np.arange(44) / 100
    found = bins_of([mean[::-1], mean, mean[::-1]], shifts=(-7, 0, 7))
    assert found.start == 1000
    assert np.flatnonzero(found.called_N).tolist() == [3, 4, 42, 43]


# Bins around a variant ------------------------------------------------------------------------


def test_bins_around_a_variant_at_the_ends_of_a_window():
    """Bins of members lie side by side by their distance from the variant; beyond is no number."""
    mask = np.stack([np.arange(8.0), 10 + np.arange(8.0)])[:, None].repeat(2, 1).astype(np.float32)
    mask[:, 1] *= 2
    one = np.zeros((2, 2, 1))
    predicted = Predicted(one, None, mask, None, one, np.zeros(2, bool))
    windows = [Window("c", 100, 180, "+", 999), Window("c", 110, 190, "+", 999)]
    pairs, positions = [(0, 1)] * 4, [105, 139, 178, 190]
    found = compare(predicted, pairs, positions, windows, bin_size=10, widths=[35, 35, 15, 35])
    before, after = found.mask_ECW
    nan = np.nan
    # Width 35: two bins before that of the variant, one behind it. Width 15: one before.
    np.testing.assert_array_equal(before[0], [[nan, nan, 0, 1], [1, 2, 3, 4], [6, 7, nan, nan],
                                              [nan] * 4])  # fmt: skip
    np.testing.assert_array_equal(before[1], [[nan] * 4, [10, 11, 12, 13], [15, 16, nan, nan],
                                              [nan] * 4])  # fmt: skip
    np.testing.assert_array_equal(after, 2 * before)


# What is chosen -------------------------------------------------------------------------------


def test_genes_labels_strands_and_shifts_are_those_asked_for(dataset):
    alleles = random_alleles(dataset, count=200, seed=3, kinds=("snv",))
    table = table_of(dataset, alleles)
    with engine_of(dataset, [Additive()]) as engine:
        whole = engine.score(table)
    far = whole["distance_to_tss"].abs()
    many = whole.groupby("record")["gene_row"].transform("size") > 1
    assert many.any(), "no base in two windows"
    assert far[many].groupby(whole["record"]).apply(lambda part: part.is_monotonic_increasing).all()
    record = int(whole.loc[many, "record"].iloc[0])
    one = table.loc[[record]]
    name = whole.loc[whole.record == record, "gene_id"].iloc[1]
    with engine_of(dataset, [Additive()]) as engine:
        wanted = engine.score(one.assign(gene=name))
    assert wanted["gene_id"].tolist() == [name]
    with engine_of(dataset, [Additive()], genes=(name,), samples=("cell_b",)) as engine:
        chosen = engine.score(one)
    assert chosen["gene_id"].tolist() == [name]
    assert [n for n in chosen if n.startswith("expr_delta")] == ["expr_delta:cell_b"]
    np.testing.assert_array_equal(chosen["expr_delta:cell_b"], wanted["expr_delta:cell_b"])
    for strand, members in (("gene", 1), ("plus", 2)):
        with engine_of(dataset, [Additive()], strand=strand) as engine:
            assert engine.num_members == members
    averaged = Additive()
    averaged.config.rc_average = True
    with engine_of(dataset, [averaged]) as engine:
        assert engine.num_members == 2
    run = run_of(dataset, Additive(), jitter_bp=4)
    with open_engine(run, dataset, ScoreConfig()) as engine:
        assert engine.config.shifts == (-4, 0, 4)


def test_masks_of_both_strands_are_scored_before_they_are_averaged(dataset):
    """Their windows lie one base apart, so their bins are other bases."""
    with engine_of(dataset, [Shares()], strands="both", shifts=(0,)) as engine:
        assert engine.scoring.how["mask"] == "score"
        assert engine.scoring.how["expression"] == "pred"
        # States of two members have no axes in common.
        assert engine.scoring.how["embedding"] == "score"
    with engine_of(dataset, [Shares()], strands="forward", shifts=(0,)) as engine:
        assert engine.scoring.how["mask"] == "pred"


def test_a_row_says_what_became_of_its_indel_and_counts_its_members(dataset):
    """Each row by itself, although one of them deletes the TSS."""
    contig, tss, _ = dataset.sites[4]
    text = decode(np.asarray(dataset.contig_codes(contig)))
    at = tss + 60
    other = "ACGT"[("ACGT".index(text[at]) + 1) % 4]
    rows = [
        (tss - 3, text[tss - 3 : tss + 3], text[tss - 3]),
        (at, text[at], other), (at, text[at], text[at] + "GA"), (at, text[at], text[at]),
    ]  # fmt: skip
    table = table_of(dataset, [(contig, *row) for row in rows])
    with engine_of(dataset, [Additive()], strands="both") as engine:
        found = engine.score(table)
    found = found[found.gene_row == 4]
    assert found["indel_status"].tolist() == ["tss_deleted", "none", "ok", "none"]
    # REF to REF is 0 because nothing changes, which is no want of resolution.
    assert found["score_status"].tolist() == ["scored"] * 4
    assert found["num_members"].tolist() == [2] * 4
    ref = decode(dataset.contig_codes("chr2")[310:311])
    edge = table_of(dataset, [("chr2", 310, ref, "ACGT"[("ACGT".index(ref) + 1) % 4])])
    with engine_of(dataset, [Additive()], edge="skip") as engine:
        assert engine.score(edge)["num_members"].tolist()[0] == 0


def test_what_no_float32_can_hold_is_missing_and_says_so(dataset):
    class Huge(Additive):
        def one_strand(self, call):
            out = super().one_strand(call)
            out.expression_BK[:] *= 1e40
            return out

    table = table_of(dataset, random_alleles(dataset, count=20, seed=7, kinds=("snv",)))
    with engine_of(dataset, [Huge()], scorers=("expr_delta",)) as engine:
        found = engine.score(table)
    found = found[found.gene_row >= 0]
    assert len(found) > 3
    assert set(found["score_status"]) == {"failed:not_finite"}
    assert found["expr_delta:cell_a"].isna().all()
    assert (found["num_members"] == 0).all()
