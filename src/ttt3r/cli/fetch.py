"""``ttt3r fetch``: get published weights onto this machine."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from ttt3r.cli.command import Command, Debug, Flag, command_line, option
from ttt3r.cli.progress import transfer

if TYPE_CHECKING:
    from ttt3r.weights.fetching.consent import Ask


@dataclass(frozen=True)
class FetchCommand(Command):
    """Download published weights, check them, and convert them to load fast.

    Shows the licence first, and asks. Ctrl-C stops; the same command goes on.

    A file that another program has downloaded already is used where it is.
    """

    name: Annotated[tyro.conf.Positional[str], option("NAME")]
    """Name of weights or of a family; ttt3r models lists them."""

    accept_licence: Flag = False
    """Accept the licence of the weights without being asked, as where there is no terminal."""

    half: Flag = False
    """Store the weights as bfloat16, which halves their size and loses accuracy."""

    keep: Flag = False
    """Keep the published file as well."""

    anew: Flag = False
    """Download even what another program has on this machine already."""

    sha256: Annotated[str | None, option("HASH", "the one that ttt3r knows")] = None
    """Hash that the weights must have, if the publisher has put up others; any takes them all."""

    debug: Debug = False

    def main(self) -> int:
        """Fetch."""
        from ttt3r.weights.fetching import fetch, published

        spec = published(self.name)
        try:
            with transfer() as update:
                path = fetch(
                    self.name,
                    accept_licence=self.accept_licence,
                    half=self.half,
                    keep=self.keep,
                    anew=self.anew,
                    sha256=self.sha256,
                    ask=asking(),
                    progress=update,
                )
        except KeyboardInterrupt:
            print(f"stopped. To continue:\n  {command_line('fetch', 'name', self)}")
            return 130
        print(f"{spec.name} is ready: {path}")
        print(f"next: ttt3r run VIDEO --model {spec.name}")
        return 0


def fetch_for(model: str, accept_licence: bool, is_stopped: Callable[[], bool]) -> None:
    """Fetch the weights that a run needs, if they are published ones.

    Raises:
        Ttt3rError: if the weights cannot be fetched.
        KeyboardInterrupt: if the user stops it.
    """
    from pathlib import Path

    from ttt3r.weights import CATALOGUE
    from ttt3r.weights.catalogue import RELEASED
    from ttt3r.weights.fetching import fetch

    known = CATALOGUE.get(model)  # in the order in which `load` looks
    if known is None and not Path(model).expanduser().exists():
        known = RELEASED.get(model)
    if known is None or not known.files:
        return
    with transfer() as update:

        def step(label: str, done: int, total: int | None) -> None:
            if is_stopped():
                raise KeyboardInterrupt
            update(label, done, total)

        fetch(known.name, accept_licence=accept_licence, ask=asking(), progress=step)


def asking() -> "Ask | None":
    """How to ask the user; None where nobody is at a terminal."""
    return ask if sys.stdin.isatty() and sys.stderr.isatty() else None


def ask(text: str) -> bool:
    """Ask a question on the terminal; anything but yes is no."""
    print(f"{text} [y/N] ", end="", file=sys.stderr, flush=True)
    try:
        return input().strip().lower() in ("y", "yes")
    except EOFError:
        return False
