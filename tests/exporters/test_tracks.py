"""The tracker against a slow one that says the same point by point."""

from collections import defaultdict

import numpy as np

from ttt3r.exporters.tracks import Settled, Tracker, View

CELL, WINDOW, TOLERANCE, SURE = 4, 3, 0.05, 1.5
SHAPE = HEIGHT, WIDTH = 18, 22


def views(count: int) -> list[View]:
    """A camera that moves and turns in front of a wavy wall; some pixels are unusable."""
    random = np.random.default_rng(0)
    made = []
    for number in range(count):
        angle = 0.02 * number
        pose = np.eye(4)
        pose[0, [0, 2]], pose[2, [0, 2]] = (np.cos(angle), np.sin(angle)), (-np.sin(angle), 1.0)
        pose[2, 2] = np.cos(angle)
        pose[0, 3] = 0.1 * number
        points = random.normal(3.0, 0.05, (*SHAPE, 3)).astype(np.float16)
        points[random.random(SHAPE) < 0.1] = random.choice([0.0, -1.0, np.inf, np.nan])
        confidence = random.choice([1.0, 3.0, np.nan], SHAPE, p=[0.1, 0.8, 0.1])
        image = random.integers(0, 255, (*SHAPE, 3), np.uint8)
        focal = 20.0 if number < 7 else 22.0
        intrinsics = np.array([[focal, 0.0, 10.5], [0.0, 21.0, 8.5], [0.0, 0.0, 1.0]])
        made.append(View(points, confidence, image, pose, intrinsics))
    return made


def usable_depth(view: View, x: int, y: int) -> float | None:
    depth, confidence = float(view.points[y, x, 2]), float(view.confidence[y, x])
    usable = np.isfinite([depth, confidence]).all() and depth > 1e-6 and confidence > SURE
    return depth if usable else None


def slowly(views: list[View]) -> tuple[dict[int, list[tuple]], dict[int, tuple]]:
    """Who sees each point (view, x, y), and its place and colour."""
    seen, points = defaultdict(list), {}
    for number, view in enumerate(views):
        fx, fy, cx, cy = view.intrinsics[[0, 1, 0, 1], [0, 1, 2, 2]]
        taken = set()
        for point, (world, _) in points.items():
            if number - seen[point][0][0] > WINDOW:
                continue
            x, y, z = np.linalg.inv(view.world_from_camera)[:3] @ [*world, 1.0]
            if z <= 1e-6:
                continue
            u, v = fx * x / z + cx, fy * y / z + cy
            column, row = round(u), round(v)
            if not (0 <= column < WIDTH and 0 <= row < HEIGHT):
                continue
            depth = usable_depth(view, column, row)
            if depth is not None and abs(depth - z) <= TOLERANCE * z:
                seen[point].append((number, u, v))
                taken.add((column // CELL, row // CELL))
        for row in range(-(-HEIGHT // CELL)):
            for column in range(-(-WIDTH // CELL)):
                x = min(column * CELL + CELL // 2, WIDTH - 1)
                y = min(row * CELL + CELL // 2, HEIGHT - 1)
                depth = usable_depth(view, x, y)
                if (column, row) in taken or depth is None:
                    continue
                camera = [(x - cx) / fx * depth, (y - cy) / fy * depth, depth, 1.0]
                points[len(points)] = (view.world_from_camera @ camera)[:3], view.image[y, x]
                seen[len(points) - 1].append((number, x, y))
    return dict(seen), points


def gathered(settled: list[Settled]) -> tuple[dict[int, list[tuple]], dict[int, tuple]]:
    """The same of what a tracker settled; points that are not kept are left out."""
    lists = [seen for item in settled for seen in item.seen]
    seen, points = {}, {}
    for item in settled:
        start = 0
        for row, number in enumerate(item.began.number.tolist()):
            where = slice(start, start := start + int(item.began.length[row]))
            views, places = item.began.view[where].tolist(), item.began.place[where].tolist()
            seen[number] = [
                (view, *lists[view].pixels[place])
                for view, place in zip(views, places, strict=True)
            ]
            for view, place in zip(views, places, strict=True):
                assert lists[view].number[place] == number and lists[view].kept[place]
            points[number] = item.began.world[row], item.began.colour[row]
    assert sum(int(item.kept.sum()) for item in lists) == sum(map(len, seen.values()))
    return seen, points


def test_against_the_slow_one():
    stream = views(13)
    tracker = Tracker(CELL, WINDOW, TOLERANCE, SURE)
    settled = [done for view in stream if (done := tracker.add(view)) is not None]
    seen, points = gathered([*settled, tracker.finish()])
    wanted_seen, wanted_points = slowly(stream)
    kept = [point for point, views in wanted_seen.items() if len(views) > 1]
    assert sorted(seen) == kept and len(kept) > 50
    for point in kept:
        # Sums of three products in another order: some eps of float64.
        np.testing.assert_allclose(seen[point], wanted_seen[point], rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(points[point][0], wanted_points[point][0], atol=1e-12)
        np.testing.assert_array_equal(points[point][1], wanted_points[point][1])
