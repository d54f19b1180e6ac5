"""Systems that predict expression in space, one module each."""
