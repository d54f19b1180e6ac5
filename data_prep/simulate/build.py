"""Assemble a world: genome, layout, grammars, contacts. One random stream per step."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.simulate.config import SimulationConfig
from data_prep.simulate.contacts import ContactTable, contact_table, pairs_within_reach
from data_prep.simulate.design import write_distal, write_promoters
from data_prep.simulate.genome import background, insert_gaps, insert_repeats, repeat_families
from data_prep.simulate.layout import Layout, place_contig
from data_prep.simulate.world import World

__all__ = ["Draft", "build_world", "stream"]

_STREAMS = ("genome", "layout", "distal", "promoters", "contacts", "expression", "tracks")


class Draft:
    """A world with the by-products that only the writers need.

    Parameters
    ----------
    world : World
    contacts : ContactTable
    exons : list of list of (start, end)
        Per gene.
    repeats : DataFrame
        chrom, start, end, name, score, strand.
    """

    def __init__(
        self,
        world: World,
        contacts: ContactTable,
        exons: list[list[tuple[int, int]]],
        repeats: pd.DataFrame,
    ) -> None:
        self.world = world
        self.contacts = contacts
        self.exons = exons
        self.repeats = repeats


def stream(config: SimulationConfig, name: str) -> np.random.Generator:
    """Return the random generator of one step; steps do not disturb each other's draws."""
    return np.random.default_rng([config.seed, _STREAMS.index(name)])


def build_world(config: SimulationConfig) -> Draft:
    """Return a complete world for a configuration.

    Parameters
    ----------
    config : SimulationConfig

    Returns
    -------
    Draft
    """
    genome, gaps, repeats = _sequence(config)
    layouts = _layouts(genome, gaps, config)
    genes = _gene_table(layouts)
    elements = _element_table(layouts)
    write_promoters(genome, genes, stream(config, "promoters"))
    made = write_distal(genome, elements, stream(config, "distal"))
    elements = elements[made].reset_index(drop=True)
    elements.insert(0, "element_id", [f"E{i + 1:05d}" for i in range(len(elements))])
    contacts = contact_table(genes, config, stream(config, "contacts"))
    pairs = pairs_within_reach(genes, elements, contacts, config.reach)
    exons = [exon for layout in layouts for exon in layout.exons]
    return Draft(World(config, genome, genes, elements, *pairs), contacts, exons, repeats)


def _sequence(
    config: SimulationConfig,
) -> tuple[dict[str, NDArray[np.uint8]], dict[str, list[tuple[int, int]]], pd.DataFrame]:
    rng = stream(config, "genome")
    families = repeat_families(rng)
    genome, gaps, rows = {}, {}, []
    for number in range(1, config.num_contigs + 1):
        chrom = f"chr{number}"
        length = int(rng.integers(config.min_contig_length, config.max_contig_length + 1))
        codes = background(length, rng)
        copies = insert_repeats(codes, families, fraction=config.repeat_fraction, rng=rng)
        gaps[chrom] = insert_gaps(codes, rng)
        genome[chrom] = codes
        rows += [
            (chrom, start, end, "simple" if family < 0 else f"family{family}", 0, strand)
            for start, end, family, strand in copies
        ]
    columns = ["chrom", "start", "end", "name", "score", "strand"]
    return genome, gaps, pd.DataFrame(rows, columns=columns)


def _layouts(
    genome: dict[str, NDArray[np.uint8]],
    gaps: dict[str, list[tuple[int, int]]],
    config: SimulationConfig,
) -> list[Layout]:
    rng = stream(config, "layout")
    return [
        place_contig(chrom, len(codes), gaps[chrom], config, rng) for chrom, codes in genome.items()
    ]


def _gene_table(layouts: list[Layout]) -> pd.DataFrame:
    genes = pd.concat([layout.genes for layout in layouts], ignore_index=True)
    genes.insert(0, "gene_id", [f"SIMG{i + 1:08d}" for i in range(len(genes))])
    genes.insert(1, "symbol", [f"SG{i + 1}" for i in range(len(genes))])
    return genes


def _element_table(layouts: list[Layout]) -> pd.DataFrame:
    parts, first = [], 0
    for layout in layouts:
        part = layout.elements.copy()
        part["home"] += first
        first += len(layout.genes)
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    order = table["chrom"].str[3:].astype(int)
    return table.iloc[np.lexsort([table["start"], order])].reset_index(drop=True)
