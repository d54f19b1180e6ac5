"""seq2exp: from DNA and epigenomic tracks to gene expression and regulatory elements."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
