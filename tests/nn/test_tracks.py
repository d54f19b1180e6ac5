"""Tracks: transform, scaling, missing values."""

from __future__ import annotations

import pytest
import torch

from seq2exp.nn.tracks import TrackEmbedding


@pytest.mark.parametrize(
    ("transform", "function"),
    [
        ("none", lambda x: x),
        ("log1p", torch.log1p),
        ("arcsinh", torch.arcsinh),
        ("sqrt", torch.sqrt),
    ],
)
def test_tracks_are_transformed_then_scaled(transform, function):
    torch.manual_seed(0)
    embedding = TrackEmbedding(2, 5, transform=transform)
    mean, std = torch.tensor([0.5, 1.0]), torch.tensor([2.0, 4.0])
    embedding.set_scaling(mean, std)
    signal = torch.rand(3, 4, 2) * 10
    expected = embedding.proj((function(signal) - mean) / std)
    torch.testing.assert_close(embedding(signal), expected)
    assert set(embedding.state_dict()) >= {"mean_T", "std_T"}
    torch.testing.assert_close(embedding.raw(embedding.scaled(signal)), signal)


def test_missing_track_adds_nothing_unless_learned():
    torch.manual_seed(0)
    signal = torch.tensor([[[1.0, torch.nan], [torch.nan, torch.nan]]])
    plain = TrackEmbedding(2, 5)
    plain.set_scaling(torch.tensor([0.5, 7.0]), torch.tensor([2.0, 3.0]))
    expected = plain.proj.weight[:, 0] * 0.25 + plain.proj.bias
    torch.testing.assert_close(plain(signal)[0, 0], expected)
    torch.testing.assert_close(plain(signal)[0, 1], plain.proj.bias)
    learned = TrackEmbedding(2, 5, learn_missing=True)
    learned(signal).sum().backward()
    # Track 0 is missing once, track 1 twice.
    assert learned.missing.weight.grad.tolist() == [[1, 2]] * 5
    assert torch.isfinite(learned.proj.weight.grad).all()


def test_constant_or_absent_track_is_not_divided_by_zero():
    embedding = TrackEmbedding(3, 5)
    embedding.set_scaling(torch.tensor([1.0, torch.nan, 2.0]), torch.tensor([0.0, torch.nan, 4.0]))
    assert embedding.mean_T.tolist() == [1, 0, 2]
    assert embedding.std_T.tolist() == [1, 1, 4]
