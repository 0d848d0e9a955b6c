"""Intersections against twins that feel their way along each ray."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.scenes import twins
from tests.scenes.twins import first_inside, geometry_of, rays, solids_of, tensor, things
from ttt3r.scenes.layout import Builder, to_tensors, turned
from ttt3r.scenes.solids import FAR, Geometry, Ground, blocked, height, meet_ground, nearest, trace
from ttt3r.scenes.worlds import WORLDS

REACH, STEPS = 8.0, 6000
CHORD = 3 * REACH / STEPS  # what is thinner, the twin may step over


def rolling(seed: int = 5, *, flat: bool = False) -> Ground:
    random = np.random.default_rng(seed)
    amplitude = random.uniform(0.05, 0.35, 4) * (not flat)
    wave, phase = random.normal(size=(4, 2)) * 0.15, random.uniform(0, 6.28, 4)
    return Ground(tensor(wave), tensor(amplitude), tensor(phase), torch.tensor([7]))


def assert_as_felt(geometry: Geometry, origin: np.ndarray, direction: np.ndarray):
    """Distances, materials and motion are those of the first thing that is felt."""
    hits = trace(geometry, tensor(origin[None]), tensor(direction))
    t = hits.t[0].double().numpy()
    near = np.full(len(t), FAR)
    material, moving = np.full(len(t), -1), np.zeros(len(t), np.int64)
    thin = np.zeros(len(t), bool)
    for thing in things(geometry):
        felt = first_inside(thing.inside, origin, direction, REACH, STEPS)
        for i in np.flatnonzero((felt < near) | (t < FAR / 2)):
            # A ray that only grazes a solid is not compared.
            points = (
                origin
                + (min(felt[i], t[i]) + CHORD * np.array([0.2, 0.5, 1]))[:, None] * direction[i]
            )
            edge = thing.inside(points)
            thin[i] |= bool(edge.any() and not edge.all())
        material = np.where(felt < near, thing.material, material)
        moving = np.where(felt < near, thing.moving, moving)
        near = np.minimum(felt, near)
        if thing.kind == "rooms":
            point = origin + near[:, None] * direction
            material = np.where(
                near == felt, thing.material + face_of_room(geometry, point), material
            )
    compared = ~thin & ((near < REACH * 0.99) | (t > REACH))
    assert compared.mean() > 0.9
    seen = compared & (near < FAR / 2)
    assert seen.mean() > 0.1
    np.testing.assert_allclose(t[seen], near[seen], rtol=2e-5, atol=2e-5)
    assert (t[compared & ~seen] > REACH).all()
    assert (hits.material[0].numpy()[seen] == material[seen]).all()
    assert (hits.moving[0].numpy()[seen] == moving[seen]).all()


def face_of_room(geometry: Geometry, point: np.ndarray) -> np.ndarray:
    """2 · axis + side of the wall that points lie on."""
    room = geometry.rooms
    centre, half, (c, s) = (x[0, 0].double().numpy() for x in (room.centre, room.half, room.turn))
    relative = (point - centre) @ turned(np.arctan2(s, c)) / half
    axis = np.abs(relative).argmax(1)
    return 2 * axis + (np.take_along_axis(relative, axis[:, None], 1)[:, 0] > 0)


ONE = ((0.3, -0.2, 4.0), (0.9, 0.5, 0.7), 0.6, 3, 1)


@pytest.mark.parametrize("kind", ["boxes", "balls", "tubes"])
@pytest.mark.parametrize("origin", [(0.0, 0.0, 0.0), (0.2, -2.5, 3.0), (-3.0, 0.1, 4.0)])
def test_one_solid(kind: str, origin: tuple[float, float, float]):
    geometry = geometry_of(**{kind: solids_of([ONE])})
    towards = np.array(ONE[0]) - origin
    spread = np.random.default_rng(1).uniform(-1, 1, (150, 3))
    assert_as_felt(geometry, np.array(origin), (towards + spread) / 2)


@pytest.mark.parametrize("yaw", [0.0, 0.6, -2.0])
def test_room(yaw: float):
    room = ((0.5, -1.3, 0.2), (2.5, 1.3, 3.1), yaw, 10, 0)
    direction = np.random.default_rng(2).normal(size=(150, 3))
    direction *= 1 / np.linalg.norm(direction, axis=1, keepdims=True)
    assert_as_felt(geometry_of(rooms=solids_of([room])), np.array([0.1, -1.5, 0.4]), direction)


@pytest.mark.parametrize("flat", [False, True])
def test_ground(flat: bool):
    geometry = geometry_of(rolling(flat=flat))
    assert_as_felt(geometry, np.array([0.3, -1.7, 0.1]), rays(np.random.default_rng(3), 150))


@pytest.mark.slow
def test_many_solids():
    random = np.random.default_rng(4)
    kinds = {}
    for number, kind in enumerate(("boxes", "balls", "tubes")):
        kinds[kind] = solids_of(
            [
                (
                    tuple(random.uniform((-2, -2, 2), (2, 0, 6))),
                    tuple(random.uniform(0.1, 0.8, 3)),
                    float(random.uniform(-3, 3)),
                    10 * number + i,
                    i % 2,
                )
                for i in range(6)
            ]
        )
    room = solids_of([((0.0, -1.4, 2.0), (3.0, 1.6, 4.5), 0.2, 40, 0)])
    assert_as_felt(geometry_of(**kinds, rooms=room), np.array([0.0, -1.0, 0.0]), rays(random, 200))
    assert_as_felt(geometry_of(rolling(), **kinds), np.array([0.0, -1.8, 0.0]), rays(random, 200))


@pytest.mark.parametrize("kind", ["boxes", "balls", "tubes"])
def test_solids_are_met_from_outside_only(kind: str):
    geometry = geometry_of(**{kind: solids_of([ONE])})
    t, _ = nearest(geometry, tensor([ONE[0]]), tensor(rays(np.random.default_rng(0), 50)))
    assert (t == FAR).all()


def test_rooms_are_met_from_inside_only():
    geometry = geometry_of(rooms=solids_of([ONE]))
    t, _ = nearest(geometry, torch.zeros(1, 1, 3), tensor(rays(np.random.default_rng(0), 50)))
    assert (t == FAR).all()


@pytest.mark.parametrize("kind", ["boxes", "balls", "tubes", "rooms"])
def test_rays_along_the_axes(kind: str):
    """Where directions hold zeros, of either sign."""
    geometry = geometry_of(**{kind: solids_of([((0.0, 0.0, 0.0), (1.0, 2.0, 3.0), 0.0)])})
    for axis, half in enumerate((1.0, 2.0, 3.0)):
        for side in (-1.0, 1.0):
            direction = torch.full((1, 1, 3), -0.0 if side < 0 else 0.0)
            direction[..., axis] = -side
            origin = torch.zeros(1, 1, 3)
            if kind != "rooms":
                origin[..., axis] = 10 * side
            hits = trace(geometry, origin, direction)
            expected = half if kind == "rooms" else 10 - half
            torch.testing.assert_close(hits.t, torch.full((1, 1), expected))
            torch.testing.assert_close(hits.normal, -direction)


def test_padding_is_never_met():
    flat = ((0.0, 0.0, 3.0), (0.0, 0.0, 0.0), 0.3)
    kinds = {kind: solids_of([flat]) for kind in ("boxes", "balls", "tubes")}
    direction = tensor(np.array([[0.0, 0.0, 1.0], [0.1, 0.0, 1.0]]))
    hits = trace(geometry_of(**kinds), torch.zeros(1, 1, 3), direction)
    assert (hits.t == FAR).all() and (hits.material == -1).all() and (hits.moving == 0).all()
    assert not blocked(geometry_of(**kinds), torch.zeros(1, 1, 3), 9 * direction).any()


@pytest.mark.parametrize("world", WORLDS)
def test_normals(world: str):
    """Unit, towards the ray, and square to the surface that neighbouring rays find."""
    b = Builder(np.random.default_rng(3))
    place = WORLDS[world](b)
    geometry, _ = to_tensors(b, np.zeros(1))
    origin = torch.tensor([[[0.1, -sum(place.eye) / 2, place.low[1]]]])
    direction = tensor(rays(np.random.default_rng(1), 4000))
    hits = trace(geometry, origin, direction)
    hit = hits.t < 30
    length = torch.linalg.vector_norm(hits.normal, dim=-1)
    torch.testing.assert_close(length[hit], torch.ones_like(length[hit]))

    aside = [tensor(np.array([offset])) for offset in ((1e-3, 0.0, 0.0), (0.0, 1e-3, 0.0))]
    near = [trace(geometry, origin, direction + offset) for offset in aside]
    # Points where one solid meets another, or one face of it the next, are left out.
    same = hit & (hits.material == near[0].material) & (hits.material == near[1].material)
    for other in near:
        same &= (other.normal * hits.normal).sum(-1) > 0.98
        same &= (other.t - hits.t).abs() < 0.05 * hits.t
    assert same.sum() > 0.6 * hit.sum()
    assert ((hits.normal * direction).sum(-1)[same] < 0).float().mean() > 0.995
    at = origin + hits.t[..., None] * direction
    across = [
        origin + other.t[..., None] * (direction + offset) - at
        for other, offset in zip(near, aside, strict=True)
    ]
    measured = torch.nn.functional.normalize(torch.linalg.cross(*across), dim=-1)
    agreement = (measured * hits.normal).sum(-1).abs()[same]
    assert (agreement > 0.98).float().mean() > 0.97


@pytest.mark.parametrize("world", ["room", pytest.param("outdoor", marks=pytest.mark.slow)])
def test_blocked(world: str):
    """Against walking from the light to the point."""
    b = Builder(np.random.default_rng(8))
    place = WORLDS[world](b)
    geometry, _ = to_tensors(b, np.zeros(1))
    light = place.lights[0]
    random = np.random.default_rng(2)
    casters = [item for item in b.items if item.kind != "room"]
    chosen = [casters[i] for i in random.integers(len(casters), size=200)]
    point = np.stack([item.centre + random.normal(size=3) * item.half * 2 for item in chosen])
    dark = blocked(geometry, tensor(light[None]), tensor(point))[0].numpy()
    solids = [thing for thing in things(geometry) if thing.kind not in ("rooms", "ground")]
    share = np.linspace(0, 1, 4000)[1:-1, None]
    walked = np.zeros(len(point), bool)
    for i in range(len(point)):
        path = light + share * (point[i] - light)
        walked[i] = any(thing.inside(path).any() for thing in solids)
    assert not (walked & ~dark).any()
    assert (dark & ~walked).mean() < 0.01  # grazed between two steps
    assert 0.02 < dark.mean() < 0.98


def test_rooms_and_ground_cast_no_shadow():
    geometry = geometry_of(rolling(), rooms=solids_of([ONE]))
    point = tensor(np.array([[0.3, -0.2, 9.0], [0.0, 5.0, 1.0]]))
    assert not blocked(geometry, torch.zeros(1, 1, 3), point).any()


def test_height_and_slopes():
    ground = rolling()
    x, z = torch.from_numpy(np.random.default_rng(0).uniform(-30, 30, (2, 1, 200))).float()
    level, slope_x, slope_z = height(ground, x, z)
    x, z = x.double().numpy(), z.double().numpy()
    np.testing.assert_allclose(level.numpy(), twins.height(ground, x, z), atol=1e-5)
    step = 1e-4
    for slope, dx, dz in ((slope_x, step, 0), (slope_z, 0, step)):
        rise = twins.height(ground, x + dx, z + dz) - twins.height(ground, x - dx, z - dz)
        np.testing.assert_allclose(slope.numpy(), rise / (2 * step), atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_ground_solution_converges(seed: int):
    """Also for rays that nearly graze it, far away."""
    ground, random = rolling(seed), np.random.default_rng(seed)
    direction = np.stack(
        (random.uniform(-1, 1, 100), random.uniform(-0.05, 0.4, 100), np.ones(100)), 1
    )
    origin = np.array([0.5, -1.7, 0.2])
    t = meet_ground(ground, tensor(origin[None]), tensor(direction))[0].numpy()
    met = t < FAR / 2
    point = origin + t[met, None] * direction[met]
    miss = -point[:, 1] - twins.height(ground, point[:, 0], point[:, 2])
    assert (np.abs(miss) < 1e-3 + 1e-4 * t[met]).all()
    below = things(geometry_of(ground))[0].inside
    felt = first_inside(below, origin, direction, 120.0, 12000)
    near = felt < FAR / 2
    assert near.mean() > 0.5 and (t[~near] > 120).all()
    # Safe steps run out before a crest that a ray skims far away: then nothing is met.
    assert (met[near]).mean() > 0.97
    np.testing.assert_allclose(t[near & met], felt[near & met], rtol=1e-3, atol=1e-3)


def test_frames_of_a_batch_are_independent():
    """Two scenes traced together give what each gives alone, whatever the other holds."""
    scenes = []
    for seed, world in ((1, "desktop"), (2, "outdoor")):
        b = Builder(np.random.default_rng(seed))
        WORLDS[world](b)
        scenes.append(to_tensors(b, np.zeros(1))[0])
    count = {
        kind: max(getattr(scene, kind).half.shape[1] for scene in scenes) for kind in twins.SHAPES
    }
    waves = max(scene.ground.wave.shape[1] for scene in scenes)

    def pad(x: torch.Tensor, length: int) -> torch.Tensor:
        return torch.cat((x, x.new_zeros(1, length - x.shape[1], *x.shape[2:])), 1)

    padded = []
    for scene in scenes:
        parts = {
            kind: getattr(scene, kind).map(lambda x, n=n: pad(x, n)) for kind, n in count.items()
        }
        ground = scene.ground.map(lambda x: pad(x, waves) if x.ndim > 1 else x)
        padded.append(replace(scene, **parts, ground=ground))
    both = Geometry(
        *(
            type(part)(*map(torch.cat, zip(vars(part).values(), vars(other).values(), strict=True)))
            for part, other in zip(vars(padded[0]).values(), vars(padded[1]).values(), strict=True)
        )
    )
    direction = tensor(rays(np.random.default_rng(0), 500)).expand(2, -1, -1)
    origin = torch.tensor([[[0.1, -1.2, -1.0]], [[0.1, -1.7, -20.0]]])
    together = trace(both, origin, direction)
    for i, scene in enumerate(scenes):
        alone = trace(scene, origin[i, None], direction[i, None])
        for name in ("t", "material", "moving", "normal"):
            torch.testing.assert_close(
                getattr(together, name)[i], getattr(alone, name)[0], rtol=0, atol=0
            )
