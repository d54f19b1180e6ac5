"""VCF and BCF files to the genotypes of a dataset."""
