"""The command `seq2exp variants` as somebody new to it meets it: late, empty, mistaken, killed."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pysam
import pytest

from seq2exp.cli.main import main
from seq2exp.core.textfile import is_bed
from seq2exp.dataset.store import Dataset
from seq2exp.training import run as runs
from seq2exp.variants import command, copies, source
from seq2exp.variants.copies import input_copies
from seq2exp.variants.made import work_named
from tests.variants import inputs
from tests.variants.haplotypes import GENE, snv, vcf_of

ROOT = Path(__file__).parents[2]
SHARD_SIZE = 4
QUICK = ("--shifts", "0", "--scores", "expr_delta")
FORMATS = ("vcf", "vcf.gz", "tsv", "tsv.gz", "parquet")

CHILD = """
import sys
from seq2exp.cli.main import main
from seq2exp.variants import parts, source
from tests.faults.killing import killing

source.open_source.__kwdefaults__["shard_size"] = {size}
killing(parts, "finish_shard", 2)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setitem(source.open_source.__kwdefaults__, "shard_size", SHARD_SIZE)


@pytest.fixture(scope="module")
def dataset(toy):
    return Dataset(toy)


@pytest.fixture(scope="module")
def vcf(dataset, tmp_path_factory):
    """Ten records in three shards, around a TSS."""
    contig, tss, _ = dataset.sites[GENE]
    text = inputs.sequence(dataset, contig)
    places = range(tss - 150, tss + 150, 30)
    rows = [(contig, at, text[at], inputs.other(text[at])) for at in places]
    return inputs.put(
        tmp_path_factory.mktemp("vcf") / "in.vcf", inputs.vcf_text(dataset, rows).replace("v", "rs")
    )


def words(run, given, folder, *more, endings=("tsv",), option="--vcf"):
    outs = [word for ending in endings for word in ("--out", str(folder / f"out.{ending}"))]
    return ["variants", str(run), option, str(given), *outs, *QUICK, "--quiet", *more]


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def state(folder):
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


# Shares ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_a_share_that_starts_when_all_is_done_says_so_and_writes_nothing(
    finished, vcf, tmp_path, capsys, monkeypatch, more
):
    assert main(words(finished, vcf, tmp_path, "--shard", "1/1", endings=FORMATS)) == 0
    before = state(tmp_path)
    marks = {work_named(tmp_path / f"out.{ending}") for ending in FORMATS}
    assert len(marks) == 1
    assert len(marks.pop()) == 16
    capsys.readouterr()
    monkeypatch.setattr(command, "open_engine", lambda *a, **k: pytest.fail("nothing to score"))
    for share in ("1/2", "2/2"):
        assert main(words(finished, vcf, tmp_path, "--shard", share, *more, endings=FORMATS)) == 0
        out = capsys.readouterr().out
        assert out.startswith("nothing to do: the outputs are there, made of the same work")
        assert "records" not in out
    assert state(tmp_path) == before


@pytest.mark.parametrize("ending", FORMATS)
def test_a_share_refuses_outputs_of_other_work(finished, vcf, tmp_path, capsys, ending):
    line = words(finished, vcf, tmp_path, endings=(ending,))
    (tmp_path / f"out.{ending}").write_bytes(b"something else")
    assert main([*line, "--shard", "1/2"]) == 2
    (tmp_path / f"out.{ending}").unlink()
    assert main(line) == 0
    before = state(tmp_path)
    capsys.readouterr()
    for other in (["--mask-bp", "101"], ["--strands", "both"]):
        assert main([*line, "--shard", "1/2", *other]) == 2
        assert "found an existing output" in capsys.readouterr().err
    # Without --shard it is refused as ever, whatever made them.
    assert main(line) == 2
    assert state(tmp_path) == before


def test_a_share_without_shards_has_nothing_to_do(finished, vcf, tmp_path, capsys):
    assert main(words(finished, vcf, tmp_path, "--shard", "5/5")) == 0
    assert capsys.readouterr().out == "nothing to do: 5 shares for 3 shards\n"
    assert listing(tmp_path) == []


def test_a_late_share_knows_the_table_of_haplotypes_too(finished, dataset, tmp_path, capsys):
    calls = [snv(dataset, offset, ["0|1"]) for offset in (-90, -40, 60)]
    vcf = vcf_of(dataset, tmp_path / "in.vcf.gz", calls)
    folder = tmp_path / "out"
    joint = ["--haplotype", "all", "--haplotype-out", str(folder / "joint.tsv")]
    for share in ("1/2", "2/2"):
        assert main(words(finished, vcf, folder, *joint, "--shard", share)) == 0
    if not (folder / "out.tsv").exists():
        assert main(words(finished, vcf, folder, *joint)) == 0
    before = state(folder)
    capsys.readouterr()
    assert main(words(finished, vcf, folder, *joint, "--shard", "1/2")) == 0
    assert capsys.readouterr().out.startswith("nothing to do")
    assert state(folder) == before
    (folder / "joint.tsv").write_text("of somebody else")
    assert main(words(finished, vcf, folder, *joint, "--shard", "1/2")) == 2
    assert "joint.tsv: found an existing output" in capsys.readouterr().err


