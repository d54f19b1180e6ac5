"""The page in headless Chromium: clicked through, offline, without a complaint."""

from __future__ import annotations

import csv
import io
import json
import time
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

from seq2exp.dataset.samples import SampleConfig
from seq2exp.dataset.store import Dataset
from seq2exp.elements.masks import gene_masks
from seq2exp.report.html import write_report
from seq2exp.report.igv import find_igv
from seq2exp.report.material import LociConfig
from tests.elements.fakes import fake_run
from tests.elements.test_compare import truth_at
from tests.report.builders import HOSTILE, hostile_dataset, index_of, install_run
from tests.report.chromium import chromium, find_chromium
from tests.report.test_variants import write_vcf
from tests.toys import ToyPlan, toy_dataset

pytestmark = [
    pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed"),
    pytest.mark.skipif(
        find_igv() is None, reason="igv.js is not installed: pip install --no-deps igv-notebook"
    ),
]

ROWS = "document.querySelectorAll('table.genes tbody tr').length"
DRAWN = """(() => {
  const all = (node) => [...node.querySelectorAll('*')].flatMap((child) =>
    [child, ...(child.shadowRoot ? all(child.shadowRoot) : [])]);
  const holder = document.getElementById('igv');
  const inside = [...(holder.shadowRoot ? all(holder.shadowRoot) : []), ...all(holder)];
  const canvases = inside.filter((e) => e.tagName === 'CANVAS' && e.width && e.height);
  const painted = canvases.filter((e) => {
    const data = e.getContext('2d').getImageData(0, 0, e.width, e.height).data;
    return data.some((value, i) => i % 4 < 3 && data[i - i % 4 + 3] && value && value < 255);
  });
  return { labels: inside.filter((e) => e.classList.contains('igv-track-label'))
    .map((e) => e.textContent), painted: painted.length };
})()"""


@pytest.fixture(scope="module")
def tab():
    with chromium() as found:
        found.size(1400, 1000)
        yield found


