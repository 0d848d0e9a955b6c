"""Encode frames of a stream some at a time, before the state meets them one by one.

The encoder knows no state, so what it makes of a frame does not depend on what came before. Small
networks spend much of their time on overhead, which several frames share. It needs frames that are
there already: a live stream would wait for the last of them. `docs/benchmarks.md` says what it
gains.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from ttt3r.errors import SettingError
from ttt3r.models.base import StreamModel, Tokens, Views
from ttt3r.spans import span
from ttt3r.stream.placing import PushedImage, Shown, read_image


@dataclass(frozen=True)
class Encoded:
    """A pushed image that is encoded already.

    Attributes:
        shown: the image.
        tokens: what the encoder made of it, a batch of one.
    """

    shown: Shown
    tokens: Tokens


def checked_batch(batch: int) -> int:
    """Return a number of frames to encode together.

    Raises:
        SettingError: if it is below 1.
    """
    if batch < 1:
        raise SettingError(
            f"encode_batch, the number of frames encoded together, is at least 1, not {batch}"
        )
    return batch


def encode_ahead(
    model: StreamModel, images: Iterable[PushedImage], index: int, batch: int
) -> Iterator[Encoded]:
    """Yield images with what the encoder makes of them.

    Frame n is always number n mod `batch` of exactly `batch` frames, of which some may be empty: at
    the ends of a stream, where it was resumed, where images change their size. So the same numbers
    are added up in the same order wherever a stream is stopped and resumed.

    Args:
        model: what encodes.
        images: as `Session.push` takes them.
        index: number of the first one in its stream.
        batch: frames that are encoded together.

    Raises:
        InputError, SettingError: see `Session.push`; after the frames before.
    """
    for first, group in _groups(images, index, batch):
        with span("encode"), torch.no_grad():
            tokens = _encode(model, group, first % batch, batch)
        for shown, its_tokens in zip(group, tokens, strict=True):
            yield Encoded(shown, its_tokens)


def _groups(
    images: Iterable[PushedImage], index: int, batch: int
) -> Iterator[tuple[int, list[Shown]]]:
    """Yield images of one size between two multiples of `batch`, with the number of the first."""
    iterator, failure = iter(images), None
    group: list[Shown] = []
    while True:
        shown = None
        try:
            shown = read_image(next(iterator), index + len(group))
        except StopIteration:
            pass
        except Exception as error:  # the frames before it come first
            failure = error
        if group and (shown is None or shown.pixels.shape != group[0].pixels.shape):
            yield index, group
            index, group = index + len(group), []
        if failure is not None:
            raise failure
        if shown is None:
            return
        group.append(shown)
        if (index + len(group)) % batch == 0:
            yield index, group
            index, group = index + len(group), []


def _encode(model: StreamModel, group: list[Shown], place: int, batch: int) -> list[Tokens]:
    """Encode images as some of a batch, from `place` on; the others are empty."""
    pixels = torch.stack([shown.pixels for shown in group])
    if len(group) < batch:
        whole = pixels.new_zeros(batch, *pixels.shape[1:])
        whole[place : place + len(group)] = pixels
        pixels = whole
    tokens = model.encode(Views(image=pixels.to(model.device, non_blocking=True)))
    if batch == 1:
        return [tokens]
    return [  # copies, so that what is kept of one does not keep them all
        Tokens(tokens.features[at : at + 1].clone(), tokens.size, tokens.has_image[at : at + 1])
        for at in range(place, place + len(group))
    ]
