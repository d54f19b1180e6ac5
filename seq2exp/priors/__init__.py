"""Gene priors: what a sequence model knows about each gene, for models that know no sequence."""
