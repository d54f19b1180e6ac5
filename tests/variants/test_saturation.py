"""Saturation mutagenesis: every effect of a region is that of the one mutation, whoever asks."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pyBigWig
import pysam
import pytest

from seq2exp.cli.main import main
from seq2exp.core.errors import ConfigError, FormatError, InputError, Seq2ExpWarning
from seq2exp.core.sequence import N_CODE, decode
from seq2exp.core.work import work_folders
from seq2exp.dataset.samples import gene_window
from seq2exp.dataset.store import Dataset
from seq2exp.interpret.saturation import saturate
from seq2exp.interpret.target import make_target
from seq2exp.training.run import open_run
from seq2exp.variants import engine as engines
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.mutants import drawn_bases, make_mutants
from seq2exp.variants.regions import Region, find_regions, parse_region, usable_regions
from seq2exp.variants.saturate import SaturationConfig, saturate_regions
from seq2exp.variants.saturation import Collector, load_saturation
from seq2exp.variants.saturation_files import TRACKS, folder_names
from seq2exp.variants.saturation_plot import LETTERS_BP, plot_saturation
from seq2exp.variants.source import open_source
from tests.toys import toy_dataset
from tests.variants.engines import BIN, WINDOW, Additive, engine_of, run_of, seq2exp, table_of
from tests.variants.test_engine import naive_window


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset(toy_dataset(tmp_path_factory.mktemp("saturation") / "toy"))


def saturated(dataset, models, regions, folder, *, deletions=False, inserted="", **settings):
    """Collect the scores of all mutations, with no parts and no files in between."""
    with engine_of(dataset, models, **settings) as engine:
        usable = usable_regions(regions, dataset, engine.index)
        mutants = make_mutants(
            [r for r, _ in usable], dataset, deletions=deletions, inserted=inserted
        )
        path = folder / "mutants.vcf"
        path.write_text(mutants.text)
        source = open_source(path, dataset=dataset, shard_size=50)
        collector = Collector(mutants, usable, dataset, engine.columns, inserted=inserted)
        for shard in source.shards:
            collector.add(engine.score(source.read(shard)))
    return {(str(one.region), one.gene_id): one for one in collector.results()}


def site(dataset, strand, contig="chr1"):
    """Row and TSS of a gene of a strand well inside of a contig, no N around."""
    for row, (name, tss, found) in enumerate(dataset.sites):
        inside = WINDOW < tss < dataset.manifest.contigs[contig] - WINDOW
        if name == contig and found == strand and inside:
            codes = dataset.contig_codes(contig)[tss - WINDOW : tss + WINDOW]
            if (codes < N_CODE).all():
                return row, tss
    raise LookupError(strand)


def first_n(dataset):
    """Contig and first base of a run of N."""
    for contig in dataset.manifest.contigs:
        unknown = np.flatnonzero(dataset.contig_codes(contig) >= N_CODE)
        if unknown.size:
            return contig, int(unknown[0])
    raise LookupError("N")


# Effects ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("strand", ["+", "-"])
def test_additive_model_gives_differences_of_weights_on_both_strands(dataset, tmp_path, strand):
    model = Additive()
    weight_LC = model.weight_LC.detach().numpy()
    row, tss = site(dataset, strand)
    region = Region("chr1", tss - 30, tss + 40)
    gene = str(dataset.genes["gene_id"].iloc[row])
    one = saturated(dataset, [model], [region], tmp_path, scorers=("expr_delta",))[
        str(region), gene
    ]
    window = gene_window(dataset, row, run_of(dataset, model).card.data)
    assert window.reverse == (strand == "-")
    for place, position in enumerate(range(region.start, region.end)):
        ref = int(one.codes_P[place])
        index = window.end - 1 - position if window.reverse else position - window.start
        for base in range(4):
            seen, was = (3 - base, 3 - ref) if window.reverse else (base, ref)
            expected = weight_LC[index, seen] - weight_LC[index, was]
            np.testing.assert_allclose(
                one.delta_PCK[place, base], [expected, 2 * expected], atol=2e-4
            )
        others = [weight_LC[index, b] for b in range(4) if b != was]
        np.testing.assert_allclose(
            one.importance_PK[place, 0], weight_LC[index, was] - np.mean(others), atol=2e-4
        )
    np.testing.assert_array_equal(one.mean_PK, -one.importance_PK)
    np.testing.assert_array_equal(one.largest_PK, np.abs(one.delta_PCK).max(axis=1))
    place, base, effect = one.strongest(1)
    assert effect == one.delta_PCK[place, base, 1]
    assert abs(effect) == one.largest_PK[:, 1].max()
    # One member has no spread, and this model has no mask.
    assert np.isnan(one.spread_PCK).all()
    assert np.isnan(one.mask_PC).all()
    assert (one.element_P == -1).all()


def test_effects_are_those_of_the_engine_asked_one_by_one(dataset, tmp_path):
    models = [seq2exp(dataset, seed=seed) for seed in (1, 2)]
    row, tss = site(dataset, "-")
    region, gene = Region("chr1", tss - 12, tss + 13), str(dataset.genes["gene_id"].iloc[row])
    settings = {"strands": "both", "scorers": ("expr_delta", "mask_delta")}
    one = saturated(dataset, models, [region], tmp_path, **settings)[str(region), gene]
    wanted = [
        (position, base)
        for position in range(region.start, region.end)
        for base in range(4)
        if base != one.codes_P[position - region.start]
    ]
    alleles = [
        ("chr1", p, decode(one.codes_P[p - region.start : p - region.start + 1]), "ACGT"[base])
        for p, base in wanted
    ]
    with engine_of(dataset, models, batch_size=5, **settings) as engine:
        table = engine.score(table_of(dataset, alleles).iloc[::-1].reset_index(drop=True))
    table = table[table["gene_id"] == gene].sort_values("record")
    place, base = (np.array(wanted) - [region.start, 0]).T
    for label, name in enumerate(one.labels):
        found = one.delta_PCK[place, base, label]
        np.testing.assert_allclose(found, table[f"expr_delta:{name}"], atol=1e-5)
        found = one.spread_PCK[place, base, label]
        np.testing.assert_allclose(found, table[f"expr_delta:{name}:sd"], atol=1e-5)
        assert (found > 0).any()
    np.testing.assert_allclose(one.mask_PC[place, base], table["mask_delta"], atol=1e-5)
    assert (one.mask_PC[place, base] != 0).any()
    own = one.delta_PCK[np.arange(len(region)), one.codes_P]
    np.testing.assert_array_equal(own, np.zeros_like(own))
    assert set(one.element_P.tolist()) == {1}  # around the TSS: the forced promoter


def test_attribute_with_saturation_says_the_same_of_its_window(dataset, tmp_path):
    model = seq2exp(dataset, seed=3)
    row, tss = site(dataset, "+")
    region, gene = Region("chr1", tss - 20, tss + 20), str(dataset.genes["gene_id"].iloc[row])
    one = saturated(dataset, [model], [region], tmp_path)[str(region), gene]
    run = run_of(dataset, model)
    start = WINDOW // 2 - 20
    target = make_target(run, dataset, row, output=1)
    other = saturate(target, start=start, end=start + 40)
    np.testing.assert_allclose(one.delta_PCK[:, :, 1], other.delta_PC, atol=1e-5)
    np.testing.assert_allclose(one.importance_PK[:, 1] * 0.75, other.share_P, atol=1e-5)


def test_deletions_and_insertions_are_those_of_strings(dataset, tmp_path):
    model, inserted = Additive(), drawn_bases(3, seed=4)
    row, tss = site(dataset, "-")
    gene = str(dataset.genes["gene_id"].iloc[row])
    region = Region("chr1", tss + 3, tss + 43)
    one = saturated(
        dataset, [model], [region], tmp_path, deletions=True, inserted=inserted
    )[str(region), gene]  # fmt: skip
    text = decode(np.asarray(dataset.contig_codes("chr1")))
    reference = model.value(naive_window(dataset, row, []))
    for place, position in enumerate(range(region.start, region.end)):
        for effects, ref, alt in (
            (one.deletion_PK, text[position - 1 : position + 1], text[position - 1]),
            (one.insertion_PK, text[position - 1], text[position - 1] + inserted),
        ):
            window = naive_window(dataset, row, [(position - 1, ref, alt)])
            expected = model.value(window) - reference
            assert effects[place, 0] == pytest.approx(expected, abs=2e-4)
            assert effects[place, 1] == pytest.approx(2 * expected, abs=4e-4)


def test_the_first_base_of_a_contig_and_bases_behind_n_are_mutated_too(dataset):
    contig, start = first_n(dataset)
    codes = dataset.contig_codes(contig)
    end = start + int(np.flatnonzero(codes[start:] < N_CODE)[0])
    regions = [Region(contig, 0, 1), Region(contig, start - 1, end + 1)]
    mutants = make_mutants(regions, dataset, deletions=True, inserted="GA")
    rows = [line.split("\t") for line in mutants.text.splitlines() if line[0] != "#"]
    text = decode(np.asarray(codes))
    found = {(int(pos), ref, alt) for _, pos, _, ref, alt, *_ in rows}
    assert (1, text[:2], text[1]) in found  # a deletion at the start has the base after it
    assert (1, text[0], "GA" + text[0]) in found
    assert (end + 1, text[end : end + 2], text[end + 1]) in found  # and so behind N
    assert len(rows) == 3 * 3  # of the second region the two ends are known
    positions = [int(row[1]) for row in rows]
    assert positions == sorted(positions)


def test_n_and_what_is_beyond_the_window_is_missing_never_zero(dataset, tmp_path):
    row, tss = site(dataset, "+")
    gene = str(dataset.genes["gene_id"].iloc[row])
    region = Region("chr1", tss + WINDOW // 2 - 5, tss + WINDOW // 2 + 5)
    one = saturated(dataset, [Additive()], [region], tmp_path)[str(region), gene]
    assert np.isfinite(one.delta_PCK[:5]).all()
    for values in (one.delta_PCK[5:], one.importance_PK[5:], one.largest_PK[5:]):
        assert np.isnan(values).all()


# Regions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("chr6:1000-1500", Region("chr6", 999, 1500)),
        ("chr6:1,000-1,500", Region("chr6", 999, 1500)),
        (" 6:7-7 ", Region("6", 6, 7)),
        ("HLA-A*01:01:5-10", Region("HLA-A*01:01", 4, 10)),
    ],
)
def test_regions_are_read_as_browsers_write_them(text, expected):
    assert parse_region(text) == expected


@pytest.mark.parametrize(
    "text",
    ["chr6", "chr6:1000", "chr6:1000-", "chr6:0-10", "chr6:20-10", "chr6:a-b", "chr6:-5-10", "",
     ":1-2", "chr6:1-2-3", "chr6 1 2", "chr6:,-,", "chr6:1-99999999999999999999"],
)  # fmt: skip
def test_other_texts_are_no_region_and_the_form_is_shown(text):
    with pytest.raises(InputError, match=r"expected CONTIG:FIRST-LAST .*chr6:1000-1500"):
        parse_region(text)


def test_regions_get_the_names_of_the_dataset_and_overlaps_are_joined(dataset, tmp_path):
    bed = tmp_path / "regions.bed"
    bed.write_text("2\t50\t150\nchr1\t100\t200\n")
    found = find_regions(["1:151-300", "chr3:10-20"], bed, dataset=dataset)
    assert found == [Region("chr1", 100, 300), Region("chr2", 50, 150), Region("chr3", 9, 20)]
    # What only touches stays apart.
    words = ["chr1:1-10", "chr1:11-20"]
    assert len(find_regions(words, dataset=dataset)) == 2


def test_unknown_contigs_and_regions_beyond_the_end_are_named(dataset):
    with pytest.raises(InputError, match=r"--region chr7:1-5: found contig chr7.*did you mean"):
        find_regions(["chr1:1-5", "chr7:1-5"], dataset=dataset)
    end = dataset.manifest.contigs["chr1"]
    with pytest.raises(InputError, match=f"within its {end:,} bases"):
        find_regions([f"chr1:5-{end + 1}"], dataset=dataset)
    assert find_regions([f"chr1:5-{end}"], dataset=dataset)[0].end == end
    with pytest.raises(InputError, match="give --region or --bed"):
        find_regions([], dataset=dataset)


def test_regions_of_n_and_without_genes_are_refused_or_left_out_by_name(dataset):
    contig, start = first_n(dataset)
    unknown = Region(contig, start, start + 3)
    contig, tss, _ = dataset.sites[0]
    with engine_of(dataset, [Additive()], genes=(str(dataset.genes["gene_id"].iloc[0]),)) as engine:
        index = engine.index
    good = Region(contig, tss, tss + 5)
    alone = Region(contig, tss + WINDOW, tss + WINDOW + 3)
    with pytest.raises(InputError, match="only N"):
        usable_regions([unknown], dataset, index)
    with pytest.raises(InputError, match=rf"TSS of \S+ is {WINDOW:,} bases away.*within 512"):
        usable_regions([alone], dataset, index)
    with pytest.raises(InputError, match=r"no gene on chr3.*other --gene"):
        usable_regions([Region("chr3", 5, 9)], dataset, index)
    with pytest.warns(Seq2ExpWarning) as caught:
        assert usable_regions([unknown, good, alone], dataset, index) == [(good, [0])]
    assert [str(w.message).split(":")[0].split()[0] for w in caught] == ["region", "region"]


# The folder -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(toy):
    """Two stretches of the toy genome, one with windows of two genes in reach."""
    dataset = Dataset(toy)
    contig, tss, _ = dataset.sites[5]
    return f"{contig}:{tss - 60}-{tss + 90}", f"{contig}:{tss + 200}-{tss + 260}"


def command(finished, place, out, *more):
    words = [word for region in place for word in ("--region", region)]
    return ["variants", "saturate", str(finished), "--out", str(out), *words, "--quiet", *more]


@pytest.fixture(scope="module")
def made(finished, place, tmp_path_factory):
    out = tmp_path_factory.mktemp("saturated") / "out"
    more = ("--table", "parquet", "--table", "vcf.gz", "--plots", "2", "--deletions",
            "--insertions", "2")  # fmt: skip
    assert main(command(finished, place, out, *more)) == 0
    return out


def arrays(folder):
    return {path.parent: load_saturation(path) for path in sorted(folder.rglob("saturation.npz"))}


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_folder_holds_arrays_tracks_tables_and_pictures(made, place, finished):
    found = list(arrays(made).values())
    assert {str(one.region) for one in found} == set(place)
    assert work_folders(made) == []
    about = np.load(next(made.rglob("saturation.npz")), allow_pickle=False)
    assert len(str(about["model_sha256"])) == 64
    assert "prediction" in str(about["formula"]) or "y_a" in str(about["formula"])
    np.testing.assert_array_equal(about["importance"], -about["delta"].sum(1) / np.float32(3) + 0)
    summary = json.loads((made / "summary.json").read_text())
    assert summary["unit"] == found[0].unit
    assert summary["inserted"] == found[0].inserted == drawn_bases(2, seed=0)
    assert str(finished.parent) not in (made / "summary.json").read_text()
    genes = pd.read_csv(made / "genes.tsv", sep="\t")
    assert len(genes) == len(found) * len(found[0].labels)
    pictures = {path.suffix for path in made.rglob("cell_*")}
    assert pictures == {".png", ".svg"}
    assert len(list(made.rglob("*.png"))) == 2


def test_tracks_are_the_arrays_in_genome_direction(made):
    for one in arrays(made).values():
        for label, name in enumerate(one.labels):
            for what in TRACKS:
                with pyBigWig.open(str(made / "tracks" / f"{one.name}_{name}_{what}.bw")) as track:
                    region = one.region
                    found = track.values(region.contig, region.start, region.end)
                    expected = getattr(one, f"{what}_PK")[:, label]
                    np.testing.assert_allclose(found, expected, rtol=1e-6)
                    assert track.header()["nBasesCovered"] <= 211


def test_tables_agree_with_the_arrays_and_with_the_command_for_variants(made, finished, tmp_path):
    table = pd.read_parquet(made / "mutations.parquet")
    assert {"snv", "ins", "del"} == set(table["variant_type"])
    again = tmp_path / "again.parquet"
    line = ["variants", str(finished), "--vcf", str(made / "mutations.vcf.gz"), "--out", str(again),
            "--quiet"]  # fmt: skip
    assert main(line) == 0
    other = pd.read_parquet(again)
    keys = ["record", "allele", "gene_id"]
    pd.testing.assert_frame_equal(table[keys], other[keys])
    for name in [name for name in table if name.startswith(("expr_delta:", "mask_delta"))]:
        np.testing.assert_allclose(table[name], other[name], atol=1e-5)
    for one in arrays(made).values():
        rows = table[(table["gene_id"] == one.gene_id) & (table["variant_type"] == "snv")]
        place = rows["pos1"].to_numpy() - 1 - one.region.start
        rows = rows[(place >= 0) & (place < len(one.region))]
        place = rows["pos1"].to_numpy() - 1 - one.region.start
        base = rows["alt"].map("ACGT".index).to_numpy()
        assert len(rows) == np.isfinite(one.delta_PCK[:, :, 0]).sum() * 3 / 4
        for label, name in enumerate(one.labels):
            found = one.delta_PCK[place, base, label]
            np.testing.assert_array_equal(found, rows[f"expr_delta:{name}"].to_numpy(np.float32))
    with pysam.VariantFile(str(made / "mutations.vcf.gz")) as vcf:
        assert sum(1 for _ in vcf) == table["record"].nunique()
    assert (made / "mutations.vcf.gz.tbi").is_file()


def interrupt_at(count, monkeypatch):
    """Let the engine stop like Ctrl-C when it is asked for the so-manieth time."""
    calls = []
    original = engines.Engine.score

    def score(self, alleles):
        calls.append(1)
        if len(calls) == count:
            raise KeyboardInterrupt
        return original(self, alleles)

    monkeypatch.setattr(engines.Engine, "score", score)
    return calls


def test_a_killed_run_continues_and_ends_with_the_same_bytes(
    made, finished, place, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    more = ("--table", "parquet", "--table", "vcf.gz", "--plots", "2", "--deletions",
            "--insertions", "2")  # fmt: skip
    with monkeypatch.context() as patch:
        # Two calls measure the speed.
        interrupt_at(2 + 3, patch)
        assert main(command(finished, place, out, *more)) == 130
    assert not out.exists()
    (folder,) = work_folders(out)
    assert len(list(folder.rglob("*.parquet"))) == 2
    # Another setting is other work; other pictures are not.
    capsys.readouterr()
    assert main(command(finished, place, out, *more, "--mask-bp", "101")) == 2
    assert "1 in all; first: config.mask_bp 501 -> 101" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        calls = interrupt_at(-1, patch)
        assert main(command(finished, place, out, *more)) == 0
    num_parts = -(-3 * 212 // 64)
    assert len(calls) == 2 + num_parts - 2
    assert content(out) == content(made)
    assert work_folders(out) == []


def test_restart_throws_parts_of_other_settings_away(finished, place, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt_at(4, patch)
        assert main(command(finished, place, out)) == 130
    assert len(work_folders(out)) == 1
    line = command(finished, place[1:], out, "--sample", "cell_b", "--plots", "0")
    assert main(line) == 2
    assert len(work_folders(out)) == 1
    assert main([*line, "--restart"]) == 0
    assert work_folders(out) == []
    assert next(iter(arrays(out).values())).labels == ("cell_b",)


@pytest.mark.slow
def test_several_processes_give_the_same_numbers(made, finished, place, tmp_path):
    out = tmp_path / "out"
    more = ("--workers", "2", "--plots", "0", "--deletions", "--insertions", "2")
    assert main(command(finished, place, out, *more)) == 0
    for ours, theirs in zip(arrays(out).values(), arrays(made).values(), strict=True):
        np.testing.assert_allclose(ours.delta_PCK, theirs.delta_PCK, atol=1e-5)


def test_far_too_much_is_refused_with_passes_and_time(finished, place, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(command(finished, place, out, "--max-passes", "100")) == 2
    error = capsys.readouterr().err
    for words in (
        "2 regions, 212 bases",
        "effects",
        "about",
        "at most 100 passes",
        "--max-passes ",
    ):
        assert words in error
    assert not out.exists()
    assert work_folders(out) == []


def test_only_the_genes_and_labels_that_were_asked_for(finished, toy, place, tmp_path):
    gene = Dataset(toy).genes.iloc[5]
    out = tmp_path / "out"
    more = ("--gene", gene["symbol"], "--sample", "cell_b", "--plots", "0")
    assert main(command(finished, place[:1], out, *more)) == 0
    (one,) = arrays(out).values()
    assert (one.gene_id, one.labels) == (gene["gene_id"], ("cell_b",))
    assert not list(out.glob("mutations*"))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--region", "chr1-5"], "expected CONTIG:FIRST-LAST"),
        (["--region", "chr9:1-5"], "chr9"),
        (["--gene", "nobody"], "--gene"),
        (["--sample", "cell_z"], "cell_z"),
        (["--insertions", "-1"], "--insertions"),
        (["--bed", "missing.bed"], "missing.bed"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(finished, place, tmp_path, capsys, more, words):
    assert main(command(finished, place[:1], tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err
    assert error.count("error:") == 1
    assert words in error
    assert "Fix: " in error
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


def test_a_run_folder_called_saturate_is_reached_by_its_path(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saturate").mkdir()
    line = ["--variant", "chr1:100:A>G", "--out", "x.tsv"]
    assert main(["variants", "./saturate", *line]) == 2
    assert "saturate" in capsys.readouterr().err  # it was opened, and is no run
    with pytest.raises(SystemExit):
        main(["variants", "saturate", *line])
    with pytest.raises(SystemExit):
        main(["variants", "saturate", "--help"])
    assert "`seq2exp variants ./saturate`" in " ".join(capsys.readouterr().out.split())


def test_an_existing_folder_is_kept_unless_told_otherwise(made, finished, place, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(made, out)
    assert main(command(finished, place, out)) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert content(out) == content(made)


def test_arrays_that_are_damaged_or_something_else_are_refused(made, tmp_path):
    path = tmp_path / "saturation.npz"
    whole = next(made.rglob("saturation.npz")).read_bytes()
    np.savez(tmp_path / "other.npz", schema="else", positions=np.arange(2))
    path.write_bytes(whole[: len(whole) // 2])
    for file in (path, tmp_path / "other.npz", tmp_path / "none.npz"):
        with pytest.raises(FormatError, match="variants saturate"):
            load_saturation(file)


def test_settings_that_make_no_sense_are_refused(finished, toy, tmp_path):
    with pytest.raises(ConfigError, match="--table"):
        SaturationConfig(tables=("xlsx",))
    with pytest.raises(InputError, match="only N"):
        run = open_run(finished)
        contig, start = first_n(Dataset(toy))
        saturate_regions(
            run, Dataset(toy), [Region(contig, start, start + 2)], tmp_path / "out",
            score=ScoreConfig(), config=SaturationConfig(),
        )  # fmt: skip


def test_names_of_files_stay_different():
    assert folder_names(["a b", "a/b", "A_B", "c", "c"]) == {
        "a b": "a_b", "a/b": "a_b_2", "A_B": "A_B_3", "c": "c",
    }  # fmt: skip


# Pictures ---------------------------------------------------------------------------------------


def test_short_regions_are_drawn_base_by_base(dataset, tmp_path):
    row, tss = site(dataset, "-")
    region, gene = Region("chr1", tss - 25, tss + 25), str(dataset.genes["gene_id"].iloc[row])
    one = saturated(dataset, [Additive()], [region], tmp_path)[str(region), gene]
    strip, logo, heat, *_ = plot_saturation(one, 1).axes
    assert "minus strand" in " ".join(text.get_text() for text in strip.texts)
    assert len(logo.patches) == 50
    (image,) = heat.images
    np.testing.assert_array_equal(image.get_array(), one.delta_PCK[:, :, 1].T)
    # Positions of axes count from 1.
    assert tuple(image.get_extent()[:2]) == (region.start + 0.5, region.end + 0.5)
    low, high = image.get_clim()
    assert low == -high
    first = logo.patches[0].get_path().get_extents()
    assert region.start + 0.5 < first.x0 < first.x1 < region.start + 1.5


def test_long_regions_have_a_line_and_the_strongest_stretch_as_letters(dataset, tmp_path):
    model = Additive()
    row, tss = site(dataset, "+")
    region, gene = Region("chr1", tss - 450, tss + 450), str(dataset.genes["gene_id"].iloc[row])
    with_peak = model.weight_LC.detach().numpy()
    with_peak *= 0.01
    with_peak[WINDOW // 2 + 300] *= 5000  # one base in 450 + 300 of the region
    one = saturated(dataset, [model], [region], tmp_path)[str(region), gene]
    figure = plot_saturation(one, 0)
    logo = next(axes for axes in figure.axes if len(axes.patches) > 50)
    assert len(logo.patches) == LETTERS_BP
    low, high = logo.get_xlim()
    assert low < tss + 300 + 1 < high
    # Whole region: of two neighbours the larger effect is kept, in every row.
    wide = next(axes for axes in figure.axes if "2 bp" in axes.get_xlabel()).images[0]
    values = np.asarray(wide.get_array())
    assert values.shape == (4, 450)
    pairs = one.delta_PCK[:, :, 0].reshape(450, 2, 4)
    np.testing.assert_array_equal(np.abs(values), np.abs(pairs).max(axis=1).T)
    assert BIN < LETTERS_BP


# Gradient ---------------------------------------------------------------------------------------


def test_the_gradient_of_a_linear_model_gives_the_exact_effects(dataset, tmp_path):
    row, tss = site(dataset, "-")
    region, gene = Region("chr1", tss - 20, tss + 20), str(dataset.genes["gene_id"].iloc[row])
    exact, first = (
        saturated(dataset, [Additive()], [region], tmp_path, method=method)[str(region), gene]
        for method in ("exact", "gradient")
    )
    np.testing.assert_allclose(first.delta_PCK, exact.delta_PCK, atol=1e-4)


def test_the_gradient_costs_a_few_passes_and_knows_no_deletions(finished, place, tmp_path, capsys):
    out = tmp_path / "out"
    line = command(finished, place, out, "--method", "gradient", "--plots", "0", "--shifts", "0")
    # A forward pass and a backward pass of two labels, for each of at most two genes.
    assert main([*line, "--max-passes", "6"]) == 0
    for one in arrays(out).values():
        assert np.isfinite(one.delta_PCK).any()
        assert np.isnan(one.mask_PC).all()
    capsys.readouterr()
    assert main([*line, "--deletions", "--overwrite"]) == 2
    assert "gradient" in capsys.readouterr().err


def test_elements_are_those_of_the_window_that_is_not_moved(dataset, tmp_path):
    model = seq2exp(dataset, seed=5)
    row, tss = site(dataset, "-")
    region, gene = Region("chr1", tss - 90, tss + 90), str(dataset.genes["gene_id"].iloc[row])
    plain, moved = (
        saturated(dataset, [model], [region], tmp_path, shifts=shifts)[str(region), gene].element_P
        for shifts in ((0,), (-11, 0, 11))
    )
    assert 0 < (plain == 1).sum() < plain.size
    np.testing.assert_array_equal(plain, moved)
