"""What an exporter is, and which options it takes."""

import inspect
import re
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ttt3r.errors import SettingError


class Option(typing.NamedTuple):
    """An option of a format, as its exporter's signature and docstring state it."""

    type: Any
    default: Any
    about: str


@dataclass(frozen=True)
class Exporter:
    """How one format is written.

    Attributes:
        write: ``(predictions, path, *, option=default, …) -> str``. It creates `path`, a file or,
            if `folder`, the content of an empty folder, and returns what it wrote in a few words
            that begin with a number, such as "1,204 points". `path` has the name that was asked
            for, but lies in a temporary place: it is moved once everything is written, and removed
            after an error. Predictions come once, in order; at most a few may be in memory.
            Options are keyword-only, with a default, and described in the docstring's Args.
            Optional packages are imported inside, and raise MissingExtraError if they are missing.
        about: what it is, for the help: "a coloured point cloud".
        folder: writes a folder, not a file.
        needs_run: the first argument is a `Run`, which can be gone through several times and knows
            what it was made from; other predictions are refused.
        suffix: of the file where the user gives no name; None takes the format's name.
        y_down: whether the world must have y down, for a path to write: because the format, or who
            reads it, has a fixed direction that is up. A run that was moved is turned for it.
    """

    write: Callable[..., str]
    about: str
    folder: bool = False
    needs_run: bool = False
    suffix: str | None = None
    y_down: Callable[[Path], bool] = lambda path: False

    @cached_property
    def options(self) -> dict[str, Option]:
        """The options by name."""
        hints = typing.get_type_hints(self.write, include_extras=True)
        texts = dict(_described(inspect.getdoc(self.write) or ""))
        return {
            name: Option(hints[name], parameter.default, texts.get(name, ""))
            for name, parameter in inspect.signature(self.write).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }

    def default_name(self, format: str) -> str:
        """What a file or folder of this format is called where the user gives no name."""
        return format if self.folder else f"export{self.suffix or f'.{format}'}"

    def check_names(self, format: str, given: dict[str, Any]) -> None:
        """Refuse options that the format does not have.

        Raises:
            SettingError: naming them, and those there are.
        """
        unknown = [name for name in given if name not in self.options]
        if unknown:
            raise SettingError(
                f"the format {format} has no option {', '.join(unknown)}; "
                f"it takes {', '.join(self.options) or 'none'}"
            )


def _described(docstring: str) -> Iterator[tuple[str, str]]:
    """Names and texts of a docstring's section Args."""
    section = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n)*)", docstring, re.MULTILINE)
    for match in re.finditer(
        r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section[1] if section else "", re.MULTILINE
    ):
        yield match[1], " ".join(match[2].split())
