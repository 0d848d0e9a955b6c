"""Point tracking: properties, slow twins of its fast paths, and hostile input."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from ttt3r.errors import InputError, SettingError
from ttt3r.models.vggt.track import TrackHead, Tracks, TrackSizes, check_queries
from ttt3r.nn import backend
from ttt3r.nn.tracker import (
    Tracker,
    flow_code,
    local_correlation,
    place_code,
    pyramid,
    sample,
)
from ttt3r.nn.update_former import PackedAttention, UpdateFormer

SMALL = TrackSizes(
    layers=(6, 8, 10, 12),
    features=12,
    iterations=3,
    levels=4,
    radius=2,
    hidden=16,
    heads=2,
    rounds=2,
    virtual_tracks=5,
)
SIZE = (42, 56)
QUERIES = torch.tensor([[[10.0, 8.0], [30.5, 20.25], [55.5, -0.5], [3.0, 40.0]]])


def randomise(module: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        spread = 0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
        noise = torch.randn(parameter.shape, generator=generator) * spread
        norm = parameter.ndim == 1 and name.endswith("weight")
        parameter.data = noise + 1 if norm else noise


@cache
def small_head() -> TrackHead:
    head = TrackHead(16, SMALL)
    randomise(head)
    with torch.no_grad():  # as random weights would magnify the last digits 200 times a round
        head.tracker.updateformer.input_transform.weight[:, : SMALL.features] *= 0.01
    return head.eval().requires_grad_(False)


def random_tokens(batch: int = 1, frames: int = 4, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, frames, 12, 16, generator=generator) for _ in range(4)]


def tracked(tokens: list[Tensor], queries: Tensor = QUERIES) -> Tracks:
    return small_head()(tokens, SIZE, queries)


def same(ours: Tracks, theirs: Tracks) -> None:
    assert_close(ours.positions, theirs.positions, rtol=1e-4, atol=1e-3)
    assert_close(ours.visibility, theirs.visibility, rtol=1e-4, atol=1e-4)
    assert_close(ours.confidence, theirs.confidence, rtol=1e-4, atol=1e-4)


def test_result():
    tracks = tracked(random_tokens())
    assert tracks.positions.shape == (1, 4, 4, 2)
    assert torch.equal(tracks.positions[:, 0], QUERIES)
    assert (tracks.positions[:, 1:] - QUERIES).norm(dim=-1).min() > 1e-2
    for chance in (tracks.visibility, tracks.confidence):
        assert chance.shape == (1, 4, 4)
        assert ((chance > 0) & (chance < 1)).all() and chance.std() > 1e-3


def test_one_frame_keeps_the_queries():
    assert torch.equal(tracked(random_tokens(frames=1)).positions[:, 0], QUERIES)


def test_batch_equals_one_by_one():
    tokens = random_tokens(batch=2)
    queries = torch.cat((QUERIES, QUERIES.flip(1) * 0.5 + 3))
    both = tracked(tokens, queries)
    for index in range(2):
        alone = tracked([x[index : index + 1] for x in tokens], queries[index : index + 1])
        one = slice(index, index + 1)
        same(
            Tracks(both.positions[one], both.visibility[one], both.confidence[one]),
            alone,
        )


def test_order_of_later_frames_does_not_matter():
    order = [0, 3, 1, 2]
    tracks = tracked(random_tokens())
    expected = Tracks(
        tracks.positions[:, order], tracks.visibility[:, order], tracks.confidence[:, order]
    )
    same(tracked([x[:, order] for x in random_tokens()]), expected)


def test_order_of_points_does_not_matter():
    order = [2, 0, 3, 1]
    tracks = tracked(random_tokens())
    expected = Tracks(
        tracks.positions[:, :, order],
        tracks.visibility[:, :, order],
        tracks.confidence[:, :, order],
    )
    same(tracked(random_tokens(), QUERIES[:, order]), expected)


def test_double_precision():
    head = TrackHead(16, SMALL).double()
    head.load_state_dict(small_head().state_dict())
    with torch.no_grad():
        tracks = head([x.double() for x in random_tokens()], SIZE, QUERIES)
    assert tracks.positions.dtype == tracks.visibility.dtype == torch.float64
    single = tracked(random_tokens())
    same(single, Tracks(*(x.float() for x in vars(tracks).values())))


def test_arguments_and_weights_stay_as_they_are():
    tokens, queries = random_tokens(), QUERIES.clone()
    before = [x.clone() for x in tokens]
    weights = {key: value.clone() for key, value in small_head().state_dict().items()}
    tracked(tokens, queries)
    assert torch.equal(queries, QUERIES)
    assert all(torch.equal(a, b) for a, b in zip(tokens, before, strict=True))
    assert all(torch.equal(value, weights[key]) for key, value in small_head().state_dict().items())


def correlate_with_whole_maps(
    features: Tensor, maps: Tensor, image: Tensor, centres: Tensor, radius: int
) -> Tensor:
    """Correlate with every pixel, then sample the result as published."""
    height, width, channels = maps.shape[1:]
    last = torch.tensor([width - 1, height - 1]).clamp(min=1).to(maps)
    results = []
    for feature, index, centre in zip(features, image, centres, strict=True):
        whole = torch.einsum("hwc,c->hw", maps[index], feature) / channels**0.5
        places = torch.stack(
            [
                centre + torch.tensor([right, down]).to(centre)
                for right in range(-radius, radius + 1)
                for down in range(-radius, radius + 1)
            ]
        )
        grid = (2 * places / last - 1)[None, None]
        sampled = F.grid_sample(whole[None, None], grid, padding_mode="zeros", align_corners=True)
        results.append(sampled.flatten())
    return torch.stack(results)


@pytest.mark.parametrize("size", [(9, 12), (2, 1), (1, 3)])
@pytest.mark.parametrize("budget", [1, backend.GATHERED_ON_CPU])
def test_correlation(size, budget, monkeypatch):
    monkeypatch.setattr(backend, "GATHERED_ON_CPU", budget)
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(3, *size, 8, generator=generator, dtype=torch.float64)
    features = torch.randn(60, 8, generator=generator, dtype=torch.float64)
    spread = torch.tensor([size[1], size[0]]) + 8
    centres = torch.rand(60, 2, generator=generator, dtype=torch.float64) * spread - 4
    centres[:10] = centres[:10].round()
    image = torch.arange(60) % 3
    actual = local_correlation(features, maps, image, centres, 2)
    expected = correlate_with_whole_maps(features, maps, image, centres, 2)
    assert (expected == 0).any() and (expected != 0).any()
    assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("far", [1e4, -1e4, 1e30, float("inf"), -float("inf")])
def test_correlation_far_outside_is_zero(far):
    maps, features = torch.ones(1, 5, 6, 4), torch.ones(1, 4)
    centre = torch.tensor([[3.0, far]])
    image = torch.zeros(1, dtype=torch.int64)
    assert not local_correlation(features, maps, image, centre, 2).any()


def test_pyramid():
    """Each level is the average of four pixels of the one before; odd rests are dropped."""
    maps = torch.randn(2, 11, 7, 3)
    levels = pyramid(maps, 3)
    assert [tuple(level.shape[1:3]) for level in levels] == [(11, 7), (5, 3), (2, 1)]
    assert_close(levels[1][1, 4, 2], maps[1, 8:10, 4:6].mean(dim=(0, 1)))
    assert_close(levels[2][0, 1, 0], levels[1][0, 2:4, 0:2].mean(dim=(0, 1)))


@pytest.mark.parametrize("size", [(5, 8), (1, 6)])
def test_place_code(size):
    """Equals a bilinear sample of the table of all pixels' codes."""
    height, width = size
    positions = torch.rand(1, 40, 2) * torch.tensor([width + 2, height + 2]) - 1
    positions[0, :4] = torch.tensor([[0, 0], [width - 1, height - 1], [2, 0], [1, 0]])
    frequencies = torch.tensor([10000 ** (-k / 3) for k in range(3)])
    table = torch.empty(1, height, width, 12)
    for row in range(height):
        for column in range(width):
            across, along = column * frequencies, row * frequencies
            waves = (across.sin(), across.cos(), along.sin(), along.cos())
            table[0, row, column] = torch.cat(waves)
    assert_close(place_code(positions, size, 12), sample(table, positions), rtol=1e-5, atol=1e-5)


