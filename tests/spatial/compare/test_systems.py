"""A comparison of two quick systems, from configuration to tables."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.spatial.evaluation import evaluation_rows
from seq2exp.spatial.folds import FoldConfig
from seq2exp.spatial.panels import PanelConfig
from seq2exp.spatial.run import evaluate_run, open_spatial_run

FILES = ("table.tsv", "table.json", "table.md", "costs.tsv")


def by_key(rows):
    found = {(row["name"], row["metric"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def test_numbers_are_those_of_evaluate(compared, features):
    out, found = compared
    rows = by_key(found.rows)
    for name in ("ridge", "stnet"):
        run = open_spatial_run(out / "runs" / f"{name}-0")
        alone = by_key(evaluation_rows(evaluate_run(run, features=features), num_resamples=100))
        for (what, metric), row in alone.items():
            if metric.endswith("_difference"):
                ours = rows[f"{name} - {what}", metric.removesuffix("_difference")]
            else:
                ours = rows[{"model": name, "shuffled patches": f"{name}: {what}"}.get(what, what),
                            metric]  # fmt: skip
            assert [ours[key] for key in ("value", "low", "high", "n", "split")] == [
                row[key] for key in ("value", "low", "high", "n", "split")
            ]


def test_differences_are_paired_by_section_and_gene(compared):
    out, found = compared
    tables = {
        name: pd.read_parquet(out / "judged" / f"{name}-0" / "accuracy.parquet")
        for name in ("ridge", "stnet")
    }
    models = {name: table[table["name"] == "model"] for name, table in tables.items()}
    keys = ["section", "gene_id"]
    joined = models["stnet"].merge(models["ridge"], on=keys, suffixes=("", "_r"))
    assert len(joined) == 4 * 20
    # Two sections of each patient: a plain mean weighs them alike.
    row = by_key(found.rows)["stnet - ridge", "mse"]
    assert row["value"] == pytest.approx((joined["mse"] - joined["mse_r"]).mean())
    assert row["low"] < row["value"] < row["high"]
    assert ("ridge - ridge", "mse") not in by_key(found.rows)


def test_systems_are_trained_on_the_same_spots_genes_and_labels(compared):
    out, _ = compared
    for fold in ("folds/A", "folds/B", "final"):
        for file in ("fold.json", "labels.json"):
            texts = {(out / "runs" / key / fold / file).read_bytes() for key in
                     ("ridge-0", "stnet-0")}  # fmt: skip
            assert len(texts) == 1


@pytest.mark.parametrize(("file", "key"), [("fold.json", "valid"), ("labels.json", "target")])
def test_a_run_of_other_spots_or_labels_is_refused(compare, compared, tmp_path, file, key):
    import shutil

    shutil.copytree(compared[0], tmp_path / "out")
    path = tmp_path / "out" / "runs" / "stnet-0" / "folds" / "A" / file
    content = json.loads(path.read_text())
    content[key] = {"A1": [0]} if key == "valid" else 7.0
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"another {file} of fold A"):
        compare(tmp_path / "out")


def test_a_killed_comparison_continues_to_the_same_tables(compare, compared, features, tmp_path):
    def killed(config):
        if config.system["name"] == "stnet":
            raise KeyboardInterrupt
        return features

    with pytest.raises(KeyboardInterrupt):
        compare(tmp_path / "out", get=killed)
    assert not (tmp_path / "out" / "table.tsv").exists()
    weights = tmp_path / "out" / "runs" / "ridge-0" / "folds" / "A" / "model.safetensors"
    kept = weights.stat().st_mtime_ns
    compare(tmp_path / "out")
    assert weights.stat().st_mtime_ns == kept
    assert (tmp_path / "out" / "table.tsv").read_bytes() == (compared[0] / "table.tsv").read_bytes()


def test_the_same_command_again_gives_the_same_bytes_and_trains_nothing(compare, compared):
    out = compared[0]
    before = {name: (out / name).read_bytes() for name in FILES}
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    compare(out)
    assert {name: (out / name).read_bytes() for name in FILES} == before
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == times


def test_a_judgement_of_other_weights_is_not_kept(compare, compared, tmp_path):
    import shutil

    out = tmp_path / "out"
    shutil.copytree(compared[0], out)
    fold = out / "runs" / "stnet-0" / "folds"
    shutil.copy(fold / "B" / "model.safetensors", fold / "A" / "model.safetensors")
    found = by_key(compare(out).rows)
    before = by_key(compared[1].rows)
    assert found["ridge", "pearson"] == before["ridge", "pearson"]
    assert ("stnet", "mse") not in found  # weights that were exchanged are refused
    # Without checksums, as in runs of before: other genes are refused, other numbers are judged.
    (fold / "A" / "checksums.json").unlink()
    assert ("stnet", "mse") not in by_key(compare(out).rows)
    with safe_open(compared[0] / fold.relative_to(out) / "A" / "model.safetensors", "pt") as own:
        weights = {name: 2 * own.get_tensor(name) for name in own.keys()}  # noqa: SIM118
        save_file(weights, fold / "A" / "model.safetensors", metadata=own.metadata())
    found = by_key(compare(out).rows)
    assert found["stnet", "mse"]["value"] != before["stnet", "mse"]["value"]


def test_the_order_of_systems_changes_no_number(compare, compared, tmp_path):
    turned = compare(tmp_path / "out", chosen=["stnet", "ridge"])
    assert [cost.name for cost in turned.costs] == ["stnet", "ridge"]
    assert by_key(turned.rows) == by_key(compared[1].rows)


def test_a_system_that_fails_stands_in_the_table_and_stops_no_other(
    compare, compared, settings, tmp_path
):
    broken = {"broken": {"system": {"name": "stnet"}, "fit": {"lr": 1e30}}}
    config = dataclasses.replace(settings, systems={**broken, **settings.systems})
    found = compare(tmp_path / "out", config)
    assert list(found.failed) == ["broken-0"]
    assert "loss" in found.failed["broken-0"]
    rows = by_key(found.rows)
    assert (rows["broken", "failed"]["value"], rows["broken", "failed"]["n"]) == (1, 1)
    del rows["broken", "failed"]
    assert rows == by_key(compared[1].rows)
    text = (tmp_path / "out" / "table.md").read_text()
    assert "## Failed\n\n- `broken-0`: system StNet" in text
    table = pd.read_csv(tmp_path / "out" / "table.tsv", sep="\t")
    assert table.iloc[-1][["name", "metric"]].tolist() == ["broken", "failed"]


def test_where_all_fail_there_is_a_table_all_the_same(compare, tmp_path):
    def missing(config):
        raise MemoryError

    found = compare(tmp_path / "out", get=missing)
    assert found.failed == {"ridge-0": "MemoryError", "stnet-0": "MemoryError"}
    assert {row["metric"] for row in found.rows} == {"failed"}


def test_trainings_are_averaged_and_their_spread_is_told(compare, settings, tmp_path):
    config = dataclasses.replace(settings, num_seeds=2)
    found = compare(tmp_path / "out", config)
    rows = by_key(found.rows)
    values, differences = [], []
    ridge = rows["ridge", "mse"]["value"]
    for seed in (0, 1):
        table = pd.read_parquet(tmp_path / "out" / "judged" / f"stnet-{seed}" / "accuracy.parquet")
        values.append(table.loc[table["name"] == "model", "mse"].mean())
        differences.append(values[-1] - ridge)
    assert values[0] != values[1]
    assert rows["stnet", "mse"]["value"] == pytest.approx(np.mean(values))
    assert rows["stnet", "mse seed sd"]["value"] == pytest.approx(np.std(values, ddof=1))
    assert rows["stnet - ridge", "mse seed sd"]["value"] == pytest.approx(
        np.std(differences, ddof=1)
    )
    # The ridge has no seed, so it is fitted once.
    assert ("ridge", "mse seed sd") not in rows
    assert sorted(path.name for path in (tmp_path / "out" / "runs").iterdir()) == [
        "ridge-0", "stnet-0", "stnet-1"]  # fmt: skip
    assert {cost.name: cost.num_seeds for cost in found.costs} == {"ridge": 1, "stnet": 2}


def test_costs_are_counted(compared):
    out, found = compared
    costs = {cost.name: cost for cost in found.costs}
    # 137 colours times 20 genes, and the means of the genes; stnet is shipped with four members.
    assert costs["ridge"].num_parameters == 137 * 20 + 20
    assert costs["stnet"].num_parameters == 4 * costs["ridge"].num_parameters
    assert all(cost.fit_seconds > 0 and cost.predict_seconds > 0 for cost in found.costs)
    stored = [
        json.loads(path.read_text())["seconds"]
        for path in (out / "runs" / "stnet-0").rglob("cost.json")
    ]
    assert len(stored) == 3
    assert costs["stnet"].fit_seconds == pytest.approx(sum(stored))


def test_a_folder_serves_one_protocol_and_one_setting_per_name(compare, compared, settings):
    out = compared[0]
    other = dataclasses.replace(settings, panel=PanelConfig("heg", 19))
    with pytest.raises(ConfigError, match="comparison of another protocol"):
        compare(out, other)
    changed = {"ridge": {"system": {"alpha": 11.0}}}
    with pytest.raises(ConfigError, match=r"system ridge: found other settings"):
        compare(out, dataclasses.replace(settings, systems=changed))


def test_under_leaky_folds_banks_answer_with_other_sections(compare, settings, tmp_path):
    config = dataclasses.replace(
        settings,
        folds=FoldConfig("section"),
        systems={
            "ridge": settings.systems["ridge"],
            "bleep": {"system": {"width": 8, "retrieval": {"k": 5}}, "fit": {"max_epochs": 2}},
        },
    )
    found = compare(tmp_path / "out", config)
    assert not found.failed
    assert {row["split"] for row in found.rows} == {"test (leaky)"}
    run = open_spatial_run(tmp_path / "out" / "runs" / "bleep-0")
    assert run.config.system["retrieval"] == {"k": 5, "exclude": "section"}
    text = (tmp_path / "out" / "table.md").read_text()
    assert "The banks of bleep answer with other sections of the same patient" in text
    assert "Leaky: sections of a held-out patient were fitted on." in text
