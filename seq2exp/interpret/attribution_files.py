"""Attributions as files.

::

    OUT/genes.parquet           one row per gene: prediction, baseline, sums, completeness errors
    OUT/genes/<gene_id>.npz     codes, attribution, hypothetical, covered, start, and where they
                                exist delta and tracks: the window in genome direction
    OUT/genes/<gene_id>.bw      the attribution of one gene, with `gene_bigwigs`
    OUT/attribution.bw          per base, of the genes that cover it the largest in absolute value
    OUT/effect.bw               saturation: largest absolute effect of a substitution, likewise
    OUT/tracks/<track>.bw       the same of the contribution of a track, spread evenly over its bin
    OUT/summary.json            settings, completeness over all genes, counts
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import FormatError, InputError, facts
from seq2exp.core.files import safe_name, write_json
from seq2exp.dataset.format import read_table, write_table
from seq2exp.dataset.store import Dataset
from seq2exp.elements.export import write_bigwig
from seq2exp.elements.merged import run_lengths
from seq2exp.interpret.attribution import Completeness, GeneAttribution
from seq2exp.training.metrics import interval
from seq2exp.training.run import TrainedRun

__all__ = ["completeness_rows", "load_gene", "load_genes", "write_attributions"]

_COLUMNS = ["gene_id", "symbol", "contig", "tss", "strand", "split"]
# Bases of a contig that are merged at once.
_PIECE = 1 << 22
Values = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float32]]


def write_attributions(
    stream: Iterable[GeneAttribution],
    folder: Path,
    run: TrainedRun,
    dataset: Dataset,
    *,
    gene_bigwigs: bool = False,
    extra: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Write everything into an existing folder and return the table of genes.

    Parameters
    ----------
    stream : iterable of GeneAttribution
        Written as they come; memory does not grow with the number of genes.
    folder : Path
    run, dataset
        Where they come from.
    gene_bigwigs : bool
        Also one bigWig per gene.
    extra : mapping, optional
        Further entries of summary.json.
    """
    (folder / "genes").mkdir()
    contigs = dataset.manifest.contigs
    rows: list[dict[str, Any]] = []
    for one in stream:
        identity = {name: dataset.genes[name].iloc[one.row] for name in _COLUMNS}
        name = safe_name(str(identity["gene_id"]))
        arrays: dict[str, Any] = _arrays(one)
        np.savez(folder / "genes" / f"{name}.npz", **arrays)
        if gene_bigwigs:
            _write_gene_bigwig(one, folder / "genes" / f"{name}.bw", contigs)
        rows.append({**identity, **_numbers(one, run.card.tracks)})
    genes = pd.DataFrame(rows)
    write_table(genes, folder / "genes.parquet", metadata={"seq2exp.schema": "attribution-1"})
    _write_merged(genes, folder, contigs, run)
    summary = {"genes": len(genes), "completeness": completeness_rows(genes), **(extra or {})}
    write_json(json.loads(json.dumps(summary)), folder / "summary.json")
    return genes


def _arrays(one: GeneAttribution) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {
        "codes": one.codes,
        "attribution": one.share,
        "hypothetical": one.hypothetical,
        "covered": one.covered,
        "start": np.array(one.window.start, dtype=np.int64),
    }
    if one.delta is not None:
        arrays["delta"] = one.delta
    if one.tracks is not None:
        arrays["tracks"] = one.tracks
    return arrays


def _numbers(one: GeneAttribution, tracks: Sequence[str]) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        "start": one.window.start,
        "end": one.window.end,
        "prediction": one.bases.value,
        "num_bases": int(one.covered.sum()),
        **_of("bases", one.bases),
    }
    if one.signal is not None and one.tracks is not None:
        numbers |= _of("tracks", one.signal)
        sums = one.tracks.sum(axis=0, dtype=np.float64)
        numbers |= {f"track:{name}": float(v) for name, v in zip(tracks, sums, strict=True)}
    return numbers


def _of(what: str, found: Completeness) -> dict[str, float]:
    return {
        f"{what}_baseline": found.baseline_value,
        f"{what}_sum": found.total,
        f"{what}_difference": found.difference,
        f"{what}_error": found.error,
        f"{what}_relative_error": found.relative_error,
    }


