"""Resets that look, and frames that segments share."""

import itertools
import math

import pytest
import torch

from tests.networks import random_tiny
from tests.stream.room import FOCAL, SIDE, Room, circle
from tests.stream.room import images as numbered
from tests.stream.test_session import assert_same, images
from ttt3r.errors import SettingError
from ttt3r.geometry import se3
from ttt3r.stream import resets
from ttt3r.stream.clips import ClipSession
from ttt3r.stream.session import Session
from ttt3r.stream.watching import Drift, Look, state_size
from ttt3r.types import Reading

# One reset of each kind that ends segments of ten smooth random images early.
SLACK = 0.03  # 256 points by hand, and more samples than that with repeats in the policy
POLICIES = (
    "every(3, overlap=2)",
    "keyframes(0.999, at_least=4, overlap=2)",
    "drift(state=0.001, first=2, patience=1, overlap=2)",
)


@pytest.mark.parametrize("policy", POLICIES)
def test_resumed_after_each_frame_is_bit_equal(tmp_path, policy):
    model, stream = random_tiny(), images(8)
    settings = dict(rule="ttt3r", reset=policy, stitch="robust")
    whole = Session(model, **settings)
    expected = [whole.push(image) for image in stream[:5]]
    fork = whole.fork()
    expected += [whole.push(image) for image in stream[5:]]
    for image, prediction in zip(stream[5:], expected[5:], strict=True):
        assert_same(fork.push(image), prediction)
    session = Session(model, **settings)
    for image, prediction in zip(stream, expected, strict=True):
        session.save(tmp_path / "session")
        session = Session.load(tmp_path / "session", model)
        assert_same(session.push(image), prediction)
    assert expected[-1].segment >= 1


def test_all_shared_frames_come_first_in_the_new_segment():
    model, stream = random_tiny(), images(8)
    session = Session(model, reset="every(5, overlap=3)")
    for image in stream[:5]:
        session.push(image)
    fresh = Session(model)
    for image in stream[2:5]:
        fresh.push(image)
    for image in stream[5:]:
        actual, expected = session.push(image), fresh.push(image)
        assert torch.equal(actual.points, expected.points)
        assert torch.equal(actual.pose_encoding, expected.pose_encoding)
        assert actual.segment == 1


def test_frames_that_are_not_remembered_are_not_shown_again_for_good():
    model, stream = random_tiny(), images(6)
    session = Session(model, reset="every(4, overlap=3)")
    fresh = Session(model)
    for number, image in enumerate(stream):
        update = number not in (1, 3)
        prediction = session.push(image, update=update)
        if number == 2:
            fresh.push(image)
        if number > 3:
            assert torch.equal(prediction.points, fresh.push(image).points)


@pytest.mark.parametrize("stitch", ["pose", "similarity", "robust"])
@pytest.mark.parametrize("overlap", [1, 3])
def test_segments_without_drift_join_without_a_seam(stitch, overlap):
    truth = circle(20, 0.125)
    session = Session(Room(truth), reset=f"every(4, overlap={overlap})", stitch=stitch)
    said = [session.push(image) for image in numbered(20)]
    assert said[-1].segment == 4
    for prediction, pose in zip(said, truth, strict=True):
        expected = (se3.invert(truth[0]) @ pose).float()
        torch.testing.assert_close(prediction.world_from_camera, expected, atol=1e-4, rtol=0)


def seen_by_hand(truth: torch.Tensor, first: int, now: int) -> float:
    """Share of the first frame's points that are in view, one by one."""
    room, seen = Room(truth), 0
    now_from_first = se3.invert(truth[now]) @ truth[first]
    sampled = room.points(first)[:, :].reshape(-1, 3)
    for point in sampled:
        x, y, z = (now_from_first[:3, :3] @ point + now_from_first[:3, 3]).tolist()
        u, v = FOCAL * x / z + SIDE // 2, FOCAL * y / z + SIDE // 2
        seen += z > 0 and -0.5 <= u < SIDE - 0.5 and -0.5 <= v < SIDE - 0.5
    return seen / len(sampled)


