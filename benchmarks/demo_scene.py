"""Which scene the demo shows: the median one of twenty: `python -m benchmarks.demo_scene FOLDER`.

Scenes are ranked by depth and by the path, each error over that of an answer without images. The
one in the middle of the mean of both ranks is neither the best nor the worst of these weights.
"""

import sys
from pathlib import Path

import numpy as np

from examples import demo
from ttt3r import Run

SEEDS = range(20)


def errors(folder: Path, seed: int) -> list[float]:
    """Errors of depth, rotation and path on one scene, each over that of its baseline."""
    clip, truth, out = (folder / f"{name}-{seed}" for name in ("clip", "truth", "run"))
    clip = clip.with_suffix(".mp4")
    made = ("scene", "--world", "room", "--style", "hand", "--seed", seed, "--frames", demo.FRAMES)
    steps = ((*made, "--out", clip, "--truth", truth), ("run", clip, "--out", out))
    if any(demo.command(*words, "--overwrite") for words in steps):
        raise SystemExit(1)
    rows = demo.compare(demo.read_record(Run.open(out), truth))
    return [row.error / row.baseline for row in rows]


def main(folder: Path) -> None:
    """Print the errors of all scenes, from the best to the worst."""
    folder.mkdir(parents=True, exist_ok=True)
    table = np.array([errors(folder, seed) for seed in SEEDS])
    ranks = table.argsort(0).argsort(0)[:, [0, 2]].mean(1)
    order = ranks.argsort(kind="stable")
    print("seed  depth  rotation  path   (over the baseline's)")
    for place, seed in enumerate(order):
        note = "  the median" if place == len(order) // 2 else ""
        depth, rotation, path = table[seed]
        print(f"{seed:4}  {depth:5.2f}  {rotation:8.2f}  {path:5.2f}{note}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "training-runs/demo-scene"))
