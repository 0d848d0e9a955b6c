"""Synthetic clips on disk: a video, and a folder that tells the truth about each of its frames.

The folder holds, for frame i, `rgb/NNNNNN.png` (without the losses of the video),
`depth/NNNNNN.png` (uint16 millimetres along the optical axis, 0 for none) and `motion/NNNNNN.png`
(255 on things that move); in `poses.txt` line i after the comment is `stamp tx ty tz qx qy qz qw`,
camera-to-world, where the world is the first camera; `intrinsics.txt` is `fx fy cx cy` in pixels.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from av.error import FFmpegError
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from ttt3r.drawing.videos import CONTAINERS, video_writer
from ttt3r.errors import RunError, SettingError
from ttt3r.files import new_whole, write_atomically, write_text
from ttt3r.geometry.rotation import quaternion_from_matrix
from ttt3r.geometry.se3 import invert
from ttt3r.scenes.clip import Clip, Scene

RATE = 30

POSES, INTRINSICS, README = "poses.txt", "intrinsics.txt", "README.md"
FOLDERS = ("rgb", "depth", "motion")
IMAGE = re.compile(r"\d{6,}\.png")
POSES_HEAD = "# stamp tx ty tz qx qy qz qw   (camera-to-world, OpenCV axes), line i = frame i\n"
MARK = "# A synthetic scene by ttt3r"
MOST_MILLIMETRES = 65535


def record(
    scene: Scene,
    video: Path,
    truth: Path | None = None,
    *,
    overwrite: bool = False,
    done: Callable[[int], object] = lambda frames: None,
) -> None:
    """Render a scene into a video and, if wanted, a folder that tells the truth about it.

    One frame at a time is in memory. Both names appear only when everything is written; an error
    from `done` ends the recording and leaves no file.

    Args:
        scene: what to render, whole.
        video: file to write: .mp4, .mov or .mkv; folders on the way are made.
        truth: folder to write; see the module for what is in it.
        overwrite: replace a video, and a folder that this function wrote.
        done: called with the number of frames written so far.

    Raises:
        SettingError: if the names do not allow it.
        RunError: if something cannot be written.
    """
    check_names(video, truth, overwrite=overwrite)

    def write(file: Path, folder: Path | None) -> None:
        container = CONTAINERS[video.suffix.lower()]
        with video_writer(file, container, scene.size, RATE) as add:
            for number, clip in enumerate(scene.chunks(1)):
                add(clip.image[0].numpy(), number)
                if folder is not None:
                    _add_truth(folder, number, clip, scene)
                done(number + 1)

    try:
        video.parent.mkdir(parents=True, exist_ok=True)
        if truth is None:
            write_atomically(video, lambda file: write(file, None))
            return
        truth.parent.mkdir(parents=True, exist_ok=True)
        with new_whole(truth.resolve()) as folder:
            for name in FOLDERS:
                (folder / name).mkdir(parents=True)
            write_atomically(video, lambda file: write(file, folder))
    except (OSError, FFmpegError) as error:
        what = f"{video}" if truth is None else f"{video} and {truth}"
        raise RunError(
            f"cannot write {what}: {error.strerror or error}. Make room or fix the permissions, "
            "or choose other names."
        ) from error


def check_names(video: Path, truth: Path | None, *, overwrite: bool) -> None:
    """Check, without changing anything, that the outputs may have these names.

    Raises:
        SettingError: if something must not be replaced, or one name lies in the other.
    """
    if video.suffix.lower() not in CONTAINERS:
        known = ", ".join(CONTAINERS)
        raise SettingError(
            f"{video.name} does not end in one of {known}; give the video such a name"
        )
    if video.is_dir():
        raise SettingError(f"{video} is a folder; choose the name of a video file")
    if video.exists() and not overwrite:
        raise SettingError(f"{video} exists already; add --overwrite, or choose another file")
    if truth is None:
        return
    file, folder = video.resolve(), truth.resolve()
    if file == folder or folder in file.parents or file in folder.parents:
        raise SettingError(f"neither of {video} and {truth} may lie in the other; choose two names")
    if truth.exists() and not truth.is_dir():
        raise SettingError(f"{truth} is a file; choose another folder for the truth")
    if truth.is_dir() and any(truth.iterdir()) and not (overwrite and _is_ours(truth)):
        advice = "add --overwrite, or " if _is_ours(truth) else ""
        raise SettingError(f"{truth} is not empty; {advice}choose a new folder for the truth")


def _is_ours(folder: Path) -> bool:
    """Whether `record` wrote a folder, and nobody put anything beside what it wrote."""
    names = {path.name for path in folder.iterdir()}
    if not names <= {POSES, INTRINSICS, README, *FOLDERS} or not (folder / README).is_file():
        return False
    inside = (path.name for name in FOLDERS for path in (folder / name).glob("*"))
    if not all(map(IMAGE.fullmatch, inside)):
        return False
    return (folder / README).read_text("utf-8", errors="replace").startswith(MARK)


def _add_truth(folder: Path, number: int, clip: Clip, scene: Scene) -> None:
    """Write what is true of one frame, and with the first what is true of all."""
    if number == 0:
        (fx, _, cx), (_, fy, cy), _ = clip.intrinsics[0].tolist()
        write_text(folder / INTRINSICS, f"{fx:.4f} {fy:.4f} {cx:.4f} {cy:.4f}\n")
        write_text(folder / POSES, POSES_HEAD)
        write_text(folder / README, _readme(scene))
    name = f"{number:06d}.png"
    Image.fromarray(clip.image[0].numpy()).save(folder / "rgb" / name)
    Image.fromarray(millimetres(clip.depth[0])).save(folder / "depth" / name)
    Image.fromarray(_mask(clip.moving[0])).save(folder / "motion" / name)
    with (folder / POSES).open("a", encoding="utf-8", newline="\n") as file:
        file.write(_pose_line(number, scene))


def millimetres(depth: Float[Tensor, "height width"]) -> np.ndarray:
    """Depth in metres as uint16 millimetres [height, width]; 0 beyond what those can hold."""
    whole = (depth.double() * 1000).round().numpy()
    return np.where(whole > MOST_MILLIMETRES, 0, whole).astype(np.uint16)


def _mask(chosen: Bool[Tensor, "height width"]) -> np.ndarray:
    return chosen.numpy().astype(np.uint8) * 255


def _pose_line(number: int, scene: Scene) -> str:
    first, pose = (scene.pose(frame) for frame in (0, number))
    first_from_camera = invert(first) @ pose
    w, x, y, z = quaternion_from_matrix(first_from_camera[:3, :3]).tolist()
    numbers = (*first_from_camera[:3, 3].tolist(), x, y, z, w)
    return f"{number / RATE:.6f} " + " ".join(f"{value:.7f}" for value in numbers) + "\n"


def _readme(scene: Scene) -> str:
    height, width = scene.size
    return (
        f"{MARK}\n\n"
        f"{scene.world}, seed {scene.seed}, {len(scene)} frames of {width}x{height} at {RATE} per "
        "second.\n\n"
        "* rgb/: the frames, without the losses of the video\n"
        f"* depth/: uint16 millimetres along the optical axis; 0: nothing there, or beyond "
        f"{MOST_MILLIMETRES / 1000} m\n"
        "* motion/: 255 on things that move in the world, else 0\n"
        f"* {POSES}: seconds, position and quaternion x y z w; camera-to-world, OpenCV axes, "
        "metres; the world is the first camera\n"
        f"* {INTRINSICS}: fx fy cx cy in pixels, centres at integers\n"
    )
