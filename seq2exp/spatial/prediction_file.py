"""The AnnData that a prediction is written as, so that scanpy, squidpy and napari open it.

::

    X                      predicted labels [spots, genes]
    layers["observed"]     labels; NaN where not measured
    layers["sd"]           deviation of the reference spots behind a prediction (retrieval)
    layers["fold_sd"]      deviation of the predictions of the fold systems of the run
    layers["heldout"]      prediction of the fold system that held the spot out (training cohort)
    var                    index = symbol; gene_id; what was held out said of the gene
    obsm["spatial"]        pixels of the image, x and y
    uns["spatial"]         picture, its scale and the diameter of spots, by section
    uns["image"]           file, size, micrometres per pixel
    uns["seq2exp"]         run, system, recipe, unit, panel, sections it was trained on
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import Seq2ExpError
from seq2exp.core.files import safe_name
from seq2exp.core.thumbnail import read_thumbnail
from seq2exp.spatial.cohort import Section
from seq2exp.spatial.recipes import LabelRecipe

__all__ = ["AnnData", "drawn_diameter_um", "label_unit", "section_anndata", "spatial_uns"]

AnnData: TypeAlias = Any
"""anndata.AnnData, which is imported where a file is read or written."""
logger = logging.getLogger(__name__)
_HIRES_PX = 1200


def drawn_diameter_um(section: Section) -> float:
    """Return the diameter of the spots in micrometres.

    Where it is not known, half the distance of neighbouring spots.
    """
    info = section.info
    if info.spot_diameter_um > 0:
        return info.spot_diameter_um
    if info.spot_pitch_um > 0:
        return info.spot_pitch_um / 2
    from scipy.spatial import cKDTree

    if len(section) < 2:
        return 100.0
    distance, _ = cKDTree(section.um_N2).query(section.um_N2, k=2)
    return float(np.median(distance[:, 1])) / 2


def spatial_uns(section: Section) -> dict[str, Any]:
    """Return ``uns["spatial"]`` of a section: what scanpy and squidpy draw tissue from.

    Returns
    -------
    dict
        By name of the section ``images`` (``hires``, uint8), ``scalefactors`` (of full-resolution
        pixels to those of ``hires``, and the diameter of a spot in full-resolution pixels) and
        ``metadata``. Empty, with a warning in the log, where the image cannot be read.
    """
    try:
        small = read_thumbnail(section.image_path, max_px=_HIRES_PX)
    except Seq2ExpError as error:
        logger.warning("predictions of section %s without a picture: %s", section.name, error)
        return {}
    return {
        safe_name(section.name): {
            "images": {"hires": small.pixels_HW3},
            "scalefactors": {
                "tissue_hires_scalef": float(small.scale),
                "spot_diameter_fullres": drawn_diameter_um(section) / section.info.um_per_px,
            },
            "metadata": {"source_image_path": str(section.image_path)},
        }
    }


def section_anndata(
    section: Section,
    predicted_NG: NDArray[np.float64],
    *,
    observed: NDArray[np.float32],
    var: pd.DataFrame,
    about: Mapping[str, Any],
) -> AnnData:
    """Return predictions of a section as AnnData.

    Parameters
    ----------
    section : Section
    predicted_NG : float64 array, shape (num_spots, num_genes)
    observed : float32 array, shape (num_spots, num_genes)
        Labels; NaN where not measured.
    var : DataFrame
        One row per gene.
    about : mapping
        For ``uns["seq2exp"]``.
    """
    import anndata

    info = section.info
    data = anndata.AnnData(X=predicted_NG.astype(np.float32), obs=section.obs.copy(), var=var)
    data.layers["observed"] = observed
    data.obsm["spatial"] = section.xy_N2
    data.uns["image"] = {
        "file": str(section.image_path) if info.image else "",
        "width": info.width,
        "height": info.height,
        "um_per_px": info.um_per_px,
        "spot_diameter_px": drawn_diameter_um(section) / info.um_per_px,
    }
    pictures = spatial_uns(section)
    if pictures:
        data.uns["spatial"] = pictures
    data.uns["seq2exp"] = dict(about)
    return data


def label_unit(recipe: LabelRecipe) -> str:
    """Return the unit of labels in words, for colour bars and tables."""
    size = {"all_genes": "", "panel": " of the panel", None: ""}[recipe.size_factor]
    if recipe.size_factor is None:
        counts = "counts"
    elif recipe.target == "median_train":
        counts = f"counts per median{size or ' of all genes'}"
    else:
        counts = f"counts per {float(recipe.target):,.0f}{size}"
    unit = f"{counts} + {recipe.pseudocount:g}"
    unit = counts if recipe.log is None else f"{recipe.log}({unit})"
    if recipe.scale is not None:
        unit += {"zscore_train": ", standardised", "minmax_gene": ", scaled to 0-1"}[recipe.scale]
    if recipe.smooth_eval:
        unit += ", mean over 3 x 3 spots"
    return unit
