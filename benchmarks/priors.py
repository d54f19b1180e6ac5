"""What the embedding of a gene prior separates among genes its model did not train on.

Probes (R2 with bootstrap intervals over genes) of expression, specificity and the element summary,
beside the shuffled, random and nuisance controls. Goes into results/priors_NAME.json.

    seq2exp priors demo/run --out priors.h5ad
    python benchmarks/priors.py simulated priors.h5ad demo/dataset --run demo/run

With ``--run``, ways of combining its members are compared too, on the validation genes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import circumstances, write_result
from scipy.linalg import orthogonal_procrustes

from seq2exp.dataset.store import Dataset
from seq2exp.priors.export import make_prior
from seq2exp.priors.prior import GenePrior
from seq2exp.priors.probe import probe, probe_rows
from seq2exp.training.run import TrainedRun, model_folders, open_run

COLUMNS = ("num_elements", "mask_mass_kb", "cpg_island", "gc", "gene_length_bp")


def summary_rows(prior: GenePrior) -> list[dict[str, Any]]:
    """Probe for the columns of the element summary, each standardised over all genes."""
    embeddings = {"prior": prior}
    for kind in ("shuffled", "random", "nuisance"):
        embeddings[kind] = prior.control(kind, 0)
    rows = []
    for name in [column for column in COLUMNS if column in prior.reg_names]:
        values = prior.reg[:, [prior.reg_names.index(name)]].astype(np.float64)
        if name == "gene_length_bp":
            values = np.log10(values.clip(1))
        for split in ("valid", "test"):
            rows += probe(embeddings, values, split=split, target=name)
    return rows


def member_rows(run: TrainedRun, dataset: Dataset) -> list[dict[str, Any]]:
    """Probe each member alone, members side by side, and members rotated onto the first."""
    folders = [place.parent for place in model_folders(run.folder)]
    members = [
        make_prior(TrainedRun(folder, [model], run.card), dataset)
        for folder, model in zip(folders, run.models, strict=True)
    ]
    embeddings = {"side by side": GenePrior.mean(members)}
    embeddings |= {f"member {number}": member for number, member in enumerate(members)}
    if len({member.z.shape[1] for member in members}) == 1:
        embeddings["rotated and averaged"] = replace(members[0], z=_rotated(members))
    known = dataset.manifest.expression.samples
    target = dataset.expression[:, [known.index(name) for name in members[0].expr_names]]
    rows = probe(embeddings, target, split="valid")
    whitened = members[0].split == "train"
    joint = {"side by side, whitened": embeddings["side by side"].transform(whitened)}
    return [*rows, *probe(joint, target, split="valid")]


def _rotated(members: list[GenePrior]) -> np.ndarray:
    """Return the mean of the members, each turned onto the first (orthogonal Procrustes)."""
    train = members[0].present & (members[0].split == "train")
    centred = [member.z - member.z[train].mean(axis=0) for member in members]
    unit = [z / np.sqrt(z[train].var(axis=0).sum()) for z in centred]
    turned = [z @ orthogonal_procrustes(z[train], unit[0][train])[0] for z in unit]
    mean = np.mean(turned, axis=0)
    mean[~members[0].present] = 0
    return mean.astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of the data, for the file of results")
    parser.add_argument("prior", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--run", type=Path)
    options = parser.parse_args()
    prior, dataset = GenePrior.load(options.prior), Dataset(options.dataset)
    rows = [*probe_rows(prior, dataset), *summary_rows(prior)]
    meta = {key: prior.meta[key] for key in ("model", "model_sha256", "layer", "dataset_checksum")}
    result = {**circumstances("anndata", "scikit-learn"), "prior": meta, "rows": rows}
    if options.run:
        result["members"] = member_rows(open_run(options.run), dataset)
    write_result(f"priors_{options.name}", result)


if __name__ == "__main__":
    main()
