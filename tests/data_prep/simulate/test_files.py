"""The written files, read back with the tools users have, agree with the truth."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib

import numpy as np
import pandas as pd
import pyBigWig
import pysam
import pytest

from data_prep.simulate import (
    SimulationConfig,
    evaluate,
    gene_base_effects,
    load_base_effects,
    load_effects,
    load_world,
    simulate,
)
from data_prep.simulate.build import stream
from data_prep.simulate.motifs import CELL_TYPES, MOTIF_INDEX, MOTIFS
from data_prep.simulate.tracks import ASSAYS, element_heights, simulate_tracks
from data_prep.simulate.write import write_track
from seq2exp.core.errors import ConfigError, InputError
from seq2exp.core.sequence import encode, reverse_complement

TINY = SimulationConfig(seed=3, num_contigs=1, min_contig_length=150_000, max_contig_length=160_000)


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_one_seed_gives_identical_bytes_and_another_does_not(tmp_path):
    first = simulate(TINY, tmp_path / "a").out
    second = simulate(TINY, tmp_path / "b" / "elsewhere").out
    other = simulate(dataclasses.replace(TINY, seed=4), tmp_path / "c").out
    assert digests(first) == digests(second)
    changed = [name for name, digest in digests(other).items() if digests(first)[name] != digest]
    assert {"genome.fa", "expression.tsv", "tracks/blood.DNase.bw"} <= set(changed)


def test_the_readme_names_every_file(folder):
    text = (folder / "README.md").read_text()
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "README.md":
            stem = path.name.replace("blood.", "", 1) if path.parent.name == "tracks" else path.name
            for cell in CELL_TYPES:
                stem = stem.replace(cell, "<cell>")
            assert stem in text or stem.removeprefix("genes.gtf.gz") in text, path.name


def test_an_existing_folder_is_not_overwritten(folder):
    with pytest.raises(InputError, match="existing output"):
        simulate(TINY, folder)


def test_a_failed_run_leaves_nothing(tmp_path, monkeypatch):
    from data_prep.simulate import simulation

    def broken(*args, **kwargs):
        raise OSError("disk gone")

    monkeypatch.setattr(simulation, "site_table", broken)
    with pytest.raises(OSError, match="disk gone"):
        simulate(TINY, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_fasta_holds_the_genome(folder, world):
    with pysam.FastaFile(str(folder / "genome.fa")) as fasta:
        assert list(fasta.references) == list(world.genome)
        for chrom, codes in world.genome.items():
            assert fasta.get_reference_length(chrom) == len(codes)
            np.testing.assert_array_equal(encode(fasta.fetch(chrom)), codes)
            np.testing.assert_array_equal(
                encode(fasta.fetch(chrom, 77_777, 78_001)), codes[77_777:78_001]
            )
    sizes = pd.read_csv(folder / "chrom.sizes", sep="\t", header=None)
    assert dict(sizes.to_numpy()) == {c: len(codes) for c, codes in world.genome.items()}


def read_gtf(folder):
    columns = ["chrom", "source", "feature", "start", "end", "score", "strand", "frame", "text"]
    with gzip.open(folder / "genes.gtf.gz", "rt") as handle:
        frame = pd.read_csv(handle, sep="\t", header=None, names=columns)
    frame["gene_id"] = frame["text"].str.extract(r'gene_id "([^"]+)"')
    return frame


def test_gtf_gives_the_tss_of_the_truth(folder, world):
    gtf = read_gtf(folder)
    genes = gtf[gtf["feature"] == "gene"].set_index("gene_id").loc[world.genes["gene_id"]]
    # GTF is 1-based inclusive, so the 0-based TSS is start - 1 on plus and end - 1 on minus.
    tss = np.where(genes["strand"] == "+", genes["start"] - 1, genes["end"] - 1)
    np.testing.assert_array_equal(tss, world.genes["tss"])
    np.testing.assert_array_equal(genes["strand"], world.genes["strand"])
    np.testing.assert_array_equal(genes["start"] - 1, world.genes["start"])
    np.testing.assert_array_equal(genes["end"], world.genes["end"])


def test_exons_tile_from_end_to_end_without_overlap(folder):
    gtf = read_gtf(folder)
    spans = gtf[gtf["feature"] == "gene"].set_index("gene_id")
    for gene_id, exons in gtf[gtf["feature"] == "exon"].groupby("gene_id"):
        assert exons["start"].min() == spans.loc[gene_id, "start"]
        assert exons["end"].max() == spans.loc[gene_id, "end"]
        assert (exons["start"].to_numpy()[1:] > exons["end"].to_numpy()[:-1]).all()
        numbers = exons["text"].str.extract(r"exon_number (\d+)")[0].astype(int).tolist()
        ordered = sorted(numbers, reverse=spans.loc[gene_id, "strand"] == "-")
        assert numbers == ordered


def test_gtf_is_sorted_and_indexed(folder, world):
    with pysam.TabixFile(str(folder / "genes.gtf.gz")) as tabix:
        for chrom in world.genome:
            starts = [int(line.split("\t")[3]) for line in tabix.fetch(chrom)]
            assert starts == sorted(starts)


def test_bigwig_values_lie_on_their_bins(folder, draft, world, state):
    rng = stream(world.config, "tracks")
    tracks = simulate_tracks(world, element_heights(world, state, rng), world.config, rng)
    size = world.config.track_bin
    for assay in ASSAYS:
        with pyBigWig.open(str(folder / "tracks" / f"blood.{assay.name}.bw")) as handle:
            for chrom, expected in tracks[assay.name].items():
                values = handle.values(chrom, 0, len(world.genome[chrom]), numpy=True)
                per_base = np.repeat(expected, size)[: len(values)]
                np.testing.assert_allclose(values, per_base, rtol=1e-6)
                unknown = world.genome[chrom] == 4
                assert np.isnan(values[unknown]).mean() > 0.99
                assert np.isfinite(values[~unknown]).all()


def test_a_marked_bin_lands_at_its_position(tmp_path, world):
    """One bin of height 5 in a track of zeros is exactly bases 1000 to 1020; the last is cut."""
    signal = {c: np.zeros(-(-len(x) // 20), dtype=np.float32) for c, x in world.genome.items()}
    signal["chr2"][50] = 5.0
    signal["chr2"][-1] = 3.0
    write_track(signal, world, tmp_path / "x.bw", bin_size=20)
    with pyBigWig.open(str(tmp_path / "x.bw")) as handle:
        values = handle.values("chr2", 0, len(world.genome["chr2"]), numpy=True)
    assert np.flatnonzero(values == 5.0).tolist() == list(range(1000, 1020))
    last = (len(values) - 1) // 20 * 20
    assert np.flatnonzero(values == 3.0).tolist() == list(range(last, len(values)))


def test_dnase_peaks_at_open_elements(folder, world):
    """The mean profile of open distal elements has its summit at the centre, both ends low."""
    elements = world.elements[world.elements["kind"] == "decoy"]
    with pyBigWig.open(str(folder / "tracks" / "blood.DNase.bw")) as handle:
        centre = (elements["start"] + elements["end"]) // 2
        profile = np.mean(
            [
                handle.values(chrom, int(middle) - 500, int(middle) + 500, numpy=True)
                for chrom, middle in zip(elements["chrom"], centre, strict=True)
            ],
            axis=0,
        )
    weight = np.clip(profile - np.median(profile), 0, None)
    assert abs(np.average(np.arange(1000), weights=weight) - 500) < 25
    assert profile[450:550].mean() > 4 * profile[:100].mean()


def test_promoter_marks_point_downstream(folder, world):
    """H3K4me3 is heavier downstream of the TSS, on both strands."""
    with pyBigWig.open(str(folder / "tracks" / "blood.H3K4me3.bw")) as handle:
        for strand, sign in (("+", 1), ("-", -1)):
            genes = world.genes[world.genes["strand"] == strand]
            profile = np.nanmean(
                [
                    handle.values(g.chrom, int(g.tss) - 1500, int(g.tss) + 1500, numpy=True)
                    for g in genes.itertuples()
                ],
                axis=0,
            )[::sign]
            assert profile[1500:2400].sum() > 1.15 * profile[600:1500].sum()


def test_contacts_table(folder, draft, world):
    table = pd.read_csv(folder / "contacts.tsv.gz", sep="\t")
    assert table.columns.tolist() == ["gene_id", "chrom", "start", "end", "contact"]
    assert (table["start"] % world.config.contact_bin == 0).all()
    lengths = table["chrom"].map({c: len(codes) for c, codes in world.genome.items()})
    assert ((table["start"] >= 0) & (table["end"] <= lengths)).all()
    gene = world.genes.iloc[5]
    mine = table[table["gene_id"] == gene.gene_id].set_index("start")["contact"]
    column = gene.tss // 1000 - draft.contacts.first_bin[5]
    assert mine[gene.tss // 1000 * 1000] == pytest.approx(
        draft.contacts.observed[5, column], abs=1e-5
    )


def test_expression_table_is_truth_plus_stated_noise(folder, world, state):
    table = pd.read_csv(folder / "expression.tsv", sep="\t").set_index("gene_id")
    assert table.columns.tolist() == list(CELL_TYPES)
    assert table.index.tolist() == world.genes["gene_id"].tolist()
    noise = np.log(table.to_numpy()) - state.expression
    expected = np.hypot(world.config.gene_noise, world.config.cell_noise)
    assert abs(noise.mean()) < 4 * expected / np.sqrt(len(noise))
    assert noise.std() == pytest.approx(expected, rel=0.25)
    # The shared part is the covariance between cell types.
    shared = np.cov(noise.T)[~np.eye(3, dtype=bool)].mean()
    assert shared == pytest.approx(world.config.gene_noise**2, rel=0.6)


def test_element_beds_are_sorted_and_agree_with_the_tables(folder, world):
    bed = pd.read_csv(folder / "truth" / "elements.bed", sep="\t", header=None)
    table = pd.read_csv(folder / "truth" / "elements.tsv", sep="\t")
    assert bed[3].tolist() == table["element_id"].tolist()
    assert (bed[[1, 2]].to_numpy() == table[["start", "end"]].to_numpy()).all()
    assert bed[4].between(0, 1000).all()
    assert (bed.loc[bed[6] == "decoy", 4] == 0).all()
    for _, part in bed.groupby(0):
        assert part[1].is_monotonic_increasing
    effects = load_effects(folder)
    for cell in CELL_TYPES:
        causal = pd.read_csv(folder / "truth" / f"causal_{cell}.bed", sep="\t", header=None)
        expected = effects[effects[f"causal_{cell}"]]
        pairs = set(zip(causal[3], causal[6], strict=True))
        assert pairs == set(zip(expected["element_id"], expected["gene_id"], strict=True))


def test_site_bed_names_real_sites(folder):
    sites = pd.read_csv(folder / "truth" / "sites.bed.gz", sep="\t", header=None)
    with pysam.FastaFile(str(folder / "genome.fa")) as fasta:
        for site in sites.iloc[::97].itertuples(index=False):
            motif = MOTIFS[MOTIF_INDEX[site[3]]]
            codes = encode(fasta.fetch(site[0], site[1], site[2]))
            codes = codes if site[5] == "+" else reverse_complement(codes)
            score = motif.log_odds[np.arange(motif.width), codes].sum()
            assert site[4] == pytest.approx(float(score), abs=1e-3)


def test_base_effect_bigwig_is_the_maximum_over_genes(folder, world):
    effects = load_base_effects(folder)
    for cell in ("blood", "muscle"):
        name = f"effect_{cell}"
        with pyBigWig.open(str(folder / "truth" / f"base_effects.{cell}.bw")) as handle:
            for chrom, part in effects.groupby("chrom", observed=True):
                expected = part[name].abs().groupby(part["position"]).max()
                expected = expected[expected > 0]
                values = handle.values(chrom, 0, len(world.genome[chrom]), numpy=True)
                found = np.flatnonzero(np.isfinite(values))
                assert found.tolist() == expected.index.tolist()
                np.testing.assert_allclose(values[found], expected, rtol=1e-5)


def test_dense_base_effects_of_a_gene(folder):
    effects = load_base_effects(folder)
    row = effects.iloc[effects["effect_blood"].abs().argmax()]
    start = int(row.position) - 10
    dense = gene_base_effects(effects, row.gene_id, start=start, end=start + 20)
    assert dense.shape == (20,)
    assert dense[10] == row.effect_blood
    assert gene_base_effects(effects, row.gene_id, start=-50, end=0).sum() == 0.0


def test_a_loaded_world_gives_the_same_expression(folder, state):
    again = evaluate(load_world(folder))
    np.testing.assert_allclose(again.expression, state.expression, atol=1e-12)
    genes = pd.read_csv(folder / "truth" / "genes.tsv", sep="\t")
    np.testing.assert_allclose(genes["log_expression_blood"], again.expression[:, 0], atol=1e-9)


def test_a_folder_without_truth_is_named(tmp_path):
    with pytest.raises(InputError, match=r"config\.json.*folder written by seq2exp simulate"):
        load_world(tmp_path)


def test_summary_counts_what_was_written(summary, folder, world):
    assert summary.out == folder
    assert summary.num_genes == len(world.genes)
    assert summary.num_bases == sum(len(codes) for codes in world.genome.values())
    bed = pd.read_csv(folder / "truth" / "elements.bed", sep="\t", header=None)
    assert summary.num_elements == bed[6].value_counts().to_dict()
    causal = pd.read_csv(folder / "truth" / "causal_blood.bed", sep="\t", header=None)
    assert summary.num_causal_pairs == (causal[7] != "promoter").sum()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_contigs", 0),
        ("min_contig_length", 1000),
        ("max_contig_length", 1_000_000),
        ("gene_spacing", 10),
        ("max_distance", 20_000),
        ("track_bin", 0),
        ("depth", 0.0),
        ("repeat_fraction", 1.0),
    ],
)
def test_bad_settings_are_named(setting, value):
    with pytest.raises(ConfigError, match=setting):
        SimulationConfig(**{setting: value})
