"""The truth about elements: what they are, and what happens to each gene when one is deleted."""

from __future__ import annotations

import numpy as np
import pandas as pd

from data_prep.simulate.grammar import promoter_response
from data_prep.simulate.layout import promoter_interval
from data_prep.simulate.motifs import CELL_TYPES
from data_prep.simulate.world import State, World, log_expression

__all__ = [
    "cell_columns",
    "element_effects",
    "element_table",
    "genome_order",
    "promoter_frame",
]


def cell_columns(stem: str) -> list[str]:
    """Return one column name per cell type, ``<stem>_<cell>``."""
    return [f"{stem}_{cell}" for cell in CELL_TYPES]


def element_table(world: World, state: State) -> pd.DataFrame:
    """Return every element, promoters included, with its class and activity.

    Returns
    -------
    DataFrame
        chrom, start, end, element_id, kind, subkind, strand, gene_id (home gene), and per cell
        type activity (promoters: strength) and openness.
    """
    gene_id = world.genes["gene_id"].to_numpy()
    distal = world.elements[["chrom", "start", "end", "element_id", "kind", "subkind"]].copy()
    distal["strand"] = "."
    distal["gene_id"] = gene_id[world.elements["home"]]
    distal[cell_columns("activity")] = state.activity
    promoters = promoter_frame(world)
    promoters[cell_columns("activity")] = state.strength
    return genome_order(world, pd.concat([distal, promoters], ignore_index=True))


def promoter_frame(world: World) -> pd.DataFrame:
    """Return the promoters as elements, one row per gene, in the order of ``world.genes``."""
    genes = world.genes
    spans = [promoter_interval(t, s) for t, s in zip(genes["tss"], genes["strand"], strict=True)]
    return pd.DataFrame(
        {
            "chrom": genes["chrom"],
            "start": [start for start, _ in spans],
            "end": [end for _, end in spans],
            "element_id": "P_" + genes["gene_id"],
            "kind": "promoter",
            "subkind": np.where(genes["cpg_island"], "cpg_island", "tata_like"),
            "strand": genes["strand"],
            "gene_id": genes["gene_id"],
        }
    )


def genome_order(world: World, frame: pd.DataFrame) -> pd.DataFrame:
    """Return rows sorted by contig (in the order of the FASTA), start and end."""
    rank = {chrom: number for number, chrom in enumerate(world.genome)}
    order = np.lexsort([frame["end"], frame["start"], frame["chrom"].map(rank)])
    return frame.iloc[order].reset_index(drop=True)


def element_effects(world: World, state: State) -> pd.DataFrame:
    """Return the change of log expression when an element is deleted (replaced by N).

    One row per gene and distal element within reach, decoys included, and one per promoter.

    Returns
    -------
    DataFrame
        gene_id, element_id, chrom, start, end, kind, subkind, distance (element centre minus TSS,
        along transcription, bp), contact, effect_<cell> (natural log, 0 or less for enhancers,
        exactly 0 for decoys), causal_<cell>.
    """
    genes, elements = world.genes, world.elements
    g, e = world.pair_gene, world.pair_element
    without = state.input_sum[g] - world.pair_contact[:, None] * state.activity[e]
    # Rounding may leave -1e-17 when the only element of a gene is taken away.
    without = np.where(state.activity[e] > 0, np.maximum(without, 0.0), state.input_sum[g])
    effect = log_expression(state.strength[g], state.response[g], without) - state.expression[g]
    columns = ["element_id", "chrom", "start", "end", "kind", "subkind"]
    frame = elements[columns].iloc[e].reset_index(drop=True)
    frame.insert(0, "gene_id", genes["gene_id"].to_numpy()[g])
    centre = (frame["start"] + frame["end"]) // 2
    sign = np.where(genes["strand"].to_numpy()[g] == "+", 1, -1)
    frame["distance"] = sign * (centre.to_numpy() - genes["tss"].to_numpy()[g])
    frame["contact"] = world.pair_contact
    frame[cell_columns("effect")] = effect
    everything = pd.concat([frame, _promoter_effects(world, state)], ignore_index=True)
    for cell in CELL_TYPES:
        everything[f"causal_{cell}"] = everything[f"effect_{cell}"] <= -world.config.min_effect
    return genome_order(world, everything)


def _promoter_effects(world: World, state: State) -> pd.DataFrame:
    empty_strength, empty_response = promoter_response(np.zeros_like(state.promoter_z))
    frame = promoter_frame(world)[
        ["gene_id", "element_id", "chrom", "start", "end", "kind", "subkind"]
    ]
    frame["distance"] = 0
    frame["contact"] = 1.0
    lost = log_expression(empty_strength, empty_response, state.input_sum) - state.expression
    frame[cell_columns("effect")] = lost
    return frame
