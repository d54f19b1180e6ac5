"""The part of `spatial inspect` that describes a run."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2exp.cli import options

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from seq2exp.spatial.cohort import Section
    from seq2exp.spatial.run import SpatialRun

_ACCURACY = ("valid_pearson", "heldout_pearson", "heldout_pearson_partial", "heldout_rmse")
_NUM_GENES = 3
_FINEST_PX = 2400


def inspect_run(args: argparse.Namespace) -> None:
    """Print the folds of a run and, of stain learning, write weights, stains and maps."""
    from seq2exp.spatial.run import open_spatial_run
    from seq2exp.spatial.run_overview import fold_table, nsl_of

    run = open_spatial_run(args.folder)
    table = fold_table(run)
    config = run.config
    print(
        f"run {run.folder}: system {config.system['name']}, labels {config.recipe}, panel "
        f"{config.panel.kind}-{config.panel.num_genes}, folds by {config.folds.kind}\n"
        f"cohort {run.manifest['cohort']}\n"
    )
    print(_text(table.to_dict("records")))
    if table["heldout_pearson"].isna().all():
        print("note: no accuracy on held-out tissue in this run; `spatial evaluate` computes it")
    if run.manifest["leaky"]:
        print("leaky: sections of a patient are on both sides; says nothing of other patients")
    if args.out:
        _require_nsl(run, nsl_of(run.fold("final").system))
        _write_nsl(run, args)
    rows = [
        {"name": row["fold"], "metric": name, "split": "valid" if name[0] == "v" else "test",
         "value": None if math.isnan(row[name]) else row[name], "low": None, "high": None,
         "n": row["valid"] if name[0] == "v" else row["test"]}
        for row in table.to_dict("records")
        for name in _ACCURACY
    ]  # fmt: skip
    options.write_rows(args, {"run": str(args.folder)}, rows)


def _text(rows: list[Any]) -> str:
    head = (
        f"{'fold':16} {'train':>7} {'valid':>7} {'test':>7} {'passes':>7} {'best':>5} "
        f"{'valid r':>8} {'held-out r':>10} {'w/o depth':>9} {'RMSE':>7}"
    )
    lines = [head]
    for row in rows:
        passes = [f"{row[name]}" if row["passes"] else "-" for name in ("passes", "best_pass")]
        accuracy = ["-" if math.isnan(row[name]) else f"{row[name]:.3f}" for name in _ACCURACY]
        lines.append(
            f"{row['fold']:16} {row['train']:7,} {row['valid']:7,} {row['test']:7,} "
            f"{passes[0]:>7} {passes[1]:>5} {accuracy[0]:>8} {accuracy[1]:>10} {accuracy[2]:>9} "
            f"{accuracy[3]:>7}"
        )
    return "\n".join(lines)


def _require_nsl(run: SpatialRun, model: Any) -> None:  # noqa: ANN401
    from seq2exp.core.errors import ConfigError, facts

    if model is None:
        raise ConfigError(
            facts(
                "--out",
                found=f"a run of system {run.config.system['name']}",
                expected="nsl, whose weights can be read",
                fix="leave --out out; `spatial predict` and `spatial plot` draw predictions",
            )
        )


def _write_nsl(run: SpatialRun, args: argparse.Namespace) -> None:
    from seq2exp.cli.spatial_inspect import chosen_sections
    from seq2exp.core.files import atomic_directory, safe_name
    from seq2exp.report.style import save_figure
    from seq2exp.spatial.cohort import SpatialCohort
    from seq2exp.spatial.heldout import heldout_genes, read_heldout
    from seq2exp.spatial.predicted import find_genes
    from seq2exp.spatial.run_overview import nsl_of
    from seq2exp.spatial.systems.nsl_outputs import stain_cosines, weight_table

    fitted = run.fold("final")
    model, panel = nsl_of(fitted.system), fitted.labels.panel
    if model is None:
        return
    genes = heldout_genes(read_heldout(run.folder, run.fold_names), panel.gene_id)
    order = (-genes["heldout_pearson"].fillna(-1.0)).argsort(kind="stable")[:_NUM_GENES]
    words = [word.strip() for word in (args.genes or "").split(",") if word.strip()]
    known = genes.set_axis(panel.symbol, axis=0).assign(gene_id=panel.gene_id)
    places = find_genes(known, words) if words else [int(place) for place in order]
    cohort = SpatialCohort(Path(run.manifest["cohort"]))
    names = chosen_sections(cohort, args.section) if args.section else cohort.names[:1]
    with atomic_directory(args.out, overwrite=args.overwrite) as partial:
        table = weight_table(model, panel.gene_id, recipe=run.config.recipe)
        table.insert(1, "symbol", panel.symbol)
        table.to_csv(partial / "weights.tsv", sep="\t", index=False)
        stain_cosines(model, panel.gene_id).to_csv(partial / "stains.tsv", sep="\t", index=False)
        for name in names:
            for place in places:
                figure = _maps(cohort.section(name), cohort.manifest.patch.um, model, place,
                               panel.symbol[place])  # fmt: skip
                stem = f"{safe_name(name)}_{safe_name(panel.symbol[place])}"
                save_figure(figure, partial / stem, formats=("png",))
    drawn = ", ".join(panel.symbol[place] for place in places)
    print(f"weights.tsv, stains.tsv and concentrations of {drawn} in {args.out}")


def _maps(section: Section, patch_um: float, model: Any, gene: int, symbol: str) -> Figure:  # noqa: ANN401
    """Draw the concentrations of a gene at about the resolution that the model sees."""
    import numpy as np
    import torch

    from seq2exp.cli.spatial_inspect import section_tissue
    from seq2exp.report.stain_map import plot_concentrations
    from seq2exp.spatial.optics import optical_density
    from seq2exp.spatial.systems.nsl_outputs import concentration_maps, stain_cosines

    tissue = section_tissue(section, around_px=_FINEST_PX, margin_um=200.0)
    seen_um = patch_um / model.config.pool_px
    tissue = tissue.coarser(seen_um)
    maps = concentration_maps(model, tissue.pixels_HW3, gene=gene)
    density = optical_density(torch.from_numpy(tissue.pixels_HW3.copy()).float() / 255).mean(-1)
    maps[:, density.numpy() < model.config.min_density] = np.nan
    ids = [str(place) for place in range(len(model.read))]
    cosines = stain_cosines(model, ids)
    rows = cosines[cosines["gene_id"] == str(gene)].to_dict("records")
    labels = [
        f"{row['stain']} of {symbol}\ncos to H {row['cos_haematoxylin']:.2f}, to E "
        f"{row['cos_eosin']:.2f}"
        for row in rows
    ]
    return plot_concentrations(
        tissue, maps, labels=labels,
        title=f"{symbol} on section {section.name}: what its read-out averages "
        "(pale blue: glass, left out)",
    )  # fmt: skip
