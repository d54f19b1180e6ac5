"""What users met with attributions and tutorials: P22 and P24."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest

from seq2exp.cli.main import main
from seq2exp.core.files import read_json
from seq2exp.dataset.store import Dataset
from seq2exp.interpret import attribute
from seq2exp.interpret.attribute import Extras, attribute_run
from seq2exp.interpret.attribution import AttributionConfig
from seq2exp.interpret.attribution_files import load_genes
from seq2exp.training.run import open_run
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.engine import open_engine
from tests.variants.inputs import clean_rows, put, vcf_text

DOCS = Path(__file__).parents[2] / "docs"
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
GENE = "chr3_g2"


def explain(finished, out, method, **settings):
    config = AttributionConfig(method=method, span_bp=8, steps=4, **settings)
    attribute_run(finished, out, config=config, genes=[GENE], extras=Extras(num_logos=0))
    return out


@pytest.mark.parametrize("method", ["gradient_x_input", "integrated_gradients", "saturation"])
def test_pain_22_what_contributions_miss_is_always_told(
    finished, tmp_path, caplog, monkeypatch, method
):
    """tangermeme#47, #48, #49, captum#351: contributions that do not add up, in silence."""
    monkeypatch.setattr(attribute, "_LARGE_ERROR", 1e9)
    with caplog.at_level(logging.WARNING, logger="seq2exp"):
        explain(finished, tmp_path / "quiet", method)
    assert not caplog.records
    gene = load_genes(tmp_path / "quiet").iloc[0]
    error = gene["bases_sum"] - gene["bases_difference"]
    assert gene["bases_error"] == pytest.approx(error, abs=1e-9)
    assert gene["bases_relative_error"] == pytest.approx(abs(error / gene["bases_difference"]))
    told = read_json(tmp_path / "quiet" / "summary.json")["completeness"]
    rows = {(row["name"], row["metric"]): row["value"] for row in told}
    assert rows["bases", "relative_error"] == pytest.approx(gene["bases_relative_error"])
    monkeypatch.setattr(attribute, "_LARGE_ERROR", gene["bases_relative_error"] / 2)
    with caplog.at_level(logging.WARNING, logger="seq2exp"):
        explain(finished, tmp_path / "loud", method)
    (record,) = caplog.records
    assert f"--method {method}: found contributions of bases that miss" in record.getMessage()
    assert ("integrated_gradients" in record.getMessage()) == (method != "saturation")


@pytest.fixture
def desk(finished, toy, tmp_path, monkeypatch) -> Path:
    """A folder in which the names of the pages exist."""
    (tmp_path / "runs").mkdir()
    for name in ("runs/k562", "runs/yeast"):
        (tmp_path / name).symlink_to(finished)
    (tmp_path / "yeast").symlink_to(toy)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snippets(page: str, **instead: str) -> list[str]:
    """Code of a page; names of other genomes are replaced, and must have been there."""
    found = SNIPPET.findall((DOCS / page).read_text())
    for word, other in instead.items():
        assert any(word in code for code in found), word
        found = [code.replace(word, other) for code in found]
    assert found
    return found


def execute(page: str, names: dict | None = None, **instead: str) -> dict:
    """Run the snippets of a page, one after the other, in one namespace."""
    space = {"Path": Path} | (names or {})
    for number, code in enumerate(snippets(page, **instead)):
        exec(compile(code, f"{page}, snippet {number}", "exec"), space)
    return space


def test_pain_24_examples_of_the_variant_pages_run(desk, finished, toy):
    """CREsted#86: a tutorial that nobody could run again."""
    data = Dataset(toy)
    row = next(row for row in clean_rows(data) if len(row[2]) == len(row[3]) == 1)
    word = f"{row[0]}:{row[1] + 1}:{row[2]}>{row[3]}"
    table = execute("variants.md", **{"chr8:127736000:A>G": word})["table"]
    assert len(table) >= 1
    assert np.isfinite(table.filter(like="expr_delta:").to_numpy()).all()
    put(desk / "in.vcf.gz", vcf_text(data, clean_rows(data, size=4)))
    with open_engine(open_run(finished), data, ScoreConfig()) as engine:
        space = execute("variant_files.md", {"dataset": data, "engine": engine})
    assert sum(path.stat().st_size > 0 for path in space["outs"]) == 3
    assert space["summary"].mismatch_share == 0
    p = np.random.default_rng(0).integers(1, 51, 200) * 2 / 100
    assert len(execute("variant_scores.md", {"p": p})["table"]) > 3
    assert list(Path("calibration").iterdir())


def test_pain_24_examples_of_other_pages_run(desk, finished):
    """CREsted#86, for the pages on which those of variants build."""
    assert main(["predict", str(finished), "--out", "predictions.parquet"]) == 0
    space = execute("predict.md")
    assert len(space["held_out"]) == len(space["table"]) > 0
    np.testing.assert_allclose(
        space["held_out"].filter(like="cell").to_numpy(float),
        space["table"].filter(like="cell").to_numpy(float),
        rtol=1e-5,
    )
    assert execute("inspect.md")["codes"].shape == (4096,)
    explain(finished, desk / "attributions", "gradient_x_input")
    space = execute("attribute.md")
    assert np.isclose(space["arrays"]["attribution"].sum(), space["genes"]["bases_sum"][0])