def completeness_rows(genes: pd.DataFrame, *, seed: int = 0) -> list[dict[str, Any]]:
    """Return the completeness errors over genes as rows of name, metric, value, low, high, n.

    ``relative_error`` is the sum of the absolute errors over the sum of the absolute differences;
    ``absolute_error`` is the mean absolute error. 95 % bootstrap intervals over genes.
    """
    rows = []
    random = np.random.default_rng(seed)
    picks = random.integers(0, len(genes), (1000, len(genes))) if len(genes) else None
    for what in ("bases", "tracks"):
        if picks is None or f"{what}_error" not in genes:
            continue
        error = genes[f"{what}_error"].abs().to_numpy()
        size = genes[f"{what}_difference"].abs().to_numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = error[picks].sum(1) / size[picks].sum(1)
            ratio = float(error.sum() / size.sum())
        for metric, value, draws in (
            ("relative_error", ratio, ratios),
            ("absolute_error", float(error.mean()), error[picks].mean(1)),
        ):
            rows.append(interval(value, draws, n=len(genes)).row(what, metric, split=None))
    return rows


def load_genes(folder: Path) -> pd.DataFrame:
    """Return the table of genes of a folder that `write_attributions` filled.

    Raises
    ------
    InputError
        The folder holds none.
    """
    path = Path(folder) / "genes.parquet"
    if not path.is_file() or not (Path(folder) / "genes").is_dir():
        raise InputError(
            facts(
                str(folder),
                found="no genes.parquet and genes/",
                expected="a folder that `seq2exp attribute` wrote",
                fix="check the path",
            )
        )
    return read_table(path)


def load_gene(folder: Path, gene_id: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of one gene.

    Raises
    ------
    FormatError
        The file is missing or damaged.
    """
    path = Path(folder) / "genes" / f"{safe_name(gene_id)}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FormatError(
            facts(
                str(path),
                found=str(error),
                expected="arrays that `seq2exp attribute` wrote",
                fix="run `seq2exp attribute` again",
            )
        ) from error


def _write_gene_bigwig(one: GeneAttribution, path: Path, contigs: Mapping[str, int]) -> None:
    window = one.window
    inside = slice(window.clipped_start - window.start, window.clipped_end - window.start)
    values = np.where(one.covered, one.share, np.float32(np.nan))[inside]
    with write_bigwig(path, contigs) as writer:
        writer.add(window.contig, *run_lengths(values, start=window.clipped_start))


def _write_merged(
    genes: pd.DataFrame, folder: Path, contigs: Mapping[str, int], run: TrainedRun
) -> None:
    if genes.empty:
        return
    first = load_gene(folder, str(genes["gene_id"].iloc[0]))
    _merge(genes, folder, folder / "attribution.bw", contigs, _share)
    if "delta" in first:
        _merge(genes, folder, folder / "effect.bw", contigs, _effect)
    if "tracks" in first:
        (folder / "tracks").mkdir()
        bin_size = run.card.data.bin_size
        for column, name in enumerate(run.card.tracks):
            path = folder / "tracks" / f"{safe_name(name)}.bw"
            _merge(genes, folder, path, contigs, _signal(column, bin_size))


def _share(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    return np.where(arrays["covered"], arrays["attribution"], np.float32(np.nan))


def _effect(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    largest: NDArray[np.float32] = np.abs(arrays["delta"]).max(axis=1)
    return largest


def _signal(column: int, bin_size: int) -> Values:
    def values(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        return np.repeat(arrays["tracks"][:, column] / np.float32(bin_size), bin_size)

    return values


def _merge(
    genes: pd.DataFrame, folder: Path, path: Path, contigs: Mapping[str, int], values: Values
) -> None:
    """Write, per base, the value with the largest size among the genes that cover it."""
    with write_bigwig(path, contigs) as writer:
        for contig, length in contigs.items():
            here = genes[genes["contig"] == contig]
            for low in range(0, length, _PIECE):
                high = min(low + _PIECE, length)
                piece = here[(here["start"] < high) & (here["end"] > low)]
                if len(piece):
                    merged = _merged_piece(piece, folder, low, high, values)
                    writer.add(contig, *run_lengths(merged, start=low))


def _merged_piece(
    genes: pd.DataFrame, folder: Path, low: int, high: int, values: Values
) -> NDArray[np.float32]:
    merged = np.full(high - low, np.nan, dtype=np.float32)
    for gene_id, start in zip(genes["gene_id"], genes["start"], strict=True):
        own = values(load_gene(folder, str(gene_id)))
        begin, stop = max(low, start), min(high, start + own.size)
        there = merged[begin - low : stop - low]
        own = own[begin - start : stop - start]
        larger = np.isnan(there) | (np.abs(own) > np.abs(there))
        there[larger] = own[larger]
    return merged
