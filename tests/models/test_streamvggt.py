"""StreamVGGT beyond parity: forks, batches, eviction, resets, saving, hostile input."""

import copy
import dataclasses

import pytest
import torch

from tests.networks import random_images
from tests.vggt_networks import random_tiny
from ttt3r.errors import SessionError, SettingError
from ttt3r.models.base import StreamModel, Views
from ttt3r.models.growing import Entries
from ttt3r.models.streamvggt.cache import FRAMES
from ttt3r.models.streamvggt.policies import Diverse, KeepAll, Window
from ttt3r.types import Reading

OUTPUTS = ("points", "pose", "world")
FIELDS = [
    f.name for f in dataclasses.fields(Reading) if f.name not in ("rgb", "gate", "pose_encoding")
]
ALL = KeepAll()


def some_streams(time: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    return random_images(time * batch, 28, 42, seed).unflatten(0, (time, batch))


def push(model, state, image, rule=ALL, outputs=("pose",), update=None):
    return model.step(state, model.encode(Views(image)), rule, outputs, update)


def roll(model, images, rule=ALL, state=None, outputs=("pose",)):
    """Push images [time, batch, 3, H, W]; return all states and outputs."""
    state = model.initial_state(rule, images.shape[1]) if state is None else state
    states, results = [], []
    for image in images:
        state, output = push(model, state, image, rule, outputs)
        states.append(state)
        results.append(output)
    return states, results


def same(found: Reading, expected: Reading, tolerance: float = 2e-5) -> None:
    for name in FIELDS:
        a, b = getattr(found, name), getattr(expected, name)
        assert (a is None) == (b is None), name
        if b is not None:
            torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def snapshot(state) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in state.to_tensors().items()}


def check_unchanged(state, before: dict[str, torch.Tensor]) -> None:
    after = state.to_tensors()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def buffer_of(state) -> torch.Tensor:
    return Entries.of(state.cache, FRAMES)._buffers.tensors["global0.k"]


@pytest.mark.parametrize("camera_cache", ["consistent", "released"])
def test_streaming_equals_the_causal_pass(camera_cache):
    model, images = random_tiny("streamvggt", camera_cache=camera_cache), some_streams(7)
    whole = model.predict(images.transpose(0, 1), OUTPUTS)
    for time, output in enumerate(roll(model, images, outputs=OUTPUTS)[1]):
        torch.testing.assert_close(
            output.points[..., 2], whole.points[:, time, ..., 2], atol=2e-5, rtol=2e-5
        )
        torch.testing.assert_close(
            output.world_points, whole.world_points[:, time], atol=2e-5, rtol=2e-5
        )
        alike = torch.allclose(output.intrinsics, whole.intrinsics[:, time], rtol=1e-5)
        assert alike == (camera_cache == "consistent")
    assert isinstance(model, StreamModel)


def test_states_never_change():
    model, images = random_tiny("streamvggt"), some_streams(10)
    state, kept = model.initial_state(ALL), []
    for image in images:
        state, _ = push(model, state, image)
        kept.append((state, snapshot(state)))
    for earlier, before in kept:
        check_unchanged(earlier, before)


def test_a_lone_stream_writes_in_place_and_doubles_its_room():
    model = random_tiny("streamvggt")
    states, _ = roll(model, some_streams(9))
    buffers = [buffer_of(state) for state in states]
    assert [b.shape[2] for b in buffers] == [4, 4, 4, 4, 8, 8, 8, 8, 16]
    assert len({b.data_ptr() for b in buffers}) == 3
    for state in states:
        assert state.nbytes == sum(tensor.nbytes for tensor in state.to_tensors().values())


def test_forks_do_not_disturb_each_other():
    """Two futures of one past equal two streams that shared nothing."""
    model, past = random_tiny("streamvggt"), some_streams(2)
    futures = [some_streams(5, seed=seed) for seed in (1, 2)]
    root = roll(model, past)[0][-1]
    before, states, results = snapshot(root), [root, root], ([], [])
    for time in range(5):  # in turn, so that both want the same slots
        for fork in range(2):
            states[fork], output = push(model, states[fork], futures[fork][time], outputs=OUTPUTS)
            results[fork].append(output)
    assert buffer_of(states[0]).data_ptr() != buffer_of(states[1]).data_ptr()
    check_unchanged(root, before)
    for fork in range(2):
        alone, expected = roll(model, torch.cat((past, futures[fork])), outputs=OUTPUTS)
        for found, output in zip(results[fork], expected[2:], strict=True):
            same(found, output)
        for name, tensor in snapshot(alone[-1]).items():
            torch.testing.assert_close(states[fork].to_tensors()[name], tensor)


