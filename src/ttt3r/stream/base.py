"""What sessions have in common: settings and progress, and how both are saved and loaded."""

import abc
import copy
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r import values
from ttt3r.errors import SessionError
from ttt3r.files import write_atomically
from ttt3r.models.base import SetModel, StreamModel, check_outputs
from ttt3r.stream import resets, stitching
from ttt3r.stream.placing import PushedImage
from ttt3r.types import Prediction

FORMAT = "ttt3r-session-1"

# `typing.Self` cannot be checked by beartype on single methods, hence the variable.
AnySession = TypeVar("AnySession", bound="SessionBase")


@dataclass(frozen=True)
class Progress:
    """All that changes while a session runs; replaced as a whole, so never half-way.

    Attributes:
        state: what is remembered.
        index: frames taken in so far.
        segment: number of the segment that the next frame belongs to.
        world_from_segment: similarity that places a segment, float64.
    """

    state: Any
    index: int
    segment: int
    world_from_segment: Float[Tensor, "4 4"]


class SessionBase(abc.ABC):
    """Settings of a session, and its progress.

    Args:
        model: the network.
        rule: how its state is updated.
        state: what is remembered before the first frame.
        reset: when to start a new segment, see `Session`.
        outputs: what to compute, see `Session`.
        stitch: how segments are joined, see `Session`.

    Raises:
        SettingError: if a name is unknown, or the model cannot give an output.
    """

    def __init__(
        self,
        model: Any,
        rule: Any,
        state: Any,
        reset: "str | int | resets.ResetPolicy | None",
        outputs: Collection[str],
        stitch: "str | stitching.Stitching | None",
    ) -> None:
        self.model, self.rule = model, rule
        self.reset = resets.parse(reset)
        self.stitch = stitching.parse(stitch, model.capabilities.metric_scale)
        self.outputs = check_outputs((outputs,) if isinstance(outputs, str) else outputs)
        model.capabilities.check(self.outputs)
        self._progress = Progress(state, 0, 0, torch.eye(4, dtype=torch.float64))

    @property
    def state(self) -> Any:
        """Everything that is remembered, a frozen dataclass of tensors (batch of one)."""
        return self._progress.state

    @property
    def index(self) -> int:
        """Number of frames taken in so far."""
        return self._progress.index

    @property
    def segment(self) -> int:
        """Number of the segment that the next frame belongs to."""
        return self._progress.segment

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device

    @abc.abstractmethod
    def stream(self, images: Iterable[PushedImage]) -> Iterator[Prediction]:
        """Take in frames, and say of each what it shows.

        Args:
            images: as `Session.push` takes them.

        Raises:
            InputError, SettingError: see `Session.push`.
        """

    def fork(self: AnySession) -> AnySession:
        """Return a second session that continues from here on its own."""
        return copy.copy(self)  # every field is immutable or replaced, never changed in place

    def save(self, path: str | Path) -> None:
        """Write all that is needed to go on later; a few MB, whatever the stream's length.

        Raises:
            SessionError: if the file cannot be written; an older file there is left as it was.
        """
        path = Path(path)
        tensors = {
            f"state.{name}": tensor.detach().cpu().contiguous()
            for name, tensor in self.state.to_tensors().items()
        }
        tensors["world_from_segment"] = self._progress.world_from_segment
        header = {
            "format": FORMAT,
            "model": {"name": self.model.weights.name, "sha256": self.model.weights.sha256},
            "rule": values.to_text(self.rule),
            "reset": values.to_text(self.reset),
            "stitch": values.to_text(self.stitch),
            "outputs": sorted(self.outputs),
            "index": self.index,
            "segment": self.segment,
        }
        content = safetensors.torch.save(tensors, {"ttt3r": json.dumps(header, sort_keys=True)})
        try:
            write_atomically(path, lambda file: file.write_bytes(content), sync=True)
        except OSError as error:
            raise SessionError(
                f"cannot save the session to {path}: {error}. Check that the folder exists, is "
                "writable and has space left."
            ) from error

    @classmethod
    @abc.abstractmethod
    def begin(
        cls: type[AnySession], model: StreamModel | SetModel, settings: dict[str, Any]
    ) -> AnySession:
        """Return a fresh session of a saved one's "rule", "reset", "outputs" and "stitch".

        Raises:
            SettingError: if they are those of another kind of session.
        """

    @classmethod
    def load(cls: type[AnySession], path: str | Path, model: StreamModel | SetModel) -> AnySession:
        """Continue a saved session; what follows is bit-equal to never having stopped.

        Args:
            path: a file that `save` wrote.
            model: the model it was saved with; the device may differ.

        Raises:
            SessionError: if the file is not a session, or belongs to other weights.
        """
        header, tensors = _read_session(Path(path))
        saved = header["model"]
        if saved["sha256"] != model.weights.sha256:
            raise SessionError(
                f"{path} was saved with the weights {saved['name']!r} (sha256 "
                f"{saved['sha256'][:12]}…), not with {model.weights.name!r} (sha256 "
                f"{model.weights.sha256[:12]}…). Load those weights to resume it."
            )
        session = cls.begin(model, header)
        state = {
            name.removeprefix("state."): tensor
            for name, tensor in tensors.items()
            if name.startswith("state.")
        }
        session._progress = Progress(
            session.state.with_tensors(state),
            header["index"],
            header["segment"],
            tensors["world_from_segment"],
        )
        return session


def _read_session(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("ttt3r", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError, ValueError) as error:
        raise SessionError(f"cannot read the session {path}: {error}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise SessionError(
            f"{path} is not a session of this version of ttt3r (expected format {FORMAT})"
        )
    return header, tensors
