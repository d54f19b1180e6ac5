from __future__ import annotations

from tests.elements.conftest import dataset, masks, run

__all__ = ["dataset", "masks", "run"]
