"""First-order scores, p-values of shuffled surroundings and quantiles, through the engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seq2exp.core.errors import ConfigError
from seq2exp.core.sequence import decode
from seq2exp.dataset.store import Dataset
from seq2exp.variants.background import BackgroundBuilder
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.engine import open_engine
from tests.toys import toy_dataset
from tests.variants.engines import Additive, engine_of, run_of, seq2exp, table_of
from tests.variants.test_engine import random_alleles


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset(toy_dataset(tmp_path_factory.mktemp("variants") / "toy"))


# The gradient ---------------------------------------------------------------------------------


@pytest.mark.parametrize("strands", ["forward", "both"])
def test_the_gradient_of_a_linear_model_is_the_exact_score(dataset, strands):
    alleles = random_alleles(dataset, count=90, seed=1, kinds=("snv", "mnv", "ins"))
    table, models = table_of(dataset, alleles), [Additive(1), Additive(2)]
    settings = {"strands": strands, "shifts": (0, 2), "scorers": ("expr_delta", "log_sed")}
    with engine_of(dataset, models, **settings) as engine:
        exact = engine.score(table)
    with engine_of(dataset, models, method="gradient", **settings) as engine:
        first = engine.score(table)
    indel = table["variant_type"].isin(["ins", "del"])
    lost = first[first["record"].isin(table["record"][indel])]
    assert set(lost["score_status"]) == {"skipped:gradient_indel"}
    assert set(lost["status"]) == {"unsupported"}
    both = exact.merge(first, on=["record", "gene_row"], suffixes=("", ":g"))
    both = both[both["score_status:g"] == "scored"]
    assert len(both) > 20
    for name in ("expr_delta:cell_a", "expr_delta:cell_b", "expr_delta:cell_a:sd"):
        np.testing.assert_allclose(both[name + ":g"], both[name], rtol=1e-4, atol=1e-5)


def test_the_gradient_follows_small_effects_of_a_network(dataset):
    """A smooth model: ranks agree with exact ones, and so do elements."""
    random = np.random.default_rng(2)
    tss = dataset.sites[6][1]
    alleles = []
    for position in random.choice(np.arange(tss - 60, tss + 60), 80, replace=False):
        ref = decode(dataset.contig_codes("chr1")[position : position + 1])
        alleles.append(("chr1", int(position), ref, "ACGT"[("ACGT".index(ref) + 1) % 4]))
    table, model = table_of(dataset, alleles), seq2exp(dataset)
    names = ("expr_delta", "expr_delta_fixed")
    with engine_of(dataset, [model], scorers=names) as engine:
        exact = engine.score(table)
    with engine_of(dataset, [model], scorers=names, method="gradient") as engine:
        first = engine.score(table)
    assert exact["in_element"].tolist() == first["in_element"].tolist()
    for name in ("expr_delta:cell_a", "expr_delta_fixed:cell_b"):
        assert exact[name].corr(first[name], method="spearman") > 0.5
        assert not np.allclose(exact[name], first[name])


def test_scores_that_a_gradient_cannot_give_are_refused(dataset):
    with (
        pytest.raises(ConfigError, match="mask_delta"),
        engine_of(dataset, [seq2exp(dataset)], method="gradient", scorers=("mask_delta",)),
    ):
        pass
    with pytest.raises(ConfigError, match="null"):
        ScoreConfig(method="gradient", null_draws=9)


# Shuffled surroundings ------------------------------------------------------------------------


class Next(Additive):
    """y = number of CG pairs: the effect of a base hangs on its neighbours alone."""

    def one_strand(self, call):
        out = super().one_strand(call)
        codes = call.codes_BL
        pairs = ((codes[:, :-1] == 1) & (codes[:, 1:] == 2)).sum(1).double()
        out.expression_BK[:] = pairs[:, None]
        return out


def test_surroundings_do_not_matter_to_an_additive_model(dataset):
    """Every draw gives the score itself, so no draw is less extreme: p is 1."""
    table = table_of(dataset, random_alleles(dataset, count=15, seed=3, kinds=("snv", "mnv")))
    with engine_of(dataset, [Additive()], null_draws=7, scorers=("expr_delta",)) as engine:
        found = engine.score(table)
    scored = found[found.score_status == "scored"]
    assert len(scored) > 5
    draws = draws_of(dataset, Additive(), table)
    for number, row in enumerate(found.itertuples()):
        if row.score_status == "scored":
            expected = found.loc[row.Index, "expr_delta:cell_a"]
            np.testing.assert_allclose(draws[number][:, 0], expected, rtol=1e-4, atol=1e-5)


def draws_of(dataset, model, table, **settings):
    from seq2exp.variants.judge import judge

    settings = {"null_draws": 7, "scorers": ("expr_delta",)} | settings
    with engine_of(dataset, [model], **settings) as engine:
        cases = judge(table, dataset)
        found = {}
        for number, row in enumerate(engine.score(table).itertuples()):
            if row.score_status == "scored":
                case = cases[int(row.record)]
                found[number] = engine.gene(int(row.gene_row)).draw(case)
        return found


def test_the_bases_next_to_a_variant_stay_so_its_pairs_do(dataset):
    """Shuffles keep the neighbours: a count of pairs changes by the same in every draw."""
    table = table_of(dataset, random_alleles(dataset, count=20, seed=4, kinds=("snv",)))
    with engine_of(dataset, [Next()], null_draws=7, scorers=("expr_delta",)) as engine:
        found = engine.score(table)
    for number, draws in draws_of(dataset, Next(), table).items():
        assert (draws[:, 0] == found["expr_delta:cell_a"].iloc[number]).all()
    scored = found[found.score_status == "scored"]
    assert (scored["expr_delta:cell_a:p"] == 1).all()


def test_draws_hang_on_seed_and_variant_only(dataset):
    alleles = random_alleles(dataset, count=12, seed=5)
    model = seq2exp(dataset)
    settings = {"null_draws": 5, "scorers": ("expr_delta", "mask_delta")}
    with engine_of(dataset, [model], batch_size=4, **settings) as engine:
        one = engine.score(table_of(dataset, alleles))
        names = [column.name for column in engine.columns if column.kind == "p"]
    with engine_of(dataset, [model], batch_size=32, **settings) as engine:
        other = engine.score(table_of(dataset, alleles[::-1]))
    last = len(alleles) - 1
    both = one.merge(
        other.assign(record=last - other["record"]), on=["record", "gene_row"],
        suffixes=("", ":other"),
    )  # fmt: skip
    scored = both[both.score_status == "scored"]
    assert len(scored) > 3
    for name in names:
        # A draw that equals the score but for rounding may fall on either side.
        same = (scored[name] - scored[name + ":other"]).abs()
        assert (same < 1e-6).mean() > 0.8
        assert same.max() < 2.5 / 6
        assert scored[name].between(1 / 6, 1).all()
    with engine_of(dataset, [model], seed=1, **settings) as engine:
        different = engine.score(table_of(dataset, alleles))
    assert not np.allclose(one[names].fillna(0), different[names].fillna(0))


# Quantiles ------------------------------------------------------------------------------------


def test_quantiles_are_places_among_the_background(dataset):
    alleles = random_alleles(dataset, count=400, seed=6, kinds=("snv",))
    table, run = table_of(dataset, alleles), run_of(dataset, Additive())
    config = ScoreConfig(scorers=("expr_delta",))
    with open_engine(run, dataset, config) as engine:
        common = engine.score(table)
        columns = engine.columns
    builder = BackgroundBuilder(columns, model_hash="a" * 64)
    kinds = table["variant_type"].to_numpy()[common["record"]]
    keys = {name: table[name].to_numpy()[common["record"]] for name in
            ("chrom", "norm_position", "norm_ref", "norm_alt")}  # fmt: skip
    builder.add(common.assign(variant_type=kinds, **keys))
    with open_engine(run, dataset, config, background=builder.build()) as engine:
        found = engine.score(table)
    scored = found[found.score_status == "scored"]
    size = scored["expr_delta:cell_a"].abs()
    rank = (size.rank() - 0.5) / len(scored)
    assert len(scored) > 100
    np.testing.assert_allclose(scored["expr_delta:cell_a:quantile"], rank, atol=1e-6)
    signed = 2 * (scored["expr_delta:cell_a"].rank() - 0.5) / len(scored) - 1
    np.testing.assert_allclose(scored["expr_delta:cell_a:signed_quantile"], signed, atol=1e-6)
    missing = found[found.score_status != "scored"]
    assert missing["expr_delta:cell_a:quantile"].isna().all()


def test_short_memory_halves_what_is_run_at_once(dataset):
    sizes = []

    class Small(Additive):
        def one_strand(self, call):
            if len(call.codes_BL) > 3:
                raise torch.OutOfMemoryError
            sizes.append(len(call.codes_BL))
            return super().one_strand(call)

    table = table_of(dataset, random_alleles(dataset, count=60, seed=7))
    with engine_of(dataset, [Small()], batch_size=16) as engine:
        small = engine.score(table)
    with engine_of(dataset, [Additive()], batch_size=16) as engine:
        whole = engine.score(table)
    names = [column.name for column in engine.columns]
    np.testing.assert_allclose(small[names], whole[names], atol=1e-5)
    assert max(sizes) <= 3