def test_a_rewound_stream_goes_on_as_if_nothing_had_been():
    model, images = random_tiny("streamvggt"), some_streams(6)
    states, results = roll(model, images)
    again, repeated = roll(model, images[3:], state=states[2])
    for found, expected in zip(repeated, results[3:], strict=True):
        same(found, expected)
    check_unchanged(again[-1], snapshot(states[-1]))


@pytest.mark.parametrize("camera_cache", ["consistent", "released"])
def test_looking_without_remembering(camera_cache):
    model, images = random_tiny("streamvggt", camera_cache=camera_cache), some_streams(4)
    no = torch.tensor([False])
    state = model.initial_state(ALL)
    for image in images:
        before = snapshot(state)
        looked, seen = push(model, state, image, outputs=OUTPUTS, update=no)
        assert looked is state
        check_unchanged(state, before)
        state, expected = push(model, state, image, outputs=OUTPUTS)
        same(seen, expected)


@pytest.mark.parametrize("camera_cache", ["consistent", "released"])
@pytest.mark.parametrize("rule", [ALL, Window(3), Diverse(3)])
def test_a_batch_equals_its_streams_alone(rule, camera_cache):
    """Updates, resets and evictions are per stream: none notices the others, or their age."""
    model = random_tiny("streamvggt", torch.float64, camera_cache=camera_cache)
    batch, time = 3, 6
    images = some_streams(time, batch).double()
    g = torch.Generator().manual_seed(2)
    updates = torch.rand(time, batch, generator=g) < 0.8
    resets = torch.rand(time, batch, generator=g) < 0.2
    assert not updates.all() and resets.any() and not resets.all(dim=1).any()

    def run(columns: slice) -> tuple[list, list]:
        state, states, results = model.initial_state(rule, len(range(batch)[columns])), [], []
        for t in range(time):
            state, output = push(
                model, state, images[t, columns], rule, OUTPUTS, updates[t, columns]
            )
            state = model.reset(state, rule, resets[t, columns])
            states.append(state)
            results.append(output)
        return states, results

    states, together = run(slice(None))
    for b in range(batch):
        one = slice(b, b + 1)
        alone, single = run(one)
        for t in range(time):
            assert states[t].age[b] == alone[t].age[0]
            assert states[t].alive[b].sum() == alone[t].alive[0].sum()
            for name in FIELDS:
                found = getattr(together[t], name)[one]
                torch.testing.assert_close(found, getattr(single[t], name), atol=1e-9, rtol=1e-9)


def test_a_window_forgets_what_left_it():
    """Twin: a cache cut by hand to the first frame and the two latest."""
    model, images = random_tiny("streamvggt"), some_streams(7)
    rule, state = Window(3), model.initial_state(ALL)
    windowed, results = roll(model, images, rule, outputs=OUTPUTS)
    for time, image in enumerate(images):
        state, expected = push(model, state, image, outputs=OUTPUTS)
        same(results[time], expected)
        keep = [0, *range(max(1, state.alive.shape[1] - 2), state.alive.shape[1])]
        state = dataclasses.replace(
            state,
            alive=state.alive[:, keep],
            cache={name: tensor[:, :, keep] for name, tensor in state.cache.items()},
        )
    assert [s.alive.shape[1] for s in windowed] == [1, 2, 3, 3, 3, 3, 3]
    assert max(buffer_of(s).shape[2] for s in windowed) == 4
    assert windowed[-1].age.tolist() == [7]
    unlimited = roll(model, images, outputs=OUTPUTS)[1]
    same(results[3], unlimited[3])  # the first frame to leave has been seen by this one
    with pytest.raises(AssertionError):
        same(results[5], unlimited[5])


@pytest.mark.parametrize("camera_cache", ["consistent", "released"])
@pytest.mark.parametrize("rule", [Window(3), Diverse(3)])
def test_a_full_cache_goes_round_in_one_buffer(rule, camera_cache):
    """Twin: states that are all kept alive, so that no slot is ever free and frames are moved."""
    model, images = random_tiny("streamvggt", camera_cache=camera_cache), some_streams(9)
    kept, expected = roll(model, images, rule, outputs=OUTPUTS)
    assert len({buffer_of(state).data_ptr() for state in kept[4:]}) > 1
    state, places = model.initial_state(rule), []
    for image, output in zip(images, expected, strict=True):
        state, found = push(model, state, image, rule, OUTPUTS)
        same(found, output)
        places.append(buffer_of(state).data_ptr())
    assert len(set(places[3:])) == 1
    for name, tensor in kept[-1].to_tensors().items():
        torch.testing.assert_close(state.to_tensors()[name], tensor, atol=2e-5, rtol=2e-5)


