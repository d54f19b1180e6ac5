"""What mclSTExp, BLEEP and HESCAPE have in common."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from seq2exp.core.errors import ConfigError, InputError, Seq2ExpWarning
from seq2exp.spatial.batch import SpatialSystem, SystemInfo
from seq2exp.spatial.genes import GeneInputs
from seq2exp.spatial.image_tower import ImageTower
from seq2exp.spatial.metrics import columns_pearson
from seq2exp.spatial.retrieval import RetrievalBank, RetrievalConfig
from seq2exp.spatial.systems.bleep import Bleep, BleepConfig
from seq2exp.spatial.systems.hescape import Hescape, HescapeConfig
from seq2exp.spatial.systems.mclstexp import MclSTExp, MclSTExpConfig
from seq2exp.spatial.towers import evaluating, join_spots
from tests.spatial.pairs import latent_pairs, train

FEW = RetrievalConfig(k=20)
PAIRS = latent_pairs(image_noise=0.3, gene_noise=0.3, num=400)
GENES = GeneInputs(
    tuple(f"g{i}" for i in range(200)),
    {"z": np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)},
    np.arange(200) != 3,
)
TOKENS = {"genes": GENES}
SYSTEMS = {
    "mclstexp": (MclSTExp, MclSTExpConfig(width=32), {}),
    "mclstexp_mlp": (MclSTExp, MclSTExpConfig(width=32, position="mlp"), {}),
    "mclstexp_near": (MclSTExp, MclSTExpConfig(width=32, context="neighbours"), {}),
    "mclstexp_soft": (MclSTExp, MclSTExpConfig(width=32, false_negatives="soft"), {}),
    "mclstexp_mask": (MclSTExp, MclSTExpConfig(width=32, false_negatives="mask"), {}),
    "mclstexp_tokens": (MclSTExp, MclSTExpConfig(width=32, spot="tokens"), TOKENS),
    "bleep": (Bleep, BleepConfig(width=32), {}),
    "hescape": (Hescape, HescapeConfig(width=32), {}),
    "hescape_siglip": (Hescape, HescapeConfig(width=32, objective="siglip"), {}),
    "hescape_pca": (Hescape, HescapeConfig(width=32, gene="pca"), {}),
    "hescape_priorpool": (Hescape, HescapeConfig(width=32, gene="priorpool"), TOKENS),
    "hescape_tokens": (Hescape, HescapeConfig(width=32, gene="tokens", gene_width=16), TOKENS),
}  # fmt: skip
COMPAT = {
    "mclstexp_compat": (MclSTExp, MclSTExpConfig(width=32, reference_compat=True), {}),
    "bleep_compat": (Bleep, BleepConfig(width=32, reference_compat=True), {}),
}


def make_system(name, **changes):
    kind, config, extra = (SYSTEMS | COMPAT)[name]
    torch.manual_seed(0)
    system = kind(replace(config, retrieval=FEW, **changes), PAIRS.info(), **extra)
    if isinstance(system, Hescape):
        system.prepare([PAIRS.batch()])
    return system


def seen(system):
    """Statistics of the inputs, as a step of training leaves them."""
    system.train()
    system.loss(PAIRS.batch(), 0)
    return system.eval()


def with_bank(name):
    system = seen(make_system(name))
    system.fit_reference([PAIRS.batch()])
    return system


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_prediction_hangs_on_its_spot_alone(name):
    system = with_bank(name)
    assert isinstance(system, SpatialSystem)
    rows = np.arange(150, 250)
    together = system.predict(PAIRS.batch(rows))
    assert together.shape == (100, 200)
    assert torch.equal(together, system.predict(PAIRS.batch(rows)))
    alone = torch.cat([system.predict(PAIRS.batch([row])) for row in rows[:9]])
    assert torch.allclose(together[:9], alone, atol=1e-4)
    order = np.random.default_rng(0).permutation(100)
    assert torch.allclose(system.predict(PAIRS.batch(rows[order])), together[order], atol=1e-5)


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_bank_hangs_on_no_order_or_batch_size(name):
    system = with_bank(name)
    order = np.random.default_rng(0).permutation(400)
    bank = system.bank
    again = system.fit_reference([PAIRS.batch(rows) for rows in np.array_split(order, 7)])
    assert torch.allclose(again.keys_ND, bank.keys_ND, atol=1e-4)
    for field in ("expression_NG", "spot_N", "section_N", "patient_N"):
        assert torch.equal(getattr(again, field), getattr(bank, field))


def test_the_compatible_bank_does_hang_on_it():
    """Marked as such: the published spot encoder makes a sentence of the mini-batch."""
    system = with_bank("mclstexp_compat")
    bank = system.bank
    order = np.random.default_rng(0).permutation(400)
    again = system.fit_reference([PAIRS.batch(rows) for rows in np.array_split(order, 7)])
    assert torch.equal(again.spot_N, bank.spot_N)
    assert not torch.allclose(again.keys_ND, bank.keys_ND, atol=1e-2)


@pytest.mark.parametrize("name", [*SYSTEMS, *COMPAT])
def test_every_parameter_learns(name):
    system = make_system(name)
    system.train()
    if name == "hescape_siglip":
        with torch.no_grad():
            system.bias.fill_(-1.0)
    system.loss(PAIRS.batch(np.arange(0, 400, 3)), 0)["total"].backward()
    still = [
        key for key, each in system.named_parameters()
        if each.grad is None or not each.grad.abs().sum() > 0
    ]  # fmt: skip
    assert still == []


@pytest.mark.parametrize("name", [*SYSTEMS, *COMPAT])
def test_saved_and_loaded_predicts_the_same(name, tmp_path):
    system = with_bank(name)
    system.bank.save(tmp_path / "bank")
    again = make_system(name)
    again.load_state_dict(system.state_dict())
    again.eval()
    again.set_bank(RetrievalBank.load(tmp_path / "bank"))
    batch = PAIRS.batch(np.arange(50))
    assert torch.equal(again.predict(batch), system.predict(batch))


@pytest.mark.parametrize("name", ["mclstexp", "bleep", "hescape"])
def test_dropout_is_off_where_it_must_be_and_modes_come_back(name):
    system = with_bank(name).train()
    if name == "mclstexp":
        system = with_bank_of(make_system(name, dropout=0.5)).train()
    batch = PAIRS.batch(np.arange(64))
    assert torch.equal(system.predict(batch), system.predict(batch))
    assert torch.equal(system.embed(batch), system.embed(batch))
    assert system.training
    assert system.image.head.training
    losses = [float(system.loss(batch, 0)["total"].detach()) for _ in range(2)]
    assert losses[0] != losses[1]
    kept = system.image.standard.count_F.clone()
    system.predict(batch)
    assert torch.equal(kept, system.image.standard.count_F)


def with_bank_of(system):
    seen(system).fit_reference([PAIRS.batch()])
    return system


@pytest.mark.parametrize("name", ["mclstexp", "bleep", "hescape", "hescape_siglip"])
def test_one_seed_gives_one_bank_and_one_prediction(name):
    found = []
    for _ in range(2):
        system = make_system(name)
        train(system, PAIRS.take(PAIRS.patient == 0), steps=12, batch_size=64)
        bank = system.fit_reference([PAIRS.take(PAIRS.patient == 0).batch()])
        held_out = PAIRS.take(PAIRS.patient == 1).batch()
        found.append((bank.keys_ND, system.predict(held_out)))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("name", ["mclstexp", "bleep", "hescape", "hescape_siglip"])
def test_planted_signal_is_recovered_and_shuffled_patches_give_nothing(name):
    pairs = latent_pairs(image_noise=0.3, gene_noise=0.3, num=1600)
    system = make_system(name)
    known, new = pairs.take(pairs.patient == 0), pairs.take(pairs.patient == 1)
    train(system, known, steps=120, lr=2e-3)
    system.fit_reference([known.batch()])
    assert columns_pearson(new.y, system.predict(new.batch()).double().numpy()).mean() > 0.45
    order = np.random.default_rng(0).permutation(len(new))
    shuffled = replace(new, feat=new.feat[order])
    null = columns_pearson(new.y, system.predict(shuffled.batch()).double().numpy()).mean()
    assert abs(null) < 0.03


def test_no_answer_comes_from_the_query_s_patient():
    system = with_bank("mclstexp")
    found = system.retrieve(PAIRS.batch())
    patient = torch.from_numpy(PAIRS.patient)
    assert not (system.bank.patient_N[found.ids_BK] == patient[:, None]).any()
    assert not found.leaky
    assert with_bank("mclstexp_compat").retrieve(PAIRS.batch()).leaky


def test_numbers_of_another_cohort_need_names():
    system = seen(make_system("bleep"))
    system.fit_reference([PAIRS.batch()], patients=["ann", "bea"], sections=list("abcd"))
    bank, query = system.bank, PAIRS.batch(np.arange(10))
    # In another cohort number 0 is bea.
    system.name_cohort(["bea", "cleo"], ["x", "y"])
    found = system.retrieve(query)
    assert {bank.patients[i] for i in bank.patient_N[found.ids_BK].flatten()} == {"ann"}
    fresh = make_system("bleep")
    fresh.load_state_dict(system.state_dict())
    fresh.set_bank(bank)
    with pytest.raises(ConfigError, match="call name_cohort"):
        fresh.predict(query)


def test_a_bank_is_needed_and_must_be_of_these_towers():
    system = seen(make_system("hescape"))
    with pytest.raises(ConfigError, match="call fit_reference"):
        system.predict(PAIRS.batch([0]))
    with pytest.raises(ConfigError, match="keys of another model"):
        system.set_bank(with_bank("bleep").bank)
    with pytest.raises(InputError, match="no batch"):
        system.fit_reference([])
    with pytest.raises(InputError, match=r"spots given twice.*3 in all"):
        system.fit_reference([PAIRS.batch(), PAIRS.batch([0, 1, 2])])


def test_a_bank_is_extended_without_training():
    system = seen(make_system("mclstexp"))
    half = system.fit_reference([PAIRS.take(PAIRS.section < 2).batch()])
    rest = system.fit_reference([PAIRS.take(PAIRS.section >= 2).batch()])
    whole = system.fit_reference([PAIRS.batch()])
    system.set_bank(half.extend(rest))
    query = PAIRS.batch(np.arange(9))
    joined = system.predict(query)
    system.set_bank(whole)
    assert torch.allclose(joined, system.predict(query), atol=1e-5)


@pytest.mark.parametrize("name", ["mclstexp_tokens", "hescape_priorpool", "hescape_tokens"])
def test_a_bank_of_another_panel_serves_where_genes_have_tokens(name):
    """Trained on panel B, reference and predictions in panel A, which shares no gene with it."""
    half = replace(PAIRS, y=PAIRS.y[:, :100])
    other = replace(PAIRS, y=PAIRS.y[:, 100:])
    kind, config, _ = SYSTEMS[name]
    if name == "mclstexp_tokens":
        config = replace(config, token_mode="prior")
    system = kind(
        replace(config, retrieval=FEW), half.info(), genes=GENES.take(GENES.gene_id[:100])
    )
    system.train()
    system.loss(half.batch(), 0)
    system.eval()
    system.use_genes(GENES.take(GENES.gene_id[100:]), [other.batch()])
    system.fit_reference([other.batch()], genes=GENES.gene_id[100:])
    query = PAIRS.batch(np.arange(8))
    found = system.retrieve(query)
    expected = system.bank.expression_NG[found.ids_BK]
    assert torch.equal(system.bank.expression_NG, torch.from_numpy(other.y).float())
    assert torch.allclose(found.mean_BG, (expected * found.weights_BK[..., None]).sum(1), atol=1e-5)


@pytest.mark.parametrize("name", ["mclstexp", "bleep", "hescape", "mclstexp_tokens"])
def test_another_panel_is_refused_where_genes_are_columns(name):
    """mclstexp_tokens here has a free table, which has no vector for other genes."""
    system = with_bank(name)
    inputs = GeneInputs(tuple(f"new{i}" for i in range(200)), GENES.features, GENES.present_G)
    with pytest.raises(ConfigError, match=r"panel|genes that were not trained on"):
        system.use_genes(inputs, [PAIRS.batch()])


class Means(nn.Module):
    """An encoder: the mean colour of a patch."""

    dim = 3

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))

    def pool(self, x):
        return x.mean((2, 3)) * self.gain


def test_an_encoder_may_be_trained_with_the_tower():
    batch = replace(PAIRS.batch(np.arange(40)), feat=None, img=torch.rand(40, 3, 8, 8))
    torch.manual_seed(0)
    system = Bleep(BleepConfig(width=16), replace(PAIRS.info(), feat_dim=0), encoder=Means())
    assert system.requires == {"img"}
    system.loss(batch, 0)["total"].backward()
    assert system.image.encoder.gain.grad.abs().sum() > 0
    with pytest.raises(ConfigError, match="neither cached features nor an encoder"):
        Bleep(BleepConfig(), SystemInfo(4))


def test_tiles_around_are_read_as_their_mean():
    torch.manual_seed(0)
    tower = ImageTower(PAIRS.info(), width=4, head="linear", standardise=False, neighbours=True)
    assert tower.requires == {"feat", "nbr", "nbr_mask"}
    batch = PAIRS.batch(np.arange(5))
    around, mask = torch.randn(5, 25, 256), torch.rand(5, 25) > 0.3
    mask[0] = False
    mean = torch.stack(
        [a[m].mean(0) if m.any() else torch.zeros(256) for a, m in zip(around, mask, strict=True)]
    )
    expected = tower.head(torch.cat([batch.feat, mean], 1))
    found = tower(replace(batch, nbr=around, nbr_mask=mask))
    assert torch.allclose(found, expected, atol=1e-5)


def test_what_is_missing_is_named():
    system = make_system("hescape")
    with pytest.raises(
        ConfigError, match=r"system hescape: found no feat.*choose an image encoder"
    ):
        system.loss(replace(PAIRS.batch(), feat=None), 0)
    with pytest.raises(ConfigError, match="found no y"):
        system.loss(replace(PAIRS.batch(), y=None), 0)
    blind = replace(PAIRS.batch([0, 1]), y=None, gene_mask=None)
    assert with_bank("hescape").predict(blind).shape == (2, 200)
    with pytest.raises(ConfigError, match="without the genes"):
        MclSTExp(MclSTExpConfig(spot="tokens"), PAIRS.info())


def test_genes_not_measured_somewhere_do_no_harm():
    y = PAIRS.y.copy()
    y[PAIRS.section == 1, :30] = np.nan
    holed = replace(PAIRS, y=y)
    for name in ("mclstexp", "bleep", "hescape", "hescape_tokens"):
        system = make_system(name).train()
        assert torch.isfinite(system.loss(holed.batch(), 0)["total"])
        system.fit_reference([holed.batch()])
        assert torch.isfinite(system.predict(holed.batch([0, 399]))).all()


def test_a_run_that_learns_nothing_is_told():
    noise = replace(PAIRS, feat=0 * PAIRS.feat, y=0 * PAIRS.y)
    system = make_system("mclstexp", position="none")
    with pytest.warns(Seq2ExpWarning, match="expected well below ln B"):
        system.train().loss(noise.batch(), 500)


def test_spots_are_joined_in_order_and_modes_restored():
    joined = join_spots([PAIRS.batch([9, 3]), PAIRS.batch([200, 1])])
    assert joined.spot.tolist() == [1, 3, 9, 0]
    module = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    with evaluating(module):
        assert not any(part.training for part in module.modules())
        assert not torch.is_grad_enabled()
    assert [part.training for part in module.modules()] == [True, True, False]


@pytest.mark.parametrize("name", ["mclstexp", "mclstexp_near", "hescape_tokens"])
def test_alignment_is_in_order_whatever_the_batches(name):
    system = seen(make_system(name))
    whole = system.align([PAIRS.batch()])
    order = np.random.default_rng(0).permutation(400)
    pieces = system.align([PAIRS.batch(rows) for rows in np.array_split(order, 9)])
    assert np.allclose(whole.image_SD, pieces.image_SD, atol=1e-5)
    assert np.allclose(whole.gene_SD, pieces.gene_SD, atol=1e-5)
    assert np.allclose(np.linalg.norm(whole.gene_SD, axis=1), 1, atol=1e-5)
    for field, expected in (
        ("section", PAIRS.section),
        ("patient", PAIRS.patient),
        ("spot", PAIRS.spot),
    ):
        assert np.array_equal(getattr(pieces, f"{field}_S"), expected)
