from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.core.intervals import Window
from seq2exp.core.sequence import encode
from seq2exp.dataset.samples import SampleConfig
from seq2exp.elements.masks import FREE
from seq2exp.report import browser, page
from seq2exp.report.browser import locus_document
from seq2exp.report.choose import spread_loci
from seq2exp.report.genes import extreme_genes, gene_frame
from seq2exp.report.html import write_report
from seq2exp.report.loci import choose_pages, locus_pages
from seq2exp.report.locus import locus_data
from seq2exp.report.material import LociConfig, gather
from tests.elements.fakes import fake_run
from tests.elements.test_compare import truth_at
from tests.report.builders import (
    FAKE_IGV,
    HOSTILE,
    hostile_dataset,
    index_of,
    install_run,
    locus_of,
    parts_of,
    unpacked,
)

GENES = ("chr3_g4", "chr3_g5")  # one of each strand


@pytest.fixture
def folder(run, dataset, tmp_path, monkeypatch):
    return install_run(monkeypatch, run, dataset, tmp_path / "run")


def report(folder, **changes):
    config = LociConfig(**{"igv": FAKE_IGV, "number": 12, "pictures": 0} | changes)
    return write_report(folder, loci=config)


def material_of(folder, *, truth=None, elements="elements", **changes):
    return gather(
        folder,
        data=None,
        evaluation=folder / "evaluation.json",
        predictions=folder / "predictions.parquet",
        folder=folder / elements,
        comparison=folder / "none",
        truth=truth,
        loci=LociConfig(**changes),
    )


def pages_of(folder, *, room=10**8, **changes):
    """Return the locus pages without the page around them."""
    m = material_of(folder, **changes)
    frame = gene_frame(m)
    return locus_pages(m, choose_pages(m, extreme_genes(m, frame)), frame, max_bytes=room)


def locus(folder, gene, **changes):
    pages = pages_of(folder, genes=(gene,), number=1, **changes)
    return unpacked(pages.parts[pages.places[gene]])


def edges_of(document):
    edges = document["edges"]
    widths = edges["width"]
    widths = [widths] * edges["count"] if isinstance(widths, int) else widths
    return np.cumsum([edges["first"], *widths])


@pytest.mark.parametrize("gene", GENES)
def test_a_locus_holds_what_the_dataset_and_the_map_hold(folder, dataset, masks, gene):
    """Read back from the page, in genome direction for either strand."""
    found = locus(folder, gene)
    row = masks.genes.iloc[masks.index(gene)]
    contig, start, end = found["contig"], found["start"], found["end"]
    assert (contig, found["tss"], end - start) == (row["contig"], row["tss"], 1024)
    window = Window(contig, start, end, "+", dataset.manifest.contigs[contig])
    np.testing.assert_array_equal(encode(found["sequence"]["text"]), dataset.codes(window))
    assert edges_of(found).tolist() == list(range(start, end + 1, 32))
    signal = dataset.track_bins(window, bin_size=32)
    assert [track["name"] for track in found["tracks"]] == list(dataset.track_names)
    for t, track in enumerate(found["tracks"]):
        values = np.array(track["values"]) / 1000 * track["top"]
        # Rounded to thousandths of the top.
        assert np.abs(values - signal[:, t]).max() <= track["top"] / 2000 + 1e-5
        assert max(track["values"]) == 1000
    free = masks.forced[masks.index(gene)] == FREE
    mean = found["mask"]["mean"]
    assert [value is not None for value in mean] == free.tolist()
    expected = masks.mask[masks.index(gene)][free].astype(float)
    np.testing.assert_allclose([v / 1000 for v in mean if v is not None], expected, atol=6e-4)
    for name, sign in (("low", -1), ("high", 1)):
        bound = [v for v in found["mask"][name] if v is not None]
        assert all(sign * (a - b) >= 0 for a, b in zip(bound, filter(None, mean), strict=False))
    own = [gene for gene in found["genes"] if gene["own"]]
    assert [one["id"] for one in own] == [gene]
    assert own[0]["strand"] == row["strand"]


def test_elements_of_a_locus_are_those_of_the_bed_file(folder):
    found = locus(folder, "chr3_g4")
    bed = pd.read_csv(folder / "elements" / "elements.bed.gz", sep="\t", header=None)
    mine = bed[bed[9] == "chr3_g4"].sort_values(1)
    at = found["elements"]["fields"].index
    rows = found["elements"]["rows"]
    assert len(rows) == len(mine) >= 1
    for column, name in ((1, "start"), (2, "end"), (8, "summit"), (11, "distance")):
        assert [row[at(name)] for row in rows] == mine[column].tolist()
    assert [row[at("element_class")] for row in rows] == mine[12].tolist()


