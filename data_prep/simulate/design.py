"""Write motif grammars into the genome: enhancers, four kinds of decoys, two kinds of promoters.

A recipe says which sites go where. After writing, an element is evaluated with the model that
defines the truth and redrawn until it does what its kind promises (an enhancer is active in its
cell type, a decoy is open everywhere and far below the activity threshold everywhere).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.simulate.batching import channels_of
from data_prep.simulate.genome import cpg_island
from data_prep.simulate.grammar import (
    DISTAL,
    DRIVE_THRESHOLD,
    OCCUPANCY_MARGIN,
    PAIR_RULES,
    C,
    distal_activity,
    openness,
)
from data_prep.simulate.layout import PROMOTER_UP
from data_prep.simulate.motifs import CELL_TYPES, MOTIF_INDEX, MOTIFS
from seq2exp.core.sequence import reverse_complement

__all__ = [
    "DECOY_DRIVE_LIMIT",
    "SiteSampler",
    "write_distal",
    "write_promoters",
]

Codes = NDArray[np.uint8]
_KEEP = 255  # marks bases of a unit that leave the background as it is
_COMPLEMENT = np.arange(256, dtype=np.uint8)
_COMPLEMENT[:4] = (3, 2, 1, 0)

# A decoy stays silent when one further full activator site appears: 0.75 + 0.9 < 1.7.
DECOY_DRIVE_LIMIT = DRIVE_THRESHOLD - 0.95
_MIN_ACTIVITY = 0.5
_MIN_OPEN = 0.75
_MAX_ROUNDS = 40
_PAIRS = {(rule.upstream, rule.downstream): rule for rule in PAIR_RULES}


@dataclass(eq=False)
class SiteSampler:
    """Draws binding sites from the matrices; only sites at least half occupied are kept."""

    rng: np.random.Generator
    _pool: dict[str, list[Codes]] = field(default_factory=dict)

    def draw(self, name: str) -> Codes:
        """Return one site of the named motif, 5' to 3'."""
        pool = self._pool.get(name)
        if not pool:
            pool = self._pool[name] = self._sample(name)
        return pool.pop()

    def _sample(self, name: str) -> list[Codes]:
        motif = MOTIFS[MOTIF_INDEX[name]]
        cumulative = motif.probabilities.cumsum(axis=1)
        draws = self.rng.random((4000, motif.width, 1))
        codes = (draws > cumulative[None, :, :3]).sum(axis=2).astype(np.uint8)
        score = motif.log_odds[np.arange(motif.width), codes].sum(axis=1)
        return list(codes[score >= motif.max_score - OCCUPANCY_MARGIN])


def _unit(names: tuple[str, ...], sampler: SiteSampler, *, spaced: bool) -> Codes:
    """Return one site, or two at their preferred spacing, on a random strand."""
    parts = [sampler.draw(name) for name in names]
    if len(parts) == 1:
        unit = parts[0].copy()
    else:
        rule = _PAIRS[names[0], names[1]]
        offsets, weights = rule.offsets()
        if spaced:
            step = int(sampler.rng.choice(offsets, p=weights / weights.sum()))
        else:
            step = int(sampler.rng.integers(offsets[-1] + 4, offsets[-1] + 30))
        unit = np.full(step + len(parts[1]), _KEEP, dtype=np.uint8)
        unit[: len(parts[0])] = parts[0]
        unit[step:] = parts[1]
    return unit if sampler.rng.random() < 0.5 else _COMPLEMENT[unit[::-1]]


def _plant(codes: Codes, units: list[Codes], rng: np.random.Generator) -> None:
    """Write units at random, non-overlapping places of ``codes`` (in place); skip what is full."""
    used = np.zeros(len(codes), dtype=bool)
    for unit in units:
        for _ in range(25):
            if len(unit) >= len(codes) - 10:
                break
            start = int(rng.integers(5, len(codes) - len(unit) - 4))
            if not used[start : start + len(unit)].any():
                wanted = unit != _KEEP
                codes[start : start + len(unit)][wanted] = unit[wanted]
                used[max(0, start - 1) : start + len(unit) + 1] = True
                break


def _enhancer_units(subkind: str, sampler: SiteSampler) -> list[Codes]:
    rng = sampler.rng
    spaced = bool(rng.random() < 0.7)
    units = [_unit(("FOXA",), sampler, spaced=False) for _ in range(int(rng.integers(1, 4)))]
    couples = {
        "ubiquitous": ("AP1", "TEAD"),
        "blood": ("GATA", "GATA"),
        "liver": ("HNF4", "AP1"),
        "muscle": ("MYOD", "MYOD"),
    }
    couple = couples[subkind]
    num_couples = 1 + int(rng.random() < 0.6) + int(rng.random() < 0.25)
    units += [_unit(couple, sampler, spaced=spaced) for _ in range(num_couples)]
    singles = [couple[0]] * int(rng.integers(0, 3)) + ["AP1"] * int(rng.integers(0, 2))
    singles += ["TEAD"] * int(rng.integers(0, 2)) + ["ETS"] * int(rng.random() < 0.2)
    singles += ["CTCF"] * int(rng.random() < 0.1)
    return units + [_unit((name,), sampler, spaced=False) for name in singles]


def _decoy_units(subkind: str, sampler: SiteSampler) -> list[Codes]:
    rng = sampler.rng
    if subkind == "insulator":
        names = ["CTCF"] * int(rng.integers(1, 3)) + ["FOXA"] * int(rng.integers(0, 2))
        names += ["ETS", "SP"][: int(rng.integers(0, 2))]
    elif subkind == "primed":
        names = ["FOXA"] * int(rng.integers(3, 5))
        names += [str(rng.choice(["AP1", "TEAD"]))] * int(rng.random() < 0.5)
    elif subkind == "acetylated":
        names = ["FOXA"] * int(rng.integers(2, 4))
        count = int(rng.integers(3, 6))
        names += [str(name) for name in rng.choice(["SP", "NRF1", "ETS"], count)]
        names += ["AP1"] * int(rng.random() < 0.3)
    else:
        silenced = [_unit(("GFI1",), sampler, spaced=False) for _ in range(4)]
        driver = str(rng.choice(["ubiquitous", "blood", "blood"]))
        return silenced[: int(rng.integers(3, 5))] + _enhancer_units(driver, sampler)
    return [_unit((name,), sampler, spaced=False) for name in names]


def _keeps_promise(elements: pd.DataFrame, sequences: list[Codes]) -> NDArray[np.bool_]:
    """Tell which elements do what their kind says, shape (E,)."""
    z = channels_of(DISTAL, sequences)
    activity, is_open = distal_activity(z), openness(z)
    drive = z[:, C : 2 * C] * np.exp(-z[:, 2 * C : 3 * C])
    decoy = (elements["kind"] == "decoy").to_numpy()
    column = np.array([max(0, _cell(name)) for name in elements["subkind"]])
    rows = np.arange(len(elements))
    good_decoy = (drive <= DECOY_DRIVE_LIMIT).all(axis=1) & (is_open >= _MIN_OPEN).all(axis=1)
    good_enhancer = (activity[rows, column] >= _MIN_ACTIVITY) & (is_open[rows, column] >= _MIN_OPEN)
    return np.where(decoy, good_decoy, good_enhancer)


def _cell(subkind: str) -> int:
    return CELL_TYPES.index(subkind) if subkind in CELL_TYPES else 0


def write_distal(
    genome: dict[str, Codes], elements: pd.DataFrame, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Write every distal element into the genome, redrawing those that break their promise.

    Parameters
    ----------
    genome : dict of uint8 arrays
        Changed in place.
    elements : DataFrame
        chrom, start, end, kind, subkind.
    rng : numpy Generator

    Returns
    -------
    bool array, shape (E,)
        False for the few elements no draw could make; the caller leaves them out.
    """
    sampler = SiteSampler(rng)
    done = np.zeros(len(elements), dtype=bool)
    rows = list(elements[["chrom", "start", "end", "kind", "subkind"]].itertuples(index=False))
    original = [genome[str(r[0])][r[1] : r[2]].copy() for r in rows]
    todo = np.arange(len(elements))
    for _ in range(_MAX_ROUNDS):
        drafts = []
        for index in todo:
            draft = original[index].copy()
            recipe = _enhancer_units if rows[index][3] == "enhancer" else _decoy_units
            _plant(draft, recipe(str(rows[index][4]), sampler), rng)
            drafts.append(draft)
        fine = _keeps_promise(elements.iloc[todo], drafts)
        for index, draft, good in zip(todo, drafts, fine, strict=True):
            if good:
                genome[str(rows[index][0])][rows[index][1] : rows[index][2]] = draft
        done[todo[fine]] = True
        todo = todo[~fine]
        if todo.size == 0:
            break
    return done


