"""The CUT3R network beyond parity: batches, masks, evidence, precision."""

import dataclasses
import math

import pytest
import torch

from tests.networks import check_double_precision, random_images, random_tiny, tiny_config
from ttt3r import rules
from ttt3r.errors import SessionError, SettingError
from ttt3r.models.base import StreamModel, Tokens, Views
from ttt3r.models.cut3r.network import Cut3r
from ttt3r.models.evidence import LogitProbe
from ttt3r.nn.rope import grid_positions, rotary
from ttt3r.rules import Evidence
from ttt3r.types import OUTPUTS, Reading

FIELDS = (
    "points",
    "confidence",
    "world_points",
    "world_confidence",
    "rgb",
    "pose_encoding",
    "gate",
)


def roll(model, images, rule, updates=None, resets=None):
    """Step through images [time, batch, 3, H, W]; return states and outputs per frame."""
    rule = rules.parse(rule)
    state, states, outputs = model.initial_state(rule, images.shape[1]), [], []
    for time, image in enumerate(images):
        update = None if updates is None else updates[time]
        state, output = model.step(state, model.encode(Views(image)), rule, OUTPUTS, update)
        if resets is not None:
            state = model.reset(state, rule, resets[time])
        states.append(state)
        outputs.append(output)
    return states, outputs


@pytest.mark.parametrize("head", ["tiny_dpt", "tiny_linear"])
@pytest.mark.parametrize("rule", ["overwrite", "ttt3r", "damped(ttt3r, 0.5)"])
def test_a_batch_equals_its_streams_alone(head, rule):
    """Gates, masks and resets are per sample: no stream notices the others."""
    model = random_tiny(head)
    batch, time = 3, 6
    images = random_images(time * batch).view(time, batch, 3, 48, 64)
    g = torch.Generator().manual_seed(3)
    updates = torch.rand(time, batch, generator=g) < 0.7
    resets = torch.rand(time, batch, generator=g) < 0.3
    assert updates.any() and not updates.all() and resets.any()
    states, outputs = roll(model, images, rule, updates, resets)
    for b in range(batch):
        one = slice(b, b + 1)
        alone, single = roll(model, images[:, one], rule, updates[:, one], resets[:, one])
        for t in range(time):
            for name, value in alone[t].to_tensors().items():
                together = states[t].to_tensors()[name][one]
                torch.testing.assert_close(together, value, atol=2e-5, rtol=1e-5)
            for field in FIELDS:
                together = getattr(outputs[t], field)[one]
                wrong = ~torch.isclose(together, getattr(single[t], field), atol=1e-4, rtol=1e-4)
                # The linear head flips the sign of points whose raw z is about 0.
                assert wrong.float().mean() <= (1e-3 if head == "tiny_linear" else 0), field


def test_encoding_does_not_depend_on_the_state():
    """Frames may be encoded in one batch, ahead of time."""
    model, rule = random_tiny(), rules.parse("ttt3r")
    images = random_images(4)
    together = model.encode(Views(images))
    state = model.initial_state(rule)
    for time, image in enumerate(images):
        tokens = model.encode(Views(image[None]))
        torch.testing.assert_close(tokens.features[0], together.features[time])
        state, _ = model.step(state, tokens, rule, ())


def test_step_leaves_its_state_and_module_unchanged():
    model, rule = random_tiny(), rules.parse("ttt3r")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    attributes = set(vars(model))
    state = model.initial_state(rule)
    kept = {k: v.clone() for k, v in state.to_tensors().items()}
    model.step(state, model.encode(Views(random_images(1))), rule, OUTPUTS)
    assert all(torch.equal(kept[k], v) for k, v in state.to_tensors().items())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert set(vars(model)) == attributes
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.age = state.age


