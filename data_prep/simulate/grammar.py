"""From sequence to activity: site occupancies, spacing rules, and the two response functions.

Every element is summarised by a few *channels*. A channel is linear in the occupancies of sites
and of pairs of sites, so the effect of one base is a small, exact update (``effects.py``).
Formulas with their symbols are in ``docs/simulator.md``.

Shapes: E elements, L bases, P = L - width + 1 site starts, K channels, C cell types, T motifs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from data_prep.simulate.motifs import CELL_TYPES, MOTIF_INDEX, MOTIFS, TF_LEVELS, Motif

__all__ = [
    "ACCESS",
    "ACCESS_OFFSET",
    "DISTAL",
    "DRIVE",
    "DRIVE_SATURATION",
    "DRIVE_THRESHOLD",
    "MARK",
    "OCCUPANCY_MARGIN",
    "OCCUPANCY_WIDTH",
    "PAIR_RULES",
    "PROMOTER",
    "REPRESSION",
    "Grammar",
    "PairRule",
    "channels",
    "distal_activity",
    "occupancy",
    "openness",
    "partner_field",
    "position_weight",
    "promoter_response",
    "scan",
    "scan_all",
    "site_occupancies",
    "triplets",
]

Float = NDArray[np.float32]
Codes = NDArray[np.uint8]
C = len(CELL_TYPES)

OCCUPANCY_MARGIN = 3.5  # bits below the best site at which occupancy is one half
OCCUPANCY_WIDTH = 0.7  # bits
_FLOOR = 1.0 / (1.0 + np.exp(3.0))  # sites more than 3 widths below half occupancy count 0

ACCESS_OFFSET = -3.0
DRIVE_THRESHOLD = 1.7
DRIVE_SATURATION = 8.0
PROMOTER_BASE = 0.0
PROMOTER_GAIN = 1.5
PROMOTER_SATURATION = 5.0
RESPONSE_BASE = 0.6
RESPONSE_TATA = 0.8

# Log-odds of openness per unit of occupancy times level.
ACCESS = {
    "FOXA": 1.8,
    "AP1": 1.0,
    "TEAD": 0.3,
    "GATA": 0.6,
    "HNF4": 0.6,
    "MYOD": 0.6,
    "CTCF": 3.0,
    "SP": 0.5,
    "NRF1": 0.5,
    "ETS": 0.5,
}
# Activation per unit of occupancy times level, distal elements.
DRIVE = {"AP1": 0.7, "TEAD": 0.6, "GATA": 0.9, "HNF4": 0.9, "MYOD": 0.9}
REPRESSION = {"GFI1": 0.9}
# Factors that bring histone acetylation without driving a distant promoter.
MARK = {"SP": 0.5, "NRF1": 0.5, "ETS": 0.5}
PROMOTER_DRIVE = {
    "SP": 0.9,
    "NRF1": 1.2,
    "ETS": 1.2,
    "NFY": 1.0,
    "AP1": 0.6,
    "GATA": 0.6,
    "HNF4": 0.6,
    "MYOD": 0.6,
    "TATA": 1.0,
    "INR": 0.6,
}


@dataclass(frozen=True)
class PairRule:
    """Two sites on one strand help each other at a preferred spacing.

    Parameters
    ----------
    upstream, downstream : str
        Motif names, 5' to 3' on the strand both sites lie on.
    spacing : float
        Preferred distance between the 5' ends of the two sites, bp.
    spread : float
        SD of the Gaussian preference, bp.
    strength : float
        Added drive when both sites are fully occupied, at level 1, at the preferred spacing.
    """

    upstream: str
    downstream: str
    spacing: float
    spread: float
    strength: float

    def offsets(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return spacings within 3 spreads that do not overlap, and their weights."""
        first = max(
            MOTIFS[MOTIF_INDEX[self.upstream]].width,
            MOTIFS[MOTIF_INDEX[self.downstream]].width,
            int(np.ceil(self.spacing - 3 * self.spread)),
        )
        values = np.arange(first, int(self.spacing + 3 * self.spread) + 1)
        return values, np.exp(-0.5 * ((values - self.spacing) / self.spread) ** 2)


