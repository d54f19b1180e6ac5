from __future__ import annotations

from seq2exp.elements import export
from seq2exp.elements.calling import CallConfig
from seq2exp.elements.compare import CompareConfig, compare_with_truth
from seq2exp.elements.export import export_elements
from seq2exp.report.gallery import write_gallery
from tests.elements.test_compare import truth_at


def test_gallery_draws_the_genes_asked_for_and_the_comparison(run, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "open_run", lambda _: run)
    config = CallConfig(budget=0.1, min_length_bp=32)
    made = export_elements(tmp_path, tmp_path / "map", data=dataset.root, config=config)
    truth = truth_at(made.masks, 350)
    settings = CompareConfig(distal_bp=128, bands_bp=(0, 256, 512), num_resamples=5)
    found = compare_with_truth(made.masks, dataset, truth, config=settings)
    paths = write_gallery(
        made.folder, dataset, truth=truth, comparison=found, genes=["CHR3G4"], formats=("png",)
    )
    names = ["auprc_by_distance.png", "locus_CHR3G4.png", "precision_recall.png"]
    assert sorted(path.name for path in paths) == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    chosen = write_gallery(made.folder, dataset, num_loci=2, formats=("svg",))
    assert len(chosen) == 2
