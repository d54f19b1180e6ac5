"""`seq2exp attribute`: every file read back, merging over genes, bad input, optional packages."""

from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pyBigWig
import pytest

from seq2exp.cli.main import main
from seq2exp.core.errors import ConfigError, FormatError, InputError
from seq2exp.core.intervals import coverage_mask
from seq2exp.core.sequence import decode, one_hot
from seq2exp.elements.calling import CallConfig
from seq2exp.elements.export import export_elements
from seq2exp.elements.folder import called_elements
from seq2exp.interpret.attribution import AttributionConfig, attributions
from seq2exp.interpret.attribution_files import load_gene, load_genes, write_attributions
from seq2exp.interpret.logo import draw_logo, information, save_logo
from seq2exp.interpret.modisco import region_arrays, write_modisco_inputs
from tests.interpret.explained import Additive, Rectified, run_of

# The last two are 899 bases apart: their windows of 1,024 overlap.
GENES = [2, 22, 23]


@pytest.fixture(scope="module")
def run(dataset):
    return run_of(dataset, Additive())


@pytest.fixture(scope="module")
def folder(run, dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("attributions")
    stream = attributions(run, dataset, GENES, AttributionConfig(), output=0)
    write_attributions(stream, out, run, dataset, gene_bigwigs=True)
    return out


def bigwig(path, contig):
    with pyBigWig.open(str(path)) as handle:
        return np.asarray(handle.values(contig, 0, handle.chroms(contig)))


def test_the_merged_bigwig_has_the_largest_value_of_the_genes_that_cover_a_base(folder):
    genes = load_genes(folder)
    assert genes["gene_id"].tolist() == ["chr1_g2", "chr1_g22", "chr1_g23"]
    merged, tracked = bigwig(folder / "attribution.bw", "chr1"), bigwig(
        folder / "tracks" / "DNase.bw", "chr1"
    )  # fmt: skip
    expected, signal = np.full(merged.size, np.nan), np.full(merged.size, np.nan)
    depth = np.zeros(merged.size, dtype=int)
    for gene_id, start in zip(genes["gene_id"], genes["start"], strict=True):
        arrays = load_gene(folder, gene_id)
        alone = bigwig(folder / "genes" / f"{gene_id}.bw", "chr1")
        for place, value in enumerate(arrays["attribution"], start=start):
            if 0 <= place < merged.size:
                depth[place] += 1
                assert alone[place] == pytest.approx(value, abs=1e-7)
                if not abs(value) <= abs(expected[place]):
                    expected[place] = value
        for place, value in enumerate(np.repeat(arrays["tracks"][:, 0], 32) / 32, start=start):
            if 0 <= place < merged.size and not abs(value) <= abs(signal[place]):
                signal[place] = value
    assert depth.max() > 1  # windows overlap, so the rule is put to work
    np.testing.assert_allclose(merged, expected, atol=1e-7)
    np.testing.assert_allclose(tracked, signal, atol=1e-7)


def test_pieces_of_a_contig_are_joined(monkeypatch, folder, run, dataset, tmp_path):
    monkeypatch.setattr("seq2exp.interpret.attribution_files._PIECE", 333)
    stream = attributions(run, dataset, GENES, AttributionConfig(), output=0)
    write_attributions(stream, tmp_path, run, dataset)
    first, second = (bigwig(place / "attribution.bw", "chr1") for place in (folder, tmp_path))
    np.testing.assert_array_equal(first, second)


def test_the_table_says_how_complete_each_gene_is(folder):
    genes = load_genes(folder)
    for gene in genes.to_dict("records"):
        arrays = load_gene(folder, gene["gene_id"])
        assert gene["bases_sum"] == pytest.approx(float(arrays["attribution"].sum()), abs=1e-4)
        assert gene["bases_error"] == pytest.approx(
            gene["bases_sum"] - gene["bases_difference"], abs=1e-9
        )
        assert gene["track:DNase"] == pytest.approx(float(arrays["tracks"][:, 0].sum()), abs=1e-4)
    summary = json.loads((folder / "summary.json").read_text())
    rows = {(row["name"], row["metric"]): row for row in summary["completeness"]}
    error, size = genes["bases_error"].abs(), genes["bases_difference"].abs()
    assert rows["bases", "relative_error"]["value"] == pytest.approx(error.sum() / size.sum())
    assert rows["tracks", "absolute_error"]["n"] == 3


def test_regions_for_modisco_are_cut_where_they_should(folder, tmp_path):
    genes = load_genes(folder)
    tss = dict(zip(genes["gene_id"], genes["tss"], strict=True))
    centres = pd.DataFrame(
        [(name, at) for name in tss for at in (tss[name], tss[name], tss[name] + 100_000)],
        columns=["gene_id", "centre"],
    )
    arrays = region_arrays(folder, genes, centres, width=50)
    write_modisco_inputs(arrays, tmp_path / "modisco")
    sequences = np.load(tmp_path / "modisco" / "ohe.npz")["arr_0"]
    scores = np.load(tmp_path / "modisco" / "hypothetical.npz")["arr_0"]
    assert sequences.shape == scores.shape == (3, 4, 50)  # doubles and strangers are left out
    first = load_gene(folder, "chr1_g2")
    at = tss["chr1_g2"] - 25 - int(first["start"])
    np.testing.assert_array_equal(sequences[0], one_hot(first["codes"][at : at + 50]).T)
    np.testing.assert_array_equal(scores[0], first["hypothetical"][at : at + 50].T)
    bed = pd.read_csv(tmp_path / "modisco" / "regions.bed", sep="\t", header=None)
    assert bed[[1, 2]].iloc[0].tolist() == [tss["chr1_g2"] - 25, tss["chr1_g2"] + 25]
    with pytest.raises(InputError, match="narrower regions"):
        region_arrays(folder, genes, centres, width=5000)


# The command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def elements(finished, toy, tmp_path_factory):
    out = tmp_path_factory.mktemp("map") / "elements"
    export_elements(finished, out, data=toy, config=CallConfig(budget=0.3, min_length_bp=32))
    return out


def line(finished, toy, out, *more):
    return ["attribute", str(finished), "--data", str(toy), "--out", str(out), *more]


def test_the_command_writes_what_the_page_names(finished, toy, elements, tmp_path, capsys):
    out = tmp_path / "out"
    more = ["--gene", "chr1_g2", "--gene", "CHR1G5", "--elements", str(elements), "--seqlets",
            "--seqlet-fdr", "1", "--modisco-bp", "60", "--sample", "cell_a", "--logos", "1",
            "--json", str(tmp_path / "rows.json")]  # fmt: skip
    assert main(line(finished, toy, out, *more)) == 0
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert names == {
        "genes.parquet", "genes/chr1_g2.npz", "genes/chr1_g5.npz", "attribution.bw",
        "tracks/DNase.bw", "tracks/H3K27ac.bw", "logos/chr1_g2.png", "logos/chr1_g2.svg",
        "modisco/ohe.npz", "modisco/hypothetical.npz", "modisco/regions.bed", "seqlets.bed.gz",
        "seqlets.bed.gz.tbi", "seqlets.json", "summary.json",
    }  # fmt: skip
    assert "relative_error" in capsys.readouterr().out
    columns = json.loads((out / "seqlets.json").read_text())["columns"]
    seqlets = pd.read_csv(out / "seqlets.bed.gz", sep="\t", names=columns)
    called = called_elements(elements).elements
    for one in seqlets.itertuples():
        arrays = load_gene(out, one.gene_id)
        here = slice(one.start - int(arrays["start"]), one.end - int(arrays["start"]))
        assert decode(arrays["codes"][here]) == one.sequence
        total = float(arrays["attribution"][here].sum())
        assert one.attribution == pytest.approx(total, rel=1e-3, abs=1e-9)
        own = called[called["gene_id"] == one.gene_id]
        assert coverage_mask(own["start"], own["end"], one.start, one.end).all()
    assert len(seqlets) > 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert {row["name"] for row in rows} == {"bases", "tracks"}
    assert main(line(finished, toy, out, *more)) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], ["none of --gene, --split and --elements"]),
        (["--gene", "nobody"], ["--gene", "nobody"]),
        (["--gene", "chr1_g2", "--sample", "liver"], ["--sample liver", "cell_a, cell_b"]),
        (["--gene", "chr1_g2", "--steps", "0"], ["steps", "1 or more"]),
        (["--split", "excluded"], ["no gene that was asked for"]),
        (["--elements", "NOWHERE"], ["NOWHERE", "seq2exp elements"]),
        (["--gene", "chr1_g2", "--method", "deeplift_shap"], ["attribution", "captum"]),
        (["--gene", "chr1_g2", "--tfmodisco"], ["seq2exp[modisco]"]),
        (["--gene", "chr1_g2", "--modisco-bp", "9999"], ["narrower"]),
    ],
)
def test_wrong_wishes_are_one_line(monkeypatch, capsys, finished, toy, tmp_path, more, words):
    for package in ("captum", "captum.attr", "modiscolite"):
        monkeypatch.setitem(sys.modules, package, None)
    assert main(line(finished, toy, tmp_path / "out", *more)) == 2
    errors = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1
    for word in words:
        assert word in errors[0]
    assert not (tmp_path / "out").exists()


