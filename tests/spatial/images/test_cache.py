"""What is on disk is used, what is not whole or not of these inputs is computed again."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import seq2exp.spatial.images.cache as module
from seq2exp.core.errors import ConfigError, FormatError, Seq2ExpWarning
from seq2exp.spatial import format as layout
from seq2exp.spatial.cohort import SpatialCohort
from seq2exp.spatial.images.cache import FeatureCache, FeatureConfig
from seq2exp.spatial.images.compute import encode_patches, patches_to_tensor
from seq2exp.spatial.images.registry import make_encoder
from seq2exp.spatial.images.tiles import open_section_image, tile_centres, tiles_of
from tests.spatial.images.toy import make_cohort

PARTS = ("feat", "tokens", "nbr")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def cohort(source, tmp_path):
    """A copy that a test may change."""
    return SpatialCohort(shutil.copytree(source.root, tmp_path / "cohort"))


@pytest.fixture
def runs(monkeypatch):
    """Labels of what was encoded."""
    found = []

    def counted(*args, **kwargs):
        found.append(kwargs["label"])
        return encode_patches(*args, **kwargs)

    monkeypatch.setattr(module, "encode_patches", counted)
    return found


def tiny(**settings):
    return make_encoder("tinycnn", **settings)


def direct(encoder, patches):
    with torch.no_grad():
        return encoder.tokens(patches_to_tensor(patches)), encoder.pool(patches_to_tensor(patches))


def test_features_are_those_of_the_encoder(cohort):
    encoder = tiny()
    cache = FeatureCache(cohort, encoder, config=FeatureConfig(batch_size=7))
    for name in cohort.names:
        tokens, pooled = direct(encoder, cohort.section(name).patches)
        np.testing.assert_allclose(cache.feat(name), pooled, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(cache.tokens(name), tokens, rtol=1e-5, atol=1e-6)
    assert cache.feat("A").dtype == np.float32
    assert cache.tokens("A").shape == (30, 4, 64)
    assert not np.allclose(cache.feat("A"), cache.feat("B"))


def test_features_of_tiles_and_what_is_not_there(cohort):
    """Wide tiles, so that some lie outside; the middle one is the patch itself."""
    encoder = tiny()
    cohort.manifest = dataclasses.replace(
        cohort.manifest, patch=dataclasses.replace(cohort.manifest.patch, um=400.0)
    )
    nbr, mask = FeatureCache(cohort, encoder).nbr("A")
    section = cohort.section("A")
    assert (nbr.shape, mask.shape, mask.dtype) == ((30, 25, 64), (30, 25), bool)
    np.testing.assert_array_equal(mask, tile_centres(section, um=400)[1])
    assert 0 < mask.sum() < mask.size
    assert not nbr[~mask].any()
    image = open_section_image(cohort, "A")
    for spot, tile, pixels in list(tiles_of(section, image, um=400, px=16))[::60]:
        expected = direct(encoder, pixels[None])[1][0]
        np.testing.assert_allclose(nbr[spot, tile], expected, rtol=1e-5, atol=1e-6)


def test_the_middle_tile_is_the_patch(cohort):
    cache = FeatureCache(cohort, tiny())
    np.testing.assert_allclose(cache.nbr("A")[0][:, 12], cache.feat("A"), rtol=1e-5, atol=1e-6)


def test_a_second_look_computes_nothing(cohort, runs):
    cache = FeatureCache(cohort, tiny())
    assert len(cache.build(PARTS)) == 6
    assert len(runs) == 6
    first = {part: cache._whole("A", part) for part in PARTS}
    again = FeatureCache(SpatialCohort(cohort.root), tiny())
    assert again.build(PARTS) == []
    for part in PARTS:
        for name, value in again._whole("A", part).items():
            np.testing.assert_array_equal(value, first[part][name])
    assert len(runs) == 6


def test_a_stopped_run_goes_on_with_what_is_missing(cohort, runs, monkeypatch):
    cache = FeatureCache(cohort, tiny())
    real = FeatureCache._write

    def stops(self, section, part, arrays):
        if section.name == "B":
            raise KeyboardInterrupt
        real(self, section, part, arrays)

    monkeypatch.setattr(FeatureCache, "_write", stops)
    with pytest.raises(KeyboardInterrupt):
        cache.build()
    monkeypatch.setattr(FeatureCache, "_write", real)
    assert [path.name for path in cache.folder.iterdir()] == ["A.feat.safetensors"]
    runs.clear()
    assert cache.build() == [cache.path("B", "feat")]
    assert runs == ["tinycnn feat of B"]


def test_a_stop_while_writing_leaves_no_file(cohort, monkeypatch):
    cache = FeatureCache(cohort, tiny())

    def fails(arrays, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", fails)
    with pytest.raises(OSError, match="No space"):
        cache.build()
    assert list(cache.folder.iterdir()) == []


@pytest.mark.parametrize("kind", ["empty", "cut", "flipped", "text", "row"])
def test_damaged_files_are_computed_again(cohort, runs, kind):
    cache = FeatureCache(cohort, tiny())
    expected, path = cache.feat("A"), cache.path("A", "feat")
    content = path.read_bytes()
    if kind == "row":
        arrays = load_file(path)
        with safe_open(path, framework="numpy") as handle:
            about = handle.metadata()
        save_file({"feat": arrays["feat"][:-1]}, path, metadata=about)
    else:
        flipped = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
        changed = {"empty": b"", "cut": content[:-100], "flipped": flipped, "text": b"<html>"}
        path.write_bytes(changed[kind])
    runs.clear()
    np.testing.assert_array_equal(cache.feat("A"), expected)
    assert runs == ["tinycnn feat of A"]
    assert path.read_bytes() == content


def changed_manifest(cohort, **patch):
    manifest = cohort.manifest
    cohort.manifest = dataclasses.replace(
        manifest, patch=dataclasses.replace(manifest.patch, **patch)
    )


def other_image(cohort):
    infos = [dataclasses.replace(info, image_sha256="0" * 64) if info.name == "A" else info
             for info in cohort.manifest.sections]  # fmt: skip
    cohort.manifest = dataclasses.replace(cohort.manifest, sections=infos)


def renamed_spot(cohort):
    index = cohort.section("A").obs.index.to_numpy(object)
    index[3] = "A_99x99"
    cohort.section("A").obs.index = index


def moved_spot(cohort):
    cohort.section("A").xy_N2[3] += 1


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        (lambda c: changed_manifest(c, um=170.0), "AB"),
        (lambda c: changed_manifest(c, px=17), "AB"),
        (lambda c: changed_manifest(c, stain="macenko"), "AB"),
        (other_image, "A"),
        (renamed_spot, "A"),
        (moved_spot, "A"),
    ],
)
def test_features_of_other_inputs_are_stale(cohort, change, stale):
    """Only those are read as absent that follow from what has changed."""
    cache = FeatureCache(cohort, tiny())
    cache.build()
    change(cohort)
    found = "".join(n for n in "AB" if cache._read(cohort.section(n), "feat") is None)
    assert found == stale


def test_encoders_weights_and_colours_keep_apart(cohort):
    first, other = FeatureCache(cohort, tiny()), FeatureCache(cohort, tiny(seed=1))
    stats = FeatureCache(cohort, make_encoder("colour_stats"))
    assert len({first.folder, other.folder, stats.folder}) == 3
    assert not np.allclose(first.feat("A"), other.feat("A"))
    assert stats.feat("A").shape == (30, 137)
    shifted = FeatureCache(cohort, tiny(mean=(0.0, 0.0, 0.0)))
    assert shifted.folder == first.folder
    assert shifted._read(cohort.section("A"), "feat") is None
    smaller = tiny()
    smaller.px = 16
    assert FeatureCache(cohort, smaller)._read(cohort.section("A"), "feat") is None
    assert first.key("A", "feat") != first.key("B", "feat") != first.key("B", "nbr")


def test_half_precision_is_that_of_the_disk(cohort):
    """Features of patches are single in use; places are mapped, not read, and become so later."""
    full = FeatureCache(cohort, tiny(), root=cohort.root / "full")
    half = FeatureCache(
        cohort, tiny(), root=cohort.root / "half", config=FeatureConfig(dtype="float16")
    )
    for part in ("feat", "tokens"):
        found, exact = getattr(half, part)("A"), getattr(full, part)("A")
        assert found.dtype == (np.float32 if part == "feat" else np.float16)
        assert isinstance(found, np.memmap) == (part == "tokens")
        np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-6)
        assert not np.array_equal(found, exact)
        sizes = [cache.path("A", part).stat().st_size for cache in (half, full)]
        assert sizes[0] < 0.75 * sizes[1]
    assert half.nbr("A")[1].all()
    assert load_file(half.path("A", "nbr"))["nbr"].dtype == np.float16


def test_numbers_too_large_for_half_precision_are_refused(cohort):
    encoder = tiny()
    with torch.no_grad():
        encoder.layers[7].bias.fill_(1e5)
    cache = FeatureCache(cohort, encoder, config=FeatureConfig(dtype="float16"))
    with pytest.raises(ConfigError, match="at most 65504 in float16"):
        cache.feat("A")


def test_features_that_are_no_numbers_are_refused(cohort):
    encoder = tiny()
    with torch.no_grad():
        encoder.layers[7].bias[0] = float("nan")
    with pytest.raises(FormatError, match=r"tinycnn feat of A.*NaN.*30 in all; first: patch 0"):
        FeatureCache(cohort, encoder).feat("A")


def test_mode_and_device_of_the_encoder_are_put_back(cohort):
    encoder = make_encoder("tinycnn", freeze=False).train()
    FeatureCache(cohort, encoder).feat("A")
    assert encoder.training
    assert all(p.requires_grad and p.grad is None for p in encoder.parameters())


def test_random_weights_of_a_large_encoder_are_flagged(cohort):
    encoder = tiny()
    encoder.name = "resnet18"
    with pytest.warns(Seq2ExpWarning, match="encoder resnet18: found random weights"):
        FeatureCache(cohort, encoder).build()
    FeatureCache(cohort, encoder).build()  # nothing to compute, nothing to say


def test_no_tokens_and_unknown_parts(cohort):
    cache = FeatureCache(cohort, make_encoder("colour_stats"))
    with pytest.raises(ConfigError, match="leave tokens out"):
        cache.build(["feat", "tokens"])
    assert not cache.folder.exists()
    with pytest.raises(ConfigError, match="feat"):
        cache.build(["feats"])
    with pytest.raises(ConfigError, match="batch_size"):
        FeatureConfig(batch_size=0)


def test_progress_is_reported(cohort, caplog):
    with caplog.at_level("INFO"):
        FeatureCache(cohort, tiny(), config=FeatureConfig(batch_size=3)).build(progress=True)
    assert "tinycnn feat of A: 100% (10 of 10" in caplog.text


def test_the_cache_is_no_part_of_the_manifest(cohort):
    FeatureCache(cohort, tiny()).build()
    assert (cohort.root / "features").is_dir()
    SpatialCohort(cohort.root, verify_checksums=True)
    assert layout.read_manifest(cohort.root) == cohort.manifest