def test_keyframes_end_a_segment_where_little_of_its_start_is_seen():
    truth = circle(40, 0.33)
    session = Session(Room(truth), reset="keyframes(0.6, at_least=3)")
    segments = [session.push(image).segment for image in numbered(40)]
    starts = [0, *(n - 1 for n in range(1, 40) if segments[n] != segments[n - 1])]
    assert len(starts) > 2
    for start, end in itertools.pairwise(starts):
        assert seen_by_hand(truth, start, end) < 0.6 + SLACK
        assert seen_by_hand(truth, start, end - 1) > 0.6 - SLACK


def test_keyframes_do_not_end_a_segment_while_the_camera_rests():
    truth = circle(2, 0.001)[:1].expand(30, 4, 4)
    room = Room(truth + torch.linspace(0, 1e-6, 30).double()[:, None, None] * torch.eye(4).double())
    session = Session(room, reset="keyframes")
    assert {session.push(image).segment for image in numbered(30)} == {0}


def look(gate: float | None = 0.5, confidence: float = 2.0, size: float = 1.0) -> Look:
    reading = Reading(
        confidence=torch.full((1, 4, 4), confidence),
        gate=None if gate is None else torch.full((1, 3), gate),
    )
    state = Room(circle(2)).initial_state(None)
    return Look(reading, type(state)(state.first, state.age, torch.full((1, 4), size)))


@pytest.mark.parametrize(
    "later", [dict(gate=0.2), dict(confidence=1.3), dict(size=1.6), dict(size=0.4)]
)
def test_drift_ends_a_segment_after_some_frames_out_of_bounds(later):
    policy, memory = Drift(first=3, patience=2), {}
    ends = []
    # The first frame has no gate; one frame out of bounds is forgiven, two in a row are not.
    for shown in [look(None), look(), look(), look(), look(**later), look(), *2 * [look(**later)]]:
        end, memory = policy.watch(shown, memory)
        ends.append(end)
    assert ends == [False] * 7 + [True]


def test_what_a_network_does_not_tell_never_ends_a_segment():
    policy, memory = Drift(first=2, patience=1), {}
    for number in range(8):
        shown = Look(Reading(confidence=torch.full((1, 4, 4), 2.0)), object())
        end, memory = policy.watch(shown, memory)
        assert not end, number
    assert math.isnan(state_size(object()))


@pytest.mark.parametrize(
    "text",
    [
        "every(4, overlap=0)",
        "every(4, overlap=5)",
        "keyframes(0)",
        "keyframes(1.0)",
        "keyframes(at_least=1)",
        "keyframes(at_least=4, overlap=4)",
        "drift(state=0)",
        "drift(gate=1.0)",
        "drift(first=0)",
        "drift(patience=0)",
        "drift(overlap=11)",
    ],
)
def test_settings_that_make_no_sense(text):
    with pytest.raises(SettingError):
        resets.parse(text)


def test_a_single_look_at_each_segment_cannot_watch():
    from tests.vggt_networks import random_tiny as random_vggt

    with pytest.raises(SettingError, match=r"looks once\s+at a whole segment"):
        ClipSession(random_vggt("vggt"), "keyframes")


def test_clips_share_several_frames():
    from tests.vggt_networks import random_tiny as random_vggt

    generator = torch.Generator().manual_seed(0)
    frames = 2 * torch.rand(7, 3, 28, 42, generator=generator) - 1
    model = random_vggt("vggt")
    session = ClipSession(model, "every(4, overlap=2)", stitch="robust")
    said = list(session.stream(frames))
    looked = model.predict(frames[None, 2:], ("points",))
    scale = said[-1].scale
    torch.testing.assert_close(said[-1].points, looked.points[0, -1] * scale, rtol=1e-4, atol=1e-5)
    assert said[-1].scale_error is not None and said[-1].scale_error > 0
