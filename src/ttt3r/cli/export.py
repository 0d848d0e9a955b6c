"""``ttt3r export``: write a run in the format of other programs."""

import contextlib
import dataclasses
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ttt3r.cli.command import Command, Debug, Flag, option
from ttt3r.cli.progress import memory_text, progress
from ttt3r.cli.stopping import StopRequest
from ttt3r.files import bytes_text

if TYPE_CHECKING:
    from ttt3r.exporters import Option

METAVARS = {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True)
class ExportCommand(Command):
    """Write a run as point clouds, trajectories and folders that other programs read.

    Ctrl-C leaves no files.
    """

    run: Annotated[tyro.conf.Positional[Path], option("RUN")]
    """Folder that ttt3r run wrote."""

    to: Annotated[str, option("FORMAT")]
    """The format."""

    out: Annotated[Path | None, option("PATH", "RUN/export.FORMAT or RUN/FORMAT")] = None
    """File or folder to write."""

    overwrite: Flag = False
    """Replace the file if it exists, or a folder that holds an earlier export and nothing else."""

    quiet: Flag = False
    """Show warnings and errors only."""

    debug: Debug = False

    @classmethod
    def complete(cls) -> type[Command]:
        """Add the options of all formats."""
        from ttt3r.exporters import EXPORTERS

        formats = ", ".join(f"{name} ({exporter.about})" for name, exporter in EXPORTERS.items())
        to = tyro.conf.arg(metavar="FORMAT", help=f"The format: {formats}.")
        by_name: dict[str, dict[str, Option]] = {}
        for format, exporter in EXPORTERS.items():
            for name, item in exporter.options.items():
                by_name.setdefault(name, {})[format] = item
        added = [("to", Annotated[str, to], dataclasses.field())]
        added += [(name, *_field(option_of_formats)) for name, option_of_formats in by_name.items()]
        made = dataclasses.make_dataclass(cls.__name__, added, bases=(cls,), frozen=True)
        made.__doc__ = cls.__doc__
        return made

    def main(self) -> int:
        """Export until the end or a signal."""
        from ttt3r.exporters import EXPORTERS, export
        from ttt3r.files import user_path
        from ttt3r.runs.reader import Run

        run = Run.open(self.run)
        exporter = EXPORTERS.get(self.to)
        name = f"export.{self.to}" if exporter is None else exporter.default_name(self.to)
        out = user_path(self.out or run.folder / name)
        shown = progress(len(run), 0, memory_text, quiet=self.quiet, brief=True)
        written = None
        with StopRequest() as stop, contextlib.suppress(KeyboardInterrupt), shown as update:

            def done(frames: int) -> None:
                update(frames)
                if stop.signal:
                    raise KeyboardInterrupt

            options = self._options_given()
            written = export(run, self.to, out, overwrite=self.overwrite, done=done, **options)
        if written is None:
            print("stopped; nothing was written")
            return stop.status
        if not self.quiet:
            print(f"wrote {written.path}: {written.what}, {bytes_text(_size(written.path))}")
        return 0

    def _options_given(self) -> dict[str, Any]:
        """Options of formats that were given on the command line."""
        own = {field.name for field in dataclasses.fields(ExportCommand)}
        given = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in own
        }
        return {n: value for n, value in given.items() if value is not None and value is not False}


def _field(of_formats: "dict[str, Option]") -> tuple[Any, Any]:
    """Type and default of a field for an option that one or more formats have."""
    first = next(iter(of_formats.values()))
    texts: dict[str, list[str]] = {}
    defaults: dict[str, list[str]] = {}
    for format, item in of_formats.items():
        texts.setdefault(item.about, []).append(format)
        if item.default is not None and item.default is not False:
            defaults.setdefault(str(item.default), []).append(format)
    about = " ".join(f"For {', '.join(names)}: {text}" for text, names in texts.items())
    if first.default is False:
        return (
            Annotated[bool, tyro.conf.arg(help=about, help_behavior_hint="")],
            dataclasses.field(default=False),
        )
    default = next(iter(defaults), "")
    if len(defaults) > 1:
        default = "; ".join(f"{', '.join(names)}: {text}" for text, names in defaults.items())
    hint = f"(default: {default})" if default else ""
    argument = tyro.conf.arg(metavar=_metavar(first.type), help=about, help_behavior_hint=hint)
    return Annotated[first.type | None, argument], dataclasses.field(default=None)


def _metavar(kind: Any) -> str:
    if isinstance(kind, types.UnionType):
        (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
    if typing.get_origin(kind) is typing.Literal:
        return "{" + ",".join(typing.get_args(kind)) + "}"
    return METAVARS[kind]


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())
