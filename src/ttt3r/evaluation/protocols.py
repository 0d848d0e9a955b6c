"""Protocols: what is shown of a dataset, and how it is scored, under a name that says so.

A name is ``DATASET/strideK/N`` or ``DATASET/strideK/N/corrected``: every K-th frame, of these the
first N (or "all"). ``step`` may stand for ``stride``, as papers on reconstruction write it. The
same name means different things under different tasks, so a protocol is a task and a name.
"""

import re
from dataclasses import dataclass

from ttt3r.errors import SettingError
from ttt3r.evaluation import datasets
from ttt3r.evaluation.datasets.base import Dataset, Selection, Task, Variant

NAME = re.compile(r"([a-z0-9-]+)/(stride|step)([0-9]+)/([0-9]+|all)(/corrected)?")


@dataclass(frozen=True)
class DepthRule:
    """Which depths count on a dataset.

    Attributes:
        max_depth: true depths of this value and beyond do not, metres; None for no limit.
        clip: aligned predictions are cut to this value, metres; None for no limit.
        double: true depth is float64, so that the published fits run in it; else float32.
    """

    max_depth: float | None = None
    clip: float | None = None
    double: bool = False


DEPTH_RULES = {
    "sintel": DepthRule(max_depth=70.0, clip=70.0),
    "bonn": DepthRule(max_depth=70.0, double=True),
    "kitti": DepthRule(double=True),
}


@dataclass(frozen=True)
class Protocol:
    """What is measured on which frames.

    Attributes:
        task: what is measured.
        dataset: name of the dataset.
        stride: every how many-th frame.
        frames: at most this many of them; None for all.
        variant: "published": selected and scored as published results were, with their oddities.
            "corrected": unknown truth is masked and no scene dropped for it, all lengths are means
            over one set of sequences, frames are paired by time stamp, and depth fits are exact.
    """

    task: Task
    dataset: str
    stride: int = 1
    frames: int | None = None
    variant: Variant = "published"

    def __post_init__(self) -> None:
        if self.stride < 1 or (self.frames is not None and self.frames < 1):
            raise SettingError(f"{self.name}: stride and number of frames must be at least 1")
        if self.task not in self.data.tasks:
            raise SettingError(
                f"{self.data.title} cannot measure {self.task}, only {', '.join(self.data.tasks)}"
            )

    @property
    def name(self) -> str:
        """The name, without the variant."""
        step = "step" if self.task == "recon" else "stride"
        return f"{self.dataset}/{step}{self.stride}/{self.frames or 'all'}"

    @property
    def full_name(self) -> str:
        """The name, with the variant where it is not the published one."""
        return self.name if self.variant == "published" else f"{self.name}/{self.variant}"

    @property
    def data(self) -> Dataset:
        """Reader of the dataset.

        Raises:
            SettingError: if there is none of this name.
        """
        return datasets.named(self.dataset)

    @property
    def selection(self) -> Selection:
        """Which frames to show."""
        return Selection(self.task, self.stride, self.frames, self.variant)

    @property
    def depth_rule(self) -> DepthRule:
        """Which depths count."""
        return DEPTH_RULES.get(self.dataset, DepthRule())


def parse(task: Task, name: str) -> Protocol:
    """Return the protocol of this name.

    Raises:
        SettingError: if the name has another form, or the dataset is unknown or has no such task.
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise SettingError(
            f"{name!r} names no protocol. Names are DATASET/strideK/N or DATASET/strideK/all, with "
            f"/corrected behind it if wanted. Published ones:\n{listing()}"
        )
    dataset, _, stride, frames, corrected = match.groups()
    count = None if frames == "all" else int(frames)
    variant = "corrected" if corrected else "published"
    return Protocol(task, dataset, int(stride), count, variant)


@dataclass(frozen=True)
class Known:
    """A protocol that published tables use.

    Attributes:
        protocol: what it is.
        shows: where it is used.
        lengths: the lengths of the published curve, () for a single number.
    """

    protocol: Protocol
    shows: str
    lengths: tuple[int, ...] = ()


def _series(start: tuple[int, ...], last: int, step: int = 100) -> tuple[int, ...]:
    return (*start, *range(start[-1] // step * step + step, last + 1, step))


def known() -> tuple[Known, ...]:
    """Return the protocols of published tables and figures."""
    tum, scannet = _series((50, 100, 150, 200), 1000), _series((50, 90, 100, 150, 200), 1000)
    depth = tuple(range(50, 501, 50))
    return (
        Known(parse("pose", "tum-dynamics/stride1/1000"), "ATE against length", tum),
        Known(parse("pose", "scannet/stride3/1000"), "ATE against length", scannet),
        Known(parse("pose", "tum-dynamics/stride3/90"), "short clips"),
        Known(parse("pose", "scannet/stride3/90"), "short clips"),
        Known(parse("pose", "sintel/stride1/all"), "short clips"),
        Known(parse("depth", "kitti/stride1/500"), "AbsRel against length", depth),
        Known(parse("depth", "bonn/stride1/500"), "AbsRel against length", depth),
        Known(parse("depth", "kitti/stride1/110"), "short clips"),
        Known(parse("depth", "bonn/stride1/110"), "short clips"),
        Known(parse("depth", "sintel/stride1/all"), "short clips"),
        Known(
            parse("recon", "7scenes/step2/400"),
            "Chamfer and NC against length",
            tuple(range(50, 401, 50)),
        ),
        Known(parse("recon", "7scenes/step2/200"), "re-run tables"),
        Known(parse("recon", "7scenes/step40/all"), "sparse views"),
        Known(parse("recon", "7scenes/step200/all"), "sparse views"),
        Known(parse("recon", "nrgbd/step100/all"), "sparse views"),
        Known(parse("recon", "nrgbd/step500/all"), "sparse views"),
    )


def listing() -> str:
    """Return the published protocols as lines of task, name and use."""
    return "\n".join(f"  {k.protocol.task:<6} {k.protocol.name:<26} {k.shows}" for k in known())
