"""Enrichment: tables by hand, matched background, planted motifs, files and bad input."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact

from seq2exp.cli.main import main
from seq2exp.core.errors import ConfigError, InputError, Seq2ExpWarning
from seq2exp.core.sequence import encode
from seq2exp.dataset.store import Dataset
from seq2exp.interpret.background import (
    allowed_places,
    cut_sequences,
    matched_regions,
    shuffled_sequences,
)
from seq2exp.interpret.enrichment import benjamini_hochberg, enrichment, log2_odds_ratio
from seq2exp.interpret.motif_files import MotifMatrix, meme_text
from seq2exp.interpret.motifs import MotifConfig, enrich_motifs, read_regions
from seq2exp.interpret.pwm import score_motif
from tests.dinucleotides import dinucleotide_counts

UNIFORM = np.full(4, 0.25)


def exact(word, name=None):
    return MotifMatrix(name or word, "", np.eye(4)[encode(word)], 20)


def scored(*words, p_value=1e-3):
    return [score_motif(exact(word), background=UNIFORM, p_value=p_value) for word in words]


def test_the_table_is_fishers_with_its_odds_ratio_and_fdr():
    elements = [encode("TTGATTACATT")] * 3 + [encode("TTTTTTTTTTT")]
    background = [encode("CCTGTAATCCC")] + [encode("CCCCCCCCCCC")] * 5  # one on the other strand
    frame = enrichment(scored("GATTACA", "CCCCCCC", "ACG"), elements, background)
    row = frame.set_index("motif").loc["GATTACA"]
    assert row[["elements_with", "elements", "background_with", "background"]].tolist() == [
        3,
        4,
        1,
        6,
    ]
    assert row["p"] == pytest.approx(fisher_exact([[3, 1], [1, 5]])[1])
    expected = np.log2((3.5 * 5.5) / (1.5 * 1.5))
    half = 1.959963984540054 * np.sqrt(1 / 3.5 + 1 / 1.5 + 1 / 1.5 + 1 / 5.5) / np.log(2)
    assert row["log2_odds_ratio"] == pytest.approx(expected)
    assert (row["low"], row["high"]) == (
        pytest.approx(expected - half),
        pytest.approx(expected + half),
    )
    # Two tests were made: the third motif is too short for its p-value and says so.
    assert frame.iloc[-1]["motif"] == "ACG"
    assert frame.iloc[-1]["status"] == "threshold not reachable"
    assert np.isnan(frame.iloc[-1]["q"])
    tested = frame[frame["status"] == "tested"]
    np.testing.assert_allclose(tested["q"], benjamini_hochberg(tested["p"].to_numpy()))
    # Exchanging the two sets turns the effect round and leaves the p-value.
    turned = enrichment(scored("GATTACA"), background, elements).iloc[0]
    assert turned["log2_odds_ratio"] == pytest.approx(-expected)
    assert turned["p"] == pytest.approx(row["p"])
    assert turned["auroc"] == pytest.approx(1 - row["auroc"])


def test_false_discovery_rates_are_those_of_the_definition():
    p = np.array([0.2, 0.001, 0.04, np.nan, 0.03])
    # Sorted 0.001 0.03 0.04 0.2, times 4 / rank: 0.004 0.06 0.0533 0.2, minimum from the right.
    expected = [0.2, 0.004, 0.16 / 3, np.nan, 0.16 / 3]
    np.testing.assert_allclose(benjamini_hochberg(p), expected)
    assert benjamini_hochberg(np.array([])).size == 0
    assert log2_odds_ratio(0, 5, 0, 5)[0] == pytest.approx(0)


def test_p_values_are_uniform_at_most_where_nothing_is_enriched():
    random = np.random.default_rng(0)
    small = 0
    for _ in range(40):
        sequences = [random.integers(0, 4, 60).astype(np.uint8) for _ in range(60)]
        frame = enrichment(scored("GATA", p_value=0.01), sequences[:20], sequences[20:])
        small += int(frame["p"].iloc[0] <= 0.1)
    assert small <= 10  # 4 expected; P(more than 10 of 40) < 0.002


# Background -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(toy):
    return Dataset(toy)


def regions_of(dataset, num=12, size=40):
    start = 700 + 1500 * np.arange(num)
    return pd.DataFrame({"chrom": "chr1", "start": start, "end": start + size})


def test_matched_regions_have_length_and_gc_and_touch_nothing(dataset):
    elements = regions_of(dataset)
    inside = pd.DataFrame({"chrom": ["chr1"], "start": [-100], "end": [30_000]})
    allowed = allowed_places(dataset, inside, elements)
    found = matched_regions(dataset, elements, allowed, per_element=3)
    regions = found.regions
    assert len(regions) == 36
    assert (regions["end"] - regions["start"] == 40).all()
    assert regions["start"].min() >= 0
    assert regions["end"].max() <= 30_000
    spans = pd.concat([regions, elements])[["start", "end"]].sort_values("start").to_numpy()
    assert (spans[1:, 0] >= spans[:-1, 1]).all()  # neither elements nor one another

    def gc(sequences):
        return np.array([np.isin(codes, (1, 2)).sum() / (codes < 4).sum() for codes in sequences])

    own = gc(cut_sequences(dataset, elements))
    assert np.abs(gc(found.sequences) - own[regions["element"]]).max() <= 0.05 + 1e-9
    again = matched_regions(dataset, elements, allowed, per_element=3)
    pd.testing.assert_frame_equal(again.regions, regions)
    other = matched_regions(dataset, elements, allowed, per_element=3, seed=1)
    assert not other.regions.equals(regions)


def test_too_little_room_is_counted_or_refused(dataset):
    elements = regions_of(dataset, num=2)
    narrow = pd.DataFrame({"chrom": ["chr1"], "start": [1000], "end": [1100]})
    with pytest.warns(Seq2ExpWarning, match=r"of 10 wanted regions"):
        found = matched_regions(dataset, elements, allowed_places(dataset, narrow, elements))
    assert 0 < len(found.regions) <= 2
    assert found.num_missing == 10 - len(found.regions)
    none = pd.DataFrame({"chrom": ["chr1"], "start": [700], "end": [730]})
    with pytest.raises(InputError, match="--background shuffled"):
        matched_regions(dataset, elements, allowed_places(dataset, none, elements))


def test_shuffles_keep_dinucleotides(dataset):
    sequences = cut_sequences(dataset, regions_of(dataset, num=2))
    found = shuffled_sequences(sequences, per_element=2)
    assert len(found.sequences) == 4
    for number, codes in enumerate(found.sequences):
        original = sequences[number // 2]
        np.testing.assert_array_equal(dinucleotide_counts(codes), dinucleotide_counts(original))


# From files to files --------------------------------------------------------------------------


@pytest.fixture
def files(dataset, tmp_path):
    """Elements around the planted GATAA words of the toy genome, and two motifs."""
    rows = []
    for gene in dataset.genes[dataset.genes["contig"] == "chr1"].itertuples():
        near = (
            (gene.tss + 10, gene.tss + 100) if gene.strand == "+" else (gene.tss - 99, gene.tss - 9)
        )
        rows.append(f"chr1\t{near[0]}\t{near[1]}\n")
    (tmp_path / "x.bed").write_text("".join(rows))
    (tmp_path / "x.meme").write_text(meme_text([exact("GATAA"), exact("ACTGA"), exact("AC")]))
    return tmp_path


def test_a_planted_word_is_found_and_another_is_not(files, dataset, capsys):
    line = ["motifs", str(files / "x.bed"), "--motifs", str(files / "x.meme"), "--data",
            str(dataset.root), "--out", str(files / "out"), "--p-value", "0.003", "--around", "700",
            "--json", str(files / "rows.json")]  # fmt: skip
    assert main(line) == 0
    assert "GATAA" in capsys.readouterr().out
    frame = pd.read_csv(files / "out" / "enrichment.tsv", sep="\t").set_index("motif")
    assert frame.loc["GATAA", "q"] < 1e-4
    assert frame.loc["GATAA", "low"] > 1
    assert frame.loc["ACTGA", "q"] > 0.05
    assert frame.loc["AC", "status"] == "threshold not reachable"
    stored = json.loads((files / "out" / "enrichment.json").read_text())
    assert {row["motif"] for row in stored["rows"]} == {"GATAA", "ACTGA", "AC"}
    assert stored["settings"]["p_value"] == 0.003
    rows = json.loads((files / "rows.json").read_text())["rows"]
    assert set(rows[0]) == {"name", "metric", "split", "value", "low", "high", "n"}
    names = {path.name for path in (files / "out").iterdir()}
    assert names == {
        "enrichment.tsv", "enrichment.json", "background.bed", "sites.bed.gz", "sites.bed.gz.tbi",
        "enrichment.png", "enrichment.svg",
    }  # fmt: skip
    sites = pd.read_csv(files / "out" / "sites.bed.gz", sep="\t", header=None)
    codes = np.load(dataset.root / "sequence" / "chr1.npy")
    for start, end, strand in sites[sites[3] == "GATAA"][[1, 2, 5]].head(5).to_numpy():
        word = encode("GATAA") if strand == "+" else encode("TTATC")
        np.testing.assert_array_equal(codes[start:end], word)
    assert main(line) == 2  # the folder is there
    assert "--overwrite" in capsys.readouterr().err


def test_shuffled_background_needs_no_room(files, dataset):
    config = MotifConfig(background="shuffled", p_value=3e-3, per_element=2)
    frame = enrich_motifs(
        files / "x.bed", files / "x.meme", files / "out", data=dataset.root, config=config
    )
    assert frame["background"].iloc[0] == 48
    assert frame.iloc[0]["motif"] == "GATAA"
    assert not (files / "out" / "background.bed").exists()


def test_intervals_are_counted_once_and_those_of_another_assembly_refused(files, dataset):
    bed = files / "twice.bed"
    bed.write_text("chr1\t100\t200\nchr1\t150\t250\nchr1\t100\t200\nchr1\t250\t300\n")
    regions = read_regions(bed, dataset, splits=(), config=MotifConfig()).elements
    assert regions[["start", "end"]].to_numpy().tolist() == [[100, 200], [250, 300]]
    bed.write_text("chr1\t100\t99999999\n")
    with pytest.raises(InputError, match=r"beyond the end of chr1.*its length in toy1"):
        read_regions(bed, dataset, splits=(), config=MotifConfig())
    bed.write_text("")
    with pytest.raises(InputError, match="an empty file"):
        read_regions(bed, dataset, splits=(), config=MotifConfig())
    with pytest.raises(ConfigError, match="--split"):
        read_regions(files / "x.bed", dataset, splits=("test",), config=MotifConfig())
    with pytest.raises(ConfigError, match="per_element"):
        MotifConfig(per_element=0)
