"""The track head against numbers of the reference implementation."""

import json
from functools import cache

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.goldens import goldens
from tests.vggt_networks import TINY, reference_weights
from ttt3r.models.vggt.config import VggtConfig
from ttt3r.models.vggt.network import Vggt
from ttt3r.models.vggt.track import TrackHead, TrackSizes
from ttt3r.nn.tracker import flow_code

PREFIX = "track_head."
SIZE = (42, 56)
WORST = 2e-5  # of the largest value; the goldens' README
CODE = 16 + 4  # channels of the tiny tracker's flow code


@cache
def case() -> dict[str, Tensor]:
    return load_file(goldens("vggt") / "case_s6_42x56.safetensors")


@cache
def reference_head(iterations: int = 4, dtype: torch.dtype = torch.float32) -> TrackHead:
    folder = goldens("vggt")
    sizes = json.loads((folder / "tiny.config.json").read_text())["track_head"]
    head = TrackHead(
        sizes["dim_in"],
        TrackSizes(
            layers=tuple(sizes["out_channels"]),
            features=sizes["features"],
            stride=sizes["stride"],
            iterations=iterations,
            levels=sizes["corr_levels"],
            radius=sizes["corr_radius"],
            hidden=sizes["hidden_size"],
            heads=sizes["num_heads"],
            rounds=sizes["depth"],
            virtual_tracks=sizes["num_virtual_tracks"],
            flow_scale=float(sizes["max_scale"]),
        ),
    )
    tensors = load_file(folder / "tiny.weights_track.safetensors")
    tensors = {key.removeprefix(PREFIX): value for key, value in tensors.items()}
    head.load_state_dict(tensors, strict=True)
    return head.eval().requires_grad_(False).to(dtype)


def tokens(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Patch tokens of the four depths that the tiny head reads."""
    return [case()[f"agg.out{level}"][:, :, 5:].to(dtype) for level in (1, 2, 3, 4)]


def error(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return float((actual - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tracks(dtype):
    tracks = reference_head(dtype=dtype)(tokens(dtype), SIZE, case()["query_points"])
    assert tracks.positions.dtype == dtype
    assert error(tracks.positions, case()["track"]) < WORST
    assert error(tracks.visibility, case()["track_vis"]) < WORST
    assert error(tracks.confidence, case()["track_conf"]) < WORST


def test_tracks_from_images():
    """The head as part of the network."""
    network = Vggt(VggtConfig(**TINY | {"track": reference_head().sizes}))
    network.load_state_dict(reference_weights(), strict=True)
    network.eval().requires_grad_(False)
    tracks = network.track(2 * case()["images"] - 1, case()["query_points"])
    # The tracker magnifies the last digits of the tokens; see the flow code below.
    assert error(tracks.positions, case()["track"]) < WORST
    assert error(tracks.visibility, case()["track_vis"]) < 10 * WORST
    assert error(tracks.confidence, case()["track_conf"]) < 10 * WORST


def test_features():
    maps = reference_head().feature_extractor([x.flatten(0, 1) for x in tokens()], SIZE)
    assert error(maps[None], case()["track.features"]) < WORST


@pytest.mark.parametrize("iteration", range(4))
def test_positions_of_every_iteration(iteration):
    """Fewer iterations give what the full number passes through."""
    tracker = reference_head(iterations=iteration + 1).tracker
    positions, _, _ = tracker(case()["track.features"], case()["query_points"])
    assert error(positions, case()["track_list"][iteration]) < WORST


@pytest.fixture(scope="module")
def seen() -> dict[str, list[Tensor]]:
    """What the two networks inside the tracker are given, iteration by iteration."""
    tracker = reference_head().tracker
    given: dict[str, list[Tensor]] = {"corr_mlp": [], "updateformer": []}
    hooks = [
        tracker.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, name=name: given[name].append(inputs[0])
        )
        for name in given
    ]
    tracker(case()["track.features"], case()["query_points"])
    for hook in hooks:
        hook.remove()
    return given


@pytest.mark.parametrize("iteration", range(4))
def test_correlation(seen, iteration):
    correlation = seen["corr_mlp"][iteration].flatten(0, 1)
    assert error(correlation, case()["track.corr"][iteration]) < WORST


@pytest.mark.parametrize("iteration", range(4))
def test_input_of_the_update_former(seen, iteration):
    """Once points move, last digits of their positions reach the first digits of the flow code."""
    actual, expected = seen["updateformer"][iteration], case()["track.former_in"][iteration]
    assert error(actual[..., CODE:], expected[..., CODE:]) < WORST
    assert error(actual, expected) < (WORST if iteration == 0 else 1e-3)


@pytest.mark.parametrize("iteration", [1, 2, 3])
def test_flow_code(iteration):
    """Compared at the reference's own positions, so that nothing is magnified."""
    inputs = case()["track.former_in"][..., :CODE]
    constant = inputs[0] - flow_code(torch.zeros(2), 16, 518.0)  # nothing has moved at first
    places = case()["track_list"][iteration - 1].transpose(1, 2) / 2
    flow = places - case()["query_points"][:, :, None] / 2
    assert error(flow_code(flow, 16, 518.0) + constant, inputs[iteration]) < WORST


def test_full_size_keys_and_shapes():
    expected = json.loads((goldens("vggt") / "full.keys.json").read_text())
    with torch.device("meta"):
        head = TrackHead(2048)
    actual = {f"{PREFIX}{key}": list(value.shape) for key, value in head.state_dict().items()}
    assert actual == {key: shape for key, (shape, _) in expected.items() if key.startswith(PREFIX)}
    assert sum(value.numel() for value in head.parameters()) == 65_941_396
