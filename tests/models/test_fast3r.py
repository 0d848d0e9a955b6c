"""The Fast3R network beyond parity: indices, batches, pieces, poses, precision."""

import dataclasses
import math
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.networks import check_double_precision, random_images
from ttt3r.errors import SettingError
from ttt3r.geometry import se3
from ttt3r.geometry.camera import default_intrinsics
from ttt3r.geometry.local_global import pose_from_similarity, world_from_local
from ttt3r.geometry.pnp import (
    focal_from_confident_points,
    poses_from_world_points,
    search_focals,
)
from ttt3r.models.base import SetModel
from ttt3r.models.fast3r import network as fast3r
from ttt3r.models.fast3r.config import TINY
from ttt3r.models.fast3r.indices import (
    TABLE_ROWS,
    index_embedding,
    random_view_indices,
    sequential_view_indices,
)
from ttt3r.models.fast3r.network import Fast3r
from ttt3r.models.fast3r.transformers import INFERENCE_GAIN
from ttt3r.nn import blocks
from ttt3r.types import Reading

ALL = ("points", "world", "pose")
FIELDS = [field.name for field in dataclasses.fields(Reading)]
MAPS = ("points", "confidence", "world_points", "world_confidence")


@cache
def network(seed=0, **changes) -> Fast3r:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = Fast3r(dataclasses.replace(TINY, **changes))
    return made.eval().requires_grad_(False)


def sets(batch=1, views=4):
    return random_images(batch * views).view(batch, views, 3, 48, 64)


def frames(views):
    return sets(1, views).unbind(1)


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def test_it_is_a_set_model():
    model = network()
    assert isinstance(model, SetModel)
    assert model.capabilities.outputs == ("points", "pose", "world")
    assert not model.capabilities.metric_scale
    out = model.predict(sets(2, 3), ALL)
    shapes = {name: tuple(v.shape) for name in FIELDS if (v := getattr(out, name)) is not None}
    assert shapes == {
        "points": (2, 3, 48, 64, 3),
        "confidence": (2, 3, 48, 64),
        "world_points": (2, 3, 48, 64, 3),
        "world_confidence": (2, 3, 48, 64),
        "world_from_camera": (2, 3, 4, 4),
        "intrinsics": (2, 3, 3, 3),
    }


@pytest.mark.parametrize(
    ("outputs", "options", "heads"),
    [
        (("points",), {"own_scale": True}, {"local"}),
        (("points",), {}, {"local", "global"}),
        (("world",), {}, {"global"}),
        (("pose",), {}, {"global"}),
        (("pose",), {"poses": "individual"}, {"global"}),
        (("pose",), {"poses": "alignment"}, {"local", "global"}),
        ((), {}, set()),
    ],
)
def test_only_what_is_asked_for_is_computed(outputs, options, heads):
    model, ran = network(), set()
    handles = [
        head.register_forward_hook(lambda *_, name=name: ran.add(name))
        for name, head in (
            ("local", model.downstream_head_local),
            ("global", model.downstream_head),
        )
    ]
    out = model.predict(sets(), outputs, **options)
    for handle in handles:
        handle.remove()
    assert ran == heads
    found = {name for name in FIELDS if getattr(out, name) is not None}
    of_output = {
        "points": {"points", "confidence"},
        "world": {"world_points", "world_confidence"},
        "pose": {"world_from_camera", "intrinsics"},
    }
    if options.get("poses") == "alignment":  # which knows nothing of cameras
        of_output["pose"].remove("intrinsics")
    assert found == set().union(*(of_output[name] for name in outputs))


def test_a_batch_equals_its_sets_alone():
    model, images = network(), sets(3, 4)
    indices = random_view_indices(3, 4, seed=1)
    together = model.predict(images, ALL, indices=indices, poses="alignment")
    for b in range(3):
        one = slice(b, b + 1)
        alone = model.predict(images[one], ALL, indices=indices[one], poses="alignment")
        for name in ("points", "confidence", "world_points", "world_confidence"):
            close(getattr(together, name)[one], getattr(alone, name), 1e-4)
        close(together.world_from_camera[one], alone.world_from_camera, 1e-2)


