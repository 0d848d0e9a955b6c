"""Sessions over several streams at once, whose frames a network takes as one batch.

Streams of a batch are independent, so each session gets what it would get alone, up to rounding,
in less time: small networks spend much of a step on overhead.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from ttt3r.files import write_atomically
from ttt3r.models.base import StreamModel, Tokens, Views, only_images

T = TypeVar("T")


class Meeting:
    """Threads that meet at every call: the last to come does the work of all.

    Args:
        count: threads; each calls `leave` when it is done.
    """

    def __init__(self, count: int) -> None:
        self._count, self._changed = count, threading.Condition()
        self._asked: list[tuple[Callable[[list[Any]], list[Any]], Any, dict[str, Any]]] = []

    def call(self, work: Callable[[list[Any]], list[Any]], asked: Any) -> Any:
        """Return this thread's part of `work`, which takes what all threads ask for."""
        answer: dict[str, Any] = {}
        with self._changed:
            self._asked.append((work, asked, answer))
            self._work_if_all_are_here()
            self._changed.wait_for(lambda: answer)
        if "error" in answer:
            raise RuntimeError("another stream of the batch failed") from answer["error"]
        return answer["result"]

    def leave(self) -> None:
        """Do not wait for this thread any more."""
        with self._changed:
            self._count -= 1
            self._work_if_all_are_here()

    def _work_if_all_are_here(self) -> None:
        if not self._asked or len(self._asked) < self._count:
            return
        asked, self._asked = self._asked, []
        try:
            results = asked[0][0]([one for _, one, _ in asked])
            for (_, _, answer), result in zip(asked, results, strict=True):
                answer["result"] = result
        except Exception as error:
            for _, _, answer in asked:
                answer["error"] = error
        self._changed.notify_all()


def run_together(jobs: Sequence[Callable[[], T]], model: StreamModel, known: "Known") -> list[T]:
    """Run jobs that push frame after frame into sessions of `model`, in step with one another.

    Args:
        jobs: each pushes frames of one size into one session, under the same rule and reset.
        model: whose steps are done for all jobs at once.
        known: what images became; the same image is encoded once.
    """
    meeting = Meeting(len(jobs))

    def one(job: Callable[[], T]) -> T:
        try:
            return job()
        finally:
            meeting.leave()

    with _in_step(model, meeting, known), ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result() for future in [pool.submit(one, job) for job in jobs]]


class Known:
    """What a network's encoder made of images, which no rule changes.

    Args:
        path: file to read it from, if it is there.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._features: dict[str, torch.Tensor] = {}
        if path is not None and path.exists():
            self._features = torch.load(path)

    def save(self) -> None:
        """Write the file."""
        assert self._path is not None
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, lambda path: torch.save(self._features, path))

    def encode(self, encode: Callable[[Views], Tokens], all_views: list[Views]) -> list[Tokens]:
        """Return the tokens of each view, of which there is one to a batch."""
        images = [only_images(views) for views in all_views]
        keys = [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images]
        new = {key: image for key, image in zip(keys, images, strict=True)}
        new = {key: image for key, image in new.items() if key not in self._features}
        if new:
            features = encode(Views(torch.cat(list(new.values())))).features
            parts = (part.clone() for part in features.split(1))
            self._features.update(zip(new, parts, strict=True))
        return [
            Tokens(self._features[key], (image.shape[2], image.shape[3]), torch.tensor([True]))
            for key, image in zip(keys, images, strict=True)
        ]


@contextmanager
def _in_step(model: Any, meeting: Meeting, known: Known) -> Iterator[None]:
    """Let calls of `encode` and `step` meet."""
    encode, step = model.encode, model.step

    def steps(asked: list[tuple[Any, ...]]) -> list[Any]:
        states, tokens, (rule, *_), (outputs, *_), updates = zip(*asked, strict=True)
        state = states[0].map(lambda *parts: torch.cat(parts), *states[1:])
        features = torch.cat([one.features for one in tokens])
        here = torch.cat([one.has_image for one in tokens])
        batch = Tokens(features, tokens[0].size, here)
        after, reading = step(state, batch, rule, outputs, torch.cat(updates))
        return [
            (after.map(part(i)), reading.map(part(i))) for i in range(len(asked))
        ]  # views of the batch, which nobody changes

    model.encode = lambda views: meeting.call(lambda all_: known.encode(encode, all_), views)
    model.step = lambda *asked: meeting.call(steps, asked)
    try:
        yield
    finally:
        del model.encode, model.step


def part(index: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """One stream's tensor of a batch's."""
    return lambda batch: batch[index : index + 1]
