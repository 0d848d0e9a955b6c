"""A CUT3R checkpoint of the released size from an imitation of the hub: fetch, convert, run."""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.sources.clips import write_clip
from tests.weights.fetching.publisher import like_the_hub
from tests.weights.fetching.servers import Server, serving
from ttt3r import Run
from ttt3r.models.cut3r.config import Cut3rConfig
from ttt3r.scenes import make_clip
from ttt3r.weights.random import random_weights

NAME = "cut3r_512_dpt_4_64"
PATH = f"/owner/cut3r/resolve/abc/{NAME}.pth"
CALL = (
    "ARCroco3DStereo(ARCroco3DStereoConfig(freeze='encoder', state_size=768, state_pe='2d', "
    "pos_embed='RoPE100', rgb_head=True, pose_head=True, img_size=(512, 512), head_type='dpt', "
    "output_mode='pts3d+pose', depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), "
    "pose_mode=('exp', -inf, inf), enc_embed_dim=1024, enc_depth=24, enc_num_heads=16, "
    "dec_embed_dim=768, dec_depth=12, dec_num_heads=12, patch_embed_cls='ManyAR_PatchEmbed', "
    "landscape_only=False))"
)
LARGEST = 37_748_736  # bytes of the largest tensor
# What a process is told: which file a name of the catalogue stands for, and a command to run.
PROGRAM = """
import sys
from dataclasses import replace
from pathlib import Path
from ttt3r.cli import main
from ttt3r.weights.catalogue import CATALOGUE
import ttt3r.weights.convert, ttt3r.weights.loading, ttt3r.weights.fetching

def largest_yet():
    lines = Path("/proc/self/status").read_text().splitlines()  # rusage has that of the parent
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

before = largest_yet()
name, place, size, sha256, *words = sys.argv[1:]
file = replace(CATALOGUE[name].files[0], places=(place,), size=int(size), sha256=sha256)
CATALOGUE[name] = replace(CATALOGUE[name], files=(file,))
status = main(words)
print("peak", before, largest_yet())
sys.exit(status)
"""

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("all_threads")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """As upstream saves it; random weights of the released shapes."""
    path = tmp_path_factory.mktemp("published") / f"{NAME}.pth"
    content = {"args": argparse.Namespace(model=CALL), "model": random_weights(Cut3rConfig())}
    assert max(tensor.nbytes for tensor in content["model"].values()) == LARGEST
    torch.save(content, path)
    del content
    yield path
    path.unlink()  # pytest keeps folders of several runs


@pytest.fixture(autouse=True)
def small_leftovers(weights: Path) -> Iterator[None]:
    yield
    shutil.rmtree(weights, ignore_errors=True)


def ttt3r(checkpoint: Path, *words: object) -> tuple[str, int]:
    """Run a command in a process of its own.

    Returns:
        What it printed, and by how much its memory grew beyond what the loaded libraries take.
    """
    with checkpoint.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    stated = (NAME, f"hub:owner/cut3r@abc/{NAME}.pth", checkpoint.stat().st_size, sha256)
    command = [sys.executable, "-c", PROGRAM, *map(str, (*stated, *words))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    text, _, sizes = done.stdout.rpartition("peak ")
    before, peak = map(int, sizes.split())
    return text + done.stderr, peak - before


def test_fetch_convert_and_run_in_one_line(
    checkpoint: Path, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "walk.mp4", list(make_clip(1, 2, (96, 128)).image.numpy()))
    hub, store = Server(), Server(etags={f"/bytes{PATH}": '"whole"'}, cuts=[10**9, 5 * 10**8])
    with serving(hub), serving(store):
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        like_the_hub(hub, store, {PATH: checkpoint})
        words = ("run", clip, "--model", "cut3r_512_dpt_4_64", "--fetch", "--accept-licence")
        text, _ = ttt3r(
            checkpoint, *words, "--size", "128", "--device", "cpu", "--out", tmp_path / "run"
        )
        assert [request.begin is None for request in store.requests] == [True, False, False]
    assert "fetching" in text and "converting" in text
    run = Run.open(tmp_path / "run")
    assert len(run) == 2 and run.manifest["model"]["name"] == NAME
    assert json.loads((weights / NAME / "config.json").read_text())["family"] == "cut3r"
    assert not (weights / NAME / "original").exists()


@pytest.mark.parametrize("half", [[], ["--half"]], ids=["float32", "bfloat16"])
def test_peak_memory_of_fetching_and_converting(
    half: list[str], checkpoint: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 1.2 times the largest tensor and 100 MB, beyond what the loaded libraries take.

    The libraries' own share, mostly PyTorch's, differs between machines by up to 100 MB.
    """
    hub, store = Server(), Server(etags={f"/bytes{PATH}": '"whole"'})
    with serving(hub), serving(store):
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        like_the_hub(hub, store, {PATH: checkpoint})
        _, growth = ttt3r(checkpoint, "fetch", NAME, "--accept-licence", *half)
    assert growth <= 1.2 * LARGEST + 100e6
