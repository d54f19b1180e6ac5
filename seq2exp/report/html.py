"""The report of a run: one self-contained page that a biologist can read, offline and printed."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seq2exp.core.files import atomic_file, read_json
from seq2exp.dataset.format import read_table
from seq2exp.dataset.store import Dataset
from seq2exp.elements.calling import ELEMENT_COLUMNS
from seq2exp.elements.masks import GeneMasks, load_masks
from seq2exp.elements.truth import Truth
from seq2exp.report import page, plots
from seq2exp.report.choose import Locus, choose_loci
from seq2exp.report.locus import locus_data, plot_locus
from seq2exp.training.run import TrainedRun, open_run

__all__ = ["write_report"]

logger = logging.getLogger(__name__)

_METRICS = ("pearson", "spearman", "mse", "mae", "r2")
_MODEL = "model"
_MASK = "mask"
_ROLES = ("peak caller", "strongest signal", "distance", "contact x activity")


@dataclass(frozen=True, eq=False)
class _Material:
    """What exists of a run; anything but the run may be missing."""

    run: TrainedRun
    dataset: Dataset | None
    evaluation: Mapping[str, Any] | None
    predictions: pd.DataFrame | None
    metrics: pd.DataFrame | None
    folder: Path | None
    summary: Mapping[str, Any] | None
    masks: GeneMasks | None
    elements: pd.DataFrame | None
    comparison: Mapping[str, Any] | None
    truth: Truth | None
    num_loci: int


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
    material = _gather(
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
        _subtitle(material),
        _headline(material),
        [
            _data_section(material),
            _metrics_section(material),
            _training_section(material),
            _elements_section(material),
            _comparison_section(material),
            _loci_section(material),
            _files_section(material),
            _limits_section(material),
        ],
    )
    target = Path(out or run_folder / "report.html")
    with atomic_file(target, overwrite=True) as partial:
        partial.write_text(text, encoding="utf-8")
    return target


def _gather(
    run_folder: Path,
    *,
    data: Path | None,
    evaluation: Path,
    predictions: Path,
    folder: Path,
    comparison: Path,
    truth: Truth | None,
    num_loci: int,
) -> _Material:
    run = open_run(run_folder)
    root = Path(data) if data else run.dataset_path()
    metrics = [*sorted(run_folder.glob("members/*/metrics.csv")), run_folder / "metrics.csv"]
    table = next((path for path in metrics if path.is_file()), None)
    mapped = (folder / "summary.json").is_file()
    bed = folder / "elements.bed.gz"
    return _Material(
        run=run,
        dataset=Dataset(root) if (root / "manifest.json").is_file() else None,
        evaluation=read_json(evaluation) if evaluation.is_file() else None,
        predictions=read_table(predictions) if predictions.is_file() else None,
        metrics=pd.read_csv(table) if table else None,
        folder=folder if mapped else None,
        summary=read_json(folder / "summary.json") if mapped else None,
        masks=load_masks(folder / "masks") if mapped else None,
        elements=pd.read_csv(bed, sep="\t", names=list(ELEMENT_COLUMNS)) if mapped else None,
        comparison=read_json(comparison) if comparison.is_file() else None,
        truth=truth,
        num_loci=num_loci,
    )


def _subtitle(m: _Material) -> str:
    card = m.run.card
    return (
        f"{card.model['name']}, {len(m.run.models)} member(s); assembly {card.assembly}; "
        f"seq2exp {card.package_version}; model {card.weights_sha256[:12]}"
    )


def _headline(m: _Material) -> list[str]:
    sentences = []
    own = _find(m.evaluation, _MODEL, "pearson")
    if own and own["value"] is not None:
        sentences.append(
            f"On {own['n']:,} {_genes_of(own['split'])}, predicted and observed expression "
            f"correlate at r = {_number(own)}."
        )
    sentences += _best_control(m.evaluation)
    found = _find(m.comparison, _MASK, "auprc")
    if found and m.comparison:
        parts = []
        for role, name in _rivals(m.comparison).items():
            row = _find(m.comparison, f"{_MASK} - {name}", "auprc")
            if row and row["value"] is not None:
                verdict = "better than" if (row["low"] or 0) > 0 else "not better than"
                if (row["high"] or 0) < 0:
                    verdict = "worse than"
                parts.append(f"{verdict} {role} ({row['value']:+.3f} {_range(row)})")
        rate = m.comparison["inputs"]["base_rate"]
        sentences.append(
            f"The mask finds true distal elements with an AUPRC of {_number(found)} where chance "
            f"gives {rate:.3f}: " + ", ".join(parts) + "."
        )
    if m.summary and not found:
        sentences.append(
            f"{m.summary['elements'].get('distal', 0):,} distal elements were called for "
            f"{m.summary['genes']:,} genes."
        )
    return sentences or ["The run is trained; it has not been evaluated yet."]


def _best_control(evaluation: Mapping[str, Any] | None) -> list[str]:
    """Say whether the model beats the control with the smallest error, judged by pairs."""
    rows = [
        row
        for row in (evaluation or {}).get("rows", [])
        if row["metric"] == "mse" and row["name"] != _MODEL and row.get("sample") is None
    ]
    known = [row for row in rows if row["value"] is not None]
    if not known:
        return []
    name = min(known, key=lambda row: row["value"])["name"]
    paired = _find(evaluation, name, "mse_difference")
    if not paired or paired["value"] is None:
        return []
    better = (paired["low"] or 0) > 0
    worse = (paired["high"] or 0) < 0
    verdict = "better than" if better else "worse than" if worse else "not shown to be better than"
    sentence = (
        f"The model is {verdict} its strongest control, {name}: squared error of the control "
        f"minus that of the model {paired['value']:+.3f} {_range(paired)}."
    )
    return [sentence]


def _genes_of(split: str) -> str:
    if split == "train":
        return "genes the model was trained on"
    return f"{split} genes the model was not trained on"


def _data_section(m: _Material) -> str:
    card = m.run.card
    rows = [
        ("window", f"{card.data.window_bp:,} bp around the TSS, {card.data.bin_size} bp bins"),
        ("tracks", ", ".join(card.tracks) or "none"),
        ("predicted samples", ", ".join(card.samples)),
        ("unit", f"{card.expression_unit or 'unknown'}, {card.expression_transform} transformed"),
        ("training contigs", ", ".join(card.train_contigs)),
    ]
    if m.dataset is None:
        missing = page.note(
            "The dataset is not where the run was trained; its counts are left out."
        )
        return page.section("data", "What was trained on what", _facts(rows), missing)
    genes = m.dataset.genes
    for split, group in genes.groupby("split", sort=False):
        where = ", ".join(sorted(map(str, group["contig"].unique()))[:8])
        rows.append((f"{split} genes", f"{len(group):,} (contigs {where})"))
    rows.append(("dataset", f"{m.dataset.root.name} (checksum {m.dataset.manifest.checksum[:12]})"))
    return page.section("data", "What was trained on what", _facts(rows))


def _facts(rows: Sequence[tuple[str, str]]) -> str:
    cells = [[page.escape(key), page.escape(value)] for key, value in rows]
    return page.table(["", ""], cells, text="text")


def _metrics_section(m: _Material) -> str:
    if not m.evaluation:
        text = "Not evaluated yet: run `seq2exp evaluate` to compare the model with its controls."
        return page.section("accuracy", "Accuracy beside controls", page.note(text))
    rows = [row for row in m.evaluation["rows"] if row.get("sample") is None]
    metrics = [name for name in _METRICS if any(row["metric"] == name for row in rows)]
    names = list(dict.fromkeys(row["name"] for row in rows if row["metric"] in metrics))
    body = [
        [page.escape(name), *(_cell(_find(m.evaluation, name, metric)) for metric in metrics)]
        for name in names
    ]
    own = [number for number, name in enumerate(names) if name == _MODEL]
    parts = [
        (
            f"<p>Metrics across {page.escape(_genes_of(rows[0]['split']))}. Ranges are 95 % "
            "bootstrap intervals over genes. "
            "A control that does as well as the model explains it.</p>"
        ),
        page.table(["", *metrics], body, own=own),
    ]
    notes = m.evaluation.get("inputs", {}).get("notes", [])
    parts += [page.note(str(text)) for text in notes]
    metric = "pearson" if "pearson" in metrics else metrics[0]
    picture = plots.plot_metric([row for row in rows if row["name"] in names], metric)
    parts.append(page.figure(picture, f"{metric} across genes, model and controls"))
    parts += _scatter(m)
    return page.section("accuracy", "Accuracy beside controls", *parts)


def _scatter(m: _Material) -> list[str]:
    if m.predictions is None:
        return []
    sample = m.run.card.samples[0]
    columns = [f"observed:{sample}", f"predicted:{sample}"]
    if any(column not in m.predictions for column in columns):
        return []
    split = (m.evaluation or {}).get("inputs", {}).get("split", "test")
    shown = m.predictions[m.predictions["split"] == split].dropna(subset=columns)
    if shown.empty:
        return []
    unit = f"{m.run.card.expression_unit}, {m.run.card.expression_transform}".strip(", ")
    picture = plots.plot_scatter(
        shown[columns[0]], shown[columns[1]], unit=unit or "expression", title=sample
    )
    text = f"Each point is one {split} gene; the line is perfect agreement."
    return [page.figure(picture, text, kind="png")]


def _training_section(m: _Material) -> str:
    if m.metrics is None or m.metrics.empty:
        return page.section("training", "Training", page.note("There is no metrics.csv."))
    last = len(m.metrics)
    caption = f"{last} epochs; the vertical line marks the epoch that was kept."
    return page.section(
        "training", "Training", page.figure(plots.plot_training(m.metrics), caption)
    )


def _elements_section(m: _Material) -> str:
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
        _facts(rows),
        page.note(text),
        page.table(["distance from the TSS", "elements"], bands),
    ]
    return page.section("elements", "Called elements", *parts)


def _band(name: str) -> str:
    low, high = (float(edge) for edge in name.split("-"))
    if math.isinf(high):
        return f"over {low / 1000:g} kb"
    return f"{low / 1000:g} to {high / 1000:g} kb"


def _rule(summary: Mapping[str, Any]) -> str:
    calling = summary["calling"]
    origin = "given" if calling["threshold"] else f"budget of {100 * calling['budget']:g} % of bins"
    return (
        f"mask at least {summary['threshold']:.3f} ({origin}); gaps up to "
        f"{calling['max_gap_bp']} bp are joined; at least {calling['min_length_bp']} bp long"
    )


def _comparison_section(m: _Material) -> str:
    title = "Are they the right elements?"
    if not m.comparison:
        text = "No comparison with known elements was made, so this map is a set of hypotheses."
        return page.section("comparison", title, page.note(text))
    c = m.comparison
    rows, inputs, chosen = c["rows"], c["inputs"], list(_rivals(c).values())
    budget = f"{max(inputs['settings']['budgets']):g}"
    metrics = ["auprc", f"auprc@{budget}", f"precision@{budget}", f"recall@{budget}"]
    if _find(c, _MASK, "pairs_auprc"):
        metrics.append("pairs_auprc")
    names = [n for n in dict.fromkeys(r["name"] for r in rows) if not n.startswith(f"{_MASK} - ")]
    body = [
        [page.escape(name), *(_cell(_find(c, name, metric)) for metric in metrics)]
        for name in names
    ]
    paired = [
        [page.escape(f"{_MASK} minus {name}")]
        + [_cell(_find(c, f"{_MASK} - {name}", metric), sign="+") for metric in metrics]
        for name in chosen
    ]
    values = {name: row["value"] for name in names if (row := _find(c, name, "auprc"))}
    picture = plots.plot_precision_recall(
        {name: tuple(c["curves"][name]) for name in [_MASK, *chosen] if name in c["curves"]},
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
        page.table(["", *metrics], body + paired, own=[names.index(_MASK)]),
        page.note(explain),
        page.figure(picture, "Precision and recall over the distal bins of all scored genes"),
        page.figure(plots.plot_bands(rows, [_MASK, *chosen]), "AUPRC by distance from the TSS"),
    ]
    return page.section("comparison", title, *parts)


def _loci_section(m: _Material) -> str:
    if m.masks is None or m.dataset is None or m.elements is None or m.num_loci < 1:
        text = "Locus pictures need an element map and the dataset."
        return page.section("loci", "Loci", page.note(text))
    parts = []
    for locus in choose_loci(m.masks, m.elements, m.truth, number=m.num_loci):
        parts.append(f"<h3>{page.escape(locus.title)}</h3>")
        parts.append(_locus(m, locus))
    return page.section("loci", "Loci", *parts)


def _locus(m: _Material, locus: Locus) -> str:
    if m.masks is None or m.dataset is None or m.elements is None or m.summary is None:
        return ""
    data = locus_data(
        m.masks,
        m.dataset,
        locus.gene_id,
        elements=m.elements,
        threshold=float(m.summary["threshold"]),
        truth=m.truth,
    )
    return page.figure(plot_locus(data), locus.reason)


def _files_section(m: _Material) -> str:
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


def _limits_section(m: _Material) -> str:
    texts = [
        (
            "An element is a stretch of DNA that this model reads to predict expression. That is "
            "evidence for regulation, not proof; a deletion or CRISPRi experiment is."
        ),
        f"Nothing farther than {m.run.card.data.window_bp // 2:,} bp from a TSS can be found.",
        "Distances are signed along transcription; positions in BED and bigWig are 0-based.",
    ]
    if m.evaluation is not None:
        genes = (_find(m.evaluation, _MODEL, "pearson") or {}).get("n", 0)
        if genes and genes < 50:
            texts.append(f"Only {genes} genes were held out: the intervals above are wide.")
    return page.section("limits", "Limits", *(f"<p>{page.escape(text)}</p>" for text in texts))


def _rivals(comparison: Mapping[str, Any]) -> dict[str, str]:
    """Role and name of the rivals, in a fixed order (JSON files are sorted by key)."""
    chosen = comparison["chosen"]
    return {role: chosen[role] for role in _ROLES if role in chosen}


def _find(document: Mapping[str, Any] | None, name: str, metric: str) -> dict[str, Any] | None:
    if not document:
        return None
    rows = (
        row
        for row in document["rows"]
        if row["name"] == name and row["metric"] == metric and row.get("sample") is None
    )
    return next(rows, None)


def _number(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.3f} {_range(row)}".strip()


def _range(row: Mapping[str, Any]) -> str:
    if row.get("low") is None or row.get("high") is None:
        return ""
    return f"[{row['low']:.3f}, {row['high']:.3f}]"


def _cell(row: Mapping[str, Any] | None, *, sign: str = "") -> str:
    if row is None or row["value"] is None or not np.isfinite(row["value"]):
        return "-"
    value = f"{row['value']:{sign}.3f}"
    return f'{value}<br><span class="range">{_range(row)}</span>' if _range(row) else value
