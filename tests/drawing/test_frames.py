"""Points and depth of a frame as they are drawn, against a walk over all pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.viewer.room import walk
from ttt3r.drawing.frames import GREY, cloud_of, depth_of
from ttt3r.types import LARGEST_HALF, Prediction


def odd(prediction: Prediction) -> Prediction:
    """Some pixels of which nothing is known."""
    assert prediction.points is not None and prediction.confidence is not None
    prediction.points[0, 0, 2] = LARGEST_HALF
    prediction.points[2, 4] = torch.nan
    prediction.points[4, 2, 0] = -torch.inf
    prediction.confidence[2, 2] = torch.nan
    return prediction


@pytest.mark.parametrize("stride", [1, 2, 5])
def test_a_cloud_is_that_of_all_pixels(stride: int):
    prediction = odd(list(walk(2, 16, 12))[1])
    assert prediction.points is not None and prediction.world_from_camera is not None
    pose = prediction.world_from_camera.double().numpy()
    expected = []
    for row in range(0, 12, stride):
        for column in range(0, 16, stride):
            point = prediction.points[row, column].double().numpy()
            confidence = float(prediction.confidence[row, column])
            if np.abs(point).max() < LARGEST_HALF and np.isfinite(confidence):
                place = pose[:3, :3] @ point + pose[:3, 3]
                expected.append([*place, *prediction.image[row, column].tolist(), confidence])
    cloud = cloud_of(prediction, stride)
    found = np.column_stack([cloud.points, cloud.colours, cloud.confidence])
    # float32 of some metres
    np.testing.assert_allclose(found, np.array(expected), atol=1e-5, rtol=0)


def test_what_a_frame_lacks():
    prediction = next(walk(1, 8, 6))
    cloud = cloud_of(replace(prediction, image=None, confidence=None))
    assert (cloud.colours == GREY).all() and (cloud.confidence == 1).all() and len(cloud[0]) == 48
    lost = torch.full((4, 4), torch.nan)
    for without in ({"points": None}, {"world_from_camera": None}, {"world_from_camera": lost}):
        assert [len(column) for column in cloud_of(replace(prediction, **without))] == [0, 0, 0]


def test_depth():
    points = torch.zeros(1, 5, 3)
    points[0, :, 2] = torch.tensor([2.0, LARGEST_HALF, -1.0, 0.0, torch.inf])
    np.testing.assert_array_equal(depth_of(points), [[2.0, *[np.nan] * 4]])
