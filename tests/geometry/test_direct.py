"""Direct alignment: exact views are found, and where pixels say nothing, nothing moves."""

import pytest
import torch
from torch import Tensor

from tests.textured import seen_from
from ttt3r.geometry import se3, sim3
from ttt3r.geometry.direct import View, _Guess, _Level, align
from ttt3r.geometry.rotation import angle

HERE = torch.eye(4).double()


def motion(*tangent: float) -> Tensor:
    """Rigid motion by a shift and a rotation vector."""
    return sim3.exp(torch.tensor([*tangent, 0.0]).double())


MOVED = motion(0.15, -0.1, 0.2, 0.02, 0.06, -0.03)
OFF = motion(0.05, 0.04, -0.06, 0.015, -0.02, 0.01)


def errors(found: Tensor, truth: Tensor) -> tuple[float, float]:
    """How far a motion is off: shift, and turn in radians."""
    left = se3.invert(truth) @ found
    return float(left[:3, 3].norm()), float(angle(left[:3, :3]))


def test_exact_views_are_found():
    """Interpolation and differences of pixels leave some hundredths of a pixel, far below a fifth
    of the start, which is one to two pixels."""
    found = align(View(*seen_from(HERE)), View(*seen_from(MOVED)), MOVED @ OFF)
    before, after = errors(MOVED @ OFF, MOVED), errors(found.reference_from_frame, MOVED)
    assert found.accepted and found.after < 0.5 * found.before
    assert after[0] < before[0] / 5 and after[1] < before[1] / 5
    assert found.correlation > 0.95 and found.overlap > 0.5


def test_another_unit_gain_and_size_do_not_matter():
    grey, depth, intrinsics = seen_from(MOVED, (96, 128), 112.0)
    frame = View(0.8 * grey + 0.05, 1.3 * depth, intrinsics)
    found = align(View(*seen_from(HERE)), frame, MOVED @ OFF)
    before, after = errors(MOVED @ OFF, MOVED), errors(found.reference_from_frame, MOVED)
    assert found.accepted
    assert after[0] < before[0] / 5 and after[1] < before[1] / 5
    assert found.log_scale == pytest.approx(-torch.tensor(1.3).log().item(), abs=0.01)


def test_derivatives_are_those_of_finite_differences():
    """The slow twin. Of brightness and log depth that are linear in the pixels, bilinear
    interpolation and central differences are exact; what is left is the step's own error."""
    grey, depth, intrinsics = (item.double() for item in seen_from(HERE))
    v, u = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    linear = 0.2 + 0.004 * u.double() + 0.003 * v.double()
    frame = View(linear, (0.01 * u.double() - 0.02 * v.double()).exp(), intrinsics)
    level = _Level(View(grey, depth, intrinsics), frame)
    guess = _Guess(se3.invert(OFF), torch.tensor([0.1, -0.2, 0.05]).double())
    found, eps = level.residuals(guess), 1e-6
    for number in range(9):
        step = torch.zeros(9).double()
        step[number] = eps
        ends = [level.residuals(guess.moved(sign * step)) for sign in (1, -1)]
        slope = (ends[0].values - ends[1].values) / (2 * eps)
        seen = found.seen & ends[0].seen & ends[1].seen
        assert int(seen.sum()) > 2000
        torch.testing.assert_close(
            found.jacobian[..., number][seen], slope[seen], atol=1e-6, rtol=0
        )


def plain(view: tuple[Tensor, Tensor, Tensor], noise: int) -> View:
    """A view of a wall without a pattern, with noise of the camera."""
    generator = torch.Generator().manual_seed(noise)
    grey = 0.5 + 0.01 * torch.randn(view[0].shape, generator=generator)
    return View(grey, *view[1:])


def test_where_pixels_say_nothing_the_pose_stays():
    """Noise without a pattern, another picture, depth that is noise or unknown, one far off."""
    reference, frame = View(*seen_from(HERE)), View(*seen_from(MOVED))
    generator = torch.Generator().manual_seed(0)
    wrong = torch.randn(reference.depth.shape, generator=generator).exp()
    other = frame._replace(grey=torch.rand(frame.grey.shape, generator=generator))
    pairs = {
        "no pattern": (plain(seen_from(HERE), 0), plain(seen_from(MOVED), 1)),
        "another picture": (reference, other),
        "depth of noise": (reference._replace(depth=reference.depth * wrong), frame),
        "no depth": (reference._replace(depth=torch.full((48, 64), torch.nan)), frame),
        "depth below 0": (reference._replace(depth=-reference.depth), frame),
    }
    for name, pair in pairs.items():
        for initial in (MOVED, MOVED @ OFF):
            found = align(*pair, initial)
            assert not found.accepted, name
            assert torch.equal(found.reference_from_frame, initial), name
    away = motion(0, 0, 0, 0, 3.1, 0)
    assert not align(reference, frame, away).accepted
    assert not align(reference, frame, torch.full((4, 4), torch.nan).double()).accepted


def test_unknown_depth_is_left_out():
    grey, depth, intrinsics = seen_from(HERE)
    depth[::3] = torch.nan
    depth[:, 40:44] = 0.0
    found = align(View(grey, depth, intrinsics), View(*seen_from(MOVED)), MOVED @ OFF)
    before, after = errors(MOVED @ OFF, MOVED), errors(found.reference_from_frame, MOVED)
    assert found.accepted and after[0] < before[0] / 5 and after[1] < before[1] / 5


def test_what_is_right_stays_right():
    """From the true motion, nothing can be gained; at most some hundredths of a pixel are lost."""
    found = align(View(*seen_from(HERE)), View(*seen_from(MOVED)), MOVED)
    shift, turn = errors(found.reference_from_frame, MOVED)
    assert shift < 0.01 and turn < 0.003
