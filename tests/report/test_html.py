from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from seq2exp.core.errors import ConfigError
from seq2exp.core.files import read_json, write_json
from seq2exp.elements import export
from seq2exp.elements.calling import CallConfig
from seq2exp.elements.compare import CompareConfig, compare_with_truth, write_comparison
from seq2exp.elements.export import export_elements
from seq2exp.report import headline, material
from seq2exp.report.choose import choose_loci
from seq2exp.report.html import write_report
from seq2exp.report.material import LociConfig
from tests.elements.test_compare import truth_at

VOID = {"meta", "img", "br", "link"}


class Checker(HTMLParser):
    """Collects tags that are not closed, links, sources and texts."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.links, self.ids, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.sources += [values[key] for key in ("src", "data", "srcset") if key in values]
        self.links += [values["href"]] if "href" in values else []
        self.ids += [values["id"]] if "id" in values else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(path):
    checker = Checker()
    checker.feed(path.read_text(encoding="utf-8"))
    assert checker.open == []
    return checker


@pytest.fixture
def run_folder(run, dataset, tmp_path, monkeypatch):
    for module in (export, material):
        monkeypatch.setattr(module, "open_run", lambda _: run)
    monkeypatch.setattr(type(run), "dataset_path", lambda _: dataset.root)
    folder = tmp_path / "run <b>&"
    folder.mkdir()
    run.folder = folder
    return folder


EVALUATION = {
    "command": "evaluate",
    "inputs": {"split": "test", "notes": ["few <genes>"]},
    "rows": [
        {"name": name, "metric": metric, "split": "test", "sample": sample}
        | {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 12}
        for name, value in (("model", 0.71), ("<script>alert(1)</script>", 0.3))
        for metric in ("pearson", "mse")
        for sample in (None, "cell_a")
    ],
}


@pytest.fixture
def full(run_folder, dataset, masks):
    write_json(EVALUATION, run_folder / "evaluation.json")
    rows = ["epoch,step,train_loss,valid_loss,valid_pearson,mask_ratio", "0,1,2,3,0.1,0.5"]
    (run_folder / "metrics.csv").write_text("\n".join([*rows, "1,2,1,2,0.2,0.4"]) + "\n")
    config = CallConfig(budget=0.1, min_length_bp=32)
    export_elements(run_folder, run_folder / "elements", config=config)
    truth = truth_at(masks, 350)
    settings = CompareConfig(distal_bp=128, bands_bp=(0, 256, 512), num_resamples=20)
    found = compare_with_truth(masks, dataset, truth, config=settings)
    write_comparison(found, run_folder / "elements" / "comparison.json")
    return write_report(run_folder, truth=truth), found


def test_report_is_whole_and_loads_nothing(full):
    path, _ = full
    checker = parse(path)
    text = path.read_text()
    assert "default-src 'none'" in text
    assert all(source.startswith("data:image/") for source in checker.sources)
    assert checker.links.pop(0) == "data:,"  # the icon
    # Links to locus pages are none without the browser.
    assert all(link.startswith("#") and link[1:] in checker.ids for link in checker.links)
    assert not re.search(r"<(iframe|object|script[^>]* src)", text)
    # metric, training, elements, comparison, loci
    assert len(checker.sources) == 1 + 1 + 1 + 2 + 3
    assert path.stat().st_size < 5_000_000


def test_only_the_script_of_the_page_may_run(full):
    text = full[0].read_text()
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (allowed,) = re.findall(r"script-src ([^;]*);", text)
    digests = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    ]
    assert allowed.split() == [f"'sha256-{digest}'" for digest in digests]
    assert len(scripts) == 1
    # Everything else between script tags is data.
    kinds = set(re.findall(r'<script type="([^"]*)"', text))
    assert kinds == {"text/plain", "application/json"}


def test_numbers_and_intervals_stand_on_top(full):
    path, found = full
    head = path.read_text().split("<nav ")[0]
    assert "r = 0.710 [0.610, 0.810]" in head
    assert f"AUPRC of {found.value('mask', 'auprc')['value']:.3f}" in head
    for role in found.chosen:
        assert role in head


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.1, 0.3, "better than"), (-0.3, -0.1, "worse than"), (-0.1, 0.1, "not shown to be better")],
)
def test_the_strongest_control_is_named(low, high, verdict):
    """The strongest control is the one with the smallest error, whatever its difference."""
    rows = [
        {"name": name, "metric": metric, "sample": None, "value": value, "low": low, "high": high}
        for metric in ("mse", "mse_difference")
        for name, value in (("ridge", 0.2), ("mean", 0.9))
    ]
    (sentence,) = headline._best_control({"rows": rows})
    assert f"The model is {verdict}" in sentence
    assert "ridge" in sentence
    assert headline._best_control(None) == []


def test_texts_are_escaped(full):
    text = "".join(parse(full[0]).text)
    assert "run <b>&" in text
    assert "<script>alert(1)</script>" in text
    assert "few <genes>" in text


def test_missing_parts_are_said_not_hidden(run_folder):
    path = write_report(run_folder)
    text = "".join(parse(path).text)
    for sentence in (
        "it has not been evaluated yet",
        "Not evaluated yet",
        "There is no metrics.csv",
        "No element map yet",
        "this map is a set of hypotheses",
        "Locus pictures need an element map",
        "the genome browser is left out because igv.js is not installed",
        "Residuals need predictions of held-out genes",
        "Predictions are known for 0 of 44 genes",
    ):
        assert sentence.lower() in text.lower()


def test_a_second_report_replaces_the_first(full, run_folder):
    path, _ = full
    first = path.read_bytes()
    assert write_report(run_folder, loci=LociConfig(pictures=0)) == path
    assert path.read_bytes() != first


def test_a_map_of_another_run_or_dataset_is_refused(full, run_folder, run):
    summary = read_json(run_folder / "elements" / "summary.json")
    write_json(summary | {"dataset_checksum": "f" * 64}, run_folder / "elements" / "summary.json")
    with pytest.raises(ConfigError, match="dataset ffffffffffff instead of"):
        write_report(run_folder)
    other = summary | {"model_sha256": "e" * 64}
    run.card = dataclasses.replace(run.card, weights_sha256="d" * 64)
    write_json(other, run_folder / "elements" / "summary.json")
    with pytest.raises(ConfigError, match="model eeeeeeeeeeee instead of dddddddddddd"):
        write_report(run_folder)


def test_what_was_trained_is_said(run_folder, run):
    machine = {"seq2exp": "0.1.0", "torch": "2.13.0", "python": "3.11", "system": "Linux"}
    write_json({"seed": 5, "machine": machine}, run_folder / "manifest.json")
    run.models = run.models * 2
    text = "".join(parse(write_report(run_folder)).text)
    for words in ("toy1", "5, 6", "in each of 2 members", "torch 2.13.0", "1,024 bp", "12 (contig"):
        assert words in text, words


def test_loci_run_from_best_to_worst(masks):
    elements = pd.DataFrame(
        {
            "gene_id": ["chr3_g1"] * 3 + ["chr3_g2"],
            "element_class": ["distal"] * 4,
        }
    )
    loci = choose_loci(masks, elements, number=3)
    assert loci[0].gene_id == "chr3_g1"
    assert [locus.title for locus in loci] == ["Most elements", "A typical gene", "Fewest elements"]
    assert "3 distal elements called" in loci[0].reason
    ranked = choose_loci(masks, elements, truth_at(masks, 350), number=2)
    assert [locus.title for locus in ranked] == ["Where the map works best", "Where it fails"]
    values = [float(re.search(r"gene ([0-9.]+)\.$", locus.reason).group(1)) for locus in ranked]
    assert values[0] >= values[1]
