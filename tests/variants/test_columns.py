"""Names of score columns in a VCF."""

from __future__ import annotations

from seq2exp.variants.columns import ScoreColumn, info_keys


def column(name: str) -> ScoreColumn:
    return ScoreColumn(name, "expr_delta", None, "score", "a - r", "log10", signed=True)


def test_keys_hold_what_vcf_allows_and_differ() -> None:
    keys = info_keys([column("expr_delta:K-562"), column("expr_delta:K 562"), column("sed")])
    assert list(keys.values()) == ["S2E_EXPR_DELTA_K_562", "S2E_EXPR_DELTA_K_562_2", "S2E_SED"]
