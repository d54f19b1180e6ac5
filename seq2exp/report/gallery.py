"""Pictures beside an element map: loci, and the comparison with a truth where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seq2exp.core.files import safe_name
from seq2exp.dataset.store import Dataset
from seq2exp.elements.compare import Comparison
from seq2exp.elements.folder import open_elements
from seq2exp.elements.scored import MODEL
from seq2exp.elements.truth import Truth
from seq2exp.report import plots
from seq2exp.report.choose import choose_loci
from seq2exp.report.locus import locus_data, plot_locus
from seq2exp.report.style import save_figure

__all__ = ["write_gallery"]


def write_gallery(
    folder: Path,
    dataset: Dataset,
    *,
    truth: Truth | None = None,
    comparison: Comparison | None = None,
    genes: Sequence[str] = (),
    num_loci: int = 3,
    formats: tuple[str, ...] = ("png", "svg"),
) -> list[Path]:
    """Draw loci and comparison of an element map into ``folder/plots`` and return the files.

    Parameters
    ----------
    folder : Path
        What :func:`seq2exp.elements.export.export_elements` wrote.
    dataset : Dataset
    truth : Truth, optional
        Drawn in the loci; also chooses them.
    comparison : Comparison, optional
    genes : sequence of str
        Ids or symbols to draw in place of chosen loci.
    num_loci : int
        Number of chosen loci.
    formats : tuple of str
        png, svg, pdf.

    Raises
    ------
    InputError
        A gene is unknown.
    """
    found = open_elements(folder)
    masks, elements = found.masks, found.elements
    chosen = list(genes) or [
        locus.gene_id for locus in choose_loci(masks, elements, truth, number=num_loci)
    ]
    written = []
    for gene in chosen:
        data = locus_data(
            masks,
            dataset,
            gene,
            elements=elements,
            threshold=found.summary["threshold"],
            truth=truth,
        )
        written.append(folder / "plots" / f"locus_{safe_name(gene)}")
        save_figure(plot_locus(data), written[-1], formats=formats)
    if comparison is not None:
        written += _comparison(comparison, folder / "plots", formats)
    return [path.with_name(f"{path.name}.{suffix}") for path in written for suffix in formats]


def _comparison(comparison: Comparison, folder: Path, formats: tuple[str, ...]) -> list[Path]:
    names = [MODEL, *comparison.chosen.values()]
    found = {name: comparison.value(name, "auprc") for name in names}
    curve = plots.plot_precision_recall(
        {name: comparison.curves[name] for name in names},
        base_rate=comparison.info["base_rate"],
        values={name: row["value"] for name, row in found.items() if row},
    )
    save_figure(curve, folder / "precision_recall", formats=formats)
    save_figure(
        plots.plot_bands(comparison.rows, names), folder / "auprc_by_distance", formats=formats
    )
    return [folder / "precision_recall", folder / "auprc_by_distance"]
