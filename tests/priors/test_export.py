"""From a run to priors.h5ad: every slot against numbers that the test computes itself."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from seq2exp.cli.main import main
from seq2exp.core.errors import ConfigError, InputError
from seq2exp.core.files import sha256
from seq2exp.dataset.samples import GeneSamples, collate
from seq2exp.dataset.store import Dataset
from seq2exp.elements.calling import CallConfig
from seq2exp.priors import export
from seq2exp.priors.export import export_priors
from seq2exp.priors.prior import GenePrior
from seq2exp.training.predict import predict
from seq2exp.training.run import TrainedRun, open_run
from tests.priors.runs import untrained_run
from tests.toys import ToyPlan, toy_dataset


def make_prior(run, dataset, **options):
    """Fresh masks have no runs of four bins."""
    return export.make_prior(run, dataset, calling=CallConfig(min_length_bp=32), **options)


CONTIGS = (("chr1", "train", 6), ("chr2", "valid", 3), ("chr3", "test", 3))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("small") / "dataset"
    return Dataset(toy_dataset(root, ToyPlan(contigs=CONTIGS)))


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    return untrained_run(dataset, tmp_path_factory.mktemp("fresh") / "run")


@pytest.fixture(scope="module")
def prior(run, dataset):
    return make_prior(run, dataset)


def outputs_of(run, dataset, *, member=0):
    samples = GeneSamples(dataset, run.card.data, range(len(dataset.genes)))
    batch = collate([samples[i] for i in range(len(samples))])
    with torch.no_grad():
        return batch, run.models[member](
            batch.codes_BL, batch.signal_BNT, batch.features_BF,
            blacklist_BN=batch.blacklist_BN, valid_BN=batch.valid_BN,
        )  # fmt: skip


def test_the_command_writes_a_prior_of_a_trained_run(finished, toy, tmp_path, capsys):
    out, numbers = tmp_path / "priors.h5ad", tmp_path / "p.json"
    assert main(["priors", str(finished), "--out", str(out), "--json", str(numbers)]) == 0
    printed = capsys.readouterr().out
    assert "44 of 44 genes with a prior (train 24, valid 8, test 12, excluded 0)" in printed
    assert "fewer than 20 labelled genes" in printed
    document = json.loads(numbers.read_text())
    assert list(document) == ["command", "inputs", "rows"]
    assert document["command"] == "priors"
    found = GenePrior.load(out, assembly="toy1", id_system="other")
    dataset, run = Dataset(toy), open_run(finished)
    for name in ("gene_id", "symbol", "contig", "tss", "strand", "split"):
        assert getattr(found, name).tolist() == dataset.genes[name].tolist()
    expected = predict(run, dataset, np.arange(44)).expression
    np.testing.assert_allclose(found.expr, expected, atol=1e-5)
    assert found.expr_names == ("cell_a", "cell_b")
    meta = found.meta
    assert meta["model_sha256"] == sha256(finished / "model" / "model.safetensors")
    assert meta["dataset_checksum"] == dataset.manifest.checksum
    assert (meta["model"], meta["window_bp"]) == ("seq2exp", 512)
    assert meta["train_contigs"] == ["chr1"]
    assert meta["expr_unit"] == "log10p1(TPM)"
    assert np.isnan(found.quality).all()  # two samples say nothing about one gene
    # Again, to the same path: refused before any work, then allowed.
    assert main(["priors", str(finished), "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["priors", str(finished), "--out", str(out), "--overwrite", "--layer", "head"]) == 0
    assert GenePrior.load(out).meta["layer"].startswith("head: ")


def test_z_is_what_the_head_reads(run, dataset, prior):
    _, output = outputs_of(run, dataset)
    np.testing.assert_allclose(prior.z, output.embedding_BD.numpy(), atol=1e-5)
    np.testing.assert_allclose(prior.expr, output.expression_BK.numpy(), atol=1e-5)
    assert prior.z.std(axis=0).min() > 0


@pytest.mark.parametrize("rc_average", [False, True])
def test_the_layer_head_leads_to_the_prediction_by_one_linear_map(dataset, tmp_path, rc_average):
    run = untrained_run(dataset, tmp_path / "run", rc_average=rc_average)
    prior = make_prior(run, dataset, layer="head")
    last = run.models[0].head.output_layer
    with torch.no_grad():
        expected = last(torch.from_numpy(prior.z)).numpy()
    np.testing.assert_allclose(prior.expr, expected, atol=1e-5)


def test_numbers_do_not_depend_on_batches_or_workers(run, dataset, prior):
    for options in ({"batch_size": 1}, {"batch_size": 5, "workers": 1}):
        other = make_prior(run, dataset, **options)
        for name in ("z", "expr", "reg"):
            np.testing.assert_allclose(getattr(other, name), getattr(prior, name), atol=1e-4)
        assert other.reg_names == prior.reg_names


def test_members_stand_side_by_side_and_average(dataset, tmp_path):
    both = untrained_run(dataset, tmp_path / "run", seeds=(0, 1))
    prior = make_prior(both, dataset)
    single = []
    for seed, model in enumerate(both.models):
        folder = tmp_path / f"single_{seed}"
        shutil.copytree(both.folder / "members" / f"seed_{seed}", folder)
        single.append(make_prior(TrainedRun(folder, [model], both.card), dataset))
    mean = GenePrior.mean(single)
    np.testing.assert_allclose(prior.z, mean.z, atol=1e-5)
    np.testing.assert_allclose(prior.expr, mean.expr, atol=1e-5)
    assert prior.meta["members"] == 2
    assert prior.meta["model_sha256"] == mean.meta["model_sha256"]
    assert len(set(prior.meta["member_sha256"])) == 2


def test_the_summary_against_a_loop(run, dataset, prior):
    """Mask-weighted DNase within 1 kb (here the whole window), GC, and the learned mask."""
    batch, output = outputs_of(run, dataset)
    reg = dict(zip(prior.reg_names, prior.reg.T, strict=True))
    for gene in range(len(prior)):
        mask, signal = output.mask_BN[gene].numpy(), batch.signal_BNT[gene].numpy()
        valid = batch.valid_BN[gene].numpy() & ~batch.blacklist_BN[gene].numpy()
        for column, assay in enumerate(("DNase", "H3K27ac")):
            total = sum(
                m * s * 0.032 for m, s in zip(mask, signal[:, column], strict=True) if s == s
            )
            assert reg[f"{assay} 0-1 kb"][gene] == pytest.approx(total, rel=1e-4)
        bases = batch.codes_BL[gene].numpy()
        known = [base for base in bases if base < 4]
        expected = sum(base in (1, 2) for base in known) / len(known)
        assert reg["gc"][gene] == pytest.approx(expected, rel=1e-5)
        if valid.all():
            # 512 bases in bins of 32, the promoter of 64 bases forced: bins 7 and 8.
            learned = np.delete(output.mean_BN[gene].numpy(), [7, 8])
            assert reg["mask_mass_kb"][gene] == pytest.approx(learned.sum() * 0.032, rel=2e-3)
            # All bins lie within 5 kb, where contacts do not decay.
            assert reg["mask_contact_mass_kb"][gene] == pytest.approx(reg["mask_mass_kb"][gene])
    assert "DNase 1-5 kb" not in reg
    assert any("1-5 kb, 5-20 kb, 20-100 kb, >100 kb" in note for note in prior.meta["notes"])
    assert any("no column gene_length_bp" in note for note in prior.meta["notes"])


def test_a_run_without_tracks_has_no_columns_by_assay_and_says_so(tmp_path):
    bare = Dataset(toy_dataset(tmp_path / "d", ToyPlan(contigs=CONTIGS, tracks=())))
    prior = make_prior(untrained_run(bare, tmp_path / "run"), bare)
    assert not [name for name in prior.reg_names if "DNase" in name]
    assert {"num_elements", "mask_mass_kb", "gc"} <= set(prior.reg_names)
    assert "no columns by assay: the model reads no tracks" in prior.meta["notes"]


@pytest.mark.parametrize(
    "model",
    [
        {"mask": "none"},
        {"name": "baseline", "encoder": "conv", "readout_bp": 128, "head_hidden": 8,
         "encoder_params": {"d_model": 8, "num_layers": 1}},
    ],
    ids=["mask none", "baseline"],
)  # fmt: skip
def test_a_run_without_a_mask_has_sequence_columns_only_and_says_so(dataset, tmp_path, model):
    run = untrained_run(dataset, tmp_path / "run", **model)
    prior = make_prior(run, dataset)
    assert set(prior.reg_names) <= {"gc", "cpg_island", "gene_length_bp"}
    assert "gc" in prior.reg_names
    assert "no columns of the mask: the model reads its window without one" in prior.meta["notes"]
    _, output = outputs_of(run, dataset)
    np.testing.assert_allclose(prior.z, output.embedding_BD.numpy(), atol=1e-5)


# Genes without a usable window ------------------------------------------------------------------


def test_genes_without_a_usable_window_are_there_with_rows_of_zero(tmp_path):
    contigs = (("chr1", "train", 6), ("chr2", "valid", 3), ("chrM", "test", 4))
    data = Dataset(toy_dataset(tmp_path / "d", ToyPlan(contigs=contigs)))
    run = untrained_run(data, tmp_path / "run", data={"edge": "skip", "window_bp": 1024})
    prior = make_prior(run, data)
    assert len(prior) == 13
    reason = np.select(
        [prior.contig == "chrM", prior.tss < 512], ["mitochondrial", "edge"], default=""
    )
    lengths = {"chr1": 6 * 1500 + 7, "chr2": 3 * 1500 + 7, "chrM": 4 * 1500 + 7}
    end = np.array([lengths[name] for name in prior.contig])
    reason[(reason == "") & (prior.tss + 513 > end)] = "edge"
    np.testing.assert_array_equal(prior.present, reason == "")
    for name in ("z", "expr", "reg"):
        assert not getattr(prior, name)[~prior.present].any()
        assert getattr(prior, name)[prior.present].any()
    assert "4 mitochondrial" in prior.meta["absent"]
    assert f"{(reason == 'edge').sum()} window leaves the contig" in prior.meta["absent"]


def test_a_dataset_of_another_assembly_or_without_usable_genes_is_refused(run, tmp_path):
    mito = Dataset(toy_dataset(tmp_path / "m", ToyPlan(contigs=(("chrM", "train", 4),))))
    with pytest.raises(InputError, match=r"no gene with a usable window.*4 mitochondrial"):
        make_prior(run, mito)
    tracks = Dataset(toy_dataset(tmp_path / "t", ToyPlan(contigs=CONTIGS, tracks=("DNase",))))
    with pytest.raises(ConfigError, match="no track H3K27ac"):
        make_prior(run, tracks)
    with pytest.raises(InputError, match="'logits'"):
        make_prior(run, Dataset(run.dataset_path()), layer="logits")


def test_an_embedding_that_is_not_finite_is_refused_with_the_genes(dataset, tmp_path):
    run = untrained_run(dataset, tmp_path / "run")
    with torch.no_grad():
        next(run.models[0].predictor.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match=r"NaN or Inf from the model.*12 in all.*chr1_g0"):
        make_prior(run, dataset)


def test_nothing_is_written_when_it_fails(run, tmp_path):
    with pytest.raises(InputError):
        export_priors(run.folder, tmp_path / "p.h5ad", layer="logits")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_scanpy_would_read_as_something_else_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match=r"ends in \.csv.*use .*p\.h5ad"):
        export_priors(run.folder, tmp_path / "p.csv")
    assert list(tmp_path.iterdir()) == []


# The split of the model -------------------------------------------------------------------------


def test_on_another_dataset_the_split_is_that_of_the_training(run, dataset, tmp_path):
    contigs = (("chr1", "test", 6), ("chr2", "train", 3), ("chr3", "valid", 5))
    other = Dataset(toy_dataset(tmp_path / "d", ToyPlan(contigs=contigs)))
    prior = make_prior(run, other)
    # By id: chr1 was train, chr2 valid, chr3 test; two genes of chr3 did not exist, and no
    # training gene lies there.
    known = dict(zip(dataset.genes["gene_id"], dataset.genes["split"], strict=True))
    expected = [known.get(gene, "valid") for gene in prior.gene_id]
    assert prior.split.tolist() == expected
    assert prior.meta["split_source"] == "training dataset, by gene id"


def test_without_the_training_dataset_every_gene_of_a_training_contig_counts_as_train(
    run, tmp_path
):
    contigs = (("chr1", "test", 6), ("chr2", "train", 3), ("chr3", "valid", 3))
    other = Dataset(toy_dataset(tmp_path / "d", ToyPlan(contigs=contigs)))
    shutil.copytree(run.folder, tmp_path / "run")
    (tmp_path / "run" / "manifest.json").write_text('{"dataset": {"path": "/nowhere"}}')
    prior = make_prior(open_run(tmp_path / "run"), other)
    splits = {name: set(prior.split[prior.contig == name]) for name in ("chr1", "chr2", "chr3")}
    assert splits == {"chr1": {"train"}, "chr2": {"test"}, "chr3": {"valid"}}
    assert "not at hand" in prior.meta["split_source"]
