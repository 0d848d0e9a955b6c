"""Render a clip, reconstruct it, compare with its truth: `python -m examples.demo FOLDER`."""

import shlex
import sys
from pathlib import Path

from examples.compare import compare, read_record
from examples.overview import draw_overview
from ttt3r import Run
from ttt3r.cli import main as ttt3r

SEED, FRAMES = 5, 40


def command(*words: object) -> int:
    """Run a ttt3r command as a user would type it; return its exit status."""
    text = [str(word) for word in words]
    print(f"$ ttt3r {shlex.join(text)}", flush=True)
    return ttt3r(text)


def main(folder: Path) -> int:
    """Fill `folder` with a clip, its truth, its run, a point cloud and a picture.

    Returns the exit status.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clip, truth, out, cloud = (folder / n for n in ("clip.mp4", "truth", "run", "cloud.ply"))
    scene = ("scene", "--world", "room", "--style", "hand", "--seed", SEED, "--frames", FRAMES)
    scene += ("--out", clip, "--truth", truth)
    export = ("export", out, "--to", "ply", "--out", cloud, "--min-confidence", 1.2)
    for words in (scene, ("run", clip, "--out", out), export):
        status = command(*words, "--overwrite")
        if status:
            return status
    run = Run.open(out)
    record = read_record(run, truth)
    rows = compare(record)
    print(f"\n{'error of':<34} {'this run':>8} {'baseline':>10}")
    for row in rows:
        print(row)
    picture = folder / "overview.png"
    draw_overview(run, record, picture, f"{clip.name}, synthetic, {len(run)} frames")
    print(f"\nOpen {picture} first, then {cloud} in any point cloud viewer;")
    print(f"the camera path is {out / 'trajectory.tum'} (TUM format), the truth is in {truth}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo")))
