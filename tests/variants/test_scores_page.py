"""docs/variant_scores.md says what the registry says."""

from __future__ import annotations

import re
from pathlib import Path

from seq2exp.variants.background import BANDS, CAPACITY, MIN_PAIRS
from seq2exp.variants.contexts import FLANK
from seq2exp.variants.masks import CENTRE_WIDTH
from seq2exp.variants.scorers import SCORERS, Scorer
from seq2exp.variants.units import TRANSFORMS

PAGE = Path(__file__).parents[2] / "docs" / "variant_scores.md"
HEAD = (
    "| score | formula | unit | signed | compares | where | by default |\n"
    "|---|---|---|---|---|---|---|\n"
)
MARK = re.compile(r"(<!-- scores -->\n).*?(<!-- end -->)", re.DOTALL)


def row(scorer: Scorer) -> str:
    where = "centre" if scorer.needs in ("mask", "profile") else "window"
    if scorer.needs == "profile" and scorer.window == "tss":
        where = "gene"
    what = scorer.needs + (f", {scorer.also}" if scorer.also else "")
    cells = [f"`{scorer.name}`", scorer.formula, scorer.unit, "yes" if scorer.signed else "no",
             what, where, "yes" if scorer.default else ""]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def updated(text: str) -> str:
    rows = "".join(row(scorer) + "\n" for scorer in SCORERS.values())
    return MARK.sub(lambda found: found[1] + HEAD + rows + found[2], text)


def test_the_table_of_the_page_is_the_registry():
    text = PAGE.read_text()
    assert MARK.search(text), "the page has lost its mark"
    assert updated(text) == text, "run: python -m tests.variants.test_scores_page"
    lost = "\n".join(line for line in text.splitlines() if "`log_sed`" not in line)
    assert updated(lost) != lost


def test_the_numbers_of_the_page_are_those_of_the_code():
    text = PAGE.read_text()
    assert f"({FLANK:,} on either side)" in text
    assert f"At most {CAPACITY:,} pairs" in text
    assert f"fewer than {MIN_PAIRS} pairs" in text
    assert f"{CENTRE_WIDTH} bp" in text
    assert (
        "from " + ", ".join(f"{band:,}" for band in BANDS[:-1]) + f" and {BANDS[-1]:,} bp" in text
    )
    assert ", ".join(f"`{name}`" for name in TRANSFORMS) in text


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
