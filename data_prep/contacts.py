"""Contact of a TSS with the bins around it: distance power law, a table, or a .hic file.

The stored value is ``log10(1 + contact + pseudocount(d))``. Bin ``i`` of a profile with ``n`` bins
spans ``[(i - n/2) * bin_size, (i + 1 - n/2) * bin_size)`` from the TSS, in genome direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.annotation import strip_version
from data_prep.config import ContactConfig
from seq2exp.core.contigs import match_contigs
from seq2exp.core.errors import FormatError, InputError, facts

__all__ = [
    "bin_distances",
    "check_contacts",
    "contact_profiles",
    "power_law",
    "pseudocount",
    "read_contact_table",
]

_FLAT_BP = 5_000
_FAR_BP = 1_000_000
_NEAR_BP = 500
_LOW_SUM = 0.01
TABLE_COLUMNS = ("gene_id", "start", "end", "contact")

Floats = NDArray[np.float64]


def power_law(distance_bp: NDArray[Any] | float, config: ContactConfig | None = None) -> Floats:
    """Return the contact expected at a distance: ``exp(scale - gamma * ln(d + 1))``.

    Below 5 kb the value at 5 kb is used. Scale -4.80 + 11.63 * 0.87 and gamma 0.87 are those of the
    Activity-by-Contact model (Fulco et al. 2019) as used by Seq2Exp (specification section 2.4).

    Parameters
    ----------
    distance_bp : array or float
        Distance in bases, any sign.
    """
    law = config or ContactConfig()
    distance = np.maximum(np.abs(np.asarray(distance_bp, dtype=np.float64)), _FLAT_BP)
    contact: Floats = np.exp(law.scale - law.gamma * np.log(distance + 1))
    return contact


def pseudocount(distance_bp: NDArray[Any] | float, config: ContactConfig | None = None) -> Floats:
    """Return what is added to a contact: the power law, at most its value at 1 Mb (0.00122920)."""
    return np.minimum(power_law(distance_bp, config), power_law(_FAR_BP, config))


def bin_distances(config: ContactConfig) -> Floats:
    """Return the signed distance of every bin's centre from the TSS, shape (num_bins,)."""
    index = np.arange(config.num_bins) - config.num_bins // 2
    return (index.astype(np.float64) + 0.5) * config.bin_size


def check_contacts(config: ContactConfig, path: Path | None) -> None:
    """Check the contact source before any work.

    Raises
    ------
    InputError
        Missing file, missing columns, or the package that reads .hic files is not installed.
    """
    if path is None:
        return
    if not path.is_file():
        raise InputError(
            facts(str(path), found="no such file", expected="contacts", fix="check the path")
        )
    if config.source == "hic":
        _hicstraw()
    else:
        read_contact_table(path)


def contact_profiles(
    genes: pd.DataFrame, config: ContactConfig, path: Path | None
) -> NDArray[np.float32]:
    """Return the contact profile of every gene.

    Parameters
    ----------
    genes : DataFrame
        gene_id, contig, tss.
    config : ContactConfig
    path : Path, optional
        Table or .hic file.

    Returns
    -------
    float32 array, shape (num_genes, num_bins)
        ``log10(1 + contact + pseudocount)``. Bins without a contact hold the pseudocount alone.

    Raises
    ------
    InputError
        No gene of the table is known, or no contig of the .hic file.
    """
    distance = bin_distances(config)
    if config.source == "table" and path is not None:
        contact = _from_table(genes, config, read_contact_table(path), path)
    elif config.source == "hic" and path is not None:
        contact = _from_hic(genes, config, path)
    else:
        contact = np.broadcast_to(power_law(distance, config), (len(genes), config.num_bins))
    return np.log10(1 + contact + pseudocount(distance, config)).astype(np.float32)


def read_contact_table(path: Path) -> pd.DataFrame:
    """Read a table of contacts: ``gene_id, start, end, contact``, other columns ignored.

    ``start`` and ``end`` are genome positions on the contig of the gene, 0-based half-open.

    Raises
    ------
    InputError
        Missing columns, no rows, or contacts that are negative or not finite.
    FormatError
        The file cannot be read.
    """
    try:
        frame = pd.read_csv(path, sep="\t", dtype={"gene_id": str})
    except (OSError, EOFError, ValueError) as error:
        raise FormatError(
            facts(str(path), found=str(error), expected="a TSV of contacts", fix="restore it")
        ) from error
    missing = [name for name in TABLE_COLUMNS if name not in frame.columns]
    if missing or frame.empty:
        raise InputError(
            facts(
                str(path),
                found=f"no column {', '.join(missing)}" if missing else "no rows",
                expected="gene_id, start, end, contact, tab-separated",
                fix="name the columns so",
            )
        )
    frame = frame[list(TABLE_COLUMNS)]
    numbers = frame[["start", "end", "contact"]].apply(pd.to_numeric, errors="coerce")
    good = np.isfinite(numbers).all(axis=1) & (numbers["contact"] >= 0)
    good &= numbers["end"] > numbers["start"]
    if not good.all():
        raise InputError(
            facts(
                str(path),
                found="rows that are no contact",
                expected="start < end, and a finite contact >= 0",
                fix="mend or remove the rows",
                count=int((~good).sum()),
                examples=[f"data row {row + 1}" for row in np.flatnonzero(~good)[:3]],
            )
        )
    return frame.assign(**numbers, gene_id=strip_version(frame["gene_id"].astype(str)))


