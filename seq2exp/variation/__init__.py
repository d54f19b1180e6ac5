"""Sequence variants: alleles, haplotypes, and the way between haplotype and reference."""
