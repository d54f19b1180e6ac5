"""Every formula of the grammar, derived a second time with plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest

from data_prep.simulate import grammar as gm
from data_prep.simulate.batching import batches, channels_of, pad_sequences
from data_prep.simulate.effects import substitution_channels
from data_prep.simulate.motifs import CELL_TYPES, MOTIF_INDEX, MOTIFS, TF_LEVELS, meme_text
from seq2exp.core.sequence import encode, reverse_complement

NUM_CELLS = len(CELL_TYPES)


def random_codes(length, seed, *, gaps=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, length).astype(np.uint8)
    for start in rng.integers(0, length - 5, gaps):
        codes[start : start + 5] = 4
    return codes


def consensus(name):
    """The best site of a motif."""
    return MOTIFS[MOTIF_INDEX[name]].log_odds[:, :4].argmax(axis=1).astype(np.uint8)


def naive_occupancy(site, motif):
    """Occupancy of one site, read 5' to 3', with its formula written out."""
    if 4 in site:
        return 0.0
    score = sum(math.log2(motif.probabilities[i][base] / 0.25) for i, base in enumerate(site))
    best = sum(math.log2(max(row) / 0.25) for row in motif.probabilities)
    floor = 1 / (1 + math.exp(3))
    raw = 1 / (1 + math.exp(-(score - (best - 3.5)) / 0.7))
    return max(0.0, (raw - floor) / (1 - floor))


def naive_sites(codes, name):
    """{strand: {leftmost base: occupancy}} by sliding a window over both strands."""
    motif = MOTIFS[MOTIF_INDEX[name]]
    found = {"+": {}, "-": {}}
    for start in range(len(codes) - motif.width + 1):
        window = codes[start : start + motif.width]
        found["+"][start] = naive_occupancy(window, motif)
        found["-"][start] = naive_occupancy(reverse_complement(window), motif)
    return found


def naive_distal(codes):
    """Channels of a distal element, one site and one pair at a time."""
    z = np.zeros((4, NUM_CELLS))
    sites = {motif.name: naive_sites(codes, motif.name) for motif in MOTIFS if not motif.stranded}
    for row, weights in enumerate((gm.ACCESS, gm.DRIVE, gm.REPRESSION, gm.MARK)):
        for name, weight in weights.items():
            plus, minus = sites[name]["+"], sites[name]["-"]
            total = sum(max(plus[i], minus[i]) for i in plus)
            z[row] += weight * total * np.array(TF_LEVELS[name])
    for rule in gm.PAIR_RULES:
        widths = [MOTIFS[MOTIF_INDEX[n]].width for n in (rule.upstream, rule.downstream)]
        amount = 0.0
        for strand in "+-":
            for i, first in sites[rule.upstream][strand].items():
                for j, second in sites[rule.downstream][strand].items():
                    gap = j - i if strand == "+" else (i + widths[0]) - (j + widths[1])
                    near = abs(gap - rule.spacing) <= 3 * rule.spread
                    if first and second and gap >= max(widths) and near:
                        preference = math.exp(-0.5 * ((gap - rule.spacing) / rule.spread) ** 2)
                        amount += first * second * preference
        levels = np.array(TF_LEVELS[rule.upstream]) * np.array(TF_LEVELS[rule.downstream])
        z[1] += rule.strength * amount * levels
    return z.ravel()


def element_with(units, *, length=320, seed=3):
    """A random sequence with sites written at given places: {start: codes}."""
    codes = random_codes(length, seed)
    for start, site in units.items():
        codes[start : start + len(site)] = site
    return codes


def busy_element(seed):
    """An element with sites of every rule, on both strands."""
    units = {
        10: consensus("GATA"),
        30: consensus("GATA"),
        60: reverse_complement(consensus("TEAD")),
        75: reverse_complement(consensus("AP1")),
        110: consensus("HNF4"),
        129: consensus("AP1"),
        160: reverse_complement(consensus("MYOD")),
        183: reverse_complement(consensus("MYOD")),
        210: consensus("FOXA"),
        230: consensus("GFI1"),
        250: consensus("CTCF"),
        280: consensus("SP"),
    }
    return element_with(units, seed=seed)


def test_log_odds_of_a_strong_column():
    # An upper-case letter takes 0.91 of its column, the other three 0.03 each.
    row = MOTIFS[MOTIF_INDEX["ETS"]].log_odds[0]
    assert row[1] == pytest.approx(math.log2(0.91 / 0.25))
    assert row[0] == pytest.approx(math.log2(0.03 / 0.25))


def test_log_odds_of_ambiguity_codes():
    # AP1 is rTGASTCAy: 'r' shares 0.70 among A and G, 'S' shares 0.91 among C and G.
    rows = MOTIFS[MOTIF_INDEX["AP1"]].probabilities
    np.testing.assert_allclose(rows[0], [0.35, 0.15, 0.35, 0.15])
    np.testing.assert_allclose(rows[4], [0.045, 0.455, 0.455, 0.045])
    np.testing.assert_allclose(rows.sum(axis=1), 1.0)


def test_meme_file_holds_every_matrix():
    blocks = meme_text().split("MOTIF ")[1:]
    assert [block.split()[0] for block in blocks] == [motif.name for motif in MOTIFS]
    for block, motif in zip(blocks, MOTIFS, strict=True):
        lines = block.strip().splitlines()
        assert f"w= {motif.width} " in lines[1]
        values = np.array([line.split() for line in lines[2:]], dtype=float)
        np.testing.assert_allclose(values, motif.probabilities, atol=1e-6)


@pytest.mark.parametrize("name", [motif.name for motif in MOTIFS])
def test_scan_and_occupancy_agree_with_a_sliding_window(name):
    codes = element_with({20: consensus(name), 60: reverse_complement(consensus(name))}, length=90)
    codes[40:44] = 4
    index = MOTIF_INDEX[name]
    forward, reverse = gm.scan(codes[None], index)
    expected = naive_sites(codes, name)
    got = gm.occupancy(forward, MOTIFS[index])[0]
    np.testing.assert_allclose(got, list(expected["+"].values()), atol=1e-4)
    got = gm.occupancy(reverse, MOTIFS[index])[0]
    np.testing.assert_allclose(got, list(expected["-"].values()), atol=1e-4)
    assert expected["+"][20] > 0.99
    assert expected["-"][60] > 0.99


def test_occupancy_is_half_at_the_margin_and_zero_below():
    motif = MOTIFS[MOTIF_INDEX["GATA"]]
    floor = 1 / (1 + math.exp(3))
    half, weak = gm.occupancy(
        np.array([motif.max_score - 3.5, motif.max_score - 3.5 - 3 * 0.7 - 1e-6]), motif
    )
    assert half == pytest.approx((0.5 - floor) / (1 - floor))
    assert weak == 0.0


@pytest.mark.parametrize("seed", range(4))
def test_distal_channels_equal_the_written_out_sum(seed):
    codes = busy_element(seed)
    np.testing.assert_allclose(
        gm.channels(gm.DISTAL, codes[None])[0], naive_distal(codes), rtol=1e-4, atol=1e-4
    )


def test_a_well_spaced_pair_adds_its_strength():
    near = element_with({100: consensus("GATA"), 120: consensus("GATA")}, seed=5)
    far = element_with({100: consensus("GATA"), 160: consensus("GATA")}, seed=5)
    change = (gm.channels(gm.DISTAL, near[None]) - gm.channels(gm.DISTAL, far[None]))[0]
    occupied = naive_occupancy(consensus("GATA"), MOTIFS[MOTIF_INDEX["GATA"]])
    # Spacing 20 is the preferred one, so both sites together add 0.8 o^2 at level 1 (blood).
    assert change[NUM_CELLS] == pytest.approx(0.8 * occupied**2, abs=0.02)
    assert change[NUM_CELLS + 1] == pytest.approx(0.0, abs=1e-6)  # no GATA in liver


@pytest.mark.parametrize("seed", range(3))
def test_distal_elements_read_the_same_from_both_strands(seed):
    codes = busy_element(seed)
    both = np.stack([codes, reverse_complement(codes)])
    first, second = gm.channels(gm.DISTAL, both)
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5)


def test_padding_and_batching_change_nothing():
    codes = [busy_element(1), busy_element(2)[:250], random_codes(80, 4)]
    alone = np.stack([gm.channels(gm.DISTAL, one[None])[0] for one in codes])
    np.testing.assert_allclose(gm.channels(gm.DISTAL, pad_sequences(codes)), alone, atol=1e-6)
    np.testing.assert_allclose(channels_of(gm.DISTAL, codes), alone, atol=1e-6)


def test_batches_visit_every_row_once():
    codes = [random_codes(20 + (i * 7) % 31, i) for i in range(600)]
    rows = np.concatenate([members for members, _ in batches(codes)])
    assert sorted(rows.tolist()) == list(range(600))


def test_distal_activity_formula():
    z = np.zeros(4 * NUM_CELLS)
    z[0], z[NUM_CELLS], z[2 * NUM_CELLS] = 5.0, 4.0, 0.2
    excess = 4.0 * math.exp(-0.2) - 1.7
    expected = 1 / (1 + math.exp(3.0 - 5.0)) * excess / (1 + excess / 8.0)
    activity = gm.distal_activity(z)
    assert activity[0] == pytest.approx(expected)
    assert activity[1] == 0.0


def test_activity_is_exactly_zero_below_the_threshold():
    z = np.zeros(4 * NUM_CELLS)
    z[:NUM_CELLS], z[NUM_CELLS : 2 * NUM_CELLS] = 9.0, 1.69
    assert (gm.distal_activity(z) == 0.0).all()


def test_promoter_channels_and_response():
    tss = 250
    core = {tss - 31: consensus("TATA"), tss - 3: consensus("INR"), tss - 80: consensus("NFY")}
    codes = element_with(core, length=300, seed=8)
    z = gm.channels(gm.PROMOTER, codes[None], anchor_E=np.array([tss]))[0]
    expected = np.zeros(NUM_CELLS + 1)
    for name, weight in gm.PROMOTER_DRIVE.items():
        motif = MOTIFS[MOTIF_INDEX[name]]
        sites = naive_sites(codes, name)
        for start, plus in sites["+"].items():
            x = start - tss
            if name == "TATA":
                occupied = plus * math.exp(-0.5 * ((x + 31) / 2.0) ** 2)
                expected[NUM_CELLS] += occupied
            elif name == "INR":
                occupied = plus * math.exp(-0.5 * ((x + 3) / 1.5) ** 2)
            else:
                occupied = max(plus, sites["-"][start])
                occupied *= math.exp(-abs(x + motif.width / 2) / 150.0)
            expected[:NUM_CELLS] += weight * occupied * np.array(TF_LEVELS[name])
    np.testing.assert_allclose(z, expected, atol=1e-4)
    strength, response = gm.promoter_response(z)
    np.testing.assert_allclose(strength, 1.5 * z[:-1] / (1 + z[:-1] / 5.0))
    assert response[0] == pytest.approx(0.6 + 0.8 * z[-1])
    assert z[-1] > 0.9


def test_promoters_read_only_the_sense_strand_of_core_signals():
    tss = 250
    sense = element_with({tss - 31: consensus("TATA")}, length=300, seed=9)
    antisense = element_with({tss - 31: reverse_complement(consensus("TATA"))}, length=300, seed=9)
    anchor = np.array([tss])
    assert gm.channels(gm.PROMOTER, sense[None], anchor_E=anchor)[0, -1] > 0.9
    assert gm.channels(gm.PROMOTER, antisense[None], anchor_E=anchor)[0, -1] < 0.1


def test_a_promoter_grammar_needs_its_anchor():
    with pytest.raises(TypeError, match="anchor_E"):
        gm.channels(gm.PROMOTER, random_codes(300, 1)[None])


@pytest.mark.parametrize("kind", ["distal", "promoter"])
def test_substitutions_equal_brute_force(kind):
    """All 3 L substitutions of two sequences, each evaluated from scratch."""
    grammar = gm.DISTAL if kind == "distal" else gm.PROMOTER
    first, second = busy_element(11)[:200], random_codes(200, 12, gaps=1)
    batch = pad_sequences([first, second[:180]])
    anchor = None if kind == "distal" else np.array([150, 140])
    base = gm.channels(grammar, batch, anchor_E=anchor)
    found = substitution_channels(grammar, batch, anchor_E=anchor)
    table = {
        (e, p, b): change
        for e, p, b, change in zip(
            found.element, found.position, found.base, found.change, strict=True
        )
    }
    assert len(table) == len(found.element)
    rows, keys = [], []
    for element, position in np.argwhere(batch < 4):
        for new in range(4):
            if new != batch[element, position]:
                mutant = batch[element].copy()
                mutant[position] = new
                rows.append(mutant)
                keys.append((element, position, new))
    anchors = None if anchor is None else anchor[[key[0] for key in keys]]
    brute = gm.channels(grammar, np.stack(rows), anchor_E=anchors)
    brute = brute - base[[key[0] for key in keys]]
    ours = np.stack([table.pop(key, np.zeros(base.shape[1])) for key in keys])
    np.testing.assert_allclose(ours, brute, atol=2e-4)
    assert np.abs(brute).max() > 0.3
    assert not table  # nothing but real substitutions of known bases


def test_n_hides_a_site():
    codes = element_with({100: consensus("GATA")}, seed=2)
    hidden = codes.copy()
    hidden[103] = encode("N")[0]
    index = MOTIF_INDEX["GATA"]
    score = gm.scan(hidden[None], index)[0][0, 100]
    assert gm.occupancy(np.array([score]), MOTIFS[index])[0] == 0.0
