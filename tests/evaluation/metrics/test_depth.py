import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given

from tests.evaluation.test_results import mean_of
from tests.evaluation.trajectories import expected
from tests.geometry.samples import SEEDS
from tests.goldens import load_npz
from ttt3r.errors import InputError
from ttt3r.evaluation.metrics import depth_fits
from ttt3r.evaluation.metrics.depth import (
    METRICS,
    DepthErrors,
    depth_errors,
    resize_depth,
    valid_pixels,
)
from ttt3r.evaluation.metrics.depth_fits import Affine, fit_affine, weighted_median

CASES = [
    *("sintel_like", "bonn_like", "kitti_like", "pred_nan", "pred_negative", "pred_zero"),
    *("all_invalid", "all_invalid_f64", "identical", "one_valid", "neg_scale"),
    *("gt_inf_nan_nomax", "affine_big_shift"),
]
# The name of each alignment in the goldens, and the tolerance of its errors.
MODES = {
    "metric": ("metric", 1e-6),
    "median": ("median(default)", 1e-6),
    "scale": ("scale", 1e-5),
    "scale&shift": ("scale&shift", 2e-4),
}
KEYS = {
    "abs_rel": "Abs Rel",
    "sq_rel": "Sq Rel",
    "rmse": "RMSE",
    "log_rmse": "Log RMSE",
    "delta_1": "δ < 1.25",
    "delta_2": "δ < 1.25^2",
    "delta_3": "δ < 1.25^3",
}
ALIGNMENTS = list(MODES)


def golden_inputs(name):
    arrays = load_npz("eval/depth", name)
    settings = expected("depth")["cases"][name]["kwargs"]
    limits = {key: None if value is None else float(value) for key, value in settings.items()}
    return arrays["pred"], arrays["gt"], limits


def random_depth(seed, shape=(3, 6, 8)):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.5, 8.0, shape)


def cost(affine, prediction, truth):
    return float(np.abs(affine.scale * prediction + affine.shift - truth).sum())


# Goldens


def test_every_golden_case_is_known():
    assert set(expected("depth")["cases"]) == set(CASES)


def scored(name):
    """(alignment, tolerance, golden, our errors) for every alignment that a case has."""
    prediction, truth, settings = golden_inputs(name)
    results = expected("depth")["cases"][name]["result"]
    for alignment, (key, tolerance) in MODES.items():
        if key in results:
            errors = depth_errors(prediction, truth, alignment, **settings)
            yield alignment, tolerance, results[key], errors


@pytest.mark.parametrize("name", CASES)
def test_golden_errors(name):
    for alignment, tolerance, result, errors in scored(name):
        golden = result["metrics"]
        assert errors.valid_pixels == golden["valid_pixels"]
        for metric, key in KEYS.items():
            ours, theirs = getattr(errors, metric), float(golden[key])
            if metric.startswith("delta"):
                near = pytest.approx(theirs, rel=0, abs=3.0 / max(errors.valid_pixels, 1))
            else:
                rounding = 1e-7 if theirs == 0.0 else 0.0
                near = pytest.approx(theirs, rel=tolerance, abs=rounding, nan_ok=True)
            assert ours == near, (alignment, metric)


@pytest.mark.parametrize("name", [name for name in CASES if name != "one_valid"])
def test_golden_scale_and_shift(name):
    """The golden's own were fitted to its aligned map, which one pixel does not allow."""
    for alignment, _, result, errors in scored(name):
        if "recovered_scale_shift" in result:
            tolerance = 2e-3 if alignment == "scale&shift" else 1e-5
            golden = tuple(result["recovered_scale_shift"])
            assert errors.affine == pytest.approx(golden, rel=tolerance, abs=1e-6), alignment


