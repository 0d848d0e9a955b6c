"""Sessions: pushing, segments, queries, saving, and what they refuse."""

import math

import numpy as np
import pytest
import torch

from tests.networks import random_images, random_tiny
from ttt3r import rules
from ttt3r.errors import InputError, SessionError, SettingError
from ttt3r.geometry import se3
from ttt3r.models.base import Views
from ttt3r.stream.session import Session
from ttt3r.stream.stitching import Seen, Similarity
from ttt3r.types import Camera, Frame, ImageTransform, Prediction

FIELDS = (
    "points",
    "confidence",
    "pose_encoding",
    "world_from_camera",
    "intrinsics",
    "gate",
    "world_points",
    "world_confidence",
    "rgb",
)
EVERYTHING = ("points", "pose", "world", "rgb")


def images(count: int) -> list[np.ndarray]:
    pixels = ((random_images(count) + 1) * 127.5).round().clamp(0, 255)
    return list(pixels.byte().permute(0, 2, 3, 1).numpy())


def assert_same(a: Prediction, b: Prediction):
    assert (a.index, a.timestamp, a.segment, a.scale) == (b.index, b.timestamp, b.segment, b.scale)
    for field in FIELDS:
        left, right = getattr(a, field), getattr(b, field)
        assert (left is None) == (right is None), field
        assert left is None or torch.equal(left, right), field


def test_shapes_and_defaults():
    session = Session(random_tiny())
    first, second = (session.push(image) for image in images(2))
    assert first.points.shape == (48, 64, 3) and first.confidence.shape == (48, 64)
    assert first.world_from_camera.shape == (4, 4) and first.intrinsics.shape == (3, 3)
    assert first.pose_encoding.shape == (7,)
    assert first.gate is None and second.gate.shape == (27,)
    assert ((second.gate > 0) & (second.gate < 1)).all()
    assert first.world_points is None and first.rgb is None
    assert torch.equal(first.depth, first.points[..., 2])
    assert session.state.tokens.shape == (1, 27, 32)
    assert session.state.pose_memory.shape == (1, 16, 64)
    assert (session.index, session.segment) == (2, 0)
    assert not second.points.requires_grad


def test_outputs_are_computed_only_when_asked_for():
    model = random_tiny()
    called = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, module in model.downstream_head.named_children()
        if name.startswith(("dpt", "pose"))
    ]
    handles += [
        model.downstream_head.final_transform[0].register_forward_hook(
            lambda *_: called.append("final_transform")
        )
    ]
    image = images(1)[0]
    for outputs, expected in {
        ("pose",): {"pose_head"},
        ("points",): {"dpt_self"},
        ("self", "pose"): {"dpt_self", "pose_head"},
        ("world",): {"dpt_cross", "final_transform"},
        ("rgb",): {"dpt_rgb"},
    }.items():
        called.clear()
        Session(model, outputs=outputs).push(image)
        assert set(called) == expected, outputs
    for handle in handles:
        handle.remove()


def test_equivalent_forms_of_an_image():
    image = images(1)[0]
    pixels = (torch.from_numpy(image).permute(2, 0, 1).float() / 255 - 0.5) / 0.5
    transform = ImageTransform((128, 96), (64, 48), (0, 0, 64, 48))
    frame = Frame(image, index=7, timestamp=1.5, transform=transform)
    forms = [image, torch.from_numpy(image), pixels, frame]
    predictions = [Session(random_tiny()).push(form) for form in forms]
    for prediction in predictions[1:]:
        assert torch.equal(prediction.points, predictions[0].points)
        assert torch.equal(prediction.image, predictions[0].image)
    framed = predictions[3]
    assert framed.timestamp == 1.5 and framed.index == 0
    focal, centre = framed.intrinsics[0, 0].item(), framed.intrinsics[0, 2].item()
    assert framed.original_intrinsics[0, 0] == pytest.approx(2 * focal)
    assert framed.original_intrinsics[0, 2] == pytest.approx(2 * (centre + 0.5) - 0.5)


def test_arrays_as_other_libraries_hand_them_over():
    """Read-only, as from Pillow, and with channels turned round, as from OpenCV."""
    image = images(1)[0]
    expected = Session(random_tiny()).push(image)
    frozen = image.copy()
    frozen.flags.writeable = False
    flipped = np.ascontiguousarray(image[..., ::-1])[..., ::-1]
    for form in (frozen, flipped, Frame(frozen), Frame(flipped)):
        actual = Session(random_tiny()).push(form)
        assert torch.equal(actual.points, expected.points)
        assert torch.equal(actual.image, expected.image)


