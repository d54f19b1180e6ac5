from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.spatial.genes import TOKEN_MODES, GeneInputs, GeneTokenEncoder
from tests.priors.makers import make_prior

IDS = [f"ENSG{i:011d}" for i in range(60)]


def make_inputs(ids=IDS, **changes):
    random = np.random.default_rng(4)
    text = random.normal(size=(len(ids), 7)).astype(np.float32)
    text[1] = np.nan
    settings = {"train_genes": [gene for gene in ids if gene in IDS[:40]], "text": text}
    return GeneInputs.from_prior(make_prior(), ids, **(settings | changes))[0]


def perturbed(encoder):
    torch.manual_seed(3)
    with torch.no_grad():
        for each in encoder.parameters():
            each.add_(0.3 * torch.randn_like(each))
    return encoder


def make_encoder(mode, **changes):
    torch.manual_seed(0)
    return GeneTokenEncoder(mode, 8, genes=make_inputs(), **changes)


def norm(encoder, x):
    return F.layer_norm(x, (8,), encoder.norm.weight, encoder.norm.bias)


def test_each_mode_is_its_formula():
    inputs = make_inputs()
    z, text = torch.from_numpy(inputs.features["z"]), torch.from_numpy(inputs.text_GT)
    rows = [0, 2, 4, 50]  # with prior and with text
    for mode in TOKEN_MODES:
        encoder = perturbed(make_encoder(mode))
        tokens = encoder()
        assert tokens.shape == (60, 8)
        if mode == "none":
            assert not tokens.any()
            continue
        part = {}
        if "prior" in mode:
            part["prior"] = z @ encoder.from_prior.weight.T
        if "text" in mode:
            part["text"] = text @ encoder.from_text.weight.T
        if "table" in mode:
            part["table"] = encoder.table_GD
        if mode == "table+prior":
            expected = part["table"] + encoder.alpha * part["prior"]
        elif mode == "text+prior":
            share = encoder.gate(torch.cat([text, z], 1)).sigmoid()
            expected = share * part["text"] + (1 - share) * part["prior"]
        else:
            expected = part[mode]
        assert torch.allclose(tokens[rows], norm(encoder, expected)[rows], atol=1e-5)


def test_a_gene_without_prior_has_the_missing_vector_and_one_without_text_another():
    encoder = perturbed(make_encoder("prior"))
    assert not encoder.present_G[3]
    assert torch.allclose(encoder()[3], norm(encoder, encoder.missing_D))
    encoder = perturbed(make_encoder("text"))
    assert torch.allclose(encoder()[1], norm(encoder, encoder.wordless_D))
    assert torch.isfinite(encoder()).all()


def test_table_and_prior_start_as_the_table_alone():
    encoder = make_encoder("table+prior")
    assert encoder.gates() == {"alpha": [0.0]}
    assert torch.equal(encoder(), norm(encoder, encoder.table_GD))
    gates = make_encoder("text+prior").gates()["text"]
    assert len(gates) == 60
    assert all(0 < gate < 1 for gate in gates)
    assert make_encoder("prior").gates() == {}


@pytest.mark.parametrize("mode", [mode for mode in TOKEN_MODES if mode != "none"])
def test_every_parameter_learns(mode):
    encoder = perturbed(make_encoder(mode))
    (encoder() * torch.randn(60, 8)).sum().backward()
    assert all(each.grad.abs().sum() > 0 for each in encoder.parameters())


def test_statistics_come_from_training_genes():
    inputs = make_inputs()
    shown = inputs.present_G.copy()
    shown[40:] = False
    for name in ("z", "expr", "reg"):
        part = inputs.features[name]
        assert np.allclose(part[shown].mean(0), 0, atol=1e-5)
        assert np.allclose(part[shown].std(0, ddof=1), 1, atol=0.03)
        assert not part[3].any()
    prior = make_prior()
    prior.z[45:] += 9.0
    prior.reg[50] = np.nan
    other = GeneInputs.from_prior(prior, IDS, train_genes=IDS[:40])[0]
    assert np.allclose(other.features["z"][:40], inputs.features["z"][:40], atol=1e-5)
    assert not other.features["reg"][50].any()


def test_parts_of_the_prior_are_put_side_by_side():
    encoder = make_encoder("prior", use=("z", "reg"))
    assert encoder.prior_GP.shape[1] == make_inputs().features["z"].shape[1] + 2
    with pytest.raises(ConfigError, match="no coexpression"):
        make_encoder("prior", use=("coexpression",))


def test_tokens_follow_the_gene_not_the_place():
    inputs = make_inputs()
    order = np.random.default_rng(0).permutation(60)
    for mode in ("table", "prior", "table+prior", "text", "text+prior"):
        encoder = perturbed(make_encoder(mode))
        before = encoder()
        encoder.use_genes(inputs.take([IDS[i] for i in order]))
        assert torch.allclose(encoder(), before[torch.from_numpy(order)], atol=1e-6)


def test_hidden_genes_have_tokens_unless_there_is_only_a_table():
    inputs = make_inputs()
    seen, hidden = inputs.take(IDS[:40]), inputs.take(IDS[40:])
    encoder = GeneTokenEncoder("table", 8, genes=seen)
    with pytest.raises(ConfigError, match="mode table: found genes that were not trained on"):
        encoder.use_genes(hidden)
    for mode in ("prior", "text", "text+prior", "table+prior"):
        encoder = perturbed(GeneTokenEncoder(mode, 8, genes=seen))
        encoder.use_genes(hidden)
        assert encoder().shape == (20, 8)
        assert torch.isfinite(encoder()).all()
    with pytest.raises(ConfigError, match="features of a gene"):
        encoder.use_genes(
            GeneInputs(("a",), {"z": np.ones((1, 2), np.float32)}, None, np.ones((1, 7)))
        )


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="genes named twice"):
        GeneInputs(("a", "a"))
    with pytest.raises(InputError, match="a part of shape"):
        GeneInputs(("a",), {"z": np.zeros((2, 3), np.float32)})
    with pytest.raises(InputError, match=r"never aligned.*nobody"):
        make_inputs().take(["nobody"])
    with pytest.raises(ConfigError, match="no text"):
        GeneTokenEncoder("text", 8, genes=GeneInputs(("a", "b")))
    with pytest.raises(ConfigError, match="a mode"):
        GeneTokenEncoder("prio", 8, genes=make_inputs())


def test_weights_and_inputs_are_saved_together():
    first, second = perturbed(make_encoder("text+prior")), make_encoder("text+prior")
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(), second())
    assert {"prior_GP", "present_G", "text_GT"} <= set(first.state_dict())
