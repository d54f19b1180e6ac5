from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pyBigWig
import pysam
import pytest

from seq2exp.core.bed import read_bed
from seq2exp.core.errors import InputError, Seq2ExpWarning
from seq2exp.core.files import read_json
from seq2exp.elements import export
from seq2exp.elements.calling import ELEMENT_COLUMNS, EVIDENCE_COLUMNS, CallConfig
from seq2exp.elements.export import LINK_COLUMNS, export_elements, narrow_peaks, write_bigwig
from seq2exp.elements.masks import gene_masks, load_masks
from seq2exp.elements.merged import merged_mask
from seq2exp.elements.nulls import NullConfig
from tests.elements.fakes import fake_run

CONFIG = CallConfig(budget=0.1, min_length_bp=32)


@pytest.fixture
def element_map(run, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "open_run", lambda _: run)
    return export_elements(
        tmp_path / "run", tmp_path / "map", data=dataset.root, config=CONFIG, genes=["CHR3G2"]
    )


def test_bigwig_reads_back_to_the_mask_in_memory(element_map, dataset):
    names = {"mask.bw": "learned", "mask_mean.bw": "mean", "mask_full.bw": "full"}
    for name, attribute in names.items():
        with pyBigWig.open(str(element_map.folder / name)) as handle:
            assert list(handle.chroms().items()) == sorted(dataset.manifest.contigs.items())
            for contig, length in dataset.manifest.contigs.items():
                expected = np.full(length, np.nan)
                for stretch in merged_mask(element_map.masks, contig):
                    values = getattr(stretch, attribute)
                    expected[stretch.start : stretch.start + values.size] = values
                found = np.asarray(handle.values(contig, 0, length))
                np.testing.assert_array_equal(found, expected)
                assert np.isfinite(found).any()


def test_gene_bigwig_holds_the_mask_of_that_gene(element_map):
    masks = element_map.masks
    gene = masks.index("CHR3G2")
    with pyBigWig.open(str(element_map.folder / "genes" / "chr3_g2.bw")) as handle:
        for start, end, value in zip(
            *masks.intervals(gene), masks.mask[gene].astype(float), strict=True
        ):
            if end > start:
                assert handle.values("chr3", int(start), int(end)) == [value] * (end - start)


def test_elements_open_in_tabix_and_pandas(element_map):
    path = element_map.folder / "elements.bed.gz"
    frame = pd.read_csv(path, sep="\t", names=list(ELEMENT_COLUMNS))
    assert len(frame) == len(element_map.elements)
    for column in ("chrom", "start", "end", "gene_id", "element_class", "score", "distance"):
        assert frame[column].tolist() == element_map.elements[column].tolist()
    np.testing.assert_allclose(frame["mean_mask"], element_map.elements["mean_mask"], rtol=1e-5)
    assert frame["score"].between(0, 1000).all()
    assert set(frame["strand"]) == {"+", "-"}
    last = frame.iloc[-1]
    with pysam.TabixFile(str(path)) as handle:
        lines = list(handle.fetch(last["chrom"], last["start"], last["end"]))
    assert any(line.split("\t")[3] == last["name"] for line in lines)
    assert len(read_bed(path)) == len(frame)


def test_elements_have_the_mean_that_their_gene_mask_has(element_map):
    masks = element_map.masks
    for element in element_map.elements.itertuples():
        starts, ends = masks.intervals(masks.index(element.gene_id))
        inside = (starts < element.end) & (ends > element.start)
        values = masks.mask[masks.index(element.gene_id)][inside].astype(float)
        expected = np.average(values, weights=(ends - starts)[inside])
        assert element.mean_mask == pytest.approx(expected)


def test_links_end_at_the_tss(element_map, dataset):
    path = element_map.folder / "links.bedpe.gz"
    links = pd.read_csv(path, sep="\t", names=list(LINK_COLUMNS))
    tss = dataset.genes.set_index("gene_id")["tss"].loc[links["gene_id"]].to_numpy()
    assert (links["start2"] == tss).all()
    assert (links["end2"] == tss + 1).all()
    assert (links["chrom1"] == links["chrom2"]).all()
    keys = links[["chrom1", "start1", "end1"]].apply(tuple, axis=1).tolist()
    assert all(one <= two for one, two in itertools.pairwise(keys))
    with pysam.TabixFile(str(path)) as handle:
        assert sum(1 for _ in handle.fetch("chr2")) == (links["chrom1"] == "chr2").sum()