def test_a_buffer_may_be_reused_after_the_push():
    """As by a camera loop that reads every frame into the same array."""
    for buffer in (images(1)[0], torch.from_numpy(images(1)[0])):
        prediction = Session(random_tiny()).push(buffer)
        kept = prediction.image.clone()
        buffer[:] = 0
        assert torch.equal(prediction.image, kept) and kept.any()


def test_session_equals_steps_of_the_model():
    """One step function: the session adds nothing to the numbers."""
    model, rule = random_tiny(), rules.parse("ttt3r")
    session, state = Session(model, rule, outputs=EVERYTHING), model.initial_state(rule)
    for image in images(5):
        prediction = session.push(image)
        pixels = (torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5
        state, output = model.step(state, model.encode(Views(pixels)), rule, EVERYTHING)
        assert torch.equal(prediction.points, output.points[0])
        assert torch.equal(prediction.world_points, output.world_points[0])
        assert torch.equal(prediction.rgb, output.rgb[0])
        assert torch.equal(prediction.pose_encoding, output.pose_encoding[0])
        expected = se3.pose_from_encoding(output.pose_encoding[0].double()).float()
        torch.testing.assert_close(prediction.world_from_camera, expected)


@pytest.mark.parametrize("stitch", ["pose", "similarity"])
@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_resumed_is_bit_equal(tmp_path, stitch, stop):
    settings = dict(rule="damped(ttt3r, 0.5)", reset=4, outputs=EVERYTHING, stitch=stitch)
    model, stream = random_tiny(), images(10)
    whole = Session(model, **settings)
    expected = [whole.push(image) for image in stream]
    half = Session(model, **settings)
    for image in stream[:stop]:
        half.push(image)
    half.save(tmp_path / "session.safetensors")
    resumed = Session.load(tmp_path / "session.safetensors", model)
    assert resumed.rule == half.rule and resumed.reset == half.reset
    for image, prediction in zip(stream[stop:], expected[stop:], strict=True):
        assert_same(resumed.push(image), prediction)
    assert expected[-1].segment == 2


def test_fork_goes_its_own_way():
    model, stream = random_tiny(), images(4)
    session = Session(model)
    session.push(stream[0])
    fork = session.fork()
    fork.push(stream[3])
    plain = Session(model)
    for image in stream[:2]:
        expected = plain.push(image)
    assert_same(session.push(stream[1]), expected)


def test_frozen_look_changes_nothing_but_the_age():
    session = Session(random_tiny())
    stream = images(3)
    session.push(stream[0])
    before = session.state
    prediction = session.push(stream[1], update=False)
    assert torch.equal(session.state.tokens, before.tokens)
    assert torch.equal(session.state.pose_memory, before.pose_memory)
    assert (prediction.gate == 0).all()


def test_pose_chain_joins_segments():
    """A segment starts at the world pose of the frame that ended the one before."""
    model, stream = random_tiny(), images(7)
    session = Session(model, reset=3)
    predictions = [session.push(image) for image in stream]
    assert [p.segment for p in predictions] == [0, 0, 0, 1, 1, 1, 2]
    base = torch.eye(4, dtype=torch.float64)
    for index, prediction in enumerate(predictions):
        local = se3.pose_from_encoding(prediction.pose_encoding.double())
        torch.testing.assert_close(prediction.world_from_camera, (base @ local).float())
        if (index + 1) % 3 == 0:
            base = base @ local
    assert all(p.scale == 1.0 for p in predictions)


def test_a_segment_depends_on_its_own_frames_only():
    """The frame that ends a segment, replayed, is the first of the next."""
    model, stream = random_tiny(), images(6)
    session = Session(model, reset=3)
    for image in stream[:3]:
        session.push(image)
    fresh = Session(model)
    for image in stream[2:]:
        expected = fresh.push(image)
    for image in stream[3:]:
        actual = session.push(image)
    assert torch.equal(actual.pose_encoding, expected.pose_encoding)
    assert torch.equal(actual.points, expected.points)


def test_similarity_carries_scale():
    """Stitching recovers a known similarity between the two segments' views of one frame."""
    session = Session(random_tiny(), reset=2, stitch="similarity")
    first = session.push(images(2)[0])
    points = torch.randn(48, 64, 3).abs() + 1
    confidence = torch.rand(48, 64) + 1.1
    pose = se3.pose_from_encoding(torch.tensor([1.0, 2, 3, 0.9, 0.1, 0.2, 0.3]).double())
    last = Seen(pose, points * 2.5, confidence)
    again = Seen(torch.eye(4, dtype=torch.float64), points, confidence)
    placed = Similarity().connect(session.world_from_segment, [last], [again]).world_from_segment
    assert float(se3.similarity_scale(placed)) == pytest.approx(2.5, rel=1e-5)
    torch.testing.assert_close(placed[:3, 3].float(), pose[:3, 3].float(), atol=1e-3, rtol=1e-3)
    assert first.scale == 1.0


def test_similarity_makes_the_shared_frame_agree():
    """On a real model the new segment's shared points land on the old ones as well as can be."""
    model, stream = random_tiny("tiny_dpt"), images(5)
    session = Session(model, reset=3, stitch="similarity", outputs=EVERYTHING)
    predictions = [session.push(image) for image in stream]
    after = predictions[3]
    assert after.scale == pytest.approx(float(se3.similarity_scale(session.world_from_segment)))
    assert not math.isclose(after.scale, 1.0)
    rotation = after.world_from_camera[:3, :3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3), atol=1e-5, rtol=0)


