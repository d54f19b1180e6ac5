"""Variants on the haplotypes of their carriers: what is compared, and what is averaged."""

from __future__ import annotations

import re

import numpy as np
import pytest

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.core.sequence import decode
from seq2exp.dataset.store import Dataset
from seq2exp.variants.config import ScoreConfig
from seq2exp.variants.engine import open_engine
from seq2exp.variants.judge import judge
from seq2exp.variants.views import View, open_view
from tests.toys import add_genotypes, toy_dataset
from tests.variants.engines import Additive, run_of
from tests.variants.haplotypes import GENE, Both, letters, opened, other, snv, vcf_of
from tests.variants.test_engine import naive_window
from tests.variation.slow import drops

SCORE, SPREAD = "expr_delta:cell_a", "expr_delta:cell_a:haplotype_sd"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset(toy_dataset(tmp_path_factory.mktemp("carriers") / "toy"))


def scored(dataset, model, alleles, genotypes, **settings):
    config = ScoreConfig(
        genes=(dataset.genes["gene_id"][GENE],), **({"context": "carriers"} | settings)
    )
    with open_engine(run_of(dataset, model), dataset, config, genotypes=genotypes) as engine:
        return engine.score(alleles)


def test_an_additive_model_gives_the_same_score_on_every_haplotype(dataset, tmp_path):
    random = np.random.default_rng(1)
    calls = [
        snv(dataset, offset, [f"{a}|{b}" for a, b in random.integers(0, 2, (3, 2))])
        for offset in range(-300, 300, 25)
    ]
    alleles, genotypes = opened(dataset, vcf_of(dataset, tmp_path / "in.vcf", calls))
    model = Additive()
    found = scored(dataset, model, alleles, genotypes)
    plain = scored(dataset, model, alleles, None, context="reference")
    np.testing.assert_allclose(found[SCORE], plain[SCORE], atol=1e-5)
    assert SPREAD not in plain
    assert (plain.context == "reference").all()
    carried = np.array([sum("1" in call for call in row[3]) for row in calls]) > 0
    assert (found.context.str.startswith("carriers:") == carried).all()
    assert found[SPREAD][carried].abs().max() < 1e-5
    assert found.num_haplotypes.max() > 2


@pytest.mark.parametrize("turned", [False, True])
def test_an_interaction_gives_the_mean_over_copies_and_their_spread(dataset, tmp_path, turned):
    first, second = (
        snv(dataset, 40, ["1|1", "0|1", "1|0"]),
        snv(dataset, -90, ["1|0", "1|0", "0|0"]),
    )
    nobody = snv(dataset, 10, ["0|0"] * 3)
    calls = [second, nobody, first]
    if turned:
        # The same people with their two haplotypes named the other way round.
        calls = [(p, r, a, [g[::-1] for g in genotypes]) for p, r, a, genotypes in calls]
    alleles, genotypes = opened(dataset, vcf_of(dataset, tmp_path / "in.vcf.gz", calls))
    found = scored(dataset, Both((40, first[2]), (-90, second[2])), alleles, genotypes)
    # v0 is carried by A|0, where v2 stands too, and by B|0, where it does not.
    # v2 is carried by A|0, beside v0, and without it by A|1, B|1 and C|0, which are one haplotype.
    assert found.context.tolist() == ["carriers:2", "reference", "carriers:4"]
    assert found.num_haplotypes.tolist() == [2, 0, 2]
    np.testing.assert_allclose(found[SCORE], [0.5, 0, 0.25])
    np.testing.assert_allclose(found[SPREAD], [0.5, np.nan, np.sqrt(3) / 4], rtol=1e-6)
    assert found.score_status.str.startswith("scored").all()
    plain = scored(dataset, Both((40, first[2]), (-90, second[2])), alleles, None,
                   context="reference")  # fmt: skip
    assert (plain[SCORE] == 0).all()


def test_phase_decides_what_stands_together(dataset, tmp_path):
    model = Both((40, snv(dataset, 40, [])[2]), (-90, snv(dataset, -90, [])[2]))
    for name, call, expected in (("cis", "1|0", 1), ("trans", "0|1", 0)):
        calls = [snv(dataset, -90, ["1|0"]), snv(dataset, 40, [call])]
        vcf = vcf_of(dataset, tmp_path / f"{name}.vcf", calls, samples=["A"])
        found = scored(dataset, model, *opened(dataset, vcf))
        assert found[SCORE].tolist() == [expected, expected]


def random_calls(dataset, *, seed, size=60, people=3):
    """Crowded variants of every class around the TSS of GENE, some of which overlap."""
    random = np.random.default_rng(seed)
    rows = []
    for offset in np.sort(random.choice(np.arange(-260, 260), size, replace=False)):
        position, ref = letters(dataset, int(offset), int(random.choice([1, 1, 1, 2, 4])))
        kind = random.integers(0, 3)
        alt = "".join(random.choice(list("ACGT"), random.integers(1, 4)))
        alt = [other(ref[0]) + ref[1:], ref + alt, ref[0]][kind]
        if alt != ref:
            calls = [f"{a}|{b}" for a, b in random.random((people, 2)).round().astype(int)]
            rows.append((position, ref, alt, calls))
    return rows