PAIR_RULES: tuple[PairRule, ...] = (
    PairRule("AP1", "TEAD", 15, 2.0, 1.0),
    PairRule("GATA", "GATA", 20, 3.0, 0.8),
    PairRule("HNF4", "AP1", 18, 3.0, 0.8),
    PairRule("MYOD", "MYOD", 22, 3.0, 0.8),
)


@dataclass(frozen=True, eq=False)
class Grammar:
    """Weights that turn occupancies into channels.

    Parameters
    ----------
    linear : float64 array, shape (T, K)
        Weight of one fully occupied site.
    pairs : tuple of (PairRule, float64 array of shape (K,))
        Spacing rules and the channels they feed.
    positioned : bool
        Sites count less away from the TSS (promoters).
    """

    linear: NDArray[np.float64]
    pairs: tuple[tuple[PairRule, NDArray[np.float64]], ...]
    positioned: bool

    @property
    def motifs(self) -> tuple[int, ...]:
        """Indices of the motifs this grammar reads."""
        used = np.flatnonzero(np.abs(self.linear).sum(axis=1)).tolist()
        return tuple(used)


def _levels(name: str) -> NDArray[np.float64]:
    return np.asarray(TF_LEVELS[name])


def _distal() -> Grammar:
    linear = np.zeros((len(MOTIFS), 4 * C))
    for block, weights in enumerate((ACCESS, DRIVE, REPRESSION, MARK)):
        for name, weight in weights.items():
            linear[MOTIF_INDEX[name], block * C : (block + 1) * C] = weight * _levels(name)
    pairs = []
    for rule in PAIR_RULES:
        feed = np.zeros(4 * C)
        feed[C : 2 * C] = rule.strength * _levels(rule.upstream) * _levels(rule.downstream)
        pairs.append((rule, feed))
    return Grammar(linear, tuple(pairs), positioned=False)


def _promoter() -> Grammar:
    linear = np.zeros((len(MOTIFS), C + 1))
    for name, weight in PROMOTER_DRIVE.items():
        linear[MOTIF_INDEX[name], :C] = weight * _levels(name)
    linear[MOTIF_INDEX["TATA"], C] = 1.0
    return Grammar(linear, (), positioned=True)


DISTAL = _distal()
PROMOTER = _promoter()


def occupancy(score: NDArray[np.floating], motif: Motif) -> Float:
    """Return the occupancy (0 to 1) of sites with the given scores in bits.

    ``o = max(0, (s - f) / (1 - f))`` with ``s = logistic((score - max + margin) / width)`` and
    ``f = logistic(-3)``: half occupied 3.5 bits below the best site, exactly 0 for weak sites.
    """
    half = motif.max_score - OCCUPANCY_MARGIN
    occupied = np.zeros(score.shape, dtype=np.float32)
    above = score > half - 3.0 * OCCUPANCY_WIDTH  # few sites pass, so only they cost an exp
    raw = 1.0 / (1.0 + np.exp(-(score[above] - half) / OCCUPANCY_WIDTH))
    occupied[above] = np.maximum(0.0, (raw - _FLOOR) / (1.0 - _FLOOR))
    return occupied


