"""`ttt3r.track` is VGGT's track head, and refuses what has none."""

import pytest
import torch

import ttt3r
from tests.networks import random_images
from ttt3r.errors import InputError, SettingError


def test_points_are_followed_through_the_images():
    model = ttt3r.load("tiny-vggt", device="cpu")
    images = random_images(3, 56, 84)[None].clamp(-1, 1)
    points = torch.tensor([[[10.0, 20.0], [40.5, 30.25]]])
    tracks, own = ttt3r.track(model, images, points), model.track(images, points)
    assert tracks.positions.shape == (1, 3, 2, 2) and torch.equal(tracks.positions[:, 0], points)
    assert torch.equal(tracks.positions, own.positions)
    for share in (tracks.visibility, tracks.confidence):
        assert share.shape == (1, 3, 2) and bool(((share >= 0) & (share <= 1)).all())
    with pytest.raises(InputError, match="does not lie in the first image"):
        ttt3r.track(model, images, points + 100)


def test_other_networks_are_refused():
    model = ttt3r.load("tiny-linear", device="cpu")
    with pytest.raises(SettingError, match="only VGGT"):
        ttt3r.track(model, torch.zeros(1, 1, 3, 48, 64), torch.zeros(1, 1, 2))