def test_a_window_that_leaves_the_contig_is_clipped(folder, dataset):
    found = locus(folder, "chr3_g0")
    assert found["start"] == 0  # the TSS is base 300 of a window of 1,024
    edges = edges_of(found)
    assert edges[0] == 0
    assert edges[-1] == found["end"] == 300 + 512
    assert np.all(np.diff(edges) >= 0)
    assert len(found["sequence"]["text"]) == 812


def test_letters_are_limited_to_the_bases_around_the_tss(folder):
    found = locus(folder, "chr3_g4", sequence_bp=100)
    letters = found["sequence"]
    assert letters["start"] == found["tss"] - 50
    assert len(letters["text"]) == 100
    nothing = locus(folder, "chr3_g4", sequence_bp=0)
    assert nothing["sequence"]["text"] == ""


def test_many_bins_are_averaged_in_groups(masks, dataset, monkeypatch):
    """32 bins with room for 12: groups of three, the last one of two."""
    monkeypatch.setattr(browser, "MAX_BINS", 12)
    data = locus_data(masks, dataset, "chr3_g4")
    found = locus_document(data, dataset, sequence_bp=10)
    edges = edges_of(found)
    assert len(edges) == 12
    assert (edges[1] - edges[0], edges[-1] - edges[-2]) == (96, 64)
    _, values = next(iter(data.tracks.values()))
    mean = [values[i : i + 3].mean() for i in range(0, 32, 3)]
    track = found["tracks"][0]
    np.testing.assert_allclose(
        np.array(track["values"]) / 1000 * track["top"], mean, atol=track["top"] / 1900
    )


def test_contact_is_a_track_where_the_model_reads_it(dataset, tmp_path, monkeypatch):
    config = SampleConfig(window_bp=1024, bin_size=32, contacts=True)
    run = fake_run(dataset, config=config)
    place = install_run(monkeypatch, run, dataset, tmp_path / "run")
    found = locus(place, "chr3_g5")
    contact = found["tracks"][-1]
    assert contact["name"] == "contact with the TSS"
    # The profile falls with distance, 1 / (|bin - centre| + 1): the centre holds the top.
    assert contact["values"][16] == 1000
    assert contact["values"][0] < 1000


def test_truth_stands_in_its_locus(folder, masks):
    truth = truth_at(masks, 350)
    found = locus(folder, "chr3_g4", truth=truth)
    mine = truth.of_gene("chr3_g4", "chr3").sort_values("start")
    columns = ["start", "end", "causal", "kind"]
    assert found["truth"]["intervals"] == [list(row) for row in mine[columns].to_numpy()]


def test_without_a_map_there_are_genes_and_tracks(folder, dataset):
    pages = pages_of(folder, elements="nothing", genes=GENES, number=5)
    found = unpacked(pages.parts[1])
    assert "mask" not in found
    assert found["elements"]["rows"] == []
    assert len(found["tracks"]) == 2
    assert len(pages.order) == 5


# Which genes ------------------------------------------------------------------------------------


def test_asked_genes_come_first_and_the_number_is_kept(folder):
    order = pages_of(folder, genes=("CHR1G3", "chr3_g4"), number=8).order
    assert [entry["id"] for entry in order[:2]] == ["chr1_g3", "chr3_g4"]
    assert len(order) == 8
    assert len({entry["id"] for entry in order}) == len(order)
    reasons = " ".join(entry["reason"] for entry in order)
    assert "Asked for. Residual number 1 of the largest." in reasons
    assert "Rank 1 of 12 test genes" in reasons
    more = pages_of(folder, genes=("chr1_g3", "chr3_g4", "chr3_g5"), number=1).order
    assert len(more) == 3


def test_residual_genes_are_those_with_the_extreme_residuals(folder):
    """Recomputed from the table of predictions; test genes only."""
    m = material_of(folder, number=12)
    table = m.predictions[m.predictions["split"] == "test"]
    size = sum(
        (table[f"predicted:{name}"] - table[f"observed:{name}"]).abs().fillna(0)
        for name in ("cell_a", "cell_b")
    ) / table[["observed:cell_a", "observed:cell_b"]].notna().sum(axis=1)
    ranked = table["gene_id"].to_numpy()[np.argsort(size.to_numpy())]
    extremes = extreme_genes(m, gene_frame(m), number=3)
    assert extremes[extremes["kind"] == "worst"]["gene_id"].tolist() == ranked[::-1][:3].tolist()
    assert extremes[extremes["kind"] == "best"]["gene_id"].tolist() == ranked[:3].tolist()
    chosen = choose_pages(m, extremes)
    assert [one.gene_id for one in chosen[:2]] == ranked[::-1][:2].tolist()


