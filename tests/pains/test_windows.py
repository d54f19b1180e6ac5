"""What users met with windows, haplotypes and strands: P8, P9, P13, P14, P28, P29."""

from __future__ import annotations

import itertools
import logging

import numpy as np
import pytest

from seq2exp.core.errors import InputError
from seq2exp.core.intervals import tss_window
from seq2exp.core.sequence import decode, encode, reverse_complement
from seq2exp.dataset.edges import usable_rows
from seq2exp.dataset.samples import GeneSamples, SampleConfig, collate, gene_window
from seq2exp.dataset.store import Dataset
from seq2exp.training.predict import predict
from seq2exp.training.run import TrainedRun
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.engine import open_engine
from seq2exp.variation.alleles import CLASSES, STATUSES, normalise_all
from seq2exp.variation.haplotypes import build
from seq2exp.variation.table import Variants
from tests.dataset.mini import mini_dataset
from tests.elements.fakes import fake_run
from tests.toys import ToyPlan, toy_dataset
from tests.variants.engines import seq2exp, table_of
from tests.variation.slow import opposite, random_reference

TEXT = random_reference(np.random.default_rng(8), 61)
NOTHING = Variants.from_alleles([])


def mini(root, *, codes=None, tss=(0,), strands="+", bin_size=4) -> Dataset:
    codes = encode(TEXT) if codes is None else codes
    bins = np.arange(1.0, -(-len(codes) // bin_size) + 1)[:, None]
    return mini_dataset(root, codes, bins, bin_size=bin_size, tss=tss, strands=strands)


def seen(text: str, tss: int, strand: str, length: int) -> str:
    """The window letter by letter: the TSS is the letter at length // 2 of what is read."""
    before = length // 2 if strand == "+" else length - 1 - length // 2
    first = tss - before
    here = "".join(text[i] if 0 <= i < len(text) else "N" for i in range(first, first + length))
    return here if strand == "+" else opposite(here)


def test_pain_08_windows_that_leave_the_contig_are_padded_or_left_out_and_counted(tmp_path, caplog):
    """gReLU#54, #176, PR#199: a resized interval starts below 0, and fails late or in silence."""
    places = [0, 7, 8, 30, 52, 53, 54, 60]
    data = mini(tmp_path / "d", tss=places * 2, strands="+" * 8 + "-" * 8)
    config, rows = SampleConfig(window_bp=16, bin_size=4), np.arange(16)
    samples = GeneSamples(data, config, rows)
    outside = []
    for row, (strand, tss) in enumerate(itertools.product("+-", places)):
        codes = decode(samples[row].codes)
        assert codes == seen(TEXT, tss, strand, 16)
        assert codes[8] == (TEXT[tss] if strand == "+" else opposite(TEXT[tss]))
        outside.append(codes.count("N"))
    assert outside == [8, 1, 0, 0, 0, 0, 1, 7, 7, 0, 0, 0, 0, 1, 2, 8]
    with caplog.at_level(logging.INFO, logger="seq2exp"):
        assert usable_rows(data, rows, config, what="test genes").tolist() == rows.tolist()
        kept = usable_rows(data, rows, SampleConfig(16, 4, edge="skip"), what="test genes")
    leaving = [row for row in rows if outside[row]]
    assert kept.tolist() == [row for row in rows if not outside[row]]
    pad, skip = (record.getMessage() for record in caplog.records)
    assert f"{len(leaving)} of 16 windows reach beyond a contig end" in pad
    assert f"{sum(outside)} bases are padded with N" in pad
    assert "their genes are left out" in skip


def test_pain_09_no_window_is_shorter_than_it_should_be_at_any_edge(tmp_path):
    """enformer-pytorch#14: a negative start returned an empty tensor."""
    text = TEXT[:23]
    codes, data = encode(text), mini(tmp_path / "d", codes=encode(text))
    bins = np.repeat(np.arange(1, 7), 4)[:23]
    for tss, strand, num in itertools.product(range(23), "+-", (1, 2, 5, 6, 12, 15)):
        length = 4 * num
        window = tss_window("c", tss, strand, length=length, contig_length=23)
        expected = seen(text, tss, strand, length)
        assert decode(data.codes(window)) == expected
        built = build(codes, NOTHING, np.zeros((1, 0), np.uint8), window, tss)
        assert decode(built.codes_HL[0]) == expected
        assert built.tss_index == length // 2
        assert built.pad_left_H[0] + built.pad_right_H[0] == expected.count("N")
        inside = [set(expected[i : i + 4]) != {"N"} for i in range(0, length, 4)]
        assert data.inside_bins(window, bin_size=4).tolist() == inside
        track = data.track_bins(window, bin_size=4)[:, 0]
        assert track.shape == (num,)
        whole = np.pad(bins.astype(float), 100, constant_values=np.nan)
        here = whole[100 + window.start : 100 + window.end][:: -1 if strand == "-" else 1]
        means = [np.nanmean(part) if inside[i] else 0 for i, part in enumerate(here.reshape(-1, 4))]
        np.testing.assert_allclose(track, means, rtol=1e-6)


def test_pain_13_a_wrong_ref_neither_stops_the_others_nor_enters_a_sequence():
    """bcftools#1447, #1524: a wrong REF breaks normalisation and consensus of the whole file."""
    text = "ACGTTTTTGCATACGGATCA"
    rows = [(2, "G", "T"), (5, "A", "AC"), (6, "T", "TT"), (9, "CAT", "C"), (12, "GG", "G")]
    found = normalise_all(
        np.array([row[0] for row in rows]),
        [row[1] for row in rows],
        [row[2] for row in rows],
        reference_codes=encode(text),
    )
    statuses = [STATUSES[status] for status in found.status_M]
    assert statuses == ["ok", "mismatch", "ok", "ok", "mismatch"]
    assert [CLASSES[kind] for kind in found.class_M] == ["snv", "ins", "ins", "del", "del"]
    # The one inserted T goes to the left of its run; rows with a wrong REF stay as written.
    assert found.position_M.tolist() == [2, 5, 2, 9, 12]
    assert found.refs == ["G", "A", "G", "CAT", "GG"]
    assert found.alts == ["T", "AC", "GT", "C", "G"]
    # Records that overlap on one haplotype: the first is applied, the other counted.
    table = Variants.from_alleles([(3, "TTT", "T"), (4, "T", "G"), (9, "C", "A")])
    window = tss_window("c", 10, "+", length=12, contig_length=20)
    built = build(encode(text), table, np.ones((1, 3), np.uint8), window, 10)
    assert (int(built.num_applied_H[0]), int(built.num_overlap_dropped_H[0])) == (2, 1)
    with pytest.raises(InputError, match="records that overlap"):
        build(encode(text), table, np.ones((1, 3), np.uint8), window, 10, overlap="error")


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize("deleted", [1, 100, 2_000])
def test_pain_14_net_deletions_bring_reference_in_until_the_window_is_full(strand, deleted):
    """GenVarLoader#153: haplotypes with net deletions were cut at their 3' end."""
    text = random_reference(np.random.default_rng(deleted), 12_000)
    tss, length = 6_000, 1_000
    sides = [(tss - 301 - deleted, tss - 301), (tss + 300, tss + 300 + deleted)]
    rows = [(start, text[start : end + 1], text[start]) for start, end in sides]
    whole = text[: sides[0][0] + 1] + text[sides[0][1] + 1 : sides[1][0] + 1]
    whole += text[sides[1][1] + 1 :]
    window = tss_window("c", tss, strand, length=length, contig_length=len(text))
    built = build(encode(text), Variants.from_alleles(rows), np.ones((1, 2), np.uint8), window, tss)
    expected = seen(whole, tss - deleted, strand, length)
    assert "N" not in expected
    assert decode(built.codes_HL[0]) == expected
    assert built.span_H2[0, 1] - built.span_H2[0, 0] == length + 2 * deleted


def test_pain_28_everything_turns_round_together(tmp_path):
    """kipoi/models#18: the minus strand was reversed but not complemented."""
    random = np.random.default_rng(3)
    for size in (0, 1, 7, 8, 64, 99):
        codes = random.integers(0, 5, size).astype(np.uint8)
        turned = reverse_complement(codes)
        assert decode(turned) == decode(codes)[::-1].translate(str.maketrans("ACGT", "TGCA"))
        np.testing.assert_array_equal(reverse_complement(turned), codes)
    # A gene on minus, and the same genome and tracks seen from the other side with it on plus.
    codes = random.integers(0, 4, 64).astype(np.uint8)
    codes[20:23] = 4
    bins = random.random((16, 2)).astype(np.float32)
    bins[5] = np.nan
    contacts = np.array([[1.0, 2.0, 3.0, 4.0]])
    minus = mini_dataset(
        tmp_path / "a", codes, bins, bin_size=4, tss=(23,), strands="-", regions=[(9, 13)],
        contacts=(8, contacts),
    )  # fmt: skip
    plus = mini_dataset(
        tmp_path / "b", reverse_complement(codes), bins[::-1], bin_size=4, tss=(40,), strands="+",
        regions=[(51, 55)], contacts=(8, contacts),
    )  # fmt: skip
    config = SampleConfig(window_bp=96, bin_size=8)
    first, second = (GeneSamples(data, config, [0])[0] for data in (minus, plus))
    for name in ("codes", "signal", "blacklist", "valid", "features", "expression"):
        mine, other = getattr(first, name), getattr(second, name)
        np.testing.assert_allclose(mine, other, rtol=1e-6, err_msg=name)
    assert not first.valid.all()
    assert first.blacklist.sum() in (1, 2)
    read = GeneSamples(minus, SampleConfig(window_bp=96, bin_size=8, strand="plus"), [0])[0]
    assert not np.array_equal(read.signal, first.signal, equal_nan=True)


def test_pain_29_genomes_shorter_than_the_window_are_padded_and_used(tmp_path, monkeypatch):
    """caduceus#54: genomes shorter than the window of the model."""
    monkeypatch.setenv("SEQ2EXP_SCAN", "torch")
    plan = ToyPlan(contigs=(("plasmid", "train", 1),), noise=0)
    data = Dataset(toy_dataset(tmp_path / "d", plan))
    (size,) = data.manifest.contigs.values()
    config = SampleConfig(window_bp=8192, bin_size=32)
    assert size < config.window_bp
    window, tss = gene_window(data, 0, config), data.sites[0][1]
    batch = collate([GeneSamples(data, config, [0])[0]])
    assert (window.pad_left, window.pad_right) == (4096 - tss, 4096 - (size - tss))
    assert int((batch.codes_BL == 4).sum()) == 8192 - size + 20  # and a run of N of its own
    assert batch.codes_BL[0, 4096] == data.contig_codes("plasmid")[tss]
    model = seq2exp(data, window_bp=8192)
    run = TrainedRun(tmp_path, [model], fake_run(data, config=config).card)
    assert np.isfinite(predict(run, data, np.array([0])).expression).all()
    # A variant of it is scored, and its row says how much was padded.
    ref = decode(data.contig_codes("plasmid")[tss + 5 : tss + 6])
    alleles = table_of(data, [("plasmid", tss + 5, ref, "ACGT"[("ACGT".index(ref) + 1) % 4])])
    with open_engine(run, data, ScoreConfig()) as engine:
        row = engine.score(alleles).iloc[0]
    assert row["edge_status"] == f"padded:{window.pad_left},{window.pad_right}"
    assert np.isfinite(row["expr_delta:cell_a"])
