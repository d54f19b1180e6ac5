"""What the genome browser of one locus shows, as a small document inside the page.

Positions are 0-based half-open. Signals are whole numbers of thousandths of the largest value, so
that a compressed locus takes some ten kilobytes; see docs/report.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.intervals import Window
from seq2exp.core.sequence import decode
from seq2exp.dataset.store import Dataset
from seq2exp.report.locus import LocusData

__all__ = ["ELEMENT_FIELDS", "MAX_BINS", "locus_document"]

MAX_BINS = 4096
"""Longer signals are averaged over neighbouring bins."""
ELEMENT_FIELDS = ("start", "end", "element_class", "mean_mask", "max_mask", "summit", "distance")
_STEPS = 1000


def locus_document(
    data: LocusData,
    dataset: Dataset,
    *,
    sequence_bp: int,
    variants: Sequence[tuple[int, str, str, str]] = (),
    exons: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    contact: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """Return the document of a locus; only numbers, texts and lists.

    Parameters
    ----------
    data : LocusData
    dataset : Dataset
        For the sequence.
    sequence_bp : int
        Bases around the TSS whose letters are embedded.
    variants : sequence of (position, id, reference, alternative)
        0-based.
    exons : mapping of gene id to intervals, optional
        Drawn in place of one block per gene.
    contact : float array, shape (num_bins,), optional
        Contact with the TSS, on the bins of ``data``.
    """
    factor = max(1, -(-(len(data.edges) - 1) // MAX_BINS))
    edges = data.edges[::factor]
    if edges[-1] != data.edges[-1]:
        edges = np.append(edges, data.edges[-1])
    signals = [(name, unit, values) for name, (unit, values) in data.tracks.items()]
    if contact is not None:
        signals.append(("contact with the TSS", "", contact))
    document = {
        "contig": data.contig,
        "length": int(dataset.manifest.contigs[data.contig]),
        "start": data.start,
        "end": data.end,
        "tss": int(data.gene["tss"]),
        "sequence": _sequence(data, dataset, sequence_bp),
        "edges": _edges(edges),
        "tracks": [
            {"name": name, "unit": unit, **_signal(values, factor)}
            for name, unit, values in signals
        ],
        "genes": _genes(data, exons or {}),
        "forced": [list(span) for span in data.forced],
        "elements": _elements(data.elements),
        "variants": [list(variant) for variant in variants],
    }
    if np.isfinite(data.mask).any():
        document["mask"] = {
            "threshold": data.threshold,
            **{
                name: _signal(values, factor, top=1.0)["values"]
                for name, values in (("mean", data.mask), ("low", data.low), ("high", data.high))
            },
        }
    if data.truth_name:
        document["truth"] = {"name": data.truth_name, "intervals": _truth(data.truth)}
    return document


def _edges(edges: NDArray[np.int64]) -> dict[str, Any]:
    """First edge and widths, as one number where all bins are alike."""
    widths = np.diff(edges)
    same = bool(len(widths)) and bool((widths == widths[0]).all())
    return {
        "first": int(edges[0]),
        "width": int(widths[0]) if same else widths.tolist(),
        "count": len(widths),
    }


def _signal(
    values: NDArray[np.float64], factor: int, *, top: float | None = None
) -> dict[str, Any]:
    """Average over ``factor`` bins and round to thousandths of the top; null where unknown."""
    padded = np.full(-(-len(values) // factor) * factor, np.nan)
    padded[: len(values)] = values
    groups = padded.reshape(-1, factor)
    known = np.isfinite(groups)
    total = np.where(known, groups, 0).sum(axis=1)
    mean = np.divide(total, known.sum(axis=1), out=np.full(len(groups), np.nan), where=known.any(1))
    largest = top or float(np.nanmax(np.abs(mean), initial=0.0)) or 1.0
    whole = np.round(np.nan_to_num(mean) / largest * _STEPS).astype(np.int64).tolist()
    missing = ~np.isfinite(mean)
    return {
        "top": float(f"{largest:.6g}"),
        "values": [None if gone else value for value, gone in zip(whole, missing, strict=True)],
    }


def _sequence(data: LocusData, dataset: Dataset, sequence_bp: int) -> dict[str, Any]:
    tss = int(data.gene["tss"])
    start = max(data.start, tss - sequence_bp // 2)
    end = max(min(data.end, start + sequence_bp), start)
    if end == start:
        return {"start": start, "text": ""}
    window = Window(data.contig, start, end, "+", dataset.manifest.contigs[data.contig])
    return {"start": start, "text": decode(dataset.codes(window))}


def _genes(data: LocusData, exons: Mapping[str, Sequence[tuple[int, int]]]) -> list[dict[str, Any]]:
    """Genes whose TSS lies inside; where the body is unknown, the TSS alone."""
    genes = []
    for gene in data.genes.to_dict("records"):
        tss = int(gene["tss"])
        start, end = gene.get("gene_start", tss), gene.get("gene_end", tss + 1)
        known = pd.notna(start) and pd.notna(end) and end > start
        genes.append(
            {
                "id": str(gene["gene_id"]),
                "name": str(gene["symbol"] or gene["gene_id"]),
                "start": int(start) if known else tss,
                "end": int(end) if known else tss + 1,
                "strand": str(gene["strand"]),
                "own": bool(gene["gene_id"] == data.gene["gene_id"]),
                "exons": [list(span) for span in exons.get(str(gene["gene_id"]), ())],
            }
        )
    return genes


def _elements(elements: pd.DataFrame) -> dict[str, Any]:
    fields = [name for name in ELEMENT_FIELDS if name in elements]
    rows = [
        [_plain(value) for value in row]
        for row in elements[fields].sort_values("start").to_numpy(dtype=object)
    ] if len(elements) else []  # fmt: skip
    return {"fields": fields or list(ELEMENT_FIELDS), "rows": rows}


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, str):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    return round(float(value), 4) if np.isfinite(value) else None


def _truth(truth: pd.DataFrame) -> list[list[Any]]:
    if not len(truth):
        return []
    columns = ["start", "end", "causal", "kind"]
    return [
        [int(start), int(end), bool(causal), str(kind)]
        for start, end, causal, kind in truth.sort_values("start")[columns].to_numpy(dtype=object)
    ]
