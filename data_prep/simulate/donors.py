"""A cohort of donors for a simulated genome: genotypes, expression, and the truth behind them.

Expression of donor d and gene g, natural log units:

    y[g, d] = log(mean over the two haplotypes of exp(genetic[g, haplotype]))
              + sum over factors of loading[g, k] factor[k, d] + noise[g, d]

The variance of the noise is set per gene so that the genetic part makes up ``heritability`` of what
is left in the first population once the factors are removed; a gene without genetic variance gets
the median noise of the others.

Shapes: G genes, D donors, H = 2 D haplotypes, M variants of a contig, K factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_prep.simulate.config import SimulationConfig
from data_prep.simulate.donor_files import write_expression, write_genotypes
from data_prep.simulate.donor_truth import haplotype_expression, variant_effects
from data_prep.simulate.donor_variants import ContigVariants, draw_variants, plant
from data_prep.simulate.population import mosaic
from data_prep.simulate.world import State, World
from data_prep.simulate.write import write_table

__all__ = ["POPULATIONS", "Cohort", "simulate_donors", "write_donors"]

POPULATIONS = ("SIM1", "SIM2")
_STREAMS = ("planted", "genealogies", "donors", "noise")
# Genes whose genetic SD is below 0.01 count as genes without; their noise has SD 0.2 if all are so.
_NO_VARIANCE, _NOISE = 1e-4, 0.04
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cohort:
    """Donors with everything that was drawn for them.

    Attributes
    ----------
    donors : DataFrame
        donor, population, sex.
    variants : dict of ContigVariants
        By contig; those that some haplotype of the cohort has and some has not.
    alleles : dict of bool arrays, shape (2 D, M)
        Whether a haplotype carries ALT; rows 2 d and 2 d + 1 are donor d.
    genetic_GD, observed_GD : float64 arrays
        Natural log of expression, without and with factors and noise.
    noise_sd_G : float64 array
    heritability_G : float64 array
        Genetic share of the variance in the first population, factors removed.
    """

    donors: pd.DataFrame
    variants: dict[str, ContigVariants]
    alleles: dict[str, NDArray[np.bool_]]
    genetic_GD: Array
    observed_GD: Array
    noise_sd_G: Array
    heritability_G: Array


def simulate_donors(world: World, state: State, config: SimulationConfig) -> Cohort:
    """Draw donors for a world.

    Parameters
    ----------
    world : World
    state : State
        ``evaluate(world)``.
    config : SimulationConfig
        ``config.donors`` says how many and how.
    """
    settings = config.donors
    planted = plant(world, state, settings, _stream(config, "planted"))
    genealogies, drawing = _stream(config, "genealogies"), _stream(config, "donors")
    counts = (settings.num_donors, settings.num_second)
    variants: dict[str, ContigVariants] = {}
    alleles: dict[str, NDArray[np.bool_]] = {}
    for chrom, codes in world.genome.items():
        mine = [item for item in planted if item.chrom == chrom]
        drawn = draw_variants(codes, mine, settings, genealogies)
        parts = [
            mosaic(
                drawn.carried_MF,
                drawn.position_M,
                np.arange(settings.founders) + number * settings.founders,
                2 * count,
                switch_bp=settings.switch_bp,
                random=drawing,
            )
            for number, count in enumerate(counts)
            if count
        ]
        carried = np.concatenate(parts)
        varies = np.flatnonzero(carried.any(axis=0) & ~carried.all(axis=0))
        variants[chrom] = ContigVariants(
            [drawn.alleles[index] for index in varies],
            drawn.carried_MF[varies],
            drawn.planted_M[varies],
        )
        alleles[chrom] = carried[:, varies]
    donors = _donor_table(counts, drawing)
    value_GH = haplotype_expression(world, variants, alleles, 2 * len(donors))
    genetic = np.log((np.exp(value_GH[:, 0::2]) + np.exp(value_GH[:, 1::2])) / 2)
    return _observed(genetic, donors, variants, alleles, config)


def _observed(
    genetic: Array,
    donors: pd.DataFrame,
    variants: dict[str, ContigVariants],
    alleles: dict[str, NDArray[np.bool_]],
    config: SimulationConfig,
) -> Cohort:
    settings, random = config.donors, _stream(config, "noise")
    first = (donors["population"] == POPULATIONS[0]).to_numpy()
    if not settings.heritability:
        genetic = np.repeat(genetic[:, :1], len(donors), axis=1)
    # Population variance: the formula of heritability is about these donors, not a sample of them.
    variance = genetic[:, first].var(axis=1)
    own = variance * (1 - settings.heritability) / max(settings.heritability, 1e-9)
    varies = variance > _NO_VARIANCE
    noise_variance = np.where(varies, own, np.median(own[varies]) if varies.any() else _NOISE)
    noise_sd = np.sqrt(noise_variance)
    left = variance + noise_variance
    factor_variance = left * settings.factor_share / (1 - settings.factor_share)
    factors = random.normal(size=(settings.factors, len(donors)))
    loading = random.normal(size=(len(genetic), settings.factors))
    scale = np.sqrt(factor_variance / max(settings.factors, 1))
    hidden = (loading * scale[:, None]) @ factors
    noise = random.normal(size=genetic.shape) * noise_sd[:, None]
    return Cohort(
        donors=donors,
        variants=variants,
        alleles=alleles,
        genetic_GD=genetic,
        observed_GD=genetic + hidden + noise,
        noise_sd_G=noise_sd,
        heritability_G=variance / left,
    )


def _stream(config: SimulationConfig, name: str) -> np.random.Generator:
    # Apart from the streams of the genome: donors are added without moving a base of it.
    return np.random.default_rng([config.seed, 1_000 + _STREAMS.index(name)])


def _donor_table(counts: tuple[int, int], random: np.random.Generator) -> pd.DataFrame:
    population = np.repeat(POPULATIONS, counts)
    names = [f"D{number + 1:04d}" for number in range(len(population))]
    sex = random.choice(["female", "male"], size=len(population))
    return pd.DataFrame({"donor": names, "population": population, "sex": sex})


def write_donors(
    cohort: Cohort, world: World, state: State, config: SimulationConfig, folder: Path
) -> None:
    """Write ``cohort/`` as ordinary files and its part of ``truth/``.

    Parameters
    ----------
    cohort : Cohort
    world : World
    state : State
    config : SimulationConfig
    folder : Path
        The simulated data set, unfinished; it holds ``truth/``.
    """
    place, truth = folder / "cohort", folder / "truth"
    place.mkdir()
    write_table(cohort.donors, place / "donors.tsv")
    gene_id = world.genes["gene_id"]
    traps = config.donors.traps
    lengths = {chrom: len(codes) for chrom, codes in world.genome.items()}
    write_genotypes(cohort, lengths, place / "genotypes.vcf.gz", traps=traps)
    write_expression(cohort, gene_id, place / "expression.tsv.gz", traps=traps)
    effects = variant_effects(world, state, cohort.variants)
    effects = effects.merge(_frequencies(cohort), on=["chrom", "position", "ref", "alt"])
    effects["effect"] = effects["effect"].round(6)
    write_table(effects, truth / "donor_variants.tsv.gz")
    genetic = pd.DataFrame(cohort.genetic_GD.round(5), columns=cohort.donors["donor"].to_numpy())
    genetic.insert(0, "gene_id", gene_id.to_numpy())
    write_table(genetic, truth / "donor_genetic.tsv.gz")
    genes = pd.DataFrame(
        {
            "gene_id": gene_id,
            "genetic_sd": cohort.genetic_GD.std(axis=1).round(6),
            "noise_sd": cohort.noise_sd_G.round(6),
            "heritability": cohort.heritability_G.round(6),
            "num_planted": effects[effects["planted"]]
            .groupby("gene_id")
            .size()
            .reindex(gene_id, fill_value=0)
            .to_numpy(),
        }
    )
    write_table(genes, truth / "donor_genes.tsv")


def _frequencies(cohort: Cohort) -> pd.DataFrame:
    """Return the frequency of ALT of every variant in each population of the cohort."""
    population = np.repeat(cohort.donors["population"].to_numpy(), 2)
    tables = []
    for chrom, found in cohort.variants.items():
        table = pd.DataFrame(
            [(chrom, allele.position, allele.ref, allele.alt) for allele in found.alleles],
            columns=["chrom", "position", "ref", "alt"],
        )
        for name in dict.fromkeys(population):
            table[f"af_{name}"] = cohort.alleles[chrom][population == name].mean(axis=0).round(5)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
