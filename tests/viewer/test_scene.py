"""The scene of a run: what becomes of predictions, and that it does not grow without bound."""

import gzip
import json
import struct
from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.viewer.room import ROOM, camera, walk
from ttt3r.drawing.frames import GREY
from ttt3r.errors import RunError
from ttt3r.runs.facts import Facts
from ttt3r.types import Prediction
from ttt3r.viewer import scene as scenes
from ttt3r.viewer.page import packed, page
from ttt3r.viewer.scene import Gone, Limits, Path, Picture, Points, Scene, levels
from ttt3r.viewer.wire import encoded

LOST = torch.full((4, 4), float("nan"))


def filled(frames: int = 20, limits: Limits | None = None, **options: int) -> Scene:
    scene = Scene(limits)
    for prediction in walk(frames, **options):
        scene.add(prediction)
    return scene


def of(scene: Scene, kind: type) -> list:
    return [node for node in scene.nodes().values() if isinstance(node, kind)]


def count(scene: Scene) -> int:
    return sum(len(node.levels) for node in of(scene, Points))


def read_records(content: bytes) -> list[tuple[dict, bytes]]:
    """An independent reader of what `wire` writes."""
    found, at = [], 0
    while at < len(content):
        head, body = struct.unpack_from("<II", content, at)
        at += 8
        text = content[at : at + head]
        found.append((json.loads(text), content[at + head : at + head + body]))
        at += head + body
    return found


def test_points_lie_on_the_walls():
    scene = filled()
    assert [node.frame for node in of(scene, Points)] == list(range(20))
    inside = np.concatenate([node.positions for node in of(scene, Points)])
    inside = inside @ camera(0)[:3, :3].T + camera(0)[:3, 3]
    assert (inside > ROOM[0] - 1e-3).all() and (inside < ROOM[1] + 1e-3).all()
    at_walls = (np.abs(inside[:, None] - ROOM) < 1e-3).any(axis=(1, 2))
    assert at_walls.mean() > 0.5


def test_a_second_look_adds_little():
    scene = Scene()
    first = next(walk(1))
    scene.add(first)
    once = count(scene)
    scene.add(replace(first, index=1))
    assert 0 < once == count(scene)
    surer = torch.as_tensor(first.confidence) * 2
    scene.add(replace(first, index=2, confidence=surer))
    assert count(scene) == 2 * once


def test_cells_are_taken_once_like_a_dictionary():
    """The slow twin: a dictionary of cells. The table may only lose points, by equal hashes."""
    predictions = list(walk(6))
    scene = Scene()
    cells: dict[tuple[int, ...], int] = {}
    expected = 0
    for prediction in predictions:
        scene.add(prediction)
        new = scenes._points(prediction)
        best: dict[tuple[int, ...], int] = {}
        for position, level in zip(new.positions, new.levels.tolist(), strict=True):
            cell = tuple(np.floor(position / scene.cell).astype(int).tolist())
            best[cell] = max(best.get(cell, 0), level)
        for cell, level in best.items():
            if cell not in cells or level >= cells[cell] + scenes.SURER:
                cells[cell] = level
                expected += 1
    assert 0.999 * expected <= count(scene) <= expected


def test_what_is_held_is_bounded():
    limits = Limits(points=2000, nodes=8, poses=60, images=6, side=32)
    scene = Scene(limits)
    sizes = []
    for prediction in walk(150, 32, 24):
        scene.add(prediction)
        sizes.append((count(scene), len(of(scene, Points)), len(of(scene, Picture))))
        poses = sum(len(node.poses) for node in of(scene, Path))
        assert poses <= 60
    largest = np.max(sizes, axis=0)
    assert (largest <= [2000, 8, 6]).all() and scene.frames == 150
    assert count(scene) > 500 and scene.cell > 0
    frames = [pose.frame for node in of(scene, Path) for pose in node.poses]
    assert frames == sorted(set(frames)) and frames[0] == 0 and frames[-1] > 140


def test_the_newest_state_of_each_name_is_enough():
    """Who looks seldom ends with the same nodes as who looks at every frame."""
    scene = Scene(Limits(points=2500, nodes=4, images=3, side=32))
    seen: dict[str, object] = {}
    version = 0
    for prediction in walk(40):
        scene.add(prediction)
        if prediction.index % 13 == 12:
            for number, name, node in scene.changes(version):
                version = number
                if isinstance(node, Gone):
                    seen.pop(name, None)
                else:
                    seen[name] = node
    for _, name, node in scene.changes(version):
        if isinstance(node, Gone):
            seen.pop(name, None)
        else:
            seen[name] = node
    assert seen == scene.nodes() and not [n for n in seen.values() if isinstance(n, Gone)]


