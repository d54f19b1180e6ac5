"""The vocabulary: sequences, intervals, contigs, files, configuration and errors."""
