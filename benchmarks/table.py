"""Train every model of configs/train/table on one dataset and put them side by side.

All models of a table share data, steps and optimiser, and are about equally large; the mask run of
`retrain` is `soft`. With ``--windows`` one model (soft, or ``--window-model``) is trained on
windows of several lengths instead. Training resumes where it stopped. The comparison is that of
`seq2exp compare`, on the test contigs, and goes into results/table_NAME.json or
results/windows_NAME.json (windows_NAME_MODEL.json for another model than soft).

    python benchmarks/table.py simulated DATASET --out RUNS [--seeds 3] [--models soft mamba ...]
    python benchmarks/table.py yeast DATASET --out RUNS --windows 512 2048 4096 8192
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from common import circumstances, write_result

from seq2exp.baselines.compare import compare

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "train" / "table"
BASES = ("simulated", "yeast")
# The models with the longest steps first, so that no process waits at the end.
MODELS = (
    "epinformer", "soft", "elements", "enformer", "hard", "peaks", "abc", "caduceus",
    "caduceus_signals", "mamba", "hyenadna", "transformer", "conv", "retrain",
)  # fmt: skip


def train(base: str, model: str, dataset: Path, out: Path, *options: str) -> Path:
    """Train one model of the table in a process of its own, and return its run folder."""
    command = [
        sys.executable, "-m", "seq2exp", "train", "--quiet",
        "--config", str(CONFIGS / f"{base}.yaml"), "--config", str(CONFIGS / f"{model}.yaml"),
        "--data", str(dataset), "--out", str(out), *options,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{model}: {done.stderr}")
    print(out.name, "trained", flush=True)
    return out


def train_all(base: str, models: list[str], options: argparse.Namespace) -> list[Path]:
    folders = {name: options.out / name for name in models}
    seeds = ("--fit.seeds", str(options.seeds))
    with ThreadPoolExecutor(options.parallel) as pool:
        first = {
            name: pool.submit(train, base, name, options.dataset, folder, *seeds)
            for name, folder in folders.items()
            if name != "retrain"
        }
        for future in first.values():
            future.result()
        if "retrain" in folders:
            mask_run = ("--mask_from", str(options.out / "soft"))
            train(base, "retrain", options.dataset, folders["retrain"], *seeds, *mask_run)
    return list(folders.values())


def train_windows(base: str, options: argparse.Namespace) -> list[Path]:
    seeds = ("--fit.seeds", str(options.seeds))
    folders = {window: options.out / f"window_{window}" for window in options.windows}
    with ThreadPoolExecutor(options.parallel) as pool:
        jobs = []
        for window, folder in sorted(folders.items(), reverse=True):
            # Promoter and read-out never exceed the window.
            central = str(min(1024, window))
            more = ("--data.window_bp", str(window), "--model.promoter_bp", central,
                    "--model.readout_bp", central)  # fmt: skip
            name = options.window_model
            jobs.append(pool.submit(train, base, name, options.dataset, folder, *seeds, *more))
        for job in jobs:
            job.result()
    return list(folders.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("base", choices=BASES)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, default=1, help="members that are averaged")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--windows", type=int, nargs="+", help="lengths to train soft on instead")
    parser.add_argument("--window-model", default="soft", choices=MODELS, help="its model")
    parser.add_argument("--parallel", type=int, default=2, help="models trained at a time")
    parser.add_argument("--split", default="test", choices=("test", "valid"))
    options = parser.parse_args()
    before = circumstances("torch")
    options.out.mkdir(parents=True, exist_ok=True)
    if options.windows:
        folders, reference = train_windows(options.base, options), None
    else:
        folders = train_all(options.base, options.models, options)
        reference = "soft" if "soft" in options.models else None
    found = compare(
        folders,
        options.dataset,
        reference=reference,
        controls=["mean", "track_kmer_ridge", "all_ridge"],
        split=options.split,
    )
    print(found.text)
    inputs: dict[str, Any] = {**found.inputs, "dataset": options.dataset.name}
    inputs["runs"] = [{**run, "folder": Path(run["folder"]).name} for run in inputs["runs"]]
    kind = "windows" if options.windows else "table"
    part = "" if options.split == "test" else f"_{options.split}"
    if options.windows and options.window_model != "soft":
        part = f"_{options.window_model}{part}"
    write_result(
        f"{kind}_{options.base}{part}",
        {**before, "seeds": options.seeds, "inputs": inputs, "rows": found.rows},
    )


if __name__ == "__main__":
    main()
