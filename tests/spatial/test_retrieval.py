from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from seq2exp.core.errors import ConfigError, FormatError, InputError, Seq2ExpWarning
from seq2exp.spatial.retrieval import RetrievalBank, RetrievalConfig

NOBODY = -1


def make_bank(num=60, *, width=5, num_genes=4, num_patients=3, seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    code = torch.arange(num) * num_patients // num
    slots = {
        "keys_ND": torch.randn(num, width, generator=generator),
        "expression_NG": torch.rand(num, num_genes, generator=generator),
        "spot_N": torch.arange(num),
        "section_N": code,
        "patient_N": code,
        "sections": tuple(f"s{i}" for i in range(num_patients)),
        "patients": tuple(f"p{i}" for i in range(num_patients)),
        "genes": tuple(f"g{i}" for i in range(num_genes)),
        "recipe": "default",
        "towers": "t",
    }
    return RetrievalBank(**(slots | changes))


def unknown(num):
    return torch.full((num,), NOBODY)


def ask(bank, query, patient=None, section=None, **settings):
    patient = unknown(len(query)) if patient is None else patient
    config = RetrievalConfig(**settings)
    return bank.query(query, config, patient_B=patient, section_B=section)


@pytest.mark.parametrize("weights", ["l1", "l2", "softmax", "uniform"])
@pytest.mark.parametrize("unit", [True, False])
def test_one_neighbour_of_its_own_key_is_the_spot_itself(weights, unit):
    bank = make_bank()
    found = ask(bank, bank.keys_ND, k=1, weights=weights, unit=unit)
    assert torch.equal(found.ids_BK[:, 0], torch.arange(60))
    assert torch.equal(found.mean_BG, bank.expression_NG)
    assert torch.equal(found.sd_BG, torch.zeros(60, 4))


def test_distance_zero_takes_all_the_weight_and_is_no_nan():
    bank = make_bank()
    found = ask(bank, bank.keys_ND, k=20, weights="l2")
    assert torch.isfinite(found.mean_BG).all()
    assert torch.isfinite(found.sd_BG).all()
    assert float(found.weights_BK[:, 0].min()) > 1 - 1e-6


def test_weights_mean_and_deviation_by_hand():
    # Keys at cosines 1/sqrt 2 and 0.6 to the query (1, 0); the third looks the other way.
    keys = torch.tensor([[3.0, 4.0], [1.0, 1.0], [-1.0, 0.0]])
    expression = torch.tensor([[1.0], [4.0], [100.0]])
    bank = make_bank(3, num_genes=1, keys_ND=keys, expression_NG=expression)
    query = torch.tensor([[1.0, 0.0]])
    inverse = {
        # |(1, 0) - (1, 1)|, |(1, 0) - (3, 4)|, squared
        "l1": (1.0**2, 6.0**2),
        "l2": (1.0, 4.0 + 16.0),
    }
    for weights, (first, second) in inverse.items():
        found = ask(bank, query, k=2, weights=weights, unit=False)
        share = (1 / first) / (1 / first + 1 / second)
        mean = 4 * share + 1 * (1 - share)
        deviation = math.sqrt(share * (4 - mean) ** 2 + (1 - share) * (1 - mean) ** 2)
        assert found.ids_BK.tolist() == [[1, 0]]
        assert found.weights_BK[0].tolist() == pytest.approx([share, 1 - share])
        assert float(found.mean_BG) == pytest.approx(mean)
        assert float(found.sd_BG) == pytest.approx(deviation)
    warm = ask(bank, query, k=2, weights="softmax", temperature=0.5)
    odds = math.exp((math.sqrt(0.5) - 0.6) / 0.5)
    assert float(warm.weights_BK[0, 0]) == pytest.approx(odds / (1 + odds))
    plain = ask(bank, query, k=2, weights="uniform")
    assert float(plain.mean_BG) == pytest.approx(2.5)


@pytest.mark.parametrize("weights", ["l1", "l2", "softmax", "uniform"])
def test_weights_sum_to_one(weights):
    found = ask(make_bank(), torch.randn(9, 5), k=7, weights=weights)
    assert torch.allclose(found.weights_BK.sum(1), torch.ones(9))


@pytest.mark.parametrize("chunk", [1, 7, 59, 60])
def test_chunks_find_what_the_dense_product_finds(chunk):
    bank, query = make_bank(), torch.randn(23, 5, generator=torch.Generator().manual_seed(3))
    unit = [
        x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (query, bank.keys_ND)
    ]
    expected = np.argsort(-(unit[0] @ unit[1].T), axis=1)[:, :11]
    found = ask(bank, query, k=11, chunk=chunk)
    assert np.array_equal(found.ids_BK.numpy(), expected)
    alone = [ask(bank, query[i : i + 1], k=11) for i in range(23)]
    assert torch.allclose(found.mean_BG, torch.cat([each.mean_BG for each in alone]), atol=1e-6)


def test_no_spot_of_the_query_s_patient_answers():
    bank = make_bank()
    found = ask(bank, bank.keys_ND, bank.patient_N, k=40)
    assert not (bank.patient_N[found.ids_BK] == bank.patient_N[:, None]).any()
    assert not found.leaky


def test_keeping_sections_apart_only_is_flagged():
    bank = make_bank(section_N=torch.arange(60) * 6 // 60, sections=tuple("abcdef"))
    found = ask(bank, bank.keys_ND, bank.patient_N, bank.section_N, k=20, exclude="section")
    assert not (bank.section_N[found.ids_BK] == bank.section_N[:, None]).any()
    assert found.leaky
    with pytest.raises(InputError, match="no section of the queries"):
        ask(bank, bank.keys_ND, bank.patient_N, exclude="section", k=2)


def test_a_bank_of_the_patients_to_predict_is_refused():
    bank = make_bank()
    bank.require_disjoint(["p7"])
    with pytest.raises(InputError, match=r"spots of the patients to predict.*p1"):
        bank.require_disjoint(["p1", "p7"])
    lonely = make_bank(num_patients=1)
    with pytest.raises(InputError, match="only spots of the patient to predict"):
        ask(lonely, lonely.keys_ND[:1], torch.tensor([0]), k=1)


def test_more_neighbours_than_spots_are_cut_with_a_warning():
    bank = make_bank()
    with pytest.warns(Seq2ExpWarning, match="found 500, expected at most 60"):
        found = ask(bank, torch.randn(2, 5), k=500)
    assert found.ids_BK.shape == (2, 60)
    assert torch.allclose(found.weights_BK.sum(1), torch.ones(2))


def test_queries_with_fewer_spots_left_are_filled_with_nothing():
    code = (torch.arange(60) >= 50).long()
    bank = make_bank(patient_N=code, section_N=code)
    with pytest.warns(Seq2ExpWarning, match="at most 10"):
        found = ask(bank, torch.randn(2, 5), torch.tensor([0, 1]), k=20)
    assert (found.ids_BK[0] >= 0).tolist() == [True] * 10 + [False] * 10
    assert (found.ids_BK[1] >= 0).all()
    assert torch.allclose(found.weights_BK.sum(1), torch.ones(2))
    assert float(found.weights_BK[0, 10:].abs().sum()) == 0
    assert torch.isfinite(found.mean_BG).all()


def test_genes_that_a_spot_did_not_measure_are_left_to_the_others():
    expression = torch.tensor([[1.0, math.nan], [3.0, 5.0], [9.0, 8.0]])
    keys = torch.tensor([[1.0, 0.1], [1.0, 0.2], [-1.0, 0.0]])
    bank = make_bank(3, num_genes=2, keys_ND=keys, expression_NG=expression)
    found = ask(bank, torch.tensor([[1.0, 0.0]]), k=2, weights="uniform")
    assert found.mean_BG.tolist() == [[2.0, 5.0]]
    alone = ask(bank, torch.tensor([[1.0, 0.1]]), k=1)
    assert alone.mean_BG.tolist() == [[1.0, 6.5]]  # the mean of the bank


def test_a_saved_bank_answers_the_same(tmp_path):
    bank = make_bank()
    bank.save(tmp_path / "bank")
    again = RetrievalBank.load(tmp_path / "bank", genes=["g0", "g1", "g2", "g3"])
    query = torch.randn(4, 5)
    assert torch.equal(ask(again, query, k=5).mean_BG, ask(bank, query, k=5).mean_BG)
    assert (again.recipe, again.towers, again.patients) == ("default", "t", ("p0", "p1", "p2"))
    assert again.label(25) == ("s1", 25)
    with pytest.raises(FormatError, match="other genes, or another order"):
        RetrievalBank.load(tmp_path / "bank", genes=["g1", "g0", "g2", "g3"])


@pytest.mark.parametrize("fault", ["version", "cut", "missing", "key"])
def test_a_damaged_bank_is_refused(tmp_path, fault):
    folder = tmp_path / "bank"
    make_bank().save(folder)
    card = json.loads((folder / "bank.json").read_text())
    if fault == "version":
        card["format_version"] = 9
    elif fault == "key":
        del card["patients"]
    (folder / "bank.json").write_text(json.dumps(card))
    weights = folder / "bank.safetensors"
    if fault == "cut":
        weights.write_bytes(weights.read_bytes()[:-9])
    elif fault == "missing":
        weights.unlink()
    with pytest.raises(FormatError, match="bank"):
        RetrievalBank.load(folder)


def test_banks_join_by_name():
    first = make_bank()
    second = make_bank(seed=1, sections=("s9", "t1", "t2"), patients=("p2", "q1", "q2"))
    both = first.extend(second)
    assert len(both) == 120
    assert both.patients == ("p0", "p1", "p2", "q1", "q2")
    assert both.label(60) == ("s9", 0)
    # The third patient is in both.
    assert int((both.patient_N == 2).sum()) == 40
    query = torch.randn(6, 5)
    found = ask(both, query, both.patient_codes(["p2"] * 6), k=10)
    assert not (both.patient_N[found.ids_BK] == 2).any()
    assert both.patient_codes(["nobody"]).tolist() == [-1]


def test_what_does_not_belong_together_is_not_joined():
    bank = make_bank()
    with pytest.raises(InputError, match="other genes and towers"):
        bank.extend(make_bank(num_genes=3, towers="u"))
    with pytest.raises(InputError, match=r"spots that it holds already.*60 in all"):
        bank.extend(make_bank(seed=1))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"keys_ND": torch.zeros(0, 5)}, "no spot"),
        ({"spot_N": torch.arange(3)}, "different lengths"),
        ({"keys_ND": torch.full((60, 5), math.nan)}, "no number"),
        ({"genes": ("a",)}, "4 columns for 1 genes"),
        ({"patients": ("a",)}, "without name"),
    ],
)
def test_a_contradictory_bank_is_refused(changes, found):
    with pytest.raises(InputError, match=found):
        make_bank(**changes)


def test_queries_of_another_model_are_refused():
    bank = make_bank()
    with pytest.raises(InputError, match="width 4"):
        ask(bank, torch.randn(2, 4))
    with pytest.raises(InputError, match="no number"):
        ask(bank, torch.full((1, 5), math.inf))
    with pytest.raises(ConfigError, match=r"retrieval\.k"):
        RetrievalConfig(k=0)
