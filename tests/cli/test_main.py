"""The command line: what help costs, exit codes, one error line, and the shape of --json."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from seq2exp.cli.main import COMMANDS, build_parser, main
from seq2exp.core.config import dump_yaml
from tests.runs import tiny_config
from tests.toys import ToyPlan, toy_dataset

ROOT = Path(__file__).parents[2]
DEBUG = ROOT / "configs" / "train" / "debug.yaml"
HEAVY = ("torch", "pytorch_lightning", "anndata", "matplotlib", "pandas")
WORK = ("doctor", "demo", "simulate", "fetch", "prepare", "inspect", "train", "evaluate", "compare",
        "predict", "elements", "elements compare", "elements check", "variants",
        "variants saturate",
        "variants background", "variants calibrate", "priors", "attribute",
        "motifs", "report", "cohort train",
        "cohort evaluate", "cohort benchmark", "spatial simulate", "spatial prepare",
        "spatial inspect",
        "spatial train", "spatial predict", "spatial plot",
        "spatial evaluate", "spatial compare")  # fmt: skip

# Runs `seq2exp ARGUMENTS` and says at the end which of the heavy packages were imported.
SPY = f"""
import sys
from seq2exp.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
print("HEAVY", [name for name in {HEAVY!r} if name in sys.modules])
sys.exit(code)
"""


def spy(*arguments):
    done = subprocess.run(
        [sys.executable, "-c", SPY, *arguments],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def run(toy, tmp_path_factory):
    """`seq2exp train` with the shipped debug configuration and one flag."""
    out = tmp_path_factory.mktemp("run") / "run"
    line = ["train", "--config", str(DEBUG), "--data", str(toy), "--out", str(out)]
    assert main([*line, "--fit.max_epochs", "1", "--fit.threads=1"]) == 0
    return out


# Help -----------------------------------------------------------------------------------------


def test_the_commands_are_those_that_scripts_rely_on():
    assert tuple(COMMANDS) == WORK
    actions = build_parser()._subparsers._group_actions[0]
    assert tuple(actions.choices) == WORK


@pytest.mark.parametrize("command", ["", *WORK])
def test_help_imports_no_heavy_package(command):
    code, out, err = spy(*command.split(), "--help")
    assert code == 0
    assert out.startswith(f"usage: seq2exp {command}".rstrip())
    assert "HEAVY []" in out
    assert err == ""


def test_version_and_the_spy_itself():
    code, out, _ = spy("--version")
    assert (code, out.splitlines()[0]) == (0, "seq2exp 0.1.0")
    code, out, _ = spy("doctor")
    assert code == 0
    assert "'torch'" in out.splitlines()[-1]  # the spy sees a heavy import where there is one


def test_every_option_is_explained():
    for name, parser in build_parser()._subparsers._group_actions[0].choices.items():
        for action in parser._actions:
            assert action.help, f"{name} {action.option_strings}"


# Exit codes and messages ----------------------------------------------------------------------


def failed(capsys, line, code=2):
    assert main(line) == code
    captured = capsys.readouterr()
    errors = [text for text in captured.err.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1, captured.err
    assert "Traceback" not in captured.err
    return errors[0]


@pytest.mark.parametrize(
    "line",
    [
        ["inspect", "PLACE"],
        ["evaluate", "PLACE"],
        ["predict", "PLACE", "--out", "x.parquet"],
        ["elements", "PLACE", "--out", "x"],
        ["priors", "PLACE", "--out", "x.h5ad"],
        ["attribute", "PLACE", "--out", "x", "--gene", "g"],
        ["motifs", "PLACE", "--motifs", "PLACE", "--data", "TOY", "--out", "x"],
        ["report", "PLACE"],
        ["train", "--config", "PLACE", "--data", "TOY", "--out", "x"],
        ["train", "--config", str(DEBUG), "--data", "PLACE", "--out", "x"],
        ["prepare", "--config", "PLACE", "--out", "x"],
        ["simulate", "x", "--config", "PLACE"],
    ],
    ids=lambda line: " ".join(line[:2]) + str(len(line)),
)
def test_a_path_that_does_not_exist_is_named(toy, tmp_path, monkeypatch, capsys, line):
    monkeypatch.chdir(tmp_path)
    place = str(tmp_path / "nowhere" / "at_all")
    words = {"PLACE": place, "TOY": str(toy)}
    message = failed(capsys, [words.get(word, word) for word in line])
    assert place in message
    assert "Fix: " in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--optim.lrr", "1"], ["'optim.lrr'", "did you mean 'lr'?"]),
        (["--fit.max_epoch=1"], ["'fit.max_epoch'", "did you mean 'max_epochs'?"]),
        (["--max-epochs", "3"], ["'max-epochs'"]),
        (["--model.d_modle", "8"], ["d_modle", "d_model"]),
        (["--model.name", "seq2exq"], ["seq2exq", "did you mean 'seq2exp'?"]),
        (["--controls", "[sequence_onyl]"], ["sequence_onyl", "did you mean 'sequence_only'?"]),
        (["--data.tracks", "[DNAse]"], ["DNAse", "DNase, H3K27ac"]),
        (["--optim.lr", "fast"], ["fast"]),
        (["--seed"], ["--seed alone"]),
        (["stray"], ["stray"]),
        (["--optim", "3", "--optim.lr", "1"], ["--optim"]),
    ],
    ids=str,
)
def test_a_wrong_setting_is_named_with_the_nearest_right_one(toy, tmp_path, capsys, flags, parts):
    line = ["train", "--config", str(DEBUG), "--data", str(toy), "--out", str(tmp_path / "run")]
    message = failed(capsys, [*line, *flags])
    for part in parts:
        assert part in message
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize(
    "line",
    [[], ["trian"], ["inspect"], ["inspect", "x", "--vreify"], ["evaluate", "x", "--split", "all"],
     ["train", "--config", "x"]],
)  # fmt: skip
def test_a_wrong_command_or_flag_ends_with_2_and_one_line(line, capsys):
    with pytest.raises(SystemExit) as stop:
        main(line)
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: seq2exp")
    assert message.count("\n") == 1
    assert "--help`" in message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            ["variants", "run", "--vcf", "a.vcf", "--out", "b.tsv", "--nul"],
            "--nul: did you mean --null?",
        ),
        (["variants", "run", "--vcf", "a.vcf", "--out", "b.tsv", "--shift=0"], "--shifts?"),
        (["variants", "run", "--vcf", "a.vcf", "--ot", "b.tsv"], "--ot: did you mean --out?"),
        (["evaluate", "run", "--resample", "5"], "--resample: did you mean --resamples?"),
        (["cohort", "train", "--confg", "c.yaml", "--out", "x"], "--confg: did you mean --config?"),
        (["train", "--config", "c", "--data", "d", "--quite"], "--quite: did you mean --quiet?"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_mistyped_or_shortened_option_is_never_taken_and_the_nearest_is_named(
    line, words, monkeypatch, capsys
):
    for name in ("variants", "evaluate", "cohort_train", "train"):
        monkeypatch.setattr(f"seq2exp.cli.{name}.run", lambda args: pytest.fail("it was taken"))
    with pytest.raises(SystemExit) as stop:
        main(line)
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1


def test_a_list_that_begins_with_a_minus_needs_no_equals_sign(monkeypatch):
    seen = []
    monkeypatch.setattr("seq2exp.cli.variants.run", lambda args: seen.append(args.shifts))
    line = ["variants", "run", "--vcf", "a.vcf", "--out", "b.tsv", "--shifts"]
    assert main([*line, "-5,0,5"]) == 0
    assert main([*line, "5,0,-5"]) == 0
    assert seen == [(-5, 0, 5), (5, 0, -5)]


@pytest.mark.parametrize("value", ["7", "5%", "-0.1", "nan"])
def test_a_share_is_a_number_from_0_to_1(value, capsys):
    with pytest.raises(SystemExit):
        main(["variants", "run", "--vcf", "a", "--out", "b.tsv", f"--max-mismatch={value}"])
    assert f"found {value!r}, expected a number from 0 to 1" in capsys.readouterr().err


def test_half_a_command_lists_what_it_may_become(capsys):
    assert main(["cohort", "--help"]) == 0
    out, err = capsys.readouterr()
    assert [line.split("  ")[1] for line in out.splitlines()] == [
        name for name in COMMANDS if name.startswith("cohort ")
    ]
    assert not err
    for line in (["cohort"], ["cohort", "trian", "--config", "x"]):
        assert main(line) == 2
        out, err = capsys.readouterr()
        assert f"found {' '.join(line[:2])!r}" in err
        assert "cohort train " in err


@pytest.mark.parametrize(
    "line",
    [["evaluate", "x", "--resamples", "0"], ["spatial", "evaluate", "x", "--resamples", "-1"],
     ["spatial", "evaluate", "x", "--seed", "-1"], ["simulate", "x", "--seed", "-1"],
     ["compare", "x", "--resamples", "many"]],
)  # fmt: skip
def test_numbers_that_no_draw_can_have_are_told_before_any_work(line, capsys):
    with pytest.raises(SystemExit) as stop:
        main(line)
    assert stop.value.code == 2
    assert f"found {line[-1]!r}, expected a whole number of" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["source", "source/raw", "."])
def test_overwrite_never_replaces_what_is_read(tmp_path, capsys, out):
    config = tmp_path / "source" / "raw" / "cohort.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("name: x\n")
    line = ["prepare", "--config", str(config), "--source", str(config.parent), "--overwrite"]
    assert "which is read" in failed(capsys, [*line, "--out", str(tmp_path / out)])
    assert config.read_text() == "name: x\n"


@pytest.mark.parametrize(
    ("out", "text"),
    [("file/run", "found a file in this path, expected folders"), ("file", "found a file")],
)
def test_a_file_in_the_way_is_named(toy, tmp_path, capsys, out, text):
    (tmp_path / "file").write_text("mine")
    dump_yaml(tiny_config(), tmp_path / "c.yaml")
    line = ["train", "--config", str(tmp_path / "c.yaml"), "--data", str(toy)]
    message = failed(capsys, [*line, "--out", str(tmp_path / out)])
    assert str(tmp_path / out) in message
    assert text in message
    assert "Errno" not in message


def test_ctrl_c_in_any_command_is_130(monkeypatch, capsys):
    """tests/faults/test_execution.py sends real signals to a training."""
    from seq2exp.cli import doctor

    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "run", interrupted)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_bug_of_ours_is_no_user_error(monkeypatch):
    from seq2exp.cli import doctor

    def broken(args):
        raise ZeroDivisionError

    monkeypatch.setattr(doctor, "run", broken)
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


def test_debug_shows_the_traceback(tmp_path, capsys):
    assert main(["inspect", str(tmp_path), "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_the_log_file_holds_what_the_screen_shows(toy, tmp_path, capsys):
    log = tmp_path / "logs" / "train.log"
    dump_yaml(tiny_config(), tmp_path / "c.yaml")
    line = ["train", "--config", str(tmp_path / "c.yaml"), "--data", str(toy), "--out"]
    assert main([*line, str(tmp_path / "a"), "--log-file", str(log)]) == 0
    shown = capsys.readouterr().err
    assert "epoch 2 of 2" in shown
    assert log.read_text() == shown
    assert main([*line, str(tmp_path / "b"), "--quiet"]) == 0
    assert capsys.readouterr().err == ""


# The commands, end to end ---------------------------------------------------------------------

ROW = {"name": str, "metric": str, "split": str, "value": float, "low": float, "high": float,
       "n": int}  # fmt: skip


def document(path, command):
    """Read a --json file; NaN and Infinity are no JSON."""
    values = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert list(values) == ["command", "inputs", "rows"]
    assert values["command"] == command
    assert isinstance(values["inputs"], dict)
    return values


def test_evaluate_prints_a_table_and_writes_the_agreed_rows(run, tmp_path, capsys):
    line = ["evaluate", str(run), "--resamples", "30", "--json", str(tmp_path / "e.json")]
    assert main(line) == 0
    printed = capsys.readouterr().out
    rows = document(tmp_path / "e.json", "evaluate")["rows"]
    for row in rows:
        assert set(ROW) <= set(row)
        for key, kind in ROW.items():
            assert row[key] is None or isinstance(row[key], kind), (key, row)
        if row["metric"] == "mse":
            assert row["low"] <= row["value"] <= row["high"]
    names = {row["name"] for row in rows}
    assert "model" in names
    assert len(names) > 4
    assert {"pearson", "spearman", "mse", "mae"} <= {row["metric"] for row in rows}
    assert {row["split"] for row in rows} == {"test"}
    assert len(printed.splitlines()) > len(names)


def test_evaluate_fits_a_control_that_is_asked_for_and_names_an_unknown_one(run, tmp_path, capsys):
    line = ["evaluate", str(run), "--resamples", "20", "--control"]
    assert main([*line, "codon_ridge", "--json", str(tmp_path / "e.json")]) == 0
    names = {row["name"] for row in document(tmp_path / "e.json", "evaluate")["rows"]}
    assert {"codon_ridge", "all_ridge", "mean"} <= names
    capsys.readouterr()
    assert main([*line, "codon_rigde"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: controls: found codon_rigde")
    assert "did you mean 'codon_ridge'?" in message


def test_predict_all_covers_every_gene_once_labelled_or_not(run, toy, tmp_path):
    out = tmp_path / "p.parquet"
    assert main(["predict", str(run), "--out", str(out)]) == 0
    table = pd.read_parquet(out)
    genes = pd.read_parquet(toy / "genes.parquet")
    assert table["gene_id"].tolist() == genes["gene_id"].tolist()
    assert np.isfinite(table["predicted:cell_b"]).all()
    assert table["observed:cell_b"].isna().sum() == 3
    assert main(["predict", str(run), "--out", str(tmp_path / "t.parquet"), "--split", "test"]) == 0
    part = pd.read_parquet(tmp_path / "t.parquet")
    whole = table[table["split"] == "test"].reset_index(drop=True)
    assert part["gene_id"].tolist() == whole["gene_id"].tolist()
    np.testing.assert_allclose(part["predicted:cell_a"], whole["predicted:cell_a"], atol=1e-5)


def test_predict_works_where_nothing_is_labelled(run, tmp_path):
    bare = toy_dataset(tmp_path / "d", ToyPlan(samples=()))
    line = ["predict", str(run), "--data", str(bare), "--out", str(tmp_path / "p.parquet")]
    assert main(line) == 0
    table = pd.read_parquet(tmp_path / "p.parquet")
    assert len(table) == 44
    assert "observed:cell_a" not in table


def test_elements_and_report(run, tmp_path, capsys):
    out = tmp_path / "map"
    line = ["elements", str(run), "--out", str(out), "--plots", "1", "--gene", "chr3_g2"]
    assert main([*line, "--json", str(tmp_path / "m.json")]) == 0
    document(tmp_path / "m.json", "elements")
    expected = {"elements.bed.gz", "elements.bed.gz.tbi", "union.bed.gz", "links.bedpe.gz",
                "mask.bw", "summary.json", "plots", "genes"}  # fmt: skip
    assert expected <= {path.name for path in out.iterdir()}
    assert list((out / "plots").glob("*.png"))
    assert (out / "genes" / "chr3_g2.bw").is_file()
    page = tmp_path / "r.html"
    line = ["report", str(run), "--elements", str(out), "--out", str(page), "--loci", "1"]
    assert main(line) == 0
    assert str(page) in capsys.readouterr().out
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_inspect_shows_what_there_is(toy, tmp_path, capsys):
    assert main(["inspect", str(toy), "--verify", "--json", str(tmp_path / "i.json")]) == 0
    text = capsys.readouterr().out
    for part in ("toy1", "44 (22 on the minus strand): train 24", "every checksum right", "DNase",
                 "H3K27ac", "cell_a", "promoter_DNase"):  # fmt: skip
        assert part in text
    manifest = document(tmp_path / "i.json", "inspect")["inputs"]["manifest"]
    assert manifest["contigs"] == {"chr1": 36_007, "chr2": 12_007, "chr3": 18_007}


def test_doctor_writes_the_agreed_rows(tmp_path, capsys):
    assert main(["doctor", "--json", str(tmp_path / "d.json")]) == 0
    names = {row["name"] for row in document(tmp_path / "d.json", "doctor")["rows"]}
    assert {"python", "torch", "gpu"} <= names
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("python", "torch"))


def test_train_says_what_to_do_next_and_keeps_the_resolved_settings(run):
    from seq2exp.core.config import load_yaml

    values = load_yaml(run / "config.yaml")
    assert values["fit"]["max_epochs"] == 1
    assert values["data"]["window_bp"] == 2048


@pytest.mark.parametrize(("flags", "seed"), [([], 7), (["--seed", "3"], 3)])
def test_the_seed_of_a_configuration_counts_unless_the_flag_is_given(
    tmp_path, monkeypatch, flags, seed
):
    import data_prep.simulate as package

    seen = []
    monkeypatch.setattr(package, "simulate", lambda config, out, **_: seen.append(config.seed))
    (tmp_path / "s.yaml").write_text("seed: 7\n")
    line = ["simulate", str(tmp_path / "out"), "--config", str(tmp_path / "s.yaml")]
    assert main([*line, *flags]) == 0
    assert seen == [seed]
