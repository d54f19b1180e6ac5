"""Building blocks of the networks: tensors in, tensors out; no files, no data sets."""