def _from_table(
    genes: pd.DataFrame, config: ContactConfig, table: pd.DataFrame, path: Path
) -> Floats:
    """Average the table over each bin, weighted by the overlap; bases without a row count as 0."""
    row_of = pd.Series(np.arange(len(genes)), index=genes["gene_id"])
    known = table["gene_id"].isin(row_of.index)
    if not known.any():
        raise InputError(
            facts(
                str(path),
                found=f"gene ids such as {', '.join(table['gene_id'][:3])}",
                expected=f"at least one of the genes, such as {', '.join(genes['gene_id'][:3])}",
                fix="use the gene ids of the GTF",
                count=0,
            )
        )
    table = table[known]
    gene = row_of.loc[table["gene_id"]].to_numpy()
    left = genes["tss"].to_numpy()[gene] - config.num_bins // 2 * config.bin_size
    start = (table["start"].to_numpy(np.float64) - left) / config.bin_size
    end = (table["end"].to_numpy(np.float64) - left) / config.bin_size
    result = np.zeros((len(genes), config.num_bins))
    reach = int(np.ceil((end - start).max())) + 1
    for step in range(reach):
        index = np.floor(start).astype(np.int64) + step
        share = np.minimum(end, index + 1) - np.maximum(start, index)
        used = (share > 0) & (index >= 0) & (index < config.num_bins)
        weight = share[used] * table["contact"].to_numpy(np.float64)[used]
        np.add.at(result, (gene[used], index[used]), weight)
    return result


def _hicstraw() -> Any:  # noqa: ANN401
    try:
        import hicstraw
    except ImportError:
        raise InputError(
            facts(
                "contacts.source hic",
                found="no package that reads .hic files",
                expected="hicstraw",
                fix="pip install 'seq2exp[hic]', or use contacts.source power_law or table",
            )
        ) from None
    return hicstraw


def _from_hic(genes: pd.DataFrame, config: ContactConfig, path: Path) -> Floats:
    """Read observed contacts; genes with almost none near the TSS get zeros (section 2.4)."""
    hicstraw = _hicstraw()
    try:
        names = [chrom.name for chrom in hicstraw.HiCFile(str(path)).getChromosomes()]
    except Exception as error:
        raise FormatError(
            facts(str(path), found=str(error), expected="a .hic file", fix="download it again")
        ) from error
    found = match_contigs(genes["contig"].unique(), names, what=str(path))
    result = np.zeros((len(genes), config.num_bins))
    for contig, name in found.items():
        rows = np.flatnonzero((genes["contig"] == contig).to_numpy())
        records = hicstraw.straw(
            "observed", config.normalization, str(path), name, name, "BP", config.bin_size
        )
        matrix = _symmetric(records, config.bin_size)
        for row in rows:
            result[row] = _profile(matrix, int(genes["tss"].iloc[row]), config)
    return result


def _symmetric(records: Any, bin_size: int) -> Mapping[tuple[int, int], float]:  # noqa: ANN401
    matrix: dict[tuple[int, int], float] = {}
    for record in records:
        if np.isfinite(record.counts):
            first, second = record.binX // bin_size, record.binY // bin_size
            matrix[min(first, second), max(first, second)] = float(record.counts)
    return matrix


def _profile(matrix: Mapping[tuple[int, int], float], tss: int, config: ContactConfig) -> Floats:
    home = tss // config.bin_size
    centres = tss + bin_distances(config)
    bins = np.floor(centres / config.bin_size).astype(np.int64)
    row = np.array([matrix.get((min(home, b), max(home, b)), 0.0) for b in bins.tolist()])
    near = {(tss - _NEAR_BP) // config.bin_size, home, (tss + _NEAR_BP) // config.bin_size}
    if sum(matrix.get((min(home, b), max(home, b)), 0.0) for b in near) < _LOW_SUM:
        return np.zeros_like(row)
    return row
