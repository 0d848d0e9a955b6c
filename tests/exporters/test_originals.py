"""The images behind a run: found again, linked or written, and what happens when they are gone."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from tests.exporters.truth import (
    FRAMES,
    PREPARATION,
    SIZE,
    Truth,
    exact_run,
    truth_of,
    write_run,
    write_source,
)
from ttt3r.errors import RunError
from ttt3r.exporters.originals import originals
from ttt3r.runs.frame_file import write_prediction
from ttt3r.runs.reader import Run, frame_path
from ttt3r.scenes.clip import Clip
from ttt3r.sources import open_source, prepare_frame
from ttt3r.types import Frame, Prediction

HEIGHT, WIDTH = SIZE


def saved(run: Run, folder: Path, place: Path | None = None) -> list[tuple[str, np.ndarray]]:
    """Names and images, with their size checked."""
    folder.mkdir()
    result = []
    with originals(run, place) as found:
        for prediction in run:
            pixels, name = found.pixels(prediction), found.save(prediction, folder)
            image = np.asarray(PillowImage.open(folder / name))
            assert image.shape[1::-1] == pixels.size
            result.append((name, image))
    return result


@pytest.fixture
def truth(clip: Clip, tmp_path: Path) -> Truth:
    return truth_of(clip, tmp_path)


def test_images_are_linked(clip: Clip, truth: Truth, tmp_path: Path):
    found = saved(truth.run, tmp_path / "out")
    assert [name for name, _ in found] == [f"shot{n + 1:02d}.png" for n in range(FRAMES)]
    for (name, image), wanted in zip(found, clip.image.numpy(), strict=True):
        np.testing.assert_array_equal(image, wanted)
        assert (tmp_path / "out" / name).samefile(tmp_path / "source" / name)


def test_intrinsics_are_those_of_the_originals(truth: Truth):
    with originals(truth.run) as found:
        for prediction in truth.run:
            assert prediction.intrinsics is not None
            got = found.pixels(prediction).intrinsics(prediction.intrinsics.double().numpy())
            np.testing.assert_allclose(got, truth.intrinsics, rtol=1e-5, atol=1e-3)


def test_a_video_is_decoded(clip: Clip, tmp_path: Path):
    truth = truth_of(clip, tmp_path, ".mp4")
    found = saved(truth.run, tmp_path / "out")
    assert [name for name, _ in found] == [f"{n:06d}.jpg" for n in range(FRAMES)]
    for (_, image), wanted in zip(found, clip.image.numpy(), strict=True):
        assert np.abs(image.astype(float) - wanted).mean() < 6  # losses of H.264 and JPEG


def test_some_frames_of_a_turned_video(clip: Clip, tmp_path: Path):
    path = write_source(clip, tmp_path / "source.mp4")
    source = open_source(path, stride=2, rotate=90, crop="1:1")

    def predict(frame: Frame) -> Prediction:
        transform = prepare_frame(frame, PREPARATION).transform
        return Prediction(index=frame.index, timestamp=0.0, transform=transform)

    run = write_run(source, tmp_path / "run", predict)
    with originals(run) as found:
        last = run[len(run) - 1]
        assert found.pixels(last).size == (WIDTH, HEIGHT) and found.pixels(last).turns == 1
        image = np.asarray(PillowImage.open(tmp_path / found.save(last, tmp_path)))
    wanted = clip.image[8].numpy()
    assert np.abs(image.astype(float) - wanted).mean() < 6


def test_a_pattern_and_one_image(clip: Clip, tmp_path: Path):
    truth_of(clip, tmp_path / "a")
    for name, source in (("pattern", "a/source/shot*1.png"), ("one", "a/source/shot01.png")):
        run = exact_run(clip, open_source(tmp_path / source), tmp_path / name)
        assert [n for n, _ in saved(run, tmp_path / f"{name}-out")] == ["shot01.png"]


def test_a_list_of_images(clip: Clip, tmp_path: Path):
    """From two folders: both are found again, also where they were moved together."""
    files = []
    for name, part in (("left", slice(0, 3)), ("right", slice(3, 6))):
        for number, image in enumerate(clip.image.numpy()[part]):
            files.append(tmp_path / "all" / name / f"shot{number}.png")
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            PillowImage.fromarray(image).save(files[-1])
    run = exact_run(clip, open_source(files), tmp_path / "run")
    found = saved(run, tmp_path / "out")
    for (_, image), wanted in zip(found, clip.image.numpy(), strict=False):
        np.testing.assert_array_equal(image, wanted)
    assert [name for name, _ in found] == [f"{number:06d}.png" for number in range(6)]
    (tmp_path / "all").rename(tmp_path / "moved")
    assert saved(run, tmp_path / "out2", tmp_path / "moved")[5][1].shape == (HEIGHT, WIDTH, 3)


def test_a_folder_that_was_moved(truth: Truth, tmp_path: Path):
    (tmp_path / "source").rename(tmp_path / "moved")
    found = saved(truth.run, tmp_path / "out", tmp_path / "moved")
    assert found[0][0] == "shot01.png"
    with pytest.raises(RunError, match=r"does not hold .*shot01.png is not there any more"):
        saved(truth.run, tmp_path / "out2", tmp_path / "run")


@pytest.mark.parametrize("change", ["gone", "one gone", "changed", "video gone", "video changed"])
def test_what_changed_is_not_taken(
    clip: Clip, tmp_path: Path, caplog: pytest.LogCaptureFixture, change: str
):
    truth = truth_of(clip, tmp_path, ".mp4" if "video" in change else "")
    source = next(tmp_path.glob("source*"))
    if change == "one gone":
        (source / "shot03.png").unlink()
    elif "gone" in change:
        source.rename(tmp_path / "elsewhere")
    else:
        file = source if source.is_file() else source / "shot02.png"
        file.write_bytes(file.read_bytes() + b"x")
    with caplog.at_level(logging.WARNING):
        found = saved(truth.run, tmp_path / "out")
    assert "--images PATH" in caplog.text and "that the network saw" in caplog.text
    for (_, image), prediction in zip(found, truth.run, strict=True):
        assert prediction.image is not None
        np.testing.assert_array_equal(image, prediction.image.numpy())


def test_nothing_to_write(truth: Truth, tmp_path: Path):
    (tmp_path / "source").rename(tmp_path / "elsewhere")
    for prediction in truth.run:
        path = frame_path(truth.run.folder, prediction.index)
        write_prediction(path, replace(prediction, image=None))
    with pytest.raises(RunError, match="has no image in the run"):
        saved(truth.run, tmp_path / "out")


def test_files_that_others_cannot_read_are_written_anew(clip: Clip, tmp_path: Path):
    folder = tmp_path / "source"
    folder.mkdir()
    pictures = [PillowImage.fromarray(image) for image in clip.image.numpy()[:5]]
    mirrored = PillowImage.Exif()
    mirrored[0x0112] = 2
    pictures[0].save(folder / "a.bmp")
    pictures[1].save(folder / "b c.png")
    pictures[2].transpose(PillowImage.Transpose.FLIP_LEFT_RIGHT).save(
        folder / "d.png", exif=mirrored
    )
    turned = PillowImage.Exif()
    turned[0x0112] = 6
    pictures[3].transpose(PillowImage.Transpose.ROTATE_90).save(folder / "e.png", exif=turned)
    pictures[4].convert("CMYK").save(folder / "f.jpg", quality=95)
    run = exact_run(clip, open_source(folder), tmp_path / "run")
    found = saved(run, tmp_path / "out")
    assert [name for name, _ in found] == [
        *("000000.png", "000001.png", "000002.png", "e.png", "000004.png")
    ]
    for number in (0, 1, 2):
        np.testing.assert_array_equal(found[number][1], clip.image[number].numpy())
    assert found[3][1].shape[:2] == (WIDTH, HEIGHT)  # as it is stored
