"""What a simulated data set looks like: sizes, densities and noise levels."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_prep.simulate.donor_config import DonorConfig
from seq2exp.core.errors import ConfigError, facts

__all__ = ["SimulationConfig"]


@dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    """Sizes and noise of a simulated data set (the grammar itself is in ``grammar.py``)."""

    seed: int = 0
    """Seed of every random draw; the same seed and version give byte-identical files."""
    num_contigs: int = 6
    """Number of contigs, named chr1, chr2, ..."""
    min_contig_length: int = 2_000_000
    """Shortest contig, bp."""
    max_contig_length: int = 3_000_000
    """Longest contig, bp."""
    gene_spacing: int = 14_000
    """Mean distance between neighbouring TSSs, bp."""
    enhancers_per_gene: float = 2.4
    """Mean number of enhancers placed around a TSS (over-dispersed)."""
    decoys_per_gene: float = 2.6
    """Mean number of accessible decoys placed around a TSS."""
    min_distance: int = 1_200
    """Smallest distance of a distal element's centre from its home TSS, bp."""
    max_distance: int = 13_000
    """Largest distance of a distal element's centre from its home TSS, bp."""
    reach: int = 16_000
    """Elements farther than this from a TSS have no effect on the gene, bp."""
    contact_bin: int = 1_000
    """Bin of the contact table, bp."""
    contact_exponent: float = 0.87
    """Exponent of the decay of contact with distance."""
    contact_distance: int = 1_000
    """Distance below which the contact no longer rises, bp."""
    contact_sd: float = 0.25
    """SD of the gene- and bin-specific part of log contact."""
    contact_error: float = 0.10
    """SD of the measurement error of log contact in contacts.tsv.gz."""
    gene_noise: float = 0.25
    """SD of log expression that a gene shares over cell types and no sequence explains."""
    cell_noise: float = 0.20
    """SD of log expression that is drawn anew for each gene and cell type."""
    min_effect: float = 0.10
    """A pair is called causal where deleting the element changes log expression by this much."""
    track_bin: int = 20
    """Resolution of the tracks, bp."""
    depth: float = 1.0
    """Multiplies the sequencing depth of every track."""
    repeat_fraction: float = 0.25
    """Share of the genome written over by copies of repeat families."""
    cpg_island_fraction: float = 0.6
    """Share of promoters inside a CpG island."""
    donors: DonorConfig = field(default_factory=DonorConfig)
    """Donors with genotypes and expression of their own."""

    def __post_init__(self) -> None:
        """Refuse values that contradict each other."""
        checks = {
            "num_contigs": (self.num_contigs >= 1, "at least 1"),
            "min_contig_length": (self.min_contig_length >= 150_000, "at least 150000"),
            "max_contig_length": (
                self.max_contig_length >= self.min_contig_length,
                "at least min_contig_length",
            ),
            "gene_spacing": (self.gene_spacing >= 8_000, "at least 8000"),
            "min_distance": (self.min_distance >= 1_000, "at least 1000"),
            "max_distance": (
                self.min_distance < self.max_distance <= self.reach,
                "above min_distance and at most reach",
            ),
            "track_bin": (1 <= self.track_bin <= 200, "between 1 and 200"),
            "contact_bin": (self.contact_bin >= 100, "at least 100"),
            "repeat_fraction": (0 <= self.repeat_fraction <= 0.8, "between 0 and 0.8"),
            "cpg_island_fraction": (0 <= self.cpg_island_fraction <= 1, "between 0 and 1"),
            "depth": (self.depth > 0, "above 0"),
        }
        for name, (fine, expected) in checks.items():
            if not fine:
                raise ConfigError(
                    facts(
                        f"simulation setting {name}",
                        found=getattr(self, name),
                        expected=expected,
                        fix=f"change {name}",
                    )
                )
