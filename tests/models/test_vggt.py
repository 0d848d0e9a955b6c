"""VGGT beyond parity: batches, order, chunks, what is computed, precision, hostile input."""

import copy
import json

import pytest
import torch

from tests.networks import random_images
from tests.vggt_networks import SMALL, random_tiny
from ttt3r.errors import InputError, SettingError, WeightsError
from ttt3r.geometry import se3
from ttt3r.geometry.camera import pixel_grid, project
from ttt3r.models.base import SetModel
from ttt3r.models.streamvggt.config import StreamVggtConfig
from ttt3r.models.vggt.config import VggtConfig
from ttt3r.models.vggt.network import Vggt
from ttt3r.models.vggt.track import TrackSizes
from ttt3r.nn.attention import attend, attend_with_map
from ttt3r.nn.dinov2 import resample_positions
from ttt3r.nn.vggt_dpt import VggtDpt, add_positions, resize
from ttt3r.types import Preparation, Reading

OUTPUTS = ("points", "pose", "world")


def some_views(batch: int, views: int, height: int = 42, width: int = 56) -> torch.Tensor:
    return random_images(batch * views, height, width).unflatten(0, (batch, views))


def fields_of(output: Reading) -> dict[str, torch.Tensor | None]:
    return dict(output.tensors())


def test_a_batch_equals_its_sets_alone():
    model, images = random_tiny("vggt"), some_views(3, 2)
    together = fields_of(model.predict(images, OUTPUTS))
    for index in range(3):
        alone = fields_of(model.predict(images[index : index + 1], OUTPUTS))
        for name, value in alone.items():
            torch.testing.assert_close(
                together[name][index : index + 1], value, atol=2e-5, rtol=2e-5
            )


def test_the_output_keeps_the_conventions():
    model, images = random_tiny("vggt", torch.float64), some_views(1, 3).double()
    output, reading = model.predict(images, OUTPUTS), model.look(images, OUTPUTS)
    assert isinstance(model, SetModel)
    # Points lie on the rays of their pixels, at the depth the network gave.
    pixels = project(output.points, output.intrinsics)
    grid = pixel_grid((42, 56), output.points)
    torch.testing.assert_close(pixels, grid.expand_as(pixels), atol=1e-9, rtol=0)
    torch.testing.assert_close(output.points[..., 2], reading.depth)
    # The network's own pose maps the world to the camera; the package's is the inverse.
    x, y, z, w = reading.cameras[-1, ..., 3:7].unbind(-1)
    pose = torch.cat((reading.cameras[-1, ..., :3], torch.stack((w, x, y, z), -1)), dim=-1)
    product = se3.pose_from_encoding(pose) @ output.world_from_camera
    torch.testing.assert_close(product, torch.eye(4).double().expand_as(product))
    assert (output.intrinsics[..., :2, 2] == torch.tensor([28.0, 21.0])).all()


@pytest.mark.parametrize("outputs", [(), ("pose",), ("points",), ("world",), ("self",)])
def test_only_what_is_asked_for_is_computed(outputs):
    model, images = random_tiny("vggt"), some_views(1, 2)
    ran = set()
    heads = {"points": model.depth_head, "world": model.point_head}
    handles = [
        head.register_forward_hook(lambda *_, name=name: ran.add(name))
        for name, head in heads.items()
    ]
    found = fields_of(model.predict(images, outputs))
    for handle in handles:
        handle.remove()
    wanted = {"points" if name == "self" else name for name in outputs}
    assert ran == wanted & set(heads)
    every = fields_of(model.predict(images, OUTPUTS))
    expected = {"points", "confidence", "intrinsics"} if "points" in wanted else set()
    expected |= {"world_points", "world_confidence"} if "world" in wanted else set()
    expected |= {"world_from_camera", "intrinsics"} if "pose" in wanted else set()
    assert {name for name, value in found.items() if value is not None} == expected
    for name in expected:
        assert torch.equal(found[name], every[name])


def test_chunks_change_nothing():
    model, images = random_tiny("vggt"), some_views(1, 5)
    whole, parts = (model.look(images, OUTPUTS, chunk=chunk) for chunk in (8, 2))
    torch.testing.assert_close(parts.depth, whole.depth)
    torch.testing.assert_close(parts.world_points, whole.world_points)


def test_nothing_is_kept_or_changed():
    model, images = random_tiny("vggt"), some_views(1, 2)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    attributes = [set(vars(module)) for module in model.modules()]
    before = images.clone()
    first = model.predict(images, OUTPUTS)
    model.predict(some_views(1, 1, 28, 42), OUTPUTS)
    again = model.predict(images, OUTPUTS)
    assert torch.equal(images, before) and torch.equal(first.points, again.points)
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    assert [set(vars(module)) for module in model.modules()] == attributes