# Nulls -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--null-draws", "--null-flank"])
def test_settings_of_a_null_that_is_not_asked_for_are_refused(
    finished, vcf, tmp_path, capsys, option
):
    assert main(words(finished, vcf, tmp_path, option, "50")) == 2
    assert f"{option}: found 50 without --null" in capsys.readouterr().err
    assert listing(tmp_path) == []


def test_few_draws_say_how_small_p_can_be(finished, tmp_path, capsys):
    out = tmp_path / "o.parquet"
    line = ["variants", str(finished), "--variant", "chr1:2001:A>C", "--out", str(out), *QUICK,
            "--max-mismatch", "1", "--null", "shuffle", "--null-draws"]  # fmt: skip
    assert main([*line, "4"]) == 0
    said = "4 null draws: no p-value is below 0.4 for signed scores, 0.2 for others"
    assert capsys.readouterr().err.count(said) == 1


# Copies of the input -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gzip", "bcf"])
def test_f23_a_killed_command_leaves_no_copy_that_the_next_one_does_not_remove(
    finished, vcf, dataset, tmp_path, kind
):
    given = inputs.put(tmp_path / f"in.{kind}", vcf.read_text())
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    line = words(finished, given, out)
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(size=SHARD_SIZE), *line],
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not list(temporary.glob("seq2exp*"))
    (left,) = out.glob(".out.tsv.input")
    assert {path.suffix for path in left.rglob("*.*")} == {".bgz"}
    assert main(line) == 0
    assert listing(out) == [".out.tsv.lock", "out.tsv"]


def test_copies_stay_while_another_process_reads_them(tmp_path):
    """Whoever leaves last removes them; a folder that was made for them goes too."""
    out = tmp_path / "new" / "out.tsv"
    with input_copies(out) as first:
        (first / "text").write_text("copy")
        with input_copies(out) as second:
            assert second == first
            assert (second / "text").read_text() == "copy"
        assert first.is_dir()
    assert listing(tmp_path) == []


def test_without_locks_every_process_has_copies_of_its_own(tmp_path, monkeypatch):
    def refuse(place, kind):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(copies.fcntl, "flock", refuse)
    out = tmp_path / "out.tsv"
    with input_copies(out) as first:
        first.mkdir()
        with input_copies(out) as second:
            assert second != first
        assert first.is_dir()
    assert listing(tmp_path) == []


# Inputs without records, and what is no input ----------------------------------------------------


@pytest.mark.parametrize("kind", ["vcf", "vcf.gz", "bcf", "gzip", "tsv", "parquet"])
def test_an_input_without_records_gives_outputs_without_rows(
    finished, dataset, tmp_path, capsys, kind
):
    given = tmp_path / f"in.{kind}"
    if kind == "parquet":
        columns = {"chrom": str, "pos1": int, "ref": str, "alt": str}
        pd.DataFrame({n: pd.Series([], dtype=t) for n, t in columns.items()}).to_parquet(given)
    elif kind == "tsv":
        given.write_text("chrom\tpos1\tref\talt\n")
    else:
        inputs.put(given, inputs.header(dataset))
    out = tmp_path / "out"
    assert main(words(finished, given, out, endings=FORMATS)) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"no records in {given}: the outputs have their headers and no rows"
    table = pd.read_parquet(out / "out.parquet")
    assert len(table) == 0
    assert "expr_delta:cell_a" in table
    for ending in ("tsv", "tsv.gz"):
        content = (out / f"out.{ending}").read_bytes()
        text = (gzip.decompress(content) if ending == "tsv.gz" else content).decode()
        rows = [line for line in text.splitlines() if not line.startswith("##")]
        assert [row.split("\t") for row in rows] == [list(table.columns)]
    for ending in ("vcf", "vcf.gz"):
        with pysam.VariantFile(str(out / f"out.{ending}")) as records:
            assert "S2E_STATUS" in records.header.info
            assert list(records) == []
    if shutil.which("bcftools"):
        bcftools = ["bcftools", "view", "-H", str(out / "out.vcf.gz")]
        assert subprocess.run(bcftools, check=True, capture_output=True).stdout == b""


def test_shares_of_an_input_without_records_end_with_outputs(finished, dataset, tmp_path, capsys):
    given = inputs.put(tmp_path / "in.vcf", inputs.header(dataset))
    assert main(words(finished, given, tmp_path, "--shard", "2/2")) == 0
    assert capsys.readouterr().out == "nothing to do: 2 shares for 0 shards\n"
    assert main(words(finished, given, tmp_path, "--shard", "1/2")) == 0
    assert (tmp_path / "out.tsv").is_file()


@pytest.mark.parametrize("name", ["in.vcf", "in.tsv", "in.parquet"])
def test_a_file_without_a_byte_is_refused(finished, tmp_path, capsys, name):
    (tmp_path / name).touch()
    assert main(words(finished, tmp_path / name, tmp_path / "out")) == 2
    assert f"{name}: found an empty file" in capsys.readouterr().err
    assert listing(tmp_path) == [name]


