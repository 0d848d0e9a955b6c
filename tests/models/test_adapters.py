"""Set networks as streams, which look at all frames at each step, and streams as set networks."""

import pytest
import torch

from tests.networks import random_images, random_tiny
from tests.vggt_networks import random_tiny as random_vggt
from ttt3r.errors import SettingError
from ttt3r.models.adapters import SetStream, as_set, as_stream
from ttt3r.models.base import SetModel, StreamModel, Views
from ttt3r.models.streamvggt.policies import Window
from ttt3r.stream.session import Session


@pytest.fixture(scope="module")
def model():
    return random_vggt("vggt")


def frames(count=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, count, 3, 28, 42, generator=generator) * 2 - 1


def stream(model, images, rule=None):
    adapter = SetStream(model)
    rule = adapter.parse_rule(rule)
    state, outputs = adapter.initial_state(rule), []
    for i in range(images.shape[1]):
        tokens = adapter.encode(Views(image=images[:, i]))
        state, output = adapter.step(state, tokens, rule, ("points", "pose", "world"))
        outputs.append(output)
    return state, outputs


@torch.no_grad()
def test_the_answer_for_each_frame_is_that_of_a_look_at_all_so_far(model):
    images = frames()
    state, outputs = stream(model, images)
    for i, output in enumerate(outputs):
        whole = model.predict(images[:, : i + 1], ("points", "pose", "world"))
        assert torch.equal(output.points, whole.points[:, -1])
        assert torch.equal(output.world_points, whole.world_points[:, -1])
        assert torch.equal(output.intrinsics, whole.intrinsics[:, -1])
        assert torch.equal(output.world_from_camera, whole.world_from_camera[:, -1])
    assert torch.equal(state.images["rgb"], images) and state.age.tolist() == [5]


@torch.no_grad()
def test_a_window_keeps_the_first_frame_and_the_latest(model):
    images = frames()
    state, outputs = stream(model, images, "window(3)")
    assert torch.equal(state.images["rgb"], images[:, [0, 3, 4]]) and state.age.tolist() == [5]
    kept = model.predict(images[:, [0, 2, 3, 4]], ("points",))
    assert torch.equal(outputs[4].points, kept.points[:, -1])


@torch.no_grad()
def test_sessions_stream_save_and_resume(model, tmp_path):
    images = frames()[0]
    session = Session(model)
    assert isinstance(session.model, SetStream) and isinstance(session.model, StreamModel)
    for i in range(3):
        session.push(images[i])
    session.save(tmp_path / "session")
    again = Session.load(tmp_path / "session", model)
    for i in (3, 4):
        first, second = session.push(images[i]), again.push(images[i])
        assert torch.equal(first.points, second.points)
        assert torch.equal(first.world_from_camera, second.world_from_camera)
        assert torch.equal(first.intrinsics, second.intrinsics)
    looked = session.push(images[0], update=False)
    assert looked.points is not None and session.state.images["rgb"].shape[1] == 5


@torch.no_grad()
def test_a_reset_forgets_all(model):
    adapter = SetStream(model)
    state, _ = stream(model, frames())
    rule = adapter.parse_rule()
    assert adapter.reset(state, rule, torch.tensor([False])) is state
    assert adapter.reset(state, rule, torch.tensor([True])).images["rgb"].shape[1] == 0


@torch.no_grad()
def test_what_is_refused(model):
    adapter = SetStream(model)
    state, _ = stream(model, frames(2))
    tokens = adapter.encode(Views(image=torch.zeros(1, 3, 28, 28)))
    with pytest.raises(SettingError, match="42x28 pixels, and now one of 28x28"):
        adapter.step(state, tokens, adapter.parse_rule())
    with pytest.raises(SettingError, match="images only"):
        adapter.encode(Views(ray_map=torch.zeros(1, 28, 28, 6)))
    two = adapter.initial_state(Window(3), 2)
    tokens = adapter.encode(Views(image=torch.zeros(2, 3, 28, 28)))
    with pytest.raises(SettingError, match="update together"):
        adapter.step(two, tokens, Window(3), update=torch.tensor([True, False]))
    for text in ("ttt3r", "diverse(3)", "window(1)"):
        with pytest.raises(SettingError):
            adapter.parse_rule(text)


def test_what_a_family_cannot_give_is_refused(model):
    with pytest.raises(SettingError, match="cannot give rgb, only points, pose, world"):
        Session(model, outputs=("points", "rgb"))


def test_what_streams_is_left_as_it_is():
    cut3r = random_tiny()
    assert as_stream(cut3r) is cut3r


@torch.no_grad()
@pytest.mark.parametrize("rule", [None, "overwrite"])
def test_a_stream_looks_at_sets_as_a_session_pushes(rule):
    cut3r = random_tiny()
    images = random_images(6).clamp(-1, 1).reshape(2, 3, 3, 48, 64)
    outputs = ("points", "pose", "world")
    looked = as_set(cut3r, rule).predict(images, outputs)
    for sample in range(2):
        session = Session(cut3r, rule, outputs=outputs)
        for view in range(3):
            pushed, said = session.push(images[sample, view]), looked.view(view)
            for ours, theirs in (
                (said.points, pushed.points),
                (said.confidence, pushed.confidence),
                (said.world_points, pushed.world_points),
                (looked.world_from_camera[:, view], pushed.world_from_camera),
            ):
                torch.testing.assert_close(ours[sample], theirs, rtol=1e-4, atol=1e-5)
    assert looked.intrinsics is None


@torch.no_grad()
def test_there_and_back_is_the_same_network(model):
    images = frames(3)
    again = as_set(as_stream(model)).predict(images, ("points", "pose"))
    for i in range(3):
        alone = model.predict(images[:, : i + 1], ("points", "pose"))
        assert torch.equal(again.points[:, i], alone.points[:, -1])
        assert torch.equal(again.intrinsics[:, i], alone.intrinsics[:, -1])


def test_what_looks_at_sets_is_left_as_it_is(model):
    assert as_set(model) is model
    assert isinstance(as_set(random_tiny()), SetModel)
    with pytest.raises(SettingError, match="takes no rule"):
        as_set(model, "ttt3r")
    with pytest.raises(SettingError, match="unknown rule"):
        as_set(random_tiny(), "keep_all")
    with pytest.raises(SettingError, match="at least one view"):
        as_set(random_tiny()).predict(torch.zeros(1, 0, 3, 48, 64))


@torch.no_grad()
def test_the_answer_for_a_view_does_not_hold_the_whole(model):
    looked = model.predict(frames(3), ("points",))
    assert looked.view(1).points.untyped_storage().nbytes() == looked.points.nbytes // 3