def test_drawn_indices_are_those_of_the_seed():
    model, images = network(), sets(2, 4)
    before = torch.random.get_rng_state()
    drawn = model.predict(images, ("world",), seed=7)
    chosen = model.predict(images, ("world",), indices=random_view_indices(2, 4, seed=7))
    other = model.predict(images, ("world",), seed=8)
    assert torch.equal(drawn.world_points, chosen.world_points)
    assert not torch.allclose(drawn.world_points, other.world_points)
    assert torch.equal(torch.random.get_rng_state(), before)
    counted = network(random_image_idx_embedding=False).predict(images, ("world",), seed=7)
    same = model.predict(images, ("world",), indices=sequential_view_indices(2, 4))
    assert torch.equal(counted.world_points, same.world_points)


@given(st.integers(1, 30), st.integers(1, 3), st.integers(0, 2**40))
def test_indices_are_distinct_and_stable_as_a_set_grows(views, batch, seed):
    indices = random_view_indices(batch, views, seed)
    assert (indices[:, 0] == 0).all()
    assert all(len(set(row.tolist())) == views for row in indices)
    assert int(indices.min()) >= 0 and int(indices.max()) < TABLE_ROWS
    assert torch.equal(random_view_indices(batch, views + 5, seed)[:, :views], indices)


def test_index_embedding_equals_its_slow_twin():
    table = index_embedding(torch.tensor([[0, 3], [17, 999]]), 8, torch.float64)
    for row, index in zip(table.flatten(0, 1).tolist(), (0, 3, 17, 999), strict=True):
        angles = [index / 10000 ** (k / 4) for k in range(4)]
        expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        assert row == pytest.approx(expected, abs=1e-12)


def test_views_change_places_with_their_indices():
    """Fusion knows views by their index alone: their order means nothing."""
    model, images = network(), sets(1, 4)
    indices, order = random_view_indices(1, 4, seed=3), [2, 0, 3, 1]
    out = model.predict(images, ("world",), indices=indices)
    moved = model.predict(images[:, order], ("world",), indices=indices[:, order])
    close(moved.world_points, out.world_points[:, order], 1e-4)


@pytest.mark.parametrize("sharpened", [False, True])
def test_fusion_equals_its_slow_twin(sharpened):
    """One head, one token and one key at a time, and every layer kept."""
    model = network(attn_bias_for_inference_enabled=sharpened)
    features = [torch.randn(1, n, 64, generator=torch.Generator().manual_seed(n)) for n in (2, 3)]
    indices = torch.tensor([[0, 700]])
    levels = model.fuse(features, indices)

    scale = 16**-0.5 * (math.sqrt(math.log(137) / math.log(20)) if sharpened else 1.0)
    x = torch.cat(features, dim=1)[0]
    of_token = [0, 0, 700, 700, 700]
    x = model.decoder.decoder_embed(x) + index_embedding(torch.tensor(of_token), 48)
    kept = [torch.cat(features, dim=1)[0]]
    norm = torch.nn.functional.layer_norm
    for block in model.decoder.dec_blocks:
        normed = norm(x, (48,), block.norm1.weight, block.norm1.bias, 1e-5)
        query, key, value = block.attn.qkv(normed).unflatten(-1, (3, 3, 16)).unbind(1)
        mixed = torch.zeros(5, 48)
        for head in range(3):
            for token in range(5):
                logits = [float(query[token, head] @ key[k, head]) * scale for k in range(5)]
                total = sum(math.exp(logit) for logit in logits)
                for k, logit in enumerate(logits):
                    part = math.exp(logit) / total * value[k, head]
                    mixed[token, 16 * head : 16 * head + 16] += part
        x = x + block.attn.proj(mixed)
        x = x + block.mlp(norm(x, (48,), block.norm2.weight, block.norm2.bias, 1e-5))
        kept.append(x)
    last = norm(x, (48,), model.decoder.dec_norm.weight, model.decoder.dec_norm.bias, 1e-6)
    for level, expected in zip(levels, (kept[0], kept[2], kept[3], last), strict=True):
        close(level[0], expected)
    assert pytest.approx(1.28153, abs=1e-5) == INFERENCE_GAIN