def test_views_without_an_image_never_write():
    model, rule = random_tiny(), rules.parse("ttt3r")
    state, _ = model.step(
        model.initial_state(rule), model.encode(Views(random_images(1))), rule, ()
    )
    rays = model.encode(Views(ray_map=torch.randn(1, 48, 64, 6)))
    after, output = model.step(state, rays, rule, ("points",))
    assert torch.equal(after.tokens, state.tokens)
    assert torch.equal(after.pose_memory, state.pose_memory)
    assert torch.equal(after.age, state.age) and output.points is not None


def dense_evidence(model, state, tokens) -> Evidence:
    """Slow twin of the probe: all logits of all layers, kept and then averaged."""
    logits = []

    def watch(module, args, out):
        x, y, at_x, at_y = args[:4]
        query, key = (
            p(v).unflatten(-1, (module.heads, -1)).transpose(1, 2)
            for p, v in ((module.projq, x), (module.projk, y))
        )
        logits.append(at_x.turn(query) @ at_y.turn(key).mT / query.shape[-1] ** 0.5)

    handles = [b.cross_attn.register_forward_hook(watch) for b in model.dec_blocks_state]
    decoded = model._decode(state, tokens, state.age == 0, LogitProbe(()))
    for handle in handles:
        handle.remove()
    every = torch.stack(logits)  # layer, batch, head, token, key
    weights = every[..., 1:].softmax(-1)
    entropy = -(weights * weights.log()).sum(-1) / math.log(weights.shape[-1])
    return Evidence(
        mean_logit=every.mean((0, 2, 4)),
        mean_map=every.mean((0, 2)),
        attention_rows=every.softmax(-1).mean((0, 2)),
        mean_entropy=entropy.mean((0, 2)),
        max_entropy=entropy.amax((0, 2)),
        min_entropy=entropy.amin((0, 2)),
        patch_features=tokens.features,
        projected_features=model.decoder_embed(tokens.features),
        image_tokens=decoded.levels[-1],
    )


@pytest.mark.parametrize("kind", [field.name for field in dataclasses.fields(Evidence)])
def test_evidence_equals_its_slow_twin(kind):
    model, rule = random_tiny(), rules.parse("ttt3r")
    state = model.initial_state(rule, 2)
    for image in random_images(4).view(2, 2, 3, 48, 64):
        tokens = model.encode(Views(image))
        probe = LogitProbe({kind})
        decoded = model._decode(state, tokens, state.age == 0, probe)
        found = probe.evidence({kind}, decoded.levels[0], decoded.projected, decoded.levels[-1])
        expected = dense_evidence(model, state, tokens)
        torch.testing.assert_close(getattr(found, kind), getattr(expected, kind))
        others = [f.name for f in dataclasses.fields(Evidence) if f.name != kind]
        assert all(getattr(found, other) is None for other in others)
        state, _ = model.step(state, tokens, rule, ())


