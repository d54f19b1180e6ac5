"""The whole preparation of a cohort, on sections whose every pixel is known."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import data_prep.histology.build as build
from data_prep.histology.build import prepare_cohort
from data_prep.histology.config import GeneTableConfig, PatchConfig
from seq2exp.core.errors import FormatError, InputError, Seq2ExpWarning
from seq2exp.spatial import format as layout
from seq2exp.spatial.cohort import SpatialCohort
from tests.data_prep.histology import raw, visium_folder


def digest(root):
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cohort of a section of either layout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out") / "cohort"
    config = raw.cohort(raw.write_st(source, seed=1), raw.write_h5ad(source))
    return config, source, out, prepare_cohort(config, source, out)


def test_files_and_manifest(made):
    _, _, out, manifest = made
    kinds = {"sections": "h5ad", "patches": "npy", "images": "png"}
    files = {f"{kind}/{name}.{end}" for name in ("S1", "H1") for kind, end in kinds.items()}
    assert set(digest(out)) == files | {"manifest.json"}
    assert manifest.files == {n: d for n, d in digest(out).items() if n != "manifest.json"}
    assert layout.read_manifest(out) == manifest
    assert [section.name for section in manifest.sections] == ["S1", "H1"]
    assert manifest.gene_ids == "symbol"
    first, second = manifest.sections
    assert (first.patient, second.patient) == ("P1", "P2")
    assert (first.width, first.height, first.um_per_px) == (280, 220, 10)
    assert (first.spot_pitch_um, first.spot_diameter_um) == (200, 100)
    assert (second.spot_pitch_um, second.spot_diameter_um) == (200, 100)
    assert first.left_out == {"fewer than 100 counts": 0}
    assert first.notes["saturation_on_spots"] > 80 > first.notes["saturation_off_spots"]


def test_the_cohort_holds_what_went_in(made):
    _, source, out, _ = made
    cohort = SpatialCohort(out, verify_checksums=True)
    rows, columns = raw.grid()
    section = cohort.section("S1")
    np.testing.assert_array_equal(section.counts_NA.toarray(), raw.counts(seed=1))
    np.testing.assert_array_equal(section.grid_N2, np.column_stack([rows, columns]))
    np.testing.assert_array_equal(section.xy_N2, np.column_stack(raw.places()))
    np.testing.assert_array_equal(section.total_N, raw.counts(seed=1).sum(axis=1))
    assert list(section.var.index) == raw.GENES == list(section.var["gene_id"])
    assert section.obs.index[7] == "S1_1x1"
    assert section.image_path.read_bytes() == (source / "S1.png").read_bytes()
    about = anndata.read_h5ad(out / "sections/S1.h5ad").uns["image"]
    assert (about["spot_pitch_px"], about["um_per_px"], about["grid"]) == (20, 10, "square")
    assert cohort.section("H1").obs["barcode"].tolist()[:2] == ["AAC-0", "AAC-1"]


def test_every_spot_gets_the_patch_of_its_place(made):
    """160 micrometres are 16 pixels, as stored; red says the row and green the column."""
    _, _, out, _ = made
    patches = SpatialCohort(out).section("S1").patches
    assert patches.shape == (30, 16, 16, 3)
    pixels = raw.picture(seed=1)
    for spot, (x, y) in enumerate(zip(*raw.places(), strict=True)):
        expected = pixels[int(y) - 8 : int(y) + 8, int(x) - 8 : int(x) + 8]
        np.testing.assert_array_equal(patches[spot], expected)


def test_equal_inputs_give_equal_bytes_wherever_they_lie(made, tmp_path):
    config, source, out, _ = made
    copied = shutil.copytree(source, tmp_path / "elsewhere")
    prepare_cohort(config, copied, tmp_path / "again")
    assert digest(tmp_path / "again") == digest(out)


def test_images_of_any_resolution_show_the_same_field(tmp_path):
    """Twice the pixels, half their size: patches of flat colour stay as they are."""
    config = raw.write_st(tmp_path)
    Image.fromarray(raw.picture()).resize((560, 440), Image.Resampling.NEAREST).save(
        tmp_path / "large.png"
    )
    spots = pd.read_csv(tmp_path / "S1_spots.tsv", sep="\t")
    spots[["pixel_x", "pixel_y"]] *= 2
    spots.to_csv(tmp_path / "large_spots.tsv", sep="\t", index=False)
    large = dataclasses.replace(config, name="L1", image="large.png", spots="large_spots.tsv")
    manifest = prepare_cohort(raw.cohort(config, large), tmp_path, tmp_path / "out")
    assert [section.um_per_px for section in manifest.sections] == [10, 5]
    cohort = SpatialCohort(tmp_path / "out")
    np.testing.assert_array_equal(cohort.section("S1").patches, cohort.section("L1").patches)


def test_images_can_stay_where_they_are(tmp_path):
    config = raw.write_st(tmp_path / "source")
    settings = raw.cohort(config, images="reference")
    prepare_cohort(settings, tmp_path / "source", tmp_path / "out")
    assert not list((tmp_path / "out/images").iterdir())
    section = SpatialCohort(tmp_path / "out").section("S1")
    assert section.image_path == (tmp_path / "source/S1.png").absolute()


def test_stains_are_brought_to_those_of_the_first_section(tmp_path):
    """The second section is the first one, scanned darker."""
    first = raw.write_st(tmp_path)
    light = raw.picture() / 255
    Image.fromarray((255 * light**1.5).round().astype(np.uint8)).save(tmp_path / "dark.png")
    second = dataclasses.replace(first, name="S2", image="dark.png")
    found = {}
    for stain in ("none", "macenko"):
        config = raw.cohort(first, second, patch=PatchConfig(um=160, px=16, stain=stain))
        prepare_cohort(config, tmp_path, tmp_path / stain)
        cohort = SpatialCohort(tmp_path / stain)
        mean = [cohort.section(name).patches.mean(axis=(0, 1, 2)) for name in ("S1", "S2")]
        found[stain] = np.abs(mean[0] - mean[1]).max()
    assert found["macenko"] < 0.2 * found["none"]


# Refusals: each names what is wrong, and nothing is left behind ---------------------------------


def refuses(config, source, out, error, text):
    with pytest.raises(error, match=text):
        prepare_cohort(config, source, out)
    assert not out.exists()
    assert not list(out.parent.glob(".*partial*"))


def broken_image(source):
    content = (source / "H1.png").read_bytes()
    (source / "H1.png").write_bytes(content[: len(content) // 2])


def empty_image(source):
    (source / "H1.png").write_bytes(b"")


def rotated_image(source):
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(source / "H1.png") as image:
        image.convert("RGB").save(source / "H1.png", exif=exif)


def small_image(source):
    with Image.open(source / "H1.png") as image:
        image.resize((140, 110)).save(source / "H1.png")


def blank_image(source):
    Image.new("RGB", (280, 220), (230, 230, 230)).save(source / "H1.png")


def no_scale(source):
    data = raw.adata(about={"file": "H1.png"})
    data.write_h5ad(source / "H1.h5ad")


def other_scale(source):
    raw.adata(um_per_px=20.0, about={"um_per_px": 20.0, "spot_pitch_px": 10.0}).write_h5ad(
        source / "H1.h5ad"
    )


def negative_counts(source):
    raw.adata(X=raw.counts().astype(float) - 1000).write_h5ad(source / "H1.h5ad")


def truncated_table(source):
    content = (source / "H1.h5ad").read_bytes()
    (source / "H1.h5ad").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("damage", "error", "text"),
    [
        (broken_image, FormatError, r"H1\.png.*restore the file"),
        (empty_image, FormatError, r"H1\.png"),
        (rotated_image, InputError, "EXIF orientation 6"),
        (small_image, InputError, r"section H1.*spots beyond H1\.png, 140 x 110"),
        (blank_image, InputError, r"section H1.*saturation 0\.0 on the spots and 0\.0 off"),
        (no_scale, InputError, "section H1.*give um_per_px"),
        (other_scale, InputError, "section H1.*different resolutions"),
        (negative_counts, FormatError, r"H1\.h5ad.*no counts"),
        (truncated_table, FormatError, r"H1\.h5ad.*whole AnnData"),
    ],
)
def test_f19_a_fault_in_the_last_section_costs_no_work(tmp_path, monkeypatch, damage, error, text):
    """Every section is checked before a patch is cut."""
    source = tmp_path / "source"
    config = raw.cohort(raw.write_st(source), raw.write_h5ad(source))
    damage(source)
    monkeypatch.setattr(build, "_write_section", lambda *_: pytest.fail("wrote before checking"))
    refuses(config, source, tmp_path / "out", error, text)


def exchanged(folder):
    """A large pale slide with its tissue below the diagonal, x and y exchanged."""
    pixels = np.full((600, 600, 3), 244, np.uint8)
    pixels[380:, :220] = (180, 60, 160)
    rows, columns = raw.grid()
    x, y = raw.places()
    spots = pd.DataFrame({"x": columns, "y": rows, "pixel_x": y + 340, "pixel_y": x - 40})
    config = raw.write_st(folder, spots=spots)
    raw.write_image(folder / "S1.png", pixels)
    return config


def test_f19_exchanged_axes_are_refused_unless_told_otherwise(tmp_path):
    config = exchanged(tmp_path / "s")
    refuses(raw.cohort(config), tmp_path / "s", tmp_path / "out", InputError, "check x and y")
    prepare_cohort(raw.cohort(config, check_alignment=False), tmp_path / "s", tmp_path / "out")
    assert (tmp_path / "out/manifest.json").is_file()


def test_f19_a_section_of_one_spot_is_flagged_and_written(tmp_path):
    """Nothing tells its pitch; what is not known is not made up."""
    data = raw.adata(about={"um_per_px": 10.0})[[3]].copy()
    config = raw.cohort(raw.write_h5ad(tmp_path, data=data))
    with pytest.warns(Seq2ExpWarning, match="found 1 spots"):
        prepare_cohort(config, tmp_path, tmp_path / "out")
    info = SpatialCohort(tmp_path / "out").section("H1").info
    assert (info.num_spots, info.spot_pitch_um, info.spot_diameter_um) == (1, 0, 0)
    assert "spot_pitch_px" not in anndata.read_h5ad(tmp_path / "out/sections/H1.h5ad").uns["image"]


def test_a_pitch_that_is_not_stated_is_measured(tmp_path):
    config = raw.cohort(raw.write_h5ad(tmp_path, data=raw.adata(about={"um_per_px": 10.0})))
    assert prepare_cohort(config, tmp_path, tmp_path / "out").sections[0].spot_pitch_um == 200


def test_tissue_that_fills_the_image_is_written(tmp_path):
    """There is no glass to compare with, and no number of it in the manifest."""
    x, y = raw.places()
    config = raw.write_h5ad(tmp_path, data=raw.adata(spatial=np.column_stack([x - 45, y - 45])))
    raw.write_image(tmp_path / "H1.png", raw.picture()[45:-45, 45:-85])
    found = prepare_cohort(raw.cohort(config), tmp_path, tmp_path / "out")
    assert set(found.sections[0].notes) == {"saturation_on_spots"}


def test_an_image_too_coarse_for_the_patch_is_flagged(tmp_path):
    config = raw.cohort(raw.write_st(tmp_path), patch=PatchConfig(um=160, px=224))
    with pytest.warns(Seq2ExpWarning, match="16 pixels in 160 micrometres"):
        prepare_cohort(config, tmp_path, tmp_path / "out")


# The folder ----------------------------------------------------------------------------------


def test_an_existing_folder_is_kept_unless_told_otherwise(made, tmp_path):
    config, source, _, _ = made
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="--overwrite"):
        prepare_cohort(config, source, out)
    assert (out / "mine.txt").read_text() == "precious"
    prepare_cohort(config, source, out, overwrite=True)
    assert not (out / "mine.txt").exists()
    assert (out / "manifest.json").is_file()


def test_a_stop_in_the_middle_leaves_nothing_and_keeps_the_old(made, tmp_path, monkeypatch):
    config, source, _, _ = made
    out = tmp_path / "out"
    prepare_cohort(config, source, out)
    before = digest(out)
    real, calls = build._write_table, []

    def stops(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(build, "_write_table", stops)
    for target in (out, tmp_path / "new"):
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            prepare_cohort(config, source, target, overwrite=True)
    assert digest(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


# Ids of genes --------------------------------------------------------------------------------


def write_gtf(folder, symbols):
    lines = []
    for i, symbol in enumerate(symbols):
        start, end = 1000 * (i + 1), 1000 * (i + 1) + 500
        ids = f'gene_id "ENSG{i:011d}.3"; gene_name "{symbol}"; gene_type "protein_coding";'
        lines += [
            f"chr1\tx\tgene\t{start}\t{end}\t.\t+\t.\t{ids}",
            f'chr1\tx\ttranscript\t{start}\t{end}\t.\t+\t.\t{ids} transcript_id "T{i}";',
        ]
    (folder / "genes.gtf").write_text("\n".join(lines) + "\n")


def test_genes_get_the_ids_of_the_gtf_old_names_included(tmp_path):
    config = raw.write_st(tmp_path)
    write_gtf(tmp_path, [*raw.GENES[:6], "NEW6", "NEW6"])
    (tmp_path / "old.tsv").write_text("symbol\tcurrent\nGENE5\tOTHER\nGENE7\tGENE0\n")
    genes = GeneTableConfig("genes.gtf", "old.tsv")
    manifest = prepare_cohort(raw.cohort(config, genes=genes), tmp_path, tmp_path / "out")
    var = SpatialCohort(tmp_path / "out").section("S1").var
    assert manifest.gene_ids == "ensembl"
    assert var.loc["GENE5", "gene_id"] == "ENSG00000000005"
    assert var.loc["GENE5", "chrom"] == "chr1"
    # Two genes of one id keep apart, as do symbols without one.
    assert var.loc["GENE7", "gene_id"] == "GENE7"
    assert var.loc["GENE6", "gene_id"] == "GENE6"
    assert var["gene_id"].is_unique


def test_f19_no_gene_of_the_gtf_is_an_error_and_few_are_flagged(tmp_path):
    config = raw.write_st(tmp_path)
    settings = raw.cohort(config, genes=GeneTableConfig("genes.gtf"))
    write_gtf(tmp_path, [f"OTHER{i}" for i in range(8)])
    refuses(
        settings, tmp_path, tmp_path / "out", InputError, r"8 of 8 genes without an id.*GTF of this"
    )
    write_gtf(tmp_path, [*raw.GENES[:2], *(f"OTHER{i}" for i in range(6))])
    with pytest.warns(Seq2ExpWarning, match="6 of 8 genes without an id"):
        prepare_cohort(settings, tmp_path, tmp_path / "out")


def test_f19_sections_without_a_gene_in_common(tmp_path):
    """One section knows Ensembl ids and the other symbols only: a GTF brings them together."""
    folder = visium_folder.write_visium(tmp_path / "outs")
    sections = [folder, raw.write_st(tmp_path)]
    refuses(
        raw.cohort(*sections), tmp_path, tmp_path / "out", InputError, r"sections V1 and S1.*ENSG0"
    )
    write_gtf(tmp_path, raw.GENES)
    config = raw.cohort(*sections, genes=GeneTableConfig("genes.gtf"))
    assert prepare_cohort(config, tmp_path, tmp_path / "out").gene_ids == "ensembl"
    cohort = SpatialCohort(tmp_path / "out")
    assert set(cohort.section("V1").var["gene_id"]) == set(cohort.section("S1").var["gene_id"])
