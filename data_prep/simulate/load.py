"""Read a simulated folder back: the model for new questions, and the truth per gene."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pysam
from numpy.typing import NDArray

from data_prep.simulate.config import SimulationConfig
from data_prep.simulate.donor_config import DonorConfig
from data_prep.simulate.motifs import PRIMARY
from data_prep.simulate.world import World
from seq2exp.core.errors import InputError, facts
from seq2exp.core.sequence import encode

__all__ = ["gene_base_effects", "load_base_effects", "load_effects", "load_world"]


def _truth_file(folder: Path, name: str) -> Path:
    path = Path(folder) / "truth" / name
    if not path.exists():
        raise InputError(
            facts(
                str(path),
                found="no such file",
                expected="a folder written by seq2exp simulate",
                fix="give the folder that holds genome.fa and truth/",
            )
        )
    return path


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", float_precision="round_trip")


def load_effects(folder: Path) -> pd.DataFrame:
    """Return truth/effects.tsv.gz: one row per gene and element, decoys and promoters included."""
    return _read(_truth_file(folder, "effects.tsv.gz"))


def load_world(folder: Path) -> World:
    """Return the model behind a simulated folder, ready for ``expression_of``.

    Parameters
    ----------
    folder : Path
        As written by ``simulate``.

    Returns
    -------
    World

    Raises
    ------
    InputError
        The folder has no truth.
    """
    values = json.loads(_truth_file(folder, "config.json").read_text())
    donors = DonorConfig(**values.pop("donors", {}))
    config = SimulationConfig(**values, donors=donors)
    with pysam.FastaFile(str(Path(folder) / "genome.fa")) as fasta:
        genome = {name: encode(fasta.fetch(name)) for name in fasta.references}
    columns = ["gene_id", "symbol", "chrom", "tss", "strand", "start", "end", "cpg_island"]
    genes = _read(_truth_file(folder, "genes.tsv"))[columns]
    elements = _read(_truth_file(folder, "elements.tsv"))
    elements = elements[elements["kind"] != "promoter"].reset_index(drop=True)
    gene_row = pd.Series(np.arange(len(genes)), index=genes["gene_id"])
    elements["home"] = elements["gene_id"].map(gene_row)
    columns = ["element_id", "chrom", "start", "end", "kind", "subkind", "home"]
    element_row = pd.Series(np.arange(len(elements)), index=elements["element_id"])
    pairs = load_effects(folder)
    pairs = pairs[pairs["kind"] != "promoter"]
    return World(
        config,
        genome,
        genes,
        elements[columns],
        pairs["gene_id"].map(gene_row).to_numpy(dtype=np.int64),
        pairs["element_id"].map(element_row).to_numpy(dtype=np.int64),
        pairs["contact"].to_numpy(dtype=np.float64),
    )


def load_base_effects(folder: Path) -> pd.DataFrame:
    """Return the effect of every base on every gene, in long form.

    Returns
    -------
    DataFrame
        gene_id (categorical), chrom (categorical), position (0-based), effect_<cell> (signed change
        of natural-log expression of the strongest substitution). Bases that are absent have no
        effect above 1e-4 on that gene.
    """
    genes = _read(_truth_file(folder, "genes.tsv"))
    frame = pd.read_parquet(_truth_file(folder, "base_effects.parquet"))
    row = frame.pop("gene").to_numpy()
    names = genes[["gene_id", "chrom"]].astype("category").iloc[row].reset_index(drop=True)
    return pd.concat([names, frame], axis=1)


def gene_base_effects(
    effects: pd.DataFrame, gene_id: str, *, start: int, end: int, cell: str = PRIMARY
) -> NDArray[np.float32]:
    """Return the dense effects of one gene over a window.

    Parameters
    ----------
    effects : DataFrame
        From ``load_base_effects``.
    gene_id : str
    start, end : int
        0-based half-open, on the gene's contig; may reach beyond the contig.
    cell : str
        Cell type.

    Returns
    -------
    float32 array, shape (end - start,)
        Signed change of natural-log expression, 0 where no substitution matters.
    """
    mine = effects[effects["gene_id"] == gene_id]
    position = mine["position"].to_numpy()
    inside = (position >= start) & (position < end)
    dense = np.zeros(end - start, dtype=np.float32)
    dense[position[inside] - start] = mine[f"effect_{cell}"].to_numpy()[inside]
    return dense