def test_union_does_not_overlap(element_map):
    union = read_bed(element_map.folder / "union.bed.gz")
    for _, group in union.groupby("chrom"):
        assert (group["start"].to_numpy()[1:] >= group["end"].to_numpy()[:-1]).all()


def test_summary_adds_up(element_map):
    summary = read_json(element_map.folder / "summary.json")
    counts = element_map.elements["element_class"].value_counts()
    assert summary["elements"] == counts.to_dict()
    assert summary["genes"] == len(element_map.masks)
    assert sum(summary["distal_by_distance"].values()) == counts["distal"]
    assert 0 < summary["called_fraction"] <= CONFIG.budget
    assert summary["columns"]["elements.bed.gz"] == list(ELEMENT_COLUMNS)


def test_splits_choose_the_genes(run, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "open_run", lambda _: run)
    made = export_elements(
        tmp_path, tmp_path / "map", data=dataset.root, splits=("test",), config=CONFIG
    )
    assert set(load_masks(made.folder / "masks").genes["split"]) == {"test"}
    assert set(made.elements["chrom"]) == {"chr3"}
    with pytest.raises(InputError, match="no gene in split excluded"):
        export_elements(tmp_path, tmp_path / "no", data=dataset.root, splits=("excluded",))


def test_a_wrong_name_of_a_gene_costs_no_pass(run, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "open_run", lambda _: run)
    monkeypatch.setattr(export, "gene_masks", lambda *_, **__: 1 / 0)
    for name in ("chr3_g99", "chr1_g0"):
        with pytest.raises(InputError, match=rf"--gene: .*first: {name} \(nearest: CHR3G"):
            export_elements(
                tmp_path, tmp_path / "no", data=dataset.root, splits=("test",), genes=[name]
            )


