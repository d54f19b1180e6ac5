"""Saturation mutagenesis as files.

::

    OUT/genes.tsv                           one row per region, gene and label: strongest effects
    OUT/<region>/<gene>/saturation.npz      all effects, genome direction
    OUT/<region>/<gene>/<label>.png, .svg   pictures of the strongest
    OUT/tracks/<gene>_<label>_mean.bw       mean effect of the three substitutions
    OUT/tracks/<gene>_<label>_largest.bw    their largest absolute effect
    OUT/tracks/<gene>_<label>_importance.bw what the base adds over the mean of the other three
    OUT/substitutions.<ending>              the rows of `seq2exp variants`, where asked for
    OUT/summary.json                        settings, counts
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seq2exp.core.files import safe_name
from seq2exp.core.sequence import ALPHABET
from seq2exp.elements.export import write_bigwig
from seq2exp.elements.merged import run_lengths
from seq2exp.variants.regions import Region
from seq2exp.variants.saturation import Saturation, save_saturation

__all__ = ["TRACKS", "folder_names", "strongest_rows", "write_arrays", "write_tracks"]

TRACKS = ("mean", "largest", "importance")


def folder_names(texts: Iterable[str]) -> dict[str, str]:
    """Return a file name for each text; texts that are the same but for odd letters differ.

    Parameters
    ----------
    texts : iterable of str
    """
    names: dict[str, str] = {}
    for text in dict.fromkeys(texts):
        plain = name = safe_name(text)
        number = 2
        # Disks that do not tell upper from lower case would mix them up too.
        while name.lower() in (other.lower() for other in names.values()):
            name, number = f"{plain}_{number}", number + 1
        names[text] = name
    return names


def write_arrays(found: Sequence[Saturation], folder: Path, about: Mapping[str, str]) -> list[Path]:
    """Write the arrays of every region and gene and return the folder of each.

    Parameters
    ----------
    found : sequence of Saturation
    folder : Path
    about : mapping of str to str
        As for `save_saturation`.
    """
    places = []
    genes = folder_names(one.gene_id for one in found)
    regions = folder_names(_written(one.region) for one in found)
    for one in found:
        place = folder / regions[_written(one.region)] / genes[one.gene_id]
        place.mkdir(parents=True)
        save_saturation(one, place / "saturation.npz", about)
        places.append(place)
    return places


def _written(region: Region) -> str:
    return f"{region.contig}_{region.start + 1}-{region.end}"


def write_tracks(found: Sequence[Saturation], folder: Path, contigs: Mapping[str, int]) -> int:
    """Write the bigWig tracks of every gene and label and return how many they are.

    Parameters
    ----------
    found : sequence of Saturation
        Regions of a gene sorted; none overlap.
    folder : Path
    contigs : mapping of str to int
        Contig lengths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    by_gene: dict[str, list[Saturation]] = {}
    for one in found:
        by_gene.setdefault(one.gene_id, []).append(one)
    titles = _titles([parts[0] for parts in by_gene.values()])
    labels = folder_names(found[0].labels)
    count = 0
    for gene_id, parts in by_gene.items():
        for number, label in enumerate(parts[0].labels):
            for what in TRACKS:
                path = folder / f"{titles[gene_id]}_{labels[label]}_{what}.bw"
                with write_bigwig(path, contigs) as writer:
                    for one in parts:
                        values = getattr(one, f"{what}_PK")[:, number]
                        writer.add(one.region.contig, *run_lengths(values, start=one.region.start))
                count += 1
    return count


def _titles(genes: Sequence[Saturation]) -> dict[str, str]:
    """Name each gene by its symbol, which browsers then show, or its id where symbols repeat."""
    symbols = [one.symbol for one in genes]
    texts = [
        one.symbol if one.symbol and symbols.count(one.symbol) == 1 else one.gene_id
        for one in genes
    ]
    names = folder_names(texts)
    return {one.gene_id: names[text] for one, text in zip(genes, texts, strict=True)}


def strongest_rows(found: Sequence[Saturation]) -> pd.DataFrame:
    """Return one row per region, gene and label: what was scored, and the strongest substitution.

    Parameters
    ----------
    found : sequence of Saturation
    """
    rows: list[dict[str, Any]] = []
    for one in found:
        size_PK = np.abs(one.mean_PK)
        scored = ~np.isnan(one.delta_PCK[:, :, 0]).any(axis=1)
        for number, label in enumerate(one.labels):
            best = one.strongest(number)
            variant, effect = "", float("nan")
            if best is not None:
                place, base, effect = best
                ref, alt = ALPHABET[one.codes_P[place]], ALPHABET[base]
                variant = f"{one.region.contig}:{one.region.start + place + 1}:{ref}>{alt}"
            rows.append(
                {
                    "region": str(one.region),
                    "gene_id": one.gene_id,
                    "symbol": one.symbol,
                    "strand": one.strand,
                    "tss1": one.tss + 1,
                    "label": label,
                    "bases": len(one.region),
                    "scored_bases": int(scored.sum()),
                    "strongest": variant,
                    "effect": effect,
                    "mean_importance_size": _mean(size_PK[:, number]),
                    "unit": one.unit,
                }
            )
    return pd.DataFrame(rows)


def _mean(values: NDArray[np.float32]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean(dtype=np.float64)) if known.size else float("nan")
