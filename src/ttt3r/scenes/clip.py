"""Synthetic clips: frames with exact depth, camera pose, intrinsics, validity and motion."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.scenes.effects import CameraEffects, photograph, settled_gain
from ttt3r.scenes.layout import Builder, to_tensors
from ttt3r.scenes.paths import STYLES, camera_path
from ttt3r.scenes.render import Lighting, Rendering, pixel_rays
from ttt3r.scenes.renderers import get_renderer
from ttt3r.scenes.solids import trace
from ttt3r.scenes.textures import NOISE_CELLS
from ttt3r.scenes.worlds import WORLD_SHARES, WORLDS, Place, set_in_motion

PATHS_TRIED = 3
MOST_FRAMES = 1_000_000  # a path is held in memory as a whole
LONGEST_SIDE = 4096


@dataclass(frozen=True)
class Clip:
    """Consecutive frames of one synthetic scene.

    Attributes:
        image: RGB.
        depth: z in the camera's frame, metres; 0 where a ray meets nothing.
        world_from_camera: camera poses in the scene's world (y down, floor at 0), metres.
        intrinsics: pinhole matrix, pixels, centres at integers.
        moving: pixels on things that move in the world.
    """

    image: UInt8[Tensor, "frames height width 3"]
    depth: Float[Tensor, "frames height width"]
    world_from_camera: Float[Tensor, "frames 4 4"]
    intrinsics: Float[Tensor, "frames 3 3"]
    moving: Bool[Tensor, "frames height width"]

    @property
    def valid(self) -> Bool[Tensor, "frames height width"]:
        """Where there is a surface."""
        return self.depth > 0

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, frames: slice) -> "Clip":
        return Clip(*(getattr(self, field.name)[frames] for field in fields(self)))


@dataclass(frozen=True)
class SceneOptions:
    """What a clip should be like; None is drawn at random.

    Attributes:
        world: one of `scenes.WORLDS`.
        style: camera path, one of `paths.STYLES`.
        moving: share of scenes in which things move.
        degrees: range of the field of view along the longer side of the image.

    Raises:
        SettingError: if a name is unknown or a number out of range.
    """

    world: str | None = None
    style: str | None = None
    moving: float = 0.2
    degrees: tuple[float, float] = (45.0, 100.0)

    def __post_init__(self) -> None:
        for what, value, known in (("world", self.world, WORLDS), ("style", self.style, STYLES)):
            if value is not None and value not in known:
                raise SettingError(f"unknown {what} {value!r}; choose from {', '.join(known)}")
        if not 0 <= self.moving <= 1:
            raise SettingError(f"moving is a share between 0 and 1, not {self.moving}")
        if not 0 < self.degrees[0] <= self.degrees[1] < 180:
            raise SettingError(f"degrees is a range between 0 and 180, not {self.degrees}")


class Scene:
    """A furnished place with lights, a camera path and a camera; all of it follows from the seed.

    Frames are the same for any number of threads. On a GPU they differ from those of a CPU by
    rounding.

    Args:
        seed: any non-negative integer.
        frames: length of the path, at most a million.
        size: (height, width) of the images, multiples of 8.
        options: what it should be like.
        renderer: "torch", or "fast" for compiled code; see `renderers.get_renderer`.
        samples: rays along each side of a pixel, whose light is averaged; smooths edges.

    Raises:
        SettingError: if the seed, the length, the size, the renderer or the samples are not
            allowed.
        MissingExtraError: if the renderer needs a package that is not installed.
    """

    def __init__(
        self,
        seed: int,
        frames: int,
        size: tuple[int, int] = (144, 192),
        options: SceneOptions | None = None,
        renderer: str = "torch",
        samples: int = 1,
    ) -> None:
        _check(seed, frames, size)
        self._renderer = get_renderer(renderer, samples)
        options = options or SceneOptions()
        self.seed, self.size, self.options = seed, size, options
        b = self.builder = Builder(np.random.default_rng([seed, 0x7773]))
        shares = list(WORLD_SHARES.values())
        self.world = options.world or str(b.random.choice(list(WORLD_SHARES), p=shares))
        self.place: Place = WORLDS[self.world](b)
        if b.chance(options.moving):
            set_in_motion(b)
        degrees = b.uniform(*options.degrees)
        focal = max(size) / 2 / np.tan(np.radians(degrees) / 2)
        self.intrinsics = torch.tensor(
            [[focal, 0, (size[1] - 1) / 2], [0, focal, (size[0] - 1) / 2], [0, 0, 1]],
            dtype=torch.float32,
        )
        self.lighting = self._lighting()
        paths = [camera_path(b, self.place, frames, options.style) for _ in range(PATHS_TRIED)]
        self.poses = max(paths, key=self._content)
        self.volume = torch.from_numpy(b.random.random((NOISE_CELLS,) * 3, np.float32))
        self.effects = self._effects(frames)
        self._gain: float | None = None  # known once frame 0 was rendered

    def _content(self, poses: np.ndarray) -> float:
        """How much there is to see along a path: surfaces met by a coarse grid of rays.

        A camera held by a person seldom looks at a bare wall from close by; random paths do.
        """
        chosen = np.linspace(0, len(poses) - 1, min(len(poses), 6)).round().astype(int)
        geometry, _ = to_tensors(self.builder, chosen.astype(np.float64))
        rays = pixel_rays(self.intrinsics, self.size).unflatten(0, self.size)
        rays = rays[:: self.size[0] // 6, :: self.size[1] // 6].flatten(0, 1)
        some = torch.from_numpy(poses[chosen]).float()
        hits = trace(geometry, some[:, None, :3, 3], rays @ some[:, :3, :3].transpose(1, 2))
        seen = [len(row.unique()) for row in hits.material]
        return float(min(np.mean(seen), 12) + min(seen)) + float(hits.t.amin(1).median() > 0.5)

    def _lighting(self) -> Lighting:
        b, outdoors = self.builder, self.place.outdoors
        share = b.uniform(0.4, 0.8)
        colour = 1 + 0.15 * b.random.normal(size=3).clip(-1, 1)
        return Lighting(
            lights=torch.from_numpy(self.place.lights).float(),
            colour=torch.from_numpy(colour).float(),
            direct=share * (1.2 if outdoors else 1.0),
            ambient=1 - share,
            sky=torch.from_numpy(self.place.sky).float(),
            falloff=0.0 if outdoors else b.uniform(0.3, 0.9),
        )

    def _effects(self, frames: int) -> CameraEffects:
        b = self.builder
        drift = np.cumsum(b.random.normal(size=frames)) * b.uniform(0.0, 0.02)
        exposure = np.exp(np.clip(drift, -0.5, 0.5) + b.uniform(-0.35, 0.35))
        return CameraEffects(
            exposure=torch.from_numpy(exposure).float(),
            balance=torch.from_numpy(np.exp(b.random.normal(size=3) * 0.06)).float(),
            blur=b.uniform(0.3, 0.7) if b.chance(0.7) else b.uniform(0.7, 1.2),
            noise=b.uniform(0.0, 0.015) if b.chance(0.7) else b.uniform(0.015, 0.05),
            jpeg=b.uniform(0.0, 0.7) if b.chance(0.7) else 0.0,
        )

    def __len__(self) -> int:
        return len(self.poses)

    def pose(self, frame: int) -> Float[Tensor, "4 4"]:
        """World from camera of one frame, in float64."""
        return torch.from_numpy(self.poses[frame])

    def frames(
        self, start: int, stop: int, device: torch.device | str = "cpu", every: int = 1
    ) -> Clip:
        """Render frames `start` to `stop`; a frame is the same whichever others are rendered.

        Args:
            start: first frame.
            stop: frame after the last; the path may end before it.
            device: where to compute; the result is on the CPU.
            every: leave out others: 3 renders `start`, `start + 3` and so on.

        Raises:
            SettingError: if there is no such frame, or `every` is less than 1.
        """
        stop = min(stop, len(self))
        if not 0 <= start < stop:
            raise SettingError(f"no frames {start} to {stop}: the clip has {len(self)} frames")
        if every < 1:
            raise SettingError(f"every is 1 or more frames, not {every}")
        chosen = range(start, stop, every)
        rendering = self._render(chosen, device)
        if self._gain is None:
            first = rendering if start == 0 else self._render(range(1), device)
            self._gain = settled_gain(first.light[0])
        image = self._photographs(rendering.light, chosen, self._gain)
        poses = torch.from_numpy(self.poses[start:stop:every]).float()
        intrinsics = self.intrinsics.expand(len(poses), 3, 3).clone()
        return Clip(image, rendering.depth.cpu(), poses, intrinsics, rendering.moving.cpu())

    def _render(self, chosen: range, device: torch.device | str) -> Rendering:
        geometry, materials = to_tensors(self.builder, np.array(chosen, dtype=np.float64))
        return self._renderer(
            geometry.map(lambda x: x.to(device)),
            materials.map(lambda x: x.to(device)),
            self.lighting.to(device),
            self.volume.to(device),
            torch.from_numpy(self.poses[np.array(chosen)]).float().to(device),
            self.intrinsics.to(device),
            self.size,
        )

    def _photographs(
        self, light: Float[Tensor, "frames 3 height width"], chosen: range, gain: float
    ) -> UInt8[Tensor, "frames height width 3"]:
        images = []
        for i, number in enumerate(chosen):
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + number) % 2**63)
            effects = self.effects.at(number, gain).to(light.device)
            images.append(photograph(light[i, None], effects, generator)[0])
        return (torch.stack(images).movedim(1, -1) * 255).round().to(torch.uint8).cpu()

    def chunks(self, frames: int = 8, device: torch.device | str = "cpu") -> Iterator[Clip]:
        """Render the whole path, a few frames at a time."""
        for start in range(0, len(self), frames):
            yield self.frames(start, start + frames, device)


def _check(seed: int, frames: int, size: tuple[int, int]) -> None:
    if seed < 0:
        raise SettingError(f"the seed must be 0 or more, not {seed}")
    if not 1 <= frames <= MOST_FRAMES:
        raise SettingError(f"a clip has 1 to {MOST_FRAMES} frames, not {frames}")
    if any(side % 8 or not 8 <= side <= LONGEST_SIDE for side in size):
        shape = f"{size[1]}x{size[0]}"
        raise SettingError(f"sides of images are multiples of 8 up to {LONGEST_SIDE}, not {shape}")


def make_clip(
    seed: int,
    frames: int,
    size: tuple[int, int] = (144, 192),
    options: SceneOptions | None = None,
    device: torch.device | str = "cpu",
    stride: int = 1,
    renderer: str = "torch",
    samples: int = 1,
) -> Clip:
    """Render a whole clip; see `Scene`. With a stride, of a path that many times as long."""
    scene = Scene(seed, frames * stride, size, options, renderer, samples)
    if stride == 1:
        parts = list(scene.chunks(device=device))
    else:
        parts = [scene.frames(i, i + 1, device) for i in range(0, len(scene), stride)]
    return Clip(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Clip)))