def test_a_failure_leaves_no_folder_and_an_old_map_is_kept(
    run, dataset, element_map, tmp_path, monkeypatch
):
    with pytest.raises(InputError, match="existing output"):
        export_elements(tmp_path, element_map.folder, data=dataset.root)
    monkeypatch.setattr(export, "links_table", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_elements(
            tmp_path, element_map.folder, data=dataset.root, config=CONFIG, overwrite=True
        )
    assert (element_map.folder / "summary.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["map"]


def test_bigwigs_are_written_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_CHUNK", 3)
    starts = np.arange(10) * 10
    with write_bigwig(tmp_path / "x.bw", {"b": 200, "a": 50}) as writer:
        writer.add("b", starts, starts + 5, starts / 7)
    with pyBigWig.open(str(tmp_path / "x.bw")) as handle:
        assert [(s, e) for s, e, _ in handle.intervals("b")] == [(s, s + 5) for s in starts]
        assert handle.chroms() == {"a": 50, "b": 200}


def test_a_level_through_the_whole_export(dataset, tmp_path, monkeypatch):
    """Two members that differ in gain; the null is drawn twice and leaves nothing behind."""
    run = fake_run(dataset, gains=(1.0, 2.0))
    monkeypatch.setattr(export, "open_run", lambda _: run)
    config = CallConfig(fdr=0.5, min_length_bp=32)
    null = NullConfig("mean", seed=3, draws=2)
    made = export_elements(
        tmp_path / "run", tmp_path / "map", data=dataset.root, config=config, null=null
    )
    summary = read_json(made.folder / "summary.json")
    assert summary["null"] == {"kind": "mean", "seed": 3, "draws": 2}
    assert (
        summary["calling"] | {"fdr": 0.5, "budget": None, "max_gap_bp": 256} == summary["calling"]
    )
    level = summary["fdr"]
    place = level["curve"]["threshold"].index(summary["threshold"])
    assert level["curve"]["fdr"][place] <= 0.5
    assert place == 0 or level["curve"]["fdr"][place - 1] > 0.5
    assert level["curve"]["observed"][place] == summary["elements"]["distal"]
    assert level["num_draws"] == 2
    assert not list(made.folder.glob("scratch*"))
    distal = made.elements[made.elements["element_class"] == "distal"]
    assert (distal["q_value"] <= 0.5).all()
    assert (distal["mask_q05"] < distal["mask_q95"]).all()
    assert distal["prob_called"].between(0, 1).all()
    assert set(distal["num_calling"]) <= {0, 1, 2}
    assert summary["agreement"]["num_replicates"] == 2
    promoters = made.elements[made.elements["element_class"] == "promoter"]
    assert promoters[list(EVIDENCE_COLUMNS)].isna().all().all()
    frame = pd.read_csv(made.folder / "elements.bed.gz", sep="\t", names=list(ELEMENT_COLUMNS))
    np.testing.assert_allclose(frame["q_value"], made.elements["q_value"], rtol=1e-5)


def test_narrow_peaks_have_ten_columns(element_map):
    peaks = read_bed(element_map.folder / "elements.narrowPeak.gz")
    distal = element_map.elements[element_map.elements["element_class"] == "distal"]
    assert peaks.shape == (len(distal), 10)
    assert set(peaks["column_9"].astype(float)) == {-1.0}  # no null was drawn
    summit = peaks["start"] + peaks["column_10"].astype(int)
    assert sorted(summit) == sorted(distal["summit"])
    assert (peaks["column_10"].astype(int) < peaks["end"] - peaks["start"]).all()
    scored = distal.assign(q_value=0.01)
    np.testing.assert_allclose(narrow_peaks(scored)["qValue"], 2)
    np.testing.assert_allclose(narrow_peaks(scored.assign(q_value=0.0))["qValue"], 10)


def test_one_member_has_no_agreement_and_says_so(element_map):
    assert element_map.elements[["num_calling", "idr", "q_value"]].isna().all().all()
    summary = read_json(element_map.folder / "summary.json")
    assert "one replicate only" in summary["agreement"]["reason"]
    assert "fdr" not in summary


def test_other_runs_are_replicates(dataset, tmp_path, monkeypatch):
    runs = {"one": fake_run(dataset), "two": fake_run(dataset, gains=(2.0,))}
    monkeypatch.setattr(export, "open_run", lambda folder: runs[folder.name])
    made = export_elements(
        tmp_path / "one",
        tmp_path / "map",
        data=dataset.root,
        config=CONFIG,
        replicates=[tmp_path / "two"],
    )
    assert made.summary["agreement"]["num_replicates"] == 2
    distal = made.elements[made.elements["element_class"] == "distal"]
    # The second mask is nowhere below the first, so it calls whatever the first calls.
    assert set(distal["num_calling"]) == {2}


def test_a_level_that_nothing_meets_writes_an_empty_map(run, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "open_run", lambda _: run)
    monkeypatch.setattr(export, "null_masks", lambda *_, **more: gene_masks_like(*_, **more))
    with pytest.warns(Seq2ExpWarning, match="at best"):
        made = export_elements(
            tmp_path / "run", tmp_path / "map", data=dataset.root, config=CallConfig(fdr=0.01)
        )
    assert set(made.elements["element_class"]) == {"promoter"}
    summary = read_json(made.folder / "summary.json")
    assert summary["threshold"] is None
    assert summary["called_bins"] == 0
    assert "by_split" not in summary["fdr"]


def gene_masks_like(run, dataset, rows, **more):
    """Stand for a null that is as strong as the masks."""
    kept = {name: more[name] for name in ("out", "batch_size", "workers", "progress")}
    return gene_masks(run, dataset, rows, **kept)


def test_member_arrays_read_back(dataset, tmp_path):
    run = fake_run(dataset, gains=(1.0, 2.0))
    written = gene_masks(run, dataset, range(8), out=tmp_path / "masks", members=True)
    for place, gain in enumerate((1.0, 2.0)):
        alone = gene_masks(fake_run(dataset, gains=(gain,)), dataset, range(8))
        np.testing.assert_array_equal(written.members["mask"][place], alone.mask)
        np.testing.assert_array_equal(written.members["alpha"][place], alone.alpha)
    assert written.member_masks().shape == (2, *written.mask.shape)
    plain = gene_masks(run, dataset, range(8))
    assert plain.members is None
    np.testing.assert_array_equal(plain.mask, written.mask)
