"""How many windows scoring runs (variants.md 16.14), and p-values where nothing acts (16.12)."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import nn

from seq2exp.core.sequence import N_CODE, decode
from seq2exp.dataset.store import Dataset
from seq2exp.models.baseline import Baseline, BaselineConfig
from seq2exp.models.output import Seq2ExpOutput
from tests.toys import ToyPlan, toy_dataset
from tests.variants.engines import BIN, WINDOW, Additive, engine_of, seq2exp, table_of


@pytest.fixture(scope="module")
def lonely(tmp_path_factory) -> Dataset:
    """One gene: every variant has one window."""
    plan = ToyPlan(contigs=(("chr1", "train", 1),))
    return Dataset(toy_dataset(tmp_path_factory.mktemp("lonely") / "d", plan))


def snvs(data: Dataset, num: int, *, seed: int = 0) -> list[tuple[str, int, str, str]]:
    tss = data.sites[0][1]
    codes = np.asarray(data.contig_codes("chr1"))
    known = np.flatnonzero(codes[: tss + WINDOW // 2 - 20] != N_CODE)
    random, found = np.random.default_rng(seed), []
    for place in np.sort(random.choice(known, num, replace=False)):
        ref = decode(codes[place : place + 1])
        found.append(("chr1", int(place), ref, "ACGT"[("ACGT".index(ref) + 1) % 4]))
    return found


def counted(model: nn.Module, data: Dataset, alleles, **settings) -> tuple[int, int]:
    """Windows that reach the head of a model, and rows that are scored."""
    windows = []
    hook = model.head.register_forward_hook(lambda *call: windows.append(len(call[2])))
    with engine_of(data, [model], **settings) as engine:
        table = engine.score(table_of(data, alleles))
    hook.remove()
    return sum(windows), int((table["score_status"] == "scored").sum())


class Head(Additive):
    """A model that shares nothing among its edits."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Identity()

    def one_strand(self, call):
        output = super().one_strand(call)
        self.head(output.expression_BK)
        return output


def make(kind: str, data: Dataset) -> nn.Module:
    if kind == "plain":
        return Head()
    if kind == "seq2exp":
        return seq2exp(data)
    names = tuple(feature.name for feature in data.manifest.features)
    return Baseline(
        BaselineConfig(
            encoder="conv", encoder_params={"d_model": 8, "num_layers": 1, "stem": {"channels": 4}},
            num_features=len(names), num_outputs=2, window_bp=WINDOW, bin_size=BIN,
        )
    ).eval()  # fmt: skip


@pytest.mark.parametrize("kind", ["plain", "seq2exp", "baseline"])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_reference_is_run_once_and_every_substitution_once(lonely, kind, batch_size):
    model, alleles = make(kind, lonely), snvs(lonely, 20)
    settings = {"scorers": ("expr_delta",), "batch_size": batch_size}
    assert counted(model, lonely, alleles, **settings) == (21, 20)
    # The same allele again costs nothing within a batch, and one equal to REF never does.
    same = [(contig, place, ref, ref) for contig, place, ref, _ in alleles[:3]]
    assert counted(model, lonely, [*same, *alleles], **settings)[0] == 21
    # Twice as many members, twice as many windows.
    assert counted(model, lonely, alleles, **settings, strands="both")[0] == 42


def test_tables_that_follow_each_other_share_the_reference(lonely):
    model, windows = seq2exp(lonely), []
    model.head.register_forward_hook(lambda *call: windows.append(len(call[2])))
    with engine_of(lonely, [model], scorers=("expr_delta",)) as engine:
        for first in (0, 5, 10):
            engine.score(table_of(lonely, snvs(lonely, 15)[first : first + 5]))
    assert sum(windows) == 16


class Words(nn.Module):
    """y = sum over words of six bases of a random weight each: surroundings matter."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(4**6, generator=random).double())
        self.config = SimpleNamespace(mask="none", rc_average=False)

    def one_strand(self, call):
        codes_BL = call.codes_BL.long().clamp(max=3)
        parts = [codes_BL[:, i : WINDOW - 5 + i] * 4**i for i in range(6)]
        total_B = self.weight[sum(parts)].sum(1)
        ones_BN = total_B.new_ones((len(total_B), WINDOW // BIN))
        return Seq2ExpOutput(
            expression_BK=torch.stack([total_B, -total_B], 1), mask_BN=ones_BN, mean_BN=ones_BN,
            alpha_BN=None, beta_BN=None, kl_B=total_B * 0, track_loss_B=total_B * 0,
            embedding_BD=total_B[:, None],
        )  # fmt: skip


def test_p_values_of_the_engine_are_uniform_where_only_chance_acts(lonely):
    """Substitutions of random DNA under random weights; 24 shuffles make steps of 2/25."""
    alleles = snvs(lonely, 100, seed=2)
    with engine_of(lonely, [Words()], scorers=("expr_delta",), null_draws=24) as engine:
        table = engine.score(table_of(lonely, alleles))
    p = table["expr_delta:cell_a:p"].to_numpy()
    np.testing.assert_array_equal(p, table["expr_delta:cell_b:p"])
    assert p.max() <= 1
    assert p.min() >= np.float32(0.08)
    assert kstest(p, "uniform").pvalue > 0.01
