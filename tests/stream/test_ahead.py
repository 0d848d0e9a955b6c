"""Encoding ahead: the same as one by one, in whatever order a stream is stopped and resumed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import vggt_networks
from tests.networks import random_tiny
from ttt3r import RunFolder, Session, reconstruct
from ttt3r.errors import InputError, SettingError
from ttt3r.models.base import StreamModel, Views
from ttt3r.runs.reader import Run
from ttt3r.stream.ahead import Encoded
from ttt3r.types import Prediction

# Sums of a product come in another order with other numbers of rows: some float32 eps (1.2e-7) of
# values about 1, which the layers of a tiny network and its exponential at the end enlarge.
TOLERANCE = 1e-4


def frames(count: int, height: int = 32, width: int = 48) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return list(generator.integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def assert_alike(ours: Sequence[Prediction], twins: Sequence[Prediction], tolerance: float) -> None:
    assert [p.index for p in ours] == [p.index for p in twins]
    for one, twin in zip(ours, twins, strict=True):
        assert one.segment == twin.segment
        for name in ("points", "confidence", "world_from_camera", "pose_encoding", "image"):
            a, b = getattr(one, name), getattr(twin, name)
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def one_by_one(images: Sequence[np.ndarray], **settings: object) -> list[Prediction]:
    session = Session(random_tiny(), **settings)  # pyright: ignore[reportArgumentType]
    return [session.push(image) for image in images]


class Counting:
    """A network that notes how many frames it encodes at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: StreamModel) -> None:
        self.batches: list[int] = []
        encode = model.encode

        def counted(views: Views):
            assert views.image is not None
            self.batches.append(len(views.image))
            return encode(views)

        monkeypatch.setattr(model, "encode", counted)


@pytest.mark.parametrize("reset", [None, 3, "every(4, overlap=2)", "keyframes(0.5)"])
def test_equals_one_by_one_with_ragged_ends_and_resets(
    monkeypatch: pytest.MonkeyPatch, reset: str | int | None
):
    images, model = frames(7), random_tiny()
    twins = one_by_one(images, reset=reset)
    counting = Counting(monkeypatch, model)
    ours = list(reconstruct(images, model=model, reset=reset, size=48, encode_batch=3))
    assert counting.batches == [3, 3, 3]  # the last holds one frame
    assert_alike(ours, twins, TOLERANCE)


def test_streamvggt_equals_one_by_one():
    images, model = frames(3, 28, 42), vggt_networks.random_tiny("streamvggt")
    session = Session(model)
    twins = [session.push(image) for image in images]
    ours = list(reconstruct(images, model=model, size=42, encode_batch=2))
    assert_alike(ours, twins, TOLERANCE)


def test_frames_that_are_not_remembered():
    images, session = frames(5), Session(random_tiny())
    updates = [True, False, True, False, True]
    ahead = session.encode_ahead(images, 4)
    ours = [session.push(one, update=update) for one, update in zip(ahead, updates, strict=True)]
    twin = Session(random_tiny())
    twins = [twin.push(image, update=update) for image, update in zip(images, updates, strict=True)]
    assert_alike(ours, twins, TOLERANCE)
    for name, tensor in twin.state.to_tensors().items():
        torch.testing.assert_close(
            session.state.to_tensors()[name], tensor, rtol=TOLERANCE, atol=TOLERANCE
        )


def test_images_that_change_their_size_end_a_batch(monkeypatch: pytest.MonkeyPatch):
    images = [*frames(2), *frames(3, 48, 32), *frames(1)]
    twins = one_by_one(images)
    session = Session(random_tiny())
    counting = Counting(monkeypatch, session.model)
    assert_alike(list(session.stream(session.encode_ahead(images, 4))), twins, TOLERANCE)
    assert counting.batches == [4] * 4  # frames 0-1, 2-3, 4 and 5


@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_resuming_is_exact(tmp_path: Path, stop: int):
    """Bit for bit, wherever the run was stopped: a frame keeps its place in its batch."""
    images, model = frames(7), random_tiny()
    settings = {"model": model, "size": 48, "encode_batch": 4, "reset": "every(5, overlap=2)"}
    twins = list(reconstruct(images, **settings))
    with reconstruct(images, out=tmp_path / "run", **settings) as first:
        for _ in range(stop):
            next(first)
    rest = list(reconstruct(images, out=RunFolder(tmp_path / "run", resume=True), **settings))
    assert_alike(rest, twins[stop:], 0.0)
    assert len(Run.open(tmp_path / "run")) == len(images)


def test_a_frame_is_the_same_whoever_is_with_it():
    """What resuming rests on: neighbours in a batch, and empty places, change no bit."""
    images, session = frames(4), Session(random_tiny())
    together = list(session.encode_ahead(images, 4))
    session.push(images[0]), session.push(images[1])
    alone = list(session.encode_ahead(images[2:3], 4))
    assert torch.equal(alone[0].tokens.features, together[2].tokens.features)


def test_a_broken_frame_comes_after_those_before_it():
    images: list[np.ndarray] = [*frames(2), np.zeros((3, 3), np.uint8), *frames(1)]
    session, got = Session(random_tiny()), []
    with pytest.raises(InputError, match="push takes"):
        for prediction in session.stream(session.encode_ahead(images, 4)):
            got.append(prediction.index)
    assert got == [0, 1]


def test_a_stop_is_heard_between_two_frames_of_a_batch(tmp_path: Path):
    asked = iter([False, False, True])
    run = reconstruct(
        frames(6), model=random_tiny(), size=48, encode_batch=4, out=tmp_path / "run",
        stop_when=lambda: next(asked),
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        list(run)
    assert len(Run.open(tmp_path / "run")) == 2


def test_frames_are_encoded_alone_unless_asked(monkeypatch: pytest.MonkeyPatch):
    model = random_tiny()
    counting = Counting(monkeypatch, model)
    list(reconstruct(frames(2), model=model, size=48))
    assert counting.batches == [1, 1]


def test_no_frames_together_are_refused():
    with pytest.raises(SettingError, match="encoded together"):
        reconstruct(frames(1), model=random_tiny(), encode_batch=0)


def test_a_ray_map_comes_with_the_image_itself():
    session = Session(random_tiny())
    (encoded,) = session.encode_ahead(frames(1), 2)
    assert isinstance(encoded, Encoded)
    with pytest.raises(InputError, match="ray map"):
        session.push(encoded, ray_map=torch.zeros(32, 48, 6))
