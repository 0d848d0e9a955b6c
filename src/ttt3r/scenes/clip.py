"""Synthetic clips: frames with exact depth, camera pose, intrinsics, validity and motion."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.scenes.effects import CameraEffects, photograph
from ttt3r.scenes.layout import Builder, to_tensors
from ttt3r.scenes.paths import camera_path
from ttt3r.scenes.render import Lighting, pixel_rays, render
from ttt3r.scenes.solids import trace
from ttt3r.scenes.textures import NOISE_CELLS
from ttt3r.scenes.worlds import WORLD_SHARES, WORLDS, Place, set_in_motion

PATHS_TRIED = 3


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
        style: camera path, see `paths.camera_path`.
        moving: share of scenes in which things move.
        degrees: range of the horizontal field of view.
    """

    world: str | None = None
    style: str | None = None
    moving: float = 0.2
    degrees: tuple[float, float] = (45.0, 100.0)


class Scene:
    """A furnished place with lights, a camera path and a camera; all of it follows from the seed.

    Args:
        seed: any non-negative integer.
        frames: length of the path.
        size: (height, width) of the images, multiples of 8.
        options: what it should be like.

    Raises:
        SettingError: if the size or a name in the options is not allowed.
    """

    def __init__(
        self,
        seed: int,
        frames: int,
        size: tuple[int, int] = (144, 192),
        options: SceneOptions | None = None,
    ) -> None:
        options = options or SceneOptions()
        if frames < 1 or min(size) < 8 or size[0] % 8 or size[1] % 8:
            raise SettingError("a clip needs at least one frame, and sides that are multiples of 8")
        if options.world is not None and options.world not in WORLDS:
            raise SettingError(f"unknown world {options.world!r}; choose from {', '.join(WORLDS)}")
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
        drift = np.cumsum(b.random.normal(size=frames)) * b.uniform(0, 0.02)
        exposure = np.exp(np.clip(drift, -0.5, 0.5) + b.uniform(-0.35, 0.35))
        return CameraEffects(
            exposure=torch.from_numpy(exposure).float(),
            balance=torch.from_numpy(np.exp(b.random.normal(size=3) * 0.06)).float(),
            blur=b.uniform(0.3, 0.7) if b.chance(0.7) else b.uniform(0.7, 1.2),
            noise=b.uniform(0, 0.015) if b.chance(0.7) else b.uniform(0.015, 0.05),
            jpeg=b.uniform(0, 0.7) if b.chance(0.7) else 0.0,
        )

    def __len__(self) -> int:
        return len(self.poses)

    def frames(self, start: int, stop: int, device: torch.device | str = "cpu") -> Clip:
        """Render frames `start` to `stop`; a frame is the same whichever others are rendered."""
        times = np.arange(start, min(stop, len(self)), dtype=np.float64)
        geometry, materials = to_tensors(self.builder, times)
        poses = torch.from_numpy(self.poses[start:stop]).float()
        move = lambda x: x.to(device)  # noqa: E731
        light, depth, moving = render(
            geometry.map(move),
            materials.map(move),
            self.lighting.to(device),
            self.volume.to(device),
            poses.to(device),
            self.intrinsics.to(device),
            self.size,
        )
        gain = self._gain(light)
        images = []
        for i, time in enumerate(times):
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(time))
            one = slice(int(time), int(time) + 1)
            effects = CameraEffects(
                (self.effects.exposure[one] * gain).to(device),
                self.effects.balance.to(device),
                self.effects.blur,
                self.effects.noise,
                self.effects.jpeg,
            )
            images.append(photograph(light[i : i + 1], effects, generator)[0])
        image = (torch.stack(images).movedim(1, -1) * 255).round().to(torch.uint8)
        intrinsics = self.intrinsics.expand(len(poses), 3, 3).clone()
        return Clip(image.cpu(), depth.cpu(), poses, intrinsics, moving.cpu())

    def _gain(self, light: Tensor) -> float:
        """Exposure that the camera settles on: mid grey over the first frame it sees."""
        if not hasattr(self, "_settled"):
            self._settled = float(0.25 / light[0].clamp(max=2).mean().clamp(min=1e-3))
        return self._settled

    def chunks(self, frames: int = 8, device: torch.device | str = "cpu") -> Iterator[Clip]:
        """Render the whole path, a few frames at a time."""
        for start in range(0, len(self), frames):
            yield self.frames(start, start + frames, device)


def make_clip(
    seed: int,
    frames: int,
    size: tuple[int, int] = (144, 192),
    options: SceneOptions | None = None,
    device: torch.device | str = "cpu",
) -> Clip:
    """Render a whole clip; see `Scene`."""
    scene = Scene(seed, frames, size, options)
    parts = list(scene.chunks(device=device))
    return Clip(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Clip)))