def test_held_out_genes_are_used_up_before_others(masks):
    elements = pd.DataFrame({"gene_id": ["chr3_g1"], "element_class": ["distal"]})
    found = spread_loci(masks, elements, number=15)
    assert [locus.title for locus in found] == ["test"] * 12 + ["valid"] * 3
    assert found[0].gene_id == "chr3_g1"
    skipped = spread_loci(masks, elements, number=15, skip={"chr3_g1"})
    assert [locus.title for locus in skipped] == ["test"] * 11 + ["valid"] * 4
    assert skipped[0].reason.startswith("Rank 2 of 12 test genes")
    few = spread_loci(masks, elements, truth_at(masks, 350), number=3)
    values = [float(locus.reason.rstrip(".").split()[-1]) for locus in few]
    assert values == sorted(values, reverse=True)


def test_unknown_genes_are_named(dataset, folder):
    with pytest.raises(InputError, match=r"--genes: .* 2 in all; first: NOPE, x"):
        pages_of(folder, genes=("NOPE", "chr3_g4", "x"))


# Size -------------------------------------------------------------------------------------------


def test_pages_that_do_not_fit_are_counted(folder):
    whole = pages_of(folder, number=12)
    assert len(whole.order) == len(whole.parts) == 12
    assert whole.notes == []
    room = sum(map(len, whole.parts[:6]))
    small = pages_of(folder, number=12, room=room)
    kept = len(small.parts)
    assert 0 < kept < 6  # what stands in the index takes room too
    assert (small.parts, small.order) == (whole.parts[:kept], whole.order[:kept])
    assert f"{12 - kept} of 12 locus pages are left out" in small.notes[0]
    assert pages_of(folder, number=12, room=0).parts == []


def test_the_limit_of_the_report_is_kept(folder):
    limit = 260_000
    made = report(folder, number=44, max_bytes=limit)
    kept = len(index_of(made)["order"])
    assert 0 < kept < 44
    assert made.stat().st_size < limit
    assert f"{44 - kept} of 44 locus pages are left out" in made.read_text()


@pytest.mark.parametrize("change", [{"number": -1}, {"sequence_bp": -5}, {"max_bytes": 0}])
def test_numbers_below_zero_are_refused(change):
    with pytest.raises(ConfigError, match="0 or more"):
        LociConfig(**change)


def test_the_same_pages_have_the_same_bytes(folder):
    assert pages_of(folder, number=3).parts == pages_of(folder, number=3).parts


# Names ------------------------------------------------------------------------------------------


def test_hostile_names_stay_data(tmp_path, monkeypatch):
    data = hostile_dataset(tmp_path / "data")
    gene = f"{HOSTILE} #%/?&"
    place = install_run(monkeypatch, fake_run(data), data, tmp_path / "run")
    made = report(place, genes=(gene,))
    text = made.read_text(encoding="utf-8")
    assert "alert(1)</script>" not in text
    assert not any("\u2028" in part or "<" in part for part in parts_of(made).values())
    assert index_of(made)["order"][0]["id"] == gene
    assert locus_of(made, gene)["genes"][0]["id"] == gene
    assert gene in unpacked(parts_of(made)["data-genes"])["columns"][0]["values"]


def test_json_inside_a_script_holds_no_markup():
    value = {"</script><!--\u2028": "&lt;\u00e9"}
    text = page.script_json(value)
    assert not set(text) & set("<>&")
    assert text.isascii()
    assert eval(text) == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        page.script_json(float("nan"))


def test_the_script_holds_no_end_tag_and_the_sheet_loads_nothing():
    script, sheet = page.asset("report.js"), page.asset("report.css")
    assert script.isascii()
    assert sheet.isascii()
    assert "</script" not in script
    assert "</style" not in sheet
    assert "url(" not in sheet
    assert "http" not in script
    for word in ("innerHTML", "insertAdjacentHTML", "eval(", "document.write"):
        assert word not in script


def test_only_gene_frame_rows_of_the_dataset_are_shown(folder, dataset):
    """A prediction of a gene that the dataset lacks is counted, not shown."""
    m = material_of(folder)
    extra = m.predictions.iloc[[0]].assign(gene_id="elsewhere")
    m = dataclasses.replace(m, predictions=pd.concat([m.predictions, extra]))
    frame = gene_frame(m)
    assert len(frame) == len(dataset.genes)
    np.testing.assert_allclose(
        frame["residual:cell_a"], frame["predicted:cell_a"] - frame["observed:cell_a"]
    )
    np.testing.assert_allclose(frame["observed:cell_a"], dataset.expression[:, 0])
