"""The compiled renderer against its slow twin, the torch one."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.scenes.twins import geometry_of, no_ground, solids_of
from ttt3r.errors import MissingExtraError, SettingError
from ttt3r.geometry.camera import project
from ttt3r.scenes import WORLDS, Scene, SceneOptions
from ttt3r.scenes.fast import compiling, front, tiles
from ttt3r.scenes.layout import to_tensors
from ttt3r.scenes.render import Lighting, Rendering, pixel_rays, render
from ttt3r.scenes.renderers import RENDERERS, get_renderer, refined
from ttt3r.scenes.solids import Geometry, Ground
from ttt3r.scenes.textures import NOISE_CELLS, PATTERN_NAMES, Materials

SIZE = (48, 64)


def agree(left: Rendering, right: Rendering, apart: float = 0.002):
    """Equal up to rounding but for a share of the pixels.

    Sums come in another order, 1e-5 is about a hundred float32 eps. Rounding also decides on which
    side of a border a ray falls: of a solid, a shadow or a cell of a texture. Those are few.
    """
    assert left.light.shape == right.light.shape and left.depth.shape == right.depth.shape
    assert left.moving.dtype == right.moving.dtype
    depth = torch.isclose(left.depth, right.depth, rtol=1e-5, atol=1e-6)
    light = torch.isclose(left.light, right.light, rtol=1e-3, atol=1e-4).all(1)
    bad = ~(depth & light & (left.moving == right.moving))
    assert bad.float().mean() <= apart


def arguments(scene: Scene, frames: list[int], size: tuple[int, int] = SIZE) -> tuple:
    geometry, materials = to_tensors(scene.builder, np.array(frames, float))
    poses = torch.from_numpy(scene.poses[frames]).float()
    return geometry, materials, scene.lighting, scene.volume, poses, scene.intrinsics, size


def studio(
    geometry: Geometry,
    pattern: str = "tiles",
    size: tuple[int, int] = SIZE,
    degrees: float = 80.0,
    lamps: int = 2,
    height: float = 1.5,
) -> tuple:
    """Arguments for a camera at (0, -height, 0) that looks along z and a little down."""
    random = np.random.default_rng(3)
    frames = len(geometry.boxes.half)

    def some(*shape: int) -> torch.Tensor:
        values = torch.from_numpy(random.uniform(0.2, 0.9, shape)).float()
        return values.expand(frames, *shape)

    kinds = torch.full((frames, 14), PATTERN_NAMES.index(pattern))
    glow = some(14) * (torch.arange(14) % 3 == 0)
    materials = Materials(kinds, some(14, 3), some(14, 3), 3 * some(14), some(14), some(14), glow)
    positions = torch.tensor([[1.0, -6.0, -1.0], [-2.0, -5.0, 3.0], [0.5, -7.0, 2.0]])[:lamps]
    sky = torch.tensor([0.3, 0.5, 0.8])
    lighting = Lighting(positions, torch.tensor([1.0, 0.9, 0.8]), 0.6, 0.4, sky, 0.1)
    tilt, pose = np.radians(12), torch.eye(4)
    pose[1, 1] = pose[2, 2] = float(np.cos(tilt))
    pose[1, 2], pose[2, 1] = float(np.sin(tilt)), -float(np.sin(tilt))
    pose[1, 3] = -height
    focal = max(size) / 2 / np.tan(np.radians(degrees) / 2)
    rows = [[focal, 0, (size[1] - 1) / 2], [0, focal, (size[0] - 1) / 2], [0, 0, 1]]
    volume = torch.from_numpy(random.random((NOISE_CELLS,) * 3, np.float32))
    return (
        geometry,
        materials,
        lighting,
        volume,
        pose.expand(frames, 4, 4),
        torch.tensor(rows, dtype=torch.float32),
        size,
    )


FLOOR = ((0.0, 0.05, 8.0), (9.0, 0.05, 9.0), 0.0, 1, 0)
THINGS = [
    ((-1.2, -0.5, 4.0), (0.5, 0.5, 0.4), 0.6, 2, 0),
    ((0.3, -0.4, 3.0), (0.3, 0.4, 0.6), -0.3, 3, 1),
    ((1.6, -0.9, 5.0), (0.6, 0.9, 0.6), 2.0, 4, 0),
    ((0.1, -0.2, 2.0), (0.02, 0.02, 0.02), 0.0, 5, 0),  # too small to cast a shadow
]


def rolling(frames: int = 1, top: float = 0.3) -> Ground:
    random = np.random.default_rng(5)
    wave = torch.from_numpy(random.normal(size=(4, 2)) * 0.15).float().expand(frames, 4, 2)
    amplitude = torch.from_numpy(random.uniform(0.2, 1, 4) * top).float().expand(frames, 4)
    phase = torch.from_numpy(random.uniform(0, 6.28, 4)).float().expand(frames, 4)
    return Ground(wave, amplitude, phase, torch.full((frames,), 7))


@pytest.mark.parametrize("seed", [1, 8])
@pytest.mark.parametrize("world", WORLDS)
def test_every_world(world: str, seed: int):
    scene = Scene(seed, 20, SIZE, SceneOptions(world=world, moving=1.0))
    wanted = arguments(scene, [0, 13])
    agree(render(*wanted), front.render(*wanted))


@pytest.mark.parametrize("kind", ["boxes", "balls", "tubes"])
def test_every_kind_of_solid(kind: str):
    """Each casts shadows on a floor too."""
    others = {} if kind == "boxes" else {"boxes": solids_of([FLOOR])}
    things = solids_of([*THINGS, FLOOR] if kind == "boxes" else THINGS)
    wanted = studio(geometry_of(**others, **{kind: things}))
    slow, fast = render(*wanted), front.render(*wanted)
    agree(slow, fast)
    assert slow.moving.any() and not slow.moving.all()


def test_inside_rooms():
    """Two of them, of which the camera is in one; each face has a material of its own."""
    rooms = solids_of(
        [
            ((0.0, -1.5, 1.0), (3.0, 1.5, 4.0), 0.4, 0, 0),
            ((20.0, -1.5, 1.0), (3.0, 1.5, 4.0), 0.0, 7, 0),
        ]
    )
    wanted = studio(geometry_of(rooms=rooms, balls=solids_of(THINGS)), degrees=120.0)
    slow, fast = render(*wanted), front.render(*wanted)
    agree(slow, fast)
    assert (fast.depth > 0).all()


@pytest.mark.parametrize("top", [0.0, 0.3, 1.5])
def test_ground(top: float):
    """Flat, rolling and steep; at some height, so that it ends beyond a kilometre."""
    wanted = studio(geometry_of(rolling(top=top), balls=solids_of(THINGS)), height=6.0)
    slow, fast = render(*wanted), front.render(*wanted)
    # Rays that graze the ground far away take many steps, and are given up at different places.
    agree(slow, fast, apart=0.01)
    assert (fast.depth > 0).float().mean() > 0.4 and (fast.depth == 0).any()


def test_far_ground():
    """Beyond a kilometre light stays the same, but points are still told apart."""
    wanted = studio(geometry_of(rolling(top=0.0)), "plain", (48, 64), 4.0, height=250.0)
    slow, fast = render(*wanted), front.render(*wanted)
    agree(slow, fast)
    assert fast.depth.max() > 1000


def test_frames_without_ground_beside_others_with_ground():
    ground = rolling(3)
    ground = replace(ground, material=torch.tensor([7, -1, 7]))
    wanted = studio(geometry_of(ground, 3, boxes=solids_of(THINGS, 3)))
    slow, fast = render(*wanted), front.render(*wanted)
    agree(slow, fast, apart=0.01)
    assert (fast.depth[1] > 0).sum() < (fast.depth[0] > 0).sum()


@pytest.mark.parametrize("pattern", PATTERN_NAMES)
def test_every_texture(pattern: str):
    wanted = studio(geometry_of(boxes=solids_of([*THINGS, FLOOR])), pattern)
    agree(render(*wanted), front.render(*wanted), apart=0.005)  # cells have many borders


@pytest.mark.parametrize("lamps", [1, 3])
def test_lamps(lamps: int):
    wanted = studio(geometry_of(boxes=solids_of([*THINGS, FLOOR])), lamps=lamps)
    agree(render(*wanted), front.render(*wanted))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (16, 17), (37, 53), (130, 9)])
def test_ragged_sizes(size: tuple[int, int]):
    wanted = studio(
        geometry_of(boxes=solids_of([*THINGS, FLOOR]), balls=solids_of(THINGS)), size=size
    )
    agree(render(*wanted), front.render(*wanted), apart=max(0.002, 1.5 / (size[0] * size[1])))


def test_very_wide_angles():
    wanted = studio(geometry_of(boxes=solids_of([*THINGS, FLOOR])), degrees=170.0)
    agree(render(*wanted), front.render(*wanted))


@pytest.mark.parametrize("padded", [True, False])
def test_an_empty_scene(padded: bool):
    """Only sky, brighter below."""
    geometry = geometry_of(no_ground())
    if not padded:
        geometry = replace(geometry, boxes=geometry.balls)
    wanted = studio(geometry)
    slow, fast = render(*wanted), front.render(*wanted)
    agree(slow, fast, apart=0.0)
    assert not fast.depth.any() and not fast.moving.any()
    assert (fast.light[..., 0, :] < fast.light[..., -1, :]).all()


def test_threads_change_nothing():
    size = (136, 72)
    scene = Scene(3, 9, size, SceneOptions(moving=1.0))
    wanted = arguments(scene, [0, 4, 8], size)
    one = front.render(*wanted, threads=1)
    for threads in (2, 5, 100):
        other = front.render(*wanted, threads=threads)
        for name in ("light", "depth", "moving"):
            assert torch.equal(getattr(one, name), getattr(other, name))
    alone = front.render(*arguments(scene, [4], size))
    assert torch.equal(alone.light[0], one.light[1])


def test_no_frames():
    scene = Scene(3, 2, SIZE)
    assert front.render(*arguments(scene, [])).light.shape == (0, 3, *SIZE)


def test_without_numba(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ttt3r\[training\]'"):
        compiling.kernel(lambda x: x)
    monkeypatch.setitem(sys.modules, "ttt3r.scenes.fast.front", None)
    assert get_renderer("torch") is render


def test_the_cpu_only():
    wanted = list(arguments(Scene(3, 1, SIZE), [0]))
    wanted[4] = wanted[4].to("meta")
    with pytest.raises(SettingError, match="the CPU only, not on meta"):
        front.render(*wanted)


def test_machine_code_on_disk_is_that_of_these_sources():
    """Numba looks at the entry's own file alone; see `compiling.entry`."""
    cells = tiles.render_rows.py_func.__closure__
    assert [cell.cell_contents for cell in cells] == [compiling.sources_digest()]


