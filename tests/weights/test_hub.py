"""Folders downloaded from a hub keep the name, the origin and the licence of their weights."""

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests.weights.published import FAST3R_CONFIG, save_fast3r
from ttt3r.models.fast3r.config import TINY as TINY_FAST3R
from ttt3r.weights import CATALOGUE, licence_notice, read_weights
from ttt3r.weights.hub import stated_licence
from ttt3r.weights.random import random_weights


def snapshot(cache: Path, owner: str, name: str) -> Path:
    """A download as the hub's client lays it out: links to files named after their digest."""
    blobs = save_fast3r(cache / f"models--{owner}--{name}" / "blobs", random_weights(TINY_FAST3R))
    folder = blobs.parent / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    for i, path in enumerate(sorted(blobs.iterdir())):
        blob = path.rename(blobs / f"{i}f00")
        (folder / path.name).symlink_to(Path("../../blobs") / blob.name)
    return folder


@pytest.mark.parametrize("file", ["", "model.safetensors"])
def test_a_snapshot_keeps_its_licence(file: str, tmp_path: Path) -> None:
    folder = snapshot(tmp_path, "someone", "my--fast3r")
    (folder / "README.md").write_text("---\ntags: [3d]\nlicense: cc-by-nc-4.0\n---\n# Title\n")
    info = read_weights(folder / file)[0]
    assert (info.name, info.licence) == ("someone/my--fast3r", "CC-BY-NC-4.0")
    assert info.origin == "https://huggingface.co/someone/my--fast3r"
    assert licence_notice(info).endswith("licence CC-BY-NC-4.0, no commercial use.")


def test_a_snapshot_of_weights_that_are_known_by_name_is_recognised(tmp_path: Path) -> None:
    info = read_weights(snapshot(tmp_path, "jedyang97", "Fast3R_ViT_Large_512"))[0]
    known = CATALOGUE["fast3r_vit_large_512"].info(info.sha256)
    assert replace(info, config=None, preparation=None) == known


def test_a_plain_folder_keeps_its_licence(tmp_path: Path) -> None:
    folder = save_fast3r(tmp_path / "mine", random_weights(TINY_FAST3R), FAST3R_CONFIG)
    assert read_weights(folder)[0].licence == "unknown"
    (folder / "LICENSE").write_text("\n  # Apache License\n Version 2.0\n")
    info = read_weights(folder)[0]
    assert (info.name, info.licence, info.origin) == ("mine", "Apache License", "unknown")
    assert licence_notice(info) == "weights mine: licence Apache License."
    # Another file in the folder may be of anybody.
    save_file(random_weights(TINY_FAST3R), folder / "other.safetensors")
    assert read_weights(folder / "other.safetensors")[0].licence == "unknown"


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n", "Apache-2.0"),
        ("\ufeff---\r\nlicense: 'mit'\r\nother: 1\r\n---\r\n", "MIT"),
        ("---\nlicense:\n- cc-by-sa-4.0\n- mit\n---\n", "CC-BY-SA-4.0"),
        ("---\nlicense: other\nlicense_name: fair-noncommercial\n---\n", "fair-noncommercial"),
        ("---\nlicense: other\n---\n", None),
        ("---\nlicense:\n---\n", None),
        ("# Title\nlicense: mit\n", None),
        ("---\nlicense: mit\n", None),
        ("", None),
    ],
)
def test_front_matter(readme: str, licence: str | None, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(readme.encode())
    assert stated_licence(tmp_path) == licence
