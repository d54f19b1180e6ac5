"""Element maps of the human chr22 region against peaks and predicted links.

    python benchmarks/real_maps.py SOURCE --out FOLDER [--quick]

SOURCE is the folder that configs/data/human_chr22_hg38.yaml describes. The three megabases are cut
into six blocks; every block is mapped by four members that were trained on the genes of the other
blocks, one of which chose the epoch, so that no gene is mapped by a model that saw its label. The
six maps are joined and compared with DNase and ATAC peaks and with the links that the
activity-by-contact model predicts. ``untrained`` is the same map with a learning rate of almost
nothing: what the tracks alone, through the model's first weights, would call.

FOLDER keeps datasets and runs; a second call goes on with what is there.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from common import circumstances, write_result

from seq2exp.core.errors import Seq2ExpWarning
from seq2exp.dataset.store import Dataset
from seq2exp.elements.calling import CallConfig, call_elements
from seq2exp.elements.compare import CompareConfig
from seq2exp.elements.folder import ElementMap
from seq2exp.elements.masks import GeneMasks, gene_masks
from seq2exp.elements.references import read_reference
from seq2exp.elements.suite import compare_reference
from seq2exp.training.run import open_run

CONFIGS = Path(__file__).parent.parent / "configs"
REGION = ("chr22", 43_000_000, 46_000_000)
NUM_BLOCKS = 6
FILES = (
    "K562_ABC_links_DNase_H3K27ac.tsv",
    "K562_ABC_links_ATAC.tsv",
    "K562_DNase_peaks.narrowPeak",
    "K562_ATAC_peaks.narrowPeak",
)
KEPT = ("auprc", "auprc@0.1", "pair_auprc", "base_precision", "jaccard", "enrichment",
        "enrichment_null")  # fmt: skip
VARIANTS = {
    "trained": [],
    "untrained": ["--optim.lr", "1e-9", "--optim.start_lr", "1e-10", "--optim.final_lr", "1e-10",
                  "--fit.max_epochs", "1"],
}  # fmt: skip


def seq2exp(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "seq2exp", *map(str, words)], check=True)


def blocks() -> list[str]:
    contig, start, end = REGION
    edges = np.linspace(start, end, NUM_BLOCKS + 1).astype(int)
    return [f"{contig}:{low}-{high}" for low, high in itertools.pairwise(edges)]


def prepare_fold(number: int, source: Path, out: Path) -> Path:
    """Prepare the dataset whose test block is the given one."""
    folder = out / f"data_{number}"
    if not folder.exists():
        config = yaml.safe_load((CONFIGS / "data" / "human_chr22_hg38.yaml").read_text())
        parts = blocks()
        config["splits"] |= {"test": [parts[number]], "valid": [parts[(number + 1) % NUM_BLOCKS]]}
        path = out / f"data_{number}.yaml"
        path.write_text(yaml.safe_dump(config))
        seq2exp("prepare", "--quiet", "--config", path, "--source", source, "--out", folder)
    return folder


def fold_masks(number: int, variant: str, source: Path, out: Path) -> GeneMasks:
    """Return the masks of the genes of a block by models that did not see them."""
    data = prepare_fold(number, source, out)
    run = out / f"{variant}_{number}"
    if not (run / "model").exists() and not (run / "members").exists():
        config = CONFIGS / "train" / "human_region.yaml"
        seq2exp("train", "--quiet", "--config", config, "--data", data, "--out", run,
                *VARIANTS[variant])  # fmt: skip
    opened, dataset = open_run(run), Dataset(data)
    return gene_masks(opened, dataset, dataset.gene_rows(("test",)))


def joined(parts: list[GeneMasks]) -> GeneMasks:
    """Return the masks of all blocks, with the mean posterior of the members only."""
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("mask", "forced", "alpha", "beta")
    }
    genes = pd.concat([part.genes for part in parts], ignore_index=True)
    return replace(parts[0], genes=genes, members=None, **arrays)


def compare(masks: GeneMasks, dataset: Dataset, source: Path, out: Path) -> dict[str, Any]:
    elements, threshold = call_elements(masks, CallConfig(budget=0.05))
    found = ElementMap(out, masks, elements, {"threshold": threshold})
    config = CompareConfig(split="all")
    results = {}
    for name in FILES:
        reference = read_reference(source / name, dataset)
        result = compare_reference(found, dataset, reference, config=config)
        print(result.text)
        rows = [row for row in result.rows if row["metric"] in KEPT]
        results[name] = {"info": result.info, "rows": rows}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="print only, write nothing")
    args = parser.parse_args()
    warnings.simplefilter("ignore", Seq2ExpWarning)
    args.out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = circumstances("numpy", "torch") | {"blocks": blocks()}
    for variant in VARIANTS:
        parts = [fold_masks(number, variant, args.source, args.out) for number in range(NUM_BLOCKS)]
        masks = joined(parts)
        dataset = Dataset(args.out / "data_0")
        print(f"\n{variant}: {len(masks)} genes")
        result[variant] = {"genes": len(masks)} | compare(masks, dataset, args.source, args.out)
    write_result("real_maps_chr22", result, quick=args.quick)


if __name__ == "__main__":
    main()
