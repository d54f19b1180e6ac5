"""Public files: where they lie, how they are checked, and what a recipe needs of them."""

from __future__ import annotations

from data_prep.sources.fetch import Fetched, fetch
from data_prep.sources.registry import Recipe, Registry, SourceEntry, load_registry

__all__ = ["Fetched", "Recipe", "Registry", "SourceEntry", "fetch", "load_registry"]
