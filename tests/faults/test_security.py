"""F32, F33, F35, F36 and F37: files from strangers, and names that want to be more than names."""

from __future__ import annotations

import ast
import csv
import gzip
import itertools
import json
import re
import shutil
import struct
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from seq2exp.cli.main import main
from seq2exp.core.config import dump_yaml, load_config, load_yaml
from seq2exp.core.errors import ConfigError, FormatError, Seq2ExpError
from seq2exp.core.files import sha256
from seq2exp.dataset import format as layout
from seq2exp.training.checkpoint import load_model, read_checkpoint
from seq2exp.training.config import TrainConfig
from seq2exp.training.trainer import train
from tests.runs import tiny_config
from tests.toys import ToyPlan, toy_dataset

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(finished, tmp_path):
    return shutil.copytree(finished / "model", tmp_path / "model")


# F32 -------------------------------------------------------------------------------------------


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "owned"))


def test_f32_the_evil_pickle_works_where_nobody_looks(tmp_path):
    """The other tests would prove nothing with a harmless file."""
    torch.save({"state": Evil(tmp_path / "mark")}, tmp_path / "x.pt")
    torch.load(tmp_path / "x.pt", weights_only=False)
    assert (tmp_path / "mark").read_text() == "owned"


@pytest.mark.parametrize("name", ["last.ckpt", "best.pt"])
def test_f32_an_evil_checkpoint_in_a_run_is_refused(toy, tmp_path, monkeypatch, capsys, name):
    from seq2exp.training import trainer

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    dump_yaml(tiny_config(), tmp_path / "c.yaml")
    run = tmp_path / "run"
    line = ["train", "--config", str(tmp_path / "c.yaml"), "--data", str(toy), "--out", str(run)]
    monkeypatch.setattr(trainer, "save_model", stop)
    assert main(line) == 130
    monkeypatch.undo()
    mark = tmp_path / "mark"
    torch.save({"epoch": Evil(mark), "state_dict": {}}, run / "checkpoints" / name)
    assert main(line) == 2
    errors = capsys.readouterr().err
    assert f"{name}: found no readable checkpoint" in errors
    assert "Traceback" not in errors
    assert not mark.exists()


def test_f32_a_pickle_named_safetensors_is_refused(model, tmp_path):
    torch.save({"x": Evil(tmp_path / "mark")}, model / "model.safetensors")
    rewrite_checksum(model)
    with pytest.raises(FormatError, match=r"model\.safetensors"):
        load_model(model)
    assert not (tmp_path / "mark").exists()


def test_f32_a_pickle_beside_the_weights_is_never_read(model, tmp_path):
    for name in ("model.pt", "pytorch_model.bin", "model.ckpt"):
        torch.save({"x": Evil(tmp_path / "mark")}, model / name)
    load_model(model)
    with pytest.raises(FormatError):
        read_checkpoint(model / "model.pt")
    assert not (tmp_path / "mark").exists()


# F33 -------------------------------------------------------------------------------------------

