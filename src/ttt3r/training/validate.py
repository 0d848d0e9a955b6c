"""How good a network is on validation clips, beside a camera that is said not to move."""

import torch

from ttt3r import rules
from ttt3r.geometry.rotation import matrix_from_quaternion
from ttt3r.geometry.se3 import apply
from ttt3r.models.base import Tokens, Views
from ttt3r.models.cut3r import Cut3r
from ttt3r.training.data import Batch, Clips


def _degrees(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    trace = (a.mT @ b).diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.rad2deg(torch.arccos(((trace - 1) / 2).clamp(-1, 1)))


@torch.no_grad()
def validate(
    model: Cut3r,
    clips: Clips,
    task: str,
    size: tuple[int, int],
    frames: int = 4,
    count: int = 100,
    stride: int = 2,
) -> dict[str, float]:
    """Mean errors of the later frames of `count` clips.

    Of every clip, every `stride`-th frame is taken, or fewer between where the clip is too short.

    Returns:
        rotation: angle of the rotation error over that of the static camera.
        translation: distance of the camera centres over that of the static camera.
        depth: mean relative error of depth after one scale per frame.
        metric: the same without a scale.
        world: error of world points over their distance from the camera.
    """
    frames = 2 if task == "pairs" else frames
    stride = max(1, min(stride, (clips.length - 1) // (frames - 1)))
    chosen = [[stride * i for i in range(frames)]] * min(count, len(clips))
    sums: dict[str, list[float]] = {}
    for start in range(0, len(chosen), 20):
        some = list(range(start, min(start + 20, len(chosen))))
        batch = clips.batch(some, chosen[: len(some)], size)
        for name, value in _batch_errors(model, batch, task).items():
            sums.setdefault(name, []).extend(value.tolist())
    mean = {name: sum(values) / len(values) for name, values in sums.items()}
    return {
        "rotation": mean["rotation"] / mean["rotation_static"],
        "translation": mean["translation"] / mean["translation_static"],
        "depth": mean["depth"],
        "metric": mean["metric"],
        "world": mean["world"],
    }


def _batch_errors(model: Cut3r, batch: Batch, task: str) -> dict[str, torch.Tensor]:
    count, frames = batch.image.shape[:2]
    tokens = model.encode(Views(image=batch.image.flatten(0, 1)))
    features = tokens.features.unflatten(0, (count, frames))
    parts = [Tokens(features[:, i], tokens.size, tokens.has_image[:count]) for i in range(frames)]
    outputs = []
    if task == "pairs":
        outputs.append((1, model.compare(parts[0], parts[1])))
    else:
        rule = rules.parse("overwrite")
        state = model.initial_state(rule, count)
        for i in range(frames):
            state, output = model.step(state, parts[i], rule, ("points", "pose", "world"))
            outputs += [(i, output)] if i else []
    rows: dict[str, list[torch.Tensor]] = {}
    for i, output in outputs:
        assert output.points is not None and output.world_points is not None
        assert output.pose_encoding is not None
        target = batch.target(i)
        truth = target.world_from_camera
        turn = matrix_from_quaternion(output.pose_encoding[:, 3:])
        eye = torch.eye(3).expand_as(turn)
        ratio = torch.where(target.valid, output.points[..., 2] / target.points[..., 2], torch.nan)
        scale = ratio.flatten(1).nanmedian(1).values[:, None, None]
        distance = torch.linalg.vector_norm(target.points, dim=-1).clamp(min=0.3)
        world = apply(truth, target.points)
        off = torch.linalg.vector_norm(output.world_points - world, dim=-1) / distance
        values = {
            "rotation": _degrees(turn, truth[:, :3, :3]),
            "rotation_static": _degrees(eye, truth[:, :3, :3]),
            "translation": (output.pose_encoding[:, :3] - truth[:, :3, 3]).norm(dim=-1),
            "translation_static": truth[:, :3, 3].norm(dim=-1),
            "depth": (ratio / scale - 1).abs().flatten(1).nanmean(1),
            "metric": (ratio - 1).abs().flatten(1).nanmean(1),
            "world": torch.where(target.valid, off, torch.nan).flatten(1).nanmean(1),
        }
        for name, value in values.items():
            rows.setdefault(name, []).append(value[torch.isfinite(value)])
    return {name: torch.cat(values) for name, values in rows.items()}
