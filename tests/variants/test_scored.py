"""Finished tables read back: backgrounds of several, steps of p-values, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seq2exp.core.errors import FormatError, InputError
from seq2exp.variants.background import CAPACITY, Background
from seq2exp.variants.columns import ScoreColumn
from seq2exp.variants.scored import make_background, open_scored, p_values

SIGNED, SIZE = "expr_delta:K562", "mask_max"
HEADER = {"score_hash": "a" * 64, "null_draws": 9}


def columns_of(*, with_p=True):
    found = [
        ScoreColumn(SIGNED, "expr_delta", "K562", "score", "y_a - y_r", "log10", True),
        ScoreColumn(SIZE, "mask_max", None, "score", "max", "1", False),
    ]
    p = [dataclasses.replace(column, name=f"{column.name}:p", kind="p") for column in found]
    return [*found, *p] if with_p else found


def table_at(path, num=200, *, first=0, header=HEADER, columns=None, **changes):
    """Substitutions near a TSS, with the columns that a background reads."""
    columns = columns_of() if columns is None else columns
    random = np.random.default_rng(first)
    frame = pd.DataFrame(
        {
            "chrom": "chr1", "norm_pos1": np.arange(first, first + num) + 1, "norm_ref": "A",
            "norm_alt": "C", "gene_id": "G1", "variant_type": "snv", "distance_to_tss": 10,
        }
    )  # fmt: skip
    for column in columns:
        frame[column.name] = random.random(num).astype(np.float32)
    table = pa.Table.from_pandas(frame.assign(**changes), preserve_index=False)
    notes = {
        "seq2exp.columns": json.dumps([dataclasses.asdict(column) for column in columns]),
        "seq2exp.variants": json.dumps(header),
    }
    pq.write_table(table.replace_schema_metadata(notes), path)
    return path


def test_a_background_of_several_tables_holds_each_pair_once(tmp_path):
    one = table_at(tmp_path / "1.parquet")
    two = table_at(tmp_path / "2.parquet", first=200)
    paths = [one, two, one]
    found = make_background(paths, tmp_path / "bg")
    assert found.num_pairs == 400
    score = np.concatenate([pq.read_table(path)[SIZE].to_numpy() for path in paths[:2]])
    again = Background.load(tmp_path / "bg", model_hash=HEADER["score_hash"])
    asked = again.quantiles(SIZE, [0.3], variant_type=["snv"], distance=[0])
    assert asked == pytest.approx((score < np.float32(0.3)).mean())
    # The same position of another gene is another pair.
    other = table_at(tmp_path / "3.parquet", gene_id="G2")
    assert make_background([one, other], tmp_path / "bg2").num_pairs == 400


def test_only_tables_of_one_model_settings_and_scores_are_put_together(tmp_path):
    one = table_at(tmp_path / "1.parquet")
    model = table_at(tmp_path / "2.parquet", header=HEADER | {"score_hash": "b" * 64})
    fewer = table_at(tmp_path / "3.parquet", columns=columns_of(with_p=False)[:1])
    for other in (model, fewer):
        for paths in ([one, other], [other, one]):
            with pytest.raises(InputError, match=rf"{paths[1].name}.*another model, other set"):
                make_background(paths, tmp_path / "bg")
    assert not (tmp_path / "bg").exists()
    # p-values are no scores: tables with and without them go together.
    plain = table_at(tmp_path / "4.parquet", first=200, columns=columns_of(with_p=False))
    assert make_background([one, plain], tmp_path / "bg").num_pairs == 400


def test_the_seed_chooses_which_of_very_many_pairs_are_kept(tmp_path):
    path = table_at(tmp_path / "1.parquet", CAPACITY + 500)
    kept = []
    for number, seed in enumerate((0, 0, 1)):
        (values,) = make_background([path], tmp_path / f"bg{number}", seed=seed).cells.values()
        assert len(values) == CAPACITY
        kept.append(set(values[:, 1].tolist()))
    assert kept[0] == kept[1] != kept[2]


def test_p_values_are_multiples_of_their_step(tmp_path):
    """With 9 draws a tail is a multiple of 1/10; signed scores are two-sided, which doubles it."""
    table = open_scored(table_at(tmp_path / "1.parquet", 5))
    frame, step = p_values(table)
    assert frame.columns.tolist() == ["gene_id", SIGNED, SIZE]
    assert step == {SIGNED: pytest.approx(1 / 5), SIZE: pytest.approx(1 / 10)}
    stored = pq.read_table(table.path)
    for name in (SIGNED, SIZE):
        assert frame[name].tolist() == stored[f"{name}:p"].to_pylist()
    frame, step = p_values(table, [SIZE])
    assert frame.columns.tolist() == ["gene_id", SIZE]
    assert step == {SIZE: pytest.approx(1 / 10)}
    with pytest.raises(InputError, match=f"none of sed, expected one of {SIGNED}, {SIZE}"):
        p_values(table, ["sed"])
    plain = open_scored(table_at(tmp_path / "2.parquet", columns=columns_of(with_p=False)))
    with pytest.raises(InputError, match="--null shuffle"):
        p_values(plain)


def test_what_is_no_table_of_scores_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        open_scored(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("chrom")
    pd.DataFrame({"chrom": ["chr1"]}).to_parquet(tmp_path / "plain.parquet")
    for name in ("text.parquet", "plain.parquet"):
        with pytest.raises(FormatError, match="a Parquet table that `seq2exp variants` wrote"):
            open_scored(tmp_path / name)
    with pytest.raises(InputError, match="score again without --long"):
        open_scored(table_at(tmp_path / "long.parquet", scorer="expr_delta"))
