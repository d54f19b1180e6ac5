"""Gradients, draws and order of records, each by a formula or another way to compute it.

Each of these tests was written because a broken line of the library passed all others.
"""

from __future__ import annotations

import gzip
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from seq2exp.core.sequence import decode
from seq2exp.dataset.store import Dataset
from seq2exp.variants.contexts import shuffled_flanks
from seq2exp.variants.gradient_passes import GradientPasses
from seq2exp.variants.judge import judge
from seq2exp.variants.outputs import write_outputs
from seq2exp.variants.passes import GenePasses
from seq2exp.variants.source import open_source
from seq2exp.variants.views import View, open_view
from seq2exp.variation.alleles import Allele
from tests.toys import toy_dataset
from tests.variants import inputs
from tests.variants.engines import Additive, engine_of, seq2exp, table_of
from tests.variants.test_engine import naive_window


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset(toy_dataset(tmp_path_factory.mktemp("variants") / "toy"))


def other(base: str, by: int = 1) -> str:
    return "ACGT"[("ACGT".index(base) + by) % 4]


# Gradients ------------------------------------------------------------------------------------


def test_the_gradient_sees_the_reference_as_whole_passes_do(dataset):
    """Prediction and mask of both strands of genes of both strands, bins in genome direction."""
    model = seq2exp(dataset)
    views = [View(opposite, shift) for opposite in (False, True) for shift in (0, 5)]
    with engine_of(dataset, [model]) as engine:
        samples = engine.samples
    for row in (4, 5):
        with torch.no_grad():
            exact = GenePasses([model], samples, row, views).reference()
            first = GradientPasses([model], samples, row, views).reference()
        np.testing.assert_allclose(first.expression_ESK, exact.expression_ESK, rtol=1e-5)
        np.testing.assert_allclose(first.fixed_ESK, exact.fixed_ESK, rtol=1e-5)
        np.testing.assert_allclose(first.mask_ESN, exact.mask_ESN, atol=1e-5)
        # No palindrome: turned around it would be another mask.
        assert np.abs(exact.mask_ESN - exact.mask_ESN[..., ::-1]).max() > 0.01
    assert {dataset.sites[row][2] for row in (4, 5)} == {"+", "-"}


def test_a_gradient_has_no_number_for_what_moves_bases(dataset):
    contig, tss, _ = dataset.sites[4]
    ref = decode(dataset.contig_codes(contig)[tss + 30 : tss + 31])
    snv, insertion = Allele(tss + 30, ref, other(ref)), Allele(tss + 30, ref, ref + "GA")
    with engine_of(dataset, [seq2exp(dataset)]) as engine:
        samples = engine.samples
    passes = GradientPasses([seq2exp(dataset)], samples, 4, [View(opposite=False, shift=0)])
    found = passes.predict([(snv,), (insertion,), (snv, insertion), ()])
    for values_ESK in (found.expression_ESK, found.fixed_ESK):
        assert np.isnan(values_ESK).all(axis=(0, 2)).tolist() == [False, True, True, False]
        assert np.isfinite(values_ESK[:, [0, 3]]).all()


# Draws ----------------------------------------------------------------------------------------


def test_alleles_in_the_place_of_a_wrong_ref_stay_in_every_draw(dataset):
    """Genome xyz, REF xYz, ALT xYZ: REF changes one base of it, ALT two, and Z is no flank."""
    contig, tss, _ = dataset.sites[4]
    rows = []
    for place in range(tss + 30, tss + 60, 5):
        x, y, z = decode(dataset.contig_codes(contig)[place : place + 3])
        rows.append((contig, place, x + other(y) + z, x + other(y) + other(z)))
    table = table_of(dataset, rows)
    settings = {"ref_policy": "use-vcf-ref", "null_draws": 3, "scorers": ("expr_delta",)}
    with engine_of(dataset, [Additive()], **settings) as engine:
        found = engine.score(table)
        found = found[found.gene_row == 4]
        cases = judge(table, dataset, policy="use-vcf-ref")
        assert {len(case.before[0].ref) for case in cases} == {1}
        assert {len(case.after[0].ref) for case in cases} == {2}
        for case, score in zip(cases, found["expr_delta:cell_a"], strict=True):
            # An additive model does not see surroundings.
            draws = engine.gene(4).draw(case)[:, 0]
            np.testing.assert_allclose(draws, score, rtol=1e-4)
            assert abs(score) > 1e-3


def test_draws_are_the_same_for_one_seed_and_others_for_another(dataset):
    """In batches of one size, so that no difference is one of rounding."""
    contig, tss, _ = dataset.sites[4]
    ref = decode(dataset.contig_codes(contig)[tss + 30 : tss + 31])
    table = table_of(dataset, [(contig, tss + 30, ref, other(ref))])
    (case,), model, found = judge(table, dataset), seq2exp(dataset), []
    for seed in (0, 0, 1):
        with engine_of(
            dataset, [model], seed=seed, null_draws=4, scorers=("expr_delta",)
        ) as engine:
            found.append(engine.gene(4).draw(case))
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2], rtol=1e-3)


def test_indels_among_shuffled_bases_are_those_of_strings(dataset):
    """REF and ALT in a genome with other bases around them, on genes of both strands."""
    random = np.random.default_rng(0)
    with engine_of(dataset, [Additive()]) as engine:
        samples = engine.samples
    for row in (4, 5):
        contig, tss, _ = dataset.sites[row]
        codes, place = np.array(dataset.contig_codes(contig)), tss + 60
        ref = decode(codes[place : place + 4])
        view = open_view(samples, row, View(opposite=False, shift=0))
        for allele in (Allele(place, ref[0], ref[0] + "GAT"), Allele(place, ref, ref[0])):
            end = place + len(allele.ref)
            flanks = shuffled_flanks(codes, place, end, random=random, num=2, flank=200)
            found = view.put([(), (), (allele,), (allele,)], flanks=flanks).batch.codes_BL.numpy()
            assert len(found) == 4
            for number in range(2):
                shuffled = codes.copy()
                shuffled[place - 200 : place] = flanks.before_KF[number]
                shuffled[end : end + 200] = flanks.after_KF[number]
                genome = SimpleNamespace(
                    sites=dataset.sites, contig_codes=lambda name, codes=shuffled: codes
                )
                # REF of both draws, then ALT of both.
                np.testing.assert_array_equal(found[number], naive_window(genome, row, []))
                wanted = naive_window(genome, row, [allele])
                np.testing.assert_array_equal(found[2 + number], wanted)


# Files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "in_order"), [((0, 1, 1), True), ((0, 2, 1), False)])
def test_one_base_out_of_order_is_out_of_order(dataset, tmp_path, steps, in_order):
    """An index of such a file would lose records; two records of one place are in order."""
    text = inputs.sequence(dataset, "chr1")
    rows = [("chr1", 400 + step, text[400 + step], other(text[400 + step])) for step in steps]
    source = open_source(
        inputs.put(tmp_path / "in.vcf", inputs.vcf_text(dataset, rows)), dataset=dataset
    )
    out = tmp_path / "out.vcf.gz"
    write_outputs([out], source, inputs.parts_of(source), inputs.COLUMNS, inputs.HEADER)
    assert out.with_name("out.vcf.gz.tbi").exists() == in_order
    lines = gzip.decompress(out.read_bytes()).decode().splitlines()
    lines = [line for line in lines if not line.startswith("#")]
    assert [int(line.split("\t")[1]) for line in lines] == [401 + step for step in steps]
