"""Synthetic clips on disk: a video, and a folder that tells the truth about each of its frames.

The folder holds, for frame i, `rgb/NNNNNN.png` (without the losses of the video),
`depth/NNNNNN.png` (uint16 millimetres along the optical axis, 0 for none) and `motion/NNNNNN.png`
(255 on things that move); in `poses.txt` line i after the comment is `stamp tx ty tz qx qy qz qw`,
camera-to-world, where the world is the first camera; `intrinsics.txt` is `fx fy cx cy` in pixels.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.error import FFmpegError
from av.video.stream import VideoStream
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from ttt3r.errors import RunError, SettingError
from ttt3r.files import write_atomically
from ttt3r.geometry.rotation import quaternion_from_matrix
from ttt3r.geometry.se3 import invert
from ttt3r.scenes.clip import Clip, Scene

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
ENCODERS = {"libx264": {"crf": "16"}, "libopenh264": {"b": "8M"}, "mpeg4": {"b": "8M"}}
RATE = 30

POSES, INTRINSICS, README = "poses.txt", "intrinsics.txt", "README.md"
FOLDERS = ("rgb", "depth", "motion")
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

    One frame at a time is in memory. Nothing is found under either name before everything is
    written; whatever `done` raises ends the recording without a trace.

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
        with _encoder(file, CONTAINERS[video.suffix.lower()], scene.size) as encode:
            for number, clip in enumerate(scene.chunks(1)):
                encode(clip)
                if folder is not None:
                    _add_truth(folder, number, clip, scene)
                done(number + 1)

    try:
        video.parent.mkdir(parents=True, exist_ok=True)
        if truth is None:
            write_atomically(video, lambda file: write(file, None))
            return
        truth.parent.mkdir(parents=True, exist_ok=True)
        with _new_folder(truth.resolve()) as folder:
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
        SettingError: if something of value is there, or the names get in each other's way.
    """
    if video.suffix.lower() not in CONTAINERS:
        known = ", ".join(CONTAINERS)
        raise SettingError(f"the name of a video ends in one of {known}, unlike {video.name}")
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
    return (folder / README).read_text("utf-8", errors="replace").startswith(MARK)


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """Give a folder that takes the name `path`, and the place of what is there, if all goes well.

    Otherwise it is removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    before = path.with_name(f".{path.name}.{os.getpid()}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for name in FOLDERS:
            (temporary / name).mkdir(parents=True)
        yield temporary
        try:
            if path.exists():
                path.replace(before)
            temporary.replace(path)
        except BaseException:
            if before.exists() and not path.exists():
                before.replace(path)
            raise
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _encoder(
    path: Path, container_format: str, size: tuple[int, int]
) -> Iterator[Callable[[Clip], None]]:
    """Open a video; what it gives appends the frames of a clip."""
    name = next(name for name in ENCODERS if _can_encode(name))
    with av.open(f"file:{path}", "w", format=container_format) as container:
        added = container.add_stream(name, rate=RATE, options=ENCODERS[name])
        stream = cast(VideoStream, added)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"

        def encode(clip: Clip) -> None:
            for image in clip.image.numpy():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))

        yield encode
        container.mux(stream.encode(None))


def _can_encode(name: str) -> bool:
    try:
        av.Codec(name, "w")
    except ValueError:
        return False
    return True


def _add_truth(folder: Path, number: int, clip: Clip, scene: Scene) -> None:
    """Write what is true of one frame, and with the first what is true of all."""
    if number == 0:
        (fx, _, cx), (_, fy, cy), _ = clip.intrinsics[0].tolist()
        (folder / INTRINSICS).write_text(f"{fx:.4f} {fy:.4f} {cx:.4f} {cy:.4f}\n", "utf-8")
        (folder / POSES).write_text(POSES_HEAD, "utf-8")
        (folder / README).write_text(_readme(scene), "utf-8")
    name = f"{number:06d}.png"
    Image.fromarray(clip.image[0].numpy()).save(folder / "rgb" / name)
    Image.fromarray(millimetres(clip.depth[0])).save(folder / "depth" / name)
    Image.fromarray(_mask(clip.moving[0])).save(folder / "motion" / name)
    with (folder / POSES).open("a", encoding="utf-8") as file:
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
