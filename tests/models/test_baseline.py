"""The model around one encoder, shown on encoders that are simple enough to know the answer."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.encoders import registry
from seq2exp.models import build_model, config_dict
from seq2exp.models.baseline import BaselineConfig
from seq2exp.nn.sequence import one_hot, reverse_complement
from seq2exp.nn.tracks import TrackScaling

WINDOW, BIN = 64, 8


@dataclass(frozen=True)
class CountConfig:
    """No settings but one."""

    fail: bool = False


class Counts(nn.Module):
    """Share of each base in each bin, and the tracks."""

    causal, rc, window_bp, takes_tracks = False, "none", None, True

    def __init__(self, config, *, tracks, window_bp, bin_size):
        super().__init__()
        self.bin_size, self.out_dim = bin_size, 4 + len(tracks)
        self.scaling = TrackScaling(len(tracks), transform="log1p")
        self.seen = None

    def set_track_scaling(self, mean_T, std_T):
        self.scaling.set_scaling(mean_T, std_T)

    def forward(self, codes_BL, signal_BNT=None, mask_BN=None, *, span=None):
        if signal_BNT is not None:
            signal_BNT = self.scaling.scaled(signal_BNT)
        self.seen = signal_BNT
        counts_BND = one_hot(codes_BL).unflatten(1, (-1, self.bin_size)).mean(2)
        if signal_BNT is not None:
            counts_BND = torch.cat([counts_BND, torch.nan_to_num(signal_BNT)], dim=-1)
        return counts_BND if span is None else counts_BND[:, slice(*span)]


class Strands(Counts):
    """Both strands of the counts, as an equivariant encoder lays them out."""

    rc = "equivariant"

    def __init__(self, config, *, tracks, window_bp, bin_size):
        super().__init__(config, tracks=tracks, window_bp=window_bp, bin_size=bin_size)
        self.out_dim = 8
        self.mix = nn.Linear(4, 4)

    def forward(self, codes_BL, signal_BNT=None, mask_BN=None, *, span=None):
        dtype = self.mix.weight.dtype
        mine = self.mix(super().forward(codes_BL).to(dtype))
        theirs = self.mix(super().forward(reverse_complement(codes_BL)).to(dtype)).flip(1, 2)
        hidden = torch.cat([mine, theirs], dim=-1)
        return hidden if span is None else hidden[:, slice(*span)]


class Pooling(Counts):
    """One position for the whole window."""

    pools = True

    def forward(self, codes_BL, signal_BNT=None, mask_BN=None, *, span=None):
        return super().forward(codes_BL, signal_BNT).mean(1, keepdim=True)


class Elements(Pooling):
    """Length of the candidate elements in place of the first base."""

    takes_elements = True

    def forward(self, codes_BL, signal_BNT=None, mask_BN=None, *, elements_BR2, span=None):
        hidden = super().forward(codes_BL, signal_BNT)
        lengths_BR = (elements_BR2[..., 1] - elements_BR2[..., 0]).clamp(min=0)
        return hidden.index_copy(
            2, torch.tensor([0]), lengths_BR.sum(1).to(hidden.dtype)[:, None, None]
        )


class Coarse(Counts):
    """Bins of its own."""

    def __init__(self, config, **data):
        super().__init__(config, **data)
        self.bin_size = 16


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    known = dict(registry._ENCODERS)
    for name, cls in (("counts", Counts), ("strands", Strands), ("pooling", Pooling)):
        known[name] = (CountConfig, cls)
    known["elements"] = (CountConfig, Elements)
    known["coarse"] = (CountConfig, Coarse)
    monkeypatch.setattr(registry, "_ENCODERS", known)


def make(encoder="counts", **settings):
    torch.manual_seed(0)
    values = {"window_bp": WINDOW, "bin_size": BIN, "readout_bp": 16, "head_hidden": 8}
    return build_model("baseline", values | {"encoder": encoder} | settings)


def codes(batch=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 4, (batch, WINDOW), generator=generator, dtype=torch.uint8)


def test_reads_the_mean_of_the_central_bins():
    model = make()
    found = model(codes()).embedding_BD
    # 16 bp around base 32: the bins [24, 32) and [32, 40).
    torch.testing.assert_close(found, one_hot(codes()[:, 24:40]).mean(1))


@pytest.mark.parametrize("readout", ["context", "bands"])
def test_reads_the_whole_window_where_the_readout_does(readout):
    model = make(readout=readout, readout_edges=[-32, 0, 32])
    changed = codes()
    changed[:, 0] = (changed[:, 0] + 1) % 4
    assert not torch.equal(model(codes()).expression_BK, model(changed).expression_BK)
    changed_for_mean = make()(changed).expression_BK
    torch.testing.assert_close(make()(codes()).expression_BK, changed_for_mean)


def test_a_pooling_encoder_is_read_as_it_is():
    found = make("pooling")(codes()).embedding_BD
    torch.testing.assert_close(found, one_hot(codes()).mean(1))


def test_elements_reach_the_encoders_that_read_them():
    elements = torch.tensor([[[3, 10], [-1, -1]], [[0, 4], [60, 64]], [[-1, -1], [-1, -1]]])
    found = make("elements")(codes(), elements_BR2=elements).embedding_BD
    assert found[:, 0].tolist() == [7, 8, 0]
    make()(codes(), elements_BR2=elements)
    with pytest.raises(InputError, match="elements"):
        make("elements")(codes())


def test_an_equivariant_encoder_gives_one_answer_for_both_strands():
    model = make("strands").double()
    forth, back = model(codes()), model(reverse_complement(codes()))
    torch.testing.assert_close(forth.expression_BK, back.expression_BK, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(
        make()(codes()).expression_BK, make()(reverse_complement(codes())).expression_BK
    )


def test_rc_average_is_the_mean_of_both_strands():
    model = make(rc_average=True).eval()
    alone = make().eval()
    alone.load_state_dict(model.state_dict())
    expected = (alone(codes()).expression_BK + alone(reverse_complement(codes())).expression_BK) / 2
    torch.testing.assert_close(model(codes()).expression_BK, expected)
    torch.testing.assert_close(model.train()(codes()).expression_BK, alone(codes()).expression_BK)


def test_tracks_reach_the_encoder_transformed_and_standardised_only_when_asked():
    signal = torch.rand(3, WINDOW // BIN, 1) * 9
    signal[0, 0] = torch.nan
    deaf = make(tracks=["DNase"])
    deaf(codes(), signal)
    assert deaf.encoder.seen is None
    model = make(tracks=["DNase"], use_tracks=True)
    model.fit_scaling([(signal, None)])
    model(codes(), signal)
    seen = model.encoder.seen
    logs = torch.log1p(signal)
    known = ~torch.isnan(signal)
    assert torch.equal(torch.isnan(seen), ~known)
    expected = (logs - logs[known].mean()) / logs[known].std(unbiased=False)
    torch.testing.assert_close(seen[known], expected[known])


def test_features_and_labels_are_scaled_from_training_genes():
    model = make(num_features=2)
    features = torch.tensor([[1.0, 10.0], [3.0, torch.nan], [5.0, 30.0]])
    model.fit_scaling([(None, features)])
    torch.testing.assert_close(model.head.feature_mean_F, torch.tensor([3.0, 20.0]))
    model.set_output_scaling(torch.tensor([2.0]), torch.tensor([0.0]))
    assert (float(model.head.output_mean_K), float(model.head.output_std_K)) == (2.0, 1.0)
    assert torch.isfinite(model(codes(), None, features).expression_BK).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"set data.bin_size to 16"):
        make("coarse")
    with pytest.raises(ConfigError, match="use 'counts'"):
        make("count")
    with pytest.raises(ConfigError, match="'fail'"):
        make(encoder_params={"fial": True})
    with pytest.raises(ConfigError, match="use_tracks"):
        make(use_tracks=True)
    with pytest.raises(InputError, match="shape"):
        make()(codes()[:, 1:])
    with pytest.raises(InputError, match="signal"):
        make(tracks=["DNase"], use_tracks=True)(codes())


def test_configuration_survives_plain_values():
    model = make(tracks=["DNase"], encoder_params={"fail": False})
    plain = config_dict(model)
    assert plain["name"] == "baseline"
    assert build_model(plain["name"], plain["params"]).config == model.config
    assert isinstance(model.config, BaselineConfig)