NAMES = "abcdefghi"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in itertools.pairwise(NAMES)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: !!python/object/apply:os.system ['touch MARK']\n", "constructor"),
        ("model: !!python/name:os.system\n", "constructor"),
        (BOMB, "aliases are refused"),
        ("seed: 1\nseed: 2\n", "stands twice"),
        ("a: " + "[" * 10_000 + "]" * 10_000, "levels|recursion"),
        ("# " + "x" * 1_000_001, "bytes"),
        ("model: {class_path: os.system, init_args: {command: touch MARK}}\n", "class_path"),
        ("model: {name: os.system}\n", "no such model"),
        ("model: {name: '../../evil'}\n", "no such model"),
    ],
    ids=["object", "name", "bomb", "twice", "deep", "large", "class_path", "import", "path"],
)
def test_f33_hostile_yaml_is_a_configuration_error(
    toy, tmp_path, monkeypatch, capsys, text, message
):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "c.yaml"
    config.write_text(text)
    begin = time.process_time()
    line = ["train", "--config", str(config), "--data", str(toy), "--out", str(tmp_path / "run")]
    assert main(line) == 2
    assert time.process_time() - begin < 20  # a bomb would take hours
    errors = capsys.readouterr().err
    assert re.search(message, errors), errors
    assert "Traceback" not in errors
    assert not (tmp_path / "MARK").exists()
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("flag", ["--seed=!!python/name:os.system", "--model=&a [*a]", "--seed=["])
def test_f33_flags_are_read_by_the_same_strict_loader(toy, tmp_path, capsys, flag):
    dump_yaml(tiny_config(), tmp_path / "c.yaml")
    line = ["train", "--config", str(tmp_path / "c.yaml"), "--data", str(toy)]
    assert main([*line, "--out", str(tmp_path / "run"), flag]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {flag.split('=')[0]}: found")
    assert "Traceback" not in errors


def test_f33_no_is_a_word_where_a_word_is_declared(tmp_path):
    (tmp_path / "c.yaml").write_text("data: {samples: [NO]}\n")
    with pytest.raises(ConfigError, match="quote"):
        load_config(TrainConfig, [tmp_path / "c.yaml"])


# F35 -------------------------------------------------------------------------------------------


def rewrite_checksum(folder, **changes):
    """As someone who means it: the checksum fits the changed file."""
    values = load_yaml(folder / "config.yaml")
    for key, value in changes.items():
        values["model"][key] = value
    values["weights_sha256"] = sha256(folder / "model.safetensors")
    dump_yaml(values, folder / "config.yaml")


def with_header(folder, header, data=b"\0" * 64):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    rewrite_checksum(folder)


def tensor(shape, begin, end):
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "header",
    [
        {"a": tensor([8], 0, 32), "b": tensor([8], 16, 48)},
        {"a": tensor([8], 0, 32), "b": tensor([4], 48, 64)},
        {"a": tensor([2**40], 0, 2**42)},
        {"a": tensor([4], 0, 32)},
        b"{" * 1000,
        b"\xff\xfe",
    ],
    ids=["overlap", "hole", "too large", "shape", "not json", "not text"],
)
def test_f35_headers_that_lie_are_refused(model, header):
    with_header(model, header)
    with pytest.raises(FormatError, match=r"model\.safetensors"):
        load_model(model)


def test_f35_a_header_of_gigabytes_is_refused_before_allocation(model):
    (model / "model.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}")
    rewrite_checksum(model)
    with pytest.raises(FormatError, match=r"model\.safetensors"):
        load_model(model)


@pytest.mark.parametrize(
    ("key", "value"),
    [("d_model", 10**9), ("num_outputs", 10**12), ("head_hidden", 10**9),
     ("generator_layers", 10**9), ("predictor_layers", 10**6)],
)  # fmt: skip
def test_f35_a_configuration_of_absurd_size_is_refused_before_allocation(model, key, value):
    rewrite_checksum(model, **{key: value})
    with pytest.raises(Seq2ExpError, match=f"{key} {value}|instead of|missing"):
        load_model(model)


def test_f35_missing_extra_reshaped_and_nan_tensors_are_all_named(model):
    path = model / "model.safetensors"
    state = load_file(path)
    names = [name for name, value in state.items() if value.ndim == 2]
    state["more"] = torch.zeros(1)
    del state[names[0]]
    state[names[1]] = state[names[1]].T.contiguous()[:1]
    save_file(state, path)
    rewrite_checksum(model)
    with pytest.raises(FormatError, match=f"missing {names[0]}, unexpected more, {names[1]}"):
        load_model(model)


@pytest.mark.parametrize("text", ["{}", "model: {}", "model: {name: 3}", "model: 3", "[1]", "a: b"])
def test_f35_a_model_card_without_its_parts(model, text):
    (model / "config.yaml").write_text(text)
    with pytest.raises(Seq2ExpError, match=r"config\.yaml|model"):
        load_model(model)


def test_f35_the_library_does_not_see_a_flipped_byte_and_we_do(model):
    path = model / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    load_file(path)
    with pytest.raises(FormatError, match="sha256"):
        load_model(model)


# F36 -------------------------------------------------------------------------------------------

