"""Access to the golden data, which live outside the project and may be absent.

The folder is `TTT3R_GOLDENS`, or `../shared/goldens` beside the project. It is read in place.
"""

import os
from pathlib import Path

import numpy as np
import pytest

PROJECT_ROOT = Path(__file__).resolve().parents[1]
DEFAULT_FOLDER = PROJECT_ROOT.parent / "shared" / "goldens"


def goldens(family: str) -> Path:
    """Return the folder of a family's goldens ("cut3r", say), or skip the test or module."""
    root = Path(os.environ.get("TTT3R_GOLDENS") or DEFAULT_FOLDER)
    folder = root / family
    if not folder.is_dir():
        pytest.skip(
            f"no golden data at {folder}; set TTT3R_GOLDENS to the folder that holds '{family}'",
            allow_module_level=True,
        )
    return folder


def load_npz(family: str, name: str) -> dict[str, np.ndarray]:
    """Return every array of the file `name` (with or without .npz), or skip if it is absent."""
    path = goldens(family) / (name if name.endswith(".npz") else f"{name}.npz")
    if not path.is_file():
        pytest.skip(f"no golden file {path}", allow_module_level=True)
    with np.load(path) as archive:
        return {key: archive[key] for key in archive.files}
