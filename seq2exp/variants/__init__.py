"""Scores of sequence variants: alleles in, changes of predicted expression and elements out."""
