"""The truth of genes and elements, derived again from its parts and by mutation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from data_prep.simulate.base_effects import base_effects
from data_prep.simulate.contacts import power_law
from data_prep.simulate.grammar import DISTAL, PROMOTER, channels, distal_activity
from data_prep.simulate.layout import promoter_interval
from data_prep.simulate.motifs import CELL_TYPES
from data_prep.simulate.sites import site_table
from data_prep.simulate.truth import element_effects, promoter_frame
from data_prep.simulate.world import Edit, apply_edits, evaluate, expression_of, promoter_codes
from seq2exp.core.errors import InputError
from seq2exp.core.sequence import decode, encode, reverse_complement

EFFECTS = [f"effect_{cell}" for cell in CELL_TYPES]


@pytest.fixture(scope="module")
def effects(world, state):
    return element_effects(world, state)


@pytest.fixture(scope="module")
def bases(world, state):
    return base_effects(world, state)


def substitution(world, chrom, position, base):
    return Edit(chrom, position, position + 1, np.array([base], dtype=np.uint8))


def test_expression_is_the_written_formula(world, state):
    """p + ln(1 + 4 r sum(contact * activity)), one gene at a time, from its own sequences."""
    for gene in range(0, len(world.genes), 7):
        row = world.genes.iloc[gene]
        start, end = promoter_interval(int(row.tss), row.strand)
        codes = world.genome[row.chrom][start:end]
        codes = codes if row.strand == "+" else reverse_complement(codes)
        z = channels(PROMOTER, codes[None], anchor_E=np.array([250]))[0]
        for column in range(len(CELL_TYPES)):
            total = 0.0
            for pair in np.flatnonzero(world.pair_gene == gene):
                element = world.elements.iloc[world.pair_element[pair]]
                site = world.genome[element.chrom][element.start : element.end]
                activity = distal_activity(channels(DISTAL, site[None]))[0, column]
                total += world.pair_contact[pair] * activity
            strength = 1.5 * z[column] / (1 + z[column] / 5.0)
            expected = strength + math.log(1 + 4.0 * (0.6 + 0.8 * z[-1]) * total)
            assert state.expression[gene, column] == pytest.approx(expected, abs=1e-4)


def test_promoters_hold_the_tss_at_index_250_on_both_strands(world):
    strands = world.genes["strand"].to_numpy()
    assert {"+", "-"} <= set(strands)
    for (_, gene), codes in zip(world.genes.iterrows(), promoter_codes(world), strict=True):
        base = world.genome[gene.chrom][gene.tss]
        assert codes[250] == (base if gene.strand == "+" else 3 - base)
        assert len(codes) == 300


def test_pairs_are_all_pairs_within_reach(world):
    found = set(zip(world.pair_gene.tolist(), world.pair_element.tolist(), strict=True))
    assert len(found) == len(world.pair_gene)
    expected = set()
    for gene in range(len(world.genes)):
        for element in range(len(world.elements)):
            row, mine = world.elements.iloc[element], world.genes.iloc[gene]
            near = abs((row.start + row.end) // 2 - mine.tss) <= world.config.reach
            if row.chrom == mine.chrom and near:
                expected.add((gene, element))
    assert found == expected


def test_contact_of_a_pair_is_that_of_the_bin_of_its_centre(draft, world):
    table = draft.contacts
    for gene, element, contact in zip(
        world.pair_gene[:80], world.pair_element[:80], world.pair_contact[:80], strict=True
    ):
        row = world.elements.iloc[element]
        column = (row.start + row.end) // 2 // world.config.contact_bin - table.first_bin[gene]
        assert contact == table.true[gene, column]


def test_power_law_is_flat_then_falls_with_its_exponent(small_config):
    near, at, far = power_law(np.array([-300.0, 1000.0, 8000.0]), small_config)
    assert near == at == 1.0
    assert far == pytest.approx(8**-0.87)


def test_no_edit_changes_nothing(world, state):
    np.testing.assert_array_equal(expression_of(world, []), state.expression)


def test_deleting_an_element_has_the_listed_effect(world, state, effects):
    distal = effects[effects["kind"] == "enhancer"].sort_values("effect_blood").iloc[:6]
    for element in distal.itertuples():
        gone = np.full(element.end - element.start, 4, dtype=np.uint8)
        edit = Edit(element.chrom, element.start, element.end, gone)
        change = expression_of(world, [edit], reference=state) - state.expression
        mine = effects[effects["element_id"] == element.element_id]
        row = dict(zip(world.genes["gene_id"], range(len(world.genes)), strict=True))
        listed = np.zeros_like(change)
        for pair in mine.itertuples():
            listed[row[pair.gene_id]] = [getattr(pair, name) for name in EFFECTS]
        np.testing.assert_allclose(change, listed, atol=1e-9)
        assert change.min() < -0.3


def test_deleting_a_promoter_has_the_listed_effect(world, state, effects):
    listed = effects[effects["kind"] == "promoter"].set_index("gene_id")
    for gene in (0, 1, 2, 3):
        row = world.genes.iloc[gene]
        start, end = promoter_interval(int(row.tss), row.strand)
        edit = Edit(row.chrom, start, end, np.full(end - start, 4, dtype=np.uint8))
        change = expression_of(world, [edit], reference=state) - state.expression
        expected = listed.loc[row.gene_id, EFFECTS].to_numpy(dtype=float)
        np.testing.assert_allclose(change[gene], expected, atol=1e-9)
        assert np.abs(np.delete(change, gene, axis=0)).max() == 0.0


def test_decoys_do_nothing_and_enhancers_never_repress(effects):
    decoys = effects[effects["kind"] == "decoy"]
    assert len(decoys) > 100
    assert (decoys[EFFECTS] == 0.0).all(axis=None)
    assert (effects.loc[effects["kind"] == "enhancer", EFFECTS] <= 0.0).all(axis=None)


def test_causal_means_the_stated_effect(effects, small_config):
    for cell in CELL_TYPES:
        expected = effects[f"effect_{cell}"] <= -small_config.min_effect
        assert (effects[f"causal_{cell}"] == expected).all()
        assert expected.any()


def test_distance_is_signed_along_transcription(world, effects):
    strand = dict(zip(world.genes["gene_id"], world.genes["strand"], strict=True))
    tss = dict(zip(world.genes["gene_id"], world.genes["tss"], strict=True))
    for pair in effects[effects["kind"] != "promoter"].iloc[::9].itertuples():
        centre = (pair.start + pair.end) // 2
        sign = 1 if strand[pair.gene_id] == "+" else -1
        assert pair.distance == sign * (centre - tss[pair.gene_id])


def test_base_effects_equal_mutation_of_single_bases(world, state, bases):
    """40 listed bases and 40 unlisted ones inside elements, against full re-evaluation."""
    rng = np.random.default_rng(0)
    rows = bases.iloc[rng.choice(len(bases), 40, replace=False)]
    for row in rows.itertuples():
        chrom = world.genes["chrom"].iloc[row.gene]
        changes = single_base_changes(world, state, chrom, row.position)[:, row.gene]
        for column, name in enumerate(EFFECTS):
            strongest = changes[np.abs(changes[:, column]).argmax(), column]
            assert getattr(row, name) == pytest.approx(strongest, abs=2e-5)
    listed = set(zip(world.genes["chrom"].iloc[bases["gene"]], bases["position"], strict=True))
    checked = 0
    while checked < 40:
        element = world.elements.iloc[int(rng.integers(len(world.elements)))]
        position = int(rng.integers(element.start, element.end))
        if (element.chrom, position) not in listed:
            changes = single_base_changes(world, state, element.chrom, position)
            assert np.abs(changes).max() <= 1e-4
            checked += 1


def single_base_changes(world, state, chrom, position):
    """Change of log expression for the three substitutions, shape (3, G, C)."""
    old = world.genome[chrom][position]
    return np.stack(
        [
            expression_of(world, [substitution(world, chrom, position, base)], reference=state)
            - state.expression
            for base in range(4)
            if base != old
        ]
    )


@pytest.mark.parametrize("strand", ["+", "-"])
def test_base_effects_of_promoters_lie_on_the_right_base(world, state, bases, strand):
    genes = np.flatnonzero((world.genes["strand"] == strand).to_numpy())
    gene = next(g for g in genes if state.promoter_z[g, -1] > 0.8)  # a TATA promoter
    tss = int(world.genes["tss"].iloc[gene])
    mine = bases[(bases["gene"] == gene) & ((bases["position"] - tss).abs() < 300)]
    strongest = mine.iloc[mine["effect_blood"].abs().argmax()]
    changes = single_base_changes(
        world, state, world.genes["chrom"].iloc[gene], int(strongest["position"])
    )
    assert np.abs(changes[:, gene, 0]).max() == pytest.approx(abs(strongest["effect_blood"]))
    along = (mine["position"] - tss) * (1 if strand == "+" else -1)
    assert (along[mine["effect_blood"] < -0.3].between(-36, -22)).any()


def test_sites_read_their_motif_from_the_genome(world):
    """TF sites in genome coordinates score what the table says, on the strand it says."""
    sites = site_table(world)
    assert {"+", "-"} == set(sites["strand"])
    from data_prep.simulate.motifs import MOTIF_INDEX, MOTIFS

    for site in sites.iloc[:: max(1, len(sites) // 300)].itertuples():
        motif = MOTIFS[MOTIF_INDEX[site.tf]]
        codes = world.genome[site.chrom][site.start : site.end]
        codes = codes if site.strand == "+" else reverse_complement(codes)
        score = motif.log_odds[np.arange(motif.width), codes].sum()
        assert site.score == pytest.approx(float(score), abs=1e-4)


def test_sites_lie_in_their_element(world):
    sites = site_table(world)
    places = promoter_frame(world)[["element_id", "start", "end"]]
    spans = {row.element_id: (row.start, row.end) for row in places.itertuples()}
    spans |= {row.element_id: (row.start, row.end) for row in world.elements.itertuples()}
    for site in sites.itertuples():
        first, last = spans[site.element_id]
        assert first <= site.start < site.end <= last


def test_edits_of_one_haplotype_combine(world, state):
    """Two edits in elements of different genes act independently."""
    rows = [world.elements.iloc[0], world.elements.iloc[-1]]
    edits = [
        Edit(r.chrom, r.start, r.end, np.full(r.end - r.start, 4, dtype=np.uint8)) for r in rows
    ]
    both = expression_of(world, edits, reference=state) - state.expression
    apart = sum(expression_of(world, [edit], reference=state) - state.expression for edit in edits)
    np.testing.assert_allclose(both, apart, atol=1e-12)


@pytest.mark.parametrize("strand", ["+", "-"])
def test_an_insertion_upstream_of_the_tss_keeps_the_core_promoter(world, state, strand):
    """Bases added far upstream move nothing between TATA and TSS."""
    genes = np.flatnonzero((world.genes["strand"] == strand).to_numpy())
    gene = int(genes[0])
    tss = int(world.genes["tss"].iloc[gene])
    where = tss - 249 if strand == "+" else tss + 250
    edit = Edit(world.genes["chrom"].iloc[gene], where, where, encode("AAAAA"))
    change = expression_of(world, [edit], reference=state) - state.expression
    assert np.abs(change).max() < 0.05


def test_a_deletion_inside_an_element_is_scanned_as_one_sequence(world, state):
    element = world.elements[world.elements["kind"] == "enhancer"].iloc[0]
    middle = (element.start + element.end) // 2
    edit = Edit(element.chrom, middle, middle + 9, np.zeros(0, dtype=np.uint8))
    contig = world.genome[element.chrom]
    joined = np.concatenate([contig[element.start : middle], contig[middle + 9 : element.end]])
    activity = distal_activity(channels(DISTAL, joined[None]))[0]
    row = int(np.flatnonzero(world.elements["element_id"] == element.element_id)[0])
    total = state.input_sum.copy()
    for pair in np.flatnonzero(world.pair_element == row):
        gain = world.pair_contact[pair] * (activity - state.activity[row])
        total[world.pair_gene[pair]] += gain
    expected = state.strength + np.log1p(4.0 * state.response * total)
    np.testing.assert_allclose(expression_of(world, [edit]), expected, atol=1e-9)


CONTIG = encode("ACGTACGTAC")


@pytest.mark.parametrize(
    ("start", "end", "edits", "expected"),
    [
        (2, 8, [], "GTACGT"),
        (2, 8, [(3, 4, "A")], "GAACGT"),
        (2, 8, [(3, 3, "TT")], "GTTTACGT"),
        (2, 8, [(3, 6, "")], "GGT"),
        (2, 8, [(2, 2, "TT"), (8, 8, "TT")], "GTACGT"),  # insertions at a border lie outside
        (2, 8, [(0, 3, "")], "TACGT"),
        (2, 8, [(6, 10, "")], "GTAC"),
        (2, 8, [(1, 4, "TTT")], "TTACGT"),
        (2, 8, [(3, 4, "A"), (5, 5, "G"), (6, 7, "")], "GAAGCT"),
    ],
)
def test_apply_edits(start, end, edits, expected):
    made = [Edit("c", first, last, encode(text)) for first, last, text in edits]
    assert decode(apply_edits(CONTIG, start, end, made)[0]) == expected


@pytest.mark.parametrize(
    ("edits", "mark", "expected"),
    [
        ([], 5, 3),
        ([(3, 3, "TT")], 5, 5),  # two bases inserted before it
        ([(3, 5, "")], 5, 1),  # two bases deleted before it
        ([(6, 7, "")], 5, 3),  # after it
        ([(5, 6, "G")], 5, 3),  # substituted itself
        ([(4, 7, "")], 5, 2),  # deleted: the first base after the deletion
    ],
)
def test_apply_edits_follows_a_marked_base(edits, mark, expected):
    made = [Edit("c", first, last, encode(text)) for first, last, text in edits]
    assert apply_edits(CONTIG, 2, 10, made, mark=mark)[1] == expected


def test_bad_edits_are_refused(world):
    base = np.zeros(1, dtype=np.uint8)
    with pytest.raises(InputError, match="inside a simulated contig"):
        expression_of(world, [Edit("chr9", 0, 1, base)])
    with pytest.raises(InputError, match="inside a simulated contig"):
        expression_of(world, [Edit("chr1", 10**9, 10**9 + 1, base)])
    with pytest.raises(InputError, match="overlap at chr1:101"):
        expression_of(world, [Edit("chr1", 100, 102, base), Edit("chr1", 101, 103, base)])


def test_evaluating_twice_gives_the_same_state(world, state):
    again = evaluate(world)
    np.testing.assert_array_equal(again.expression, state.expression)
    np.testing.assert_array_equal(again.activity, state.activity)
