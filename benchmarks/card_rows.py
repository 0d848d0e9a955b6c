"""One row per method and sequence: the flat form in which measurements are stored and tabled."""

import math
from typing import Any

import numpy as np

from benchmarks.card_data import TrainingDepth
from ttt3r.errors import InputError
from ttt3r.evaluation import baselines
from ttt3r.evaluation.baselines import best_constant_depth, mean_depth_image
from ttt3r.evaluation.metrics.depth import DepthErrors, depth_errors, valid_pixels
from ttt3r.evaluation.metrics.trajectory import (
    ate,
    finite_poses,
    path_length,
    rotation_error_deg,
    trajectory_errors,
)
from ttt3r.evaluation.placement import placement_error
from ttt3r.evaluation.streaming import Record, SequenceResult, depth_in_network

Row = dict[str, Any]

CONSTANT = "best constant depth"
MEAN_IMAGE = "mean depth image"
STATIC = "static camera"
VELOCITY = "constant velocity"
WALK = "random walk"
BASELINES = (CONSTANT, MEAN_IMAGE, STATIC, VELOCITY, WALK)
WALKS = 8  # that are averaged


def result_row(result: SequenceResult) -> Row:
    """The numbers of a result."""
    row: Row = {"frames": result.frames, "failed": result.failed, "notes": list(result.notes)}
    row |= {"path": result.path_length, "rotation": result.rotation_deg}
    row |= _depth_row(result.depth_metric, result.depth_scale)
    if result.trajectory is not None:
        row |= {"ate": result.trajectory.ate, "ate_percent": result.ate_percent}
        row |= {"rpe_translation": result.trajectory.rpe_translation}
        row |= {"rpe_rotation": result.trajectory.rpe_rotation_deg}
    if math.isfinite(result.frames_per_second):
        row["fps"] = result.frames_per_second
    return row


def placement_row(record: Record, result: SequenceResult, max_depth: float | None) -> Row:
    """Where predicted points end up by the predicted poses, no motion, and the true poses."""
    if result.depth_scale is None or result.depth_scale.affine is None:
        return {}
    scale = result.depth_scale.affine.scale
    ways = {
        "placed": (record.estimate, scale),
        "placed_static": (baselines.static_camera(len(record)), 1.0),
        "placed_true": (record.truth, 1.0),
    }
    row: Row = {}
    for key, (poses, pose_scale) in ways.items():
        try:
            row[key] = placement_error(record, poses, scale, pose_scale, max_depth)
        except InputError:
            row[key] = None
    return row


def baseline_rows(
    record: Record, training: TrainingDepth, max_depth: float | None = None
) -> dict[str, Row]:
    """Rows of all baselines on the sequence of a record, whatever was predicted for it."""
    rows: dict[str, Row] = {name: {"frames": len(record)} for name in BASELINES}
    used = valid_pixels(record.depth, max_depth)
    if used.any():
        rows[CONSTANT] |= _constant_row(record, training, max_depth)
        rows[MEAN_IMAGE] |= _mean_image_row(record, training, max_depth)
    known = finite_poses(record.truth)
    if not known.any():
        return rows
    length = path_length(record.truth, known)
    rows[WALK] |= _walk_row(record, length)
    try:
        static = baselines.static_camera_errors(record.truth, known)
        rows[STATIC] |= {
            "ate": static.ate,
            "ate_percent": 100 * static.ate / length if length else None,
            "rpe_translation": static.rpe_translation,
            "rpe_rotation": static.rpe_rotation_deg,
            "rotation": rotation_error_deg(
                baselines.static_camera(len(record)), record.truth, known
            ),
        }
        moving = baselines.constant_velocity(record.truth)
        rows[VELOCITY]["rotation"] = rotation_error_deg(moving, record.truth, known)
        errors = trajectory_errors(moving, record.truth, "sim3", known)
        rows[VELOCITY] |= {
            "ate": errors.ate,
            "ate_percent": 100 * errors.ate / length,
            "rpe_translation": errors.rpe_translation,
            "rpe_rotation": errors.rpe_rotation_deg,
        }
    except InputError as error:  # too few known poses, or a path along a line
        rows[VELOCITY]["notes"] = [str(error)]
    return rows


def _depth_row(metric: DepthErrors | None, scale: DepthErrors | None) -> Row:
    row: Row = {}
    if metric is not None:
        row |= {"abs_rel_metric": metric.abs_rel, "delta_metric": metric.delta_1}
    if scale is not None:
        row |= {"abs_rel": scale.abs_rel, "delta": scale.delta_1}
        row["scale"] = None if scale.affine is None else scale.affine.scale
    return row


def _walk_row(record: Record, length: float) -> Row:
    """What the fit of a similarity gives for nothing: mean error of paths of independent steps."""
    known = finite_poses(record.truth)
    errors = []
    for seed in range(WALKS):
        steps = np.random.default_rng([seed, len(record)]).normal(size=(len(record), 3))
        poses = baselines.static_camera(len(record))
        poses[:, :3, 3] = steps.cumsum(0)
        try:
            errors.append(ate(poses, record.truth, "sim3", known))
        except InputError:  # a true path along a line, or too few known poses
            return {}
    error = float(np.mean(errors))
    return {"ate": error, "ate_percent": 100 * error / length if length else None}


def _constant_row(record: Record, training: TrainingDepth, max_depth: float | None) -> Row:
    """The training set's constant, and the best constant that there is for this sequence."""
    best = best_constant_depth([record.depth], max_depth)
    metric, own = (
        depth_errors(
            np.full_like(record.depth, constant),
            record.depth,
            "metric",
            max_depth=max_depth,
            compat=False,
        )
        for constant in (training.constant, best)
    )
    return _depth_row(metric, own)


def _mean_image_row(record: Record, training: TrainingDepth, max_depth: float | None) -> Row:
    width, height = record.transform.original_size
    stretched = mean_depth_image([training.image], height, width)
    said = depth_in_network(stretched, record.transform).ravel()[record.pixel].astype(np.float32)
    metric, scale = (
        depth_errors(said, record.depth, alignment, max_depth=max_depth, compat=False)
        for alignment in ("metric", "scale")
    )
    return _depth_row(metric, scale)