@cache
def _triplet_tables(index: int) -> tuple[Float, Float]:
    """Scores of three columns at once, both strands, shape (ceil(width / 3), 125).

    The reverse table reads the plus strand left to right. Columns beyond the motif score 0.
    """
    forward = MOTIFS[index].log_odds
    tables = []
    for columns in (forward, forward[::-1][:, [3, 2, 1, 0, 4]]):
        padded = np.zeros((-(-len(columns) // 3) * 3, 5), dtype=np.float32)
        padded[: len(columns)] = columns
        first, second, third = padded.reshape(-1, 3, 5).transpose(1, 0, 2)
        sums = first[:, :, None, None] + second[:, None, :, None] + third[:, None, None, :]
        tables.append(np.ascontiguousarray(sums.reshape(-1, 125)))
    return tables[0], tables[1]


def triplets(codes_EL: Codes) -> NDArray[np.intp]:
    """Return ``25 a + 5 b + c`` of each base and the two after it, shape (E, L + 2 of N)."""
    wide = np.pad(codes_EL, ((0, 0), (0, 4)), constant_values=4).astype(np.intp)
    return 25 * wide[:, :-2] + 5 * wide[:, 1:-1] + wide[:, 2:]


def scan(codes_EL: Codes, index: int) -> tuple[Float, Float]:
    """Return the scores of motif ``index`` on both strands.

    Parameters
    ----------
    codes_EL : uint8 array, shape (E, L)
        Base codes, padded with N.
    index : int
        Row of ``MOTIFS``.

    Returns
    -------
    forward, reverse : float32 arrays, shape (E, L - width + 1)
        Bits, at the leftmost base of the site.
    """
    return _scan(triplets(codes_EL), codes_EL.shape[1], index)


def _scan(triplets_EL: NDArray[np.intp], length: int, index: int) -> tuple[Float, Float]:
    starts = length - MOTIFS[index].width + 1
    scores = []
    for table in _triplet_tables(index):
        total = np.zeros((triplets_EL.shape[0], starts), dtype=np.float32)
        for step, row in enumerate(table):
            total += np.take(row, triplets_EL[:, 3 * step : 3 * step + starts], mode="clip")
        scores.append(total)
    return scores[0], scores[1]


def position_weight(index: int, starts: int, anchor_E: NDArray[np.int64]) -> Float:
    """Return how much a site counts in a promoter, by its distance from the TSS.

    Factors decay as ``exp(-|x| / 150)`` with x from the site's centre to the TSS; TATA prefers
    its first base at -31 (SD 2) and INR its third base at the TSS (SD 1.5).

    Parameters
    ----------
    index : int
        Row of ``MOTIFS``.
    starts : int
        Number of site starts.
    anchor_E : int64 array, shape (E,)
        Index of the TSS base in each sequence.
    """
    motif = MOTIFS[index]
    x_EP = np.arange(starts)[None, :] - anchor_E[:, None]
    if motif.name == "TATA":
        return np.exp(-0.5 * ((x_EP + 31) / 2.0) ** 2).astype(np.float32)
    if motif.name == "INR":
        return np.exp(-0.5 * ((x_EP + 3) / 1.5) ** 2).astype(np.float32)
    weight = np.exp(-np.abs(x_EP + motif.width / 2) / 150.0)
    return np.asarray(weight, dtype=np.float32)


def channels(
    grammar: Grammar, codes_EL: Codes, *, anchor_E: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Return the channels of a batch of sequences.

    Parameters
    ----------
    grammar : Grammar
        ``DISTAL`` (plus strand of the genome) or ``PROMOTER`` (sense strand of the gene).
    codes_EL : uint8 array, shape (E, L)
        Base codes, padded with N.
    anchor_E : int64 array, shape (E,), optional
        Index of the TSS base; promoters need it.

    Returns
    -------
    float64 array, shape (E, K)
    """
    total_EK = np.zeros((codes_EL.shape[0], grammar.linear.shape[1]))
    stranded = site_occupancies(scan_all(grammar, codes_EL))
    for index, (forward, reverse) in stranded.items():
        best = forward if MOTIFS[index].stranded else np.maximum(forward, reverse)
        if grammar.positioned:
            if anchor_E is None:
                raise TypeError("a promoter grammar needs anchor_E")
            best = best * position_weight(index, best.shape[1], anchor_E)
        total_EK += best.sum(axis=1, dtype=np.float64)[:, None] * grammar.linear[index]
    for rule, feed in grammar.pairs:
        upstream = stranded[MOTIF_INDEX[rule.upstream]]
        partner = partner_field(rule, stranded, of_upstream=True)
        amount = sum(
            (own * other).sum(axis=1, dtype=np.float64)
            for own, other in zip(upstream, partner, strict=True)
        )
        total_EK += np.asarray(amount)[:, None] * feed
    return total_EK


def scan_all(grammar: Grammar, codes_EL: Codes) -> dict[int, tuple[Float, Float]]:
    """Return the scores of every motif the grammar reads, on both strands."""
    coded = triplets(codes_EL)
    return {index: _scan(coded, codes_EL.shape[1], index) for index in grammar.motifs}


def site_occupancies(scores: dict[int, tuple[Float, Float]]) -> dict[int, tuple[Float, Float]]:
    """Return occupancies in place of the scores of ``scan_all``."""
    return {
        index: (occupancy(forward, MOTIFS[index]), occupancy(reverse, MOTIFS[index]))
        for index, (forward, reverse) in scores.items()
    }


def partner_field(
    rule: PairRule, stranded: dict[int, tuple[Float, Float]], *, of_upstream: bool
) -> tuple[Float, Float]:
    """Return, at each site start, the spacing-weighted occupancy of the partner motif.

    Parameters
    ----------
    rule : PairRule
    stranded : dict
        Occupancies of both strands per motif.
    of_upstream : bool
        True: the field felt by upstream sites (made of downstream ones); False: the reverse.

    Returns
    -------
    forward, reverse : float32 arrays, shape (E, P of the motif that feels the field)
    """
    first, second = MOTIF_INDEX[rule.upstream], MOTIF_INDEX[rule.downstream]
    shift_widths = MOTIFS[first].width - MOTIFS[second].width
    source, target = (second, first) if of_upstream else (first, second)
    sign = 1 if of_upstream else -1
    offsets, weights = rule.offsets()
    fields = []
    for strand in (0, 1):
        # On the minus strand the 5' end is the right end, so starts differ by the widths.
        steps = sign * (offsets if strand == 0 else shift_widths - offsets)
        shape = stranded[target][strand].shape
        fields.append(_spread(stranded[source][strand], shape, steps, weights))
    return fields[0], fields[1]


def _spread(
    origin: Float, shape: tuple[int, ...], steps: NDArray[np.int64], weights: NDArray[np.float64]
) -> Float:
    """Return ``field[e, i] = sum_d weights[d] * origin[e, i + steps[d]]`` (few origins are > 0)."""
    element, start = np.nonzero(origin)
    at = start[:, None] - steps
    value = origin[element, start][:, None] * weights.astype(np.float32)
    inside = (at >= 0) & (at < shape[1])
    field = np.zeros(shape, dtype=np.float32)
    rows = np.broadcast_to(element[:, None], at.shape)
    np.add.at(field, (rows[inside], at[inside]), value[inside])
    return field


def openness(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of cells in which an element is open, per cell type, from its channels."""
    return 1.0 / (1.0 + np.exp(-(ACCESS_OFFSET + z[..., :C])))


def distal_activity(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the activity of distal elements per cell type.

    ``A = open * h / (1 + h / 8)`` with ``h = max(0, drive * exp(-repression) - threshold)``.

    Parameters
    ----------
    z : float64 array, shape (..., 4 C)
        Channels of ``DISTAL``: accessibility, drive, repression, mark.

    Returns
    -------
    float64 array, shape (..., C)
        Arbitrary units, 0 or more; exactly 0 below the threshold.
    """
    excess = np.maximum(0.0, z[..., C : 2 * C] * np.exp(-z[..., 2 * C : 3 * C]) - DRIVE_THRESHOLD)
    return openness(z) * excess / (1.0 + excess / DRIVE_SATURATION)


def promoter_response(z: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return promoter strength (log units, per cell type) and responsiveness to enhancers.

    ``p = 1.5 u / (1 + u / 5)`` and ``r = 0.6 + 0.8 tata``.

    Parameters
    ----------
    z : float64 array, shape (..., C + 1)
        Channels of ``PROMOTER``.

    Returns
    -------
    strength : float64 array, shape (..., C)
    responsiveness : float64 array, shape (..., 1)
    """
    drive = z[..., :C]
    strength = PROMOTER_BASE + PROMOTER_GAIN * drive / (1.0 + drive / PROMOTER_SATURATION)
    return strength, RESPONSE_BASE + RESPONSE_TATA * z[..., C:]