BED = "chr1\t100\t200{more}\nchr1\t300\t400{more}\n"


@pytest.mark.parametrize("option", ["--vcf", "--table"])
@pytest.mark.parametrize("name", ["p.bed", "p.vcf", "p.bed.gz", "p.vcf.gz", "p.gzip"])
@pytest.mark.parametrize("more", ["", "\tpeak", "\t2.5", "\tpeak\t0\t+"])
def test_a_bed_file_is_named(finished, tmp_path, capsys, option, name, more):
    given = inputs.put(tmp_path / name, "track name=x\n" * ("bed" in name) + BED.format(more=more))
    assert main(words(finished, given, tmp_path / "out", option=option)) == 2
    error = capsys.readouterr().err
    assert "found BED or bedGraph text (intervals without alleles), expected" in error
    assert "VCF" in error


def test_variants_are_no_bed():
    assert not is_bed(b"chrom\tpos1\tref\talt\nchr1\t100\tA\tG\n")
    assert not is_bed(b"##fileformat=VCFv4.2\n#CHROM\tPOS\nchr1\t100\trs1\tA\tG\n")
    assert not is_bed(b"chr1:100:A>G\n")
    assert not is_bed(b"")
    assert not is_bed(b"chr1\t200\t100\n")


def test_ids_that_were_not_found_are_no_mismatch(finished, vcf, tmp_path, capsys):
    """Half of the input, and still the command ends well; a contig that is none counts as ever."""
    ids = tmp_path / "ids.txt"
    ids.write_text("rs1\nrs901\nrs2\nrs902\n")
    assert main(words(finished, ids, tmp_path, "--lookup", str(vcf), option="--table")) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert "; unknown ids 2; unsupported 0; " in line
    assert "no_contig 0" in line
    table = pd.read_csv(tmp_path / "out.tsv", sep="\t", comment="#")
    assert table["ref_status"].tolist().count("unknown_id") == 2
    lost = table[table["ref_status"] == "unknown_id"]
    assert set(lost["score_status"]) == {"skipped:unknown_id"}
    assert lost["expr_delta:cell_a"].isna().all()
    strict = ["--lookup", str(vcf), "--ref-policy", "strict", "--overwrite"]
    assert main(words(finished, ids, tmp_path, *strict, option="--table")) == 2
    assert "unknown_id" in capsys.readouterr().err


# Refused without a trace, opened once ------------------------------------------------------------


@pytest.mark.parametrize("calls", [["0/1", "0/1", "0|0"], []])
@pytest.mark.parametrize(
    "more", [("--context", "carriers"), ("--haplotype", "A", "--haplotype-out", "JOINT")]
)
def test_refused_genotypes_leave_nothing(finished, dataset, tmp_path, capsys, calls, more):
    if calls:
        records = [snv(dataset, offset, calls) for offset in (-90, -40, 60)]
        vcf = vcf_of(dataset, tmp_path / "in.vcf.gz", records)
    else:
        vcf = inputs.put(tmp_path / "in.vcf", inputs.vcf_text(dataset, [("chr1", 2000, "N", "G")]))
    out = tmp_path / "out"
    out.mkdir()
    more = [str(out / "joint.tsv") if word == "JOINT" else word for word in more]
    assert main(words(finished, vcf, out, *more, "--max-mismatch", "1")) == 2
    assert ("without phase" if calls else "no genotypes") in capsys.readouterr().err
    assert [name for name in listing(out) if not name.endswith(".tsv.lock")] == []


@pytest.mark.parametrize("joint", [False, True])
def test_one_process_opens_the_run_and_the_background_once(
    finished, vcf, tmp_path, monkeypatch, joint
):
    line = words(finished, vcf, tmp_path, endings=("parquet",))
    assert main(line) == 0
    common = tmp_path / "common.parquet"
    monkeypatch.setattr("seq2exp.variants.background.MIN_PAIRS", 1)
    assert (
        main(["variants", "background", str(tmp_path / "out.parquet"), "--out", str(common)]) == 0
    )
    opened, loaded = [], []
    real, load = runs.open_run, command.Background.load

    def counted(folder, *args, **kwargs):
        opened.append(folder)
        return real(folder, *args, **kwargs)

    def counted_load(path, **kwargs):
        loaded.append(path)
        return load(path, **kwargs)

    for owner in (runs, command):
        monkeypatch.setattr(owner, "open_run", counted)
    monkeypatch.setattr(command.Background, "load", counted_load)
    more = ["--haplotype", "all", "--haplotype-out", str(tmp_path / "j.tsv")] if joint else []
    more += ["--workers", "1", "--background", str(common)]
    assert main(words(finished, vcf, tmp_path, *more)) == 0
    assert (len(opened), len(loaded)) == (1, 1)
    table = pd.read_csv(tmp_path / "out.tsv", sep="\t", comment="#")
    assert np.isfinite(table["expr_delta:cell_a"]).all()
    assert np.isfinite(table["expr_delta:cell_a:quantile"]).all()
