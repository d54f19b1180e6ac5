"""The command `seq2exp variants`, killed and in several processes, with a model: same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from seq2exp.cli.main import main
from seq2exp.dataset.store import Dataset
from seq2exp.variants import source

ROOT = Path(__file__).parents[2]
SHARD_SIZE = 20

# A process that scores as the command does, in shards of 20, and kills itself at a call.
CHILD = """
import sys
from seq2exp.cli.main import main
from seq2exp.variants import claim, parts, scale, source
from tests.faults.killing import killing

source.open_source.__kwdefaults__["shard_size"] = {size}
{arm}
sys.exit(main(sys.argv[1:]))
"""
QUICK = "with one output named"
MOMENTS = {
    "in the third part": 'killing(parts, "finish_shard", 3, half=True)',
    "before the outputs have their names": 'killing(scale, "publish", 1)',
    QUICK: """
original = scale.publish
def publish(*args, **kwargs):
    from pathlib import Path
    killing(Path, "replace", 2)
    original(*args, **kwargs)
scale.publish = publish
""",
}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setitem(source.open_source.__kwdefaults__, "shard_size", SHARD_SIZE)


@pytest.fixture(scope="module")
def vcf(toy, tmp_path_factory):
    """Every 37th base of a contig changed, some deleted, some with two ALTs, one that misfits."""
    dataset = Dataset(toy)
    codes = np.asarray(dataset.contig_codes("chr1"))
    lines = ["##fileformat=VCFv4.2", "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    for number, at in enumerate(range(2000, 2000 + 37 * 70, 37)):
        ref, after = ("ACGTN"[code] for code in codes[at : at + 2])
        others = [base for base in "ACGT" if base != ref]
        ref, alt = {0: (ref, f"{others[0]},{others[1]}"), 1: (ref + after, ref)}.get(
            number % 7, (others[1] if number == 30 else ref, others[0])
        )
        lines.append(f"chr1\t{at + 1}\tv{number}\t{ref}\t{alt}\t.\tPASS\tN={number}")
    path = tmp_path_factory.mktemp("vcf") / "in.vcf"
    path.write_text("\n".join(lines) + "\n")
    return path


def words(run, vcf, folder, *more):
    outs = [folder / "out.vcf.gz", folder / "out.tsv", folder / "out.parquet"]
    given = [word for out in outs for word in ("--out", str(out))]
    return ["variants", str(run), "--vcf", str(vcf), *given, "--quiet", *more]


def visible(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


def hidden(folder):
    return [p.name for p in folder.iterdir() if p.name[0] == "." and not p.name.endswith(".lock")]


@pytest.fixture(scope="module")
def whole(finished, vcf, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(source.open_source.__kwdefaults__, "shard_size", SHARD_SIZE)
        assert main(words(finished, vcf, folder)) == 0
    assert sorted(visible(folder)) == ["out.parquet", "out.tsv", "out.vcf.gz", "out.vcf.gz.tbi"]
    table = pd.read_parquet(folder / "out.parquet")
    assert table["score_status"].eq("scored").sum() > 20
    return visible(folder)


@pytest.mark.parametrize(
    "moment",
    [
        moment if moment == QUICK else pytest.param(moment, marks=pytest.mark.slow)
        for moment in MOMENTS
    ],
)
def test_f23_a_killed_command_ends_with_the_same_bytes(finished, vcf, whole, tmp_path, moment):
    code = CHILD.format(size=SHARD_SIZE, arm=MOMENTS[moment])
    line = words(finished, vcf, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code, *line],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert hidden(tmp_path) != []
    assert visible(tmp_path).items() <= whole.items()
    assert main(line) == 0
    assert visible(tmp_path) == whole
    assert hidden(tmp_path) == []


@pytest.mark.slow
def test_two_workers_give_the_bytes_of_one(finished, vcf, whole, tmp_path):
    assert main(words(finished, vcf, tmp_path, "--workers", "2")) == 0
    assert visible(tmp_path) == whole


def test_jobs_of_an_array_give_the_bytes_of_one(finished, vcf, whole, tmp_path, capsys):
    assert main(words(finished, vcf, tmp_path, "--shard", "2/2")) == 0
    assert "2 of 4 shards are left for other jobs" in capsys.readouterr().out
    assert visible(tmp_path) == {}
    assert main(words(finished, vcf, tmp_path, "--shard", "1/2")) == 0
    assert visible(tmp_path) == whole


def test_other_settings_are_refused_by_name_until_restart(finished, vcf, tmp_path, capsys):
    assert main(words(finished, vcf, tmp_path, "--shard", "1/2")) == 0
    capsys.readouterr()
    assert main(words(finished, vcf, tmp_path, "--mask-bp", "101")) == 2
    assert "config.mask_bp 501 -> 101" in capsys.readouterr().err
    assert main(words(finished, vcf, tmp_path, "--mask-bp", "101", "--restart")) == 0
    assert hidden(tmp_path) == []


def test_q_values_are_those_of_all_shards_together(finished, vcf, tmp_path, capsys):
    """Benjamini and Hochberg over the p-values of the whole table, four shards; then calibrated."""
    out = tmp_path / "out.parquet"
    null = ("--null", "shuffle", "--null-draws", "4", "--null-flank", "60", "--shifts", "0")
    line = ["variants", str(finished), "--vcf", str(vcf), "--out", str(out), "--quiet", *null]
    assert main([*line, "--scores", "expr_delta,mask_max"]) == 0
    table = pd.read_parquet(out)
    names = [name.removesuffix(":p") for name in table if name.endswith(":p")]
    assert len(names) >= 2
    for name in names:
        p, q = table[f"{name}:p"].to_numpy(np.float64), table[f"{name}:q"].to_numpy(np.float64)
        known = ~np.isnan(p)
        assert known.sum() > 20
        assert len(np.unique(p[known])) > 1
        rank = (p[known][:, None] >= p[known]).sum(1)
        rate = p[known] * known.sum() / rank
        wanted = [min(1.0, rate[p[known] >= value].min()) for value in p[known]]
        np.testing.assert_allclose(q[known], wanted, rtol=1e-6)
        assert np.isnan(q[~known]).all()
    capsys.readouterr()
    assert main(["variants", "calibrate", str(out), "--out", str(tmp_path / "c")]) == 0
    seen = pd.read_csv(tmp_path / "c" / "calibration.tsv", sep="\t")
    for name in names:
        p = table[f"{name}:p"].dropna().to_numpy()
        here = seen[(seen["name"] == name) & (seen["level"] == 0.2)]
        assert here["observed"].iloc[0] == pytest.approx((p < 0.21).mean())