def test_pieces_change_nothing(monkeypatch):
    """What passes the network together is a question of memory alone."""
    model, images = network(), sets(2, 5)
    whole = model.predict(images, ("points", "world"))
    monkeypatch.setattr(fast3r, "ENCODED_TOGETHER", 3)
    monkeypatch.setattr(fast3r, "READ_TOGETHER", 1)
    monkeypatch.setattr(blocks, "MLP_TOKENS", 7)
    pieces = model.predict(images, ("points", "world"))
    close(pieces.points, whole.points, 1e-4)
    close(pieces.world_points, whole.world_points, 1e-4)


def raw(model, views, **options):
    return model.predict(views, ("points", "world"), own_scale=True, **options)


def test_views_of_one_size_are_a_set():
    model, images = network(), sets(2, 3)
    out = model.predict(images, ("points", "world"), seed=5, own_scale=True)
    for index, view in enumerate(raw(model, images.unbind(1), seed=5)):
        for name in MAPS:
            close(getattr(view, name), getattr(out, name)[:, index])


def test_views_may_differ_in_size():
    """Reordering by size must not mix views up: each keeps its index, wherever it stands."""
    model = network()
    sizes = [(48, 64), (32, 64), (48, 64), (64, 48), (32, 64)]
    views = [random_images(2, *size, seed=i) for i, size in enumerate(sizes)]
    indices = random_view_indices(2, 5, seed=1)
    out = raw(model, views, indices=indices)
    assert [tuple(view.points.shape[1:3]) for view in out] == sizes
    order = [4, 2, 0, 3, 1]
    moved = raw(model, [views[i] for i in order], indices=indices[:, order])
    for at, index in enumerate(order):
        close(moved[at].points, out[index].points, 1e-4)
    only = model.predict(views, ("self",), indices=indices, own_scale=True)[1]
    close(only.points, out[1].points)
    assert only.world_points is None and only.world_confidence is None


@pytest.mark.parametrize("poses", [pytest.param("individual", marks=pytest.mark.slow), "alignment"])
def test_a_list_of_views_is_read_as_a_set(poses):
    model, images = network(), sets(2, 3)
    out = model.predict(images, ALL, seed=5, poses=poses)
    for index, view in enumerate(model.predict(images.unbind(1), ALL, seed=5, poses=poses)):
        for name, tensor in view.tensors().items():
            close(tensor, getattr(out, name)[:, index], 1e-4)
    views = [random_images(1), random_images(1, 32, 48)]
    for view, image in zip(model.predict(views, ALL, poses=poses), views, strict=True):
        assert view.points.shape[1:3] == image.shape[2:]
        assert view.world_from_camera.shape == (1, 4, 4)


def test_points_share_the_unit_of_the_world():
    model, images = network(), sets(2, 3)
    own = model.predict(images, ("points", "world"), own_scale=True)
    out = model.predict(images, ALL, poses="alignment")
    similarity = world_from_local(own.points, own.world_points, own.world_confidence)
    scale = se3.similarity_scale(similarity)
    close(out.points, own.points * scale[..., None, None, None])
    close(out.world_from_camera, pose_from_similarity(similarity))
    placed = se3.apply(out.world_from_camera, out.points)
    close(placed, se3.apply(similarity, own.points), 1e-4)


@pytest.mark.parametrize("poses", ["pnp", pytest.param("individual", marks=pytest.mark.slow)])
def test_poses_are_those_of_the_published_recovery(poses):
    out = network().predict(sets(2, 3), ("pose", "world"), poses=poses)
    for b in range(2):
        points, confidence = out.world_points[b], out.world_confidence[b]
        if poses == "pnp":
            focals = focal_from_confident_points(points[0], confidence[0]).expand(3)
        else:
            focals = search_focals(points)
        matrices = default_intrinsics((48, 64), focals)
        expected = poses_from_world_points(points, matrices)
        torch.testing.assert_close(out.intrinsics[b], matrices, equal_nan=True)
        torch.testing.assert_close(out.world_from_camera[b], expected, equal_nan=True)


def test_one_view_is_a_set():
    out = network().predict(sets(1, 1), ALL)
    assert out.points.shape == (1, 1, 48, 64, 3) and out.points.isfinite().all()


