"""What all commands share."""

import abc
from typing import Annotated

import tyro


def option(metavar: str, default: str | None = None) -> object:
    """How the help shows an option.

    Args:
        metavar: what stands for the value.
        default: what happens without the option, where its default does not say so.
    """
    if default is None:
        return tyro.conf.arg(metavar=metavar)
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


Flag = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]
Debug = Annotated[
    bool,
    tyro.conf.arg(
        help="Show where in the code an error came from, as TTT3R_DEBUG=1 does.",
        help_behavior_hint="",
    ),
]


class Command(abc.ABC):
    """A frozen dataclass whose fields are options; their docstrings are the help texts."""

    debug: bool

    @abc.abstractmethod
    def main(self) -> int:
        """Do it, and return the exit status.

        Raises:
            Ttt3rError: if the user has to mend something.
        """


def bytes_text(count: int) -> str:
    """A number of bytes in a readable unit, such as "1.5 MB"."""
    if count < 1000:
        return f"{count} B"
    size = count / 1000
    for unit in ("kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def duration_text(seconds: float) -> str:
    """A duration as "9.4 s", "3:07 min" or "2:03:07 h"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} h" if hours else f"{minutes}:{rest:02d} min"


def print_pairs(pairs: "list[tuple[str, str]]") -> None:
    """Print names and values in two columns."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print(f"{name:<{width}}  {value}".rstrip())


def print_table(rows: "list[tuple[str, ...]]") -> None:
    """Print rows, the first being the head, in columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
