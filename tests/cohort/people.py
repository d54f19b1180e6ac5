"""Toy people: dosages in linkage, and expression with a planted heritability."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dosages(
    random: np.random.Generator, num_donors: int, num_variants: int, *, founders: int = 30,
    switch: float = 0.03,
) -> NDArray[np.float32]:  # fmt: skip
    """Copies of ALT in donors whose haplotypes are mosaics of founders: (donors, variants)."""
    frequency = random.uniform(0.1, 0.9, num_variants)
    pool = random.random((founders, num_variants)) < frequency
    jump = random.random((2 * num_donors, num_variants)) < switch
    jump[:, 0] = True
    place = np.maximum.accumulate(np.where(jump, np.arange(num_variants), 0), axis=1)
    drawn = random.integers(founders, size=jump.shape)
    source = np.take_along_axis(drawn, place, axis=1)
    haplotypes = pool[source, np.arange(num_variants)]
    return haplotypes.reshape(num_donors, 2, -1).sum(axis=1).astype(np.float32)


def standardised(dosage: NDArray[np.floating]) -> NDArray[np.float64]:
    """Columns with mean 0 and variance 1."""
    values = np.asarray(dosage, np.float64)
    return (values - values.mean(axis=0)) / values.std(axis=0)


def phenotype(
    random: np.random.Generator, dosage: NDArray[np.floating], h2: float, *, causal: int | None
) -> NDArray[np.float64]:
    """Expression of heritability h2 over draws: all variants act, or `causal` of them."""
    z = standardised(dosage)
    if causal is not None:
        z = z[:, random.choice(z.shape[1], causal, replace=False)]
    genetic = z @ random.normal(size=z.shape[1]) / np.sqrt(z.shape[1])
    noise = random.normal(size=len(z))
    return np.sqrt(h2) * genetic + np.sqrt(1 - h2) * noise


def common(dosage: NDArray[np.floating], least: float = 0.05) -> NDArray[np.floating]:
    """The variants whose rarer allele is at least so frequent."""
    frequency = dosage.mean(axis=0) / 2
    return dosage[:, np.minimum(frequency, 1 - frequency) >= least]
