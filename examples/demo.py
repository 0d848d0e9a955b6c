"""Run the main job on a generated clip: `python -m examples.demo FOLDER`."""

import sys
from pathlib import Path

from examples.clip import write_clip
from examples.overview import draw_overview
from ttt3r import Run
from ttt3r.cli import main as ttt3r


def main(folder: Path) -> int:
    """Fill `folder` with a clip, its run, a point cloud and a picture; return the exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    clip, out = folder / "clip.mp4", folder / "run"
    write_clip(clip)
    print(f"$ ttt3r run {clip} --out {out} --overwrite")
    status = ttt3r(["run", str(clip), "--out", str(out), "--overwrite"])
    if status:
        return status
    cloud = folder / "cloud.ply"
    print(f"$ ttt3r export {out} --to ply --out {cloud} --overwrite")
    status = ttt3r(["export", str(out), "--to", "ply", "--out", str(cloud), "--overwrite"])
    if status:
        return status
    run = Run.open(out)
    trained = run.manifest["model"]["trained"]
    notice = "" if trained else "RANDOM WEIGHTS: this is not a reconstruction"
    draw_overview(run, folder / "overview.png", notice or "What the network sees")
    print()
    if not trained:
        print("The built-in weights are random for now, so this is NOT a reconstruction: the demo")
        print("shows that everything from video to point cloud runs. For real output convert the")
        print("published weights: see `ttt3r models` and docs/getting-started.md.")
    print(f"Open {folder / 'overview.png'} first, then {cloud} in any point cloud viewer;")
    print(f"the camera path is {out / 'trajectory.tum'} (TUM format).")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo")))
