"""Scores of alleles: what is compared, on which sequence, and what is said where nothing can be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.core.sequence import decode, encode, reverse_complement
from seq2exp.dataset.samples import gene_window
from seq2exp.dataset.store import Dataset
from seq2exp.variants.passes import GenePasses
from seq2exp.variants.views import View, open_view
from seq2exp.variation.alleles import Allele
from tests.toys import toy_dataset
from tests.variants.engines import (
    BIN,
    WINDOW,
    Additive,
    engine_of,
    seq2exp,
    table_of,
    turned_around,
)

SIGNED = ("expr_delta", "expr_delta_fixed", "mask_delta", "log2_sum")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset(toy_dataset(tmp_path_factory.mktemp("variants") / "toy"))


def random_alleles(dataset, *, count, seed, kinds=("snv", "mnv", "ins", "del", "delins")):
    """Alleles of every class whose REF is what the genome says."""
    random = np.random.default_rng(seed)
    sizes = {"snv": (1, 1), "mnv": (3, 3), "ins": (1, 4), "del": (5, 1), "delins": (3, 5)}
    found = []
    while len(found) < count:
        contig = str(random.choice(list(dataset.manifest.contigs)))
        codes = dataset.contig_codes(contig)
        num_ref, num_alt = sizes[kinds[len(found) % len(kinds)]]
        position = int(random.integers(0, len(codes) - num_ref))
        ref = decode(codes[position : position + num_ref])
        alt = "".join(random.choice(list("ACGT"), num_alt))
        if "N" not in ref and alt != ref:
            found.append((contig, position, ref, alt))
    return found


def naive_window(dataset, row, alleles):
    """The window of a gene, by strings: alleles put into the contig, then cut around the TSS."""
    contig, tss, strand = dataset.sites[row]
    text = decode(np.asarray(dataset.contig_codes(contig)))
    for position, ref, alt in sorted(alleles, reverse=True):
        text = text[:position] + alt + text[position + len(ref) :]
        tss += (len(alt) - len(ref)) * (position + min(len(ref), len(alt)) <= tss)
    pad = "N" * WINDOW
    if strand == "-":
        text, tss = decode(reverse_complement(encode(text))), len(text) - 1 - tss
    return encode((pad + text + pad)[tss + WINDOW - WINDOW // 2 :][:WINDOW])


def test_additive_model_gives_the_closed_form_for_every_class_strand_and_edge(dataset):
    model = Additive()
    alleles = random_alleles(dataset, count=400, seed=1)
    # The first and last bases of a contig.
    for contig, length in dataset.manifest.contigs.items():
        codes = dataset.contig_codes(contig)
        for position in (0, 1, length - 2, length - 1):
            base = int(codes[position])
            alleles.append((contig, position, "ACGT"[base], "ACGT"[(base + 1) % 4]))
    with engine_of(dataset, [model]) as engine:
        table = engine.score(table_of(dataset, alleles))
    checked = 0
    for row in table[table.score_status == "scored"].itertuples():
        if row.indel_status == "tss_deleted":
            continue
        contig, position, ref, alt = alleles[row.record]
        before = naive_window(dataset, row.gene_row, [])
        after = naive_window(dataset, row.gene_row, [(position, ref, alt)])
        expected = model.value(after) - model.value(before)
        found = table.loc[row.Index, "expr_delta:cell_a"]
        assert found == pytest.approx(expected, abs=2e-4), alleles[row.record]
        assert table.loc[row.Index, "expr_delta:cell_b"] == pytest.approx(2 * expected, abs=4e-4)
        checked += 1
    assert checked > 150
    assert set(table.gene_strand[table.gene_row >= 0]) == {"+", "-"}


def test_the_sequence_scored_is_that_of_strings(dataset):
    alleles = random_alleles(dataset, count=120, seed=2)
    samples = engine_samples(dataset)
    table = table_of(dataset, alleles)
    for number, (contig, position, ref, alt) in enumerate(alleles):
        normal = table.loc[number]
        allele = Allele(int(normal.norm_position), normal.norm_ref, normal.norm_alt)
        for row, site in enumerate(dataset.sites):
            if site[0] != contig or abs(site[1] - position) > WINDOW // 2:
                continue
            if position <= site[1] < position + len(ref):
                continue
            view = open_view(samples, row, View(opposite=False, shift=0))
            built = view.put([(allele,)]).built.codes_HL[0]
            np.testing.assert_array_equal(built, naive_window(dataset, row, [(position, ref, alt)]))


def engine_samples(dataset):
    with engine_of(dataset, [Additive()]) as engine:
        return engine.samples


@pytest.mark.parametrize("changes", [{}, {"track_loss_weight": 1.0}, {"mask": "hard"}])
def test_ref_to_ref_is_exactly_zero(dataset, changes):
    random = np.random.default_rng(3)
    alleles = []
    for contig, length in dataset.manifest.contigs.items():
        for position in random.integers(0, length - 4, 20):
            ref = decode(dataset.contig_codes(contig)[position : position + 3])
            alleles.append((contig, int(position), ref, ref))
    alleles = [one for one in alleles if "N" not in one[2]]
    with engine_of(dataset, [seq2exp(dataset, **changes)], strands="both") as engine:
        table = engine.score(table_of(dataset, alleles))
        names = [column.name for column in engine.columns]
    scored = table[table.score_status == "scored"]
    assert len(scored) > 20
    assert (scored[names].fillna(0) == 0).all(axis=None)
    assert scored["expr_delta:cell_a"].notna().all()


def test_swapping_ref_and_alt_flips_signed_scores_and_leaves_others(dataset):
    alleles = [a for a in random_alleles(dataset, count=150, seed=4) if a[2] != a[3]]
    model = seq2exp(dataset, track_loss_weight=1.0)
    with engine_of(dataset, [model], strands="both") as engine:
        straight = engine.score(table_of(dataset, alleles))
        swapped = engine.score(table_of(dataset, [(c, p, alt, ref) for c, p, ref, alt in alleles]))
        columns = engine.columns
    same = (swapped.status == "swapped").to_numpy()
    assert same.sum() > 50
    # An insertion written the other way round may fit the genome too: then it is another allele.
    both = straight.merge(
        swapped[same], on=["record", "gene_row"], suffixes=("", ":swapped"), validate="1:1"
    )
    for column in columns:
        before, after = both[column.name], both[column.name + ":swapped"]
        sign = -1 if column.signed and column.kind == "score" else 1
        np.testing.assert_array_equal(after, sign * before, err_msg=column.name)
    signed = {column.scorer for column in columns if column.signed}
    assert signed >= set(SIGNED)


@pytest.mark.parametrize("strand", ["gene", "plus"])
def test_the_reverse_strand_gives_the_same_scores(dataset, tmp_path, strand):
    """Every allele on the genome read from the other side, in averaged mode."""
    other = turned_around(dataset, tmp_path / "turned")
    alleles = random_alleles(dataset, count=120, seed=5)
    model = seq2exp(dataset, tracks=(), num_features=0)
    settings = {"strands": "both", "strand": strand, "scorers": ("expr_delta", "expr_delta_fixed")}
    with engine_of(dataset, [model], **settings) as engine:
        here = engine.score(table_of(dataset, alleles))
    turned = [
        (
            contig,
            dataset.manifest.contigs[contig] - position - len(ref),
            decode(reverse_complement(encode(ref))),
            decode(reverse_complement(encode(alt))),
        )
        for contig, position, ref, alt in alleles
    ]
    with engine_of(other, [model], **settings) as engine:
        there = engine.score(table_of(other, turned))
    # Left-alignment runs the other way there, so an indel in a repeat may enter or leave a window.
    both = here.merge(there, on=["record", "gene_row"], suffixes=("", ":turned"))
    both = both[(both.score_status == "scored") & (both["score_status:turned"] == "scored")]
    assert len(both) > 30
    for name in ("expr_delta:cell_a", "expr_delta_fixed:cell_b"):
        np.testing.assert_allclose(both[name], both[name + ":turned"], rtol=1e-4, atol=1e-6)
    assert (both.distance_to_tss - both["distance_to_tss:turned"]).abs().max() < 10


def test_batches_shifts_and_sharing_change_no_score(dataset):
    alleles = random_alleles(dataset, count=80, seed=6)
    model, table = seq2exp(dataset, track_loss_weight=1.0), table_of(dataset, alleles)
    with engine_of(dataset, [model], shifts=(0, 3), batch_size=1) as engine:
        one = engine.score(table)
        names = [column.name for column in engine.columns]
    with engine_of(dataset, [model], shifts=(0, 3), batch_size=64) as engine:
        many = engine.score(table)
    np.testing.assert_allclose(one[names], many[names], atol=1e-5)
    backwards = table.iloc[::-1].reset_index(drop=True)
    with engine_of(dataset, [model], shifts=(0, 3), batch_size=64) as engine:
        reverse = engine.score(backwards)
    order = ["record", "gene_row"]
    np.testing.assert_allclose(
        many.sort_values(order)[names], reverse.sort_values(order)[names], atol=1e-5
    )


def test_shared_passes_equal_whole_ones(dataset):
    model, samples = seq2exp(dataset, track_loss_weight=1.0), engine_samples(dataset)
    row = 5
    tss = dataset.sites[row][1]
    codes = dataset.contig_codes(dataset.sites[row][0])
    puts = []
    for position in range(tss - 480, tss + 480, 37):
        ref = decode(codes[position : position + 3])
        puts += [(Allele(position, ref[0], "ACGT"[("ACGT".index(ref[0]) + 1) % 4]),)]
        puts += [(Allele(position, ref, ref[0]),), (Allele(position, ref[0], ref[0] + "GATTACA"),)]
    views = [View(opposite, shift) for opposite in (False, True) for shift in (0, -2)]
    with torch.no_grad():
        shared = GenePasses([model], samples, row, views).predict(puts)
        whole = GenePasses([model], samples, row, views, share=False).predict(puts)
    for name in ("expression_ESK", "fixed_ESK", "mask_ESN", "tracks_ESNT", "embedding_ESD"):
        np.testing.assert_allclose(
            getattr(shared, name), getattr(whole, name), rtol=1e-4, atol=1e-5, err_msg=name
        )


def test_views_keep_the_tss_and_read_what_lies_there(dataset):
    samples = engine_samples(dataset)
    for row in (3, 4):
        contig, tss, strand = dataset.sites[row]
        codes = np.asarray(dataset.contig_codes(contig))
        for opposite in (False, True):
            for shift in (0, 5):
                view = open_view(samples, row, View(opposite, shift))
                index = view.index_of(tss)
                moved = -shift if not opposite else shift
                assert index == WINDOW // 2 + moved
                base = codes[tss]
                read_minus = (strand == "-") != opposite
                assert view.sample.codes[index] == (3 - base if read_minus else base)
    assert gene_window(dataset, 3, samples.config) == open_view(samples, 3, View(False, 0)).window


def test_statuses_of_rows_that_are_not_scored(dataset):
    codes = dataset.contig_codes("chr1")
    tss = dataset.sites[4][1]
    ref = decode(codes[tss + 50 : tss + 51])
    other = "ACGT"[("ACGT".index(ref) + 1) % 4]
    third = "ACGT"[("ACGT".index(ref) + 2) % 4]
    long = decode(codes[tss + 20 : tss + 20 + 1100])
    alleles = [
        ("chr1", tss + 50, ref, other),
        ("chr1", tss + 50, other, ref),
        ("chr1", tss + 50, other, third),
        ("chr1", tss + 50, ref, "<DEL>"),
        ("chr1", tss + 50, ref, "*"),
        ("chr1", tss + 50, ref, "."),
        ("chr1", tss + 50, ref, "R"),
        ("chr1", 205, "A", "C"),
        ("chr1", len(codes) + 5, "A", "C"),
        ("chrUn", 5, "A", "C"),
        ("chr1", tss + 20, long, long[0]),
        ("chr1", tss - 3, decode(codes[tss - 3 : tss + 3]), decode(codes[tss - 3 : tss - 2])),
    ]
    with engine_of(dataset, [seq2exp(dataset)]) as engine:
        table = engine.score(table_of(dataset, alleles)).drop_duplicates("record")
        names = [column.name for column in engine.columns]
    assert table["record"].tolist() == list(range(len(alleles)))
    assert table["status"].tolist() == [
        "ok", "swapped", "ref_mismatch", "unsupported", "unsupported", "unsupported",
        "unsupported", "ref_mismatch", "ref_mismatch", "no_gene", "too_long", "ok",
    ]  # fmt: skip
    assert table["score_status"].tolist() == [
        "scored", "scored", "skipped:mismatch", "skipped:symbolic", "skipped:star",
        "skipped:missing_alt", "skipped:allele_non_acgt", "skipped:ref_has_n",
        "skipped:out_of_bounds", "skipped:no_contig", "skipped:longer_than_1000", "scored",
    ]  # fmt: skip
    skipped = table[table.score_status != "scored"]
    assert skipped[names].isna().all(axis=None)
    assert (skipped.num_members == 0).all()
    assert table["indel_status"].iloc[-1] == "tss_deleted"
    assert table["indel_status"].iloc[-2] == "too_long"


def test_ref_policies(dataset):
    tss = dataset.sites[4][1]
    ref = decode(dataset.contig_codes("chr1")[tss + 50 : tss + 51])
    first, second, _ = (base for base in "ACGT" if base != ref)
    model = Additive()
    table = table_of(dataset, [("chr1", tss + 50, first, second), ("chr1", tss + 50, first, ref)])
    with engine_of(dataset, [model], ref_policy="use-vcf-ref") as engine:
        found = engine.score(table).drop_duplicates("record")
    index = WINDOW // 2 + 50 if dataset.sites[4][2] == "+" else WINDOW // 2 - 50
    weight = model.weight_LC.detach().numpy()[index]
    places = [encode(letter)[0] for letter in (first, second, ref)]
    if dataset.sites[4][2] == "-":
        places = [3 - place for place in places]
    expected = [weight[places[1]] - weight[places[0]], weight[places[2]] - weight[places[0]]]
    np.testing.assert_allclose(found["expr_delta:cell_a"], expected, rtol=1e-5)
    assert found["status"].tolist() == ["ref_mismatch", "swapped"]
    with engine_of(dataset, [model], ref_policy="drop-swapped") as engine:
        dropped = engine.score(table).drop_duplicates("record")
    assert dropped["score_status"].tolist() == ["skipped:mismatch", "skipped:swapped"]
    with (
        engine_of(dataset, [model], ref_policy="strict") as engine,
        pytest.raises(InputError, match=r"2 .*mismatch|REF of the variants"),
    ):
        engine.score(table)


def test_windows_beyond_a_contig_are_padded_or_skipped(dataset):
    alleles = [("chr2", 310, *snv(dataset, "chr2", 310))]
    with engine_of(dataset, [Additive()]) as engine:
        padded = engine.score(table_of(dataset, alleles)).iloc[0]
    assert padded.edge_status == f"padded:{WINDOW // 2 - 300},0"
    assert padded.score_status == "scored"
    with engine_of(dataset, [Additive()], edge="skip") as engine:
        skipped = engine.score(table_of(dataset, alleles)).iloc[0]
    assert (skipped.status, skipped.score_status) == ("edge", "skipped:edge")
    assert np.isnan(skipped["expr_delta:cell_a"])


def snv(dataset, contig, position):
    ref = decode(dataset.contig_codes(contig)[position : position + 1])
    return ref, "ACGT"[("ACGT".index(ref) + 1) % 4]


def test_a_base_under_a_mask_of_zero_changes_nothing_under_the_fixed_mask(dataset):
    """gate: delta and a hard mask; the mask of the bin is 0 and stays 0."""
    model = seq2exp(dataset, mask="hard", gate="delta", seed=3)
    samples = run_samples(dataset, model)
    checked = 0
    for row in range(2, 10):
        contig = dataset.sites[row][0]
        with torch.no_grad():
            passes = GenePasses([model], samples, row, [View(False, 0)])
        member = passes.members[0]
        closed = np.flatnonzero(member.output.mask_BN[0].numpy() == 0)
        for bin_number in closed[:4]:
            low, _ = member.view.window.genome_interval(bin_number * BIN + 8, bin_number * BIN + 9)
            allele = Allele(low, *snv(dataset, contig, low))
            with torch.no_grad():
                found = passes.predict([(allele,)] * 3)
            reference = passes.reference()
            np.testing.assert_array_equal(
                found.fixed_ESK, np.repeat(reference.fixed_ESK, 3, axis=1)
            )
            checked += 1
    assert checked >= 8


def run_samples(dataset, model):
    with engine_of(dataset, [model]) as engine:
        return engine.samples


def test_members_are_averaged_and_their_spread_is_given(dataset):
    first, second = Additive(seed=1), Additive(seed=2)
    table = table_of(dataset, random_alleles(dataset, count=40, seed=7, kinds=("snv",)))
    found = []
    for models in ([first], [second], [first, second]):
        with engine_of(dataset, models) as engine:
            found.append(engine.score(table))
    one, two, both = (part["expr_delta:cell_a"].to_numpy() for part in found)
    np.testing.assert_allclose(both, (one + two) / 2, atol=1e-5)
    np.testing.assert_allclose(
        found[2]["expr_delta:cell_a:sd"], np.abs(one - two) / np.sqrt(2), atol=1e-4
    )
    scored = found[2][found[2].score_status == "scored"]
    assert (scored.num_members == 2).all()
    assert not any(name.endswith(":sd") for name in found[0].columns)


def test_scores_that_the_model_cannot_give_are_refused(dataset):
    with (
        pytest.raises(ConfigError, match="mask"),
        engine_of(dataset, [Additive()], scorers=("mask_delta",)),
    ):
        pass


@pytest.mark.parametrize("shift", [-(10**6), 10**6])
def test_a_window_without_its_tss_is_refused_before_any_work(dataset, shift):
    with (
        pytest.raises(ConfigError, match=rf"--shifts: found {shift}, .*TSS stays"),
        engine_of(dataset, [Additive()], shifts=(0, shift)),
    ):
        pass


def test_a_shift_invariant_model_has_no_spread_over_shifts(dataset):
    """It counts bases of the inner window, wherever that lies by a base or two."""

    class Count(Additive):
        def one_strand(self, call):
            out = super().one_strand(call)
            inner = call.codes_BL[:, 300:-300]
            value = (inner == 2).sum(1).double() + (inner == 1).sum(1).double()
            out.expression_BK[:] = value[:, None]
            return out

    tss = dataset.sites[6][1]
    table = table_of(
        dataset, [("chr1", tss + d, *snv(dataset, "chr1", tss + d)) for d in range(-90, 90, 9)]
    )
    with engine_of(dataset, [Count()], shifts=(-2, 0, 2), strands="both") as engine:
        found = engine.score(table)
    found = found[found.gene_row == 6]
    assert (found["expr_delta:cell_a:sd"] == 0).all()
    assert set(found["expr_delta:cell_a"]) <= {-1.0, 0.0, 1.0}
    assert found["expr_delta:cell_a"].abs().sum() > 0
    assert (found.num_members == 6).all()