def test_evictions_leave_earlier_states_alone():
    model, rule = random_tiny("streamvggt"), Window(2)
    states, _ = roll(model, some_streams(3), rule)
    before = snapshot(states[1])
    roll(model, some_streams(3, seed=5), rule, states[1])
    check_unchanged(states[1], before)


def test_a_diverse_cache_drops_repetitions():
    """Of frames A B B' C, where B' repeats B, the first B leaves."""
    model, images = random_tiny("streamvggt"), some_streams(3)
    sequence = torch.stack((images[0], images[1], images[1], images[2]))
    kept = roll(model, sequence, Diverse(3))[0][-1]
    full = roll(model, sequence)[0][-1]
    for name, tensor in full.cache.items():
        assert torch.equal(kept.cache[name], tensor[:, :, [0, 2, 3]]), name


def test_a_policy_may_change_on_the_way():
    model, images = random_tiny("streamvggt"), some_streams(8)
    state = roll(model, images[:6])[0][-1]
    for rule in (Window(4), Diverse(2)):
        state, _ = push(model, state, images[6], rule)
        assert state.alive.shape[1] == rule.frames
    state, _ = push(model, state, images[7])
    assert state.alive.shape[1] == 3


def test_saved_states_go_on_where_they_stopped():
    model, images = random_tiny("streamvggt"), some_streams(6)
    states, results = roll(model, images)
    saved = {k: v.contiguous().clone() for k, v in states[2].to_tensors().items()}
    restored = model.initial_state(ALL).with_tensors(saved)
    for found, expected in zip(
        roll(model, images[3:], state=restored)[1], results[3:], strict=True
    ):
        same(found, expected)
    moved = states[2].to("cpu")
    same(roll(model, images[3:], state=moved)[1][-1], results[-1])
    twin = copy.deepcopy(states[2])
    assert buffer_of(twin).data_ptr() != buffer_of(states[2]).data_ptr()
    same(roll(model, images[3:], state=twin)[1][-1], results[-1])
    with pytest.raises(SessionError, match="does not fit"):
        model.initial_state(ALL).with_tensors({k: v.double() for k, v in saved.items()})
    with pytest.raises(SessionError, match="absent"):
        model.initial_state(ALL).with_tensors({"age": saved["age"]})


def test_a_reset_stream_starts_anew():
    model, images = random_tiny("streamvggt"), some_streams(3, 2)
    state = roll(model, images)[0][-1]
    fresh = roll(model, images[:1], outputs=OUTPUTS)[1][0]
    whole = model.reset(state, ALL, torch.tensor([True, True]))
    assert whole.alive.shape == (2, 0)
    same(push(model, whole, images[0], outputs=OUTPUTS)[1], fresh)
    one_by_one = state
    for which in ([True, False], [False, True]):
        one_by_one = model.reset(one_by_one, ALL, torch.tensor(which))
    same(push(model, one_by_one, images[0], outputs=OUTPUTS)[1], fresh)
    # A stream that has forgotten everything may also change its size.
    push(model, one_by_one, random_images(2, 42, 42))


def test_what_cannot_be_streamed():
    model = random_tiny("streamvggt")
    state = roll(model, some_streams(2))[0][-1]
    with pytest.raises(SettingError, match="same number of patches"):
        push(model, state, random_images(1, 42, 42))
    with pytest.raises(SettingError, match="multiples of 14"):
        model.encode(Views(random_images(1, 30, 42)))
    with pytest.raises(SettingError, match="no ray maps"):
        model.encode(Views(ray_map=torch.zeros(1, 28, 42, 6)))
    with pytest.raises(SettingError, match="unknown output"):
        push(model, state, some_streams(1)[0], outputs=("depth",))


def test_views_without_an_image_are_not_remembered():
    model, images = random_tiny("streamvggt"), some_streams(2, 2)
    state = roll(model, images[:1])[0][-1]
    tokens = model.encode(Views(images[1], has_image=torch.tensor([True, False])))
    after, _ = model.step(state, tokens, ALL)
    assert after.age.tolist() == [2, 1] and after.alive.tolist() == [[True] * 2, [True, False]]


def test_caches_follow_the_precision_of_the_products():
    model = copy.deepcopy(random_tiny("streamvggt")).set_precision(torch.bfloat16)
    states, results = roll(model, some_streams(2), outputs=OUTPUTS)
    for state in (model.initial_state(ALL), states[-1]):
        assert state.cache["global0.k"].dtype == torch.bfloat16
        assert state.cache["camera0.k"].dtype == torch.float32
    assert results[-1].points.dtype == torch.float32
