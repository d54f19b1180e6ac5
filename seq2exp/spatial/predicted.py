"""Read predictions of sections, and find genes in them by symbol or id."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.spatial.metrics import columns_pearson
from seq2exp.spatial.prediction_file import AnnData

__all__ = ["dense_layer", "find_genes", "read_predictions", "section_of", "top_genes"]

Floats = NDArray[np.float64]


def read_predictions(path: Path) -> list[AnnData]:
    """Read the AnnData of a file, or all of a folder, by name.

    Raises
    ------
    InputError
        There is none.
    FormatError
        A file is no prediction, or its genes are not those of the others.
    """
    path = Path(path)
    files = sorted(path.glob("*.h5ad")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise InputError(
            facts(
                str(path),
                found="no such file" if not path.is_dir() else "no .h5ad",
                expected="what `seq2exp spatial predict` wrote",
                fix="check the path",
            )
        )
    found = [_read(file) for file in files]
    first = found[0]
    for file, data in zip(files, found, strict=True):
        if list(data.var_names) != list(first.var_names):
            raise FormatError(
                facts(
                    str(file),
                    found=f"{data.n_vars} genes that are not those of {files[0].name}",
                    expected="the sections of one prediction",
                    fix="give one folder that `seq2exp spatial predict` wrote, or one file",
                )
            )
    return found


def _read(file: Path) -> AnnData:
    import anndata

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = anndata.read_h5ad(file)
        missing = [
            name
            for name, there in {
                'obsm["spatial"]': "spatial" in data.obsm,
                'uns["image"]': "image" in data.uns,
                'uns["seq2exp"]': "seq2exp" in data.uns,
            }.items()
            if not there
        ]
    except (OSError, ValueError, KeyError) as error:
        missing, data, problem = [], None, str(error)
    else:
        problem = f"no {', '.join(missing)}"
    if data is None or missing:
        raise FormatError(
            facts(
                str(file),
                found=problem,
                expected="an AnnData that `seq2exp spatial predict` wrote",
                fix="predict again",
            )
        )
    return data


def section_of(data: AnnData) -> str:
    """Return the name of the section of a prediction."""
    return str(data.obs["section"].iloc[0]) if "section" in data.obs and data.n_obs else ""


def dense_layer(data: AnnData, layer: str | None) -> Floats | None:
    """Return a layer, or X for None, as float64 array of shape (num_spots, num_genes).

    None where there is no such layer, or nothing in it is known.
    """
    values: Any = data.X if layer is None else data.layers.get(layer)
    if values is None:
        return None
    dense = np.asarray(values.todense() if hasattr(values, "todense") else values, np.float64)
    return dense if np.isfinite(dense).any() else None


def find_genes(var: pd.DataFrame, words: Sequence[str]) -> list[int]:
    """Return the columns of genes given by symbol or id.

    Parameters
    ----------
    var : DataFrame
        Index = symbol; column ``gene_id``.
    words : sequence of str
        Upper and lower case are told apart only where that decides.

    Raises
    ------
    InputError
        Genes that are not there, with the nearest names.
    """
    names = [str(name) for name in var.index]
    ids = [str(name) for name in var["gene_id"]] if "gene_id" in var else names
    places: dict[str, int] = {}
    for form in (str.lower, str):
        for listed in (ids, names):
            places |= {form(name): place for place, name in reversed(list(enumerate(listed)))}
    found, unknown = [], []
    for word in words:
        place = places.get(word, places.get(word.lower()))
        if place is None:
            unknown.append(word)
        else:
            found.append(place)
    if unknown:
        lower = {name.lower(): name for name in [*ids, *names]}
        near = [
            f"{word} (near: "
            + (
                ", ".join(lower[m] for m in difflib.get_close_matches(word.lower(), lower, n=3))
                or "none"
            )
            + ")"
            for word in unknown
        ]
        raise InputError(
            facts(
                "genes",
                found=f"no {'; no '.join(near[:5])}",
                expected=f"genes of the panel, {len(names):,}, by symbol or id",
                fix="take one of those that were predicted; var of the file lists them",
                count=len(unknown),
            )
        )
    return list(dict.fromkeys(found))


def top_genes(predictions: Sequence[AnnData], count: int) -> tuple[list[int], str]:
    """Return the columns of the genes most worth a look, and by what they were chosen.

    By the correlation on held-out tissue where the run has it; else by the correlation with what
    was observed in these files; else by the variance of the prediction.
    """
    var = predictions[0].var
    if "heldout_pearson" in var and var["heldout_pearson"].notna().any():
        score, why = var["heldout_pearson"].to_numpy(np.float64), "correlation on held-out tissue"
    else:
        pairs = [(dense_layer(data, None), dense_layer(data, "observed")) for data in predictions]
        known = [
            (guess, truth) for guess, truth in pairs if guess is not None and truth is not None
        ]
        if known:
            each = [columns_pearson(truth, guess) for guess, truth in known]
            score, why = np.nan_to_num(each).mean(axis=0), "correlation with what was observed here"
        else:
            guesses = np.concatenate([guess for guess, _ in pairs if guess is not None])
            score, why = guesses.var(axis=0), "variance of the prediction"
    order = np.argsort(-np.nan_to_num(score, nan=-np.inf), kind="stable")
    return [int(place) for place in order[:count]], why
