"""A triangle mesh of all that was seen, as PLY or binary glTF."""

import math
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from ttt3r.drawing.frames import GREY
from ttt3r.errors import MissingExtraError, RunError, SettingError
from ttt3r.exporters.clouds import MIN_CONFIDENCE, check_confidence, check_steps, check_voxel
from ttt3r.exporters.fusion import MOST_BLOCKS, Fusion
from ttt3r.exporters.glb import GLTF_FROM_WORLD
from ttt3r.exporters.placed import is_placed, left_out_text, points_of
from ttt3r.exporters.surface import Surface, surface_of
from ttt3r.types import LARGEST_HALF, Prediction

PIXELS = 2.0  # default width of a voxel, in pixels at half the depth that the first frame sees


def write_mesh(
    predictions: Iterable[Prediction],
    path: Path,
    *,
    min_confidence: float = MIN_CONFIDENCE,
    every: int = 1,
    voxel: float | None = None,
    most_blocks: int = MOST_BLOCKS,
) -> str:
    """Fuse the depth of all frames, and write the surface between what is free and what is not.

    A frame that could not be placed is left out. Surfaces end where nothing was seen.

    Args:
        predictions: with points and poses.
        path: file to write; a name that ends in .glb makes binary glTF, all others PLY.
        min_confidence: keep points whose confidence is above this; 1 is the least there is.
        every: take every n-th frame.
        voxel: distance of the samples of the fused field, in the run's unit; by default two pixels.
        most_blocks: blocks of 8x8x8 samples, 10 kB each, to hold at most; samples move apart until
            they suffice.

    Returns:
        What was written.

    Raises:
        SettingError: if an option makes no sense.
        RunError: if the run holds no points, intrinsics or poses, or if no surface is found.
        MissingExtraError: if trimesh or scikit-image is not installed.
        OSError: if the file cannot be written.
    """
    try:
        import trimesh
        from trimesh.exchange.gltf import export_glb
        from trimesh.exchange.ply import export_ply
    except ImportError as error:
        raise MissingExtraError("trimesh", "export", "exporting a mesh") from error

    check_steps(every=every, most_blocks=most_blocks)
    check_voxel(voxel)
    check_confidence(min_confidence)
    fusion: Fusion | None = None
    left_out = 0
    for prediction in islice(predictions, 0, None, every):
        if not is_placed(prediction):
            left_out += 1
            continue
        depth, weight = depth_and_weight(prediction, min_confidence)
        if fusion is None and (weight > 0).any():
            fusion = Fusion(voxel or _two_pixels(prediction, depth, weight), most_blocks)
        if fusion is not None:
            fuse(fusion, prediction, depth, weight)
    surface = Surface(*(np.empty((0, 3)),) * 3) if fusion is None else surface_of(fusion)
    if fusion is None or len(surface.faces) == 0:
        raise RunError(
            "no surface was found, so there is nothing to write. Choose a lower min_confidence or "
            "a smaller voxel (on the command line, --min-confidence, --voxel)"
        )
    mesh = trimesh.Trimesh(
        surface.vertices, surface.faces, vertex_colors=surface.colours, process=False
    )
    if path.suffix.lower() == ".glb":
        scene = trimesh.Scene()
        scene.add_geometry(mesh, node_name="mesh", geom_name="mesh", transform=GLTF_FROM_WORLD)
        path.write_bytes(export_glb(scene))
    else:
        path.write_bytes(export_ply(mesh))
    wider = voxel is not None and fusion.voxel > voxel
    note = " (wider than asked for to bound memory)" if wider else ""
    about = f"{len(surface.vertices):,} vertices, samples {fusion.voxel:.3g} apart{note}"
    return f"{len(surface.faces):,} triangles, {about}{left_out_text(left_out)}"


def fuse(fusion: Fusion, prediction: Prediction, depth: np.ndarray, weight: np.ndarray) -> None:
    """Add a placed frame to a field.

    Raises:
        RunError: if the prediction has no intrinsics.
    """
    image = prediction.image
    colours = np.full((*depth.shape, 3), GREY, np.uint8) if image is None else image.numpy()
    assert prediction.world_from_camera is not None
    pose = prediction.world_from_camera.double().numpy()
    fusion.add(depth, weight, colours, _intrinsics(prediction), pose)


def depth_and_weight(
    prediction: Prediction, min_confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Depth and how much each pixel counts: 0 where it is unknown or not confident enough.

    A point's error grows about as its distance, and each of n like errors counts as 1 / variance
    in a mean, so far pixels count less by the square of their depth.
    """
    points, confidence = points_of(prediction)
    depth = points[..., 2].float()
    known = (depth > 0) & (points.abs() < LARGEST_HALF).all(dim=-1) & confidence.isfinite()
    known &= confidence > min_confidence
    weight = torch.where(known, depth.clamp(min=1e-6) ** -2, 0.0)
    return torch.where(known, depth, 0.0).numpy(), weight.numpy()


def _two_pixels(prediction: Prediction, depth: np.ndarray, weight: np.ndarray) -> float:
    median = float(np.median(depth[weight > 0]))
    return PIXELS * median / math.sqrt(np.linalg.det(_intrinsics(prediction)[:2, :2]))


def _intrinsics(prediction: Prediction) -> np.ndarray:
    if prediction.intrinsics is None:
        raise RunError("this run holds no intrinsics; run again with the output 'points'")
    matrix = prediction.intrinsics.double().numpy()
    if not np.isfinite(matrix).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise SettingError(f"frame {prediction.index} has no usable intrinsics: {matrix.tolist()}")
    return matrix
