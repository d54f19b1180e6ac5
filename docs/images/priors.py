"""Draw docs/images/priors.png: genes of a prior by PCA and UMAP, beside a shuffled control.

Needs scanpy: pip install scanpy. Usage: python docs/images/priors.py priors.h5ad
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import scanpy as sc
from matplotlib.colors import ListedColormap
from PIL import Image
from scipy.stats import rankdata

from seq2exp.priors.prior import GenePrior

HERE = Path(__file__).parent
SEED = 0


def coordinates(prior: GenePrior) -> dict[str, np.ndarray]:
    """Return two dimensions of every present gene by PCA and by UMAP of z as it is."""
    data = sc.AnnData(prior.z[prior.present])
    sc.pp.pca(data, n_comps=min(20, prior.z.shape[1] - 1), random_state=SEED)
    sc.pp.neighbors(data, use_rep="X", n_neighbors=15, random_state=SEED)
    sc.tl.umap(data, random_state=SEED)
    return {"PCA": data.obsm["X_pca"][:, :2], "UMAP": data.obsm["X_umap"]}


def colours(prior: GenePrior) -> dict[str, tuple[np.ndarray, str]]:
    """Return what genes are coloured by: values and unit."""

    def column(name: str) -> np.ndarray:
        return prior.reg[:, prior.reg_names.index(name)]

    return {
        "predicted expression": (prior.expr[:, 0], str(prior.meta["expr_unit"])),
        "called elements": (column("num_elements"), "distal elements"),
        "CpG island at the TSS": (column("cpg_island"), ""),
        "gene length": (rankdata(column("gene_length_bp")) / len(prior), "rank, 0 to 1"),
    }


def main() -> None:
    """Read the prior and write the picture beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prior", type=Path)
    prior = GenePrior.load(parser.parse_args().prior)
    places, values = coordinates(prior), colours(prior)
    # The shuffled control has the same cloud of points; what changes is which gene lies where.
    shuffled = prior.control("shuffled", SEED)
    at = {tuple(row): i for i, row in enumerate(prior.z[prior.present].tolist())}
    moved = np.array([at[tuple(row)] for row in shuffled.z[prior.present].tolist()])
    rows = {
        "PCA": places["PCA"],
        "UMAP": places["UMAP"],
        "shuffled": places["UMAP"][moved],
    }
    plt.rcParams.update({"font.size": 10, "font.family": "DejaVu Sans"})
    figure, axes = plt.subplots(3, len(values), figsize=(13, 9.4), constrained_layout=True)
    figure.get_layout_engine().set(h_pad=0.08, hspace=0.04)
    order = np.random.default_rng(SEED).permutation(int(prior.present.sum()))
    for line, (title, xy) in zip(axes, rows.items(), strict=True):
        for axis, (name, (value, unit)) in zip(line, values.items(), strict=True):
            shown = value[prior.present][order]
            levels = np.unique(shown).size
            # Two colours for yes and no; the palest yellow would be lost on white.
            ramp = plt.get_cmap("viridis")(np.linspace(0, 0.93, 64))
            palette = ListedColormap(["#440154", "#E69F00"] if levels == 2 else ramp)
            drawn = axis.scatter(*xy[order].T, c=shown, s=6, cmap=palette, linewidths=0)
            axis.set(xticks=[], yticks=[], title=f"{title}: {name}")
            axis.title.set_fontsize(10)
            bar = figure.colorbar(drawn, ax=axis, shrink=0.8, label=unit)
            if levels == 2:
                bar.set_ticks([0.25, 0.75], labels=["no", "yes"])
    figure.savefig(HERE / "priors.png", dpi=95)
    # A palette halves the file; nothing can be seen of it.
    with Image.open(HERE / "priors.png") as image:
        image.convert("RGB").quantize(96).save(HERE / "priors.png", optimize=True)


if __name__ == "__main__":
    main()
