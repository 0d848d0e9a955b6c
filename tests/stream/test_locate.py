"""Locating an image in what a session remembers."""

import pytest
import torch

from tests.networks import random_tiny
from tests.stream.room import Room, circle
from tests.stream.room import images as numbered
from tests.stream.test_session import images
from ttt3r.errors import SessionError
from ttt3r.geometry import se3
from ttt3r.stream.session import Session


def test_a_known_place_is_found_and_nothing_changes(tmp_path):
    truth = circle(20, 0.1)
    session, pictures = Session(Room(truth), reset=4), numbered(20)
    for picture in pictures[:10]:
        session.push(picture)
    before = session.state
    session.save(tmp_path / "session")
    for asked in (session, Session.load(tmp_path / "session", Room(truth))):
        found = asked.locate(pictures[15])
        expected = (se3.invert(truth[0]) @ truth[15]).float()
        torch.testing.assert_close(found.world_from_camera, expected, atol=1e-4, rtol=0)
        assert found.confidence == pytest.approx(3.0)
    assert session.state is before and session.index == 10


def test_it_is_the_pose_of_an_unremembered_push():
    session, stream = Session(random_tiny()), images(3)
    for image in stream[:2]:
        session.push(image)
    found = session.locate(stream[2])
    pushed = session.push(stream[2], update=False)
    assert torch.equal(found.world_from_camera, pushed.world_from_camera)
    assert found.confidence == pytest.approx(float(pushed.confidence.log().mean().exp()), rel=1e-5)


def test_a_session_that_remembers_nothing_cannot_tell():
    with pytest.raises(SessionError, match="nothing is remembered"):
        Session(random_tiny()).locate(images(1)[0])
