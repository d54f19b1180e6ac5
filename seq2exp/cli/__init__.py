"""The command line: one small module per command, heavy imports inside it."""