def test_odd_predictions():
    first = next(walk(1))
    scene = Scene()
    with pytest.raises(RunError, match="output 'pose'"):
        scene.add(replace(first, world_from_camera=None))
    scene.add(replace(first, world_from_camera=LOST))
    assert scene.unplaced == 1 and not scene.nodes()
    scene.add(replace(first, index=1, points=None, confidence=None))
    assert count(scene) == 0 and len(of(scene, Path)) == 1
    nothing = torch.full_like(torch.as_tensor(first.points), float("nan"))
    scene.add(replace(first, index=2, points=nothing))
    assert count(scene) == 0 and scene.cell == 0
    scene.add(replace(first, index=3, image=None, confidence=None, intrinsics=None))
    grey = of(scene, Points)[0]
    assert (grey.colours == GREY).all() and (grey.levels == 1).all()


def test_levels():
    assert levels(np.array([1, 2, 4, 1e9, 0.5], np.float32)).tolist() == [1, 41, 81, 255, 1]


def test_records():
    scene = filled(3, segment=2)
    records = b"".join(encoded(name, node) for name, node in scene.nodes().items())
    read = {head["name"]: (head, body) for head, body in read_records(records)}
    assert set(read) == set(scene.nodes())
    node = of(scene, Points)[1]
    head, body = read[f"points/{node.frame}"]
    n = head["count"]
    steps = np.frombuffer(body, "<u2", 3 * n).reshape(n, 3)
    positions = np.array(head["low"]) + np.array(head["size"]) * steps / 65535
    # Half a step, and float32 at a few metres.
    allowed = np.array(head["size"]) / 65535 / 2 + 1e-6
    assert (np.abs(positions - node.positions) <= allowed).all()
    assert body[6 * n : 9 * n] == node.colours.tobytes() and body[9 * n :] == node.levels.tobytes()
    head, body = read["path/0"]
    rows = np.frombuffer(body, "<f4").reshape(head["count"], 17)
    assert rows[:, 0].tolist() == [0, 1, 2] and rows[:, 2].tolist() == [0, 0, 1]
    np.testing.assert_allclose(rows[:, 1], [0, 0.1, 0.2], rtol=1e-6)
    poses = [pose.world_from_camera[:3].ravel() for pose in of(scene, Path)[0].poses]
    np.testing.assert_array_equal(rows[:, 3:15], poses)
    assert read["image/1"][1][:2] == b"\xff\xd8"


def test_stamps_since_1970_keep_their_fractions():
    scene = Scene()
    for prediction in walk(2):
        scene.add(replace(prediction, timestamp=1.7e9 + prediction.index / 100))
    ((head, body),) = read_records(encoded("path/0", scene.nodes()["path/0"]))
    assert head["began"] == 1.7e9 and struct.unpack_from("<f", body, 4 * 18)[0] == pytest.approx(
        0.01
    )


def test_the_page_holds_what_it_is_given():
    scene = filled(2)
    facts = Facts("</script><b>odd & $SCENE", ("rule $SCRIPT",))
    text = page(facts, scene, content=packed(scene)).decode()
    assert text.count("</script>") == 3 and "<b>odd" not in text
    assert "<title>&lt;/script>&lt;b>odd &amp; $SCENE</title>" in text
    content = text.split('type="text/plain">')[1].split("<")[0]
    records = read_records(gzip.decompress(b64decode(content)))
    assert {head["name"] for head, _ in records} == set(scene.nodes())
    for outside in ("http://", "https://", 'src="', "@import", "url("):
        assert outside not in text


def test_a_prediction_is_not_kept(monkeypatch: pytest.MonkeyPatch):
    """A tensor of a frame file keeps the file in memory, so nodes hold copies."""
    prediction: Prediction = next(walk(1))
    scene = Scene()
    scene.add(prediction)
    maps = [value.numpy() for value in prediction.tensors().values()]
    assert prediction.image is not None
    maps.append(prediction.image.numpy())
    kept = [a for node in of(scene, Points) for a in (node.positions, node.colours, node.levels)]
    kept += [pose.world_from_camera for node in of(scene, Path) for pose in node.poses]
    assert not any(np.shares_memory(a, b) for a in kept for b in maps)
