"""How good a network is on validation clips, beside predictions that cost nothing."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ttt3r import rules
from ttt3r.geometry.rotation import matrix_from_quaternion
from ttt3r.models.base import Views
from ttt3r.models.cut3r.network import Cut3r
from ttt3r.training.data import Batch, Source, fixed_batch
from ttt3r.training.losses import OUTPUTS, Said


def degrees_between(a: Float[Tensor, "*any 3 3"], b: Float[Tensor, "*any 3 3"]) -> Tensor:
    """Angle of the rotation from one to the other, degrees [*any]."""
    trace = (a.mT @ b).diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.rad2deg(torch.arccos(((trace - 1) / 2).clamp(-1, 1)))


def scaled_error(
    said: Float[Tensor, "frames height width"],
    truth: Float[Tensor, "frames height width"],
    valid: Bool[Tensor, "frames height width"],
) -> float:
    """Mean relative error of depth (AbsRel) after the one scale for which Σ |s d − d*| is least."""
    said, truth = said[valid], truth[valid]
    ratio = truth / said.clamp(min=1e-3)
    order = ratio.argsort()
    heap = said[order].cumsum(0)
    middle = torch.searchsorted(heap, heap[-1] / 2).clamp(max=len(order) - 1)
    return float(((ratio[order][middle] * said - truth).abs() / truth).mean())


def translation_error(said: Float[Tensor, "frames 3"], truth: Float[Tensor, "frames 3"]) -> float:
    """Mean distance after the least-squares scale, over the mean length of the truth."""
    scale = (said * truth).sum() / said.square().sum().clamp(min=1e-9)
    off = (scale.clamp(min=0) * said - truth).norm(dim=-1).mean()
    return float(off / truth.norm(dim=-1).mean().clamp(min=1e-9))


@torch.no_grad()
def say(model: Cut3r, batch: Batch, rule_name: str) -> tuple[Said, Tensor]:
    """What a network says of a batch, and the gates of all frames but the first."""
    rule = rules.parse(rule_name)
    state = model.initial_state(rule, len(batch.image))
    readings = []
    for frame in range(batch.image.shape[1]):
        tokens = model.encode(Views(image=batch.image[:, frame]))
        state, reading = model.step(state, tokens, rule, OUTPUTS)
        readings.append(reading)
    gates = [reading.gate for reading in readings[1:] if reading.gate is not None]
    return Said.of(readings), torch.stack(gates) if gates else torch.ones(1)


def validate(
    model: Cut3r,
    source: Source,
    names: tuple[str, ...] = ("overwrite", "ttt3r"),
    frames: int = 4,
    count: int = 32,
    together: int = 16,
) -> dict[str, float]:
    """Mean errors over `count` clips of `frames` frames, spread evenly over each clip.

    Returns:
        For each rule, under "rule.name":
        depth: AbsRel after one scale per clip, over that of a constant depth.
        rotation: angle of the rotation error over that of a camera that stands still.
        translation: see `translation_error`; 1 is what a camera that stands still gets.
        gate: median of β.
    """
    spread = [round(i * (source.frames - 1) / (frames - 1)) for i in range(frames)]
    clips = list(range(min(count, len(source))))
    sums: dict[str, list[float]] = {}
    for start in range(0, len(clips), together):
        some = clips[start : start + together]
        batch = fixed_batch(source, some, spread)
        for name in names:
            for key, values in _errors(model, batch, name).items():
                sums.setdefault(f"{name}.{key}", []).extend(values)
    mean = {key: sum(values) / len(values) for key, values in sums.items()}
    for name in names:
        for key in ("depth", "rotation"):
            mean[f"{name}.{key}"] /= mean.pop(f"{name}.{key} of nothing")
    return mean


def _errors(model: Cut3r, batch: Batch, rule_name: str) -> dict[str, list[float]]:
    said, gates = say(model, batch, rule_name)
    depth, truth = said.points[..., 2], batch.points[..., 2]
    turn = batch.world_from_camera[:, 1:, :3, :3]
    turned = matrix_from_quaternion(said.pose[:, 1:, 3:])
    still = torch.eye(3).expand_as(turn)
    rows = range(len(depth))
    return {
        "depth": [scaled_error(depth[i], truth[i], batch.valid[i]) for i in rows],
        "depth of nothing": [
            scaled_error(torch.ones_like(truth[i]), truth[i], batch.valid[i]) for i in rows
        ],
        "rotation": degrees_between(turned, turn).mean(1).tolist(),
        "rotation of nothing": degrees_between(still, turn).mean(1).tolist(),
        "translation": [
            translation_error(said.pose[i, 1:, :3], batch.world_from_camera[i, 1:, :3, 3])
            for i in rows
        ],
        "gate": [float(gates.median())],
    }
