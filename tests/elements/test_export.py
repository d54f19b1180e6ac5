from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pyBigWig
import pysam
import pytest

from seq2exp.core.bed import read_bed
from seq2exp.core.errors import InputError
from seq2exp.core.files import read_json
from seq2exp.elements import export
from seq2exp.elements.calling import ELEMENT_COLUMNS, CallConfig
from seq2exp.elements.export import LINK_COLUMNS, export_elements, write_bigwig
from seq2exp.elements.masks import load_masks
from seq2exp.elements.merged import merged_mask

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
