"""The command ``ttt3r``: one file per command.

Modules here import nothing heavy: a command fetches what it needs when it is run, so that
``ttt3r --help`` answers at once.
"""

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Union, cast

import tyro

import ttt3r
from ttt3r.cli.align import AlignCommand
from ttt3r.cli.command import Command, with_help
from ttt3r.cli.compare import CompareCommand
from ttt3r.cli.convert import ConvertCommand
from ttt3r.cli.doctor import DoctorCommand
from ttt3r.cli.evaluate import EvalCommand
from ttt3r.cli.export import ExportCommand
from ttt3r.cli.fetch import FetchCommand
from ttt3r.cli.info import InfoCommand
from ttt3r.cli.inspect import InspectCommand
from ttt3r.cli.loops import LoopsCommand
from ttt3r.cli.messages import messages, print_error
from ttt3r.cli.models import ModelsCommand
from ttt3r.cli.run import RunCommand
from ttt3r.cli.scale import ScaleCommand
from ttt3r.cli.scene import SceneCommand
from ttt3r.cli.view import ViewCommand
from ttt3r.errors import Ttt3rError
from ttt3r.files import with_user_paths

COMMANDS: dict[str, type[Command]] = {
    "run": RunCommand,
    "info": InfoCommand,
    "inspect": InspectCommand,
    "compare": CompareCommand,
    "loops": LoopsCommand,
    "view": ViewCommand,
    "export": ExportCommand,
    "align": AlignCommand,
    "scale": ScaleCommand,
    "models": ModelsCommand,
    "fetch": FetchCommand,
    "convert": ConvertCommand,
    "scene": SceneCommand,
    "eval": EvalCommand,
    "doctor": DoctorCommand,
}
DESCRIPTION = """Reconstruct 3D from video: camera poses, depth and points while the frames arrive.

Start with: ttt3r run VIDEO

The options of a command: ttt3r COMMAND --help

The version: ttt3r --version
"""

STYLE = (tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff)

USAGE = 2
BROKEN_PIPE = 141  # what a shell reports for a program that SIGPIPE ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: what follows the program's name; None takes it from the command line.

    Returns:
        The exit status: 0, 2 for anything that the user can fix, 128 + n if signal n stopped it.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may hold any bytes
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _answer(words)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader went away, as in `ttt3r models | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return status


def _answer(words: list[str]) -> int:
    if words == ["--version"]:
        print(f"ttt3r {ttt3r.__version__}")
        return 0
    try:
        command = with_user_paths(parse(words or ["--help"]))
    except SystemExit as exit:  # help was shown, or an option is wrong
        return int(exit.code or 0) if words else USAGE
    with messages():
        try:
            return command.main()
        except Ttt3rError as error:
            if command.debug or os.environ.get("TTT3R_DEBUG", "0") not in ("", "0"):
                raise
            print_error(error)
            return USAGE


def parse(words: Sequence[str]) -> Command:
    """Turn words into a command.

    Raises:
        SystemExit: after help was printed, or a message on what is wrong.
    """
    if words[0] in COMMANDS:
        name, *rest = words
        kind = with_help(COMMANDS[name].complete())
        return tyro.cli(kind, prog=f"ttt3r {name}", args=rest, config=STYLE)
    # Help on all of them, or a message on an unknown one.
    choices = tuple(
        Annotated[kind, tyro.conf.subcommand(name, description=_headline(kind))]
        for name, kind in COMMANDS.items()
    )
    return tyro.cli(
        cast(Any, Union[choices]),  # noqa: UP007
        prog="ttt3r",
        description=DESCRIPTION,
        args=words,
        config=STYLE,
    )


def _headline(kind: type[Command]) -> str:
    return (kind.__doc__ or "").partition("\n")[0]
