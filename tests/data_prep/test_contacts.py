"""Contacts: the power law's golden numbers, the table by hand, and .hic through a stand-in."""

from __future__ import annotations

import sys
import types

import numpy as np
import pandas as pd
import pytest

from data_prep.config import ContactConfig
from data_prep.contacts import (
    bin_distances,
    check_contacts,
    contact_profiles,
    power_law,
    pseudocount,
)
from seq2exp.core.errors import ConfigError, InputError

GENES = pd.DataFrame({"gene_id": ["a", "b"], "contig": ["chr1", "chr1"], "tss": [1000, 5050]})


def test_golden_pseudocount():
    """exp(-4.80 + 11.63 * 0.87 - 0.87 * ln(1e6 + 1)), specification section 2.4."""
    expected = np.exp(-4.80 + 11.63 * 0.87 - 0.87 * np.log(1e6 + 1))
    assert pseudocount(0.0) == pytest.approx(expected, rel=1e-9)
    assert pseudocount(100_000) == pytest.approx(0.0012291959, abs=5e-11)
    # A zero contact inside 1 Mb is stored as log10(1 + pseudocount).
    assert np.log10(1 + pseudocount(0.0)) == pytest.approx(0.000533505, abs=5e-10)


def test_power_law_is_flat_below_5_kb_and_falls_beyond():
    assert power_law(0) == power_law(5000) == power_law(-3000)
    ratio = power_law(20_001 * 2 - 1) / power_law(20_000)  # (d + 1) doubles
    assert ratio == pytest.approx(2**-0.87)
    assert pseudocount(3_000_000) == power_law(3_000_000) < pseudocount(0)


def test_bins_are_centred_on_the_tss():
    assert bin_distances(ContactConfig(bin_size=100, num_bins=4)).tolist() == [-150, -50, 50, 150]


def test_power_law_profiles_are_symmetric_and_equal_for_all_genes():
    profiles = contact_profiles(GENES, ContactConfig(), None)
    assert profiles.shape == (2, 40)
    assert profiles.dtype == np.float32
    np.testing.assert_array_equal(profiles[0], profiles[1])
    np.testing.assert_allclose(profiles[0], profiles[0][::-1])
    # Bin 25 has its centre at 5.5 bins of 5 kb from the TSS.
    expected = np.log10(1 + power_law(27_500) + pseudocount(27_500))
    assert profiles[0, 25] == pytest.approx(float(expected), rel=1e-6)


def test_table_is_averaged_by_overlap(tmp_path):
    """Bins of gene a are [800, 900), ..., [1100, 1200). Row [850, 1050) with contact 2 covers
    half of the first, the whole second, half of the third; row [1050, 1100) with 6 its rest.
    """
    path = tmp_path / "contacts.tsv"
    path.write_text(
        "gene_id\tchrom\tstart\tend\tcontact\n"
        "a\tchr1\t850\t1050\t2\na\tchr1\t1050\t1100\t6\nb\tchr1\t0\t9000\t4\nz\tchr1\t0\t10\t1\n"
    )
    config = ContactConfig(source="table", path="contacts.tsv", bin_size=100, num_bins=4)
    profiles = contact_profiles(GENES, config, path)
    contact = np.array([[1.0, 2.0, 4.0, 0.0], [4.0, 4.0, 4.0, 4.0]])
    floor = pseudocount(bin_distances(config))
    np.testing.assert_allclose(profiles, np.log10(1 + contact + floor), rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gene_id\tstart\tend\n", "no column contact"),
        ("gene_id\tstart\tend\tcontact\n", "no rows"),
        ("gene_id\tstart\tend\tcontact\na\t5\t5\t1\n", "rows that are no contact"),
        ("gene_id\tstart\tend\tcontact\na\t5\t9\t-1\n", "rows that are no contact"),
        ("gene_id\tstart\tend\tcontact\na\t5\t9\tinf\n", "rows that are no contact"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, message):
    path = tmp_path / "contacts.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        check_contacts(ContactConfig(source="table", path="contacts.tsv"), path)


def test_table_of_other_genes_is_refused(tmp_path):
    path = tmp_path / "contacts.tsv"
    path.write_text("gene_id\tstart\tend\tcontact\nz\t5\t9\t1\n")
    config = ContactConfig(source="table", path="contacts.tsv")
    with pytest.raises(InputError, match="0 in all"):
        contact_profiles(GENES, config, path)


def test_path_and_source_belong_together():
    with pytest.raises(ConfigError, match=r"contacts\.path"):
        ContactConfig(source="hic")
    with pytest.raises(ConfigError, match=r"contacts\.path"):
        ContactConfig(source="power_law", path="x.hic")
    with pytest.raises(ConfigError, match="even"):
        ContactConfig(num_bins=3)


def test_missing_hic_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "hicstraw", None)
    path = tmp_path / "x.hic"
    path.write_bytes(b"HIC\0")
    with pytest.raises(InputError, match=r"seq2exp\[hic\]"):
        check_contacts(ContactConfig(source="hic", path="x.hic"), path)


def fake_hicstraw(cells):
    """Return a module that answers like hicstraw from a dict of (binX, binY) -> counts."""
    module = types.ModuleType("hicstraw")

    class HiCFile:
        def __init__(self, path):
            self.path = path

        def getChromosomes(self):
            return [types.SimpleNamespace(name=name) for name in ("All", "1")]

    def straw(kind, normalization, path, first, second, unit, resolution):
        assert (kind, normalization, first, second, unit) == ("observed", "VC", "1", "1", "BP")
        return [
            types.SimpleNamespace(binX=x * resolution, binY=y * resolution, counts=value)
            for (x, y), value in cells.items()
        ]

    module.HiCFile = HiCFile
    module.straw = straw
    return module


def test_hic_profile_by_hand(tmp_path, monkeypatch):
    """Gene a: TSS 1000, home bin 10 of 100 bases; its bins have centres 850, 950, 1050, 1150, which
    are grid bins 8, 9, 10, 11. Gene b has nothing within 500 bases, so its row is zero.
    """
    cells = {(8, 10): 3.0, (10, 10): 7.0, (10, 11): np.nan, (50, 60): 9.0}
    monkeypatch.setitem(sys.modules, "hicstraw", fake_hicstraw(cells))
    config = ContactConfig(source="hic", path="x.hic", bin_size=100, num_bins=4)
    profiles = contact_profiles(GENES, config, tmp_path / "x.hic")
    contact = np.array([[3.0, 0.0, 7.0, 0.0], [0.0] * 4])
    floor = pseudocount(bin_distances(config))
    np.testing.assert_allclose(profiles, np.log10(1 + contact + floor), rtol=1e-6)
