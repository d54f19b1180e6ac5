"""The table of docs/encoders.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from seq2exp.encoders import build_encoder, encoder_names, trunk_names
from tests.encoders.measure import count

PAGE = (Path(__file__).parents[2] / "docs" / "encoders.md").read_text()
ROWS = {
    cells[1].strip(" `"): [cell.strip() for cell in cells[2:]]
    for line in PAGE.splitlines()
    if line.startswith("| `") and len(cells := line.split("|")) > 8
}
COST = re.compile(r"([0-9.]+) at ([0-9,]+) bp, bins of ([0-9]+) bp")


def number(text):
    return int(text.replace(",", ""))


def test_every_encoder_has_a_row():
    assert set(ROWS) == set(encoder_names())


@pytest.mark.parametrize("name", sorted(encoder_names()))
def test_parameters_and_costs_are_those_of_the_code(name):
    row = ROWS[name]
    cost, window, bin_size = COST.match(row[4]).groups()
    with torch.device("meta"):
        encoder = build_encoder(name, {}, window_bp=number(window), bin_size=int(bin_size))
    assert count(encoder) == number(row[3])
    assert f"{encoder.flops(number(window)) / 1e12:.3f}" == cost
    assert row[6].strip("`") == type(encoder).__name__
    direction = "left to right" if encoder.causal else "both"
    assert row[1] == direction
    if name == "conv":
        bins, margin = map(int, re.match(r"(\d+) bins and (\d+) bp", row[2]).groups())
        assert encoder.receptive_field(number(window)) == bins * int(bin_size) + margin
    else:
        assert encoder.receptive_field(number(window)) == number(window)


def test_the_page_names_every_trunk_of_a_stack():
    for name in set(trunk_names()) & {"bimamba", "mamba", "hyena", "transformer", "conv"}:
        assert f"`{name}`" in PAGE