@pytest.fixture(autouse=True)
def forget(request):
    if "tab" in request.fixturenames:
        found = request.getfixturevalue("tab")
        found.requests.clear()
        found.complaints.clear()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report of the toy with everything in it."""
    folder = tmp_path_factory.mktemp("report")
    data = Dataset(toy_dataset(folder / "data", ToyPlan(contacts=True)))
    run = fake_run(data, config=SampleConfig(window_bp=1024, bin_size=32, contacts=True))
    truth = truth_at(gene_masks(run, data, range(44)), 350)
    with pytest.MonkeyPatch.context() as patch:
        place = install_run(patch, run, data, folder / "run")
        vcf = write_vcf(folder / "v.vcf", data, [("chr3", p) for p in range(6100, 7000, 90)])
        loci = LociConfig(igv=find_igv(), vcf=vcf, genes=("chr3_g4",), number=8, pictures=1)
        page = write_report(place, truth=truth, loci=loci)
    labels = pd.Series(data.expression[:, 0], index=data.genes["gene_id"])
    return SimpleNamespace(page=page, labels=labels, genes=data.genes)


def names(tab):
    return tab.run("[...document.querySelectorAll('table.genes tbody tr')].map("
                   "(row) => row.cells[0].textContent)")  # fmt: skip


def column(tab, number):
    return tab.run("[...document.querySelectorAll('table.genes tbody tr')].map("
                   f"(row) => row.cells[{number}].textContent)")  # fmt: skip


def assert_offline(tab, page):
    """Only the file itself, and what it carries."""
    others = [url for url in tab.requests if not url.startswith(("data:", "blob:"))]
    assert set(others) == {page.absolute().as_uri()}
    assert tab.complaints == []


def test_a_reader_clicks_through_the_page(tab, made):
    """Open, search, sort, open a locus, see it drawn, go on, go back: nothing leaves the file."""
    tab.open(made.page)
    tab.wait(f"{ROWS} === 25")
    # Held-out genes come first.
    assert names(tab)[:12] == [f"chr3_g{i}" for i in range(12)]
    tab.click("#gene-search")
    tab.type("g4")
    tab.wait(f"{ROWS} === 3")
    assert set(names(tab)) == {"chr1_g4", "chr2_g4", "chr3_g4"}
    assert "3 of 44 genes" in tab.run("document.querySelector('.status').textContent")
    tab.click("table.genes td a")
    tab.wait("location.hash === '#gene=chr3_g4' && document.getElementById('overview').hidden")
    tab.wait("document.getElementById('locus-state').textContent === ''")
    expected = ["genes", "DNase (fold change)", "H3K27ac (fold change)", "contact with the TSS",
                "mask", "mask, 95 % interval", "called elements", "links to the TSS", "truth: toy",
                "variants"]  # fmt: skip
    tab.wait(f"{DRAWN}.labels.length >= {len(expected)}")
    # Every track is drawn, the ruler and the sequence too.
    tab.wait(f"{DRAWN}.painted >= {len(expected) + 1}")
    assert tab.run(DRAWN)["labels"] == expected
    assert tab.run("document.activeElement.id") == "locus-title"
    assert "CHR3G4 (chr3_g4)" in tab.run("document.getElementById('locus-title').textContent")
    assert tab.run("document.querySelectorAll('#locus-elements tbody tr').length") >= 1
    tab.click("#locus-forth")
    second = index_of(made.page)["order"][1]["id"]
    tab.wait(f"location.hash === '#gene={second}'")
    tab.wait(f"document.getElementById('locus-state').textContent === '' && {DRAWN}.painted > 5")
    tab.run("history.go(-2)")
    tab.wait("!document.getElementById('overview').hidden")
    assert tab.run(DRAWN) == {"labels": [], "painted": 0}
    assert_offline(tab, made.page)


def test_the_table_sorts_and_pages_by_keyboard(tab, made):
    tab.open(made.page)
    tab.wait(f"{ROWS} === 25")
    heads = tab.run("[...document.querySelectorAll('table.genes th')].map((h) => h.textContent)")
    place = heads.index("observed cell_a")
    tab.run(f"document.querySelectorAll('table.genes th button')[{place}].focus()")
    for direction, reverse in (("ascending", False), ("descending", True)):
        tab.press("Enter")
        state = f"document.querySelectorAll('table.genes th')[{place}].getAttribute('aria-sort')"
        tab.wait(f"{state} === '{direction}'")
        shown = [float(text.replace("\u2212", "-")) for text in column(tab, place)]
        expected = sorted(made.labels.round(4), reverse=reverse)[:25]
        np.testing.assert_allclose(shown, expected, atol=6e-4)
    tab.run("[...document.querySelectorAll('.pager button')][1].focus()")
    tab.press("Enter")
    tab.wait(f"{ROWS} === {44 - 25}")
    # The second label is unknown for one gene of each contig: unknown values come last both ways.
    other = heads.index("observed cell_b")
    for _ in range(2):
        tab.click(f"table.genes th:nth-child({other + 1}) button")
        tab.run("[...document.querySelectorAll('.pager button')][1].click()")
        assert column(tab, other)[-3:] == ["", "", ""]
    tab.run("document.getElementById('gene-split').value = 'valid';"
            "document.getElementById('gene-split').dispatchEvent(new Event('change'))")  # fmt: skip
    tab.wait(f"{ROWS} === 8")
    tab.click("#gene-only")
    tab.wait(f"{ROWS} === 0")
    assert_offline(tab, made.page)


def test_the_table_is_saved_as_csv(tab, made):
    tab.open(made.page)
    tab.wait(f"{ROWS} === 25")
    # The address of the download, in place of the download.
    tab.run("HTMLAnchorElement.prototype.click = function () { window.saved = this.href; }")
    tab.click("#gene-search")
    tab.type("chr3")
    tab.wait(f"{ROWS} === 12")
    tab.click("#gene-csv")
    address = tab.wait("window.saved")
    assert address.startswith("data:text/csv")
    rows = list(csv.DictReader(io.StringIO(unquote(address.split(",", 1)[1]))))
    assert [row["gene_id"] for row in rows] == [f"chr3_g{i}" for i in range(12)]
    np.testing.assert_allclose(
        [float(row["observed:cell_a"]) for row in rows], made.labels.iloc[32:], atol=6e-5
    )
    assert [int(row["tss"]) for row in rows] == made.genes["tss"].iloc[32:].tolist()


def test_a_gene_without_a_page_and_a_place_of_the_overview(tab, made):
    tab.open(made.page)
    tab.wait(f"{ROWS} === 25")
    tab.run("location.hash = '#gene=%3Cb%3Enobody'")
    tab.wait("!document.getElementById('locus').hidden")
    text = tab.run("document.getElementById('locus-sub').textContent")
    assert "has no locus page in this report" in text
    assert "--genes <b>nobody" in text
    assert tab.run("document.querySelectorAll('#locus b').length") == 0
    tab.run("location.hash = '#elements'")
    tab.wait("!document.getElementById('overview').hidden")
    # The choice of a locus leads to it.
    tab.click("#locus-open")
    tab.wait("location.hash === '#gene=chr3_g4'")
    tab.wait("document.getElementById('locus-state').textContent === ''")
    assert_offline(tab, made.page)


def test_a_name_that_the_browser_does_not_know_is_not_looked_up_outside(tab, made):
    """igv.js would ask a web service."""
    box = DRAWN.replace("return { labels", "return inside.find((e) => e.className === "
                        "'igv-search-input'); return { labels")  # fmt: skip
    tab.open(made.page)
    tab.run("location.hash = '#gene=chr3_g4'")
    tab.wait(f"Boolean({box})")
    tab.wait("document.getElementById('locus-state').textContent === ''")
    for text in ("MYC", "chr3:6,500-6,600"):
        tab.run(f"{box}.focus(), {box}.select()")
        tab.type(text)
        tab.press("Enter")
        time.sleep(0.5)
    tab.wait(f"{box}.value === 'chr3:6,500-6,600'")
    assert_offline(tab, made.page)


def test_hostile_names_are_shown_and_run_nothing(tab, tmp_path, monkeypatch):
    data = hostile_dataset(tmp_path / "data")
    gene = f"{HOSTILE} #%/?&"
    place = install_run(monkeypatch, fake_run(data), data, tmp_path / "run")
    page = write_report(place, loci=LociConfig(igv=find_igv(), genes=(gene,), number=4, pictures=0))
    tab.open(page)
    tab.run("window.alert = () => { window.hit = true; }")
    tab.wait(f"{ROWS} === 25")
    assert gene in names(tab)
    tab.click("table.genes td a")
    tab.wait("document.getElementById('locus-state').textContent === ''")
    tab.wait(f"{DRAWN}.painted > 4")
    tab.run(f"location.hash = '#gene=' + encodeURIComponent({json.dumps(gene)})")
    title = tab.wait("document.getElementById('locus-title').textContent")
    assert HOSTILE in title
    tab.wait("document.getElementById('locus-state').textContent === ''")
    assert tab.run("window.hit") is None
    assert_offline(tab, page)


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_screen_does_not_scroll_sideways(tab, made, dark):
    tab.size(400, 800, mobile=True)
    tab.dark(dark)
    try:
        tab.open(made.page)
        tab.wait(f"{ROWS} === 25")
        colours = tab.run("[getComputedStyle(document.body).color,"
                          "getComputedStyle(document.body).backgroundColor]")  # fmt: skip
        light = [sum(map(int, c.strip("rgb()").split(","))) for c in colours]
        assert (light[0] > light[1]) == dark
        assert tab.run("document.documentElement.scrollWidth") <= 400
        tab.run("location.hash = '#gene=chr3_g4'")
        tab.wait("document.getElementById('locus-state').textContent === ''")
        tab.wait(f"{DRAWN}.painted > 5")
        assert tab.run("document.documentElement.scrollWidth") <= 400
    finally:
        tab.size(1400, 1000)
        tab.dark(False)


def test_a_narrow_screen_shows_the_whole_toolbar_of_the_browser(tab, made):
    """igv.js has a row of fixed height: on a phone its buttons were cut off."""
    tab.size(400, 800, mobile=True)
    try:
        tab.open(made.page)
        tab.run("location.hash = '#gene=chr3_g4'")
        tab.wait(f"{DRAWN}.painted > 5")
        tab.wait("document.getElementById('locus-state').textContent === ''")
        boxes = tab.run("""(() => {
          const root = document.querySelector('#igv > div').shadowRoot;
          const box = (e) => { const r = e.getBoundingClientRect();
            return [r.left, r.top, r.right, r.bottom]; };
          const shown = [...root.querySelectorAll('.igv-navbar input.igv-search-input,'
            + '.igv-navbar-icon-button, .igv-zoom-widget-900 svg')].map(box);
          return { bar: box(root.querySelector('.igv-navbar')), shown }; })()""")
        shown = np.array([box for box in boxes["shown"] if box[2] > box[0]])
        left, top, right, bottom = boxes["bar"]
        # The place, four buttons, and two to zoom.
        assert len(shown) == 7
        assert (shown[:, 0] >= left).all()
        assert (shown[:, 1] >= top).all()
        assert (shown[:, 2] <= right).all()
        assert (shown[:, 3] <= bottom).all()
        # None lies on another.
        for number, one in enumerate(shown):
            for other in shown[number + 1 :]:
                apart = one[2] <= other[0] or other[2] <= one[0]
                assert apart or one[3] <= other[1] or other[3] <= one[1]
    finally:
        tab.size(1400, 1000)


# A4 without its margins of 14 mm, in CSS pixels.
PAPER_PX = 688


def test_the_overview_fits_on_paper_and_says_what_is_not_printed(tab, made):
    tab.dark(True)
    try:
        tab.open(made.page)
        tab.wait(f"{ROWS} === 25")
        tab.paper(PAPER_PX)
        assert tab.run("document.documentElement.scrollWidth") <= PAPER_PX
        wide = tab.run("[...document.querySelectorAll('#overview table, #overview img')].filter("
                       f"(e) => e.getBoundingClientRect().right > {PAPER_PX}).length")  # fmt: skip
        assert wide == 0
        heads = tab.run("[...document.querySelectorAll('#overview h2, #overview h3')].map("
                        "(e) => getComputedStyle(e).breakAfter)")  # fmt: skip
        assert set(heads) == {"avoid"}
        text = tab.run("document.getElementById('overview').innerText")
        assert "The table of 44 genes is not printed" in text
        assert "Download CSV" not in text
        assert "prints by itself" in text
        # Ink on paper, whatever the screen likes.
        assert tab.run("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
        assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    finally:
        tab.paper(None)
        tab.dark(False)
    assert "not printed" not in tab.run("document.getElementById('overview').innerText")


def test_a_locus_prints_the_drawing_of_the_browser(tab, made):
    tab.open(made.page)
    tab.run("location.hash = '#gene=chr3_g4'")
    tab.wait(f"{DRAWN}.painted > 5")
    tab.wait("document.getElementById('locus-state').textContent === ''")
    # What stands on paper is noted at the moment of printing.
    tab.run("addEventListener('beforeprint', () => { window.paper ="
            "document.getElementById('igv-print').cloneNode(true); })")  # fmt: skip
    assert tab.print().startswith(b"%PDF")
    drawn = tab.run("window.paper.querySelector('svg').textContent")
    for name in ("genes", "DNase", "mask", "called elements", "variants"):
        assert name in drawn
    tab.run("dispatchEvent(new Event('beforeprint'))")
    tab.paper(PAPER_PX)
    try:
        assert tab.run("getComputedStyle(document.getElementById('igv')).display") == "none"
        box = tab.run("(() => { const r = document.querySelector('#igv-print svg')"
                      ".getBoundingClientRect(); return [r.right, r.height]; })()")  # fmt: skip
        assert 0.8 * PAPER_PX < box[0] <= PAPER_PX
        assert box[1] > 100
        assert tab.run("document.documentElement.scrollWidth") <= PAPER_PX
    finally:
        tab.run("dispatchEvent(new Event('afterprint'))")
        tab.paper(None)
    assert tab.run("document.querySelectorAll('#igv-print svg').length") == 0
    assert "on the screen only" in tab.run("document.getElementById('igv-print').textContent")
    assert_offline(tab, made.page)


@pytest.mark.slow
def test_three_hundred_genes_with_long_windows_stay_below_15_mb(tab, tmp_path, monkeypatch):
    """Windows of 131,072 bp in bins of 128, two tracks and contacts: the size of real use."""
    plan = ToyPlan(contigs=(("chr1", "train", 150), ("chr3", "test", 160)), contacts=True)
    data = Dataset(toy_dataset(tmp_path / "data", plan))
    run = fake_run(data, config=SampleConfig(window_bp=131_072, bin_size=128, contacts=True))
    place = install_run(monkeypatch, run, data, tmp_path / "run")
    page = write_report(place, loci=LociConfig(igv=find_igv(), number=300))
    assert len(index_of(page)["order"]) == 300
    assert page.stat().st_size < 15_000_000
    tab.open(page)
    tab.wait(f"{ROWS} === 25")
    last = index_of(page)["order"][-1]["id"]
    tab.run(f"location.hash = '#gene={last}'")
    tab.wait("document.getElementById('locus-state').textContent === ''")
    tab.wait(f"{DRAWN}.painted > 5")
    assert_offline(tab, page)
