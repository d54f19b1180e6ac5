"""The report of a run: one self-contained page that a biologist can read, offline and printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from seq2exp.core.files import atomic_file
from seq2exp.elements.truth import Truth
from seq2exp.report import page
from seq2exp.report.accuracy import data_section, metrics_section, training_section
from seq2exp.report.genes import (
    extreme_genes,
    extremes_section,
    gene_frame,
    genes_section,
    table_document,
)
from seq2exp.report.headline import headline, subtitle
from seq2exp.report.loci import LocusPages, choose_pages, locus_pages, locus_view
from seq2exp.report.maps import (
    comparison_section,
    elements_section,
    loci_section,
    locus_pictures,
)
from seq2exp.report.material import LociConfig, Material, gather
from seq2exp.report.rows import MODEL, find_row

__all__ = ["write_report"]

_ORDER = ("data", "accuracy", "training", "elements", "comparison", "extremes", "genes", "loci",
          "files", "limits")  # fmt: skip
# Room for what is written after the locus pages are packed: table of residuals, style, tags.
_MARGIN = 60_000


def write_report(
    run_folder: Path,
    *,
    out: Path | None = None,
    data: Path | None = None,
    evaluation: Path | None = None,
    predictions: Path | None = None,
    elements: Path | None = None,
    comparison: Path | None = None,
    truth: Truth | None = None,
    loci: LociConfig | None = None,
) -> Path:
    """Write the report of a run and return its path; missing parts are left out with a sentence.

    Parameters
    ----------
    run_folder : Path
        Folder of a finished run.
    out : Path, optional
        ``report.html`` in the run folder when not given; an older one is replaced.
    data : Path, optional
        Dataset; the one of the training when not given.
    evaluation : Path, optional
        JSON of ``seq2exp evaluate``; ``evaluation.json`` of the run when not given.
    predictions : Path, optional
        ``predictions.parquet`` of the run when not given.
    elements : Path, optional
        Folder of ``seq2exp elements``; ``elements`` of the run when not given.
    comparison : Path, optional
        JSON of a comparison with a truth; ``comparison.json`` of the elements folder when not
        given.
    truth : Truth, optional
        Drawn in the loci.
    loci : LociConfig, optional
        Which loci are shown, and with what.

    Raises
    ------
    InputError
        The folder holds no finished run, or a gene is not in the dataset.
    ConfigError
        The element map or the dataset does not fit the run.
    """
    run_folder = Path(run_folder)
    folder = Path(elements or run_folder / "elements")
    material = gather(
        run_folder,
        data=data,
        evaluation=Path(evaluation or run_folder / "evaluation.json"),
        predictions=Path(predictions or run_folder / "predictions.parquet"),
        folder=folder,
        comparison=Path(comparison or folder / "comparison.json"),
        truth=truth,
        loci=loci or LociConfig(),
    )
    text = _compose(f"seq2exp report: {run_folder.name}", material)
    target = Path(out or run_folder / "report.html")
    with atomic_file(target, overwrite=True) as partial:
        partial.write_text(text, encoding="utf-8")
    return target


def _compose(title: str, m: Material) -> str:
    frame = gene_frame(m)
    extremes = extreme_genes(m, frame)
    sections = {
        "data": data_section(m),
        "accuracy": metrics_section(m),
        "training": training_section(m),
        "elements": elements_section(m),
        "comparison": comparison_section(m),
        "genes": genes_section(m, frame),
        "files": _files_section(m),
        "limits": _limits_section(m),
    }
    data = (
        [] if frame.empty else [page.part("data-genes", page.packed(_json(table_document(frame))))]
    )
    script = page.asset("report.js")
    engine = m.loci.igv
    pictures = locus_pictures(m)
    pages = LocusPages([], [], [])
    if engine is not None:
        packed_engine = page.part("data-igv", page.packed(engine.text))
        drawn = [picture for _, picture in pictures]
        used = sum(map(len, [*sections.values(), *data, *drawn, script, packed_engine]))
        chosen = choose_pages(m, extremes)
        pages = locus_pages(m, chosen, frame, max_bytes=m.loci.max_bytes - used - _MARGIN)
        data += [packed_engine] if pages.parts else []
        data += [page.part(f"locus-{place}", text) for place, text in enumerate(pages.parts)]
    sections["extremes"] = extremes_section(m, extremes, paged=pages.places)
    sections["loci"] = loci_section(m, pages, pictures)
    index = {
        "title": title,
        "assembly": m.run.card.assembly,
        "mapped": m.elements is not None,
        "loci": pages.places,
        "order": pages.order,
    }
    data.append(page.part("data-index", page.script_json(index), kind="application/json"))
    return page.document(
        title,
        subtitle(m),
        headline(m),
        [sections[name] for name in _ORDER],
        after=[locus_view(m), *data],
        scripts=[script],
        allowed=[engine.text] if engine is not None else [],
    )


def _json(value: Any) -> str:  # noqa: ANN401
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _files_section(m: Material) -> str:
    rows = [("model", "RUN/model (config.yaml and model.safetensors)", "seq2exp predict, variants")]
    if m.folder is not None:
        rows += [
            ("elements per gene", "elements.bed.gz, .tbi", "IGV, UCSC, bedtools, pandas"),
            ("elements, union", "union.bed.gz, .tbi", "IGV, UCSC, bedtools"),
            ("element-gene links", "links.bedpe.gz, .tbi", "IGV, bedtools, pandas"),
            ("mask without promoters", "mask.bw, mask_mean.bw", "IGV, UCSC, pyBigWig"),
            ("mask as the model saw it", "mask_full.bw", "IGV, UCSC, pyBigWig"),
            ("masks of all genes", "masks/ (mask.npy, genes.parquet)", "numpy, pandas"),
        ]
    cells = [[page.escape(cell) for cell in row] for row in rows]
    where = f"Run: {m.run.folder.absolute()}."
    where += f" Element map: {m.folder.absolute()}." if m.folder else ""
    return page.section(
        "files",
        "Where the files are and how to open them",
        f"<p>{page.escape(where)}</p>",
        page.table(["what", "file", "opens in"], cells, text="text files"),
    )


def _limits_section(m: Material) -> str:
    texts = [
        (
            "An element is a stretch of DNA that this model reads to predict expression. That is "
            "evidence for regulation, not proof; a deletion or CRISPRi experiment is."
        ),
        f"Nothing farther than {m.run.card.data.window_bp // 2:,} bp from a TSS can be found.",
        "Distances are signed along transcription; positions in BED and bigWig are 0-based.",
    ]
    if m.evaluation is not None:
        genes = (find_row(m.evaluation, MODEL, "pearson") or {}).get("n", 0)
        if genes and genes < 50:
            texts.append(f"Only {genes} genes were held out: the intervals above are wide.")
    return page.section("limits", "Limits", *(f"<p>{page.escape(text)}</p>" for text in texts))
