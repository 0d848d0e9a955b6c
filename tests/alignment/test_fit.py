"""The robust similarity: exact without errors, and unimpressed by wrong pairs."""

import math

import pytest
import torch

from tests.geometry.samples import random_similarity
from ttt3r.alignment.fit import fit_similarity, upright_along_line
from ttt3r.errors import InputError
from ttt3r.geometry import se3
from ttt3r.geometry.align import align_points


def cloud(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, generator=generator, dtype=torch.float64) * torch.tensor([5, 2, 1])


@pytest.mark.parametrize("count", [3, 4, 12, 200])
def test_without_errors_it_is_exact(count: int) -> None:
    source, truth = cloud(count), random_similarity(1, 1)[0].double()
    fit = fit_similarity(source, se3.apply(truth, source))
    torch.testing.assert_close(fit.target_from_source, truth, rtol=0, atol=1e-9)
    assert bool(fit.used.all()) and not fit.straight


@pytest.mark.parametrize(("count", "wrong"), [(8, 2), (60, 25), (300, 140)])
def test_wrong_pairs_are_left_out(count: int, wrong: int) -> None:
    """Errors of 1 cm, and almost half of the pairs anywhere within some 20 m."""
    source, truth = cloud(count), random_similarity(2, 1)[0].double()
    noise = torch.randn(count, 3, generator=torch.Generator().manual_seed(3)).double()
    target = se3.apply(truth, source) + 0.01 * noise
    target[:wrong] += 20 * cloud(wrong, 4) / 5
    fit = fit_similarity(source, target)
    # The error of a mean of 5 or more, over an extent of 1 or more across.
    torch.testing.assert_close(fit.target_from_source, truth, rtol=0, atol=0.1)
    far = (target - se3.apply(truth, source)).norm(dim=1) > 0.3
    assert not bool(fit.used[far].any()) and int(fit.used.sum()) >= 0.8 * (count - wrong)
    # The twin that cannot tell them apart is far off.
    plain = align_points(source, target, None, with_scale=True)
    assert float((plain - truth).abs().max()) > 0.3


def test_the_same_positions_give_the_same_similarity() -> None:
    source, target = cloud(100), cloud(100) + 0.1 * cloud(100, 7)
    first, second = fit_similarity(source, target), fit_similarity(source, target)
    assert torch.equal(first.target_from_source, second.target_from_source)


@pytest.mark.parametrize("sideways", [0.0, 1e-4, 0.005])
def test_a_straight_line_is_known_as_one(sideways: float) -> None:
    """The last is wider than rounding, but not than the errors of 5 cm."""
    source = cloud(50) * torch.tensor([1, sideways, sideways])
    noise = 0.05 * cloud(50, 5) / 3
    assert fit_similarity(source, source * 2 + noise).straight
    assert not fit_similarity(cloud(50), cloud(50) * 2 + noise).straight


def test_cameras_stand_upright_along_a_line() -> None:
    """A level walk, the camera tilted by 0.3; the truth is found again but for the tilt's part."""
    forward = torch.linspace(0, 10, 20, dtype=torch.float64)
    source = torch.stack([0 * forward, 0 * forward, forward], 1)  # along z, y down
    ups = torch.tensor([0.0, -math.cos(0.3), math.sin(0.3)]).double().expand(20, 3)
    target = torch.stack([0 * forward, 3 * forward, 0 * forward], 1)  # to the north
    up = torch.tensor([0.0, 0.0, 1.0]).double()
    fit = upright_along_line(fit_similarity(source, target), source, target, ups, up)
    # x east, y down, z north become x, -z, y, three times as long
    expected = 3 * torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]).double()
    torch.testing.assert_close(fit.target_from_source[:3, :3], expected, rtol=0, atol=1e-6)
    assert float(fit.residuals.max()) < 1e-9
    for wrong in (up, torch.tensor([0.0, 1.0, 0.0]).double()):
        line = forward[:, None] * wrong  # straight up; or north, with an up that points north too
        seen = ups if wrong is up else torch.tensor([0.0, 0.0, 1.0]).double().expand(20, 3)
        straight = fit_similarity(source, line)
        with pytest.raises(InputError, match=r"ttt3r scale RUN 1"):
            upright_along_line(straight, source, line, seen, up)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (cloud(2), cloud(2), "2 positions are known"),
        (torch.ones(5, 3).double(), cloud(5), "of the run are all the same"),
        (cloud(5), torch.ones(5, 3).double(), "of the file are all the same"),
    ],
)
def test_too_little_is_refused(source: torch.Tensor, target: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_similarity(source, target)