def _promoter_sites(island: bool, sampler: SiteSampler) -> list[tuple[str, int, bool]]:  # noqa: FBT001
    """Return (motif, first base relative to the TSS, on the sense strand) of one promoter."""
    rng = sampler.rng
    if island:
        bound = {"SP": 3, "NRF1": 2, "ETS": 2, "NFY": 2, "AP1": 1}
        core = {"TATA": 0.08, "INR": 0.4}
    else:
        bound = {"SP": 1, "NFY": 2, "ETS": 1, "AP1": 1, "GATA": 1, "HNF4": 1, "MYOD": 1}
        core = {"TATA": 0.6, "INR": 0.7}
    sites = []
    for name, most in bound.items():
        for _ in range(int(rng.integers(0, most + 1))):
            where = -int(min(230, 40 + rng.exponential(50)))
            sites.append((name, where, bool(rng.random() < 0.5)))
    if rng.random() < core["TATA"]:
        sites.append(("TATA", -31 + int(rng.integers(-1, 2)), True))
    if rng.random() < core["INR"]:
        sites.append(("INR", -3, True))
    return sites


def write_promoters(
    genome: dict[str, Codes], genes: pd.DataFrame, rng: np.random.Generator
) -> None:
    """Write CpG islands and promoter sites around every TSS (in place).

    Parameters
    ----------
    genome : dict of uint8 arrays
        Changed in place.
    genes : DataFrame
        chrom, tss, strand, cpg_island.
    rng : numpy Generator
    """
    sampler = SiteSampler(rng)
    up, down = 400, 500
    islands = cpg_island(len(genes), up + down, rng)
    columns = ["chrom", "tss", "strand", "cpg_island"]
    for row, (chrom, tss, strand, island) in enumerate(genes[columns].itertuples(index=False)):
        start, end = (tss - up, tss + down) if strand == "+" else (tss - down + 1, tss + up + 1)
        codes = genome[str(chrom)][start:end].copy()
        codes = codes if strand == "+" else reverse_complement(codes)
        if island:
            first = int(rng.integers(0, up - PROMOTER_UP))
            last = up + down - int(rng.integers(0, 350))
            codes[first:last] = islands[row, first:last]
        used = np.zeros(len(codes), dtype=bool)
        # Core signals last in the list, first in the right to their place.
        for name, where, sense in reversed(_promoter_sites(island, sampler)):
            site = sampler.draw(name)
            site = site if sense else reverse_complement(site)
            place = slice(up + where, up + where + len(site))
            if not used[place].any():
                codes[place] = site
                used[place] = True
        genome[str(chrom)][start:end] = codes if strand == "+" else reverse_complement(codes)