def test_the_sequences_compared_are_those_of_strings(dataset, tmp_path):
    """As `bcftools consensus` makes them, but for the variant itself in the first of each pair."""
    calls = random_calls(dataset, seed=3)
    alleles, genotypes = opened(dataset, vcf_of(dataset, tmp_path / "in.vcf", calls))
    config = ScoreConfig(context="carriers", max_carriers=0)
    contig, tss, _ = dataset.sites[GENE]
    text = decode(np.asarray(dataset.contig_codes(contig)))
    table = genotypes.table(contig)
    rows = list(zip(table["position"], table["ref"], table["alt"], strict=True))
    first, last = 0, len(rows)
    carried_HM = genotypes.alleles(contig, first, last).reshape(-1, len(rows))
    with open_engine(run_of(dataset, Additive()), dataset, config, genotypes=genotypes) as engine:
        judged = judge(alleles, dataset)
        contexts = engine.contexts.contexts(GENE, judged)
        view = open_view(engine.samples, GENE, View(opposite=False, shift=0))
    checked = lost = 0
    seen: dict[int, list] = {}
    for number in range(len(contexts)):
        seen.setdefault(int(contexts.row_C[number]), []).append(number)
    for row, case in enumerate(judged):
        number = rows.index(tuple(case.after[0]))
        expected: dict[tuple, int] = {}
        for actions in carried_HM[carried_HM[:, number] == 1]:
            left_out = drops(rows, actions)
            kept = tuple(i for i in np.flatnonzero(actions) if i not in left_out)
            if number in kept:
                expected[kept] = expected.get(kept, 0) + 1
        lost += not expected
        assert bool(contexts.lost_A[row]) == (not expected and carried_HM[:, number].any())
        if not carried_HM[:, number].any():
            continue
        assert contexts.num_A[row] == len(expected)
        found = {}
        for comparison in seen.get(row, []):
            pair = contexts.case(comparison)
            built = view.put([pair.before, pair.after]).built
            if built.tss_deleted_H.any():
                continue
            after = tuple(rows.index(tuple(allele)) for allele in pair.after)
            found[after] = int(contexts.copies_C[comparison])
            for codes, held in zip(built.codes_HL, (pair.before, pair.after), strict=True):
                np.testing.assert_array_equal(codes, consensus(dataset, text, tss, held))
            assert [*after] == sorted(after)
            assert set(pair.after) - set(pair.before) == {case.after[0]}
            checked += 1
        assert found.items() <= expected.items()
    assert checked > 60
    assert lost > 0


def consensus(dataset, text, tss, held):
    """Put alleles into the text one by one, from the right, their anchors left as they are."""
    plain = []
    for position, ref, alt in held:
        if len(ref) != len(alt) and ref[0] == alt[0]:
            position, ref, alt = position + 1, ref[1:], alt[1:]
        plain.append((position, ref, alt))
    return naive_window(dataset, GENE, plain)


def test_a_variant_inside_a_deletion_is_not_scored_there(dataset, tmp_path):
    position, ref = letters(dataset, -160, 6)
    deletion = (position, ref, ref[0])
    inside = (position + 3, ref[3], other(ref[3]))
    for genotypes, context, status in (
        (("1|0", "1|0"), "carriers:0/2", "skipped:overlap"),
        (("1|0", "0|1"), "carriers:1/2", "scored"),
        (("0|0", "0|1"), "carriers:1", "scored"),
    ):
        calls = [(*deletion, [genotypes[0]] * 2), (*inside, [genotypes[1], genotypes[0]])]
        if context == "carriers:1":
            calls[1] = (*inside, ["0|1", "0|0"])
        name = re.sub(r"\W", "_", context)
        vcf = vcf_of(dataset, tmp_path / f"{name}.vcf", calls, samples=["A", "B"])
        found = scored(dataset, Additive(), *opened(dataset, vcf)).iloc[1]
        assert (found.context, found.score_status, found.status) == (context, status, "ok")
        assert np.isnan(found[SCORE]) == (status != "scored")
        assert (found.num_members == 0) == (status != "scored")


