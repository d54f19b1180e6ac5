"""The dataset directory: its format, a memory-mapped reader, samples and batches."""
