"""What all commands share."""

import abc
import ast
import inspect
import shlex
import textwrap
from dataclasses import fields
from itertools import pairwise
from typing import Annotated, Any, cast

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

    @classmethod
    def complete(cls) -> "type[Command]":
        """Return the command with options that are known only when it is chosen."""
        return cls

    @abc.abstractmethod
    def main(self) -> int:
        """Do it, and return the exit status.

        Raises:
            Ttt3rError: if the user has to fix something.
        """


def with_help(kind: "type[Command]") -> "type[Command]":
    """Give each option its docstring as one line of help, which `tyro` then wraps.

    Left to itself, `tyro` breaks lines where the source does.
    """
    for part in kind.__mro__:
        try:
            source = textwrap.dedent(inspect.getsource(part))
        except (OSError, TypeError):  # not made by a class statement
            continue
        if part is Command or not issubclass(part, Command):
            continue
        statements = cast(ast.ClassDef, ast.parse(source).body[0]).body
        for field, after in pairwise(statements):
            match field, after:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    described = tyro.conf.arg(help=" ".join(text.split()))
                    part.__annotations__[name] = Annotated[part.__annotations__[name], described]
    return kind


def command_line(verb: str, positional: str, command: Command) -> str:
    """The words that give a command, without those that are the default anyway."""
    words = ["ttt3r", verb, str(getattr(command, positional))]
    for field in fields(cast(Any, command)):
        value = getattr(command, field.name)
        if field.name == positional or value == field.default:
            continue
        words.append("--" + field.name.replace("_", "-"))
        if isinstance(value, tuple):
            words.extend(value)
        elif value is not True:
            words.append(str(value))
    return shlex.join(words)


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
