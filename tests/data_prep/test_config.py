"""Every data configuration of the repository is read; wrong keys are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_prep.config import DataConfig, TrackConfig
from seq2exp.core.config import bind, load_config
from seq2exp.core.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "data").glob("*.yaml"))


def test_the_four_real_sets_have_a_configuration():
    names = {path.stem for path in CONFIGS}
    assert {"yeast_R64", "human_chr22_hg38", "human_chr1_b37", "human_chr20_b37"} <= names


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configuration_is_read_and_uses_relative_paths(path):
    config = load_config(DataConfig, [path])
    paths = [config.fasta, config.annotation.gtf, *(track.path for track in config.tracks)]
    assert not any(Path(name).is_absolute() for name in paths)


BASE = {"assembly": "a", "fasta": "f", "annotation": {"gtf": "g"}}


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"bin_sise": 16}, "bin_size"),
        ({"bin_size": 0}, "bin_size"),
        ({"track_dtype": "float8"}, "float16"),
        ({"annotation": {"gtf": "g", "tss": "exon"}}, "transcript"),
        ({"tracks": [{"name": "a", "path": "p"}, {"name": "a", "path": "q"}]}, "used twice.*: a"),
        ({"tracks": [{"name": "a/b", "path": "p"}]}, "a/b"),
        ({"tracks": [{"name": "a", "path": "p", "nan": "mask"}]}, "nan"),
        ({"tracks": [{"name": "a", "pth": "p"}]}, "path"),
    ],
)
def test_wrong_values_are_refused(extra, message):
    with pytest.raises(ConfigError, match=message):
        bind(DataConfig, BASE | extra, where="test")


def test_absolute_paths_ignore_the_source_folder(tmp_path):
    config = bind(DataConfig, BASE, where="test")
    assert config.resolve("x/y.fa", tmp_path) == tmp_path / "x" / "y.fa"
    assert config.resolve("/data/y.fa", tmp_path) == Path("/data/y.fa")


def test_track_names_are_plain():
    assert TrackConfig(name="K562.DNase-seq_1+2", path="p").name
    for name in ("", ".x", "a b", "a\n", "../x"):
        with pytest.raises(ConfigError):
            TrackConfig(name=name, path="p")
