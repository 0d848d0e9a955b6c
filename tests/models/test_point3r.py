"""The Point3R network beyond parity: its growing memory, batches, masks, precision."""

import dataclasses
import json
from functools import cache
from itertools import pairwise

import pytest
import safetensors.torch
import torch

from tests.networks import check_double_precision, random_images
from ttt3r.errors import SessionError, SettingError, WeightsError
from ttt3r.models.base import StreamModel, Views
from ttt3r.models.point3r.config import TINY, Point3rConfig
from ttt3r.models.point3r.memory import (
    Append,
    Fuse,
    Point3rState,
)
from ttt3r.models.point3r.network import Point3r

OUTPUTS = ("points", "pose", "world")
FIELDS = ("points", "confidence", "world_points", "world_confidence", "pose_encoding")


@cache
def random_tiny(**changes) -> Point3r:
    """A tiny network with random weights of our own, whose points spread over a room."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Point3r(dataclasses.replace(TINY, **changes))
        for name, parameter in model.named_parameters():
            if parameter.ndim == 3:  # learned tokens start at zero
                torch.nn.init.normal_(parameter, std=0.5)
            elif name.endswith(("dpt_cross.head.4.weight", "dpt_cross.head.0.weight")):
                parameter.data *= 6
    return model.eval().requires_grad_(False)


def roll(model, images, rule, updates=None, resets=None, state=None):
    """Step through images [time, batch, 3, H, W]; return states and outputs per frame."""
    state = model.initial_state(rule, images.shape[1]) if state is None else state
    states, outputs = [], []
    for time, image in enumerate(images):
        update = None if updates is None else updates[time]
        state, output = model.step(state, model.encode(Views(image)), rule, OUTPUTS, update)
        if resets is not None:
            state = model.reset(state, rule, resets[time])
        states.append(state)
        outputs.append(output)
    return states, outputs


def close(actual, expected, tolerance=1e-4):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


# Streams


@pytest.mark.parametrize("rule", [Fuse(6), Append()])
def test_a_batch_equals_its_streams_alone(rule):
    """Counts, masks and resets are per sample: no stream notices the others."""
    model, batch, time = random_tiny(), 3, 6
    images = random_images(time * batch).view(time, batch, 3, 48, 64)
    updates = torch.ones(time, batch, dtype=torch.bool)
    updates[0, 0] = updates[2, 1] = updates[4] = False
    resets = torch.zeros(time, batch, dtype=torch.bool)
    resets[1, 2] = resets[3, 1] = True
    states, outputs = roll(model, images, rule, updates, resets)
    assert any(len(set(state.count.tolist())) == batch for state in states)
    for b in range(batch):
        one = slice(b, b + 1)
        alone, single = roll(model, images[:, one], rule, updates[:, one], resets[:, one])
        for t in range(time):
            count = int(alone[t].count)
            assert int(states[t].count[b]) == count and int(states[t].age[b]) == int(alone[t].age)
            for name in ("positions", "features"):
                rows = getattr(states[t], name)[b]
                close(rows[:count], getattr(alone[t], name)[0])
                assert not rows[count:].any()
            close(states[t].pose_memory[one], alone[t].pose_memory)
            if count:
                close(states[t].patch_positions[one], alone[t].patch_positions)
            for field in FIELDS:
                close(getattr(outputs[t], field)[one], getattr(single[t], field))


def test_a_reset_stream_begins_anew():
    model, rule = random_tiny(), Fuse()
    images = random_images(10).view(5, 2, 3, 48, 64)
    states, _ = roll(model, images[:3], rule)
    state = model.reset(states[-1], rule, torch.tensor([False, True]))
    assert state.count.tolist() == [int(states[-1].count[0]), 0] and state.age.tolist() == [3, 0]
    _, mixed = roll(model, images[3:], rule, state=state)
    _, fresh = roll(model, images[3:], rule)
    _, going_on = roll(model, images[3:], rule, state=states[-1])
    both = model.reset(states[-1], rule, torch.tensor([True, True]))
    assert both.positions.shape[1] == 0
    for t in range(2):
        for field in FIELDS:
            close(getattr(mixed[t], field)[0], getattr(going_on[t], field)[0])
            close(getattr(mixed[t], field)[1], getattr(fresh[t], field)[1])
            assert not torch.allclose(getattr(fresh[t], field), getattr(going_on[t], field))


def test_the_memory_fuses_and_grows():
    counts = [
        [int(state.count) for state in roll(random_tiny(), random_images(6)[:, None], rule)[0]]
        for rule in (Append(), Fuse(20), Fuse(6))
    ]
    assert counts[0] == [12, 24, 36, 48, 60, 72]
    assert counts[0][-1] > counts[1][-1] > counts[2][-1] > 12
    assert all(b >= a for few in counts for a, b in pairwise(few))


def test_without_an_update_the_state_stays_as_it_is():
    model, rule = random_tiny(), Fuse()
    images = random_images(8).view(4, 2, 3, 48, 64)
    states, _ = roll(model, images[:3], rule)
    tokens = model.encode(Views(images[3]))
    kept, output = model.step(states[-1], tokens, rule, OUTPUTS, torch.tensor([False, False]))
    assert kept is states[-1] and output.points is not None
    half, same = model.step(states[-1], tokens, rule, OUTPUTS, torch.tensor([False, True]))
    assert all(torch.equal(getattr(output, f), getattr(same, f)) for f in FIELDS)
    count = int(kept.count[0])
    for name, value in kept.to_tensors().items():
        rows = slice(count) if name in ("positions", "features") else ...
        assert torch.equal(half.to_tensors()[name][0][rows], value[0][rows])
    assert half.age.tolist() == [3, 4]


def test_the_first_remembered_frame_is_the_first():
    """Frames that only look leave no trace, not even on what counts as the beginning."""
    model, rule = random_tiny(), Fuse()
    images = random_images(3)[:, None]
    updates = torch.tensor([[False], [True], [True]])
    states, outputs = roll(model, images, rule, updates)
    plain, expected = roll(model, images[1:], rule)
    for late, early in zip(states[1:], plain, strict=True):
        assert all(torch.equal(v, early.to_tensors()[k]) for k, v in late.to_tensors().items())
    assert torch.equal(outputs[2].points, expected[1].points)


def test_frames_without_an_image_are_not_remembered():
    model, rule = random_tiny(), Fuse()
    images = random_images(2)
    images[1] = float("nan")
    tokens = model.encode(Views(images, has_image=torch.tensor([True, False])))
    assert tokens.features.isfinite().all() and tokens.has_image.tolist() == [True, False]
    state, _ = model.step(model.initial_state(rule, 2), tokens, rule)
    assert state.count.tolist() == [12, 0] and state.age.tolist() == [1, 0]
    assert all(value.isfinite().all() for value in state.to_tensors().values())


def test_encoding_does_not_depend_on_the_state():
    model, rule = random_tiny(), Fuse()
    images = random_images(3)
    together = model.encode(Views(images))
    state = model.initial_state(rule)
    for time, image in enumerate(images):
        tokens = model.encode(Views(image[None]))
        close(tokens.features[0], together.features[time], 1e-5)
        state, _ = model.step(state, tokens, rule, ())


def test_step_leaves_its_state_and_module_unchanged():
    model, rule = random_tiny(), Fuse()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    attributes = set(vars(model))
    images = random_images(3)[:, None]
    states, _ = roll(model, images[:2], rule)
    kept = [{k: v.clone() for k, v in state.to_tensors().items()} for state in states]
    roll(model, images[2:], rule, state=states[-1])
    for state, copy in zip(states, kept, strict=True):
        assert all(torch.equal(copy[k], v) for k, v in state.to_tensors().items())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert set(vars(model)) == attributes
    with pytest.raises(dataclasses.FrozenInstanceError):
        states[0].age = states[0].age


def calls_of(model, modules, outputs, update) -> list[str]:
    """Names of the modules that run in the second step of a stream."""
    rule, seen = Fuse(), []
    images = random_images(2)
    state, _ = model.step(model.initial_state(rule), model.encode(Views(images[:1])), rule)
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda module, args, out, name=name: seen.append(name)
        )
        for name in modules
    ]
    model.step(state, model.encode(Views(images[1:])), rule, outputs, torch.tensor([update]))
    for handle in handles:
        handle.remove()
    return seen


def test_only_what_is_needed_is_computed():
    heads = [f"downstream_head.{name}" for name in ("dpt_self", "dpt_cross", "pose_head")]
    unread = ["dec_norm_memory", f"dec_blocks_memory.{TINY.decoder_depth - 1}"]
    names = [*heads, "pose_retriever.write_blocks.0", "value_out", "dec_blocks_memory.0", *unread]
    model = random_tiny()
    always = ["dec_blocks_memory.0"]
    remembering = ["dpt_cross", "value_out", "write_blocks.0"]
    for outputs, update, expected in (
        ((), False, []),
        (("points",), False, ["dpt_self"]),
        (("pose",), False, ["pose_head"]),
        (("world",), False, ["dpt_cross"]),
        ((), True, remembering),
        (("points", "pose", "world"), True, ["dpt_self", "pose_head", *remembering]),
    ):
        called = calls_of(model, names, outputs, update)
        ends = {name for name in called if any(name.endswith(end) for end in expected + always)}
        assert len(called) == len(ends) == len(expected) + 1, (outputs, update, called)
    state, output = model.step(
        model.initial_state(Fuse()), model.encode(Views(random_images(1))), Fuse(), ()
    )
    assert all(getattr(output, field.name) is None for field in dataclasses.fields(output))
    assert int(state.count) == 12


@pytest.mark.parametrize("size", [(80, 48), (16, 16), (112, 16), (48, 64)])
def test_frames_may_change_their_size(size):
    """Places of the last frame's patches are resampled to the new grid."""
    model, rule = random_tiny(), Fuse()
    first = model.encode(Views(random_images(1)))
    before, _ = model.step(model.initial_state(rule), first, rule)
    tokens = model.encode(Views(random_images(1, *size)))
    state, output = model.step(before, tokens, rule, OUTPUTS)
    grid = (size[0] // 16, size[1] // 16)
    assert output.points.shape == (1, *size, 3) and output.points.isfinite().all()
    assert state.patch_positions.shape == (1, *grid, 3)
    resampled = torch.empty(1, *grid, 3)
    for row in range(grid[0]):  # slow twin: between the four nearest patches, edges repeated
        for column in range(grid[1]):
            y = min(max((row + 0.5) * 3 / grid[0] - 0.5, 0), 2)
            x = min(max((column + 0.5) * 4 / grid[1] - 0.5, 0), 3)
            top, left = min(int(y), 1), min(int(x), 2)
            corners = before.patch_positions[0, top : top + 2, left : left + 2]
            upper, lower = (c[0] * (1 - x + left) + c[1] * (x - left) for c in corners)
            resampled[0, row, column] = upper * (1 - y + top) + lower * (y - top)
    twin = dataclasses.replace(before, patch_positions=resampled)
    _, expected = model.step(twin, tokens, rule, OUTPUTS)
    for field in FIELDS:
        close(getattr(output, field), getattr(expected, field))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_stays_near(dtype):
    reference = random_tiny()
    model = Point3r(reference.config)
    model.load_state_dict(reference.state_dict())
    model.eval().requires_grad_(False).set_precision(dtype)
    for part in (model.downstream_head, model.pts_patch_embed, model.value_norm):
        assert {p.dtype for p in part.parameters()} == {torch.float32}
    for linear in (model.dec_blocks[0].mlp.fc1, model.value_out, model.memory_attn_head[0]):
        assert linear.weight.dtype == dtype
    images = random_images(6, seed=5)[:, None]
    exact, expected = roll(reference, images, Append())
    low, actual = roll(model, images, Append())
    for state, output, plain, right in zip(low, actual, exact, expected, strict=True):
        assert {v.dtype for v in state.to_tensors().values()} == {torch.float32, torch.int64}
        assert (output.points - right.points).norm() < 0.05 * right.points.norm()
        assert (state.features - plain.features).norm() < 0.05 * plain.features.norm()


def test_double_precision():
    single = random_tiny()
    model = Point3r(single.config)
    model.load_state_dict(single.state_dict())
    model.double().eval().requires_grad_(False)
    images = random_images(5)[:, None]
    for rule in (Fuse(), Append()):
        states, outputs = roll(model, images.double(), rule)
        rounded, expected = roll(single, images, rule)
        for output, near in zip(outputs, expected, strict=True):
            for field in FIELDS:
                assert getattr(output, field).dtype == torch.float64
                close(getattr(output, field).float(), getattr(near, field), 1e-4)
        assert {v.dtype for v in states[-1].to_tensors().values()} == {torch.float64, torch.int64}
        assert torch.equal(states[-1].count, rounded[-1].count)
    for field in FIELDS:
        check_double_precision(
            lambda images, field=field: getattr(roll(model, images, Append())[1][-1], field),
            images[:3],
        )


# What a stream remembers, as a value


def saved(state: Point3rState) -> dict[str, torch.Tensor]:
    content = {k: v.contiguous() for k, v in state.to_tensors().items()}
    return safetensors.torch.load(safetensors.torch.save(content))


@pytest.mark.parametrize("frames", [0, 1, 5])
def test_a_saved_stream_goes_on_as_if_never_stopped(frames):
    model, rule = random_tiny(), Fuse()
    images = random_images(7)[:, None]
    state = [model.initial_state(rule), *roll(model, images[:frames], rule)[0]][-1]
    restored = model.initial_state(rule).with_tensors(saved(state))
    a = roll(model, images[frames:], rule, state=state)
    b = roll(model, images[frames:], rule, state=restored)
    for left, right in zip(a[0], b[0], strict=True):
        assert all(torch.equal(v, right.to_tensors()[k]) for k, v in left.to_tensors().items())
    assert torch.equal(a[1][-1].points, b[1][-1].points)


def test_states_that_contradict_themselves_are_refused():
    model, rule = random_tiny(), Fuse()
    state = roll(model, random_images(4).view(2, 2, 3, 48, 64), rule)[0][-1]
    named = saved(state)
    fresh = model.initial_state(rule, 2)
    assert torch.equal(fresh.with_tensors(named).features, state.features)
    for change, message in (
        ({"positions": named["positions"][:, 1:]}, "positions"),
        ({"positions": named["positions"][..., :2]}, "3, 48 and 3"),
        ({"features": named["features"][..., :40]}, "3, 48 and 3"),
        ({"patch_positions": named["patch_positions"][..., :1]}, "3, 48 and 3"),
        ({"patch_positions": named["patch_positions"][:, :0]}, "places"),
        ({"count": named["count"] + 1}, "counts"),
        ({"count": torch.tensor([named["positions"].shape[1], -1])}, "counts"),
        ({"age": torch.tensor([2, 0])}, "ages"),
        ({"age": named["age"][:1]}, "ages"),
        ({"age": named["age"].float()}, "does not fit"),
        ({"features": named["features"][0]}, "does not fit"),
        ({"pose_memory": named["pose_memory"][:, 1:]}, "does not fit"),
        ({"extra": named["age"]}, "does not fit"),
    ):
        with pytest.raises(SessionError, match=message):
            fresh.with_tensors(named | change)
    with pytest.raises(SessionError, match="does not fit"):
        fresh.with_tensors({k: v for k, v in named.items() if k != "count"})
    with pytest.raises(SessionError, match="does not fit"):
        model.initial_state(rule, 1).with_tensors(named)


def test_the_state_of_the_released_size_is_small():
    with torch.device("meta"):
        state = Point3r(Point3rConfig()).initial_state(Fuse())
    assert sum(v.numel() * v.element_size() for v in state.to_tensors().values()) < 2e6
    per_pointer = 4 * (3 + state.features.shape[-1])
    assert per_pointer == 3084


# Hostile input


def test_sizes_and_inputs_that_cannot_work():
    model, rule = random_tiny(), Fuse()
    assert isinstance(model, StreamModel)
    assert "world" in model.capabilities.outputs and not model.capabilities.constant_memory
    for size in ((40, 64), (48, 60), (0, 16)):
        with pytest.raises(SettingError, match="multiples of 16"):
            model.encode(Views(torch.zeros(1, 3, *size)))
    with pytest.raises(SettingError, match="images only"):
        model.encode(Views())
    with pytest.raises(SettingError, match="no ray maps"):
        model.encode(Views(random_images(1), torch.zeros(1, 48, 64, 6)))
    tokens = model.encode(Views(random_images(1)))
    with pytest.raises(SettingError, match="cannot give rgb"):
        model.step(model.initial_state(rule), tokens, rule, ("points", "rgb"))
    with pytest.raises(SettingError, match="unknown output"):
        model.step(model.initial_state(rule), tokens, rule, ("depth",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_depth": 0}, "encoder_depth is 0, not an integer from 1"),
        ({"memory_size": -1}, "memory_size is -1, not"),
        ({"rope_base": float("nan")}, "rope_base is nan, not a positive"),
        ({"decoder_depth": 1}, "2 or more"),
        ({"encoder_heads": 3}, "3 encoder heads with a multiple of 4"),
        ({"value_heads": 32}, "32 value heads"),
        ({"decoder_heads": 24}, "24 decoder heads"),
        ({"pointer_heads": 5}, "5 pointer heads"),
        ({"pointer_heads": 24}, "at least 3"),
    ],
)
def test_configurations_that_cannot_work(change, message):
    with pytest.raises(SettingError, match=message):
        dataclasses.replace(TINY, **change)


def test_configurations_are_plain_values():
    for config in (Point3rConfig(), TINY, dataclasses.replace(TINY, half_rope_in_encoder=True)):
        assert Point3rConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(WeightsError, match="unknown fields: colour"):
        Point3rConfig.from_dict({"colour": True})
    for wrong in ({"encoder_depth": "deep"}, {"dpt": {"layers": 3}}, {"decoder_heads": 7}):
        with pytest.raises(WeightsError, match="cannot be"):
            Point3rConfig.from_dict(wrong)
