"""Locus pages inside the report: which genes, what each shows, packed below a stated size."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.intervals import Window
from seq2exp.core.progress import track
from seq2exp.dataset.samples import CONTACT, gene_window
from seq2exp.dataset.store import Dataset
from seq2exp.report import page
from seq2exp.report.annotation import read_exons
from seq2exp.report.browser import locus_document
from seq2exp.report.choose import SPLITS, spread_loci
from seq2exp.report.genes import MAX_SAMPLES
from seq2exp.report.locus import LocusData, bare_locus, locus_data
from seq2exp.report.material import Material
from seq2exp.report.variants import MAX_VARIANTS, Variant, read_variants

__all__ = ["Chosen", "LocusPages", "choose_pages", "locus_pages", "locus_view"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chosen:
    """A gene that gets a locus page."""

    row: int
    """Row of the dataset's gene table."""
    gene_id: str
    reason: str
    """Why this gene, as a sentence."""


@dataclass(frozen=True)
class LocusPages:
    """Packed locus pages.

    Attributes
    ----------
    order : list of dict
        id, symbol, reason and facts of each page.
    parts : list of str
        Packed documents, in the same order.
    notes : list of str
        What was left out.
    """

    order: list[dict[str, Any]]
    parts: list[str]
    notes: list[str]

    @property
    def places(self) -> dict[str, int]:
        """Place of each gene's page."""
        return {entry["id"]: number for number, entry in enumerate(self.order)}


def choose_pages(m: Material, extremes: pd.DataFrame) -> list[Chosen]:
    """Choose the genes with a locus page; the rule is stated in the report.

    All that were asked for; then, up to ``m.loci.number`` in all, the genes of the table of
    residuals (at most a third), and genes spread evenly over the order of the map, best to worst.

    Parameters
    ----------
    m : Material
    extremes : DataFrame
        Of :func:`seq2exp.report.genes.extreme_genes`.
    """
    if m.dataset is None:
        return []
    ids = m.dataset.genes["gene_id"].astype(str).tolist()
    row_of = {gene: row for row, gene in enumerate(ids)}
    reasons = {
        ids[row]: ["Asked for."] for row in m.dataset.find_genes(m.loci.genes, what="--genes")
    }
    each = m.loci.number // 6
    for kind, words in (("worst", "largest"), ("best", "smallest")):
        for rank, gene in enumerate(extremes[extremes["kind"] == kind]["gene_id"], 1):
            if rank <= each or gene in reasons:
                reasons.setdefault(gene, []).append(f"Residual number {rank} of the {words}.")
    left = m.loci.number - len(reasons)
    if left > 0:
        for gene, reason in _spread(m, left, reasons):
            reasons[gene] = [reason]
    return [Chosen(row_of[gene], gene, " ".join(why)) for gene, why in reasons.items()]


def _spread(m: Material, number: int, skip: Container[str]) -> list[tuple[str, str]]:
    """Return further genes, and why each."""
    if m.masks is not None and m.elements is not None:
        loci = spread_loci(m.masks, m.elements, m.truth, number=number, skip=skip)
        return [(locus.gene_id, locus.reason) for locus in loci]
    genes = m.dataset.genes if m.dataset is not None else pd.DataFrame({"split": []})
    found: list[tuple[str, str]] = []
    for split in SPLITS:
        ids = [gene for gene in genes[genes["split"] == split]["gene_id"] if gene not in skip]
        wanted = min(number - len(found), len(ids))
        if wanted > 0:
            reason = f"One of {wanted} {split} genes, evenly spread over the genome."
            places = np.linspace(0, len(ids) - 1, wanted).round().astype(int)
            found += [(str(ids[place]), reason) for place in places]
    return found


def locus_pages(
    m: Material, chosen: Sequence[Chosen], frame: pd.DataFrame, *, max_bytes: int
) -> LocusPages:
    """Gather and pack the pages of the chosen genes, as many as fit.

    Parameters
    ----------
    m : Material
    chosen : sequence of Chosen
        In order of importance.
    frame : DataFrame
        Of :func:`seq2exp.report.genes.gene_frame`.
    max_bytes : int
        Room for the packed pages.
    """
    if m.dataset is None or not chosen:
        return LocusPages([], [], [])
    loci = [_gather(m, m.dataset, one) for one in chosen]
    regions = [(data.contig, data.start, data.end) for data in loci]
    variants: list[list[Variant]] = [[] for _ in loci]
    notes = []
    if m.loci.vcf is not None:
        variants, left_out = read_variants(m.loci.vcf, m.dataset, regions)
        if left_out:
            notes.append(
                f"At most {MAX_VARIANTS:,} variants are drawn per locus; {left_out:,} are left out."
            )
    exons = _exons(m, m.dataset, loci)
    order: list[dict[str, Any]] = []
    parts: list[str] = []
    room = max_bytes
    steps = zip(chosen, loci, variants, strict=True)
    for one, data, near in track(
        steps, total=len(loci), label="locus pages", enabled=m.loci.progress
    ):
        document = locus_document(
            data,
            m.dataset,
            sequence_bp=m.loci.sequence_bp,
            variants=near,
            exons=exons,
            contact=_contact(m, m.dataset, one.row),
        )
        packed = page.packed(json.dumps(document, allow_nan=False, separators=(",", ":")))
        entry = _entry(m, one, frame)
        # Its place in the index and in the list of pages, and the tags around it.
        room -= len(packed) + 2 * len(json.dumps(entry)) + 200
        if room < 0:
            break
        order.append(entry)
        parts.append(packed)
    if len(parts) < len(chosen):
        notes.append(
            f"{len(chosen) - len(parts):,} of {len(chosen):,} locus pages are left out, so that "
            f"the report stays below {m.loci.max_bytes / 1e6:g} MB; --max-mb raises the limit."
        )
    return LocusPages(order, parts, notes)


