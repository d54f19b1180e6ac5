"""House rules that no linter knows; each checker is shown one broken example that it must flag.

Imports between rooms: tests/test_architecture.py. Pages and commands: tests/test_docs.py.
"""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from data_prep.config import DataConfig
from data_prep.histology.config import CohortConfig
from data_prep.simulate import SimulationConfig
from seq2exp.cohort.benchmark_config import BenchmarkConfig
from seq2exp.core.config import load_config, load_yaml
from seq2exp.spatial.compare.config import CompareConfig
from seq2exp.spatial.compare.hescape_config import HescapeSuiteConfig
from seq2exp.spatial.config import SpatialConfig
from seq2exp.training.config import TrainConfig

ROOT = Path(__file__).parents[1]
MODULES = sorted([*(ROOT / "seq2exp").rglob("*.py"), *(ROOT / "data_prep").rglob("*.py")])
LIBRARY = [path for path in MODULES if "cli" not in path.relative_to(ROOT).parts]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Import name of every package that only an extra installs, or that must never be needed.
OPTIONAL = {"hicstraw", "mamba_ssm", "causal_conv1d", "transformers", "timm", "torchvision",
            "anndata", "spatialdata", "dask", "pyfaidx", "cyvcf2", "zarr", "pyranges",
            "lightning", "triton", "captum", "modiscolite", "tiffslide", "tifffile"}  # fmt: skip
# Kernels are functions of the package that compiles them, so these cannot be imported without it.
KERNELS = {f"seq2exp.nn.scan.triton_{part}" for part in ("backward", "forward", "tiles")}
# dependencies.md, section 2: packages that break an environment or are not what they seem.
FORBIDDEN = {"pyranges1", "lightning", "hest", "torchvision", "timm", "open-clip-torch", "cellpose",
             "lazyslide", "mamba-ssm", "causal-conv1d", "macs3", "seqdata",
             "bigwig-loader"}  # fmt: skip


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def top_imports(source: str) -> set[str]:
    """Packages that are imported with the module, not inside a function."""
    found = set()
    nodes = list(ast.parse(source).body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes += ast.iter_child_nodes(node)
    return found


def test_optional_packages_are_imported_where_they_are_used():
    found = {name_of(path): top_imports(path.read_text()) & OPTIONAL for path in MODULES}
    assert {name: names for name, names in found.items() if names} == {
        name: {"triton"} for name in KERNELS
    }
    assert top_imports("try:\n    import hicstraw\nexcept ImportError:\n    pass") == {"hicstraw"}
    assert top_imports("def f():\n    import hicstraw") == set()


def test_every_module_imports_without_optional_packages():
    """In one child in which importing any of them fails."""
    names = [name_of(path) for path in MODULES if name_of(path) not in KERNELS]
    script = (
        "import sys, importlib\n"
        f"sys.modules.update(dict.fromkeys({sorted(OPTIONAL)!r}))\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(names) > 80


def speech(source: str) -> list[str]:
    """Calls by which a library would talk to the terminal or end the process."""
    banned = {"print", "quit", "exit", "sys.exit", "input", "breakpoint"}
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [name for node in calls if (name := ast.unparse(node.func)) in banned]


def test_the_library_never_prints_nor_exits():
    assert {name_of(p): found for p in LIBRARY if (found := speech(p.read_text()))} == {}
    for line in ("print(1)", "sys.exit(2)", "quit()"):
        assert speech(line)


def asserts(source: str) -> int:
    return sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(source)))


def test_f39_no_check_of_user_data_lives_in_an_assert():
    """`python -O` removes them. The few there are tell mypy a type."""
    found = {name_of(path): asserts(path.read_text()) for path in LIBRARY}
    assert sum(found.values()) <= 5, found
    assert not [name for name, n in found.items() if n and "data_prep" in name]
    assert asserts("def f(x):\n    assert x") == 1


def undocumented(source: str) -> list[str]:
    """Public functions, methods and classes without docstring or full annotations."""
    found: list[str] = []
    todo: list[tuple[str, list[ast.stmt]]] = [("", ast.parse(source).body)]
    while todo:
        prefix, body = todo.pop()
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if any(ast.unparse(mark) == "overload" for mark in node.decorator_list):
                continue
            name = f"{prefix}{node.name}"
            if not ast.get_docstring(node):
                found.append(f"{name}: docstring")
            if isinstance(node, ast.ClassDef):
                todo.append((f"{name}.", node.body))
                continue
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = [a.arg for a in given if not a.annotation and a.arg not in ("self", "cls")]
            if bare or node.returns is None:
                found.append(f"{name}: annotations {bare}")
    return found


