"""Sections of the report about the element map: elements, comparison, loci."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seq2exp.elements.masks import FREE, GeneMasks
from seq2exp.report import page, plots
from seq2exp.report.choose import Locus, choose_loci
from seq2exp.report.genes import gene_address
from seq2exp.report.igv import MISSING
from seq2exp.report.loci import LocusPages
from seq2exp.report.locus import locus_data, plot_locus
from seq2exp.report.material import Material
from seq2exp.report.rows import MASK, cell, facts_table, find_row, rivals

__all__ = [
    "comparison_section",
    "elements_section",
    "learned_values",
    "loci_section",
    "locus_pictures",
]

MAX_PICTURES = 24
"""Asked loci that are drawn in a report without the genome browser."""


def elements_section(m: Material) -> str:
    """Numbers of the called elements."""
    if m.summary is None:
        text = "No element map yet: run `seq2exp elements` to write one."
        return page.section("elements", "Called elements", page.note(text))
    s = m.summary
    distal = s["distal_per_gene"]
    rows = [
        ("genes", f"{s['genes']:,}"),
        ("distal elements", f"{s['elements'].get('distal', 0):,}"),
        (
            "per gene",
            (
                f"median {distal['median']:g}, mean {distal['mean']:.1f}, most {distal['max']}; "
                f"{distal['genes_without']:,} genes have none"
            ),
        ),
        ("rule", _rule(s)),
        ("union over genes", f"{s['union_bases'] / 1000:,.1f} kb, promoters included"),
    ]
    if s["distal_length_bp"]:
        quartiles = s["distal_length_bp"]
        rows.append(
            (
                "length",
                (
                    f"median {quartiles['median']:.0f} bp, half of them between "
                    f"{quartiles['q25']:.0f} and {quartiles['q75']:.0f} bp"
                ),
            )
        )
    bands = [
        [page.escape(_band(name)), page.escape(f"{count:,}")]
        for name, count in s["distal_by_distance"].items()
    ]
    text = (
        f"The mask of the central {s['promoter_bp']:,} bp is set to 1 by construction. These "
        "promoters are listed as a class of their own and are no evidence."
    )
    parts = [
        facts_table(rows),
        page.note(text),
        page.pair(page.table(["distance from the TSS", "elements"], bands), _classes(m)),
    ]
    if m.elements is not None and m.masks is not None:
        picture = plots.plot_elements(m.elements, learned_values(m.masks), threshold=s["threshold"])
        caption = (
            "Distal elements: lengths, distances from the TSS along transcription, and the mask of "
            "all learned bins with the threshold of the calls."
        )
        parts.append(page.figure(picture, caption))
    return page.section("elements", "Called elements", *parts)


def _classes(m: Material) -> str:
    """Count, length and mask per class of element."""
    if m.elements is None or m.elements.empty:
        return ""
    rows = []
    for name, group in m.elements.groupby("element_class", sort=True):
        length = (group["end"] - group["start"]).median()
        cells = [
            str(name),
            f"{len(group):,}",
            f"{length:,.0f} bp",
            f"{group['mean_mask'].median():.3f}",
        ]
        rows.append([page.escape(cell) for cell in cells])
    return page.table(["class", "elements", "median length", "median mask"], rows)


def learned_values(masks: GeneMasks, *, most: int = 2_000_000) -> NDArray[np.float64]:
    """Return the mask of learned bins; of a large map, that of every k-th gene."""
    step = max(1, masks.mask.size // most)
    rows = np.arange(0, len(masks), step)
    values: NDArray[np.float64] = np.asarray(masks.mask[rows], dtype=np.float64)
    free = np.asarray(masks.forced[rows]) == FREE
    return np.asarray(values[free])


def _band(name: str) -> str:
    low, high = (float(edge) for edge in name.split("-"))
    if math.isinf(high):
        return f"over {low / 1000:g} kb"
    return f"{low / 1000:g} to {high / 1000:g} kb"


def _rule(summary: Mapping[str, Any]) -> str:
    calling = summary["calling"]
    if calling.get("fdr"):
        origin = f"false-discovery level of {100 * calling['fdr']:g} %"
    elif calling["threshold"]:
        origin = "given"
    else:
        origin = f"budget of {100 * calling['budget']:g} % of bins"
    if summary["threshold"] is None:
        return f"no threshold meets the {origin}"
    return (
        f"mask at least {summary['threshold']:.3f} ({origin}); gaps up to "
        f"{calling['max_gap_bp']} bp are joined; at least {calling['min_length_bp']} bp long"
    )


def comparison_section(m: Material) -> str:
    """Compare the mask with its rivals, where a truth is known."""
    title = "Are they the right elements?"
    if not m.comparison:
        text = "No comparison with known elements was made, so this map is a set of hypotheses."
        return page.section("comparison", title, page.note(text))
    c = m.comparison
    rows, inputs, chosen = c["rows"], c["inputs"], list(rivals(c).values())
    budget = f"{max(inputs['settings']['budgets']):g}"
    metrics = ["auprc", f"auprc@{budget}", f"precision@{budget}", f"recall@{budget}"]
    if find_row(c, MASK, "pairs_auprc"):
        metrics.append("pairs_auprc")
    names = [n for n in dict.fromkeys(r["name"] for r in rows) if not n.startswith(f"{MASK} - ")]
    body = [
        [page.escape(name), *(cell(find_row(c, name, metric)) for metric in metrics)]
        for name in names
    ]
    paired = [
        [page.escape(f"{MASK} minus {name}")]
        + [cell(find_row(c, f"{MASK} - {name}", metric), sign="+") for metric in metrics]
        for name in chosen
    ]
    values = {name: row["value"] for name in names if (row := find_row(c, name, "auprc"))}
    picture = plots.plot_precision_recall(
        {name: tuple(c["curves"][name]) for name in [MASK, *chosen] if name in c["curves"]},
        base_rate=inputs["base_rate"],
        values={name: value for name, value in values.items() if value is not None},
    )
    text = (
        f"Truth: {inputs['truth']}. {inputs['genes']:,} {inputs['settings']['split']} genes, "
        f"{inputs['distal_bins']:,} distal bins, {100 * inputs['base_rate']:.1f} % of them in "
        "elements that are true for the gene. Forced promoter bins are left out for all methods."
    )
    explain = (
        f"auprc@{budget} keeps only the best {100 * float(budget):g} % of the bins of each method "
        "(equal budget); precision and recall are those of these bins. "
        "pairs_auprc ranks whole candidate elements instead of bins."
    )
    parts = [
        f"<p>{page.escape(text)}</p>",
        page.table(["", *metrics], body + paired, own=[names.index(MASK)]),
        page.note(explain),
        page.figure(picture, "Precision and recall over the distal bins of all scored genes"),
        page.figure(plots.plot_bands(rows, [MASK, *chosen]), "AUPRC by distance from the TSS"),
    ]
    return page.section("comparison", title, *parts)


def loci_section(m: Material, pages: LocusPages, pictures: Sequence[tuple[Locus, str]]) -> str:
    """Pictures of the best, a typical and the worst locus, and the way to the locus pages."""
    parts = []
    if m.dataset is not None and m.loci.number > 0:
        parts += _how_chosen(m, pages)
    parts += [page.note(text) for text in pages.notes]
    if m.masks is None or m.dataset is None or m.elements is None:
        parts.append(page.note("Locus pictures need an element map and the dataset."))
        return page.section("loci", "Loci", *parts)
    for locus, picture in pictures:
        name = page.escape(locus.title)
        if locus.gene_id in pages.places:
            name = f'<a href="{gene_address(locus.gene_id)}">{name}</a>'
        parts.append(f"<h3>{name}</h3>")
        parts.append(picture)
    return page.section("loci", "Loci", *parts)


def _how_chosen(m: Material, pages: LocusPages) -> list[str]:
    if m.loci.igv is None:
        return [page.note(MISSING)]
    held_out = "average precision of the mask of each gene" if m.truth else "number of elements"
    text = (
        f"{len(pages.order):,} genes have a page of their own with a genome browser: those asked "
        "for, those of the table of residuals, and genes spread evenly from the best to the worst "
        f"by {held_out}, held-out genes first. None was picked by eye."
    )
    links = "".join(
        f'<option value="{page.escape(entry["id"])}">'
        f"{page.escape(entry['symbol'] or entry['id'])}</option>"
        for entry in pages.order
    )
    first = pages.order[0]["id"] if pages.order else ""
    choice = (
        '<div class="controls screen"><label for="locus-choice">Open the page of</label>'
        f'<select id="locus-choice">{links}</select>'
        '<button type="button" id="locus-open">Open</button></div>'
    )
    printed = (
        '<p class="note print">These pages are not part of this print; each prints by itself when '
        "it is open, with the browser as it then stands.</p>"
    )
    return [f"<p>{page.escape(text)}</p>", choice + printed if first else ""]


def locus_pictures(m: Material) -> list[tuple[Locus, str]]:
    """Draw the loci; the asked ones only where there is no browser to show them.

    Returns
    -------
    list of (Locus, HTML)
    """
    return [(locus, _locus(m, locus)) for locus in _drawn(m)]


def _drawn(m: Material) -> list[Locus]:
    if m.masks is None or m.elements is None:
        return []
    chosen = choose_loci(m.masks, m.elements, m.truth, number=m.loci.pictures)
    if m.loci.igv is not None or m.dataset is None:
        return chosen
    ids = m.dataset.genes["gene_id"].astype(str)
    asked = [ids.iloc[row] for row in m.dataset.find_genes(m.loci.genes, what="--genes")]
    known = [gene for gene in asked if gene in m.mapped]
    return [Locus(gene, gene, "Asked for.") for gene in known[:MAX_PICTURES]] + chosen


def _locus(m: Material, locus: Locus) -> str:
    if m.masks is None or m.dataset is None or m.elements is None or m.summary is None:
        return ""
    data = locus_data(
        m.masks,
        m.dataset,
        locus.gene_id,
        elements=m.elements,
        threshold=m.summary["threshold"],
        truth=m.truth,
    )
    return page.figure(plot_locus(data), locus.reason)