@pytest.mark.parametrize("name", RENDERERS)
def test_scenes_take_any_renderer(name: str):
    scene = Scene(5, 3, SIZE, renderer=name)
    plain, clip = Scene(5, 3, SIZE).frames(1, 3), scene.frames(1, 3)
    assert (plain.image == clip.image).float().mean() > 0.99
    assert torch.isclose(plain.depth, clip.depth, rtol=1e-5).float().mean() > 0.998


@pytest.mark.parametrize("name", RENDERERS)
def test_several_samples_per_pixel(name: str):
    """Light is the mean over parts of a pixel; depth and motion are those of its centre."""
    wanted = arguments(Scene(5, 2, SIZE, SceneOptions(moving=1.0)), [0, 1])
    one, four = get_renderer(name)(*wanted), get_renderer(name, 2)(*wanted)
    assert torch.equal(one.depth, four.depth) and torch.equal(one.moving, four.moving)
    fine = get_renderer(name)(*wanted[:5], refined(wanted[5], 2), (96, 128)).light
    mean = sum(fine[..., i::2, j::2] for i in range(2) for j in range(2)) / 4
    torch.testing.assert_close(four.light, mean, rtol=1e-5, atol=1e-6)
    assert not torch.equal(one.light, four.light)


@pytest.mark.parametrize("samples", [2, 3])
def test_samples_lie_evenly_around_the_centre(samples: int):
    scene = Scene(5, 1, SIZE)
    coarse = pixel_rays(scene.intrinsics, SIZE).unflatten(0, SIZE)
    finer = (SIZE[0] * samples, SIZE[1] * samples)
    fine = pixel_rays(refined(scene.intrinsics, samples), finer).unflatten(0, finer)
    blocks = fine.unflatten(0, (-1, samples)).unflatten(2, (-1, samples))
    torch.testing.assert_close(blocks.mean((1, 3)), coarse, rtol=0, atol=1e-5)
    corner = project(fine[:1, :1], scene.intrinsics)[0, 0]
    expected = torch.full((2,), -0.5 + 0.5 / samples)
    torch.testing.assert_close(corner, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"renderer": "quick"}, "unknown renderer 'quick'; choose from torch, fast"),
        ({"samples": 0}, "1 to 8 samples"),
        ({"samples": 9}, "1 to 8 samples"),
    ],
)
def test_refusals(settings: dict, message: str):
    with pytest.raises(SettingError, match=message):
        Scene(0, 1, SIZE, **settings)
