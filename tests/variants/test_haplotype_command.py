"""`seq2exp variants` on the haplotypes of carriers and with joint scores, from files to files."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from seq2exp.cli import variants as command
from seq2exp.cli.main import main
from seq2exp.dataset.store import Dataset
from seq2exp.training.run import open_run
from seq2exp.variants import claim, joint_command, joint_groups, source
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.joint_groups import JointConfig
from tests.variants.haplotypes import opened, snv, vcf_of

HAPLOTYPES = ("--context", "carriers", "--haplotype", "input", "--haplotype", "A")


@pytest.fixture(autouse=True, scope="module")
def small_shards():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(source.open_source.__kwdefaults__, "shard_size", 4)
        patch.setattr(joint_groups, "SHARD_SIZE", 2)
        yield


@pytest.fixture(scope="module")
def vcf(toy, tmp_path_factory):
    dataset = Dataset(toy)
    random = np.random.default_rng(2)
    calls = [
        snv(dataset, offset, [f"{a}|{b}" for a, b in random.integers(0, 2, (3, 2))])
        for offset in range(-300, 300, 40)
    ]
    infos = [f"HAP=h{number % 3}" for number in range(len(calls))]
    return vcf_of(dataset, tmp_path_factory.mktemp("vcf") / "in.vcf.gz", calls, infos=infos)


def words(run, vcf, folder, *more):
    outs = ["--out", f"{folder}/out.vcf.gz", "--out", f"{folder}/out.parquet"]
    return ["variants", str(run), "--vcf", str(vcf), *outs, "--haplotype-out",
            f"{folder}/joint.tsv", "--quiet", *HAPLOTYPES, *more]  # fmt: skip


def visible(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name[0] != "."}


def hidden(folder):
    return [p.name for p in folder.iterdir() if p.name[0] == "." and not p.name.endswith(".lock")]


@pytest.fixture(scope="module")
def whole(finished, vcf, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert main(words(finished, vcf, folder)) == 0
    assert hidden(folder) == []
    assert not list(folder.glob("*genotypes*"))
    return folder


def test_outputs_tell_the_context_of_every_pair(whole):
    table = pd.read_parquet(whole / "out.parquet")
    carried = table["context"].str.startswith("carriers:", na=False)
    assert carried.sum() >= 10
    assert (table["num_haplotypes"][carried] > 0).all()
    spread = [name for name in table if name.endswith(":haplotype_sd")]
    assert spread
    assert table.loc[carried, spread].notna().any(axis=None)
    assert table.loc[~carried, spread].isna().all(axis=None)
    if shutil.which("bcftools"):
        subprocess.run(
            ["bcftools", "view", "-o", "/dev/null", whole / "out.vcf.gz"], check=True,
            capture_output=True,
        )  # fmt: skip
    import pysam

    with pysam.VariantFile(str(whole / "out.vcf.gz")) as records:
        description = records.header.info["S2E_ALL"].description
        place = description.rpartition("Format: ")[2].split("|").index("context")
        entries = [entry for record in records for entry in record.info["S2E_ALL"]]
    found = [entry.split("|")[place] for entry in entries]
    assert found == table["context"].fillna(".").tolist()


def test_joint_scores_are_written(whole):
    joint = pd.read_csv(whole / "joint.tsv", sep="\t", comment="#")
    assert set(joint["haplotype"]) == {"h0", "h1", "h2", "A|1", "A|2"}
    assert joint["score_status"].str.startswith("scored").all()
    names = [name for name in joint if name.endswith(":epistasis")]
    assert len(names) >= 2
    assert "##haplotype=input,A" in (whole / "joint.tsv").read_text()
    table = pd.read_parquet(whole / "out.parquet")
    assert set(joint["gene_id"]) == set(table["gene_id"].dropna())


def test_a_command_that_breaks_off_goes_on(finished, vcf, whole, tmp_path, monkeypatch):
    """With the joint scores finished, the others not."""
    import seq2exp.variants.command as scoring

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "score_variants", interrupted)
        assert main(words(finished, vcf, tmp_path)) == 130
    assert visible(tmp_path) == {}
    assert any(name.endswith(".joint.joint.tsv") for name in hidden(tmp_path))
    assert any(name.endswith(".genotypes") for name in hidden(tmp_path))
    assert main(words(finished, vcf, tmp_path)) == 0
    assert visible(tmp_path) == visible(whole)
    assert hidden(tmp_path) == []
    # A second time it is refused, as outputs are there.
    assert main(words(finished, vcf, tmp_path)) == 2
    assert main(words(finished, vcf, tmp_path, "--overwrite")) == 0
    assert visible(tmp_path) == visible(whole)


def test_shares_end_with_the_same_bytes(finished, vcf, whole, tmp_path):
    for share in ("1/2", "2/2"):
        assert main(words(finished, vcf, tmp_path, "--shard", share)) == 0
    assert visible(tmp_path) == visible(whole)
    assert hidden(tmp_path) == []


def test_parts_of_other_groups_rules_or_settings_are_other_work(
    finished, toy, vcf, tmp_path, monkeypatch
):
    """What tells parts apart differs in every setting that changes a joint score, a row or both."""
    works = []

    def started(items, maker, write, job, **options):
        works.append(claim.store_of(job).folder.name)

    monkeypatch.setattr(joint_command, "score_in_parts", started)
    run, dataset = open_run(finished), Dataset(toy)
    _, genotypes = opened(dataset, shutil.copy(vcf, tmp_path / "in.vcf.gz"))
    variants = source.open_source(vcf, dataset=dataset)
    cases = [
        (JointConfig(("input",)), ScoreConfig()),
        (JointConfig(("input",), "first"), ScoreConfig()),
        (JointConfig(("all",)), ScoreConfig()),
        (JointConfig(("input", "all")), ScoreConfig()),
        (JointConfig(("A",)), ScoreConfig()),
        (JointConfig(("B",)), ScoreConfig()),
        (JointConfig(("input",)), ScoreConfig(mask_bp=77)),
        (JointConfig(("input",)), ScoreConfig()),
    ]
    for joint, config in cases:
        joint_command.score_haplotypes(
            run, dataset, variants, tmp_path / "joint.tsv", config, joint, genotypes=genotypes.root
        )
    assert works[-1] == works[0]
    assert len(set(works)) == len(cases) - 1


@pytest.mark.slow
def test_two_workers_give_the_bytes_of_one(finished, vcf, whole, tmp_path):
    assert main(words(finished, vcf, tmp_path, "--workers", "2")) == 0
    assert visible(tmp_path) == visible(whole)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--haplotype", "nobody"], "nobody"),
        (["--carrier", "nobody"], "nobody"),
        (["--method", "gradient"], "--context"),
        (["--null", "shuffle"], "--context"),
        (["--haplotype", "input"], "each once"),
        (["--max-carriers", "-1"], "--max-carriers"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(
    finished, vcf, tmp_path, capsys, more, message
):
    assert main(words(finished, vcf, tmp_path, *more)) == 2
    assert message in capsys.readouterr().err
    assert visible(tmp_path) == {}


def test_words_without_genotypes_are_refused(finished, tmp_path, capsys):
    base = ["variants", str(finished), "--variant", "chr1:2000:A>C", "--quiet", "--out",
            f"{tmp_path}/out.tsv"]  # fmt: skip
    assert main([*base, "--context", "carriers", "--max-mismatch", "1"]) == 2
    assert "--context dataset" in capsys.readouterr().err
    assert main([*base, "--haplotype", "all"]) == 2
    assert "--haplotype-out" in capsys.readouterr().err
    assert main([*base, "--context", "dataset", "--max-mismatch", "1"]) == 2
    assert "no genotypes" in capsys.readouterr().err
    assert visible(tmp_path) == {}
    assert command.__doc__
