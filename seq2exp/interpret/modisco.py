"""Regions as TF-MoDISco wants them, and a call of the kept library.

`modisco motifs -s ohe.npz -a hypothetical.npz` reads two arrays, each under the key ``arr_0`` with
shape (regions, 4, width): one-hot bases and hypothetical contributions (jmschrei/tfmodisco-lite,
command line). Its algorithm is not made again here.

Shapes: R regions, C the four bases A C G T, L base pairs of a region.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.errors import InputError, facts
from seq2exp.core.sequence import one_hot
from seq2exp.interpret.attribution_files import load_gene
from seq2exp.interpret.motif_files import MotifMatrix, read_motifs
from seq2exp.interpret.patterns import pattern_table

__all__ = [
    "MAX_SEQLETS",
    "RegionArrays",
    "region_arrays",
    "require_modisco",
    "run_modisco",
    "write_modisco_inputs",
]

logger = logging.getLogger(__name__)
MAX_SEQLETS = 5000
"""Seqlets per sign that are clustered when nothing else is said."""
# Clusterings from different seeds, of which the best counts: what the library's command does. Its
# function does 50: 14 times the processor time in all, and the same motifs (docs/attribute.md).
_CLUSTERINGS = 2


@dataclass(frozen=True, eq=False)
class RegionArrays:
    """Regions of equal width on the plus strand.

    Attributes
    ----------
    regions : DataFrame
        chrom, start, end, name (gene id), 0-based half-open.
    one_hot : float32 array, shape (regions, 4, width)
    hypothetical : float32 array, shape (regions, 4, width)
    """

    regions: pd.DataFrame
    one_hot: NDArray[np.float32]
    hypothetical: NDArray[np.float32]


def region_arrays(
    folder: Path, genes: pd.DataFrame, centres: pd.DataFrame, *, width: int
) -> RegionArrays:
    """Cut regions of `width` bases around centres; those that leave their window are left out.

    Parameters
    ----------
    folder : Path
        A folder of attributions.
    genes : DataFrame
        Its table of genes.
    centres : DataFrame
        gene_id, centre (0-based base of the genome).
    width : int
        Base pairs.

    Raises
    ------
    InputError
        No region lies inside its window and holds attributions.
    """
    contig = dict(zip(genes["gene_id"], genes["contig"], strict=True))
    rows, bases, scores = [], [], []
    for gene_id, group in centres.groupby("gene_id", sort=False):
        arrays = load_gene(folder, str(gene_id))
        origin, length = int(arrays["start"]), arrays["codes"].size
        for centre in group["centre"].unique():
            first = int(centre) - width // 2 - origin
            here = slice(first, first + width)
            if first < 0 or first + width > length or not arrays["covered"][here].any():
                continue
            rows.append((contig[gene_id], origin + first, origin + first + width, gene_id))
            bases.append(one_hot(arrays["codes"][here]).T)
            scores.append(arrays["hypothetical"][here].T)
    if not rows:
        raise InputError(
            facts(
                f"regions of {width} bp",
                found="none inside the windows of their genes",
                expected="at least one",
                fix="use narrower regions",
            )
        )
    frame = pd.DataFrame(rows, columns=["chrom", "start", "end", "name"])
    return RegionArrays(frame, np.stack(bases), np.stack(scores).astype(np.float32))


def write_modisco_inputs(arrays: RegionArrays, folder: Path) -> None:
    """Write ohe.npz, hypothetical.npz and regions.bed, in the same order, into a new folder."""
    folder.mkdir()
    np.savez_compressed(folder / "ohe.npz", arrays.one_hot)
    np.savez_compressed(folder / "hypothetical.npz", arrays.hypothetical)
    # The order of the arrays is kept, so the rows are not sorted.
    text = arrays.regions.to_csv(sep="\t", header=False, index=False)
    (folder / "regions.bed").write_text(text, encoding="utf-8")


def run_modisco(
    arrays: RegionArrays,
    folder: Path,
    *,
    max_seqlets: int = MAX_SEQLETS,
    known: Sequence[MotifMatrix] = (),
) -> pd.DataFrame:
    """Find motifs with TF-MoDISco; write modisco.h5, its patterns as modisco.meme and patterns.tsv.

    The library's function with its own settings, but for the number of clusterings: see the
    times in docs/attribute.md.

    Parameters
    ----------
    arrays : RegionArrays
    folder : Path
        Existing folder.
    max_seqlets : int
        Most seqlets per sign, those of the first regions; memory and time grow with it.
    known : sequence of MotifMatrix
        Motifs that the patterns are compared with.

    Returns
    -------
    DataFrame
        Columns `seq2exp.interpret.patterns.PATTERN_COLUMNS`, one row per pattern; without any,
        modisco.meme is not written.

    Raises
    ------
    InputError
        The library is not installed, or finds too few seqlets to work on.
    """
    library, files, kinds = _modiscolite()
    logger.info(
        "TF-MoDISco: %s regions, at most %s seqlets per sign; it shows no progress; 5,000 take "
        "about a minute on one free core",
        f"{len(arrays.regions):,}",
        f"{max_seqlets:,}",
    )
    try:
        positive, negative = library.TFMoDISco(
            one_hot=np.ascontiguousarray(arrays.one_hot.transpose(0, 2, 1)),
            hypothetical_contribs=np.ascontiguousarray(arrays.hypothetical.transpose(0, 2, 1)),
            max_seqlets_per_metacluster=max_seqlets,
            n_leiden_runs=_CLUSTERINGS,
        )
    except (ValueError, IndexError) as error:
        raise InputError(
            facts(
                f"TF-MoDISco on {len(arrays.regions)} regions",
                found=f"an error of modisco-lite ({error})",
                expected="enough regions with seqlets in them",
                fix="give more genes, or wider regions with --modisco-bp",
            )
        ) from error
    path = folder / "modisco.h5"
    files.save_hdf5(str(path), positive, negative, arrays.one_hot.shape[2])
    # The names are those that the library gives them in its files.
    seqlets = {
        f"{sign}_patterns.pattern_{place}": len(pattern.seqlets)
        for sign, patterns in (("pos", positive), ("neg", negative))
        for place, pattern in enumerate(patterns or ())
    }
    found = []
    if seqlets:
        files.write_meme_from_h5(str(path), kinds.PFM, str(folder / "modisco.meme"), True)  # noqa: FBT003
        place = {name: number for number, name in enumerate(seqlets)}
        # The library sorts them as text, 10 before 2.
        found = sorted(read_motifs(folder / "modisco.meme"), key=lambda one: place[one.name])
    table = pattern_table(found, seqlets, known)
    table.to_csv(folder / "patterns.tsv", sep="\t", index=False, float_format="%.4g")
    return table


def require_modisco() -> None:
    """Raise InputError now, before hours of work, when the library is not installed."""
    _modiscolite()


def _modiscolite() -> tuple[Any, Any, Any]:
    try:
        from modiscolite import io, tfmodisco
        from modiscolite.util import MemeDataType
    except ImportError as error:
        raise InputError(
            facts(
                "--tfmodisco",
                found=f"no package modisco-lite ({error})",
                expected="modisco-lite, which the extra `modisco` installs",
                fix='pip install "seq2exp[modisco]"; or run `modisco motifs` elsewhere on the '
                "arrays of modisco/",
            )
        ) from error
    return tfmodisco, io, MemeDataType