@pytest.mark.parametrize("family", ["vggt", "streamvggt"])
def test_half_precision_stays_close(family):
    images = some_views(1, 2)
    exact = random_tiny(family).predict(images, OUTPUTS)
    half = copy.deepcopy(random_tiny(family)).set_precision(torch.bfloat16)
    rough = half.predict(images, OUTPUTS)
    assert half.aggregator.frame_blocks[0].attn.qkv.weight.dtype == torch.bfloat16
    assert half.depth_head.projects[0].weight.dtype == torch.float32
    assert rough.points.dtype == rough.world_from_camera.dtype == torch.float32
    assert not torch.equal(rough.points, exact.points)
    torch.testing.assert_close(rough.points, exact.points, rtol=0.1, atol=0.1)
    torch.testing.assert_close(rough.world_from_camera, exact.world_from_camera, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("size", [(42, 55), (41, 56), (7, 56), (0, 56)])
def test_sizes_that_do_not_fit(size):
    with pytest.raises(SettingError, match="multiples of 14"):
        random_tiny("vggt").predict(torch.zeros(1, 2, 3, *size))


def test_other_hostile_input():
    model = random_tiny("vggt")
    with pytest.raises(SettingError, match="at least one image"):
        model.predict(torch.zeros(1, 0, 3, 42, 56))
    with pytest.raises(SettingError, match="unknown output"):
        model.predict(some_views(1, 1), ("depth",))


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": 500},
        {"dim": 18},
        {"heads": 3},
        {"camera_heads": 7},
        {"depth": 3},
        {"levels": (1, 1, 2, 3)},
        {"levels": (3, 2, 1, 0)},
        {"dpt_widths": (4, 4, 4, 5)},
        {"dpt_features": 12},
        {"encoder_depth": 0},
    ],
)
def test_sizes_of_networks_that_do_not_fit(changes):
    with pytest.raises(SettingError):
        VggtConfig(**SMALL | changes)


def test_configurations_survive_json():
    for config in (VggtConfig(**SMALL), VggtConfig(), StreamVggtConfig(camera_cache="released")):
        text = json.dumps(config.to_dict())
        assert type(config).from_dict(json.loads(text)) == config
    with pytest.raises(WeightsError, match="unknown fields: camera_cache"):
        VggtConfig.from_dict(StreamVggtConfig().to_dict())
    with pytest.raises(WeightsError, match=r"cannot be (read|used)"):
        VggtConfig.from_dict({"levels": [1, 2]})


def test_tracks_need_a_track_head_and_points_in_the_image():
    sizes = TrackSizes(
        (4, 4, 4, 4), 8, iterations=1, levels=3, radius=1, hidden=8, heads=2, rounds=1
    )
    model, images = random_tiny("vggt", track=sizes), some_views(2, 3)
    queries = torch.tensor([[[3.0, 4.0], [50.0, 30.0]]]).repeat(2, 1, 1)
    tracks = model.track(images, queries)
    assert tracks.positions.shape == (2, 3, 2, 2)
    assert torch.equal(tracks.positions[:, 0], queries)
    alone = model.track(images[1:], queries[1:])
    torch.testing.assert_close(tracks.positions[1:], alone.positions, atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="does not lie in the first image"):
        model.track(images, queries + 20)
    with pytest.raises(SettingError, match="multiples of 14"):
        model.track(images[..., :40, :], queries)
    with pytest.raises(SettingError, match="no track head"):
        random_tiny("vggt").track(images, queries)


def test_policies_of_images():
    assert random_tiny("vggt").preparation == Preparation(70, 14, by_width=True)
    assert random_tiny("streamvggt").preparation == Preparation(70, 14)
    assert "pose" in Vggt.capabilities.outputs and not Vggt.capabilities.metric_scale


def test_masked_attention_equals_attention_to_fewer_keys():
    query, key, value = torch.randn(3, 2, 4, 6, 8, dtype=torch.float64).unbind()
    allowed = torch.tensor([[True] * 4 + [False] * 2, [False, True] * 3])
    found = attend(query, key, value, allowed)
    for index, mask in enumerate(allowed):
        one = slice(index, index + 1)
        few = attend_with_map(query[one], key[one][:, :, mask], value[one][:, :, mask])
        # The twin's softmax is float32.
        torch.testing.assert_close(found[one], few.transpose(1, 2).flatten(2), atol=1e-6, rtol=1e-6)


def test_positions_of_the_grid_they_were_learned_on_stay():
    learned = torch.randn(1, 26, 8)
    assert resample_positions(learned, (5, 5)) is learned
    wide = resample_positions(learned, (4, 7))
    assert wide.shape == (1, 29, 8) and torch.equal(wide[:, 0], learned[:, 0])


def test_added_positions_equal_their_slow_twin():
    """Channel by channel and pixel by pixel."""
    rows, columns, channels, aspect = 3, 4, 8, 1.5
    x = torch.randn(2, channels, rows, columns, dtype=torch.float64)
    found = add_positions(x, aspect)
    diagonal = (aspect**2 + 1) ** 0.5
    for row in range(rows):
        for column in range(columns):
            v = (2 * row / (rows - 1) - 1) * (rows - 1) / rows / diagonal
            u = (2 * column / (columns - 1) - 1) * (columns - 1) / columns * aspect / diagonal
            angles = [torch.tensor(p * 100 ** -(k / 2)) for p in (u, v) for k in range(2)]
            s, c = [a.sin() for a in angles], [a.cos() for a in angles]
            code = torch.stack([*s[:2], *c[:2], *s[2:], *c[2:]])
            expected = x[:, :, row, column] + 0.1 * code
            torch.testing.assert_close(found[:, :, row, column], expected, atol=1e-7, rtol=1e-6)


def test_fusion_may_mix_channels_before_it_resizes():
    with torch.no_grad():
        fusion = VggtDpt(8, (4, 4, 4, 4), 8, 2).scratch.refinenet3
        x, skip = torch.randn(2, 1, 8, 3, 4).unbind()
        slow = resize(fusion.resConfUnit2(x + fusion.resConfUnit1(skip)), (5, 7))
        torch.testing.assert_close(
            fusion(x, (5, 7), skip), fusion.out_conv(slow), atol=1e-6, rtol=1e-5
        )