def test_points_that_allow_no_similarity_fall_back_to_the_pose(caplog):
    pose = se3.pose_from_encoding(torch.tensor([1.0, 2, 3, 0.9, 0.1, 0.2, 0.3]).double())
    placed = se3.pose_from_encoding(torch.tensor([0.5, 0, 0, 1, 0, 0, 0]).double())
    for points in (torch.full((48, 64, 3), float("nan")), torch.ones(48, 64, 3)):
        last = Seen(pose, points, torch.full((48, 64), 2.0))
        caplog.clear()
        found = Similarity().connect(placed, [last], [last])
        assert torch.equal(found.world_from_segment, placed @ pose)
        assert "joined by pose alone" in caplog.text


def test_query_leaves_the_session_alone():
    session = Session(random_tiny())
    for image in images(3):
        session.push(image)
    before = session.state.to_tensors()
    focal = torch.tensor([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]])
    view = session.query(Camera(torch.eye(4), focal, (48, 64)), ("points", "rgb", "pose"))
    assert view.points.shape == (48, 64, 3) and view.rgb.abs().max() < 1
    assert view.world_from_camera.shape == (4, 4) and view.image is None and view.gate is None
    assert all(torch.equal(before[k], v) for k, v in session.state.to_tensors().items())
    assert session.index == 3
    other = session.query(Camera(torch.eye(4), focal, (48, 64)), absent="token")
    assert not torch.equal(other.points, view.points)


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (np.zeros((48, 64), np.uint8), InputError),
        (np.zeros((48, 64, 4), np.uint8), InputError),
        (np.zeros((48, 64, 3), np.uint16), InputError),
        (np.zeros((48, 64, 3), object), InputError),
        (torch.zeros(48, 64, 3), InputError),
        (torch.full((3, 48, 64), 2.0), InputError),
        (torch.full((3, 48, 64), float("nan")), InputError),
        (np.zeros((50, 64, 3), np.uint8), SettingError),
        (np.zeros((8, 8, 3), np.uint8), SettingError),
        (np.zeros((0, 64, 3), np.uint8), SettingError),
    ],
)
def test_unusable_images_leave_the_session_unchanged(image, error):
    session = Session(random_tiny())
    session.push(images(1)[0])
    before = session.state
    with pytest.raises(error):
        session.push(image)
    assert session.state is before and session.index == 1


def test_unknown_settings():
    model = random_tiny()
    for settings, word in (
        ({"rule": "magic"}, "overwrite"),
        ({"rule": "damped(ttt3r, 2)"}, "damping"),
        ({"rule": "__import__('os')"}, "rule"),
        ({"reset": "sometimes"}, "every"),
        ({"reset": 1}, "at least 2"),
        ({"stitch": "glue"}, "similarity"),
        ({"outputs": ("depth",)}, "points"),
    ):
        with pytest.raises(SettingError, match=word):
            Session(model, **settings)


def test_damaged_or_foreign_session_files(tmp_path):
    model = random_tiny()
    session = Session(model)
    session.push(images(1)[0])
    path = tmp_path / "s.safetensors"
    session.save(path)
    content = path.read_bytes()
    assert path.stat().st_size < 100_000
    for damage in (b"", content[:-100], content[: len(content) // 2], b"hello", content[8:]):
        path.write_bytes(damage)
        with pytest.raises(SessionError):
            Session.load(path, model)
    path.write_bytes(content)
    with pytest.raises(SessionError, match=r"missing\.safetensors"):
        Session.load(tmp_path / "missing.safetensors", model)
    with pytest.raises(SessionError, match="cannot save"):
        session.save(tmp_path / "no" / "such" / "folder")


def test_other_weights_are_refused(tmp_path):
    from dataclasses import replace

    model = random_tiny()
    session = Session(model)
    session.save(tmp_path / "s")
    other = random_tiny(seed=1)
    other.weights = replace(model.weights, sha256="f" * 64, name="other")
    with pytest.raises(SessionError, match="other"):
        Session.load(tmp_path / "s", other)
