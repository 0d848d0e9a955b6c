"""Fits the confidence outputs of a trained network anew, and leaves all else as it is.

A confidence C is best at α / e for an expected error e, and never below 1. Where errors are larger
than α throughout, as they are while a small network learns, every confidence sinks to 1 and says
nothing. The confidence is the last linear layer's business alone, so it can be fitted afterwards:
points, poses and state stay the same, bit by bit.
"""

from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ttt3r import rules
from ttt3r.errors import InputError
from ttt3r.files import write_atomically
from ttt3r.geometry.se3 import apply
from ttt3r.models.base import Tokens, Views
from ttt3r.models.cut3r import Cut3r
from ttt3r.nn.blocks import LinearHead
from ttt3r.training.data import Batch
from ttt3r.training.feed import DiskFeed
from ttt3r.training.losses import NEAREST
from ttt3r.training.recipe import Recipe

CHANNEL = 3  # of x, y, z, confidence
HEADS = ("proj", "cross_proj")
BATCHES = 8


def fit_confidence(
    model: Cut3r, batches: list[Batch], alpha: float = 0.6, steps: int = 300
) -> dict[str, float]:
    """Fit the confidence of both pointmaps on training clips, in place.

    Args:
        model: float32, with linear heads.
        batches: training clips.
        alpha: the error at which a confidence is 1.
        steps: of Adam, over all batches at once.

    Returns:
        The mean confidence of each head over valid pixels.
    """
    means = {}
    for name in HEADS:
        head = model.downstream_head.get_submodule(name)
        assert isinstance(head, LinearHead)
        samples = _samples(model, head, batches, world=name == "cross_proj")
        hidden, error, valid = (torch.cat(part) for part in zip(*samples, strict=True))
        means[name] = _fit(head, hidden, error, valid, alpha, steps)
    return means


@torch.no_grad()
def _samples(
    model: Cut3r, head: LinearHead, batches: list[Batch], *, world: bool
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Per token: what the last layer reads, and error and validity of each of its pixels."""
    rule = rules.parse("overwrite")
    seen: list[Tensor] = []
    samples = []
    handle = head.fc2.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    patch = model.config.patch_size
    for batch in batches:
        count, frames = batch.image.shape[:2]
        tokens = model.encode(Views(image=batch.image.flatten(0, 1)))
        features = tokens.features.unflatten(0, (count, frames))
        state = model.initial_state(rule, count)
        for frame in range(frames):
            one = Tokens(features[:, frame], tokens.size, tokens.has_image[:count])
            state, output = model.step(state, one, rule, ("world" if world else "points",))
            target = batch.target(frame)
            truth = apply(target.world_from_camera, target.points) if world else target.points
            points = output.world_points if world else output.points
            assert points is not None
            distance = torch.linalg.vector_norm(target.points, dim=-1).clamp(min=NEAREST)
            error = torch.linalg.vector_norm(points - truth, dim=-1) / distance
            cut = (pixels_of_tokens(image, patch) for image in (error, target.valid))
            samples.append((seen.pop().flatten(0, 1), *cut))
    handle.remove()
    return samples


def pixels_of_tokens(image: Tensor, patch: int) -> Tensor:
    """Cut [batch, height, width] into [tokens, patch · patch], pixels row by row."""
    cut = image.unflatten(2, (-1, patch)).unflatten(1, (-1, patch))
    return cut.transpose(2, 3).flatten(0, 2).flatten(1)


def _fit(
    head: LinearHead,
    hidden: Float[Tensor, "tokens channels"],
    error: Float[Tensor, "tokens pixels"],
    valid: Bool[Tensor, "tokens pixels"],
    alpha: float,
    steps: int,
) -> float:
    """Fit the rows of the last layer that make the confidence; return its mean.

    Pixels that show nothing weigh as much together as all others: better too little confidence
    than some in the sky.
    """
    rows = slice(CHANNEL * error.shape[1], (CHANNEL + 1) * error.shape[1])
    weight = torch.zeros_like(head.fc2.weight[rows]).requires_grad_()
    bias = torch.zeros_like(head.fc2.bias[rows]).requires_grad_()
    optimizer = torch.optim.Adam([weight, bias], lr=1e-2)
    count, empty = valid.sum().clamp(min=1), (~valid).sum().clamp(min=1)
    mean = torch.ones(())
    for _ in range(steps):
        optimizer.zero_grad()
        confidence = 1 + torch.exp((hidden @ weight.T + bias).clamp(max=6))
        cost = alpha * confidence.log()
        loss = torch.where(valid, confidence * error - cost, 0.0).sum() / count
        loss = loss + torch.where(valid, 0.0, cost).sum() / empty
        loss.backward()
        optimizer.step()
        mean = torch.where(valid, confidence.detach(), 0.0).sum() / count
    with torch.no_grad():
        head.fc2.weight[rows] = weight
        head.fc2.bias[rows] = bias
    return float(mean)


def refit_checkpoint(recipe: Recipe, checkpoint: Path, feed: DiskFeed) -> dict[str, float]:
    """Fit the confidence of a checkpoint's averaged weights on clips of the last stage.

    Its running weights get the same layer, so that a training can go on from there.

    Raises:
        InputError: if there is no checkpoint.
    """
    if not checkpoint.is_file():
        raise InputError(f"there is no checkpoint {checkpoint}; train first")
    with safe_open(checkpoint, framework="pt") as file:
        header = file.metadata()
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    names = [key.removeprefix("average.") for key in tensors if key.startswith("average.")]
    model = Cut3r(recipe.network)
    model.load_state_dict({name: tensors[f"average.{name}"] for name in names})
    model.eval()
    generator = torch.Generator().manual_seed(recipe.seed)
    stage = replace(recipe.stages[-1], batch=16, frames=min(4, recipe.stages[-1].frames))
    means = fit_confidence(model, [feed(stage, generator) for _ in range(BATCHES)])
    fitted = model.state_dict()
    pixels = recipe.network.patch_size**2
    rows = slice(CHANNEL * pixels, (CHANNEL + 1) * pixels)
    for head in HEADS:
        for name in (f"downstream_head.{head}.fc2.{part}" for part in ("weight", "bias")):
            for kind in ("average", "weight"):
                tensors[f"{kind}.{name}"][rows] = fitted[name][rows]
            for kind in ("first", "second"):
                tensors[f"{kind}.{name}"][rows] = 0
    write_atomically(checkpoint, lambda path: save_file(tensors, path, header))
    return means
