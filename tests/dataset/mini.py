"""A dataset of one contig from arrays given in full, so that every answer can be recomputed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from seq2exp.dataset import format as layout
from seq2exp.dataset.format import ContactInfo, Manifest, TrackInfo
from seq2exp.dataset.store import Dataset


def mini_dataset(
    root: Path, codes, bins, *, bin_size, tss=(0,), strands="+", regions=(), contacts=None
) -> Dataset:
    """Write contig ``c`` and open it; ``contacts`` is (bin_size, array of genes x bins)."""
    codes = np.asarray(codes, dtype=np.uint8)
    bins = np.asarray(bins, dtype=np.float32)
    (root / "sequence").mkdir(parents=True)
    (root / "tracks").mkdir()
    np.save(layout.sequence_path(root, "c"), codes)
    np.save(layout.tracks_path(root, "c"), bins)
    names = [f"g{i}" for i in range(len(tss))]
    table = {"gene_id": names, "symbol": names, "contig": "c", "tss": list(tss)}
    frame = pd.DataFrame(table | {"strand": list(strands), "biotype": "x", "split": "train"})
    layout.write_table(frame, layout.genes_path(root))
    starts, ends = zip(*regions, strict=True) if regions else ((), ())
    excluded = pd.DataFrame({"contig": "c", "start": starts, "end": ends, "reason": "test"})
    layout.write_table(excluded, layout.regions_path(root))
    info = ContactInfo()
    if contacts is not None:
        size, values = contacts
        np.save(layout.contacts_path(root), np.asarray(values, dtype=np.float32))
        info = ContactInfo("table", size, np.shape(values)[1], "count")
    tracks = [TrackInfo(f"t{i}") for i in range(bins.shape[1])]
    manifest = Manifest("mini", {"c": len(codes)}, bin_size, tracks, "float32", contacts=info)
    layout.finish_manifest(root, manifest)
    return Dataset(root)
