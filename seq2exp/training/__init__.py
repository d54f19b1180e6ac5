"""Losses, metrics, checkpoints and the trainer."""
