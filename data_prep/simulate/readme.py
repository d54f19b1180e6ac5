"""The page that lies beside the simulated files."""

from __future__ import annotations

from data_prep.simulate.config import SimulationConfig
from data_prep.simulate.motifs import CELL_TYPES, PRIMARY

__all__ = ["readme_text"]


def readme_text(config: SimulationConfig, num_genes: int, num_elements: dict[str, int]) -> str:
    """Return README.md of a simulated data set."""
    counts = ", ".join(f"{count} {kind}s" for kind, count in num_elements.items())
    cells = ", ".join(CELL_TYPES)
    donors = _DONORS if config.donors.num_donors else ""
    return f"""# Simulated data with a known truth

Seed {config.seed}; {config.num_contigs} contigs; {num_genes} genes; {counts}.
Everything here is synthetic. The model behind it is described in docs/simulator.md of seq2exp.
Positions are 0-based half-open in every file except the GTF, which is 1-based.

| file | content |
|---|---|
| genome.fa, genome.fa.fai, chrom.sizes | sequence; N marks gaps |
| genes.gtf.gz, .tbi | genes, transcripts, exons; the TSS is the 5' end of the gene |
| tracks/{PRIMARY}.DNase.bw, .H3K27ac.bw, .H3K4me3.bw | signal of the primary cell type |
| | {config.track_bin} bp bins, 1 = genome-wide mean; gaps are empty |
| contacts.tsv.gz | gene_id, chrom, start, end, contact: contact of the TSS with each bin |
| | {config.contact_bin} bp bins; 1 = contact at {config.contact_distance} bp or closer |
| expression.tsv | gene_id and one column per cell type ({cells}): TPM-like, exp(log expression) |

## truth/
| file | content |
|---|---|
| elements.bed, elements.tsv | every element, decoys included: kind, subkind, home gene, activity |
| effects.tsv.gz | per gene and element: distance, contact, effect_<cell>, causal_<cell> |
| causal_<cell>.bed | pairs whose deletion lowers log expression by at least {config.min_effect} |
| | BED6 + gene_id, kind, distance, effect; promoters are rows of kind promoter |
| sites.bed.gz | binding sites: TF, score (bits), strand, occupancy, element |
| base_effects.<cell>.bw | per base: largest absolute change of log expression of any gene |
| | over the three substitutions |
| base_effects.parquet | the same per gene, signed: gene (row of genes.tsv), position, |
| | effect_<cell>; absent rows are below 0.0001 |
| genes.tsv | genes with promoter strength, distal sum and noise-free log expression |
| tf_levels.tsv, motifs.meme, repeats.bed.gz, config.json | the rest of the model |
{donors}
All effects are changes of the natural log of expression.
"""


_DONORS = """
## cohort/, and its part of truth/
| file | content |
|---|---|
| cohort/genotypes.vcf.gz | phased genotypes of the donors (1-based, as VCF is) |
| cohort/donors.tsv | donor, population, sex |
| cohort/expression.tsv.gz | gene_id and one TPM-like column per donor |
| truth/donor_variants.tsv.gz | each variant that changes a gene: effect of ALT alone, planted |
| | or not, frequency of ALT per population; 0-based |
| truth/donor_genes.tsv | genetic_sd, noise_sd, heritability, num_planted |
| truth/donor_genetic.tsv.gz | noise-free log expression of every donor |
"""
