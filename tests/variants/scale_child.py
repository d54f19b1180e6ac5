"""Scores the fake variants in a folder: ``python -m tests.variants.scale_child FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

from seq2exp.variants.scale import score_in_parts
from tests.variants import scale_fakes as fakes

if __name__ == "__main__":
    setting = fakes.Setting(Path(sys.argv[1]))
    score_in_parts(setting.source, setting.fake(), fakes.write, setting.job(), progress=False)