def test_carriers_can_be_named_and_are_drawn_by_the_seed(dataset, tmp_path):
    samples = [f"S{number}" for number in range(12)]
    carried = [f"{number % 2}|1" for number in range(12)]
    calls = [snv(dataset, 40, carried)]
    calls += [
        snv(dataset, 50 + i, ["0|1" if j == i else "0|0" for j in range(12)]) for i in range(12)
    ]
    alleles, genotypes = opened(
        dataset, vcf_of(dataset, tmp_path / "in.vcf", calls, samples=samples)
    )
    everybody = scored(dataset, Additive(), alleles, genotypes, max_carriers=0)
    assert everybody.context[0] == "carriers:18"
    # The second haplotypes of the twelve differ, the first ones carry nothing else.
    assert everybody.num_haplotypes[0] == 13
    some = [scored(dataset, Additive(), alleles, genotypes, max_carriers=4, seed=s)
            for s in (0, 0, 1)]  # fmt: skip
    assert all(4 <= int(found.context[0].split(":")[1]) <= 8 for found in some)
    assert some[0].equals(some[1])
    assert not some[0].equals(some[2])
    named = scored(dataset, Additive(), alleles, genotypes, carriers=("S3", "S4"))
    assert (named.context[0], named.num_haplotypes[0]) == ("carriers:3", 3)
    assert (named.context[1:] != "reference").sum() == 2
    with pytest.raises(InputError, match="S99"):
        scored(dataset, Additive(), alleles, genotypes, carriers=("S99",))


def test_calls_without_phase_are_refused_or_dealt(dataset, tmp_path):
    model = Both((40, snv(dataset, 40, [])[2]), (-90, snv(dataset, -90, [])[2]))
    samples = [f"S{number}" for number in range(40)]
    calls = [snv(dataset, -90, ["1|0"] * 40), snv(dataset, 40, ["0/1"] * 40)]
    opened_ = opened(dataset, vcf_of(dataset, tmp_path / "in.vcf", calls, samples=samples))
    with pytest.raises(InputError, match=r"40 .*without phase|--phase random"):
        scored(dataset, model, *opened_)
    found = scored(dataset, model, *opened_, phase="random", max_carriers=0)
    assert (found.context == "carriers:40").all()
    # Each falls on either haplotype of its donor by a coin: beside the other variant or not.
    assert 0.25 < found[SCORE][0] < 0.75
    np.testing.assert_allclose(found[SCORE][1], found[SCORE][0])
    again = scored(dataset, model, *opened_, phase="random", max_carriers=0)
    assert found.equals(again)
    turned = scored(dataset, model, *opened_, phase="random", max_carriers=0, seed=5)
    assert not found.equals(turned)


def test_what_does_not_fit_the_genome_is_scored_on_the_reference(dataset, tmp_path):
    (position, ref), (_, wrong) = letters(dataset, 40), letters(dataset, 45)
    calls = [
        (position, other(ref), ref, ["1|0", "0|1", "1|1"]),
        (position + 5, other(wrong), other(wrong, 2), ["1|0"] * 3),
        (position + 9, letters(dataset, 49)[1], "<DEL>", ["1|1"] * 3),
        snv(dataset, 60, ["1|0"] * 3),
    ]  # fmt: skip
    alleles, genotypes = opened(dataset, vcf_of(dataset, tmp_path / "in.vcf", calls))
    found = scored(dataset, Additive(), alleles, genotypes)
    assert found.status.tolist() == ["swapped", "ref_mismatch", "unsupported", "ok"]
    assert found.context.tolist() == ["reference", "", "", "carriers:3"]
    counts = genotypes.info.counts
    assert (counts["left_out swapped"], counts["left_out mismatch"]) == (1, 1)


def test_genotypes_of_the_dataset(dataset, tmp_path):
    root = add_genotypes(toy_dataset(tmp_path / "toy"), donors=4)
    ours = Dataset(root)
    table = ours.genotypes.table(ours.sites[GENE][0])
    tss = ours.sites[GENE][1]
    near = table[(table["position"] - tss).abs() < 300]
    words = [
        f"{ours.sites[GENE][0]}:{p + 1}:{r}:{a}"
        for p, r, a in zip(near["position"], near["ref"], near["alt"], strict=True)
    ]
    from seq2exp.variants.source import open_source

    source = open_source(words, dataset=ours)
    found = scored(ours, Additive(), source.read(source.shard(0)), None, context="dataset")
    assert found.score_status.str.startswith("scored").all()
    assert (found.context.str.startswith("carriers:")).sum() >= len(words) - 2
    with pytest.raises(InputError, match="no genotypes"):
        scored(dataset, Additive(), source.read(source.shard(0)), None, context="dataset")


def test_what_knows_no_haplotypes_is_refused():
    for settings in ({"method": "gradient"}, {"null_draws": 9}):
        with pytest.raises(ConfigError, match="--context"):
            ScoreConfig(context="carriers", **settings)
    with pytest.raises(ConfigError, match="--max-carriers"):
        ScoreConfig(max_carriers=-1)


def test_batches_change_no_score(dataset, tmp_path):
    calls = random_calls(dataset, seed=5, size=30)
    alleles, genotypes = opened(dataset, vcf_of(dataset, tmp_path / "in.vcf", calls))
    one = scored(dataset, Additive(), alleles, genotypes, batch_size=1)
    many = scored(dataset, Additive(), alleles, genotypes, batch_size=64)
    assert one.drop(columns=[SCORE]).iloc[:, :12].equals(many.drop(columns=[SCORE]).iloc[:, :12])
    np.testing.assert_allclose(one[SCORE], many[SCORE], atol=1e-5)
