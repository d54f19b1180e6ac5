"""Pictures of genes over tissue: observed, predicted, difference and spread, one PNG per gene.

docs/spatial_predictions.md describes them.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2exp.cli import options

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from seq2exp.report.gene_map import GeneOnSection
    from seq2exp.report.tissue import Tissue

logger = logging.getLogger(__name__)
_DEFAULT_TOP = 4
_ROWS = 6
_BLANK_PX = 1000
_SPREADS = {
    "sd": "sd of the reference spots",
    "fold_sd": "sd across the fold systems",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "predicted",
        metavar="PREDICTED",
        type=Path,
        help="folder `spatial predict` wrote, or a file",
    )
    parser.add_argument("--genes", metavar="A,B", help="symbols or ids")
    parser.add_argument(
        "--top", type=int, metavar="N",
        help=f"the N genes that were predicted best (default {_DEFAULT_TOP} without --genes)",
    )  # fmt: skip
    parser.add_argument(
        "--section", action="append", metavar="NAME", help="only this one (again for more)"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    options.add_overwrite(parser)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from seq2exp.core.errors import ConfigError, facts
    from seq2exp.core.files import atomic_directory, refuse_existing, safe_name
    from seq2exp.core.progress import track
    from seq2exp.report.gene_map import plot_gene
    from seq2exp.report.style import save_figure
    from seq2exp.spatial.predicted import find_genes, read_predictions, top_genes

    if args.top is not None and args.top < 1:
        raise ConfigError(facts("--top", found=args.top, expected=">= 1", fix="change it"))
    refuse_existing(args.out, overwrite=args.overwrite)
    found = _chosen(read_predictions(args.predicted), args.section)
    words = [word.strip() for word in (args.genes or "").split(",") if word.strip()]
    places = find_genes(found[0].var, words)
    if args.top or not words:
        best, why = top_genes(found, args.top or _DEFAULT_TOP)
        places = list(dict.fromkeys([*places, *best]))
        print(f"genes by {why}: {', '.join(found[0].var_names[best])}")
    tissues = [_tissue(data) for data in found]
    written = 0
    with atomic_directory(args.out, overwrite=args.overwrite) as partial:
        for place in track(places, total=len(places), label="genes", enabled=not args.quiet):
            name, note = _describe(found[0], place)
            rows, spread = _rows(found, tissues, place)
            for page, part in enumerate(_pages(rows), start=1):
                figure = plot_gene(name, part, unit=_unit(found[0]), note=note, spread=spread)
                stem = safe_name(str(found[0].var_names[place]))
                if list(found[0].var_names).count(found[0].var_names[place]) > 1:
                    stem += "_" + safe_name(str(found[0].var["gene_id"].iloc[place]))
                stem += f"_{page}" if len(rows) > _ROWS else ""
                save_figure(figure, partial / stem, formats=("png",))
                written += 1
    print(f"pictures in {args.out}: {written}")


def _chosen(predictions: list[Any], names: list[str] | None) -> list[Any]:
    from seq2exp.core.config import require_known
    from seq2exp.spatial.predicted import section_of

    known = [section_of(data) for data in predictions]
    for name in names or []:
        require_known("--section", name, known, expected="a section of the prediction")
    return [
        data for name, data in zip(known, predictions, strict=True) if not names or name in names
    ]


def _unit(data: Any) -> str:  # noqa: ANN401
    about = data.uns["seq2exp"]
    return str(about.get("unit", about.get("recipe", "label")))


def _describe(data: Any, place: int) -> tuple[str, str]:  # noqa: ANN401
    """Return the title of a gene, and what was held out said of it."""
    import math

    symbol, row = str(data.var_names[place]), data.var.iloc[place]
    gene_id = str(row.get("gene_id", symbol))
    name = symbol if gene_id == symbol else f"{symbol} ({gene_id})"
    about = data.uns["seq2exp"]
    note = f"{about.get('system', 'system')}, labels {about.get('recipe', '')}"
    r = float(row.get("heldout_pearson", math.nan))
    if math.isnan(r):
        return name, f"{note}; accuracy on held-out tissue not known"
    leaky = " of the same patients (leaky)" if about.get("heldout_leaky") else ""
    return name, (
        f"{note}; on {int(row['heldout_sections'])} held-out sections{leaky}: r = {r:.2f}, "
        f"without depth {float(row['heldout_pearson_partial']):.2f}"
    )


def _rows(
    predictions: Sequence[Any], tissues: Sequence[Tissue], place: int
) -> tuple[list[GeneOnSection], str]:
    import numpy as np

    from seq2exp.report.gene_map import GeneOnSection
    from seq2exp.spatial.predicted import dense_layer, section_of

    spread = next((n for n in _SPREADS if dense_layer(predictions[0], n) is not None), "")
    rows = []
    for data, tissue in zip(predictions, tissues, strict=True):
        columns = {}
        for layer in ("observed", "heldout", spread):
            values = dense_layer(data, layer) if layer else None
            known = values is not None and bool(np.isfinite(values[:, place]).any())
            columns[layer] = values[:, place] if values is not None and known else None
        fitted = dense_layer(data, None)
        if fitted is None:
            continue
        name = section_of(data)
        seen = name in [str(word) for word in data.uns["seq2exp"].get("trained_on", [])]
        held = columns["heldout"]
        whole = held is not None and bool(np.isfinite(held).all())
        how = "held out" if whole else "fitted on this section" if seen else "new section"
        predicted = held if held is not None and whole else fitted[:, place]
        rows.append(
            GeneOnSection(name, tissue, predicted, columns["observed"], columns[spread], how)
        )
    return rows, _SPREADS.get(spread, "")


def _pages(rows: list[GeneOnSection]) -> Iterator[list[GeneOnSection]]:
    for first in range(0, len(rows), _ROWS):
        yield rows[first : first + _ROWS]


def _tissue(data: Any) -> Tissue:  # noqa: ANN401
    """Return the picture in the file around its spots; white where there is none."""
    import numpy as np

    from seq2exp.report.tissue import Tissue

    image, xy = data.uns["image"], np.asarray(data.obsm["spatial"], np.float64)
    pictures = data.uns.get("spatial") or {}
    if pictures:
        library = next(iter(pictures.values()))
        pixels = np.asarray(library["images"]["hires"])
        scale = float(library["scalefactors"]["tissue_hires_scalef"])
    else:
        right, below = np.ceil(xy.max(axis=0) + 2 * float(image["spot_diameter_px"]))
        scale = min(1.0, _BLANK_PX / max(right, below))
        shape = (max(1, round(below * scale)), max(1, round(right * scale)), 3)
        pixels = np.full(shape, 255, np.uint8)
    diameter = float(image["spot_diameter_px"]) * scale
    return Tissue(pixels, xy * scale, diameter, float(image["um_per_px"]) / scale).cropped(
        margin=2.0
    )