def test_damaged_folders_are_named(folder, tmp_path):
    with pytest.raises(InputError, match="seq2exp attribute"):
        load_genes(tmp_path)
    with pytest.raises(FormatError, match=r"nobody\.npz"):
        load_gene(folder, "nobody")
    (tmp_path / "genes").mkdir()
    whole = (folder / "genes" / "chr1_g2.npz").read_bytes()
    (tmp_path / "genes" / "chr1_g2.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"chr1_g2\.npz"):
        load_gene(tmp_path, "chr1_g2")


# DeepLIFT -------------------------------------------------------------------------------------


def test_deeplift_is_refused_where_it_has_no_rules(finished, dataset):
    pytest.importorskip("captum")
    from seq2exp.training.run import open_run

    config = AttributionConfig(method="deeplift_shap", tracks=False)
    with pytest.raises(ConfigError, match=r"without a DeepLIFT rule.*integrated_gradients"):
        list(attributions(open_run(finished), dataset, [6], config, output=0))


def test_deeplift_holds_where_it_has_rules(dataset):
    pytest.importorskip("captum")
    config = AttributionConfig(method="deeplift_shap", tracks=False)
    model = Additive()
    (one,) = attributions(run_of(dataset, model), dataset, [6], config, output=0)
    (same,) = attributions(
        run_of(dataset, model), dataset, [6], AttributionConfig(tracks=False), output=0
    )
    np.testing.assert_allclose(one.share, same.share, atol=1e-5)
    # A nonlinear net: complete, where its gradient alone is not.
    run = run_of(dataset, Rectified())
    config = AttributionConfig(method="deeplift_shap", baseline="shuffled", tracks=False)
    (one,) = attributions(run, dataset, [6], config, output=0)
    (slope,) = attributions(
        run, dataset, [6], AttributionConfig(baseline="shuffled", tracks=False), output=0
    )
    assert one.bases.relative_error < 1e-4
    assert slope.bases.relative_error > 0.01


# Logos ----------------------------------------------------------------------------------------


def test_letters_are_as_high_as_their_numbers():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    heights = np.array([[0.5, 0, 0, 0], [0, -0.25, 0, 1.0], [0, 0, 0, 0]])
    draw_logo(axes, heights, start=10)
    boxes = [patch.get_path().get_extents() for patch in axes.patches]
    spans = sorted((box.x0 // 1, round(box.y0, 6), round(box.y1, 6)) for box in boxes)
    assert spans == [(10, 0, 0.5), (11, -0.25, 0), (11, 0, 1.0)]
    assert axes.get_xlim() == (10, 13)


def test_information_is_that_of_shannon(tmp_path):
    """Certain: 2 bits; two bases: 1 bit shared; uniform: none."""
    rows = np.array([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4])
    np.testing.assert_allclose(information(rows).sum(1), [2, 1, 0])
    save_logo(tmp_path / "logo", information(rows), title="x", ylabel="bits")
    first = (tmp_path / "logo.svg").read_bytes()
    save_logo(tmp_path / "logo", information(rows), title="x", ylabel="bits")
    assert (tmp_path / "logo.svg").read_bytes() == first
