"""What a simulated cohort of donors looks like."""

from __future__ import annotations

from dataclasses import dataclass

from seq2exp.core.errors import ConfigError, facts

__all__ = ["DonorConfig"]


@dataclass(frozen=True, kw_only=True)
class DonorConfig:
    """Sizes, diversity and heritability of the donors; none by default."""

    num_donors: int = 0
    """Donors of the first population, SIM1; 0 leaves the whole cohort out."""
    num_second: int = 0
    """Donors of the second population, SIM2."""
    founders: int = 80
    """Founder haplotypes of each population that donors are mosaics of."""
    split_time: float = 0.15
    """Time since the populations parted, in units of 2N generations."""
    diversity: float = 8e-4
    """Expected differences per base between two founder haplotypes of a population."""
    block_bp: int = 20_000
    """Mean length of a stretch with one genealogy, where variants are in strong linkage, bp."""
    switch_bp: int = 100_000
    """Mean distance between changes of founder along a donor's haplotype, bp."""
    indel_share: float = 0.12
    """Share of neutral variants that are insertions or deletions."""
    max_indel: int = 30
    """Longest insertion or deletion, bp."""
    causal_per_gene: float = 1.5
    """Mean number of variants planted per gene into sites of its elements."""
    causal_effect: float = 0.15
    """Planted substitutions change log expression by at least this much on one haplotype."""
    causal_frequency: float = 0.1
    """Planted variants have at least this frequency of their rarer allele among the founders."""
    heritability: float = 0.3
    """Share of the variance of a gene's log expression in the first population that its variants
    cause, once hidden factors are removed."""
    factors: int = 3
    """Hidden factors, such as batches, that act on all genes."""
    factor_share: float = 0.2
    """Share of the variance of log expression that hidden factors cause."""
    traps: bool = False
    """Write the files with the habits of public ones: plain gzip, contigs without chr, a dot for a
    missing genotype, versioned gene ids, expression columns with suffixes, undeclared FORMAT."""

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        checks = {
            "num_donors": (self.num_donors >= 0, "0 or more"),
            "num_second": (self.num_second >= 0, "0 or more"),
            "founders": (self.founders >= 4, "at least 4"),
            "split_time": (self.split_time >= 0, "0 or more"),
            "diversity": (0 < self.diversity < 0.05, "above 0 and below 0.05"),
            "block_bp": (self.block_bp >= 500, "at least 500"),
            "switch_bp": (self.switch_bp >= 1_000, "at least 1000"),
            "indel_share": (0 <= self.indel_share <= 1, "between 0 and 1"),
            "max_indel": (1 <= self.max_indel <= 1_000, "between 1 and 1000"),
            "causal_per_gene": (self.causal_per_gene >= 0, "0 or more"),
            "causal_frequency": (0 <= self.causal_frequency < 0.5, "at least 0 and below 0.5"),
            "heritability": (0 <= self.heritability < 1, "at least 0 and below 1"),
            "factors": (self.factors >= 0, "0 or more"),
            "factor_share": (0 <= self.factor_share < 1, "at least 0 and below 1"),
        }
        for name, (fine, expected) in checks.items():
            if not fine:
                raise ConfigError(
                    facts(
                        f"simulation setting donors.{name}",
                        found=getattr(self, name),
                        expected=expected,
                        fix=f"change donors.{name}",
                    )
                )
