"""Runs that tell the truth: what a rendered scene's frames would give with a perfect network."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PillowImage

from tests.sources.clips import write_clip
from ttt3r.geometry.se3 import invert
from ttt3r.runs.frame_file import write_prediction
from ttt3r.runs.manifest import FORMAT, MANIFEST
from ttt3r.runs.reader import INPUTS, Run, frame_path
from ttt3r.scenes.clip import Clip, SceneOptions, make_clip
from ttt3r.sources import Source, open_source, prepare_frame
from ttt3r.sources.arrange import Arrangement
from ttt3r.types import Frame, Prediction, Preparation

FRAMES, SIZE = 10, (168, 192)
PREPARATION = Preparation(size=96, patch=16)  # half the size, and two rows cut at either end
SURE = 10.0


@dataclass(frozen=True)
class Truth:
    """A rendered clip and a run that knows all of it."""

    clip: Clip
    run: Run
    rotate: int = 0

    @property
    def source(self) -> Path:
        """The video or folder."""
        return Path(self.run.manifest["source"]["path"])

    @property
    def intrinsics(self) -> np.ndarray:
        """Of the original images, centres at integers."""
        return self.clip.intrinsics[0].double().numpy()

    def world_from_camera(self, index: int) -> np.ndarray:
        """Of a camera as it filmed; the world is the first one, turned as its images are."""
        poses = self.clip.world_from_camera.double()
        first = poses[0].clone()
        first[:3, :3] = first[:3, :3] @ _turned(self.rotate)
        return (invert(first) @ poses[index]).numpy()


def render(frames: int = FRAMES) -> Clip:
    """A room and a hand-held camera; every third frame of the path, for a baseline."""
    options = SceneOptions(world="room", style="orbit", moving=0.0)
    return make_clip(3, frames, SIZE, options, stride=4)


def write_source(clip: Clip, path: Path) -> Path:
    """The clip as a video, or as a folder of images if the path has no suffix."""
    images = list(clip.image.numpy())
    if path.suffix:
        return write_clip(path, images)
    path.mkdir(parents=True)
    for number, image in enumerate(images):
        PillowImage.fromarray(image).save(path / f"shot{number + 1:02d}.png")
    return path


def exact_run(clip: Clip, source: Source, folder: Path, rotate: int = 0) -> Run:
    """Write the run of a network that errs in nothing; the source is turned by `rotate`."""
    return write_run(source, folder, lambda frame: exact_prediction(clip, frame, rotate))


def write_run(source: Source, folder: Path, predict: Callable[[Frame], Prediction]) -> Run:
    """Write a run as `reconstruct` does."""
    description = source.describe()
    inputs = description.pop("inputs", [])
    (folder / "frames").mkdir(parents=True)
    manifest = {"format": FORMAT, "status": "complete", "source": description}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    if inputs:
        (folder / INPUTS).write_text("".join(f"{line}\n" for line in inputs))
    for frame in source.frames():
        item = predict(frame)
        write_prediction(frame_path(folder, item.index), item)
    return Run.open(folder)


def exact_prediction(clip: Clip, frame: Frame, rotate: int = 0) -> Prediction:
    """Depth is the mean of the pixels that a processed one covers; sure where these agree."""
    index = frame.index
    upright = Frame(clip.image[0].numpy(), intrinsics=clip.intrinsics[0].double().numpy())
    intrinsics = Arrangement(rotate).apply(upright).intrinsics
    prepared = prepare_frame(replace(frame, intrinsics=intrinsics), PREPARATION)
    assert prepared.transform is not None and prepared.intrinsics is not None
    left, top, width, height = prepared.transform.crop
    blocks = (
        torch.rot90(clip.depth[index], -rotate // 90).unfold(0, 2, 2).unfold(1, 2, 2).flatten(2)
    )
    blocks = blocks[top : top + height, left : left + width]
    depth, least, most = blocks.mean(dim=2), blocks.amin(dim=2), blocks.amax(dim=2)
    agree = (least > 0) & (most < 1.02 * least)
    x, y = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1).double()
    rays = pixels @ torch.from_numpy(np.linalg.inv(prepared.intrinsics)).T
    poses = clip.world_from_camera.double().clone()
    poses[:, :3, :3] = poses[:, :3, :3] @ _turned(rotate)
    return Prediction(
        index=index,
        timestamp=frame.timestamp,
        image=torch.from_numpy(prepared.image),
        points=(rays * depth[..., None]).float(),
        confidence=torch.where(agree, SURE, 1.0),
        world_from_camera=(invert(poses[0]) @ poses[index]).float(),
        intrinsics=torch.from_numpy(prepared.intrinsics).float(),
        transform=prepared.transform,
    )


def truth_of(clip: Clip, folder: Path, suffix: str = "", rotate: int = 0) -> Truth:
    """Source and run of a clip in a folder; see `write_source`."""
    source = open_source(write_source(clip, folder / f"source{suffix}"), rotate=rotate)
    return Truth(clip, exact_run(clip, source, folder / "run", rotate), rotate)


def _turned(rotate: int) -> torch.Tensor:
    """Axes of a camera from those of one whose image is turned clockwise."""
    quarter = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]).double()
    return torch.linalg.matrix_power(quarter, rotate // 90)