def test_flow_code():
    flow = torch.tensor([0.03, -2.0], dtype=torch.float64)
    expected = []
    for value in flow:
        for k in range(0, 8, 2):
            angle = value * k * 1000 / 8
            expected += [angle.sin(), angle.cos()]
    expected += [flow[0] / 518, flow[1] / 518] * 2
    assert_close(flow_code(flow, 16, 518.0), torch.stack(expected))


@pytest.mark.parametrize("keys", [5, 9])
def test_packed_attention(keys):
    """Takes the parameters of torch's own attention and computes the same."""
    reference = nn.MultiheadAttention(16, 4, batch_first=True)
    randomise(reference)
    ours = PackedAttention(16, 4)
    ours.load_state_dict(reference.state_dict(), strict=True)
    x, context = torch.randn(3, 5, 16), torch.randn(3, keys, 16)
    with torch.no_grad():
        assert_close(ours(x, context), reference(x, context, context)[0], rtol=1e-5, atol=1e-5)


class DenseFormer:
    """The update former on torch's own layers, one track or frame at a time."""

    def __init__(self, former: UpdateFormer) -> None:
        self.former = former

    def attend(self, x: Tensor, context: Tensor, attention: PackedAttention) -> Tensor:
        layer = nn.MultiheadAttention(x.shape[-1], attention.heads, batch_first=True)
        layer.load_state_dict(attention.state_dict())
        return layer(x[None], context[None], context[None])[0][0]

    def block(self, block: nn.Module, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = block.norm1(x)
        if context is None:
            x = x + self.attend(x, x, block.attn)
        else:
            x = x + self.attend(x, block.norm_context(context), block.cross_attn)
        return x + block.mlp(block.norm2(x))

    def __call__(self, x: Tensor) -> Tensor:
        """Map [tracks, frames, inputs] to [tracks, frames, outputs]."""
        former, count = self.former, len(x)
        own = former.input_transform(former.input_norm(x))
        virtual = former.virual_tracks[0].expand(-1, x.shape[1], -1)
        tokens = torch.cat((own, virtual)).clone()
        for index, over_time in enumerate(former.time_blocks):
            tokens = torch.stack([self.block(over_time, track) for track in tokens])
            for frame in range(x.shape[1]):
                points, virtual = tokens[:count, frame], tokens[count:, frame]
                virtual = self.block(former.space_virtual2point_blocks[index], virtual, points)
                virtual = self.block(former.space_virtual_blocks[index], virtual)
                points = self.block(former.space_point2virtual_blocks[index], points, virtual)
                tokens[:, frame] = torch.cat((points, virtual))
        return former.flow_head(former.output_norm(tokens[:count] + own))


def test_update_former():
    former = UpdateFormer(10, 7, dim=16, heads=2, rounds=2, virtual_tracks=3)
    randomise(former)
    x = torch.randn(2, 5, 4, 10)
    with torch.no_grad():
        expected = torch.stack([DenseFormer(former)(sequence) for sequence in x])
        assert_close(former(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bad", [-0.6, 55.6, float("nan"), float("inf"), -1e20])
@pytest.mark.parametrize("axis", [0, 1])
def test_queries_outside_the_image(bad, axis):
    queries = QUERIES.clone()
    queries[0, 2, axis] = bad
    with pytest.raises(InputError, match="query point 2 of sequence 0"):
        tracked(random_tokens(), queries)


@pytest.mark.parametrize("shape", [(4, 2), (2, 4, 2), (1, 0, 2), (1, 4, 3)])
def test_queries_of_another_shape(shape):
    with pytest.raises(InputError, match=r"\[1, points, 2\]"):
        check_queries(torch.zeros(shape), 1, SIZE)


def test_images_too_small_for_the_pyramid():
    head = TrackHead(16, TrackSizes(levels=5)).eval()
    tokens = [torch.randn(1, 2, 2, 16) for _ in range(4)]
    with torch.no_grad(), pytest.raises(InputError, match="at least 32 pixels"):
        head(tokens, (14, 28), torch.tensor([[[3.0, 4.0]]]))


@pytest.mark.parametrize(
    "change",
    [
        {"features": 10},
        {"heads": 5},
        {"iterations": 0},
        {"levels": -1},
        {"layers": (4, 4, 0, 4)},
        {"flow_scale": 0.0},
    ],
)
def test_sizes_that_make_no_sense(change):
    with pytest.raises(SettingError, match=next(iter(change))):
        TrackSizes(**change)


def test_blocks_refuse_sizes_that_make_no_sense():
    with pytest.raises(SettingError, match="multiple of 4"):
        Tracker(
            10,
            16,
            heads=2,
            rounds=1,
            virtual_tracks=2,
            stride=2,
            iterations=1,
            levels=1,
            radius=1,
            flow_scale=1.0,
        )
    with pytest.raises(SettingError, match="heads"):
        UpdateFormer(4, 4, dim=16, heads=3, rounds=1, virtual_tracks=2)