def test_everything_public_is_documented_and_annotated():
    assert {name_of(p): found for p in MODULES if (found := undocumented(p.read_text()))} == {}
    assert undocumented('def f(x) -> int:\n    """Do."""') == ["f: annotations ['x']"]
    assert undocumented('def f(x: int):\n    """Do."""') == ["f: annotations []"]
    assert undocumented("class A:\n    def g(self) -> int: ...") == [
        "A: docstring", "A.g: docstring"]  # fmt: skip


def exports(source: str) -> tuple[list[str], set[str]]:
    """``__all__`` and the public functions and classes that a module defines."""
    listed: list[str] = []
    defined = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            listed = [str(value) for value in ast.literal_eval(node.value)]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            defined.add(node.name)
    return listed, defined


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_all_is_sorted_and_names_what_exists(path):
    if name_of(path) in KERNELS:
        pytest.importorskip("triton")
    listed, defined = exports(path.read_text())
    assert not defined or listed, "public definitions but no __all__"
    module = importlib.import_module(name_of(path))
    assert [name for name in listed if not hasattr(module, name)] == []
    assert len(set(listed)) == len(listed)


def test_code_is_plain_ascii_and_files_are_short():
    long = {}
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        assert text.isascii(), path
        if (lines := text.count("\n")) > 600:
            long[name_of(path)] = lines
    assert long == {}


# Configurations -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda p: p.name)
def test_every_configuration_is_bound_to_its_dataclass(path):
    """The models of configs/train are built in tests/training/test_configs.py."""
    kinds = {
        "data": DataConfig,
        "train": TrainConfig,
        "spatial": SpatialConfig,
        "cohort": BenchmarkConfig,
    }
    folders = path.relative_to(ROOT / "configs").parts
    kind = CohortConfig if folders[:2] == ("spatial", "data") else kinds[folders[0]]
    special = {
        "compare": CompareConfig,
        "compare_hescape": HescapeSuiteConfig,
        "simulation": SimulationConfig,
    }
    kind = special.get(path.stem, kind)
    config = load_config(kind, [path])
    assert load_yaml(path)
    assert config


def test_a_misspelt_key_in_a_configuration_is_flagged(tmp_path):
    text = (ROOT / "configs" / "train" / "debug.yaml").read_text()
    (tmp_path / "x.yaml").write_text(text.replace("window_bp", "windows_bp"))
    with pytest.raises(ValueError, match="did you mean 'window_bp'"):
        load_config(TrainConfig, [tmp_path / "x.yaml"])


# Packaging ------------------------------------------------------------------------------------


def wrong_requirements(requirements: list[str]) -> list[str]:
    """Requirements that would bring a trap of dependencies.md into an environment."""
    names = {re.split(r"[\s<>=!~\[;]", line, maxsplit=1)[0].lower(): line for line in requirements}
    found = [line for name, line in names.items() if name.replace("_", "-") in FORBIDDEN]
    torch, lightning = names.get("torch", ""), names.get("pytorch-lightning", "")
    if torch and not re.search(r"<2\.\d+", torch):
        found.append(torch)
    if lightning and not all(bad in lightning for bad in ("!=2.6.2", "!=2.6.3", "<3")):
        found.append(lightning)
    return found


def test_core_and_dev_requirements_avoid_the_known_traps():
    core, dev = PROJECT["dependencies"], PROJECT["optional-dependencies"]["dev"]
    assert any(line.startswith("torch") for line in core)
    assert wrong_requirements(core) == wrong_requirements(dev) == []


@pytest.mark.parametrize(
    "line",
    ["torch>=2.6", "pytorch-lightning>=2.5,<3", "pytorch-lightning!=2.6.2,!=2.6.3", "pyranges1",
     "lightning>=2.5", "torchvision==0.28", "mamba_ssm"],
)  # fmt: skip
def test_a_trap_is_flagged(line):
    assert wrong_requirements(["numpy>=1.26", line])


def test_constraints_pin_what_the_project_needs():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    assert pins["torch"] == "2.13.0"
    assert pins["pytorch-lightning"] not in ("2.6.2", "2.6.3")
    assert not {name for name in pins if name.startswith("nvidia")}
    assert {name for name in pins if name.lower() in FORBIDDEN} == set()


def test_the_console_script_leads_to_main():
    module, function = PROJECT["scripts"]["seq2exp"].split(":")
    assert callable(getattr(importlib.import_module(module), function))
