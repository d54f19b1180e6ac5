"""Reports of toy runs, and the pieces of a page."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import numpy as np

from seq2exp.dataset import format as layout
from seq2exp.dataset.store import Dataset
from seq2exp.elements import export
from seq2exp.elements.calling import CallConfig
from seq2exp.elements.export import export_elements
from seq2exp.report import material
from seq2exp.report.igv import IgvScript
from seq2exp.training.predict import gene_table, predict
from tests.toys import ToyPlan, toy_dataset

# Looks like igv.js to a report whose page is not opened.
FAKE_IGV = IgvScript("globalThis.igv = { createBrowser: async () => ({}) };", "0.0.0")
CALLS = CallConfig(budget=0.1, min_length_bp=32)


HOSTILE = "</script><script>alert(1)</script><!--"


def hostile_dataset(root: Path) -> Dataset:
    """Return the toy with names that try to become markup, a line break or a formula."""
    toy_dataset(root, ToyPlan(contacts=True))
    genes = layout.read_table(layout.genes_path(root))
    labels = layout.read_table(layout.expression_path(root))
    genes["symbol"] = [f'{HOSTILE}\u2028=1+1,"a"&amp;{i}' for i in range(len(genes))]
    genes.loc[genes["gene_id"] == "chr3_g4", "gene_id"] = f"{HOSTILE} #%/?&"
    labels["gene_id"] = genes["gene_id"]
    layout.write_table(genes, layout.genes_path(root))
    layout.write_table(labels, layout.expression_path(root))
    layout.finish_manifest(root, layout.read_manifest(root))
    return Dataset(root)


def install_run(monkeypatch, run, dataset: Dataset, folder: Path) -> Path:
    """Make ``folder`` the folder of a run without weights, with predictions and an element map."""
    for module in (export, material):
        monkeypatch.setattr(module, "open_run", lambda _: run)
        monkeypatch.setattr(module, "Dataset", lambda _: dataset)
    monkeypatch.setattr(type(run), "dataset_path", lambda _: dataset.root)
    folder.mkdir(parents=True)
    run.folder = folder
    rows = np.arange(len(dataset.genes))
    table = gene_table(run, dataset, predict(run, dataset, rows))
    layout.write_table(table, folder / "predictions.parquet")
    export_elements(folder, folder / "elements", config=CALLS)
    return folder


def parts_of(page: Path) -> dict[str, str]:
    """Return the data parts of a page by their id."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r'<script type="[^"]*" id="([^"]*)">([^<]*)</script>', text)
    return dict(found)


def unpacked(text: str):
    return json.loads(gzip.decompress(base64.b64decode(text)))


def index_of(page: Path):
    return json.loads(parts_of(page)["data-index"])


def locus_of(page: Path, gene: str):
    parts = parts_of(page)
    return unpacked(parts[f"locus-{json.loads(parts['data-index'])['loci'][gene]}"])