@pytest.mark.parametrize("alignment", ["metric", "scale", "scale&shift"])
def test_golden_mean(alignment):
    golden = expected("depth")["weighted_average"]
    errors = []
    for name in golden["sequences"]:
        prediction, truth, settings = golden_inputs(name)
        errors.append(depth_errors(prediction, truth, alignment, **settings))
    found = mean_of(
        [{name: getattr(e, name) for name in KEYS} for e in errors],
        [float(e.valid_pixels) for e in errors],
    )
    for metric, key in KEYS.items():
        assert found[metric] == pytest.approx(golden["result"][alignment][key], rel=2e-4)


@pytest.mark.parametrize(
    "name", [n for n in CASES if n in {"bonn_like", "sintel_like", "affine_big_shift", "pred_zero"}]
)
def test_our_exact_fit_costs_no_more_than_any_of_the_goldens(name):
    prediction, truth, settings = golden_inputs(name)
    mask = valid_pixels(truth, settings["max_depth"])
    p, g = prediction[mask].astype(np.float64), truth[mask].astype(np.float64)
    ours = cost(fit_affine(p, g, "scale&shift", compat=False), p, g)
    for mode, result in expected("depth")["cases"][name]["result"].items():
        if "recovered_scale_shift" in result:
            theirs = cost(Affine(*result["recovered_scale_shift"]), p, g)
            assert ours <= theirs * (1.0 + 1e-9), mode


@pytest.mark.parametrize(("width", "height"), [(70, 25), (20, 11)])
def test_golden_resize(width, height):
    arrays = load_npz("eval/depth", "resize_cubic")
    resized = resize_depth(arrays["src"], height, width)
    np.testing.assert_allclose(resized, arrays[f"dst_{width}x{height}"], rtol=0, atol=1e-4)


# Properties


@pytest.mark.parametrize("compat", [True, False])
@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_a_perfect_prediction_has_no_error(alignment, compat):
    truth = random_depth(0)
    errors = depth_errors(truth, truth, alignment, compat=compat)
    wanted = DepthErrors(*[0.0] * 4, *[1.0] * 3, truth.size, Affine(1.0, 0.0))
    assert dataclasses.asdict(errors) == {
        key: pytest.approx(value, abs=1e-7) for key, value in dataclasses.asdict(wanted).items()
    }


def test_errors_by_hand():
    errors = depth_errors(np.array([2.0, 3.0, 4.0]), np.array([1.0, 3.0, 0.0]), "metric")
    assert errors.valid_pixels == 2
    assert errors.abs_rel == errors.sq_rel == pytest.approx(0.5)
    assert errors.rmse == pytest.approx(math.sqrt(0.5))
    assert errors.log_rmse == pytest.approx(math.log(2.0) / math.sqrt(2.0))
    assert (errors.delta_1, errors.delta_2, errors.delta_3) == (0.5, 0.5, 0.5)


@given(SEEDS)
def test_scale_alignments_forget_the_scale(seed):
    prediction, truth = random_depth(seed), random_depth(seed + 1)
    for alignment, compat in (("median", True), ("scale", False), ("scale&shift", False)):
        before = depth_errors(prediction, truth, alignment, compat=compat)
        after = depth_errors(7.0 * prediction, truth, alignment, compat=compat)
        for metric in METRICS[:4]:
            assert getattr(after, metric) == pytest.approx(getattr(before, metric), rel=1e-5)


@given(SEEDS)
def test_exact_scale_and_shift_are_recovered(seed):
    prediction = random_depth(seed)
    errors = depth_errors(prediction, 2.5 * prediction + 0.7, "scale&shift", compat=False)
    assert errors.affine == pytest.approx((2.5, 0.7), abs=1e-6)
    assert errors.rmse == pytest.approx(0.0, abs=1e-6)


