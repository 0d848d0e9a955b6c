"""The names and the example that the documentation promises."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ttt3r
from tests.sources.clips import numbered_clip, picture

NAMES = {
    "load",
    "Session",
    "reconstruct",
    "Run",
    "RunFolder",
    "rules",
    "compare",
    "track",
    "resets",
    "open_source",
    "prepare_frame",
    "Frame",
    "Intrinsics",
    "Prediction",
    "Camera",
    "Ttt3rError",
    "__version__",
    "export",
    "fetch",
}


def test_names():
    assert set(ttt3r.__all__) == NAMES
    assert set(dir(ttt3r)) >= NAMES | {"__version__"}
    for name in NAMES:
        assert getattr(ttt3r, name) is getattr(ttt3r, name)
    assert ttt3r.resets.Every(100).frames == 100 and "ttt3r" in ttt3r.rules.REGISTRY.names
    assert ttt3r.__version__ == "0.1.0"
    with pytest.raises(AttributeError, match="nonsense"):
        ttt3r.nonsense  # noqa: B018


def test_importing_is_light():
    code = (
        "import sys, ttt3r; dir(ttt3r); ttt3r.__version__; ttt3r.Ttt3rError\n"
        "print(sorted({'torch', 'numpy', 'av', 'PIL', 'rich', 'tyro'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_the_documented_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The block of the design and the README, line by line."""
    monkeypatch.chdir(tmp_path)
    numbered_clip(tmp_path / "walk.mp4", 14)
    image: np.ndarray = picture(3)
    path = "session.safetensors"

    model = ttt3r.load("builtin", device="auto", precision="auto")
    session = ttt3r.Session(model, rule="ttt3r", reset=None, outputs=("points", "pose"))
    p = session.push(image)
    assert p.points.shape == (48, 64, 3) and p.confidence.shape == (48, 64)
    assert p.world_from_camera.shape == (4, 4) and p.intrinsics.shape == (3, 3)
    assert p.original_intrinsics.shape == (3, 3)
    assert p.pose_encoding.shape == (7,) and p.gate is None
    assert p.world_points is None and p.world_confidence is None and p.rgb is None
    assert session.state.tokens.ndim == session.state.pose_memory.ndim == 3
    session.save(path)
    again = ttt3r.Session.load(path, model)
    later = again.push(image)
    assert torch.equal(later.points, session.push(image).points)
    assert ((later.gate > 0) & (later.gate < 1)).all()

    seen = []
    for p in ttt3r.reconstruct(
        "walk.mp4", model=model, rule="ttt3r", reset=ttt3r.resets.Every(100), out="run/"
    ):
        seen.append(p)
    assert len(seen) == 14
    run = ttt3r.Run.open("run/")
    assert len(run.trajectory()) == 14
    assert torch.equal(run[12].world_from_camera, seen[12].world_from_camera)
    assert ttt3r.export(run, "ply", "cloud.ply").path == Path("cloud.ply")
    assert Path("cloud.ply").stat().st_size > 1000


def test_as_a_module():
    command = [sys.executable, "-m", "ttt3r", "--version"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "ttt3r 0.1.0\n")
