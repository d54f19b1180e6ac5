"""Personal genomes: expression between people, its linear baselines and its models."""
