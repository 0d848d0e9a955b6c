"""Fast3R against numbers of the reference implementation, and its released size."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.goldens import goldens
from ttt3r.evaluation.metrics.points import point_errors
from ttt3r.geometry import se3
from ttt3r.geometry.camera import default_intrinsics
from ttt3r.geometry.focal import focal_from_points
from ttt3r.geometry.local_global import world_from_local
from ttt3r.geometry.pnp import focal_from_confident_points, poses_from_world_points
from ttt3r.models.cut3r_config import DptSizes
from ttt3r.models.fast3r import Fast3r
from ttt3r.models.fast3r_config import Fast3rConfig, config_from_published
from ttt3r.models.fast3r_indices import index_embedding, random_view_indices
from ttt3r.nn.rope import rotary, rotate
from ttt3r.sources import prepare
from ttt3r.types import ImagePolicy

FOLDER = goldens("fast3r")
NAMES = {
    "points": "pts3d_local",
    "confidence": "conf_local",
    "world_points": "pts3d_in_other_view",
    "world_confidence": "conf",
}
SETTINGS = json.loads((FOLDER / "tiny.config.json").read_text())
NUMBERS = json.loads((FOLDER / "functions.json").read_text())
TENSORS = load_file(FOLDER / "functions.safetensors")


def close(actual, expected, tolerance=1e-3):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@cache
def tiny(**changes) -> Fast3r:
    widths = SETTINGS["dpt"]
    dpt = DptSizes(tuple(widths["layer_dims"]), widths["feature_dim"], widths["last_dim"])
    config = replace(config_from_published(SETTINGS["config"]), dpt=dpt, **changes)
    network = Fast3r(config)
    weights = load_file(FOLDER / "tiny.weights.bf16.safetensors")
    network.load_state_dict({k: v.float() for k, v in weights.items()}, strict=True)
    return network.eval().requires_grad_(False)


def outputs(run: str) -> dict[str, torch.Tensor]:
    return load_file(FOLDER / f"tiny.outputs.{run}.safetensors")


def frames(count: int = 8) -> list[torch.Tensor]:
    return list(load_file(FOLDER / "tiny.input.safetensors")["frames_norm"][:count, None])


def check(views, golden):
    for index, view in enumerate(views):
        for name, key in NAMES.items():
            close(getattr(view, name)[0], golden[f"{key}.{index}"])
    assert sum(key.startswith("conf.") for key in golden) == len(views)


def test_sequential_indices():
    network, golden = tiny(random_image_idx_embedding=False), outputs("sequential")
    features = network.encode(frames())
    close(torch.cat(features), golden["enc_feat"])
    indices = torch.tensor([SETTINGS["runs"]["sequential"]["image_idx"]])
    levels = network.fuse(features, indices)
    for level, layer in zip(levels[1:], (5, 7, 10), strict=True):
        close(level[0], golden[f"dec.{layer}"])
    check(network.predict_views(frames()), golden)


def test_random_indices():
    """The released setting; its seed was the global one."""
    golden = outputs("random_seed1234")
    assert tiny().config.random_image_idx_embedding
    check(tiny().predict_views(frames(), seed=1234), golden)
    out = tiny().predict(torch.stack(frames(), dim=1), ("points",), seed=1234, own_scale=True)
    for index in range(8):
        close(out.points[0, index], golden[f"pts3d_local.{index}"])


def test_sharpened_attention():
    network = tiny(random_image_idx_embedding=False, attn_bias_for_inference_enabled=True)
    check(network.predict_views(frames(3)), outputs("attn_bias_3views"))


def test_views_of_several_sizes():
    golden = outputs("mixed_res")
    views = [golden[f"frame_norm.{index}"][None] for index in range(4)]
    check(tiny(random_image_idx_embedding=False).predict_views(views), golden)


def test_single_view():
    check(tiny().predict_views(frames(1)), outputs("single_view"))


def test_released_keys_and_shapes():
    with torch.device("meta"):
        network = Fast3r(Fast3rConfig())
    actual = {key: list(value.shape) for key, value in network.state_dict().items()}
    expected = json.loads((FOLDER / "full.keys.json").read_text())
    assert actual == {key: shape for key, (shape, _) in expected.items()}
    assert sum(value.numel() for value in network.parameters()) == 647_551_368


@pytest.mark.parametrize("dim", [48, 1024])
def test_index_embedding(dim):
    rows = torch.tensor(NUMBERS[f"idx_emb.D{dim}"])
    close(index_embedding(rows, dim), TENSORS[f"idx_emb.D{dim}.rows"], 1e-6)


def test_random_indices_of_many_seeds():
    assert len(NUMBERS["random_pool"]) == 24
    for name, expected in NUMBERS["random_pool"].items():
        seed, views, batch = (int(part.lstrip("sedVB")) for part in name.split("."))
        assert random_view_indices(batch, views, seed).tolist() == expected, name
    batch = torch.tensor(SETTINGS["runs"]["batch2_seed77"]["image_idx"])
    assert torch.equal(random_view_indices(2, 3, seed=77), batch.mT)


def test_rotation():
    tokens, positions = TENSORS["rope2d.tokens"], TENSORS["rope2d.positions"]
    for sample in range(len(tokens)):
        table = rotary(positions[sample], tokens.shape[-1])
        rotated = rotate(tokens[sample : sample + 1], table)
        close(rotated[0], TENSORS["rope2d.out"][sample], 1e-6)


def scene(key: str) -> torch.Tensor:
    return torch.stack([TENSORS[f"{key}.{view}"] for view in range(3)])


def test_focal():
    points, confidence = scene("scene.pts3d_in_other_view")[0], scene("scene.conf")[0]
    focal = focal_from_confident_points(points, confidence)
    assert float(focal) == pytest.approx(NUMBERS["estimate_focal_conf10"], abs=1e-3)
    plain = focal_from_points(points)
    assert float(plain) == pytest.approx(NUMBERS["focal_all_weiszfeld_10it"], abs=1e-3)


def test_poses():
    points, confidence = scene("scene.pts3d_in_other_view"), scene("scene.conf")
    focal = focal_from_confident_points(points[0], confidence[0])
    matrices = default_intrinsics((48, 64), focal.expand(3))
    poses = poses_from_world_points(points, matrices, confidence > 1.0)
    close(poses, scene("pnp.first_view_from_global_head.pose_c2w"), 2e-3)
    close(poses, scene("scene.true_pose"), 2e-3)


@pytest.mark.parametrize("percentile", [0, 85])
def test_local_points_in_the_world(percentile):
    points = scene("scene.pts3d_local")
    similarity = world_from_local(
        points, scene("scene.pts3d_in_other_view"), scene("scene.conf"), float(percentile)
    )
    close(se3.apply(similarity, points), scene(f"align.pct{percentile}"), 1e-4)


def test_cloud_errors():
    recovered, normals, truth, true_normals = (
        TENSORS[f"pcmetric.{key}"].numpy() for key in ("rec", "rec_n", "gt", "gt_n")
    )
    errors = point_errors(recovered, truth, normals, true_normals)
    actual = {
        "accuracy": (
            errors.accuracy,
            errors.accuracy_median,
            errors.normal_consistency_1,
            errors.normal_consistency_1_median,
        ),
        "completion": (
            errors.completeness,
            errors.completeness_median,
            errors.normal_consistency_2,
            errors.normal_consistency_2_median,
        ),
    }
    for name, values in actual.items():
        np.testing.assert_allclose(values, NUMBERS["pcmetric"][name], rtol=1e-5)


@pytest.mark.parametrize("kind", ["land", "port"])
def test_preparation(kind):
    image = TENSORS[f"prep.{kind}.in"].numpy()
    prepared, _ = prepare(image, ImagePolicy(64, 16))
    expected = TENSORS[f"prep.{kind}.plain"].numpy().transpose(1, 2, 0)
    assert prepared.shape == expected.shape
    assert np.abs(prepared.astype(int) - expected.astype(int)).max() <= 1