@given(SEEDS)
def test_nothing_nearby_fits_better(seed):
    p, g = random_depth(seed, (40,)), random_depth(seed + 1, (40,))
    rng = np.random.default_rng(seed)
    for alignment, freedom in (("scale", (1.0, 0.0)), ("scale&shift", (1.0, 1.0))):
        best = fit_affine(p, g, alignment, compat=False)
        for size in (1e-4, 1e-2, 1.0):
            step = size * rng.standard_normal(2) * freedom
            other = Affine(best.scale + step[0], best.shift + step[1])
            assert cost(other, p, g) >= cost(best, p, g) * (1.0 - 1e-9)


@given(SEEDS)
def test_the_exact_fit_passes_through_two_pixels(seed):
    """The slow twin: some line through two of the points is always among the best."""
    p, g = random_depth(seed, (9,)), random_depth(seed + 1, (9,))
    lines = []
    for i in range(9):
        for j in range(i):
            scale = (g[i] - g[j]) / (p[i] - p[j])
            lines.append(cost(Affine(scale, g[i] - scale * p[i]), p, g))
    best = fit_affine(p, g, "scale&shift", compat=False)
    assert cost(best, p, g) == pytest.approx(min(lines), rel=1e-6)


def test_published_fits_differ_from_the_exact_ones():
    prediction = random_depth(0)
    truth = 2.5 * prediction + 3.0
    published = depth_errors(prediction, truth, "scale&shift").affine
    assert abs(published.shift) < 0.2  # it starts at 0 and cannot go farther
    exact = depth_errors(prediction, truth, "scale", compat=False)
    reweighted = depth_errors(prediction, truth, "scale")
    assert exact.affine.scale == pytest.approx(reweighted.affine.scale, rel=0.05)


def test_a_constant_takes_the_median():
    truth = random_depth(0)
    errors = depth_errors(np.full_like(truth, 2.0), truth, "scale&shift", compat=False)
    assert errors.affine == pytest.approx((1.0, np.median(truth) - 2.0))


def test_masks_and_limits():
    truth = np.array([-1.0, 0.0, np.nan, np.inf, 1.0, 5.0, 70.0])
    assert valid_pixels(truth).tolist() == [False] * 4 + [True] * 3
    assert valid_pixels(truth, allow_infinite=True).sum() == 4
    assert valid_pixels(truth, max_depth=70.0).sum() == 2
    mask = np.arange(7) == 4
    prediction = np.full(7, 2.0)
    assert depth_errors(prediction, truth, "metric", valid=mask).rmse == pytest.approx(1.0)
    clipped = depth_errors(prediction, truth, "metric", valid=mask, post_clip_max=1.5)
    assert clipped.rmse == pytest.approx(0.5)


def test_what_is_not_finite():
    prediction, truth = random_depth(0), random_depth(1)
    prediction[0, 0, 0] = np.nan
    assert math.isnan(depth_errors(prediction, truth, "metric").abs_rel)
    with pytest.raises(InputError, match="1 of 144 predicted depths are not finite"):
        depth_errors(prediction, truth, "metric", compat=False)
    truth[0, 0, 0] = np.inf
    assert depth_errors(prediction, truth, "metric", compat=False).valid_pixels == 143


@pytest.mark.parametrize("alignment", ["median", "scale"])
def test_zeros_cannot_be_scaled(alignment):
    truth = random_depth(0)
    with pytest.raises(InputError, match="undefined"):
        depth_errors(np.zeros_like(truth), truth, alignment, compat=False)


def test_what_is_refused():
    truth = random_depth(0)
    with pytest.raises(InputError, match="same shape"):
        depth_errors(truth[0], truth)
    with pytest.raises(InputError, match="same shape"):
        depth_errors(truth, truth, valid=np.ones(3, dtype=bool))
    with pytest.raises(InputError, match="no true depth is known"):
        depth_errors(truth, 0.0 * truth, compat=False)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_precision_of_the_inputs(alignment, kind):
    prediction, truth = random_depth(0), random_depth(1)
    wanted = depth_errors(prediction, truth, alignment)
    errors = depth_errors(prediction.astype(kind), truth.astype(kind), alignment)
    assert errors.abs_rel == pytest.approx(wanted.abs_rel, rel=1e-2)