def attention_maps_formed(kinds) -> set:
    """Run the decoders under a watch and return every tensor of the size queries x keys."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for value in result if isinstance(result, tuple) else (result,):
                if isinstance(value, torch.Tensor):
                    seen.add((str(function), tuple(value.shape)))
            return result

    model = random_tiny(state_size=48)
    tokens = model.encode(Views(random_images(1, 128, 128)))  # 64 patches: 65 keys
    state = model.initial_state(rules.parse("ttt3r"))
    with Watch():
        model._decode(state, tokens, state.age == 0, LogitProbe(kinds))
    assert any("attention" in name for name, _ in seen)
    return {item for item in seen if set(item[1][-2:]) <= {48, 65} and len(item[1]) > 1}


@pytest.mark.parametrize("rule", ["overwrite", "ttt3r"])
def test_no_attention_map_is_formed(rule):
    assert not attention_maps_formed(rules.parse(rule).evidence)


def maps_of_heads(kinds) -> set:
    """Attention maps of every head of a layer; one map for all heads is what some rules read."""
    return {(name, shape) for name, shape in attention_maps_formed(kinds) if len(shape) == 4}


@pytest.mark.parametrize("kind", ["mean_map", "attention_rows", "mean_entropy", "max_entropy"])
def test_maps_of_heads_are_formed_in_parts(kind):
    assert not maps_of_heads({kind})


def test_the_watch_for_attention_maps_sees_one(monkeypatch):
    monkeypatch.setattr("ttt3r.models.evidence.QUERIES", 48)
    assert maps_of_heads({"attention_rows"}) and maps_of_heads({"mean_entropy"})


@pytest.mark.parametrize(
    ("dtype", "rule"),
    [(torch.bfloat16, "ttt3r"), pytest.param(torch.float16, "overwrite", marks=pytest.mark.slow)],
)
def test_low_precision_does_not_drift(dtype, rule):
    """Over 50 frames the error against float32 stays where it is after 15."""
    reference = random_tiny()
    model = Cut3r(reference.config)
    model.load_state_dict(reference.state_dict())
    model.eval().requires_grad_(False).set_precision(dtype)
    heads = [p.dtype for p in model.downstream_head.parameters()]
    assert set(heads) == {torch.float32}
    assert model.dec_blocks[0].mlp.fc1.weight.dtype == dtype
    images = random_images(50, seed=5)
    parsed = rules.parse(rule)
    exact, low = reference.initial_state(parsed), model.initial_state(parsed)
    errors = []
    for image in images:
        view = Views(image[None])
        exact, expected = reference.step(exact, reference.encode(view), parsed)
        low, actual = model.step(low, model.encode(view), parsed)
        assert low.tokens.dtype == low.pose_memory.dtype == torch.float32
        assert actual.points.dtype == actual.gate.dtype == torch.float32
        scale = expected.points.norm() / expected.points.numel() ** 0.5
        off = (actual.points - expected.points).norm() / expected.points.numel() ** 0.5
        state_off = (low.tokens - exact.tokens).norm() / exact.tokens.norm()
        errors.append((float(off / scale), float(state_off)))
    early = torch.tensor(errors[1:16]).mean(0)
    late = torch.tensor(errors[-15:]).mean(0)
    assert (late < 0.05).all(), late
    assert (late < 3 * early + 1e-4).all(), (early, late)


@pytest.mark.parametrize("head", ["tiny_dpt", "tiny_linear"])
@pytest.mark.parametrize("rule", ["overwrite", "ttt3r"])
def test_double_precision(head, rule):
    single = random_tiny(head)
    model = Cut3r(single.config)
    model.load_state_dict(single.state_dict())
    model.double().eval().requires_grad_(False)
    images = random_images(4)[:, None]
    states, outputs = roll(model, images.double(), rule)
    assert {v.dtype for v in states[-1].to_tensors().values()} == {torch.float64, torch.int64}
    for output, near in zip(outputs, roll(single, images, rule)[1], strict=True):
        for field in ("confidence", "rgb", "pose_encoding", "gate"):  # linear points may flip
            assert getattr(output, field).dtype == torch.float64
            torch.testing.assert_close(
                getattr(output, field).float(), getattr(near, field), atol=1e-4, rtol=1e-4
            )
    known = {}

    def last(images: torch.Tensor) -> Reading:  # each field asks for the same three
        key = images.numpy().tobytes()
        if key not in known:
            known[key] = roll(model, images, rule)[1][-1]
        return known[key]

    for field in ("points", "world_points", "pose_encoding"):
        check_double_precision(lambda images, field=field: getattr(last(images), field), images)


def test_state_as_tensors():
    model, rule = random_tiny(), rules.parse("ttt3r")
    state = model.initial_state(rule, 2)
    named = state.to_tensors()
    assert set(named) == {"tokens", "pose_memory", "age"}
    doubled = state.map(lambda a, b: a + b, state)
    torch.testing.assert_close(doubled.tokens, 2 * state.tokens)
    assert torch.equal(state.with_tensors(doubled.to_tensors()).tokens, doubled.tokens)
    for wrong in (
        {k: v for k, v in named.items() if k != "age"},
        named | {"extra": torch.zeros(1)},
        named | {"tokens": named["tokens"][:1]},
        named | {"age": named["age"].float()},
    ):
        with pytest.raises(SessionError, match="does not fit"):
            state.with_tensors(wrong)


def test_the_state_of_the_released_size_is_small():
    from ttt3r.models.cut3r.config import Cut3rConfig

    with torch.device("meta"):
        model = Cut3r(Cut3rConfig())
        state = model.initial_state(rules.parse("ttt3r"))
    total = sum(t.numel() * t.element_size() for t in state.to_tensors().values())
    assert total < 8e6


def test_sizes_and_options_that_cannot_work():
    model, rule = random_tiny(), rules.parse("ttt3r")
    assert isinstance(model, StreamModel)
    for size in ((40, 64), (48, 60), (0, 16)):
        with pytest.raises(SettingError, match="multiples of 16"):
            model.encode(Views(torch.zeros(1, 3, *size)))
    with pytest.raises(SettingError, match="image, a ray map"):
        model.encode(Views())
    tokens = model.encode(Views(random_images(1)))
    with pytest.raises(SettingError, match="points, pose, world, rgb"):
        model.step(model.initial_state(rule), tokens, rule, ("depth",))
    with pytest.raises(SettingError, match="patch_size"):
        Cut3r(tiny_config("tiny_dpt", patch_size=8))
    colourless = random_tiny(rgb_head=False)
    with pytest.raises(SettingError, match="cannot give rgb"):
        colourless.step(colourless.initial_state(rule), tokens, rule, ("rgb",))


def test_smaller_patches_with_the_linear_head():
    model, rule = random_tiny("tiny_linear", patch_size=8), rules.parse("ttt3r")
    tokens = model.encode(Views(random_images(1)))
    assert isinstance(tokens, Tokens) and tokens.features.shape[1] == 48
    _, output = model.step(model.initial_state(rule), tokens, rule, OUTPUTS)
    assert output.points.shape == (1, 48, 64, 3)


@pytest.mark.parametrize("size", [(48, 64), (80, 48), (16, 16), (112, 16)])
@pytest.mark.parametrize("head", ["tiny_dpt", "tiny_linear"])
def test_any_multiple_of_the_patch(size, head):
    model, rule = random_tiny(head), rules.parse("ttt3r")
    tokens = model.encode(Views(random_images(1, *size)))
    _, output = model.step(model.initial_state(rule), tokens, rule, OUTPUTS)
    assert output.points.shape == (1, *size, 3) and output.points.isfinite().all()


def test_gradients_flow_through_time():
    """Training uses the same step."""
    model, rule = Cut3r(tiny_config("tiny_linear")), rules.parse("ttt3r")
    state = model.initial_state(rule)
    for image in random_images(3):
        state, output = model.step(state, model.encode(Views(image[None])), rule, ("points",))
    output.points.square().mean().backward()
    assert model.register_tokens.weight.grad.abs().sum() > 0


def test_rope_against_complex_numbers():
    """Slow twin: rotate each pair as a complex number."""
    x = torch.randn(2, 3, 5, 16)
    positions = torch.tensor([[-1, -1], [0, 0], [2, 5], [7, 1], [30, 40]])
    expected = torch.empty_like(x)
    for p, (row, column) in enumerate(positions.tolist()):
        for axis, place in enumerate((row, column)):
            for j in range(4):
                u, v = 8 * axis + j, 8 * axis + 4 + j
                turn = torch.polar(torch.ones(()), torch.tensor(place * 100.0 ** (-j / 4)))
                z = torch.complex(x[:, :, p, u], x[:, :, p, v]) * turn
                expected[:, :, p, u], expected[:, :, p, v] = z.real, z.imag
    torch.testing.assert_close(rotary(positions, 16).turn(x), expected, atol=1e-5, rtol=1e-5)
    assert grid_positions(2, 3).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
