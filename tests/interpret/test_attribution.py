"""Attributions against closed forms: additive models, products, both strands, every method."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seq2exp.core.errors import ConfigError, InputError
from seq2exp.core.sequence import decode, one_hot
from seq2exp.interpret.attribution import AttributionConfig, Completeness, attributions
from seq2exp.interpret.gradients import base_baselines
from seq2exp.interpret.target import make_target, output_of
from seq2exp.training.run import open_run
from tests.interpret.explained import WINDOW, Additive, Word, run_of

METHODS = ("gradient_x_input", "integrated_gradients", "saturation")


def explain(run, dataset, rows, **settings):
    output = settings.pop("output", 0)
    regions = settings.pop("regions", None)
    config = AttributionConfig(**settings)
    return list(attributions(run, dataset, rows, config, output=output, regions=regions))


def in_genome(values_LC, window):
    """Turn weights of the window that the model reads into genome direction."""
    return values_LC[::-1, ::-1] if window.reverse else values_LC


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("row", [2, 3])  # a gene of each strand
def test_an_additive_model_is_explained_exactly_on_both_strands(dataset, method, row):
    """Share of base b with the uniform baseline: W[b] - mean(W), for every method the same."""
    model = Additive()
    run = run_of(dataset, model)
    (one,) = explain(run, dataset, [row], method=method, steps=3, span_bp=WINDOW)
    assert dataset.sites[row][2] == ("+" if row == 2 else "-")
    assert one.window.reverse == (row == 3)
    weights = model.weight_LC.detach().numpy()
    centred = in_genome(weights - weights.mean(1, keepdims=True), one.window)
    known = one.codes < 4
    np.testing.assert_allclose(one.hypothetical[known], centred[known], atol=2e-6)
    expected = (one_hot(one.codes) * centred).sum(1)
    np.testing.assert_allclose(one.share, expected, atol=2e-6)
    assert one.bases.error == pytest.approx(0, abs=1e-4)
    # The arrays lie where the genome has these bases.
    contig, start = one.window.contig, one.window.start
    stored = np.load(dataset.root / "sequence" / f"{contig}.npy")
    low, high = one.window.clipped_start, one.window.clipped_end
    assert decode(one.codes[low - start : high - start]) == decode(stored[low:high])


def test_tracks_of_an_additive_model_are_signal_times_weight(dataset):
    model = Additive()
    for row in (2, 3):
        for method in ("gradient_x_input", "integrated_gradients"):
            (one,) = explain(run_of(dataset, model), dataset, [row], method=method, steps=2)
            target = make_target(run_of(dataset, model), dataset, row)
            expected = (target.batch.signal_BNT[0] * model.signal_NT).detach().numpy()
            expected = expected[::-1] if one.window.reverse else expected
            np.testing.assert_allclose(one.tracks, expected, rtol=1e-5, atol=1e-6)
            assert one.signal.error == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("baseline", ["uniform", "n", "zero", "shuffled"])
def test_integrated_gradients_of_a_square_are_complete_where_one_gradient_is_not(dataset, baseline):
    """f = s**2 with s linear: the path integral of 2 s is exact with two points of the rule."""
    run = run_of(dataset, Additive(power=2))
    settings = {"baseline": baseline, "num_shuffles": 2, "tracks": False}
    (exact,) = explain(run, dataset, [4], method="integrated_gradients", steps=2, **settings)
    (slope,) = explain(run, dataset, [4], method="gradient_x_input", **settings)
    assert exact.bases.difference == pytest.approx(slope.bases.difference, rel=1e-9)
    assert abs(exact.bases.difference) > 1e-3
    assert exact.bases.relative_error < 1e-5
    assert slope.bases.relative_error > 1e-2
    assert exact.share.sum() == pytest.approx(exact.bases.difference, rel=1e-3)
    if baseline == "n":
        settings["baseline"] = "zero"
        (zero,) = explain(run, dataset, [4], method="integrated_gradients", steps=2, **settings)
        np.testing.assert_array_equal(zero.share, exact.share)


def test_members_are_averaged_and_outputs_chosen(dataset):
    first, second = Additive(1), Additive(2)
    (both,) = explain(run_of(dataset, first, second), dataset, [5])
    singles = [explain(run_of(dataset, model), dataset, [5])[0].share for model in (first, second)]
    np.testing.assert_allclose(both.share, np.mean(singles, axis=0), atol=1e-6)
    (other,) = explain(run_of(dataset, first), dataset, [5], output=1)
    np.testing.assert_allclose(other.share, 2 * singles[0], atol=1e-6)
    (mean,) = explain(run_of(dataset, first), dataset, [5], output=None)
    np.testing.assert_allclose(mean.share, 1.5 * singles[0], atol=1e-6)


def test_padding_and_n_get_nothing_and_the_rest_does(dataset):
    row = 0  # TSS at 300: the window begins before the contig and covers the run of N at 200
    for method in METHODS:
        (one,) = explain(run_of(dataset, Additive()), dataset, [row], method=method, span_bp=WINDOW)
        unknown = one.codes == 4
        assert one.window.pad_left > 0
        assert unknown[: one.window.pad_left].all()
        assert unknown[200 - one.window.start : 220 - one.window.start].all()
        assert (one.share[unknown] == 0).all()
        assert (one.hypothetical[unknown] == 0).all()
        assert (one.share[~unknown] != 0).mean() > 0.99


def test_results_do_not_depend_on_batch_size_order_or_company(dataset):
    run = run_of(dataset, Additive(power=2))
    settings = {"method": "integrated_gradients", "baseline": "shuffled", "num_shuffles": 2}
    base = explain(run, dataset, [4, 7], steps=6, batch_size=6, **settings)
    for rows, size in (([7, 4], 1), ([4], 64)):
        for one in explain(run, dataset, rows, steps=6, batch_size=size, **settings):
            same = next(other for other in base if other.row == one.row)
            np.testing.assert_allclose(one.share, same.share, rtol=1e-5, atol=1e-7)
    (other,) = explain(run, dataset, [4], steps=6, seed=1, **settings)
    assert not np.allclose(other.share, base[0].share)


# Saturation -----------------------------------------------------------------------------------


def test_saturation_gives_every_substitution_of_a_word(dataset):
    """Breaking one GATA changes the count by the copies lost and made; checked one by one."""
    model = Word()
    row = 3
    (one,) = explain(run_of(dataset, model), dataset, [row], method="saturation", span_bp=200)
    target = make_target(run_of(dataset, model), dataset, row, output=0)
    codes = target.batch.codes_BL[0].numpy()
    text = decode(codes)
    middle = WINDOW // 2
    for place in (middle - 100, middle + 20, middle + 21, middle + 22, middle + 99):
        for base in range(4):
            changed = text[:place] + "ACGT"[base] + text[place + 1 :]
            expected = changed.count("GATA") - text.count("GATA")
            # The gene is read reverse-complemented: position and base are turned round.
            assert one.delta[WINDOW - 1 - place, 3 - base] == pytest.approx(expected)
    assert one.covered.sum() == 200
    assert np.isnan(one.delta[~one.covered]).all()
    assert np.nanmin(one.delta) <= -1


def test_saturation_covers_the_regions_it_is_given(dataset):
    row = 3
    tss = dataset.sites[row][1]
    regions = {row: [(tss - 50, tss - 20), (tss - 30, tss + 5), (tss + 10_000, tss + 10_010)]}
    run = run_of(dataset, Additive(power=2))
    (one,) = explain(run, dataset, [row], method="saturation", regions=regions, batch_size=7)
    covered = np.flatnonzero(one.covered) + one.window.start
    np.testing.assert_array_equal(covered, np.arange(tss - 50, tss + 5))
    # Single substitutions of a square do not add up, and the error says so.
    assert abs(one.bases.error) > 1e-6
    (none,) = explain(run, dataset, [row], method="saturation", regions={row: []})
    assert not none.covered.any()


# A trained model ------------------------------------------------------------------------------


def test_a_trained_run_is_explained_completely_and_left_as_it_was(finished, dataset):
    run = open_run(finished)
    states = [p.requires_grad for model in run.models for p in model.parameters()]
    (one,) = explain(run, dataset, [6], method="integrated_gradients", steps=128, output=0)
    # Small beside what is moved about: the net change may be almost nothing.
    assert abs(one.bases.error) < 0.02 * np.abs(one.share).sum()
    assert abs(one.signal.error) < 0.03 * np.abs(one.tracks).sum()
    assert np.abs(one.share).max() > 0
    assert states == [p.requires_grad for model in run.models for p in model.parameters()]
    fixed = explain(run, dataset, [6], mask="fixed", output=0)[0]
    moving = explain(run, dataset, [6], output=0)[0]
    assert fixed.bases.value == pytest.approx(moving.bases.value, rel=1e-5)
    assert not np.allclose(fixed.share, moving.share)


def test_gradients_through_a_rounded_mask_are_refused(finished, dataset):
    import dataclasses

    run = open_run(finished)
    for changes in ({"mask": "hard"}, {"test_mask": "topk"}):
        for model in run.models:
            model.config = dataclasses.replace(model.config, **changes)
        with pytest.raises(ConfigError, match=r"rounded to 0 or 1.*--mask fixed"):
            explain(run, dataset, [6], method="integrated_gradients")
        explain(run, dataset, [6], method="saturation", span_bp=4)
        explain(run, dataset, [6], mask="fixed")
        run = open_run(finished)


# Bad input ------------------------------------------------------------------------------------


def test_settings_that_make_no_sense_are_refused(dataset):
    for name, value in (("method", "magic"), ("baseline", "mean"), ("steps", 0), ("span_bp", 0)):
        with pytest.raises(ConfigError, match=name):
            AttributionConfig(**{name: value})
    with pytest.raises(ConfigError, match="a model without a mask"):
        explain(run_of(dataset, Additive()), dataset, [1], mask="fixed")


def test_unknown_labels_are_named(dataset):
    run = run_of(dataset, Additive())
    assert output_of(run, None) is None
    assert output_of(run, "cell_b") == 1
    with pytest.raises(InputError, match=r"--sample liver.*cell_a, cell_b"):
        output_of(run, "liver")


def test_a_window_of_n_only_is_refused(dataset, monkeypatch):
    monkeypatch.setattr(
        type(dataset), "codes", lambda self, window: np.full(window.length, 4, np.uint8)
    )
    with pytest.raises(InputError, match="only N"):
        explain(run_of(dataset, Additive()), dataset, [1])


def test_completeness_is_undefined_where_there_is_nothing_to_explain():
    assert np.isnan(Completeness(1.0, 1.0, 0.5).relative_error)
    assert Completeness(3.0, 1.0, 1.5).error == pytest.approx(-0.5)
    assert Completeness(3.0, 1.0, 1.5).relative_error == pytest.approx(0.25)


def test_shuffled_baselines_keep_n_and_composition(dataset):
    target = make_target(run_of(dataset, Additive()), dataset, 0)
    drawn = base_baselines(target, "shuffled", num_shuffles=3, random=np.random.default_rng(0))
    real = torch.from_numpy(one_hot(target.batch.codes_BL[0].numpy())).double()
    for one in drawn:
        assert torch.equal(one.sum(1), real.sum(1))  # N where N was
        assert torch.equal(one.sum(0), real.sum(0))  # as many of each base
        assert not torch.equal(one, real)
    assert not torch.equal(drawn[0], drawn[1])
