"""Small priors whose every number is known."""

from __future__ import annotations

from typing import Any

import numpy as np

from seq2exp.priors.prior import GenePrior, describe


def names(values: Any) -> np.ndarray:
    return np.array(list(values), dtype=object)


def make_prior(num: int = 60, *, width: int = 6, seed: int = 0, **changes: Any) -> GenePrior:
    """Ensembl ids, half of the genes train; gene 3 has no window; symbols G0 .., of gene 5 none."""
    random = np.random.default_rng(seed)
    present = np.arange(num) != 3
    z = random.normal(size=(num, width)) @ random.normal(size=(width, width)) + 1
    expr = random.gamma(2.0, 1.0, (num, 2))
    reg = np.stack([random.uniform(0.3, 0.6, num), random.integers(500, 90_000, num)], axis=1)
    for values in (z, expr, reg):
        values[~present] = 0
    symbol = names(f"G{i}" for i in range(num))
    symbol[5] = ""
    slots: dict[str, Any] = {
        "gene_id": names(f"ENSG{i:011d}" for i in range(num)),
        "symbol": symbol,
        "contig": names(["chr1", "chr2"] * (num // 2)),
        "tss": np.arange(num, dtype=np.int64) * 1000,
        "strand": names(["+", "-"] * (num // 2)),
        "split": names(["train", "test"] * (num // 2)),
        "present": present,
        "quality": np.where(np.arange(num) % 2, 0.5, np.nan).astype(np.float32),
        "z": z.astype(np.float32),
        "expr": expr.astype(np.float32),
        "expr_names": ("blood", "liver"),
        "reg": reg.astype(np.float32),
        "reg_names": ("gc", "gene_length_bp"),
        "meta": describe(
            model="seq2exp", model_sha256="aa", assembly="hg38", id_system="ensembl/ENSG",
            train_contigs=["chr1"], dataset_checksum="d", layer="readout", notes=["a", "b"],
        ),
    }  # fmt: skip
    return GenePrior(**(slots | changes))
