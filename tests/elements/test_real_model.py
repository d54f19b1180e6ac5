"""The real model through the real run folder: what is exported is what the predictor used."""

from __future__ import annotations

import numpy as np
import pyBigWig
import pytest
import torch

from seq2exp.core.errors import InputError
from seq2exp.core.files import write_json
from seq2exp.dataset.samples import SampleConfig
from seq2exp.elements.calling import CallConfig
from seq2exp.elements.export import export_elements
from seq2exp.elements.masks import FREE, gene_masks
from seq2exp.models.registry import build_model
from seq2exp.training.checkpoint import save_model
from seq2exp.training.predict import iterate
from seq2exp.training.run import open_run
from tests.elements.fakes import fake_run

SETTINGS = {
    "num_features": 3,
    "num_outputs": 2,
    "window_bp": 1024,
    "bin_size": 32,
    "d_model": 8,
    "d_state": 2,
    "generator_layers": 1,
    "predictor_layers": 1,
    "promoter_bp": 256,
    "readout_bp": 256,
    "head_hidden": 8,
    "stem": {"channels": 8, "width": 9},
}


def write_run(folder, dataset, **changes):
    config = SampleConfig(window_bp=1024, bin_size=32)
    card = fake_run(dataset, config=config).card
    settings = {"tracks": tuple(card.tracks), **SETTINGS, **changes}
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = build_model("seq2exp", settings)
        card.model.update(name="seq2exp", **settings)
        save_model(model, card, folder / "members" / f"seed_{seed}" / "model")
    write_json({"dataset": {"path": str(dataset.root)}}, folder / "manifest.json")
    return open_run(folder)


@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_masks_are_those_of_the_model(dataset, tmp_path, mode):
    run = write_run(tmp_path / "run", dataset, mask=mode)
    rows = np.arange(12)
    masks = gene_masks(run, dataset, rows, batch_size=5)
    ((batch, outputs),) = iterate(run, dataset, rows, batch_size=12)
    seen = torch.stack([output.mask_BN for output in outputs]).mean(0).numpy()
    mean = torch.stack([output.mean_BN for output in outputs]).mean(0).numpy()
    for gene in rows:
        flip = masks.genes["strand"].iloc[gene] == "-"
        used, learned = (x[gene][::-1] if flip else x[gene] for x in (seen, mean))
        free = masks.forced[gene] == FREE
        np.testing.assert_allclose(masks.mask[gene][free].astype(float), learned[free], atol=1e-3)
        np.testing.assert_allclose(masks.mask[gene][~free].astype(float), used[~free], atol=1e-3)
        if mode == "soft":
            np.testing.assert_allclose(masks.mask[gene].astype(float), used, atol=1e-3)
    assert batch.codes_BL.shape == (12, 1024)


def test_run_folder_to_files(dataset, tmp_path):
    write_run(tmp_path / "run", dataset)
    made = export_elements(
        tmp_path / "run", tmp_path / "map", config=CallConfig(budget=0.2, min_length_bp=32)
    )
    assert made.summary["num_members"] == 2
    assert made.summary["dataset"] == str(dataset.root)
    with pyBigWig.open(str(tmp_path / "map" / "mask.bw")) as handle:
        assert 0 < handle.stats("chr3", type="max")[0] < 1


def test_a_model_without_a_mask_is_refused(dataset, tmp_path):
    write_run(tmp_path / "run", dataset, mask="none")
    with pytest.raises(InputError, match="a model without a mask"):
        export_elements(tmp_path / "run", tmp_path / "map")
    assert not (tmp_path / "map").exists()
