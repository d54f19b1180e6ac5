"""The report of a run: one self-contained page that a biologist can read, offline and printed."""

from __future__ import annotations

from pathlib import Path

from seq2exp.core.files import atomic_file
from seq2exp.elements.truth import Truth
from seq2exp.report import page
from seq2exp.report.accuracy import data_section, metrics_section, training_section
from seq2exp.report.headline import headline, subtitle
from seq2exp.report.maps import comparison_section, elements_section, loci_section
from seq2exp.report.material import Material, gather
from seq2exp.report.rows import MODEL, find_row

__all__ = ["write_report"]


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
    num_loci: int = 3,
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
        Drawn in the locus pictures.
    num_loci : int
        Number of locus pictures.

    Raises
    ------
    InputError
        The folder holds no finished run.
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
        num_loci=num_loci,
    )
    text = page.document(
        f"seq2exp report: {run_folder.name}",
        subtitle(material),
        headline(material),
        [
            data_section(material),
            metrics_section(material),
            training_section(material),
            elements_section(material),
            comparison_section(material),
            loci_section(material),
            _files_section(material),
            _limits_section(material),
        ],
    )
    target = Path(out or run_folder / "report.html")
    with atomic_file(target, overwrite=True) as partial:
        partial.write_text(text, encoding="utf-8")
    return target


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
        page.table(["what", "file", "opens in"], cells, text="text"),
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
