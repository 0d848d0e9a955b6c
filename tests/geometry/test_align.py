import pytest
import torch
from hypothesis import given

from tests.geometry.samples import (
    BATCHES,
    SEEDS,
    close,
    generator,
    normal,
    random_rigid,
    random_similarity,
)
from ttt3r.errors import InputError
from ttt3r.geometry import se3
from ttt3r.geometry.align import align_points


def random_weights(seed, *shape):
    return torch.rand(*shape, generator=generator(seed), dtype=torch.float64) + 0.1


def cost(transform, source, target, weights):
    return float((weights * (se3.apply(transform, source) - target).square().sum(-1)).sum())


@given(SEEDS)
def test_recovers_a_similarity(seed):
    transform, source = random_similarity(seed), normal(seed + 1, 8, 3)
    target = se3.apply(transform, source)
    close(align_points(source, target, None, with_scale=True), transform, 1e-7)
    weights = random_weights(seed, 8)
    close(align_points(source, target, weights, with_scale=True), transform, 1e-7)


@given(SEEDS)
def test_recovers_a_rigid_transform(seed):
    transform, source = random_rigid(seed), normal(seed + 1, 8, 3)
    aligned = align_points(source, se3.apply(transform, source), None, with_scale=False)
    close(aligned, transform, 1e-7)


@given(SEEDS)
def test_nothing_nearby_fits_better(seed):
    source, target, weights = normal(seed, 8, 3), normal(seed + 1, 8, 3), random_weights(seed, 8)
    for with_scale in (True, False):
        best = align_points(source, target, weights, with_scale=with_scale)
        least = cost(best, source, target, weights)
        for i in range(4):
            step = 1e-3 * normal(seed + i, 8)
            turn = se3.pose_from_encoding(
                torch.cat([step[:3], torch.ones(1, dtype=step.dtype), step[4:7]])
            )
            if with_scale:
                turn = se3.assemble((1 + step[7]) * turn[:3, :3], turn[:3, 3])
            assert cost(turn @ best, source, target, weights) >= least - 1e-12


@given(SEEDS)
def test_swapping_rigid_sets_inverts_the_result(seed):
    source, target, weights = normal(seed, 8, 3), normal(seed + 1, 8, 3), random_weights(seed, 8)
    forward = align_points(source, target, weights, with_scale=False)
    backward = align_points(target, source, weights, with_scale=False)
    close(backward, se3.invert(forward), 1e-6)


def test_a_mirrored_set_still_gets_a_proper_rotation():
    source = normal(0, 20, 3)
    target = source * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    for with_scale in (True, False):
        linear = align_points(source, target, None, with_scale=with_scale)[:3, :3]
        assert torch.linalg.det(linear) > 0


@given(SEEDS)
def test_planar_points_determine_it(seed):
    source = normal(seed, 8, 3) * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    transform = random_similarity(seed + 1)
    aligned = align_points(source, se3.apply(transform, source), None, with_scale=True)
    close(aligned, transform, 1e-6)


@given(SEEDS)
def test_collinear_points_get_one_of_the_best_fits(seed):
    source = normal(seed, 8, 1) * normal(seed + 1, 3)
    target = se3.apply(random_similarity(seed + 2), source)
    aligned = align_points(source, target, None, with_scale=True)
    assert torch.linalg.det(aligned[:3, :3]) > 0
    close(se3.apply(aligned, source), target, 1e-6)


def test_weights_count_like_repeated_points():
    source, target = normal(0, 5, 3), normal(1, 5, 3)
    weights = torch.tensor([1.0, 2.0, 3.0, 1.0, 2.0], dtype=torch.float64)
    repeats = weights.long()
    close(
        align_points(source, target, weights, with_scale=True),
        align_points(
            source.repeat_interleave(repeats, dim=0),
            target.repeat_interleave(repeats, dim=0),
            None,
            with_scale=True,
        ),
    )


def test_points_of_weight_zero_may_hold_anything():
    transform, source = random_similarity(0), normal(1, 8, 3)
    target = se3.apply(transform, source)
    weights = torch.ones(8, dtype=torch.float64)
    weights[:2] = 0
    source[0], target[0], target[1] = torch.nan, torch.inf, 1e6
    close(align_points(source, target, weights, with_scale=True), transform)


def test_the_scale_of_the_weights_does_not_matter():
    source, target = normal(0, 8, 3), normal(1, 8, 3)
    weights = random_weights(2, 8)
    expected = align_points(source, target, weights, with_scale=True)
    for factor in (1e-300, 1e300):
        close(align_points(source, target, factor * weights, with_scale=True), expected)


@pytest.mark.parametrize("batch", BATCHES)
def test_batch_shapes_agree(batch):
    source, target = normal(0, *batch, 8, 3), normal(1, *batch, 8, 3)
    weights = random_weights(2, *batch, 8)
    aligned = align_points(source, target, weights, with_scale=True)
    assert aligned.shape == (*batch, 4, 4)
    first = (0,) * len(batch)
    single = align_points(source[first], target[first], weights[first], with_scale=True)
    close(aligned[first], single)


def test_float32_far_from_the_origin():
    source = normal(0, 50, 3, dtype=torch.float32) + 1000
    transform = random_rigid(1, dtype=torch.float32)
    target = se3.apply(transform, source)
    aligned = align_points(source, target, None, with_scale=True)
    assert aligned.dtype == torch.float32
    close(se3.apply(aligned, source), target, 1e-3)


def test_gradients():
    def align(source, target, weights):
        return align_points(source, target, weights, with_scale=True)

    inputs = (normal(0, 6, 3), normal(1, 6, 3), random_weights(2, 6))
    assert torch.autograd.gradcheck(align, tuple(value.requires_grad_() for value in inputs))


def spoiled(kind):
    source, target, weights = normal(0, 8, 3), normal(1, 8, 3), random_weights(2, 8)
    if kind == "too few":
        weights[2:] = 0
    elif kind == "none":
        source, target, weights = source[:0], target[:0], weights[:0]
    elif kind == "nan source":
        source[3, 1] = torch.nan
    elif kind == "inf target":
        target[3, 1] = torch.inf
    elif kind == "nan weight":
        weights[3] = torch.nan
    elif kind == "negative weight":
        weights[3] = -1
    elif kind == "one source point":
        source = torch.full_like(source, 0.1)
    elif kind == "one target point":
        target = torch.full_like(target, 1e4 / 3)
    elif kind == "uncorrelated":
        cube = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
        source, target, weights = cube, cube.prod(-1, keepdim=True) * cube, torch.ones(8)
        weights = weights.double()
    return source, target, weights


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("too few", "at least three points"),
        ("none", "at least three points"),
        ("nan source", "source points must be finite"),
        ("inf target", "target points must be finite"),
        ("nan weight", "weights must be finite"),
        ("negative weight", "not negative"),
        ("one source point", "all source points coincide"),
        ("one target point", "all target points coincide"),
        ("uncorrelated", "uncorrelated"),
    ],
)
@pytest.mark.parametrize("with_scale", [True, False])
def test_undefined_answers_are_refused(kind, message, with_scale):
    with pytest.raises(InputError, match=message):
        align_points(*spoiled(kind), with_scale=with_scale)


def test_the_message_names_the_element_of_the_batch():
    source, target = normal(0, 2, 3, 8, 3), normal(1, 2, 3, 8, 3)
    source[1, 2] = 0
    with pytest.raises(InputError, match="batch element 1, 2"):
        align_points(source, target, None, with_scale=True)
