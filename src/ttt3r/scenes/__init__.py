"""Synthetic scenes whose depth, camera path, intrinsics and motion are known exactly."""

from ttt3r.scenes.clip import Clip, Scene, SceneOptions, make_clip
from ttt3r.scenes.worlds import WORLDS

__all__ = ["WORLDS", "Clip", "Scene", "SceneOptions", "make_clip"]
