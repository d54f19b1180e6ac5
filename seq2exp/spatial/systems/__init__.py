"""Systems that predict expression of spots from histology."""