def test_weighted_median():
    values = np.array([3.0, 1.0, 2.0])
    assert weighted_median(values, np.ones(3)) == 2.0
    assert weighted_median(values, np.array([5.0, 1.0, 1.0])) == 3.0
    assert weighted_median(values[:2], np.ones(2)) == 1.0


def test_resize_keeps_leading_axes():
    depth = random_depth(0)
    np.testing.assert_allclose(resize_depth(depth, 6, 8), depth)
    assert resize_depth(depth, 12, 4).shape == (3, 12, 4)
    np.testing.assert_array_equal(resize_depth(depth, 12, 4)[1], resize_depth(depth[1], 12, 4))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("compat", [True, False])
@pytest.mark.parametrize("alignment", ["metric", "scale", "scale&shift"])
def test_working_in_blocks_changes_nothing(monkeypatch, alignment, compat, dtype):
    random = np.random.default_rng(5)
    truth = random.uniform(1, 5, 1000).astype(dtype)
    prediction = (0.7 * truth + random.normal(0, 0.3, 1000)).astype(np.float32)
    whole = depth_errors(prediction, truth, alignment, post_clip_max=4.5, compat=compat)
    monkeypatch.setattr(depth_fits, "BLOCK", 64)
    blocks = depth_errors(prediction, truth, alignment, post_clip_max=4.5, compat=compat)
    # What the published float32 fits resolve; a fraction may change by a few pixels.
    close = {"rel": 1e-3, "abs": 3e-3} if dtype is np.float32 else {"rel": 1e-9}
    for name in METRICS:
        assert getattr(blocks, name) == pytest.approx(getattr(whole, name), **close)


def adam_by_hand(prediction, truth):
    """The slow twin of the published fit: every one of its steps reads all pixels."""
    ordered = np.sort(truth), np.sort(prediction)
    middle = (len(truth) - 1) // 2
    unknowns = np.array([ordered[0][middle] / ordered[1][middle], 0.0])
    first, second, before = np.zeros(2), np.zeros(2), np.inf
    for step in range(1, 1001):
        residual = unknowns[0] * prediction + unknowns[1] - truth
        now = np.abs(residual).sum()
        if abs(before - now) < 1e-6:
            break
        before = now
        gradient = np.array([np.sign(residual) @ prediction, np.sign(residual).sum()])
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        size = np.sqrt(second) / np.sqrt(1.0 - 0.999**step) + 1e-8
        unknowns = unknowns - 1e-4 / (1.0 - 0.9**step) * first / size
    return unknowns


@pytest.mark.parametrize("seed", range(3))
def test_published_scale_and_shift_is_adam_over_all_pixels(seed):
    """The sums are added up in another order, so they differ in the last bits of float64."""
    random = np.random.default_rng(seed)
    truth = random.uniform(0.5, 8.0, 5000)
    prediction = (truth - 0.4 * seed) / 1.7 + random.normal(0.0, 0.3, 5000)
    found = fit_affine(prediction, truth, "scale&shift")
    assert found == pytest.approx(tuple(adam_by_hand(prediction, truth)), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("compat", [True, False])
def test_what_is_not_finite_outside_of_the_mask_does_not_matter(wrong, compat):
    random = np.random.default_rng(5)
    truth = random.uniform(1.0, 5.0, (40, 50)).astype(np.float32)
    prediction = truth * 0.5 + random.normal(0, 0.1, truth.shape).astype(np.float32)
    truth[:7] = 0.0
    broken = prediction.copy()
    broken[:7] = wrong
    for alignment in ("metric", "median", "scale", "scale&shift"):
        errors = [depth_errors(p, truth, alignment, compat=compat) for p in (prediction, broken)]
        assert errors[0] == errors[1], alignment
