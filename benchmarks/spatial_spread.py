"""How far the spread that predictions carry can be trusted, on sections that no fold has seen.

    python benchmarks/spatial_spread.py NAME=PREDICTED.h5ad ...

Each file is a section that `seq2exp spatial predict` wrote with its observed layer, from a run that
was trained on other sections. Per layer of spread: share of the labels within one and two
deviations of the prediction (0.68 and 0.95 for an error bar of a normal distribution), root mean
square error over mean deviation, rank correlation of deviation and absolute error across the spots
of a gene (mean over genes) and across genes. Per file: rank correlation, across genes, of the
accuracy that the run's own held-out sections gave with that on this section.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import anndata
import numpy as np
from common import circumstances, write_result
from scipy.stats import spearmanr

from seq2exp.spatial.metrics import columns_pearson

LAYERS = ("sd", "fold_sd")


def spread_of(sd_NG, error_NG):
    """Return coverage and rank correlations of a deviation with the absolute error."""
    ranks = [
        spearmanr(sd, error)[0]
        for sd, error in zip(sd_NG.T, error_NG.T, strict=True)
        if np.ptp(sd) > 0 and np.ptp(error) > 0
    ]
    rmse_G = np.sqrt((error_NG**2).mean(axis=0))
    return {
        "num_genes": int(sd_NG.shape[1]),
        "within_1_sd": float((error_NG <= sd_NG).mean()),
        "within_2_sd": float((error_NG <= 2 * sd_NG).mean()),
        "rmse_over_mean_sd": float(np.sqrt((error_NG**2).mean()) / sd_NG.mean()),
        "rank_across_spots": float(np.mean(ranks)),
        "rank_across_genes": float(spearmanr(sd_NG.mean(axis=0), rmse_G)[0]),
    }


def judge(path: Path) -> dict[str, object]:
    """Return the numbers of one file."""
    data = anndata.read_h5ad(path)
    section, trained = str(data.obs["section"].iloc[0]), list(data.uns["seq2exp"]["trained_on"])
    if section in trained:
        raise SystemExit(f"{path}: the run was trained on section {section}; give a new one")
    truth = np.asarray(data.layers["observed"], np.float64)
    predicted = np.asarray(data.X, np.float64)
    r_G = columns_pearson(truth, predicted)
    known = np.isfinite(r_G)
    found: dict[str, object] = {
        "system": str(data.uns["seq2exp"]["system"]),
        "trained_on": sorted(map(str, trained)),
        "section": section,
        "pearson": float(np.nan_to_num(r_G).mean()),
    }
    heldout = data.var["heldout_pearson"].to_numpy(np.float64)
    both = known & np.isfinite(heldout)
    best = both & (heldout >= np.nanquantile(heldout, 0.8))
    found |= {
        "heldout_rank_across_genes": float(spearmanr(heldout[both], r_G[both])[0]),
        "pearson_of_best_fifth_by_heldout": float(r_G[best].mean()),
        "pearson_of_the_rest": float(r_G[both & ~best].mean()),
    }
    for layer in LAYERS:
        if layer in data.layers:
            sd = np.asarray(data.layers[layer], np.float64)
            used = known & np.isfinite(sd).all(axis=0)
            found[layer] = spread_of(sd[:, used], np.abs(predicted - truth)[:, used])
    return found


def main() -> None:
    """Judge all files and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", metavar="NAME=PREDICTED.h5ad")
    parser.add_argument("--quick", action="store_true", help="print only")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    named = dict(word.split("=", 1) for word in args.files)
    rows = {name: judge(Path(path)) for name, path in named.items()}
    write_result(
        "spatial_spread", {**circumstances("numpy", "scipy"), "rows": rows}, quick=args.quick
    )


if __name__ == "__main__":
    main()