def _gather(m: Material, dataset: Dataset, one: Chosen) -> LocusData:
    if m.masks is not None and m.summary is not None and one.gene_id in m.mapped:
        return locus_data(
            m.masks,
            dataset,
            one.gene_id,
            elements=m.elements,
            threshold=m.summary["threshold"],
            truth=m.truth,
        )
    return bare_locus(dataset, one.row, m.run.card.data)


def _exons(
    m: Material, dataset: Dataset, loci: Sequence[LocusData]
) -> dict[str, list[tuple[int, int]]]:
    if m.loci.annotation is None:
        return {}
    shown = {str(gene) for data in loci for gene in data.genes["gene_id"]}
    return read_exons(m.loci.annotation, dataset, shown)


def _contact(m: Material, dataset: Dataset, row: int) -> NDArray[np.float64] | None:
    if CONTACT not in m.run.card.tracks or not dataset.manifest.contacts.num_bins:
        return None
    config = m.run.card.data
    oriented = gene_window(dataset, row, config)
    window = Window(oriented.contig, oriented.start, oriented.end, "+", oriented.contig_length)
    values = dataset.contact_bins(row, window, bin_size=config.bin_size)
    return np.asarray(values, dtype=np.float64)


def _entry(m: Material, one: Chosen, frame: pd.DataFrame) -> dict[str, Any]:
    """Return what stands above the browser of a locus."""
    row = frame.iloc[one.row]
    tss = int(row["tss"]) + 1
    found = [
        ("TSS", f"{row['contig']}:{tss:,} ({row['strand']} strand)"),
        ("split", str(row["split"])),
    ]
    for sample in m.run.card.samples[:MAX_SAMPLES]:
        values = [row[f"{kind}:{sample}"] for kind in ("observed", "predicted", "residual")]
        words = [("observed", ""), ("predicted", ""), ("residual", "+")]
        text = ", ".join(
            f"{word} {value:{sign}.2f}"
            for value, (word, sign) in zip(values, words, strict=True)
            if math.isfinite(value)
        )
        found.append((sample, text or "no label"))
    if "distal_elements" in row and math.isfinite(row["distal_elements"]):
        found.append(("distal elements", f"{row['distal_elements']:.0f}"))
    return {
        "id": one.gene_id,
        "symbol": str(row["symbol"]),
        "reason": one.reason,
        "facts": [list(pair) for pair in found],
    }


_KEY = (("#d55e00", "this gene"), ("#444444", "other genes"))
_KEY_OF_MAP = (
    ("#222222", "mask (dashed line: threshold of the calls)"),
    ("#a9d5f2", "97.5 % and"),
    ("#4c94c4", "2.5 % quantile of its Beta"),
    ("#0072b2", "called element, and its link to the TSS"),
    ("#c8c8c8", "promoter: mask 1 by construction"),
)


def locus_view(m: Material) -> str:
    """Return the second view of the page, hidden until a gene's address is opened."""
    key = [*_KEY, *(_KEY_OF_MAP if m.elements is not None else ())]
    if m.truth is not None:
        key.append(("#009e73", "true element of this gene (grey: not causal for it)"))
    items = "".join(
        f'<li><i style="background:{colour}"></i>{page.escape(text)}</li>' for colour, text in key
    )
    note = (
        "Wheel and buttons zoom, drag moves; click a feature for its values. Letters of the "
        f"sequence are embedded for the {m.loci.sequence_bp:,} bases around the TSS and are seen "
        "when zoomed in. Positions are 1-based here, as genome browsers show them. In the table a "
        "positive distance lies downstream of the TSS."
    )
    return (
        '<main id="locus" hidden>\n<nav class="crumbs"><a href="#genes">All genes</a>'
        '<a id="locus-back" href="#genes">Previous locus</a>'
        '<a id="locus-forth" href="#genes">Next locus</a></nav>\n'
        '<h2 id="locus-title" tabindex="-1"></h2>\n<p class="sub" id="locus-sub"></p>\n'
        '<div id="locus-body">\n<dl class="facts" id="locus-facts"></dl>\n'
        '<p class="note" id="locus-state" role="status"></p>\n<div id="igv"></div>\n'
        '<div class="print" id="igv-print"><p class="note">The genome browser is drawn on the '
        "screen only.</p></div>\n"
        f'<ul class="key">{items}</ul>\n<p class="note screen">{page.escape(note)}</p>\n'
        '<h3>Called elements</h3>\n<div id="locus-elements"></div>\n</div>\n</main>'
    )