def test_predict_leaves_arguments_and_module_unchanged():
    model, images = network(), sets()
    indices = random_view_indices(1, 4)
    kept = images.clone(), indices.clone()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    attributes = set(vars(model))
    model.predict(images, ALL, indices=indices)
    assert torch.equal(images, kept[0]) and torch.equal(indices, kept[1])
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert set(vars(model)) == attributes


def test_double_precision():
    wide = Fast3r(TINY)
    wide.load_state_dict(network().state_dict())
    wide.double().eval().requires_grad_(False)
    out = wide.predict(sets().double(), ALL, poses="alignment")
    single = network().predict(sets(), ("points", "world"))
    assert out.points.dtype == out.world_from_camera.dtype == torch.float64
    # The exponential of the heads, and the scale that is divided by, widen 1,000 float32 eps.
    close(out.points.float(), single.points, 3e-3)
    close(out.world_points.float(), single.world_points, 1e-4)
    for output, name in (("points", "points"), ("world", "world_points")):
        check_double_precision(
            lambda images, output=output, name=name: getattr(
                wide.predict(images, (output,), own_scale=True), name
            ),
            sets(),
        )


def test_half_precision_leaves_heads_and_residuals_alone():
    half = Fast3r(TINY)
    half.load_state_dict(network().state_dict())
    assert half.set_precision(torch.bfloat16) is half
    half.eval().requires_grad_(False)
    assert half.encoder.enc_blocks[0].mlp.fc1.weight.dtype == torch.bfloat16
    assert half.encoder.patch_embed.proj.weight.dtype == torch.bfloat16
    assert half.encoder.enc_norm.weight.dtype == torch.float32
    assert {p.dtype for p in half.downstream_head.parameters()} == {torch.float32}
    levels = half.fuse(half.encode(sets().unbind(1)), random_view_indices(1, 4))
    assert all(level.dtype == torch.float32 for level in levels)
    out, full = (model.predict(sets(), ("world",)).world_points for model in (half, network()))
    error = (out - full).norm() / full.norm()
    assert 0 < error < 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.predict(torch.zeros(1, 2, 3, 40, 64)), "multiples of 16"),
        (lambda m: m.predict(torch.zeros(1, 2, 3, 0, 64)), "multiples of 16"),
        (lambda m: m.predict(torch.zeros(1, 0, 3, 48, 64)), "no view"),
        (lambda m: m.predict(torch.zeros(0, 2, 3, 48, 64)), "at least one set"),
        (lambda m: m.predict(torch.zeros(1, 1001, 3, 16, 16)), "one in 2 is few enough"),
        (lambda m: m.predict(sets(), ("points", "rgb")), "cannot give rgb"),
        (lambda m: m.predict(sets(), ("depth",)), "unknown output 'depth'"),
        (
            lambda m: m.predict(frames(4), indices=torch.zeros(1, 3).long()),
            r"must be \[1, 4\]",
        ),
        (lambda m: m.predict(sets(), indices=torch.full((1, 4), 1000)), "between 0 and 999"),
        (lambda m: m.predict(sets(), indices=torch.full((1, 4), -1)), "between 0 and 999"),
        (lambda m: m.predict([]), "no view"),
        (lambda m: m.predict([random_images(1), random_images(1, 32, 48)]), "differ in size"),
        (lambda m: m.predict([random_images(1), random_images(2)]), "view 1 has 2 samples"),
        (lambda m: m.encode([]), "no view"),
        (lambda m: m.fuse([], torch.zeros(1, 0).long()), "no view"),
        (lambda m: random_view_indices(1, 1001), "at most 1000 views"),
        (lambda m: sequential_view_indices(1, 2500), "one in 3 is"),
    ],
)
def test_what_the_network_cannot_do_is_an_error(call, message):
    with pytest.raises(SettingError, match=message):
        call(network())


def test_a_thousand_views_have_indices():
    assert random_view_indices(1, TABLE_ROWS)[0].sort().values.tolist() == list(range(TABLE_ROWS))
    assert sequential_view_indices(2, TABLE_ROWS)[1, -1] == TABLE_ROWS - 1