SCRIPT = "<script>alert(1)</script>"
TRACK, SAMPLE = "../../x", '=1+1,"a"'


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A run on a dataset whose every name is an attack, and all that is written about it."""
    folder = tmp_path_factory.mktemp("hostile")
    data = toy_dataset(folder / "data", ToyPlan(tracks=(TRACK, SCRIPT), samples=(SAMPLE, SCRIPT)))
    genes = layout.read_table(layout.genes_path(data))
    genes.loc[0, "gene_id"], genes.loc[32, "gene_id"] = "../../../up", SCRIPT
    genes["symbol"] = [f"{SCRIPT}\t=cmd|x\n{i}" for i in range(len(genes))]
    labels = layout.read_table(layout.expression_path(data))
    labels["gene_id"] = genes["gene_id"]
    layout.write_table(genes, layout.genes_path(data))
    layout.write_table(labels, layout.expression_path(data))
    layout.finish_manifest(data, layout.read_manifest(data))
    run = folder / "run"
    train(tiny_config(), data, run)
    for line in (["evaluate", str(run), "--resamples", "20", "--json", str(folder / "e.json")],
                 ["predict", str(run), "--out", str(folder / "p.parquet")],
                 ["elements", str(run), "--out", str(run / "elements"), "--plots", "1",
                  "--gene", "../../../up", "--gene", SCRIPT],
                 ["report", str(run), "--loci", "1"]):  # fmt: skip
        assert main(line) == 0, line
    return folder


def test_f36_no_file_leaves_its_folder(hostile):
    assert sorted(path.name for path in hostile.iterdir()) == ["data", "e.json", "p.parquet", "run"]
    names = [path.name for path in (hostile / "run").rglob("*")]
    assert not [name for name in names if set(name) & set("<>/\\\n\t|")]
    assert len(list((hostile / "run" / "elements" / "genes").iterdir())) == 2


def test_f36_html_shows_names_and_runs_none(hostile):
    page = (hostile / "run" / "report.html").read_text()
    assert SCRIPT not in page
    assert "&lt;script&gt;" in page
    # One script runs, the one whose hash the policy names; the others hold data.
    tags = re.findall(r"<script[^>]*>", page.lower())
    assert tags.count("<script>") == 1
    assert all(re.fullmatch(r'<script type="[a-z/]+" id="[a-z0-9-]+">', t) for t in tags[:-1])


def test_f36_tables_keep_their_cells(hostile):
    """Every line of a BED file has all columns, and the Parquet table all rows."""
    names = json.loads((hostile / "run" / "elements" / "summary.json").read_text())["columns"]
    for name, columns in names.items():
        text = gzip.decompress((hostile / "run" / "elements" / name).read_bytes()).decode()
        rows = [line.split("\t") for line in text.splitlines()]
        assert rows
        assert {len(row) for row in rows} == {len(columns)}, name
        assert all(row[1].isdigit() and row[2].isdigit() for row in rows)
    table = pd.read_parquet(hostile / "p.parquet")
    assert len(table) == 44
    assert f"predicted:{SAMPLE}" in table
    assert table["gene_id"].iloc[0] == "../../../up"
    with (hostile / "run" / "metrics.csv").open(newline="") as handle:
        assert {len(row) for row in csv.reader(handle)} == {9}


# F37 -------------------------------------------------------------------------------------------

FORBIDDEN = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "xml"}


def violations(source):
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [
                node.module or ""]  # fmt: skip
            found += [name for name in names if name.split(".")[0] in MODULES]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        words = {word.arg: word.value for word in node.keywords if word.arg}
        flags = {key: getattr(value, "value", None) for key, value in words.items()}
        if name in FORBIDDEN or name in ("os.system", "os.popen", "subprocess.getoutput"):
            found.append(name)
        if flags.get("shell") or flags.get("allow_pickle"):
            found.append("shell or allow_pickle")
        if name == "torch.load" and flags.get("weights_only") is not True:
            found.append("torch.load")
        if name.startswith("subprocess.") and node.args and isinstance(node.args[0], ast.Constant):
            found.append("a command as text")
        if name == "yaml.load" and "StrictLoader" not in ast.unparse(words.get("Loader", node)):
            found.append("yaml.load")
    return found


def test_f37_nothing_in_the_packages_runs_text_or_pickles():
    files = [*(ROOT / "seq2exp").rglob("*.py"), *(ROOT / "data_prep").rglob("*.py")]
    assert len(files) > 80
    assert {str(p): v for p in files if (v := violations(p.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize(
    "line",
    ["eval(x)", "import pickle", "from pickle import loads", "torch.load(p)", "os.system(x)",
     "torch.load(p, weights_only=False)", "subprocess.run(x, shell=True)", "yaml.load(x)",
     "subprocess.run('ls ' 'x')", "np.load(p, allow_pickle=True)", "import xml.etree"],
)  # fmt: skip
def test_f37_the_search_finds_what_it_looks_for(line):
    assert violations(line)


def test_f37_lightning_is_told_to_load_weights_only():
    source = (ROOT / "seq2exp" / "training" / "fitting.py").read_text()
    calls = [node for node in ast.walk(ast.parse(source))
             if isinstance(node, ast.Call) and ast.unparse(node.func) == "trainer.fit"]  # fmt: skip
    assert calls
    assert all(
        any(word.arg == "weights_only" and word.value.value is True for word in call.keywords)
        for call in calls
    )
