from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from seq2exp.core.errors import ConfigError, FormatError, InputError
from seq2exp.spatial.panels import GenePanel, PanelConfig, dispersion_scores, fit_panel


def section(seed, *, genes=60, spots=50, order=None, scale=None):
    random = np.random.default_rng(seed)
    rate = np.linspace(0.5, 20, genes) if scale is None else scale
    counts = random.poisson(random.gamma(2, rate / 2, size=(spots, genes)))
    names = [f"G{i}" for i in range(genes)]
    var = pd.DataFrame({"gene_id": [f"ENSG{i:011d}" for i in range(genes)]}, index=names)
    if order is not None:
        counts, var = counts[:, order], var.iloc[order]
    return sparse.csr_matrix(counts), var


@pytest.mark.parametrize("kind", ["hvg", "var", "heg", "hmhvg"])
def test_the_order_of_columns_and_sections_does_not_matter(kind):
    """Genes are known by id: permuted columns, and sections the other way round, give one panel."""
    order = np.random.default_rng(9).permutation(60)
    config = PanelConfig(kind, 12)
    first = fit_panel(config, [section(0), section(1)])
    assert len(first) == 12
    assert set(fit_panel(config, [section(0, order=order), section(1)]).gene_id) == set(
        first.gene_id
    )
    assert set(fit_panel(config, [section(1), section(0)]).gene_id) == set(first.gene_id)


def test_rules_by_hand():
    """Gene 0 has the largest mean, gene 1 the largest variance, gene 2 is in 1 of 20 spots only."""
    counts = np.tile([900, 50, 0, 50], (20, 1))
    counts[::2, 1], counts[::2, 3] = 0, 100
    counts[0, 2] = 1000
    var = pd.DataFrame({"gene_id": list("abcd")}, index=list("ABCD"))
    sections = [(sparse.csr_matrix(counts), var)]
    assert fit_panel(PanelConfig("heg", 1), sections).gene_id == ["a"]
    assert fit_panel(PanelConfig("var", 1), sections).gene_id == ["b"]
    with pytest.raises(InputError, match="3 genes that var can choose from"):
        fit_panel(PanelConfig("var", 4), sections)


def test_dispersion_is_judged_among_genes_of_like_mean():
    """Genes of one bin differ in dispersion; a strong gene alone in its bin scores 0."""
    random = np.random.default_rng(0)
    linear = random.normal(10, 1, size=(500, 40)).clip(0.1)
    linear[:, 7] = random.normal(10, 4, 500).clip(0.1)
    linear[:, 39] = random.normal(5000, 50, 500)
    scores = dispersion_scores(np.log1p(linear))
    assert np.argmax(scores) == 7
    assert scores[39] == 0
    assert dispersion_scores(np.zeros((3, 2))).tolist() == [-np.inf, -np.inf]


def test_hmhvg_leaves_out_ribosomal_genes_and_sorts_by_name():
    counts, var = section(3)
    var.index = ["RPL3", "MT-CO1", *var.index[2:]]
    counts = counts.tolil()
    counts[:, 0], counts[:, 1] = 500, 700
    panel = fit_panel(PanelConfig("hmhvg", 10), [(counts.tocsr(), var)])
    assert not {"RPL3", "MT-CO1"} & set(panel.symbol)
    assert panel.symbol == sorted(panel.symbol)


def test_lists_take_ids_and_symbols_and_name_what_is_missing():
    sections = [section(0), section(1)]
    panel = fit_panel(PanelConfig("list", genes=("G5", "ENSG00000000002")), sections)
    assert panel.symbol == ["G5", "G2"]
    with pytest.raises(InputError, match="1 in all; first: NOPE"):
        fit_panel(PanelConfig("list", genes=("G5", "NOPE")), sections)
    with pytest.raises(ConfigError, match=r"panel\.genes"):
        PanelConfig("list")


def test_columns_are_found_by_id():
    _, var = section(0, order=np.arange(59, -1, -1))
    panel = GenePanel(["ENSG00000000003", "other"], ["G3", "x"])
    assert panel.columns(var).tolist() == [56, -1]


def test_a_panel_is_matched_by_id_never_by_size():
    panel = GenePanel(["a", "b"], ["A", "B"])
    panel.require_same(["a", "b"], what="model")
    with pytest.raises(FormatError, match="another order"):
        panel.require_same(["b", "a"], what="model")
    with pytest.raises(FormatError, match="1 of the panel missing"):
        panel.require_same(["a", "c"], what="model")
    with pytest.raises(InputError, match="twice"):
        GenePanel(["a", "a"], ["A", "A"])
    assert GenePanel.from_dict(panel.to_dict()).gene_id == ["a", "b"]
